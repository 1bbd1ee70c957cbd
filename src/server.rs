//! Puts the house together: state, doors, the front, and what happens from the start to the stop.

mod reach;
mod signals;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rocket::figment::Figment;
use rocket::figment::providers::Serialized;
use rocket::local::asynchronous::Client;
use rocket::shield::Shield;
use rocket::{Build, Rocket, Route};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::admins::panel::TotpRequired;
use crate::admins::{self, SessionLifetime, Setup};
use crate::backups::{self, BackupDir};
use crate::client_config::{self, ProgramSettingsCache};
use crate::clock::{Belief, Clock, SystemClock, TrustedClock, UnixMs};
use crate::config::{Config, LogFormat, Synchronous, TlsMode};
use crate::console;
use crate::db::{self, Db};
use crate::error::{Doing, Error, Result};
use crate::front::{Answers, ConnectionLimit, Front, Limits, Plain, Proxies, RocketBridge};
use crate::handshake::{self, Handshakes};
use crate::i18n::Catalog;
use crate::integrate::panel::{Authority, PublicEndpoint};
use crate::jobs::{self, Work};
use crate::logging;
use crate::metrics::RefusalCounter;
use crate::monitor;
use crate::overview::panel::Exposure;
use crate::security::data_folder;
use crate::security::egress::{self, Egress};
use crate::security::password::Hasher;
use crate::security::rate_limit::{Limiter, Quota, Rule};
use crate::security::run_as;
use crate::security::signing::Signer;
use crate::sessions::client::StartLimits;
use crate::sessions::{self, LiveSessions};
use crate::signing_keys;
use crate::tls::{self, Certificates, Trusted};
use crate::web::form::OwnPages;
use crate::web::page::{self, Pages};
use crate::{
    audit, customers, devices, integrate, licenses, overview, releases, server_state, web,
};

pub use reach::obstacles;
pub use signals::Caught;

/// For the last write of a stop, and for closing the file: with the longest `shutdown_grace` of 4 s the
/// process ends within 5.
const FINISH: Duration = Duration::from_millis(400);
const CLOSE: Duration = Duration::from_millis(400);

/// Longest sweep that is reckoned with.
const SWEEP_TAKES: Duration = Duration::from_secs(30);

/// What every request may need.
pub struct State {
    /// The file.
    pub db: Db,
    /// The date.
    pub calendar: TrustedClock,
    /// Who is alive.
    pub live: Arc<LiveSessions>,
    /// What programs are held to.
    pub current: Arc<ProgramSettingsCache>,
    /// The texts.
    pub catalog: Catalog,
    /// What is said of starts.
    pub starting: StartLimits,
    /// Who may ask for `/health` and `/metrics`.
    pub watchers: monitor::Networks,
    /// How long logins last.
    pub lasting: SessionLifetime,
    /// Whether a second factor is demanded.
    pub totp_required: TotpRequired,
    /// What checks passwords.
    pub hasher: Hasher,
    /// Whether the first owner may still be made by link.
    pub setup: Arc<Setup>,
    /// The pages.
    pub pages: Pages,
    /// Where backups are kept.
    pub shelf: BackupDir,
    /// How often programs were refused.
    pub tally: Arc<RefusalCounter>,
    /// How others find it.
    pub outside: Exposure,
    /// Who called how often.
    pub limiter: Arc<Limiter>,
    /// Sites.
    pub handshakes: Arc<Handshakes>,
    /// What leases are signed with.
    pub signer: Arc<Signer>,
    /// How clients reach it.
    pub reached: PublicEndpoint,
    /// How browsers reach it, where the operator says so.
    pub public_url: Option<String>,
}

