//! The packed form of an account: how one that rests is held in memory, and how every one is stored.
//!
//! The first byte is the version of the form, then comes the name, then the rest in the order of [`Account`]'s parts. Times are
//! differences from the account's clock or from one another, sorted fingerprints differences from their neighbours, and what
//! is usually nothing costs a bit. The form says everything that the account holds, and is the same for equal accounts.
//!
//! How large it can be: 2 x 65,536 wide contacts take at most 0.4 MB; each of at most 2,048 sends
//! ([`SENDS_MAX`](super::sends::SENDS_MAX)) at most 1.5 kB (its texts are bounded, `sends`; fingerprints are 70 bytes), 3.1 MB; sketches 0.14 MB; ids of
//! events 0.12 MB; what two incidents are put back to 0.06 MB (8,192 contacts each); relays 0.03 MB (16 kB of names, and what an incident
//! put on each); the incident and the rest less than 0.14 MB. Together that is below [`PACKED_MAX`].

use super::account::{Account, RELAYS_MAX};
use super::baseline::Baseline;
use super::before;
use super::codec::{Input, Unreadable, put_name, put_near, put_signed, put_text};
use super::contacts::Contacts;
use super::fingerprint::Fingerprint;
use super::incident::Incident;
use super::names::Names;
use super::networks::Networks;
use super::recent::Recent;
use super::repeats::Repeats;
use super::sends::{Sends, seconds};
use super::verdict::Stratum;
use super::version1::Windows1;
use super::window::{Spans, Windows};

/// Versions of the form that are written: the later one says that there are more relay names than older programs can tell apart, and
/// is read as the other is. Version 2 knew neither contents nor new recipients of sends and incidents; version 1
/// had other windows, too.
const VERSION: u8 = 3;
const VERSION_MANY_RELAYS: u8 = 4;
/// Relay names that older programs can tell apart.
const RELAYS_OF_VERSION: usize = 127;
const VERSION_2: u8 = 2;
const VERSION_1: u8 = 1;
/// No packed account is larger, in bytes.
pub const PACKED_MAX: usize = 4_000_000;
const HAS_TENANT: u8 = 1;
const HAS_INCIDENT: u8 = 2;
const HAS_CLEARED: u8 = 4;
const HAS_REPEATS: u8 = 8;
const STRATUM_SHIFT: u32 = 4;
const STRATUM_MASK: u8 = 3;
/// Programs that do not know it take it for a stratum that they do not know, and refuse the account.
const HAS_BEFORE: u8 = 1 << 6;
const OF_NEWER: u8 = 1 << 7;

/// Packs an account, appending to `out`. `prints` are those that its hashes were made with.
pub fn pack(account: &Account, prints: &Fingerprint, out: &mut Vec<u8>) {
    let clock_s = account.now_s();
    let has_many = account.relay_names.len() > RELAYS_OF_VERSION;
    out.push(if has_many { VERSION_MANY_RELAYS } else { VERSION });
    put_text(out, &account.name);
    let stratum = match account.stratum {
        Stratum::Unknown => 0,
        Stratum::New => 1,
        Stratum::Established => 2,
        Stratum::Bulk => 3,
    };
    let bit = |is: bool, bit: u8| if is { bit } else { 0 };
    out.push(
        bit(account.tenant.is_some(), HAS_TENANT)
            | bit(account.incident.is_some(), HAS_INCIDENT)
            | bit(account.cleared_ms != 0, HAS_CLEARED)
            | bit(account.repeats.is_some(), HAS_REPEATS)
            | bit(!account.before.is_empty(), HAS_BEFORE)
            | stratum << STRATUM_SHIFT,
    );
    put_signed(out, account.clock_ms);
    put_near(out, account.first_s, clock_s);
    if let Some(tenant) = &account.tenant {
        put_name(out, tenant);
    }
    if account.cleared_ms != 0 {
        put_signed(out, account.cleared_ms.wrapping_sub(account.clock_ms));
    }
    account.baseline.pack(out, clock_s);
    account.contacts.pack(out);
    account.networks.pack(out, clock_s);
    account.relay_names.pack(out);
    account.sends.pack(out, account.clock_ms, prints);
    // Recipients and domains were mostly last used by the sends that are remembered.
    account.recipients.pack(out, &account.sends.recipient_uses(), clock_s);
    account.domains.pack(out, &account.sends.uses(prints), clock_s);
    account.relays.pack(out, &[], clock_s);
    account.windows.pack(out, clock_s);
    if let Some(repeats) = &account.repeats {
        repeats.pack(out, clock_s);
    }
    if let Some(incident) = &account.incident {
        incident.pack(out);
    }
    if !account.before.is_empty() {
        before::pack(&account.before, out, account.clock_ms);
    }
}

