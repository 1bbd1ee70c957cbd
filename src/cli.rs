//! The command line: its arguments, and the module that handles each command.

mod man_page;
mod reference;
mod suggestions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use crate::audit::Actor;
use crate::backups::{BackupDir, Origin};
use crate::config::{self, Config, TlsMode};
use crate::console::{self, Console, OutputFormat, message};
use crate::db::{self, Db, Rescued};
use crate::domains::BindingChange;
use crate::error::{Doing, Error, Result};
use crate::products::cli::ProductArg;
use crate::security::{data_folder, run_as};
use crate::server::{NonFatalSignals, Process};
use crate::standby::{self, FollowedFile, Mode};
use crate::{
    activations, admins, app, backups, customers, demo, doctor, domains, flags, licenses, limits,
    overview, plans, privacy, products, releases, search, server, sessions, trials,
};

/// How long the end of a command waits for the WAL to be copied into the database file.
const CLOSE: Duration = Duration::from_secs(10);

/// A software license server: one executable, one SQLite file.
#[derive(Debug, Parser)]
#[command(name = "license-server", version, about, max_term_width = 100)]
pub struct Arguments {
    /// Settings file [default: ./license-server.toml if it exists, else /etc/license-server.toml if installed in /usr]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document instead of a table
    #[arg(long, global = true)]
    pub json: bool,
    /// Command to run [default: serve]
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve,
    /// Run a server on a temporary database with sample data, and show what it does
    Demo,
    /// Manage the panel's administrators
    #[command(subcommand)]
    Admin(admins::cli::Command),
    /// Manage customers
    #[command(subcommand)]
    Customer(customers::cli::Command),
    /// Manage licenses and their devices
    #[command(subcommand)]
    License(License),
    /// Manage plans, under which licenses are sold
    Plan(plans::cli::Plans),
    /// List and end sessions, the running copies of your program
    #[command(subcommand)]
    Session(sessions::cli::Command),
    /// Manage releases of your program
    Release(releases::cli::Releases),
    /// Client configuration: versions, heartbeat, API key
    Config(products::cli::Config),
    /// Manage products, if you sell several programs
    #[command(subcommand)]
    Product(products::cli::ProductCommand),
    /// Manage rate limits per source address
    #[command(subcommand)]
    Limit(limits::cli::LimitCommand),
    /// Manage feature flags
    Flag(flags::cli::Flags),
    /// Back up the database, certificates and keys into one archive; works while the server runs
    Backup {
        /// The archive to create; must not exist
        file: PathBuf,
        /// Back up only the database, without certificates and keys, and never encrypted
        #[arg(long)]
        database_only: bool,
    },
    /// Restore a backup while no server runs; the replaced files are kept next to it
    Restore {
        /// The archive, or a copy of the database only
        file: PathBuf,
        /// File with the passphrase of an encrypted archive [default: the one in the settings]
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        /// Also a copy that a server has made after a standby had replaced it
        #[arg(long)]
        replaced_server: bool,
    },
    /// Take over on a standby: make the file that Litestream follows the database, with its sessions
    Promote {
        /// The followed file [default: standby.sqlite3 beside the database]
        file: Option<PathBuf>,
        /// Only check the file and the keys, also while Litestream follows
        #[arg(long)]
        check: bool,
    },
    /// Rewrite the database, so that nothing of what was deleted is left in it; works while the server runs
    Vacuum,
    /// Make the index of the search anew, if `check` says that it is damaged; works while the server runs
    Reindex,
    /// Show the settings in force, as a settings file with comments
    Settings,
    /// Print a script that completes commands in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
    /// Ask the server that runs on this machine whether it is healthy, as `GET /health` does
    Health,
    /// Check settings, database, disk, clock and certificate: one line each
    Check {
        /// Trust the machine's clock although the database has seen a later date; requires a stopped server
        #[arg(long)]
        accept_clock: bool,
        /// Continue with the present database although it lacks changes that the last server acknowledged; requires a
        /// stopped server
        #[arg(long)]
        accept_database: bool,
    },
}

