//! The mailer against SMTP servers that behave in every way, over real connections; and against Postfix's own, where it is installed.

use crate::desk_webhook_support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use desk_webhook_support::every;
use mail_parser::MessageParser;
use mailfuse::core::alert::{AlertKind, Severity};
use mailfuse::desk::Settings;
use mailfuse::desk::mail::client::Mailer;
use mailfuse::desk::mail::render::Mail;
use mailfuse::desk::mail::settings::{Mailbox, Password, Security};
use mailfuse::desk::sender::{Hands, InForce};
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::record::Attempt;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Far longer than anything takes here: a test that waits so long has failed.
const FAR: Duration = Duration::from_secs(60);
/// For servers that never answer.
const SHORT: Duration = Duration::from_millis(300);

/// How a server behaves.
#[derive(Clone, Default)]
struct Script {
    /// Answers to commands that begin so; the first that fits. `banner` and `.` (the mail) are commands, too. Instead of an
    /// answer: `hang`, `drop`, `flood`.
    answers: Vec<(&'static str, &'static str)>,
    tls: Option<TlsAcceptor>,
    /// TLS from the first byte.
    implicit: bool,
    /// Sent behind the answer to STARTTLS, in the same write.
    behind_starttls: &'static str,
}

/// What a server was told in one transaction.
#[derive(Debug, Clone, Default, PartialEq)]
struct Got {
    tls: bool,
    commands: Vec<String>,
    mail: Vec<u8>,
}

type Seen = Arc<Mutex<Vec<Got>>>;

async fn server(script: Script) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let kept = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream, script.clone(), Arc::clone(&kept)));
        }
    });
    (address, seen)
}

async fn serve(stream: TcpStream, script: Script, seen: Seen) {
    let at = {
        let mut seen = seen.lock().unwrap();
        seen.push(Got::default());
        seen.len() - 1
    };
    let keep = |got: Got| seen.lock().unwrap()[at] = got;
    match (&script.tls, script.implicit) {
        (Some(tls), true) => {
            if let Ok(stream) = tls.accept(stream).await {
                talk(stream, &script, Got { tls: true, ..Got::default() }, true, keep).await;
            }
        }
        (tls, _) => {
            let Some((stream, got)) = talk(stream, &script, Got::default(), true, keep).await else { return };
            if let Ok(stream) = tls.as_ref().unwrap().accept(stream).await {
                talk(stream, &script, Got { tls: true, ..got }, false, keep).await;
            }
        }
    }
}

/// Speaks SMTP; returns the stream where TLS is to begin.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    script: &Script,
    mut got: Got,
    banner: bool,
    keep: impl Fn(Got),
) -> Option<(S, Got)> {
    let mut stream = BufReader::new(stream);
    if banner {
        answer(&mut stream, script, "banner", "220 test ready\r\n").await?;
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        got.commands.push(line.clone());
        keep(got.clone());
        let verb = line.split(' ').next().unwrap().to_ascii_uppercase();
        let usual = match verb.as_str() {
            "EHLO" if script.tls.is_some() && !got.tls => "250-test\r\n250 STARTTLS\r\n",
            "EHLO" => "250-test\r\n250-SIZE 1000000\r\n250 AUTH PLAIN LOGIN\r\n",
            "STARTTLS" => {
                let reply = format!("220 go\r\n{}", script.behind_starttls);
                stream.write_all(reply.as_bytes()).await.ok()?;
                return Some((stream.into_inner(), got));
            }
            "AUTH" => "235 welcome\r\n",
            "DATA" => "354 go\r\n",
            "QUIT" => "221 bye\r\n",
            _ => "250 fine\r\n",
        };
        let sent = answer(&mut stream, script, &line, usual).await?;
        if verb == "DATA" && sent.starts_with('3') {
            while !got.mail.ends_with(b"\r\n.\r\n") {
                stream.read_until(b'\n', &mut got.mail).await.ok().filter(|n| *n > 0)?;
            }
            keep(got.clone());
            answer(&mut stream, script, ".", "250 queued\r\n").await?;
        }
        if verb == "QUIT" {
            return None;
        }
    }
}

