//! The sender: one mail, one connection, one transaction, one judgement. Nothing that a server answers is kept but its code.
//!
//! A recipient that is refused does not keep a mail from the others. Where some are only put off, the others get theirs and the
//! attempt is to be repeated; it is remembered who has it, so that nobody gets it twice while the program runs.

use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{Error as SmtpError, response::Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::desk::webhook::address::not_public;
use crate::desk::webhook::body::Message;
use crate::desk::webhook::client::{CONNECT_WITHIN, connect_trouble, tls_trouble};
use crate::desk::webhook::outcome::Outcome;

use super::render::{CannotRender, Mail, render};
use super::settings::{Addresses, BadPassword, BadSettings, Host, Mailbox, Password, Security};
use super::wire::Guarded;

/// Time for saying goodbye, when all is done.
const QUIT_WITHIN: Duration = Duration::from_secs(2);
/// Mails of which it is remembered who has them.
const PARTLY_SENT_MAX: usize = 256;

/// A mailer that cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BadMailer {
    /// A setting.
    #[error(transparent)]
    Settings(#[from] BadSettings),
    /// The password.
    #[error(transparent)]
    Password(#[from] BadPassword),
    /// The file of authorities.
    #[error("desk.mail `{mailbox}`: ca_file: {path}: {why}")]
    Authorities {
        /// The mailbox's name.
        mailbox: String,
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The library refuses its own settings.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The library refuses the host's name or the authorities.
    #[error("TLS: {0}")]
    StartTls(#[from] SmtpError),
}

type PartlySent = VecDeque<(String, Vec<Address>)>;

/// Sends to one mailbox.
#[derive(Clone)]
pub struct Mailer {
    name: String,
    addresses: Addresses,
    host: Host,
    security: Security,
    allow_plain: bool,
    username: String,
    credentials: Option<Credentials>,
    tls: Arc<ClientConfig>,
    start_tls: TlsParameters,
    within: Duration,
    /// Mails that some recipients have, by `Message-ID`; the oldest first.
    partly_sent: Arc<Mutex<PartlySent>>,
}

impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Mailer");
        shown.field("name", &self.name).field("host", &self.host).field("security", &self.security);
        shown.field("within", &self.within).finish_non_exhaustive()
    }
}

/// Why an attempt came to nothing.
enum Failed {
    Retry(Option<u16>, String),
    Refused(u16, String),
    Blocked(String),
}

fn retry(why: &str) -> Failed {
    Failed::Retry(None, why.to_owned())
}

impl Mailer {
    /// One for a mailbox, with the password that [`Mailbox::password`] has read. It reads the system's certificates, or those
    /// of `ca_file`.
    ///
    /// # Errors
    /// Where a setting cannot be used, a username has no password, or `ca_file` cannot be read or holds no certificate.
    pub fn new(mailbox: &Mailbox, password: Option<&Password>) -> Result<Self, BadMailer> {
        mailbox.check()?;
        let host = mailbox.host()?;
        if !mailbox.username.is_empty() && password.is_none() {
            let (mailbox, variable) = (mailbox.name.clone(), mailbox.password_variable());
            return Err(BadPassword::Missing { mailbox, variable }.into());
        }
        let mut start_tls = TlsParameters::builder(host.name.clone()).certificate_store(CertificateStore::None);
        let mut roots = RootCertStore::empty();
        for certificate in authorities(mailbox)? {
            start_tls = start_tls.add_root_certificate(Certificate::from_der(certificate.to_vec())?);
            roots.add(certificate)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            name: mailbox.name.clone(),
            addresses: mailbox.addresses()?,
            host,
            security: mailbox.security,
            allow_plain: mailbox.allow_plain,
            credentials: credentials(&mailbox.username, password),
            username: mailbox.username.clone(),
            tls: Arc::new(tls),
            start_tls: start_tls.build()?,
            within: Duration::from_secs(mailbox.timeout_s.into()),
            partly_sent: Arc::default(),
        })
    }

    /// The same with another password of the same user. What was partly sent is remembered by both.
    #[must_use]
    pub fn with_password(&self, password: Option<&Password>) -> Self {
        Self { credentials: credentials(&self.username, password), ..self.clone() }
    }

    /// The same with another time for an attempt, where a person waits for it.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// The mail that says a message here. `now_s`: Unix seconds at which it is sent.
    ///
    /// # Errors
    /// Never, short of a defect.
    pub fn prepare(&self, message: &Message, now_s: i64) -> Result<Mail, CannotRender> {
        render(&self.addresses, message, now_s)
    }

    /// Sends a mail. It ends within the mailbox's `timeout_s`, and needs a Tokio runtime with time and I/O.
    pub async fn send(&self, mail: &Mail) -> Outcome {
        match timeout(self.within, self.exchange(mail)).await {
            Err(_) => Outcome::Retry { status: None, after: None, why: "no answer in time".to_owned() },
            Ok(Ok(status)) => Outcome::Delivered { status },
            Ok(Err(Failed::Retry(status, why))) => Outcome::Retry { status, after: None, why },
            Ok(Err(Failed::Refused(status, why))) => Outcome::Refused { status, why },
            Ok(Err(Failed::Blocked(why))) => Outcome::Blocked { why },
        }
    }

    async fn exchange(&self, mail: &Mail) -> Result<u16, Failed> {
        let mut connection = self.greet().await?;
        if let Some(credentials) = &self.credentials {
            let mechanisms = [Mechanism::Plain, Mechanism::Login];
            if connection.server_info().get_auth_mechanism(&mechanisms).is_none() {
                return Err(retry(
                    "it offers neither AUTH PLAIN nor AUTH LOGIN: leave username empty if it needs none",
                ));
            }
            connection.auth(&mechanisms, credentials).await.map_err(|e| trouble(&e, "AUTH"))?;
        }
        let done = self.transact(&mut connection, mail).await;
        let _ = timeout(QUIT_WITHIN, connection.quit()).await;
        done
    }

    /// A connection that is protected as the settings say, and greeted.
    async fn greet(&self) -> Result<AsyncSmtpConnection, Failed> {
        let (stream, peer) = self.connect().await?;
        let me = match stream.local_addr().map(|address| address.ip()) {
            Ok(IpAddr::V4(ip)) => ClientId::Ipv4(ip),
            Ok(IpAddr::V6(ip)) => ClientId::Ipv6(ip),
            Err(_) => return Err(retry("no connection")),
        };
        let greeted = match self.security {
            Security::Tls => {
                let name = ServerName::try_from(self.host.name.clone())
                    .map_err(|_| Failed::Blocked("the host is no name for a certificate".to_owned()))?;
                let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
                let stream = connector.connect(name, stream).await.map_err(|e| retry(tls_trouble(&e)))?;
                AsyncSmtpConnection::connect_with_transport(Box::new(Guarded::new(stream, peer, false)), &me).await
            }
            Security::Starttls | Security::Plain => {
                let guarded = Guarded::new(stream, peer, self.security == Security::Starttls);
                AsyncSmtpConnection::connect_with_transport(Box::new(guarded), &me).await
            }
        };
        let mut connection = greeted.map_err(|e| trouble(&e, "the greeting"))?;
        if self.security == Security::Starttls {
            if !connection.can_starttls() {
                return Err(retry("it offers no STARTTLS: nothing was sent"));
            }
            connection.starttls(self.start_tls.clone(), &me).await.map_err(|e| trouble(&e, "STARTTLS"))?;
        }
        Ok(connection)
    }

    /// Connects to the first address that may be reached and can.
    async fn connect(&self) -> Result<(TcpStream, SocketAddr), Failed> {
        let found = timeout(self.within, tokio::net::lookup_host((self.host.name.as_str(), self.host.port))).await;
        let Ok(Ok(addresses)) = found else { return Err(retry("its name could not be looked up")) };
        let (mut public, mut trouble) = (false, None);
        for address in addresses {
            if self.security == Security::Plain && !self.allow_plain && not_public(address.ip()).is_none() {
                public = true;
                continue;
            }
            match timeout(CONNECT_WITHIN, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((stream, address)),
                Ok(Err(e)) => trouble = Some(connect_trouble(&e)),
                Err(_) => trouble = Some("no connection in time"),
            }
        }
        Err(match trouble {
            None if public => Failed::Blocked(
                "plain would cross the Internet: set security to starttls or tls, or allow_plain if that is meant"
                    .to_owned(),
            ),
            trouble => retry(trouble.unwrap_or("its name has no address")),
        })
    }

    async fn transact(&self, connection: &mut AsyncSmtpConnection, mail: &Mail) -> Result<u16, Failed> {
        let from = MailFrom::new(Some(self.addresses.from.email.clone()), Vec::new());
        connection.command(from).await.map_err(|e| trouble(&e, "MAIL FROM"))?;
        let has_it = self.has_it(&mail.id);
        let (mut taken, mut put_off, mut refused) = (Vec::new(), None, Vec::new());
        for to in self.addresses.to.iter().map(|named| &named.email).filter(|to| !has_it.contains(to)) {
            match connection.command(Rcpt::new(to.clone(), Vec::new())).await.map_err(|e| trouble(&e, "RCPT TO")) {
                Ok(_) => taken.push(to.clone()),
                // 421: it closes the connection.
                Err(Failed::Retry(Some(status), why)) if status != 421 => put_off = Some((status, why)),
                Err(Failed::Refused(status, why)) => refused.push((to, status, why)),
                Err(failed) => return Err(failed),
            }
        }
        if taken.is_empty() {
            return Err(match (put_off, refused.pop()) {
                (Some((status, why)), _) => Failed::Retry(Some(status), why),
                (None, Some((_, status, why))) => Failed::Refused(status, why),
                // Everybody has it, which only a repeat by hand can come to.
                (None, None) => return Ok(250),
            });
        }
        connection.command(Data).await.map_err(|e| trouble(&e, "DATA"))?;
        let answer = connection.message(&mail.bytes).await.map_err(|e| trouble(&e, "the mail"))?;
        for (to, status, _) in &refused {
            tracing::error!(mailbox = self.name, %to, status, "the smart host refuses a recipient: the others have the mail");
        }
        if let Some((status, why)) = put_off {
            // Refused ones are not asked again for the sake of one that was put off.
            taken.extend(refused.iter().map(|(to, ..)| (*to).clone()));
            self.remember(&mail.id, taken);
            return Err(Failed::Retry(Some(status), format!("some recipients: {why}")));
        }
        self.forget(&mail.id);
        Ok(code(&answer))
    }

    fn has_it(&self, id: &str) -> Vec<Address> {
        let partly = self.partly_sent.lock().unwrap_or_else(PoisonError::into_inner);
        partly.iter().find(|(of, _)| of == id).map(|(_, who)| who.clone()).unwrap_or_default()
    }

    fn remember(&self, id: &str, who: Vec<Address>) {
        let mut partly = self.partly_sent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = partly.iter_mut().find(|(of, _)| of == id) {
            before.extend(who);
            return;
        }
        if partly.len() >= PARTLY_SENT_MAX {
            partly.pop_front();
        }
        partly.push_back((id.to_owned(), who));
    }

    fn forget(&self, id: &str) {
        self.partly_sent.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| of != id);
    }
}