/// What the parts of a packed account take, in bytes, for who wants to know where memory goes.
pub fn parts(account: &Account, prints: &Fingerprint) -> [(&'static str, usize); 9] {
    let clock_s = account.now_s();
    let bytes = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out.len()
    };
    let distinct = |out: &mut Vec<u8>| {
        account.recipients.pack(out, &account.sends.recipient_uses(), clock_s);
        account.domains.pack(out, &account.sends.uses(prints), clock_s);
        account.relays.pack(out, &[], clock_s);
    };
    [
        ("all", bytes(&|out| pack(account, prints, out))),
        ("name", account.name.len()),
        ("baseline", bytes(&|out| account.baseline.pack(out, clock_s))),
        ("contacts", bytes(&|out| account.contacts.pack(out))),
        ("networks", bytes(&|out| account.networks.pack(out, clock_s))),
        ("sends", bytes(&|out| account.sends.pack(out, account.clock_ms, prints))),
        ("distinct", bytes(&distinct)),
        ("windows", bytes(&|out| account.windows.pack(out, clock_s))),
        ("repeats", account.repeats.as_ref().map_or(0, |repeats| bytes(&|out| repeats.pack(out, clock_s)))),
    ]
}

/// The name of a packed account; `None` where the bytes have none.
pub fn name(packed: &[u8]) -> Option<&str> {
    let mut from = Input::new(packed);
    from.byte().ok()?;
    from.text().ok()
}

/// Unpacks an account. `prints` are those that it was packed with, `spans` those of its windows.
///
/// # Errors
/// Where the bytes are no account, or one of a newer version. Never asks for more memory than an account can take.
pub fn unpack(packed: &[u8], prints: &Fingerprint, spans: &Spans) -> Result<Account, Unreadable> {
    if packed.len() > PACKED_MAX {
        return Err(Unreadable("larger than any account"));
    }
    let mut from = Input::new(packed);
    let version = from.byte()?;
    if ![VERSION_1, VERSION_2, VERSION, VERSION_MANY_RELAYS].contains(&version) {
        return Err(Unreadable("another version"));
    }
    let name = from.text()?;
    let flags = from.byte()?;
    if flags & OF_NEWER != 0 {
        return Err(Unreadable("another version"));
    }
    let stratum = match flags >> STRATUM_SHIFT & STRATUM_MASK {
        0 => Stratum::Unknown,
        1 => Stratum::New,
        2 => Stratum::Established,
        _ => Stratum::Bulk,
    };
    let clock_ms = from.signed()?;
    let clock_s = seconds(clock_ms);
    let mut account = Account::new(name, clock_ms, stratum);
    account.first_s = from.near(clock_s)?;
    if flags & HAS_TENANT != 0 {
        account.tenant = Some(from.name()?);
    }
    if flags & HAS_CLEARED != 0 {
        account.cleared_ms = clock_ms.wrapping_add(from.signed()?);
    }
    account.baseline = Baseline::unpack(&mut from, clock_s)?;
    account.contacts = Contacts::unpack(&mut from)?;
    account.networks = Networks::unpack(&mut from, clock_s)?;
    account.relay_names = Names::unpack(&mut from, RELAYS_MAX)?;
    account.sends = Sends::unpack(&mut from, clock_ms, prints, version)?;
    let uses = account.sends.uses(prints);
    let recipient_uses = if version < VERSION { uses.clone() } else { account.sends.recipient_uses() };
    account.recipients = Recent::unpack(&mut from, &recipient_uses, clock_s)?;
    account.domains = Recent::unpack(&mut from, &uses, clock_s)?;
    account.relays = Recent::unpack(&mut from, &[], clock_s)?;
    account.count_relays_by_name(prints);
    account.windows = match version {
        VERSION_1 => Windows1::unpack(&mut from)?.timeline(spans, clock_s),
        _ => Windows::unpack(&mut from, clock_s)?,
    };
    if flags & HAS_REPEATS != 0 {
        account.repeats = Some(Box::new(Repeats::unpack(&mut from, clock_s)?));
    }
    if flags & HAS_INCIDENT != 0 {
        account.incident = Some(Incident::unpack(&mut from, version)?.into());
    }
    if flags & HAS_BEFORE != 0 {
        account.before = before::unpack(&mut from, clock_ms)?;
    }
    if from.left() > 0 {
        return Err(Unreadable("something follows"));
    }
    Ok(account)
}

