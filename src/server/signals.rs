//! Signals: SIGTERM and SIGINT stop the server, SIGHUP reloads files, the others are ignored.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::config;
use crate::error::{Doing, Result};
use crate::logging;
use crate::tls::Certificates;

/// Signals without a meaning here; their default action would end the process.
const IGNORED: [(&str, Kind); 3] = [
    ("SIGQUIT", SignalKind::quit),
    ("SIGUSR1", SignalKind::user_defined1),
    ("SIGUSR2", SignalKind::user_defined2),
];

type Kind = fn() -> SignalKind;

/// Handlers for signals that do not end the process.
#[derive(Debug)]
pub struct NonFatalSignals {
    hang_up: Signal,
    ignored: Vec<(&'static str, Signal)>,
}

impl NonFatalSignals {
    /// Installs the handlers, which works before the serving runtime exists: signals that arrive before
    /// [`NonFatalSignals::handle`] are handled then.
    ///
    /// # Errors
    /// If the operating system refuses a handler.
    pub fn catch() -> Result<Self> {
        let installer = installer()?;
        let _context = installer.enter();
        let hang_up = signal(SignalKind::hangup()).doing("catch SIGHUP")?;
        let mut ignored = Vec::new();
        for (name, kind) in IGNORED {
            ignored.push((name, signal(kind()).doing("catch a signal")?));
        }
        Ok(Self { hang_up, ignored })
    }

    /// Handles them for as long as this is polled.
    pub(super) async fn handle(self, files: Files) {
        let Self {
            mut hang_up,
            ignored,
        } = self;
        for (name, signal) in ignored {
            tokio::spawn(ignore(name, signal));
        }
        while hang_up.recv().await.is_some() {
            let files = files.clone();
            // A disk that hangs must not delay requests.
            if let Err(error) = spawn_blocking(move || files.reload()).await {
                log::error!("SIGHUP: reloading the files failed: {error}");
            }
        }
    }
}

/// SIGTERM and SIGINT, which stop the server.
#[derive(Debug)]
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Installs the handlers, as [`NonFatalSignals::catch`]: a signal that arrives before [`StopSignals::next`] is returned
    /// then.
    ///
    /// # Errors
    /// If the operating system refuses a handler.
    pub fn catch() -> Result<Self> {
        let installer = installer()?;
        let _context = installer.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate()).doing("catch SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).doing("catch SIGINT")?,
        })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// A runtime that is only needed to install handlers: they outlive it.
fn installer() -> Result<Runtime> {
    let built = runtime::Builder::new_current_thread().enable_io().build();
    built.doing("catch signals")
}

/// Logs once that a signal is ignored.
async fn ignore(name: &str, mut signal: Signal) {
    if signal.recv().await.is_some() {
        log::info!("{name} is ignored: SIGTERM ends the server, SIGHUP has it reload files");
    }
}

/// What SIGHUP reloads.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificates: Option<Arc<Certificates>>,
    /// The settings file that the command line names.
    pub(super) settings: Option<PathBuf>,
}

impl Files {
    fn reload(&self) {
        if let Some(certificates) = &self.certificates {
            certificates.reload();
        }
        match reload_level(self.settings.as_deref()) {
            Ok(level) => log::info!(
                "SIGHUP: reloaded certificate files and the log level ({level}); other settings take effect at the \
                 next start"
            ),
            Err(error) => {
                log::error!(
                    "SIGHUP: the log level is unchanged, the settings cannot be read: {error}"
                );
            }
        }
    }
}

fn reload_level(settings: Option<&Path>) -> Result<log::LevelFilter> {
    let level = config::load(settings)?.log.level;
    logging::set_level(level);
    Ok(level.into())
}
