//! Signatures of Standard Webhooks 1.0.0: HMAC-SHA256 over `id.timestamp.body`.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, "Signature scheme".

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// How far a message's time may lie from the receiver's, in seconds.
pub const TOLERANCE_S: i64 = 300;

const PREFIX: &str = "whsec_";
const VERSION: &str = "v1,";

/// A key that signs. It shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// A text that must not be shown, PagerDuty's routing key.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What an endpoint's messages are signed and addressed with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// Newest first; several while a secret is rotated; none where the receiver does not check.
    pub signing: Vec<Secret>,
    /// PagerDuty's.
    pub routing_key: Option<Token>,
}

/// A secret that cannot be used. It shows nothing of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// None is given.
    #[error("webhook `{endpoint}` has no secret: name a file in secret_file, or set {variable}")]
    Missing {
        /// The endpoint's name.
        endpoint: String,
        /// The environment variable that would hold it.
        variable: String,
    },
    /// Its file cannot be read.
    #[error("{key}: {path}: {why}")]
    Read {
        /// Which key names it.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// Not of the form.
    #[error(
        "a webhook secret is `whsec_` and the base64 of 24 to 64 random bytes: `echo whsec_$(openssl rand -base64 32)`"
    )]
    Form,
    /// Nothing, or of characters that no such key has.
    #[error("a routing key is a word of printable ASCII")]
    Token,
}

/// Why a message is not taken for genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unverified {
    /// A timestamp that is none.
    #[error("its timestamp is no number of seconds")]
    Timestamp,
    /// Too old, or of the future.
    #[error("its timestamp lies more than 300 s away")]
    Time,
    /// No signature fits.
    #[error("none of its signatures fits")]
    Signature,
}

impl Secret {
    /// Reads `whsec_…`; spaces and line ends around it do not count.
    ///
    /// # Errors
    /// Where it is not of that form, or not 24 to 64 bytes long.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(BadSecret::Form)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret::Form)?;
        if (24..=64).contains(&bytes.len()) { Ok(Self(bytes)) } else { Err(BadSecret::Form) }
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
        // HMAC takes keys of any length; `None` cannot happen, and is no signature rather than a wrong one.
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        Some(mac)
    }
}

impl Token {
    /// Spaces and line ends around it do not count.
    ///
    /// # Errors
    /// Where it is empty, or has characters that no such key has.
    pub fn new(text: &str) -> Result<Self, BadSecret> {
        let text = text.trim();
        let fine = !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic());
        if fine { Ok(Self(text.to_owned())) } else { Err(BadSecret::Token) }
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// The value of `webhook-signature`: one signature for each key, newest first, separated by spaces. Empty without keys.
pub fn sign(keys: &Keys, id: &str, timestamp_s: i64, body: &[u8]) -> String {
    let timestamp = timestamp_s.to_string();
    let one = |key: &Secret| {
        let code = key.mac(id, &timestamp, body)?.finalize().into_bytes();
        Some(format!("{VERSION}{}", STANDARD.encode(code)))
    };
    keys.signing.iter().filter_map(one).collect::<Vec<_>>().join(" ")
}

/// Checks a message as a receiver does, in constant time: any of `signatures` by any of the keys suffices.
///
/// # Errors
/// Why it is not genuine.
pub fn verify(
    keys: &Keys,
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now_s: i64,
) -> Result<(), Unverified> {
    let at: i64 = timestamp.parse().map_err(|_| Unverified::Timestamp)?;
    if now_s.saturating_sub(at).saturating_abs() > TOLERANCE_S {
        return Err(Unverified::Time);
    }
    let codes = signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix(VERSION)?).ok());
    let fits =
        |code: &[u8], key: &Secret| key.mac(id, timestamp, body).is_some_and(|mac| mac.verify_slice(code).is_ok());
    let mut codes = codes;
    if codes.any(|code| keys.signing.iter().any(|key| fits(&code, key))) { Ok(()) } else { Err(Unverified::Signature) }
}

/// The webhook id of what `subject` (an alert's id) says to an endpoint: the same however often it is computed, so that a
/// message that is made again after a crash is the same to its receiver.
pub fn webhook_id(endpoint: &str, subject: &str) -> String {
    let mut hash = Sha256::new();
    for part in [endpoint.as_bytes(), b"\0", subject.as_bytes()] {
        hash.update(part);
    }
    // A `.` would be ambiguous in what is signed; hexadecimal has none.
    hash.finalize()[..16].iter().fold("msg_".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const AT: i64 = 1_614_265_330;

    fn keys(secrets: &[&str]) -> Keys {
        Keys { signing: secrets.iter().map(|s| Secret::parse(s).unwrap()).collect(), routing_key: None }
    }

    /// The first is the vector of the specification's reference libraries (`libraries/javascript/src/webhook.test.ts`, "sign
    /// function works"). The second was made with `standardwebhooks` 1.1.0 of PyPI: the longest key, text beyond ASCII.
    #[test]
    fn signatures_are_those_of_the_reference() {
        let reference = keys(&["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        assert_eq!(sign(&reference, ID, AT, BODY), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let longest = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==";
        let body = "{\"a\":\"ä\"}".as_bytes();
        let signed = sign(&keys(&[longest]), "msg_2", 1_772_438_400, body);
        assert_eq!(signed, "v1,gsLjwgXdUjITqr8zrtLYGU8R62fv4EDly45iGgy89Ow=");
    }

    #[test]
    fn any_of_the_signatures_suffices_and_none_other() {
        let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX");
        let both = sign(&keys(&[new, old]), ID, AT, BODY);
        assert_eq!(both.split(' ').count(), 2);
        let at = AT.to_string();
        let check =
            |secret, signatures: &str, body: &[u8], now| verify(&keys(&[secret]), ID, &at, signatures, body, now);
        assert_eq!(check(old, &both, BODY, AT + 300), Ok(()));
        assert_eq!(check(new, &both, BODY, AT - 300), Ok(()));
        assert_eq!(check(new, &format!("v1a,x= v2,AAAA {both}"), BODY, AT), Ok(()));
        assert_eq!(check(old, &both, BODY, AT + 301), Err(Unverified::Time));
        assert_eq!(check(old, &both, b"{}", AT), Err(Unverified::Signature));
        assert_eq!(check("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &both, BODY, AT), Err(Unverified::Signature));
        for wrong in
            ["", "v1,", "v1,dawfeoifkpqwoekfpqoekf", &both[..8], "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="]
        {
            assert_eq!(check(old, wrong, BODY, AT), Err(Unverified::Signature), "{wrong}");
        }
        assert_eq!(verify(&keys(&[old]), ID, "soon", &both, BODY, AT), Err(Unverified::Timestamp));
        assert_eq!(sign(&Keys::default(), ID, AT, BODY), "");
    }

    #[test]
    fn secrets_have_24_to_64_bytes() {
        let of = |n: usize| Secret::parse(&format!("whsec_{}", STANDARD.encode(vec![7; n])));
        assert!(of(24).is_ok() && of(64).is_ok());
        assert_eq!((of(23), of(65)), (Err(BadSecret::Form), Err(BadSecret::Form)));
        assert_eq!(Secret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Err(BadSecret::Form));
    }

    #[test]
    fn an_id_is_of_its_endpoint_and_its_subject() {
        assert_eq!(webhook_id("a", "x"), webhook_id("a", "x"));
        assert_ne!(webhook_id("a", "x"), webhook_id("b", "x"));
        assert_ne!(webhook_id("a", "x"), webhook_id("a", "y"));
        assert!(!webhook_id("a", "x").contains('.'));
    }
}
