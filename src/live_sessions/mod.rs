//! The live sessions in memory: the last heartbeat of each one, on the monotonic clock.
//!
//! The database says which sessions exist. This table says when each one sent its last heartbeat; it is ahead of the
//! database by at most a second. A session that is missing here has sent no heartbeat since the server started; its
//! timeout counts from that start, so that a restart ends no session. Time during which the process was suspended does
//! not count towards a timeout. An entry is trusted only within the generation of the database in which it was checked:
//! when a command or another part of the process has changed what it depends on, a new one begins (see
//! `db/generation.rs`) and the next heartbeat is checked against the database again, in the writer thread.

mod rules;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Now, Pauses, Tick, UnixMs};
use crate::id::{DeviceId, ProductId, SessionId, SessionToken};
use crate::licenses::LicenseKey;
use crate::security::secret;
use crate::version::Version;
use rules::HeartbeatTime;

/// Heartbeats that are taken for writing under one lock: some 0.2 ms.
const TAKEN_AT_ONCE: usize = 1000;
/// Matches no generation: the next heartbeat is checked against the database.
const INVALIDATED: u64 = 0;

/// The sessions that have started or sent a heartbeat since the server started.
#[derive(Debug)]
pub struct LiveSessions {
    started_at: UnixMs,
    /// Whether ticks are made from dates, as in a command: it knows heartbeats only by their dates in the database.
    ticks_are_dates: bool,
    /// When this process was suspended.
    pauses: Pauses,
    table: Mutex<HeartbeatTable>,
}

#[derive(Debug, Default)]
struct HeartbeatTable {
    sessions: HashMap<SessionToken, LiveSession>,
    /// Sessions whose last heartbeat is not in the database yet.
    unsaved: Vec<SessionToken>,
    /// Devices that were verified, and when, as far as that is not in the database yet.
    devices_seen: HashMap<DeviceId, UnixMs>,
}

/// The live sessions at the time of a request or job.
#[derive(Clone, Copy, Debug)]
pub struct LiveNow<'a> {
    /// The live sessions.
    pub sessions: &'a Arc<LiveSessions>,
    /// The time, taken once for the whole request.
    pub now: Now,
}

impl LiveNow<'_> {
    /// Whether the session with this heartbeat in the database has not timed out.
    pub fn is_running(self, stored: &StoredHeartbeat) -> bool {
        !self
            .sessions
            .last_heartbeat(stored)
            .timed_out(self.now.tick)
    }

    /// Notes that a device was verified now, for the next flush.
    pub fn mark_device_seen(self, device: DeviceId) {
        self.sessions.mark_device_seen(device, self.now.wall);
    }
}

/// What a heartbeat identifies its session with.
#[derive(Clone, Copy, Debug)]
pub struct Credentials {
    /// The product of the program, identified by its API key.
    pub product: ProductId,
    /// The token of the session.
    pub token: SessionToken,
    /// The key of its license.
    pub key: LicenseKey,
}

/// The license key in a request about a session, which may be missing when the session is ended.
#[derive(Clone, Copy, Debug)]
pub enum GivenKey {
    /// No key was sent: the token alone identifies the session.
    NotSent,
    /// A key was sent; `None` if the text cannot be one.
    Sent(Option<LicenseKey>),
}

/// A session with everything that is needed to accept its heartbeats without the database.
#[derive(Clone, Debug)]
pub struct LiveSession {
    /// The session.
    pub session_id: SessionId,
    /// The product of its license.
    pub product: ProductId,
    /// The key of its license.
    pub license_key: LicenseKey,
    /// The last moment at which the license is valid; `None` if it is valid forever.
    pub valid_until: Option<UnixMs>,
    /// The program version that started the session.
    pub version: Version,
    /// When the updates of its license end; `None`: never.
    pub updates_until: Option<UnixMs>,
    /// Its last heartbeat.
    pub last_heartbeat: LastHeartbeat,
    /// The generation in which all this was checked against the database.
    pub generation: u64,
    /// Whether its last heartbeat is not in the database yet.
    pub unsaved: bool,
}

/// An accepted heartbeat, with what the response to it depends on.
#[derive(Clone, Copy, Debug)]
pub struct HeartbeatAccepted {
    /// The program version that started the session.
    pub version: Version,
    /// When the updates of its license end; `None`: never.
    pub updates_until: Option<UnixMs>,
}

impl LiveSession {
    /// The last heartbeat, which is about to be written to the database.
    fn take_unsaved(&mut self, token: SessionToken) -> UnsavedHeartbeat {
        self.unsaved = false;
        UnsavedHeartbeat {
            token,
            session_id: self.session_id,
            at: self.last_heartbeat.arrived_at,
            timeout_s: self.last_heartbeat.timeout_s,
        }
    }

