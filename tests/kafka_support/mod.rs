//! A real Kafka broker for tests, through `ops/kafka/broker`: one for all tests of a binary, or one of a test's own that can
//! be stopped and started again. Each test uses topics and groups of its own (`unique`).

#![allow(dead_code, unused_imports, reason = "shared by tests that each need a part")]
#![allow(clippy::unwrap_used, clippy::expect_used)] // Clippy knows tests by their attribute, not the functions they share.

mod records;
mod turns;

pub use records::{Record, produce_with};
pub use turns::{alone, beside_others};

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ops/kafka/broker");
/// The script has limits of its own, which come first: they name what was slow.
const SCRIPT_S: u64 = 900;
const NO_JAVA: i32 = 3;

/// A broker, and the means to end it.
pub struct Broker {
    /// Where clients that need no password connect, `host:port`.
    pub address: String,
    /// Where clients connect with TLS and a password, if it was started with `--sasl`.
    pub sasl_address: Option<String>,
    /// `None`: somebody else's.
    own: Option<Own>,
}

struct Own {
    data: PathBuf,
    options: Vec<String>,
    /// The script that keeps the broker for as long as its standard input is open: it ends with this process, however that
    /// ends. `None` while the broker is stopped.
    guard: Mutex<Option<Child>>,
}

impl Broker {
    /// The broker that all tests of this binary share; `MAILFUSE_TEST_KAFKA=host:port` makes it one that runs already.
    /// `None` where there is no Java or no Maven: the test returns, having said so. Under CI it fails.
    pub fn shared() -> Option<&'static Broker> {
        static SHARED: OnceLock<Option<Broker>> = OnceLock::new();
        beside_others();
        let shared = SHARED.get_or_init(|| match std::env::var("MAILFUSE_TEST_KAFKA") {
            Ok(address) => Some(Broker { address, sasl_address: None, own: None }),
            Err(_) => Broker::own(),
        });
        if shared.is_none() {
            skipped();
        }
        shared.as_ref()
    }

    /// A broker of the test's own, which may be stopped and started again.
    pub fn own() -> Option<Broker> {
        Broker::with(&[])
    }

    /// The same with options of `broker start`, such as `--set`, `KEY=VALUE`.
    pub fn with(options: &[&str]) -> Option<Broker> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        beside_others();
        let name = format!("kafka-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let options: Vec<String> = options.iter().map(|&o| o.to_owned()).collect();
        let Some((guard, lines)) = launch(&data, &options) else {
            skipped();
            return None;
        };
        let mut lines = lines.into_iter();
        Some(Broker {
            address: lines.next().unwrap(),
            sasl_address: lines.next(),
            own: Some(Own { data, options, guard: Mutex::new(Some(guard)) }),
        })
    }

    /// Stops it in order, and keeps its data.
    pub fn stop(&self) {
        self.end("stop");
    }

    /// Stops it as a crash would, and keeps its data.
    pub fn kill(&self) {
        self.end("kill");
    }

    /// Starts it again, with the same address and data.
    pub fn start(&self) {
        let own = self.own.as_ref().expect("a test may not start somebody else's broker");
        let mut guard = own.guard.lock().unwrap();
        assert!(guard.is_none(), "the broker runs already");
        let (child, lines) = launch(&own.data, &own.options).expect("Java was there a moment ago");
        assert_eq!(lines[0], self.address);
        *guard = Some(child);
    }

    /// Runs a command of Kafka's own against it, such as `AclCommand`.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(SCRIPT);
        command.args(["tool", class, "--bootstrap-server", &self.address]).args(arguments);
        let out = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{class} {arguments:?}: {said}");
        said
    }

    fn end(&self, word: &str) {
        let own = self.own.as_ref().expect("a test may not stop somebody else's broker");
        let mut child = own.guard.lock().unwrap().take().expect("the broker is stopped already");
        writeln!(child.stdin.take().unwrap(), "{word}").unwrap();
        wait_until("the broker has ended", Duration::from_secs(60), || child.try_wait().unwrap().is_some());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Without a word the guard removes the data as well. It is waited for, so that nobody finds its folder half gone.
        let Some(own) = &self.own else { return };
        match own.guard.lock().ok().and_then(|mut guard| guard.take()) {
            Some(mut child) => {
                drop(child.stdin.take());
                let _ = child.wait();
            }
            None => drop(std::fs::remove_dir_all(&own.data)),
        }
    }
}

/// Runs the script until it says that the broker answers. `None`: there is no Java or no Maven.
fn launch(data: &std::path::Path, options: &[String]) -> Option<(Child, Vec<String>)> {
    let mut child = Command::new(SCRIPT)
        .args(["start", "--temporary", "--data"])
        .arg(data)
        .args(options)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ops/kafka/broker needs python3");
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let wanted = if options.iter().any(|o| o == "--sasl") { 2 } else { 1 };
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(stdout.lines().take(wanted).map_while(Result::ok).collect::<Vec<_>>()));
    let lines = receiver.recv_timeout(Duration::from_secs(SCRIPT_S));
    let lines = lines.unwrap_or_else(|_| panic!("ops/kafka/broker said nothing for {SCRIPT_S} s"));
    if lines.len() == wanted {
        return Some((child, lines));
    }
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(NO_JAVA), "ops/kafka/broker failed, see above ({status})");
    None
}

fn skipped() {
    assert!(std::env::var_os("CI").is_none(), "there is no Kafka broker to test with, see above");
    eprintln!(
        "SKIPPED: {} needs a Kafka broker. Install Java 17 and Maven, or set MAILFUSE_TEST_KAFKA=host:port.",
        thread::current().name().unwrap_or("this test")
    );
}

/// A name that no other test has, nor an earlier run on somebody's own broker.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let started = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    format!("{name}-{started}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until something is so, and fails by its name if it never is.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < limit, "after {} s it is still not so that {what}", limit.as_secs());
        thread::sleep(Duration::from_millis(20));
    }
}