async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, script: &Script, to: &str, usual: &str) -> Option<String> {
    let reply = script.answers.iter().find(|(begin, _)| to.starts_with(begin)).map_or(usual, |(_, reply)| reply);
    match reply {
        "hang" => tokio::time::sleep(FAR).await,
        "drop" => return None,
        "flood" => {
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            return None;
        }
        reply => stream.write_all(reply.as_bytes()).await.ok()?,
    }
    Some(reply.to_owned())
}

/// A certificate for `smtp.example` and the loopback names it is given, and the file that makes it trusted.
fn certificate(names: &[&str]) -> (TlsAcceptor, tempfile::NamedTempFile) {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let signed = rcgen::generate_simple_self_signed(names).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), signed.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

fn mailbox(address: SocketAddr, security: Security) -> Mailbox {
    Mailbox {
        name: "desk".into(),
        to: vec!["Abuse desk <abuse@example.org>".into(), "second@example.org".into()],
        from: "mailfuse@example.org".into(),
        smart_host: address.to_string(),
        security,
        ..Mailbox::default()
    }
}

fn mailer(mailbox: &Mailbox) -> Mailer {
    let password = Password::new("hunter2").unwrap();
    Mailer::new(mailbox, Some(&password)).unwrap().within(FAR)
}

fn mail(mailer: &Mailer, account: &str) -> Mail {
    mailer.prepare(&every(AlertKind::Flagged, Severity::Critical, account), 1_772_438_460).unwrap()
}

async fn send(mailer: &Mailer) -> Outcome {
    let mail = mail(mailer, "anna@example.org");
    timeout(FAR, mailer.send(&mail)).await.unwrap()
}

async fn plain(answers: &[(&'static str, &'static str)]) -> (Outcome, Vec<Got>) {
    let (address, seen) = server(Script { answers: answers.to_vec(), ..Script::default() }).await;
    let outcome = send(&mailer(&mailbox(address, Security::Plain))).await;
    let got = seen.lock().unwrap().clone();
    (outcome, got)
}

fn retry(outcome: &Outcome) -> (Option<u16>, &str) {
    match outcome {
        Outcome::Retry { status, after: None, why } => (*status, why),
        other => panic!("{other:?}"),
    }
}

/// A mail as it was sent: what SMTP put before dots is taken away, and its end.
fn undotted(mail: &[u8]) -> String {
    let text = String::from_utf8(mail.to_vec()).unwrap();
    let text = text.strip_suffix("\r\n.\r\n").unwrap();
    text.split("\r\n").map(|line| line.strip_prefix('.').unwrap_or(line)).collect::<Vec<_>>().join("\r\n")
}

#[tokio::test]
async fn a_mail_arrives_as_it_was_made_in_one_transaction() {
    let (address, seen) = server(Script::default()).await;
    let mailer = mailer(&mailbox(address, Security::Plain));
    for account in ["anna@example.org", "a\r\n.\r\nRSET\r\n", "<script>\u{202E}@example.org", ".hidden@example.org"] {
        let mail = mail(&mailer, account);
        assert_eq!(mailer.send(&mail).await, Outcome::Delivered { status: 250 });
        let got = seen.lock().unwrap().pop().unwrap();
        let said = [
            "EHLO [127.0.0.1]",
            "MAIL FROM:<mailfuse@example.org>",
            "RCPT TO:<abuse@example.org>",
            "RCPT TO:<second@example.org>",
            "DATA",
            "QUIT",
        ];
        assert_eq!(got.commands, said);
        assert_eq!(undotted(&got.mail), String::from_utf8(mail.bytes.clone()).unwrap());
        let arrived = undotted(&got.mail);
        let parsed = MessageParser::default().parse(arrived.as_bytes()).unwrap();
        assert_eq!(format!("<{}>", parsed.message_id().unwrap()), mail.id);
        assert!(parsed.in_reply_to().as_text().unwrap().starts_with("in-0011223344556677@"));
        assert!(parsed.body_text(0).unwrap().contains("31 new recipients in 1 h"));
        assert!(parsed.body_html(0).unwrap().contains("31 new recipients in 1 h"));
        assert_eq!(seen.lock().unwrap().len(), 0, "one connection");
    }
}