    /// A heartbeat of the session that was accepted.
    pub const fn accepted(&self) -> HeartbeatAccepted {
        HeartbeatAccepted {
            version: self.version,
            updates_until: self.updates_until,
        }
    }
}

/// When the last heartbeat of a session arrived, and how long the session lasts without another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastHeartbeat {
    /// From when the timeout counts, on the monotonic clock: the arrival, or later if the process was suspended since.
    pub tick: Tick,
    /// How long the process had run when it arrived, not counting pauses.
    awake: Duration,
    /// The date at which it arrived.
    pub arrived_at: UnixMs,
    /// The date from which the timeout counts: the arrival, or a later start of the server or end of a pause.
    pub counts_from: UnixMs,
    /// Seconds without a heartbeat after which the session times out.
    pub timeout_s: u32,
}

/// The last heartbeat of a session in the database; [`LiveSessions`] may know a later one.
#[derive(Clone, Copy, Debug)]
pub struct StoredHeartbeat {
    /// The token of the session.
    pub token: SessionToken,
    /// When the session started.
    pub started_at: UnixMs,
    /// When the heartbeat arrived.
    pub last_heartbeat_at: UnixMs,
    /// Seconds without a heartbeat after which the session times out.
    pub timeout_s: u32,
}

/// The last heartbeat of a session, to be written to the database.
#[derive(Clone, Copy, Debug)]
pub struct UnsavedHeartbeat {
    /// The token of the session.
    pub token: SessionToken,
    /// The session.
    pub session_id: SessionId,
    /// When the heartbeat arrived.
    pub at: UnixMs,
    /// Seconds without a heartbeat after which the session times out.
    pub timeout_s: u32,
}

/// A session whose start is not committed yet. Removes the session when dropped without [`PendingSession::confirm`],
/// which means that the transaction was rolled back.
pub struct PendingSession {
    live: Arc<LiveSessions>,
    token: SessionToken,
    live_session: Option<LiveSession>,
}

impl PendingSession {
    /// Keeps the session: its start is committed.
    pub fn confirm(mut self) {
        if let Some(live_session) = self.live_session.take() {
            self.live.insert(self.token, live_session);
        }
    }
}

impl Drop for PendingSession {
    fn drop(&mut self) {
        if self.live_session.is_some() {
            self.live.remove(&self.token);
        }
    }
}

fn date_as_tick(date: UnixMs) -> Tick {
    Tick(Duration::from_millis(u64::try_from(date.0).unwrap_or(0)))
}

/// `now` for operations with [`LiveSessions::for_command`]: its tick is made from its date.
pub fn now_for_command(now: Now) -> Now {
    let tick = date_as_tick(now.wall);
    Now {
        tick,
        awake: tick.0,
        ..now
    }
}

impl LastHeartbeat {
    /// A heartbeat that arrives now.
    pub fn now(now: Now, timeout_s: u32) -> Self {
        Self {
            tick: now.tick,
            awake: now.awake,
            arrived_at: now.wall,
            counts_from: now.wall,
            timeout_s,
        }
    }

    /// Whether the session has timed out at `now`.
    pub fn timed_out(&self, now: Tick) -> bool {
        rules::timed_out(self.tick, self.timeout_s, now)
    }

    /// The moment at which the session times out.
    pub fn times_out_at(&self) -> UnixMs {
        self.counts_from.plus_s(self.timeout_s)
    }
}

impl LiveSessions {
    /// Empty, for a server that started at `started_at`.
    pub fn new(started_at: UnixMs, pauses: Pauses) -> Self {
        Self {
            started_at,
            ticks_are_dates: false,
            pauses,
            table: Mutex::default(),
        }
    }

    /// For a command, beside a server that started at `started_at`: the heartbeats in the database count, which lag by
    /// at most a second. Operations must be given the time from [`now_for_command`].
    pub fn for_command(started_at: UnixMs) -> Self {
        Self {
            ticks_are_dates: true,
            ..Self::new(started_at, Pauses::default())
        }
    }

