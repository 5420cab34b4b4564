//! `mailfuse run`: the consumer that never forgets and never loses.
//!
//! Threads, each with one loop: `poll` reads and answers the group, the `worker`s detect, the `checkpointer` stores, the
//! `restorer`s bring partitions back, one follows the control topic. [`Shared`] is what they know together, `orders` what they say
//! to each other.

mod acquainted;
mod batch;
mod checkpointer;
mod held;
mod lag;
mod lease;
mod live;
mod one;
mod orders;
mod poison;
mod poll;
mod reload;
mod restorer;
pub mod settings;
pub mod shared;
mod worker;

pub use settings::{Http, Run};

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use crossbeam_channel::Sender;

use crate::config::Config;
use crate::core::fingerprint::Fingerprint;
use crate::desk::{self, Desk};
use crate::kafka::Kafka;
use crate::kafka::outlet::Outlet;
use crate::kafka::restore::{Allowed, Reader};
use crate::relays::Hands;
use crate::telemetry::{self, Access, Metrics};
use orders::Order;
use poll::{Lane, Poll};
use shared::{Epoch, Parts, Shared};
use worker::Worker;

/// Batches that wait for a worker.
const BATCHES: usize = 64;
/// Restoring threads. A restore mostly waits: for the brokers to end what the old owner had begun, and for what is fetched.
const RESTORERS: usize = 6;
/// Time that closing takes at most, beside the drain.
const CLOSE: Duration = Duration::from_secs(10);

/// What an instance is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Where it came from, to be read again at a reload.
    pub path: Option<PathBuf>,
    /// What the operator has allowed.
    pub allowed: Allowed,
    /// Nothing is stored: for a broker that has no transactions.
    pub is_stateless: bool,
}

/// A running instance.
pub struct Instance {
    shared: Arc<Shared>,
    options: Options,
    poll: JoinHandle<()>,
    workers: Vec<JoinHandle<()>>,
    helpers: Vec<JoinHandle<()>>,
    desk: Option<Desk>,
    hands: Option<Hands>,
    runtime: tokio::runtime::Runtime,
    http_stop: tokio::sync::watch::Sender<bool>,
    http_address: Option<std::net::SocketAddr>,
    http_access: Option<Arc<Access>>,
}

/// What the configuration says to the threads.
fn epoch(config: &Config) -> anyhow::Result<Epoch> {
    let key = config.fingerprint_key()?;
    Ok(Epoch {
        policy: Arc::new(config.policy(key)?),
        limits: config.events.clone(),
        run: config.run.clone(),
        digest: config.digest(),
    })
}

/// Another number of partitions than before.
fn more_partitions(kafka: &Kafka, ours: i32, theirs: i32) -> anyhow::Error {
    anyhow!(
        "{} has {theirs} partitions now, it had {ours}: accounts have moved. Stop all instances, `mailfuse state export FILE`, make {} \
         anew with as many partitions, then `mailfuse state import FILE`",
        kafka.topics.events,
        kafka.topics.state
    )
}

/// Looks whether everything is there, and how many partitions there are.
fn preflight(kafka: &Kafka, is_stateless: bool) -> anyhow::Result<i32> {
    let reader = Reader::new(kafka)?;
    let t = &kafka.topics;
    let events = reader.partitions(&t.events)?;
    reader.partitions(&t.alerts)?;
    reader.partitions(&t.rejects)?;
    if is_stateless {
        return Ok(events);
    }
    let state = reader.partitions(&t.state)?;
    if state != events {
        return Err(anyhow!(
            "{} has {events} partitions, {} has {state}; they must be as many. `mailfuse topics check` says more; where the events \
             were repartitioned: stop all instances, `mailfuse state export FILE`, make {} anew, then `mailfuse state import FILE`",
            t.events,
            t.state,
            t.state
        ));
    }
    for topic in [&t.control, &t.signals] {
        let partitions = reader.partitions(topic)?;
        if partitions != 1 {
            return Err(anyhow!(
                "{topic} has {partitions} partitions, it must have one: `mailfuse topics check` says more"
            ));
        }
    }
    Ok(events)
}

