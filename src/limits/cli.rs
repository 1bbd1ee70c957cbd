//! Commands: `license-server limit …`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Limit, LimitChange};
use crate::audit::{Act, Actor};
use crate::console::{Console, Table};
use crate::error::Result;

/// `limit …`
#[derive(Debug, Subcommand)]
pub enum LimitCommand {
    /// List the rate limits per source address
    List,
    /// Change a rate limit
    Set {
        /// client, `client_failures`, login or site
        group: String,
        /// Calls per minute; 0 turns the limit off
        #[arg(long)]
        per_minute: u32,
        /// Burst size [unchanged by default]
        #[arg(long)]
        burst: Option<u32>,
    },
}

/// Runs the command.
pub fn run(console: &Console, command: LimitCommand) -> Result<()> {
    if let LimitCommand::Set {
        group,
        per_minute,
        burst,
    } = command
    {
        let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
        let change = LimitChange { per_minute, burst };
        console.db.write_blocking("limits.set", move |tx| {
            super::set(&Act::new(tx, &actor, now), &group, change)
        })?;
    }
    let limits = console.db.read_blocking(super::list)?;
    let rows = limits.iter().map(|limit| {
        let rate = if limit.per_minute == 0 {
            "no limit".to_owned()
        } else {
            limit.per_minute.to_string()
        };
        vec![limit.name.clone(), rate, limit.burst.to_string()]
    });
    let documents: Vec<Value> = limits.iter().map(Limit::facts).collect();
    console.show(
        &json!({ "limits": documents }),
        &Table::new(&["group", "per minute", "burst"]).with(rows),
    )
}
