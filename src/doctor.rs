//! `license-server check`: one line per check, with what to do if it fails.

mod counts;
mod health;

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::app;
use crate::backups::{self, BackupAge};
use crate::clock::{
    BUILT_AFTER, Clock, ClockState, SystemClock, TrustReason, TrustedClock, UnixMs,
};
use crate::config::{Config, TlsMode};
use crate::console::{self, OutputFormat};
use crate::db::{self, Db, SCHEMA};
use crate::error::{Doing, Error, Result};
use crate::logging::counted;
use crate::privacy::ListFiles;
use crate::security::data_folder;
use crate::security::monitor_networks::MonitorNetworks;
use crate::tls::{self, AcmeStatus, Certificates, TrustedAuthority};
use crate::{audit, server, server_state, signing_keys};

pub use health::health;
use health::own_address;

/// With less free space, copies and migrations may not fit.
const DISK_MIN_BYTES: u64 = 256 * 1024 * 1024;
/// A certificate with less time left should have been renewed.
const CERTIFICATE_MIN: Duration = Duration::from_hours(14 * 24);
/// A renewal that is overdue for longer was not attempted.
const RENEWAL_OVERDUE: Duration = Duration::from_hours(24);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// The detail of a passed check, or what to do.
type CheckResult = Result<String, String>;

/// Runs every check and prints one line for each.
///
/// # Errors
/// [`Error::State`] if a check fails.
pub fn check(settings: &Config, output: OutputFormat) -> Result<()> {
    let mut findings = vec![finding("settings", Ok("valid".to_owned()))];
    let db = open_database(settings);
    match &db {
        Err(problem) => findings.extend(skipped_database_findings(problem)),
        Ok(db) => findings.extend(database_findings(settings, db)),
    }
    findings.extend(surroundings_findings(settings, db.as_ref().ok()));
    let failed = findings.iter().filter(|finding| !finding.ok).count();
    match output {
        OutputFormat::Json => {
            console::json(&json!({ "ok": failed == 0, "checks": findings }))?;
        }
        OutputFormat::Text => {
            for Finding { name, ok, detail } in &findings {
                let word = if *ok { "ok  " } else { "TODO" };
                console::text(&format!("{word}  {name:<12}  {detail}\n"))?;
            }
        }
    }
    if failed == 0 {
        return Ok(());
    }
    let need = if failed == 1 { "needs" } else { "need" };
    Err(Error::State(format!(
        "{failed} of {} checks {need} attention, see above",
        findings.len()
    )))
}

/// The database, or why it cannot be opened.
fn open_database(settings: &Config) -> Result<Db, String> {
    let path = &settings.database.path;
    if let Some(reason) = inaccessible(path) {
        Err(reason)
    } else if let Err(error) = db::check_served_file(path) {
        Err(error.to_string())
    } else if path.exists() {
        Db::open_as_command(&app::database_options(settings)).map_err(|error| error.to_string())
    } else {
        Err(format!(
            "{} does not exist: on a new machine the first start creates it; otherwise mount its disk, or restore a \
             backup",
            path.display()
        ))
    }
}

/// The findings about a database that cannot be opened.
fn skipped_database_findings(problem: &str) -> Vec<Finding> {
    let mut findings = vec![finding("file", Err(problem.to_owned()))];
    for skipped in ["schema", "integrity", "counts", "audit log", "signing keys"] {
        findings.push(finding(
            skipped,
            Err("not checked: the database was not opened, see the line \"file\"".to_owned()),
        ));
    }
    findings
}

/// The findings about the database.
fn database_findings(settings: &Config, db: &Db) -> Vec<Finding> {
    vec![
        finding("file", file(&settings.database.path)),
        finding("schema", schema(db)),
        finding("integrity", integrity(db)),
        finding("counts", counts::check(db)),
        finding("audit log", audit_log(db)),
        finding("signing keys", signing_keys(db, &settings.data_folder())),
    ]
}

/// The findings about what the server needs besides its database.
fn surroundings_findings(settings: &Config, db: Option<&Db>) -> Vec<Finding> {
    vec![
        finding("disk space", disk(&settings.data_folder())),
        finding("backup", backup(settings, db)),
        finding("erased", erased_customers(settings, db)),
        finding("clock", clock(settings, db)),
        finding("certificate", certificate(settings, db)),
        finding("address", address(settings)),
        finding("proxies", proxies(settings, db)),
        finding("reachability", reachability(settings)),
    ]
}

