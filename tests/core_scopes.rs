//! Decisions about tenants, domains and networks: whom they reach, how they go together, and what comes from elsewhere.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod common;
mod core_support;

use std::borrow::Cow;
use std::sync::Arc;

use core_support::{BEGIN_S, DAY_S, Detector, at, outcome, policy, send};
use mailfuse::core::alert::Alert;
use mailfuse::core::decision::Decisions;
use mailfuse::core::policy::{Detect, Policy};
use mailfuse::core::scope::Scope;
use mailfuse::core::verdict::Stratum;
use mailfuse::event::{Event, Timestamp};
use mailfuse::kafka::control;
use serde_json::{Value, json};

const WHO: &str = "info@shop.example";
const OFFICE: &str = "192.0.2.7";
const END_S: i64 = BEGIN_S + 63 * DAY_S;

fn about(scope: &str, name: &str, list: Value) -> Arc<Decisions> {
    let record = json!({ "v": 1, scope: name, "decisions": list });
    Arc::new(Decisions::parse(record.to_string().as_bytes()).unwrap())
}

fn exempt(factor: f64) -> Value {
    json!([{"what": "exempt", "factor": factor, "from": 0, "until": END_S}])
}

/// Twelve days of mail to colleagues from the office; then messages to strangers, each from where `from` says.
fn events(n: i64, from: impl Fn(i64) -> &'static str) -> Vec<Event<'static>> {
    let mut events = Vec::new();
    for day in 0..12 {
        for i in 0..5 {
            let rcpts = [format!("colleague{i}@customer.example")];
            let (ts, id) = (at(BEGIN_S + day * DAY_S + 36_000 + i * 600), format!("d{day}-{i}"));
            events.push(send(ts, WHO, if i == 0 { "2001:db8::7" } else { OFFICE }, &id, "out-1", &rcpts));
            events.push(outcome(ts, WHO, &id, "out-1", &rcpts[0], ""));
        }
    }
    for i in 0..n {
        let ts = Timestamp((BEGIN_S + 12 * DAY_S + 36_000) * 1000 + i * 50);
        events.push(send(ts, WHO, from(i), &format!("s{i}"), "out-1", &[format!("stranger{i}@far.example")]));
    }
    for event in &mut events {
        event.tenant = Some(Cow::Borrowed("Shop Ltd"));
    }
    events
}

/// How many messages to strangers it takes to the first flag, and that.
fn flag(events: &[Event<'_>], policy: &Arc<Policy>, decided: &[Arc<Decisions>]) -> Option<(u32, Alert)> {
    let mut d = Detector::new(policy, BEGIN_S - 90 * DAY_S);
    decided.iter().for_each(|one| d.shard.decide(Arc::clone(one)));
    let mut strangers = 0;
    for event in events {
        strangers += u32::from(d.step(event).new_recipients > 0 && event.ts > at(BEGIN_S + 12 * DAY_S));
        if let Some(alert) = d.alerts.pop() {
            return Some((strangers, alert));
        }
    }
    None
}

#[test]
fn keys_are_read_and_written() {
    for (scope, name, key) in [
        ("account", "Ann@A.example", "ann@a.example"),
        ("tenant", "Shop Ltd", "scope:tenant:shop ltd"),
        ("tenant", "a:b", "scope:tenant:a:b"),
        ("domain", "Shop.example", "scope:domain:shop.example"),
        ("network", "192.0.2.77/24", "scope:network:192.0.2.0/24"),
        ("network", "2001:DB8::1/32", "scope:network:2001:db8::/32"),
    ] {
        let scoped = Scope::new(scope, name).unwrap();
        assert_eq!((&*scoped.key(), scoped.kind()), (key, scope));
        assert_eq!(Scope::of_key(key), Some(scoped.clone()));
        let record = json!({"v": 1, scope: name, "decisions": exempt(2.0)}).to_string();
        let read = control::read(key.as_bytes(), Some(record.as_bytes())).unwrap();
        assert_eq!((&read.scope, read.decisions.len()), (&scoped, 1));
        assert_eq!(Decisions::parse(serde_json::to_string(&read).unwrap().as_bytes()).unwrap(), read);
        assert_eq!(control::read(key.as_bytes(), None).unwrap(), Decisions::none(scoped));
        let other = control::read(b"other@a.example", Some(record.as_bytes())).unwrap_err();
        assert_eq!(other.to_string(), format!("its key should be {key}"));
    }
    for key in [
        "",
        "scope:",
        "scope:x:y",
        "scope:account:a@b.c",
        "scope:domain:a@b",
        "scope:network:192.0.2.1/24",
        "scope:network:x",
    ] {
        assert_eq!(Scope::of_key(key), None, "{key}");
        assert!(control::read(key.as_bytes(), None).unwrap_err().to_string().starts_with("nobody's key"));
    }
}

#[test]
fn tenants_and_domains_reach_their_accounts_and_the_largest_factor_counts() {
    let policy = policy(Detect::default());
    let events = events(1200, |_| OFFICE);
    let count = |decided: &[Arc<Decisions>]| flag(&events, &policy, decided).unwrap();
    let plain = count(&[]).0;
    let alone: Vec<u32> = [2.0, 3.0, 5.0].into_iter().map(|f| count(&[about("account", WHO, exempt(f))]).0).collect();
    assert!(plain < alone[0] && alone[0] < alone[1] && alone[1] < alone[2], "{plain} {alone:?}");
    for (scope, name, told) in [("tenant", "SHOP ltd", "shop ltd"), ("domain", "shop.example", "shop.example")] {
        let (n, alert) = count(&[about(scope, name, exempt(3.0))]);
        assert_eq!(n, alone[1]);
        let exempt = alert.exempt.unwrap();
        assert_eq!((&*exempt.scope, &*exempt.name, exempt.factor), (scope, told, 3.0));
        let says = format!("(limits times 3: {scope} {told} exempt until ");
        assert!(alert.evidence.iter().any(|e| e.text.contains(&says)), "{:?}", alert.evidence);
    }
    let all = [
        about("account", WHO, exempt(2.0)),
        about("tenant", "shop ltd", exempt(5.0)),
        about("domain", "shop.example", exempt(3.0)),
    ];
    let (n, alert) = count(&all);
    assert_eq!((n, &*alert.exempt.unwrap().scope), (alone[2], "tenant"));
    // Others are not meant, and a list that was taken back is gone.
    for (scope, name) in
        [("tenant", "shop.example"), ("domain", "example"), ("domain", "shop.examples"), ("account", "shop.example")]
    {
        assert_eq!(count(&[about(scope, name, exempt(10.0))]).0, plain, "{scope} {name}");
    }
    assert_eq!(count(&[about("tenant", "shop ltd", exempt(5.0)), about("tenant", "shop ltd", json!([]))]).0, plain);
}

#[test]
fn the_nearest_pin_and_the_largest_tolerance_count() {
    let policy = policy(Detect::default());
    let mut d = Detector::new(&policy, BEGIN_S - 90 * DAY_S);
    events(1, |_| OFFICE).iter().for_each(|e| _ = d.step(e));
    let pin = |stratum: &str| json!([{"what": "pin", "stratum": stratum, "from": 0, "until": END_S}]);
    let tolerate = |decades: f64| json!([{"what": "tolerate", "decades": decades, "from": 0, "until": END_S}]);
    let bar = |d: &Detector| {
        let account = d.shard.account(WHO).unwrap();
        let bar = d.shard.bar(&account);
        (bar.stratum, bar.t.warning)
    };
    let warning = |stratum: Stratum| mailfuse::core::verdict::threshold(&policy, stratum).warning;
    for (scope, name, list, expected) in [
        ("tenant", "shop ltd", pin("bulk"), (Stratum::Bulk, warning(Stratum::Bulk))),
        ("domain", "shop.example", pin("established"), (Stratum::Established, warning(Stratum::Established))),
        ("account", WHO, pin("bulk"), (Stratum::Bulk, warning(Stratum::Bulk))),
        ("account", WHO, tolerate(1.0), (Stratum::Established, warning(Stratum::Established) + 1.0)),
        ("domain", "shop.example", tolerate(2.0), (Stratum::Bulk, warning(Stratum::Bulk) + 2.0)),
        ("tenant", "shop ltd", tolerate(1.5), (Stratum::Established, warning(Stratum::Established) + 2.0)),
    ] {
        d.shard.decide(about(scope, name, list));
        assert_eq!(bar(&d), expected, "{scope}");
    }
    assert_eq!(d.shard.decisions(&d.shard.account(WHO).unwrap()).len(), 3);
}

/// All from the exempt network: as if the account were exempt. All from elsewhere: as if nothing were. Half and half: in between.
#[test]
fn a_network_is_exempt_for_what_comes_from_it() {
    let policy = policy(Detect::default());
    const ELSEWHERE: &str = "192.0.77.1"; // Of the same /16: no network never seen before.
    let network = [about("network", "192.0.2.0/24", exempt(10.0))];
    let account = [about("account", WHO, exempt(10.0))];
    let (office, elsewhere) = (events(1000, |_| OFFICE), events(1000, |_| ELSEWHERE));
    let plain = flag(&office, &policy, &[]).unwrap().0;
    let (n, alert) = flag(&office, &policy, &network).unwrap();
    assert_eq!(n, flag(&office, &policy, &account).unwrap().0);
    let told = alert.exempt.as_ref().unwrap();
    assert_eq!((&*told.scope, &*told.name, told.factor), ("network", "192.0.2.0/24", 10.0));
    let says = "(limits times 10 for what comes from 192.0.2.0/24: exempt until ";
    assert!(alert.evidence.iter().any(|e| e.text.contains(says)), "{:?}", alert.evidence);
    let (n, alert) = flag(&elsewhere, &policy, &network).unwrap();
    assert_eq!((n, alert.exempt), (plain, None));
    let mixed = events(1000, |i| if i % 2 == 0 { OFFICE } else { ELSEWHERE });
    let n = flag(&mixed, &policy, &network).unwrap().0;
    // A message from elsewhere counts 1, one from the office a tenth.
    let counted = |n: u32| f64::from(n / 2) + f64::from(n.div_ceil(2)) / 10.0;
    assert!(counted(n) <= f64::from(plain) && counted(n) > f64::from(plain) - 2.0, "{n}, {plain}");
    // A thief elsewhere is seen as early as ever, however much the office has sent before him.
    let thief = events(1000, |i| if i < 40 { OFFICE } else { "203.0.113.9" });
    let seen = flag(&thief, &policy, &network).unwrap().0;
    assert!(seen > 40 && seen <= 40 + plain, "{seen}");
    // The larger factor counts where the account is exempt as well, and the smaller one elsewhere.
    let both = [about("network", "192.0.2.0/24", exempt(10.0)), about("account", WHO, exempt(2.0))];
    assert_eq!(flag(&office, &policy, &both).unwrap().0, flag(&office, &policy, &account).unwrap().0);
    let two = [about("account", WHO, exempt(2.0))];
    assert_eq!(flag(&elsewhere, &policy, &both).unwrap().0, flag(&elsewhere, &policy, &two).unwrap().0);
    let less = [about("network", "192.0.0.0/8", exempt(3.0)), about("account", WHO, exempt(10.0))];
    assert_eq!(flag(&office, &policy, &less).unwrap().1.exempt.unwrap().scope, "account");
    // Of nested networks the largest factor; a network taken back is gone; IPv6 is another family.
    let nested = [about("network", "192.0.2.0/24", exempt(10.0)), about("network", "192.0.0.0/8", exempt(3.0))];
    assert_eq!(flag(&office, &policy, &nested).unwrap().0, flag(&office, &policy, &account).unwrap().0);
    let gone =
        [Arc::clone(&network[0]), about("network", "192.0.2.0/24", json!([])), about("network", "::/0", exempt(9.0))];
    assert_eq!(flag(&office, &policy, &gone).unwrap().0, plain);
}
