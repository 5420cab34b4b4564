use super::*;
use crate::core::alert::ContentShare;
use crate::core::fingerprint::Fingerprint;
use crate::desk::book::Book;
use crate::desk::book::tests::flagged;
use crate::desk::record::Record;

const MINUTE: i64 = 60_000;

/// Takes alerts and gives what the desk says of them.
fn said(book: &mut Book, alerts: impl IntoIterator<Item = Alert>) -> Vec<Notice> {
    alerts.into_iter().flat_map(|a| book.take(a, 0, "test").notices).collect()
}

fn from(n: u32, at_ms: i64, ip: &str) -> Alert {
    let mut alert = flagged(n, at_ms);
    alert.burst.as_mut().unwrap().client_ips = vec![ip.to_owned()];
    alert
}

#[test]
fn three_accounts_from_one_network_are_a_campaign_said_once() {
    let mut book = Book::default();
    let alerts = (0..6).map(|n| from(n, i64::from(n) * MINUTE, &format!("203.0.113.{n}")));
    let notices = said(&mut book, alerts);
    assert_eq!(notices.len(), 1, "{notices:#?}");
    let notice = &notices[0];
    assert_eq!(notice.kind, NoticeKind::Campaign);
    let names: Vec<&str> = notice.accounts.iter().map(|a| &*a.account).collect();
    assert_eq!(names, ["user0@t0.example", "user1@t1.example", "user2@t2.example"]);
    assert_eq!((notice.evidence[0].signal.as_str(), notice.evidence[0].observed), ("same_network", 3.0));
    for n in 0..6 {
        assert_eq!(book.incident(&format!("i-{n}")).unwrap().campaign, notice.campaign, "{n}");
    }
}

#[test]
fn far_apart_or_from_elsewhere_is_no_campaign() {
    let mut book = Book::default();
    let far = (0..6).map(|n| from(n, i64::from(n) * 40 * MINUTE, "203.0.113.9"));
    assert_eq!(said(&mut book, far), []);
    let mut book = Book::default();
    let elsewhere = (0..6).map(|n| from(n, i64::from(n) * MINUTE, &format!("203.0.{n}.9")));
    assert_eq!(said(&mut book, elsewhere), []);
    // One account, again and again, is not several.
    let mut book = Book::default();
    let same = (0..6).map(|n| {
        let mut alert = from(n, i64::from(n) * MINUTE, "203.0.113.9");
        alert.account = "one@t.example".to_owned();
        alert
    });
    assert_eq!(said(&mut book, same), []);
}

#[test]
fn accounts_of_one_tenant_are_a_campaign_unless_each_is_its_own() {
    let of = |tenant: fn(&Alert) -> String| {
        move |n: u32| {
            let mut alert = from(n, 0, &format!("203.0.{n}.9"));
            alert.tenant = tenant(&alert);
            alert
        }
    };
    let notices = said(&mut Book::default(), (0..3).map(of(|_| "school.example".to_owned())));
    assert_eq!(notices[0].evidence[0].signal, "same_tenant");
    assert_eq!(said(&mut Book::default(), (0..9).map(of(|a| a.account.clone()))), []);
}

/// An account flagged from a network of its own.
fn alone(n: u32) -> Alert {
    from(n, i64::from(n) * MINUTE, &format!("203.0.{n}.9"))
}

fn burst(alert: &mut Alert) -> &mut Burst {
    alert.burst.as_mut().unwrap()
}

/// With a content that makes `messages` of the burst's 20.
fn saying(mut alert: Alert, fingerprint: &str, messages: u64) -> Alert {
    let burst = burst(&mut alert);
    burst.messages = 20;
    burst.contents.push(ContentShare { fingerprint: fingerprint.to_owned(), messages });
    alert
}

/// To a list of recipients by their numbers; the fingerprints are as far apart as chance would have them.
fn to(mut alert: Alert, recipients: std::ops::Range<u32>) -> Alert {
    let prints = Fingerprint::new(b"a key for tests!");
    let all: Bottom = recipients.map(|r| (prints.of(&format!("{r}@far.example")) >> 32) as u32).collect();
    burst(&mut alert).new_recipient_fingerprints = all.hashes().iter().map(|p| format!("{p:08x}")).collect();
    alert
}

