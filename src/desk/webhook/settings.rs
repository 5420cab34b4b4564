//! Section `[[desk.webhook]]` of the configuration: one endpoint each.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use hyper::Uri;
use serde::{Deserialize, Serialize};

use crate::core::alert::{Pattern, Severity};

use super::digest::CLOCKS_MS;
pub use super::digest::DigestAt;
pub use super::quiet::QuietHours;
use super::sign::{BadSecret, Keys, Secret, Token};

/// An environment variable that may hold an endpoint's secret begins so; its name follows, see [`Endpoint::secret_variable`].
pub const SECRET_VARIABLE_PREFIX: &str = "MAILFUSE_WEBHOOK_SECRET_";
/// Where PagerDuty takes events, unless `url` says otherwise.
pub const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";
/// Below it, in bytes, a body must stay (Standard Webhooks: "smaller than 20kb").
pub const BODY_BYTES_LIMIT: usize = 20_000;
/// The most that `per_minute` may be: for more there are `every` endpoints.
const PER_MINUTE_MAX: u32 = 100;
/// A body that is cut down to less, in bytes, would say nothing.
pub const BODY_BYTES_MIN: usize = 4096;

/// Where alerts are sent, which of them, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpoint {
    /// What it is called in records, logs and metrics: letters, digits, `-` and `_`. Records of deliveries hang on it.
    pub name: String,
    /// Where to send: `https://…`, or `http://…` within one's own network. Empty with `format = "pagerduty"`: PagerDuty's.
    pub url: Url,
    /// A file that holds the secret: `whsec_…` for the signature; with `format = "pagerduty"` the routing key.
    /// Empty: the environment variable `MAILFUSE_WEBHOOK_SECRET_<NAME>`.
    pub secret_file: String,
    /// While a secret is rotated, a file that holds the one before: messages are signed with both.
    pub previous_secret_file: String,
    /// The body.
    pub format: Format,
    /// Each alert, one message an incident, or one a day.
    pub deliver: Deliver,
    /// With `deliver = "grouped"`: so many messages begin an incident within a minute; what goes beyond is one storm. Left out:
    /// [`Endpoint::begins_per_minute`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<u32>,
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
    /// Time for an attempt from the look-up of the name to the answer, in seconds.
    pub timeout_s: u32,
    /// Whether it may be an address of a private network, or this host.
    pub allow_private: bool,
    /// Certificates of authorities that it is trusted by, PEM. Empty: the system's.
    pub ca_file: String,
    /// Attempts at a time.
    pub concurrency: u32,
    /// A body is cut to so many bytes: samples and evidence first.
    pub body_bytes_max: usize,
}

/// What a body looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `{"type", "timestamp", "data"}`, as Standard Webhooks has it.
    Native,
    /// Block Kit, for an incoming webhook.
    Slack,
    /// Events API v2.
    Pagerduty,
    /// `POST /api/v2/alerts`.
    Alertmanager,
}

/// What makes a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deliver {
    /// An incident's news, as one message while it waits; a storm as one message.
    Grouped,
    /// Each alert.
    Every,
    /// Everything of a day, as one message.
    Digest,
}

/// An address that is a secret by itself at some receivers (Slack's): it shows its host only.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Url(pub String);

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.parse::<Uri>() {
            Ok(uri) => write!(f, "{}://{}/…", uri.scheme_str().unwrap_or(""), uri.host().unwrap_or("")),
            Err(_) => f.write_str("…"),
        }
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: Url::default(),
            secret_file: String::new(),
            previous_secret_file: String::new(),
            format: Format::Native,
            deliver: Deliver::Grouped,
            per_minute: None,
            digest_at: DigestAt::default(),
            min_severity: Severity::Warning,
            kinds: Vec::new(),
            tenants: Vec::new(),
            patterns: Vec::new(),
            heartbeat: false,
            quiet_hours: None,
            timeout_s: 20,
            allow_private: false,
            ca_file: String::new(),
            concurrency: 4,
            body_bytes_max: BODY_BYTES_LIMIT - 1,
        }
    }
}

