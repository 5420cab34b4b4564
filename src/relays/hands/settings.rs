//! What the hands are configured with: `[relays.policy]`, `[relays.agent]`, `[relays.maps]`, `[[relays.file]]`, `[[relays.hook]]`,
//! `[[relays.webhook]]`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use super::text;
use crate::desk::webhook::settings::{BadSettings as BadKey, Endpoint, Url};
use crate::relays::measure::Mode;
use crate::relays::settings::{BadSettings, Settings};

/// New recipients an hour that can be remembered of one throttled account.
pub const RECIPIENTS_MAX: u32 = 1000;
/// Hooks, webhooks and files of one configuration, each.
const TABLES_MAX: usize = 32;
/// Words of a command.
const WORDS_MAX: usize = 64;

/// What a stopped account's mail meets at Postfix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A temporary refusal: the client keeps the message and tries again.
    #[default]
    Defer,
    /// It is taken, and waits in the queue for a person.
    Hold,
    /// A lasting refusal: the sender gets it back.
    Reject,
    /// It takes another way, such as over a quarantine relay.
    Filter,
}

/// Section `[relays.policy]`: the policy service that Postfix asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// `address:port`; empty: none.
    pub listen: String,
    /// How far it goes with what is in force.
    pub mode: Mode,
    /// Whether it may listen beyond the loopback. Whoever reaches it learns who is stopped.
    pub allow_remote: bool,
    /// What a stopped account's mail meets.
    pub action: Action,
    /// What the customer reads, with `{account}`, `{incident}`, `{until}` and `{contact}`. ASCII.
    pub text: String,
    /// What a throttled account's customer reads.
    pub throttle_text: String,
    /// Whom to ask.
    pub contact: String,
    /// Where `action = "filter"` sends it: `transport:nexthop`.
    pub filter: String,
    /// Recipients that a throttled account may write to in any hour.
    pub throttle_recipients: u32,
    /// The domain of accounts whose SASL name has none. Empty: they are accounts as they are.
    pub default_domain: String,
    /// Connections at a time; a further one is closed at once.
    pub connections_max: u32,
    /// A connection that asks nothing for so long is closed, in seconds.
    pub idle_s: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            listen: String::new(),
            mode: Mode::Auto,
            allow_remote: false,
            action: Action::Defer,
            text: "{account} may not send mail: it sent what looks like spam, somebody else may know its password. \
                   Ask {contact}, case {incident}"
                .to_owned(),
            throttle_text: "{account} writes to more new recipients than usual, so that further ones have to wait. \
                            Ask {contact}, case {incident}"
                .to_owned(),
            contact: "postmaster".to_owned(),
            filter: String::new(),
            throttle_recipients: 20,
            default_domain: String::new(),
            connections_max: 512,
            idle_s: 600,
        }
    }
}

/// Section `[relays.agent]`: the server of HAProxy's agent checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Agent {
    /// `address:port`; empty: none.
    pub listen: String,
    /// How far it goes with what is in force.
    pub mode: Mode,
    /// Whether it may listen beyond the loopback.
    pub allow_remote: bool,
    /// Connections at a time; a further one is closed at once.
    pub connections_max: u32,
}

impl Default for Agent {
    fn default() -> Self {
        Self { listen: String::new(), mode: Mode::Auto, allow_remote: false, connections_max: 256 }
    }
}

/// Section `[relays.maps]`: the lists that are fetched over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Maps {
    /// How far they go with what is in force.
    pub mode: Mode,
}

impl Default for Maps {
    fn default() -> Self {
        Self { mode: Mode::Auto }
    }
}

/// What a list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Accounts that are stopped.
    #[default]
    Stopped,
    /// Relays that are pulled.
    Pulled,
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A name a line.
    #[default]
    Plain,
    /// A source of `postmap`: name and what `check_sasl_access` and its like do.
    Postfix,
    /// Exim's `lsearch`: `name: text`.
    Exim,
}

/// A table `[[relays.file]]`: a list kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileList {
    /// Where to; its folder must be there, and ours to write.
    pub path: PathBuf,
    /// What it names.
    pub what: What,
    /// How far it goes with what is in force.
    pub mode: Mode,
    /// How it is written.
    pub form: Form,
    /// What is run when it has changed: program and arguments, no shell. Empty: nothing.
    pub reload: Vec<String>,
    /// Time for that, in seconds.
    pub timeout_s: u32,
}