/// A part of an account, packed alone: so a test can hold each against its oracle.
pub trait Part: Sized {
    /// The bytes.
    fn packed(&self) -> Vec<u8>;
    /// The part again.
    ///
    /// # Errors
    /// Where the bytes are no such part.
    fn unpacked(bytes: &[u8]) -> Result<Self, Unreadable>;
}

macro_rules! part {
    ($part:ty, $pack:expr, $unpack:expr) => {
        impl Part for $part {
            fn packed(&self) -> Vec<u8> {
                let mut out = Vec::new();
                let pack: fn(&Self, &mut Vec<u8>) = $pack;
                pack(self, &mut out);
                out
            }

            fn unpacked(bytes: &[u8]) -> Result<Self, Unreadable> {
                let unpack: fn(&mut Input<'_>) -> Result<Self, Unreadable> = $unpack;
                unpack(&mut Input::new(bytes))
            }
        }
    };
}

part!(Windows, |w, out| w.pack(out, u32::MAX), |from| Self::unpack(from, u32::MAX));
part!(Contacts, |c, out| c.pack(out), |from| Self::unpack(from));
part!(Recent, |r, out| r.pack(out, &[], 0), |from| Self::unpack(from, &[], 0));
part!(Repeats, |r, out| r.pack(out, 0), |from| Self::unpack(from, 0));
part!(Sends, |s, out| s.pack(out, 0, &Fingerprint::new(&[0; 16])), |from| Self::unpack(
    from,
    0,
    &Fingerprint::new(&[0; 16]),
    VERSION
));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::account::relay_key;

    #[test]
    fn relays_that_an_older_program_counted_by_their_place_are_counted_by_their_name() {
        let (prints, spans) = (Fingerprint::new(&[7; 16]), Spans::default());
        let mut account = Account::new("ann@a.example", 1_700_000_000_000, Stratum::New);
        for (place, name) in ["out-1", "out-2"].into_iter().enumerate() {
            account.relay_names.push(name);
            account.relays.note((place as u64 + 1) << 32, account.now_s() - place as u32, 0);
        }
        let packed = |account: &Account| {
            let mut bytes = Vec::new();
            pack(account, &prints, &mut bytes);
            bytes
        };
        let read = unpack(&packed(&account), &prints, &spans).unwrap();
        let mut wanted = Recent::default();
        for (name, ago_s) in [("out-1", 0), ("out-2", 1)] {
            wanted.note(u64::from(relay_key(name, &prints)) << 32, account.now_s() - ago_s, 0);
        }
        assert_eq!(read.relays, wanted);
        assert_eq!(unpack(&packed(&read), &prints, &spans).unwrap().relays, wanted, "once");
    }

    #[test]
    fn many_relays_are_of_a_version_that_older_programs_refuse() {
        let (prints, spans) = (Fingerprint::new(&[7; 16]), Spans::default());
        for (names, version) in [(127, VERSION), (128, VERSION_MANY_RELAYS), (512, VERSION_MANY_RELAYS)] {
            let mut account = Account::new("ann@a.example", 1_700_000_000_000, Stratum::New);
            (0..names).for_each(|n| account.relay_names.push(&format!("out-{n}")));
            let mut bytes = Vec::new();
            pack(&account, &prints, &mut bytes);
            assert_eq!(bytes[0], version, "{names}");
            assert_eq!(unpack(&bytes, &prints, &spans).unwrap().relay_names, account.relay_names);
        }
    }
}
