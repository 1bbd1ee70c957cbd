//! Archives: a backup contains everything that must be kept, and a restore either brings all of it back or is refused
//! without changing anything (D6).

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::database;
use crate::inspect::{data_files, error_of, responds};
use crate::support::{Server, identity, is_installed};

const PASSPHRASE: &str = "rain on a tin roof";

/// Runs a command that must succeed, and returns its output.
fn output_of(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {message}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the line `name` of `check` is ok, and its detail.
pub fn check_line(server: &Server, name: &str) -> (bool, String) {
    let output = server.cli(&["--json", "check"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = document["checks"].as_array().unwrap().clone();
    let found = checks.into_iter().find(|check| check["name"] == name);
    let found = found.unwrap();
    let detail = found["detail"].as_str().unwrap().to_owned();
    (found["ok"].as_bool().unwrap(), detail)
}

fn authority(server: &Server) -> Vec<u8> {
    fs::read(server.path("data/tls/ca.pem")).unwrap()
}

#[test]
fn on_a_new_machine_programs_notice_nothing_but_the_end_of_their_session() {
    for encrypted in [false, true] {
        let settings = [("BACKUP__PASSPHRASE_FILE", "passphrase")];
        let settings = if encrypted { &settings[..] } else { &[] };
        let mut old = Server::prepare(settings);
        fs::write(old.path("passphrase"), PASSPHRASE).unwrap();
        old.run();
        let key = old.issue_license(1);
        old.client().session(&key, "laptop");
        let copy = old.path("copy");
        let written = old.json(&["backup", copy.to_str().unwrap()]);
        assert_eq!(written["encrypted"], encrypted);
        assert_eq!(written["files"].as_array().unwrap().len(), 4, "{written}");
        assert_eq!(written["missing"], json!([]));
        let text = fs::read(&copy).unwrap();
        let open = text.windows(11).any(|at| at == b"PRIVATE KEY");
        assert_eq!(open, !encrypted);
        let mode = fs::metadata(&copy).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let settings_before = old.json(&["config", "show"]);
        let trusted = authority(&old);
        drop(old);
        let mut new = Server::prepare(settings);
        fs::write(new.path("passphrase"), PASSPHRASE).unwrap();
        fs::write(new.path("copy"), &text).unwrap();
        let message = output_of(&new, &["restore", "copy"]);
        assert!(
            message.contains("certificates and signing keys of the copy were restored"),
            "{message}"
        );
        assert!(!message.contains("MISSING"), "{message}");
        new.run();
        assert_eq!(authority(&new), trusted);
        assert_eq!(new.json(&["config", "show"]), settings_before);
        assert_eq!(new.call("activate", &identity(&key, "laptop")).status, 200);
        let checked = new.json(&["check"]);
        assert_eq!(checked["ok"], true, "{checked}");
    }
}

/// Python that runs a command in a terminal and types the passphrase at each prompt.
const TYPE_PASSPHRASE: &str = r"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
while True:
    try:
        text = os.read(terminal, 1000)
    except OSError:
        break
    if not text:
        break
    if b'passphrase' in text and b':' in text:
        os.write(terminal, sys.argv[1].encode() + b'\n')
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";

fn age(server: &Server, arguments: &[&str]) {
    let mut python = Command::new("python3");
    let python = python.args(["-c", TYPE_PASSPHRASE, PASSPHRASE, "age"]);
    let python = python.args(arguments).current_dir(server.path(""));
    let status = python.stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

#[test]
fn the_real_age_opens_an_encrypted_backup_and_its_own_files_are_put_back() {
    if !is_installed("age") || !is_installed("python3") || !is_installed("tar") {
        return;
    }
    let mut server = Server::prepare(&[("BACKUP__PASSPHRASE_FILE", "passphrase")]);
    fs::write(
        server.path("passphrase"),
        format!("{PASSPHRASE}\nand a remark\n"),
    )
    .unwrap();
    server.run();
    let key = server.issue_license(1);
    server.json(&["backup", "copy.tar.age"]);
    age(&server, &["--decrypt", "-o", "copy.tar", "copy.tar.age"]);
    fs::create_dir(server.path("unpacked")).unwrap();
    let mut tar = Command::new("tar");
    let tar = tar.args(["-xf", "copy.tar", "-C", "unpacked"]);
    assert!(tar.current_dir(server.path("")).status().unwrap().success());
    let unpacked = server.path("unpacked");
    for name in ["tls/ca.pem", "tls/ca.key"] {
        let (copied, own) = (unpacked.join(name), server.path("data").join(name));
        assert_eq!(fs::read(copied).unwrap(), fs::read(own).unwrap(), "{name}");
    }
    let manifest = fs::read_to_string(unpacked.join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["product"], "license-server");
    let unpacked = unpacked.join("database.sqlite3");
    assert_eq!(database::count_in(&unpacked, "licenses"), 1);
    // A file that age encrypts itself can be restored, too.
    age(&server, &["--passphrase", "-o", "again.age", "copy.tar"]);
    server.json(&["license", "suspend", &key]);
    server.stop();
    for copy in ["again.age", "copy.tar", "copy.tar.age"] {
        server.json(&["restore", copy]);
        assert_eq!(server.json(&["license", "show", &key])["state"], "active");
        server.json(&["license", "suspend", &key]);
    }
}

#[test]
fn a_missing_short_or_wrong_passphrase_is_reported() {
    let mut server = Server::prepare(&[("BACKUP__PASSPHRASE_FILE", "passphrase")]);
    server.json(&["customer", "add", "Ada"]);
    let message = error_of(&server, &["backup", "copy"]);
    assert!(message.contains("passphrase"), "{message}");
    fs::write(server.path("passphrase"), "too short\n").unwrap();
    let message = error_of(&server, &["backup", "copy"]);
    assert!(message.contains("at least 12 characters"), "{message}");
    assert!(!server.path("copy").exists() && !server.path("copy.part").exists());
    let (ok, message) = check_line(&server, "backup");
    assert!(
        !ok && message.contains("at least 12 characters"),
        "{message}"
    );
    fs::write(server.path("passphrase"), PASSPHRASE).unwrap();
    server.json(&["backup", "copy"]);
    fs::write(server.path("other"), "snow on a tin roof").unwrap();
    let before = data_files(&server);
    let other = ["restore", "copy", "--passphrase-file", "other"];
    assert!(error_of(&server, &other).contains("another passphrase"));
    server.set("BACKUP__PASSPHRASE_FILE", "nowhere");
    assert!(error_of(&server, &["restore", "copy"]).contains("nowhere"));
    let mut text = fs::read(server.path("copy")).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 1;
    fs::write(server.path("altered"), text).unwrap();
    let altered = ["restore", "altered", "--passphrase-file", "passphrase"];
    assert!(error_of(&server, &altered).contains("damaged"));
    assert!(data_files(&server) == before);
    server.json(&["restore", "copy", "--passphrase-file", "passphrase"]);
}

#[test]
fn restoring_a_bare_database_on_a_new_machine_says_which_keys_are_missing_and_what_to_do() {
    let mut old = Server::start();
    let key = old.issue_license(1);
    let output = output_of(&old, &["backup", "copy", "--database-only"]);
    assert!(output.contains("database only"), "{output}");
    let (text, trusted) = (fs::read(old.path("copy")).unwrap(), authority(&old));
    old.stop();
    let mut new = Server::prepare(&[]);
    fs::write(new.path("copy"), &text).unwrap();
    let message = output_of(&new, &["restore", "copy"]);
    for word in [
        "MISSING: the signing key",
        "rotate-signing-key --lost",
        "MISSING: the certificate authority",
        "config new-authority",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    fs::write(new.path("copy-2"), &text).unwrap();
    let restored = &new.json(&["restore", "copy-2"])["restored"];
    assert_eq!(restored["missing_authority"], true);
    assert_eq!(
        restored["missing_signing_keys"].as_array().unwrap().len(),
        2
    );
    assert_eq!(restored["form"], "database");
    // Missing keys are not generated silently.
    let message = error_of(&new, &["serve"]);
    assert!(message.contains("rotate-signing-key --lost"), "{message}");
    new.json(&["config", "rotate-signing-key", "--lost"]);
    let message = error_of(&new, &["serve"]);
    assert!(message.contains("config new-authority"), "{message}");
    assert!(!new.path("data/tls/ca.pem").exists());
    let (ok, message) = check_line(&new, "certificate");
    assert!(!ok && message.contains("config new-authority"), "{message}");
    let output = output_of(&new, &["config", "new-authority"]);
    assert!(
        output.contains("every program that trusts the old one"),
        "{output}"
    );
    new.run();
    assert_ne!(authority(&new), trusted);
    assert_eq!(new.call("activate", &identity(&key, "laptop")).status, 201);
    let renewed = database::audited(&new, "keys.new_authority");
    assert_eq!(renewed.len(), 1, "{renewed:?}");
}

#[test]
fn a_lost_authority_stops_the_start_until_it_is_back_or_replaced_on_purpose() {
    let mut server = Server::start();
    let client = server.client();
    let works = || client.get("/api/license/version?version=1.0.0").status;
    assert_eq!(server.stop(), Some(0));
    let (tls, away) = (server.path("data/tls"), server.path("away"));
    fs::rename(&tls, &away).unwrap();
    for lost in ["all of it", "its key"] {
        if lost == "its key" {
            fs::create_dir(&tls).unwrap();
            fs::copy(away.join("ca.pem"), tls.join("ca.pem")).unwrap();
        }
        let message = error_of(&server, &["serve"]);
        assert!(
            message.contains("ca.key is missing") && message.contains("config new-authority"),
            "{lost}: {message}"
        );
        let (ok, message) = check_line(&server, "certificate");
        assert!(
            !ok && message.contains("ca.key is missing"),
            "{lost}: {message}"
        );
        assert!(!tls.join("ca.key").exists(), "check creates nothing");
    }
    // Another authority in its place is detected, too.
    fs::remove_dir_all(&tls).unwrap();
    let other = Server::start();
    fs::create_dir(&tls).unwrap();
    for name in ["ca.pem", "ca.key"] {
        fs::copy(other.path("data/tls").join(name), tls.join(name)).unwrap();
    }
    let message = error_of(&server, &["serve"]);
    assert!(
        message.contains("not the one that programs were given"),
        "{message}"
    );
    fs::remove_dir_all(&tls).unwrap();
    fs::rename(&away, &tls).unwrap();
    server.run();
    assert_eq!(works(), 200);
    let message = error_of(&server, &["config", "new-authority"]);
    assert!(message.contains("stop it first"), "{message}");
    assert_eq!(server.stop(), Some(0));
    let message = error_of(&server, &["config", "new-authority"]);
    assert!(message.contains("nothing has to be done"), "{message}");
    let before = authority(&server);
    server.json(&["config", "new-authority", "--replace"]);
    assert_eq!(
        fs::read(server.path("data/tls/ca.pem.replaced")).unwrap(),
        before
    );
    server.run();
    assert_ne!(authority(&server), before);
    assert!(responds(&server));
}

#[test]
fn a_database_of_an_earlier_version_keeps_its_authority_and_generates_no_new_one() {
    let mut server = Server::start();
    let before = authority(&server);
    server.stop();
    database::forget_authority(&server);
    fs::rename(server.path("data/tls"), server.path("away")).unwrap();
    let message = error_of(&server, &["serve"]);
    assert!(message.contains("may have been given before"), "{message}");
    fs::rename(server.path("away"), server.path("data/tls")).unwrap();
    server.run();
    assert_eq!(authority(&server), before);
    server.stop();
    fs::rename(server.path("data/tls"), server.path("away")).unwrap();
    assert!(error_of(&server, &["serve"]).contains("that programs were given"));
}

#[test]
fn restoring_an_archive_restores_its_keys_and_keeps_the_replaced_ones() {
    let mut server = Server::start();
    let before = (authority(&server), server.json(&["config", "show"]));
    server.json(&["backup", "copy"]);
    server.json(&["config", "rotate-signing-key"]);
    server.stop();
    server.json(&["config", "new-authority", "--replace"]);
    server.run();
    let between = (authority(&server), server.json(&["config", "show"]));
    assert!(before.0 != between.0 && before.1 != between.1);
    server.stop();
    let restored = &server.json(&["restore", "copy"])["restored"];
    let replaced_keys = restored["kept_keys"].as_array().unwrap();
    assert_eq!(replaced_keys.len(), 2, "{restored}");
    server.run();
    assert_eq!(
        (authority(&server), server.json(&["config", "show"])),
        before
    );
    let replaced_folder = |end: &str| {
        let mut found = replaced_keys.iter().filter_map(Value::as_str);
        let folder = found.find(|path| path.contains(end)).unwrap();
        server.path(folder)
    };
    assert_eq!(
        fs::read(replaced_folder("tls").join("ca.pem")).unwrap(),
        between.0
    );
    let id = between.1["next_signing_key_id"].as_str().unwrap();
    assert!(
        replaced_folder("signing")
            .join(format!("{id}.pem"))
            .exists()
    );
    // Again, with nothing to replace.
    server.stop();
    let restored = &server.json(&["restore", "copy"])["restored"];
    assert_eq!(restored["kept_keys"], json!([]));
}

#[test]
fn two_restores_within_a_second_keep_both_old_files() {
    let server = Server::prepare(&[]);
    server.json(&["customer", "add", "Early"]);
    server.json(&["backup", "copy"]);
    let mut kept = Vec::new();
    for name in ["One", "Two", "Three"] {
        server.json(&["customer", "add", name]);
        let restored = server.json(&["restore", "copy"]);
        kept.push(server.path(restored["restored"]["kept"].as_str().unwrap()));
    }
    for (path, name) in kept.iter().zip(["One", "Two", "Three"]) {
        assert_eq!(database::customer_names(path), ["Early", name]);
    }
}

/// Manipulations of a copy, and what the error message contains.
const MANIPULATIONS: &[(&str, &str)] = &[
    (
        "create trigger x after insert on audit_log begin delete from licenses; end",
        "the trigger \"x\"",
    ),
    (
        "create view x as with recursive n (i) as (select 1 union all select i + 1 from n) select * from n",
        "the view \"x\"",
    ),
    ("create table x (y)", "the table \"x\""),
    ("create index x on licenses (note)", "the index \"x\""),
    (
        "pragma foreign_keys = off; drop table admin_sessions",
        "the index \"admin_session_admin\" is missing",
    ),
    (
        "drop index license_customer",
        "the index \"license_customer\" is missing",
    ),
    (
        "drop trigger last_owner_stays",
        "the trigger \"last_owner_stays\" is missing",
    ),
    (
        "alter table customers add column x text",
        "the table \"customers\"",
    ),
    (
        "create virtual table x using dbstat",
        "does not belong to license-server",
    ),
];

#[test]
fn a_copy_with_a_manipulated_schema_is_refused_without_changes_and_check_reports_it() {
    let mut server = Server::start();
    let key = server.issue_license(1);
    server.json(&["backup", "good", "--database-only"]);
    server.stop();
    let before = data_files(&server);
    for (sql, word) in MANIPULATIONS {
        fs::copy(server.path("good"), server.path("bad")).unwrap();
        let put = database::execute(&server.path("bad"), sql);
        // This build of SQLite may lack the module for a virtual table.
        if put.is_err() && sql.contains("virtual") {
            continue;
        }
        put.unwrap();
        let message = error_of(&server, &["restore", "bad"]);
        assert!(
            message.contains(word) && message.contains("nothing was changed"),
            "{sql}: {message}"
        );
        assert!(data_files(&server) == before, "{sql} changed something");
    }
    for (sql, word) in &MANIPULATIONS[..4] {
        database::change(&server, sql);
        let (ok, message) = check_line(&server, "schema");
        assert!(!ok && message.contains(word), "{sql}: {message}");
        let kind = word.split(' ').nth(1).unwrap();
        database::change(&server, &format!("drop {kind} x"));
    }
    assert!(check_line(&server, "schema").0);
    // Tables that SQLite itself adds are accepted.
    database::change(&server, "analyze");
    assert!(check_line(&server, "schema").0);
    server.json(&["backup", "analysed"]);
    server.json(&["restore", "analysed"]);
    server.run();
    assert_eq!(
        server.call("activate", &identity(&key, "laptop")).status,
        201
    );
}

/// Writes a copy `bad` of the archive `good`, changed by `forge`.
fn forged(good: &Path, bad: &Path, forge: impl Fn(&str, &mut tar::Header, &mut Vec<u8>)) {
    let mut archive = tar::Archive::new(fs::File::open(good).unwrap());
    let mut out = tar::Builder::new(fs::File::create(bad).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let (mut header, mut bytes) = (entry.header().clone(), Vec::new());
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        forge(&name, &mut header, &mut bytes);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        out.append(&header, &bytes[..]).unwrap();
    }
    out.into_inner().unwrap().flush().unwrap();
}

#[test]
fn an_archive_that_was_tampered_with_is_refused_without_changes() {
    let mut server = Server::start();
    server.issue_license(1);
    server.json(&["backup", "good"]);
    server.stop();
    let before = data_files(&server);
    let (good, bad) = (server.path("good"), server.path("bad"));
    let assert_refused = |what: &str| {
        let message = error_of(&server, &["restore", "bad"]);
        assert!(message.contains("nothing was changed"), "{what}: {message}");
        assert!(data_files(&server) == before, "{what} changed something");
    };
    forged(&good, &bad, |name, _, bytes| {
        if name.ends_with("ca.key") {
            bytes[100] ^= 1;
        }
    });
    assert_refused("another key");
    forged(&good, &bad, |name, header, bytes| {
        if name.ends_with("ca.pem") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name("/etc/passwd").unwrap();
            bytes.clear();
        }
    });
    assert_refused("a link");
    forged(&good, &bad, |name, header, _| {
        if name.ends_with("ca.pem") {
            let name = b"../../../../tmp/license-server-was-here";
            header.as_old_mut().name = [0; 100];
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
        }
    });
    assert_refused("a path that leads out");
    forged(&good, &bad, |name, _, bytes| {
        if name == "database.sqlite3" {
            bytes.extend([0; 4096]);
        }
    });
    assert_refused("a file larger than the manifest says");
    let text = fs::read(&good).unwrap();
    fs::write(&bad, &text[..text.len() / 2]).unwrap();
    assert_refused("half of it");
    assert!(!Path::new("/tmp/license-server-was-here").exists());
}

#[test]
fn a_backup_during_a_key_rotation_contains_all_its_keys() {
    let server = Server::start();
    std::thread::scope(|scope| {
        let rotate = scope.spawn(|| {
            for _ in 0..6 {
                server.json(&["config", "rotate-signing-key"]);
            }
        });
        let mut number = 0;
        while !rotate.is_finished() || number < 3 {
            number += 1;
            let written = server.json(&["backup", &format!("copy-{number}")]);
            assert_eq!(written["missing"], json!([]), "{written}");
        }
    });
}

#[test]
fn a_file_that_prevents_every_backup_is_reported_by_check() {
    let server = Server::start();
    let tls = server.path("data/tls");
    let put = |name: &str, length: usize| {
        let path = tls.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; length]).unwrap();
    };
    let mine = || {
        let entries = fs::read_dir(&tls).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let before: Vec<_> = mine().collect();
    let one = |name: &str| vec![name.to_owned()];
    let many = (0..1100).map(|number| format!("{number}.pem")).collect();
    for (named, names, length) in [
        ("tls/large.bin", one("large.bin"), 1024 * 1024 + 1),
        ("tls/my notes.txt", one("my notes.txt"), 1),
        ("data/tls/a/b/c/d", one("a/b/c/d/e.pem"), 1),
        ("1104 files", many, 1),
    ] {
        assert!(check_line(&server, "backup").0, "{named}");
        for name in &names {
            put(name, length);
        }
        let message = error_of(&server, &["backup", "copy"]);
        let (ok, detail) = check_line(&server, "backup");
        for text in [&message, &detail] {
            assert!(text.contains(named) && text.contains("elsewhere"), "{text}");
        }
        assert!(!ok && !server.path("copy").exists(), "{named}");
        for path in mine().filter(|path| !before.contains(path)) {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.unwrap();
        }
    }
    output_of(&server, &["backup", "copy"]);
}
