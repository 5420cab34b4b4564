//! What people say at the desk, and what the detectors are told of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use mailfuse::core::alert::{Alert, AlertKind};
use mailfuse::core::decision::{Decisions, What};
use mailfuse::core::scope::Scope;
use mailfuse::desk::book::{About, Book};
use mailfuse::desk::deliver::Deliveries;
use mailfuse::desk::feedback::ledger::{Done, LEAD_MS, Ledger, STAYS_MS};
use mailfuse::desk::feedback::record::{Action, Kind, Resolution, Whom};
use mailfuse::desk::feedback::wish::{Asked, NewAction, NewDecision, Refused, Wish};
use mailfuse::desk::notice::Said;
use mailfuse::desk::record::{Record, State};
use mailfuse::desk::webhook::body::{Message, render};
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::settings::{Endpoint, Format};
use mailfuse::desk::webhook::sign::{Keys, Token};
use mailfuse::event::Timestamp;

const NOW: i64 = 1_790_000_000_000;
const DAY: i64 = 86_400_000;

/// A desk with one incident that goes on.
struct Desk {
    book: Book,
    ledger: Ledger,
    topic: Vec<Record>,
    /// What others have written in the control topic.
    foreign: Option<Decisions>,
    incident: String,
    account: String,
}

impl Desk {
    fn new() -> Self {
        let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
        let alert: Alert = serde_json::from_str(line).unwrap();
        assert_eq!(alert.kind, AlertKind::Flagged);
        let (incident, account) = (alert.incident.clone(), alert.account.clone());
        let mut book = Book::default();
        let topic = book.take(alert, NOW - 1000, "").records;
        Self { book, ledger: Ledger::default(), topic, foreign: None, incident, account }
    }

    fn ask(&mut self, wish: Wish, now_ms: i64) -> Result<Done, Refused> {
        let done = self.ledger.take(wish, "ann", &mut self.book, now_ms)?;
        self.topic.extend(done.records.iter().cloned());
        Ok(done)
    }

    fn resolve(&mut self, resolution: Asked, note: &str, now_ms: i64) -> Result<Done, Refused> {
        let note = Some(note.to_owned()).filter(|n| !n.is_empty());
        self.ask(Wish::Resolve { incident: self.incident.clone(), resolution, note }, now_ms)
    }

    fn control(&self, key: &str, now_ms: i64) -> Option<Decisions> {
        self.ledger.control(key, self.foreign.as_ref(), now_ms)
    }

    /// The same from what was written, as another instance would take it over.
    fn taken_over(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for record in &self.topic {
            let (key, value) = (record.key(), record.value().unwrap());
            let read = Record::read(key.as_bytes(), value.as_deref()).unwrap();
            assert_eq!(&read, record, "what is written is what is read");
            ledger.restore(&read);
        }
        ledger
    }
}

/// What the lines of the audit say.
fn audit(done: &Done) -> Vec<&str> {
    let mut lines = Vec::new();
    for record in &done.records {
        if let Record::Audit(entry) = record {
            lines.push(&*entry.what);
        }
    }
    lines
}

fn exempt(name: &str) -> NewDecision {
    NewDecision {
        scope: Whom::Account,
        name: name.to_owned(),
        what: Kind::Exempt,
        factor: None,
        decades: None,
        stratum: None,
        from: None,
        until: Timestamp(NOW + 10 * DAY),
        note: "spring sale".to_owned(),
    }
}

#[test]
fn an_incident_is_acknowledged_once_however_often_it_is_said() {
    let mut desk = Desk::new();
    let id = desk.incident.clone();
    let say = |note: Option<&str>| Wish::Acknowledge { incident: id.clone(), note: note.map(str::to_owned) };
    let done = desk.ask(say(Some("I look")), NOW).unwrap();
    assert_eq!(audit(&done), ["incident.acknowledged"]);
    assert_eq!(done.answer["acknowledged"]["by"], "ann");
    assert!(done.control.is_empty(), "it changes nothing for the detectors");
    let again = desk.ask(say(None), NOW + 5).unwrap();
    assert!(again.records.is_empty());
    assert_eq!(again.answer, done.answer);
    let none = desk.ask(Wish::Acknowledge { incident: "i-none".into(), note: None }, NOW).unwrap_err();
    assert!(matches!(none, Refused::Unknown(_)), "{none}");
}

