//! Configuration: one TOML file, unknown keys refused with the line and a suggestion, every key documented in
//! `reference.toml`, which `mailfuse config` prints.
//!
//! The reference *is* the defaults' documentation; a test holds that it states every key with its default.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::core::policy::{BadPolicy, Detect, PUBLIC_KEY, Policy};
use crate::desk;
use crate::directory;
use crate::event::Limits;
use crate::kafka::{self, Kafka};
use crate::logs::postfix;
use crate::relays;
use crate::run;

/// Every key with its default, commented.
pub const REFERENCE: &str = include_str!("reference.toml");

/// The environment variable that may hold the fingerprint key.
pub const KEY_VARIABLE: &str = "MAILFUSE_FINGERPRINT_KEY";

/// The configuration as the file has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A file that holds the key of the fingerprints. Empty: the environment variable, else a public default.
    pub fingerprint_key_file: String,
    /// Bounds on one event.
    pub events: Limits,
    /// The Postfix reader.
    pub postfix: postfix::Options,
    /// The detector.
    pub detect: Detect,
    /// The brokers and topics.
    pub kafka: Kafka,
    /// The consumer.
    pub run: run::Run,
    /// Metrics, status, accounts.
    pub http: run::Http,
    /// Incidents.
    pub desk: desk::Settings,
    /// Relays and what is done about them.
    pub relays: relays::Settings,
    /// What the provider knows about its customers.
    pub directory: directory::Settings,
    /// What it says about itself.
    pub log: Log,
}