impl Instance {
    /// Connects, and begins to read.
    ///
    /// # Errors
    /// Where the brokers do not answer, a topic is missing, or the HTTP address is taken; each says what to do.
    pub fn start(options: Options) -> anyhow::Result<Self> {
        let config = &options.config;
        let epoch = epoch(config)?;
        let listener = match config.http.address()? {
            Some(address) => Some(std::net::TcpListener::bind(address).with_context(|| {
                format!("http.listen {address}: cannot be listened on; is another instance running?")
            })?),
            None => None,
        };
        let http_address = listener.as_ref().and_then(|l| l.local_addr().ok());
        let partitions = preflight(&config.kafka, options.is_stateless)?;
        let metrics = Arc::new(Metrics::new());
        metrics.config(&epoch.digest);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = if epoch.run.workers == 0 { cores } else { epoch.run.workers }.min(partitions as usize).max(1);

        let (poll_orders, poll_inbox) = crossbeam_channel::unbounded();
        let (restore_orders, restore_inbox) = crossbeam_channel::unbounded();
        let (jobs, jobs_inbox) = crossbeam_channel::unbounded();
        let (orders, inboxes): (Vec<Sender<Order>>, Vec<_>) =
            (0..count).map(|_| crossbeam_channel::unbounded()).unzip();
        let shared = Arc::new(Shared::new(Parts {
            kafka: config.kafka.clone(),
            partitions,
            allowed: options.allowed,
            metrics: Arc::clone(&metrics),
            outlet: Outlet::new(&config.kafka, Arc::clone(&metrics))?,
            is_stateless: options.is_stateless,
            workers: orders.clone(),
            poll: poll_orders,
            restorers: restore_orders,
            checkpointer: jobs,
            epoch,
        }));
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            config = shared.epoch().digest,
            brokers = config.kafka.bootstrap_servers,
            events = config.kafka.topics.events,
            partitions,
            workers = count,
            "starting"
        );

        let mut helpers = Vec::new();
        if !options.is_stateless {
            helpers.push(spawn("control", &shared, follow_control)?);
            await_control(&shared)?;
        }
        let (mut lanes, mut workers) = (Vec::new(), Vec::new());
        for (n, inbox) in inboxes.into_iter().enumerate() {
            let (full, filled) = crossbeam_channel::bounded(BATCHES);
            let (empty, emptied) = crossbeam_channel::bounded(BATCHES);
            lanes.push(Lane { full, empty: emptied });
            let worker = Worker::new(&shared, inbox, orders[n].clone(), filled, empty);
            workers.push(spawn(&format!("worker-{n}"), &shared, move |_| worker.run())?);
        }
        helpers.push(spawn("checkpoint", &shared, move |shared| checkpointer::run(shared, &jobs_inbox))?);
        for n in 0..RESTORERS {
            let inbox = restore_inbox.clone();
            helpers.push(spawn(&format!("restore-{n}"), &shared, move |shared| restorer::run(shared, &inbox))?);
        }
        let poll = Poll::new(&shared, poll_inbox, lanes, &client_id(config, http_address))?;
        let poll = spawn("poll", &shared, move |_| poll.run())?;

        let desk = if config.desk.enabled && !options.is_stateless {
            Some(start_desk(config, http_address, Arc::clone(&metrics))?)
        } else {
            None
        };
        let hands = if !options.is_stateless && (config.desk.enabled || config.relays.has_hands()) {
            let prints = Fingerprint::new(&config.fingerprint_key()?);
            let hands = Hands::start(&config.relays, &config.kafka, prints, &metrics)?;
            if let Some(desk) = &desk {
                hands.use_directory(desk.directory());
            }
            let board = Arc::clone(hands.board());
            helpers.push(spawn("acquainted", &shared, move |shared| acquainted::run(shared, &board))?);
            Some(hands)
        } else {
            None
        };
        let more = desk.as_ref().map(Desk::router).unwrap_or_default();
        let more = more.merge(hands.as_ref().map(Hands::router).unwrap_or_default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(16)
            .thread_name("http")
            .enable_all()
            .build()?;
        let (http_stop, http_stopped) = tokio::sync::watch::channel(false);
        let mut http_access = None;
        if let Some(listener) = listener {
            let access = Arc::new(access(config, &listener, &metrics)?);
            http_access = Some(Arc::clone(&access));
            let live = Arc::new(live::LiveView::new(&shared, instance_name(config, http_address)));
            runtime.spawn(telemetry::serve(listener, access, live, metrics, more, http_stopped));
            tracing::info!(
                "http://{}/ has metrics, status and accounts",
                http_address.map(|a| a.to_string()).unwrap_or_default()
            );
        }
        Ok(Self { shared, options, poll, workers, helpers, desk, hands, runtime, http_stop, http_address, http_access })
    }

    /// Where the HTTP server listens.
    pub fn http_address(&self) -> Option<std::net::SocketAddr> {
        self.http_address
    }

    /// The hands, where the instance has any.
    pub fn hands(&self) -> Option<&Hands> {
        self.hands.as_ref()
    }

