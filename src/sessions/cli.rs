//! Command line: `license-server session …` and `license release-device`.

use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{EndReason, Ended, LiveSessions, LivenessCutoff, Running, Span, tick_from_wall};
use crate::audit::Actor;
use crate::clock::{Now, Pauses, Tick};
use crate::console::{Console, Cut, Table};
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
            let OfflineLiveness { live, now, .. } = OfflineLiveness::look(console)?;
            let reason = console.db.write_blocking("sessions.terminate", move |tx| {
                super::terminate(tx, &live, id, &actor, now)
            })?;
            let line = match reason {
                EndReason::Timeout => format!("session {id} had timed out already"),
                _ => format!("session {id} ended"),
            };
            console.tell(&json!({ "id": id, "end_reason": reason }), &line)
        }
        Command::History { hours, license } => history(console, hours, license.as_deref()),
    }
}

fn list(console: &Console) -> Result<()> {
    let cutoff = OfflineLiveness::look(console)?.alive;
    let mut sessions = console
        .db
        .read_blocking(|reader| super::running(reader, cutoff, LIST_MAX + 1))?;
    let cut = Cut::off(&mut sessions, LIST_MAX);
    let documents: Vec<Value> = sessions.iter().map(document).collect();
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
    console.show_cut(json!({ "sessions": documents }), &table, cut, hint)
}

fn history(console: &Console, hours: u32, license: Option<&str>) -> Result<()> {
    let since = console.now().wall.minus(HOUR * hours);
    let mut ended = console.db.read_blocking(|reader| {
        let license = license
            .map(|key| licenses::by_typed_key(reader, key))
            .transpose()?;
        let span = Span {
            since,
            license_id: license.map(|license| license.id),
            limit: LIST_MAX + 1,
        };
        super::history(reader, &span)
    })?;
    let cut = Cut::off(&mut ended, LIST_MAX);
    let documents: Vec<Value> = ended.iter().map(ended_document).collect();
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
    console.show_cut(
        json!({ "sessions": documents }),
        &Table::new(head).with(rows),
        cut,
        "narrow the list with --hours or --license",
    )
}

/// Frees the slot of the device with this fingerprint or name.
pub fn release_device(console: &Console, key: &str, name_or_fingerprint: &str) -> Result<()> {
    let actor = Actor::command_line(&console.user);
    let OfflineLiveness { live, now, .. } = OfflineLiveness::look(console)?;
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
        license.key.shown()
    );
    let released = json!({
        "license_key": license.key,
        "hardware_id": device.hardware_id,
        "machine_id": device.machine_id,
    });
    console.tell(&released, &line)
}

/// What a command needs to tell which sessions run: it receives no heartbeats itself.
pub struct OfflineLiveness {
    live: Arc<LiveSessions>,
    now: Now,
    /// Which sessions count as running.
    pub alive: LivenessCutoff,
}

impl OfflineLiveness {
    /// Checks whether a server runs: without one, no session times out.
    ///
    /// # Errors
    /// If the database or its lock cannot be read.
    pub fn look(console: &Console) -> Result<Self> {
        let started_at = console.db.read_blocking(server_state::load)?.started_at;
        let now = console.now();
        Ok(if console.db.is_served()? {
            Self {
                live: Arc::new(LiveSessions::beside(started_at)),
                now: tick_from_wall(now),
                alive: LivenessCutoff::served(started_at, now.wall),
            }
        } else {
            Self {
                live: Arc::new(LiveSessions::new(started_at, Pauses::default())),
                now: Now {
                    tick: Tick::START,
                    awake: Duration::ZERO,
                    ..now
                },
                alive: LivenessCutoff::waiting(),
            }
        })
    }
}

/// A running session in JSON output.
pub fn document(session: &Running) -> Value {
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
pub fn ended_document(ended: &Ended) -> Value {
    let mut value = document(&ended.session);
    if let Some(map) = value.as_object_mut() {
        map.insert("ended_at".to_owned(), ended.ended_at.rfc3339().into());
        map.insert("end_reason".to_owned(), ended.reason.word().into());
        map.insert("sessions".to_owned(), ended.sessions.into());
    }
    value
}

fn row(session: &Running) -> Vec<String> {
    vec![
        session.id.to_string(),
        session.license_key.shown(),
        session.customer.clone(),
        session.machine_id.clone(),
        session.address.clone(),
        session.version.to_string(),
        session.started_at.rfc3339(),
        session.last_heartbeat_at.rfc3339(),
    ]
}