fn finding(name: &'static str, result: CheckResult) -> Finding {
    let (ok, detail) = match result {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    // One line per check, also if SQLite quotes a statement.
    let detail = detail.replace('\n', " ");
    Finding { name, ok, detail }
}

/// The age of the newest backup. It fails only if a schedule is set: without one, the operator may have other
/// backups.
fn backup(settings: &Config, db: Option<&Db>) -> CheckResult {
    let backup_dir = app::backup_dir(settings);
    let away = backup_dir
        .folder_fault(db)
        .map_err(|error| error.to_string())?;
    if let Some(away) = away {
        return Err(away.message(backup_dir.folder()));
    }
    if let Some(file) = &settings.backup.passphrase_file {
        backups::passphrase(file).map_err(|error| error.to_string())?;
    }
    backups::check_files(&settings.data_folder()).map_err(|error| error.to_string())?;
    let newest = backup_dir.list().map_err(|error| error.to_string())?;
    let newest = newest.first().map(|backup| backup.made_at);
    let folder = backup_dir.folder().display();
    let detail = newest.map_or_else(
        || format!("none in {folder}"),
        |at| format!("the newest in {folder} was made at {}", at.rfc3339()),
    );
    let age = backups::age(newest, backup_dir.every(), app::system_now());
    match (age, backup_dir.every()) {
        (BackupAge::NoBackup | BackupAge::Old, Some(_)) => Err(format!(
            "{detail}: check the server's log, and the free space in that folder"
        )),
        (BackupAge::NoBackup | BackupAge::Old, None) => Ok(format!(
            "{detail}; set [backup] directory for automatic backups"
        )),
        (BackupAge::Fresh, _) => Ok(detail),
    }
}

/// Whether the lists of erased customers can be read and are complete.
fn erased_customers(settings: &Config, db: Option<&Db>) -> CheckResult {
    let backup_dir = app::backup_dir(settings);
    let database = db.map_or(&*settings.database.path, Db::path);
    let lists = ListFiles::of(database, backup_dir.usable_folder());
    let listed = lists.check(db).map_err(|error| error.to_string())?;
    let customers = counted(listed, "erased customer is", "erased customers are");
    Ok(format!(
        "{customers} listed, for a restore of an older copy"
    ))
}

/// Why this user cannot access the files; `None` if the next start can repair what is wrong.
fn inaccessible(path: &Path) -> Option<String> {
    match data_folder::inspect(path) {
        Err(error) => Some(error.to_string()),
        Ok(faults) => {
            let mut blocking = faults.iter().filter(|fault| !fault.is_repaired_at_start());
            blocking.next().map(|fault| fault.message().to_owned())
        }
    }
}

fn file(path: &Path) -> CheckResult {
    let faults = data_folder::inspect(path).map_err(|error| error.to_string())?;
    if let Some(first) = faults.first() {
        return Err(first.message().to_owned());
    }
    let data = std::fs::metadata(path).map_err(|error| error.to_string())?;
    Ok(format!(
        "{} with {} KiB",
        path.display(),
        data.len().div_ceil(1024)
    ))
}

fn schema(db: &Db) -> CheckResult {
    let first = db.read_blocking(|reader| Ok(reader.foreign_objects()?.into_iter().next()));
    match first.map_err(|error| error.to_string())? {
        None => Ok(format!("version {SCHEMA}")),
        Some(first) => Err(format!(
            "{first}: stop the server and restore a backup, or remove the foreign object by hand"
        )),
    }
}

fn integrity(db: &Db) -> CheckResult {
    let worst = db.read_blocking(|reader| {
        let found = reader.integrity()?;
        // The search index can be made anew, other damage cannot.
        let other = found.iter().position(|line| !db::is_damaged_index(line));
        Ok(found.into_iter().nth(other.unwrap_or(0)))
    });
    let worst = worst.map_err(|error| match error {
        Error::Damaged { ref found } => format!("{error}: {}", db::remedy(found)),
        other => other.to_string(),
    })?;
    match worst {
        None => Ok(
            "ok; a changed byte within a value is not detected, since SQLite keeps no checksums"
                .to_owned(),
        ),
        Some(worst) => {
            let remedy = db::remedy(&worst);
            Err(format!("{worst} (possibly more): {remedy}"))
        }
    }
}

fn audit_log(db: &Db) -> CheckResult {
    let verified = db.read_blocking(audit::verify);
    let verified = verified.map_err(|error| error.to_string())?;
    if let Some(id) = verified.first_altered {
        return Err(format!("entry {id} was altered: compare it with a backup"));
    }
    if let Some(found) = verified.unaccounted {
        return Err(format!("{found}: compare it with a backup"));
    }
    let erased = [
        (verified.erased, "erased with a customer"),
        (verified.expired, "erased by age"),
    ];
    let erased = erased.into_iter().filter(|(entries, _)| *entries > 0);
    let erased = erased
        .map(|(entries, why)| format!("; {} {why}", counted(entries, "entry is", "entries are")));
    Ok(format!(
        "no entry was altered{}",
        erased.collect::<String>()
    ))
}

fn signing_keys(db: &Db, data: &Path) -> CheckResult {
    let now = app::system_now();
    let known = signing_keys::check(db, data, now);
    Ok(match known.map_err(|error| error.to_string())? {
        None => "none yet: the first start of the server creates them".to_owned(),
        Some(known) => {
            let (current, next) = (known.current.id(), known.next.id());
            format!("{current} is current, {next} is next")
        }
    })
}

fn disk(folder: &Path) -> CheckResult {
    let place = folder
        .ancestors()
        .find(|place| place.exists())
        .unwrap_or(Path::new("."));
    let place = if place.as_os_str().is_empty() {
        Path::new(".")
    } else {
        place
    };
    if place == folder {
        probe_writable(place)?;
    }
    let free = rustix::fs::statvfs(place).map_err(|error| error.to_string())?;
    let bytes = free.f_bavail.saturating_mul(free.f_frsize);
    let detail = format!("{} MiB free at {}", bytes / (1024 * 1024), place.display());
    if bytes < DISK_MIN_BYTES {
        Err(format!("{detail}: free up space"))
    } else {
        Ok(detail)
    }
}

/// Whether a file can be written in the data folder, tested by writing one.
fn probe_writable(folder: &Path) -> Result<(), String> {
    use std::io::ErrorKind;
    let name = folder.display();
    match db::probe(&folder.join("license-server")) {
        Ok(()) => Ok(()),
        Err(error) => Err(match error.kind() {
            ErrorKind::ReadOnlyFilesystem => format!(
                "the disk of {name} is read-only: find the reason with `dmesg`, and remount it for writing \
                 (mount -o remount,rw)"
            ),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                format!("no space left at {name} ({error}): free up space")
            }
            ErrorKind::PermissionDenied => {
                format!("this user cannot write in {name} ({error}): run this as the server's user")
            }
            _ => {
                format!("writing at {name} fails ({error}): check the disk with `dmesg`")
            }
        }),
    }
}

