//! Synthetic mail: hijacks and ordinary accounts, with the alerts and steps that a detector would give.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub use crate::common::Dice;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use mailfuse::core::alert::{Action, Alert, AlertKind, Burst, Evidence, Pattern, RelayShare, Severity, Signal};
use mailfuse::core::shard::Step;
use mailfuse::event::{Event, Kind, Outcome, Recipients, Send, Status, Timestamp};
use mailfuse::report::{Collector, InputFile, Inputs, Options, Report};

/// 2012-07-10 06:00:00 UTC.
pub const START: i64 = 1_341_900_000_000;

/// One event with what the detector said about it.
pub type Seen = (Event<'static>, Step);

/// How one account was hijacked.
#[derive(Clone)]
pub struct Hijack {
    pub account: String,
    pub first: i64,
    pub messages: u64,
    pub every_ms: i64,
    pub rcpts: u64,
    /// The message that raises the flag, counted from 1.
    pub flag_at: u64,
    pub escalate_at: Option<u64>,
    pub cleared_after_ms: Option<i64>,
    pub relays: Vec<String>,
    /// The send names its relay; else only the outcomes do.
    pub relay_at_send: bool,
    /// The send names its recipients; else it counts them.
    pub named: bool,
    pub pattern: Pattern,
    pub stays_warning: bool,
}

impl Hijack {
    pub fn new(account: &str, first: i64) -> Self {
        Self {
            account: account.to_owned(),
            first,
            messages: 269,
            every_ms: 11_000,
            rcpts: 11,
            flag_at: 3,
            escalate_at: None,
            cleared_after_ms: None,
            relays: vec!["srv24-s-st".to_owned()],
            relay_at_send: true,
            named: true,
            pattern: Pattern::Hijack,
            stays_warning: false,
        }
    }

    fn sent_at(&self, i: u64) -> i64 {
        self.first + i as i64 * self.every_ms
    }

    fn incident(&self) -> String {
        format!("inc{:016x}", self.first as u64 ^ self.account.len() as u64)
    }

    fn alert(&self, kind: AlertKind, ts: i64, severity: Severity, messages: u64) -> Alert {
        let new = messages * self.rcpts;
        let evidence = |signal, observed: f64, expected, limit, weight, text: String| Evidence {
            signal,
            window_s: 3600,
            observed,
            expected,
            limit,
            weight,
            text,
        };
        let cleared = kind == AlertKind::Cleared;
        Alert {
            v: 1,
            id: format!("{}-{kind:?}", self.incident()),
            kind,
            ts: Timestamp(ts),
            severity,
            account: self.account.clone(),
            tenant: self.account.rsplit('@').next().unwrap_or_default().to_owned(),
            incident: self.incident(),
            score: 11.7,
            pattern: self.pattern,
            evidence: if cleared {
                vec![]
            } else {
                vec![
                    evidence(
                        Signal::NewRecipients,
                        new as f64,
                        0.8,
                        12.0,
                        6.4,
                        format!("{new} new recipients in 1 h; this account normally has 0-2; 12 would have sufficed"),
                    ),
                    evidence(
                        Signal::NewNetworks,
                        3.0,
                        0.05,
                        2.0,
                        3.1,
                        "3 client networks never seen before in 1 h".to_owned(),
                    ),
                    evidence(
                        Signal::Bounces,
                        18.0,
                        0.3,
                        5.0,
                        2.2,
                        "18 refused recipients in 1 h; normally 0-1".to_owned(),
                    ),
                ]
            },
            relays: self.relays.iter().map(|r| RelayShare { relay: r.clone(), messages, recipients: new }).collect(),
            burst: Some(Burst {
                first_ts: Timestamp(self.first),
                messages,
                recipients: new,
                new_recipients: new,
                bounced: 0,
                client_ips: vec![],
                top_domains: vec![],
                queue_ids: vec![],
                contents: vec![],
                new_recipient_fingerprints: vec![],
            }),
            action: Action::SuspendAccount,
            exempt: None,
            heartbeat: false,
            by: "mailfuse 0.1.0 9f2c1a".to_owned(),
        }
    }

    pub fn alerts(&self) -> Vec<Alert> {
        let first =
            if self.escalate_at.is_some() || self.stays_warning { Severity::Warning } else { Severity::Critical };
        let mut out = vec![self.alert(AlertKind::Flagged, self.sent_at(self.flag_at - 1), first, self.flag_at)];
        if let Some(at) = self.escalate_at.filter(|_| !self.stays_warning) {
            out.push(self.alert(AlertKind::Escalated, self.sent_at(at - 1), Severity::Critical, at));
        }
        if let Some(after) = self.cleared_after_ms {
            let ts = self.sent_at(self.messages - 1) + after;
            out.push(self.alert(
                AlertKind::Cleared,
                ts,
                if self.stays_warning { first } else { Severity::Critical },
                self.messages,
            ));
        }
        out
    }

    pub fn events(&self, dice: &mut Dice) -> Vec<Seen> {
        let domains = ["qq.com", "163.com", "gmail.com", "example.net", "kunde-eins.de"];
        let mut out = Vec::new();
        for i in 0..self.messages {
            let ip = IpAddr::V4(Ipv4Addr::new(112, (67 + i % 3) as u8, (i % 11) as u8, 9));
            let qid = format!("Q{:X}{i:05X}", self.first as u64 % 0xFFFF);
            let rcpts: Vec<String> = (0..self.rcpts)
                .map(|k| format!("r{}x{i}x{k}@{}", self.first % 97, domains[dice.below(9).min(4) as usize]))
                .collect();
            let relay = self.relays[i as usize % self.relays.len()].clone();
            let named: &[String] = if self.named { &rcpts } else { &[] };
            let mut send = message(&self.account, self.sent_at(i), &qid, named, ip);
            if let Kind::Send(s) = &mut send.kind {
                s.rcpts.count = self.rcpts;
                s.relay = self.relay_at_send.then(|| relay.clone().into());
            }
            let new = if self.named { self.rcpts as u32 } else { 0 };
            out.push((send, Step { new_recipients: new, ..Step::default() }));
            for (k, rcpt) in rcpts.iter().enumerate() {
                let (status, reply) = match dice.below(20) {
                    0..=12 => (Status::Bounced, "host mx3.qq.com[113.108.79.139] said: 550 Connection frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1 (in reply to RCPT TO command)".to_owned()),
                    13..=15 => (Status::Bounced, format!("550 5.1.1 <{rcpt}>: Recipient address rejected: User {} unknown", rcpt.split('@').next().unwrap_or_default())),
                    16 => (Status::Deferred, "452 4.7.1 Try again later".to_owned()),
                    _ => (Status::Delivered, "250 2.0.0 Ok".to_owned()),
                };
                let refused = status == Status::Bounced;
                let ev = outcome(
                    &self.account,
                    self.sent_at(i) + 1500 + k as i64 * 40,
                    &qid,
                    rcpt,
                    status,
                    &reply,
                    Some(&relay),
                );
                let new_recipients = u32::from(!self.named);
                out.push((ev, Step { new_recipients, refused, ..Step::default() }));
            }
        }
        out
    }
}

pub fn message(account: &str, ts: i64, qid: &str, rcpts: &[String], ip: IpAddr) -> Event<'static> {
    Event {
        ts: Timestamp(ts),
        account: Some(account.to_owned().into()),
        id: None,
        tenant: None,
        kind: Kind::Send(Send {
            client_ip: Some(ip),
            rcpts: Recipients { named: rcpts.iter().cloned().map(Into::into).collect(), count: rcpts.len() as u64 },
            queue_id: Some(qid.to_owned().into()),
            mail_from: Some(account.to_owned().into()),
            message_id: Some(format!("{qid}@client.invalid").into()),
            ..Send::default()
        }),
    }
}

