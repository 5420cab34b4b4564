//! Tokens: who has one may ask, and do what its roles say.
//!
//! A token is 256 random bits, so that nobody finds it by trying, however fast they may try, and a plain SHA-256 of it can stand
//! in the configuration: the slow hashes that passwords need make guessing dear, and there is nothing to guess here. For the same
//! reason wrong tokens are counted and not slowed down; connections are bounded anyway.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::access::Right;

/// Every token begins so: a scanner of repositories finds one that is lost there.
const PREFIX: &str = "mft_";
/// What a hash begins with.
const HASH: &str = "sha256:";
/// Tokens of one configuration: all of them are compared for each request.
const TOKENS_MAX: usize = 256;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;

/// A table `[[http.token]]`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// Who has it, as the audit names them: letters, digits, `-`, `_`, `.` and `@`.
    pub name: String,
    /// What they may do.
    pub roles: Vec<Right>,
    /// `sha256:` and 64 hexadecimal digits, as `mailfuse token new` prints it.
    pub hash: Hash,
}

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hash([u8; 32]);

impl Hash {
    /// Of a token.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Whether they are equal, in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl From<Hash> for String {
    fn from(hash: Hash) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Hash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.strip_prefix(HASH).filter(|d| d.len() == 64 && d.bytes().all(|b| b.is_ascii_hexdigit()));
        let bytes = digits.and_then(|d| {
            let byte = |i: usize| u8::from_str_radix(d.get(2 * i..2 * i + 2)?, 16).ok();
            (0..32).map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
        });
        // The error does not repeat it: it may be the token itself.
        bytes
            .map(Self)
            .ok_or_else(|| format!("must be `{HASH}` and 64 hexadecimal digits, as `mailfuse token new` prints it"))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Tokens that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// A name.
    #[error("http.token `{0}`: name must be 1 to {NAME_BYTES_MAX} letters, digits, -, _, . or @, and not `local`")]
    Name(String),
    /// Two of one name, or one token under two names.
    #[error("http.token `{0}`: its name or its hash is there already: the audit could not tell who it was")]
    Twice(String),
    /// Nothing that it may do.
    #[error("http.token `{0}`: roles is empty: choose from look, accounts, relays")]
    Roles(String),
    /// No hash.
    #[error("http.token `{0}`: hash is missing: `mailfuse token new` prints one")]
    Hash(String),
    /// Too many.
    #[error("http.token: {0} are too many, there may be {TOKENS_MAX}")]
    Many(usize),
}

/// Checks tokens together.
///
/// # Errors
/// For the first that cannot be used.
pub fn check(tokens: &[Token]) -> Result<(), BadToken> {
    let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
    if tokens.len() > TOKENS_MAX {
        return Err(BadToken::Many(tokens.len()));
    }
    for token in tokens {
        let name = || token.name.clone();
        let fits = (1..=NAME_BYTES_MAX).contains(&token.name.len()) && token.name != "local";
        if !fits || !token.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b)) {
            return Err(BadToken::Name(name()));
        }
        if token.roles.is_empty() {
            return Err(BadToken::Roles(name()));
        }
        if token.hash == Hash::default() {
            return Err(BadToken::Hash(name()));
        }
        if !names.insert(&token.name) || !hashes.insert(token.hash) {
            return Err(BadToken::Twice(name()));
        }
    }
    Ok(())
}

/// A new token.
///
/// # Errors
/// Where the system has no random bytes.
pub fn new() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_that_of_the_standard_and_reads_what_it_writes() {
        // FIPS 180-2, appendix B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Hash::of("abc").to_string(), abc);
        assert_eq!(Hash::try_from(abc.to_owned()).unwrap(), Hash::of("abc"));
        for wrong in ["", "sha256:", "mft_abc", &abc[7..], &abc[..70], &abc.replace("ba78", "+a78"), &format!("{abc}0")]
        {
            let e = Hash::try_from(wrong.to_owned()).unwrap_err();
            assert!(e.contains("mailfuse token new") && !e.contains("mft_abc"), "{wrong}: {e}");
        }
    }

    #[test]
    fn new_tokens_differ_and_carry_256_bits() {
        let (a, b) = (new().unwrap(), new().unwrap());
        assert_ne!(a, b);
        assert_eq!(URL_SAFE_NO_PAD.decode(a.strip_prefix(PREFIX).unwrap()).unwrap().len(), 32);
    }

    #[test]
    fn tokens_that_the_audit_could_not_tell_apart_are_refused() {
        let one = |name: &str, secret: &str| Token {
            name: name.to_owned(),
            roles: vec![Right::Look],
            hash: Hash::of(secret),
        };
        assert_eq!(check(&[one("a", "x"), one("b", "y")]), Ok(()));
        assert_eq!(check(&[one("a", "x"), one("a", "y")]), Err(BadToken::Twice("a".to_owned())));
        assert_eq!(check(&[one("a", "x"), one("b", "x")]), Err(BadToken::Twice("b".to_owned())));
        for name in ["", "local", "a b", "a\n", "ä", &"x".repeat(65)] {
            assert_eq!(check(&[one(name, "x")]), Err(BadToken::Name(name.to_owned())));
        }
        assert_eq!(check(&[Token { roles: Vec::new(), ..one("a", "x") }]), Err(BadToken::Roles("a".to_owned())));
        assert_eq!(check(&[Token { hash: Hash::default(), ..one("a", "x") }]), Err(BadToken::Hash("a".to_owned())));
    }
}
