//! `license-server check`: one line for each thing that must be in order, and what to do where it is not.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::backups::{self, Age};
use crate::clock::UnixMs;
use crate::config::{Settings, TlsMode};
use crate::console;
use crate::db::{Db, SCHEMA};
use crate::error::{Doing, Error, Result};
use crate::tls::{Certificates, Standing};
use crate::{audit, keys, server, uptime};

/// Below this, copies and migrations may not fit.
const DISK_MIN_BYTES: u64 = 256 * 1024 * 1024;
/// A certificate with less than this should have been renewed.
const CERTIFICATE_MIN: Duration = Duration::from_hours(14 * 24);
/// A renewal that is longer overdue was not even tried.
const RENEWAL_TAKES: Duration = Duration::from_hours(24);
/// Before this the clock is certainly wrong.
const BUILT_AFTER: UnixMs = UnixMs(1_767_225_600_000);
const REACH: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    ok: bool,
    detail: String,
}

/// What a look found: in order, or what to do.
type Look = Result<String, String>;

/// Prints one line for each thing that must be in order.
///
/// # Errors
/// [`Error::State`] when one is not.
pub fn check(settings: &Settings, json: bool) -> Result<()> {
    let path = &settings.database.path;
    let mut findings = vec![finding("settings", Ok("read and possible".to_owned()))];
    let db = if path.exists() {
        Db::open_as_command(&server::database(settings)).map_err(|error| error.to_string())
    } else {
        Err(format!(
            "{} is not there yet: the first start makes it",
            path.display()
        ))
    };
    match &db {
        Err(problem) => {
            findings.push(finding("file", Err(problem.clone())));
            for unseen in ["schema", "integrity", "audit log", "signing keys"] {
                findings.push(finding(
                    unseen,
                    Err("not looked at: there is no file to look into".to_owned()),
                ));
            }
        }
        Ok(db) => {
            findings.push(finding("file", file(path)));
            findings.push(finding("schema", Ok(format!("version {SCHEMA}"))));
            findings.push(finding("integrity", integrity(db)));
            findings.push(finding("audit log", audit_log(db)));
            let keys = signing_keys(db, &settings.data_folder());
            findings.push(finding("signing keys", keys));
        }
    }
    findings.push(finding("disk space", disk(&settings.data_folder())));
    findings.push(finding("backup", backup(settings)));
    findings.push(finding("clock", clock(db.as_ref().ok())));
    findings.push(finding("certificate", certificate(settings)));
    findings.push(finding("address", address(settings)));
    findings.push(finding("proxies", proxies(settings, db.as_ref().ok())));
    findings.push(finding("reachability", reachability(settings)));
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    if json {
        console::json(&json!({ "ok": wrong == 0, "checks": findings }))?;
    } else {
        for Finding { name, ok, detail } in &findings {
            let word = if *ok { "ok  " } else { "TODO" };
            console::text(&format!("{word}  {name:<12}  {detail}\n"))?;
        }
    }
    if wrong == 0 {
        return Ok(());
    }
    let need = if wrong == 1 { "needs" } else { "need" };
    Err(Error::State(format!(
        "{wrong} of {} {need} something done, see above",
        findings.len()
    )))
}

fn finding(name: &'static str, look: Look) -> Finding {
    let (ok, detail) = match look {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    // One line each, also where SQLite quotes a statement.
    let detail = detail.replace('\n', " ");
    Finding { name, ok, detail }
}

/// A shop without a schedule may copy the file in its own way: only a schedule that fails is a finding.
fn backup(settings: &Settings) -> Look {
    let shelf = server::shelf(settings);
    let newest = shelf.list().map_err(|error| error.to_string())?;
    let newest = newest.first().map(|backup| backup.made_at);
    let folder = shelf.folder().display();
    let said = newest.map_or_else(
        || format!("none in {folder}"),
        |at| format!("the newest in {folder} is of {}", at.rfc3339()),
    );
    let age = backups::age(newest, shelf.every(), server::machine_time());
    match (age, shelf.every()) {
        (Age::None | Age::Old, Some(_)) => Err(format!(
            "{said}: look at the server's log, and at the room in that folder"
        )),
        (Age::None | Age::Old, None) => {
            Ok(format!("{said}; [backup] directory makes them by itself"))
        }
        (Age::Fresh, _) => Ok(said),
    }
}

fn file(path: &Path) -> Look {
    use std::os::unix::fs::PermissionsExt;
    let data = std::fs::metadata(path).map_err(|error| error.to_string())?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    for (place, right) in [(Some(path), "600"), (folder, "700")] {
        let Some(place) = place else { continue };
        let found = std::fs::metadata(place).map_err(|error| error.to_string())?;
        let mode = found.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let name = place.display();
            let problem = format!("others may look into {name} (mode {mode:o})");
            return Err(format!("{problem}: chmod {right} {name}"));
        }
    }
    Ok(format!(
        "{} with {} KiB",
        path.display(),
        data.len().div_ceil(1024)
    ))
}

