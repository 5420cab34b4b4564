//! One `mailfuse run` or `mailfuse desk` as a process: killed, frozen, asked.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Clippy knows tests by their attribute, not the functions they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{LIMIT, mailfuse, wait_until};

/// Lines of its log that a failing test prints.
const LAST_LINES: usize = 80;

/// A process. It ends with its value; a test that fails prints what it said.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    pub config: PathBuf,
    log: PathBuf,
}

impl Instance {
    pub(super) fn start(role: &str, config: &Path, log: PathBuf, arguments: &[&str]) -> Instance {
        let file = fs::File::create(&log).unwrap();
        let mut command = mailfuse();
        command.args([role, "--config"]).arg(config).args(arguments).stdout(Stdio::null()).stderr(file);
        Instance { child: command.spawn().unwrap(), config: config.to_owned(), log }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Another signal, such as `STOP`. The shell sends it: the standard library cannot.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// It stands still, as on a machine that swaps; until [`Instance::thaw`].
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// SIGTERM, and its exit status.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended("it stops when asked")
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn ended(&mut self, what: &str) -> ExitStatus {
        let mut status = None;
        wait_until(what, LIMIT, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Memory that it has, in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    #[track_caller]
    pub fn await_log(&self, words: &str) {
        wait_until(&format!("the log says {words:?}"), LIMIT, || self.log().contains(words));
    }

    /// Its HTTP server's address, once it has one.
    #[track_caller]
    pub fn http(&self) -> String {
        self.await_log("http://");
        let log = self.log();
        let begin = log.find("http://").unwrap() + 7;
        log[begin..].split('/').next().unwrap().to_owned()
    }

    /// Status and body of a page, when there is one: asked again while its index is being made, and where it was too busy.
    #[track_caller]
    pub fn get(&self, path: &str) -> (u16, String) {
        let (mut answer, mut is_made) = ((0, String::new()), false);
        wait_until(&format!("{path} is answered"), LIMIT, || {
            let Some(came) = self.get_once(path) else { return false };
            answer = came;
            let is_away = answer.0 == 503;
            is_made |= is_away && answer.1.contains("is being made from the topics");
            !is_away || !is_made && !answer.1.contains("no answer within")
        });
        answer
    }

    /// `None` where no answer came, or half of one.
    fn get_once(&self, path: &str) -> Option<(u16, String)> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .build()
            .into();
        let mut answer = agent.get(format!("http://{}{path}", self.http())).call().ok()?;
        Some((answer.status().as_u16(), answer.body_mut().read_to_string().ok()?))
    }

    pub fn json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path);
        (status, serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}")))
    }

    /// What a page lists.
    #[track_caller]
    pub fn items(&self, path: &str) -> Vec<Value> {
        let (status, page) = self.json(path);
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().clone()
    }

    /// Status and answer of a request with a body.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(LIMIT)).build().into();
        let request = axum::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.http()))
            .header("content-type", "application/json")
            .body(body.to_string());
        let mut answer = agent.run(request.unwrap()).unwrap();
        let (status, text) = (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap());
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}: {text}")))
    }

    /// The partitions that it has; none while it is too busy to say so.
    pub fn partitions(&self) -> Vec<i64> {
        let (_, status) = self.json("/v1/status");
        let all = status["partitions"].as_array().into_iter().flatten();
        all.map(|p| p["partition"].as_i64().unwrap()).collect()
    }

    #[track_caller]
    pub fn await_ready(&self) {
        wait_until("/readyz answers 200", LIMIT, || self.get("/readyz").0 == 200);
    }

    /// The sum of a metric's values whose line has these words.
    pub fn metric(&self, name: &str, words: &str) -> f64 {
        let (_, text) = self.get("/metrics");
        let lines = text
            .lines()
            .filter(|l| l.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && l.contains(words));
        lines.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let from = lines.len().saturating_sub(LAST_LINES);
            eprintln!("--- {}\n{}\n---", self.log.display(), lines[from..].join("\n"));
        }
    }
}
