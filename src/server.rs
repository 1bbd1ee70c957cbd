//! Assembles the server: shared state, routes, the front, and the sequence from start to stop.

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
use crate::admins::{self, SessionLifetime, SetupLink};
use crate::backups::{self, BackupDir};
use crate::clock::{Clock, ClockState, SystemClock, TrustedClock, UnixMs};
use crate::config::{Config, LogFormat, Synchronous, TlsMode};
use crate::console;
use crate::db::{self, Db};
use crate::error::{Doing, Error, Result};
use crate::front::{Backend, ConnectionLimit, Front, Limits, PlainHttp, Proxies, RocketBridge};
use crate::handshake::{self, Handshakes};
use crate::i18n::Catalog;
use crate::integrate::panel::{Authority, PublicEndpoint};
use crate::jobs::{self, JobContext};
use crate::logging;
use crate::metrics::RefusalCounter;
use crate::monitor;
use crate::net::egress::{self, Egress};
use crate::overview::panel::Exposure;
use crate::products::{self, ProgramSettingsCache};
use crate::security::data_folder;
use crate::security::password::Hasher;
use crate::security::rate_limit::{Limiter, Quota, Rule};
use crate::security::run_as;
use crate::security::signing::Signer;
use crate::sessions::client::StartLimits;
use crate::sessions::{self, LiveSessions};
use crate::signing_keys;
use crate::tls::{self, Certificates, TrustedAuthority};
use crate::web::form::AllowedOrigins;
use crate::web::page::{self, Pages};
use crate::{
    audit, customers, devices, integrate, licenses, overview, releases, server_state, verification,
    web,
};

pub use reach::reachability_problems;
pub use signals::NonFatalSignals;

/// Limits for the last write of a stop, and for closing the database: with the longest `shutdown_grace` of
/// 4 s the process ends within 5 s.
const FINISH: Duration = Duration::from_millis(400);
const CLOSE: Duration = Duration::from_millis(400);

/// Upper bound for the duration of a sweep.
const SWEEP_TAKES: Duration = Duration::from_secs(30);

/// What handlers share; each field becomes managed state of Rocket.
pub struct AppState {
    /// The database.
    pub db: Db,
    /// The clock whose date never goes back.
    pub clock: TrustedClock,
    /// The last heartbeat of each running session.
    pub live_sessions: Arc<LiveSessions>,
    /// Product settings, as programs get them.
    pub program_settings: Arc<ProgramSettingsCache>,
    /// The texts in both languages.
    pub catalog: Catalog,
    /// Limits on starting sessions.
    pub start_limits: StartLimits,
    /// Networks that may read `/health` and `/metrics`.
    pub monitor_networks: monitor::Networks,
    /// When logins of administrators expire.
    pub login_lifetime: SessionLifetime,
    /// Whether every administrator needs a second factor.
    pub totp_required: TotpRequired,
    /// Hashes and checks passwords.
    pub hasher: Hasher,
    /// The one-time link with which the first owner is created.
    pub setup: Arc<SetupLink>,
    /// Renders the panel's pages.
    pub pages: Pages,
    /// The backup folder.
    pub backup_dir: BackupDir,
    /// Counts refused requests by code.
    pub refusals: Arc<RefusalCounter>,
    /// How visible the server is from outside, for the dashboard.
    pub exposure: Exposure,
    /// Rate limits by source address.
    pub limiter: Arc<Limiter>,
    /// Handshakes with customers' sites.
    pub handshakes: Arc<Handshakes>,
    /// Signs leases and responses.
    pub signer: Arc<Signer>,
    /// The address at which clients reach the server.
    pub endpoint: PublicEndpoint,
    /// The address that browsers use, if the settings name one.
    pub public_url: Option<String>,
}