/// What routing looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Which kind, `account.flagged`.
    pub kind: &'a str,
    /// How bad.
    pub severity: Severity,
    /// Whose accounts it names, each of which must be chosen; where it names nobody's, it passes every choice of tenants.
    pub tenants: &'a [&'a str],
    /// What it looks like; `None` where it has none, and then it passes every choice of patterns.
    pub pattern: Option<Pattern>,
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    /// An endpoint's key, by the endpoint's name.
    #[error("desk.webhook `{endpoint}`: {key}: {cure}")]
    Key {
        /// The endpoint's name.
        endpoint: String,
        /// Which key.
        key: &'static str,
        /// What is wrong, and what would be right.
        cure: &'static str,
    },
    /// Two endpoints with one name.
    #[error("desk.webhook: `{0}` is named twice, or their environment variables would be the same: rename one")]
    Twice(String),
}

/// Checks all endpoints.
///
/// # Errors
/// Where one cannot be used, or two have one name.
pub fn check(endpoints: &[Endpoint]) -> Result<(), BadSettings> {
    let mut seen = BTreeSet::new();
    for endpoint in endpoints {
        endpoint.check()?;
        if !seen.insert(endpoint.secret_variable()) {
            return Err(BadSettings::Twice(endpoint.name.clone()));
        }
    }
    Ok(())
}

impl Endpoint {
    /// Checks what does not depend on the world.
    ///
    /// # Errors
    /// Where a value cannot be used; the error names its key and what would be right.
    pub fn check(&self) -> Result<(), BadSettings> {
        let bad = |key, cure| Err(BadSettings::Key { endpoint: self.name.clone(), key, cure });
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(named) {
            return bad("name", "give it a name of 1 to 64 letters, digits, `-` and `_`");
        }
        if let Some(cure) = bad_url(self.address()) {
            return bad("url", cure);
        }
        if !self.previous_secret_file.is_empty() && self.format == Format::Pagerduty {
            return bad("previous_secret_file", "a routing key is not rotated by signing: change secret_file");
        }
        if !(15..=30).contains(&self.timeout_s) {
            return bad("timeout_s", "must lie between 15 and 30");
        }
        if !(1..=64).contains(&self.concurrency) {
            return bad("concurrency", "must lie between 1 and 64");
        }
        if self.per_minute.is_some_and(|n| !(1..=PER_MINUTE_MAX).contains(&n)) {
            return bad("per_minute", "must lie between 1 and 100: every endpoints get each alert");
        }
        if !(BODY_BYTES_MIN..BODY_BYTES_LIMIT).contains(&self.body_bytes_max) {
            return bad("body_bytes_max", "must lie between 4096 and 19999");
        }
        if [&self.kinds, &self.tenants].iter().any(|list| list.iter().any(String::is_empty)) {
            return bad("kinds, tenants", "a choice of nothing passes nothing: leave the list empty for all");
        }
        if let Some(cure) = self.quiet_hours.as_ref().and_then(|quiet| quiet.check().err()) {
            return bad("quiet_hours", cure);
        }
        if let Err(cure) = self.digest_at.check() {
            return bad("digest_at", cure);
        }
        if self.heartbeat && matches!(self.format, Format::Pagerduty | Format::Alertmanager) {
            return bad("heartbeat", "its format opens and closes incidents, which a heartbeat is none of: use native");
        }
        if self.deliver == Deliver::Digest {
            if matches!(self.format, Format::Pagerduty | Format::Alertmanager) {
                return bad("deliver", "its format opens and closes incidents, which a digest is none of: use grouped");
            }
            if self.quiet_hours.is_some() {
                return bad("quiet_hours", "a digest comes when digest_at says: leave them out");
            }
        }
        Ok(())
    }

    /// Messages that begin an incident within a minute. A pager wakes somebody with each, and one is enough for that; in a chat or
    /// a mailbox one can still read twenty.
    pub fn begins_per_minute(&self) -> usize {
        let by_format = if self.format == Format::Pagerduty { 3 } else { 20 };
        self.per_minute.unwrap_or(by_format) as usize
    }

    /// Where to send.
    pub fn address(&self) -> &str {
        if self.url.0.is_empty() && self.format == Format::Pagerduty { PAGERDUTY_URL } else { &self.url.0 }
    }