/// `license …`
#[derive(Debug, Subcommand)]
pub enum License {
    /// Issue licenses
    Issue(licenses::cli::Issue),
    /// List licenses, newest first
    List {
        /// Only licenses whose key, customer, note or domain contains this text
        #[arg(long, default_value = "")]
        search: String,
        /// Only licenses of this product
        #[command(flatten)]
        product: ProductArg,
    },
    /// Show a license in detail
    Show {
        /// The license key
        key: String,
    },
    /// Suspend a license; its session ends within a second
    Suspend {
        /// The license key
        key: String,
    },
    /// Reinstate a suspended license
    Reinstate {
        /// The license key
        key: String,
    },
    /// Revoke a license permanently; asks first
    Revoke(licenses::cli::Revoke),
    /// Change the terms of a license
    Edit(licenses::cli::Edit),
    /// Sell the license of a trial, which has no customer yet
    Sell(trials::cli::Sell),
    /// Change a license's expiry date
    Extend(licenses::cli::Extend),
    /// Bind a license to a domain
    BindDomain(domains::cli::KeyAndDomain),
    /// Unbind a license from its domain
    FreeDomain {
        /// The license key
        key: String,
    },
    /// Transfer a license to another domain; both are served until the grace period ends
    TransferDomain(domains::cli::KeyAndDomain),
    /// Cancel a pending transfer
    CancelTransfer {
        /// The license key
        key: String,
    },
    /// Release a device's slot
    ReleaseDevice {
        /// The license key
        key: String,
        /// The device's fingerprint or name, as shown by `license show`
        #[arg(value_name = "HARDWARE_ID|NAME")]
        device: String,
    },
}

/// The arguments of this process. If they are wrong, says so and ends it with status 2.
pub fn parse() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|error| suggestions::without_wrong_ones(error).exit())
}

impl Arguments {
    /// Whether the command runs a server, so that signals like SIGHUP must not end the process.
    pub const fn runs_server(&self) -> bool {
        matches!(self.command, None | Some(Command::Serve | Command::Demo))
    }

    const fn output(&self) -> OutputFormat {
        if self.json {
            OutputFormat::Json
        } else {
            OutputFormat::Text
        }
    }
}

/// Runs the command; `signals` is set for commands that run a server.
///
/// # Errors
/// The error of the command; `main` turns it into an exit status.
pub fn run(arguments: Arguments, settings: Config, signals: Option<NonFatalSignals>) -> Result<()> {
    let output = arguments.output();
    let Arguments {
        config: file,
        command,
        ..
    } = arguments;
    let command = command.unwrap_or(Command::Serve);
    let process = signals.map(|signals| Process {
        config: file,
        signals,
        stop: None,
        commands: reference::commands,
    });
    match (command, process) {
        (Command::Serve, Some(process)) => server::serve(settings, process, output),
        (Command::Demo, Some(process)) => demo::run(settings, process),
        (command, _) => {
            let run = CommandRun {
                settings: &settings,
                output,
                user: config::user(),
            };
            run.run(command)
        }
    }
}

fn show_settings(settings: &Config, output: OutputFormat) -> Result<()> {
    match output {
        OutputFormat::Json => {
            let document = serde_json::to_value(settings).doing("write the settings")?;
            console::json(&document)
        }
        OutputFormat::Text => console::text(&config::commented(settings)?),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut Arguments::command(),
        "license-server",
        &mut script,
    );
    console::text(&String::from_utf8(script).doing("write the completions")?)
}

/// The run of a command that is not a server.
struct CommandRun<'a> {
    settings: &'a Config,
    output: OutputFormat,
    /// The name of the operating system's user.
    user: String,
}