pub fn outcome(
    account: &str,
    ts: i64,
    qid: &str,
    rcpt: &str,
    status: Status,
    reply: &str,
    relay: Option<&str>,
) -> Event<'static> {
    Event {
        ts: Timestamp(ts),
        account: Some(account.to_owned().into()),
        id: None,
        tenant: None,
        kind: Kind::Outcome(Outcome {
            relay: relay.map(|r| r.to_owned().into()),
            rcpt: rcpt.to_owned().into(),
            status,
            dsn: None,
            reply: Some(reply.to_owned().into()),
            queue_id: Some(qid.to_owned().into()),
            relay_queue_id: None,
        }),
    }
}

/// Ordinary mail of `accounts` accounts over `span_ms`, through `relay`.
pub fn ordinary(accounts: u64, span_ms: i64, relay: Option<&str>, dice: &mut Dice) -> Vec<Seen> {
    let mut out = Vec::new();
    for a in 0..accounts {
        let account = format!("user{a}@tenant{}.example", a % 7);
        for m in 0..1 + dice.below(12) {
            let ts = START + dice.below(span_ms as u64) as i64;
            let qid = format!("N{a:X}x{m}");
            let rcpts: Vec<String> = (0..1 + dice.below(3)).map(|k| format!("friend{k}@partner.example")).collect();
            let mut send = message(&account, ts, &qid, &rcpts, IpAddr::V4(Ipv4Addr::new(10, 1, 0, a as u8)));
            if let Kind::Send(s) = &mut send.kind {
                s.relay = relay.map(|r| r.to_owned().into());
            }
            out.push((send, Step::default()));
            for rcpt in &rcpts {
                let (status, reply) = match dice.below(10) {
                    0 => (
                        Status::Bounced,
                        "550 5.7.1 Service unavailable; client [198.51.100.24] blocked using dnsbl.example",
                    ),
                    1 => (Status::Deferred, "421 4.7.0 Too many connections from mta24.provider.example"),
                    _ => (Status::Delivered, "250 ok"),
                };
                out.push((
                    outcome(&account, ts + 900, &qid, rcpt, status, reply, relay.or(Some("srv24-s-st"))),
                    Step::default(),
                ));
            }
        }
    }
    out
}