#[test]
fn a_hijack_closes_the_incident_and_takes_it_out_once() {
    let mut desk = Desk::new();
    let done = desk.resolve(Asked::Hijack, "password changed", NOW).unwrap();
    assert_eq!(audit(&done), ["incident.resolved.hijack", "decision.hijack"]);
    assert_eq!(done.control, [desk.account.clone()]);
    let told = desk.control(&desk.account, NOW).unwrap();
    assert_eq!(told.scope, Scope::new("account", &desk.account).unwrap());
    let [one] = &told.decisions[..] else { panic!("{told:?}") };
    assert_eq!(one.what, What::Hijack { incident: desk.incident.clone() });
    assert_eq!((one.from, one.until), (Timestamp(NOW + LEAD_MS), None));
    assert_eq!((one.by.as_deref(), one.note.as_deref()), (Some("ann"), Some("password changed")));
    // The incident goes on until the detector says that it is over.
    assert_eq!(desk.book.incident(&desk.incident).unwrap().state, State::Open);
    assert!(desk.resolve(Asked::Hijack, "", NOW + 1).unwrap().records.is_empty(), "said twice, done once");
    let other = desk.resolve(Asked::NotHijack, "", NOW + 2).unwrap_err();
    assert!(matches!(other, Refused::Conflict(_)), "{other}");
    assert_eq!(desk.control(&desk.account, NOW + 3).unwrap(), told);
}

#[test]
fn whoever_learns_better_may_say_so() {
    let mut desk = Desk::new();
    desk.resolve(Asked::NotHijack, "", NOW).unwrap();
    desk.resolve(Asked::Hijack, "the owner called", NOW + DAY).unwrap();
    let told = desk.control(&desk.account, NOW + DAY).unwrap();
    let kinds: Vec<_> = told.decisions.iter().map(|d| (d.what.clone(), d.from.0)).collect();
    let incident = desk.incident.clone();
    assert_eq!(
        kinds,
        [(What::Close { incident: incident.clone() }, NOW + LEAD_MS), (What::Hijack { incident }, NOW + DAY + LEAD_MS)]
    );
    let resolved = desk.book.incident(&desk.incident).unwrap().resolved.clone().unwrap();
    assert_eq!(resolved.kind, Resolution::Hijack);
}

#[test]
fn a_false_positive_is_tolerated_for_a_time_and_needs_a_reason() {
    let mut desk = Desk::new();
    let wrong = Asked::FalsePositive { days: 90, decades: 2.0 };
    assert!(matches!(desk.resolve(wrong, " ", NOW), Err(Refused::Invalid(_))));
    for (days, decades) in [(0, 2.0), (366, 2.0), (90, 0.4), (90, 10.1), (90, f64::NAN)] {
        let refused = desk.resolve(Asked::FalsePositive { days, decades }, "club's news", NOW);
        assert!(matches!(refused, Err(Refused::Invalid(_))), "{days} {decades}");
    }
    assert!(desk.control(&desk.account, NOW).is_none(), "what was refused has changed nothing");
    let done = desk.resolve(wrong, "the club's news", NOW).unwrap();
    assert_eq!(audit(&done), ["incident.resolved.false_positive", "decision.close", "decision.tolerate"]);
    let told = desk.control(&desk.account, NOW).unwrap();
    assert_eq!(told.decisions.len(), 2);
    assert_eq!(told.decisions[1].what, What::Tolerate { decades: 2.0 });
    let from = NOW + LEAD_MS;
    assert_eq!((told.decisions[1].from.0, told.decisions[1].until), (from, Some(Timestamp(from + 90 * DAY))));
    assert_eq!(told.decisions[1].note.as_deref(), Some("the club's news"));
}

