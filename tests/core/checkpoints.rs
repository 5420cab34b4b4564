//! Checkpoints and rest: what is given is one moment, whatever happens meanwhile; what is restored goes on as if nothing had
//! been; and who rests packed changes nothing.

use crate::core_support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use core_support::stream::{name, stream};
use core_support::{BEGIN_S, DAY_S, at, policy, saying, send, stored};
use mailfuse::core::account::Account;
use mailfuse::core::alert::Alert;
use mailfuse::core::fingerprint::Fingerprint;
use mailfuse::core::packed;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::shard::Shard;
use mailfuse::core::window::{Counters, Spans, WINDOWS_MAX};
use mailfuse::event::{Event, Timestamp};
use mailfuse::state;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

type Records = BTreeMap<String, Vec<u8>>;
type Plain = (Vec<String>, Vec<usize>, Records);

/// A dozen accounts, four of them hijacked.
fn few() -> &'static [Event<'static>] {
    static EVENTS: OnceLock<Vec<Event<'static>>> = OnceLock::new();
    EVENTS.get_or_init(|| {
        let names: Vec<String> = (0..12).map(name).collect();
        stream().into_iter().filter(|e| names.iter().any(|n| e.account.as_deref() == Some(n))).collect()
    })
}

fn all(shard: &Shard) -> Records {
    let mut records = Records::new();
    shard.give_all(&mut |name, packed| {
        records.insert(name.to_owned(), packed.to_vec());
    });
    records
}

fn fresh(policy: &Arc<Policy>) -> Shard {
    Shard::new(Arc::clone(policy), at(BEGIN_S))
}

fn text(alerts: &[Alert]) -> Vec<String> {
    alerts.iter().map(|a| serde_json::to_string(a).unwrap()).collect()
}

/// Every event, with no checkpoint and no rest: the alerts, how many of them there were before each event, and the state.
fn plain(policy: &Arc<Policy>) -> Plain {
    let (mut shard, mut out, mut before) = (fresh(policy), Vec::new(), Vec::new());
    for event in few() {
        before.push(out.len());
        shard.step(event, &mut out);
    }
    (text(&out), before, all(&shard))
}

#[derive(Debug, Clone)]
enum Do {
    Step(usize),
    Begin,
    Give(usize),
    Abandon,
    /// Gives the rest, finishes.
    Finish,
    Rest,
}

fn doing() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (1usize..400).prop_map(Do::Step),
        2 => Just(Do::Begin),
        4 => (0usize..7).prop_map(Do::Give),
        1 => Just(Do::Abandon),
        2 => Just(Do::Finish),
        1 => Just(Do::Rest),
    ]
}

