//! Blocklists against a real broker and a real DNS server: a relay that is listed is told of once, over SIGKILL, and so is its end;
//! a list that refuses, and a resolver that is silent, are counted and say nothing.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::dns_support::{list, serve, unlist, zone};
use crate::run_support::{Broker, Deployment, Instance, LIMIT, Record, mailfuse, wait_until};
use mailfuse::relays::listing::name;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// An end takes two answers in a row, which are a minute apart, and each instance spreads its first questions over a minute.
const MINUTES: Duration = Duration::from_secs(240);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn stamp(ms: i64) -> String {
    mailfuse::event::Timestamp(ms).to_string()
}

/// A pool of two relays, of which only the first has an address, and two lists; a resolver that has so long to answer.
fn configured(d: &mut Deployment<'_>, resolver: SocketAddr, timeout_ms: u32) {
    d.extra = format!(
        "[relays.listing]\nserver = \"{resolver}\"\nevery_s = 60\nspacing_ms = 10\ntimeout_ms = {timeout_ms}\n\
         [[relays.listing.zone]]\nname = \"list.example\"\ncodes = {{ \"127.0.0.3\" = \"CSS\" }}\n\
         [[relays.listing.zone]]\nname = \"refusing.example\"\n\
         [[relays.pool]]\nname = \"p\"\nmember = [\n\
         {{ relay = \"out-1\", log_host = \"log-1\", address = [\"192.0.2.1\"] }}, {{ relay = \"out-2\" }}]\n"
    );
}

fn said(instance: &Instance, kind: &str) -> Vec<Value> {
    instance.items(&format!("/v1/alerts?kind={kind}"))
}

