//! Decoding one event: values, times, limits, borrowing.

use std::borrow::Cow;

use mailfuse::event::{Cut, Decoded, Event, Kind, Limits, Reject, Send, Timestamp, decode, time_of};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn event(line: &str) -> Event<'_> {
    cut_event(line, &Limits::default()).0
}

#[track_caller]
fn cut_event<'a>(line: &'a str, limits: &Limits) -> (Event<'a>, Cut) {
    match decode(line.as_bytes(), limits, None) {
        Ok(Decoded::Event(event, cut)) => (event, cut),
        other => panic!("{other:?}: {line}"),
    }
}

fn send(event: Event<'_>) -> Send<'_> {
    let Kind::Send(send) = event.kind else { panic!() };
    send
}

fn is_borrowed(s: &Option<Cow<'_, str>>) -> bool {
    matches!(s, Some(Cow::Borrowed(_)))
}

#[test]
fn times_are_exact() {
    let check = |ts: &str, expected: Option<&str>| {
        let line = format!(r#"{{"v":1,"kind":"complaint","ts":{ts},"account":"a"}}"#);
        let got = match decode(line.as_bytes(), &Limits::default(), None) {
            Ok(Decoded::Event(event, _)) => Some(event.ts),
            Err(Reject::BadTs) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(got.map(|t| t.to_string()).as_deref(), expected, "{ts}");
        assert_eq!(time_of(line.as_bytes()), got, "the merge sees the same time");
    };
    check("0", Some("1970-01-01T00:00:00.000Z"));
    check("1700000000", Some("2023-11-14T22:13:20.000Z"));
    check("1700000000.0", Some("2023-11-14T22:13:20.000Z"));
    check("17e8", Some("2023-11-14T22:13:20.000Z"));
    check("1700000000123", Some("2023-11-14T22:13:20.123Z"));
    check("1700000000123.0", Some("2023-11-14T22:13:20.123Z"));
    check("1700000000.1", Some("2023-11-14T22:13:20.100Z"));
    check("1700000000.1239", Some("2023-11-14T22:13:20.123Z"));
    check("1700000000.123999", Some("2023-11-14T22:13:20.123Z"));
    check("0.001", Some("1970-01-01T00:00:00.001Z"));
    check(r#""2023-11-14T22:13:20Z""#, Some("2023-11-14T22:13:20.000Z"));
    check(r#""2023-11-14T22:13:20.1239Z""#, Some("2023-11-14T22:13:20.123Z"));
    check(r#""2023-11-15T00:13:20.5+02:00""#, Some("2023-11-14T22:13:20.500Z"));
    check(r#""2023-11-14t19:13:20-03:00""#, Some("2023-11-14T22:13:20.000Z"));
    check(r#""2023-11-14\u005422:13:20Z""#, Some("2023-11-14T22:13:20.000Z"));
    check(r#""2016-12-31T23:59:60Z""#, Some("2016-12-31T23:59:59.000Z"));
    check(r#""2100-02-28T23:59:59.999Z""#, Some("2100-02-28T23:59:59.999Z"));
    check(r#""2024-02-29T00:00:00.000Z""#, Some("2024-02-29T00:00:00.000Z"));
    check("253402207200", Some("9999-12-30T22:00:00.000Z"));
    for bad in [
        "253402207201",
        "999999999999",
        "10000000000000",
        "1700000000123.5",
        "1700000000123456",
        "-1",
        "-0.5",
        "1e300",
        "18446744073709551616",
        "true",
        "[]",
        "{}",
        "null",
        r#""""#,
        r#""1700000000""#,
        r#""2023-11-14""#,
        r#""2023-11-14T22:13:20""#,
        r#""2023-02-29T00:00:00Z""#,
        r#""2023-11-14T24:00:00Z""#,
        r#""2023-11-14T22:60:00Z""#,
        r#""2023-13-14T22:00:00Z""#,
        r#""2023-00-14T22:00:00Z""#,
        r#""2023-11-00T22:00:00Z""#,
        r#""2023-11-14T22:13:20.Z""#,
        r#""2023-11-14T22:13:20+0200x""#,
        r#""1960-01-01T00:00:00Z""#,
        r#""now""#,
        r#""2023-11-14T22:13:20Z ""#,
    ] {
        check(bad, None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 5000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// All forms of one moment are one time.
    #[test]
    fn every_form_gives_the_same_millisecond(ms in 1_000_000_000_000..4_102_444_800_000_u64, zone in -1439..1440_i32) {
        let expected = Some(Timestamp(ms as i64));
        let time = |ts: String| time_of(format!(r#"{{"ts":{ts}}}"#).as_bytes());
        let (s, frac) = (ms / 1000, ms % 1000);
        prop_assert_eq!(time(ms.to_string()), expected);
        prop_assert_eq!(time(format!("{s}.{frac:03}")), expected);
        prop_assert_eq!(time(format!("{s}.{frac:03}999")), expected);
        let offset = jiff::tz::Offset::from_seconds(zone * 60).unwrap();
        let moment = jiff::Timestamp::from_millisecond(ms as i64).unwrap();
        prop_assert_eq!(time(format!("\"{moment}\"")), expected);
        prop_assert_eq!(time(format!("\"{}\"", moment.display_with_offset(offset))), expected);
        prop_assert_eq!(time(format!("\"{moment:.9}\"")), expected);
    }

    /// The fast way of reading a time differs from jiff's in nothing.
    #[test]
    fn times_are_read_as_jiff_reads_them(
        text in "(19[67][0-9]|20[0-9]{2}|[0-9]{4})[-/]([01][0-9])-([0-3][0-9])[TtX ]([0-2][0-9]):([0-6][0-9]):([0-6][0-9])\
                 (\\.[0-9]{0,10})?([Zz]|[+-][0-2][0-9]:?[0-6][0-9])?x?",
    ) {
        let jiff = text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_millisecond()));
        prop_assert_eq!(Timestamp::parse(&text).ok(), jiff);
    }

    /// As above, for times that are right or nearly so.
    #[test]
    fn right_times_are_read_as_jiff_reads_them(
        text in "(19[67][0-9]|[0-9]{2}00|20[0-9]{2}|9999)-(0[1-9]|1[0-3])-(0[1-9]|[12][0-9]|3[01])T\
                 [01][0-9]:[0-5][0-9]:([0-5][0-9]|60)(\\.[0-9]{1,9})?(Z|[+-][01][0-9]:[0-5][0-9]|[+-]2[0-9]:00)",
    ) {
        let jiff = text.parse::<jiff::Timestamp>().ok().map(|t| Timestamp(t.as_millisecond()));
        prop_assert_eq!(Timestamp::parse(&text).ok(), jiff);
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes, &Limits::default(), None);
        let _ = time_of(&bytes);
    }
}

#[test]
fn strings_are_borrowed_unless_they_have_escapes() {
    let line = r#"{"v":1,"kind":"send","ts":1,"account":"a@example.org","tenant":"a\"b","relay":"r","rcpts":["x@y","\u0041@y"],
                   "message_id":"<m@x>","mail_from":"f"}"#;
    let event = event(line);
    assert!(is_borrowed(&event.account));
    assert_eq!(event.tenant, Some(Cow::Owned("a\"b".to_owned())));
    let send = send(event);
    assert!(is_borrowed(&send.relay) && is_borrowed(&send.mail_from) && is_borrowed(&send.message_id));
    assert_eq!(send.message_id.as_deref(), Some("m@x"));
    assert!(matches!(&send.rcpts.named[..], [Cow::Borrowed("x@y"), Cow::Owned(a)] if a == "A@y"));
}

#[test]
fn accounts_are_folded_in_ascii_only() {
    let account = |a: &str| {
        event(&format!(r#"{{"v":1,"kind":"complaint","ts":1,"account":"{a}"}}"#)).account.map(Cow::into_owned)
    };
    assert_eq!(account("Info@Example.ORG").as_deref(), Some("info@example.org"));
    assert_eq!(account("\\u0041\\u00c4").as_deref(), Some("aÄ"));
}

#[test]
fn addresses_are_canonical() {
    let ip = |ip: &str| {
        let line = format!(r#"{{"v":1,"kind":"send","ts":1,"account":"a","rcpt_count":1,"client_ip":"{ip}"}}"#);
        send(event(&line)).client_ip.unwrap().to_string()
    };
    assert_eq!(ip("192.0.2.1"), "192.0.2.1");
    assert_eq!(ip("::ffff:192.0.2.1"), "192.0.2.1");
    assert_eq!(ip("2001:DB8:0:0::1"), "2001:db8::1");
}

#[test]
fn recipients_are_counted_beyond_what_is_kept() {
    let check = |fields: &str, limits: &Limits, named: usize, count: u64, cut: u64| {
        let line = format!(r#"{{"v":1,"kind":"send","ts":1,"account":"a",{fields}}}"#);
        let (event, taken) = cut_event(&line, limits);
        let send = send(event);
        assert_eq!((send.rcpts.named.len(), send.rcpts.count, taken.recipients), (named, count, cut));
    };
    let list = |n: usize| format!(r#""rcpts":[{}]"#, vec![r#""a@b""#; n].join(","));
    let default = Limits::default();
    check(r#""rcpt_count":7"#, &default, 0, 7, 0);
    check(r#""rcpts":[]"#, &default, 0, 0, 0);
    check(r#""rcpts":null,"rcpt_count":7"#, &default, 0, 7, 0);
    check(&(list(3) + r#","rcpt_count":2"#), &default, 3, 3, 0);
    check(&(list(3) + r#","rcpt_count":5000"#), &default, 3, 5000, 0);
    check(&list(10_001), &default, 10_000, 10_001, 1);
    check(&list(100_000), &Limits { max_recipients: usize::MAX, ..Limits::default() }, 65_536, 100_000, 34_464);
    check(&list(3), &Limits { max_recipients: 0, ..Limits::default() }, 0, 3, 3);
    check(r#""rcpts":["long@example.com","a@b"]"#, &Limits { max_string_bytes: 5, ..Limits::default() }, 1, 2, 1);
    check(r#""rcpt_count":9007199254740991"#, &default, 0, u64::from(u32::MAX), 0);
}

#[test]
fn strings_over_the_bound_are_cut_or_left_out() {
    let limits = Limits { max_string_bytes: 5, ..Limits::default() };
    let line = r#"{"v":1,"kind":"send","ts":1,"account":"a@example.org","rcpt_count":1,"id":"123456","queue_id":"12345",
                   "user_agent":"1234é6","auth":"\u00e9\u00e9\u00e9"}"#;
    let (event, cut) = cut_event(line, &limits);
    assert_eq!(cut, Cut { recipients: 0, strings: 3 });
    assert_eq!(event.id, None, "a cut id would equal other ids");
    let send = send(event);
    assert_eq!(send.queue_id.as_deref(), Some("12345"));
    assert_eq!((send.user_agent.as_deref(), send.auth.as_deref()), (Some("1234"), Some("éé")));
    let outcome = br#"{"v":1,"kind":"outcome","ts":1,"account":"a","rcpt":"123456","status":"bounced"}"#;
    assert_eq!(decode(outcome, &limits, None), Err(Reject::TooLong { what: "rcpt", max: 5 }));
    let account = br#"{"v":1,"kind":"complaint","ts":1,"account":"123456"}"#;
    let limits = Limits { max_account_bytes: 5, ..Limits::default() };
    assert_eq!(decode(account, &limits, None), Err(Reject::TooLong { what: "account", max: 5 }));
}

#[test]
fn fields_of_other_kinds_and_unknown_kinds_are_passed_over() {
    let line = r#"{"v":1,"kind":"complaint","ts":1,"account":"a","rcpts":7,"ok":"yes","size":[],"status":{"a":1}}"#;
    assert!(matches!(event(line).kind, Kind::Complaint(_)));
    let check = |line: &str| assert_eq!(decode(line.as_bytes(), &Limits::default(), None), Ok(Decoded::UnknownKind));
    check(r#"{"v":1,"kind":"quarantine"}"#);
    check(r#"{"v":1,"kind":"Send","ts":"yesterday","account":7}"#);
}

#[test]
fn rejects_say_where() {
    let check = |line: &str, expected: &str| {
        let reject = decode(line.as_bytes(), &Limits::default(), Some(Timestamp(5))).unwrap_err();
        assert_eq!(reject.to_string(), expected);
        assert!(Reject::REASONS.contains(&reject.reason()));
    };
    check(r#"{"v":1,"kind":"#, "not JSON at column 14: EOF while parsing a value");
    check(r#"{"v":1 "kind":"send"}"#, "not JSON at column 8: expected `,` or `}`");
    check("", "not JSON at column 1: nothing there");
    check("hello", "not JSON at column 1: expected `{`");
    check("[1]", "not a JSON object");
    check(r#"{"v":1,"v":1}"#, "duplicate field `v` at column 10");
    check(
        r#"{"v":1,"kind":"send","ts":1,"account":"a","rcpt_count":1}"#,
        "`ts` 1970-01-01T00:00:01.000Z is in the future, after 1970-01-01T00:00:00.005Z",
    );
    check(
        r#"{"v":1,"kind":"outcome","ts":0,"account":"a","rcpt":"b","status":"sent"}"#,
        "`status`: one of delivered, bounced, deferred, rejected, expired",
    );
    let bytes = b"{\"v\":1,\"kind\":\"\xff\"}";
    assert_eq!(decode(bytes, &Limits::default(), None), Err(Reject::NotUtf8 { column: 16 }));
}
