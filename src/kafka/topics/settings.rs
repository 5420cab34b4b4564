//! What each topic should be like: partitions, copies, and the settings on which something rests.

use std::collections::BTreeMap;

use super::cluster::{Cluster, Partition, Seen};
use super::{Error, Finding, Role, tool};
use crate::kafka::settings::Kafka;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// The largest record that mailfuse writes.
const RECORD_BYTES: i64 = 8 << 20;
/// What a batch puts around it, generously: the limit of a topic is one of whole batches.
const FRAME_BYTES: i64 = 64 << 10;

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    Is(&'static str),
    IsOneOf(&'static [&'static str]),
    AtLeast(i64),
    /// The same of a time, where -1 is for ever.
    AtLeastMs(i64),
    AtMost(f64),
}

/// A setting: what it is made with, what is good enough where it is there, and why it matters.
struct Setting {
    key: &'static str,
    made: String,
    rule: Rule,
    why: &'static str,
}

fn setting(key: &'static str, made: impl ToString, rule: Rule, why: &'static str) -> Setting {
    Setting { key, made: made.to_string(), rule, why }
}

/// The settings of a topic on which something rests.
fn wanted(role: Role) -> Vec<Setting> {
    let compacted = |why| setting("cleanup.policy", "compact", Rule::Is("compact"), why);
    let deleted = |why| setting("cleanup.policy", "delete", Rule::Is("delete"), why);
    let kept =
        |days: i64, least: i64, why| setting("retention.ms", days * DAY_MS, Rule::AtLeastMs(least * DAY_MS), why);
    let large = |why| setting("max.message.bytes", RECORD_BYTES + FRAME_BYTES, Rule::AtLeast(RECORD_BYTES), why);
    // Compaction costs a rewrite each time that so large a share is new; a restore reads at most that much in vain.
    let tidy = || {
        let why = "what was overwritten stays too long, and each restore reads it";
        setting("min.cleanable.dirty.ratio", 0.1, Rule::AtMost(0.5), why)
    };
    match role {
        Role::Events => vec![
            setting(
                "message.timestamp.type",
                "LogAppendTime",
                Rule::Is("LogAppendTime"),
                "an event from the future is told by when the broker took it, and so is the time to an alert; with CreateTime \
                 one producer with a wrong clock decides about both",
            ),
            deleted("compaction would leave the last event of each account, and nothing to count"),
            kept(7, 1, "what is deleted while mailfuse is down, or before a new group has read it, is never seen"),
        ],
        Role::State => vec![
            compacted(
                "without compaction it grows for ever, and with deletion accounts are forgotten after its retention",
            ),
            large("a checkpoint with a large account would be refused, and its partition would stop"),
            tidy(),
            // The newest segment is never compacted: it must not be all there is.
            setting(
                "segment.bytes",
                128 << 20,
                Rule::AtMost(f64::from(1 << 30)),
                "the newest segment is never compacted, and each restore reads all of it",
            ),
        ],
        Role::Alerts => vec![
            deleted("compaction would leave the last alert of each account"),
            kept(90, 7, "alerts are gone before somebody who was away has read them"),
            large("an alert with many reasons would be refused, and its partition would stop"),
        ],
        Role::Control => vec![
            compacted(
                "with deletion, what people decided is forgotten after the topic's retention, and accounts alert again",
            ),
            tidy(),
        ],
        Role::Desk => vec![
            compacted(
                "with deletion, incidents are forgotten while they are open, and what was delivered is sent again",
            ),
            large("an incident with many alerts would be refused, and the desk would stop"),
            tidy(),
        ],
        Role::Signals => vec![
            setting(
                "cleanup.policy",
                "compact,delete",
                Rule::IsOneOf(&["compact,delete", "delete,compact"]),
                "without compaction each minute is kept as often as it was told; without deletion it grows for ever",
            ),
            kept(2, 1, "the desk that takes over does not know what relays carried in the last day"),
            large("a minute with many relays would be refused, and its partition would stop"),
            tidy(),
        ],
        Role::Rejects => vec![
            deleted("rejected records have any key or none: compaction would drop some and refuse others"),
            kept(14, 1, "what could not be read is gone before somebody has looked at it"),
            large("a large record that cannot be read would be refused here as well, and its partition would stop"),
        ],
    }
}