/// Without a username nobody has to say who we are.
fn credentials(username: &str, password: Option<&Password>) -> Option<Credentials> {
    let password = password.filter(|_| !username.is_empty())?;
    Some(Credentials::new(username.to_owned(), password.reveal().to_owned()))
}

fn authorities(mailbox: &Mailbox) -> Result<Vec<CertificateDer<'static>>, BadMailer> {
    if mailbox.security == Security::Plain {
        return Ok(Vec::new());
    }
    let parses = |certificate: &CertificateDer<'static>| RootCertStore::empty().add(certificate.clone());
    if mailbox.ca_file.is_empty() {
        // A host without any fails when it sends, with a word on certificates.
        let found = rustls_native_certs::load_native_certs().certs;
        return Ok(found.into_iter().filter(|certificate| parses(certificate).is_ok()).collect());
    }
    let bad =
        |why: String| BadMailer::Authorities { mailbox: mailbox.name.clone(), path: mailbox.ca_file.clone(), why };
    let mut out = Vec::new();
    for certificate in CertificateDer::pem_file_iter(&mailbox.ca_file).map_err(|e| bad(e.to_string()))? {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        parses(&certificate).map_err(|e| bad(e.to_string()))?;
        out.push(certificate);
    }
    if out.is_empty() { Err(bad("holds no certificate in PEM".to_owned())) } else { Ok(out) }
}

fn code(response: &Response) -> u16 {
    response.code().into()
}

// The words are our own: what a server says, certificates included, does not reach a log. Nor does a command, which may be AUTH.

fn trouble(e: &SmtpError, at: &'static str) -> Failed {
    if let Some(status) = e.status().map(u16::from) {
        let why = format!("answered {status} to {at}");
        return if status < 500 { Failed::Retry(Some(status), why) } else { Failed::Refused(status, why) };
    }
    let mut source = e.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            let is_tls = io.get_ref().is_some_and(|e| e.is::<rustls::Error>());
            return retry(if is_tls { tls_trouble(io) } else { "the connection ended, or says too much" });
        }
        source = inner.source();
    }
    retry(if e.is_response() { "its answer is no SMTP" } else { "the exchange broke off" })
}