/// In the order of time, as a log has it.
pub fn sorted(mut events: Vec<Seen>) -> Vec<Seen> {
    events.sort_by_key(|(e, _)| e.ts);
    events
}

pub fn inputs() -> Inputs {
    Inputs {
        files: vec![InputFile {
            name: "/var/log/mail/2012-07-10.maillog.gz".to_owned(),
            sha256: "9b74c9897bac770ffc029102a200c5de9b74c9897bac770ffc029102a200c5de".to_owned(),
            bytes: 1_438_221,
        }],
        period: Some((Timestamp(START), Timestamp(START + 6_535_000))),
        zone: "Europe/Moscow".to_owned(),
        year: "2012, from the file’s name".to_owned(),
        lines: 118_392,
        events: 40_211,
        rejects: vec![("not a Postfix line".to_owned(), 12)],
        gaps: vec![(Timestamp(START + 1_000_000), Timestamp(START + 1_400_000))],
        accounts_seen: 1_517,
        version: "0.1.0".to_owned(),
        config_digest: "9f2c1a7be0".to_owned(),
        made_at: None,
    }
}

pub fn collect(alerts: &[Alert], events: &[Seen], options: Options) -> Report {
    let mut collector = Collector::new(alerts, options);
    for (event, step) in events {
        collector.event(event, step);
    }
    collector.finish(inputs())
}

/// One hijacked account among 120 ordinary ones.
pub fn one() -> (Vec<Alert>, Vec<Seen>) {
    let mut dice = Dice(7);
    let mut hijack = Hijack::new("info@d775f587.ru", START + 686_000);
    hijack.cleared_after_ms = Some(24 * 3_600_000);
    let mut events = hijack.events(&mut dice);
    events.extend(ordinary(120, 6_500_000, Some("srv24-s-st"), &mut dice));
    for i in 0..6 {
        let rcpts = vec![format!("colleague{i}@d775f587.ru")];
        let ip = IpAddr::V4(Ipv4Addr::new(78, 1, 2, 3));
        events.push((message("info@d775f587.ru", START + i * 100_000, &format!("H{i}"), &rcpts, ip), Step::default()));
    }
    (hijack.alerts(), sorted(events))
}

