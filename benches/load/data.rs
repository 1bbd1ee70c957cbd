//! The measured data: licenses, devices, running and ended sessions, written directly into the database, since the server
//! would wait for the disk each time.

use std::io::Write;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use license_server::licenses::LicenseKey;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rusqlite::{Connection, Statement, Transaction, params};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::process::Installation;

/// Session timeout in seconds; longer than the benchmark.
pub const TIMEOUT_S: u32 = 86_400;
/// The password of the administrator `owner`.
pub const PASSWORD: &str = "seven green bicycles";
/// Bodies of each kind that are read at most.
const BODIES_MAX: u32 = 100_000;

/// How much data there is.
#[derive(Clone, Copy)]
pub struct Size {
    /// Each with a device.
    pub licenses: u32,
    /// Running sessions, evenly over all licenses.
    pub sessions: u32,
    /// Ended sessions, over ninety days.
    pub history: u32,
    pub customers: u32,
    /// Rows of refused calls; a shop keeps 100,000.
    pub refusals: u32,
}

impl Size {
    /// A part of it, to try something out.
    pub fn divided(self, divisor: u32) -> Self {
        Self {
            licenses: self.licenses / divisor,
            sessions: self.sessions / divisor,
            history: self.history / divisor,
            customers: self.customers.div_ceil(divisor),
            refusals: self.refusals / divisor,
        }
    }

    /// What most rows of the table are measured with.
    pub const USUAL: Self = Self {
        licenses: 120_000,
        sessions: 100_000,
        history: 0,
        customers: 1,
        refusals: 0,
    };
    /// A small shop.
    pub const SMALL: Self = Self {
        licenses: 10_000,
        sessions: 5_000,
        history: 1_000_000,
        customers: 1_000,
        refusals: 10_000,
    };
    pub const LARGE: Self = Self {
        licenses: 1_000_000,
        sessions: 100_000,
        history: 5_000_000,
        customers: 100_000,
        refusals: 100_000,
    };
}

/// Opens the database, which no server may be using.
pub fn open(installation: &Installation) -> Connection {
    let connection = Connection::open(installation.database()).unwrap();
    // The triggers of the search index call them.
    license_server::db::register_functions(&connection).unwrap();
    connection
}

pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

