//! The measured data: 100,000 licenses with a device and a running session each, and some without a session.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rusqlite::{Connection, Statement, Transaction, params};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::process::Installation;

/// Licenses with a running session.
pub const WITH_SESSION: u32 = 100_000;
/// Licenses without a session, for starts; more than there are connections.
const WITHOUT_SESSION: u32 = 2_000;
/// Licenses per `license issue` command.
const LICENSES_PER_COMMAND: u32 = 10_000;
/// Session timeout in seconds; longer than the benchmark.
pub const TIMEOUT_S: u32 = 3600;

/// The device of a license with the same id: id, fingerprint, name, time.
const INSERT_DEVICE: &str = "insert into devices (device_id, license_id, hardware_id, machine_id, client_version, \
     activated_at_ms, last_seen_at_ms) values (?1, ?1, ?2, ?3, '1.0.0', ?4, ?4)";
/// The session of a license with the same id: id, token, time, timeout in seconds.
const INSERT_SESSION: &str = "insert into active_sessions (session_id, session_token, license_id, device_id, \
     client_version, address, started_at_ms, last_heartbeat_at_ms, timeout_s) \
     values (?1, ?2, ?1, ?1, '1.0.0', '192.0.2.1', ?3, ?3, ?4)";

/// Adds devices and sessions directly in the database, since the server would sync the disk each time.
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
        let (hardware, machine) = (
            format!("hash of device {license}"),
            format!("device {license}"),
        );
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

/// The request bodies for the data.
pub struct Shop {
    pub api_key: String,
    /// For the running sessions.
    pub heartbeats: Vec<Bytes>,
    /// For the devices with a session.
    pub verifications: Vec<Bytes>,
    /// For the devices without a session.
    pub starts: Vec<Bytes>,
}

/// Fills the database, which no server may be using.
pub fn fill(installation: &Installation) -> Shop {
    installation.run(&["customer", "add", "Ada"]);
    for count in std::iter::repeat_n(
        LICENSES_PER_COMMAND,
        (WITH_SESSION / LICENSES_PER_COMMAND) as usize,
    )
    .chain([WITHOUT_SESSION])
    {
        let count = count.to_string();
        let issue = ["license", "issue", "--customer", "Ada", "--devices", "2"];
        installation.run(&[&issue[..], &["--count", &count]].concat());
    }
    installation.run(&["config", "set", &format!("session_timeout={TIMEOUT_S}")]);
    for group in ["client", "client_failures"] {
        installation.run(&["limit", "set", group, "--per-minute", "0"]);
    }
    let config: Value =
        serde_json::from_slice(&installation.run(&["--json", "config", "show"])).unwrap();
    let mut shop = Shop {
        api_key: config["api_key"].as_str().unwrap().to_owned(),
        heartbeats: Vec::new(),
        verifications: Vec::new(),
        starts: Vec::new(),
    };
    shop.add_devices_and_sessions(&installation.database());
    shop.shuffle();
    shop
}

impl Shop {
    /// Puts the bodies in an order of chance: programs do not call in the order of their rows, which would write each
    /// page of the database once.
    fn shuffle(&mut self) {
        let mut random = StdRng::seed_from_u64(1);
        for bodies in [
            &mut self.heartbeats,
            &mut self.verifications,
            &mut self.starts,
        ] {
            bodies.shuffle(&mut random);
        }
    }

    /// Adds a device to each license, and a session to the first [`WITH_SESSION`].
    fn add_devices_and_sessions(&mut self, database: &Path) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now_ms = i64::try_from(now.as_millis()).unwrap();
        let mut connection = Connection::open(database).unwrap();
        // The triggers of the search index call them.
        license_server::db::register_functions(&connection).unwrap();
        let tx = connection.transaction().unwrap();
        let mut all = tx
            .prepare("select license_id, license_key from licenses order by license_id")
            .unwrap();
        let licenses: Vec<(u32, String)> = all
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut programs = Programs::new(&tx, now_ms);
        for (number, (id, key)) in (0..).zip(&licenses) {
            let identity = programs.add_device(*id, key);
            if number >= WITH_SESSION {
                self.starts.push(identity);
                continue;
            }
            self.heartbeats.push(programs.add_session(*id, key));
            self.verifications.push(identity);
        }
        drop((all, programs));
        tx.commit().unwrap();
    }
}
