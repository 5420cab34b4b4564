//! Whoever sends nonsense to the servers of `mailfuse run` (policy service, agent, HTTP) harms nobody: broken, endless, cut and
//! half requests from many connections at once, while somebody else is answered as ever.
//!
//! `MAILFUSE_CAMPAIGN=1 cargo test --release --test kafka fuzz:: -- --nocapture` does it for ten minutes each; `MAILFUSE_SEED` draws
//! other nonsense.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::hands_support::free_port;
use crate::run_support::{Broker, Deployment, Dice, Instance, LIMIT, is_campaign, seed, wait_until};

/// At once, at each server.
const ADVERSARIES: u64 = 12;
/// Bytes of one conversation, at most.
const BYTES_MAX: usize = 200_000;
/// More than the seats of all servers can hold in requests, and far less than what was sent to them.
const GROWTH_MAX: u64 = 64 << 20;

const POLICY: &str = "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=192.0.2.7\n\
    sender=ann@x.example\nrecipient=r@y.example\nsasl_username=ann@x.example\nsize=0\n\n";
const HTTP: [&str; 4] = [
    "GET /v1/maps/stopped HTTP/1.1\r\nHost: 127.0.0.1\r\nIf-None-Match: \"a\"\r\n\r\n",
    "HEAD /v1/maps/pulled HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/plain\r\n\r\n",
    "POST /v1/actions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 41\r\n\r\n\
     {\"action\":\"account_stopped\",\"account\":\"a\"}",
    "GET /v1/incidents?state=open&limit=2&before=7 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
];

/// What `/healthz` answers.
const WELL: &str = "HTTP/1.1 200 OK";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable";

