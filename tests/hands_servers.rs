//! The servers of the hands over TCP: what they answer, what they refuse, their bounds. The load that one Postfix host makes is
//! measured with `MAILFUSE_CAMPAIGN=1 cargo test --release --test hands_servers load -- --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod hands_support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hands_support::{LIMIT, board, measure, read_all, wait_until};
use mailfuse::relays::hands::settings::{Agent, Policy};
use mailfuse::relays::measure::Kind;
use mailfuse::relays::settings::{Member, Pool};
use mailfuse::relays::{Board, Hands, Settings};
use mailfuse::telemetry::Metrics;

fn settings(connections_max: u32) -> Settings {
    let listen = "127.0.0.1:0".to_owned();
    let member = vec![Member { relay: "out-1".to_owned(), ..Member::default() }];
    Settings {
        pool: vec![Pool { name: "shared".to_owned(), member, ..Pool::default() }],
        policy: Policy { listen: listen.clone(), connections_max, ..Policy::default() },
        agent: Agent { listen, connections_max, ..Agent::default() },
        ..Settings::default()
    }
}

fn start(connections_max: u32) -> Hands {
    let board = board([measure("m-1", Kind::Stop, "ann@x.example"), measure("m-2", Kind::Pull, "out-1")]);
    let hands = Hands::with_board(&settings(connections_max), board, &Arc::new(Metrics::new())).unwrap();
    for address in [hands.policy_address().unwrap(), hands.agent_address().unwrap()] {
        wait_until("it listens", || TcpStream::connect(address).is_ok());
    }
    hands
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn request(account: &str) -> String {
    format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.7\nrecipient=r@y.example\n\
         sasl_username={account}\n\n"
    )
}

/// One answer.
fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\n\n") {
        let mut one = [0];
        assert_eq!(stream.read(&mut one).unwrap(), 1, "closed after {}", String::from_utf8_lossy(&bytes));
        bytes.push(one[0]);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn requests_are_answered_in_order_however_they_are_cut_and_nonsense_ends_the_connection() {
    let hands = start(16);
    let policy = hands.policy_address().unwrap();
    let mut stream = connect(policy);
    let both = request("ann@x.example") + &request("bob@x.example");
    for part in both.as_bytes().chunks(7) {
        stream.write_all(part).unwrap();
    }
    assert!(answer(&mut stream).starts_with("action=DEFER_IF_PERMIT 4.7.1 ann@x.example may not"));
    assert_eq!(answer(&mut stream), "action=DUNNO\n\n");
    for nonsense in ["GET / HTTP/1.1\r\n\r\n\n\n".to_owned(), "request=junk\n\n".to_owned(), "x".repeat(20_000)] {
        let mut stream = connect(policy);
        let _ = stream.write_all(nonsense.as_bytes());
        assert!(read_all(&mut stream).is_empty(), "{nonsense:.20}");
    }
    // The one from before goes on.
    stream.write_all(request("bob@x.example").as_bytes()).unwrap();
    assert_eq!(answer(&mut stream), "action=DUNNO\n\n");

    let agent = hands.agent_address().unwrap();
    for (said, wanted) in [("out-1\n", "drain\n"), ("out-2\n", ""), (&*"x".repeat(300), "")] {
        let mut stream = connect(agent);
        let _ = stream.write_all(said.as_bytes());
        assert_eq!(String::from_utf8(read_all(&mut stream)).unwrap(), wanted, "{said:.20}");
    }
    hands.stop();
}

#[test]
fn a_connection_too_many_is_closed_at_once_and_a_seat_that_is_left_is_given_again() {
    let hands = start(2);
    let policy = hands.policy_address().unwrap();
    // Those that looked whether it listens may still have their seats.
    let seated = || {
        let mut stream = connect(policy);
        let _ = stream.write_all(request("bob@x.example").as_bytes());
        let mut first = [0];
        matches!(stream.read(&mut first), Ok(1)).then_some(stream)
    };
    let mut seats = Vec::new();
    wait_until("two have a seat", || {
        seats.extend(seated());
        seats.len() == 2
    });
    assert!(seated().is_none());
    seats.pop();
    wait_until("a seat is free", || seated().is_some());
    hands.stop();
}

#[test]
fn nobody_can_connect_before_it_is_known_what_is_in_force() {
    let unread = Arc::<Board>::default();
    let hands = Hands::with_board(&settings(4), Arc::clone(&unread), &Arc::new(Metrics::new())).unwrap();
    let both = [hands.policy_address().unwrap(), hands.agent_address().unwrap()];
    assert!(both.iter().all(|address| TcpStream::connect(address).is_err()));
    unread.set_read();
    for address in both {
        wait_until("it listens", || TcpStream::connect(address).is_ok());
    }
    hands.stop();
}

#[test]
fn the_load_of_a_busy_host_is_answered() {
    let is_campaign = std::env::var_os("MAILFUSE_CAMPAIGN").is_some();
    let (clients, rate, requests) = (50_u32, 100_u32, if is_campaign { 2_000 } else { 40_u32 });
    let hands = start(64);
    let policy = hands.policy_address().unwrap();
    let begin = Instant::now() + Duration::from_millis(200);
    let workers: Vec<_> = (0..clients)
        .map(|n| {
            std::thread::spawn(move || {
                let mut stream = connect(policy);
                stream.set_nodelay(true).unwrap();
                let (mut took, mut some) = (Vec::new(), [0; 1024]);
                for i in 0..requests {
                    // Clients take turns.
                    let due = begin + Duration::from_secs(1) * i / rate + Duration::from_micros(200) * n;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let sent = Instant::now();
                    let account = if i % 10 == 0 { "ann@x.example".to_owned() } else { format!("user{n}@x.example") };
                    stream.write_all(request(&account).as_bytes()).unwrap();
                    let mut bytes = 0;
                    while !some[..bytes].ends_with(b"\n\n") {
                        let more = stream.read(&mut some[bytes..]).unwrap();
                        assert!(more > 0);
                        bytes += more;
                    }
                    assert_eq!(some.starts_with(b"action=DEFER"), i % 10 == 0);
                    took.push(sent.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took: Vec<Duration> = workers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    let all = begin.elapsed();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    eprintln!(
        "{} requests, {:.0} a second: median {:?}, p99 {:?}, p99.9 {:?}, worst {:?}",
        took.len(),
        took.len() as f64 / all.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    assert_eq!(hands.trying()[0].refused, u64::from(clients * requests / 10));
    hands.stop();
}
