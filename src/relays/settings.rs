//! Section `[relays]`: the pools and their members.

use std::net::IpAddr;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::hands::settings::{self as hands, Agent, FileList, Hook, Maps, Policy, Webhook};
use super::listing::settings as listing;
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
    /// Of accounts.
    pub stop: Stops,
    /// Of relays.
    pub pull: Pulls,
    /// The pools.
    pub pool: Vec<Pool>,
    /// Lists that are kept on disk.
    pub file: Vec<FileList>,
    /// Programs that the active desk runs.
    pub hook: Vec<Hook>,
    /// Receivers to which the active desk posts.
    pub webhook: Vec<Webhook>,
    /// The lists that are fetched over HTTP.
    pub maps: Maps,
    /// The policy service for Postfix.
    pub policy: Policy,
    /// The server of HAProxy's agent checks.
    pub agent: Agent,
    /// Which blocklists are asked for the relays' addresses.
    pub listing: listing::Settings,
}

/// Section `[relays.stop]`: when accounts are stopped, and for how long. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stops {
    /// Whether a warning throttles its account.
    pub throttle: bool,
    /// A stop ends by itself after so long.
    pub max_s: u32,
    /// The same of a throttle.
    pub throttle_max_s: u32,
    /// So many accounts are stopped or throttled an hour without a person, in the whole fleet.
    pub per_hour: u32,
    /// The same of one tenant.
    pub tenant_per_hour: u32,
    /// A relay waits so long for the word that an account which burdens it is stopped.
    pub grace_s: u32,
    /// For so long after its release a warning stops the account again.
    pub probation_s: u32,
}

/// Section `[relays.pull]`: when relays are pulled and put back. Durations are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pulls {
    /// What went through a relay counts for so long.
    pub window_s: u32,
    /// A relay is exposed from so many recipients of bursts on.
    pub recipients: u32,
    /// And from this share of all recipients that it carried on.
    pub share: f64,
    /// With so many refusals for its reputation, by two families of receivers or more, half of `recipients` suffices; it does not go
    /// back while they last, and what went back too early goes again.
    pub refused: u32,
    /// It is out for so long at least; twice as long with each further pull within a day.
    pub min_s: u32,
    /// A pull ends after so long, unless the exposure lasts.
    pub renew_s: u32,
    /// However long the exposure lasts, it ends after so long.
    pub max_s: u32,
    /// This share of a pool stays in.
    pub floor_share: f64,
    /// So many relays of a pool stay in.
    pub floor: u32,
    /// So many relays are out at a time, of all pools together.
    pub at_once: u32,
    /// So many relays of a pool are pulled an hour.
    pub per_hour: u32,
    /// What a person puts back is not pulled again for so long.
    pub again_s: u32,
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
            stop: Stops::default(),
            pull: Pulls::default(),
            pool: Vec::new(),
            file: Vec::new(),
            hook: Vec::new(),
            webhook: Vec::new(),
            maps: Maps::default(),
            policy: Policy::default(),
            agent: Agent::default(),
            listing: listing::Settings::default(),
        }
    }
}

impl Default for Stops {
    fn default() -> Self {
        Self {
            throttle: false,
            max_s: 604_800,
            throttle_max_s: 86_400,
            per_hour: 20,
            tenant_per_hour: 10,
            grace_s: 60,
            probation_s: 604_800,
        }
    }
}

impl Default for Pulls {
    fn default() -> Self {
        Self {
            window_s: 3600,
            recipients: 200,
            share: 0.005,
            refused: 20,
            min_s: 1800,
            renew_s: 3600,
            max_s: 86_400,
            floor_share: 0.7,
            floor: 1,
            at_once: 20,
            per_hour: 6,
            again_s: 3600,
        }
    }
}

impl Stops {
    fn check(&self) -> Result<(), BadSettings> {
        let spans = [("max_s", self.max_s), ("throttle_max_s", self.throttle_max_s)];
        ranged("stop", &spans, 60, 31_536_000)?;
        ranged("stop", &[("grace_s", self.grace_s)], 0, 3600)?;
        ranged("stop", &[("probation_s", self.probation_s)], 0, 31_536_000)?;
        ranged("stop", &[("per_hour", self.per_hour), ("tenant_per_hour", self.tenant_per_hour)], 0, 10_000)
    }
}

impl Pulls {
    fn check(&self) -> Result<(), BadSettings> {
        let spans = [("window_s", self.window_s), ("min_s", self.min_s), ("renew_s", self.renew_s)];
        ranged("pull", &spans, 60, 86_400)?;
        ranged("pull", &[("max_s", self.max_s)], self.renew_s.max(self.min_s), 2_592_000)?;
        ranged("pull", &[("again_s", self.again_s)], 0, 604_800)?;
        ranged("pull", &[("recipients", self.recipients)], 4, 100_000_000)?;
        ranged("pull", &[("refused", self.refused), ("floor", self.floor)], 1, 1_000_000)?;
        ranged("pull", &[("at_once", self.at_once), ("per_hour", self.per_hour)], 0, 10_000)?;
        for (key, share) in [("share", self.share), ("floor_share", self.floor_share)] {
            if !(0.0..=1.0).contains(&share) {
                return Err(BadSettings(format!("relays.pull.{key} must lie between 0 and 1")));
            }
        }
        Ok(())
    }
}

fn ranged(section: &str, values: &[(&str, u32)], least: u32, most: u32) -> Result<(), BadSettings> {
    match values.iter().find(|(_, value)| !(least..=most).contains(value)) {
        Some((key, _)) => Err(BadSettings(format!("relays.{section}.{key} must lie between {least} and {most}"))),
        None => Ok(()),
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
        self.stop.check()?;
        self.pull.check()?;
        let asks =
            self.listing.checked().map_err(|(key, what)| BadSettings(format!("relays.listing.{key}: {what}")))?;
        if asks.is_some() && addresses.is_empty() {
            return bad("relays.listing.zone: no member of [[relays.pool]] has an address to ask for".to_owned());
        }
        hands::check(self)
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

    /// Whether nobody needs to know what relays bear: without pools there is nothing to pull, without a policy service no stop is
    /// served, and in shadow no account is stopped later than at its flag.
    pub fn needs_no_signals(&self) -> bool {
        let is_shadow = [self.mode].iter().chain(self.tenant_mode.values()).all(|mode| *mode == Mode::Shadow);
        self.pool.is_empty() && self.policy.listen.is_empty() && is_shadow
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
