//! A real provider's log against figures that an independent script took from it, account by account.

use crate::common;

use common::shared;
use flate2::read::GzDecoder;
use mailfuse::event::{Event, Kind, Status};
use mailfuse::logs::postfix::{Options, Postfix, Stats};
use mailfuse::logs::stamp::{StampOptions, Stamper};
use std::collections::{BTreeMap, HashSet};
use std::io::Read;

const NAME: &str = "jino-2012-07-10.pseudo.maillog.gz";

#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Figures {
    sessions: u64,
    messages: u64,
    rcpts: u64,
    uniq_rcpts: u64,
    sent: u64,
    bounced: u64,
    deferred_attempts: u64,
    ips: u64,
}

#[derive(Default)]
struct Account {
    figures: Figures,
    rcpts: HashSet<String>,
    ips: HashSet<std::net::IpAddr>,
}

fn ours(log: &[u8]) -> (BTreeMap<String, Figures>, Stats) {
    let mut stamper = Stamper::new(StampOptions { file_name: Some(NAME), ..StampOptions::default() });
    let mut postfix = Postfix::new(Options::default());
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    let mut sink = |event: &Event<'_>| count(event, &mut accounts);
    for line in log.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let (ts, at) = stamper.stamp(line).unwrap();
        postfix.push(ts, &line[at..], &mut sink);
    }
    postfix.finish(&mut sink);
    let figures = accounts.into_iter().map(|(name, a)| {
        let (uniq_rcpts, ips) = (a.rcpts.len() as u64, a.ips.len() as u64);
        (name, Figures { uniq_rcpts, ips, ..a.figures })
    });
    (figures.collect(), postfix.stats().clone())
}

fn count(event: &Event<'_>, accounts: &mut BTreeMap<String, Account>) {
    let Some(name) = event.account.as_deref() else { return };
    let account = accounts.entry(name.to_owned()).or_default();
    let figures = &mut account.figures;
    match &event.kind {
        Kind::Auth(auth) if auth.ok => {
            figures.sessions += 1;
            account.ips.extend(auth.client_ip);
        }
        Kind::Send(send) => {
            figures.messages += 1;
            figures.rcpts += send.rcpts.count;
            assert_eq!(send.relay.as_deref(), Some("srv24-s-st"));
        }
        Kind::Outcome(outcome) => {
            match outcome.status {
                Status::Delivered => figures.sent += 1,
                Status::Bounced => figures.bounced += 1,
                Status::Deferred => figures.deferred_attempts += 1,
                Status::Rejected | Status::Expired => return,
            }
            account.rcpts.insert(outcome.rcpt.to_ascii_lowercase());
        }
        Kind::Auth(_) | Kind::Complaint(_) => {}
    }
}

fn theirs(tsv: &str) -> BTreeMap<String, Figures> {
    let mut lines = tsv.lines();
    let header: Vec<_> = lines.next().unwrap().split('\t').collect();
    lines
        .map(|line| {
            let cells: Vec<_> = line.split('\t').collect();
            let cell = |name: &str| cells[header.iter().position(|h| *h == name).unwrap()].parse().unwrap();
            let figures = Figures {
                sessions: cell("sessions"),
                messages: cell("messages"),
                rcpts: cell("rcpts"),
                uniq_rcpts: cell("uniq_rcpts"),
                sent: cell("sent"),
                bounced: cell("bounced"),
                deferred_attempts: cell("deferred_attempts"),
                ips: cell("ips"),
            };
            (cells[0].to_owned(), figures)
        })
        .collect()
}

#[test]
fn every_account_agrees_with_the_independent_script() {
    let (Some(log), Some(tsv)) =
        (shared(&format!("data/logs/{NAME}")), shared("data/logs/jino-2012-07-10.accounts.tsv"))
    else {
        return;
    };
    let mut text = Vec::new();
    GzDecoder::new(std::fs::File::open(log).unwrap()).read_to_end(&mut text).unwrap();
    let (ours, stats) = ours(&text);
    let theirs = theirs(&std::fs::read_to_string(tsv).unwrap());
    println!("{stats:#?}");
    let mut differences = 0;
    for name in ours.keys().chain(theirs.keys()).collect::<std::collections::BTreeSet<_>>() {
        let (a, b) = (ours.get(name), theirs.get(name));
        if a != b {
            differences += 1;
            println!("{name}\n  ours   {a:?}\n  theirs {b:?}");
        }
    }
    assert_eq!(differences, 0);
}
