//! The commands `license-server release …`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::json::members;
use super::{LIST_MAX, Release, ReleaseState};
use crate::audit::{Act, Actor};
use crate::console::{Console, Extent, List, OutputFormat, message};
use crate::error::{Error, Result};
use crate::products::cli::ProductArg;
use crate::version::Version;

/// `release`, with the product that it is about.
#[derive(Debug, Args)]
pub struct Releases {
    #[command(flatten)]
    product: ProductArg,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

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
pub fn run(console: &Console, Releases { product, command }: Releases) -> Result<()> {
    match command {
        Command::Add(release) => add(console, product, release),
        Command::List => list(console, &product),
        Command::Yank { version } => yank(console, product, &version),
    }
}

fn add(console: &Console, product: ProductArg, add: Add) -> Result<()> {
    let repeated = product.repeated();
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
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
        let product = product.resolve(tx)?.id;
        super::add(&Act::new(tx, &actor, now), product, &release)
    })?;
    let version = added.version;
    if console.output == OutputFormat::Text {
        message(&format!(
            "to make it the current version: license-server config set{repeated} current_version={version}"
        ));
    }
    let line = format!("release {version} added");
    console.show_line(&json!({ "releases": [document(&added)] }), &line)
}

fn list(console: &Console, product: &ProductArg) -> Result<()> {
    let (product, mut releases) = console.db.read_blocking(|reader| {
        let product = product.resolve_for_reading(reader)?;
        let releases = super::list_up_to(reader, product.id, LIST_MAX + 1)?;
        Ok((product, releases))
    })?;
    let extent = Extent::truncate(&mut releases, LIST_MAX);
    console.show_list(&List {
        product: Some(&product.slug),
        name: "releases",
        rows: &releases,
        document: &document,
        head: &["version", "channel", "state", "released", "url", "notes"],
        cells: &row,
        cut: extent,
        advice: "the oldest are left out",
    })
}

fn yank(console: &Console, product: ProductArg, version: &str) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let version = parse_version(version)?;
    console.db.write_blocking("releases.yank", move |tx| {
        let product = product.resolve(tx)?.id;
        super::yank(&Act::new(tx, &actor, now), product, version)
    })?;
    let line = format!("release {version} yanked");
    let state = ReleaseState::Yanked.as_str();
    console.show_line(&json!({ "version": version, "state": state }), &line)
}

fn parse_version(text: &str) -> Result<Version> {
    Version::from_input(text).map_err(|problem| Error::invalid("version", problem))
}

fn document(release: &Release) -> Value {
    let mut document = members(release);
    let released_at = release.released_at.rfc3339();
    document.insert("released_at".to_owned(), released_at.into());
    Value::Object(document)
}

fn row(release: &Release) -> Vec<String> {
    vec![
        release.version.to_string(),
        release.channel.clone(),
        release.state.as_str().to_owned(),
        release.released_at.rfc3339(),
        release.download_url.clone().unwrap_or_default(),
        release.notes.clone(),
    ]
}
