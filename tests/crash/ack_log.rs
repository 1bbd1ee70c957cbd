//! The acknowledgement log: what the server has acknowledged, compared with what its database contains.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use license_server::id::SessionToken;
use rusqlite::{Connection, OpenFlags, Row};

use crate::load::{Operation, Request, Worker, hash_of};
use crate::support::stalls;

/// The guarantee: an acknowledged heartbeat is stored within this time.
const HEARTBEAT_STORED_WITHIN: Duration = Duration::from_secs(1);

/// Everything that the clients know.
#[derive(Debug, Default)]
pub(crate) struct AckLog {
    keys: Vec<String>,
    devices: HashSet<(usize, usize)>,
    sessions: HashMap<String, Session>,
}

#[derive(Debug)]
struct Session {
    license: usize,
    device: usize,
    /// When the client got the response; `None` for a session found after a crash.
    started: Option<Instant>,
    /// When its end was first requested.
    end_sent: Option<Instant>,
    /// Whether its end was acknowledged.
    ended: bool,
    /// The latest heartbeat that must be stored, in Unix ms.
    heartbeat_ms: i64,
}

/// The rows of the database.
struct Rows {
    running: BTreeMap<String, Running>,
    /// License, device and reason.
    ended: BTreeMap<String, (usize, usize, String)>,
    devices: BTreeSet<(usize, usize)>,
}

struct Running {
    license: usize,
    device: usize,
    heartbeat_ms: i64,
}

impl AckLog {
    pub(crate) fn new(keys: &[String]) -> Self {
        Self {
            keys: keys.to_vec(),
            ..Self::default()
        }
    }

    /// Adds the requests until `end`, when the server was killed or stopped.
    pub(crate) fn note(&mut self, requests: &[Request], end: Instant) {
        // The requests are grouped by worker: starts first, so that each session is known.
        for request in requests {
            let (license, device) = (request.license, request.device);
            match request.operation {
                Operation::Activate if request.granted() => {
                    self.devices.insert((license, device));
                }
                Operation::Start if request.granted() => {
                    let response = request.response.clone().unwrap();
                    let session = Session {
                        license,
                        device,
                        started: Some(response.at),
                        end_sent: None,
                        ended: false,
                        heartbeat_ms: request.sent_ms,
                    };
                    let again = self.sessions.insert(response.token.unwrap(), session);
                    assert!(again.is_none(), "a token was issued twice");
                }
                _ => {}
            }
        }
        for request in requests.iter().filter(|request| request.token.is_some()) {
            // If the response to a start does not count, the session is unknown.
            let session = self.sessions.get_mut(request.token.as_ref().unwrap());
            let Some(session) = session else { continue };
            if request.operation == Operation::End {
                session.end_sent.get_or_insert(request.sent);
                session.ended |= request.granted();
            } else if let Some(response) = &request.response
                && request.granted()
                && stalls::awake_between(response.at, end) > HEARTBEAT_STORED_WITHIN
            {
                session.heartbeat_ms = session.heartbeat_ms.max(request.sent_ms);
            }
        }
    }

    /// Compares the database with the log. It is unknown whether the requests in `unresolved` took effect: the
    /// database decides, and the log is updated. Returns how many starts did.
    pub(crate) fn compare(&mut self, path: &Path, unresolved: &[Request]) -> usize {
        let rows = Rows::read(path, &self.keys);
        let licenses: BTreeSet<usize> = rows.running.values().map(|row| row.license).collect();
        assert_eq!(
            licenses.len(),
            rows.running.len(),
            "a license with two sessions"
        );
        let both = rows
            .running
            .keys()
            .find(|token| rows.ended.contains_key(*token));
        assert_eq!(both, None, "a session in both tables");
        self.compare_devices(&rows, unresolved);
        let found = self.compare_starts(&rows, unresolved);
        self.assert_none_lost(&rows);
        found
    }

    fn compare_devices(&mut self, rows: &Rows, unresolved: &[Request]) {
        for slot in &self.devices {
            assert!(
                rows.devices.contains(slot),
                "an acknowledged activation was lost: {slot:?}"
            );
        }
        for slot in &rows.devices {
            let asked = unresolved
                .iter()
                .any(|r| r.operation == Operation::Activate && (r.license, r.device) == *slot);
            assert!(
                self.devices.contains(slot) || asked,
                "an activation that was not requested: {slot:?}"
            );
            self.devices.insert(*slot);
        }
    }

    fn compare_starts(&mut self, rows: &Rows, unresolved: &[Request]) -> usize {
        let mut starts: Vec<(usize, usize)> = unresolved
            .iter()
            .filter(|request| request.operation == Operation::Start)
            .map(|request| (request.license, request.device))
            .collect();
        let running = rows
            .running
            .iter()
            .map(|(token, row)| (token, row.license, row.device));
        let ended = rows
            .ended
            .iter()
            .map(|(token, (license, device, _))| (token, *license, *device));
        let mut found = 0;
        for (token, license, device) in running.chain(ended) {
            if let Some(known) = self.sessions.get(token) {
                assert_eq!((known.license, known.device), (license, device));
                continue;
            }
            let asked = starts.iter().position(|asked| *asked == (license, device));
            let Some(asked) = asked else {
                panic!("a session that was not requested, on license {license}, device {device}");
            };
            starts.swap_remove(asked);
            found += 1;
            let session = Session {
                license,
                device,
                started: None,
                end_sent: None,
                ended: false,
                heartbeat_ms: 0,
            };
            self.sessions.insert(token.clone(), session);
        }
        found
    }

