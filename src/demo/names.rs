//! Names of people, firms and hosts. All domains are of `.example`, all client networks are reserved for documentation or for
//! use inside a provider: nobody real is named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::dice::Dice;

const FIRST: &[&str] = &[
    "anna", "ben", "carla", "david", "elena", "farid", "greta", "hugo", "ines", "jonas", "karin", "luca", "maria",
    "nils", "olga", "paul", "rosa", "samir", "tanja", "umut", "vera", "willem", "yara", "zoe", "aisha", "bruno",
    "clara", "dmitri", "emil", "fiona", "gustav", "hanna", "ivan", "julia", "kofi", "lena", "marco", "nadia", "oskar",
    "petra",
];
const LAST: &[&str] = &[
    "abel", "bauer", "costa", "dietrich", "eriksen", "fischer", "garcia", "hansen", "ivanova", "jansen", "keller",
    "lorenz", "moreau", "novak", "olsen", "peters", "quast", "rossi", "schmidt", "tanaka", "ulrich", "vogel", "weber",
    "yilmaz", "zimmer", "ahmadi", "berger", "conti", "dubois", "engel", "fuchs", "graf", "horvat", "ito", "jung",
    "kaya", "lang", "meyer", "nagy", "okafor", "popescu", "reis", "silva", "thomsen", "urban", "vidal", "wolf",
    "zeller",
];
const TRADE: &[&str] = &[
    "dental",
    "holzbau",
    "bikes",
    "travel",
    "garten",
    "elektro",
    "praxis",
    "verlag",
    "metall",
    "optik",
    "kueche",
    "steuer",
    "yoga",
    "archiv",
    "logistik",
    "textil",
    "musik",
    "druck",
    "wein",
    "solar",
    "baeder",
    "pflege",
    "schule",
    "immobilien",
];
const PLACE: &[&str] = &[
    "nord", "sued", "hafen", "berg", "tal", "see", "wald", "markt", "ufer", "brueck", "linde", "stern", "feld",
    "insel", "mitte", "alt", "neu", "ost", "west", "hoch",
];

/// The own hosts that talk to the outside.
pub(super) const RELAYS: [&str; 4] =
    ["out-1.mailhaus.example", "out-2.mailhaus.example", "out-3.mailhaus.example", "out-4.mailhaus.example"];

/// A customer's domain.
pub(super) fn firm(dice: &mut Dice) -> String {
    let (trade, place) = (dice.pick(TRADE), dice.pick(PLACE));
    format!("{trade}-{place}.example")
}

/// `anna.keller`.
pub(super) fn person(dice: &mut Dice) -> String {
    let (first, last) = (dice.pick(FIRST), dice.pick(LAST));
    format!("{first}.{last}")
}

/// Somebody outside: a private address, or one of a firm.
pub(super) fn outsider(dice: &mut Dice) -> String {
    let name = person(dice);
    if dice.chance(0.6) {
        format!("{name}{}@freepost-{}.example", dice.below(100), dice.below(12))
    } else {
        let firm = firm(dice);
        format!("{name}@{}{firm}", dice.below(40))
    }
}

/// Where a customer connects from: an address of an access provider, behind its translation (RFC 6598), its /16 by `region`.
pub(super) fn at_home(region: u64, dice: &mut Dice) -> IpAddr {
    let host = dice.below(1 << 16);
    IpAddr::V4(Ipv4Addr::new(100, 64 + (region % 64) as u8, (host >> 8) as u8, host as u8))
}

/// The same on the way: another provider, IPv6 (RFC 9637).
pub(super) fn on_the_way(region: u64, dice: &mut Dice) -> IpAddr {
    let segment = (region % 64) as u16;
    IpAddr::V6(Ipv6Addr::new(0x3fff, segment, 0x40, dice.below(1 << 16) as u16, 0, 0, 0, dice.below(1 << 16) as u16))
}

/// Somewhere far away: one of eight networks that no customer uses.
pub(super) fn abroad(which: u64, dice: &mut Dice) -> IpAddr {
    let host = dice.below(250) as u8 + 1;
    match which % 8 {
        0 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, host)),
        1 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, host)),
        2 => IpAddr::V4(Ipv4Addr::new(203, 0, 113, host)),
        3 => IpAddr::V4(Ipv4Addr::new(198, 18, 7, host)),
        4 => IpAddr::V4(Ipv4Addr::new(198, 19, 21, host)),
        n => IpAddr::V6(Ipv6Addr::new(0x3fff, 0x0a00 + n as u16, 9, 1, 0, 0, 0, host.into())),
    }
}