/// Rocket with every door. It never listens: the front asks it for answers.
pub fn rocket(state: State) -> Rocket<Build> {
    let memory = overview::InMemory {
        live: state.live.clone(),
        courses: Arc::default(),
        tally: state.tally.clone(),
    };
    rocket::custom(quiet())
        .manage(state.db)
        .manage(state.calendar)
        .manage(state.live)
        .manage(state.current)
        .manage(state.catalog)
        .manage(state.starting.quota.clone())
        .manage(state.starting)
        .manage(state.watchers)
        .manage(state.lasting)
        .manage(state.totp_required)
        .manage(state.hasher)
        .manage(state.setup)
        .manage(state.pages)
        .manage(state.shelf)
        .manage(memory)
        .manage(state.tally)
        .manage(state.outside)
        .manage(state.limiter)
        .manage(state.handshakes)
        .manage(state.signer)
        .manage(OwnPages::new(state.public_url.as_deref()))
        .manage(state.reached)
        .attach(Shield::new()) // An empty one: the front sets the headers, for its own answers too.
        .mount("/", monitor::routes())
        .mount("/", client_config::site::routes())
        .mount("/api/site", handshake::site::routes())
        .mount("/api/license", client_config::client::routes())
        .mount("/api/license", devices::client::routes())
        .mount("/api/license", sessions::client::routes())
        .mount("/lizenzserver", panel())
        .register("/", web::reply::catchers())
        .register("/lizenzserver", web::html::catchers())
}

/// Every door for administrators in a browser.
pub fn panel() -> Vec<Route> {
    [
        web::assets::routes(),
        admins::panel::routes(),
        overview::panel::routes(),
        client_config::panel::routes(),
        sessions::panel::routes(),
        licenses::panel::routes(),
        devices::panel::routes(),
        customers::panel::routes(),
        releases::panel::routes(),
        handshake::panel::routes(),
        audit::panel::routes(),
        backups::panel::routes(),
        integrate::panel::routes(),
    ]
    .concat()
}

/// Rocket's own settings: it neither logs, nor names itself, nor believes anybody about addresses.
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

/// How [`Config`] say that the file is to be opened.
pub fn database(settings: &Config) -> db::Options {
    let synchronous = match settings.database.synchronous {
        Synchronous::Full => db::Synchronous::Full,
        Synchronous::Normal => db::Synchronous::Normal,
    };
    db::Options {
        path: settings.database.path.clone(),
        synchronous,
        read_connections: settings.database.read_connections,
    }
}

/// What a command is told that needs a database where there is none.
pub fn no_database(path: &Path) -> Error {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Error::State(format!(
        "there is no database at {}: run this where it is, or name its --config; where there has been one, mount its \
         disk, or bring it back with `license-server restore FILE`; on a new machine `license-server serve` makes one",
        place.display(),
    ))
}

/// Where [`Config`] say that backups are kept; those made by hand have a place in any case.
pub fn shelf(settings: &Config) -> BackupDir {
    let backup = &settings.backup;
    let hours = Duration::from_hours(u64::from(backup.every_hours));
    let every = backup.directory.as_ref().map(|_| hours);
    let beside = || settings.data_folder().join("backups");
    let folder = backup.directory.clone().unwrap_or_else(beside);
    let source = backups::Source {
        data: settings.data_folder(),
        passphrase_file: backup.passphrase_file.clone(),
    };
    BackupDir::new(folder, backup.keep, every, source)
}

/// How often [`Config`] let one license start sessions.
fn quota(settings: &Config, limiter: &Arc<Limiter>) -> Quota {
    let rule = Rule {
        per_minute: settings.sessions.starts_per_minute,
        burst: settings.sessions.starts_burst,
    };
    Quota::new(limiter.clone(), rule)
}

/// A server whose file is open and whose certificate is there, and that does not serve yet.
pub struct Server {
    settings: Config,
    /// The file.
    pub db: Db,
    /// The date.
    pub calendar: TrustedClock,
    live: Arc<LiveSessions>,
    tally: Arc<RefusalCounter>,
    current: Arc<ProgramSettingsCache>,
    limiter: Arc<Limiter>,
    handshakes: Arc<Handshakes>,
    signer: Arc<Signer>,
    certificates: Option<Arc<Certificates>>,
    setup: Arc<Setup>,
    first: bool,
}

/// What the process was started with, beside the settings.
#[derive(Debug)]
pub struct Process {
    /// The settings' file, as the command line names it.
    pub config: Option<PathBuf>,
    /// Signals that do not end it.
    pub signals: Caught,
}