fn answers(instance: &Instance, zone: &str, result: &str) -> f64 {
    let text = instance.get("/metrics").1;
    let is_it = |l: &&str| l.contains(&format!("zone=\"{zone}\"")) && l.contains(&format!("result=\"{result}\""));
    let lines = text.lines().filter(|l| l.starts_with("mailfuse_listing_answers_total{")).filter(is_it);
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn ready(instance: &Instance) {
    wait_until("it is the active desk, and has read what there is", LIMIT, || {
        let desk = instance.json("/v1/desk").1;
        desk["role"] == "active" && desk["index"]["state"] == "ready"
    });
}

/// A flag of an account whose burst began a minute ago and went over the first relay.
fn flag() -> (String, Record) {
    let line = include_str!("../../schemas/examples/alerts.jsonl").lines().next().unwrap();
    let mut alert: Value = serde_json::from_str(line).unwrap();
    alert["ts"] = json!(stamp(now_ms() - 30_000));
    alert["burst"]["first_ts"] = json!(stamp(now_ms() - 60_000));
    alert["relays"] = json!([{ "relay": "log-1", "messages": 40, "recipients": 44 }]);
    let incident = alert["incident"].as_str().unwrap().to_owned();
    (incident, Record::new(alert["account"].as_str().unwrap(), &alert.to_string()))
}

#[test]
fn a_listing_is_told_once_over_crashes_and_so_is_its_end() {
    let Some(broker) = Broker::shared() else { return };
    let runtime = Runtime::new().unwrap();
    let (good, refusing) = runtime.block_on(async { (zone("list.example.").await, zone("refusing.example.").await) });
    let entry = name::of("192.0.2.1".parse().unwrap(), "list.example");
    let (_server, resolver) = runtime.block_on(async {
        list(&good, "2.0.0.127.list.example.", [127, 0, 0, 2]).await;
        list(&good, &entry, [127, 0, 0, 3]).await;
        list(&refusing, "*.refusing.example.", [127, 255, 255, 254]).await;
        serve(&[("list.example.", &good), ("refusing.example.", &refusing)]).await
    });
    let mut d = Deployment::new(broker, "listing", 1);
    let (incident, record) = flag();
    broker.produce(&d.topic("alerts"), &[record]);

    // First without lists: the burst must be known before the listing is heard.
    let mut desk = d.start_desk("one");
    ready(&desk);
    wait_until("the incident is there", LIMIT, || desk.items("/v1/incidents").len() == 1);
    let (_, shown) = desk.json(&format!("/v1/incidents/{incident}"));
    assert_eq!(
        (&shown["moments"]["in_time"], &shown["incident"]["relays"][0]["recipients"]),
        (&json!("unknown"), &json!(44))
    );
    assert!(desk.terminate().success());

    configured(&mut d, resolver, 5000);
    desk = d.start_desk("one");
    wait_until("the listing is told", MINUTES, || said(&desk, "relay.listed").len() == 1);
    let listed = said(&desk, "relay.listed").remove(0);
    assert_eq!((&listed["relay"], &listed["accounts"][0]["incident"]), (&json!("out-1"), &json!(incident)), "{listed}");
    assert!(listed["evidence"][0]["text"].as_str().unwrap().contains("127.0.0.3: CSS"), "{listed}");
    wait_until("it stands", LIMIT, || desk.items("/v1/listings?standing=true").len() == 1);
    let listing = desk.items("/v1/listings?relay=out-1&zone=list.example").remove(0);
    assert_eq!((&listing["id"], listing.get("until")), (&listed["incident"], None), "{listing}");
    wait_until("the refusal is counted", MINUTES, || answers(&desk, "refusing.example", "refused") >= 1.0);
    wait_until("it is shown", LIMIT, || desk.metric("mailfuse_listings_standing", "list.example") == 1.0);
    assert_eq!(desk.metric("mailfuse_listings_total", "in_time=\"no\""), 1.0, "nothing was pulled");
    assert_eq!(desk.metric("mailfuse_after_first_spam_seconds_count", "listed"), 1.0);
    assert!(desk.items("/v1/measures?kind=pull").is_empty(), "a listing pulls nothing");

    // Were we in time? No.
    let (_, shown) = desk.json(&format!("/v1/incidents/{incident}"));
    let moments = &shown["moments"];
    assert_eq!((&moments["in_time"], &moments["relays"][0]["in_time"]), (&json!("no"), &json!("no")), "{moments}");
    let relay = &moments["relays"][0];
    assert_eq!((&relay["relay"], &relay["listings"][0]["since"]), (&json!("out-1"), &listed["ts"]), "{moments}");

    // The command shows it.
    let mut command = mailfuse();
    command.args(["relays", "listings", "--config"]).arg(&desk.config).args(["--at", &desk.http()]);
    let printed = command.output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(["out-1", "192.0.2.1", "list.example", "127.0.0.3 CSS"].iter().all(|w| printed.contains(w)), "{printed}");

    // Whoever is the desk next has heard it, too, and says nothing.
    desk.kill();
    desk = d.start_desk("one");
    ready(&desk);
    wait_until("it has asked again", MINUTES, || answers(&desk, "list.example", "listed") >= 1.0);
    wait_until("it is shown again", LIMIT, || desk.metric("mailfuse_listings_standing", "list.example") == 1.0);
    assert_eq!(said(&desk, "relay.listed").len(), 1);

    // A resolver that is silent ends nothing.
    desk.kill();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    configured(&mut d, silent.local_addr().unwrap(), 1000);
    desk = d.start_desk("one");
    let failures = |desk: &Instance| answers(desk, "list.example", "silent") + answers(desk, "list.example", "server");
    wait_until("the silence is counted", MINUTES, || failures(&desk) >= 1.0);
    ready(&desk);
    assert_eq!(desk.items("/v1/listings?standing=true").len(), 1);
    assert!(said(&desk, "relay.delisted").is_empty());

    // It is taken off the list.
    desk.kill();
    runtime.block_on(unlist(&good, &entry));
    configured(&mut d, resolver, 5000);
    desk = d.start_desk("one");
    wait_until("the end is told", MINUTES, || said(&desk, "relay.delisted").len() == 1);
    let delisted = said(&desk, "relay.delisted").remove(0);
    assert_eq!(delisted["incident"], listed["incident"], "{delisted}");
    wait_until("nothing stands", LIMIT, || desk.items("/v1/listings?standing=true").is_empty());
    assert_eq!((desk.items("/v1/listings?standing=false").len(), said(&desk, "relay.listed").len()), (1, 1));
    assert!(desk.terminate().success());
}
