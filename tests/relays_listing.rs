//! The listing watch against a real DNS server on the loopback: what is listed, refused, absent, silent.

#![allow(clippy::unwrap_used)] // Clippy knows tests by their attribute, not the functions they share.

mod dns_support;

use std::net::{IpAddr, Ipv4Addr};

use dns_support::{list, serve, unlist, zone};
use mailfuse::relays::listing::answer::{Failure, Heard};
use mailfuse::relays::listing::ask::Asker;
use mailfuse::relays::listing::name;
use mailfuse::relays::listing::schedule::{Target, Watch};
use mailfuse::relays::listing::settings::{Settings, Zone};
use tokio::net::UdpSocket;

#[tokio::test]
async fn each_kind_of_answer_is_what_it_is() {
    let (good, refusing, parked) =
        (zone("list.example.").await, zone("refusing.example.").await, zone("sold.example.").await);
    list(&good, &name::of("192.0.2.1".parse().unwrap(), "list.example"), [127, 0, 0, 3]).await;
    list(&good, &name::of("192.0.2.1".parse().unwrap(), "list.example"), [127, 0, 0, 4]).await;
    list(&good, &name::of("2001:db8::25".parse().unwrap(), "list.example"), [127, 0, 0, 2]).await;
    list(&refusing, "*.refusing.example.", [127, 255, 255, 254]).await;
    list(&parked, "*.sold.example.", [192, 0, 2, 80]).await;
    let zones = [("list.example.", &good), ("refusing.example.", &refusing), ("sold.example.", &parked)];
    let (_server, address) = serve(&zones).await;
    let asker = Asker::new(address, 5000).unwrap();
    let ask = async |ip: &str, zone: &str| asker.ask(&name::of(ip.parse().unwrap(), zone)).await;

    let codes = |last: &[u8]| last.iter().map(|n| Ipv4Addr::new(127, 0, 0, *n)).collect::<Vec<_>>();
    assert_eq!(ask("192.0.2.1", "list.example").await, Heard::Listed(codes(&[3, 4])));
    assert_eq!(ask("2001:db8::25", "list.example").await, Heard::Listed(codes(&[2])));
    assert_eq!(ask("192.0.2.2", "list.example").await, Heard::Clean);
    assert_eq!(ask("2001:db8::26", "list.example").await, Heard::Clean);
    let refused = Failure::Refused(Ipv4Addr::new(127, 255, 255, 254));
    assert_eq!(ask("192.0.2.1", "refusing.example").await, Heard::Failed(refused));
    let no_code = Failure::NoCode(Ipv4Addr::new(192, 0, 2, 80));
    assert_eq!(ask("192.0.2.1", "sold.example").await, Heard::Failed(no_code));
    // A resolver that may not ask: REFUSED.
    let elsewhere = ask("192.0.2.1", "elsewhere.example").await;
    assert!(matches!(elsewhere, Heard::Failed(Failure::Server(_))), "{elsewhere:?}");
}

#[tokio::test]
async fn a_resolver_that_is_silent_is_a_failure() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let asker = Asker::new(silent.local_addr().unwrap(), 300).unwrap();
    let heard = asker.ask(&name::of("192.0.2.1".parse().unwrap(), "list.example")).await;
    assert!(matches!(heard, Heard::Failed(Failure::Silent | Failure::Server(_))), "{heard:?}");
}

#[tokio::test]
async fn a_relay_that_is_listed_and_taken_off_is_told() {
    let handler = zone("list.example.").await;
    list(&handler, "2.0.0.127.list.example.", [127, 0, 0, 2]).await;
    let (_server, address) = serve(&[("list.example.", &handler)]).await;
    let asker = Asker::new(address, 5000).unwrap();
    let settings = Settings {
        zones: vec![Zone { name: "list.example".to_owned(), codes: Default::default() }],
        ..Settings::default()
    };
    let target = |relay: &str, ip: &str| Target { relay: relay.to_owned(), address: ip.parse().unwrap() };
    let targets = [target("out-1", "192.0.2.1"), target("out-1", "2001:db8::25"), target("out-2", "192.0.2.2")];
    let listed = name::of("2001:db8::25".parse().unwrap(), "list.example");
    let mut watch = Watch::new(&settings, &targets, &[], 0);
    let mut said = Vec::new();
    for hour in 0..9 {
        match hour {
            3 => list(&handler, &listed, [127, 0, 0, 3]).await,
            6 => unlist(&handler, &listed).await,
            _ => {}
        }
        while let Some(now_ms) = watch.next_ms().filter(|ms| *ms < (hour + 1) * 3_600_000) {
            let question = watch.due(now_ms).unwrap();
            said.extend(watch.hear(&question, asker.ask(&question.name).await, now_ms).unwrap().map(|c| (hour, c)));
        }
    }
    let facts: Vec<_> = said.iter().map(|(hour, c)| (*hour, &*c.relay, c.address, c.listed, c.codes.len())).collect();
    let address: IpAddr = "2001:db8::25".parse().unwrap();
    assert_eq!(facts, [(3, "out-1", address, true, 1), (6, "out-1", address, false, 1)]);
}
