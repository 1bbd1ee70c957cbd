//! The server without its handlers: the database, the active sessions and the clock. Clocks are set by hand.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use license_server::activations::{self, ActivationRequest, DeactivationRequest};
use license_server::audit::{Act, Actor};
use license_server::backups::{self, BackupInput, RestoreTarget};
use license_server::clock::{Clock, ManualClock, Now, TrustedClock, UnixMs};
use license_server::customers::{self, CustomerData};
use license_server::db::{Db, Options, Synchronous, Tx};
use license_server::devices::ClientIdentity;
use license_server::error::{Error, Result};
use license_server::id::{LicenseId, ProductId, SessionId, SessionToken};
use license_server::licenses::{self, Buyer, LicenseKey, Order, Term};
use license_server::live_sessions::LiveSessions;
use license_server::products::{self, ProgramSettings, ProgramSettingsCache};
use license_server::security::rate_limit::Quota;
use license_server::server_state;
use license_server::session_history::{self, EndReason, Foldable};
use license_server::sessions::client::StartResponse;
use license_server::sessions::{self, Credentials, EndRequest, GivenKey, StartRequest, Started};
use license_server::verification::{Verification, Verifier};
use license_server::version::Version;
use rusqlite::{Connection, OpenFlags, named_params};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The date at the start of every test.
pub(crate) const NOON: UnixMs = UnixMs(1_800_000_000_000);
pub(crate) const DAY_MS: i64 = 86_400_000;
const FOREVER: Duration = Duration::from_hours(100 * 365 * 24);

pub(crate) struct InProcess {
    folder: TempDir,
    /// `None` only while it is reopened.
    db: Option<Db>,
    pub(crate) live: Arc<LiveSessions>,
    pub(crate) current: Arc<ProgramSettingsCache>,
    /// `None` only while the database is reopened.
    verifier: Option<Verifier>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) trusted_clock: TrustedClock,
    pub(crate) runtime: Runtime,
    pub(crate) started_at: UnixMs,
    pub(crate) customer: license_server::id::CustomerId,
    licenses: Vec<(LicenseId, LicenseKey)>,
    pub(crate) unissued_key: LicenseKey,
}

/// A row of `active_sessions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RunningRow {
    pub(crate) license: usize,
    pub(crate) token: String,
    pub(crate) hardware_id: String,
    pub(crate) started_at: i64,
    pub(crate) last_heartbeat_at: i64,
    pub(crate) timeout_s: u32,
}

/// A row of `session_history`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndedRow {
    pub(crate) license: usize,
    pub(crate) token: String,
    pub(crate) hardware_id: String,
    pub(crate) started_at: i64,
    pub(crate) last_heartbeat_at: i64,
    pub(crate) ended_at: i64,
    pub(crate) reason: String,
}

