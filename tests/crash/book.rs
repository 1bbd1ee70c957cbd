//! The acknowledgement log: what the server has said yes to, held against what its file says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use license_server::id::SessionToken;
use rusqlite::{Connection, OpenFlags, Row};

use crate::load::{Deed, Request, Worker, hash_of};

/// How old an acknowledged heartbeat is at most that the file does not have: the promise.
const BEAT_IN_FILE: Duration = Duration::from_secs(1);

/// All that clients know.
#[derive(Debug, Default)]
pub(crate) struct Book {
    keys: Vec<String>,
    devices: HashSet<(usize, usize)>,
    sessions: HashMap<String, Session>,
}

#[derive(Debug)]
struct Session {
    license: usize,
    device: usize,
    /// When the client knew; none for one that it found after a crash.
    started: Option<Instant>,
    /// When an end was first asked for.
    end_sent: Option<Instant>,
    /// Whether it was told that it is over.
    ended: bool,
    /// The latest heartbeat that must be in the file.
    heard_ms: i64,
}

/// What the file says.
struct File {
    running: BTreeMap<String, Running>,
    /// License, device and reason.
    ended: BTreeMap<String, (usize, usize, String)>,
    devices: BTreeSet<(usize, usize)>,
}

struct Running {
    license: usize,
    device: usize,
    heard_ms: i64,
}

impl Book {
    pub(crate) fn new(keys: &[String]) -> Self {
        Self {
            keys: keys.to_vec(),
            ..Self::default()
        }
    }

    /// Takes what happened until `end`, when the server died or was stopped.
    pub(crate) fn note(&mut self, requests: &[Request], end: Instant) {
        // The workers' logs come one after another: starts first, so that each session is known.
        for request in requests {
            let (license, device) = (request.license, request.device);
            match request.deed {
                Deed::Activate if request.granted() => drop(self.devices.insert((license, device))),
                Deed::Start if request.granted() => {
                    let heard = request.heard.clone().unwrap();
                    let session = Session {
                        license,
                        device,
                        started: Some(heard.at),
                        end_sent: None,
                        ended: false,
                        heard_ms: request.sent_ms,
                    };
                    let again = self.sessions.insert(heard.token.unwrap(), session);
                    assert!(again.is_none(), "a token was handed out twice");
                }
                _ => {}
            }
        }
        for request in requests.iter().filter(|request| request.token.is_some()) {
            // Of a start whose answer does not count, the session is not known.
            let session = self.sessions.get_mut(request.token.as_ref().unwrap());
            let Some(session) = session else { continue };
            if request.deed == Deed::End {
                session.end_sent.get_or_insert(request.sent);
                session.ended |= request.granted();
            } else if let Some(heard) = &request.heard
                && request.granted()
                && heard.at + BEAT_IN_FILE < end
            {
                session.heard_ms = session.heard_ms.max(request.sent_ms);
            }
        }
    }

    /// Holds the file against the book. `open` are requests of which nobody knows whether they were done:
    /// the file decides, and the book learns of it. How many of them were.
    pub(crate) fn audit(&mut self, path: &Path, open: &[Request]) -> usize {
        let file = File::read(path, &self.keys);
        let licenses: BTreeSet<usize> = file.running.values().map(|row| row.license).collect();
        assert_eq!(
            licenses.len(),
            file.running.len(),
            "a license with two sessions"
        );
        let both = file
            .running
            .keys()
            .find(|token| file.ended.contains_key(*token));
        assert_eq!(both, None, "a session in both tables");
        self.devices_are_there(&file, open);
        let found = self.none_is_invented(&file, open);
        self.none_is_lost(&file);
        found
    }

    fn devices_are_there(&mut self, file: &File, open: &[Request]) {
        for slot in &self.devices {
            assert!(
                file.devices.contains(slot),
                "an acknowledged activation was lost: {slot:?}"
            );
        }
        for slot in &file.devices {
            let asked = open
                .iter()
                .any(|r| r.deed == Deed::Activate && (r.license, r.device) == *slot);
            assert!(
                self.devices.contains(slot) || asked,
                "an activation that nobody asked for: {slot:?}"
            );
            self.devices.insert(*slot);
        }
    }

