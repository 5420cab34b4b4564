//! How many messages a grouped endpoint gets, and that they hold everything.

use crate::desk_webhook_support;

use std::collections::{BTreeMap, BTreeSet};

use desk_webhook_support::endpoint;
use mailfuse::core::alert::Severity;
use mailfuse::desk::webhook::grouping::{Group, Grouping, Holds, News, Plan, Told, every};
use mailfuse::desk::webhook::outbox::{self, Outbox};
use mailfuse::desk::webhook::outcome::Outcome;
use mailfuse::desk::webhook::record::DeliveryRecord;
use mailfuse::desk::webhook::settings::Format;
use mailfuse::event::Timestamp;

const BEGIN_MS: i64 = 1_772_438_400_000;
const PER_MINUTE: usize = 20;

/// Outbox, grouping and what is recorded of both.
struct Desk {
    outbox: Outbox,
    grouping: Grouping,
    groups: BTreeMap<String, Group>,
    told: BTreeMap<String, Told>,
    seq: u64,
    /// Ids and groups as they were when the receiver took them.
    taken: Vec<(String, Group)>,
}

impl Desk {
    fn new() -> Self {
        Self {
            outbox: Outbox::new(&[endpoint(Format::Native, "https://example.org")], outbox::Limits::default()),
            grouping: Grouping::default(),
            groups: BTreeMap::new(),
            told: BTreeMap::new(),
            seq: 0,
            taken: Vec::new(),
        }
    }

    /// What became of it, `true` for a new message.
    fn alert(&mut self, incident: &str, kind: &str, severity: Severity, now_ms: i64, not_before_ms: i64) -> bool {
        self.seq += 1;
        let alert = format!("al-{}", self.seq);
        let news = News {
            endpoint: "test",
            alert: &alert,
            incident,
            kind,
            severity,
            account: incident,
            tenant: "t",
            recipients: self.seq % 1000,
            seq: self.seq,
            at: Timestamp(now_ms),
            told: self.told.get(incident).copied().unwrap_or(Told::Nothing),
            anomaly: None,
            not_before_ms,
            per_minute: PER_MINUTE,
        };
        let mut message = None;
        for plan in self.grouping.add(&news, now_ms, &self.outbox) {
            let (new, group) = match plan {
                Plan::New { delivery, group } => {
                    self.outbox.add(delivery).unwrap();
                    (true, group)
                }
                Plan::Folded { group, not_before_ms } => {
                    assert!(self.outbox.is_open("test", &group.id));
                    self.outbox.hasten("test", &group.id, not_before_ms).unwrap();
                    (false, group)
                }
            };
            message = message.or(Some((new, group.tells(news.told))));
            self.groups.insert(group.id.clone(), group);
        }
        let (new, told) = message.unwrap();
        self.told.insert(incident.to_owned(), told);
        new
    }

    fn flag(&mut self, incident: &str, now_ms: i64) -> bool {
        self.alert(incident, "account.flagged", Severity::Critical, now_ms, now_ms)
    }

    /// Everything that is due arrives.
    fn deliver(&mut self, now_ms: i64) {
        loop {
            let due = self.outbox.due(now_ms);
            if due.is_empty() {
                return;
            }
            for attempt in due {
                self.taken.push((attempt.id.clone(), self.groups[&attempt.id].clone()));
                self.outbox.done(attempt.attempt, &Outcome::of(200, None), now_ms, &mut || 0);
            }
        }
    }
}

fn alerts(group: &Group) -> u64 {
    match &group.holds {
        Holds::Incident { alerts, .. } => alerts.len() as u64,
        Holds::Storm(storm) => storm.alerts(),
        Holds::Row(_) => 0,
        Holds::Digest(_) | Holds::Taken(_) => panic!("a grouped endpoint has no digests"),
    }
}

