//! The parts of a running server: handlers, guards and jobs share one [`App`]. Also opens some of these parts for commands.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Ignite, Rocket, Sentinel};

use crate::admins::SetupLink;
use crate::backups::{self, BackupDir};
use crate::clock::{Clock, ClockState, SystemClock, TrustedClock, UnixMs};
use crate::config::{Config, Language, Synchronous, TlsMode};
use crate::db::{self, Db};
use crate::domains::TransferGrace;
use crate::error::{Doing, Error, Result};
use crate::front::Proxies;
use crate::handshake::{self, Handshakes};
use crate::integrate::{Authority, PublicEndpoint};
use crate::live_sessions::LiveSessions;
use crate::logins::SessionLifetime;
use crate::manual::Manual;
use crate::metrics::RefusalCounter;
use crate::net::egress::{self, Egress};
use crate::privacy::ListFiles;
use crate::products::{self, ProgramSettingsCache};
use crate::refusals;
use crate::security::data_folder;
use crate::security::monitor_networks::MonitorNetworks;
use crate::security::password::Hasher;
use crate::security::rate_limit::{Limiter, Quota, Rule};
use crate::security::signing::Signer;
use crate::tls::{self, Certificates, TrustedAuthority};
use crate::verification::Verifier;
use crate::{server_state, signing_keys, standby};

/// Upper bound for the duration of a sweep.
const SWEEP_DURATION_MAX: Duration = Duration::from_secs(30);

/// The parts of a running server. Handlers take it as `app: &App`.
pub struct App {
    /// The settings from the settings file and the environment.
    pub settings: Config,
    /// The database.
    pub db: Db,
    /// The clock whose date never goes back.
    pub clock: TrustedClock,
    /// The last heartbeat of each running session.
    pub live_sessions: Arc<LiveSessions>,
    /// Verifies licenses.
    pub verifier: Verifier,
    /// Product settings, as programs get them.
    pub program_settings: Arc<ProgramSettingsCache>,
    /// Rate limits by source address.
    pub limiter: Arc<Limiter>,
    /// How often one license may start sessions and activate devices.
    pub start_quota: Quota,
    /// Handshakes with customers' sites.
    pub handshakes: Arc<Handshakes>,
    /// Signs leases and responses.
    pub signer: Arc<Signer>,
    /// The certificate in use; `None` if TLS is off.
    pub certificates: Option<Arc<Certificates>>,
    /// The one-time link with which the first owner is created.
    pub setup: Arc<SetupLink>,
    /// The manual, which the panel shows.
    pub manual: Manual,
    /// Hashes and checks passwords.
    pub hasher: Hasher,
    /// The backup folder.
    pub backup_dir: BackupDir,
    /// Counts refused requests by code.
    pub refusals: Arc<RefusalCounter>,
    /// Refused calls that are not stored yet.
    pub refusal_queue: Arc<refusals::Queue>,
    /// Networks that may read `/health` and `/metrics`.
    pub monitor_networks: MonitorNetworks,
    /// Which proxies are trusted, and what was observed of them.
    pub proxies: Proxies,
    /// The address at which clients reach the server.
    pub endpoint: PublicEndpoint,
    /// Whether the database was created by this start.
    pub is_first_start: bool,
}

impl App {
    /// Opens the database and the certificate, and creates what is missing.
    ///
    /// # Errors
    /// [`Error::State`] or [`Error::Usage`], with what to do.
    pub fn open(settings: Config, manual: Manual) -> Result<Self> {
        let opened = Opened::open(&settings)?;
        let (program_settings, limiter) = (Arc::default(), Arc::default());
        let zone = &settings.panel.time_zone;
        let refusals = opened
            .db
            .read_blocking(|reader| refusals::counter(reader, zone, opened.now))?;
        let refusals = Arc::new(refusals);
        let dependencies =
            opened.handshake_dependencies(&settings, &program_settings, &limiter, &refusals)?;
        let server = &settings.server;
        Ok(Self {
            live_sessions: Arc::new(LiveSessions::new(opened.now, opened.clock.pauses())),
            verifier: Verifier::new(opened.db.clone()),
            start_quota: start_quota(&settings, &limiter),
            handshakes: Arc::new(Handshakes::new(dependencies)),
            endpoint: endpoint(&settings, opened.certificates.as_deref())?,
            setup: Arc::default(),
            manual,
            hasher: Hasher::new()?,
            backup_dir: backup_dir(&settings),
            refusals,
            refusal_queue: Arc::default(),
            monitor_networks: MonitorNetworks::new(
                server.monitor_networks.clone(),
                &server.trusted_proxies,
            ),
            proxies: Proxies::new(server.trusted_proxies.clone()),
            is_first_start: opened.is_first_start,
            settings,
            db: opened.db,
            clock: opened.clock,
            program_settings,
            limiter,
            signer: opened.signer,
            certificates: opened.certificates,
        })
    }

