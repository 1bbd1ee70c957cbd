//! The executable: parses arguments, runs the command, returns the exit status.

use std::process::ExitCode;

use license_server::cli;
use license_server::config::{self, Language, LogFormat};
use license_server::db;
use license_server::error::{Error, RefusalKind, Refused, Resource};
use license_server::i18n::Catalog;
use license_server::server::NonFatalSignals;
use license_server::{console, logging, memory};
use mimalloc::MiMalloc;
use rustix::fs::Mode;

/// The allocator of what is written in Rust; see [`license_server::memory`].
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Exits with 0 if done, 1 if failed, 2 for wrong usage or settings.
fn main() -> ExitCode {
    memory::set_up();
    // Files must not be readable by other users: the database holds every key.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let arguments = cli::parse();
    let runs_server = arguments.runs_server();
    let mut to_log = false;
    // Before anything slow: until then a signal ends the process.
    let signals = runs_server.then(NonFatalSignals::catch).transpose();
    let mut of_settings = false;
    let done = signals.and_then(|signals| {
        let loaded = config::load(arguments.config.as_deref());
        of_settings = loaded.is_err();
        let settings = loaded?;
        logging::start(&settings.log)?;
        to_log = runs_server && settings.log.format == LogFormat::Json;
        cli::run(arguments, settings, signals)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = if of_settings {
                // It says itself what is wrong in which line, and the help knows no more.
                error.to_string().replace('\n', " ")
            } else {
                with_advice(&error)
            };
            if to_log {
                log::error!("{message}");
            } else {
                console::message(&format!("license-server: {message}"));
            }
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// Whether the same command would always fail.
fn is_usage(error: &Error) -> bool {
    match error {
        Error::Usage(_) | Error::Invalid { .. } => true,
        Error::Several(errors) => errors.iter().any(is_usage),
        Error::Refused(refused) => refused.kind == RefusalKind::Ambiguous,
        _ => false,
    }
}

/// One line with the error and what to do next.
fn with_advice(error: &Error) -> String {
    let next = match error {
        Error::Invalid { .. } => {
            "use another value; `license-server COMMAND --help` shows the format"
        }
        Error::NotFound { what, .. } => command_that_lists(*what),
        Error::Unavailable { .. } => "free the disk or the lock, then try again",
        Error::Damaged { found } => db::remedy(found),
        Error::Internal { .. } => "run `license-server check`",
        Error::Usage(_) => "see `license-server --help`",
        Error::Refused(refused) => return refusal_text(refused),
        Error::Several(errors) => {
            let texts: Vec<String> = errors.iter().map(with_advice).collect();
            return texts.join("; ");
        }
        Error::State(_) => "",
    };
    let text = error.to_string().replace('\n', " ");
    if next.is_empty() {
        text
    } else {
        format!("{text}: {next}")
    }
}

/// Where to find the right name of a thing that was not found; empty if no command lists it.
const fn command_that_lists(what: Resource) -> &'static str {
    match what {
        Resource::License | Resource::LicenseWithKey => "see `license-server license list`",
        Resource::Customer => "see `license-server customer list`",
        Resource::RunningSession => "see `license-server session list`",
        Resource::Device => "see `license-server license show KEY`",
        Resource::Release => "see `license-server release list`",
        Resource::Plan => "see `license-server plan list`",
        Resource::Product => "see `license-server product list`",
        Resource::RateLimit => "see `license-server limit list`",
        Resource::FeatureFlag => "see `license-server flag list`",
        Resource::Administrator => "see `license-server admin list`",
        Resource::Backup
        | Resource::Certificate
        | Resource::CertificateAuthority
        | Resource::Domain
        | Resource::ManualPage
        | Resource::Session
        | Resource::SetUp
        | Resource::SavedFilter
        | Resource::SigningKey
        | Resource::Template
        | Resource::Text
        | Resource::Page
        | Resource::TextFile => "",
    }
}

/// The English text of a refusal.
fn refusal_text(refused: &Refused) -> String {
    let catalog = Catalog::load(Language::En);
    catalog.map_or_else(
        |_| refused.code.to_owned(),
        |catalog| {
            catalog
                .problem(Language::En, refused.code, &refused.members)
                .1
        },
    )
}