fn clock(settings: &Config, db: Option<&Db>) -> CheckResult {
    let system = app::system_now();
    let says = system.rfc3339();
    if system < BUILT_AFTER {
        return Err(format!(
            "system clock: {says}; set it, and keep it in sync with NTP"
        ));
    }
    let Some(db) = db else {
        return Ok(format!("system clock: {says}"));
    };
    let read = || -> Result<(UnixMs, bool, TrustedClock)> {
        let seen = db.read_blocking(server_state::load)?.high_water;
        Ok((seen, db.is_served()?, app::command_clock(db, settings)?))
    };
    let (seen, served, clock) = read().map_err(|error| error.to_string())?;
    let (seen, used) = (seen.rfc3339(), clock.now().wall.rfc3339());
    let accept = "stop the server and run `license-server check --accept-clock`";
    match (clock.clock_state(), served) {
        (ClockState::InSync, true) => Ok(format!("system clock: {says}; the server uses it")),
        (ClockState::InSync, false) => Ok(format!(
            "system clock: {says}; {}",
            why(clock.reason(), &seen)
        )),
        (ClockState::Behind, _) => Err(format!(
            "system clock: {says}, but the database has seen {seen}: set the clock; if it is right now, {accept}"
        )),
        (ClockState::Ahead, true) => Err(format!(
            "system clock: {says}, but the server uses {used}: the clock is far ahead and does not appear to be \
             synchronized; the server trusts it after 15 minutes without a change; set the clock if it is wrong, or \
             {accept}"
        )),
        (ClockState::Ahead, false) => Err(format!(
            "system clock: {says}; {}: commands use {used}; a server uses it for 15 minutes after its start, then \
             the clock; set the clock if it is wrong, or, to trust it immediately, {accept}",
            why(clock.reason(), &seen)
        )),
    }
}