impl CommandRun<'_> {
    fn run(self, command: Command) -> Result<()> {
        match command {
            Command::Settings => show_settings(self.settings, self.output),
            Command::Completions { shell } => completions(shell),
            Command::Man => console::text(&man_page::man_page()),
            Command::Health => doctor::health(self.settings, self.output),
            other => self.execute(other),
        }
    }

    /// Runs a command that needs the data folder.
    fn execute(self, command: Command) -> Result<()> {
        let data = self.settings.data_folder();
        match command {
            Command::Check {
                accept_clock,
                accept_database,
            } => {
                run_as::become_owner(&data)?;
                // It reads the whole database, and a server may be using the machine.
                db::lower_priority();
                if accept_database {
                    doctor::accept_database(self.settings)?;
                }
                if accept_clock {
                    doctor::accept_clock(self.settings)?;
                }
                doctor::check(self.settings, self.output)
            }
            Command::Backup { .. } | Command::Restore { .. } | Command::Promote { .. } => {
                self.execute_on_files(command)
            }
            other => {
                run_as::become_owner(&data)?;
                let backups = app::backup_dir(self.settings);
                let console = self.open(other.if_missing())?;
                let done = run_on_database(&console, &backups, other);
                console.db.close(CLOSE);
                done
            }
        }
    }

    /// Runs a command that copies or replaces the database.
    fn execute_on_files(self, command: Command) -> Result<()> {
        match command {
            Command::Backup {
                file,
                database_only: true,
            } => self.back_up(&file, backups::Scope::Database),
            Command::Backup { file, .. } => {
                let passphrase = self.settings.backup.passphrase_file.as_deref();
                let passphrase = passphrase.map(backups::passphrase).transpose()?;
                self.back_up(&file, backups::Scope::Everything(passphrase.as_ref()))
            }
            Command::Restore {
                file,
                passphrase_file,
                replaced_server: true,
            } => self.restore(&file, passphrase_file, Origin::Any),
            Command::Restore {
                file,
                passphrase_file,
                ..
            } => self.restore(&file, passphrase_file, Origin::Current),
            Command::Promote { file, check: true } => self.promote(file, Mode::Check),
            Command::Promote { file, .. } => self.promote(file, Mode::Promote),
            _ => Err(no_database_command()),
        }
    }

    /// Makes a backup. Files that only root may open are opened before root switches to the owner of the data folder.
    fn back_up(self, file: &Path, scope: backups::Scope<'_>) -> Result<()> {
        // A server may be using the machine.
        db::lower_priority();
        let (data, output) = (self.settings.data_folder(), self.output);
        let target = backups::cli::OutputFile::begin(file, &data)?;
        let written = run_as::as_owner(&data, || {
            let rescued = rescue(self.settings, scope.plain_copy_folder(target.folder()))?;
            let (settings, data) = match &rescued {
                None => (self.settings, data.clone()),
                Some((rescued, copy)) => (copy, rescued.data.clone().unwrap_or(data.clone())),
            };
            let console = CommandRun { settings, ..self }.open(IfMissing::Refuse)?;
            let now = console.now().wall;
            let live = backups::LiveData {
                db: &console.db,
                data: &data,
            };
            let written = target.write(live, scope, now);
            console.db.close(CLOSE);
            written
        })?;
        target.finish(&written, output)
    }

    fn restore(self, file: &Path, passphrase_file: Option<PathBuf>, origin: Origin) -> Result<()> {
        let (settings, data) = (self.settings, self.settings.data_folder());
        let input = backups::BackupInput::open(file, &settings.database.path)?.with_origin(origin);
        let passphrase_file = passphrase_file.or_else(|| settings.backup.passphrase_file.clone());
        let passphrase = passphrase_file.filter(|_| input.is_encrypted());
        let passphrase = passphrase.as_deref().map(backups::passphrase).transpose()?;
        let input = input.with_passphrase(passphrase);
        run_as::become_owner(&data)?;
        data_folder::secure(&settings.database.path)?;
        let backup_dir = app::backup_dir(settings);
        let target = restore_target(settings, &data, &backup_dir);
        let (actor, now) = (Actor::command_line(&self.user), app::system_now());
        let restored = backups::restore(&input, target, &actor, now)?;
        backups::cli::show_restored(input.name(), target.database, &restored, self.output)
    }

    fn promote(self, file: Option<PathBuf>, mode: Mode) -> Result<()> {
        let (settings, data) = (self.settings, self.settings.data_folder());
        let file = file.unwrap_or_else(|| standby::default_file(&settings.database.path));
        run_as::become_owner(&data)?;
        let followed = FollowedFile::examine(&file, &settings.database.path, mode)?;
        data_folder::secure(&settings.database.path)?;
        let backup_dir = app::backup_dir(settings);
        let target = restore_target(settings, &data, &backup_dir);
        let (actor, now) = (Actor::command_line(&self.user), app::system_now());
        let promotion = standby::promote(&followed, target, &actor, now)?;
        standby::cli::show(&file, &promotion, now, self.output)
    }

    /// Opens the database.
    fn open(self, if_missing: IfMissing) -> Result<Console> {
        let settings = self.settings;
        data_folder::secure(&settings.database.path)?;
        let options = app::database_options(settings);
        db::check_served_file(&options.path)?;
        let missing = !options.path.exists();
        if missing && if_missing == IfMissing::Refuse {
            return Err(app::no_database(&options.path));
        }
        if missing {
            standby::refuse_on_standby(&options.path)?;
        }
        let db = Db::open_as_command(&options)?;
        if missing {
            let place = std::path::absolute(&options.path).unwrap_or_else(|_| options.path.clone());
            message(&format!("created a new database: {}", place.display()));
        }
        let clock = app::command_clock(&db, settings)?;
        if let Some(warning) = app::clock_warning(&clock) {
            message(&format!("license-server: {warning}"));
        }
        let now = clock.now().wall;
        let configured = db.read_blocking(products::exists)?;
        if !configured {
            db.write_blocking("products.ensure", move |tx| products::ensure(tx, now))?;
        }
        Ok(Console {
            db,
            trusted_clock: clock,
            user: self.user,
            transfer_grace_days: settings.handshake.transfer_grace_days,
            output: self.output,
        })
    }
}

/// Where a backup or a followed file is put.
fn restore_target<'a>(
    settings: &'a Config,
    data: &'a Path,
    backup_dir: &'a BackupDir,
) -> backups::RestoreTarget<'a> {
    backups::RestoreTarget {
        database: &settings.database.path,
        data,
        backups: backup_dir.usable_folder(),
        own_authority: settings.tls.mode == TlsMode::SelfSigned,
    }
}