/// Where a server can be reached.
#[derive(Clone, Debug, Serialize)]
pub struct Listening {
    version: &'static str,
    /// `https://…`
    pub url: String,
    /// The file that clients must trust, for a self-signed certificate.
    pub ca: Option<PathBuf>,
    /// Whether the database is new.
    first: bool,
    /// Where the first owner is made, as long as there is nobody; for half an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    setup: Option<String>,
    /// What to do where that link does not lead here.
    #[serde(skip_serializing_if = "Option::is_none")]
    setup_note: Option<String>,
}

impl Server {
    /// Opens the file and the certificate; makes what is missing.
    ///
    /// # Errors
    /// [`Error::State`] or [`Error::Usage`], saying what to do.
    pub fn open(settings: Config) -> Result<Self> {
        data_folder::secure(&settings.database.path)?;
        let first = !settings.database.path.exists();
        let db = Db::open_as_server(&database(&settings))?;
        let high_water = db.read_blocking(server_state::load)?.high_water;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let calendar = TrustedClock::start(clock, high_water, db.believed_boot()?);
        let now = calendar.now().wall;
        let trusted = db.read_blocking(signing_keys::trusted_authority)?;
        let own = settings.tls.mode == TlsMode::SelfSigned;
        let no_authority = !own && tls::authority_of(&settings.data_folder())?.is_none();
        if begin(&db, no_authority, now)? {
            db.note_seen(now);
            db.note_boot(calendar.believed_boot());
        }
        let signer = Signer::new(signing_keys::open(&db, &settings.data_folder(), now)?);
        let signer = Arc::new(signer);
        let live = Arc::new(LiveSessions::new(now, calendar.pauses()));
        let certificates = certificates(&settings, &db, trusted)?.map(Arc::new);
        let (current, limiter) = (
            Arc::<ProgramSettingsCache>::default(),
            Arc::<Limiter>::default(),
        );
        let parts = handshake::Parts {
            db: db.clone(),
            calendar: calendar.clone(),
            current: current.clone(),
            limiter: limiter.clone(),
            egress: egress(&settings)?,
            signer: signer.clone(),
            callback_path: settings.handshake.callback_path.clone(),
            grace: Duration::from_hours(24) * settings.handshake.transfer_grace_days,
        };
        Ok(Self {
            settings,
            db,
            calendar,
            live,
            tally: Arc::default(),
            current,
            limiter,
            handshakes: Arc::new(Handshakes::new(parts)),
            signer,
            certificates,
            setup: Arc::default(),
            first,
        })
    }

    /// Where it will listen.
    pub fn listening(&self) -> Listening {
        let server = &self.settings.server;
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let host = match server.address {
            any if any.is_unspecified() => "localhost".to_owned(),
            IpAddr::V6(v6) => format!("[{v6}]"),
            IpAddr::V4(v4) => v4.to_string(),
        };
        Listening {
            version: env!("CARGO_PKG_VERSION"),
            url: format!("{scheme}://{host}:{}", server.port),
            ca: self
                .certificates
                .as_ref()
                .and_then(|certificates| certificates.authority_file()),
            first: self.first,
            setup: None,
            setup_note: None,
        }
    }

    /// Opens the set-up, where there is no administrator; the link to it.
    fn open_setup(&self, url: &str) -> Result<Option<String>> {
        if self.db.read_blocking(admins::any)? {
            return Ok(None);
        }
        let token = self.setup.open(self.calendar.now().tick)?;
        let base = self.settings.public_url();
        let base = base.as_deref().unwrap_or(url);
        let token = token.reveal();
        Ok(Some(format!("{base}/lizenzserver/setup?token={token}")))
    }

    /// Says what will keep clients away, so that it is read before they complain.
    fn warn(&self) -> Result<()> {
        let mut told = reach::obstacles(&self.settings)?;
        if let Some(certificates) = &self.certificates {
            told.extend(certificates.flaws(&self.settings, system_now())?);
            told.extend(certificates.hint()?.map(str::to_owned));
        }
        for told in told {
            log::warn!("{told}");
        }
        Ok(())
    }