fn integrity(db: &Db) -> Look {
    let first = db.read_blocking(|reader| Ok(reader.integrity()?.into_iter().next()));
    match first.map_err(|error| error.to_string())? {
        None => Ok("every page and every reference".to_owned()),
        Some(first) => Err(format!(
            "{first} (and maybe more): stop the server and restore a backup"
        )),
    }
}

fn audit_log(db: &Db) -> Look {
    let altered = db
        .read_blocking(audit::first_altered)
        .map_err(|error| error.to_string())?;
    match altered {
        None => Ok("no row was altered".to_owned()),
        Some(id) => Err(format!(
            "row {id} is not as it was written: compare it with a backup"
        )),
    }
}

fn signing_keys(db: &Db, data: &Path) -> Look {
    let now = server::machine_time();
    let known = db.read_blocking(|reader| keys::check(reader, data, now));
    Ok(match known.map_err(|error| error.to_string())? {
        None => "none yet: the first start of the server makes them".to_owned(),
        Some(known) => {
            let (current, next) = (known.current.id(), known.next.id());
            format!("{current} is in force, {next} comes next")
        }
    })
}

fn disk(folder: &Path) -> Look {
    let place = folder
        .ancestors()
        .find(|place| place.exists())
        .unwrap_or(Path::new("."));
    let place = if place.as_os_str().is_empty() {
        Path::new(".")
    } else {
        place
    };
    let free = rustix::fs::statvfs(place).map_err(|error| error.to_string())?;
    let bytes = free.f_bavail.saturating_mul(free.f_frsize);
    let told = format!("{} MiB free at {}", bytes / (1024 * 1024), place.display());
    if bytes < DISK_MIN_BYTES {
        Err(format!("{told}: make room"))
    } else {
        Ok(told)
    }
}

fn clock(db: Option<&Db>) -> Look {
    let machine = server::machine_time();
    if machine < BUILT_AFTER {
        return Err(format!(
            "it says {}: set it, and keep it by NTP",
            machine.rfc3339()
        ));
    }
    let seen = db.map(|db| db.read_blocking(uptime::recall)).transpose();
    let seen = seen
        .map_err(|error| error.to_string())?
        .map_or(UnixMs(0), |uptime| uptime.high_water);
    if machine.plus_s(120) < seen {
        return Err(format!(
            "it says {}, but the file has seen {}: set the clock; if it is right now, stop the server \
             and run `license-server check --accept-clock`",
            machine.rfc3339(),
            seen.rfc3339(),
        ));
    }
    Ok(format!("it says {}", machine.rfc3339()))
}

fn certificate(settings: &Settings) -> Look {
    let now = server::machine_time();
    let folder = settings.data_folder().join("tls");
    if settings.tls.mode == TlsMode::SelfSigned && !folder.exists() {
        return Ok("self-signed, made at the first start".to_owned());
    }
    if settings.tls.mode == TlsMode::Acme {
        let standing = Standing::read(settings).map_err(|error| error.to_string())?;
        return by_authority(&standing, now);
    }
    let opened = Certificates::open(settings, now).map_err(|error| error.to_string())?;
    let Some(certificates) = opened else {
        return Ok("none: TLS is off".to_owned());
    };
    let ends_at = certificates.ends_at().map_err(|error| error.to_string())?;
    let told = format!("ends {}", ends_at.rfc3339());
    if settings.tls.mode == TlsMode::SelfSigned {
        return Ok("self-signed, renewed by itself".to_owned());
    }
    let flaws = certificates.flaws(settings, now);
    let flaws = flaws.map_err(|error| error.to_string())?;
    if !flaws.is_empty() {
        Err(format!("{told}; {}", flaws.join("; ")))
    } else if ends_at < now.plus(CERTIFICATE_MIN) {
        Err(format!("{told}: renew it"))
    } else {
        let hint = certificates.hint().map_err(|error| error.to_string())?;
        Ok(hint.map_or(told.clone(), |hint| format!("{told}; {hint}")))
    }
}