    fn none_is_invented(&mut self, file: &File, open: &[Request]) -> usize {
        let mut starts: Vec<(usize, usize)> = open
            .iter()
            .filter(|request| request.deed == Deed::Start)
            .map(|request| (request.license, request.device))
            .collect();
        let running = file
            .running
            .iter()
            .map(|(token, row)| (token, row.license, row.device));
        let ended = file
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
                panic!("a session that nobody asked for, on license {license}, device {device}");
            };
            starts.swap_remove(asked);
            found += 1;
            let session = Session {
                license,
                device,
                started: None,
                end_sent: None,
                ended: false,
                heard_ms: 0,
            };
            self.sessions.insert(token.clone(), session);
        }
        found
    }

    fn none_is_lost(&mut self, file: &File) {
        for (token, session) in &mut self.sessions {
            let of = (session.license, session.device);
            match (file.running.get(token), file.ended.get(token)) {
                (Some(row), None) => {
                    assert!(!session.ended, "an acknowledged end was lost: {of:?}");
                    assert!(
                        row.heard_ms >= session.heard_ms,
                        "a heartbeat older than a second was lost by {} ms: {of:?}",
                        session.heard_ms - row.heard_ms
                    );
                }
                (None, Some((_, _, reason))) => {
                    assert_eq!(reason, "normal", "{of:?}");
                    assert!(
                        session.end_sent.is_some(),
                        "nobody asked for an end: {of:?}"
                    );
                    session.ended = true;
                }
                (None, None) => panic!("an acknowledged start was lost: {of:?}"),
                (Some(_), Some(_)) => unreachable!("looked at before"),
            }
        }
    }

    /// Tells a worker what became of its sessions.
    pub(crate) fn teach(&self, worker: &mut Worker) {
        let own = |session: &Session| session.device == worker.device && !session.ended;
        worker.held = self
            .sessions
            .iter()
            .filter(|(_, session)| own(session))
            .map(|(token, session)| (session.license, token.clone()))
            .collect();
        let slots = self.devices.iter().filter(|slot| slot.1 == worker.device);
        worker.activated = slots.map(|slot| slot.0).collect();
    }

    /// Every session that runs: license, device and token.
    pub(crate) fn running(&self) -> Vec<(usize, usize, String)> {
        let running = self.sessions.iter().filter(|(_, session)| !session.ended);
        running
            .map(|(token, session)| (session.license, session.device, token.clone()))
            .collect()
    }

    /// Some sessions that are over: license and token.
    pub(crate) fn over(&self, count: usize) -> Vec<(usize, String)> {
        let over = self.sessions.iter().filter(|(_, session)| session.ended);
        over.take(count)
            .map(|(token, session)| (session.license, token.clone()))
            .collect()
    }

    pub(crate) fn is_over(&self, token: &str) -> bool {
        self.sessions
            .get(token)
            .is_some_and(|session| session.ended)
    }

    pub(crate) fn count(&self) -> usize {
        self.sessions.len()
    }

    /// From its answer on a session lived, until its end was asked for: no other of the license did.
    pub(crate) fn no_two_lived_at_once(&self) {
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
                let over = before.1.is_some_and(|end| end <= after.0);
                assert!(over, "two sessions lived at once on license {license}");
            }
        }
    }
}

impl File {
    fn read(path: &Path, keys: &[String]) -> Self {
        let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        // One look: the server may be working.
        let look = conn.unchecked_transaction().unwrap();
        let keys = keys.iter().enumerate();
        let keys: Keys = keys.map(|(at, key)| (key.replace('-', ""), at)).collect();
        let running = list(
            &look,
            &keys,
            "select l.license_key, d.hardware_id, s.session_token, s.last_heartbeat_at_ms \
             from active_sessions s join licenses l using (license_id) \
             left join devices d using (device_id)",
            |row| Ok((token(row.get(2)?), row.get(3)?)),
        );
        let ended = list(
            &look,
            &keys,
            "select l.license_key, h.hardware_id, h.session_token, h.end_reason \
             from session_history h join licenses l using (license_id)",
            |row| Ok((token(row.get(2)?), row.get(3)?)),
        );
        let devices = list(
            &look,
            &keys,
            "select l.license_key, d.hardware_id from devices d join licenses l using (license_id)",
            |_| Ok(()),
        );
        let running = running
            .into_iter()
            .map(|(license, device, (token, heard_ms))| {
                let row = Running {
                    license,
                    device,
                    heard_ms,
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

/// The index of each license by its key, as the file has it.
type Keys = HashMap<String, usize>;

/// Every row of a query that begins with a license and a device: both by index, and the rest. Licenses that
/// are not among `keys` are somebody else's business.
fn list<T>(
    look: &Connection,
    keys: &Keys,
    sql: &str,
    rest: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Vec<(usize, usize, T)> {
    let mut statement = look.prepare(sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut found = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        let (key, hash): (String, String) = (row.get(0).unwrap(), row.get(1).unwrap());
        let Some(license) = keys.get(&key) else {
            continue;
        };
        let device = (0..100).find(|device| hash_of(*device) == hash);
        let device = device.unwrap_or_else(|| panic!("nobody's device: {hash}"));
        found.push((*license, device, rest(row).unwrap()));
    }
    found
}

/// The wire's form of a token in the file.
fn token(bytes: [u8; 16]) -> String {
    SessionToken::from_bytes(bytes).reveal()
}

/// What SQLite itself finds wrong with a file that it may look at.
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