    /// How long logins last.
    fn lasting(&self) -> SessionLifetime {
        let panel = &self.settings.panel;
        SessionLifetime {
            whole: Duration::from_hours(u64::from(panel.session_hours)),
            idle: Duration::from_mins(u64::from(panel.idle_minutes)),
        }
    }

    /// Serves until SIGTERM or SIGINT, or until `beside` is done; calls `ready` once it can be reached.
    ///
    /// # Errors
    /// When the address cannot be listened on.
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
        if self.settings.server.workers > 0 {
            builder.worker_threads(self.settings.server.workers);
        }
        let runtime = builder
            .thread_name("serve")
            .enable_all()
            .build()
            .doing("start the runtime")?;
        let db = self.db.clone();
        let _watch = self.calendar.watch()?;
        let Process { config, signals } = process;
        let files = signals::Files {
            certificates: self.certificates.clone(),
            settings: config,
        };
        runtime.spawn(signals.obey(files));
        let served = runtime.block_on(self.serve(ready, beside));
        // A read that still runs is not waited for: nobody hears its answer any more.
        runtime.shutdown_background();
        db.close(CLOSE);
        served
    }

    /// How clients reach it: as the operator says, else where it listens.
    fn reached(&self) -> Result<PublicEndpoint> {
        let listening = self.listening();
        let public = self.settings.public_url();
        let read = |file: PathBuf| -> Result<Authority> {
            let pem = std::fs::read_to_string(&file).doing("read the authority's certificate")?;
            let file = file.display().to_string();
            Ok(Authority { file, pem })
        };
        Ok(PublicEndpoint {
            public: public.is_some(),
            url: public.unwrap_or(listening.url),
            authority: listening.ca.map(read).transpose()?,
            callback_path: self.settings.handshake.callback_path.clone(),
            callback_port: self.settings.handshake.port,
        })
    }

    /// Everything that takes a request and answers it.
    async fn front(&self) -> Result<Front> {
        let server = &self.settings.server;
        let listener = listen(SocketAddr::new(server.address, server.port)).await?;
        let tls = self.certificates.as_ref();
        let tls = tls
            .map(|certificates| certificates.server_config())
            .transpose()?;
        let state = State {
            db: self.db.clone(),
            calendar: self.calendar.clone(),
            live: self.live.clone(),
            current: self.current.clone(),
            limiter: self.limiter.clone(),
            handshakes: self.handshakes.clone(),
            signer: self.signer.clone(),
            catalog: Catalog::load(self.settings.panel.default_language)?,
            starting: StartLimits {
                auto_activate: self.settings.sessions.auto_activate,
                quota: quota(&self.settings, &self.limiter),
            },
            watchers: monitor::Networks::new(
                server.monitor_networks.clone(),
                &server.trusted_proxies,
            ),
            lasting: self.lasting(),
            totp_required: TotpRequired(self.settings.panel.require_totp),
            hasher: Hasher::new()?,
            setup: self.setup.clone(),
            pages: Pages::default(),
            shelf: shelf(&self.settings),
            tally: self.tally.clone(),
            outside: Exposure {
                only_here: self.settings.tls.mode == TlsMode::SelfSigned
                    && server.public_url.is_none(),
                certificates: self.certificates.clone(),
            },
            reached: self.reached()?,
            public_url: self.settings.public_url(),
        };
        let client = Client::untracked(rocket(state)).await;
        let client = client.map_err(|error| Error::Internal {
            doing: "put the server together",
            source: error.kind().to_string().into(),
        })?;
        Ok(Front {
            listener,
            tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
            strict: matches!(self.settings.tls.mode, TlsMode::Acme | TlsMode::Files),
            answers: Answers::RocketBridge(RocketBridge::new(client)),
            proxies: Proxies::new(server.trusted_proxies.clone()),
            room: ConnectionLimit::make()?,
            limits: Limits::default(),
        })
    }

    /// Everything that takes connections: with TLS, and plain HTTP beside it where an authority looks there.
    async fn fronts(&self) -> Result<(Front, Option<Front>)> {
        let mut front = self.front().await?;
        let (server, port) = (&self.settings.server, self.settings.tls.http_port);
        let certificates = self.certificates.as_ref();
        let challenges = certificates.and_then(|certificates| certificates.challenges());
        let (Some(challenges), Some(base)) = (challenges, self.settings.public_url()) else {
            return Ok((front, None));
        };
        if port == 0 {
            return Ok((front, None));
        }
        let listener = listen_plain(SocketAddr::new(server.address, port)).await?;
        let (rest, room) = front.room.divided();
        front.room = rest;
        let plain = Front {
            listener,
            tls: None,
            strict: false,
            answers: Answers::Plain(Plain { challenges, base }),
            proxies: front.proxies.clone(),
            room,
            limits: front.limits,
        };
        Ok((front, Some(plain)))
    }

    /// Where nobody can log in yet, says how the first person gets in.
    fn invite(&self, listening: &mut Listening) -> Result<()> {
        listening.setup = self.open_setup(&listening.url)?;
        let note = || reach::from_elsewhere(&self.settings);
        listening.setup_note = listening.setup.is_some().then(note).flatten();
        Ok(())
    }

    async fn serve<F>(self, ready: impl FnOnce(&Listening) -> Result<()>, beside: F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let mut listening = self.listening();
        let mut signals = Signals::listen()?;
        let (front, plain) = self.fronts().await?;
        self.invite(&mut listening)?;
        self.warn()?;
        let lasting = self.lasting();
        let Self {
            settings,
            db,
            calendar,
            live,
            tally,
            current,
            handshakes,
            signer,
            certificates,
            ..
        } = self;
        let (stop, stopped) = watch::channel(false);
        let work = Work {
            db,
            live,
            calendar,
            handshakes,
            signer,
            current,
            certificates,
            shelf: shelf(&settings),
            tally,
            lasting,
            proxies: front.proxies.clone(),
        };
        let mut jobs = jobs::start(&work, &settings, &stopped);
        let grace = Duration::from_secs(u64::from(settings.server.shutdown_grace));
        let plain = plain.map(|plain| tokio::spawn(plain.serve(stopped.clone(), grace)));
        let serving = tokio::spawn(front.serve(stopped, grace));
        let told = ready(&listening);
        let beside = async { if told.is_ok() { beside.await } else { told } };
        let ended = tokio::select! {
            name = signals.next() => {
                log::info!("{name}: no more requests are taken, those under way are finished");
                Ok(())
            }
            ended = beside => ended,
            // It has said why.
            () = work.db.disk_failure() => Err(Error::State(
                "the disk failed, and nothing more is written: see the line before this one; the next start \
                 reads the WAL again"
                    .to_owned(),
            )),
            // None of them ends by itself: without heartbeats in the file we must not say yes to them.
            _ = jobs.join_next() => Err(Error::Internal {
                doing: "go on",
                source: "a job broke off".into(),
            }),
        };
        stop.send_replace(true);
        tokio::spawn(async move {
            let name = signals.next().await;
            log::warn!("{name} again: this is the end");
            std::process::exit(1);
        });
        finish([serving].into_iter().chain(plain), jobs, &work).await;
        ended
    }
}

