//! Section `[[desk.mail]]` of the configuration: one mailbox each.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use lettre::message::Mailbox as Named;
use serde::{Deserialize, Serialize};

use crate::core::alert::{Pattern, Severity};
use crate::desk::webhook::address::not_public;
use crate::desk::webhook::settings::{BadSettings as BadEndpoint, Deliver, DigestAt, Endpoint, QuietHours, Url};

/// An environment variable that may hold a password begins so; the mailbox's name follows, see [`Mailbox::password_variable`].
pub const PASSWORD_VARIABLE_PREFIX: &str = "MAILFUSE_MAIL_PASSWORD_";
/// Recipients of one mailbox; more of them are a mailing list's work.
pub const RECIPIENTS_MAX: usize = 32;
/// Bytes of a password.
const PASSWORD_BYTES_MAX: usize = 1024;

/// Whom alerts are mailed to, which of them, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mailbox {
    /// What it is called in records, logs and metrics: letters, digits, `-` and `_`. No webhook may have the same name.
    pub name: String,
    /// Who gets the mail: `abuse@example.org`, or `Abuse desk <abuse@example.org>`.
    pub to: Vec<String>,
    /// Who sends it, in the same form. Its domain is also that of the `Message-ID`.
    pub from: String,
    /// Through which server, `host:port`. It should lie outside the watched pool.
    pub smart_host: String,
    /// How the connection is protected.
    pub security: Security,
    /// Whether `security = "plain"` may leave loopback and private networks.
    pub allow_plain: bool,
    /// Who we are to the smart host. Empty: it is not told, and no password is needed.
    pub username: String,
    /// A file that holds the password. Empty: the environment variable `MAILFUSE_MAIL_PASSWORD_<NAME>`.
    pub password_file: String,
    /// Certificates of authorities that the smart host is trusted by, PEM. Empty: the system's.
    pub ca_file: String,
    /// Each alert, one mail an incident, or one a day.
    pub deliver: Deliver,
    /// With `deliver = "digest"`: when.
    pub digest_at: DigestAt,
    /// The least severity that is sent.
    pub min_severity: Severity,
    /// Kinds that are sent (`account.flagged`, …). Empty: all.
    pub kinds: Vec<String>,
    /// Tenants whose alerts are sent. Empty: all.
    pub tenants: Vec<String>,
    /// Patterns that are sent. Empty: all.
    pub patterns: Vec<Pattern>,
    /// Whether it gets heartbeats, and nothing else.
    pub heartbeat: bool,
    /// When `warning` is held back until they end; `critical` never is.
    pub quiet_hours: Option<QuietHours>,
    /// Connections at a time.
    pub concurrency: u32,
    /// Time for an attempt from the look-up of the name to the last answer, in seconds.
    pub timeout_s: u32,
}

/// How the connection to the smart host is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// Plain at first, then TLS, which must succeed before anything is said (port 587).
    Starttls,
    /// TLS from the first byte (port 465).
    Tls,
    /// None.
    Plain,
}

impl Default for Mailbox {
    fn default() -> Self {
        let routing = Endpoint::default();
        Self {
            name: String::new(),
            to: Vec::new(),
            from: String::new(),
            smart_host: String::new(),
            security: Security::Starttls,
            allow_plain: false,
            username: String::new(),
            password_file: String::new(),
            ca_file: String::new(),
            deliver: routing.deliver,
            digest_at: routing.digest_at,
            min_severity: routing.min_severity,
            kinds: routing.kinds,
            tenants: routing.tenants,
            patterns: routing.patterns,
            heartbeat: routing.heartbeat,
            quiet_hours: routing.quiet_hours,
            concurrency: 2,
            // A smart host that looks into mail takes longer than an HTTP server.
            timeout_s: 30,
        }
    }
}