    /// The environment variable that may hold the secret: the name in capitals, `_` for what is neither letter nor digit.
    pub fn secret_variable(&self) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("{SECRET_VARIABLE_PREFIX}{}", self.name.chars().map(plain).collect::<String>())
    }

    /// The secrets, by way of `file` (which reads a text) and `variable` (which reads the environment).
    ///
    /// # Errors
    /// Where one is missing that the format needs, cannot be read, or is none. Errors never hold any of it.
    pub fn keys(
        &self,
        file: impl Fn(&Path) -> std::io::Result<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Keys, BadSecret> {
        let read = |key: &'static str, path: &str| {
            file(Path::new(path)).map_err(|e| BadSecret::Read { key, path: path.to_owned(), why: e.kind().to_string() })
        };
        let current = match self.secret_file.as_str() {
            "" => variable(&self.secret_variable()),
            path => Some(read("secret_file", path)?),
        };
        let missing = || BadSecret::Missing { endpoint: self.name.clone(), variable: self.secret_variable() };
        let mut keys = Keys::default();
        match (self.format, current) {
            (Format::Pagerduty, Some(text)) => keys.routing_key = Some(Token::new(&text)?),
            (Format::Native | Format::Pagerduty, None) => return Err(missing()),
            (_, Some(text)) => keys.signing.push(Secret::parse(&text)?),
            (Format::Slack | Format::Alertmanager, None) => {}
        }
        if !self.previous_secret_file.is_empty() {
            keys.signing.push(Secret::parse(&read("previous_secret_file", &self.previous_secret_file)?)?);
        }
        Ok(keys)
    }

    /// Whether an alert is sent here. `follows`: the endpoint was already told of this incident. What it was told of, it is told
    /// of to its end: severity and pattern, which change on the way, then choose no more.
    pub fn wants(&self, facts: &Facts<'_>, follows: bool) -> bool {
        let chosen = |list: &[String], value: &str| list.is_empty() || list.iter().any(|one| one == value);
        !self.heartbeat
            && chosen(&self.kinds, facts.kind)
            && facts.tenants.iter().all(|tenant| chosen(&self.tenants, tenant))
            && (follows
                || facts.severity >= self.min_severity
                    && facts.pattern.is_none_or(|p| self.patterns.is_empty() || self.patterns.contains(&p)))
    }

    /// Before when, in Unix milliseconds, an alert of this severity is not to be sent; `now_ms` where nothing holds it. Of a
    /// digest, when the next one is due.
    pub fn not_before_ms(&self, severity: Severity, now_ms: i64) -> i64 {
        match &self.quiet_hours {
            // Just before the hour one may be sealed already: no second one is made for the same hour.
            _ if self.deliver == Deliver::Digest => self.digest_at.next_ms(now_ms.saturating_add(CLOCKS_MS)),
            Some(quiet) if severity == Severity::Warning => quiet.end_ms(now_ms).unwrap_or(now_ms),
            _ => now_ms,
        }
    }
}

