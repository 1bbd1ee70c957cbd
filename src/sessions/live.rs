//! Who is alive, in memory: the last heartbeat of each session on the monotonic clock.
//!
//! The file says which sessions there are; this says when each was last heard, and is ahead of the file
//! by at most a second. A session that is not here has not been heard since the server started, and has
//! its whole timeout from then on: so a stop of the server costs nobody a session. Neither does a pause: where
//! the process stood still, silence counts from when it ran again. What is here is believed only in the epoch in which it was checked against the file; after that, a heartbeat goes
//! through the writer thread, which looks again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::rules::LastHeard;
use super::views::StoredHeartbeat;
use super::{GivenKey, Row, rules};
use crate::clock::{Now, Pauses, Tick, UnixMs};
use crate::id::{DeviceId, SessionId, SessionToken};
use crate::licenses::LicenseKey;
use crate::security::secret;
use crate::version::Version;

/// Of no epoch: not to be believed without a look at the file.
const INVALIDATED: u64 = 0;

/// The sessions that have been heard, and the devices that have been seen.
#[derive(Debug)]
pub struct LiveSessions {
    started_at: UnixMs,
    /// Whether ticks are dates: in a command, which has heard nobody and goes by the file.
    by_dates: bool,
    /// When this process stood still.
    pauses: Pauses,
    heard: Mutex<HeartbeatTable>,
}

#[derive(Debug, Default)]
struct HeartbeatTable {
    sessions: HashMap<SessionToken, LiveSession>,
    /// Heartbeats that are not in the file yet.
    unsaved: Vec<SessionToken>,
    /// Devices that verified, and when.
    seen: HashMap<DeviceId, UnixMs>,
}

/// A session as a heartbeat needs to know it.
#[derive(Clone, Debug)]
pub(super) struct LiveSession {
    pub(super) session_id: SessionId,
    pub(super) license_key: LicenseKey,
    pub(super) valid_until: Option<UnixMs>,
    pub(super) version: Version,
    pub(super) last_heartbeat: LastHeartbeat,
    /// The epoch in which the file confirmed all this.
    pub(super) epoch: u64,
    pub(super) unsaved: bool,
}

/// When a session was last heard, and how long it may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LastHeartbeat {
    pub(super) last: Tick,
    /// How much the process had run at its last heartbeat.
    awake: Duration,
    pub(super) last_at: UnixMs,
    /// What counts as its last word: its last heartbeat, or the start of the server after it, or the end of a
    /// pause.
    pub(super) counts_from: UnixMs,
    pub(super) timeout_s: u32,
}

/// A heartbeat on its way to the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beat {
    pub(super) token: SessionToken,
    pub(super) session_id: SessionId,
    pub(super) at: UnixMs,
    pub(super) timeout_s: u32,
}

/// A session whose start is not on the disk yet. Forgotten with this, unless it is kept: then its deed was
/// undone.
pub(super) struct PendingSession {
    live: Arc<LiveSessions>,
    token: SessionToken,
    live_session: Option<LiveSession>,
}

impl PendingSession {
    /// The start is on the disk.
    pub(super) fn keep(mut self) {
        if let Some(live_session) = self.live_session.take() {
            self.live.insert(self.token, live_session);
        }
    }
}

impl Drop for PendingSession {
    fn drop(&mut self) {
        if self.live_session.is_some() {
            self.live.forget(&self.token);
        }
    }
}

fn date_as_tick(date: UnixMs) -> Tick {
    Tick(Duration::from_millis(u64::try_from(date.0).unwrap_or(0)))
}

/// The moment of a deed with a [`LiveSessions::beside`]: its tick is its date.
pub fn tick_from_wall(now: Now) -> Now {
    let tick = date_as_tick(now.wall);
    Now {
        tick,
        awake: tick.0,
        ..now
    }
}

impl LastHeartbeat {
    /// Heard just now.
    pub(super) fn now(now: Now, timeout_s: u32) -> Self {
        Self {
            last: now.tick,
            awake: now.awake,
            last_at: now.wall,
            counts_from: now.wall,
            timeout_s,
        }
    }

    pub(super) fn timed_out(&self, now: Tick) -> bool {
        rules::timed_out(self.last, self.timeout_s, now)
    }

    /// The moment at which silence ends it.
    pub(super) fn times_out_at(&self) -> UnixMs {
        self.counts_from.plus_s(self.timeout_s)
    }
}

impl LiveSessions {
    /// Nobody has been heard yet; the server started at `started_at`, and these are its pauses.
    pub fn new(started_at: UnixMs, pauses: Pauses) -> Self {
        Self {
            started_at,
            by_dates: false,
            pauses,
            heard: Mutex::default(),
        }
    }