/// A password. It shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl Password {
    /// The end of its line does not count, spaces do.
    ///
    /// # Errors
    /// Where it is empty, longer than any password is, or has control characters.
    pub fn new(text: &str) -> Result<Self, BadPassword> {
        let text = text.trim_end_matches(['\r', '\n']);
        let fine = !text.is_empty() && text.len() <= PASSWORD_BYTES_MAX && !text.contains(char::is_control);
        if fine { Ok(Self(text.to_owned())) } else { Err(BadPassword::Form) }
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// A password that cannot be had. It shows nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPassword {
    /// None is given.
    #[error("desk.mail `{mailbox}` has a username and no password: name a file in password_file, or set {variable}")]
    Missing {
        /// The mailbox's name.
        mailbox: String,
        /// The environment variable that would hold it.
        variable: String,
    },
    /// Its file cannot be read.
    #[error("desk.mail `{mailbox}`: password_file: {path}: {why}")]
    Read {
        /// The mailbox's name.
        mailbox: String,
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// None at all.
    #[error("a password of the smart host is one line of 1 to 1024 bytes")]
    Form,
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// A mailbox's key, by the mailbox's name.
    #[error("desk.mail `{mailbox}`: {key}: {cure}")]
    Key {
        /// The mailbox's name.
        mailbox: String,
        /// Which key.
        key: &'static str,
        /// What is wrong, and what would be right.
        cure: &'static str,
    },
    /// Two with one name.
    #[error(
        "desk.mail: `{0}` is the name of another mailbox or webhook, or their environment variables would be the same: rename one"
    )]
    Twice(String),
}

/// Checks all mailboxes. `endpoints`: the webhooks beside them, as deliveries are recorded by name.
///
/// # Errors
/// Where one cannot be used, or two have one name.
pub fn check(mailboxes: &[Mailbox], endpoints: &[Endpoint]) -> Result<(), BadSettings> {
    let mut seen: BTreeSet<String> = endpoints.iter().map(|e| variable(&e.name)).collect();
    for mailbox in mailboxes {
        mailbox.check()?;
        if !seen.insert(variable(&mailbox.name)) {
            return Err(BadSettings::Twice(mailbox.name.clone()));
        }
    }
    Ok(())
}

/// Who sends and who gets it, as read from the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub(super) from: Named,
    pub(super) to: Vec<Named>,
}

/// Where the smart host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    /// Without the brackets of an IPv6 address.
    pub(super) name: String,
    pub(super) port: u16,
}

impl Mailbox {
    /// Checks what does not depend on the world.
    ///
    /// # Errors
    /// Where a value cannot be used; the error names its key and what would be right.
    pub fn check(&self) -> Result<(), BadSettings> {
        // What routing needs has one set of rules: an endpoint's, with an address that is fine.
        let url = Url("https://smart-host.invalid/".to_owned());
        if let Err(BadEndpoint::Key { key, cure, .. }) = (Endpoint { url, ..self.endpoint() }).check() {
            return Err(self.bad(key, cure));
        }
        self.addresses()?;
        let host = self.host()?;
        let public = host.name.parse::<IpAddr>().is_ok_and(|ip| not_public(ip).is_none());
        if self.security == Security::Plain && public && !self.allow_plain {
            return Err(self.bad("security", "plain would cross the Internet: use starttls or tls, or set allow_plain"));
        }
        let bad_name = self.username.contains(char::is_control) || self.username.len() > PASSWORD_BYTES_MAX;
        if bad_name {
            return Err(self.bad("username", "must be one line of at most 1024 bytes"));
        }
        if self.username.is_empty() && !self.password_file.is_empty() {
            return Err(self.bad("password_file", "a password needs its username"));
        }
        Ok(())
    }

    fn bad(&self, key: &'static str, cure: &'static str) -> BadSettings {
        BadSettings::Key { mailbox: self.name.clone(), key, cure }
    }

