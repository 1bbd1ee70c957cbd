//! Commands: `license-server config …`.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::ProductArg;
use crate::api_keys;
use crate::audit::{Act, Actor};
use crate::console::{self, Console, OutputFormat, Table, message};
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::products::{self, Product, ProductSettings, UnconfirmedMinimum};
use crate::signing_keys::{self, LostKeys, PresentAuthority, Published};

/// `config`, with the product that it is about.
#[derive(Debug, Args)]
pub struct Config {
    #[command(flatten)]
    product: ProductArg,
    /// What to do
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show the client configuration
    Show,
    /// Change settings, such as `heartbeat_interval=30` `minimum_version=1.0.0`
    Set(Set),
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

/// The answer to `config set` without a key.
const KEYS: &str = "name what to set, as KEY=VALUE: client_name (the program's name), heartbeat_interval (seconds, 1..3600), \
                    session_timeout (seconds, above heartbeat_interval, at most 86400), current_version and minimum_version \
                    (such as 1.4.0), session_policy (reject, replace_same_device or replace), offline_days (0..90), trial_plan \
                    (the code of a plan of the kind trial, or nothing), api_key (a key that your programs contain already)";

/// `config set`
#[derive(Debug, Args)]
pub struct Set {
    /// One or more KEY=VALUE; without any, the keys are listed
    #[arg(value_name = "KEY=VALUE")]
    pairs: Vec<String>,
    /// Refuse programs older than a new minimum version without asking
    #[arg(long)]
    yes: bool,
}

/// Runs the command.
pub fn run(console: &Console, Config { product, command }: Config) -> Result<()> {
    match command {
        ConfigCommand::Show => {}
        ConfigCommand::Set(change) => set(console, &product, &change)?,
        ConfigCommand::RotateApiKey { overlap_days } => {
            api_keys::cli::rotate(console, &product, overlap_days)?;
        }
        ConfigCommand::NewAuthority { replace } => {
            let present = if replace {
                PresentAuthority::Replace
            } else {
                PresentAuthority::Keep
            };
            return signing_keys::cli::new_authority(console, folder(console), present);
        }
        ConfigCommand::RotateSigningKey { lost } => {
            let lost = if lost {
                LostKeys::Replace
            } else {
                LostKeys::Refuse
            };
            // The signing keys are those of the server: no product needs to be named.
            let product = console
                .db
                .read_blocking(|reader| product.resolve_if_unambiguous(reader))?;
            signing_keys::cli::rotate(console, folder(console), lost)?;
            return print(console, |reader| {
                let product = product.map(|product| Shown::read(reader, product));
                product.transpose()
            });
        }
    }
    show(console, &product)
}

fn set(console: &Console, product: &ProductArg, change: &Set) -> Result<()> {
    if change.pairs.is_empty() {
        return Err(Error::Usage(KEYS.to_owned()));
    }
    let pairs = change.pairs.iter().map(|pair| pair_of(pair));
    let pairs = pairs.collect::<Result<Vec<_>>>()?;
    let set_once = |confirmed| {
        let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
        let (product, pairs) = (product.clone(), pairs.clone());
        console.db.write_blocking("products.set", move |tx| {
            let product = product.resolve(tx)?.id;
            products::set(&Act::new(tx, &actor, now), product, &pairs, confirmed).map(drop)
        })
    };
    let Err(error) = set_once(None) else {
        return Ok(());
    };
    let Some(minimum) = UnconfirmedMinimum::of(&error) else {
        return Err(error);
    };
    if !change.yes {
        ask_minimum(minimum)?;
    }
    set_once(Some(minimum.version))
}

/// Asks for the minimum version before older programs are refused.
fn ask_minimum(minimum: UnconfirmedMinimum) -> Result<()> {
    let UnconfirmedMinimum { version, devices } = minimum;
    let devices = if devices == 1 {
        "1 device".to_owned()
    } else {
        format!("{devices} devices")
    };
    message(&format!(
        "{devices} last ran a version older than {version}: these programs will be refused. Type {version} to confirm, or \
         use --yes:"
    ));
    if console::first_line_of_input()?.trim() == version.to_string() {
        Ok(())
    } else {
        Err(Error::invalid(
            "minimum_version",
            "was not confirmed; nothing was changed",
        ))
    }
}

/// Prints the settings of a product, and the signing keys of the server.
pub(super) fn show(console: &Console, product: &ProductArg) -> Result<()> {
    print(console, |reader| {
        Shown::read(reader, product.resolve_for_reading(reader)?).map(Some)
    })
}

/// What is shown of a product.
struct Shown {
    product: Product,
    settings: ProductSettings,
    /// Whether its current version is not a published release.
    no_release: bool,
    /// Whether there are other products, so that its slug is shown.
    is_one_of_several: bool,
}

impl Shown {
    fn read(reader: &Reader<'_>, product: Product) -> Result<Self> {
        let settings = products::product_settings(reader, product.id)?;
        Ok(Self {
            no_release: products::current_is_no_release(reader, &settings)?,
            is_one_of_several: products::Slugs::read(reader)?.are_several(),
            settings,
            product,
        })
    }

    fn warn(&self) {
        if self.no_release {
            message(
                "warning: current_version is not a published release: programs are not told what is new; see `release list`",
            );
        }
        if self.settings.minimum_version > self.settings.current_version {
            message(
                "warning: minimum_version is above current_version: even the newest program is refused",
            );
        }
    }
}

/// Prints what `read` finds, if anything, and the signing keys of the server.
fn print(console: &Console, read: impl FnOnce(&Reader<'_>) -> Result<Option<Shown>>) -> Result<()> {
    let now = console.now().wall;
    let (shown, published) = console
        .db
        .read_blocking(|reader| Ok((read(reader)?, signing_keys::published(reader, now)?)))?;
    let mut facts = Map::new();
    if let Some(shown) = &shown {
        shown.warn();
        // A shop with one product knows it by no slug.
        if shown.is_one_of_several || console.output == OutputFormat::Json {
            facts.insert("product".to_owned(), shown.product.slug.clone().into());
        }
        facts.extend(to_json(&shown.settings));
    }
    if let Some(keys) = &published {
        facts.extend(key_facts(keys));
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
        facts.insert(
            "signing_keys".to_owned(),
            signing_keys::json::published(keys),
        );
    }
    let table = Table::new(&["key", "value"]).with(rows);
    console.show(&Value::Object(facts), &table)
}

fn key_facts(keys: &Published) -> Map<String, Value> {
    members(json!({
        "signing_key_id": keys.current.id(),
        "signing_public_key": keys.current.base64(),
        "next_signing_key_id": keys.next.id(),
        "next_signing_public_key": keys.next.base64(),
    }))
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
    let mut settings = members(config.facts());
    settings.shift_insert(1, "api_key".to_owned(), json!(config.api_key.reveal()));
    settings
}
