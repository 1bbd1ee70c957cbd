//! Assembles the server: shared state, routes, the front, and the sequence from start to stop.

mod reachability;
mod signals;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rocket::figment::Figment;
use rocket::figment::providers::Serialized;
use rocket::local::asynchronous::Client;
use rocket::shield::Shield;
use rocket::{Build, Rocket, Route};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

use crate::admins;
use crate::app::{self, App};
use crate::clock::turns;
use crate::config::{self, Config, LogFormat, TlsMode};
use crate::console::{self, OutputFormat};
use crate::error::{Doing, Error, Result};
use crate::front::{Backend, ConnectionLimit, Front, Limits, PlainHttp, RocketBridge};
use crate::i18n::Catalog;
use crate::jobs;
use crate::logging;
use crate::manual::{self, Manual};
use crate::monitor;
use crate::panel;
use crate::security::run_as;
use crate::web::flash::Flashes;
use crate::web::form::AllowedOrigins;
use crate::web::once::SentForms;
use crate::web::page::{self, Pages};
use crate::web::pending::PendingForms;
use crate::{
    activations, api_keys, audit, backups, customers, domains, flags, handshake, integrate,
    licenses, logins, overview, plans, privacy, products, refusals, releases, saved_filters,
    search, session_history, sessions, trials, verification, web,
};

pub use reachability::reachability_problems;
pub use signals::{NonFatalSignals, StopSignals};

/// Limits for the last write of a stop, and for closing the database, if the requests have used up `shutdown_grace`; what they
/// leave of it is added. With the longest one, 4 s, the process ends within 5 s.
const FINISH: Duration = Duration::from_millis(400);
const CLOSE: Duration = Duration::from_millis(400);
/// Threads for what blocks: reads of the panel, passwords, files. Tokio's own limit is 512, and each takes memory.
const BLOCKING_THREADS: usize = 32;

/// Rocket with every route. It never listens itself: the front passes requests to it.
///
/// # Errors
/// If the embedded texts do not parse.
fn rocket(app: &Arc<App>) -> Result<Rocket<Build>> {
    let settings = &app.settings;
    let rocket = rocket::custom(quiet())
        .manage(app.clone())
        // The parts that `web` uses, which lies below `App` and cannot name it.
        .manage(app.clock.clone())
        .manage(AllowedOrigins::new(settings.public_url().as_deref()))
        .manage(Flashes::default())
        .manage(SentForms::default())
        .manage(PendingForms::default())
        .manage(Catalog::load(app.default_language()?)?)
        .manage(Pages::default());
    Ok(rocket
        .attach(Shield::new()) // Without policies: the front sets the headers, on its own responses too.
        .attach(refusals::client::Recorder::default())
        .mount("/", monitor::routes())
        .mount("/", panel::root_routes())
        .mount("/", products::site::routes())
        .mount("/api/site", handshake::site::routes())
        .mount("/api/license", products::client::routes())
        .mount("/api/license", activations::client::routes())
        .mount("/api/license", trials::client::routes())
        .mount("/api/license", sessions::client::routes())
        .mount("/api/license", verification::client::routes())
        .mount("/lizenzserver", panel())
        .mount("/lizenzserver", panel::unknown_routes())
        .register("/", web::reply::catchers())
        .register("/lizenzserver", panel::catchers()))
}

/// Every route of the panel.
pub fn panel() -> Vec<Route> {
    [
        web::assets::routes(),
        panel::routes(),
        logins::panel::routes(),
        admins::panel::routes(),
        overview::panel::routes(),
        products::panel::routes(),
        api_keys::panel::routes(),
        flags::panel::routes(),
        saved_filters::panel::routes(),
        sessions::panel::routes(),
        session_history::panel::routes(),
        refusals::panel::routes(),
        licenses::panel::routes(),
        activations::panel::routes(),
        trials::panel::routes(),
        customers::panel::routes(),
        plans::panel::routes(),
        privacy::panel::routes(),
        releases::panel::routes(),
        domains::panel::routes(),
        handshake::panel::routes(),
        audit::panel::routes(),
        backups::panel::routes(),
        integrate::panel::routes(),
        manual::panel::routes(),
        search::panel::routes(),
    ]
    .concat()
}