#[tokio::test]
async fn an_answer_is_judged_by_its_code() {
    for at in ["banner", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        for (reply, code) in [("421 closing\r\n", 421), ("451 later hunter3\r\n", 451)] {
            let (outcome, _) = plain(&[(at, reply)]).await;
            assert_eq!(retry(&outcome).0, Some(code), "{at}");
            assert!(!retry(&outcome).1.contains("hunter3"), "{outcome:?}");
        }
        let (outcome, got) = plain(&[(at, "550-no\r\n550 hunter3\r\n")]).await;
        assert_eq!(outcome.label(), "refused", "{at}: {outcome:?}");
        assert!(matches!(outcome, Outcome::Refused { status: 550, .. }) && !outcome.why().unwrap().contains("hunter3"));
        assert_eq!(got.len(), 1);
    }
    let (outcome, _) = plain(&[(".", "251 elsewhere\r\n")]).await;
    assert_eq!(outcome, Outcome::Delivered { status: 251 });
}

#[tokio::test]
async fn silence_nonsense_and_endings_are_tried_again() {
    for at in ["banner", "EHLO", "RCPT", "."] {
        for how in ["drop", "HTTP/1.1 400 Bad Request\r\n\r\n", "flood", "\r\n", "999 what\r\n"] {
            let (outcome, _) = plain(&[(at, how)]).await;
            assert_eq!(retry(&outcome).0, None, "{at} {how}: {outcome:?}");
        }
        let (address, _) = server(Script { answers: vec![(at, "hang")], ..Script::default() }).await;
        let begun = Instant::now();
        let outcome = send(&mailer(&mailbox(address, Security::Plain)).within(SHORT)).await;
        assert_eq!(retry(&outcome), (None, "no answer in time"), "{at}");
        assert!(begun.elapsed() < FAR / 4);
    }
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let outcome = send(&mailer(&mailbox(unused, Security::Plain))).await;
    assert_eq!(retry(&outcome), (None, "the connection was refused"));
}

#[tokio::test]
async fn one_refused_recipient_keeps_nothing_from_the_others() {
    let (outcome, got) = plain(&[("RCPT TO:<abuse", "550 no such user\r\n")]).await;
    assert_eq!(outcome, Outcome::Delivered { status: 250 });
    assert!(!got[0].mail.is_empty());
    let (outcome, got) = plain(&[("RCPT TO:<abuse", "550 no\r\n"), ("RCPT", "452 later\r\n")]).await;
    assert_eq!(retry(&outcome).0, Some(452));
    assert!(got[0].mail.is_empty() && !got[0].commands.iter().any(|c| c == "DATA"));
}

#[tokio::test]
async fn who_has_a_mail_is_not_sent_it_again_for_the_sake_of_another() {
    let script = Script { answers: vec![("RCPT TO:<second", "450 later\r\n")], ..Script::default() };
    let (address, seen) = server(script).await;
    let mailer = mailer(&mailbox(address, Security::Plain));
    let asked = |got: &Got| got.commands.iter().filter(|c| c.starts_with("RCPT")).cloned().collect::<Vec<_>>();
    assert_eq!(retry(&send(&mailer).await).0, Some(450));
    assert_eq!(retry(&send(&mailer).await).0, Some(450));
    let got = seen.lock().unwrap().clone();
    assert_eq!(asked(&got[0]), ["RCPT TO:<abuse@example.org>", "RCPT TO:<second@example.org>"]);
    assert_eq!(asked(&got[1]), ["RCPT TO:<second@example.org>"]);
    assert_eq!((got[0].mail.is_empty(), got[1].mail.is_empty()), (false, true));
    let mut other = mail(&mailer, "other@example.org");
    other.id = "<other@example.org>".into();
    mailer.send(&other).await;
    assert_eq!(asked(&seen.lock().unwrap()[2]).len(), 2, "another mail goes to both");
}

