//! Commands: `license-server flag …`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Flag, FlagChange};
use crate::audit::{Act, Actor};
use crate::console::{Console, Table};
use crate::error::Result;
use crate::products;

/// `flag …`
#[derive(Debug, Subcommand)]
pub enum FlagCommand {
    /// List the feature flags
    List,
    /// Create or change a feature flag
    Set(SetFlag),
    /// Remove a feature flag
    Remove {
        /// Name of the flag
        name: String,
    },
}

/// Arguments of `flag set`.
#[derive(Debug, Args)]
pub struct SetFlag {
    /// Name of the flag
    name: String,
    /// Turn it on
    #[arg(long, conflicts_with = "off")]
    on: bool,
    /// Turn it off for all licenses
    #[arg(long)]
    off: bool,
    /// Percentage of licenses for which it is on
    #[arg(long, value_name = "PERCENT")]
    share: Option<u8>,
    /// Note for administrators
    #[arg(long)]
    description: Option<String>,
}

/// Runs the command.
pub fn run(console: &Console, command: FlagCommand) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    match command {
        FlagCommand::List => {}
        FlagCommand::Set(SetFlag {
            name,
            on,
            off,
            share,
            description,
        }) => {
            let change = FlagChange {
                enabled: (on || off).then_some(on),
                share_percent: share,
                description,
            };
            console.db.write_blocking("flags.set", move |tx| {
                let product = products::named_or_sole(tx, None)?.id;
                super::set(&Act::new(tx, &actor, now), product, &name, &change)
            })?;
        }
        FlagCommand::Remove { name } => {
            console.db.write_blocking("flags.remove", move |tx| {
                let product = products::named_or_sole(tx, None)?.id;
                super::remove(&Act::new(tx, &actor, now), product, &name)
            })?;
        }
    }
    show(console)
}

fn show(console: &Console) -> Result<()> {
    let flags = console
        .db
        .read_blocking(|reader| super::list(reader, products::named_or_sole(reader, None)?.id))?;
    let rows = flags.iter().map(|flag| {
        let state = if flag.enabled { "on" } else { "off" };
        vec![
            flag.name.clone(),
            state.to_owned(),
            format!("{} %", flag.share_percent),
            flag.description.clone(),
        ]
    });
    let documents: Vec<Value> = flags.iter().map(Flag::facts).collect();
    console.show(
        &json!({ "flags": documents }),
        &Table::new(&["name", "state", "share", "description"]).with(rows),
    )
}