#[test]
fn what_was_tolerated_ends_when_somebody_knows_better() {
    let mut desk = Desk::new();
    desk.resolve(Asked::FalsePositive { days: 90, decades: 2.0 }, "the club's news", NOW).unwrap();
    let done = desk.resolve(Asked::Hijack, "it was none", NOW + DAY).unwrap();
    assert_eq!(audit(&done), ["incident.resolved.hijack", "decision.taken_back", "decision.hijack"]);
    let told = desk.control(&desk.account, NOW + DAY).unwrap();
    let tolerated = told.decisions.iter().find(|d| matches!(d.what, What::Tolerate { .. })).unwrap();
    assert_eq!(tolerated.until, Some(Timestamp(NOW + DAY + LEAD_MS)));
    assert_eq!(desk.taken_over().control(&desk.account, None, NOW + DAY), Some(told));
}

#[test]
fn what_is_asked_twice_because_no_answer_came_is_decided_once() {
    let mut desk = Desk::new();
    let first = desk.ask(Wish::Decide(exempt("a@b.example")), NOW).unwrap();
    let again = desk.ask(Wish::Decide(exempt("A@b.example")), NOW + 9000).unwrap();
    assert_eq!(again.answer, first.answer);
    assert!(again.records.is_empty() && again.control.is_empty());
    // Another reason, another time or taken back: that is another one.
    let other = NewDecision { note: "autumn sale".into(), ..exempt("a@b.example") };
    assert_eq!(desk.ask(Wish::Decide(other), NOW).unwrap().records.len(), 2);
    let id = first.answer["id"].as_str().unwrap().to_owned();
    desk.ask(Wish::TakeBack { decision: id, note: None }, NOW + DAY).unwrap();
    assert_eq!(desk.ask(Wish::Decide(exempt("a@b.example")), NOW + DAY).unwrap().records.len(), 2);
    let later = NewDecision { from: Some(Timestamp(NOW + 2 * DAY)), ..exempt("a@b.example") };
    assert_eq!(desk.ask(Wish::Decide(later), NOW + DAY).unwrap().records.len(), 2);
}

