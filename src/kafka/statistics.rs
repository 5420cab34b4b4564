//! What librdkafka's statistics say: the ends of partitions.

use std::collections::HashMap;

use serde::Deserialize;

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    #[serde(default)]
    partitions: HashMap<String, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    /// The last stable offset: under read_committed no further can be read.
    #[serde(default = "unknown")]
    ls_offset: i64,
}

fn unknown() -> i64 {
    -1
}

/// The ends of a topic's partitions, as far as they are known.
pub fn ends(json: &[u8], topic: &str) -> HashMap<i32, i64> {
    let mut statistics: Statistics = match serde_json::from_slice(json) {
        Ok(statistics) => statistics,
        Err(e) => {
            tracing::warn!("librdkafka's statistics cannot be read: {e}");
            return HashMap::new();
        }
    };
    let partitions = statistics.topics.remove(topic).map(|topic| topic.partitions).unwrap_or_default();
    let known = partitions.iter().filter(|(_, p)| p.ls_offset >= 0);
    // Number -1 is librdkafka's own, for what has no partition yet.
    known.filter_map(|(n, p)| Some((n.parse().ok()?, p.ls_offset))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_given() {
        let json = r#"{"name":"x","topics":{"a":{"partitions":{"0":{"ls_offset":7,"hi_offset":9},"1":{"ls_offset":-1001},
            "2":{},"-1":{"ls_offset":-1}}},"b":{"partitions":{"0":{"ls_offset":3}}}}}"#;
        assert_eq!(ends(json.as_bytes(), "a"), HashMap::from([(0, 7)]));
        assert_eq!(ends(json.as_bytes(), "c"), HashMap::new());
        assert_eq!(ends(b"{", "a"), HashMap::new());
    }
}
