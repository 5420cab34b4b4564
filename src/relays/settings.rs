//! Section `[relays]`: the pools and their members.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::hands::settings::{self as hands, Agent, FileList, Hook, Policy};
use super::measure::Mode;

/// Section `[relays]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How far measures go by themselves, where nothing nearer says otherwise.
    pub mode: Mode,
    /// Modes of single tenants, for stops of their accounts.
    pub tenant_mode: HashMap<String, Mode>,
    /// Hands act only on what was decided so shortly after what decided it, in seconds.
    pub act_within_s: u32,
    /// The pools.
    pub pool: Vec<Pool>,
    /// Lists that are kept on disk.
    pub file: Vec<FileList>,
    /// Programs that the active desk runs.
    pub hook: Vec<Hook>,
    /// The policy service for Postfix.
    pub policy: Policy,
    /// The server of HAProxy's agent checks.
    pub agent: Agent,
}

/// Relays that stand in for each other.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// How far pulls go by themselves here; left out: as `relays.mode` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Its relays.
    pub member: Vec<Member>,
}

/// One relay of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Member {
    /// Its name, as hands know it (HAProxy's server name).
    pub relay: String,
    /// The addresses that it sends from.
    pub address: Vec<IpAddr>,
    /// What events call it, where that is not its name: the host of its log.
    pub log_host: String,
    /// The customer that it is dedicated to. Empty: it is shared.
    pub tenant: String,
}

/// Settings that do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSettings(pub String);

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Shadow,
            tenant_mode: HashMap::new(),
            act_within_s: 600,
            pool: Vec::new(),
            file: Vec::new(),
            hook: Vec::new(),
            policy: Policy::default(),
            agent: Agent::default(),
        }
    }
}

impl Settings {
    /// Checks that names are given once and are names.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), BadSettings> {
        let bad = |text: String| Err(BadSettings(text));
        let is_name = |name: &str| {
            !name.is_empty()
                && name.len() <= 255
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:[]".contains(&b))
        };
        let (mut pools, mut relays, mut hosts, mut addresses) =
            (HashSet::new(), HashSet::new(), HashSet::new(), HashSet::new());
        for pool in &self.pool {
            let name = &pool.name;
            if !is_name(name) || !pools.insert(name) {
                return bad(format!("relays.pool `{name}`: a pool needs a name of its own: letters, digits, - _ ."));
            }
            if pool.member.is_empty() {
                return bad(format!("relays.pool `{name}` has no member"));
            }
            for member in &pool.member {
                let relay = &member.relay;
                if !is_name(relay) || !relays.insert(relay) {
                    return bad(format!(
                        "relays.pool `{name}`: member `{relay}`: a relay needs a name that no other has: letters, digits, - _ ."
                    ));
                }
                if !hosts.insert(member.host()) {
                    return bad(format!("relays.pool `{name}`: `{}` is the log's host of two relays", member.host()));
                }
                if let Some(address) = member.address.iter().find(|a| !addresses.insert(**a)) {
                    return bad(format!("relays.pool `{name}`: member `{relay}`: {address} is another relay's, too"));
                }
            }
        }
        if !(10..=86_400).contains(&self.act_within_s) {
            return bad("relays.act_within_s must lie between 10 and 86400".to_owned());
        }
        hands::check(&self.policy, &self.agent, &self.file, &self.hook)
    }

    /// The member that events call `host`, and its pool.
    pub fn by_host(&self, host: &str) -> Option<(&Pool, &Member)> {
        self.members().find(|(_, m)| m.host() == host)
    }

    /// All members, with their pools, in the order of the configuration.
    pub fn members(&self) -> impl Iterator<Item = (&Pool, &Member)> {
        self.pool.iter().flat_map(|pool| pool.member.iter().map(move |member| (pool, member)))
    }

    /// Whether anything of an instance answers from what is in force, beside its pages.
    pub fn has_hands(&self) -> bool {
        !self.policy.listen.is_empty() || !self.agent.listen.is_empty() || !self.file.is_empty()
    }

    /// How far stops of a tenant's accounts go by themselves.
    pub fn mode_of_tenant(&self, tenant: &str) -> Mode {
        self.tenant_mode.get(tenant).copied().unwrap_or(self.mode)
    }

    /// How far pulls go by themselves in a pool.
    pub fn mode_of_pool(&self, pool: &Pool) -> Mode {
        pool.mode.unwrap_or(self.mode)
    }
}

impl Member {
    /// What events call it.
    pub fn host(&self) -> &str {
        if self.log_host.is_empty() { &self.relay } else { &self.log_host }
    }
}
