//! Whole numbers as JSON has them: 60 and 60.0 are the same one.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Reads one.
pub(super) fn one<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let n = f64::deserialize(from)?;
    if n.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&n) {
        return Ok(n as u32);
    }
    Err(D::Error::custom("a whole number is expected, of 0 or more"))
}

/// Reads one that may be left out, or `null`.
pub(super) fn option<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    struct Whole(#[serde(deserialize_with = "one")] u32);
    Ok(Option::<Whole>::deserialize(from)?.map(|Whole(n)| n))
}

#[cfg(test)]
mod tests {
    #[derive(serde::Deserialize)]
    struct Both {
        #[serde(deserialize_with = "super::one")]
        a: u32,
        #[serde(default, deserialize_with = "super::option")]
        b: Option<u32>,
    }

    #[test]
    fn what_is_whole_is_read_however_it_is_written() {
        for (text, wanted) in [
            (r#"{"a":60}"#, Some((60, None))),
            (r#"{"a":60.0,"b":4915.0}"#, Some((60, Some(4915)))),
            (r#"{"a":0,"b":null}"#, Some((0, None))),
            (r#"{"a":1.5}"#, None),
            (r#"{"a":-1}"#, None),
            (r#"{"a":4294967296}"#, None),
            (r#"{"a":1,"b":"1"}"#, None),
        ] {
            let read = serde_json::from_str::<Both>(text).ok().map(|both| (both.a, both.b));
            assert_eq!(read, wanted, "{text}");
        }
    }
}