/// If the database is no longer at its path while a server still has it open: a copy of what the server has open,
/// with settings that point to it. The copy is deleted with its folder. `None` if the database is in place.
fn rescue(settings: &Config, beside: Option<&Path>) -> Result<Option<(Rescued, Config)>> {
    if db::check_served_file(&settings.database.path).is_ok() {
        return Ok(None);
    }
    let rescued = db::rescue(&settings.database.path, beside)?;
    let mut settings = settings.clone();
    settings.database.path.clone_from(&rescued.database);
    message("the database file is not at its path: saving what the running server still has open");
    Ok(Some((rescued, settings)))
}

fn run_on_database(console: &Console, backups: &BackupDir, command: Command) -> Result<()> {
    match command {
        Command::Admin(command) => admins::cli::run(console, command),
        Command::Customer(command) => customers::cli::run(console, backups, command),
        Command::License(command) => license(console, command),
        Command::Plan(command) => plans::cli::run(console, command),
        Command::Session(command) => sessions::cli::run(console, command),
        Command::Release(command) => releases::cli::run(console, command),
        Command::Config(command) => products::cli::run_config(console, command),
        Command::Product(command) => products::cli::run_product(console, command),
        Command::Limit(command) => limits::cli::run(console, command),
        Command::Flag(command) => flags::cli::run(console, command),
        Command::Vacuum => privacy::cli::vacuum(console),
        Command::Reindex => search::cli::reindex(console),
        Command::Serve
        | Command::Demo
        | Command::Settings
        | Command::Completions { .. }
        | Command::Man
        | Command::Health
        | Command::Check { .. }
        | Command::Backup { .. }
        | Command::Restore { .. }
        | Command::Promote { .. } => Err(no_database_command()),
    }
}

/// The error for a command that ended up in the wrong function.
fn no_database_command() -> Error {
    Error::Usage("this command does not use the database".to_owned())
}

fn license(console: &Console, command: License) -> Result<()> {
    match command {
        License::Issue(issue) => licenses::cli::issue(console, issue),
        License::List { search, product } => licenses::cli::list(console, &product, &search),
        License::Show { key } => overview::cli::show(console, &key),
        License::Suspend { key } => licenses::cli::change_state(console, &key, licenses::suspend),
        License::Reinstate { key } => {
            licenses::cli::change_state(console, &key, licenses::reinstate)
        }
        License::Revoke(revoke) => licenses::cli::revoke(console, &revoke),
        License::Edit(edit) => licenses::cli::edit(console, edit),
        License::Sell(sell) => trials::cli::sell(console, sell),
        License::Extend(extend) => licenses::cli::extend(console, &extend),
        License::BindDomain(arguments) => {
            let (key, domain) = arguments.parse()?;
            domains::cli::change(console, &key, BindingChange::Bind(domain))
        }
        License::FreeDomain { key } => domains::cli::change(console, &key, BindingChange::Unbind),
        License::TransferDomain(arguments) => {
            let (key, domain) = arguments.parse()?;
            let change = BindingChange::Transfer {
                to: domain,
                grace: domains::cli::grace(console),
            };
            domains::cli::change(console, &key, change)
        }
        License::CancelTransfer { key } => {
            domains::cli::change(console, &key, BindingChange::CancelTransfer)
        }
        License::ReleaseDevice { key, device } => activations::cli::release(console, &key, &device),
    }
}

/// What a command does if there is no database.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfMissing {
    /// Creates one.
    Create,
    /// Fails, and names the path.
    Refuse,
}

impl Command {
    /// Commands that add or set something create the database, so that a new machine can be set up before its first
    /// start. Commands that show or change existing data fail: without a database they run in the wrong place.
    const fn if_missing(&self) -> IfMissing {
        match self {
            Self::Admin(admins::cli::Command::Add(_))
            | Self::Customer(customers::cli::Command::Add(_))
            | Self::Release(releases::cli::Releases {
                command: releases::cli::Command::Add(_),
                ..
            })
            | Self::Config(products::cli::Config {
                command: products::cli::ConfigCommand::Set { .. },
                ..
            })
            | Self::Product(products::cli::ProductCommand::Add { .. })
            | Self::Plan(plans::cli::Plans {
                command: plans::cli::Command::Add(_),
                ..
            })
            | Self::Limit(limits::cli::LimitCommand::Set { .. })
            | Self::Flag(flags::cli::Flags {
                command: flags::cli::FlagCommand::Set(_),
                ..
            }) => IfMissing::Create,
            _ => IfMissing::Refuse,
        }
    }
}
