//! Command line: `license-server session …`.

use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde_json::json;

use super::LivenessCutoff;
use crate::audit::{Act, Actor};
use crate::clock::{Now, Pauses, Tick};
use crate::console::{Console, Extent, List};
use crate::error::Result;
use crate::id::SessionId;
use crate::live_sessions::{LiveSessions, now_for_command};
use crate::products::Slugs;
use crate::products::cli::ProductArg;
use crate::refusals;
use crate::server_state;

use crate::session_history::cli::{history, product_cell, table_row, to_json};
use crate::session_history::{EndReason, SessionDetails};

/// The head of the table; the last column only if there are several products.
const HEAD: &[&str] = &[
    "id",
    "license key",
    "customer",
    "device",
    "address",
    "version",
    "started",
    "last heartbeat",
    "product",
];
/// Maximum sessions listed.
const LIST_MAX: u32 = 100_000;

/// `session …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List running sessions, newest first
    List(ProductArg),
    /// End a session; its program learns of it with its next heartbeat
    End {
        /// The session's id, as shown by `session list`
        id: SessionId,
    },
    /// List ended sessions, or calls that were refused, newest first
    History {
        /// List the calls of programs and websites that were refused, instead of sessions
        #[arg(long)]
        refused: bool,
        /// Only sessions that ended, or calls that were refused, within this many hours
        #[arg(long, default_value_t = 24)]
        hours: u32,
        /// Only those of this license key
        #[arg(long, value_name = "KEY")]
        license: Option<String>,
    },
}

/// Runs a `session` command.
pub fn run(console: &Console, command: Command) -> Result<()> {
    match command {
        Command::List(product) => list(console, &product),
        Command::End { id } => {
            let actor = Actor::command_line(&console.user);
            let StoredLiveness { live, now, .. } = StoredLiveness::load(console)?;
            let reason = console.db.write_blocking("sessions.terminate", move |tx| {
                super::terminate(&Act::new(tx, &actor, now.wall), live.at(now), id)
            })?;
            let line = match reason {
                EndReason::Timeout => format!("session {id} had timed out already"),
                _ => format!("session {id} ended"),
            };
            console.show_line(&json!({ "id": id, "end_reason": reason }), &line)
        }
        Command::History {
            refused,
            hours,
            license,
        } => {
            let list = if refused {
                refusals::cli::history
            } else {
                history
            };
            list(console, hours, license.as_deref())
        }
    }
}

fn list(console: &Console, product: &ProductArg) -> Result<()> {
    let cutoff = StoredLiveness::load(console)?.cutoff;
    let (mut sessions, slugs) = console.db.read_blocking(|reader| {
        let product = product.narrow(reader)?.map(|product| product.id);
        let sessions = super::running(reader, cutoff, product, LIST_MAX + 1)?;
        Ok((sessions, Slugs::read(reader)?))
    })?;
    let extent = Extent::truncate(&mut sessions, LIST_MAX);
    let cells = |session: &SessionDetails| {
        let mut row = table_row(session);
        row.extend(product_cell(session, &slugs));
        row
    };
    console.show_list(&List {
        product: None,
        name: "sessions",
        rows: &sessions,
        document: &|session| to_json(session, &slugs),
        head: slugs.table_head(HEAD),
        cells: &cells,
        cut: extent,
        advice: "the panel lists and searches all of them",
    })
}

/// Which sessions run, judged by the heartbeats in the database: a command receives none itself.
pub struct StoredLiveness {
    /// A table of live sessions with no heartbeats in memory: those in the database count.
    pub live: Arc<LiveSessions>,
    /// The time that operations with `live` must be given.
    pub now: Now,
    /// Which sessions queries count as running.
    pub cutoff: LivenessCutoff,
}

impl StoredLiveness {
    /// Checks whether a server is running on the database: without one, no session times out.
    ///
    /// # Errors
    /// If the database or its lock cannot be read.
    pub fn load(console: &Console) -> Result<Self> {
        let started_at = console.db.read_blocking(server_state::load)?.started_at;
        let now = console.now();
        Ok(if console.db.is_served()? {
            Self {
                live: Arc::new(LiveSessions::for_command(started_at)),
                now: now_for_command(now),
                cutoff: LivenessCutoff::while_served(now.wall),
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