/// What is wrong with an address, and what to do.
fn bad_url(text: &str) -> Option<&'static str> {
    let Ok(uri) = text.parse::<Uri>() else {
        return Some("not a URL: https://host/path, a name of other letters in its xn-- form");
    };
    let authority = uri.authority().map(|a| a.as_str()).unwrap_or("");
    if !matches!(uri.scheme_str(), Some("https" | "http")) || uri.host().is_none_or(str::is_empty) {
        return Some("must begin with https:// or http:// and a host");
    }
    if authority.contains('@') {
        return Some("must hold no user and password: they would end in logs");
    }
    // `http` checks the port only when it is asked for it.
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
    (port.is_some() && uri.port_u16().is_none_or(|port| port == 0)).then_some("its port must lie between 1 and 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(lines: &str) -> Endpoint {
        toml::from_str(lines).unwrap()
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        let good = "name = 'desk-1'\nurl = 'https://example.org/hook'\n";
        assert_eq!(endpoint(good).check(), Ok(()));
        for (more, key) in [
            ("name = ''", "name"),
            ("name = 'a b'", "name"),
            ("url = ''", "url"),
            ("url = 'ftp://example.org'", "url"),
            ("url = 'https:///x'", "url"),
            ("url = 'https://me:secret@example.org/'", "url"),
            ("url = 'https://example.org:99999/'", "url"),
            ("url = 'https://ex ample.org'", "url"),
            ("timeout_s = 14", "timeout_s"),
            ("timeout_s = 31", "timeout_s"),
            ("concurrency = 0", "concurrency"),
            ("body_bytes_max = 20000", "body_bytes_max"),
            ("body_bytes_max = 100", "body_bytes_max"),
            ("kinds = ['']", "kinds"),
            ("quiet_hours = { hours = '22-7', zone = 'Europe/Berlin' }", "quiet_hours"),
            ("quiet_hours = { hours = '22:00-07:00', zone = 'Mars/Base' }", "quiet_hours"),
            ("quiet_hours = { hours = '22:00-22:00', zone = 'UTC' }", "quiet_hours"),
            ("digest_at = { time = '8', zone = 'UTC' }", "digest_at"),
            ("digest_at = { time = '24:00' }", "digest_at"),
            ("digest_at = { time = '08:00', zone = 'Mars/Base' }", "digest_at"),
            ("heartbeat = true\nformat = 'pagerduty'", "heartbeat"),
            ("deliver = 'digest'\nformat = 'pagerduty'", "deliver"),
            ("deliver = 'digest'\nformat = 'alertmanager'", "deliver"),
            ("deliver = 'digest'\nquiet_hours = { hours = '22:00-07:00' }", "quiet_hours"),
        ] {
            let key_of = more.split(' ').next().unwrap();
            let kept: Vec<_> = good.lines().filter(|line| !line.starts_with(key_of)).collect();
            let error = endpoint(&format!("{}\n{more}", kept.join("\n"))).check().unwrap_err().to_string();
            assert!(error.contains(key), "{more}: {error}");
            assert!(!error.contains("secret@"), "{error}");
        }
        assert!(toml::from_str::<Endpoint>("nmae = 'x'").is_err());
        let twice = [endpoint(good), endpoint(&good.replace("desk-1", "DESK_1"))];
        assert_eq!(check(&twice), Err(BadSettings::Twice("DESK_1".into())));
        assert_eq!(endpoint("name = 'p'\nformat = 'pagerduty'").check(), Ok(()));
    }

    #[test]
    fn debug_shows_no_path_of_the_url() {
        let shown = format!("{:?}", endpoint("name = 's'\nurl = 'https://hooks.slack.com/services/T0/B0/xyz'"));
        assert!(shown.contains("hooks.slack.com") && !shown.contains("xyz"), "{shown}");
    }

    #[test]
    fn secrets_come_from_a_file_or_the_environment() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";
        let nothing = |_: &Path| Err(std::io::Error::from(std::io::ErrorKind::NotFound));
        let e = endpoint("name = 'my-desk'\nurl = 'https://example.org'");
        let keys =
            e.keys(nothing, |name| (name == "MAILFUSE_WEBHOOK_SECRET_MY_DESK").then(|| secret.to_owned())).unwrap();
        assert_eq!(keys.signing.len(), 1);
        assert!(!format!("{keys:?}").contains("MfKQ"));
        let error = e.keys(nothing, |_| None).unwrap_err().to_string();
        assert!(error.contains("secret_file") && error.contains("MAILFUSE_WEBHOOK_SECRET_MY_DESK"), "{error}");
        let error = e.keys(nothing, |_| Some("whsec_hunter2".into())).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        let both = Endpoint { secret_file: "a".into(), previous_secret_file: "b".into(), ..e.clone() };
        assert_eq!(both.keys(|_| Ok(secret.to_owned()), |_| None).unwrap().signing.len(), 2);
        assert!(both.keys(nothing, |_| None).unwrap_err().to_string().contains("secret_file"));
        let slack = Endpoint { format: Format::Slack, ..e.clone() };
        assert!(slack.keys(nothing, |_| None).unwrap().signing.is_empty());
        let pagerduty = Endpoint { format: Format::Pagerduty, ..e };
        let keys = pagerduty.keys(nothing, |_| Some(" key0\n".into())).unwrap();
        assert_eq!(keys.routing_key.unwrap().reveal(), "key0");
    }

    #[test]
    fn an_incident_is_told_of_to_its_end() {
        let e = endpoint("name='a'\nurl='https://e.org'\nmin_severity='critical'\npatterns=['hijack']\ntenants=['t']");
        let facts = Facts {
            kind: "account.flagged",
            severity: Severity::Warning,
            tenants: &["t"],
            pattern: Some(Pattern::Hijack),
        };
        assert!(!e.wants(&facts, false));
        assert!(e.wants(&Facts { severity: Severity::Critical, ..facts }, false));
        assert!(!e.wants(&Facts { severity: Severity::Critical, pattern: Some(Pattern::Bulk), ..facts }, false));
        assert!(e.wants(&Facts { pattern: Some(Pattern::Bulk), ..facts }, true));
        assert!(!e.wants(&Facts { tenants: &["t", "u"], ..facts }, true));
    }
}
