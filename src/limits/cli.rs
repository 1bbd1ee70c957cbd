//! Commands: `license-server limit …`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Limit, LimitChange, Rate};
use crate::audit::{Act, Actor};
use crate::console::{Console, Table};
use crate::error::{Error, Result};

/// `limit …`
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// List the rate limits per source address
    List,
    /// Change a rate limit
    Set {
        /// client, `client_failures`, login, site or trials
        group: String,
        /// Calls per minute; 0 turns the limit off
        #[arg(
            long,
            required_unless_present = "per_hour",
            conflicts_with = "per_hour"
        )]
        per_minute: Option<u32>,
        /// Burst size [unchanged by default]
        #[arg(long, conflicts_with = "per_hour")]
        burst: Option<u32>,
        /// New trials per hour, for the group trials; 0 turns the limit off
        #[arg(long)]
        per_hour: Option<u32>,
    },
}

/// Runs the command.
pub fn run(console: &Console, command: LimitCommand) -> Result<()> {
    if let LimitCommand::Set {
        group,
        per_minute,
        burst,
        per_hour,
    } = command
    {
        let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
        let change = match (per_minute, per_hour) {
            (Some(calls), _) => LimitChange::PerMinute { calls, burst },
            (None, Some(trials)) => LimitChange::PerHour { trials },
            (None, None) => return Err(Error::Usage("give --per-minute or --per-hour".to_owned())),
        };
        console.db.write_blocking("limits.set", move |tx| {
            super::set(&Act::new(tx, &actor, now), &group, change)
        })?;
    }
    let limits = console.db.read_blocking(super::list)?;
    let rows = limits.iter().map(|limit| {
        let (rate, burst) = match limit.rate {
            Rate::PerMinute { calls: 0, burst } => ("no limit".to_owned(), burst.to_string()),
            Rate::PerMinute { calls, burst } => (calls.to_string(), burst.to_string()),
            Rate::PerHour { trials: 0 } => ("no limit".to_owned(), String::new()),
            Rate::PerHour { trials } => (format!("{trials} an hour"), String::new()),
        };
        vec![limit.name.clone(), rate, burst]
    });
    let documents: Vec<Value> = limits.iter().map(Limit::facts).collect();
    console.show(
        &json!({ "limits": documents }),
        &Table::new(&["group", "per minute", "burst"]).with(rows),
    )
}
