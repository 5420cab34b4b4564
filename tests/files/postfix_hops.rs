//! The logs of several real hosts together, against what the clients and the receivers counted.

use mailfuse::event::{Event, Kind, Status};
use mailfuse::logs::postfix::{Options, Postfix, Stats};
use mailfuse::logs::stamp::{StampOptions, Stamper};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};

#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    messages: u64,
    recipients: u64,
    distinct_recipients: u64,
    delivered: u64,
    refused: u64,
    bounced_unsent: u64,
    expired: u64,
    failed_log_ins: u64,
    /// Delivered or refused.
    relays: BTreeMap<String, u64>,
}

struct Read {
    accounts: BTreeMap<String, Figures>,
    /// Outcomes whose queue id no send of the account had.
    astray: Vec<String>,
    failed_log_ins: u64,
    stats: Stats,
}

fn read(dir: &str, files: &[&str], options: Options) -> Read {
    let mut lines = Vec::new();
    let texts: Vec<_> = files.iter().map(|f| std::fs::read(format!("{dir}/{f}.log")).unwrap()).collect();
    for text in &texts {
        let mut stamper = Stamper::new(StampOptions { year: Some(2026), ..StampOptions::default() });
        for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            let (ts, at) = stamper.stamp(line).unwrap();
            lines.push((ts, &line[at..]));
        }
    }
    lines.sort_by_key(|(ts, _)| *ts);
    let mut postfix = Postfix::new(options);
    let mut reading = Reading::default();
    for (ts, rest) in lines {
        postfix.push(ts, rest, &mut |event| reading.count(event));
    }
    postfix.finish(&mut |event| reading.count(event));
    let Reading { accounts, astray, failed_log_ins, .. } = reading;
    Read { accounts, astray, failed_log_ins, stats: postfix.stats().clone() }
}

#[derive(Default)]
struct Reading {
    accounts: BTreeMap<String, Figures>,
    sent: HashSet<(String, String)>,
    rcpts: HashSet<(String, String)>,
    astray: Vec<String>,
    failed_log_ins: u64,
}

impl Reading {
    fn count(&mut self, event: &Event<'_>) {
        let name = event.account.as_deref().unwrap_or_default().to_owned();
        match &event.kind {
            Kind::Auth(auth) if !auth.ok => {
                self.failed_log_ins += 1;
                self.accounts.entry(name).or_default().failed_log_ins += 1;
            }
            Kind::Send(send) => {
                self.sent.insert((name.clone(), send.queue_id.as_deref().unwrap().to_owned()));
                let figures = self.accounts.entry(name).or_default();
                figures.messages += 1;
                figures.recipients += send.rcpts.count;
            }
            Kind::Outcome(outcome) => {
                let id = outcome.queue_id.as_deref().unwrap().to_owned();
                if !self.sent.contains(&(name.clone(), id)) {
                    self.astray.push(format!("{event:?}"));
                }
                let new = self.rcpts.insert((name.clone(), outcome.rcpt.clone().into_owned()));
                let figures = self.accounts.entry(name).or_default();
                figures.distinct_recipients += u64::from(new);
                let answered = outcome.reply.as_deref().unwrap_or_default().starts_with("host ");
                match outcome.status {
                    Status::Delivered => figures.delivered += 1,
                    Status::Bounced if answered => figures.refused += 1,
                    Status::Bounced => figures.bounced_unsent += 1,
                    Status::Expired => figures.expired += 1,
                    Status::Deferred | Status::Rejected => return,
                }
                if outcome.status == Status::Delivered || (outcome.status == Status::Bounced && answered) {
                    // What the filter on the submission host refused was seen by no relay.
                    let relay = outcome.relay.as_deref().unwrap_or("submit-1").to_owned();
                    *figures.relays.entry(relay).or_default() += 1;
                }
            }
            Kind::Auth(_) | Kind::Complaint(_) => {}
        }
    }
}

fn truth(dir: &str) -> (BTreeMap<String, Figures>, u64) {
    let truth: Value = serde_json::from_slice(&std::fs::read(format!("{dir}/truth.json")).unwrap()).unwrap();
    let figures = truth["accounts"].as_object().unwrap().iter().map(|(name, a)| {
        let n = |field: &str| a[field].as_u64().unwrap();
        let relays = a["relays"].as_object().unwrap().iter().map(|(r, n)| (r.clone(), n.as_u64().unwrap()));
        let figures = Figures {
            messages: n("messages"),
            recipients: n("recipients"),
            distinct_recipients: n("distinct_recipients"),
            delivered: n("delivered"),
            refused: n("refused"),
            bounced_unsent: n("bounced_unsent"),
            expired: n("expired"),
            failed_log_ins: n("failed_log_ins"),
            relays: relays.collect(),
        };
        (name.clone(), figures)
    });
    (figures.collect(), truth["failed_log_ins"].as_u64().unwrap())
}

fn check(dir: &str, files: &[&str], options: Options) -> Stats {
    let (truth, failed_log_ins) = truth(dir);
    let read = read(dir, files, options);
    let mut wrong = Vec::new();
    for (name, expected) in &truth {
        let found = read.accounts.get(name);
        if found != Some(expected) {
            wrong.push(format!("{name}\n  true {expected:?}\n  read {found:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{files:?}\n{}\n{:#?}", wrong.concat(), read.stats);
    assert_eq!(read.astray, Vec::<String>::new(), "{files:?}");
    assert_eq!(read.stats.lines_unparsed, 0);
    let customers: BTreeSet<_> = truth.keys().collect();
    let others = read.accounts.iter().filter(|(name, _)| !customers.contains(name));
    assert!(others.clone().all(|(_, f)| f.messages + f.delivered + f.refused == 0), "{:?}", others.collect::<Vec<_>>());
    assert!(read.failed_log_ins >= failed_log_ins, "{} failed log-ins", read.failed_log_ins);
    read.stats
}

const HOPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hops");
const FILTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/filter");

fn own(hosts: &[&str]) -> Options {
    Options { own_hosts: hosts.iter().map(|h| (*h).to_owned()).collect(), ..Options::default() }
}

#[test]
fn a_balancer_and_two_relays_in_any_order_of_files() {
    let orders = [["submit-1", "out-1", "out-2"], ["out-1", "out-2", "submit-1"], ["out-2", "submit-1", "out-1"]];
    for files in orders {
        let stats = check(HOPS, &files, Options::default());
        assert_eq!((stats.handovers_unmatched, stats.tied_late), (0, 0));
        let stats = check(HOPS, &files, own(&["lb-1.harbourmail.example"]));
        assert_eq!((stats.handovers_unmatched, stats.tied_late), (0, 0));
    }
}

#[test]
fn a_filter_and_a_relay_in_any_order_of_files() {
    for files in [["submit-1", "out-1"], ["out-1", "submit-1"]] {
        let stats = check(FILTER, &files, Options::default());
        assert_eq!((stats.handovers_unmatched, stats.tied_late), (0, 0));
    }
}

#[test]
fn the_submission_hosts_log_alone_shows_deliveries_to_the_next_host() {
    let read = read(HOPS, &["submit-1"], Options::default());
    let (truth, _) = truth(HOPS);
    for (name, figures) in &truth {
        assert_eq!(read.accounts[name].messages, figures.messages, "{name}");
        assert_eq!(read.accounts[name].delivered, figures.recipients, "{name}");
    }
}
