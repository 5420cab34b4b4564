//! Keyed hashes of names: recipients, queue ids, relays.

/// SipHash-1-3 under a key of the configuration: stable across programs and machines, and nobody without the key can craft
/// collisions.
///
/// Aumasson, Bernstein: SipHash, a fast short-input PRF (2012), with one compression and three finalisation rounds. Every event
/// has half a dozen short texts to hash, each whole in memory: written for that, it takes half of what a hasher takes that
/// is fed in pieces. A test holds it against such a one.
#[derive(Debug, Clone)]
pub struct Fingerprint(State);

#[derive(Debug, Clone, Copy)]
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline]
    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }
}

impl Fingerprint {
    /// With this key.
    pub fn new(key: &[u8; 16]) -> Self {
        let key = u128::from_le_bytes(*key);
        let (k0, k1) = (key as u64, (key >> 64) as u64);
        Self(State {
            v0: k0 ^ 0x736f_6d65_7073_6575,
            v1: k1 ^ 0x646f_7261_6e64_6f6d,
            v2: k0 ^ 0x6c79_6765_6e65_7261,
            v3: k1 ^ 0x7465_6462_7974_6573,
        })
    }

    /// The hash of `text`; never 0, which stands for "none".
    pub fn of(&self, text: &str) -> u64 {
        self.of_bytes(text.as_bytes())
    }

    /// The same of bytes.
    pub fn of_bytes(&self, bytes: &[u8]) -> u64 {
        let mut state = self.0;
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            state.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(tail);
        // The low byte of the length is the highest of the last word.
        state.word(u64::from_le_bytes(last) | (bytes.len() as u64) << 56);
        state.v2 ^= 0xFF;
        (0..3).for_each(|_| state.round());
        (state.v0 ^ state.v1 ^ state.v2 ^ state.v3).max(1)
    }

    /// The hash of a recipient, ASCII case folded: `Bob@Example.com` is whom `bob@example.com` is.
    pub fn of_recipient(&self, address: &str) -> u64 {
        // All of them, without a way out: that is several at a time.
        let upper = address.bytes().fold(false, |upper, b| upper | b.is_ascii_uppercase());
        if upper { self.of(&address.to_ascii_lowercase()) } else { self.of(address) }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use siphasher::sip::SipHasher13;

    use super::Fingerprint;

    #[test]
    fn it_is_siphash_1_3() {
        for key in [[0; 16], *b"0123456789abcdef", [0xFF; 16]] {
            let (prints, hasher) = (Fingerprint::new(&key), SipHasher13::new_with_key(&key));
            let bytes: Vec<u8> = (0..600u32).map(|i| (i * 167 + 13) as u8).collect();
            for n in 0..bytes.len() {
                let mut hasher = hasher;
                hasher.write(&bytes[..n]);
                assert_eq!(prints.of_bytes(&bytes[..n]), hasher.finish(), "{n} bytes");
            }
        }
    }

    #[test]
    fn a_recipient_has_no_case() {
        let prints = Fingerprint::new(&[1; 16]);
        assert_eq!(prints.of_recipient("Bob@Example.COM"), prints.of("bob@example.com"));
        assert_eq!(prints.of_recipient("bob@example.com"), prints.of("bob@example.com"));
        assert_ne!(prints.of("Bob"), prints.of("bob"));
    }
}