#[test]
fn where_there_is_no_room_what_is_over_goes_and_nobody_s_that_stands() {
    let mut desk = Desk::new();
    let over = r#"{"what":"exempt","from":"2026-09-01T00:00:00Z","until":"2026-09-02T00:00:00Z","by":"script"}"#;
    let stands = r#"{"what":"exempt","from":"2026-09-01T00:00:00Z","until":"2027-09-01T00:00:00Z","by":"script"}"#;
    let theirs = [[over; 40].join(","), [stands; 60].join(",")].join(",");
    let record = format!(r#"{{"v":1,"account":"a@b.example","decisions":[{theirs}]}}"#);
    desk.foreign = Some(Decisions::parse(record.as_bytes()).unwrap());
    for n in 0..30 {
        desk.ask(Wish::Decide(NewDecision { note: format!("sale {n}"), ..exempt("a@b.example") }), NOW).unwrap();
    }
    let told = desk.control("a@b.example", NOW).unwrap();
    let until = |text: &str| told.decisions.iter().filter(|d| d.until == Timestamp::parse(text).ok()).count();
    assert_eq!((until("2026-09-02T00:00:00Z"), until("2027-09-01T00:00:00Z"), told.decisions.len()), (10, 60, 100));
}

#[test]
fn what_cannot_be_decided_is_refused_with_the_field() {
    let mut desk = Desk::new();
    let base = exempt("news@shop.example");
    let cases: Vec<(NewDecision, &str)> = vec![
        (NewDecision { note: "  ".into(), ..base.clone() }, "note"),
        (NewDecision { name: String::new(), ..base.clone() }, "`name`"),
        (NewDecision { scope: Whom::Network, name: "192.0.2.1".into(), ..base.clone() }, "prefix"),
        (NewDecision { scope: Whom::Domain, name: "a@b.example".into(), ..base.clone() }, "domain"),
        (NewDecision { until: Timestamp(NOW + LEAD_MS), ..base.clone() }, "`until`"),
        (NewDecision { until: Timestamp(NOW + 400 * DAY), ..base.clone() }, "366 days"),
        (NewDecision { from: Some(Timestamp(NOW)), ..base.clone() }, "15 s ahead"),
        (NewDecision { factor: Some(1.0), ..base.clone() }, "`factor`"),
        (NewDecision { factor: Some(10.5), ..base.clone() }, "at most 10"),
        (NewDecision { decades: Some(1.0), ..base.clone() }, "`decades` does not go with exempt"),
        (NewDecision { what: Kind::Tolerate, decades: Some(0.0), ..base.clone() }, "`decades`"),
        (NewDecision { what: Kind::Pin, ..base.clone() }, "`stratum`"),
        (NewDecision { what: Kind::Close, ..base.clone() }, "resolving"),
        (
            NewDecision { scope: Whom::Network, name: "192.0.2.0/24".into(), what: Kind::Tolerate, ..base.clone() },
            "network",
        ),
        (NewDecision { note: "x".repeat(1025), ..base.clone() }, "1024 characters"),
    ];
    for (new, words) in cases {
        let refused = desk.ask(Wish::Decide(new.clone()), NOW).unwrap_err();
        assert!(matches!(&refused, Refused::Invalid(text) if text.contains(words)), "{words}: {refused:?}");
    }
    desk.ask(Wish::Decide(base), NOW).unwrap();
    assert_eq!(desk.topic.iter().filter(|r| matches!(r, Record::Audit(_))).count(), 1, "refusals leave nothing");
}

#[test]
fn decisions_of_others_stay_and_ours_end() {
    let mut desk = Desk::new();
    let theirs = br#"{"v":1,"account":"news@shop.example","decisions":[
        {"what":"pin","stratum":"bulk","from":"2026-01-01T00:00:00Z","until":"2030-01-01T00:00:00Z","by":"script"},
        {"what":"exempt","from":"2020-01-01T00:00:00Z","until":"2020-02-01T00:00:00Z","by":"script"},
        {"what":"of a newer program","how":3}]}"#;
    desk.foreign = Some(Decisions::parse(theirs).unwrap());
    let done = desk.ask(Wish::Decide(exempt("News@Shop.example")), NOW).unwrap();
    let key = "news@shop.example";
    assert_eq!(done.control, [key]);
    let told = desk.control(key, NOW).unwrap();
    let writers = |d: &Decisions| d.decisions.iter().map(|d| d.by.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!(writers(&told), ["script", "ann"], "what has long been over goes");
    assert_eq!(told.unknown.len(), 1, "what a newer program wrote stays");
    // What we wrote comes back by the topic; it is not theirs.
    desk.foreign = Some(told.clone());
    assert_eq!(desk.control(key, NOW).unwrap(), told);
    // Taken back: it ends, and what was decided under it stays so.
    let id = done.answer["id"].as_str().unwrap().to_owned();
    let back = desk.ask(Wish::TakeBack { decision: id.clone(), note: None }, NOW + DAY).unwrap();
    assert_eq!(audit(&back), ["decision.taken_back"]);
    let told = desk.control(key, NOW + DAY).unwrap();
    assert_eq!(told.decisions[1].until, Some(Timestamp(NOW + DAY + LEAD_MS)));
    assert!(desk.ask(Wish::TakeBack { decision: id, note: None }, NOW + DAY).unwrap().records.is_empty());
    // Long after its end it is not told any more, and theirs still is.
    let told = desk.control(key, NOW + DAY + LEAD_MS + STAYS_MS).unwrap();
    assert_eq!(writers(&told), ["script"]);
    assert!(matches!(
        desk.ask(Wish::TakeBack { decision: "d-none".into(), note: None }, NOW),
        Err(Refused::Unknown(_))
    ));
}

