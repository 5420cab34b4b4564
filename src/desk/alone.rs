//! `mailfuse desk`: the desk without a detector beside it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::Desk;
use crate::config::Config;
use crate::core::fingerprint::Fingerprint;
use crate::event::Timestamp;
use crate::relays::Hands;
use crate::run;
use crate::telemetry::status::{AccountAnswer, ControlStatus, Live, State, Status, Totals};
use crate::telemetry::{self, Metrics};

/// What the pages that `run` has answer here.
struct View {
    desk: Arc<Desk>,
    config: Config,
    instance: String,
    started: Timestamp,
}

impl Live for View {
    fn status(&self) -> Status {
        let t = &self.config.kafka.topics;
        Status {
            version: env!("CARGO_PKG_VERSION"),
            config_digest: self.config.digest(),
            instance: self.instance.clone(),
            group: self.config.kafka.group.clone(),
            started: self.started,
            state: State::Running,
            workers: 0,
            totals: Totals::default(),
            partitions: Vec::new(),
            control: ControlStatus { read_to: None, records: 0 },
            topics: [("alerts", t.alerts.clone()), ("desk", t.desk.clone())].into(),
        }
    }

    fn healthy(&self) -> Result<(), String> {
        if self.desk.is_broken() { Err("a thread of the desk has ended".to_owned()) } else { Ok(()) }
    }

    fn ready(&self) -> Result<(), String> {
        self.desk.trouble().map_or(Ok(()), Err)
    }

    fn account(&self, _: &str) -> AccountAnswer {
        AccountAnswer::Nowhere("this is a desk: accounts are known to the instances of `mailfuse run`".to_owned())
    }
}

/// Runs until a signal asks to stop.
///
/// # Errors
/// Where the HTTP address is taken, or a thread ends by a bug.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let listener =
        match config.http.address()? {
            Some(address) => Some(std::net::TcpListener::bind(address).with_context(|| {
                format!("http.listen {address}: cannot be listened on; is another instance running?")
            })?),
            None => None,
        };
    let http = listener.as_ref().and_then(|l| l.local_addr().ok());
    let metrics = Arc::new(Metrics::new());
    metrics.config(&config.digest());
    let desk = Arc::new(run::start_desk(config, http, Arc::clone(&metrics))?);
    let hands = Hands::start(&config.relays, &config.kafka, Fingerprint::new(&config.fingerprint_key()?), &metrics)?;
    hands.use_directory(desk.directory());
    let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
    let view = View {
        desk: Arc::clone(&desk),
        config: config.clone(),
        instance: run::instance_name(config, http),
        started: Timestamp(started_ms),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    if let Some(listener) = listener {
        let access = Arc::new(run::access(config, &listener, &metrics)?);
        let pages = desk.router().merge(hands.router());
        runtime.spawn(telemetry::serve(listener, access, Arc::new(view), metrics, pages, stopped));
        tracing::info!("http://{}/ has incidents and alerts", http.map(|a| a.to_string()).unwrap_or_default());
    }
    let broken = runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok::<bool, std::io::Error>(false),
                _ = interrupt.recv() => return Ok(false),
                _ = hang_up.recv() => desk.reload(),
                () = tokio::time::sleep(Duration::from_millis(500)) => if desk.is_broken() || hands.is_broken() { return Ok(true) },
            }
        }
    })?;
    let _ = stop.send(true);
    desk.stop();
    hands.stop();
    runtime.shutdown_timeout(Duration::from_secs(1));
    anyhow::ensure!(!broken, "a thread of the desk ended by a bug; nothing is lost, the next desk goes on");
    tracing::info!("stopped");
    Ok(())
}