/// Why a command, while no server runs, trusts the system clock or does not.
fn why(reason: TrustReason, seen: &str) -> String {
    match reason {
        TrustReason::Near => "trusted".to_owned(),
        TrustReason::SameBoot => format!(
            "trusted, since the machine has not rebooted and its clock has not been changed since {seen}"
        ),
        TrustReason::Synchronized => "trusted, since it is synchronized".to_owned(),
        TrustReason::Unexplained => format!(
            "the last date in the database is {seen}, more than 15 minutes earlier; the machine has rebooted or its \
             clock was changed since, and the clock does not appear to be synchronized"
        ),
    }
}

fn certificate(settings: &Config, db: Option<&Db>) -> CheckResult {
    let now = app::system_now();
    let trusted = db.map(|db| db.read_blocking(signing_keys::trusted_authority));
    let trusted = trusted.transpose().map_err(|error| error.to_string())?;
    let trusted = trusted.unwrap_or(TrustedAuthority::None);
    if settings.tls.mode == TlsMode::SelfSigned && trusted == TrustedAuthority::None {
        let found = tls::authority_key(&settings.data_folder());
        if found.map_err(|error| error.to_string())?.is_none() {
            return Ok("self-signed, created at the first start".to_owned());
        }
    }
    if settings.tls.mode == TlsMode::Acme {
        let status = AcmeStatus::read(settings).map_err(|error| error.to_string())?;
        return acme_certificate(&status, now);
    }
    check_certificate_files(settings)?;
    let opened = Certificates::open(settings, trusted, now).map_err(|error| error.to_string())?;
    let Some(certificates) = opened else {
        return Ok("none: TLS is off".to_owned());
    };
    opened_certificate(settings, &certificates, now)
}

/// Whether others have access to the files of the settings, if they name any.
fn check_certificate_files(settings: &Config) -> Result<(), String> {
    let tls = &settings.tls;
    let (TlsMode::Files, Some(chain), Some(key)) = (tls.mode, &tls.certificate, &tls.key) else {
        return Ok(());
    };
    let faults = data_folder::inspect_certificate_files(chain, key);
    faults
        .first()
        .map_or(Ok(()), |fault| Err(fault.message().to_owned()))
}

/// The certificate that the next start uses, created by the server or read from files.
fn opened_certificate(settings: &Config, certificates: &Certificates, now: UnixMs) -> CheckResult {
    let ends_at = certificates.ends_at().map_err(|error| error.to_string())?;
    let detail = format!("expires {}", ends_at.rfc3339());
    if settings.tls.mode == TlsMode::SelfSigned {
        return Ok("self-signed, renewed automatically".to_owned());
    }
    let flaws = certificates.problems(settings, now);
    let flaws = flaws.map_err(|error| error.to_string())?;
    if !flaws.is_empty() {
        Err(format!("{detail}; {}", flaws.join("; ")))
    } else if ends_at < now.plus(CERTIFICATE_MIN) {
        Err(format!("{detail}: renew it"))
    } else {
        let hint = certificates
            .chain_warning()
            .map_err(|error| error.to_string())?;
        Ok(hint.map_or(detail.clone(), |hint| format!("{detail}; {hint}")))
    }
}

/// Whether clients on other machines can reach the server at the address that they get.
fn address(settings: &Config) -> CheckResult {
    let problems = server::reachability_problems(settings).map_err(|error| error.to_string())?;
    if !problems.is_empty() {
        return Err(problems.join("; "));
    }
    let server = &settings.server;
    Ok(match settings.public_url() {
        Some(url) => format!("clients use {url}"),
        None if server.address.is_loopback() => {
            "only programs on this machine can reach it".to_owned()
        }
        None => format!("clients use {}, port {}", server.address, server.port),
    })
}