/// What a new topic is made with.
pub(super) fn of_new(role: Role, replication: i32) -> Vec<(&'static str, String)> {
    let mut settings: Vec<_> = wanted(role).into_iter().map(|s| (s.key, s.made)).collect();
    // With two of three in sync, one broker may be away; what is acknowledged survives the loss of another.
    settings.push(("min.insync.replicas", if replication >= 3 { 2 } else { 1 }.to_string()));
    if matches!(role, Role::State | Role::Desk | Role::Signals) {
        settings.push(("segment.ms", (DAY_MS / 4).to_string()));
    }
    settings
}

impl Rule {
    fn holds(self, value: &str) -> bool {
        match self {
            Self::Is(wanted) => value == wanted,
            Self::IsOneOf(wanted) => wanted.contains(&value),
            Self::AtLeast(least) => value.parse::<i64>().is_ok_and(|n| n >= least),
            Self::AtLeastMs(least) => value.parse::<i64>().is_ok_and(|n| n >= least || n == -1),
            Self::AtMost(most) => value.parse::<f64>().is_ok_and(|n| n <= most),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Is(wanted) => wanted.to_owned(),
            Self::IsOneOf(wanted) => wanted.first().copied().unwrap_or_default().to_owned(),
            Self::AtLeast(n) | Self::AtLeastMs(n) => format!(">= {n}"),
            Self::AtMost(n) => format!("<= {n}"),
        }
    }
}

/// Looks at one topic. `partitions`: how many it should have, where that is given.
pub(super) fn check(
    cluster: &Cluster,
    kafka: &Kafka,
    role: Role,
    seen: &Seen,
    partitions: Option<i32>,
    replication: i32,
) -> Result<Vec<Finding>, Error> {
    let topic = role.topic(kafka);
    let found = match seen {
        Seen::Missing => {
            let finding = Finding::ok(topic, "topic", "there", "missing");
            let why = "`mailfuse run` does not start without it";
            return Ok(vec![finding.wrong(why, "mailfuse topics create --config FILE")]);
        }
        // Rights are another page.
        Seen::Forbidden => return Ok(Vec::new()),
        Seen::There(found) => found,
    };
    let settings = cluster.settings(topic)?;
    let mut findings = vec![count(kafka, role, found.len(), partitions)];
    let min_in_sync = settings.as_ref().and_then(|s| s.get("min.insync.replicas")?.parse().ok());
    findings.extend(copies(kafka, topic, found, replication, min_in_sync));
    match settings {
        None => {
            let finding = Finding::ok(topic, "settings", "visible", "hidden");
            let why = "this user may not see the topic's settings, so nothing can be said about them";
            let cure = format!("{} --operation DescribeConfigs --topic {topic}", super::rights::grant(kafka));
            findings.push(finding.wrong(why, cure));
        }
        Some(settings) => findings.extend(wanted(role).iter().map(|s| compare(kafka, topic, s, &settings))),
    }
    Ok(findings)
}

fn alter(kafka: &Kafka, topic: &str, key: &str, value: &str) -> String {
    let tool = tool("kafka-configs", kafka);
    format!("{tool} --alter --entity-type topics --entity-name {topic} --add-config {key}={value}")
}

fn compare(kafka: &Kafka, topic: &str, wanted: &Setting, settings: &BTreeMap<String, String>) -> Finding {
    let found = settings.get(wanted.key).map_or("", String::as_str);
    let finding = Finding::ok(topic, wanted.key, wanted.rule.text(), found);
    if wanted.rule.holds(found) {
        return finding;
    }
    finding.wrong(wanted.why, alter(kafka, topic, wanted.key, &wanted.made))
}