/// Rocket's own settings: no logging, no `Server` header, and no header is trusted for the client's address.
fn quiet() -> Figment {
    #[derive(Serialize)]
    struct Quiet {
        log_level: &'static str,
        ident: bool,
        ip_header: bool,
        cli_colors: bool,
    }
    let quiet = Quiet {
        log_level: "off",
        ident: false,
        ip_header: false,
        cli_colors: false,
    };
    Figment::from(rocket::Config::release_default()).merge(Serialized::defaults(quiet))
}

/// A server that is ready to serve: database open, certificate loaded, not listening yet.
pub struct Server {
    /// Its parts.
    pub app: Arc<App>,
}

/// What the process was started with, besides the settings.
#[derive(Debug)]
pub struct Process {
    /// The settings file that the command line names.
    pub config: Option<PathBuf>,
    /// Signals that do not end the process.
    pub signals: NonFatalSignals,
    /// Signals that stop the server; without these, they end the process until the server listens.
    pub stop: Option<StopSignals>,
    /// Writes the list of commands for the manual, as Markdown.
    pub commands: fn() -> String,
}

/// The address of a server, as it is printed at the start.
#[derive(Clone, Debug, Serialize)]
pub struct Listening {
    version: &'static str,
    /// `https://…`
    pub url: String,
    /// The CA file that clients must trust, for a self-signed certificate.
    pub ca: Option<PathBuf>,
    /// Whether the database is new.
    first: bool,
    /// The link with which the first owner is created, valid for 30 minutes; `None` once an administrator
    /// exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    setup: Option<String>,
    /// What to do if that link does not work from another machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    setup_note: Option<String>,
}

impl Server {
    /// Opens the database and the certificate, and creates what is missing.
    ///
    /// # Errors
    /// As [`App::open`].
    pub fn open(settings: Config, manual: Manual) -> Result<Self> {
        let app = Arc::new(App::open(settings, manual)?);
        Ok(Self { app })
    }

    /// The address at which it will listen.
    pub fn listening(&self) -> Listening {
        let certificates = self.app.certificates.as_ref();
        Listening {
            version: env!("CARGO_PKG_VERSION"),
            url: self.app.listening_url(),
            ca: certificates.and_then(|certificates| certificates.authority_file()),
            first: self.app.is_first_start,
            setup: None,
            setup_note: None,
        }
    }

    /// Opens the set-up if no administrator exists, and returns the link to it.
    fn open_setup(&self, url: &str) -> Result<Option<String>> {
        if self.app.db.read_blocking(admins::any_exists)? {
            return Ok(None);
        }
        let token = self.app.setup.create_link(self.app.clock.now().tick)?;
        let base = self.app.settings.public_url();
        let base = base.as_deref().unwrap_or(url);
        let token = token.reveal();
        Ok(Some(format!("{base}/lizenzserver/setup?token={token}")))
    }

    /// Logs what will keep clients from connecting, so that the operator reads it before they complain.
    fn warn(&self) -> Result<()> {
        let mut warnings = reachability::reachability_problems(&self.app.settings)?;
        if let Some(certificates) = &self.app.certificates {
            warnings.extend(certificates.problems(&self.app.settings, app::system_now())?);
            warnings.extend(certificates.chain_warning()?.map(str::to_owned));
        }
        for warning in warnings {
            log::warn!("{warning}");
        }
        Ok(())
    }

    /// Serves until SIGTERM or SIGINT, or until `beside` completes; calls `ready` once it accepts connections.
    ///
    /// # Errors
    /// If it cannot listen on the address.
    pub fn run<F>(
        self,
        process: Process,
        ready: impl FnOnce(&Listening) -> Result<()>,
        beside: F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if self.app.settings.server.workers > 0 {
            builder.worker_threads(self.app.settings.server.workers);
        }
        let runtime = builder
            .thread_name("serve")
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .doing("start the runtime")?;
        let db = self.app.db.clone();
        let _watch = self.app.clock.detect_pauses()?;
        let Process {
            config,
            signals,
            stop,
            ..
        } = process;
        let stop = stop.map_or_else(StopSignals::catch, Ok)?;
        let files = signals::Files {
            certificates: self.app.certificates.clone(),
            settings: config,
        };
        runtime.spawn(signals.handle(files));
        let served = runtime.block_on(self.serve(stop, ready, beside));
        // A read that still runs is not awaited: its connection is closed already.
        runtime.shutdown_background();
        let left = served.as_ref().map_or(Duration::ZERO, Stop::left);
        db.close(CLOSE + left);
        served.and_then(|stop| stop.reason)
    }