    /// An endpoint that stands for it wherever routing, grouping and outbox look at one: same name, same choices. Its address
    /// only says where mail goes, and no webhook client takes it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            name: self.name.clone(),
            url: Url(format!("smtp://{}", self.smart_host)),
            deliver: self.deliver,
            digest_at: self.digest_at.clone(),
            min_severity: self.min_severity,
            kinds: self.kinds.clone(),
            tenants: self.tenants.clone(),
            patterns: self.patterns.clone(),
            heartbeat: self.heartbeat,
            quiet_hours: self.quiet_hours.clone(),
            concurrency: self.concurrency,
            timeout_s: self.timeout_s,
            ..Endpoint::default()
        }
    }

    /// Who sends and who gets it.
    ///
    /// # Errors
    /// Where one is no address, or there is nobody to send to.
    pub fn addresses(&self) -> Result<Addresses, BadSettings> {
        let from = address(&self.from).map_err(|cure| self.bad("from", cure))?;
        if !(1..=RECIPIENTS_MAX).contains(&self.to.len()) {
            return Err(self.bad("to", "name 1 to 32 addresses; for more of them a mailing list"));
        }
        let mut to = Vec::<Named>::new();
        for text in &self.to {
            let one = address(text).map_err(|cure| self.bad("to", cure))?;
            if to.iter().any(|other| other.email == one.email) {
                return Err(self.bad("to", "an address is named twice: leave one out"));
            }
            to.push(one);
        }
        Ok(Addresses { from, to })
    }

    pub(super) fn host(&self) -> Result<Host, BadSettings> {
        let cure =
            "must be host:port, as `smtp.example.org:587` or `[2001:db8::1]:25`; other letters in their xn-- form";
        let bad = || self.bad("smart_host", cure);
        let (name, port) = self.smart_host.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(bad)?;
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let fine = match inner {
            Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host_name(name),
        };
        if fine { Ok(Host { name: inner.unwrap_or(name).to_owned(), port }) } else { Err(bad()) }
    }

    /// The environment variable that may hold the password: the name in capitals, `_` for what is neither letter nor digit.
    pub fn password_variable(&self) -> String {
        format!("{PASSWORD_VARIABLE_PREFIX}{}", variable(&self.name))
    }

    /// The password, by way of `file` (which reads a text) and `variable` (which reads the environment). `None` without a
    /// username.
    ///
    /// # Errors
    /// Where it is missing, cannot be read, or is none. Errors never hold any of it.
    pub fn password(
        &self,
        file: impl Fn(&Path) -> std::io::Result<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Password>, BadPassword> {
        if self.username.is_empty() {
            return Ok(None);
        }
        let text = match self.password_file.as_str() {
            "" => variable(&self.password_variable()).ok_or_else(|| BadPassword::Missing {
                mailbox: self.name.clone(),
                variable: self.password_variable(),
            })?,
            path => file(Path::new(path)).map_err(|e| BadPassword::Read {
                mailbox: self.name.clone(),
                path: path.to_owned(),
                why: e.kind().to_string(),
            })?,
        };
        Password::new(&text).map(Some)
    }
}

fn variable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    name.chars().map(plain).collect()
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.strip_suffix('.').unwrap_or(name).split('.').all(label)
}

