//! The letters of the packed form: whole numbers of 1 to 10 bytes (LEB128), differences, texts; and reading them without trust.
//!
//! What is read may be damaged or made up: each count is checked against its bound and against the bytes that are left before
//! memory is asked for it, and every error is a value.

use std::net::IpAddr;

/// Bytes that are no packed account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a stored account that this version reads: {0}")]
pub struct Unreadable(pub &'static str);

/// Reads something of each line of the processor's cache that a list takes, or of the last `lines` of them, so that it is there
/// when it is used; see [`super::shard::Shard::look_ahead`]. The sum means nothing.
pub(super) fn read_ahead<T>(list: &[T], lines: usize, word: impl Fn(&T) -> u64) -> u64 {
    const LINE: usize = 64;
    let step = (LINE / size_of::<T>()).max(1);
    let first = list.first().map_or(0, &word);
    list.iter().rev().step_by(step).take(lines).fold(first, |sum, item| sum.wrapping_add(word(item)))
}

/// Writes a whole number.
pub(super) fn put(out: &mut Vec<u8>, n: impl Into<u64>) {
    let mut n: u64 = n.into();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Writes a number of either sign; one near zero is short.
pub(super) fn put_signed(out: &mut Vec<u8>, n: i64) {
    put(out, ((n << 1) ^ (n >> 63)) as u64);
}

/// Writes `n` as its difference from `near`.
pub(super) fn put_near(out: &mut Vec<u8>, n: u32, near: u32) {
    put_signed(out, i64::from(n) - i64::from(near));
}

/// Writes a text.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Sets of characters that names are made of, each a power of two large: queue ids are often hexadecimal, and they, domains
/// and hosts nearly always of letters, digits, dots and hyphens.
const SETS: [&[u8]; 3] =
    [b"0123456789ABCDEF", b"0123456789abcdef", b"abcdefghijklmnopqrstuvwxyz0123456789.-ABCDEFGHIJKLMNOPQRSTUVWXYZ"];
const BITS: [u32; 3] = [4, 4, 6];
/// Of each byte its place in each set; 255 where it is in none.
const PLACES: [[u8; 256]; 3] = {
    let mut places = [[255; 256]; 3];
    let mut set = 0;
    while set < 3 {
        let mut i = 0;
        while i < SETS[set].len() {
            places[set][SETS[set][i] as usize] = i as u8;
            i += 1;
        }
        set += 1;
    }
    places
};

/// Writes a name in as few bits a character as its characters allow.
pub(super) fn put_name(out: &mut Vec<u8>, name: &str) {
    let len = (name.len() as u64) << 2;
    let Some(set) = (0..SETS.len()).find(|&set| name.bytes().all(|b| PLACES[set][usize::from(b)] != 255)) else {
        put(out, len);
        out.extend_from_slice(name.as_bytes());
        return;
    };
    put(out, len | (set as u64 + 1));
    let (mut held, mut bits) = (0u32, 0);
    for b in name.bytes() {
        held |= u32::from(PLACES[set][usize::from(b)]) << bits;
        bits += BITS[set];
        if bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(held as u8);
    }
}

/// Bytes being read.
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What has not been read yet.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Unreadable("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Unreadable("cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Unreadable> {
        Ok(self.array::<1>()?[0])
    }

    /// The place of a relay's name, plus one. Of one byte where it is below 128, as it always was.
    pub(super) fn place(&mut self) -> Result<u16, Unreadable> {
        u16::try_from(self.number()?).map_err(|_| Unreadable("the place of no relay"))
    }

    pub(super) fn number(&mut self) -> Result<u64, Unreadable> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            n |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Unreadable("a number of more than 64 bits"))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Unreadable> {
        u32::try_from(self.number()?).map_err(|_| Unreadable("a number of more than 32 bits"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Unreadable> {
        let n = self.number()?;
        Ok((n >> 1) as i64 ^ -((n & 1) as i64))
    }

    pub(super) fn near(&mut self, near: u32) -> Result<u32, Unreadable> {
        let n = i64::from(near).checked_add(self.signed()?);
        n.and_then(|n| u32::try_from(n).ok()).ok_or(Unreadable("a number of more than 32 bits"))
    }

    /// How many of something of at least `bytes_each` follow: no more than `max`, and no more than there are bytes for.
    pub(super) fn count(&mut self, max: usize, bytes_each: usize) -> Result<usize, Unreadable> {
        let n = self.number()?;
        self.checked_count(n, max, bytes_each)
    }

    pub(super) fn checked_count(&self, n: u64, max: usize, bytes_each: usize) -> Result<usize, Unreadable> {
        let n = usize::try_from(n).map_err(|_| Unreadable("too many of something"))?;
        if n > max || n.saturating_mul(bytes_each) > self.left() {
            return Err(Unreadable("too many of something"));
        }
        Ok(n)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Unreadable> {
        let n = self.count(usize::MAX, 1)?;
        std::str::from_utf8(self.take(n)?).map_err(|_| Unreadable("a text that is not UTF-8"))
    }

    pub(super) fn name(&mut self) -> Result<Box<str>, Unreadable> {
        let head = self.number()?;
        let Some(set) = (head as usize & 3).checked_sub(1) else {
            let n = self.checked_count(head >> 2, usize::MAX, 1)?;
            let text = std::str::from_utf8(self.take(n)?).map_err(|_| Unreadable("a text that is not UTF-8"))?;
            return Ok(text.into());
        };
        // Two characters take a byte at least.
        let n = self.checked_count(head >> 2, self.left().saturating_mul(2), 0)?;
        let packed = self.take((n * BITS[set] as usize).div_ceil(8))?;
        let mut name = Vec::with_capacity(n);
        let (mut held, mut bits, mut next) = (0u32, 0, packed.iter());
        for _ in 0..n {
            if bits < BITS[set] {
                held |= u32::from(next.next().copied().unwrap_or_default()) << bits;
                bits += 8;
            }
            name.push(SETS[set][held as usize & ((1 << BITS[set]) - 1)]);
            held >>= BITS[set];
            bits -= BITS[set];
        }
        // Of these sets every text is one.
        String::from_utf8(name).map(Into::into).map_err(|_| Unreadable("a text that is not UTF-8"))
    }

    pub(super) fn v4(&mut self) -> Result<IpAddr, Unreadable> {
        Ok(IpAddr::from(self.array::<4>()?))
    }

    pub(super) fn v6(&mut self) -> Result<IpAddr, Unreadable> {
        Ok(IpAddr::from(self.array::<16>()?))
    }

    /// A sum of the baseline: damage must not bring in what no account can learn.
    pub(super) fn f32(&mut self) -> Result<f32, Unreadable> {
        let x = f32::from_le_bytes(self.array()?);
        if x.is_finite() && x >= 0.0 { Ok(x) } else { Err(Unreadable("a sum that is no number")) }
    }
}