/// Rocket with every route. It never listens itself: the front passes requests to it.
pub fn rocket(state: AppState) -> Rocket<Build> {
    let memory = overview::InMemory {
        live: state.live_sessions.clone(),
        usage: Arc::default(),
        refusals: state.refusals.clone(),
    };
    rocket::custom(quiet())
        .manage(state.db)
        .manage(state.clock)
        .manage(state.live_sessions)
        .manage(state.program_settings)
        .manage(state.catalog)
        .manage(state.start_limits.quota.clone())
        .manage(state.start_limits)
        .manage(state.monitor_networks)
        .manage(state.login_lifetime)
        .manage(state.totp_required)
        .manage(state.hasher)
        .manage(state.setup)
        .manage(state.pages)
        .manage(state.backup_dir)
        .manage(memory)
        .manage(state.refusals)
        .manage(state.exposure)
        .manage(state.limiter)
        .manage(state.handshakes)
        .manage(state.signer)
        .manage(AllowedOrigins::new(state.public_url.as_deref()))
        .manage(state.endpoint)
        .attach(Shield::new()) // Without policies: the front sets the headers, on its own responses too.
        .mount("/", monitor::routes())
        .mount("/", products::site::routes())
        .mount("/api/site", handshake::site::routes())
        .mount("/api/license", products::client::routes())
        .mount("/api/license", devices::client::routes())
        .mount("/api/license", sessions::client::routes())
        .mount("/api/license", verification::client::routes())
        .mount("/lizenzserver", panel())
        .register("/", web::reply::catchers())
        .register("/lizenzserver", web::html::catchers())
}