/// Reads an address. One with other letters than ASCII needs SMTPUTF8, which an alert does not depend on.
fn address(text: &str) -> Result<Named, &'static str> {
    if text.contains(char::is_control) || text.len() > 512 {
        return Err("an address is one short line");
    }
    let named: Named = text.parse().map_err(|_| "not an address: `abuse@example.org` or `Desk <abuse@example.org>`")?;
    if !named.email.to_string().is_ascii() {
        return Err("an address must be ASCII: write its domain in the xn-- form");
    }
    if !is_host_name(named.email.domain()) {
        return Err("an address must end in a domain's name");
    }
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = 'desk-mail'\nto = ['Abuse <abuse@example.org>']\nfrom = 'mailfuse@example.org'\nsmart_host = 'smtp.example.net:587'\n";

    fn mailbox(lines: &str) -> Mailbox {
        toml::from_str(lines).unwrap()
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        assert_eq!(mailbox(GOOD).check(), Ok(()));
        for (more, key) in [
            ("name = ''", "name"),
            ("name = 'a b'", "name"),
            ("to = []", "to"),
            ("to = ['abuse']", "to"),
            ("to = ['a@example.org', 'A <a@example.org>']", "to"),
            ("to = [\"a@example.org\\r\\nBcc: b@example.org\"]", "to"),
            ("to = ['jörg@example.org']", "to"),
            ("from = ''", "from"),
            ("from = 'a@[192.0.2.1]'", "from"),
            ("from = 'a@bücher.example'", "from"),
            ("smart_host = 'smtp.example.net'", "smart_host"),
            ("smart_host = 'smtp.example.net:0'", "smart_host"),
            ("smart_host = '2001:db8::1:25'", "smart_host"),
            ("smart_host = 'a b:25'", "smart_host"),
            ("smart_host = '8.8.8.8:25'\nsecurity = 'plain'", "security"),
            ("password_file = 'x'", "password_file"),
            ("timeout_s = 14", "timeout_s"),
            ("concurrency = 0", "concurrency"),
            ("kinds = ['']", "kinds"),
            ("quiet_hours = { hours = '22-7', zone = 'Europe/Berlin' }", "quiet_hours"),
        ] {
            let key_of = more.split(' ').next().unwrap();
            let kept: Vec<_> = GOOD.lines().filter(|line| !line.starts_with(key_of)).collect();
            let error = mailbox(&format!("{}\n{more}", kept.join("\n"))).check().unwrap_err().to_string();
            assert!(error.contains(&format!(": {key}")), "{more}: {error}");
        }
        assert!(toml::from_str::<Mailbox>("nmae = 'x'").is_err());
        for fine in [
            "smart_host = '[::1]:25'\nsecurity = 'plain'",
            "smart_host = '8.8.8.8:25'\nsecurity = 'plain'\nallow_plain = true",
        ] {
            let kept: Vec<_> = GOOD.lines().filter(|line| !line.starts_with("smart_host")).collect();
            assert_eq!(mailbox(&format!("{}\n{fine}", kept.join("\n"))).check(), Ok(()), "{fine}");
        }
    }

    #[test]
    fn names_are_those_of_one_mailbox_or_webhook() {
        let other = mailbox(&GOOD.replace("desk-mail", "DESK_MAIL"));
        assert_eq!(check(&[mailbox(GOOD), other.clone()], &[]), Err(BadSettings::Twice("DESK_MAIL".into())));
        assert_eq!(check(&[other], &[mailbox(GOOD).endpoint()]), Err(BadSettings::Twice("DESK_MAIL".into())));
        assert_eq!(check(&[mailbox(GOOD)], &[]), Ok(()));
    }

    #[test]
    fn a_password_comes_from_a_file_or_the_environment() {
        let nothing = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        let m = mailbox(&format!("{GOOD}username = 'mailfuse'"));
        let named = |name: &str| (name == "MAILFUSE_MAIL_PASSWORD_DESK_MAIL").then(|| "hunter2 \r\n".to_owned());
        let password = m.password(nothing, named).unwrap().unwrap();
        assert_eq!((password.reveal(), format!("{password:?}").contains("hunter2")), ("hunter2 ", false));
        let error = m.password(nothing, |_| None).unwrap_err().to_string();
        assert!(error.contains("password_file") && error.contains("MAILFUSE_MAIL_PASSWORD_DESK_MAIL"), "{error}");
        let error = m.password(nothing, |_| Some("hunter2\nhunter3".into())).unwrap_err().to_string();
        assert!(!error.contains("hunter"), "{error}");
        let filed = Mailbox { password_file: "p".into(), ..m };
        assert_eq!(filed.password(|_| Ok("x\n".into()), |_| None).unwrap().unwrap().reveal(), "x");
        assert!(filed.password(nothing, |_| None).unwrap_err().to_string().contains("password_file"));
        assert_eq!(mailbox(GOOD).password(nothing, |_| None), Ok(None));
    }
}