#[tokio::test]
async fn tls_protects_what_is_said() {
    let (tls, ca) = certificate(&["localhost"]);
    for (security, implicit) in [(Security::Starttls, false), (Security::Tls, true)] {
        let script = Script { tls: Some(tls.clone()), implicit, ..Script::default() };
        let (address, seen) = server(script).await;
        let good = Mailbox {
            smart_host: format!("localhost:{}", address.port()),
            ca_file: ca.path().to_str().unwrap().into(),
            username: "mailfuse".into(),
            ..mailbox(address, security)
        };
        assert_eq!(send(&mailer(&good)).await, Outcome::Delivered { status: 250 });
        let got = seen.lock().unwrap().pop().unwrap();
        assert!(got.tls && !got.mail.is_empty());
        let auth = got.commands.iter().position(|c| c == "AUTH PLAIN AG1haWxmdXNlAGh1bnRlcjI=").unwrap();
        let starttls = got.commands.iter().position(|c| c == "STARTTLS");
        assert_eq!(starttls.is_some_and(|at| at < auth), !implicit, "{:?}", got.commands);

        // Of another name, and of an authority that nobody knows.
        let wrong_name = Mailbox { smart_host: address.to_string(), ..good.clone() };
        let unknown = Mailbox { ca_file: String::new(), ..good.clone() };
        for bad in [wrong_name, unknown] {
            let outcome = send(&mailer(&bad)).await;
            assert_eq!(retry(&outcome), (None, "its certificate is not trusted: see ca_file"));
        }
        let got = seen.lock().unwrap().clone();
        assert!(got.iter().all(|got| got.mail.is_empty() && !got.commands.iter().any(|c| c.starts_with("AUTH"))));
    }
}

#[tokio::test]
async fn without_its_tls_nothing_is_sent() {
    let (tls, ca) = certificate(&["localhost"]);
    let to = |address: SocketAddr, security| Mailbox {
        smart_host: format!("localhost:{}", address.port()),
        ca_file: ca.path().to_str().unwrap().into(),
        username: "mailfuse".into(),
        ..mailbox(address, security)
    };
    let (address, seen) = server(Script::default()).await;
    assert_eq!(
        retry(&send(&mailer(&to(address, Security::Starttls))).await),
        (None, "it offers no STARTTLS: nothing was sent")
    );
    assert_eq!(retry(&send(&mailer(&to(address, Security::Tls)).within(SHORT * 10)).await).0, None);
    let got = seen.lock().unwrap().clone();
    assert!(
        got.iter().all(|got| got.commands.iter().all(|c| !c.starts_with("AUTH") && !c.starts_with("MAIL"))),
        "{got:?}"
    );

    // What is sent behind the answer to STARTTLS is no answer that TLS protects.
    let behind_starttls = "250-evil\r\n250 AUTH LOGIN\r\n";
    let (address, seen) = server(Script { tls: Some(tls), behind_starttls, ..Script::default() }).await;
    let outcome = send(&mailer(&to(address, Security::Starttls))).await;
    assert_eq!(retry(&outcome).0, None);
    assert!(!seen.lock().unwrap()[0].tls);
}