    /// The front with Rocket behind it, listening.
    async fn front(&self) -> Result<Front> {
        let server = &self.app.settings.server;
        let listener = listen(SocketAddr::new(server.address, server.port)).await?;
        let tls = self.app.certificates.as_ref();
        let tls = tls
            .map(|certificates| certificates.server_config())
            .transpose()?;
        let client = Client::untracked(rocket(&self.app)?).await;
        let client = client.map_err(|error| Error::Internal {
            doing: "put the server together",
            source: error.kind().to_string().into(),
        })?;
        let app = &self.app;
        let rocket = RocketBridge::new(client).with_signer(app.signer.clone(), app.clock.clone());
        Ok(Front {
            listener,
            tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
            hsts: matches!(self.app.settings.tls.mode, TlsMode::Acme | TlsMode::Files),
            backend: Backend::RocketBridge(rocket),
            proxies: self.app.proxies.clone(),
            max_connections: ConnectionLimit::from_system()?,
            limits: Limits::default(),
        })
    }

    /// The main front, and one for plain HTTP if a certificate authority validates over it.
    async fn fronts(&self) -> Result<(Front, Option<Front>)> {
        let mut front = self.front().await?;
        let (server, port) = (&self.app.settings.server, self.app.settings.tls.http_port);
        let certificates = self.app.certificates.as_ref();
        let challenges = certificates.and_then(|certificates| certificates.challenges());
        let (Some(challenges), Some(base)) = (challenges, self.app.settings.public_url()) else {
            return Ok((front, None));
        };
        if port == 0 {
            return Ok((front, None));
        }
        let listener = listen_plain(SocketAddr::new(server.address, port)).await?;
        let (main_share, plain_share) = front.max_connections.split_for_plain_http();
        front.max_connections = main_share;
        let plain = Front {
            listener,
            tls: None,
            hsts: false,
            backend: Backend::PlainHttp(PlainHttp { challenges, base }),
            proxies: front.proxies.clone(),
            max_connections: plain_share,
            limits: front.limits,
        };
        Ok((front, Some(plain)))
    }

    /// Adds the set-up link if no administrator exists.
    fn add_setup_link(&self, listening: &mut Listening) -> Result<()> {
        listening.setup = self.open_setup(&listening.url)?;
        let note = || reachability::setup_link_note(&self.app.settings);
        listening.setup_note = listening.setup.is_some().then(note).flatten();
        Ok(())
    }

    async fn serve<F>(
        self,
        mut signals: StopSignals,
        ready: impl FnOnce(&Listening) -> Result<()>,
        beside: F,
    ) -> Result<Stop>
    where
        F: Future<Output = Result<()>>,
    {
        let mut listening = self.listening();
        let (front, plain) = self.fronts().await?;
        self.add_setup_link(&mut listening)?;
        self.warn()?;
        let app = self.app;
        let (stop, stopped) = watch::channel(false);
        let mut jobs = jobs::start(&app, &stopped);
        let grace = Duration::from_secs(u64::from(app.settings.server.shutdown_grace));
        let plain = plain.map(|plain| tokio::spawn(plain.serve(stopped.clone(), grace)));
        let serving = tokio::spawn(front.serve(stopped, grace));
        let beside = after(ready(&listening), beside);
        let ended = tokio::select! {
            name = signals.next() => {
                log::info!("{name}: no more requests are taken, those under way are finished");
                Ok(())
            }
            ended = beside => ended,
            () = app.db.disk_failure() => Err(disk_failed()),
            // No job ends by itself. If one does, heartbeats may no longer be written, so the server must not
            // acknowledge any more of them.
            ended = jobs.join_next() => Err(job_ended(ended.and_then(Result::ok))),
        };
        let stopped = Stop::begin(grace, ended);
        stop.send_replace(true);
        tokio::spawn(exit_at_next(signals));
        finish([serving].into_iter().chain(plain), jobs, &app, &stopped).await;
        Ok(stopped)
    }
}

/// Waits for `next`, unless `done` has failed.
async fn after(done: Result<()>, next: impl Future<Output = Result<()>>) -> Result<()> {
    done?;
    next.await
}

/// A stop of the server.
struct Stop {
    began: Instant,
    grace: Duration,
    /// Why the server stops; `Ok` if it was told to.
    reason: Result<()>,
}