fn count(kafka: &Kafka, role: Role, found: usize, wanted: Option<i32>) -> Finding {
    let topic = role.topic(kafka);
    let text = wanted.map_or("any".to_owned(), |n| n.to_string());
    let finding = Finding::ok(topic, "partitions", text, found.to_string());
    let Some(wanted) = wanted else { return finding };
    if i32::try_from(found) == Ok(wanted) {
        return finding;
    }
    let anew = |topic: &str| {
        format!(
            "stop mailfuse, {} --delete --topic {topic}, then mailfuse topics create --config FILE",
            tool("kafka-topics", kafka)
        )
    };
    let events = &kafka.topics.events;
    match role {
        Role::State => finding.wrong(
            format!("the memory of a partition of {events} lies in the partition of the same number; `mailfuse run` does not start"),
            format!(
                "{}; to learn again from the events that are kept, {} --reset-offsets --to-earliest --group {} --topic {events} \
                 --execute",
                anew(topic),
                tool("kafka-consumer-groups", kafka),
                kafka.group
            ),
        ),
        Role::Events => finding.wrong(
            "another number of partitions was asked for; changing it moves accounts, whose memory then lies elsewhere",
            "leave --partitions out to keep what is there, or make events and state anew under other names",
        ),
        _ => finding.wrong(
            "with more than one partition its records have no order among each other, and the rest is not read",
            anew(topic),
        ),
    }
}

/// Copies, and whether they suffice for writing.
fn copies(
    kafka: &Kafka,
    topic: &str,
    partitions: &[Partition],
    wanted: i32,
    min_in_sync: Option<usize>,
) -> Vec<Finding> {
    let replicas = partitions.iter().map(|p| p.replicas).min().unwrap_or(0);
    let mut findings = Vec::new();
    let finding = Finding::ok(topic, "replication", format!(">= {wanted}"), replicas.to_string());
    findings.push(if i32::try_from(replicas).is_ok_and(|n| n >= wanted) {
        finding
    } else {
        finding.wrong(
            "with too few copies, the loss of a broker loses what is in the topic",
            format!(
                "{} --execute --reassignment-json-file FILE, with {wanted} replicas for each partition",
                tool("kafka-reassign-partitions", kafka)
            ),
        )
    });
    if let Some(found) = min_in_sync {
        let good = if replicas >= 3 { 2 } else { 1 };
        let finding = Finding::ok(topic, "min.insync.replicas", good.to_string(), found.to_string());
        findings.push(if found < good {
            let why = "a record is acknowledged while only one broker has it, and lost with that broker";
            finding.wrong(why, alter(kafka, topic, "min.insync.replicas", &good.to_string()))
        } else if found >= replicas && replicas > 1 {
            let why = "one broker away, and nothing can be written";
            finding.wrong(why, alter(kafka, topic, "min.insync.replicas", &good.to_string()))
        } else {
            finding
        });
    }
    let least = min_in_sync.unwrap_or(1);
    let down = partitions.iter().filter(|p| !p.has_leader || p.in_sync < least).count();
    let finding =
        Finding::ok(topic, "partitions served", partitions.len().to_string(), (partitions.len() - down).to_string());
    findings.push(if down == 0 {
        finding
    } else {
        let why = "a partition without a leader, or with too few replicas in sync, cannot be written or read";
        finding
            .wrong(why, format!("{} --describe --topic {topic}, then look at the brokers", tool("kafka-topics", kafka)))
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_is_good_enough() {
        for role in super::super::ROLES {
            for setting in wanted(role) {
                assert!(setting.rule.holds(&setting.made), "{role:?} {}", setting.key);
            }
        }
    }

    #[test]
    fn copies_are_judged_together() {
        let partition = |replicas, in_sync| Partition { replicas, in_sync, has_leader: in_sync > 0 };
        for (replicas, in_sync, min_in_sync, wrong) in [
            (3, 3, 2, vec![]),
            (3, 2, 2, vec![]),
            (3, 3, 1, vec!["min.insync.replicas"]),
            (3, 3, 3, vec!["min.insync.replicas"]),
            (3, 1, 2, vec!["partitions served"]),
            (2, 2, 1, vec!["replication"]),
            (1, 0, 1, vec!["replication", "partitions served"]),
        ] {
            let found =
                copies(&Kafka::default(), "t", &[partition(3, 3), partition(replicas, in_sync)], 3, Some(min_in_sync));
            let found: Vec<_> = found
                .iter()
                .filter(|f| f.verdict == super::super::Verdict::Wrong)
                .map(|f| f.setting.as_str())
                .collect();
            assert_eq!(found, wrong, "{replicas} {in_sync} {min_in_sync}");
        }
    }
}