impl InProcess {
    /// A new database without licenses, on a server that starts at [`NOON`].
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(NOON));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        let (db, trusted_clock, live) = open(folder.path().join("t.sqlite3"), &clock);
        let new = CustomerData {
            name: "Ada".to_owned(),
            ..CustomerData::default()
        };
        let customer = db
            .write_blocking("t.customer", move |tx| {
                customers::add(&Act::new(tx, &actor(), NOON), &new)
            })
            .unwrap()
            .id;
        Self {
            folder,
            verifier: Some(Verifier::new(db.clone())),
            db: Some(db),
            live,
            current: Arc::default(),
            clock,
            trusted_clock,
            runtime,
            started_at: NOON,
            customer,
            licenses: Vec::new(),
            unissued_key: LicenseKey::new().unwrap(),
        }
    }

    pub(crate) fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// Issues a license; returns its index.
    pub(crate) fn issue(&mut self, device_limit: u32, valid_until: Option<UnixMs>) -> usize {
        let order = Order {
            term: valid_until.map_or(Term::Default, Term::Until),
            ..Order::one(ProductId::FIRST, device_limit)
        };
        let (buyer, now) = (Buyer::Known(self.customer), self.now().wall);
        let issued =
            self.write(move |tx| licenses::sell(&Act::new(tx, &actor(), now), &buyer, &order));
        let issued = issued.unwrap().remove(0);
        self.licenses.push((issued.id, issued.key));
        self.licenses.len() - 1
    }

    /// The key of a license; a key that was never issued, for an index without license.
    pub(crate) fn key(&self, license: usize) -> LicenseKey {
        self.licenses
            .get(license)
            .map_or(self.unissued_key, |(_, key)| *key)
    }

    pub(crate) fn now(&self) -> Now {
        self.trusted_clock.now()
    }

    pub(crate) fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.db().write_blocking("t.write", work)
    }

    pub(crate) fn client(&self, license: usize, device: usize) -> ClientIdentity {
        ClientIdentity {
            license_key: Some(self.key(license)),
            machine_id: format!("machine {device}"),
            hardware_id: hardware_id(device),
            version: Version::new(1, 0, 0),
        }
    }

    pub(crate) fn activation_request(&self, license: usize, device: usize) -> ActivationRequest {
        ActivationRequest {
            product: ProductId::FIRST,
            client: self.client(license, device),
            idempotency_key: None,
            quota: Quota::unlimited(),
            now: self.now(),
        }
    }

    /// Whether the device was added, or the code of the refusal.
    pub(crate) fn activate(&self, license: usize, device: usize) -> Result<bool, String> {
        let request = self.activation_request(license, device);
        let activation = self.write(move |tx| activations::activate(tx, &request));
        activation
            .map(|activation| activation.created)
            .map_err(code_of)
    }

    pub(crate) fn deactivate(&self, license: usize, device: usize) -> Result<(), String> {
        let (live, key, now) = (self.live.clone(), self.key(license), self.now());
        let request = DeactivationRequest {
            product: ProductId::FIRST,
            key: Some(key),
            hardware_id: hardware_id(device),
        };
        let result = self.write(move |tx| {
            let act = Act::new(tx, &Actor::Program, now.wall);
            activations::deactivate(&act, live.at(now), &request)
        });
        result.map(drop).map_err(code_of)
    }

    pub(crate) fn start_request(
        &self,
        license: usize,
        device: usize,
        key: Option<&str>,
    ) -> StartRequest {
        StartRequest {
            product: ProductId::FIRST,
            client: self.client(license, device),
            address: "192.0.2.1".to_owned(),
            idempotency_key: key.map(str::to_owned),
            auto_activate: false,
            quota: Quota::unlimited(),
            settings: self.current.clone(),
        }
    }

    /// The response as JSON, or the code of the refusal.
    pub(crate) fn start(
        &self,
        license: usize,
        device: usize,
        key: Option<&str>,
    ) -> Result<String, String> {
        let (live, now) = (self.live.clone(), self.now());
        let start_request = self.start_request(license, device, key);
        let started = self
            .write(move |tx| sessions::start_once(tx, live.at(now), &start_request, start_answer));
        started.map_err(code_of)
    }

    pub(crate) fn heartbeat(&self, token: SessionToken, key: LicenseKey) -> Result<(), String> {
        let now = self.now();
        let heartbeat = async {
            let settings = self.current.get(self.db(), ProductId::FIRST).await?;
            let credentials = Credentials {
                product: ProductId::FIRST,
                token,
                key,
            };
            sessions::heartbeat(self.db(), self.live.at(now), &settings, credentials).await
        };
        self.runtime.block_on(heartbeat).map(drop).map_err(code_of)
    }

    pub(crate) fn end(
        &self,
        token: SessionToken,
        key: Option<LicenseKey>,
    ) -> Result<EndReason, String> {
        let (live, now) = (self.live.clone(), self.now());
        let key = key.map_or(GivenKey::NotSent, |key| GivenKey::Sent(Some(key)));
        let request = EndRequest {
            product: ProductId::FIRST,
            token,
            key,
        };
        let ended = self.write(move |tx| sessions::end(tx, live.at(now), &request));
        ended.map_err(code_of)
    }

    /// Ends a session as an administrator does.
    pub(crate) fn terminate(&self, token: SessionToken) -> Result<(), String> {
        let id = self.connect().query_row(
            "select coalesce((select session_id from active_sessions where session_token = :token), 0)",
            named_params! { ":token": token.as_bytes() },
            |row| row.get(0),
        );
        let (live, now, id) = (self.live.clone(), self.now(), SessionId(id.unwrap()));
        self.write(move |tx| {
            sessions::terminate(&Act::new(tx, &actor(), now.wall), live.at(now), id)
        })
        .map(|_| ())
        .map_err(code_of)
    }

    pub(crate) fn verify(&self, license: usize, device: usize) -> Verification {
        let (client, now) = (self.client(license, device), self.now());
        let settings = self
            .db()
            .read_blocking(|reader| self.current.read(reader, ProductId::FIRST));
        self.verify_with(&settings.unwrap(), client, now).unwrap()
    }

    /// Verifies twice, with what is in memory and without: the results are the same.
    pub(crate) fn verify_with(
        &self,
        settings: &ProgramSettings,
        client: ClientIdentity,
        now: Now,
    ) -> Result<Verification> {
        let verify = |verifier: &Verifier| {
            let verified = verifier.verify(self.live.at(now), settings, client.clone());
            self.runtime.block_on(verified)
        };
        let (remembered, read) = (
            verify(self.verifier.as_ref().unwrap()),
            verify(&Verifier::new(self.db().clone())),
        );
        assert_eq!(shown(&remembered), shown(&read));
        remembered
    }

    /// Runs the sweep and stores the date, as the job does; returns how many sessions it ended.
    pub(crate) fn sweep(&self) -> usize {
        let now = self.now();
        let ended = self
            .runtime
            .block_on(sessions::sweep(self.db(), &self.live, now));
        self.write(move |tx| server_state::advance(tx, now.wall))
            .unwrap();
        ended.unwrap()
    }

    /// Folds the sessions beyond `kept` per license and day that ended before `until`; returns how many rows it
    /// read.
    pub(crate) fn fold(&self, kept: u32, until: UnixMs) -> usize {
        let since = UnixMs(0);
        let fold = session_history::fold(self.db(), Foldable { kept, since, until });
        self.runtime.block_on(fold).unwrap()
    }

    pub(crate) fn flush(&self) {
        let heartbeats = sessions::flush_heartbeats(self.db(), &self.live);
        self.runtime.block_on(heartbeats).unwrap();
        let devices = sessions::flush_devices_seen(self.db(), &self.live);
        self.runtime.block_on(devices).unwrap();
    }

    /// Runs the purge without deleting any history.
    pub(crate) fn purge(&self) {
        let now = self.now();
        self.runtime
            .block_on(session_history::purge(self.db(), FOREVER, now))
            .unwrap();
    }

    pub(crate) fn configure(&self, key: &str, value: &str) {
        let (changes, now) = ([(key.to_owned(), value.to_owned())], self.now().wall);
        self.write(move |tx| {
            products::set(
                &Act::new(tx, &actor(), now),
                ProductId::FIRST,
                &changes,
                None,
            )
        })
        .unwrap();
    }

    pub(crate) fn suspend(&self, license: usize) {
        let (id, now) = (self.licenses[license].0, self.now().wall);
        self.write(move |tx| licenses::suspend(&Act::new(tx, &actor(), now), id))
            .unwrap();
    }

    pub(crate) fn reinstate(&self, license: usize) {
        let (id, now) = (self.licenses[license].0, self.now().wall);
        self.write(move |tx| licenses::reinstate(&Act::new(tx, &actor(), now), id))
            .unwrap();
    }

    pub(crate) fn advance(&self, span: Duration) {
        self.clock.advance(span);
    }

    /// What an orderly stop does at its end.
    pub(crate) fn finish(&self) {
        self.flush();
        let now = self.now().wall;
        self.write(move |tx| server_state::advance(tx, now))
            .unwrap();
    }

    /// Ends the server with all that it had in memory only, and starts another one after `down`.
    pub(crate) fn restart(&mut self, down: Duration) {
        let path = self.close();
        self.reopen(path, down);
    }

    /// Copies the database into a file of this name, as a backup does while the server runs.
    pub(crate) fn back_up(&self, name: &str) -> PathBuf {
        let (copy, ()) = self.db().copy(None, |_| Ok(())).unwrap();
        let backup = self.folder.path().join(name);
        std::io::copy(&mut copy.file(), &mut File::create(&backup).unwrap()).unwrap();
        backup
    }

    /// Ends the server, puts a backup in the place of its database, and starts it again.
    pub(crate) fn restore(&mut self, backup: &Path) {
        let (path, now) = (self.close(), self.clock.wall());
        let target = RestoreTarget {
            database: &path,
            data: self.folder.path(),
            backups: None,
            own_authority: false,
        };
        let input = BackupInput::open(backup, &path).unwrap();
        backups::restore(&input, target, &actor(), now).unwrap();
        self.reopen(path, Duration::ZERO);
    }

    fn close(&mut self) -> PathBuf {
        self.verifier = None;
        let db = self.db.take().unwrap();
        db.close(Duration::from_secs(10));
        db.path().to_owned()
    }

    fn reopen(&mut self, path: PathBuf, down: Duration) {
        let system_date = self.clock.wall().plus(down);
        self.clock = Arc::new(ManualClock::at(system_date));
        let (db, trusted_clock, live) = open(path, &self.clock);
        (self.trusted_clock, self.live) = (trusted_clock, live);
        self.db = Some(db);
        self.current = Arc::default();
        self.verifier = Some(Verifier::new(self.db().clone()));
        self.started_at = self.now().wall;
    }

    /// A connection of its own to the database, beside the server.
    pub(crate) fn connect(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        Connection::open_with_flags(self.folder.path().join("t.sqlite3"), flags).unwrap()
    }

    fn license_of(&self, id: i64) -> usize {
        let known = self.licenses.iter().position(|(known, _)| known.0 == id);
        known.expect("a license of this test")
    }

    /// The rows of both tables, each ordered by token.
    pub(crate) fn tables(&self, conn: &Connection) -> (Vec<RunningRow>, Vec<EndedRow>) {
        let mut running = conn
            .prepare_cached(
                "select s.license_id, hex(s.session_token) as token, d.hardware_id, s.started_at_ms, \
                 s.last_heartbeat_at_ms, s.timeout_s \
                 from active_sessions s left join devices d using (device_id) order by token",
            )
            .unwrap();
        let running = running.query_map([], |row| {
            Ok(RunningRow {
                license: self.license_of(row.get("license_id")?),
                token: row.get("token")?,
                hardware_id: row.get("hardware_id")?,
                started_at: row.get("started_at_ms")?,
                last_heartbeat_at: row.get("last_heartbeat_at_ms")?,
                timeout_s: row.get("timeout_s")?,
            })
        });
        let mut ended = conn
            .prepare_cached(
                "select *, hex(session_token) as token from session_history order by token",
            )
            .unwrap();
        let ended = ended.query_map([], |row| {
            Ok(EndedRow {
                license: self.license_of(row.get("license_id")?),
                token: row.get("token")?,
                hardware_id: row.get("hardware_id")?,
                started_at: row.get("started_at_ms")?,
                last_heartbeat_at: row.get("last_heartbeat_at_ms")?,
                ended_at: row.get("ended_at_ms")?,
                reason: row.get("end_reason")?,
            })
        });
        (
            running.unwrap().collect::<Result<_, _>>().unwrap(),
            ended.unwrap().collect::<Result<_, _>>().unwrap(),
        )
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            db.close(Duration::from_secs(10));
        }
    }
}