/// A certificate from an authority: its age, and the state of its renewal.
fn acme_certificate(status: &AcmeStatus, now: UnixMs) -> CheckResult {
    let detail = match &status.certificate {
        None => "none from the authority yet; a self-signed one is in use".to_owned(),
        Some((issuer, life)) => {
            let days = now.0.saturating_sub(life.begins.0).max(0) / 86_400_000;
            let (ends, expired) = (life.ends.rfc3339(), life.ends <= now);
            let word = if expired { "expired" } else { "expires" };
            format!("by {issuer}, {days} days old, {word} {ends}")
        }
    };
    if status.failures > 0 {
        let next = status.next_try.unwrap_or(now).rfc3339();
        let (failures, last) = (status.failures, &status.last_error);
        return Err(format!(
            "{detail}; failures in a row: {failures}, last error: {last}; next try {next}"
        ));
    }
    let Some((_, life)) = &status.certificate else {
        return Err(format!(
            "{detail}: start `license-server serve`, and check its log"
        ));
    };
    if !status.missing_names.is_empty() {
        let lacks = status.missing_names.join(", ");
        return Err(format!(
            "{detail}, and does not cover {lacks}: start the server, which requests a new one"
        ));
    }
    let renew_at = status.renew_at.unwrap_or(life.renew_at());
    if renew_at.plus(RENEWAL_OVERDUE) < now {
        return Err(format!(
            "{detail}, and has not been renewed: start the server, and check its log"
        ));
    }
    Ok(format!(
        "{detail}, renewal due about {}",
        renew_at.rfc3339()
    ))
}

/// Whether proxies name their clients, as far as the server has observed.
fn proxies(settings: &Config, db: Option<&Db>) -> CheckResult {
    let seen = db
        .map(|db| db.read_blocking(server_state::proxies))
        .transpose();
    let seen = seen.map_err(|error| error.to_string())?.unwrap_or_default();
    if let Some(proxy) = seen.unnamed {
        return Err(format!(
            "requests came through the trusted proxy {proxy} that name no client, or different ones in \
             X-Forwarded-For and Forwarded, and all share one limit: have it write X-Forwarded-For and remove Forwarded \
             (nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Forwarded \"\";), \
             then restart the server; your own requests from there need that header too"
        ));
    }
    if let Some(proxy) = seen.untrusted {
        return Err(format!(
            "requests came through a proxy at {proxy} that is not trusted, and all its clients share one \
             limit: add \"{proxy}\" to [server] trusted_proxies"
        ));
    }
    let trusted: Vec<String> = settings
        .server
        .trusted_proxies
        .iter()
        .map(ToString::to_string)
        .collect();
    Ok(if trusted.is_empty() {
        "no proxy is trusted".to_owned()
    } else {
        let server = &settings.server;
        let networks =
            MonitorNetworks::new(server.monitor_networks.clone(), &server.trusted_proxies);
        let direct_only = !server.monitor_networks.is_empty() && !networks.through_a_proxy();
        let direct_only = if direct_only {
            "; /health and /metrics are served only to direct requests, not through a proxy"
        } else {
            ""
        };
        format!("trusted: {}{direct_only}", trusted.join(", "))
    })
}

fn reachability(settings: &Config) -> CheckResult {
    let address = own_address(settings);
    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
        Ok(_) => Ok(format!("something listens on {address}")),
        Err(error) => Err(format!(
            "nothing listens on {address} ({error}): start `license-server serve`"
        )),
    }
}

/// Accepts the system clock's date, even if the database has seen a later one.
///
/// # Errors
/// [`Error::State`] while a server runs.
pub fn accept_clock(settings: &Config) -> Result<()> {
    let path = &settings.database.path;
    data_folder::secure(path)?;
    if !path.exists() {
        db::check_served_file(path)?;
        return Err(app::no_database(path));
    }
    let db = Db::open_as_server(&app::database_options(settings))?;
    let now = app::system_now();
    db.write_blocking("server_state.reset_clock", move |tx| {
        server_state::reset_clock(tx, now)
    })?;
    db.note_latest_date(now);
    db.note_trusted_boot(SystemClock::default().boot());
    db.close(Duration::from_secs(10));
    let file = settings.database.path.display();
    console::text(&format!("{file} now uses the date {}\n", now.rfc3339())).doing("print")
}

/// Accepts the database at the configured path, even if it is not the one that the last server used, or lacks what
/// that server acknowledged.
///
/// # Errors
/// [`Error::State`] while a server runs, or if there is no database.
pub fn accept_database(settings: &Config) -> Result<()> {
    let path = &settings.database.path;
    data_folder::secure(path)?;
    let stamp = backups::timestamp(app::system_now());
    let file = path.display();
    if let Some(kept) = db::accept_database(path, &stamp)? {
        let kept = kept.display();
        console::message(&format!("the WAL of another database was moved to {kept}"));
    }
    console::message(&format!("continuing with {file}"));
    Ok(())
}
