//! Which lists are asked, in the form of a section of the configuration:
//!
//! ```toml
//! server = "127.0.0.1:53"
//! every_s = 600
//!
//! [[zone]]
//! name = "zen.spamhaus.org"
//! codes = { "127.0.0.2" = "SBL", "127.0.0.3" = "CSS", "127.0.0.4" = "XBL", "127.0.0.9" = "DROP" }
//!
//! [[zone]]
//! name = "bl.spamcop.net"
//! ```

use std::collections::{BTreeMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Zones at most.
const ZONES_MAX: usize = 32;
/// Bytes of a zone's name: with an IPv6 address before it a name has at most 253.
const ZONE_BYTES_MAX: usize = 188;

/// Which lists are asked, how, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The resolver, address and port: one of your own, because most lists do not answer public ones. Empty where no zones are
    /// asked.
    pub server: String,
    /// Each address is asked for in each zone so often, in seconds.
    pub every_s: u32,
    /// Between two questions passes at least so much, in milliseconds.
    pub spacing_ms: u32,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u32,
    /// The lists. None: nothing is asked.
    #[serde(rename = "zone")]
    pub zones: Vec<Zone>,
}

/// One list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The zone, `zen.spamhaus.org`.
    pub name: String,
    /// The codes that count, with what they mean. Empty: each does.
    #[serde(default)]
    pub codes: BTreeMap<Ipv4Addr, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { server: String::new(), every_s: 600, spacing_ms: 200, timeout_ms: 5000, zones: Vec::new() }
    }
}

impl Settings {
    /// Checks what goes together, and gives the resolver's address; `None` where nothing is asked.
    ///
    /// # Errors
    /// A key of the section, and what is wrong with it.
    pub fn checked(&self) -> Result<Option<SocketAddr>, (&'static str, String)> {
        if self.zones.is_empty() {
            return Ok(None);
        }
        if self.zones.len() > ZONES_MAX {
            return Err(("zone", format!("{} zones are too many: {ZONES_MAX} at most", self.zones.len())));
        }
        let mut names = HashSet::new();
        for zone in &self.zones {
            if !is_domain(&zone.name) {
                return Err(("zone.name", format!("{:?} is no name of a zone, such as zen.spamhaus.org", zone.name)));
            }
            if !names.insert(zone.name.trim_end_matches('.').to_ascii_lowercase()) {
                return Err(("zone.name", format!("{} is there twice", zone.name)));
            }
        }
        for (key, value, least, most) in [
            // Slower than `record::PAUSE_MS` it would never be known that an address was not listed.
            ("every_s", self.every_s, 60, 3600),
            ("spacing_ms", self.spacing_ms, 10, 60_000),
            ("timeout_ms", self.timeout_ms, 100, 30_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err((key, format!("must lie between {least} and {most}")));
            }
        }
        match self.server.parse() {
            Ok(server) => Ok(Some(server)),
            Err(_) => Err(("server", format!("{:?} is no address with a port, such as 127.0.0.1:53", self.server))),
        }
    }
}

fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    name.len() <= ZONE_BYTES_MAX && name.contains('.') && name.trim_end_matches('.').split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::{Settings, Zone};

    #[test]
    fn the_section_above_is_read() {
        let text: Vec<&str> =
            include_str!("settings.rs").lines().filter_map(|l| l.strip_prefix("//!")).map(str::trim).collect();
        let text = text.join("\n");
        let settings: Settings = toml::from_str(text.split("```").nth(1).unwrap().trim_start_matches("toml")).unwrap();
        assert_eq!((settings.zones.len(), settings.zones[0].codes.len(), settings.timeout_ms), (2, 4, 5000));
        assert!(settings.checked().unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let zone = |name: &str| Zone { name: name.to_owned(), codes: Default::default() };
        let good =
            Settings { server: "127.0.0.1:53".into(), zones: vec![zone("zen.spamhaus.org")], ..Settings::default() };
        assert_eq!(Settings::default().checked(), Ok(None));
        assert_eq!(good.checked(), Ok(Some("127.0.0.1:53".parse().unwrap())));
        let key = |change: fn(&mut Settings)| {
            let mut settings = good.clone();
            change(&mut settings);
            settings.checked().unwrap_err().0
        };
        assert_eq!(key(|s| s.server = "localhost".into()), "server");
        assert_eq!(key(|s| s.every_s = 1), "every_s");
        assert_eq!(key(|s| s.every_s = 3601), "every_s");
        assert_eq!(key(|s| s.timeout_ms = 60_000), "timeout_ms");
        assert_eq!(key(|s| s.zones.push(Zone { name: "ZEN.spamhaus.org.".into(), ..s.zones[0].clone() })), "zone.name");
        assert_eq!(key(|s| s.zones[0].name = "a b.example".into()), "zone.name");
        assert_eq!(key(|s| s.zones[0].name = format!("{}.example", "x.".repeat(120))), "zone.name");
        assert_eq!(key(|s| s.zones = vec![s.zones[0].clone(); 33]), "zone");
    }
}
