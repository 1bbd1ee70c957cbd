//! The door for the operator: `license-server config …`, `limit …` and `flag …`.

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
    /// Show what programs are told and held to
    Show,
    /// Change it: `heartbeat_interval=30` `minimum_version=1.0.0` …
    Set {
        /// One or more KEY=VALUE
        #[arg(required = true, value_name = "KEY=VALUE")]
        pairs: Vec<String>,
    },
    /// Make a new API key; the old one goes on opening the door for a while
    RotateApiKey {
        /// For how many days the old one does; 0: it stops at once
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=3650))]
        overlap_days: u32,
    },
    /// Sign with the next key from now on, and make another next one; give it to programs and sites in time
    RotateSigningKey {
        /// Replace keys whose files are lost: what verifies has to be given the new ones
        #[arg(long)]
        lost: bool,
    },
    /// Take the authority in data/tls for the one that programs trust, or make one that is lost anew, while no server
    /// runs; every program has to be given its certificate, data/tls/ca.pem
    NewAuthority {
        /// Make another one although the known one is there
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
        /// Calls a minute; 0 switches the limit off
        #[arg(long)]
        per_minute: u32,
        /// Calls at once; what it was, unless named
        #[arg(long)]
        burst: Option<u32>,
    },
}

/// `flag …`
#[derive(Debug, Subcommand)]
pub enum FlagCommand {
    /// List the feature flags
    List,
    /// Make or change a feature flag
    Set(SetFlag),
    /// Remove a feature flag
    Remove {
        /// Its name
        name: String,
    },
}

/// What is to change about a flag.
#[derive(Debug, Args)]
pub struct SetFlag {
    /// Its name
    name: String,
    /// Switch it on
    #[arg(long, conflicts_with = "off")]
    on: bool,
    /// Switch it off for everybody
    #[arg(long)]
    off: bool,
    /// For how many of a hundred licenses it is on
    #[arg(long, value_name = "PERCENT")]
    share: Option<u8>,
    /// A note for yourself
    #[arg(long)]
    description: Option<String>,
}

/// Does what `command` says.
///
/// # Errors
/// What the verbs return.
pub fn config(console: &Console, command: ConfigCommand) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let config = match command {
        ConfigCommand::Show => console.db.read_blocking(super::find)?,
        ConfigCommand::Set { pairs } => {
            let pairs = pairs
                .iter()
                .map(|pair| pair_of(pair))
                .collect::<Result<Vec<_>>>()?;
            console.db.write_blocking("client_config.set", move |tx| {
                super::set(tx, &pairs, &actor, now)
            })?
        }
        ConfigCommand::RotateApiKey { overlap_days } => {
            let overlap = Duration::from_secs(u64::from(overlap_days) * 24 * 60 * 60);
            console
                .db
                .write_blocking("client_config.rotate_api_key", move |tx| {
                    super::rotate_api_key(tx, overlap, &actor, now)
                })?
        }
        // Not beside a server: the command line opens the database otherwise for it.
        ConfigCommand::NewAuthority { replace } => {
            return signing_keys::cli::new_authority(console, folder(console), replace);
        }
        ConfigCommand::RotateSigningKey { lost } => {
            signing_keys::rotate(&console.db, folder(console), lost, actor, now)?;
            console.db.read_blocking(super::find)?
        }
    };
    let shown = config.clone();
    if console
        .db
        .read_blocking(move |reader| super::current_is_no_release(reader, &shown))?
    {
        message(
            "warning: current_version is no release that is to be had: programs do not hear what is new; see release list",
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
    let mut facts = document(&config);
    if let Some(known) = &published {
        facts.extend(members(json!({
            "signing_key_id": known.current.id(),
            "signing_public_key": known.current.base64(),
            "next_signing_key_id": known.next.id(),
            "next_signing_public_key": known.next.base64(),
        })));
    }
    let rows: Vec<Vec<String>> = facts
        .iter()
        .map(|(key, value)| {
            let word = value.as_str().map(str::to_owned);
            vec![key.clone(), word.unwrap_or_else(|| value.to_string())]
        })
        .collect();
    // For scripts all of them, also those that were in force.
    if let Some(known) = &published {
        facts.insert("signing_keys".to_owned(), known.document());
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

fn members(document: Value) -> Map<String, Value> {
    match document {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

fn document(config: &ProductSettings) -> Map<String, Value> {
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

/// Does what `command` says.
///
/// # Errors
/// What the verbs return.
pub fn limit(console: &Console, command: LimitCommand) -> Result<()> {
    if let LimitCommand::Set {
        group,
        per_minute,
        burst,
    } = command
    {
        let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
        console
            .db
            .write_blocking("client_config.set_limit", move |tx| {
                let known = super::limits(tx)?
                    .into_iter()
                    .find(|limit| limit.name == group);
                let known = known.ok_or_else(|| Error::not_found("rate limit", &group))?;
                let burst = burst.unwrap_or(known.burst);
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

/// Does what `command` says.
///
/// # Errors
/// What the verbs return.
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
            console
                .db
                .write_blocking("client_config.set_flag", move |tx| {
                    super::set_flag(tx, &name, &change, &actor, now)
                })?;
        }
        FlagCommand::Remove { name } => {
            console
                .db
                .write_blocking("client_config.remove_flag", move |tx| {
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