#[tokio::test]
async fn a_password_is_said_to_the_server_and_nobody_else() {
    let (address, seen) = server(Script { answers: vec![("AUTH", "535 no\r\n")], ..Script::default() }).await;
    let with_user = Mailbox { username: "mailfuse".into(), ..mailbox(address, Security::Plain) };
    let mailer = mailer(&with_user);
    let outcome = send(&mailer).await;
    assert_eq!(outcome, Outcome::Refused { status: 535, why: "answered 535 to AUTH".into() });
    assert!(!seen.lock().unwrap()[0].commands.iter().any(|c| c.starts_with("MAIL")));
    let shown = format!("{mailer:?}{outcome:?}{with_user:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
    let error = Mailer::new(&with_user, None).unwrap_err().to_string();
    assert!(error.contains("password_file") && error.contains("MAILFUSE_MAIL_PASSWORD_DESK"), "{error}");
    let (address, _) = server(Script { answers: vec![("EHLO", "250 test\r\n")], ..Script::default() }).await;
    let nothing = Mailbox { smart_host: address.to_string(), ..with_user };
    assert!(retry(&send(&self::mailer(&nothing)).await).1.contains("AUTH PLAIN"));
}

/// A password that is replaced in its file is the one that is said, within seconds; one that is gone stays as it was.
#[test]
fn a_password_is_read_again_while_it_runs() {
    // Of the server; the hands have one of their own.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (address, seen) = runtime.block_on(server(Script::default()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let (username, password_file) = ("mailfuse".to_owned(), file.display().to_string());
    let mailbox = Mailbox { username, password_file, ..mailbox(address, Security::Plain) };
    let name = mailbox.name.clone();
    let settings = Settings { mail: vec![mailbox], ..Settings::default() };
    let mut hands = Hands::new(&Arc::new(InForce::new(&settings))).unwrap();
    let mut said = || {
        let attempt = Attempt {
            attempt: 1,
            endpoint: name.clone(),
            id: "m".to_owned(),
            incident: "i".to_owned(),
            seq: 0,
            attempts: 0,
            probe: false,
        };
        hands.send(&attempt, &every(AlertKind::Flagged, Severity::Critical, "anna@example.org"));
        let until = Instant::now() + FAR;
        let ended = loop {
            if let Some(ended) = hands.ended().pop() {
                break ended;
            }
            assert!(Instant::now() < until, "an attempt does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(ended.outcome.label(), "delivered", "{:?}", ended.outcome);
        let got = seen.lock().unwrap().last().cloned().unwrap();
        got.commands.into_iter().find(|c| c.starts_with("AUTH")).unwrap()
    };
    assert_eq!(said(), "AUTH PLAIN AG1haWxmdXNlAGh1bnRlcjI=");
    std::fs::write(&file, "hunter3\n").unwrap();
    let until = Instant::now() + FAR;
    while said() != "AUTH PLAIN AG1haWxmdXNlAGh1bnRlcjM=" {
        assert!(Instant::now() < until, "the password before goes on being said");
    }
    std::fs::remove_file(&file).unwrap();
    assert_eq!(said(), "AUTH PLAIN AG1haWxmdXNlAGh1bnRlcjM=");
}

#[test]
fn authorities_that_are_none_are_an_error() {
    let address = "127.0.0.1:25".parse().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    for path in ["/nowhere/ca.pem", file.path().to_str().unwrap()] {
        let mailbox = Mailbox { ca_file: path.into(), ..mailbox(address, Security::Starttls) };
        let error = Mailer::new(&mailbox, None).unwrap_err().to_string();
        assert!(error.contains("ca_file") && error.contains(path), "{error}");
    }
}

/// The server that Postfix brings for tests (Debian: package `postfix`). Without it the servers above are all there is.
#[tokio::test]
async fn postfix_takes_it() {
    let Some(program) = ["/usr/sbin/smtp-sink", "/usr/bin/smtp-sink", "/usr/local/sbin/smtp-sink"]
        .into_iter()
        .find(|p| std::path::Path::new(p).exists())
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let mut command = Command::new(program);
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"));
    if is_root {
        // It does not run as root.
        Command::new("chmod").args(["777", folder.path().to_str().unwrap()]).status().unwrap();
        command.args(["-u", "nobody"]);
    }
    let address = format!("127.0.0.1:{port}");
    command.args(["-d", "mail.", &address, "10"]).current_dir(folder.path()).stdin(Stdio::null()).stderr(Stdio::null());
    let mut sink = command.spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(&address).await.is_err() && begun.elapsed() < FAR / 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mailer = mailer(&mailbox(address.parse().unwrap(), Security::Plain));
    let mail = mail(&mailer, ".\r\nanna@example.org\u{202E}");
    let outcome = timeout(FAR, mailer.send(&mail)).await;
    sink.kill().unwrap();
    sink.wait().unwrap();
    assert_eq!(outcome.unwrap(), Outcome::Delivered { status: 250 });
    let kept: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|f| std::fs::read(f.unwrap().path()).unwrap()).collect();
    let whole = kept.iter().find(|bytes| !bytes.is_empty()).unwrap();
    let parsed = MessageParser::default().parse(whole).unwrap();
    assert_eq!(format!("<{}>", parsed.message_id().unwrap()), mail.id);
    assert!(parsed.subject().unwrap().contains("31 strangers in 1 h"));
    assert!(parsed.body_text(0).unwrap().contains("Suspend the account now"));
}