fn signals(notices: &[Notice]) -> Vec<(&str, f64)> {
    notices.iter().flat_map(|n| &n.evidence).map(|r| (&*r.signal, r.observed)).collect()
}

#[test]
fn accounts_that_say_the_same_from_three_networks_are_a_campaign() {
    let mut book = Book::default();
    // Each says something of its own, too.
    let alerts = (0..5).map(|n| saying(saying(alone(n), "5e07a1c4", 12), &format!("0000000{n}"), 8));
    let notices = said(&mut book, alerts);
    assert_eq!(signals(&notices), [("same_content", 3.0)]);
    assert!(notices[0].evidence[0].text.contains("(5e07a1c4)"), "{notices:#?}");
    for n in 0..5 {
        assert_eq!(book.incident(&format!("i-{n}")).unwrap().campaign, notices[0].campaign, "{n}");
    }
}

#[test]
fn a_content_that_carries_no_burst_makes_no_campaign() {
    let few = (0..9).map(|n| saying(alone(n), "5e07a1c4", 4));
    assert_eq!(said(&mut Book::default(), few), []);
    let just = (0..9).map(|n| saying(alone(n), "5e07a1c4", 5));
    assert_eq!(signals(&said(&mut Book::default(), just)), [("same_content", 3.0)]);
}

#[test]
fn accounts_that_write_to_overlapping_lists_are_a_campaign() {
    // Forty each, of which neighbours have thirty in common: three fifths of both together.
    let alerts = (0..5).map(|n| to(alone(n), 10 * n..10 * n + 40));
    let notices = said(&mut Book::default(), alerts);
    assert_eq!(signals(&notices), [("same_recipients", 3.0)]);
    // A handful of addresses that everybody writes to is no list; nor are short ones, of which there is nothing to compare.
    let few = |n: u32| {
        let mut alert = to(alone(n), 1000 * n..1000 * n + 13);
        let known = to(alone(n), 0..3);
        let prints = burst(&mut alert);
        prints.new_recipient_fingerprints.extend(known.burst.unwrap().new_recipient_fingerprints);
        alert
    };
    assert_eq!(said(&mut Book::default(), (1..9).map(few)), []);
    assert_eq!(said(&mut Book::default(), (0..9).map(|n| to(alone(n), 0..3))), []);
    // Far apart in time it is none, either.
    let far = (0..5).map(|n| to(from(n, i64::from(n) * 61 * MINUTE, &format!("203.0.{n}.9")), 0..40));
    assert_eq!(said(&mut Book::default(), far), []);
}

#[test]
fn lists_that_have_nothing_in_common_do_not_look_alike() {
    // 500 accounts within the hour, each to forty of its own: 124,750 pairs.
    let alerts = (0..500u32).map(|n| {
        let ip = format!("10.{}.{}.9", n / 250, n % 250);
        to(from(n, i64::from(n) * 7000, &ip), 1000 * n..1000 * n + 40)
    });
    let notices = said(&mut Book::default(), alerts);
    assert!(notices.iter().all(|n| n.kind != NoticeKind::Campaign), "{notices:#?}");
}

#[test]
fn a_campaign_says_all_that_its_accounts_have_in_common() {
    let alerts = (0..3).map(|n| to(saying(from(n, 0, "203.0.113.9"), "5e07a1c4", 20), 0..40));
    let notices = said(&mut Book::default(), alerts);
    assert_eq!(signals(&notices), [("same_network", 3.0), ("same_content", 3.0), ("same_recipients", 3.0)]);
}

#[test]
fn what_a_fourth_shares_otherwise_joins_it() {
    let mut book = Book::default();
    let mut alerts: Vec<Alert> = (0..3).map(|n| saying(alone(n), "5e07a1c4", 20)).collect();
    // One content brings three together; the lists of two of these, and of another two that say something else, overlap.
    alerts[1] = to(alerts[1].clone(), 0..40);
    alerts[2] = to(alerts[2].clone(), 0..40);
    alerts.extend((3..5).map(|n| to(alone(n), 5..45)));
    let notices = said(&mut book, alerts);
    assert_eq!(notices.len(), 1, "{notices:#?}");
    for n in 0..5 {
        assert_eq!(book.incident(&format!("i-{n}")).unwrap().campaign, notices[0].campaign, "{n}");
    }
}

