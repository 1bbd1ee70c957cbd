//! Signals that do not end the server: SIGHUP has it read files again, the others are ignored. Those that
//! end it are beside `serve`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::config;
use crate::error::{Doing, Result};
use crate::logging;
use crate::tls::Certificates;

/// Signals that mean nothing here, and would end a process that says nothing of them.
const IGNORED: [(&str, Kind); 3] = [
    ("SIGQUIT", SignalKind::quit),
    ("SIGUSR1", SignalKind::user_defined1),
    ("SIGUSR2", SignalKind::user_defined2),
];

type Kind = fn() -> SignalKind;

/// Signals that were caught and do not end the process.
#[derive(Debug)]
pub struct Caught {
    hang_up: Signal,
    ignored: Vec<(&'static str, Signal)>,
}

impl Caught {
    /// Catches them from now on, also before there is a runtime that serves: what comes until
    /// [`Caught::obey`] is obeyed then.
    ///
    /// # Errors
    /// When the operating system refuses a handler.
    pub fn catch() -> Result<Self> {
        // The handlers outlive this runtime; it is only needed to install them.
        let installer = runtime::Builder::new_current_thread().enable_io().build();
        let installer = installer.doing("catch signals")?;
        let _context = installer.enter();
        let hang_up = signal(SignalKind::hangup()).doing("catch SIGHUP")?;
        let mut ignored = Vec::new();
        for (name, kind) in IGNORED {
            ignored.push((name, signal(kind()).doing("catch a signal")?));
        }
        Ok(Self { hang_up, ignored })
    }

    /// Obeys them, as long as this is polled.
    pub(super) async fn obey(self, files: Files) {
        let Self {
            mut hang_up,
            ignored,
        } = self;
        for (name, signal) in ignored {
            tokio::spawn(ignore(name, signal));
        }
        while hang_up.recv().await.is_some() {
            let files = files.clone();
            // A disk that hangs must not hold up the requests.
            if let Err(error) = spawn_blocking(move || files.read_again()).await {
                log::error!("SIGHUP: reading the files again broke off: {error}");
            }
        }
    }
}

/// Says once that a signal is ignored; it stays ignored.
async fn ignore(name: &str, mut signal: Signal) {
    if signal.recv().await.is_some() {
        log::info!("{name} is ignored: SIGTERM ends the server, SIGHUP has it read files again");
    }
}

/// What SIGHUP reads again.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) certificates: Option<Arc<Certificates>>,
    /// The settings, as the command line names them.
    pub(super) settings: Option<PathBuf>,
}

impl Files {
    fn read_again(&self) {
        if let Some(certificates) = &self.certificates {
            certificates.reload();
        }
        match read_level(self.settings.as_deref()) {
            Ok(level) => log::info!(
                "SIGHUP: certificate files and the level of the log ({level}) were read again, \
                 other settings hold from the next start on"
            ),
            Err(error) => {
                log::error!(
                    "SIGHUP: the level of the log stays as it was, the settings cannot be read: {error}"
                );
            }
        }
    }
}

fn read_level(settings: Option<&Path>) -> Result<log::LevelFilter> {
    let level = config::load(settings)?.log.level;
    logging::set_level(level);
    Ok(level.into())
}
