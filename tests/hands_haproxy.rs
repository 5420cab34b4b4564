//! A real HAProxy that asks our agent, with the backend that the README has: a pull drains, a restore brings back, and while
//! nobody answers everything stays as it was.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

mod hands_support;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use hands_support::{Guard, Program, board, free_port, measure, readme, wait_until};
use mailfuse::relays::hands::settings::Agent;
use mailfuse::relays::measure::Kind;
use mailfuse::relays::settings::{Member, Pool};
use mailfuse::relays::{Board, Hands, Settings};
use mailfuse::telemetry::Metrics;

struct Haproxy {
    folder: tempfile::TempDir,
    _process: Guard,
}

impl Haproxy {
    /// With the README's backend, for an agent at this port and relays at the other.
    fn start(program: &Program, agent: u16, relays: u16) -> Self {
        let folder = tempfile::Builder::new().prefix("mf-ha-").tempdir_in("/tmp").unwrap();
        let backend = readme("backend relays");
        assert!(
            backend.contains("agent-port 10041")
                && backend.contains("192.0.2.1:25")
                && backend.contains("agent-inter 2s")
        );
        let backend = backend
            .replace("10041", &agent.to_string())
            .replace("192.0.2.1:25", &format!("127.0.0.1:{relays}"))
            .replace("192.0.2.2:25", &format!("127.0.0.1:{relays}"))
            .replace("agent-inter 2s", "agent-inter 200ms inter 200ms");
        let config = format!(
            "global\n    stats socket {}/socket level admin\ndefaults\n    timeout connect 2s\n    timeout client 5s\n    \
             timeout server 5s\nfrontend in\n    mode tcp\n    bind 127.0.0.1:{}\n    default_backend relays\n{backend}",
            folder.path().display(),
            free_port()
        );
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, config).unwrap();
        let process = Guard::start(program.command("usr/sbin/haproxy").arg("-db").arg("-f").arg(file));
        let haproxy = Self { folder, _process: process };
        wait_until("HAProxy answers", || haproxy.socket().exists() && UnixStream::connect(haproxy.socket()).is_ok());
        haproxy
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn ask(&self, what: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        writeln!(stream, "{what}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A column of `show stat` for a relay.
    fn column(&self, relay: &str, name: &str) -> String {
        let table = self.ask("show stat");
        let mut lines = table.lines().map(|l| l.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let at = lines.next().unwrap().iter().position(|n| *n == name).unwrap();
        lines.find(|l| l[..2] == ["relays", relay]).unwrap()[at].to_owned()
    }

    fn status(&self, relay: &str) -> String {
        self.column(relay, "status")
    }
}

#[test]
fn a_pull_drains_a_restore_brings_back_and_silence_changes_nothing() {
    let Some(program) = Program::fetch("haproxy") else { return };
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let relays = relay.local_addr().unwrap().port();
    std::thread::spawn(move || relay.incoming().for_each(drop));
    let member = |relay: &str| Member { relay: relay.to_owned(), ..Member::default() };
    let pool = Pool { name: "shared".to_owned(), member: vec![member("out-1"), member("out-2")], ..Pool::default() };
    let port = free_port();
    let agent = Agent { listen: format!("127.0.0.1:{port}"), ..Agent::default() };
    let settings = Settings { pool: vec![pool], agent, ..Settings::default() };
    let start =
        |board: &Arc<Board>| Hands::with_board(&settings, Arc::clone(board), &Arc::new(Metrics::new())).unwrap();

    let unread = Arc::<Board>::default();
    unread.change(|standing| standing.take(measure("m-1", Kind::Pull, "out-1")));
    let hands = start(&unread);
    let haproxy = Haproxy::start(&program, port, relays);
    wait_until("both are up", || ["out-1", "out-2"].iter().all(|r| haproxy.status(r) == "UP"));
    wait_until("the agent was asked in vain", || haproxy.column("out-1", "agent_status") == "L4CON");
    assert_eq!(haproxy.status("out-1"), "UP", "it is not known yet what is in force");

    unread.set_read();
    wait_until("it drains", || haproxy.status("out-1").starts_with("DRAIN"));
    assert_eq!(haproxy.status("out-2"), "UP");

    // The detector is gone: it stays pulled.
    hands.stop();
    wait_until("the agent was asked in vain", || haproxy.column("out-1", "agent_status") == "L4CON");
    assert!(haproxy.status("out-1").starts_with("DRAIN"), "{}", haproxy.status("out-1"));

    // It comes back, and says the same as before.
    let pulled = board([measure("m-1", Kind::Pull, "out-1")]);
    let hands = start(&pulled);
    wait_until("the agent is asked again", || haproxy.column("out-1", "agent_status") == "CHECKED");
    assert!(haproxy.status("out-1").starts_with("DRAIN"));
    pulled.change(|standing| standing.forget("m-1"));
    wait_until("it is back", || haproxy.status("out-1") == "UP");

    // What the README warns of: `ready` undoes a drain by hand, unless the agent is switched off first.
    haproxy.ask("set server relays/out-2 state drain");
    wait_until("the agent undoes it", || haproxy.status("out-2") == "UP");
    haproxy.ask("disable agent relays/out-2");
    haproxy.ask("set server relays/out-2 state drain");
    pulled.change(|standing| standing.take(measure("m-2", Kind::Pull, "out-1")));
    wait_until("the other one drains", || haproxy.status("out-1").starts_with("DRAIN"));
    assert!(haproxy.status("out-2").starts_with("DRAIN"), "{}", haproxy.status("out-2"));
    hands.stop();
}