/// Does what a server does before it accepts requests.
fn open(path: PathBuf, clock: &Arc<ManualClock>) -> (Db, TrustedClock, Arc<LiveSessions>) {
    let options = Options {
        path,
        synchronous: Synchronous::Full,
        read_connections: 2,
    };
    let db = Db::open_as_server(&options).unwrap();
    let high_water = db.read_blocking(server_state::load).unwrap().high_water;
    // Time synchronization confirms the date at the start, however long the server was down.
    clock.set_synchronized();
    let trusted_clock = TrustedClock::new(clock.clone(), high_water);
    clock.set_unsynchronized();
    let now = trusted_clock.now().wall;
    db.write_blocking("t.begin", move |tx| {
        server_state::note_start(tx, now)?;
        products::ensure(tx, now)
    })
    .unwrap();
    let live = Arc::new(LiveSessions::new(now, trusted_clock.pauses()));
    (db, trusted_clock, live)
}

pub(crate) fn actor() -> Actor {
    Actor::command_line("tests")
}

pub(crate) fn hardware_id(device: usize) -> String {
    format!("hash of {device}")
}

/// The response to a start, without a lease.
#[expect(clippy::unnecessary_wraps, reason = "the server's own may fail")]
pub(crate) fn start_answer(started: &Started) -> Result<String> {
    Ok(serde_json::to_string(&StartResponse::new(started, None)).unwrap())
}

