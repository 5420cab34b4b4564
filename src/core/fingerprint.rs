//! Keyed hashes of names: recipients, queue ids, relays.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// SipHash-1-3 under a key of the configuration: stable across programs and machines, and nobody without the key can craft
/// collisions.
#[derive(Debug, Clone)]
pub struct Fingerprint(SipHasher13);

impl Fingerprint {
    /// With this key.
    pub fn new(key: &[u8; 16]) -> Self {
        Self(SipHasher13::new_with_key(key))
    }

    /// The hash of `text`; never 0, which stands for "none".
    pub fn of(&self, text: &str) -> u64 {
        self.of_bytes(text.as_bytes())
    }

    /// The same of bytes.
    pub fn of_bytes(&self, bytes: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(bytes);
        hasher.finish().max(1)
    }

    /// The hash of a recipient, ASCII case folded: `Bob@Example.com` is whom `bob@example.com` is.
    pub fn of_recipient(&self, address: &str) -> u64 {
        if address.bytes().any(|b| b.is_ascii_uppercase()) {
            self.of(&address.to_ascii_lowercase())
        } else {
            self.of(address)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    #[test]
    fn a_recipient_has_no_case() {
        let prints = Fingerprint::new(&[1; 16]);
        assert_eq!(prints.of_recipient("Bob@Example.COM"), prints.of("bob@example.com"));
        assert_eq!(prints.of_recipient("bob@example.com"), prints.of("bob@example.com"));
        assert_ne!(prints.of("Bob"), prints.of("bob"));
    }

    #[test]
    fn what_is_stored_was_hashed_so() {
        // The first vector of SipHash-1-3 in the tests of Rust's own library: no bytes under the key 00 01 … 0f.
        let prints = Fingerprint::new(&std::array::from_fn(|i| i as u8));
        assert_eq!(prints.of(""), 0xabac_0158_050f_c4dc);
    }
}
