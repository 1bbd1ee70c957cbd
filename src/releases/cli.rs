//! The commands `license-server release …`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Release, ReleaseState};
use crate::audit::Actor;
use crate::console::{Console, Table, message};
use crate::error::{Error, Result};
use crate::version::Version;

/// `release …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a release
    Add(Add),
    /// List releases, newest version first
    List,
    /// Yank (withdraw) a release
    Yank {
        /// The version, such as 1.2.0
        version: String,
    },
}

/// Arguments of `release add`.
#[derive(Debug, Args)]
pub struct Add {
    /// The version, such as 1.2.0
    version: String,
    /// Release notes
    #[arg(long)]
    notes: String,
    /// Download URL
    #[arg(long)]
    url: Option<String>,
    /// SHA-256 of the download
    #[arg(long)]
    sha256: Option<String>,
    /// Release channel
    #[arg(long, default_value = "stable")]
    channel: String,
}

/// Runs `command`.
///
/// # Errors
/// The errors of the operations.
pub fn run(console: &Console, command: Command) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    match command {
        Command::Add(add) => {
            let release = Release {
                version: parse_version(&add.version)?,
                channel: add.channel,
                notes: add.notes,
                download_url: add.url,
                sha256: add.sha256.map(|sum| sum.to_ascii_lowercase()),
                state: ReleaseState::Released,
                released_at: now,
            };
            let added = console.db.write_blocking("releases.add", move |tx| {
                super::add(tx, &release, &actor)?;
                super::get(tx, release.version)
            })?;
            let version = added.version;
            if !console.json {
                message(&format!(
                    "to make it the current version: license-server config set current_version={version}"
                ));
            }
            let line = format!("release {version} added");
            console.show_line(&json!({ "releases": [to_json(&added)] }), &line)
        }
        Command::List => {
            let releases = console.db.read_blocking(super::list)?;
            let rows = releases.iter().map(row);
            let table =
                Table::new(&["version", "channel", "state", "released", "url", "notes"]).with(rows);
            let documents: Vec<Value> = releases.iter().map(to_json).collect();
            console.show(&json!({ "releases": documents }), &table)
        }
        Command::Yank { version: text } => {
            let version = parse_version(&text)?;
            console.db.write_blocking("releases.yank", move |tx| {
                super::yank(tx, version, &actor, now)
            })?;
            let line = format!("release {version} yanked");
            console.show_line(
                &json!({ "version": version, "state": ReleaseState::Yanked }),
                &line,
            )
        }
    }
}

fn parse_version(text: &str) -> Result<Version> {
    Version::from_input(text).map_err(|problem| Error::invalid("version", problem))
}

fn to_json(release: &Release) -> Value {
    let mut document = json!(release);
    if let Some(map) = document.as_object_mut() {
        map.insert(
            "released_at".to_owned(),
            release.released_at.rfc3339().into(),
        );
    }
    document
}

fn row(release: &Release) -> Vec<String> {
    let state = if release.state == ReleaseState::Yanked {
        "yanked"
    } else {
        "released"
    };
    vec![
        release.version.to_string(),
        release.channel.clone(),
        state.to_owned(),
        release.released_at.rfc3339(),
        release.download_url.clone().unwrap_or_default(),
        release.notes.clone(),
    ]
}
