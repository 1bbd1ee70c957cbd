//! Command line: `license-server admin …`. It works without a login, so it also restores lost access.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Admin, Role};
use crate::audit::Actor;
use crate::clock::UnixMs;
use crate::console::{self, Console, Table};
use crate::db::Tx;
use crate::error::Result;
use crate::logins;
use crate::security::password;
use crate::security::secret::Secret;

/// `admin …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add an administrator
    Add(Add),
    /// List administrators
    List,
    /// Set an administrator's password; logs them out everywhere
    SetPassword(SetPassword),
    /// Change an administrator's role; logs them out everywhere
    SetRole {
        /// Name of the administrator
        name: String,
        /// New role
        #[arg(value_enum)]
        role: RoleWord,
    },
    /// Remove an administrator's lost second factor; logs them out everywhere
    ResetTotp {
        /// Name of the administrator
        name: String,
    },
    /// Remove an administrator
    Remove {
        /// Name of the administrator
        name: String,
    },
}

/// Arguments of `admin set-password`.
#[derive(Debug, Args)]
pub struct SetPassword {
    /// Name of the administrator
    name: String,
    /// Read the password from the first line of standard input
    #[arg(long, required = true)]
    password_stdin: bool,
}

/// Arguments of `admin add`.
#[derive(Debug, Args)]
pub struct Add {
    /// 1 to 64 letters of one script, digits and symbols, without spaces
    name: String,
    /// Role
    #[arg(long, value_enum)]
    role: RoleWord,
    /// Read the password from the first line of standard input
    #[arg(long, required = true)]
    password_stdin: bool,
}

/// [`Role`] as an argument of a command.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum RoleWord {
    /// Everything, including administrators and backups
    Owner,
    /// Daily work
    Admin,
    /// Reads, and releases devices
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

/// Runs `command`.
///
/// # Errors
/// Those of the operations in [`crate::admins`], and a password that cannot be read or is rejected.
pub fn run(console: &Console, command: Command) -> Result<()> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    match command {
        Command::Add(Add { name, role, .. }) => {
            let hash = password_from_input(&[&name])?;
            let added = console.db.write_blocking("admins.add", move |tx| {
                super::add(tx, &name, role.into(), &hash, &actor, now)?;
                super::by_name(tx, &name)
            })?;
            let line = format!("administrator {} added: {}", added.name, added.role.word());
            console.show_line(&json!({ "admins": [document(&added)] }), &line)
        }
        Command::List => {
            let admins = console.db.read_blocking(super::list)?;
            let rows = admins.iter().map(row);
            let table = Table::new(&["name", "role", "second factor", "since"]).with(rows);
            let documents: Vec<_> = admins.iter().map(document).collect();
            console.show(&json!({ "admins": documents }), &table)
        }
        Command::SetPassword(SetPassword { name, .. }) => {
            // An unknown name is reported before the password is asked for.
            console
                .db
                .read_blocking(|reader| super::by_name(reader, &name))?;
            let hash = password_from_input(&[&name])?;
            change(console, name, "has a new password", move |tx, admin| {
                logins::set_password(tx, admin, &hash, &actor, now)
            })
        }
        Command::SetRole { name, role } => {
            change(console, name, "has a new role", move |tx, admin| {
                super::set_role(tx, admin, role.into(), None, &actor, now)
            })
        }
        Command::ResetTotp { name } => change(
            console,
            name,
            "no longer has a second factor",
            move |tx, admin| logins::reset_totp(tx, admin, &actor, now),
        ),
        Command::Remove { name } => {
            let removed = console.db.write_blocking("admins.remove", move |tx| {
                let admin = super::by_name(tx, &name)?;
                super::remove(tx, &admin, &actor, now)?;
                Ok(admin)
            })?;
            let line = format!("administrator {} removed", removed.name);
            console.show_line(&json!({ "removed": [document(&removed)] }), &line)
        }
    }
}

/// Applies `operation` to the administrator `name`, and prints the name followed by `result`.
fn change(
    console: &Console,
    name: String,
    result: &str,
    operation: impl FnOnce(&Tx<'_>, &Admin) -> Result<()> + Send + 'static,
) -> Result<()> {
    let changed = console.db.write_blocking("admins.change", move |tx| {
        let admin = super::by_name(tx, &name)?;
        operation(tx, &admin)?;
        super::get(tx, admin.id)
    })?;
    let line = format!("administrator {} {result}", changed.name);
    console.show_line(&json!({ "admins": [document(&changed)] }), &line)
}

/// Reads a password from standard input, checks it, and returns its hash.
fn password_from_input(names: &[&str]) -> Result<String> {
    let password = console::first_line_of_input()?;
    password::check(&password, names)?;
    password::hash(&Secret::new(password))
}

fn document(admin: &Admin) -> serde_json::Value {
    json!({
        "id": admin.id,
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
