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
