//! Real mail programs for tests, out of Debian's packages (`ops/relays/programs`), and what they need around them.

#![allow(dead_code, reason = "shared by tests that each need a part")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // Clippy knows tests by their attribute, not the functions they share.

pub mod postfix;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailfuse::event::Timestamp;
use mailfuse::relays::Board;
use mailfuse::relays::measure::{Kind, Measure, State};

/// Nothing here takes nearly so long.
pub const LIMIT: Duration = Duration::from_secs(60);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/relays/programs");
const NOT_DEBIAN: i32 = 3;

/// A program of a package, unpacked.
#[derive(Debug, Clone)]
pub struct Program(pub PathBuf);

impl Program {
    /// Fetched once. `None` where this is no Debian, or we are not root, which Postfix and Exim want to be started by: the test
    /// returns, having said so. Under CI it fails.
    pub fn fetch(name: &str) -> Option<Self> {
        let is_ci = std::env::var("CI").as_deref() == Ok("true");
        let out = Command::new(SCRIPT).arg(name).stderr(Stdio::inherit()).output().unwrap();
        if out.status.code() == Some(NOT_DEBIAN) || !is_root() {
            assert!(!is_ci, "{name} is needed: this must be a Debian, and we must be root");
            eprintln!("skipped: {name} needs a Debian and root");
            return None;
        }
        assert!(out.status.success(), "ops/relays/programs {name} failed");
        Some(Self(PathBuf::from(String::from_utf8(out.stdout).unwrap().trim())))
    }

    /// Where its libraries are.
    pub fn libraries(&self) -> String {
        let lib = self.0.join("usr/lib");
        let of_machine = std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|e| e.path());
        let mut all: Vec<PathBuf> = of_machine.filter(|p| p.to_string_lossy().ends_with("-linux-gnu")).collect();
        all.extend([lib.join("postfix"), lib.join("dovecot")]);
        all.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":")
    }

    /// One of its commands, with its libraries.
    pub fn command(&self, path: &str) -> Command {
        let mut command = Command::new(self.0.join(path));
        command.env("LD_LIBRARY_PATH", self.libraries()).stdin(Stdio::null());
        command
    }
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").unwrap().lines().any(|l| l.starts_with("Uid:\t0\t0\t"))
}

/// A process that ends with the test, and all that it started.
pub struct Guard(pub Child);

impl Guard {
    pub fn start(command: &mut Command) -> Self {
        use std::os::unix::process::CommandExt as _;
        Self(command.process_group(0).spawn().unwrap())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

/// A port that nobody has, below those that the system gives to outgoing connections.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher as _, RandomState};
    for n in 0..1000_u64 {
        let port = 20_000 + (RandomState::new().hash_one(n) % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < until, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A measure in force, for long.
pub fn measure(id: &str, kind: Kind, subject: &str) -> Measure {
    Measure {
        v: 1,
        id: id.to_owned(),
        kind,
        subject: subject.to_owned(),
        tenant: String::new(),
        pool: String::new(),
        incident: "i-7".to_owned(),
        accounts: Vec::new(),
        state: State::InForce,
        ts: Timestamp(0),
        made_ms: 0,
        since_ms: Some(0),
        done_ms: None,
        confirmed_by: None,
        until_ms: 4_000_000_000_000,
        by: "mailfuse".to_owned(),
        why: String::new(),
        ended: None,
    }
}

/// A board that has been read.
pub fn board(measures: impl IntoIterator<Item = Measure>) -> Arc<Board> {
    let board = Board::default();
    board.change(|standing| measures.into_iter().for_each(|m| standing.take(m)));
    board.set_read();
    Arc::new(board)
}

/// Lines of the README that are indented within a list, from the one that begins with `first` to the end of their block.
pub fn readme(first: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let lines = text.lines().skip_while(|l| !l.strip_prefix("      ").is_some_and(|l| l.starts_with(first)));
    let block: Vec<&str> = lines.map_while(|l| l.strip_prefix("      ")).collect();
    assert!(!block.is_empty(), "README.md has no `{first}`");
    block.join("\n") + "\n"
}

/// A conversation in lines, such as SMTP.
pub struct Talk {
    stream: BufReader<TcpStream>,
}

impl Talk {
    pub fn to(address: impl Into<SocketAddr>) -> Self {
        let stream = TcpStream::connect(address.into()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a line, if any, and gives the last line of the answer.
    pub fn say(&mut self, line: &str) -> String {
        if !line.is_empty() {
            self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        }
        loop {
            let mut answer = String::new();
            let n = self.stream.read_line(&mut answer).unwrap();
            if n == 0 || answer.as_bytes().get(3) != Some(&b'-') {
                return answer.trim_end().to_owned();
            }
        }
    }
}

/// Dovecot's authentication protocol, as Postfix speaks it: lets everybody in, as who they say they are.
pub fn lets_everybody_in() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let cookie = "0".repeat(32);
                let hello =
                    format!("VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t{cookie}\nDONE\n");
                writer.write_all(hello.as_bytes()).unwrap();
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let mut words = line.split('\t');
                    if words.next() != Some("AUTH") {
                        continue;
                    }
                    let id = words.next().unwrap().to_owned();
                    let given = words.find_map(|w| w.strip_prefix("resp=")).unwrap();
                    use base64::Engine as _;
                    let plain = base64::engine::general_purpose::STANDARD.decode(given).unwrap();
                    let user = String::from_utf8(plain.split(|&b| b == 0).nth(1).unwrap().to_vec()).unwrap();
                    writer.write_all(format!("OK\t{id}\tuser={user}\n").as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

/// All that can be read until the end.
pub fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}