#[test]
fn a_shift_of_the_stream_is_one_notice_that_says_what_is_common() {
    let mut book = Book::default();
    // A week in which two accounts are flagged a day.
    let quiet = (0..14).map(|n| from(n, i64::from(n) * 12 * 60 * MINUTE, &format!("10.{n}.0.1")));
    assert_eq!(said(&mut book, quiet), []);
    let day = 7 * 24 * 60 * MINUTE;
    let storm = (100..1100).map(|n| from(n, day + i64::from(n) * 300, &format!("10.{}.{}.1", n % 250, n / 250)));
    let notices = said(&mut book, storm);
    assert_eq!(notices.len(), 1, "{notices:#?}");
    let notice = &notices[0];
    assert_eq!((notice.kind, notice.severity), (NoticeKind::Anomaly, Severity::Critical));
    assert_eq!(notice.evidence[0].observed, MANY as f64);
    assert!(notice.evidence.iter().any(|r| r.text.contains("went through")), "{notice:#?}");
    let anomaly = book.incident("i-1099").unwrap().anomaly.clone();
    assert_eq!(anomaly.as_deref(), Some(&*notice.incident));
    // When it is over, single flags are single flags again.
    let after = (2000..2003).map(|n| from(n, day + 300 * MINUTE + i64::from(n) * MINUTE, "203.0.113.9"));
    let notices = said(&mut book, after);
    assert_eq!(notices.iter().map(|n| n.kind).collect::<Vec<_>>(), [NoticeKind::Campaign]);
}

#[test]
fn a_busy_fleet_is_no_anomaly() {
    let mut book = Book::default();
    // Forty in ten minutes, all week: as usual.
    let busy = (0..8000).map(|n| from(n, i64::from(n) * 15_000, &format!("10.{}.{}.1", n % 250, n / 250 % 250)));
    let notices = said(&mut book, busy);
    assert!(notices.len() <= 1, "the first hours may surprise: {}", notices.len());
}

#[test]
fn whoever_takes_over_says_the_same() {
    let alerts: Vec<Alert> = (0..200)
        .map(|n| from(n, i64::from(n) * MINUTE, &format!("203.0.{}.9", n % 15)))
        .chain((200..300).map(|n| from(n, 200 * MINUTE + i64::from(n) * 1000, "198.51.100.7")))
        .chain((300..360).map(|n| {
            let alert = from(n, (100 + i64::from(n)) * MINUTE, &format!("10.{}.{}.9", n / 250, n % 250));
            match n % 3 {
                0 => saying(alert, &format!("0000000{}", n / 20 % 10), 9),
                1 => to(alert, 20 * n..20 * n + 200),
                _ => alert,
            }
        }))
        .collect();
    let (mut one, mut topic) = (Book::default(), Vec::<Record>::new());
    let mut whole = Vec::new();
    for alert in &alerts {
        let taken = one.take(alert.clone(), 0, "test");
        whole.extend(taken.notices);
        topic.extend(taken.records);
    }
    assert!(whole.len() > 3);
    for signal in ["same_network", "same_content", "same_recipients"] {
        assert!(signals(&whole).iter().any(|(s, _)| *s == signal), "{signal}");
    }
    for cut in (0..alerts.len()).step_by(17) {
        let (mut first, mut topic) = (Book::default(), Vec::<Record>::new());
        let mut notices = Vec::new();
        for alert in &alerts[..cut] {
            let taken = first.take(alert.clone(), 0, "test");
            notices.extend(taken.notices);
            topic.extend(taken.records);
        }
        let mut next = Book::default();
        topic.into_iter().for_each(|r| next.restore(r));
        next.restored();
        notices.extend(said(&mut next, alerts[cut..].iter().cloned()));
        let ids = |notices: &[Notice]| notices.iter().map(|n| n.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&notices), ids(&whole), "taken over at {cut}");
    }
}

/// 600 flags a second apart, of which every other one lies `lag` minutes back: its partition lags.
fn lagging(lag: i64) -> Vec<Alert> {
    let at = |n: u32| 24 * 60 * MINUTE + i64::from(n) * 1000 - i64::from(n % 2) * lag * MINUTE;
    (0..600).map(|n| from(n, at(n), &format!("10.{}.{}.1", n % 250, n / 250))).collect()
}