/// Forty, of all kinds, over three relays.
pub fn forty() -> (Vec<Alert>, Vec<Seen>) {
    let mut dice = Dice(11);
    let (mut alerts, mut events) = (Vec::new(), Vec::new());
    for i in 0..40u64 {
        let mut h = Hijack::new(&format!("box{i}@customer{}.example", i / 2), START + dice.below(80_000_000) as i64);
        h.messages = 4 + dice.below(400);
        h.every_ms = 2_000 + dice.below(60_000) as i64;
        h.rcpts = 1 + dice.below(25);
        h.flag_at = 1 + dice.below(4);
        h.escalate_at = (i % 3 == 0).then_some(4);
        h.stays_warning = i % 7 == 6;
        h.cleared_after_ms = (i % 4 == 1).then_some(3_600_000);
        if i == 0 {
            // One that takes its time, among ordinary mail, and ends within the picture.
            (h.messages, h.every_ms, h.flag_at, h.escalate_at) = (300, 20_000, 80, Some(160));
            h.cleared_after_ms = Some(400_000);
            for m in 0..200 {
                let rcpts: Vec<String> = (0..1 + dice.below(12)).map(|k| format!("old{k}@friend.example")).collect();
                let sent = h.first - 1_800_000 + m * 45_000;
                events
                    .push((message(&h.account, sent, &format!("O{m}"), &rcpts, [78, 1, 2, 3].into()), Step::default()));
            }
        }
        h.relays = (0..1 + i % 3).map(|r| format!("mta{}.out.provider.example", (r + i) % 3)).collect();
        h.relay_at_send = i % 2 == 0;
        h.named = i % 5 != 0;
        h.pattern =
            [Pattern::Hijack, Pattern::Hijack, Pattern::Bulk, Pattern::Script, Pattern::Unclear][i as usize % 5];
        alerts.extend(h.alerts());
        events.extend(h.events(&mut dice));
    }
    events.extend(ordinary(400, 86_000_000, Some("mta0.out.provider.example"), &mut dice));
    alerts.sort_by_key(|a| a.ts);
    (alerts, sorted(events))
}

/// Every foreign string of the events and alerts, each of which a redacted page must not contain.
pub fn strings(alerts: &[Alert], events: &[Seen]) -> HashSet<String> {
    let mut all: HashSet<String> = HashSet::new();
    let mut add = |s: &str| {
        if s.len() >= 4 {
            all.insert(s.to_owned());
        }
    };
    for a in alerts {
        [&a.account, &a.tenant, &a.incident, &a.id].into_iter().for_each(|s| add(s));
        a.relays.iter().for_each(|r| add(&r.relay));
    }
    for (e, _) in events {
        add(e.account.as_deref().unwrap_or_default());
        add(e.tenant().unwrap_or_default());
        match &e.kind {
            Kind::Send(s) => {
                s.rcpts.named.iter().for_each(|r| add(r));
                for x in [&s.relay, &s.queue_id, &s.mail_from, &s.message_id].into_iter().flatten() {
                    add(x);
                }
                if let Some(ip) = s.client_ip {
                    add(&ip.to_string());
                }
            }
            Kind::Outcome(o) => {
                add(&o.rcpt);
                o.queue_id.iter().for_each(|q| add(q));
                for word in
                    o.reply.as_deref().unwrap_or_default().split(|c: char| c.is_whitespace() || "<>[]()".contains(c))
                {
                    if word.contains('.') && word.len() > 6 && !word.ends_with('.') {
                        add(word);
                    }
                }
            }
            Kind::Complaint(_) | Kind::Auth(_) => {}
        }
    }
    all
}
