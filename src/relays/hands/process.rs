//! A program that is run: no shell, bounded in time and output, with everything that it starts.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// Bytes of output that are kept; what comes after them is read and dropped.
pub const OUTPUT_BYTES_MAX: usize = 8 * 1024;
/// Output is waited for so long after the program's end: what it left running may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status.
    Exited(i32),
    /// By a signal.
    Killed,
    /// It took too long, and was killed.
    TimedOut,
    /// It could not be run.
    NotRun,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: Ended,
    /// The beginning of what it wrote to standard output and standard error; where it was not run: why.
    pub output: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Ended::Exited(status) => write!(f, "ended with status {status}")?,
            Ended::Killed => f.write_str("was killed by a signal")?,
            Ended::TimedOut => f.write_str("took too long and was killed")?,
            Ended::NotRun => f.write_str("could not be run")?,
        }
        if self.output.is_empty() { Ok(()) } else { write!(f, ": {}", self.output.trim_end()) }
    }
}

/// The process group of a program, killed when it goes out of scope: also where nobody waits any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Runs `command`, program and arguments, with `input` on its standard input, for `timeout` at most. Its environment holds
/// `PATH`, `LANG` and nothing of ours: secrets may stand there.
pub async fn run(command: &[String], input: &[u8], timeout: Duration) -> Outcome {
    let not_run = |why: String| Outcome { status: Ended::NotRun, output: why };
    let Some((program, arguments)) = command.split_first() else { return not_run("it has no name".to_owned()) };
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) => return not_run(format!("{program}: {e}")),
    };
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ended = tokio::time::timeout(timeout, converse(&mut child, input, &mut out, &mut err)).await;
    // What it left running ends with it.
    drop(group);
    let status = match ended {
        Ok(Ok(status)) => status.code().map_or(Ended::Killed, Ended::Exited),
        Ok(Err(e)) => return not_run(format!("{program}: {e}")),
        Err(_) => {
            let _ = child.wait().await;
            Ended::TimedOut
        }
    };
    out.extend(err);
    out.truncate(OUTPUT_BYTES_MAX);
    Outcome { status, output: String::from_utf8_lossy(&out).into_owned() }
}

/// Writes the input, keeps the output, until the program has ended.
async fn converse(
    child: &mut Child,
    input: &[u8],
    out: &mut Vec<u8>,
    err: &mut Vec<u8>,
) -> std::io::Result<std::process::ExitStatus> {
    let stdin = child.stdin.take();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Who does not read its input may have no need of it.
            let _ = stdin.write_all(input).await;
        }
    };
    let talk = async { tokio::join!(write, read(&mut stdout, out), read(&mut stderr, err)) };
    tokio::pin!(talk);
    let status = tokio::select! {
        status = child.wait() => status?,
        _ = &mut talk => return child.wait().await,
    };
    let _ = tokio::time::timeout(LAST_WORDS, talk).await;
    Ok(status)
}

async fn read(from: &mut Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(from) = from else { return };
    let mut some = [0; 4096];
    while let Ok(n) = from.read(&mut some).await {
        if n == 0 {
            return;
        }
        let room = OUTPUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&some[..n.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8], timeout: Duration) -> Outcome {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        runtime.block_on(run(&command, input, timeout))
    }

    #[test]
    fn what_a_program_reads_writes_and_ends_with_is_known() {
        let long = Duration::from_secs(60);
        let outcome = shell("read x; echo \"got $x\"; echo oops >&2; exit 75", b"hello\n", long);
        assert_eq!(outcome, Outcome { status: Ended::Exited(75), output: "got hello\noops\n".to_owned() });
        assert_eq!(shell("kill -9 $$", b"", long).status, Ended::Killed);
        // It reads nothing, and what it writes is more than is kept.
        let outcome = shell("yes | head -c 1000000", &[b'x'; 1 << 20], long);
        assert_eq!((outcome.status, outcome.output.len()), (Ended::Exited(0), OUTPUT_BYTES_MAX));
        // What it leaves running holds its output open, and is ended with it.
        assert_eq!(shell("sleep 100 & echo done", b"", long).output, "done\n");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let missing = runtime.block_on(run(&["/there/is/no/such".to_owned()], b"", long));
        assert!(missing.status == Ended::NotRun && missing.output.contains("/there/is/no/such"), "{missing}");
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; echo begun; wait", file.display());
        let outcome = shell(&script, b"", Duration::from_secs(3));
        assert_eq!(outcome.status, Ended::TimedOut);
        let child = std::fs::read_to_string(file).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        // A killed process whose parent is gone may be there as a zombie until somebody reaps it.
        let is_gone = || state().is_empty() || state().contains(") Z ");
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !is_gone() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(is_gone(), "{}", state());
    }
}
