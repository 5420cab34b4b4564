//! Membership: who has which partition, as the group's coordinator knows it, and where a member goes on.

use std::time::Duration;

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;

use super::restore::Reader;

/// Goes to an offset of a partition that was assigned just now, while `wanted` says that it still is.
///
/// # Errors
/// Where that cannot be done within some seconds.
pub fn seek<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
    offset: i64,
    wanted: &dyn Fn() -> bool,
) -> Result<(), KafkaError> {
    let mut tries = 0;
    loop {
        match consumer.seek(topic, partition, Offset::Offset(offset), Duration::from_secs(5)) {
            Ok(()) => return Ok(()),
            // The fetcher has not begun yet, or is busy with the seek before.
            Err(_) if tries < 20 && wanted() => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => return Err(e),
        }
    }
}

impl Reader {
    /// The client id of the member that has a partition of `topic`. `None` where nobody has it or it cannot be found out.
    pub fn owner(&self, group: &str, topic: &str, partition: i32) -> Option<String> {
        let groups = self.consumer().fetch_group_list(Some(group), Duration::from_secs(2)).ok()?;
        let group = groups.groups().iter().find(|g| g.name() == group)?;
        let member = group
            .members()
            .iter()
            .find(|m| m.assignment().is_some_and(|bytes| has(bytes, topic, partition).unwrap_or(false)))?;
        Some(member.client_id().to_owned())
    }
}

impl Reader {
    /// How many members a group has; 0 where it is not known.
    pub fn members(&self, group: &str) -> usize {
        let groups = self.consumer().fetch_group_list(Some(group), Duration::from_secs(5));
        groups.map_or(0, |g| g.groups().iter().filter(|g| g.name() == group).map(|g| g.members().len()).sum())
    }
}

/// Whether a member's assignment holds the partition. Its form is that of Kafka's `ConsumerProtocolAssignment`: version, then
/// an array of topics, each with an array of partitions; numbers are big-endian.
fn has(bytes: &[u8], topic: &str, partition: i32) -> Option<bool> {
    let mut rest = bytes.get(2..)?;
    let mut take = |n: usize| -> Option<&[u8]> {
        let (head, tail) = rest.split_at_checked(n)?;
        rest = tail;
        Some(head)
    };
    let topics = i32::from_be_bytes(take(4)?.try_into().ok()?);
    for _ in 0..topics {
        let len = i16::from_be_bytes(take(2)?.try_into().ok()?);
        let is_ours = take(usize::try_from(len).ok()?)? == topic.as_bytes();
        let partitions = i32::from_be_bytes(take(4)?.try_into().ok()?);
        for _ in 0..partitions {
            let p = i32::from_be_bytes(take(4)?.try_into().ok()?);
            if is_ours && p == partition {
                return Some(true);
            }
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::has;

    #[test]
    fn reads_an_assignment_and_survives_a_broken_one() {
        let mut bytes = vec![0, 1, 0, 0, 0, 1, 0, 2];
        bytes.extend(b"ev");
        bytes.extend([0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 7]);
        assert_eq!(has(&bytes, "ev", 7), Some(true));
        assert_eq!(has(&bytes, "ev", 4), Some(false));
        assert_eq!(has(&bytes, "other", 7), Some(false));
        for n in 0..bytes.len() {
            assert_ne!(has(&bytes[..n], "ev", 7), Some(true), "{n}");
        }
    }
}