/// What is sent: one or several requests, mostly broken somewhere.
fn nonsense(dice: &mut Dice, whole: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..=dice.below(4) {
        bytes.extend_from_slice(whole[dice.below(whole.len() as u64) as usize].as_bytes());
    }
    for _ in 0..dice.below(8) {
        let at = dice.below(bytes.len() as u64) as usize;
        match dice.below(7) {
            0 if at < bytes.len() => bytes[at] = dice.next() as u8,
            1 => bytes.truncate(at),
            2 => bytes.insert(at, *b"\n\r=\0:\xff /".get(dice.below(8) as usize).unwrap_or(&b'\n')),
            3 => {
                let until = at + dice.below((bytes.len() - at) as u64) as usize;
                bytes.extend_from_within(at..until);
            }
            4 => {
                let bits = dice.below(17);
                let n = dice.below(1 << bits) as usize;
                let what = dice.next() as u8;
                bytes.splice(at..at, std::iter::repeat_n(what, n));
            }
            5 => bytes = (0..dice.below(600)).map(|_| dice.next() as u8).collect(),
            _ => {
                let until = at + dice.below((bytes.len() - at) as u64) as usize;
                bytes.drain(at..until);
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

/// One conversation: in one piece or many, with or without its end, listening or not.
fn converse(dice: &mut Dice, address: SocketAddr, whole: &[&str]) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = stream.set_write_timeout(Some(Duration::from_secs(5)));
    let _ = stream.set_read_timeout(Some(Duration::from_millis(20 + dice.below(200))));
    let bytes = nonsense(dice, whole);
    let piece = if dice.below(2) == 0 { bytes.len().max(1) } else { 1 + dice.below(300) as usize };
    for part in bytes.chunks(piece) {
        if stream.write_all(part).is_err() {
            return;
        }
        if dice.below(50) == 0 {
            std::thread::sleep(Duration::from_millis(dice.below(30)));
        }
    }
    match dice.below(4) {
        0 => {}
        1 => drop(stream.shutdown(Shutdown::Write)),
        _ => {}
    }
    let mut some = [0; 4096];
    for _ in 0..dice.below(4) {
        if !matches!(stream.read(&mut some), Ok(1..)) {
            return;
        }
    }
}

/// The answer's first line; empty where there was none, as when all seats are taken.
fn asked(address: SocketAddr, question: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let _ = stream.set_read_timeout(Some(LIMIT));
    let mut answer = Vec::new();
    let mut some = [0; 512];
    if stream.write_all(question.as_bytes()).is_err() {
        return String::new();
    }
    while !answer.contains(&b'\n') {
        match stream.read(&mut some) {
            Ok(n @ 1..) => answer.extend_from_slice(&some[..n]),
            _ => return String::new(),
        }
    }
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().trim_end().to_owned()
}

/// Nonsense for so long, with somebody who asks properly, again and again, and is answered as ever. `/healthz` may say in between
/// that the instance is too busy.
fn storm(name: &str, instance: &Instance, address: SocketAddr, whole: &[&str], question: &str, wanted: &str) {
    const ENOUGH: u64 = 11;
    let length = Duration::from_secs(if is_campaign() { 600 } else { 3 });
    let (before, began) = (instance.resident(), Instant::now());
    let (conversations, stop, base) = (AtomicU64::new(0), AtomicBool::new(false), seed());
    let (mut answered, mut busy, mut most) = (0_u64, 0_u64, before);
    let mut last = began;
    std::thread::scope(|scope| {
        for n in 0..ADVERSARIES {
            let (conversations, stop) = (&conversations, &stop);
            scope.spawn(move || {
                let mut dice = Dice(base ^ (n << 32));
                while !stop.load(Ordering::Relaxed) {
                    converse(&mut dice, address, whole);
                    conversations.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let is_enough = |answered| answered >= ENOUGH && conversations.load(Ordering::Relaxed) >= ENOUGH;
        while began.elapsed() < length || !is_enough(answered) {
            let answer = asked(address, question);
            if answer == wanted {
                (answered, last) = (answered + 1, Instant::now());
            } else if wanted == WELL && answer == BUSY && last.elapsed() < LIMIT {
                busy += 1;
            } else {
                stop.store(true, Ordering::Relaxed);
                panic!("{name}: {answer:?}, not {wanted:?}, after {answered} answers, {busy} that it is busy");
            }
            if began.elapsed() > length + LIMIT {
                stop.store(true, Ordering::Relaxed);
                panic!("{name}: too little happened: {answered} answers, {conversations:?} conversations");
            }
            most = most.max(instance.resident());
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Relaxed);
    });
    eprintln!(
        "{name}: {} conversations in {} s, {answered} proper questions answered, {busy} that it is busy; memory {} MB before, \
         {} MB at most",
        conversations.load(Ordering::Relaxed),
        began.elapsed().as_secs(),
        before >> 20,
        most >> 20
    );
    assert!(most < before + GROWTH_MAX, "{name}: from {before} to {most} bytes");
}

#[test]
fn nonsense_at_every_server_harms_nobody() {
    let Some(broker) = Broker::shared() else { return };
    let mut d = Deployment::new(broker, "fuzz", 1);
    let free = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (policy, agent) = (free(), free());
    d.extra = format!(
        "[relays]\n[relays.policy]\nlisten = \"{policy}\"\n[relays.agent]\nlisten = \"{agent}\"\n\
         [[relays.pool]]\nname = \"p\"\nmember = [{{ relay = \"out-1\" }}]\n"
    );
    let mut instance = d.start("one");
    instance.await_ready();
    wait_until("the hands answer", LIMIT, || asked(agent, "out-1\n") == "ready");
    storm("policy service", &instance, policy, &[POLICY], POLICY, "action=DUNNO");
    storm("agent", &instance, agent, &["out-1\n", "out-2\r\n"], "out-1\n", "ready");
    let http: SocketAddr = instance.http().parse().unwrap();
    let health = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    storm("http", &instance, http, &HTTP, health, WELL);
    assert!(instance.is_running());
    assert!(!instance.log().contains("panicked"), "see its log");
    assert!(instance.terminate().success());
}
