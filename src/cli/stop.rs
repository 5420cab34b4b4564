//! Ctrl-C and SIGTERM, for commands that want to end in order.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, sleep};
use std::time::Duration;

use anyhow::Context as _;

use super::Failure;

/// Who waits for a pipe that says nothing does not look whether to stop; after this long somebody else ends the program.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// Whether somebody asked to stop.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    /// Who ends the program: whoever is first to set it.
    ending: Arc<AtomicBool>,
}

impl Stop {
    /// Listens from now on. A signal that nobody acts on within a second has `late` called and the program ended, with a failure;
    /// a second signal ends it at once.
    pub(super) fn on_signal(late: impl FnOnce() + Send + 'static) -> Result<Self, Failure> {
        let stop = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("no signal can be waited for")?;
        let mut signals = {
            let _in_runtime = runtime.enter();
            Signals::new().context("no signal can be waited for")?
        };
        let of_thread = stop.clone();
        let wait = move || {
            runtime.block_on(signals.next());
            of_thread.asked.store(true, Ordering::Relaxed);
            let again = Builder::new().name("signal again".to_owned()).spawn(move || {
                runtime.block_on(signals.next());
                process::exit(1);
            });
            drop(again);
            sleep(HEARD_WITHIN);
            if of_thread.end() {
                late();
                process::exit(1);
            }
        };
        Builder::new().name("signals".to_owned()).spawn(wait).context("no thread for signals")?;
        Ok(stop)
    }

    /// Whether to stop.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the caller is the one that ends the program: to be asked once, when there is nothing more to read.
    pub(super) fn end(&self) -> bool {
        !self.ending.swap(true, Ordering::SeqCst)
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        // Where it cannot be waited for, nobody asks.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
