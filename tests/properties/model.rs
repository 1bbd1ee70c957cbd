//! A model of sessions as `client-api.md` describes them, without database, threads or caches. It was written from
//! that page alone: if it differs from the server, one of them is wrong.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use license_server::clock::{Now, UnixMs};
use license_server::id::SessionToken;
use license_server::products::SessionPolicy;

use crate::in_process::{EndedRow, RunningRow, hardware_id, hex_of};

#[derive(Clone, Debug, Default)]
pub(crate) struct License {
    pub(crate) device_limit: usize,
    pub(crate) valid_until: Option<UnixMs>,
    pub(crate) suspended: bool,
    pub(crate) devices: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    license: usize,
    device: usize,
    token: SessionToken,
    answer: String,
    started_at: UnixMs,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Running {
        heartbeat: Heartbeat,
        /// What is stored in the database, and so outlives the process.
        in_file: InFile,
    },
    Ended {
        last_at: UnixMs,
        ended_at: UnixMs,
        reason: &'static str,
    },
}

#[derive(Clone, Copy, Debug)]
struct Heartbeat {
    /// The age of the process.
    tick: Duration,
    at: UnixMs,
    /// From when the timeout counts.
    counts_from: UnixMs,
    timeout_s: u32,
}

#[derive(Clone, Copy, Debug)]
struct InFile {
    at: UnixMs,
    timeout_s: u32,
}

/// The response to a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    New,
    /// The stored response with which the session of this index was started.
    Again(usize),
    Refused(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) licenses: Vec<License>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) policy: SessionPolicy,
    pub(crate) timeout_s: u32,
    answers: HashMap<(usize, usize, String), usize>,
}

impl Heartbeat {
    fn at(now: Now, timeout_s: u32) -> Self {
        Self {
            tick: now.tick.0,
            at: now.wall,
            counts_from: now.wall,
            timeout_s,
        }
    }

    fn timed_out(&self, now: Now) -> bool {
        now.tick.0 >= self.tick + Duration::from_secs(u64::from(self.timeout_s))
    }
}

impl Model {
    pub(crate) fn new(licenses: Vec<License>) -> Self {
        Self {
            licenses,
            sessions: Vec::new(),
            policy: SessionPolicy::Reject,
            timeout_s: 60,
            answers: HashMap::new(),
        }
    }

    /// The token of the session that was started `back` starts ago.
    pub(crate) fn token(&self, back: usize) -> Option<(usize, SessionToken)> {
        let index = self.sessions.len().checked_sub(back + 1)?;
        Some((index, self.sessions[index].token))
    }

    pub(crate) fn license_of(&self, session: usize) -> usize {
        self.sessions[session].license
    }

    pub(crate) fn answer_of(&self, session: usize) -> &str {
        &self.sessions[session].answer
    }

