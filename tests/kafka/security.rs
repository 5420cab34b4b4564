//! TLS, passwords and access rights against a real broker that asks for all three, and what is said where one is wrong.

use crate::run_support::LIMIT;
use crate::run_support::kafka_support::{Broker, beside_others};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::Instant;

/// A broker with TLS, two users and access rights, for all tests of this file.
struct Secured {
    broker: Broker,
    folder: PathBuf,
}

/// `admin` may do everything, `guest` only look.
fn secured() -> Option<&'static Secured> {
    static SECURED: OnceLock<Option<Secured>> = OnceLock::new();
    beside_others();
    SECURED.get_or_init(Secured::start).as_ref()
}

impl Secured {
    fn start() -> Option<Self> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("kafka-security");
        std::fs::create_dir_all(&folder).unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (ca, issuer) = authority();
        file("ca.pem", &ca);
        file("other-ca.pem", &authority().0);
        let key = KeyPair::generate().unwrap();
        let named = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = file("server.pem", &named.signed_by(&key, &issuer).unwrap().pem());
        let key = file("server-key.pem", &key.serialize_pem());
        file("admin", "admin-secret\n");
        file("guest", "guest-secret");
        file("wrong", "wrong-secret");
        let users = ["--user", "admin:admin-secret", "--user", "guest:guest-secret"];
        let options = [&["--sasl", "--acl", "--cert", &cert, "--key", &key][..], &users[..]].concat();
        let broker = Broker::with(&options)?;
        let allow = |user: &str, operation: &str, what: &[&str]| {
            let user = format!("User:{user}");
            broker
                .tool("AclCommand", &[&["--add", "--allow-principal", &user, "--operation", operation], what].concat());
        };
        allow("admin", "All", &["--topic", "*", "--group", "*", "--transactional-id", "*", "--cluster"]);
        for operation in ["Describe", "DescribeConfigs"] {
            allow("guest", operation, &["--topic", "*"]);
        }
        Some(Self { broker, folder })
    }

    fn run(&self, command: &str, user: &str, password: &str, mechanism: &str, ca: &str) -> Output {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let address = self.broker.sasl_address.as_ref().unwrap();
        let config = format!(
            "[kafka]\nbootstrap_servers = \"{address}\"\nsecurity = \"sasl_tls\"\nsasl_mechanism = \"{mechanism}\"\n\
             username = \"{user}\"\npassword_file = \"{}\"\nca_file = \"{}\"\ntimeout_s = 120\n",
            at(password),
            at(ca)
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config).unwrap();
        let mut mailfuse = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
        mailfuse.args(["topics", command, "--config"]).arg(file.path()).output().unwrap()
    }
}

/// An authority's certificate, and the means to sign with it.
fn authority() -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // With the name that the server's certificate has by default, that one would look as if it had signed itself.
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

fn said(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn passwords_over_tls_open_the_door_and_missing_rights_are_named() {
    let Some(secured) = secured() else { return };
    let out = secured.run("create", "admin", "admin", "SCRAM-SHA-256", "ca.pem");
    assert_eq!(out.status.code(), Some(0), "{}", said(&out));
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let out = secured.run("check", "admin", "admin", mechanism, "ca.pem");
        assert_eq!(out.status.code(), Some(0), "{mechanism}: {}", said(&out));
    }
    let out = secured.run("check", "guest", "guest", "SCRAM-SHA-256", "ca.pem");
    assert_eq!(out.status.code(), Some(1), "{}", said(&out));
    for words in [
        "mailfuse.events, READ: forbidden",
        "mailfuse.state, READ: forbidden",
        "mailfuse.control, READ: forbidden",
        "group mailfuse, READ: forbidden",
        "transactional id mailfuse-, WRITE: forbidden",
        "--command-config client.properties --add --allow-principal User:guest --operation Read --topic mailfuse.events",
    ] {
        assert!(said(&out).contains(words), "without `{words}`: {}", said(&out));
    }
    // With transactions allowed, it is the topic's turn.
    let ids = ["--transactional-id", "mailfuse-", "--resource-pattern-type", "prefixed"];
    let rule = ["--add", "--allow-principal", "User:guest", "--operation", "Write", "--operation", "Describe"];
    secured.broker.tool("AclCommand", &[&rule[..], &ids[..]].concat());
    let out = secured.run("check", "guest", "guest", "SCRAM-SHA-256", "ca.pem");
    for topic in ["state", "control", "desk", "signals"] {
        assert!(said(&out).contains(&format!("mailfuse.{topic}, WRITE: forbidden")), "{topic}: {}", said(&out));
    }
}

#[test]
fn a_wrong_password_and_an_unknown_authority_are_told_at_once_with_their_cure() {
    let Some(secured) = secured() else { return };
    for (password, mechanism, ca, words) in [
        ("wrong", "SCRAM-SHA-256", "ca.pem", "kafka.password_file"),
        ("wrong", "PLAIN", "ca.pem", "kafka.password_file"),
        ("admin", "SCRAM-SHA-256", "other-ca.pem", "kafka.ca_file"),
    ] {
        let began = Instant::now();
        let out = secured.run("check", "admin", password, mechanism, ca);
        assert_eq!(out.status.code(), Some(1), "{mechanism}: {}", said(&out));
        let last = said(&out).trim_end().lines().last().unwrap().to_owned();
        assert!(last.starts_with("mailfuse: the brokers do not answer") && last.contains(words), "{}", said(&out));
        assert!(began.elapsed() < LIMIT, "it took {:?}: {}", began.elapsed(), said(&out));
    }
}