    fn assert_none_lost(&mut self, rows: &Rows) {
        for (token, session) in &mut self.sessions {
            let of = (session.license, session.device);
            match (rows.running.get(token), rows.ended.get(token)) {
                (Some(row), None) => {
                    assert!(!session.ended, "an acknowledged end was lost: {of:?}");
                    assert!(
                        row.heartbeat_ms >= session.heartbeat_ms,
                        "a heartbeat older than a second was lost by {} ms: {of:?}",
                        session.heartbeat_ms - row.heartbeat_ms
                    );
                }
                (None, Some((_, _, reason))) => {
                    assert_eq!(reason, "normal", "{of:?}");
                    assert!(session.end_sent.is_some(), "no end was requested: {of:?}");
                    session.ended = true;
                }
                (None, None) => panic!("an acknowledged start was lost: {of:?}"),
                (Some(_), Some(_)) => unreachable!("checked before"),
            }
        }
    }

    /// Updates a worker's sessions and devices.
    pub(crate) fn update_worker(&self, worker: &mut Worker) {
        let own = |session: &Session| session.device == worker.device && !session.ended;
        worker.sessions = self
            .sessions
            .iter()
            .filter(|(_, session)| own(session))
            .map(|(token, session)| (session.license, token.clone()))
            .collect();
        let slots = self.devices.iter().filter(|slot| slot.1 == worker.device);
        worker.activated = slots.map(|slot| slot.0).collect();
    }

    /// All active sessions: license, device and token.
    pub(crate) fn running(&self) -> Vec<(usize, usize, String)> {
        let running = self.sessions.iter().filter(|(_, session)| !session.ended);
        running
            .map(|(token, session)| (session.license, session.device, token.clone()))
            .collect()
    }

    /// Some sessions that have ended: license and token.
    pub(crate) fn ended(&self, count: usize) -> Vec<(usize, String)> {
        let ended = self.sessions.iter().filter(|(_, session)| session.ended);
        ended
            .take(count)
            .map(|(token, session)| (session.license, token.clone()))
            .collect()
    }

    pub(crate) fn has_ended(&self, token: &str) -> bool {
        self.sessions
            .get(token)
            .is_some_and(|session| session.ended)
    }

    pub(crate) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// Checks that no two sessions of a license were active at once: each is active from the response to its start
    /// until its end is requested.
    pub(crate) fn assert_no_overlap(&self) {
        let mut spans: HashMap<usize, Vec<(Instant, Option<Instant>)>> = HashMap::new();
        for session in self.sessions.values() {
            if let Some(started) = session.started {
                let of = spans.entry(session.license).or_default();
                of.push((started, session.end_sent));
            }
        }
        for (license, mut of) in spans {
            of.sort_unstable();
            for pair in of.windows(2) {
                let (before, after) = (pair[0], pair[1]);
                let ended = before.1.is_some_and(|end| end <= after.0);
                assert!(
                    ended,
                    "two sessions were active at once on license {license}"
                );
            }
        }
    }
}

impl Rows {
    fn read(path: &Path, keys: &[String]) -> Self {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        // One transaction, since the server may be writing.
        let tx = conn.unchecked_transaction().unwrap();
        let keys = keys.iter().enumerate();
        let keys: Keys = keys.map(|(at, key)| (key.replace('-', ""), at)).collect();
        let running = list(
            &tx,
            &keys,
            "select l.license_key, d.hardware_id, s.session_token, s.last_heartbeat_at_ms \
             from active_sessions s join licenses l using (license_id) \
             left join devices d using (device_id)",
            |row| Ok((token(row.get(2)?), row.get(3)?)),
        );
        let ended = list(
            &tx,
            &keys,
            "select l.license_key, h.hardware_id, h.session_token, h.end_reason \
             from session_history h join licenses l using (license_id)",
            |row| Ok((token(row.get(2)?), row.get(3)?)),
        );
        let devices = list(
            &tx,
            &keys,
            "select l.license_key, d.hardware_id from devices d join licenses l using (license_id)",
            |_| Ok(()),
        );
        let running = running
            .into_iter()
            .map(|(license, device, (token, heartbeat_ms))| {
                let row = Running {
                    license,
                    device,
                    heartbeat_ms,
                };
                (token, row)
            });
        let ended = ended
            .into_iter()
            .map(|(license, device, (token, reason))| (token, (license, device, reason)));
        Self {
            running: running.collect(),
            ended: ended.collect(),
            devices: devices.into_iter().map(|row| (row.0, row.1)).collect(),
        }
    }
}

/// The index of each license by its stored key.
type Keys = HashMap<String, usize>;

/// All rows of a query that begins with a license key and a device: both as index, and the rest. Licenses that are
/// not in `keys` are skipped.
fn list<T>(
    tx: &Connection,
    keys: &Keys,
    sql: &str,
    rest: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Vec<(usize, usize, T)> {
    let mut statement = tx.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let (key, hash): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let Some(license) = keys.get(&key) else {
            continue;
        };
        let device = (0..100).find(|device| hash_of(*device) == hash);
        let device = device.unwrap_or_else(|| panic!("an unknown device: {hash}"));
        found.push((*license, device, rest(row).unwrap()));
    }
    found
}

/// The text form of a stored token.
fn token(bytes: [u8; 16]) -> String {
    SessionToken::from_bytes(bytes).reveal()
}

/// Whether SQLite's integrity check finds the file sound; prints what it finds.
pub(crate) fn is_sound(path: &Path) -> bool {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let found = Connection::open_with_flags(path, flags).and_then(|conn| {
        conn.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0))
    });
    if found.as_deref() != Ok("ok") {
        eprintln!("{}: {found:?}", path.display());
    }
    found.is_ok_and(|found| found == "ok")
}