    fn usable(&self, license: usize, now: Now) -> Result<&License, &'static str> {
        let license = self.licenses.get(license).ok_or("license_not_found")?;
        if license.suspended {
            Err("license_suspended")
        } else if license.valid_until.is_some_and(|until| now.wall > until) {
            Err("license_expired")
        } else {
            Ok(license)
        }
    }

    fn running_on(&self, license: usize) -> Option<(usize, Heartbeat)> {
        let of_license = |(index, session): (usize, &Session)| match session.state {
            State::Running { heartbeat, .. } if session.license == license => {
                Some((index, heartbeat))
            }
            _ => None,
        };
        self.sessions.iter().enumerate().find_map(of_license)
    }

    pub(crate) fn activate(
        &mut self,
        license: usize,
        device: usize,
        now: Now,
    ) -> Result<bool, String> {
        let known = self.usable(license, now)?;
        if known.devices.contains(&device) {
            return Ok(false);
        }
        if known.devices.len() >= known.device_limit {
            return Err("device_limit_reached".to_owned());
        }
        self.licenses[license].devices.insert(device);
        Ok(true)
    }

    pub(crate) fn deactivate(
        &mut self,
        license: usize,
        device: usize,
        now: Now,
    ) -> Result<(), String> {
        if !self.usable(license, now)?.devices.contains(&device) {
            return Err("device_not_activated".to_owned());
        }
        if let Some((index, _)) = self.running_on(license)
            && self.sessions[index].device == device
        {
            self.finish(index, "normal", now);
        }
        self.licenses[license].devices.remove(&device);
        Ok(())
    }

    /// Decides about a start; a new session is added by [`Model::add`], which gets its token.
    pub(crate) fn start(
        &mut self,
        license: usize,
        device: usize,
        key: Option<&str>,
        now: Now,
    ) -> Started {
        let usable = match self.usable(license, now) {
            Ok(usable) => usable,
            Err(code) => return Started::Refused(code),
        };
        if !usable.devices.contains(&device) {
            return Started::Refused("device_not_activated");
        }
        let Some((index, heartbeat)) = self.running_on(license) else {
            return Started::New;
        };
        let stored = key.and_then(|key| self.answers.get(&(license, device, key.to_owned())));
        if heartbeat.timed_out(now) {
            self.finish(index, "timeout", now);
            return Started::New;
        }
        if stored == Some(&index) {
            self.record_heartbeat(index, now);
            return Started::Again(index);
        }
        let same_device = self.sessions[index].device == device;
        match self.policy {
            SessionPolicy::Replace => {}
            SessionPolicy::ReplaceSameDevice if same_device => {}
            _ => return Started::Refused("session_active"),
        }
        self.finish(index, "replaced", now);
        Started::New
    }

    /// Adds a session that was started.
    pub(crate) fn add(
        &mut self,
        (license, device, key): (usize, usize, Option<&str>),
        token: SessionToken,
        answer: &str,
        now: Now,
    ) {
        if let Some(key) = key {
            let request = (license, device, key.to_owned());
            self.answers.insert(request, self.sessions.len());
        }
        let in_file = InFile {
            at: now.wall,
            timeout_s: self.timeout_s,
        };
        self.sessions.push(Session {
            license,
            device,
            token,
            answer: answer.to_owned(),
            started_at: now.wall,
            state: State::Running {
                heartbeat: Heartbeat::at(now, self.timeout_s),
                in_file,
            },
        });
    }

    fn record_heartbeat(&mut self, index: usize, now: Now) {
        let timeout_s = self.timeout_s;
        if let State::Running { heartbeat, .. } = &mut self.sessions[index].state {
            *heartbeat = Heartbeat::at(now, timeout_s);
        }
    }

    /// Ends a session; one that has timed out before ends for that reason.
    fn finish(&mut self, index: usize, reason: &'static str, now: Now) -> &'static str {
        let session = &mut self.sessions[index];
        let State::Running { heartbeat, .. } = session.state else {
            panic!("the session has ended: {session:?}");
        };
        let (reason, ended_at) = if heartbeat.timed_out(now) {
            ("timeout", heartbeat.counts_from.plus_s(heartbeat.timeout_s))
        } else {
            (reason, now.wall)
        };
        session.state = State::Ended {
            last_at: heartbeat.at,
            ended_at,
            reason,
        };
        reason
    }

    /// Decides about a heartbeat with the key of `license`.
    pub(crate) fn heartbeat(
        &mut self,
        index: Option<usize>,
        license: usize,
        now: Now,
    ) -> Result<(), String> {
        let own = index.filter(|index| self.sessions[*index].license == license);
        if let Err(code) = self.usable(license, now).map(drop) {
            if let Some(index) = own
                && let State::Running { .. } = self.sessions[index].state
            {
                self.finish(index, "forced", now);
            }
            return Err(code.to_owned());
        }
        let Some(index) = own else {
            return Err("session_not_found".to_owned());
        };
        match self.sessions[index].state {
            State::Ended { reason, .. } => Err(format!("session_ended {reason}")),
            State::Running { heartbeat, .. } if heartbeat.timed_out(now) => {
                self.finish(index, "timeout", now);
                Err("session_ended timeout".to_owned())
            }
            State::Running { .. } => {
                self.record_heartbeat(index, now);
                Ok(())
            }
        }
    }

    /// Decides about an end, with the key of `license` if one is given.
    pub(crate) fn end(
        &mut self,
        index: Option<usize>,
        license: Option<usize>,
        now: Now,
    ) -> Result<&'static str, String> {
        if license.is_some_and(|license| license >= self.licenses.len()) {
            return Err("license_not_found".to_owned());
        }
        let fits = |index: &usize| license.is_none_or(|of| of == self.sessions[*index].license);
        let Some(index) = index.filter(fits) else {
            return Err("session_not_found".to_owned());
        };
        match self.sessions[index].state {
            State::Ended { reason, .. } => Ok(reason),
            State::Running { .. } => Ok(self.finish(index, "normal", now)),
        }
    }

    pub(crate) fn terminate(&mut self, index: Option<usize>, now: Now) -> Result<(), String> {
        match index.map(|index| (index, &self.sessions[index].state)) {
            Some((index, State::Running { .. })) => {
                self.finish(index, "forced", now);
                Ok(())
            }
            _ => Err("no running session".to_owned()),
        }
    }

    /// The result code, and whether a session is active.
    pub(crate) fn verify(&self, license: usize, device: usize, now: Now) -> (&'static str, bool) {
        let code = match self.usable(license, now) {
            Err(code) => code,
            Ok(usable) if !usable.devices.contains(&device) => "device_not_activated",
            Ok(_) => "valid",
        };
        let active = self
            .running_on(license)
            .is_some_and(|(_, heartbeat)| !heartbeat.timed_out(now));
        (code, active)
    }

    /// Ends sessions of unusable licenses, and sessions that have timed out by the date and the stored heartbeat;
    /// returns how many.
    pub(crate) fn sweep(&mut self, now: Now) -> usize {
        let mut ended = 0;
        for index in 0..self.sessions.len() {
            let session = &self.sessions[index];
            let State::Running { heartbeat, in_file } = session.state else {
                continue;
            };
            let out_of_use = self.usable(session.license, now).is_err();
            // Also a stored heartbeat in the future, from before a crash that lost the latest date.
            let ahead = in_file.at > now.wall.plus_s(60);
            let looks_timed_out = ahead || in_file.at.plus_s(in_file.timeout_s) <= now.wall;
            if out_of_use || (looks_timed_out && heartbeat.timed_out(now)) {
                self.finish(index, "forced", now);
                ended += 1;
            }
        }
        ended
    }

    pub(crate) fn flush(&mut self) {
        for session in &mut self.sessions {
            if let State::Running { heartbeat, in_file } = &mut session.state {
                *in_file = InFile {
                    at: heartbeat.at,
                    timeout_s: heartbeat.timeout_s,
                };
            }
        }
    }

    /// Another process continues with the stored sessions; each has its whole timeout again.
    pub(crate) fn restart(&mut self, started_at: UnixMs) {
        for session in &mut self.sessions {
            if let State::Running { heartbeat, in_file } = &mut session.state {
                *heartbeat = Heartbeat {
                    tick: Duration::ZERO,
                    at: in_file.at,
                    counts_from: in_file.at.max(started_at),
                    timeout_s: in_file.timeout_s,
                };
            }
        }
    }

    /// The rows that both tables must have.
    pub(crate) fn tables(&self) -> (Vec<RunningRow>, Vec<EndedRow>) {
        let (mut running, mut ended) = (Vec::new(), Vec::new());
        for session in &self.sessions {
            let (license, token) = (session.license, hex_of(session.token));
            let (hardware_id, started_at) = (hardware_id(session.device), session.started_at.0);
            match session.state {
                State::Running { in_file, .. } => running.push(RunningRow {
                    license,
                    token,
                    hardware_id,
                    started_at,
                    last_heartbeat_at: in_file.at.0,
                    timeout_s: in_file.timeout_s,
                }),
                State::Ended {
                    last_at,
                    ended_at,
                    reason,
                } => ended.push(EndedRow {
                    license,
                    token,
                    hardware_id,
                    started_at,
                    last_heartbeat_at: last_at.0,
                    ended_at: ended_at.0,
                    reason: reason.to_owned(),
                }),
            }
        }
        running.sort_by(|a, b| a.token.cmp(&b.token));
        ended.sort_by(|a, b| a.token.cmp(&b.token));
        (running, ended)
    }
}
