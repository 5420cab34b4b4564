//! The hands: what stops an account and pulls a relay outside of mailfuse. Each is optional, and each answers from the
//! [`Board`], so that every instance gives the same answers, whichever is the active desk.
//!
//! `policy` answers Postfix, [`agent`] HAProxy; `lists` and `files` are for everybody else. [`hook`] runs programs and
//! posts, on the active desk alone. Before it is known what is in force nothing is answered: mail goes through, relays stay as they are.

pub mod agent;
pub mod callee;
mod confirm;
mod door;
mod files;
pub mod hook;
mod lists;
mod policy;
pub mod process;
pub mod request;
pub mod settings;
mod text;
mod throttle;
mod trying;

pub use policy::Confirmed;
pub use trying::Attempts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use crossbeam_channel::Receiver;

use super::board::Board;
use super::measure::Mode;
use super::{Settings, follow};
use crate::core::fingerprint::Fingerprint;
use crate::directory::file::Held;
use crate::kafka::Kafka;
use crate::telemetry::Metrics;
use agent::Agent;
use door::Closed;

/// Time for the threads to end.
const STOP: Duration = Duration::from_secs(2);

/// The hands of one instance.
pub struct Hands {
    board: Arc<Board>,
    desk: Arc<policy::Desk>,
    maps: Mode,
    metrics: Arc<Metrics>,
    policy_address: Option<SocketAddr>,
    agent_address: Option<SocketAddr>,
    runtime: tokio::runtime::Runtime,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hands {
    /// Begins: takes the addresses, follows the desk topic of `kafka`, and answers as soon as that has been read once. What the
    /// policy service has served is told to the active desk. `prints`: of the key that all instances have.
    ///
    /// # Errors
    /// Where an address is taken, or the system gives no thread.
    pub fn start(
        settings: &Settings,
        kafka: &Kafka,
        prints: Fingerprint,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Self> {
        let board = Arc::<Board>::default();
        let mut hands = Self::with_board(settings, Arc::clone(&board), metrics)?;
        let kafka = kafka.clone();
        let (theirs, metrics, stopping) = (kafka.clone(), Arc::clone(metrics), Arc::clone(&hands.stopping));
        let follow = move || follow::run(&theirs, &prints, &board, &metrics, &stopping);
        let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
        hands.threads.push(thread("relays-follow").spawn(follow)?);
        if hands.policy_address.is_some() {
            let (confirmed, stopping) = (hands.confirmations(), Arc::clone(&hands.stopping));
            hands.threads.push(thread("relays-confirm").spawn(move || confirm::run(&kafka, &confirmed, &stopping))?);
        }
        Ok(hands)
    }

    /// The same from a board that somebody else fills.
    ///
    /// # Errors
    /// Where an address is taken, or the system gives no thread.
    pub fn with_board(settings: &Settings, board: Arc<Board>, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(8)
            .thread_name("hands")
            .enable_all()
            .build()?;
        let desk = Arc::new(policy::Desk::new(&settings.policy, Arc::clone(&board), Arc::clone(metrics)));
        let (mut policy_address, mut agent_address) = (None, None);
        let entered = runtime.enter();
        if let Some(address) = settings.policy.address()? {
            let closed = Closed::new("relays.policy", address, settings.policy.connections_max)?;
            policy_address = Some(closed.address());
            let (board, desk) = (Arc::clone(&board), Arc::clone(&desk));
            runtime.spawn(async move { policy::serve(closed.open(&board).await, desk).await });
        }
        if let Some(address) = settings.agent.address()? {
            let closed = Closed::new("relays.agent", address, settings.agent.connections_max)?;
            agent_address = Some(closed.address());
            let agent = Arc::new(Agent::new(settings, Arc::clone(&board), Arc::clone(metrics)));
            let board = Arc::clone(&board);
            runtime.spawn(async move { agent::serve(closed.open(&board).await, agent).await });
        }
        for list in &settings.file {
            let kept = files::keep(list.clone(), settings.policy.clone(), Arc::clone(&board), Arc::clone(metrics));
            runtime.spawn(kept);
        }
        drop(entered);
        let stopping = Arc::new(AtomicBool::new(false));
        Ok(Self {
            board,
            desk,
            maps: settings.maps.mode,
            metrics: Arc::clone(metrics),
            policy_address,
            agent_address,
            runtime,
            stopping,
            threads: Vec::new(),
        })
    }

    /// Takes a login by an alias of the directory for the account's own.
    pub fn use_directory(&self, directory: Arc<Held>) {
        self.desk.use_directory(directory);
    }

    /// What the hands answer from.
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Where the policy service listens.
    pub fn policy_address(&self) -> Option<SocketAddr> {
        self.policy_address
    }

    /// Where the server of agent checks listens.
    pub fn agent_address(&self) -> Option<SocketAddr> {
        self.agent_address
    }

    /// Stopped accounts that still try to send, at this instance, the last to try first.
    pub fn trying(&self) -> Vec<Attempts> {
        self.desk.trying()
    }

    /// Stops that were seen to work at this instance, each once; a further time where nobody fetches them for long. Each is
    /// given to one receiver only: of [`Hands::start`] that is who tells the desk.
    pub fn confirmations(&self) -> Receiver<Confirmed> {
        self.desk.confirmations().clone()
    }

    /// The pages of the HTTP server: the maps, and who still tries.
    pub fn router(&self) -> Router {
        let maps = lists::router(Arc::clone(&self.board), self.maps, Arc::clone(&self.metrics));
        maps.merge(trying::router(Arc::clone(&self.desk)))
    }

    /// Whether a thread of it has ended, which none does before it is told to.
    pub fn is_broken(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Ends all connections, and what is being run.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        let deadline = Instant::now() + STOP;
        while !self.threads.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}

impl std::fmt::Debug for Hands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands")
            .field("policy", &self.policy_address)
            .field("agent", &self.agent_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::relays::measure::{Kind, Measure, State};

    /// A measure in force from `made_ms` on, for ten minutes.
    pub(crate) fn measure(id: &str, kind: Kind, subject: &str, made_ms: i64) -> Measure {
        Measure {
            v: 1,
            id: id.to_owned(),
            kind,
            subject: subject.to_owned(),
            tenant: String::new(),
            pool: String::new(),
            incident: "i-1".to_owned(),
            accounts: Vec::new(),
            state: State::InForce,
            ts: Timestamp(made_ms),
            made_ms,
            since_ms: Some(made_ms),
            done_ms: None,
            confirmed_by: None,
            until_ms: made_ms + 600_000,
            by: "mailfuse".to_owned(),
            why: String::new(),
            ended: None,
        }
    }

    /// A board that has been read.
    pub(in crate::relays) fn board(measures: impl IntoIterator<Item = Measure>) -> Arc<Board> {
        let board = Board::default();
        board.change(|standing| measures.into_iter().for_each(|m| standing.take(m)));
        board.set_read();
        Arc::new(board)
    }
}