    /// The metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Runs until a signal asks to stop or something cannot be waited out; SIGHUP reloads the configuration.
    ///
    /// # Errors
    /// What could not be waited out.
    pub fn run_until_stopped(mut self) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let shared = Arc::clone(&self.shared);
        // Signals are listened for on a runtime of their own, so that the one of the server can be shut down with the rest.
        let signals = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        signals.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut hang_up = signal(SignalKind::hangup())?;
            while !shared.is_stopping() {
                if self.desk.as_ref().is_some_and(Desk::is_broken) {
                    shared.fail(anyhow!("a thread of the desk ended by a bug; nothing is lost, the next desk goes on"));
                }
                if self.hands.as_ref().is_some_and(Hands::is_broken) {
                    shared.fail(anyhow!("the thread that follows what is stopped and pulled ended by a bug"));
                }
                tokio::select! {
                    _ = terminate.recv() => shared.stop(),
                    _ = interrupt.recv() => shared.stop(),
                    _ = hang_up.recv() => self.reload(),
                    () = tokio::time::sleep(Duration::from_millis(200)) => {}
                }
            }
            Ok::<(), anyhow::Error>(())
        })?;
        self.stop()
    }

    /// Stops: a last checkpoint of everything, then goodbye, all within the deadline.
    ///
    /// # Errors
    /// What made it stop, where that was not a wish.
    pub fn stop(self) -> anyhow::Result<()> {
        let began = Instant::now();
        self.shared.stop();
        let deadline = Duration::from_secs(self.shared.epoch().run.drain_s.into()) + CLOSE;
        if let Some(desk) = self.desk {
            desk.stop();
        }
        if let Some(hands) = self.hands {
            hands.stop();
        }
        join(self.poll, "poll", began + deadline);
        tracing::info!("{}", Poll::describe(&self.shared));
        for worker in &self.shared.workers {
            let _ = worker.send(Order::Stop);
        }
        for worker in self.workers {
            join(worker, "worker", began + deadline);
        }
        self.shared.outlet.flush(Duration::from_secs(2));
        let _ = self.http_stop.send(true);
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        // The helpers end with the process: what they wait for may be a broker that is away.
        drop(self.helpers);
        tracing::info!(ms = began.elapsed().as_millis() as u64, "stopped");
        match self.shared.failure() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").field("http", &self.http_address).finish_non_exhaustive()
    }
}

fn spawn(name: &str, shared: &Arc<Shared>, f: impl FnOnce(&Shared) + Send + 'static) -> anyhow::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let ours = name.to_owned();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // A thread that panics must not leave the others waiting: the program stops, and begins again at its checkpoints.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f(&shared)));
        if result.is_err() {
            shared.fail(anyhow!("the thread {ours} ended by a bug; the state is as of the last checkpoints"));
        }
    })?;
    Ok(thread)
}

fn join(thread: JoinHandle<()>, name: &str, deadline: Instant) {
    while !thread.is_finished() {
        if Instant::now() > deadline {
            tracing::warn!("{name} does not end; it is left behind, nothing is lost");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = thread.join();
}

fn follow_control(shared: &Shared) {
    let stop = || shared.is_stopping();
    let each = |decisions| {
        shared.metrics.control_records.inc();
        for worker in &shared.workers {
            let _ = worker.send(Order::Decisions(Arc::clone(&decisions)));
        }
    };
    if let Err(e) = shared.control.follow(&shared.kafka, &stop, &each) {
        shared.fail(e.into());
    }
}

/// The control topic is read to its end before the first event.
fn await_control(shared: &Shared) -> anyhow::Result<()> {
    let deadline = Instant::now() + 2 * shared.kafka.timeout();
    while !shared.control.is_ready() {
        if let Some(error) = shared.failure() {
            return Err(error);
        }
        if Instant::now() > deadline {
            shared.stop();
            return Err(anyhow!(
                "{} cannot be read to its end: `mailfuse topics check` says more",
                shared.kafka.topics.control
            ));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The desk of an instance.
///
/// # Errors
/// Where the system gives no thread or no folder, or the fingerprint key cannot be had.
pub fn start_desk(config: &Config, http: Option<std::net::SocketAddr>, metrics: Arc<Metrics>) -> anyhow::Result<Desk> {
    let options = desk::Options {
        kafka: &config.kafka,
        settings: &config.desk,
        relays: &config.relays,
        directory: &config.directory,
        policy: Arc::new(config.policy(config.fingerprint_key()?)?),
        events: config.events.clone(),
        instance: &config.run.instance,
        client_id: &client_id(config, http),
        session_timeout_ms: config.run.session_timeout_ms,
    };
    Desk::start(&options, metrics)
}

/// Who is let in by the HTTP server of an instance.
///
/// # Errors
/// Where the listener has no address.
pub(crate) fn access(config: &Config, listener: &std::net::TcpListener, metrics: &Metrics) -> std::io::Result<Access> {
    let http = &config.http;
    Ok(Access::new(listener.local_addr()?, &http.advertise, &http.token, metrics.http_wrong_tokens.clone()))
}

/// What this instance is called.
pub(crate) fn instance_name(config: &Config, http: Option<std::net::SocketAddr>) -> String {
    if !config.run.instance.is_empty() {
        return config.run.instance.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "mailfuse",
        host => host,
    };
    match http {
        Some(address) => format!("{host}:{}", address.port()),
        None => format!("{host}:{}", std::process::id()),
    }
}

/// What the group's members are called: the name, and where its HTTP server is, so that others can name it.
fn client_id(config: &Config, http: Option<std::net::SocketAddr>) -> String {
    let advertised = match (&config.http.advertise, http) {
        (advertise, Some(address)) if advertise.is_empty() => address.to_string(),
        (_, None) => String::new(),
        (advertise, _) => advertise.clone(),
    };
    format!("mailfuse {} {advertised}", instance_name(config, http))
}
