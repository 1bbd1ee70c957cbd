//! Commands: `license-server config …`, `limit …` and `flag …`.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Flag, FlagChange, Limit, ProductSettings};
use crate::audit::Actor;
use crate::console::{Console, Table, message};
use crate::error::{Error, Result};
use crate::signing_keys;

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the client configuration
    Show,
    /// Change settings, such as `heartbeat_interval=30` `minimum_version=1.0.0`
    Set {
        /// One or more KEY=VALUE
        #[arg(required = true, value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Create a new API key; the old one keeps working for an overlap period
    RotateApiKey {
        /// Days that the old key keeps working; 0 stops it immediately
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=3650))]
        overlap_days: u32,
    },
    /// Switch to the next signing key and create a new next one; give it to programs and sites in time
    RotateSigningKey {
        /// Replace keys whose files are lost; everything that verifies signatures then needs the new ones
        #[arg(long)]
        lost: bool,
    },
    /// Record the certificate authority in data/tls as the one that programs trust, or replace a lost one; requires a
    /// stopped server. Every program then needs its certificate, data/tls/ca.pem
    NewAuthority {
        /// Create a new authority although the known one exists
        #[arg(long)]
        replace: bool,
    },
}

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
pub fn config(console: &Console, command: ConfigCommand) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let config = match command {
        ConfigCommand::Show => console.db.read_blocking(super::product_settings)?,
        ConfigCommand::Set { pairs } => {
            let pairs = pairs
                .iter()
                .map(|pair| pair_of(pair))
                .collect::<Result<Vec<_>>>()?;
            console.db.write_blocking("products.set", move |tx| {
                super::set(tx, &pairs, &actor, now)
            })?
        }
        ConfigCommand::RotateApiKey { overlap_days } => {
            let overlap = Duration::from_secs(u64::from(overlap_days) * 24 * 60 * 60);
            console
                .db
                .write_blocking("products.rotate_api_key", move |tx| {
                    super::rotate_api_key(tx, overlap, &actor, now)
                })?
        }
        // The command line opens the database exclusively for this command, so no server is running.
        ConfigCommand::NewAuthority { replace } => {
            return signing_keys::cli::new_authority(console, folder(console), replace);
        }
        ConfigCommand::RotateSigningKey { lost } => {
            signing_keys::rotate(&console.db, folder(console), lost, actor, now)?;
            console.db.read_blocking(super::product_settings)?
        }
    };
    let shown = config.clone();
    if console
        .db
        .read_blocking(move |reader| super::current_is_no_release(reader, &shown))?
    {
        message(
            "warning: current_version is not a published release: programs are not told what is new; see `release list`",
        );
    }
    if config.minimum_version > config.current_version {
        message(
            "warning: minimum_version is above current_version: even the newest program is refused",
        );
    }
    let published = console
        .db
        .read_blocking(|reader| signing_keys::published(reader, now))?;
    let mut facts = to_json(&config);
    if let Some(keys) = &published {
        facts.extend(members(json!({
            "signing_key_id": keys.current.id(),
            "signing_public_key": keys.current.base64(),
            "next_signing_key_id": keys.next.id(),
            "next_signing_public_key": keys.next.base64(),
        })));
    }
    let rows: Vec<Vec<String>> = facts
        .iter()
        .map(|(key, value)| {
            let text = value.as_str().map(str::to_owned);
            vec![key.clone(), text.unwrap_or_else(|| value.to_string())]
        })
        .collect();
    // JSON output also contains the keys that were rotated out.
    if let Some(keys) = &published {
        facts.insert("signing_keys".to_owned(), keys.to_json());
    }
    let table = Table::new(&["key", "value"]).with(rows);
    console.show(&Value::Object(facts), &table)
}

/// The folder that the database is in.
fn folder(console: &Console) -> &Path {
    console.db.path().parent().unwrap_or_else(|| Path::new("."))
}

fn pair_of(pair: &str) -> Result<(String, String)> {
    let (key, value) = pair
        .split_once('=')
        .ok_or_else(|| Error::Usage(format!("{pair:?} is not KEY=VALUE")))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn to_json(config: &ProductSettings) -> Map<String, Value> {
    members(json!({
        "client_name": config.client_name,
        "api_key": config.api_key.reveal(),
        "heartbeat_interval": config.heartbeat_interval,
        "session_timeout": config.session_timeout,
        "current_version": config.current_version,
        "minimum_version": config.minimum_version,
        "session_policy": config.session_policy,
        "offline_days": config.offline_days,
    }))
}

/// Runs the command.
pub fn limit(console: &Console, command: LimitCommand) -> Result<()> {
    if let LimitCommand::Set {
        group,
        per_minute,
        burst,
    } = command
    {
        let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
        console.db.write_blocking("products.set_limit", move |tx| {
            let old = super::limits(tx)?
                .into_iter()
                .find(|limit| limit.name == group);
            let old = old.ok_or_else(|| Error::not_found("rate limit", &group))?;
            let burst = burst.unwrap_or(old.burst);
            super::set_limit(
                tx,
                &Limit {
                    name: group,
                    per_minute,
                    burst,
                },
                &actor,
                now,
            )
        })?;
    }
    let limits = console.db.read_blocking(super::limits)?;
    let rows = limits.iter().map(|limit| {
        let rate = if limit.per_minute == 0 {
            "no limit".to_owned()
        } else {
            limit.per_minute.to_string()
        };
        vec![limit.name.clone(), rate, limit.burst.to_string()]
    });
    console.show(
        &json!({ "limits": limits }),
        &Table::new(&["group", "per minute", "burst"]).with(rows),
    )
}

/// Runs the command.
pub fn flag(console: &Console, command: FlagCommand) -> Result<()> {
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
            let enabled = (on || off).then_some(on);
            let change = FlagChange {
                enabled,
                share_percent: share,
                description,
            };
            console.db.write_blocking("products.set_flag", move |tx| {
                super::set_flag(tx, &name, &change, &actor, now)
            })?;
        }
        FlagCommand::Remove { name } => {
            console
                .db
                .write_blocking("products.remove_flag", move |tx| {
                    super::remove_flag(tx, &name, &actor, now)
                })?;
        }
    }
    let flags = console.db.read_blocking(super::flags)?;
    let rows = flags.iter().map(|flag| {
        let Flag {
            name,
            description,
            enabled,
            share_percent,
        } = flag;
        let state = if *enabled { "on" } else { "off" };
        vec![
            name.clone(),
            state.to_owned(),
            format!("{share_percent} %"),
            description.clone(),
        ]
    });
    console.show(
        &json!({ "flags": flags }),
        &Table::new(&["name", "state", "share", "description"]).with(rows),
    )
}
