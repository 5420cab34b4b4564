//! The report's numbers against a naive count over the same events.
use crate::report_support;

use std::collections::BTreeMap;

use mailfuse::core::alert::Alert;
use mailfuse::core::shard::Step;
use mailfuse::event::{Kind, Recipients, Status, Timestamp};
use mailfuse::report::beside::Beside;
use mailfuse::report::{Exposure, IncidentReport, Leak, Options, Report};
use proptest::prelude::*;
use report_support::*;

fn only(report: &Report) -> &IncidentReport {
    assert_eq!(report.incidents.len(), 1);
    &report.incidents[0]
}

/// What the hijack's messages did, split at the `flag_at`-th message.
fn expected(h: &Hijack, events: &[Seen]) -> (Leak, Leak) {
    let mut sides: BTreeMap<String, (bool, Leak)> = BTreeMap::new();
    let mut sent = 0;
    for (e, _) in events.iter().filter(|(e, _)| e.account.as_deref() == Some(h.account.as_str())) {
        match &e.kind {
            Kind::Send(s) => {
                sent += 1;
                let leak =
                    Leak { messages: 1, recipients: s.rcpts.count, new_recipients: s.rcpts.count, ..Leak::default() };
                sides.insert(s.queue_id.as_deref().unwrap().to_owned(), (sent <= h.flag_at, leak));
            }
            Kind::Outcome(o) => {
                let (_, leak) = sides.get_mut(o.queue_id.as_deref().unwrap()).unwrap();
                match o.status {
                    Status::Bounced | Status::Rejected => leak.refused += 1,
                    Status::Delivered => leak.delivered += 1,
                    Status::Deferred => leak.deferred += 1,
                    Status::Expired => leak.expired += 1,
                }
            }
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }
    let mut out = (Leak::default(), Leak::default());
    for (before, leak) in sides.into_values() {
        *(if before { &mut out.0 } else { &mut out.1 }) += leak;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the shape of the burst, and whether a send or only its outcomes name relay and recipients: each side of
    /// the flag is counted right, both make the whole, and relays, networks and domains add up to it.
    #[test]
    fn before_and_after_make_the_whole(
        messages in 1u64..80, every_ms in prop::sample::select(vec![150i64, 1_000, 7_000, 400_000]), rcpts in 1u64..15,
        flag_at in 1u64..6, relays in 1usize..4, relay_at_send: bool, named: bool, whole_seconds: bool, seed: u64,
    ) {
        let mut h = Hijack::new("info@x.example", START);
        h.messages = messages;
        h.every_ms = every_ms;
        h.rcpts = rcpts;
        h.flag_at = flag_at.min(messages);
        h.relays = (0..relays).map(|r| format!("mta{r}")).collect();
        h.relay_at_send = relay_at_send;
        h.named = named;
        let (mut events, mut alerts) = (h.events(&mut Dice(seed)), h.alerts());
        if whole_seconds {
            // As in a log: several messages in the flag's own second.
            let floor = |ts: &mut Timestamp| ts.0 -= ts.0 % 1000;
            events.iter_mut().for_each(|(e, _)| floor(&mut e.ts));
            alerts.iter_mut().for_each(|a| floor(&mut a.ts));
        }
        let events = sorted(events);
        let report = collect(&alerts, &events, Options::default());
        let one = only(&report);
        let (before, after) = expected(&h, &events);
        prop_assert_eq!(one.before, before);
        prop_assert_eq!(one.after, after);
        let mut both = before;
        both += after;
        prop_assert_eq!(one.total(), both);
        prop_assert_eq!(one.relays.rows.iter().map(|r| r.recipients).sum::<u64>(), both.recipients);
        prop_assert_eq!(one.relay_unknown, (0, 0));
        let detail = one.detail.as_ref().unwrap();
        prop_assert_eq!(detail.networks.rows.iter().map(|n| n.recipients).sum::<u64>(), both.recipients);
        prop_assert_eq!(detail.addresses.rows.iter().map(|n| n.recipients).sum::<u64>() + detail.addresses.more_sum, both.recipients);
        if named {
            prop_assert_eq!(detail.domains.rows.iter().map(|d| d.1).sum::<u64>(), both.recipients);
        }
        let cells = detail.timeline.merged(Timestamp(START - 1), Timestamp(i64::MAX / 2), detail.timeline.width_s());
        prop_assert_eq!(cells.values().map(|c| c.recipients).sum::<u64>(), both.recipients);
        prop_assert_eq!(cells.values().map(|c| c.new).sum::<u64>(), both.new_recipients);
        prop_assert_eq!(cells.values().map(|c| c.refused).sum::<u64>(), both.refused);
    }

    /// The collateral list against a list of all sends, each looked at on its own.
    #[test]
    fn collateral_is_who_sent_while_the_burst_was_on_the_relay(
        messages in 2u64..8, every_ms in prop::sample::select(vec![60_000i64, 900_000, 5_000_000]), relay_at_send: bool,
        bystanders_named: bool, tail_s in prop::sample::select(vec![0i64, 600, 3600]), seed: u64,
    ) {
        let mut h = Hijack::new("info@x.example", START + 3_600_000);
        h.messages = messages;
        h.every_ms = every_ms;
        h.flag_at = 1;
        h.relay_at_send = relay_at_send;
        let mut dice = Dice(seed);
        let relay = bystanders_named.then_some("srv24-s-st");
        let mut events = h.events(&mut dice);
        let span = 10_000_000 + every_ms * messages as i64;
        events.extend(ordinary(20, span, relay, &mut dice));
        let events = sorted(events);
        let sends: Vec<i64> = (0..messages).map(|i| h.first + i as i64 * every_ms).collect();
        // Where only outcomes name the relay it is known 1.5 s later; what is sent meanwhile may be missing.
        let named_after = if relay_at_send { 0 } else { 1_500 };
        let count = |unnamed_ms: i64| {
            let exposed = |ts: i64| sends.iter().any(|s| (*s + unnamed_ms..=*s + tail_s * 1000).contains(&ts));
            let mut rows: BTreeMap<String, (u64, u64)> = BTreeMap::new();
            for (e, _) in &events {
                let account = e.account.as_deref().unwrap();
                if let Kind::Send(s) = &e.kind && account != "info@x.example" && exposed(e.ts.0) {
                    let row = rows.entry(account.to_owned()).or_default();
                    row.0 += 1;
                    row.1 += s.rcpts.count;
                }
            }
            rows
        };
        let (most, least) = (count(0), count(named_after));
        let mut options = Options { tail_s, ..Options::default() };
        options.shown.bystanders = 1_000;
        let report = collect(&h.alerts(), &events, options);
        let exposure = &report.relays.rows[0];
        let found: BTreeMap<String, (u64, u64)> = exposure.others.rows.iter()
            .filter(|o| o.messages > 0)
            .map(|o| (o.account.clone(), (o.messages, o.recipients))).collect();
        prop_assert!(found.iter().all(|(a, n)| most.get(a).is_some_and(|m| n <= m)), "{found:?} above {most:?}");
        prop_assert!(least.iter().all(|(a, n)| found.get(a).is_some_and(|f| f >= n)), "{found:?} below {least:?}");
        let order: Vec<u64> = exposure.others.rows.iter().map(|o| o.recipients).collect();
        prop_assert!(order.is_sorted_by(|a, b| a >= b));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// What the desk finds when it reads the events again, partition by partition, is what the report has found in their order.
    #[test]
    fn read_again_in_another_order_it_is_the_same(
        messages in 2u64..8, every_ms in prop::sample::select(vec![60_000i64, 900_000, 5_000_000]),
        tail_s in prop::sample::select(vec![0i64, 600, 3600]), seed: u64,
    ) {
        let mut h = Hijack::new("info@x.example", START + 3_600_000);
        (h.messages, h.every_ms, h.flag_at, h.relay_at_send) = (messages, every_ms, 1, true);
        let mut dice = Dice(seed);
        let mut events = h.events(&mut dice);
        events.extend(ordinary(20, 10_000_000 + every_ms * messages as i64, Some("srv24-s-st"), &mut dice));
        let mut events = sorted(events);
        let mut options = Options { tail_s, ..Options::default() };
        options.shown.bystanders = 1_000;
        let wanted = collect(&h.alerts(), &events, options.clone()).relays.rows;

        let account = |(e, _): &Seen| e.account.as_deref().unwrap_or_default().to_owned();
        events.sort_by_key(account);
        let mut beside =
            Beside::new(&h.alerts(), (Timestamp(h.first), None), [Box::from(h.account.as_str())], options);
        events.iter().filter(|e| account(e) == h.account).for_each(|(e, _)| beside.own(e));
        events.iter().for_each(|(e, _)| beside.any(e));
        let found = beside.finish().rows;
        prop_assert!(wanted.iter().any(|relay| !relay.others.rows.is_empty()) || tail_s < 3600);
        prop_assert_eq!(found.len(), wanted.len());
        for (f, w) in found.iter().zip(&wanted) {
            prop_assert_eq!((&f.relay, f.span, f.exposed_s), (&w.relay, w.span, w.exposed_s));
            prop_assert_eq!((f.messages, f.recipients), (w.messages, w.recipients));
            prop_assert_eq!(&f.others, &w.others);
            prop_assert_eq!(&f.tenants, &w.tenants);
            prop_assert_eq!(&f.replies, &w.replies);
        }
    }
}

#[test]
fn refusals_of_bystanders_count_while_the_relay_is_exposed() {
    let mut h = Hijack::new("info@x.example", START);
    h.messages = 3;
    let mut events = h.events(&mut Dice(1));
    let last = START + 22_000;
    // (sent, answered): before the burst and answered during it; during it; answered after the tail.
    for (i, (sent, answered)) in [(-5_000, 9_000), (1_000, 2_000), (3_000, 22_000 + 3_600_001)].into_iter().enumerate()
    {
        let rcpts = [format!("r{i}@y.example")];
        let qid = format!("B{i}");
        let mut send = message("other@y.example", START + sent, &qid, &rcpts, [10, 0, 0, 1].into());
        if let Kind::Send(s) = &mut send.kind {
            s.relay = Some("srv24-s-st".into());
        }
        events.push((send, Step::default()));
        // The outcome does not name the relay: the send did.
        let refused =
            outcome("other@y.example", START + answered, &qid, &rcpts[0], Status::Bounced, "550 listed", None);
        events.push((refused, Step::default()));
    }
    assert!(last > START);
    let report = collect(&h.alerts(), &sorted(events), Options::default());
    let other = &report.relays.rows[0].others.rows[0];
    assert_eq!((other.messages, other.recipients), (2, 2));
    // The first message was sent before anything was known about the relay, so its answer cannot be tied to it.
    assert_eq!(other.refused, 1);
    assert_eq!(other.tenant, "y.example");
    assert_eq!(report.bystanders, 1);
}

#[test]
fn a_relay_named_only_after_the_exposure_counts_its_message() {
    let mut h = Hijack::new("info@x.example", START);
    h.messages = 1;
    h.flag_at = 1;
    let mut events = h.events(&mut Dice(1));
    let sent = START + 3_599_500;
    events.push((
        message("other@y.example", sent, "B", &["r@z.example".to_owned()], [10, 0, 0, 1].into()),
        Step::default(),
    ));
    let named =
        outcome("other@y.example", sent + 900, "B", "r@z.example", Status::Delivered, "250 ok", Some("srv24-s-st"));
    events.push((named, Step::default()));
    let report = collect(&h.alerts(), &sorted(events), Options::default());
    assert_eq!(report.relays.rows[0].others_sum.messages, 1);
}

#[test]
fn a_relay_without_burst_has_no_collateral_and_flagged_accounts_are_none() {
    let mut dice = Dice(5);
    let mut a = Hijack::new("a@x.example", START + 600_000);
    let mut b = Hijack::new("b@x.example", START + 660_000);
    for h in [&mut a, &mut b] {
        h.messages = 20;
        h.relays = vec!["mta1".to_owned()];
    }
    let mut events = a.events(&mut dice);
    events.extend(b.events(&mut dice));
    events.extend(ordinary(50, 2_000_000, Some("mta2"), &mut dice));
    let alerts: Vec<Alert> = [a.alerts(), b.alerts()].concat();
    let report = collect(&alerts, &sorted(events), Options::default());
    assert_eq!(report.relays.rows.len(), 1);
    let mta1: &Exposure = &report.relays.rows[0];
    assert_eq!((mta1.relay.as_str(), mta1.messages, mta1.incidents.len()), ("mta1", 40, 2));
    assert_eq!(mta1.others_sum.messages, 0);
    assert_eq!(report.bystanders, 0);
}

#[test]
fn only_messages_with_new_recipients_or_refusals_belong_to_the_burst() {
    let mut h = Hijack::new("info@x.example", START);
    h.messages = 4;
    let mut events = h.events(&mut Dice(9));
    let own =
        |ts, qid: &str| message("info@x.example", ts, qid, &["old@friend.example".to_owned()], [10, 0, 0, 1].into());
    events.push((own(START + 5_000, "quiet"), Step::default()));
    events.push((
        outcome("info@x.example", START + 6_000, "quiet", "old@friend.example", Status::Delivered, "250 ok", None),
        Step::default(),
    ));
    events.push((own(START + 5_500, "refused"), Step::default()));
    events.push((
        outcome("info@x.example", START + 6_500, "refused", "old@friend.example", Status::Deferred, "451 later", None),
        Step::default(),
    ));
    let refused = Step { refused: true, ..Step::default() };
    events.push((
        outcome("info@x.example", START + 90_000, "refused", "old@friend.example", Status::Bounced, "550 spam", None),
        refused,
    ));
    // What the detector dropped is dropped here.
    let dropped = [
        Step { duplicate: true, new_recipients: 1, ..Step::default() },
        Step { late: true, new_recipients: 1, ..Step::default() },
    ];
    for (i, step) in dropped.into_iter().enumerate() {
        events.push((own(START + 7_000, &format!("dropped{i}")), step));
    }
    let events = sorted(events);
    let report = collect(&h.alerts(), &events, Options::default());
    let one = only(&report);
    // What was answered before the message turned out to belong to the burst counts too.
    let (before, after) = expected(&h, &h.events(&mut Dice(9)));
    assert_eq!(one.total().deferred, before.deferred + after.deferred + 1);
    assert_eq!(one.total().messages, 5, "four of the hijack and the refused one");
    assert_eq!(one.total().recipients, 4 * 11 + 1);
    // It was sent before the flag, though it was refused only later.
    assert_eq!(one.before.messages, 4);
    let detail = one.detail.as_ref().unwrap();
    assert!(detail.domains.rows.iter().any(|d| d == &("friend.example".to_owned(), 1)), "{:?}", detail.domains);
    assert_eq!(one.relay_unknown, (1, 1));
}

#[test]
fn incidents_of_one_account_are_told_apart() {
    let mut first = Hijack::new("info@x.example", START);
    first.messages = 10;
    first.cleared_after_ms = Some(3_600_000);
    let mut second = first.clone();
    second.first = START + 86_400_000;
    second.messages = 7;
    second.cleared_after_ms = None;
    let mut dice = Dice(2);
    let mut events = first.events(&mut dice);
    events.extend(second.events(&mut dice));
    // Between them the account behaves.
    events.push((
        message("info@x.example", START + 40_000_000, "calm", &["a@b.example".to_owned()], [112, 67, 0, 9].into()),
        Step::default(),
    ));
    let alerts = [first.alerts(), second.alerts()].concat();
    let report = collect(&alerts, &sorted(events), Options::default());
    let counts: Vec<_> = report.incidents.iter().map(|i| (i.nth, i.total().messages)).collect();
    assert_eq!(counts, [((1, 2), 10), ((2, 2), 7)]);
    assert!(report.incidents[0].incident.cleared.is_some() && report.incidents[1].incident.cleared.is_none());
}

#[test]
fn networks_used_before_the_burst_are_known() {
    let (alerts, mut events) = one();
    events.push((
        message("info@d775f587.ru", START, "X", &["c@d775f587.ru".to_owned()], [112, 68, 99, 1].into()),
        Step::default(),
    ));
    let report = collect(&alerts, &sorted(events), Options::default());
    let known: Vec<_> =
        only(&report).detail.as_ref().unwrap().networks.rows.iter().map(|n| (n.base.to_string(), n.known)).collect();
    assert!(
        known.contains(&("112.68.0.0".to_owned(), true)) && known.contains(&("112.67.0.0".to_owned(), false)),
        "{known:?}"
    );
}

#[test]
fn memory_is_bounded_and_sums_stay_right() {
    let mut h = Hijack::new("info@x.example", START);
    h.messages = 300;
    let mut dice = Dice(4);
    let mut events = h.events(&mut dice);
    events.extend(ordinary(300, 3_000_000, Some("srv24-s-st"), &mut dice));
    let events = sorted(events);
    let options = Options {
        addresses_counted: 4,
        domains_counted: 2,
        replies_counted: 2,
        bystanders_counted: 10,
        messages_tied: 8,
        timeline_cells: 8,
        ..Options::default()
    };
    let small = collect(&h.alerts(), &events, options);
    let large = collect(&h.alerts(), &events, Options::default());
    let (a, b) = (only(&small), only(&large));
    assert_eq!(a.total().messages, b.total().messages);
    assert_eq!(a.total().recipients, b.total().recipients);
    let detail = a.detail.as_ref().unwrap();
    assert_eq!(
        detail.addresses.rows.iter().map(|r| r.recipients).sum::<u64>() + detail.addresses.more_sum,
        a.total().recipients
    );
    let (x, y) = (&small.relays.rows[0], &large.relays.rows[0]);
    assert_eq!(x.others.rows.len(), 10);
    assert_eq!(x.others_sum.recipients, y.others_sum.recipients);
    assert!(x.uncounted_messages > 0);
}

#[test]
fn a_message_of_a_million_recipients_is_one_message() {
    let mut h = Hijack::new("info@x.example", START);
    h.messages = 3;
    let mut events = h.events(&mut Dice(1));
    if let Kind::Send(s) = &mut events[0].0.kind {
        s.rcpts = Recipients { named: s.rcpts.named.clone(), count: 1_000_000 };
    }
    let report = collect(&h.alerts(), &sorted(events), Options::default());
    assert_eq!(only(&report).before.recipients, 1_000_022);
    mailfuse::report::html::render(&report, &mailfuse::report::html::RenderOptions::default());
}