impl Default for FileList {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            what: What::Stopped,
            mode: Mode::Auto,
            form: Form::Plain,
            reload: Vec::new(),
            timeout_s: 10,
        }
    }
}

/// What a hook is called for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// An account is stopped.
    Stop,
    /// An account is throttled.
    Throttle,
    /// A stop or a throttle is over.
    Release,
    /// A relay is pulled.
    Pull,
    /// A pull is over.
    Restore,
}

impl Verb {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Throttle => "throttle",
            Self::Release => "release",
            Self::Pull => "pull",
            Self::Restore => "restore",
        }
    }

    /// Whether something is over.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Release | Self::Restore)
    }
}

/// A table `[[relays.hook]]`: a program that the active desk runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// In records, logs and metrics: letters, digits, `-` and `_`.
    pub name: String,
    /// Program, by its whole path, and arguments; no shell.
    pub command: Vec<String>,
    /// Time for one call, in seconds.
    pub timeout_s: u32,
    /// What it is called for.
    pub on: Vec<Verb>,
    /// How far it goes with what is in force.
    pub mode: Mode,
    /// Whether its exit status 0 for a stop says that the account cannot send any more.
    pub confirms: bool,
}

/// What is called without being told for what: all but throttles.
fn usual() -> Vec<Verb> {
    vec![Verb::Stop, Verb::Release, Verb::Pull, Verb::Restore]
}

impl Default for Hook {
    fn default() -> Self {
        Self { name: String::new(), command: Vec::new(), timeout_s: 20, on: usual(), mode: Mode::Auto, confirms: true }
    }
}

/// A table `[[relays.webhook]]`: a receiver to which the active desk posts, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// In records, logs and metrics: letters, digits, `-` and `_`.
    pub name: String,
    /// Where to.
    pub url: Url,
    /// The file that holds the secret; empty: the environment does, as for the desk's own webhooks.
    pub secret_file: String,
    /// The file of the secret before, while the receiver learns the new one.
    pub previous_secret_file: String,
    /// The authorities that its certificate is checked against, in PEM; empty: those of the system.
    pub ca_file: String,
    /// Whether it may be at a private address.
    pub allow_private: bool,
    /// Time for one call, in seconds.
    pub timeout_s: u32,
    /// What it is called for.
    pub on: Vec<Verb>,
    /// How far it goes with what is in force.
    pub mode: Mode,
    /// Whether its 2xx for a stop says that the account cannot send any more.
    pub confirms: bool,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: Url::default(),
            secret_file: String::new(),
            previous_secret_file: String::new(),
            ca_file: String::new(),
            allow_private: false,
            timeout_s: 20,
            on: usual(),
            mode: Mode::Auto,
            confirms: true,
        }
    }
}

impl Webhook {
    /// The same as the sender of webhooks takes it, but for the time that a call may take.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            name: self.name.clone(),
            url: self.url.clone(),
            secret_file: self.secret_file.clone(),
            previous_secret_file: self.previous_secret_file.clone(),
            ca_file: self.ca_file.clone(),
            allow_private: self.allow_private,
            ..Endpoint::default()
        }
    }
}

fn bad<T>(text: String) -> Result<T, BadSettings> {
    Err(BadSettings(text))
}

/// An address to listen on.
fn address(key: &str, listen: &str, allow_remote: bool) -> Result<Option<SocketAddr>, BadSettings> {
    if listen.is_empty() {
        return Ok(None);
    }
    let Ok(address) = listen.parse::<SocketAddr>() else {
        return bad(format!("{key}.listen `{listen}` is not an address and a port, such as 127.0.0.1:10040"));
    };
    if !address.ip().to_canonical().is_loopback() && !allow_remote {
        return bad(format!(
            "{key}.listen {listen} can be reached from other hosts: listen on 127.0.0.1, or set allow_remote = true and let a \
             firewall choose who may ask"
        ));
    }
    Ok(Some(address))
}

fn within(key: &str, value: u32, range: std::ops::RangeInclusive<u32>) -> Result<(), BadSettings> {
    if range.contains(&value) {
        return Ok(());
    }
    bad(format!("{key} must lie between {} and {}", range.start(), range.end()))
}

impl Policy {
    /// Where it listens, where it does.
    ///
    /// # Errors
    /// Where that is no address, or one beyond the loopback that is not allowed.
    pub fn address(&self) -> Result<Option<SocketAddr>, BadSettings> {
        address("relays.policy", &self.listen, self.allow_remote)
    }

