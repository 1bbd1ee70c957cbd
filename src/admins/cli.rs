//! The door for the operator: `license-server admin …`, also for who has lost access.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Admin, Role};
use crate::audit::Actor;
use crate::clock::UnixMs;
use crate::console::{self, Console, Table};
use crate::error::Result;
use crate::security::password;
use crate::security::secret::Secret;

/// `admin …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an administrator
    Add(Add),
    /// List administrators
    List,
}

/// Who is new.
#[derive(Debug, Args)]
pub struct Add {
    /// 1 to 64 printable characters without spaces
    name: String,
    /// What he may do
    #[arg(long, value_enum)]
    role: RoleWord,
    /// Read the password from standard input: its first line
    #[arg(long, required = true)]
    password_stdin: bool,
}

/// A role, as typed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleWord {
    /// Everything, administrators and backups too
    Owner,
    /// The daily work
    Admin,
    /// Reads, and frees devices
    Support,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Owner => Self::Owner,
            RoleWord::Admin => Self::Admin,
            RoleWord::Support => Self::Support,
        }
    }
}

/// Does what `command` says.
///
/// # Errors
/// What the verbs return.
pub fn run(console: &Console, command: Command) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    match command {
        Command::Add(Add { name, role, .. }) => {
            let hash = password_from_input(&[&name])?;
            let added = console.db.write_blocking("admins.add", move |tx| {
                super::add(tx, &name, role.into(), &hash, &actor, now)?;
                super::named(tx, &name)
            })?;
            let line = format!("administrator {} added: {}", added.name, added.role.word());
            console.tell(&json!({ "admins": [document(&added)] }), &line)
        }
        Command::List => {
            let admins = console.db.read_blocking(super::list)?;
            let rows = admins.iter().map(row);
            let table = Table::new(&["name", "role", "second factor", "since"]).with(rows);
            let documents: Vec<_> = admins.iter().map(document).collect();
            console.show(&json!({ "admins": documents }), &table)
        }
    }
}

/// The hash of the password on standard input.
fn password_from_input(names: &[&str]) -> Result<String> {
    let password = console::first_line_of_input()?;
    password::check(&password, names)?;
    password::hash(&Secret::new(password))
}

fn document(admin: &Admin) -> serde_json::Value {
    json!({
        "name": admin.name,
        "role": admin.role,
        "second_factor": admin.has_totp,
        "created_at": admin.created_at.rfc3339(),
    })
}

fn row(admin: &Admin) -> Vec<String> {
    let factor = if admin.has_totp { "yes" } else { "no" };
    vec![
        admin.name.clone(),
        admin.role.word().to_owned(),
        factor.to_owned(),
        UnixMs::rfc3339(admin.created_at),
    ]
}
