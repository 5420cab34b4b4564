//! Runs the program as its user does: arguments, standard input, both outputs, exit status, peak memory, a time-out.

#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests that each need a part; a test may fail")]

pub mod story;

#[allow(unused_imports, reason = "as above")]
pub use crate::common::shared;

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// No run takes nearly this long, unless it hangs.
const TIME_OUT: Duration = Duration::from_secs(180);
/// Between two looks at the child's memory.
const LOOK: Duration = Duration::from_millis(2);

/// What a run left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The most memory that was resident, in MiB, as last seen before its end.
    pub peak_mib: f64,
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Self {
        self.status(0)
    }

    #[track_caller]
    pub fn status(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.stderr);
        self
    }

    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(self.stderr.contains(what), "{what:?} is not in {}", self.stderr);
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn alerts(&self) -> Vec<Value> {
        self.text().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

/// The program, with nothing of the environment that changes what it prints.
pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailfuse"));
    for name in ["MAILFUSE_LOG", "MAILFUSE_FINGERPRINT_KEY", "CLICOLOR_FORCE", "CLICOLOR", "NO_COLOR"] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub fn mailfuse(args: &[&str]) -> Ran {
    wait(command(args).spawn().unwrap())
}

/// Runs with standard input that `feed` writes.
pub fn mailfuse_fed(args: &[&str], feed: impl FnOnce(&mut ChildStdin) -> io::Result<()> + Send) -> Ran {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A child that ends early closes the pipe; its status and words then say what happened.
        scope.spawn(move || match feed(&mut stdin) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => panic!("{e}"),
            _ => {}
        });
        wait(child)
    })
}

pub fn wait(mut child: Child) -> Ran {
    let stdout = child.stdout.take().map(in_background);
    let stderr = child.stderr.take().map(in_background);
    let (started, mut peak_mib) = (Instant::now(), 0.0);
    let code = loop {
        peak_mib = resident_peak_mib(child.id()).unwrap_or(peak_mib);
        if let Some(status) = child.try_wait().unwrap() {
            break status.code().unwrap_or(-1);
        }
        if started.elapsed() > TIME_OUT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("still running after {TIME_OUT:?}");
        }
        std::thread::sleep(LOOK);
    };
    let all = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| reader.map(|r| r.join().unwrap()).unwrap_or_default();
    Ran { code, stdout: all(stdout), stderr: String::from_utf8(all(stderr)).unwrap(), peak_mib }
}

fn in_background(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// The kernel keeps the maximum itself, so that looking now and then misses only what the last moment added.
fn resident_peak_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

pub fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    text(&path)
}

pub fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// The accounts that became critical, in order.
pub fn critical(alerts: &[Value]) -> Vec<&str> {
    alerts
        .iter()
        .filter(|a| field(a, "severity") == "critical" && field(a, "kind") != "account.cleared")
        .map(|a| field(a, "account"))
        .collect()
}

/// A field of an alert, as text.
pub fn field<'a>(alert: &'a Value, name: &str) -> &'a str {
    alert[name].as_str().unwrap_or_else(|| panic!("{name} of {alert}"))
}