#[test]
fn a_shift_stays_one_while_a_partition_lags() {
    for lag in [0, 5, 11, 30, 300] {
        let (mut book, mut notices) = (Book::default(), Vec::new());
        for alert in lagging(lag) {
            let has_begun = !notices.is_empty();
            notices.extend(book.take(alert, 0, "test").notices);
            assert!(!has_begun || book.is_anomaly_open(), "over, {lag} min behind");
        }
        assert_eq!(notices.iter().map(|n| n.kind).collect::<Vec<_>>(), [NoticeKind::Anomaly], "{lag} min behind");
        let anomaly = Some(&notices[0].incident);
        let alone = (0..600).filter(|n| book.incident(&format!("i-{n}")).unwrap().anomaly.as_ref() != anomaly);
        // Only those that lag were flagged too long before it.
        assert!(alone.clone().count() <= MANY && (lag > 10 || alone.count() == 0), "{lag} min behind");
    }
}

#[test]
fn whoever_takes_over_while_a_partition_lags_says_the_same() {
    let stands = |book: &Book| -> Vec<Option<String>> {
        (0..600).map(|n| book.incident(&format!("i-{n}")).and_then(|i| i.anomaly.clone())).collect()
    };
    let whole = &mut Book::default();
    let notices: Vec<String> = said(whole, lagging(11)).into_iter().map(|n| n.id).collect();
    for cut in (0..600).step_by(37) {
        let (mut first, mut next, mut ids) = (Book::default(), Book::default(), Vec::new());
        for (n, alert) in lagging(11).into_iter().enumerate() {
            if n == cut {
                next.restored();
            }
            let taken = if n < cut { first.take(alert, 0, "test") } else { next.take(alert, 0, "test") };
            ids.extend(taken.notices.into_iter().map(|n| n.id));
            if n < cut {
                taken.records.into_iter().for_each(|r| next.restore(r));
            }
        }
        assert_eq!((&ids, stands(&next)), (&notices, stands(whole)), "taken over at {cut}");
    }
}

proptest::proptest! {
    /// What the groups make of a stream, against rules that look through all of it each time; flags come in batches and single
    /// ones, and each partition lags as it likes.
    #[test]
    fn an_anomaly_begins_and_ends_by_how_many_are_flagged_now(
        steps in proptest::collection::vec((0i64..400, 1u32..40), 1..25), lags in proptest::array::uniform4(0i64..20),
    ) {
        let (mut book, mut all) = (Book::default(), Vec::<(i64, bool)>::new());
        let (mut clock, mut newest, mut n, mut open) = (0, 0, 0u32, false);
        for (minutes, flags) in steps {
            clock += minutes * MINUTE / 20;
            for _ in 0..flags {
                n += 1;
                let at = clock + i64::from(n) * 500 - lags[n as usize % 4] * MINUTE;
                let alert = from(n, at, &format!("10.{}.{}.1", n % 250, n / 250));
                let ts = alert.ts.0;
                newest = ts.max(newest);
                let since = newest - 600_000;
                let now = |all: &[(i64, bool)]| all.iter().filter(|(t, _)| *t >= since).count();
                if open && now(&all) + usize::from(ts >= since) < MANY / 2 {
                    open = false;
                }
                all.push((ts, !open));
                let normal: Vec<i64> = all.iter().filter(|(t, normal)| *normal && *t < since).map(|(t, _)| *t).collect();
                let spans = normal.iter().min().map_or(0.0, |first| (since - first) as f64 / 600_000.0);
                let (shape, rate) = (PRIOR.0 + normal.len() as f64, PRIOR.1 + spans);
                let begins = !open
                    && now(&all) >= MANY
                    && tail::gamma_poisson(now(&all) as f64, 1.0, shape, rate) >= DECADES;
                if begins {
                    open = true;
                    all.iter_mut().filter(|(t, _)| *t >= since).for_each(|(_, normal)| *normal = false);
                }
                let said = book.take(alert, 0, "test").notices;
                proptest::prop_assert_eq!(said.iter().any(|n| n.kind == NoticeKind::Anomaly), begins, "flag {}", n);
                proptest::prop_assert_eq!(book.is_anomaly_open(), open, "flag {}", n);
            }
        }
    }
}
