//! Sessions as `client-api.md` describes them, without a file, a thread or a cache. Only the page was at
//! hand when this was written: where it and the server differ, one of them is wrong.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use license_server::client_config::Policy;
use license_server::clock::{Now, UnixMs};
use license_server::id::SessionToken;

use crate::house::{EndedRow, RunningRow, hardware_id, hex_of};

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
        heard: Heard,
        /// What the file knows of it: all that outlives the process.
        in_file: InFile,
    },
    Ended {
        last_at: UnixMs,
        ended_at: UnixMs,
        reason: &'static str,
    },
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Age of the process.
    tick: Duration,
    at: UnixMs,
    /// From when silence counts.
    counts_from: UnixMs,
    timeout_s: u32,
}

#[derive(Clone, Copy, Debug)]
struct InFile {
    at: UnixMs,
    timeout_s: u32,
}

/// What a start is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    New,
    /// The answer that the session of this index was started with.
    Again(usize),
    Refused(&'static str),
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) licenses: Vec<License>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) policy: Policy,
    pub(crate) timeout_s: u32,
    answers: HashMap<(usize, usize, String), usize>,
}

impl Heard {
    fn just(now: Now, timeout_s: u32) -> Self {
        Self {
            tick: now.tick.0,
            at: now.wall,
            counts_from: now.wall,
            timeout_s,
        }
    }

    fn over(&self, now: Now) -> bool {
        now.tick.0 >= self.tick + Duration::from_secs(u64::from(self.timeout_s))
    }
}

impl Model {
    pub(crate) fn new(licenses: Vec<License>) -> Self {
        Self {
            licenses,
            sessions: Vec::new(),
            policy: Policy::Reject,
            timeout_s: 60,
            answers: HashMap::new(),
        }
    }

    /// The token that was handed out as many starts ago.
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

    fn running_on(&self, license: usize) -> Option<(usize, Heard)> {
        let of_license = |(index, session): (usize, &Session)| match session.state {
            State::Running { heard, .. } if session.license == license => Some((index, heard)),
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

    /// Judges a start; one that is new is taken in by [`Model::admit`], which knows its token.
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
        let Some((index, heard)) = self.running_on(license) else {
            return Started::New;
        };
        let first = key.and_then(|key| self.answers.get(&(license, device, key.to_owned())));
        if heard.over(now) {
            self.finish(index, "timeout", now);
            return Started::New;
        }
        if first == Some(&index) {
            self.hear(index, now);
            return Started::Again(index);
        }
        let same_device = self.sessions[index].device == device;
        match self.policy {
            Policy::Replace => {}
            Policy::ReplaceSameDevice if same_device => {}
            _ => return Started::Refused("session_active"),
        }
        self.finish(index, "replaced", now);
        Started::New
    }

    /// A session has been started.
    pub(crate) fn admit(
        &mut self,
        (license, device, key): (usize, usize, Option<&str>),
        token: SessionToken,
        answer: &str,
        now: Now,
    ) {
        if let Some(key) = key {
            let asked = (license, device, key.to_owned());
            self.answers.insert(asked, self.sessions.len());
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
                heard: Heard::just(now, self.timeout_s),
                in_file,
            },
        });
    }

    fn hear(&mut self, index: usize, now: Now) {
        let timeout_s = self.timeout_s;
        if let State::Running { heard, .. } = &mut self.sessions[index].state {
            *heard = Heard::just(now, timeout_s);
        }
    }

    /// Ends a session; one that has fallen silent before has ended of that.
    fn finish(&mut self, index: usize, reason: &'static str, now: Now) -> &'static str {
        let session = &mut self.sessions[index];
        let State::Running { heard, .. } = session.state else {
            panic!("it runs no more: {session:?}");
        };
        let (reason, ended_at) = if heard.over(now) {
            ("timeout", heard.counts_from.plus_s(heard.timeout_s))
        } else {
            (reason, now.wall)
        };
        session.state = State::Ended {
            last_at: heard.at,
            ended_at,
            reason,
        };
        reason
    }

    /// A heartbeat with the key of `license`.
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
            State::Running { heard, .. } if heard.over(now) => {
                self.finish(index, "timeout", now);
                Err("session_ended timeout".to_owned())
            }
            State::Running { .. } => {
                self.hear(index, now);
                Ok(())
            }
        }
    }

    /// An end, with the key of `license` where one is given.
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

    /// The code of the verdict, and whether a session lives.
    pub(crate) fn verify(&self, license: usize, device: usize, now: Now) -> (&'static str, bool) {
        let code = match self.usable(license, now) {
            Err(code) => code,
            Ok(usable) if !usable.devices.contains(&device) => "device_not_activated",
            Ok(_) => "valid",
        };
        let lives = self
            .running_on(license)
            .is_some_and(|(_, heard)| !heard.over(now));
        (code, lives)
    }

    /// What may be tidied up: sessions of licenses that are out of use, and sessions that fell silent, as
    /// far as the date and the file show it. How many.
    pub(crate) fn sweep(&mut self, now: Now) -> usize {
        let mut ended = 0;
        for index in 0..self.sessions.len() {
            let session = &self.sessions[index];
            let State::Running { heard, in_file } = session.state else {
                continue;
            };
            let out_of_use = self.usable(session.license, now).is_err();
            // Also what the file heard in the future: before a crash that took the date back with it.
            let ahead = in_file.at > now.wall.plus_s(60);
            let shows = ahead || in_file.at.plus_s(in_file.timeout_s) <= now.wall;
            if out_of_use || (shows && heard.over(now)) {
                self.finish(index, "forced", now);
                ended += 1;
            }
        }
        ended
    }

    pub(crate) fn flush(&mut self) {
        for session in &mut self.sessions {
            if let State::Running { heard, in_file } = &mut session.state {
                *in_file = InFile {
                    at: heard.at,
                    timeout_s: heard.timeout_s,
                };
            }
        }
    }

    /// Another process goes on with what the file knows; each session has its whole timeout again.
    pub(crate) fn restart(&mut self, started_at: UnixMs) {
        for session in &mut self.sessions {
            if let State::Running { heard, in_file } = &mut session.state {
                *heard = Heard {
                    tick: Duration::ZERO,
                    at: in_file.at,
                    counts_from: in_file.at.max(started_at),
                    timeout_s: in_file.timeout_s,
                };
            }
        }
    }

    /// Both tables as the file must have them.
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