#[test]
fn one_taken_back_before_it_begins_never_counts() {
    let mut desk = Desk::new();
    let later = NewDecision { from: Some(Timestamp(NOW + 5 * DAY)), ..exempt("a@b.example") };
    let id = desk.ask(Wish::Decide(later), NOW).unwrap().answer["id"].as_str().unwrap().to_owned();
    assert_eq!(desk.control("a@b.example", NOW).unwrap().decisions[0].from.0, NOW + 5 * DAY);
    desk.ask(Wish::TakeBack { decision: id, note: Some("no sale".into()) }, NOW + DAY).unwrap();
    assert_eq!(desk.control("a@b.example", NOW + DAY), None, "the key is taken away");
}

#[test]
fn a_control_record_holds_a_hundred() {
    let mut desk = Desk::new();
    for n in 0..100 {
        desk.ask(Wish::Decide(NewDecision { note: format!("sale {n}"), ..exempt("a@b.example") }), NOW + n).unwrap();
    }
    let refused = desk.ask(Wish::Decide(exempt("a@b.example")), NOW + 100).unwrap_err();
    assert!(matches!(&refused, Refused::Conflict(text) if text.contains("100")), "{refused:?}");
    let told = desk.control("a@b.example", NOW).unwrap();
    assert_eq!(Decisions::parse(&serde_json::to_vec(&told).unwrap()).unwrap(), told, "and is read again");
    desk.ask(Wish::Decide(exempt("c@b.example")), NOW).unwrap();
}

#[test]
fn a_tenant_a_domain_and_a_network_have_keys_of_their_own() {
    let mut desk = Desk::new();
    let mut keys = Vec::new();
    for (scope, name) in
        [(Whom::Tenant, "Shop.example"), (Whom::Domain, "shop.example"), (Whom::Network, "192.0.2.77/24")]
    {
        let new = NewDecision { scope, ..exempt(name) };
        keys.extend(desk.ask(Wish::Decide(new), NOW).unwrap().control);
    }
    assert_eq!(keys, ["scope:tenant:shop.example", "scope:domain:shop.example", "scope:network:192.0.2.0/24"]);
    for key in &keys {
        assert_eq!(desk.control(key, NOW).unwrap().key(), &**key);
    }
}

#[test]
fn whoever_takes_over_forgets_nothing() {
    let mut desk = Desk::new();
    desk.resolve(Asked::FalsePositive { days: 3, decades: 1.0 }, "why", NOW).unwrap();
    desk.ask(Wish::Decide(exempt("a@b.example")), NOW + 1).unwrap();
    desk.ask(Wish::Note { incident: desk.incident.clone(), note: "called".into() }, NOW + 2).unwrap();
    let mut other = desk.taken_over();
    for key in ["a@b.example", &desk.account] {
        assert_eq!(other.control(key, None, NOW), desk.control(key, NOW));
        assert!(other.control(key, None, NOW).is_some());
    }
    // The audit's numbers go on without a gap, and none comes twice.
    let next = other.take(Wish::Decide(exempt("c@b.example")), "ben", &mut desk.book, NOW + 3).unwrap();
    let number = |r: &Record| match r {
        Record::Audit(entry) => Some(entry.n),
        _ => None,
    };
    let mut numbers: Vec<u64> = desk.topic.iter().chain(&next.records).filter_map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..6).collect::<Vec<_>>());
}

#[test]
fn what_has_ended_long_ago_is_forgotten_with_its_control_record() {
    let mut desk = Desk::new();
    desk.ask(Wish::Decide(exempt("a@b.example")), NOW).unwrap();
    let ends = NOW + 10 * DAY;
    assert_eq!(desk.ledger.forget(NOW, ends + STAYS_MS), (vec![], vec![]), "not before keep_days");
    assert_eq!(desk.ledger.forget(ends, NOW + DAY).1, Vec::<String>::new(), "not before its end");
    let (records, keys) = desk.ledger.forget(ends + 1, ends + STAYS_MS + 1);
    assert_eq!(keys, ["a@b.example"]);
    let gone: Vec<String> = records.iter().map(Record::key).collect();
    assert!(gone.iter().any(|k| k.starts_with("decision/d-")), "{gone:?}");
    assert_eq!(desk.control("a@b.example", ends + STAYS_MS + 1), None);
}