/// Logs, which go to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What decides about alerts: the rest of the configuration is not in the digest.
#[derive(Serialize)]
struct Deciding<'a> {
    events: &'a Limits,
    postfix: &'a postfix::Options,
    detect: &'a Detect,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("{}: {why}; `mailfuse config` prints a commented one to start from", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// Not TOML.
    #[error("{name}: {message}")]
    Syntax {
        /// The file.
        name: String,
        /// With line and column.
        message: String,
    },
    /// A key that does not exist.
    #[error("{name}:{line}: unknown key `{key}`{}", suggestion.as_ref().map(|s| format!("; did you mean `{s}`?")).unwrap_or_default())]
    Unknown {
        /// The file.
        name: String,
        /// From 1.
        line: usize,
        /// The key with its tables.
        key: String,
        /// The nearest key that exists there.
        suggestion: Option<String>,
    },
    /// A value of another type or outside its range.
    #[error("{name}:{line}: `{key}`: {message}")]
    Value {
        /// The file.
        name: String,
        /// From 1.
        line: usize,
        /// The key with its tables.
        key: String,
        /// What is wrong.
        message: String,
    },
    /// Values that do not go together.
    #[error("{name}: {why}")]
    Policy {
        /// The file.
        name: String,
        /// What is wrong.
        why: BadPolicy,
    },
    /// The same, of the brokers.
    #[error("{name}: {why}")]
    Kafka {
        /// The file.
        name: String,
        /// What is wrong.
        why: kafka::settings::BadSettings,
    },
    /// The same, of the consumer.
    #[error("{name}: {why}")]
    Run {
        /// The file.
        name: String,
        /// What is wrong.
        why: run::settings::BadSettings,
    },
    /// The same, of the desk.
    #[error("{name}: {why}")]
    Desk {
        /// The file.
        name: String,
        /// What is wrong.
        why: desk::settings::BadSettings,
    },
    /// The same, of the relays.
    #[error("{name}: {why}")]
    Relays {
        /// The file.
        name: String,
        /// What is wrong.
        why: relays::settings::BadSettings,
    },
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read or used; each error names the file and, where there is one, the line.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|why| Error::Read { path: path.to_owned(), why })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads `text`, which messages call `name`. What it leaves out has its default, within tables too.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, name: &str) -> Result<Self, Error> {
        let syntax = |e: toml::de::Error| Error::Syntax { name: name.to_owned(), message: e.to_string() };
        let given = DeTable::parse(text).map_err(syntax)?;
        let mut merged = defaults();
        check_keys(text, name, given.get_ref(), &merged, "")?;
        overlay(&mut merged, toml::from_str(text).map_err(syntax)?);
        let config: Self = serde_path_to_error::deserialize(toml::Value::Table(merged)).map_err(|e| {
            let key = e.path().to_string();
            Error::Value {
                name: name.to_owned(),
                line: line_of(text, given.get_ref(), &key),
                message: e.into_inner().to_string().trim_end().to_owned(),
                key,
            }
        })?;
        config.policy([0; 16]).map_err(|why| Error::Policy { name: name.to_owned(), why })?;
        config.kafka.check().map_err(|why| Error::Kafka { name: name.to_owned(), why })?;
        let run = config.run.check().and_then(|()| config.http.check());
        run.map_err(|why| Error::Run { name: name.to_owned(), why })?;
        config.desk.check().map_err(|why| Error::Desk { name: name.to_owned(), why })?;
        config.relays.check().map_err(|why| Error::Relays { name: name.to_owned(), why })?;
        Ok(config)
    }

    /// The first twelve hexadecimal digits of the SHA-256 of what decides about alerts in the configuration in force, defaults
    /// and all: equal digests and equal programs give equal alerts, on whatever brokers.
    pub fn digest(&self) -> String {
        let deciding = Deciding { events: &self.events, postfix: &self.postfix, detect: &self.detect };
        let canonical = toml::to_string(&deciding).unwrap_or_default();
        let mut digest = String::new();
        for byte in &Sha256::digest(canonical.as_bytes())[..6] {
            let _ = write!(digest, "{byte:02x}");
        }
        digest
    }

    /// The detector's policy under this configuration.
    ///
    /// # Errors
    /// Where values do not go together.
    pub fn policy(&self, key: [u8; 16]) -> Result<Policy, BadPolicy> {
        let by = format!("mailfuse {} (config {})", env!("CARGO_PKG_VERSION"), self.digest());
        Policy::new(self.detect.clone(), key, by)
    }

    /// The fingerprint key: of the file that is configured, else of the environment, else a public default. It is 16 bytes of
    /// the SHA-256 of what stands there, so that any long random text will do.
    ///
    /// # Errors
    /// Where the file cannot be read or holds fewer than 16 bytes.
    pub fn fingerprint_key(&self) -> Result<[u8; 16], Error> {
        let secret = if self.fingerprint_key_file.is_empty() {
            match std::env::var(KEY_VARIABLE) {
                Ok(secret) => secret.into_bytes(),
                Err(_) => return Ok(PUBLIC_KEY),
            }
        } else {
            let path = PathBuf::from(&self.fingerprint_key_file);
            std::fs::read(&path).map_err(|why| Error::Read { path, why })?
        };
        let secret = secret.trim_ascii();
        if secret.len() < 16 {
            return Err(Error::Syntax {
                name: "fingerprint key".to_owned(),
                message: format!(
                    "{} bytes are too few: put at least 16 random bytes there, as `openssl rand -hex 32` prints",
                    secret.len()
                ),
            });
        }
        let mut key = [0; 16];
        key.copy_from_slice(&Sha256::digest(secret)[..16]);
        Ok(key)
    }
}

/// The defaults as a table.
fn defaults() -> toml::Table {
    toml::Table::try_from(Config::default()).unwrap_or_default()
}

/// Puts `over` upon `under`, table by table.
fn overlay(under: &mut toml::Table, over: toml::Table) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(toml::Value::Table(under)), toml::Value::Table(over)) => overlay(under, over),
            (Some(under @ toml::Value::Float(_)), toml::Value::Integer(n)) => *under = toml::Value::Float(n as f64),
            (Some(under), value) => *under = value,
            (None, value) => {
                under.insert(key, value);
            }
        }
    }
}

/// Refuses keys that `known` does not have.
fn check_keys(text: &str, name: &str, given: &DeTable<'_>, known: &toml::Table, above: &str) -> Result<(), Error> {
    for (key, value) in given {
        let path = format!("{above}{}", key.get_ref());
        let Some(default) = known.get(&**key.get_ref()) else {
            return Err(Error::Unknown {
                name: name.to_owned(),
                line: line_at(text, key.span().start),
                suggestion: nearest(key.get_ref(), known).map(|k| format!("{above}{k}")),
                key: path,
            });
        };
        if let (DeValue::Table(given), toml::Value::Table(known)) = (value.get_ref(), default)
            // A table whose default is empty holds names that are somebody else's.
            && !known.is_empty()
        {
            check_keys(text, name, given, known, &format!("{path}."))?;
        }
    }
    Ok(())
}

