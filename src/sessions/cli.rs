//! Command line: `license-server session …` and `license release-device`.

use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    EndReason, EndedSession, HistoryQuery, LiveSessions, LivenessCutoff, RunningSession,
    tick_from_wall,
};
use crate::audit::Actor;
use crate::clock::{Now, Pauses, Tick};
use crate::console::{Console, Extent, Table};
use crate::error::Result;
use crate::id::SessionId;
use crate::licenses;
use crate::server_state;

const LIST_MAX: u32 = 100_000;
const HOUR: Duration = Duration::from_hours(1);

/// `session …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List running sessions, newest first
    List,
    /// End a session; its program learns of it with its next heartbeat
    End {
        /// The session's id, as shown by `session list`
        id: SessionId,
    },
    /// List ended sessions, newest first
    History {
        /// Only sessions that ended within this many hours
        #[arg(long, default_value_t = 24)]
        hours: u32,
        /// Only sessions of this license key
        #[arg(long, value_name = "KEY")]
        license: Option<String>,
    },
}

/// Runs a `session` command.
pub fn run(console: &Console, command: Command) -> Result<()> {
    match command {
        Command::List => list(console),
        Command::End { id } => {
            let actor = Actor::command_line(&console.user);
            let OfflineLiveness { live, now, .. } = OfflineLiveness::load(console)?;
            let reason = console.db.write_blocking("sessions.terminate", move |tx| {
                super::terminate(tx, &live, id, &actor, now)
            })?;
            let line = match reason {
                EndReason::Timeout => format!("session {id} had timed out already"),
                _ => format!("session {id} ended"),
            };
            console.show_line(&json!({ "id": id, "end_reason": reason }), &line)
        }
        Command::History { hours, license } => history(console, hours, license.as_deref()),
    }
}

fn list(console: &Console) -> Result<()> {
    let cutoff = OfflineLiveness::load(console)?.cutoff;
    let mut sessions = console
        .db
        .read_blocking(|reader| super::running(reader, cutoff, LIST_MAX + 1))?;
    let cut = Extent::truncate(&mut sessions, LIST_MAX);
    let documents: Vec<Value> = sessions.iter().map(to_json).collect();
    let head = &[
        "id",
        "license key",
        "customer",
        "device",
        "address",
        "version",
        "started",
        "last heartbeat",
    ];
    let table = Table::new(head).with(sessions.iter().map(row));
    let hint = "the panel lists and searches all of them";
    console.show_list(json!({ "sessions": documents }), &table, cut, hint)
}

fn history(console: &Console, hours: u32, license: Option<&str>) -> Result<()> {
    let since = console.now().wall.minus(HOUR * hours);
    let mut ended = console.db.read_blocking(|reader| {
        let license = license
            .map(|key| licenses::by_typed_key(reader, key))
            .transpose()?;
        let span = HistoryQuery {
            since,
            license_id: license.map(|license| license.id),
            limit: LIST_MAX + 1,
        };
        super::history(reader, &span)
    })?;
    let cut = Extent::truncate(&mut ended, LIST_MAX);
    let documents: Vec<Value> = ended.iter().map(ended_to_json).collect();
    let head = &[
        "id",
        "license key",
        "customer",
        "device",
        "address",
        "version",
        "started",
        "ended",
        "reason",
        "sessions",
    ];
    let rows = ended.iter().map(|ended| {
        let mut row = row(&ended.session);
        row.pop();
        row.extend([
            ended.ended_at.rfc3339(),
            ended.reason.word().to_owned(),
            ended.sessions.to_string(),
        ]);
        row
    });
    console.show_list(
        json!({ "sessions": documents }),
        &Table::new(head).with(rows),
        cut,
        "narrow the list with --hours or --license",
    )
}

/// Frees the slot of the device with this fingerprint or name.
pub fn release_device(console: &Console, key: &str, name_or_fingerprint: &str) -> Result<()> {
    let actor = Actor::command_line(&console.user);
    let OfflineLiveness { live, now, .. } = OfflineLiveness::load(console)?;
    let license = console
        .db
        .read_blocking(|reader| licenses::by_typed_key(reader, key))?;
    let (id, device) = (license.id, name_or_fingerprint.to_owned());
    let device = console
        .db
        .write_blocking("sessions.release_device", move |tx| {
            super::release_named_device(tx, &live, id, &device, &actor, now)
        })?;
    let line = format!(
        "device {} ({}) no longer holds a slot of {}",
        device.machine_id,
        device.hardware_id,
        license.key.formatted()
    );
    let released = json!({
        "license_key": license.key,
        "hardware_id": device.hardware_id,
        "machine_id": device.machine_id,
    });
    console.show_line(&released, &line)
}

/// What a command needs to tell which sessions run: it receives no heartbeats itself.
pub struct OfflineLiveness {
    live: Arc<LiveSessions>,
    now: Now,
    /// Which sessions count as running.
    pub cutoff: LivenessCutoff,
}

impl OfflineLiveness {
    /// Checks whether a server runs: without one, no session times out.
    ///
    /// # Errors
    /// If the database or its lock cannot be read.
    pub fn load(console: &Console) -> Result<Self> {
        let started_at = console.db.read_blocking(server_state::load)?.started_at;
        let now = console.now();
        Ok(if console.db.is_served()? {
            Self {
                live: Arc::new(LiveSessions::for_command(started_at)),
                now: tick_from_wall(now),
                cutoff: LivenessCutoff::while_served(started_at, now.wall),
            }
        } else {
            Self {
                live: Arc::new(LiveSessions::new(started_at, Pauses::default())),
                now: Now {
                    tick: Tick::START,
                    awake: Duration::ZERO,
                    ..now
                },
                cutoff: LivenessCutoff::without_server(),
            }
        })
    }
}

/// A running session in JSON output.
pub fn to_json(session: &RunningSession) -> Value {
    json!({
        "id": session.id,
        "license_key": session.license_key,
        "customer": session.customer,
        "hardware_id": session.hardware_id,
        "machine_id": session.machine_id,
        "address": session.address,
        "version": session.version,
        "started_at": session.started_at.rfc3339(),
        "last_heartbeat_at": session.last_heartbeat_at.rfc3339(),
    })
}

/// An ended session in JSON output.
pub fn ended_to_json(ended: &EndedSession) -> Value {
    let mut value = to_json(&ended.session);
    if let Some(map) = value.as_object_mut() {
        map.insert("ended_at".to_owned(), ended.ended_at.rfc3339().into());
        map.insert("end_reason".to_owned(), ended.reason.word().into());
        map.insert("sessions".to_owned(), ended.sessions.into());
    }
    value
}

fn row(session: &RunningSession) -> Vec<String> {
    vec![
        session.id.to_string(),
        session.license_key.formatted(),
        session.customer.clone(),
        session.machine_id.clone(),
        session.address.clone(),
        session.version.to_string(),
        session.started_at.rfc3339(),
        session.last_heartbeat_at.rfc3339(),
    ]
}
