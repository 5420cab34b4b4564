//! The server of HAProxy's agent checks: `ready` or `drain` for the relay that is asked for.
//!
//! HAProxy connects, sends its `agent-send` string, which is the relay's name and an end of line, and reads one line. Whatever
//! else happens, a refused or a closed connection, leaves the relay as it was.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::door::Open;
use crate::kafka::outlet::now_ms;
use crate::relays::Settings;
use crate::relays::board::Board;
use crate::relays::measure::Mode;
use crate::telemetry::Metrics;

/// Bytes of a name with its end of line.
pub const LINE_BYTES_MAX: usize = 257;
/// HAProxy sends at once, and asks every few seconds.
const PATIENCE: Duration = Duration::from_secs(2);
/// Names that are none of ours are told once each, and no more than so many.
const STRANGERS_MAX: usize = 100;

/// What the connections share.
pub(super) struct Agent {
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    relays: HashSet<String>,
    mode: Mode,
    strangers: std::sync::Mutex<HashSet<String>>,
}

impl Agent {
    pub(super) fn new(settings: &Settings, board: Arc<Board>, metrics: Arc<Metrics>) -> Self {
        let relays = settings.members().map(|(_, member)| member.relay.clone()).collect();
        Self { board, metrics, relays, mode: settings.agent.mode, strangers: std::sync::Mutex::default() }
    }

    /// The line for a relay, and how it is counted; `None`: it is none of ours, or nobody knows.
    fn answer(&self, relay: &str, now_ms: i64) -> Option<(&'static str, &'static str)> {
        if !self.relays.contains(relay) {
            let mut strangers = self.strangers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if strangers.len() < STRANGERS_MAX && strangers.insert(relay.to_owned()) {
                tracing::warn!(
                    "relays.agent was asked for `{}`, which is no member of a pool: agent-send must be the relay's name and \\n",
                    relay.escape_debug()
                );
            }
            return None;
        }
        // Nothing but these two words: others would override HAProxy's own health checks.
        self.board.look(|standing| match standing.relay(relay, now_ms) {
            Some(pull) if pull.is_for(self.mode) => ("drain\n", "drain"),
            Some(_) => ("ready\n", "withheld"),
            None => ("ready\n", "ready"),
        })
    }
}

/// The name on the first line of `bytes`; `None`: its end has not come yet.
///
/// # Errors
/// Where it is too long, or no text.
#[allow(clippy::result_unit_err, reason = "there is nothing to tell a balancer")]
pub fn name(bytes: &[u8]) -> Result<Option<&str>, ()> {
    let Some(end) = memchr::memchr(b'\n', bytes) else {
        return if bytes.len() < LINE_BYTES_MAX { Ok(None) } else { Err(()) };
    };
    if end >= LINE_BYTES_MAX {
        return Err(());
    }
    std::str::from_utf8(&bytes[..end]).map(|name| Some(name.trim_ascii())).map_err(drop)
}

/// Serves until the runtime ends.
pub(super) async fn serve(open: Open, agent: Arc<Agent>) {
    loop {
        let (stream, seat) = open.accept().await;
        let agent = Arc::clone(&agent);
        tokio::spawn(async move {
            let answered = timeout(PATIENCE, converse(stream, &agent)).await.ok().flatten();
            agent.metrics.hands.agent(answered.unwrap_or("none"));
            drop(seat);
        });
    }
}

/// One connection, and how it is counted; `None` where it was not answered.
async fn converse(mut stream: TcpStream, agent: &Agent) -> Option<&'static str> {
    let mut bytes = Vec::with_capacity(LINE_BYTES_MAX);
    let (said, counted) = loop {
        if let Some(relay) = name(&bytes).ok()? {
            break agent.answer(relay, now_ms())?;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    stream.write_all(said.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()?;
    Some(counted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::hands::settings as hands;
    use crate::relays::hands::tests::{board, measure};
    use crate::relays::measure::Kind;
    use crate::relays::settings::{Member, Pool};
    use proptest::prelude::*;

    #[test]
    fn a_pulled_relay_drains_until_its_expiry_and_a_stranger_is_not_answered() {
        let member = |relay: &str| Member { relay: relay.to_owned(), ..Member::default() };
        let pool = Pool { name: "p".to_owned(), member: vec![member("out-1"), member("out-2")], ..Pool::default() };
        let settings = Settings { pool: vec![pool], ..Settings::default() };
        let board = board([measure("m-1", Kind::Pull, "out-1", 0), measure("m-2", Kind::Pull, "else", 0)]);
        let agent = Agent::new(&settings, Arc::clone(&board), Arc::new(Metrics::new()));
        assert_eq!(agent.answer("out-1", 599_999), Some(("drain\n", "drain")));
        assert_eq!(agent.answer("out-1", 600_000), Some(("ready\n", "ready")));
        assert_eq!(agent.answer("out-2", 0), Some(("ready\n", "ready")));
        assert_eq!(agent.answer("else", 0), None);
        for mode in [Mode::Shadow, Mode::Confirm] {
            let settings = Settings { agent: hands::Agent { mode, ..hands::Agent::default() }, ..settings.clone() };
            let agent = Agent::new(&settings, Arc::clone(&board), Arc::new(Metrics::new()));
            assert_eq!(agent.answer("out-1", 0), Some(("ready\n", "withheld")));
        }
        let unread = Agent::new(&settings, Arc::default(), Arc::new(Metrics::new()));
        assert_eq!(unread.answer("out-1", 0), None);
    }

    #[test]
    fn the_name_is_the_first_line() {
        assert_eq!(name(b"out-1\r\nmore"), Ok(Some("out-1")));
        assert_eq!(name(b"out-1"), Ok(None));
        assert_eq!(name(&[b'x'; LINE_BYTES_MAX]), Err(()));
        assert_eq!(name(b"\xff\n"), Err(()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_name_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(Some(name)) = name(&bytes) {
                prop_assert!(name.len() < LINE_BYTES_MAX && !name.contains('\n'));
            }
        }
    }
}