    /// For a command beside a server that started at `started_at`: what the file says of a session's
    /// last heartbeat, at most a second old, decides. Its deeds take [`tick_from_wall`] moments.
    pub fn beside(started_at: UnixMs) -> Self {
        Self {
            by_dates: true,
            ..Self::new(started_at, Pauses::default())
        }
    }

    fn heard(&self) -> MutexGuard<'_, HeartbeatTable> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `last_heartbeat` as it counts now: silence in a pause is nobody's.
    fn counted(&self, last_heartbeat: LastHeartbeat) -> LastHeartbeat {
        let pause = self.pauses.latest();
        let heard = LastHeard {
            tick: last_heartbeat.last,
            awake: last_heartbeat.awake,
        };
        match rules::after_pause(heard, last_heartbeat.timeout_s, &pause) {
            None => last_heartbeat,
            Some(last) => LastHeartbeat {
                last,
                counts_from: pause.ended_at.minus(pause.ended.since(last)),
                ..last_heartbeat
            },
        }
    }

    /// Takes a heartbeat, if all that it depends on is known to hold in `epoch`: then its version.
    /// None says nothing against the session: the file must be asked.
    pub(super) fn beat(
        &self,
        token: &SessionToken,
        key: &LicenseKey,
        now: Now,
        epoch: u64,
        timeout_s: u32,
    ) -> Option<Version> {
        let mut heard = self.heard();
        let heard = &mut *heard;
        let live_session = heard.sessions.get_mut(token)?;
        let believed = live_session.epoch == epoch
            && secret::same(live_session.license_key.as_bytes(), key.as_bytes())
            && !self
                .counted(live_session.last_heartbeat)
                .timed_out(now.tick)
            && live_session
                .valid_until
                .is_none_or(|until| now.wall <= until);
        if !believed {
            return None;
        }
        if now.tick >= live_session.last_heartbeat.last {
            live_session.last_heartbeat = LastHeartbeat::now(now, timeout_s);
        }
        if !live_session.unsaved {
            live_session.unsaved = true;
            heard.unsaved.push(*token);
        }
        Some(live_session.version)
    }

    /// What is known of the session in `row`.
    pub(super) fn last_heartbeat(&self, row: &Row) -> LastHeartbeat {
        let known = self
            .heard()
            .sessions
            .get(&row.token)
            .map(|p| p.last_heartbeat);
        self.counted(known.unwrap_or_else(|| self.unheard(row)))
    }

    /// The same for a deed that acts on it. Where the session is over at `now`, no heartbeat that is still
    /// on its way can make it live again past the file: it must not hear yes from us and no from the file.
    pub(super) fn check(&self, row: &Row, now: Tick) -> LastHeartbeat {
        match self.heard().sessions.get_mut(&row.token) {
            Some(live_session) => {
                let last_heartbeat = self.counted(live_session.last_heartbeat);
                if last_heartbeat.timed_out(now) {
                    live_session.epoch = INVALIDATED;
                }
                last_heartbeat
            }
            None => self.counted(self.unheard(row)),
        }
    }

    /// The same for a list of sessions.
    pub(super) fn vital_of(&self, said: &StoredHeartbeat) -> LastHeartbeat {
        let known = self
            .heard()
            .sessions
            .get(&said.token)
            .map(|p| p.last_heartbeat);
        let unheard = || self.unheard_since(said.last_heartbeat_at, said.timeout_s);
        self.counted(known.unwrap_or_else(unheard))
    }

    /// Of a session that has not been heard since the server started.
    fn unheard(&self, row: &Row) -> LastHeartbeat {
        self.unheard_since(row.last_heartbeat_at, row.timeout_s)
    }

    fn unheard_since(&self, last_at: UnixMs, timeout_s: u32) -> LastHeartbeat {
        let counts_from = last_at.max(self.started_at);
        LastHeartbeat {
            last: if self.by_dates {
                date_as_tick(counts_from)
            } else {
                Tick::START
            },
            awake: Duration::ZERO,
            last_at,
            counts_from,
            timeout_s,
        }
    }

    /// The session is being placed by a deed that is not on the disk yet. The next deed may share its
    /// transaction, and must find it alive.
    pub(super) fn insert_pending(
        self: &Arc<Self>,
        token: SessionToken,
        live_session: LiveSession,
    ) -> PendingSession {
        self.insert_unconfirmed(token, live_session.clone());
        PendingSession {
            live: self.clone(),
            token,
            live_session: Some(live_session),
        }
    }