#[test]
fn an_incident_is_one_message_while_it_waits() {
    let mut desk = Desk::new();
    assert!(desk.flag("i", BEGIN_MS));
    assert!(!desk.alert("i", "account.escalated", Severity::Critical, BEGIN_MS, BEGIN_MS));
    let due = desk.outbox.due(BEGIN_MS);
    assert_eq!((due.len(), alerts(&desk.groups[&due[0].id])), (1, 2));
    // Under way: what it says stays; a further message follows.
    assert!(desk.alert("i", "account.cleared", Severity::Critical, BEGIN_MS, BEGIN_MS));
    assert_eq!(alerts(&desk.groups[&due[0].id]), 2);
    desk.outbox.done(due[0].attempt, &Outcome::of(500, None), BEGIN_MS, &mut || 0);
    assert!(!desk.alert("i", "account.flagged", Severity::Critical, BEGIN_MS, BEGIN_MS));
    assert_eq!(alerts(&desk.groups[&due[0].id]), 2, "it may have arrived: its content is fixed");
    desk.deliver(BEGIN_MS + 10_000);
    assert_eq!(desk.taken.iter().map(|(_, group)| alerts(group)).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn what_was_restored_is_not_folded_into() {
    let mut desk = Desk::new();
    desk.flag("i", BEGIN_MS);
    let id = desk.groups.keys().next().unwrap().clone();
    let mut again = Desk::new();
    let news = News {
        endpoint: "test",
        alert: "al-1",
        incident: "i",
        kind: "account.flagged",
        severity: Severity::Critical,
        account: "i",
        tenant: "t",
        recipients: 1,
        seq: 1,
        at: Timestamp(BEGIN_MS),
        told: Told::Nothing,
        anomaly: None,
        not_before_ms: BEGIN_MS,
        per_minute: PER_MINUTE,
    };
    let delivery = every(&news, BEGIN_MS);
    assert_eq!(delivery.id, id, "the same alert makes the same id");
    again.outbox.restore(DeliveryRecord::new(&delivery));
    assert!(!again.outbox.is_open("test", &id), "an attempt may have begun before the restart");
    again.told.insert("i".into(), Told::Itself);
    again.seq = 1;
    assert!(again.alert("i", "account.escalated", Severity::Critical, BEGIN_MS, BEGIN_MS));
}

#[test]
fn ten_thousand_alerts_in_a_minute_are_a_bounded_number_of_messages() {
    // Whether the receiver is quick, or down until all is over.
    for down_ms in [0, 120_000] {
        let mut desk = Desk::new();
        for n in 0..10_000_i64 {
            let now_ms = BEGIN_MS + n * 6;
            desk.flag(&format!("i{n}"), now_ms);
            if now_ms >= BEGIN_MS + down_ms {
                desk.deliver(now_ms);
            }
        }
        for second in 0..240 {
            let now_ms = BEGIN_MS + 60_000 + second * 1000;
            if now_ms >= BEGIN_MS + down_ms {
                desk.deliver(now_ms);
            }
        }
        assert!(desk.taken.len() <= (PER_MINUTE + 1) * 2, "{} messages", desk.taken.len());
        assert_eq!(desk.taken.iter().map(|(_, group)| alerts(group)).sum::<u64>(), 10_000, "all are in one");
        assert_eq!(desk.taken.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len(), desk.taken.len());
        let storms = desk.taken.iter().filter_map(|(_, group)| match &group.holds {
            Holds::Storm(storm) => Some(storm),
            Holds::Incident { .. } | Holds::Row(_) | Holds::Digest(_) | Holds::Taken(_) => None,
        });
        let storms: Vec<_> = storms.collect();
        assert!((1..=2).contains(&storms.len()));
        assert_eq!((storms[0].first_seq, storms[0].top.len()), (21, 10));
        assert!(storms[0].top.is_sorted_by(|a, b| a.recipients >= b.recipients) && storms[0].top[0].recipients == 999);
        assert_eq!(storms[0].link("https://desk.example"), "https://desk.example/v1/alerts?after=20");
        let size = serde_json::to_vec(&desk.taken.last().unwrap().1).unwrap().len();
        assert!(size < 5000, "{size} bytes");
    }
}

#[test]
fn after_a_storm_incidents_have_messages_of_their_own_again() {
    let mut desk = Desk::new();
    for n in 0..100 {
        desk.flag(&format!("i{n}"), BEGIN_MS);
    }
    desk.deliver(BEGIN_MS);
    assert_eq!(desk.taken.len(), 20);
    desk.deliver(BEGIN_MS + 9_999);
    assert_eq!(desk.taken.len(), 20, "the storm is gathered");
    desk.deliver(BEGIN_MS + 10_000);
    assert_eq!((desk.taken.len(), alerts(&desk.taken[20].1)), (21, 80));
    // One that was told by itself goes on by itself, one of the storm ends with its row.
    assert!(desk.alert("i3", "account.cleared", Severity::Critical, BEGIN_MS + 11_000, BEGIN_MS + 11_000));
    assert!(!desk.alert("i50", "account.cleared", Severity::Critical, BEGIN_MS + 11_000, BEGIN_MS + 11_000));
    assert!(!desk.alert("i51", "account.cleared", Severity::Critical, BEGIN_MS + 11_000, BEGIN_MS + 11_000));
    desk.deliver(BEGIN_MS + 69_999);
    assert_eq!(desk.taken.len(), 22);
    assert!(desk.flag("new", BEGIN_MS + 70_000));
    desk.deliver(BEGIN_MS + 70_000);
    assert!(desk.taken.len() == 23 && matches!(desk.taken[22].1.holds, Holds::Incident { .. }));
}

#[test]
fn a_held_warning_goes_when_it_becomes_critical() {
    let morning = BEGIN_MS + 8 * 3_600_000;
    let mut desk = Desk::new();
    desk.alert("i", "account.flagged", Severity::Warning, BEGIN_MS, morning);
    desk.deliver(BEGIN_MS + 1000);
    assert!(desk.taken.is_empty());
    assert!(!desk.alert("i", "account.escalated", Severity::Critical, BEGIN_MS + 2000, BEGIN_MS + 2000));
    desk.deliver(BEGIN_MS + 2000);
    assert_eq!((desk.taken.len(), alerts(&desk.taken[0].1)), (1, 2));
}

#[test]
fn a_group_is_json_of_a_fixed_shape() {
    let mut desk = Desk::new();
    for n in 0..22 {
        desk.flag(&format!("i{n}"), BEGIN_MS);
    }
    for group in desk.groups.values() {
        let text = serde_json::to_string(group).unwrap();
        assert!(text.starts_with(r#"{"v":1,"endpoint":"test","id":"msg_"#), "{text}");
        assert_eq!(&serde_json::from_str::<Group>(&text).unwrap(), group);
    }
}