/// What a log of stored accounts amounts to, and a checkpoint under way.
#[derive(Default)]
struct Store {
    stored: Records,
    /// How far the stream was when the stored checkpoint began.
    at: usize,
    under_way: Option<(Records, Records, usize)>,
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: Some(Box::new(FileFailurePersistence::Off)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn a_checkpoint_is_one_moment_and_the_restored_go_on(doings in proptest::collection::vec(doing(), 10..80)) {
        static PLAIN: OnceLock<(Arc<Policy>, Plain)> = OnceLock::new();
        let (policy, (alerts, before, end)) = PLAIN.get_or_init(|| {
            let policy = policy(Detect::default());
            let plain = plain(&policy);
            (policy, plain)
        });
        let (mut shard, mut out, mut done, mut store) = (fresh(policy), Vec::new(), 0, Store::default());
        for doing in doings {
            match doing {
                Do::Step(n) => {
                    for event in few().iter().skip(done).take(n) {
                        shard.step(event, &mut out);
                        done += 1;
                    }
                }
                Do::Begin => {
                    let changed = shard.changed();
                    let under_way = store.under_way.take().map_or(0, |w| w.0.len());
                    let pending = shard.begin_checkpoint();
                    prop_assert!(pending >= changed && pending <= changed + under_way.max(12));
                    prop_assert_eq!(shard.changed(), 0);
                    store.under_way = Some((all(&shard), Records::new(), done));
                }
                Do::Give(max) => {
                    if let Some((moment, given, _)) = &mut store.under_way {
                        let mut n = 0;
                        shard.give_changed(max, &mut |name, packed| {
                            n += 1;
                            assert_eq!(packed::name(packed), Some(name));
                            assert_eq!(moment[name], packed, "{name} is not as it was");
                            assert!(given.insert(name.to_owned(), packed.to_vec()).is_none(), "{name} twice");
                        });
                        prop_assert!(n <= max);
                    }
                }
                Do::Abandon => {
                    if store.under_way.take().is_some() {
                        shard.abandon_checkpoint();
                    }
                }
                Do::Finish => {
                    if let Some((moment, mut given, at)) = store.under_way.take() {
                        while shard.give_changed(3, &mut |name, packed| {
                            given.insert(name.to_owned(), packed.to_vec());
                        }) > 0 {}
                        shard.finish_checkpoint();
                        store.stored.extend(given);
                        store.at = at;
                        prop_assert_eq!(&store.stored, &moment, "what is stored is not the moment");
                    }
                }
                Do::Rest => shard.rest(),
            }
        }
        prop_assert_eq!(&text(&out)[..], &alerts[..out.len()]);
        // A crash now: another shard takes over at the stored checkpoint.
        let mut shard = fresh(policy);
        let newest = few()[..store.at].iter().map(|e| e.ts).max_by_key(|t| t.0).unwrap_or(Timestamp(i64::MIN));
        shard.restore_clock(newest);
        for (name, packed) in &store.stored {
            shard.restore_packed(name, packed).unwrap();
        }
        prop_assert_eq!(shard.changed(), 0);
        prop_assert_eq!(&all(&shard), &store.stored);
        let mut out = Vec::new();
        for event in &few()[store.at..] {
            shard.step(event, &mut out);
        }
        prop_assert_eq!(&text(&out)[..], &alerts[before.get(store.at).copied().unwrap_or(alerts.len())..]);
        prop_assert_eq!(&all(&shard), end);
    }
}

#[test]
fn what_was_given_in_vain_is_given_again() {
    let policy = policy(Detect::default());
    let (mut shard, mut out) = (fresh(&policy), Vec::new());
    for event in &few()[..600] {
        shard.step(event, &mut out);
    }
    let n = shard.begin_checkpoint();
    assert_eq!((n, shard.changed()), (shard.accounts(), 0));
    assert_eq!(shard.give_changed(3, &mut |_, _| {}), n - 3);
    shard.step(&few()[600], &mut out);
    assert_eq!(shard.changed(), 1);
    shard.abandon_checkpoint();
    assert_eq!(shard.changed(), n);
    // Half given, and declared done all the same: the rest stays.
    shard.begin_checkpoint();
    shard.give_changed(5, &mut |_, _| {});
    shard.finish_checkpoint();
    assert_eq!(shard.changed(), n - 5);
    let mut rest = Records::new();
    assert_eq!(shard.begin_checkpoint(), n - 5);
    shard.give_changed(usize::MAX, &mut |name, packed| {
        rest.insert(name.to_owned(), packed.to_vec());
    });
    assert_eq!(rest.len(), n - 5);
    shard.finish_checkpoint();
    assert_eq!(shard.begin_checkpoint(), 0);
}

#[test]
fn who_rests_changes_nothing() {
    for detect in [Detect::default(), Detect { sends_max: 40, repeat_s: 600, quiet_s: 3 * 3600, ..Detect::default() }] {
        let policy = policy(detect);
        let (mut none, mut every, mut checkpoints) = (fresh(&policy), fresh(&policy), fresh(&policy));
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for (i, event) in few().iter().enumerate() {
            assert_eq!(none.step(event, &mut a), every.step(event, &mut b));
            checkpoints.step(event, &mut c);
            // The first forgets that it was touched, the second packs it.
            every.rest();
            every.rest();
            if i % 50 == 0 {
                checkpoints.begin_checkpoint();
                checkpoints.give_changed(usize::MAX, &mut |_, _| {});
                checkpoints.finish_checkpoint();
            }
            assert_eq!(none.known_long(), every.known_long());
        }
        assert!(text(&a) == text(&b) && text(&a) == text(&c));
        let whole = stored(&none, &policy);
        assert!(whole == stored(&every, &policy) && whole == stored(&checkpoints, &policy));
        let resting = |shard: &Shard| shard.names().filter(|n| matches!(shard.account(n), Some(Cow::Owned(_)))).count();
        assert_eq!((resting(&none), resting(&every)), (0, every.accounts()));
        let long = few()
            .iter()
            .filter_map(|e| none.account(e.account.as_deref().unwrap()))
            .filter(|a| a.stratum() >= mailfuse::core::verdict::Stratum::Established);
        assert!(long.count() > 0 && none.known_long() > 0);
        for event in few() {
            let who = event.account.as_deref().unwrap();
            assert_eq!(none.account(who), every.account(who));
        }
    }
}

/// An idle shard's clock is nobody's business.
#[test]
fn ticks_leave_no_trace() {
    let policy = policy(Detect::default());
    let (mut busy, mut idle) = (fresh(&policy), fresh(&policy));
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for event in &few()[..500] {
        busy.step(event, &mut a);
        idle.step(event, &mut b);
        idle.tick(event.ts, &mut b);
    }
    assert_eq!(idle.open_incidents().count(), 0, "nothing is due, or a tick may say so");
    idle.tick(Timestamp(few()[500].ts.0 + 30 * DAY_S * 1000), &mut b);
    assert_eq!(text(&a), text(&b));
    assert!(stored(&busy, &policy) == stored(&idle, &policy));
}

#[test]
fn a_later_record_replaces_an_earlier_one_and_a_tombstone_takes_it_out() {
    let policy = policy(Detect::default());
    let (mut shard, mut out) = (fresh(&policy), Vec::new());
    let n = few().len();
    let mut early = Records::new();
    for (i, event) in few().iter().enumerate() {
        shard.step(event, &mut out);
        if i == n / 2 {
            early = all(&shard);
        }
    }
    // While incidents are open, and after.
    let mut restored = fresh(&policy);
    restored.restore_clock(shard.newest());
    for records in [&early, &all(&shard), &early, &all(&shard)] {
        for (name, packed) in records {
            restored.restore_packed(name, packed).unwrap();
        }
        assert_eq!(&all(&restored), records);
        let due = restored.open_incidents().count();
        assert_eq!(due, restored.names().filter(|n| restored.account(n).unwrap().incident.is_some()).count());
    }
    assert!(stored(&restored, &policy) == stored(&shard, &policy));
    for name in early.keys() {
        restored.forget(name);
        restored.forget(name);
        assert!(restored.account(name).is_none());
    }
    assert_eq!((restored.accounts(), restored.known_long(), restored.open_incidents().count()), (0, 0, 0));
    for (name, packed) in &early {
        restored.restore_packed(name, packed).unwrap();
    }
    assert_eq!(all(&restored), early);
    assert!(restored.restore_packed("another@name.example", &early[&name(0)]).is_err());
}

#[test]
fn a_new_configuration_is_taken_over_unless_it_begins_an_epoch() {
    let old = policy(Detect::default());
    let (mut shard, mut out) = (fresh(&old), Vec::new());
    for event in few() {
        shard.step(event, &mut out);
        if shard.open_incidents().count() > 0 {
            break;
        }
    }
    let key = |detect: Detect, key: &[u8; 16]| Arc::new(Policy::new(detect, *key, "mailfuse test".to_owned()).unwrap());
    let windows = policy(Detect { windows_s: vec![60, 3600], ..Detect::default() });
    assert_eq!(shard.set_policy(windows).unwrap_err().key, "detect.windows_s");
    let error = shard.set_policy(key(Detect::default(), b"another test key")).unwrap_err();
    assert_eq!(error.key, "fingerprint_key_file");
    // Shorter quiet time: the incident is due sooner.
    let (account, incident) = shard.open_incidents().next().unwrap();
    let (who, active_ms) = (account.name().to_owned(), incident.active_ms);
    shard.set_policy(policy(Detect { quiet_s: 60, ..Detect::default() })).unwrap();
    out.clear();
    shard.tick(Timestamp(active_ms + 60_000 + 300_000), &mut out);
    assert_eq!(out.iter().map(|a| (&*a.account, a.ts.0)).collect::<Vec<_>>(), [(&*who, active_ms + 60_000)]);
}

/// Every account of the stream at three moments: some with incidents, some with ids, some without a past.
fn packs() -> (Fingerprint, Vec<Vec<u8>>) {
    let policy = policy(Detect::default());
    let (mut shard, mut out, mut packs) = (fresh(&policy), Vec::new(), Vec::new());
    let n = few().len();
    for (i, event) in few().iter().enumerate() {
        shard.step(event, &mut out);
        if [10, n * 11 / 20, n - 1].contains(&i) {
            packs.extend(all(&shard).into_values());
        }
    }
    (Fingerprint::new(&policy.key), packs)
}

#[test]
fn damage_is_an_error_or_another_account_never_a_panic() {
    let ((prints, packs), spans) = (packs(), Spans::default());
    let mut again = Vec::new();
    for pack in packs.iter().step_by(5) {
        let account = packed::unpack(pack, &prints, &spans).unwrap();
        again.clear();
        packed::pack(&account, &prints, &mut again);
        assert_eq!(&again, pack, "not the same again");
        for n in 0..pack.len() {
            assert!(packed::unpack(&pack[..n], &prints, &spans).is_err(), "the first {n} of {} bytes", pack.len());
        }
        assert!(packed::unpack(&[&pack[..], &[0]].concat(), &prints, &spans).is_err());
        for i in 0..pack.len() {
            for bit in 0..8 {
                let mut flipped = pack.clone();
                flipped[i] ^= 1 << bit;
                if let Ok(account) = packed::unpack(&flipped, &prints, &spans) {
                    assert!(account.bytes() < 16 * pack.len() + 100_000, "byte {i}, bit {bit}: {}", account.bytes());
                }
            }
        }
    }
    assert!(packed::unpack(&[], &prints, &spans).is_err());
    assert!(packed::unpack(&vec![1; packed::PACKED_MAX + 1], &prints, &spans).is_err());
}

/// An account that does its worst in everything that it can: contacts, sends, domains, names, networks, ids.
#[test]
fn the_largest_account_has_a_bound() {
    let policy = policy(Detect { sends_max: 2048, ..Detect::default() });
    assert!(Policy::new(Detect { sends_max: 2049, ..Detect::default() }, [0; 16], String::new()).is_err());
    let (mut shard, mut out) = (fresh(&policy), Vec::new());
    let long = "x".repeat(230);
    let mut size = 0;
    let mut check = |shard: &Shard, what: &str, max: usize| {
        shard.give_all(&mut |_, packed| size = packed.len());
        println!("{what}: {size} bytes");
        assert!(size < max, "{what}: {size} bytes");
    };
    // Two generations of wide contacts.
    for i in 0..131 {
        let rcpts: Vec<String> = (0..1000).map(|k| format!("r{i}.{k}@far.example")).collect();
        shard.step(&send(at(BEGIN_S + i), "a@b.example", "10.0.0.7", "", "", &rcpts), &mut out);
    }
    let known = shard.account("a@b.example").unwrap().contacts().len();
    assert!(known > 130_000, "{known}");
    check(&shard, "contacts", 1_000_000);
    for i in 0..8192_i64 {
        let rcpts: Vec<String> =
            (0..40).map(|k| format!("s{i}@d{k}.{i}.{}.{long}{long}", &long[..i as usize % 50])).collect();
        let mut event = send(
            at(BEGIN_S + DAY_S + i / 8),
            "a@b.example",
            &format!("2001:{:x}::{i:x}", i % 5000),
            &format!("{i}{long}"),
            &format!("relay{}.{}", i % 600, if i % 40 == 0 { long.repeat(3) } else { String::new() }),
            &rcpts[..if i < 6100 { 1 } else { 40 }],
        );
        event.id = Some(format!("e{i}").into());
        shard.step(&saying(event, &format!("{i}{long}")), &mut out);
    }
    assert!(!out.is_empty());
    check(&shard, "everything", packed::PACKED_MAX);
    let loaded = state::read(&stored(&shard, &policy)[..], &policy).unwrap();
    assert_eq!(all(&loaded), all(&shard));
}

/// A file that the last program of version 1 made of the first part of the stream, with three incidents open.
#[test]
fn a_file_of_version_1_goes_on_as_if_nothing_had_been() {
    let policy = policy(Detect::default());
    let file = include_bytes!("../fixtures/state/v1.state");
    let mut shard = state::read(&file[..], &policy).unwrap();
    assert!(shard.open_incidents().count() > 0);
    let (mut whole, mut alerts, mut out) = (fresh(&policy), Vec::new(), Vec::new());
    let newest = shard.newest();
    // It has the first eight accounts.
    let theirs: Vec<String> = (0..8).map(name).collect();
    let mut events = few().iter().filter(|e| theirs.iter().any(|n| e.account.as_deref() == Some(n)));
    // It was saved right after an event that brought something new about an open incident: where the sums agree.
    let expected = shard.names().map(|n| shard.account(n).unwrap().contacts().len()).sum::<usize>();
    for event in events.by_ref() {
        whole.step(event, &mut alerts);
        let open = whole.open_incidents().count() == shard.open_incidents().count();
        if open && whole.newest() == newest && all_contacts(&whole) == expected {
            break;
        }
    }
    alerts.clear();
    for event in events {
        whole.step(event, &mut alerts);
        shard.step(event, &mut out);
    }
    assert!(out.len() >= 5, "{}", out.len());
    assert_eq!(text(&known_then(out)), text(&known_then(alerts)));
    for account in shard.names().filter_map(|n| shard.account(n)) {
        let same = whole.account(account.name()).unwrap();
        assert_eq!(sums(&account, &policy), sums(&same, &policy), "{}", account.name());
        assert_eq!(account.baseline(), same.baseline(), "{}", account.name());
        assert_eq!(account.contacts(), same.contacts(), "{}", account.name());
        assert_eq!(account.cleared_ms(), same.cleared_ms(), "{}", account.name());
    }
    let newer = [b"mailfuse state 3\n", &file[17..]].concat();
    assert!(matches!(state::read(&newer[..], &policy), Err(state::Error::Version { .. })));
    assert!(state::read(&file[..file.len() - 9], &policy).is_err());
}

/// Without what older programs did not keep of the messages before.
fn known_then(mut alerts: Vec<Alert>) -> Vec<Alert> {
    for burst in alerts.iter_mut().filter_map(|a| a.burst.as_mut()) {
        burst.contents.clear();
        burst.new_recipient_fingerprints.clear();
    }
    alerts
}

/// What the windows count at the account's clock and as it goes on.
fn sums(account: &Account, policy: &Policy) -> Vec<[Counters; WINDOWS_MAX]> {
    let later = [0, 1, 7, 60, 1_000, 10_000, 90_000, 300_000, 700_000];
    later.map(|s| account.windows().sums(&policy.spans, account.now_s() + s)).to_vec()
}

/// A file that the last program made whose packed accounts were of version 1: the first 1,434 events of eight accounts, with
/// three incidents open. It had a list of cells for each window.
#[test]
fn packed_accounts_of_version_1_count_what_they_counted() {
    let policy = policy(Detect::default());
    let file = include_bytes!("../fixtures/state/v2-packed1.state");
    let mut shard = state::read(&file[..], &policy).unwrap();
    let (mut whole, mut alerts, mut out) = (fresh(&policy), Vec::new(), Vec::new());
    let theirs: Vec<String> = (0..8).map(name).collect();
    let mut events = few().iter().filter(|e| theirs.iter().any(|n| e.account.as_deref() == Some(n)));
    events.by_ref().take(1434).for_each(|event| {
        whole.step(event, &mut alerts);
    });
    assert_eq!((shard.open_incidents().count(), shard.newest()), (3, whole.newest()));
    let alike = |shard: &Shard, whole: &Shard| {
        for account in shard.names().filter_map(|n| shard.account(n)) {
            let same = whole.account(account.name()).unwrap();
            assert_eq!(sums(&account, &policy), sums(&same, &policy), "{}", account.name());
            assert_eq!(account.baseline(), same.baseline(), "{}", account.name());
        }
    };
    alike(&shard, &whole);
    assert_eq!(shard.accounts(), whole.accounts());
    alerts.clear();
    for event in events {
        whole.step(event, &mut alerts);
        shard.step(event, &mut out);
    }
    assert!(out.len() >= 5, "{}", out.len());
    assert_eq!(text(&known_then(out)), text(&known_then(alerts)));
    alike(&shard, &whole);
}

/// A message of an account that is reached by both kinds of addresses, and not always says from where.
fn from_everywhere(begin: Timestamp, i: i64) -> Event<'static> {
    let ip = ["2001:db8:5::1", "2001:db8:5::1", "203.0.113.9", "", "2001:db8:6::1"][i as usize % 5];
    let ts = Timestamp(begin.0 + i * 11_000);
    send(ts, "six@six.example", ip, &format!("S{i}"), "out-1", &[format!("far{i}@far.example")])
}

