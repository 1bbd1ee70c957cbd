//! The executable: arguments in, exit status out.

use std::process::ExitCode;

use clap::Parser;
use license_server::cli::{self, Arguments};
use license_server::config::{self, Language, LogFormat};
use license_server::error::{Error, Refused};
use license_server::i18n::Catalog;
use license_server::server::Caught;
use license_server::{console, logging};
use rustix::fs::Mode;

/// 0 done, 1 failed, 2 wrong usage or settings.
fn main() -> ExitCode {
    // Nobody else on this machine may read what we write: the file has every key in it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let arguments = Arguments::parse();
    let stays = arguments.stays();
    let mut in_the_log = false;
    // Before anything that takes time: until then a signal ends the process.
    let signals = stays.then(Caught::catch).transpose();
    let done = signals.and_then(|signals| {
        let settings = config::load(arguments.config.as_deref())?;
        logging::start(&settings.log)?;
        in_the_log = stays && settings.log.format == LogFormat::Json;
        cli::run(arguments, settings, signals)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let told = advice(&error);
            if in_the_log {
                log::error!("{told}");
            } else {
                console::message(&format!("license-server: {told}"));
            }
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

/// Names that mean several things: the command has to be worded in another way.
const AMBIGUOUS: [&str; 3] = ["several_customers", "number_or_name", "several_devices"];

/// Whether the command can never work as it is worded.
fn is_usage(error: &Error) -> bool {
    match error {
        Error::Usage(_) | Error::Invalid { .. } => true,
        Error::Refused(refused) => AMBIGUOUS.contains(&refused.code),
        _ => false,
    }
}

/// One line: what is wrong, and what to do next.
fn advice(error: &Error) -> String {
    let next = match error {
        Error::Invalid { .. } => {
            "give another value; `license-server COMMAND --help` shows the form"
        }
        Error::NotFound { what, .. } if what.starts_with("license") => {
            "see `license-server license list`"
        }
        Error::NotFound {
            what: "customer", ..
        } => "see `license-server customer list`",
        Error::NotFound {
            what: "running session",
            ..
        } => "see `license-server session list`",
        Error::NotFound { what: "device", .. } => "see `license-server license show KEY`",
        Error::NotFound {
            what: "release", ..
        } => "see `license-server release list`",
        Error::NotFound {
            what: "rate limit", ..
        } => "see `license-server limit list`",
        Error::NotFound {
            what: "feature flag",
            ..
        } => "see `license-server flag list`",
        Error::NotFound {
            what: "administrator",
            ..
        } => "see `license-server admin list`",
        Error::Unavailable { .. } => "free the disk or the lock, then try again",
        Error::Damaged { .. } => {
            "run `license-server check`, and restore a backup with `license-server restore FILE`"
        }
        Error::Internal { .. } => "run `license-server check`",
        Error::Usage(_) => "see `license-server --help`",
        Error::Refused(refused) => return sentence(refused),
        Error::NotFound { .. } | Error::State(_) => "",
    };
    let text = error.to_string().replace('\n', " ");
    if next.is_empty() {
        text
    } else {
        format!("{text}: {next}")
    }
}

/// What people are told of a refusal.
fn sentence(refused: &Refused) -> String {
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