#[test]
fn what_others_did_stands_at_the_incident_and_in_the_audit() {
    let mut desk = Desk::new();
    let act = |action, account: Option<&str>, relay: Option<&str>| NewAction {
        action,
        account: account.map(str::to_owned),
        relay: relay.map(str::to_owned),
        incident: None,
        at: None,
        note: None,
    };
    // By the account's name, in whatever case: its incident that goes on.
    let name = desk.account.to_uppercase();
    let done = desk.ask(Wish::Act(act(Action::AccountStopped, Some(&name), None)), NOW).unwrap();
    assert_eq!(done.answer["incident"], desk.incident.as_str());
    let incident = desk.book.incident(&desk.incident).unwrap();
    assert_eq!(incident.actions[0].action, Action::AccountStopped);
    // One without an incident is in the audit alone.
    let done = desk.ask(Wish::Act(act(Action::RelayPulled, None, Some("out-1"))), NOW).unwrap();
    assert_eq!((&done.answer["relay"], done.records.len()), (&"out-1".into(), 1));
    for nobody in [act(Action::AccountStopped, None, None), act(Action::RelayPulled, Some("a@b.example"), None)] {
        assert!(matches!(desk.ask(Wish::Act(nobody), NOW), Err(Refused::Invalid(_))));
    }
}

#[test]
fn an_action_that_is_told_twice_because_no_answer_came_is_one() {
    let mut desk = Desk::new();
    let act = |action, relay: Option<&str>, at: Option<i64>| {
        Wish::Act(NewAction {
            action,
            account: relay.is_none().then(|| "a@b.example".to_owned()),
            relay: relay.map(str::to_owned),
            incident: None,
            at: at.map(Timestamp),
            note: None,
        })
    };
    for relay in [None, Some("out-1")] {
        let what = if relay.is_some() { Action::RelayPulled } else { Action::AccountStopped };
        let first = desk.ask(act(what, relay, Some(NOW - 5)), NOW).unwrap();
        let again = desk.ask(act(what, relay, Some(NOW - 5)), NOW + 9000).unwrap();
        assert_eq!((&again.answer, again.records), (&first.answer, vec![]));
        // The next desk knows it, too.
        let again = desk.taken_over().take(act(what, relay, Some(NOW - 5)), "ann", &mut desk.book, NOW + 9001).unwrap();
        assert_eq!((&again.answer, again.records), (&first.answer, vec![]));
        // At another time, by somebody else, or without a time it is another one.
        assert_eq!(desk.ask(act(what, relay, Some(NOW - 4)), NOW).unwrap().records.len(), 1);
        assert_eq!(desk.ask(act(what, relay, None), NOW).unwrap().records.len(), 1);
        assert_eq!(desk.ask(act(what, relay, None), NOW).unwrap().records.len(), 1);
        let other = desk.ledger.take(act(what, relay, Some(NOW - 5)), "ben", &mut desk.book, NOW).unwrap();
        assert_eq!(other.records.len(), 1);
    }
    // At an incident it stands once, as well.
    let of = |desk: &Desk| {
        let (action, account) = (Action::AccountStopped, Some(desk.account.clone()));
        Wish::Act(NewAction { action, account, relay: None, incident: None, at: Some(Timestamp(NOW)), note: None })
    };
    for _ in 0..2 {
        desk.ask(of(&desk), NOW + 1).unwrap();
    }
    assert_eq!(desk.book.incident(&desk.incident).unwrap().actions.len(), 1);
}

#[test]
fn the_audits_numbers_go_on_when_all_lines_are_old() {
    let mut desk = Desk::new();
    for n in 0..3 {
        desk.ask(Wish::Note { incident: desk.incident.clone(), note: format!("{n}") }, NOW).unwrap();
    }
    let (gone, _) = desk.ledger.forget(NOW + DAY, NOW + 400 * DAY);
    let gone: BTreeSet<String> = gone.iter().map(Record::key).collect();
    assert_eq!(gone.len(), 2, "{gone:?}");
    // As compaction leaves it.
    desk.topic.retain(|record| !gone.contains(&record.key()));
    let again = Wish::Note { incident: desk.incident.clone(), note: "again".to_owned() };
    let next = desk.taken_over().take(again, "ann", &mut desk.book, NOW + 2 * DAY).unwrap();
    assert!(next.records.iter().any(|r| matches!(r, Record::Audit(entry) if entry.n == 3)), "{:?}", next.records);
}

