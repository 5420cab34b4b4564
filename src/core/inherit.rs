//! What an account has learned, for the account that it is called from now on: a customer who is renamed must not be met as a
//! stranger.
//!
//! The learned parts (baseline, client networks, contacts) travel packed in a decision about the new name. That takes them over
//! with its first event that knows of the decision, where it has a shorter past of its own, and once: from then on its past is
//! as long as what it inherited. What it counts now (windows, sends, an open incident) stays as it is.

use super::account::Account;
use super::baseline::{Baseline, Teaches};
use super::codec::{Input, Unreadable, put_near, put_signed};
use super::contacts::Contacts;
use super::fingerprint::Fingerprint;
use super::networks::Networks;
use super::policy::Policy;
use super::sends::seconds;
use super::verdict;

/// Version of the form.
const VERSION: u8 = 1;
/// Bytes of the form at most: all that an account can have learned is below it, and in base64 below what a broker takes.
pub const LEARNED_MAX: usize = 450_000;

/// What an account has learned, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    bytes: Box<[u8]>,
    /// Tells the fingerprints' key from others.
    key: u64,
    /// When the account was met.
    first_s: u32,
}

struct Parts {
    baseline: Baseline,
    networks: Networks,
    contacts: Contacts,
}

/// Hashed under a key, it tells the key from others.
fn key(prints: &Fingerprint) -> u64 {
    prints.of("mailfuse: what an account has learned")
}

impl Learned {
    /// Reads the packed form.
    ///
    /// # Errors
    /// Where the bytes are none of this version.
    pub fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        let (key, first_s, _) = unpack(bytes)?;
        Ok(Self { bytes: bytes.into(), key, first_s })
    }

    /// The packed form.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it goes back further than what an account has.
    pub(super) fn is_older_than(&self, account: &Account) -> bool {
        self.first_s < account.first_s()
    }
}

fn unpack(bytes: &[u8]) -> Result<(u64, u32, Parts), Unreadable> {
    if bytes.len() > LEARNED_MAX {
        return Err(Unreadable("more than an account can have learned"));
    }
    let mut from = Input::new(bytes);
    if from.byte()? != VERSION {
        return Err(Unreadable("another version"));
    }
    let key = u64::from_le_bytes(from.array()?);
    let clock_s = seconds(from.signed()?);
    let first_s = from.near(clock_s)?;
    let baseline = Baseline::unpack(&mut from, clock_s)?;
    let networks = Networks::unpack(&mut from, clock_s)?;
    let contacts = Contacts::unpack(&mut from)?;
    if from.left() > 0 {
        return Err(Unreadable("something follows"));
    }
    Ok((key, first_s, Parts { baseline, networks, contacts }))
}

impl Account {
    /// What it has learned; while an incident goes on, what it had before that. `prints` are those that its hashes were made with.
    pub fn learned(&self, prints: &Fingerprint) -> Learned {
        let then = self.incident.as_ref().and_then(|i| self.before().iter().find(|b| b.incident == i.id));
        let (baseline, networks, contacts) = match then {
            Some(before) => before.learned(),
            None => (&self.baseline, &self.networks, None),
        };
        let clock_s = self.now_s();
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&key(prints).to_le_bytes());
        put_signed(&mut bytes, self.clock_ms());
        put_near(&mut bytes, self.first_s, clock_s);
        baseline.pack(&mut bytes, clock_s);
        networks.pack(&mut bytes, clock_s);
        contacts.unwrap_or(&self.contacts).pack(&mut bytes);
        Learned { bytes: bytes.into(), key: key(prints), first_s: self.first_s }
    }

    /// Takes over what another account had learned, an event at `ts_ms` being the first that knows of it. Of its own past days it
    /// keeps the current one, its networks and its contacts. Returns whether it did: not where its own past is as long, or the
    /// fingerprints are of another key.
    pub(super) fn inherit_at(
        &mut self,
        ts_ms: i64,
        learned: &Learned,
        policy: &Policy,
        prints: &Fingerprint,
        history_since_s: u32,
    ) -> bool {
        if !learned.is_older_than(self) || learned.key != key(prints) {
            return false;
        }
        // It was read once already.
        let Ok((_, first_s, parts)) = unpack(&learned.bytes) else { return false };
        self.clock_ms = self.clock_ms.max(ts_ms);
        let now_s = self.now_s();
        self.roll(now_s, policy, history_since_s);
        let mut past = parts.baseline;
        // The last day of the old name is learned as if the account had gone on under it.
        past.roll(now_s, &policy.detect.prior, Teaches::Clamped);
        self.baseline = past.going_on(&self.baseline);
        self.networks = parts.networks.joined(&self.networks);
        let mut contacts = parts.contacts;
        contacts.join(&self.contacts);
        self.contacts = contacts;
        self.first_s = first_s;
        self.stratum = verdict::stratum(self, policy, history_since_s);
        true
    }
}