    /// The server that received `request`, for guards.
    ///
    /// # Errors
    /// If Rocket was built without one.
    pub fn of<'r>(request: &'r Request<'_>) -> Result<&'r Self> {
        let app = request.rocket().state::<Arc<Self>>();
        let app = app.ok_or_else(|| Error::Internal {
            doing: "find the parts of the server",
            source: "none are managed".into(),
        })?;
        Ok(app)
    }

    /// The language for requests that accept neither German nor English.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn default_language(&self) -> Result<Language> {
        let chosen = self.db.read_blocking(server_state::default_language)?;
        let set = self.settings.panel.default_language;
        Ok(set.or(chosen).unwrap_or(Language::De))
    }

    /// When logins of administrators expire.
    pub fn login_lifetime(&self) -> SessionLifetime {
        let panel = &self.settings.panel;
        SessionLifetime {
            absolute: Duration::from_hours(u64::from(panel.session_hours)),
            idle: Duration::from_mins(u64::from(panel.idle_minutes)),
        }
    }

    /// The URL at which it listens: `https://…`.
    pub fn listening_url(&self) -> String {
        listening_url(&self.settings, self.certificates.as_deref())
    }
}

/// What is opened first: the database, and the keys and the certificate that belong to it.
struct Opened {
    db: Db,
    clock: TrustedClock,
    /// The time of the start.
    now: UnixMs,
    signer: Arc<Signer>,
    certificates: Option<Arc<Certificates>>,
    is_first_start: bool,
}

impl Opened {
    /// Opens them, creates those that are missing, and records the start.
    fn open(settings: &Config) -> Result<Self> {
        data_folder::secure(&settings.database.path)?;
        standby::refuse_on_standby(&settings.database.path)?;
        let is_first_start = !settings.database.path.exists();
        let db = Db::open_as_server(&database_options(settings))?;
        let clock = server_clock(&db)?;
        let now = clock.now().wall;
        // Read before the start is recorded, which may change it.
        let trusted = db.read_blocking(signing_keys::trusted_authority)?;
        record_start(&db, &clock, settings)?;
        erase_again(&db, settings, now);
        if let Err(error) = backups::remove_staging_folders(&settings.data_folder()) {
            log::warn!("unfinished restores were not deleted: {error}");
        }
        let signer = Signer::new(signing_keys::open(&db, &settings.data_folder(), now)?);
        let signer = Arc::new(signer);
        let certificates = certificates(settings, &db, trusted)?.map(Arc::new);
        Ok(Self {
            db,
            clock,
            now,
            signer,
            certificates,
            is_first_start,
        })
    }

    fn handshake_dependencies(
        &self,
        settings: &Config,
        program_settings: &Arc<ProgramSettingsCache>,
        limiter: &Arc<Limiter>,
        refusals: &Arc<RefusalCounter>,
    ) -> Result<handshake::Dependencies> {
        Ok(handshake::Dependencies {
            db: self.db.clone(),
            trusted_clock: self.clock.clone(),
            program_settings: Arc::clone(program_settings),
            limiter: Arc::clone(limiter),
            refusals: Arc::clone(refusals),
            egress: egress(settings)?,
            signer: self.signer.clone(),
            callback_path: settings.handshake.callback_path.clone(),
            grace: TransferGrace::days(settings.handshake.transfer_grace_days),
        })
    }
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for &'r App {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match App::of(request) {
            Ok(app) => Outcome::Success(app),
            Err(_) => Outcome::Error((Status::InternalServerError, ())),
        }
    }
}

/// Rocket refuses to launch routes with `app: &App` unless an [`App`] is managed.
impl Sentinel for &App {
    fn abort(rocket: &Rocket<Ignite>) -> bool {
        rocket.state::<Arc<App>>().is_none()
    }
}