impl Stop {
    fn begin(grace: Duration, reason: Result<()>) -> Self {
        let began = Instant::now();
        Self {
            began,
            grace,
            reason,
        }
    }

    /// What is left of the time for requests and the last write.
    fn left(&self) -> Duration {
        self.grace.saturating_sub(self.began.elapsed())
    }
}

/// Why the server stops when the disk failed; `db` has logged the reason.
fn disk_failed() -> Error {
    Error::State(
        "the disk failed, and nothing more is written: see the line before this one; the next start \
         reads the WAL again"
            .to_owned(),
    )
}

/// Why the server stops when the background job `name` ended; `None` if it panicked.
fn job_ended(name: Option<&str>) -> Error {
    let name = name.unwrap_or("it panicked");
    Error::Internal {
        doing: "keep serving",
        source: format!("a background job ended unexpectedly: {name}").into(),
    }
}

/// Ends the process at the next signal, without waiting for anything.
async fn exit_at_next(mut signals: StopSignals) {
    let name = signals.next().await;
    log::warn!("{name} again: exiting at once");
    std::process::exit(1);
}

/// Waits until no request is in progress, and writes what is not in the database yet.
async fn finish(
    serving: impl Iterator<Item = JoinHandle<Result<()>>>,
    mut jobs: JoinSet<&'static str>,
    app: &App,
    stop: &Stop,
) {
    for serving in serving {
        match serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("{error}"),
            Err(error) => log::error!("the front ended unexpectedly: {error}"),
        }
    }
    while jobs.join_next().await.is_some() {}
    let mut finished = pin!(jobs::finish(app));
    for turn in turns(FINISH + stop.left()) {
        if timeout(turn, finished.as_mut()).await.is_ok() {
            return;
        }
    }
    log::warn!("the database accepts no writes: the last heartbeats are not in it");
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let (ip, port) = (address.ip(), address.port());
        let advice = match error.kind() {
            ErrorKind::PermissionDenied => "a port below 1024 needs a privilege: in the unit of systemd \
                 `AmbientCapabilities=CAP_NET_BIND_SERVICE`, elsewhere `sudo setcap cap_net_bind_service=+ep` on the executable; \
                 or choose a [server] port from 1024"
                .to_owned(),
            ErrorKind::AddrInUse => format!(
                "another program uses it (`ss -ltnp sport = :{port}` names it): stop that one, or choose another [server] port"
            ),
            ErrorKind::AddrNotAvailable => {
                format!("this machine does not have the address {ip}: `ip address` lists those that [server] address can have")
            }
            _ => "choose another [server] address or port".to_owned(),
        };
        Error::State(format!("cannot listen on {address} ({error}): {advice}"))
    })
}

async fn listen_plain(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::State(format!(
            "cannot listen on {address} ({error}), where the certificate authority validates the domain: free that \
             port and allow this user to bind it (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or set \
             tls.http_port = 0 to validate on port 443 only"
        ))
    })
}

/// Serves, and prints the address.
///
/// # Errors
/// As [`Server::open`] and [`Server::run`].
pub fn serve(settings: Config, process: Process, output: OutputFormat) -> Result<()> {
    let format = settings.log.format;
    run_as::become_owner(&settings.data_folder())?;
    let server = Server::open(settings, Manual::new(process.commands))?;
    let ready = |listening: &Listening| match (output, format) {
        (OutputFormat::Json, _) => console::json(&serde_json::json!(listening)),
        (OutputFormat::Text, LogFormat::Json) => console::text(&listening.line()?),
        (OutputFormat::Text, LogFormat::Text) => console::text(&page::render_text(
            "server/listening.txt.tera",
            &listening.values()?,
        )?),
    };
    server.run(process, ready, std::future::pending())
}

impl Listening {
    /// What the text is made of. The commands of an installed server are for root: the data folder is the service's own.
    fn values(&self) -> Result<serde_json::Value> {
        let mut values = serde_json::to_value(self).doing("print the address")?;
        let sudo = if config::is_installed() { "sudo " } else { "" };
        if let Some(members) = values.as_object_mut() {
            members.insert("sudo".to_owned(), sudo.into());
        }
        Ok(values)
    }

    /// The address as one line of the JSON log, for collectors that read standard output line by line.
    fn line(&self) -> Result<String> {
        let members = serde_json::to_value(self).doing("print the address")?;
        let text = format!("license-server {} listens on {}", self.version, self.url);
        Ok(logging::start_line(&text, &members))
    }
}
