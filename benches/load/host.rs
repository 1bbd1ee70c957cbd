//! The real server in a process of this executable, whose jobs run when this process says so: a purge is due once an hour
//! only.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use license_server::app::App;
use license_server::audit::Actor;
use license_server::error::Result;
use license_server::manual::Manual;
use license_server::server::{self, NonFatalSignals, Server};
use license_server::{backups, config, logging, memory, session_history};
use tokio::task::spawn_blocking;

use crate::process::{Installation, Process};

/// The argument that makes this executable a server.
const ARGUMENT: &str = "--host";
/// What is left of the history by a purge.
const KEPT: Duration = Duration::from_hours(24);

/// A job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Job {
    Purge,
    Backup,
    Inspect,
}

impl Job {
    const ALL: [Self; 3] = [Self::Purge, Self::Backup, Self::Inspect];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Purge => "purge",
            Self::Backup => "backup",
            Self::Inspect => "inspect",
        }
    }
}

/// A running server.
pub struct Host {
    pub process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Host {
    pub fn start(installation: &Installation) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(ARGUMENT);
        installation.settle(&mut command);
        let mut process = installation.serve_with(command, Stdio::piped);
        let (input, output) = process.pipes();
        Self {
            process,
            input,
            output: BufReader::new(output),
        }
    }

    /// Runs a job, and returns what it says.
    pub fn run(&mut self, job: Job) -> String {
        writeln!(self.input, "{}", job.as_str()).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

/// If the arguments ask for a server, serves and never returns.
pub fn serve_if_asked() {
    if std::env::args().nth(1).as_deref() != Some(ARGUMENT) {
        return;
    }
    memory::set_up();
    let signals = NonFatalSignals::catch().unwrap();
    let settings = config::load(None).unwrap();
    logging::start(&settings.log).unwrap();
    let server = Server::open(settings, Manual::new(String::new)).unwrap();
    let app = server.app.clone();
    let process = server::Process {
        config: None,
        signals,
        stop: None,
        commands: String::new,
    };
    server.run(process, |_| Ok(()), serve_jobs(app)).unwrap();
    std::process::exit(0);
}

/// Runs the jobs that are named on standard input, until it ends.
async fn serve_jobs(app: Arc<App>) -> Result<()> {
    loop {
        let line = spawn_blocking(|| std::io::stdin().lines().next()).await;
        let Some(line) = line.unwrap() else {
            return Ok(());
        };
        let line = line.unwrap();
        let job = Job::ALL.into_iter().find(|job| job.as_str() == line);
        let said = run(&app, job.unwrap()).await?;
        println!("{said}");
    }
}

async fn run(app: &App, job: Job) -> Result<String> {
    let now = app.clock.now();
    match job {
        Job::Purge => {
            let rows = session_history::purge(&app.db, KEPT, now).await?;
            Ok(format!("{rows} rows"))
        }
        Job::Backup => {
            let made = backups::make(&app.db, &app.backup_dir, Actor::server(), now.wall).await?;
            Ok(format!("{} MiB", made.backup.bytes / 1024 / 1024))
        }
        Job::Inspect => {
            let inspected = app.db.inspect().await?;
            Ok(format!("{} tables", inspected.tables))
        }
    }
}