/// Creates a database without limits on its callers, and with an administrator.
pub fn create(installation: &Installation) {
    installation.run(&["customer", "add", "customer-1"]);
    installation.run(&["config", "set", &format!("session_timeout={TIMEOUT_S}")]);
    for group in ["client", "client_failures"] {
        installation.run(&["limit", "set", group, "--per-minute", "0"]);
    }
    let add = ["admin", "add", "owner", "--role", "owner"];
    let mut admin = installation
        .command(&[&add[..], &["--password-stdin"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(admin.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(admin.wait().unwrap().success());
}

/// Creates a database with so much data.
pub fn fill(installation: &Installation, size: Size) {
    create(installation);
    let mut connection = open(installation);
    // The file is made anew if this fails.
    let fast = "pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -1000000";
    connection.execute_batch(fast).unwrap();
    let tx = connection.transaction().unwrap();
    let now_ms = now_ms();
    tx.execute(CUSTOMERS, params![size.customers, now_ms])
        .unwrap();
    add_licenses(&tx, size, now_ms);
    tx.execute(DEVICES, params![size.licenses, now_ms]).unwrap();
    let gap = (size.licenses / size.sessions).max(1);
    tx.execute(
        SESSIONS,
        params![size.sessions, now_ms, i64::from(gap), TIMEOUT_S],
    )
    .unwrap();
    add_history(&tx, size, now_ms);
    let refused = params![size.refusals, now_ms, size.licenses];
    tx.execute(REFUSED, refused).unwrap();
    tx.commit().unwrap();
    connection
        .execute_batch("analyze; pragma journal_mode = wal")
        .unwrap();
}

fn add_licenses(tx: &Transaction<'_>, size: Size, now_ms: i64) {
    let mut license = tx.prepare(LICENSE).unwrap();
    for id in 1..=size.licenses {
        let key = LicenseKey::new().unwrap();
        let customer = 1 + id % size.customers;
        let day_ms = 86_400_000;
        let until_ms = (id % 7 == 0).then(|| now_ms + i64::from(1 + id % 90) * day_ms);
        let note = format!("order {id}");
        license
            .execute(params![id, key.stored(), customer, now_ms, until_ms, note])
            .unwrap();
    }
}

/// Adds the history without its indexes and triggers, which are made afterwards: that takes a fraction of the time.
fn add_history(tx: &Transaction<'_>, size: Size, now_ms: i64) {
    let of_history = "select name, type, sql from sqlite_schema where tbl_name = 'session_history' and sql is not null \
        and type in ('index', 'trigger')";
    let mut found = tx.prepare(of_history).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found = found.query_map([], row).unwrap();
    let found: Vec<(String, String, String)> = found.map(Result::unwrap).collect();
    for (name, kind, _) in &found {
        tx.execute(&format!("drop {kind} {name}"), []).unwrap();
    }
    let history = params![size.history, now_ms, size.licenses];
    tx.execute(ENDED, history).unwrap();
    for (_, _, sql) in &found {
        tx.execute(sql, []).unwrap();
    }
    // What the triggers count.
    tx.execute(COUNTED, []).unwrap();
}

const CUSTOMERS: &str = "with recursive n(i) as (select 2 union all select i + 1 from n where i < ?1) \
    insert into customers (customer_id, name, email, company, note, created_at_ms) \
    select i, 'customer-' || i, 'mail-' || i || '@example.org', 'Company ' || i, '', ?2 from n where i <= ?1";
const LICENSE: &str = "insert into licenses (license_id, license_key, product_id, customer_id, kind, state, \
    device_limit, valid_from_ms, created_at_ms, valid_until_ms, note) values (?1, ?2, 1, ?3, 'full', \
    iif(?1 % 50 = 49, 'suspended', 'active'), 3, ?4, ?4, ?5, ?6)";
const DEVICES: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < ?1) \
    insert into devices (device_id, license_id, hardware_id, machine_id, client_version, \
    activated_at_ms, last_seen_at_ms) select i, i, 'hash of ' || i, 'desk-' || i, \
    '1.' || (i % 9) || '.0', ?2 - i % 60 * 86400000, ?2 - i % 60 * 86400000 from n";
const SESSIONS: &str = "insert into active_sessions (session_id, session_token, license_id, device_id, client_version, \
    address, started_at_ms, last_heartbeat_at_ms, timeout_s) \
    select row_number() over (order by license_id), randomblob(16), license_id, license_id, '1.0.0', '192.0.2.1', \
    ?2 - license_id * 100, ?2, ?4 from licenses where state = 'active' and license_id % ?3 = 0 limit ?1";
const ENDED: &str = "with recursive n(i) as (select 1 where ?1 > 0 union all select i + 1 from n where i < ?1) \
    insert into session_history (session_id, session_token, license_id, hardware_id, machine_id, \
    client_version, address, started_at_ms, last_heartbeat_at_ms, ended_at_ms, end_reason) \
    select 20000000 + i, randomblob(16), 1 + (i * 7919) % ?3, 'hash of ' || i, 'desk-' || (i % 100), '1.0.0', \
    '192.0.2.' || (i % 250), ?2 - (?1 - i) * 7776000000 / ?1 - 3600000, \
    ?2 - (?1 - i) * 7776000000 / ?1 - 60000, ?2 - (?1 - i) * 7776000000 / ?1, \
    case when i % 1000 = 0 then 'forced' when i % 10 = 0 then 'timeout' else 'normal' end from n";
const COUNTED: &str = "insert into session_counts (product_id, at_ms, started, ended, peak) \
    select p.product_id, h.ended_at_ms / 900000 * 900000, 0, count(*), 0 \
    from session_history h, (select 0 as product_id union all select 1) p where true group by 1, 2 \
    on conflict do update set ended = ended + excluded.ended";
const REFUSED: &str = "with recursive n(i) as (select 1 where ?1 > 0 union all select i + 1 from n where i < ?1) \
    insert into refusals (at_ms, last_at_ms, calls, code, call, product_id, license_id, masked_key, hardware_id, \
    machine_id, client_version, domain, address, network, detail) \
    select ?2 - (?1 - i) * 20000, ?2 - (?1 - i) * 20000, 1, 'license_expired', 'session/start', 1, \
    1 + (i * 7919) % ?3, '', 'hash of ' || i, 'desk-' || i, '1.0.0', '', '192.0.2.1', '192.0.2.1', '' from n";

/// Adds the device of a license with the same id: id, fingerprint, name, time.
const INSERT_DEVICE: &str = "insert into devices (device_id, license_id, hardware_id, machine_id, client_version, \
    activated_at_ms, last_seen_at_ms) values (?1, ?1, ?2, ?3, '1.0.0', ?4, ?4)";
/// The session of a license with the same id: id, token, time, timeout in seconds.
const INSERT_SESSION: &str = "insert into active_sessions (session_id, session_token, license_id, device_id, \
    client_version, address, started_at_ms, last_heartbeat_at_ms, timeout_s) \
    values (?1, ?2, ?1, ?1, '1.0.0', '192.0.2.1', ?3, ?3, ?4)";

/// Adds devices and sessions one by one.
pub struct Programs<'a> {
    device: Statement<'a>,
    session: Statement<'a>,
    now_ms: i64,
}

impl<'a> Programs<'a> {
    pub fn new(tx: &'a Transaction<'_>, now_ms: i64) -> Self {
        Self {
            device: tx.prepare(INSERT_DEVICE).unwrap(),
            session: tx.prepare(INSERT_SESSION).unwrap(),
            now_ms,
        }
    }

    /// Adds the device of a license; the body that identifies it.
    pub fn add_device(&mut self, license: u32, key: &impl Serialize) -> Bytes {
        let (hardware, machine) = (format!("hash of {license}"), format!("desk-{license}"));
        self.device
            .execute(params![license, hardware, machine, self.now_ms])
            .unwrap();
        let identity = json!({
            "license_key": key, "machine_id": machine, "hardware_hash": hardware, "version": "1.0.0",
        });
        identity.to_string().into()
    }

    /// Adds the session of a license with a device; the body of its heartbeats.
    pub fn add_session(&mut self, license: u32, key: &impl Serialize) -> Bytes {
        let token = Uuid::new_v4();
        self.session
            .execute(params![license, token.as_bytes(), self.now_ms, TIMEOUT_S])
            .unwrap();
        let heartbeat = json!({ "session_token": token.to_string(), "license_key": key });
        heartbeat.to_string().into()
    }
}

/// Request bodies, in an order of chance: programs do not call in the order of their rows, which would write each page of
/// the database once.
pub struct Shop {
    pub api_key: String,
    /// For the running sessions.
    pub heartbeats: Arc<Vec<Bytes>>,
    /// For devices, most of them with a session.
    pub verifications: Arc<Vec<Bytes>>,
    /// For devices without a session.
    pub starts: Arc<Vec<Bytes>>,
}

const WITH_SESSION: &str = "select l.license_key, d.machine_id, d.hardware_id, s.session_token from licenses l \
    join devices d on d.device_id = l.license_id join active_sessions s on s.license_id = l.license_id \
    where l.state = 'active' and s.timeout_s = ?1";
const WITHOUT_SESSION: &str = "select l.license_key, d.machine_id, d.hardware_id, null from licenses l \
    join devices d on d.device_id = l.license_id where l.state = 'active' and l.license_id % ?1 = ?1 / 2 \
    and not exists (select 1 from active_sessions s where s.license_id = l.license_id)";

impl Shop {
    /// Reads the bodies from a database.
    pub fn read(installation: &Installation) -> Self {
        let connection = open(installation);
        let first = "select api_key from client_configs where product_id = 1";
        let count = |table: &str| -> u32 {
            let sql = format!("select count(*) from {table}");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        let gap = (count("licenses") / BODIES_MAX).max(1);
        let mut shop = Self {
            api_key: connection.query_row(first, [], |row| row.get(0)).unwrap(),
            heartbeats: Arc::default(),
            verifications: Arc::default(),
            starts: Arc::default(),
        };
        let (mut heartbeats, mut verifications) = (Vec::new(), Vec::new());
        for (identity, heartbeat) in bodies(&connection, WITH_SESSION, TIMEOUT_S) {
            heartbeats.extend(heartbeat);
            verifications.push(identity);
        }
        let others = bodies(&connection, WITHOUT_SESSION, gap);
        let mut starts: Vec<Bytes> = others.into_iter().map(|(identity, _)| identity).collect();
        assert!(!starts.is_empty(), "every license has a session");
        let mut random = StdRng::seed_from_u64(1);
        for bodies in [&mut heartbeats, &mut verifications, &mut starts] {
            bodies.shuffle(&mut random);
        }
        shop.heartbeats = Arc::new(heartbeats);
        shop.verifications = Arc::new(verifications);
        shop.starts = Arc::new(starts);
        shop
    }
}

/// The bodies for the devices that `sql` finds: one that identifies the device, and one of a heartbeat.
fn bodies(connection: &Connection, sql: &str, parameter: u32) -> Vec<(Bytes, Option<Bytes>)> {
    let mut found = connection.prepare(sql).unwrap();
    let rows = found.query_map([parameter], |row| {
        let (key, machine, hardware): (String, String, String) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        let identity = json!({
            "license_key": key, "machine_id": machine, "hardware_hash": hardware, "version": "1.0.0",
        });
        let token: Option<[u8; 16]> = row.get(3)?;
        let heartbeat = token.map(|token| {
            let token = Uuid::from_bytes(token).to_string();
            json!({ "session_token": token, "license_key": key }).to_string()
        });
        Ok((identity.to_string().into(), heartbeat.map(Bytes::from)))
    });
    rows.unwrap().map(Result::unwrap).collect()
}