/// Every route of the panel.
pub fn panel() -> Vec<Route> {
    [
        web::assets::routes(),
        admins::panel::routes(),
        overview::panel::routes(),
        products::panel::routes(),
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

/// The options with which to open the database.
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

/// The error of a command that needs a database when none exists at `path`.
pub fn no_database(path: &Path) -> Error {
    let place = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Error::State(format!(
        "there is no database at {}: run this where it is, or name its --config; where there has been one, mount its \
         disk, or bring it back with `license-server restore FILE`; on a new machine `license-server serve` makes one",
        place.display(),
    ))
}

/// The backup folder; `backups` in the data folder if the settings name none, for backups made by hand.
pub fn backup_dir(settings: &Config) -> BackupDir {
    let backup = &settings.backup;
    let hours = Duration::from_hours(u64::from(backup.every_hours));
    let every = backup.directory.as_ref().map(|_| hours);
    let default_folder = || settings.data_folder().join("backups");
    let folder = backup.directory.clone().unwrap_or_else(default_folder);
    let source = backups::BackupSource {
        data: settings.data_folder(),
        passphrase_file: backup.passphrase_file.clone(),
    };
    BackupDir::new(folder, backup.keep, every, source)
}

/// The limit on starts per license.
fn start_quota(settings: &Config, limiter: &Arc<Limiter>) -> Quota {
    let rule = Rule {
        per_minute: settings.sessions.starts_per_minute,
        burst: settings.sessions.starts_burst,
    };
    Quota::new(limiter.clone(), rule)
}

/// A server that is ready to serve: database open, certificate loaded, not listening yet.
pub struct Server {
    settings: Config,
    /// The database.
    pub db: Db,
    /// The clock whose date never goes back.
    pub clock: TrustedClock,
    live_sessions: Arc<LiveSessions>,
    refusals: Arc<RefusalCounter>,
    program_settings: Arc<ProgramSettingsCache>,
    limiter: Arc<Limiter>,
    handshakes: Arc<Handshakes>,
    signer: Arc<Signer>,
    certificates: Option<Arc<Certificates>>,
    setup: Arc<SetupLink>,
    /// Whether the database was created by this start.
    first: bool,
}

/// What the process was started with, besides the settings.
#[derive(Debug)]
pub struct Process {
    /// The settings file that the command line names.
    pub config: Option<PathBuf>,
    /// Signals that do not end the process.
    pub signals: NonFatalSignals,
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
    /// [`Error::State`] or [`Error::Usage`], with what to do.
    pub fn open(settings: Config) -> Result<Self> {
        data_folder::secure(&settings.database.path)?;
        let first = !settings.database.path.exists();
        let db = Db::open_as_server(&database(&settings))?;
        let high_water = db.read_blocking(server_state::load)?.high_water;
        let system_clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let clock = TrustedClock::start(system_clock, high_water, db.trusted_boot()?);
        let now = clock.now().wall;
        let trusted = db.read_blocking(signing_keys::trusted_authority)?;
        let self_signed = settings.tls.mode == TlsMode::SelfSigned;
        let no_authority = !self_signed && tls::authority_key(&settings.data_folder())?.is_none();
        if record_start(&db, no_authority, now)? {
            db.note_latest_date(now);
            db.note_trusted_boot(clock.trusted_boot());
        }
        let signer = Signer::new(signing_keys::open(&db, &settings.data_folder(), now)?);
        let signer = Arc::new(signer);
        let live_sessions = Arc::new(LiveSessions::new(now, clock.pauses()));
        let certificates = certificates(&settings, &db, trusted)?.map(Arc::new);
        let (program_settings, limiter) = (
            Arc::<ProgramSettingsCache>::default(),
            Arc::<Limiter>::default(),
        );
        let parts = handshake::Dependencies {
            db: db.clone(),
            trusted_clock: clock.clone(),
            program_settings: program_settings.clone(),
            limiter: limiter.clone(),
            egress: egress(&settings)?,
            signer: signer.clone(),
            callback_path: settings.handshake.callback_path.clone(),
            grace: Duration::from_hours(24) * settings.handshake.transfer_grace_days,
        };
        Ok(Self {
            settings,
            db,
            clock,
            live_sessions,
            refusals: Arc::default(),
            program_settings,
            limiter,
            handshakes: Arc::new(Handshakes::new(parts)),
            signer,
            certificates,
            setup: Arc::default(),
            first,
        })
    }

    /// The address at which it will listen.
    pub fn listening(&self) -> Listening {
        let server = &self.settings.server;
        let scheme = if self.certificates.is_some() {
            "https"
        } else {
            "http"
        };
        let host = match server.address {
            unspecified if unspecified.is_unspecified() => "localhost".to_owned(),
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

    /// Opens the set-up if no administrator exists, and returns the link to it.
    fn open_setup(&self, url: &str) -> Result<Option<String>> {
        if self.db.read_blocking(admins::any_exists)? {
            return Ok(None);
        }
        let token = self.setup.create_link(self.clock.now().tick)?;
        let base = self.settings.public_url();
        let base = base.as_deref().unwrap_or(url);
        let token = token.reveal();
        Ok(Some(format!("{base}/lizenzserver/setup?token={token}")))
    }

    /// Logs what will keep clients from connecting, so that the operator reads it before they complain.
    fn warn(&self) -> Result<()> {
        let mut warnings = reach::reachability_problems(&self.settings)?;
        if let Some(certificates) = &self.certificates {
            warnings.extend(certificates.problems(&self.settings, system_now())?);
            warnings.extend(certificates.chain_warning()?.map(str::to_owned));
        }
        for warning in warnings {
            log::warn!("{warning}");
        }
        Ok(())
    }

    /// When logins of administrators expire.
    fn login_lifetime(&self) -> SessionLifetime {
        let panel = &self.settings.panel;
        SessionLifetime {
            absolute: Duration::from_hours(u64::from(panel.session_hours)),
            idle: Duration::from_mins(u64::from(panel.idle_minutes)),
        }
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
        if self.settings.server.workers > 0 {
            builder.worker_threads(self.settings.server.workers);
        }
        let runtime = builder
            .thread_name("serve")
            .enable_all()
            .build()
            .doing("start the runtime")?;
        let db = self.db.clone();
        let _watch = self.clock.detect_pauses()?;
        let Process { config, signals } = process;
        let files = signals::Files {
            certificates: self.certificates.clone(),
            settings: config,
        };
        runtime.spawn(signals.handle(files));
        let served = runtime.block_on(self.serve(ready, beside));
        // A read that still runs is not awaited: its connection is closed already.
        runtime.shutdown_background();
        db.close(CLOSE);
        served
    }

    /// The address that clients use: `public_url`, otherwise the address on which it listens.
    fn endpoint(&self) -> Result<PublicEndpoint> {
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

    /// The front with Rocket behind it, listening.
    async fn front(&self) -> Result<Front> {
        let server = &self.settings.server;
        let listener = listen(SocketAddr::new(server.address, server.port)).await?;
        let tls = self.certificates.as_ref();
        let tls = tls
            .map(|certificates| certificates.server_config())
            .transpose()?;
        let state = AppState {
            db: self.db.clone(),
            clock: self.clock.clone(),
            live_sessions: self.live_sessions.clone(),
            program_settings: self.program_settings.clone(),
            limiter: self.limiter.clone(),
            handshakes: self.handshakes.clone(),
            signer: self.signer.clone(),
            catalog: Catalog::load(self.settings.panel.default_language)?,
            start_limits: StartLimits {
                auto_activate: self.settings.sessions.auto_activate,
                quota: start_quota(&self.settings, &self.limiter),
            },
            monitor_networks: monitor::Networks::new(
                server.monitor_networks.clone(),
                &server.trusted_proxies,
            ),
            login_lifetime: self.login_lifetime(),
            totp_required: TotpRequired(self.settings.panel.require_totp),
            hasher: Hasher::new()?,
            setup: self.setup.clone(),
            pages: Pages::default(),
            backup_dir: backup_dir(&self.settings),
            refusals: self.refusals.clone(),
            exposure: Exposure {
                only_here: self.settings.tls.mode == TlsMode::SelfSigned
                    && server.public_url.is_none(),
                certificates: self.certificates.clone(),
            },
            endpoint: self.endpoint()?,
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
            hsts: matches!(self.settings.tls.mode, TlsMode::Acme | TlsMode::Files),
            backend: Backend::RocketBridge(RocketBridge::new(client)),
            proxies: Proxies::new(server.trusted_proxies.clone()),
            max_connections: ConnectionLimit::from_system()?,
            limits: Limits::default(),
        })
    }

    /// The main front, and one for plain HTTP if a certificate authority validates over it.
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
        let note = || reach::setup_link_note(&self.settings);
        listening.setup_note = listening.setup.is_some().then(note).flatten();
        Ok(())
    }

    async fn serve<F>(self, ready: impl FnOnce(&Listening) -> Result<()>, beside: F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let mut listening = self.listening();
        let mut signals = StopSignals::listen()?;
        let (front, plain) = self.fronts().await?;
        self.add_setup_link(&mut listening)?;
        self.warn()?;
        let login_lifetime = self.login_lifetime();
        let Self {
            settings,
            db,
            clock,
            live_sessions,
            refusals,
            program_settings,
            handshakes,
            signer,
            certificates,
            ..
        } = self;
        let (stop, stopped) = watch::channel(false);
        let context = JobContext {
            db,
            live_sessions,
            clock,
            handshakes,
            signer,
            program_settings,
            certificates,
            backup_dir: backup_dir(&settings),
            refusals,
            login_lifetime,
            proxies: front.proxies.clone(),
        };
        let mut jobs = jobs::start(&context, &settings, &stopped);
        let grace = Duration::from_secs(u64::from(settings.server.shutdown_grace));
        let plain = plain.map(|plain| tokio::spawn(plain.serve(stopped.clone(), grace)));
        let serving = tokio::spawn(front.serve(stopped, grace));
        let announced = ready(&listening);
        let beside = async {
            if announced.is_ok() {
                beside.await
            } else {
                announced
            }
        };
        let ended = tokio::select! {
            name = signals.next() => {
                log::info!("{name}: no more requests are taken, those under way are finished");
                Ok(())
            }
            ended = beside => ended,
            // `db` has logged the reason.
            () = context.db.disk_failure() => Err(Error::State(
                "the disk failed, and nothing more is written: see the line before this one; the next start \
                 reads the WAL again"
                    .to_owned(),
            )),
            // No job ends by itself. If one does, heartbeats may no longer be written, so the server must not
            // acknowledge any more of them.
            _ = jobs.join_next() => Err(Error::Internal {
                doing: "keep serving",
                source: "a background job ended unexpectedly".into(),
            }),
        };
        stop.send_replace(true);
        tokio::spawn(async move {
            let name = signals.next().await;
            log::warn!("{name} again: exiting at once");
            std::process::exit(1);
        });
        finish([serving].into_iter().chain(plain), jobs, &context).await;
        ended
    }
}

/// Waits until no request is in progress, and writes what is not in the database yet.
async fn finish(
    serving: impl Iterator<Item = JoinHandle<Result<()>>>,
    mut jobs: JoinSet<()>,
    context: &JobContext,
) {
    for serving in serving {
        match serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => log::warn!("{error}"),
            Err(error) => log::error!("the front ended unexpectedly: {error}"),
        }
    }
    while jobs.join_next().await.is_some() {}
    if timeout(FINISH, context.finish()).await.is_err() {
        log::warn!("the database accepts no writes: the last heartbeats are not in it");
    }
}

/// Records that the server starts at `now`, and returns whether that is written. If the database accepts no
/// writes, one that was served before is served anyway; the record follows with the first successful write.
fn record_start(db: &Db, no_authority: bool, now: UnixMs) -> Result<bool> {
    db.write_first(move |tx| {
        signing_keys::record_no_authority(tx, no_authority)?;
        server_state::note_start(tx, now)?;
        products::ensure(tx, now)
    })?;
    match db.write_blocking("server_state.begin", |_| Ok(())) {
        Err(Error::Unavailable { .. }) if db.read_blocking(products::exists)? => Ok(false),
        written => written.map(|()| true),
    }
}

/// The certificate that the settings ask for. The key of the server's own authority is stored in the database,
/// since programs may trust it from now on.
fn certificates(
    settings: &Config,
    db: &Db,
    trusted: TrustedAuthority,
) -> Result<Option<Certificates>> {
    let tls = &settings.tls;
    if let (TlsMode::Files, Some(chain), Some(key)) = (tls.mode, &tls.certificate, &tls.key)
        && let Some(warning) = data_folder::check_certificate_files(chain, key)?
    {
        log::warn!("{warning}");
    }
    let certificates = Certificates::open(settings, trusted, system_now())?;
    if tls.mode == TlsMode::SelfSigned
        && let Some(key) = tls::authority_key(&settings.data_folder())?
        && trusted != TrustedAuthority::Key(key)
    {
        db.write_blocking("keys.remember_authority", move |tx| {
            signing_keys::record_authority(tx, &key)
        })?;
    }
    Ok(certificates)
}

/// The client that calls customers' sites, with the limits of the settings.
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
pub fn serve(settings: Config, process: Process, json: bool) -> Result<()> {
    let format = settings.log.format;
    run_as::become_owner(&settings.data_folder())?;
    let server = Server::open(settings)?;
    let ready = |listening: &Listening| match format {
        _ if json => console::json(&serde_json::json!(listening)),
        LogFormat::Json => console::text(&listening.line()?),
        LogFormat::Text => console::text(&page::text("server/listening.txt.tera", listening)?),
    };
    server.run(process, ready, std::future::pending())
}

impl Listening {
    /// The address as one line of the JSON log, for collectors that read standard output line by line.
    fn line(&self) -> Result<String> {
        let members = serde_json::to_value(self).doing("print the address")?;
        let text = format!("license-server {} listens on {}", self.version, self.url);
        Ok(logging::start_line(&text, &members))
    }
}

/// SIGTERM and SIGINT, which stop the server.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
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

/// The clock of a command: never earlier than the latest date in the database, and that of the server if one
/// runs.
///
/// # Errors
/// If the database or its lock cannot be read.
pub fn command_clock(db: &Db, settings: &Config) -> Result<TrustedClock> {
    let high_water = db.read_blocking(server_state::load)?.high_water;
    let system_clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    if db.is_served()? {
        // Each sweep records the date; a long one delays that.
        let age = Duration::from_secs(u64::from(settings.sessions.cleanup_interval)) + SWEEP_TAKES;
        return Ok(TrustedClock::beside(system_clock, high_water, age));
    }
    Ok(TrustedClock::start(
        system_clock,
        high_water,
        db.trusted_boot()?,
    ))
}

/// The warning that a command prints first if it does not use the system clock's date; `None` if it does.
pub fn clock_warning(clock: &TrustedClock) -> Option<String> {
    let (system, used) = (clock.system_date().rfc3339(), clock.now().wall.rfc3339());
    let why = match clock.clock_state() {
        ClockState::InSync => return None,
        ClockState::Ahead => {
            "far ahead of the last date in the database, and nothing confirms that it is right"
        }
        ClockState::Behind => "earlier than the last date in the database",
    };
    Some(format!(
        "the system clock says {system}, {why}: this command uses {used}, also for what it writes; if the clock is \
         wrong, set it; if it is right, stop the server and run `license-server check --accept-clock`"
    ))
}

/// The system clock's date, for log lines and file names.
pub fn system_now() -> UnixMs {
    SystemClock::default().wall()
}
