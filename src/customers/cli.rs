//! The commands `license-server customer …`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{CUSTOMER_EXISTS, Customer, CustomerData, SameName};
use crate::audit::{Act, Actor};
use crate::backups::BackupDir;
use crate::console::{self, Console, Extent, List};
use crate::error::{Error, Result};
use crate::logging::counted;
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
    /// Add another customer, even if there is one with this name
    #[arg(long)]
    another: bool,
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
    let mut same_name = if new.another {
        SameName::AddAnother
    } else {
        SameName::Ask
    };
    let new = CustomerData {
        name: new.name,
        email: new.email,
        company: new.company,
        note: new.note,
    };
    let mut added = add_or_use(console, &new, same_name);
    if let Err(error) = &added
        && error.is(CUSTOMER_EXISTS)
    {
        same_name = ask(console, &new.name)?;
        added = add_or_use(console, &new, same_name);
    }
    let added = added?;
    let done = if same_name == SameName::Use(added.id) {
        "used"
    } else {
        "added"
    };
    let line = format!("customer {} {done}: {}", added.id, added.name);
    console.show_line(&json!({ "customers": [added] }), &line)
}

/// Adds a customer, or uses one with the same name. That there is one is an error only if nothing else is wrong.
fn add_or_use(console: &Console, new: &CustomerData, same_name: SameName) -> Result<Customer> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    let new = new.clone();
    let added = console.db.write_blocking("customers.add", move |tx| {
        super::add_or_use(&Act::new(tx, &actor, now), &new, same_name)
    });
    added.map_err(|error| match error {
        Error::Several(mut errors) => {
            errors.retain(|error| !error.is(CUSTOMER_EXISTS));
            Error::Several(errors)
        }
        one => one,
    })
}

/// Asks whether a customer with the same name is the one that is to be added.
///
/// # Errors
/// [`Error::State`] without a terminal, or if the answer is none of those offered.
fn ask(console: &Console, name: &str) -> Result<SameName> {
    let known = console
        .db
        .read_blocking(|reader| super::with_name(reader, name))?;
    let described: Vec<String> = known.iter().map(description).collect();
    if !console::is_interactive() {
        return Err(Error::State(format!(
            "there is already a customer with this name: {}. Nothing was added. Use that one, or name --another to add \
             another one",
            described.join("; ")
        )));
    }
    console::message(&format!(
        "There is already a customer with this name:\n  {}\nUse this one? Type its id, or `another` to add another one:",
        described.join("\n  ")
    ));
    let typed = console::first_line_of_input()?;
    let typed = typed.trim().trim_start_matches('#');
    let used = known.iter().find(|one| one.id.to_string() == typed);
    match used {
        Some(one) => Ok(SameName::Use(one.id)),
        None if typed == "another" => Ok(SameName::AddAnother),
        None => Err(Error::State(
            "neither one of these ids nor `another`: nothing was added".to_owned(),
        )),
    }
}

/// What tells customers with the same name apart.
fn description(customer: &Customer) -> String {
    let licenses = counted(customer.licenses as usize, "license", "licenses");
    let parts = [
        &customer.label(),
        &customer.company,
        &customer.email,
        &licenses,
    ];
    let parts: Vec<&str> = parts
        .into_iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(", ")
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
