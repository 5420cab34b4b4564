//! `--extract`: a burst's messages as CSV.
use crate::report_support;

use mailfuse::core::shard::Step;
use mailfuse::event::{Kind, Status};
use mailfuse::report::extract::{COLUMNS, Extracted, Extractor};
use report_support::*;

fn extract(
    account: &str,
    alerts: &[mailfuse::core::alert::Alert],
    events: &[Seen],
    rows_max: usize,
) -> (Extracted, Vec<Vec<String>>) {
    let mut extractor = Extractor::new(account, alerts, rows_max);
    events.iter().for_each(|(e, s)| extractor.event(e, s));
    let mut out = Vec::new();
    let done = extractor.finish(&mut out).unwrap();
    let mut reader = csv::Reader::from_reader(out.as_slice());
    assert_eq!(reader.headers().unwrap().iter().collect::<Vec<_>>(), COLUMNS);
    (done, reader.records().map(|r| r.unwrap().iter().map(str::to_owned).collect()).collect())
}

fn sum(rows: &[Vec<String>], column: &str) -> u64 {
    let at = COLUMNS.iter().position(|c| *c == column).unwrap();
    rows.iter().map(|r| r[at].parse::<u64>().unwrap()).sum()
}

#[test]
fn the_rows_are_what_the_report_counts() {
    for (relay_at_send, named) in [(true, true), (false, false)] {
        let mut h = Hijack::new("info@d775f587.ru", START + 686_000);
        h.relay_at_send = relay_at_send;
        h.named = named;
        let mut events = h.events(&mut Dice(7));
        for i in 0..6 {
            let rcpts = vec![format!("colleague{i}@d775f587.ru")];
            let during = START + 700_000 + i * 100_000;
            events.push((
                message("info@d775f587.ru", during, &format!("H{i}"), &rcpts, [78, 1, 2, 3].into()),
                Step::default(),
            ));
        }
        events.extend(ordinary(30, 6_500_000, Some("srv24-s-st"), &mut Dice(1)));
        let events = sorted(events);
        let (done, rows) = extract("info@d775f587.ru", &h.alerts(), &events, 100_000);
        let total = collect(&h.alerts(), &events, Default::default()).incidents[0].total();
        assert_eq!(done, Extracted { rows: 269, left_out: 0, note: None });
        assert_eq!(rows.len(), 269);
        assert_eq!(sum(&rows, "recipients"), total.recipients);
        assert_eq!(sum(&rows, "new_recipients"), total.new_recipients);
        assert_eq!(sum(&rows, "delivered"), total.delivered);
        assert_eq!(sum(&rows, "refused"), total.refused);
        assert_eq!(sum(&rows, "deferred"), total.deferred);
        assert_eq!(rows[0][0], "2012-07-10T06:11:26.000Z");
        assert!(rows.iter().all(|r| r[5] == "srv24-s-st" && r[4].starts_with("112.")), "{:?}", rows[0]);
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0]));
    }
}

#[test]
fn an_unflagged_account_gives_all_its_sends_and_a_note() {
    let (alerts, events) = one();
    let sends = events
        .iter()
        .filter(|(e, _)| e.account.as_deref() == Some("user5@tenant5.example") && matches!(e.kind, Kind::Send(_)));
    let (done, rows) = extract("user5@tenant5.example", &alerts, &events, 100_000);
    assert_eq!(rows.len(), sends.count());
    assert!(done.note.unwrap().contains("was not flagged: these are all its messages"));
    let (done, rows) = extract("nobody@x.org", &alerts, &events, 100_000);
    assert!(rows.is_empty());
    assert!(done.note.unwrap().contains("sent nothing in this log"));
}

#[test]
fn rows_are_bounded_and_the_rest_is_counted() {
    let (alerts, events) = one();
    let (done, rows) = extract("info@d775f587.ru", &alerts, &events, 100);
    assert_eq!((rows.len(), done.rows, done.left_out), (100, 100, 169));
    assert_eq!(done.note.unwrap(), "169 later messages left out");
}

#[test]
fn cells_cannot_become_formulas() {
    let mut h = Hijack::new("a@x.org", START);
    h.messages = 2;
    let mut events = h.events(&mut Dice(1));
    let evil = "=HYPERLINK(\"http://x\",\"a,b\")\n";
    for (e, _) in &mut events {
        match &mut e.kind {
            Kind::Send(s) => {
                s.mail_from = Some(evil.into());
                s.message_id = Some("-1+1".into());
                s.relay = Some("@relay".into());
                s.queue_id = s.queue_id.take().map(|q| format!("+{q}").into());
            }
            Kind::Outcome(o) => o.queue_id = o.queue_id.take().map(|q| format!("+{q}").into()),
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }
    let (_, rows) = extract("a@x.org", &h.alerts(), &sorted(events), 10);
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row[3], format!("'{evil}"));
        assert!(row.iter().all(|c| !c.starts_with(['=', '+', '-', '@'])), "{row:?}");
    }
}

#[test]
fn a_queue_id_used_again_names_the_later_message() {
    let at = |ts, new| {
        let step = Step { new_recipients: new, ..Step::default() };
        (message("a@x.org", ts, "SAME", &["r@y.org".to_owned()], [1, 2, 3, 4].into()), step)
    };
    let refusal = outcome("a@x.org", START + 3_000, "SAME", "r@y.org", Status::Bounced, "550 no", Some("mta1"));
    let events = [at(START, 1), at(START + 2_000, 1), (refusal, Step { refused: true, ..Step::default() })];
    let (_, rows) = extract("a@x.org", &[], &events, 10);
    assert_eq!((rows[0][9].as_str(), rows[1][9].as_str()), ("0", "1"));
    assert_eq!((rows[0][5].as_str(), rows[1][5].as_str()), ("", "mta1"));
    // Also where the later one has no row.
    let (_, rows) = extract("a@x.org", &[], &events, 1);
    assert_eq!((rows.len(), rows[0][9].as_str()), (1, "0"));
}