/// The known key that is most like `key`, if one is like it at all.
fn nearest<'a>(key: &str, known: &'a toml::Table) -> Option<&'a str> {
    known
        .keys()
        // Jaro-Winkler knows cut and longer words, Damerau-Levenshtein letters in the wrong order.
        .map(|k| (strsim::jaro_winkler(key, k).max(strsim::normalized_damerau_levenshtein(key, k) + 0.1), k.as_str()))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// The line of the deepest part of `path` that the file has.
fn line_of(text: &str, table: &DeTable<'_>, path: &str) -> usize {
    let mut table = Some(table);
    let mut start = 0;
    for part in path.split(['.', '[']) {
        let Some((key, value)) = table.and_then(|t| t.iter().find(|(k, _)| &**k.get_ref() == part)) else { break };
        start = Spanned::span(key).start;
        table = match value.get_ref() {
            DeValue::Table(t) => Some(t),
            _ => None,
        };
    }
    line_at(text, start)
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_states_every_key_with_its_default() {
        let reference: toml::Table = toml::from_str(REFERENCE).unwrap();
        assert_eq!(reference, defaults());
        assert_eq!(Config::parse(REFERENCE, "reference").unwrap(), Config::default());
    }

    #[test]
    fn the_endpoint_of_the_reference_has_every_key_with_its_default() {
        use crate::desk::webhook::settings::{Endpoint, Url};
        let block: Vec<&str> = REFERENCE.lines().filter_map(|l| l.strip_prefix("#   ")).collect();
        let begin = block.iter().position(|l| *l == "[[desk.webhook]]").unwrap();
        let end = block.iter().position(|l| *l == "[[desk.mail]]").unwrap();
        let text = block[begin..end].join("\n");
        let given: toml::Table = toml::from_str(&text).unwrap();
        let mut stated: Vec<&str> =
            given["desk"]["webhook"][0].as_table().unwrap().keys().map(String::as_str).collect();
        // It is told in words.
        stated.push("quiet_hours");
        stated.sort_unstable();
        let all = toml::Table::try_from(Endpoint { quiet_hours: None, ..Endpoint::default() }).unwrap();
        let mut wanted: Vec<&str> = all.keys().map(String::as_str).chain(["quiet_hours"]).collect();
        wanted.sort_unstable();
        assert_eq!(stated, wanted);
        let endpoint = Endpoint {
            name: "abuse".to_owned(),
            url: Url("https://desk.example.net/hooks/mailfuse".to_owned()),
            ..Endpoint::default()
        };
        assert_eq!(Config::parse(&text, "reference").unwrap().desk.webhook, [endpoint]);

        use crate::desk::mail::settings::Mailbox;
        let mail: Vec<&str> = block[end..].iter().take_while(|l| !l.starts_with("[[relays")).copied().collect();
        let text = mail.join("\n");
        let mailbox = Mailbox {
            name: "tickets".to_owned(),
            to: vec!["abuse@example.net".to_owned()],
            from: "mailfuse <mailfuse@example.net>".to_owned(),
            smart_host: "smtp.example.org:587".to_owned(),
            ..Mailbox::default()
        };
        assert_eq!(Config::parse(&text, "reference").unwrap().desk.mail, [mailbox]);
        let given: toml::Table = toml::from_str(&text).unwrap();
        let stated = given["desk"]["mail"][0].as_table().unwrap().len();
        assert_eq!(stated, toml::Table::try_from(Mailbox::default()).unwrap().len(), "every key");
    }

    #[test]
    fn the_pool_of_the_reference_can_be_used() {
        let block: Vec<&str> = REFERENCE.lines().filter_map(|l| l.strip_prefix("#   ")).collect();
        let begin = block.iter().position(|l| *l == "[[relays.pool]]").unwrap();
        let text = block[begin..].iter().take_while(|l| !l.starts_with("[[relays") || l.contains("pool")).copied();
        let relays = Config::parse(&text.collect::<Vec<_>>().join("\n"), "reference").unwrap().relays;
        let (pool, member) = relays.by_host("mx-out-1").unwrap();
        assert_eq!((&*pool.name, &*member.relay, pool.member.len()), ("shared", "out-1", 2));
        let twice = "[[relays.pool]]\nname = \"a\"\nmember = [{ relay = \"x\" }, { relay = \"x\" }]\n";
        check(twice, "member `x`: a relay needs a name that no other has");
        check("[[relays.pool]]\nname = \"a\"\n", "relays.pool `a` has no member");
        check("[relays]\nmode = \"aut\"\n", "relays.mode");
    }

    #[test]
    fn the_hands_of_the_reference_can_be_used() {
        use crate::desk::webhook::settings::Url;
        use crate::relays::hands::settings::{FileList, Form, Hook, Webhook, What};
        let block: Vec<&str> = REFERENCE.lines().filter_map(|l| l.strip_prefix("#   ")).collect();
        let table = |name: &str, lines: usize| {
            let begin = block.iter().position(|l| *l == name).unwrap();
            block[begin..begin + 1 + lines].join("\n")
        };
        let keys = |table: toml::Table| table.len();
        let files = table("[[relays.file]]", keys(toml::Table::try_from(FileList::default()).unwrap()));
        let list = FileList {
            path: "/etc/postfix/stopped".into(),
            what: What::Stopped,
            form: Form::Postfix,
            reload: vec!["/usr/sbin/postmap".to_owned(), "/etc/postfix/stopped".to_owned()],
            ..FileList::default()
        };
        assert_eq!(Config::parse(&files, "reference").unwrap().relays.file, [list]);
        let hooks = table("[[relays.hook]]", keys(toml::Table::try_from(Hook::default()).unwrap()));
        let command = vec!["/usr/local/bin/stop-account".to_owned(), "--quiet".to_owned()];
        let hook = Hook { name: "billing".to_owned(), command, ..Hook::default() };
        assert_eq!(Config::parse(&hooks, "reference").unwrap().relays.hook, [hook]);
        let webhooks = table("[[relays.webhook]]", keys(toml::Table::try_from(Webhook::default()).unwrap()));
        let webhook = Webhook {
            name: "panel".to_owned(),
            url: Url("https://panel.example.net/mailfuse".to_owned()),
            secret_file: "/etc/mailfuse/panel.secret".to_owned(),
            ..Webhook::default()
        };
        assert_eq!(Config::parse(&webhooks, "reference").unwrap().relays.webhook, [webhook]);

        check("[relays.policy]\nlisten = \"0.0.0.0:10040\"\n", "can be reached from other hosts");
        check("[relays.agent]\nlisten = \"10041\"\n", "relays.agent.listen `10041` is not an address and a port");
        check("[relays.policy]\naction = \"filter\"\n", "relays.policy.filter must be");
        check("[relays.policy]\ntext = \"{acount}\"\n", "relays.policy.text: knows {account}");
        check("[[relays.file]]\npath = \"stopped\"\n", "relays.file `stopped`: path must be a whole path");
        check("[[relays.file]]\npath = \"/x\"\nreload = [\"postmap\"]\n", "reload must be a program by its whole path");
        check("[[relays.hook]]\nname = \"h\"\ncommand = [\"stop\"]\n", "relays.hook `h`: command must be a program");
        let hook = "[[relays.hook]]\nname = \"h\"\ncommand = [\"/stop\"]\n";
        check(&format!("{hook}[[relays.webhook]]\nname = \"h\"\nurl = \"https://e.org\"\n"), "another hook or webhook");
        check("[[relays.webhook]]\nname = \"w\"\nurl = \"ftp://e.org\"\n", "relays.webhook `w`: url: must begin");
        check("[[relays.webhook]]\nname = \"w\"\nurl = \"https://e.org\"\ntimeout_s = 0\n", "`w`: timeout_s must lie");
    }

    #[test]
    fn the_list_of_the_reference_can_be_used() {
        let block: Vec<&str> = REFERENCE.lines().filter_map(|l| l.strip_prefix("#   ")).collect();
        let begin = block.iter().position(|l| *l == "[[relays.listing.zone]]").unwrap();
        let zone = block[begin..begin + 3].join("\n");
        let server = "[relays.listing]\nserver = \"127.0.0.1:53\"\n";
        let pool = "[[relays.pool]]\nname = \"p\"\nmember = [{ relay = \"x\", address = [\"192.0.2.1\"] }]\n";
        let listing = Config::parse(&format!("{server}{zone}\n{pool}"), "reference").unwrap().relays.listing;
        assert_eq!((&*listing.zones[0].name, listing.zones[0].codes.len()), ("zen.spamhaus.org", 4));
        check(&format!("{server}{zone}\n"), "relays.listing.zone: no member of [[relays.pool]] has an address");
        check(&format!("{zone}\n{pool}"), "relays.listing.server: \"\" is no address with a port");
        check(&format!("{server}{zone}\nevery = 5\n{pool}"), "unknown field `every`");
        check("[relays.listing]\nevery = 600\n", "unknown key `relays.listing.every`; did you mean");
    }

    #[test]
    fn the_token_of_the_reference_can_be_used() {
        use crate::telemetry::access::Right;
        let block: Vec<&str> = REFERENCE.lines().filter_map(|l| l.strip_prefix("#   ")).collect();
        let begin = block.iter().position(|l| *l == "[[http.token]]").unwrap();
        let token = &Config::parse(&block[begin..begin + 4].join("\n"), "reference").unwrap().http.token[0];
        assert_eq!((&*token.name, &*token.roles), ("console", &[Right::Look][..]));
        assert!(block[begin + 3].contains(&token.hash.to_string()));
        check("[[http.token]]\nname = \"x\"\nroles = [\"look\"]\n", "http.token `x`: hash is missing");
        check("[[http.token]]\nname = \"x\"\nroles = [\"lok\"]\n", "lok");
    }

    #[test]
    fn every_key_of_the_reference_has_a_comment_in_its_paragraph() {
        let mut commented = false;
        for line in REFERENCE.lines() {
            commented = match line.trim_start() {
                "" => false,
                l if l.contains('#') => true,
                _ => commented || line.starts_with('['),
            };
            let in_table_of_one_comment = commented || line.is_empty();
            assert!(in_table_of_one_comment, "no comment above: {line}");
        }
    }

    fn check(text: &str, expected: &str) {
        let error = Config::parse(text, "mailfuse.toml").expect_err("must be refused").to_string();
        assert!(error.contains(expected), "{error}\n-- does not contain --\n{expected}");
    }

    #[test]
    fn refuses_with_the_line_and_a_suggestion() {
        check("\n[detect]\nquiet = 3\n", "mailfuse.toml:3: unknown key `detect.quiet`; did you mean `detect.quiet_s`?");
        check(
            "[detect.thresholds.nwe]\nwarning = 3\n",
            "mailfuse.toml:1: unknown key `detect.thresholds.nwe`; did you mean `detect.thresholds.new`?",
        );
        check("xyz = 1", "mailfuse.toml:1: unknown key `xyz`");
        check("[detect]\n\nquiet_s = \"long\"\n", "mailfuse.toml:3: `detect.quiet_s`: invalid type: string");
        check("[detect]\nshared_networks = [\"192.0.2.0/99\"]\n", "mailfuse.toml:2: `detect.shared_networks[0]`");
        check("[detect\n", "line 1");
        check("[detect]\nwindows_s = [60, 5]\n", "detect.windows_s");
        check("[detect.thresholds.new]\nwarning = 99\n", "detect.thresholds.new: warning must not be above critical");
    }

    #[test]
    fn what_is_left_out_has_its_default_within_tables_too() {
        let config = Config::parse("[detect.thresholds.new]\ncritical = 12\n", "c").unwrap();
        assert_eq!(config.detect.thresholds.new.critical, 12.0);
        assert_eq!(config.detect.thresholds.new.warning, Config::default().detect.thresholds.new.warning);
        assert_ne!(config.digest(), Config::default().digest());
        assert_eq!(config.digest().len(), 12);
    }
}
