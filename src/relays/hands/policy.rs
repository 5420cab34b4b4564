//! The policy service for Postfix: what becomes of the mail of a stopped or throttled account.
//!
//! Where there is nothing to say it says `DUNNO`; where it is in trouble it closes the connection, and Postfix goes on as its
//! `default_action` says.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::door::Open;
use super::request::{self, Request};
use super::settings::{Action, Policy};
use super::text;
use super::throttle::Throttle;
use super::trying::{Attempts, Trying};
use crate::core::beat;
use crate::directory::file::Held;
use crate::kafka::outlet::now_ms;
use crate::relays::board::Board;
use crate::relays::measure::{Kind, Measure, Mode};
use crate::telemetry::Metrics;

/// A request that has begun ends within this, and an answer is taken within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// Confirmations that wait to be fetched; further ones come again with the next refusal.
const CONFIRMED_MAX: usize = 1024;

/// A stop was seen to work: the account's mail was refused, held or sent elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// The measure's id.
    pub measure: String,
    /// The account as folded.
    pub account: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// What Postfix is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing.
    Dunno,
    /// Nothing, because of the mode.
    Withheld,
    /// What stopped accounts get.
    Stopped,
    /// The recipient has to wait.
    Throttled,
}

impl Answer {
    /// The word for it, for a metric.
    fn name(self) -> &'static str {
        match self {
            Self::Dunno => "dunno",
            Self::Withheld => "withheld",
            Self::Stopped => "stopped",
            Self::Throttled => "throttled",
        }
    }
}

/// What the connections share.
pub(super) struct Desk {
    settings: Policy,
    /// Whose names the accounts' aliases are looked up in; none where the instance has no directory.
    directory: OnceLock<Arc<Held>>,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
    throttle: Mutex<Throttle>,
    trying: Mutex<Trying>,
    /// The measures whose confirmation was put into the channel, by account, so that it is said once.
    confirmed: Mutex<hashbrown::HashMap<String, String>>,
    confirmations: (Sender<Confirmed>, Receiver<Confirmed>),
}

impl Desk {
    pub(super) fn new(settings: &Policy, board: Arc<Board>, metrics: Arc<Metrics>) -> Self {
        Self {
            settings: settings.clone(),
            directory: OnceLock::new(),
            board,
            metrics,
            throttle: Mutex::default(),
            trying: Mutex::default(),
            confirmed: Mutex::default(),
            confirmations: crossbeam_channel::bounded(CONFIRMED_MAX),
        }
    }

