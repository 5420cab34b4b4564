//! An event as its bytes say it, before anything is checked.
//!
//! Every known field is read whatever its type: one that does not fit becomes [`Field::Wrong`] instead of an error. So the
//! reject can name the field, a field that the event's kind does not have cannot spoil it, and a kind of a later version,
//! whose fields may have other types, can be passed over. Strings without escapes are borrowed from the line.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Status, Timestamp};

/// Recipients read of one message, whatever the limits say.
pub const MAX_RECIPIENTS: usize = 65_536;

/// A field as found.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Field<T> {
    /// Not there, or `null`.
    #[default]
    Absent,
    /// There, and what it should be.
    Is(T),
    /// There, and something else.
    Wrong,
}

/// The contract's fields, of all kinds.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // The contract (`schemas/event.schema.json`) says what each one means.
pub struct Wire<'a> {
    pub v: Field<u64>,
    #[serde(borrow)]
    pub kind: Field<Cow<'a, str>>,
    pub ts: Field<Timestamp>,
    #[serde(borrow)]
    pub account: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub id: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub tenant: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub relay: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub client_ip: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub rcpts: Field<Rcpts<'a>>,
    pub rcpt_count: Field<u64>,
    #[serde(borrow)]
    pub queue_id: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub host: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub relay_queue_id: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub mail_from: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub message_id: Field<Cow<'a, str>>,
    pub size: Field<u64>,
    #[serde(borrow)]
    pub content_hash: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub auth: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub user_agent: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub rcpt: Field<Cow<'a, str>>,
    pub status: Field<Status>,
    #[serde(borrow)]
    pub dsn: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub reply: Field<Cow<'a, str>>,
    #[serde(borrow)]
    pub feedback_type: Field<Cow<'a, str>>,
    pub ok: Field<bool>,
}

/// The one field that a merge of files needs; everything else is skipped without being looked at.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub struct TimeOnly {
    /// Event time.
    pub ts: Field<Timestamp>,
}

/// Recipients: the first [`MAX_RECIPIENTS`], and how many there are in all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rcpts<'a> {
    /// The first ones.
    pub named: Vec<Cow<'a, str>>,
    /// All of them.
    pub count: u64,
}

/// What a field can be made from; whatever a type does not take is [`Field::Wrong`].
trait Take<'de>: Sized {
    fn take_str(_: Cow<'de, str>) -> Option<Self> {
        None
    }
    fn take_u64(_: u64) -> Option<Self> {
        None
    }
    fn take_f64(_: f64) -> Option<Self> {
        None
    }
    fn take_bool(_: bool) -> Option<Self> {
        None
    }
    fn take_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

impl<'de> Take<'de> for Cow<'de, str> {
    fn take_str(s: Cow<'de, str>) -> Option<Self> {
        Some(s)
    }
}

impl<'de> Take<'de> for bool {
    fn take_bool(b: bool) -> Option<Self> {
        Some(b)
    }
}

impl<'de> Take<'de> for u64 {
    fn take_u64(n: u64) -> Option<Self> {
        Some(n)
    }

    /// JSON knows one kind of number: `1.0` and `1e3` are integers to JSON Schema.
    fn take_f64(x: f64) -> Option<Self> {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
        (x.fract() == 0.0 && (0.0..EXACT).contains(&x)).then_some(x as u64)
    }
}

impl<'de> Take<'de> for Status {
    fn take_str(s: Cow<'de, str>) -> Option<Self> {
        Some(match &*s {
            "delivered" => Self::Delivered,
            "bounced" => Self::Bounced,
            "deferred" => Self::Deferred,
            "rejected" => Self::Rejected,
            "expired" => Self::Expired,
            _ => return None,
        })
    }
}

impl<'de> Take<'de> for Timestamp {
    fn take_str(s: Cow<'de, str>) -> Option<Self> {
        Self::parse(&s).ok().filter(|t| t.is_plausible())
    }

    fn take_u64(n: u64) -> Option<Self> {
        Self::from_unix_integer(n)
    }

    fn take_f64(x: f64) -> Option<Self> {
        Self::from_unix_number(x)
    }
}

impl<'de> Take<'de> for Rcpts<'de> {
    fn take_seq<A: SeqAccess<'de>>(mut seq: A) -> Result<Option<Self>, A::Error> {
        let mut rcpts = Rcpts::default();
        let mut fits = true;
        while rcpts.named.len() < MAX_RECIPIENTS {
            match seq.next_element::<Field<Cow<'de, str>>>()? {
                Some(Field::Is(rcpt)) => rcpts.named.push(rcpt),
                Some(_) => fits = false,
                None => {
                    rcpts.count = rcpts.named.len() as u64;
                    return Ok(fits.then_some(rcpts));
                }
            }
        }
        rcpts.count = rcpts.named.len() as u64;
        while seq.next_element::<IgnoredAny>()?.is_some() {
            rcpts.count += 1;
        }
        Ok(fits.then_some(rcpts))
    }
}

struct Any<T>(PhantomData<T>);

impl<T> Any<T> {
    fn field<E>(taken: Option<T>) -> Result<Field<T>, E> {
        Ok(taken.map_or(Field::Wrong, Field::Is))
    }
}

impl<'de, T: Take<'de>> Visitor<'de> for Any<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E>(self, s: &'de str) -> Result<Self::Value, E> {
        Self::field(T::take_str(Cow::Borrowed(s)))
    }

    fn visit_str<E>(self, s: &str) -> Result<Self::Value, E> {
        Self::field(T::take_str(Cow::Owned(s.to_owned())))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Self::Value, E> {
        Self::field(T::take_u64(n))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Self::Value, E> {
        Self::field(u64::try_from(n).ok().and_then(T::take_u64))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Self::Value, E> {
        Self::field(T::take_f64(x))
    }

    fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
        Self::field(T::take_bool(b))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Field::Absent)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Self::field(T::take_seq(seq)?)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Field::Wrong)
    }
}

/// Written out per type, because `T: Take` is private and the lifetime of borrowed types differs from serde's.
macro_rules! deserialize_field {
    ($($t:ty),+) => {$(
        impl<'de> Deserialize<'de> for Field<$t> {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Any::<$t>(PhantomData))
            }
        }
    )+};
}

deserialize_field!(u64, bool, Status, Timestamp);

impl<'de: 'a, 'a> Deserialize<'de> for Field<Cow<'a, str>> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Any::<Cow<'de, str>>(PhantomData))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Field<Rcpts<'a>> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Any::<Rcpts<'de>>(PhantomData))
    }
}
