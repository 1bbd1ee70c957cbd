//! The commands `license-server customer …`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Customer, CustomerData};
use crate::audit::{Act, Actor};
use crate::backups::BackupDir;
use crate::console::{Console, Extent, List};
use crate::error::Result;
use crate::privacy;
use crate::terms::Terms;

/// How many customers `customer list` prints at most.
const LIST_MAX: u32 = 10_000;

/// `customer …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a customer
    Add(Add),
    /// List customers, sorted by name
    List {
        /// Only customers whose name, e-mail, company or note contains this text
        #[arg(long, default_value = "")]
        search: String,
    },
    /// Write all that the database holds of a customer as JSON
    Export(privacy::cli::Export),
    /// Erase a customer permanently: name, e-mail, notes, devices, addresses
    Erase(privacy::cli::Erase),
}

/// Arguments of `customer add`.
#[derive(Debug, Args)]
pub struct Add {
    /// The customer's name
    name: String,
    /// E-mail address
    #[arg(long, default_value = "")]
    email: String,
    /// Company
    #[arg(long, default_value = "")]
    company: String,
    /// Note for administrators
    #[arg(long, default_value = "")]
    note: String,
}

/// Runs `command`; `backups` is the folder of the backups.
///
/// # Errors
/// The errors of the operations.
pub fn run(console: &Console, backups: &BackupDir, command: Command) -> Result<()> {
    match command {
        Command::Add(new) => add(console, new),
        Command::List { search } => list(console, &search),
        Command::Export(export) => privacy::cli::export(console, &export),
        Command::Erase(erase) => privacy::cli::erase(console, backups, &erase),
    }
}

fn add(console: &Console, new: Add) -> Result<()> {
    let new = CustomerData {
        name: new.name,
        email: new.email,
        company: new.company,
        note: new.note,
    };
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let added = console.db.write_blocking("customers.add", move |tx| {
        super::add(&Act::new(tx, &actor, now), &new)
    })?;
    let line = format!("customer {} added: {}", added.id, added.name);
    console.show_line(&json!({ "customers": [added] }), &line)
}

fn list(console: &Console, search: &str) -> Result<()> {
    let search = Terms::parse(search);
    let mut found = console
        .db
        .read_blocking(|reader| super::list(reader, &search, LIST_MAX + 1))?;
    let cut = Extent::truncate(&mut found, LIST_MAX);
    let cells = |customer: &Customer| {
        vec![
            customer.id.to_string(),
            customer.name.clone(),
            customer.email.clone(),
            customer.company.clone(),
            customer.licenses.to_string(),
        ]
    };
    console.show_list(&List {
        product: None,
        name: "customers",
        rows: &found,
        document: &|customer| json!(customer),
        head: &["id", "name", "email", "company", "licenses"],
        cells: &cells,
        cut,
        advice: "narrow the list with --search",
    })
}