/// Waits until nothing is under way, and writes what is not in the database yet.
async fn finish(
    serving: impl Iterator<Item = JoinHandle<Result<()>>>,
    mut jobs: JoinSet<()>,
    work: &Work,
) {
    for serving in serving {
        match serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("{error}"),
            Err(error) => log::error!("the front broke off: {error}"),
        }
    }
    while jobs.join_next().await.is_some() {}
    if timeout(FINISH, work.finish()).await.is_err() {
        log::warn!("the database takes no write: the last heartbeats are not in it");
    }
}

/// Writes down that a server starts at `now`. Where nothing can be written, a database that was served before
/// is served all the same, and it is written down as soon as that can be. Whether it is written.
fn begin(db: &Db, no_authority: bool, now: UnixMs) -> Result<bool> {
    db.write_first(move |tx| {
        signing_keys::begin_authority(tx, no_authority)?;
        server_state::begin(tx, now)?;
        client_config::ensure(tx, now)
    })?;
    match db.write_blocking("server_state.begin", |_| Ok(())) {
        Err(Error::Unavailable { .. }) if db.read_blocking(client_config::is_there)? => Ok(false),
        begun => begun.map(|()| true),
    }
}

/// The certificate that the settings ask for. An authority of our own is remembered: programs may trust it from now on.
fn certificates(settings: &Config, db: &Db, trusted: Trusted) -> Result<Option<Certificates>> {
    let tls = &settings.tls;
    if let (TlsMode::Files, Some(chain), Some(key)) = (tls.mode, &tls.certificate, &tls.key)
        && let Some(told) = data_folder::of_pair(chain, key)?
    {
        log::warn!("{told}");
    }
    let certificates = Certificates::open(settings, trusted, system_now())?;
    if tls.mode == TlsMode::SelfSigned
        && let Some(key) = tls::authority_of(&settings.data_folder())?
        && trusted != Trusted::Key(key)
    {
        db.write_blocking("keys.remember_authority", move |tx| {
            signing_keys::remember_authority(tx, &key)
        })?;
    }
    Ok(certificates)
}