/// Whether clients elsewhere can reach it at the address that they are told.
fn address(settings: &Settings) -> Look {
    let obstacles = server::obstacles(settings).map_err(|error| error.to_string())?;
    if !obstacles.is_empty() {
        return Err(obstacles.join("; "));
    }
    let server = &settings.server;
    Ok(match settings.public_url() {
        Some(url) => format!("clients use {url}"),
        None if server.address.is_loopback() => "only programs on this machine reach it".to_owned(),
        None => format!("clients use {}, port {}", server.address, server.port),
    })
}

/// One by an authority: its age, and what became of its renewal.
fn by_authority(standing: &Standing, now: UnixMs) -> Look {
    let said = match &standing.serves {
        None => "none by the authority yet, a self-signed one serves".to_owned(),
        Some((issuer, life)) => {
            let days = now.0.saturating_sub(life.begins.0).max(0) / 86_400_000;
            let (ends, over) = (life.ends.rfc3339(), life.ends <= now);
            let word = if over { "has ended" } else { "ends" };
            format!("by {issuer}, {days} days old, {word} {ends}")
        }
    };
    if standing.failures > 0 {
        let next = standing.next_try.unwrap_or(now).rfc3339();
        let (failures, last) = (standing.failures, &standing.last_error);
        return Err(format!(
            "{said}; failures in a row: {failures}, the last one: {last}; next try {next}"
        ));
    }
    let Some((_, life)) = &standing.serves else {
        return Err(format!(
            "{said}: start `license-server serve`, and look at its log"
        ));
    };
    if !standing.lacks.is_empty() {
        let lacks = standing.lacks.join(", ");
        return Err(format!(
            "{said}, and is not for {lacks}: start the server, which asks for another"
        ));
    }
    let renewed = standing.renew_at.unwrap_or(life.renew_at());
    if renewed.plus(RENEWAL_TAKES) < now {
        return Err(format!(
            "{said}, and is not renewed: start the server, and look at its log"
        ));
    }
    Ok(format!("{said}, is renewed about {}", renewed.rfc3339()))
}

/// Whether proxies say whom they speak for, as far as the server has seen.
fn proxies(settings: &Settings, db: Option<&Db>) -> Look {
    let seen = db.map(|db| db.read_blocking(uptime::proxies)).transpose();
    let seen = seen.map_err(|error| error.to_string())?.unwrap_or_default();
    if let Some(proxy) = seen.unnamed {
        return Err(format!(
            "requests came through the trusted proxy {proxy} that name no client, and all share one limit: \
             have it write X-Forwarded-For (nginx: proxy_set_header X-Forwarded-For \
             $proxy_add_x_forwarded_for), then start the server again; a look of your own from there needs \
             that header too"
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
        "none is trusted".to_owned()
    } else {
        format!("believed: {}", trusted.join(", "))
    })
}

fn reachability(settings: &Settings) -> Look {
    let server = &settings.server;
    let mut address = SocketAddr::new(server.address, server.port);
    if server.address.is_unspecified() {
        address.set_ip(if server.address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    match TcpStream::connect_timeout(&address, REACH) {
        Ok(_) => Ok(format!("something listens on {address}")),
        Err(error) => Err(format!(
            "nothing listens on {address} ({error}): start `license-server serve`"
        )),
    }
}

/// Takes the machine's word for the date, while no server runs.
///
/// # Errors
/// [`Error::State`] while one does.
pub fn accept_clock(settings: &Settings) -> Result<()> {
    let db = Db::open_as_server(&server::database(settings))?;
    let now = server::machine_time();
    db.write_blocking("uptime.turn_back", move |tx| uptime::turn_back(tx, now))?;
    db.close(Duration::from_secs(10));
    let file = settings.database.path.display();
    console::text(&format!("{file} believes that it is {}\n", now.rfc3339())).doing("print")
}
