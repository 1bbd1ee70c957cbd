//! Commands: `license-server flag …`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Flag, FlagChange};
use crate::audit::{Act, Actor};
use crate::console::{Console, Table};
use crate::error::Result;
use crate::products::cli::ProductArg;

/// `flag`, with the product that it is about.
#[derive(Debug, Args)]
pub struct Flags {
    #[command(flatten)]
    product: ProductArg,
    /// What to do
    #[command(subcommand)]
    pub command: FlagCommand,
}

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
pub fn run(console: &Console, Flags { product, command }: Flags) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let named = product.clone();
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
                let product = named.resolve(tx)?.id;
                super::set(&Act::new(tx, &actor, now), product, &name, &change)
            })?;
        }
        FlagCommand::Remove { name } => {
            console.db.write_blocking("flags.remove", move |tx| {
                let product = named.resolve(tx)?.id;
                super::remove(&Act::new(tx, &actor, now), product, &name)
            })?;
        }
    }
    show(console, &product)
}

fn show(console: &Console, product: &ProductArg) -> Result<()> {
    let (product, flags) = console.db.read_blocking(|reader| {
        let product = product.resolve_for_reading(reader)?;
        let flags = super::list(reader, product.id)?;
        Ok((product, flags))
    })?;
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
        &json!({ "product": product.slug, "flags": documents }),
        &Table::new(&["name", "state", "share", "description"]).with(rows),
    )
}