    fn check(&self) -> Result<(), BadSettings> {
        self.address()?;
        for (key, words) in [("text", &self.text), ("throttle_text", &self.throttle_text)] {
            if let Err(why) = text::check(words) {
                return bad(format!("relays.policy.{key}: {why}"));
            }
        }
        if self.contact.is_empty() || !text::is_plain(&self.contact) {
            return bad("relays.policy.contact must say whom to ask, in ASCII and on one line".to_owned());
        }
        let is_way = self.filter.split_once(':').is_some_and(|(transport, _)| !transport.is_empty());
        if self.action == Action::Filter && !is_way || !text::is_plain(&self.filter) {
            return bad("relays.policy.filter must be `transport:nexthop`, such as smtp:[192.0.2.9]:25".to_owned());
        }
        if self.default_domain.contains(['@', ' ']) || !text::is_plain(&self.default_domain) {
            return bad("relays.policy.default_domain must be a domain, without @".to_owned());
        }
        within("relays.policy.throttle_recipients", self.throttle_recipients, 1..=RECIPIENTS_MAX)?;
        within("relays.policy.connections_max", self.connections_max, 1..=10_000)?;
        within("relays.policy.idle_s", self.idle_s, 10..=86_400)
    }
}

impl Agent {
    /// Where it listens, where it does.
    ///
    /// # Errors
    /// Where that is no address, or one beyond the loopback that is not allowed.
    pub fn address(&self) -> Result<Option<SocketAddr>, BadSettings> {
        address("relays.agent", &self.listen, self.allow_remote)
    }
}

fn is_command(words: &[String]) -> bool {
    words.len() <= WORDS_MAX
        && words.first().is_some_and(|program| Path::new(program).is_absolute())
        && words.iter().all(|w| !w.contains('\0') && w.len() <= 4096)
}

/// Checks what the hands are configured with.
///
/// # Errors
/// Names the key.
pub fn check(settings: &Settings) -> Result<(), BadSettings> {
    let Settings { policy, agent, file: files, hook: hooks, webhook: webhooks, .. } = settings;
    policy.check()?;
    agent.address()?;
    within("relays.agent.connections_max", agent.connections_max, 1..=10_000)?;
    if [files.len(), hooks.len(), webhooks.len()].into_iter().any(|n| n > TABLES_MAX) {
        return bad(format!("relays: there may be {TABLES_MAX} tables `file`, as many `hook` and as many `webhook`"));
    }
    let (mut paths, mut names) = (HashSet::new(), HashSet::new());
    for file in files {
        let path = file.path.display();
        if !file.path.is_absolute() || file.path.file_name().is_none() || !paths.insert(&file.path) {
            return bad(format!("relays.file `{path}`: path must be a whole path of its own, beginning with /"));
        }
        if !file.reload.is_empty() && !is_command(&file.reload) {
            return bad(format!(
                "relays.file `{path}`: reload must be a program by its whole path and its arguments, such as \
                 [\"/usr/sbin/postmap\", \"{path}\"]"
            ));
        }
        within(&format!("relays.file `{path}`: timeout_s"), file.timeout_s, 1..=300)?;
    }
    for hook in hooks {
        let name = &hook.name;
        let is_name = (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && names.insert(name);
        if !is_name {
            return bad(format!("relays.hook `{name}`: a hook needs a name of its own: letters, digits, - and _"));
        }
        if !is_command(&hook.command) {
            return bad(format!(
                "relays.hook `{name}`: command must be a program by its whole path and its arguments, such as \
                 [\"/usr/local/bin/stop-account\", \"--quiet\"]"
            ));
        }
        if hook.on.is_empty() {
            return bad(format!("relays.hook `{name}`: on is empty: stop, throttle, release, pull, restore"));
        }
        within(&format!("relays.hook `{name}`: timeout_s"), hook.timeout_s, 1..=300)?;
    }
    for webhook in webhooks {
        let name = &webhook.name;
        if let Err(BadKey::Key { key, cure, .. }) = webhook.endpoint().check() {
            return bad(format!("relays.webhook `{name}`: {key}: {cure}"));
        }
        if !names.insert(name) {
            return bad(format!("relays.webhook `{name}`: another hook or webhook has this name: rename one"));
        }
        if webhook.on.is_empty() {
            return bad(format!("relays.webhook `{name}`: on is empty: stop, throttle, release, pull, restore"));
        }
        within(&format!("relays.webhook `{name}`: timeout_s"), webhook.timeout_s, 1..=300)?;
    }
    Ok(())
}