/// The options with which to open the database.
pub fn database_options(settings: &Config) -> db::Options {
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

/// The backup folder. If the settings name none, it is `backups` in the data folder, and backups are made there only by
/// hand.
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

/// The clock of a command: never earlier than the latest date in the database, and that of the server if one
/// runs.
///
/// # Errors
/// If the database or its lock cannot be read.
pub fn command_clock(db: &Db, settings: &Config) -> Result<TrustedClock> {
    if !db.is_served()? {
        return server_clock(db);
    }
    let high_water = db.read_blocking(server_state::load)?.high_water;
    // Each sweep records the date; a long one delays that.
    let age =
        Duration::from_secs(u64::from(settings.sessions.cleanup_interval)) + SWEEP_DURATION_MAX;
    Ok(TrustedClock::beside(
        Arc::new(SystemClock::default()),
        high_water,
        age,
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

/// The clock of the only process that uses the database: never earlier than the latest date in it.
fn server_clock(db: &Db) -> Result<TrustedClock> {
    let high_water = db.read_blocking(server_state::load)?.high_water;
    let system_clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    Ok(TrustedClock::start(
        system_clock,
        high_water,
        db.trusted_boot()?,
    ))
}

/// Whether clients need no certificate of the server's own authority.
fn needs_no_authority(settings: &Config) -> Result<bool> {
    Ok(settings.tls.mode != TlsMode::SelfSigned
        && tls::authority_key(&settings.data_folder())?.is_none())
}

/// Records that the server starts now. If the database accepts no writes, one that was served before is served
/// anyway; the record follows with the first successful write.
fn record_start(db: &Db, clock: &TrustedClock, settings: &Config) -> Result<()> {
    let (now, needs_no_authority) = (clock.now().wall, needs_no_authority(settings)?);
    db.write_first(move |tx| {
        if needs_no_authority {
            signing_keys::record_no_authority_needed(tx)?;
        } else {
            signing_keys::record_no_authority_yet(tx)?;
        }
        server_state::note_start(tx, now)?;
        products::ensure(tx, now)
    })?;
    // Begins the first transaction, and with it the write above.
    match db.write_blocking("server_state.begin", |_| Ok(())) {
        Err(Error::Unavailable { .. }) if db.read_blocking(products::exists)? => Ok(()),
        Err(error) => Err(error),
        Ok(()) => {
            db.note_latest_date(now);
            db.note_trusted_boot(clock.trusted_boot());
            Ok(())
        }
    }
}

/// Erases customers again who were erased before the database was replaced by an older copy. A server is started also
/// where that fails now; the next start tries again.
fn erase_again(db: &Db, settings: &Config, now: UnixMs) {
    let backup_dir = backup_dir(settings);
    let lists = ListFiles::of(db.path(), backup_dir.usable_folder());
    match lists.reconcile(db, now) {
        Ok(reconciled) => {
            if let Some(error) = reconciled.problem {
                log::error!("a list of erased customers was not read or not written: {error}");
            }
            for again in reconciled.erased_again {
                log::warn!(
                    "the database is an older copy: customer {}, erased on {}, was erased again",
                    again.customer_id,
                    again.first_erased_at.rfc3339()
                );
            }
        }
        Err(error) => log::error!("the list of erased customers was not applied: {error}"),
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
    if let (TlsMode::Files, Some(chain), Some(key)) = (tls.mode, &tls.certificate, &tls.key) {
        data_folder::secure_certificate_files(chain, key)?;
    }
    let certificates = Certificates::open(settings, trusted, system_now())?;
    if tls.mode == TlsMode::SelfSigned
        && let Some(key) = tls::authority_key(&settings.data_folder())?
        && trusted != TrustedAuthority::Key(key)
    {
        db.write_blocking("signing_keys.record_authority", move |tx| {
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

/// The limit on session starts and device activations per license.
fn start_quota(settings: &Config, limiter: &Arc<Limiter>) -> Quota {
    let rule = Rule {
        per_minute: settings.sessions.starts_per_minute,
        burst: settings.sessions.starts_burst,
    };
    Quota::new(limiter.clone(), rule)
}

/// The URL that clients use: `public_url`, otherwise the one at which the server listens.
fn endpoint(settings: &Config, certificates: Option<&Certificates>) -> Result<PublicEndpoint> {
    let public = settings.public_url();
    let read = |file: PathBuf| -> Result<Authority> {
        let pem = std::fs::read_to_string(&file).doing("read the authority's certificate")?;
        let file = file.display().to_string();
        Ok(Authority { file, pem })
    };
    let authority = certificates.and_then(Certificates::authority_file);
    Ok(PublicEndpoint {
        public: public.is_some(),
        url: public.unwrap_or_else(|| listening_url(settings, certificates)),
        authority: authority.map(read).transpose()?,
        callback_path: settings.handshake.callback_path.clone(),
        callback_port: settings.handshake.port,
    })
}

/// The URL at which a server with these settings listens.
fn listening_url(settings: &Config, certificates: Option<&Certificates>) -> String {
    let server = &settings.server;
    let scheme = certificates.map_or("http", |_| "https");
    let host = match server.address {
        unspecified if unspecified.is_unspecified() => "localhost".to_owned(),
        IpAddr::V6(v6) => format!("[{v6}]"),
        IpAddr::V4(v4) => v4.to_string(),
    };
    format!("{scheme}://{host}:{}", server.port)
}
