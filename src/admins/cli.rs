//! Command line: `license-server admin …`. It works without a login, so it also restores lost access.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Admin, Role};
use crate::audit::{Act, Actor};
use crate::clock::UnixMs;
use crate::console::{self, Console, Table};
use crate::error::{Error, Result};
use crate::id::AdminId;
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
    #[command(flatten)]
    password: PasswordInput,
}

/// How a command gets a new password.
#[derive(Debug, Args)]
pub struct PasswordInput {
    /// Read the password from the first line of standard input [default: ask twice at the terminal]
    #[arg(long)]
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
    #[command(flatten)]
    password: PasswordInput,
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
    match command {
        Command::Add(Add {
            name,
            role,
            password,
        }) => add(console, name, role.into(), password.source()?),
        Command::List => list(console),
        Command::SetPassword(SetPassword { name, password }) => {
            set_password(console, &name, password.source()?)
        }
        Command::SetRole { name, role } => set_role(console, &name, role.into()),
        Command::ResetTotp { name } => reset_totp(console, &name),
        Command::Remove { name } => remove(console, &name),
    }
}

fn add(console: &Console, name: String, role: Role, source: Source) -> Result<()> {
    let hash = source.hash_of_password(&name)?;
    let added = write(console, "admins.add", move |act| {
        super::add(act, &name, role, &hash)
    })?;
    let result = format!("added: {}", added.role.as_str());
    show(console, &added, &result)
}

fn list(console: &Console) -> Result<()> {
    let admins = console.db.read_blocking(super::list)?;
    let rows = admins.iter().map(row);
    let table = Table::new(&["name", "role", "second factor", "since"]).with(rows);
    let documents: Vec<_> = admins.iter().map(document).collect();
    console.show(&json!({ "admins": documents }), &table)
}

fn set_password(console: &Console, name: &str, source: Source) -> Result<()> {
    // An unknown name is reported before the password is asked for.
    let id = id_of(console, name)?;
    let hash = source.hash_of_password(name)?;
    let changed = write(console, "admins.set_password", move |act| {
        super::set_password(act, id, &hash)
    })?;
    show(console, &changed, "has a new password")
}

fn set_role(console: &Console, name: &str, role: Role) -> Result<()> {
    let id = id_of(console, name)?;
    let changed = write(console, "admins.set_role", move |act| {
        super::set_role(act, id, role, None)
    })?;
    show(console, &changed, "has a new role")
}

fn reset_totp(console: &Console, name: &str) -> Result<()> {
    let id = id_of(console, name)?;
    let changed = write(console, "admins.reset_totp", move |act| {
        super::reset_totp(act, id)
    })?;
    show(console, &changed, "no longer has a second factor")
}

fn remove(console: &Console, name: &str) -> Result<()> {
    let id = id_of(console, name)?;
    let removed = write(console, "admins.remove", move |act| super::remove(act, id))?;
    let line = format!("administrator {} removed", removed.name);
    console.show_line(&json!({ "removed": [document(&removed)] }), &line)
}

fn id_of(console: &Console, name: &str) -> Result<AdminId> {
    let admin = console
        .db
        .read_blocking(|reader| super::by_name(reader, name))?;
    Ok(admin.id)
}

/// Runs `operation` in a transaction, on behalf of the operator.
fn write(
    console: &Console,
    name: &'static str,
    operation: impl FnOnce(&Act<'_>) -> Result<Admin> + Send + 'static,
) -> Result<Admin> {
    let (actor, now) = (Actor::command_line(&console.user), console.now().wall);
    console
        .db
        .write_blocking(name, move |tx| operation(&Act::new(tx, &actor, now)))
}

/// Prints a changed administrator: the name followed by `result`.
fn show(console: &Console, changed: &Admin, result: &str) -> Result<()> {
    let line = format!("administrator {} {result}", changed.name);
    console.show_line(&json!({ "admins": [document(changed)] }), &line)
}

/// Where a new password comes from.
#[derive(Clone, Copy)]
enum Source {
    /// A person types it twice at the terminal.
    Terminal,
    /// The first line of standard input.
    FirstLine,
}

impl PasswordInput {
    /// Where the password comes from.
    ///
    /// # Errors
    /// [`Error::Usage`] if it should be typed, and there is no terminal.
    fn source(&self) -> Result<Source> {
        if self.password_stdin {
            return Ok(Source::FirstLine);
        }
        if console::is_interactive() {
            return Ok(Source::Terminal);
        }
        Err(Error::Usage(
            "standard input is no terminal, at which the password could be typed: send it as the first line, with \
             --password-stdin"
                .to_owned(),
        ))
    }
}

impl Source {
    /// Reads the password of the administrator `name`, checks it, and returns its hash.
    fn hash_of_password(self, name: &str) -> Result<String> {
        let password = match self {
            Self::Terminal => console::new_password(name)?,
            Self::FirstLine => console::first_line_of_input()?,
        };
        password::check(&password, &[name])?;
        password::hash(&Secret::new(password))
    }
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
        admin.role.as_str().to_owned(),
        factor.to_owned(),
        UnixMs::rfc3339(admin.created_at),
    ]
}