#[test]
fn whoever_was_told_of_an_incident_is_told_that_somebody_looks_after_it() {
    let endpoint = |name: &str, format| Endpoint { name: name.to_owned(), format, ..Endpoint::default() };
    let endpoints = [
        endpoint("duty", Format::Pagerduty),
        endpoint("chat", Format::Slack),
        endpoint("manager", Format::Alertmanager),
        Endpoint { kinds: vec!["campaign".to_owned()], ..endpoint("campaigns", Format::Native) },
        Endpoint { kinds: vec!["account.flagged".to_owned()], ..endpoint("flags", Format::Native) },
    ];
    let mut desk = Desk::new();
    let mut deliveries = Deliveries::new(&endpoints, "");
    let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
    let said = Arc::new(Said::Account(Box::new(serde_json::from_str(line).unwrap())));
    let mut told = Default::default();
    deliveries.take(&said, 0, &About::default(), &mut told, NOW);
    desk.book.tell(&desk.incident, told);
    // It is acknowledged before anything was sent.
    let wish = Wish::Acknowledge { incident: desk.incident.clone(), note: Some("I call".to_owned()) };
    let done = desk.ask(wish, NOW + 1).unwrap();
    let incident = desk.book.incident(done.acknowledged.as_ref().unwrap()).unwrap();
    let records = deliveries.acknowledged(incident, incident.acknowledged.as_ref().unwrap(), NOW + 1);
    let mut sent: Vec<(String, Message)> = Vec::new();
    let mut now_ms = NOW + 100_000;
    loop {
        let due = deliveries.due(now_ms, &|_| None);
        if due.is_empty() {
            break;
        }
        for (attempt, message) in due {
            deliveries.done(attempt.attempt, &Outcome::Delivered { status: 200 }, now_ms, &mut || 0);
            sent.push((attempt.endpoint, message));
        }
        now_ms += 1;
    }
    let of = |name: &str| sent.iter().filter(|(e, _)| e == name).map(|(_, m)| &*m.kind).collect::<Vec<_>>();
    for name in ["duty", "chat"] {
        assert_eq!(of(name), ["account.flagged", "incident.acknowledged"], "{name}: the alert comes first");
    }
    assert_eq!(of("manager"), ["account.flagged"], "an alert manager knows alerts only");
    assert_eq!(of("flags"), ["account.flagged"], "it wanted flags");
    assert_eq!(of("campaigns"), [""; 0]);
    let body = |n: usize| {
        let (_, message) = sent.iter().filter(|(e, _)| e == "duty").nth(n).unwrap();
        let keys = Keys { signing: Vec::new(), routing_key: Some(Token::new(&"r".repeat(32)).unwrap()) };
        let bytes = render(&endpoints[0], &keys, message).unwrap();
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
    };
    assert_eq!((&body(0)["event_action"], &body(1)["event_action"]), (&"trigger".into(), &"acknowledge".into()));
    assert_eq!(body(0)["dedup_key"], body(1)["dedup_key"]);
    // Whoever takes over sends the same message under the same id.
    let mut other = Deliveries::new(&endpoints, "");
    for record in &records {
        let read = Record::read(record.key().as_bytes(), record.value().unwrap().as_deref()).unwrap();
        other.restore(&read);
    }
    other.restored(NOW);
    let again: Vec<_> = other.due(NOW + 100_000, &|_| None).into_iter().map(|(a, m)| (a.endpoint, m)).collect();
    let first: Vec<_> = sent.iter().filter(|(_, m)| m.kind == "incident.acknowledged").cloned().collect();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|one| first.contains(one)), "{again:?}");
}