    /// The live sessions at `now`.
    pub fn at(self: &Arc<Self>, now: Now) -> LiveNow<'_> {
        LiveNow {
            sessions: self,
            now,
        }
    }

    fn table(&self) -> MutexGuard<'_, HeartbeatTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `last_heartbeat` whose timeout counts from later if the process was suspended since.
    fn adjusted_for_pause(&self, last_heartbeat: LastHeartbeat) -> LastHeartbeat {
        let pause = self.pauses.latest();
        let last = HeartbeatTime {
            tick: last_heartbeat.tick,
            awake: last_heartbeat.awake,
        };
        match rules::counts_from_after_pause(last, last_heartbeat.timeout_s, &pause) {
            None => last_heartbeat,
            Some(tick) => LastHeartbeat {
                tick,
                counts_from: pause.ended_at.minus(pause.ended.since(tick)),
                ..last_heartbeat
            },
        }
    }

    /// Accepts a heartbeat from memory. `None` if the heartbeat must be checked against the database because the entry is
    /// missing, of another generation or does not match; the session may be running.
    pub fn try_heartbeat(
        &self,
        credentials: &Credentials,
        now: Now,
        generation: u64,
        timeout_s: u32,
    ) -> Option<HeartbeatAccepted> {
        let Credentials {
            product,
            token,
            key,
        } = credentials;
        let mut table = self.table();
        let table = &mut *table;
        let live_session = table.sessions.get_mut(token)?;
        let trusted = live_session.generation == generation
            && live_session.product == *product
            && secret::constant_time_eq(live_session.license_key.as_bytes(), key.as_bytes())
            && !self
                .adjusted_for_pause(live_session.last_heartbeat)
                .timed_out(now.tick)
            && live_session
                .valid_until
                .is_none_or(|until| now.wall <= until);
        if !trusted {
            return None;
        }
        if now.tick >= live_session.last_heartbeat.tick {
            live_session.last_heartbeat = LastHeartbeat::now(now, timeout_s);
        }
        if !live_session.unsaved {
            live_session.unsaved = true;
            table.unsaved.push(*token);
        }
        Some(live_session.accepted())
    }

    /// The last heartbeat of the session whose last heartbeat in the database is `stored`.
    pub fn last_heartbeat(&self, stored: &StoredHeartbeat) -> LastHeartbeat {
        let known = self
            .table()
            .sessions
            .get(&stored.token)
            .map(|live_session| live_session.last_heartbeat);
        self.adjusted_for_pause(known.unwrap_or_else(|| self.heartbeat_before_start(stored)))
    }

    /// As [`LiveSessions::last_heartbeat_and_invalidate`], for an operation that ends the session only if it has timed
    /// out at `now`: otherwise the entry stays as it is.
    pub fn last_heartbeat_and_invalidate_if_timed_out(
        &self,
        stored: &StoredHeartbeat,
        now: Tick,
    ) -> LastHeartbeat {
        match self.table().sessions.get_mut(&stored.token) {
            Some(live_session) => {
                let last_heartbeat = self.adjusted_for_pause(live_session.last_heartbeat);
                if last_heartbeat.timed_out(now) {
                    live_session.generation = INVALIDATED;
                }
                last_heartbeat
            }
            None => self.adjusted_for_pause(self.heartbeat_before_start(stored)),
        }
    }

    /// The last heartbeat of a session that has sent none since the server started: its timeout counts from that start.
    fn heartbeat_before_start(&self, stored: &StoredHeartbeat) -> LastHeartbeat {
        let counts_from = stored.last_heartbeat_at.max(self.started_at);
        LastHeartbeat {
            tick: if self.ticks_are_dates {
                date_as_tick(counts_from)
            } else {
                Tick::START
            },
            awake: Duration::ZERO,
            arrived_at: stored.last_heartbeat_at,
            counts_from,
            timeout_s: stored.timeout_s,
        }
    }

    /// Adds a session whose start is not committed yet: the next operation may share its transaction, and must find the
    /// session running.
    pub fn insert_pending(
        self: &Arc<Self>,
        token: SessionToken,
        live_session: LiveSession,
    ) -> PendingSession {
        self.insert_uncommitted(token, live_session.clone());
        PendingSession {
            live: self.clone(),
            token,
            live_session: Some(live_session),
        }
    }

    /// Adds or updates a session in a transaction that is not committed yet: the next operation, which may share the
    /// transaction, finds it, but its heartbeats are checked against the database.
    pub fn insert_uncommitted(&self, token: SessionToken, live_session: LiveSession) {
        let generation = INVALIDATED;
        self.insert(
            token,
            LiveSession {
                generation,
                ..live_session
            },
        );
    }

    /// Adds or updates a session that was just checked against the database.
    pub fn insert(&self, token: SessionToken, mut live_session: LiveSession) {
        let mut table = self.table();
        if let Some(known) = table.sessions.get(&token) {
            // A later heartbeat that arrived during the check must not be overwritten.
            if known.last_heartbeat.tick > live_session.last_heartbeat.tick {
                live_session.last_heartbeat = known.last_heartbeat;
            }
            live_session.unsaved |= known.unsaved;
        }
        if live_session.unsaved
            && !table
                .sessions
                .get(&token)
                .is_some_and(|known| known.unsaved)
        {
            table.unsaved.push(token);
        }
        table.sessions.insert(token, live_session);
    }

    /// As [`LiveSessions::last_heartbeat`], for an operation that ends the session: the entry is invalidated, so that
    /// no heartbeat is accepted from memory meanwhile.
    pub fn last_heartbeat_and_invalidate(&self, stored: &StoredHeartbeat) -> LastHeartbeat {
        match self.table().sessions.get_mut(&stored.token) {
            Some(live_session) => {
                live_session.generation = INVALIDATED;
                self.adjusted_for_pause(live_session.last_heartbeat)
            }
            None => self.adjusted_for_pause(self.heartbeat_before_start(stored)),
        }
    }

    /// Removes a session that has ended.
    pub fn remove(&self, token: &SessionToken) {
        self.table().sessions.remove(token);
    }

    /// Removes sessions that timed out long ago: they are left over if another process ended them. A removed session
    /// does not run again: counted from the start of the server, it has timed out as well.
    pub fn evict(&self, now: Tick) {
        let retention = Duration::from_hours(1);
        let mut table = self.table();
        table.sessions.retain(|_, live_session| {
            let last_heartbeat = self.adjusted_for_pause(live_session.last_heartbeat);
            live_session.unsaved
                || now.since(last_heartbeat.tick) < retention
                || !last_heartbeat.timed_out(now)
        });
        if table.sessions.capacity() > 4 * (table.sessions.len() + 1024) {
            table.sessions.shrink_to_fit();
        }
    }

    /// Takes the heartbeats that are not in the database yet, in the order of their sessions there.
    ///
    /// The table is locked for [`TAKEN_AT_ONCE`] of them at a time, so that heartbeats that arrive meanwhile hardly wait.
    pub fn take_unsaved(&self) -> Vec<UnsavedHeartbeat> {
        let tokens = std::mem::take(&mut self.table().unsaved);
        let mut heartbeats = Vec::with_capacity(tokens.len());
        for chunk in tokens.chunks(TAKEN_AT_ONCE) {
            let mut table = self.table();
            for token in chunk {
                if let Some(live_session) = table.sessions.get_mut(token) {
                    heartbeats.push(live_session.take_unsaved(*token));
                }
            }
        }
        heartbeats.sort_unstable_by_key(|heartbeat| heartbeat.session_id);
        heartbeats
    }

    /// Puts heartbeats back that were not written.
    pub fn put_back_unsaved(&self, heartbeats: &[UnsavedHeartbeat]) {
        let mut table = self.table();
        let table = &mut *table;
        for heartbeat in heartbeats {
            if let Some(live_session) = table.sessions.get_mut(&heartbeat.token)
                && !live_session.unsaved
            {
                live_session.unsaved = true;
                table.unsaved.push(heartbeat.token);
            }
        }
    }

    /// Notes that a device was verified at `at`, for the next flush.
    fn mark_device_seen(&self, device: DeviceId, at: UnixMs) {
        self.table().devices_seen.insert(device, at);
    }

    /// Takes the devices that were verified, in the order of their rows, each with when it was.
    pub fn take_devices_seen(&self) -> Vec<(DeviceId, UnixMs)> {
        let seen = std::mem::take(&mut self.table().devices_seen);
        let mut devices: Vec<_> = seen.into_iter().collect();
        devices.sort_unstable_by_key(|(device, _)| *device);
        devices
    }

    /// Puts devices back whose verification was not written, unless they were verified again since.
    pub fn put_back_devices_seen(&self, devices: &[(DeviceId, UnixMs)]) {
        let mut table = self.table();
        for (device, at) in devices {
            table.devices_seen.entry(*device).or_insert(*at);
        }
    }

    /// Whether the session is in memory and, if a key is given, belongs to its license.
    pub fn is_known(&self, product: ProductId, token: &SessionToken, key: &GivenKey) -> bool {
        let table = self.table();
        let Some(live_session) = table.sessions.get(token) else {
            return false;
        };
        if live_session.product != product {
            return false;
        }
        match key {
            GivenKey::NotSent => true,
            GivenKey::Sent(None) => false,
            GivenKey::Sent(Some(key)) => {
                secret::constant_time_eq(live_session.license_key.as_bytes(), key.as_bytes())
            }
        }
    }

    /// How many sessions are in memory.
    pub fn count(&self) -> usize {
        self.table().sessions.len()
    }
}