/// The token in the response to a start.
pub(crate) fn token_of(answer: &str) -> SessionToken {
    let answer: Value = serde_json::from_str(answer).unwrap();
    SessionToken::parse(answer["session_token"].as_str().unwrap()).unwrap()
}

/// The token as SQL's `hex()` prints it.
pub(crate) fn hex_of(token: SessionToken) -> String {
    token.reveal().replace('-', "").to_uppercase()
}

/// The code of a refusal, with the end reason of the session if there is one.
pub(crate) fn code_of(error: Error) -> String {
    match error {
        // All are told at once; a model tells the first one.
        Error::Several(errors) => code_of(errors.into_iter().next().unwrap()),
        Error::Refused(refused) => match refused.members.get("end_reason") {
            Some(reason) => format!("{} {}", refused.code, reason.as_str().unwrap()),
            None => refused.code.to_owned(),
        },
        Error::NotFound { what, .. } => format!("no {what}"),
        other => panic!("the server failed: {other}"),
    }
}

/// What a verification tells, for comparisons.
fn shown(verified: &Result<Verification>) -> String {
    match verified {
        Ok(verified) => {
            let license = verified.license.as_ref();
            let license =
                license.map(|known| (known.license(), known.device_count(), known.holds_slot()));
            format!(
                "{:?} {license:?} {} {:?} {:?} {:?}",
                verified.refusal,
                verified.session_active,
                verified.version,
                verified.feature_flags,
                verified.lease
            )
        }
        Err(error) => error.to_string(),
    }
}