/// The way out to sites, as the settings have it.
fn egress(settings: &Config) -> Result<Egress> {
    let handshake = &settings.handshake;
    let rules = egress::Rules {
        allow_networks: handshake.allow_networks.clone(),
        port: handshake.port,
    };
    Egress::open(rules, handshake.extra_root.as_deref())
}

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::State(format!(
            "cannot listen on {address} ({error}): choose another [server] port"
        ))
    })
}

async fn listen_plain(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Error::State(format!(
            "cannot listen on {address} ({error}), where the authority looks for a proof: free that port and \
             let this user have it (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE), or set tls.http_port = 0 \
             to prove by port 443 alone"
        ))
    })
}

/// Serves, and prints where.
///
/// # Errors
/// As [`Server::open`] and [`Server::run`].
pub fn serve(settings: Config, process: Process, json: bool) -> Result<()> {
    let lines = settings.log.format;
    run_as::become_owner(&settings.data_folder())?;
    let server = Server::open(settings)?;
    let ready = |listening: &Listening| match lines {
        _ if json => console::json(&serde_json::json!(listening)),
        LogFormat::Json => console::text(&listening.line()?),
        LogFormat::Text => console::text(&page::text("server/listening.txt.tera", listening)?),
    };
    server.run(process, ready, std::future::pending())
}

impl Listening {
    /// The same as one line of the log in JSON, for whoever collects standard output line by line.
    fn line(&self) -> Result<String> {
        let members = serde_json::to_value(self).doing("write where it listens")?;
        let told = format!("license-server {} listens on {}", self.version, self.url);
        Ok(logging::start_line(&told, &members))
    }
}

/// SIGTERM and SIGINT, which are ours.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).doing("listen for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).doing("listen for SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The date for a command: it never goes back below what the file has seen, and is the server's where one
/// runs.
///
/// # Errors
/// When the file or its lock cannot be read.
pub fn calendar(db: &Db, settings: &Config) -> Result<TrustedClock> {
    let high_water = db.read_blocking(server_state::load)?.high_water;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    if db.is_served()? {
        // Each sweep writes the date down; a busy one may take a while.
        let age = Duration::from_secs(u64::from(settings.sessions.cleanup_interval)) + SWEEP_TAKES;
        return Ok(TrustedClock::beside(clock, high_water, age));
    }
    Ok(TrustedClock::start(clock, high_water, db.believed_boot()?))
}

/// What a command has to say aloud before it does anything, where it does not go by the machine's date.
pub fn doubt(calendar: &TrustedClock) -> Option<String> {
    let (says, goes_by) = (calendar.machine().rfc3339(), calendar.now().wall.rfc3339());
    let why = match calendar.belief() {
        Belief::Same => return None,
        Belief::Ahead => {
            "which is far ahead of the last date in the database, and nothing vouches for it"
        }
        Belief::Behind => "which is behind the last date in the database",
    };
    Some(format!(
        "the machine's clock says {says}, {why}: this command goes by {goes_by}, and so does what it writes; if the \
         clock is wrong, set it; if it is right, stop the server and run `license-server check --accept-clock`"
    ))
}

/// What the machine's clock says, for a line of the log or the name of a file.
pub fn system_now() -> UnixMs {
    SystemClock::default().wall()
}
