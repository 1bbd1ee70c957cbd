//! The executable: arguments in, exit status out.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use license_server::cli::{self, Arguments};
use license_server::config::{self, Language, Log, LogFormat};
use license_server::console;
use license_server::error::{Error, Refused};
use license_server::i18n::Catalog;
use log::LevelFilter;
use rustix::fs::Mode;

/// 0 done, 1 failed, 2 wrong usage or settings.
fn main() -> ExitCode {
    // Nobody else on this machine may read what we write: the file has every key in it.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let arguments = Arguments::parse();
    let done = config::load(arguments.config.as_deref()).and_then(|settings| {
        start_log(&settings.log);
        cli::run(arguments, settings)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::message(&format!("license-server: {}", advice(&error)));
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

const DOORS: [&str; 4] = ["client", "site", "api", "panel"];

/// Messages on standard error, one line each, whatever is in them.
fn start_log(settings: &Log) {
    let level = LevelFilter::from(settings.level);
    let json = settings.format == LogFormat::Json;
    let mut builder = env_logger::Builder::new();
    builder
        .filter_level(level.min(LevelFilter::Warn))
        .filter_module("license_server", level);
    builder.filter_module("rocket", LevelFilter::Off);
    builder.format(move |out, record| {
        // What Rocket's macros say at our doors, under our names: replies report it already, in words of
        // ours, and without what the caller sent.
        if record.target().split("::").any(|part| DOORS.contains(&part)) {
            return Ok(());
        }
        let at = license_server::server::machine_time().rfc3339();
        let text = record.args().to_string();
        if json {
            let line = serde_json::json!({
                "time": at, "level": record.level().as_str(), "target": record.target(), "message": text,
            });
            return writeln!(out, "{line}");
        }
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(out, "{at} {:5} {text}", record.level())
    });
    if builder.try_init().is_err() {
        console::message("license-server: messages are written by another logger");
    }
}