    pub(super) fn trying(&self) -> Vec<Attempts> {
        self.trying.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Those of them whose stop is in force; `None` before it is known what is.
    pub(super) fn still_trying(&self) -> Option<Vec<Attempts>> {
        let (all, now_ms) = (self.trying(), now_ms());
        self.board.look(|standing| {
            let is_stopped = |a: &Attempts| {
                standing.account(&a.account, self.settings.mode, now_ms).is_some_and(|measure| measure.id == a.measure)
            };
            all.into_iter().filter(is_stopped).collect()
        })
    }

    pub(super) fn confirmations(&self) -> &Receiver<Confirmed> {
        &self.confirmations.1
    }

    /// From now on a login by an alias is the account's.
    pub(super) fn use_directory(&self, directory: Arc<Held>) {
        // It is set once, at the start.
        let _ = self.directory.set(directory);
    }

    /// The account that a SASL name stands for.
    fn account(&self, sasl_username: &str) -> String {
        let mut account = sasl_username.to_ascii_lowercase();
        if !self.settings.default_domain.is_empty() && !account.contains('@') {
            account.push('@');
            account.push_str(&self.settings.default_domain.to_ascii_lowercase());
        }
        // As in the events that `mailfuse publish` makes.
        let of_alias = self.directory.get().and_then(|held| Some(held.directory().of_alias(&account)?.to_owned()));
        of_alias.unwrap_or(account)
    }

    /// What becomes of a request; `None` where nobody knows.
    fn decide(&self, request: &Request<'_>, now_ms: i64) -> Option<(Answer, Option<Arc<Measure>>)> {
        if request.sasl_username.is_empty() {
            return Some((Answer::Dunno, None));
        }
        let account = self.account(request.sasl_username);
        let (measure, known, withheld) = self.board.look(|standing| {
            let of = |mode| standing.account(&account, mode, now_ms);
            let measure = of(self.settings.mode);
            let known = measure.and_then(|m| standing.known(&m.id));
            (measure.cloned(), known.cloned(), measure.is_none() && of(Mode::Auto).is_some())
        })?;
        let none = if withheld { Answer::Withheld } else { Answer::Dunno };
        let Some(measure) = measure.filter(|_| !beat::is_beat(&account)) else { return Some((none, None)) };
        let answer = match measure.kind {
            Kind::Stop => Answer::Stopped,
            // Other stages than RCPT speak about no recipient.
            _ if request.recipient.is_empty() => Answer::Dunno,
            _ if known.is_some_and(|known| known.knows(request.recipient)) => Answer::Dunno,
            _ => {
                let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
                let an_hour = self.settings.throttle_recipients;
                if throttle.admits(&account, request.recipient, now_ms, an_hour) {
                    Answer::Dunno
                } else {
                    Answer::Throttled
                }
            }
        };
        Some((answer, Some(measure)))
    }

    /// A stop was served. What the desk knows already need not be said.
    fn served(&self, measure: &Measure, client: &str, now_ms: i64) {
        self.trying.lock().unwrap_or_else(PoisonError::into_inner).count(measure, client, now_ms);
        if measure.done_ms.is_some() {
            return;
        }
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        if confirmed.get(&measure.subject).is_some_and(|id| *id == measure.id) {
            return;
        }
        if confirmed.len() >= CONFIRMED_MAX {
            // Said twice does no harm.
            confirmed.clear();
        }
        let said = Confirmed { measure: measure.id.clone(), account: measure.subject.clone(), at_ms: now_ms };
        match self.confirmations.0.try_send(said) {
            Ok(()) => drop(confirmed.insert(measure.subject.clone(), measure.id.clone())),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

/// The line for Postfix, and the empty one.
fn line(settings: &Policy, answer: Answer, measure: Option<&Measure>) -> String {
    let filled = |template: &str| measure.map(|m| text::fill(template, m, &settings.contact)).unwrap_or_default();
    let action = match answer {
        Answer::Dunno | Answer::Withheld => "DUNNO".to_owned(),
        Answer::Stopped => stop_action(settings, &filled(&settings.text)),
        Answer::Throttled => format!("DEFER_IF_PERMIT 4.7.1 {}", filled(&settings.throttle_text)),
    };
    format!("action={action}\n\n")
}

/// What stopped mail meets, as an access table of Postfix says it. `text` is filled already.
fn stop_action(settings: &Policy, text: &str) -> String {
    match settings.action {
        Action::Defer => format!("DEFER_IF_PERMIT 4.7.1 {text}"),
        Action::Hold => format!("HOLD {text}"),
        Action::Reject => format!("REJECT 5.7.1 {text}"),
        Action::Filter => format!("FILTER {}", settings.filter),
    }
}

/// The same of a measure.
pub(super) fn action_of(settings: &Policy, measure: &Measure) -> String {
    stop_action(settings, &text::fill(&settings.text, measure, &settings.contact))
}

/// Serves until the runtime ends.
pub(super) async fn serve(open: Open, desk: Arc<Desk>) {
    loop {
        let (stream, seat) = open.accept().await;
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            desk.metrics.hands.policy_connections.inc();
            // However it ended, Postfix sees that the connection is closed.
            if converse(stream, &desk).await.is_none() {
                desk.metrics.hands.policy_broken.inc();
            }
            desk.metrics.hands.policy_connections.dec();
            drop(seat);
        });
    }
}

/// One connection, to its end; `None` where it is broken off.
async fn converse(mut stream: TcpStream, desk: &Desk) -> Option<()> {
    let mut bytes = Vec::with_capacity(2048);
    let idle = Duration::from_secs(desk.settings.idle_s.into());
    loop {
        // The first bytes may be long in coming, the others not.
        let mut patience = idle;
        let mut until = tokio::time::Instant::now() + idle;
        let (written, used) = loop {
            if let Some((request, used)) =
                request::parse(&bytes).inspect_err(|e| tracing::debug!("policy: {e}")).ok()?
            {
                break (answer(&request, desk)?, used);
            }
            if !bytes.is_empty() && patience != PATIENCE {
                patience = PATIENCE;
                until = tokio::time::Instant::now() + PATIENCE;
            }
            let n = tokio::time::timeout_at(until, stream.read_buf(&mut bytes)).await;
            match n {
                Ok(Ok(0)) => return bytes.is_empty().then_some(()),
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return None,
                Err(_) => return bytes.is_empty().then_some(()),
            }
        };
        bytes.drain(..used);
        timeout(PATIENCE, stream.write_all(&written)).await.ok()?.ok()?;
    }
}

/// What is written for a request, and counted.
fn answer(request: &Request<'_>, desk: &Desk) -> Option<Vec<u8>> {
    let begun = Instant::now();
    let now_ms = now_ms();
    let (answer, measure) = desk.decide(request, now_ms)?;
    let written = line(&desk.settings, answer, measure.as_deref()).into_bytes();
    if let (Answer::Stopped, Some(measure)) = (answer, &measure) {
        desk.served(measure, request.client_address, now_ms);
    }
    desk.metrics.hands.policy(answer.name(), begun.elapsed());
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relays::hands::tests::{board, measure};

    fn desk(settings: &Policy) -> Desk {
        let far = 4_000_000_000_000;
        let of = |id: &str, kind, account: &str| Measure { until_ms: far, ..measure(id, kind, account, 0) };
        let board = board([
            of("m-1", Kind::Stop, "ann@x.example"),
            of("m-2", Kind::Throttle, "tim@x.example"),
            of("m-3", Kind::Stop, "0@heartbeat.mailfuse.invalid"),
        ]);
        Desk::new(settings, board, Arc::new(Metrics::new()))
    }

    fn said(desk: &Desk, account: &str, recipient: &str) -> String {
        let request = Request { sasl_username: account, recipient, client_address: "192.0.2.7" };
        String::from_utf8(answer(&request, desk).unwrap()).unwrap()
    }

    #[test]
    fn a_stopped_account_gets_the_configured_action_and_nobody_else_does() {
        let settings = Policy { text: "{incident} {contact}".to_owned(), ..Policy::default() };
        let wanted = [
            (Action::Defer, "action=DEFER_IF_PERMIT 4.7.1 i-1 postmaster\n\n"),
            (Action::Hold, "action=HOLD i-1 postmaster\n\n"),
            (Action::Reject, "action=REJECT 5.7.1 i-1 postmaster\n\n"),
            (Action::Filter, "action=FILTER smtp:[192.0.2.9]\n\n"),
        ];
        for (action, line) in wanted {
            let desk = desk(&Policy { action, filter: "smtp:[192.0.2.9]".to_owned(), ..settings.clone() });
            assert_eq!(said(&desk, "Ann@X.example", "r@y"), line);
            for other in ["", "bob@x.example", "ann", "0@heartbeat.mailfuse.invalid"] {
                assert_eq!(said(&desk, other, "r@y"), "action=DUNNO\n\n", "{other}");
            }
        }
        let desk = desk(&Policy { default_domain: "X.example".to_owned(), ..settings });
        assert!(said(&desk, "ann", "r@y").starts_with("action=DEFER_IF_PERMIT"));
    }

    #[test]
    fn what_its_mode_withholds_is_let_through_and_counted_and_confirms_nothing() {
        for mode in [Mode::Shadow, Mode::Confirm] {
            let desk = desk(&Policy { mode, ..Policy::default() });
            assert_eq!(said(&desk, "ann@x.example", "r@y"), "action=DUNNO\n\n");
            assert!(desk.trying().is_empty() && desk.confirmations().is_empty());
            assert_eq!(desk.metrics.hands.policy_answered("withheld"), 1);
            assert_eq!(said(&desk, "0@heartbeat.mailfuse.invalid", "r@y"), "action=DUNNO\n\n");
        }
    }

    #[test]
    fn a_throttled_account_writes_to_so_many_and_the_others_wait() {
        let desk = desk(&Policy { throttle_recipients: 2, ..Policy::default() });
        assert_eq!(said(&desk, "tim@x.example", "a@y"), "action=DUNNO\n\n");
        assert_eq!(said(&desk, "tim@x.example", "b@y"), "action=DUNNO\n\n");
        assert!(
            said(&desk, "tim@x.example", "c@y").starts_with("action=DEFER_IF_PERMIT 4.7.1 tim@x.example writes to")
        );
        assert_eq!(said(&desk, "tim@x.example", ""), "action=DUNNO\n\n", "no recipient, no count");
        assert!(desk.trying().is_empty() && desk.confirmations().is_empty(), "it is not stopped");
    }

    #[test]
    fn a_stop_that_was_served_is_confirmed_once_and_every_attempt_is_counted() {
        let desk = desk(&Policy::default());
        for _ in 0..3 {
            said(&desk, "ann@x.example", "r@y");
        }
        let confirmed: Vec<_> = desk.confirmations().try_iter().map(|c| (c.measure, c.account)).collect();
        assert_eq!(confirmed, [("m-1".to_owned(), "ann@x.example".to_owned())]);
        assert_eq!((desk.trying()[0].refused, &*desk.trying()[0].client), (3, "192.0.2.7"));
    }

    #[test]
    fn who_logs_in_by_an_alias_is_the_account() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"v\":1,\"account\":\"ann@x.example\",\"aliases\":[\"a@x.example\"]}\n").unwrap();
        let held = Arc::new(Held::new(&file.path().display().to_string()));
        held.look();
        let desk = desk(&Policy::default());
        assert_eq!(said(&desk, "a@x.example", "r@y"), "action=DUNNO\n\n", "nobody knows whose it is");
        desk.use_directory(held);
        assert!(said(&desk, "A@x.example", "r@y").starts_with("action=DEFER_IF_PERMIT"));
        assert_eq!(desk.trying()[0].account, "ann@x.example");
        assert_eq!(said(&desk, "bob@x.example", "r@y"), "action=DUNNO\n\n");
    }

    #[test]
    fn before_all_has_been_read_nobody_is_answered() {
        let desk = Desk::new(&Policy::default(), Arc::default(), Arc::new(Metrics::new()));
        let request = Request { sasl_username: "ann@x.example", ..Request::default() };
        assert_eq!(answer(&request, &desk), None);
    }
}
