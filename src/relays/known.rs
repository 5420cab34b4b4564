//! Whom a throttled account has written to before, as the instance that has the account tells it to those that answer Postfix: a
//! record of the desk topic. Pure.
//!
//! Only whom it does not know counts against `relays.policy.throttle_recipients`. Until the record is there everybody does, and so
//! they do where events name recipients otherwise than Postfix does (pseudonyms).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::core::contacts::Contacts;
use crate::core::fingerprint::Fingerprint;

/// The keys of these records begin so; then the throttle's id.
pub const KNOWN: &str = "known/";

/// The value of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// Always 1.
    v: u8,
    /// [`Contacts::to_bytes`] in base64.
    contacts: String,
}

/// The contacts of a throttled account.
#[derive(Debug, Clone)]
pub struct Known {
    contacts: Contacts,
    prints: Fingerprint,
}

impl Known {
    /// Reads the value of a record. `prints`: of the key that all instances have.
    ///
    /// # Errors
    /// Where it is none, or of a version that is not known.
    pub fn read(value: &[u8], prints: &Fingerprint) -> Result<Self, String> {
        let told: Told = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        if told.v != 1 {
            return Err(format!("they are of version {}: use the program that wrote them", told.v));
        }
        let bytes = BASE64_STANDARD_NO_PAD.decode(told.contacts).map_err(|e| e.to_string())?;
        let contacts = Contacts::from_bytes(&bytes).map_err(|e| e.to_string())?;
        Ok(Self { contacts, prints: prints.clone() })
    }

    /// Whether the account has written to this address before it was throttled.
    pub fn knows(&self, recipient: &str) -> bool {
        self.contacts.knows(self.prints.of_recipient(recipient))
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.contacts.heap_bytes()
    }
}

/// The key of a throttle's record.
pub fn key(throttle: &str) -> String {
    format!("{KNOWN}{throttle}")
}

/// The value of a record.
///
/// # Errors
/// Where it cannot be written as JSON, which would be a defect.
pub fn value(contacts: &Contacts) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Told { v: 1, contacts: BASE64_STANDARD_NO_PAD.encode(contacts.to_bytes()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_known_and_nothing_else() {
        let prints = Fingerprint::new(&[7; 16]);
        for many in [0, 3, 256, 5000] {
            let mut contacts = Contacts::default();
            for n in 0..many {
                contacts.learn(prints.of_recipient(&format!("friend{n}@x.example")));
            }
            let known = Known::read(&value(&contacts).unwrap(), &prints).unwrap();
            assert!((0..many).all(|n| known.knows(&format!("Friend{n}@X.example"))), "{many}");
            // 0.4 % of strangers may be taken for one of the first 256.
            let strangers = (0..1000).filter(|n| known.knows(&format!("stranger{n}@y.example"))).count();
            assert!(strangers < 20, "{strangers} strangers of an account with {many} contacts");
        }
    }

    #[test]
    fn what_is_none_is_said() {
        let prints = Fingerprint::new(&[7; 16]);
        for wrong in ["", "[]", r#"{"v":2,"contacts":""}"#, r#"{"v":1,"contacts":"?"}"#, r#"{"v":1,"contacts":"/w"}"#] {
            assert!(Known::read(wrong.as_bytes(), &prints).is_err(), "{wrong}");
        }
    }
}