    /// A heartbeat has been heard by a deed that is not on the disk yet: what the next deed, which may
    /// share its transaction, judges by.
    pub(super) fn insert_unconfirmed(&self, token: SessionToken, live_session: LiveSession) {
        let epoch = INVALIDATED;
        self.insert(
            token,
            LiveSession {
                epoch,
                ..live_session
            },
        );
    }

    /// From now on the session is known; the file has just confirmed it.
    pub(super) fn insert(&self, token: SessionToken, mut live_session: LiveSession) {
        let mut heard = self.heard();
        if let Some(known) = heard.sessions.get(&token) {
            // A heartbeat may have come while the file was being asked: time never goes back.
            if known.last_heartbeat.last > live_session.last_heartbeat.last {
                live_session.last_heartbeat = known.last_heartbeat;
            }
            live_session.unsaved |= known.unsaved;
        }
        if live_session.unsaved
            && !heard
                .sessions
                .get(&token)
                .is_some_and(|known| known.unsaved)
        {
            heard.unsaved.push(token);
        }
        heard.sessions.insert(token, live_session);
    }

    /// From now on each heartbeat of the session asks the file: it is about to end, or it may be. What was
    /// known of it at this moment.
    pub(super) fn invalidate(&self, row: &Row) -> LastHeartbeat {
        match self.heard().sessions.get_mut(&row.token) {
            Some(live_session) => {
                live_session.epoch = INVALIDATED;
                self.counted(live_session.last_heartbeat)
            }
            None => self.counted(self.unheard(row)),
        }
    }

    /// The session is no more.
    pub(super) fn forget(&self, token: &SessionToken) {
        self.heard().sessions.remove(token);
    }

    /// Forgets sessions that have long been over: those that ended without this process hearing of it.
    /// The judgement on them does not change, since they were over since the server started, too.
    pub(super) fn evict(&self, now: Tick) {
        let long = Duration::from_hours(1);
        let mut heard = self.heard();
        heard.sessions.retain(|_, live_session| {
            let last_heartbeat = self.counted(live_session.last_heartbeat);
            live_session.unsaved
                || now.since(last_heartbeat.last) < long
                || !last_heartbeat.timed_out(now)
        });
        if heard.sessions.capacity() > 4 * (heard.sessions.len() + 1024) {
            heard.sessions.shrink_to_fit();
        }
    }

    /// At most `limit` heartbeats that are not in the file, and takes them off the list.
    pub(super) fn unsaved(&self, limit: usize) -> Vec<Beat> {
        let mut heard = self.heard();
        let heard = &mut *heard;
        let from = heard.unsaved.len().saturating_sub(limit);
        let mut beats = Vec::with_capacity(heard.unsaved.len() - from);
        for token in heard.unsaved.drain(from..) {
            if let Some(live_session) = heard.sessions.get_mut(&token) {
                live_session.unsaved = false;
                let LastHeartbeat {
                    last_at, timeout_s, ..
                } = live_session.last_heartbeat;
                beats.push(Beat {
                    token,
                    session_id: live_session.session_id,
                    at: last_at,
                    timeout_s,
                });
            }
        }
        beats
    }

    /// Puts heartbeats back on the list: the file did not take them.
    pub(super) fn still_unsaved(&self, beats: &[Beat]) {
        let mut heard = self.heard();
        let heard = &mut *heard;
        for beat in beats {
            if let Some(live_session) = heard.sessions.get_mut(&beat.token)
                && !live_session.unsaved
            {
                live_session.unsaved = true;
                heard.unsaved.push(beat.token);
            }
        }
    }

    /// Remembers that a device verified.
    pub(super) fn see(&self, device: DeviceId, at: UnixMs) {
        self.heard().seen.insert(device, at);
    }

    /// At most `limit` devices that verified, and takes them off the list.
    pub(super) fn seen(&self, limit: usize) -> Vec<(DeviceId, UnixMs)> {
        let mut heard = self.heard();
        let some: Vec<DeviceId> = heard.seen.keys().copied().take(limit).collect();
        some.into_iter()
            .filter_map(|device| heard.seen.remove_entry(&device))
            .collect()
    }

    /// Whether the session has been heard, and is one of the license of `key`, where one is given.
    pub(super) fn is_of(&self, token: &SessionToken, key: &GivenKey) -> bool {
        let heard = self.heard();
        let Some(live_session) = heard.sessions.get(token) else {
            return false;
        };
        match key {
            GivenKey::None => true,
            GivenKey::Typed(None) => false,
            GivenKey::Typed(Some(key)) => {
                secret::same(live_session.license_key.as_bytes(), key.as_bytes())
            }
        }
    }

    /// How many sessions have been heard.
    pub fn count(&self) -> usize {
        self.heard().sessions.len()
    }
}