/// A file that the last program made whose packed accounts were of version 2: the first 1,434 events of eight accounts, then six
/// messages of another one. Its sends knew neither contents nor new recipients.
#[test]
fn packed_accounts_of_version_2_go_on_as_if_nothing_had_been() {
    let policy = policy(Detect::default());
    let file = include_bytes!("../fixtures/state/v2-packed2.state");
    let mut shard = state::read(&file[..], &policy).unwrap();
    let (mut whole, mut alerts, mut out) = (fresh(&policy), Vec::new(), Vec::new());
    let theirs: Vec<String> = (0..8).map(name).collect();
    let mut events = few().iter().filter(|e| theirs.iter().any(|n| e.account.as_deref() == Some(n)));
    for event in events.by_ref().take(1434) {
        whole.step(event, &mut alerts);
    }
    let begin = whole.newest();
    (0..6).for_each(|i| _ = whole.step(&from_everywhere(begin, i), &mut alerts));
    assert_eq!((shard.open_incidents().count(), shard.accounts()), (3, 9));
    alerts.clear();
    // What it could not know does not come out of what it knew, and is stored again as it is.
    assert_eq!(all(&state::read(&stored(&shard, &policy)[..], &policy).unwrap()), all(&shard));
    for event in (6..60).map(|i| from_everywhere(begin, i)).chain(events.cloned()) {
        whole.step(&event, &mut alerts);
        shard.step(&event, &mut out);
    }
    let six = |alerts: &[Alert]| alerts.iter().filter(|a| a.account == "six@six.example").count();
    assert!(out.len() >= 5 && six(&out) >= 1, "{}, {}", out.len(), six(&out));
    let last = out.iter().rev().find(|a| a.account == "six@six.example").and_then(|a| a.burst.as_ref()).unwrap();
    assert_eq!(last.client_ips, ["2001:db8:5::1", "203.0.113.9", "2001:db8:6::1"]);
    assert!(last.new_recipient_fingerprints.len() > 10, "those since then: {last:?}");
    assert_eq!(text(&known_then(out)), text(&known_then(alerts)));
}

fn all_contacts(shard: &Shard) -> usize {
    shard.names().map(|n| shard.account(n).unwrap().contacts().len()).sum()
}
