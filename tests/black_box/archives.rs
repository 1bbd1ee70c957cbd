//! A backup is everything that must be kept, and what comes back is what it was, or is refused untouched (D6).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::scene::{answers, change};
use crate::support::{Server, claim, files_below, is_there};

const PASSPHRASE: &str = "rain on a tin roof";

/// Every file below `data` with its bytes.
fn bytes(server: &Server) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_below(&server.path("data"));
    let files = files.into_iter().filter(|path| path.is_file());
    let own = files.filter(|path| {
        let name = path.to_string_lossy();
        !["shm", "wal", "lock"].iter().any(|end| name.ends_with(end))
    });
    own.map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// What a command says that fails with status 1.
fn fails(server: &Server, order: &[&str]) -> String {
    let output = server.cli(order);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{order:?}: {told}");
    told
}

/// What a command prints.
fn says(server: &Server, order: &[&str]) -> String {
    let output = server.cli(order);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{order:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// A line of `check`.
fn finding(server: &Server, name: &str) -> (bool, String) {
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
        let key = old.license(1);
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
        let shown = old.json(&["config", "show"]);
        let trusted = authority(&old);
        drop(old);
        let mut new = Server::prepare(settings);
        fs::write(new.path("passphrase"), PASSPHRASE).unwrap();
        fs::write(new.path("copy"), &text).unwrap();
        let told = says(&new, &["restore", "copy"]);
        assert!(
            told.contains("certificates and signing keys of the copy were restored"),
            "{told}"
        );
        assert!(!told.contains("MISSING"), "{told}");
        new.run();
        assert_eq!(authority(&new), trusted);
        assert_eq!(new.json(&["config", "show"]), shown);
        assert_eq!(new.call("activate", &claim(&key, "laptop")).status, 200);
        let checked = new.json(&["check"]);
        assert_eq!(checked["ok"], true, "{checked}");
    }
}

/// Answers the questions for a passphrase that `age` asks on its terminal.
const TYPIST: &str = r"
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
    let python = python.args(["-c", TYPIST, PASSPHRASE, "age"]);
    let python = python.args(arguments).current_dir(server.path(""));
    let status = python.stdout(Stdio::null()).status().unwrap();
    assert!(status.success(), "{arguments:?}");
}

#[test]
fn the_real_age_opens_an_encrypted_backup_and_its_own_files_are_put_back() {
    if !is_there("age") || !is_there("python3") || !is_there("tar") {
        return;
    }
    let mut server = Server::prepare(&[("BACKUP__PASSPHRASE_FILE", "passphrase")]);
    fs::write(
        server.path("passphrase"),
        format!("{PASSPHRASE}\nand a remark\n"),
    )
    .unwrap();
    server.run();
    let key = server.license(1);
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
    let database = Connection::open(unpacked.join("database.sqlite3")).unwrap();
    let sql = "select count(*) from licenses";
    let count: u32 = database.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(count, 1);
    // What it encrypts by itself comes back too.
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
fn a_passphrase_that_protects_nothing_or_is_another_is_told() {
    let mut server = Server::prepare(&[("BACKUP__PASSPHRASE_FILE", "passphrase")]);
    server.json(&["customer", "add", "Ada"]);
    let told = fails(&server, &["backup", "copy"]);
    assert!(told.contains("passphrase"), "{told}");
    fs::write(server.path("passphrase"), "too short\n").unwrap();
    let told = fails(&server, &["backup", "copy"]);
    assert!(told.contains("at least 12 characters"), "{told}");
    assert!(!server.path("copy").exists() && !server.path("copy.part").exists());
    let (ok, told) = finding(&server, "backup");
    assert!(!ok && told.contains("at least 12 characters"), "{told}");
    fs::write(server.path("passphrase"), PASSPHRASE).unwrap();
    server.json(&["backup", "copy"]);
    fs::write(server.path("other"), "snow on a tin roof").unwrap();
    let before = bytes(&server);
    let other = ["restore", "copy", "--passphrase-file", "other"];
    assert!(fails(&server, &other).contains("another passphrase"));
    server.set("BACKUP__PASSPHRASE_FILE", "nowhere");
    assert!(fails(&server, &["restore", "copy"]).contains("nowhere"));
    let mut text = fs::read(server.path("copy")).unwrap();
    let middle = text.len() / 2;
    text[middle] ^= 1;
    fs::write(server.path("altered"), text).unwrap();
    let altered = ["restore", "altered", "--passphrase-file", "passphrase"];
    assert!(fails(&server, &altered).contains("damaged"));
    assert!(bytes(&server) == before);
    server.json(&["restore", "copy", "--passphrase-file", "passphrase"]);
}

#[test]
fn a_bare_database_on_a_new_machine_says_which_keys_are_missing_and_what_that_means() {
    let mut old = Server::start();
    let key = old.license(1);
    let said = says(&old, &["backup", "copy", "--database-only"]);
    assert!(said.contains("database only"), "{said}");
    let (text, trusted) = (fs::read(old.path("copy")).unwrap(), authority(&old));
    old.stop();
    let mut new = Server::prepare(&[]);
    fs::write(new.path("copy"), &text).unwrap();
    let told = says(&new, &["restore", "copy"]);
    for word in [
        "MISSING: the signing key",
        "rotate-signing-key --lost",
        "MISSING: the authority",
        "config new-authority",
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    fs::write(new.path("copy-2"), &text).unwrap();
    let restored = &new.json(&["restore", "copy-2"])["restored"];
    assert_eq!(restored["missing_authority"], true);
    assert_eq!(
        restored["missing_signing_keys"].as_array().unwrap().len(),
        2
    );
    assert_eq!(restored["form"], "database");
    // Nothing is made anew without a word.
    let told = fails(&new, &["serve"]);
    assert!(told.contains("rotate-signing-key --lost"), "{told}");
    new.json(&["config", "rotate-signing-key", "--lost"]);
    let told = fails(&new, &["serve"]);
    assert!(told.contains("config new-authority"), "{told}");
    assert!(!new.path("data/tls/ca.pem").exists());
    let (ok, told) = finding(&new, "certificate");
    assert!(!ok && told.contains("config new-authority"), "{told}");
    let said = says(&new, &["config", "new-authority"]);
    assert!(
        said.contains("every program that trusts the old one"),
        "{said}"
    );
    new.run();
    assert_ne!(authority(&new), trusted);
    assert_eq!(new.call("activate", &claim(&key, "laptop")).status, 201);
    let log = crate::scene::value::<String>(&new, "select group_concat(deed) from audit_log");
    assert!(log.contains("keys.new_authority"), "{log}");
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
        let told = fails(&server, &["serve"]);
        assert!(
            told.contains("ca.key is missing") && told.contains("config new-authority"),
            "{lost}: {told}"
        );
        let (ok, told) = finding(&server, "certificate");
        assert!(!ok && told.contains("ca.key is missing"), "{lost}: {told}");
        assert!(!tls.join("ca.key").exists(), "a look makes nothing");
    }
    // Another one in its place is noticed too.
    fs::remove_dir_all(&tls).unwrap();
    let other = Server::start();
    fs::create_dir(&tls).unwrap();
    for name in ["ca.pem", "ca.key"] {
        fs::copy(other.path("data/tls").join(name), tls.join(name)).unwrap();
    }
    let told = fails(&server, &["serve"]);
    assert!(
        told.contains("not the one that programs were given"),
        "{told}"
    );
    fs::remove_dir_all(&tls).unwrap();
    fs::rename(&away, &tls).unwrap();
    server.run();
    assert_eq!(works(), 200);
    let told = fails(&server, &["config", "new-authority"]);
    assert!(told.contains("stop it first"), "{told}");
    assert_eq!(server.stop(), Some(0));
    let told = fails(&server, &["config", "new-authority"]);
    assert!(told.contains("nothing has to be done"), "{told}");
    let before = authority(&server);
    server.json(&["config", "new-authority", "--replace"]);
    assert_eq!(
        fs::read(server.path("data/tls/ca.pem.replaced")).unwrap(),
        before
    );
    server.run();
    assert_ne!(authority(&server), before);
    assert!(answers(&server));
}

#[test]
fn a_database_of_an_earlier_version_keeps_its_authority_and_makes_none_in_its_place() {
    let mut server = Server::start();
    let before = authority(&server);
    server.stop();
    let earlier = "update server_state set authority = null";
    change(&server, earlier);
    fs::rename(server.path("data/tls"), server.path("away")).unwrap();
    let told = fails(&server, &["serve"]);
    assert!(told.contains("may have been given before"), "{told}");
    fs::rename(server.path("away"), server.path("data/tls")).unwrap();
    server.run();
    assert_eq!(authority(&server), before);
    server.stop();
    fs::rename(server.path("data/tls"), server.path("away")).unwrap();
    assert!(fails(&server, &["serve"]).contains("that programs were given"));
}

#[test]
fn an_archive_brings_back_its_keys_and_keeps_those_that_it_replaces() {
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
    let kept = restored["kept_keys"].as_array().unwrap();
    assert_eq!(kept.len(), 2, "{restored}");
    server.run();
    assert_eq!(
        (authority(&server), server.json(&["config", "show"])),
        before
    );
    let kept = |end: &str| {
        let mut found = kept.iter().filter_map(Value::as_str);
        let folder = found.find(|path| path.contains(end)).unwrap();
        server.path(folder)
    };
    assert_eq!(fs::read(kept("tls").join("ca.pem")).unwrap(), between.0);
    let id = between.1["next_signing_key_id"].as_str().unwrap();
    assert!(kept("signing").join(format!("{id}.pem")).exists());
    // Once more, with nothing to replace.
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
        let conn = Connection::open(path).unwrap();
        let sql = "select group_concat(name) from customers";
        let names: String = conn.query_row(sql, [], |row| row.get(0)).unwrap();
        assert_eq!(names, format!("Early,{name}"));
    }
}

/// What somebody may have put into a copy, and a word of the answer.
const FOREIGN: &[(&str, &str)] = &[
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
    ("create virtual table x using dbstat", "none of ours"),
];

#[test]
fn a_copy_that_holds_something_foreign_or_lacks_something_is_refused_untouched_and_check_finds_it()
{
    let mut server = Server::start();
    let key = server.license(1);
    server.json(&["backup", "good", "--database-only"]);
    server.stop();
    let before = bytes(&server);
    for (sql, word) in FOREIGN {
        fs::copy(server.path("good"), server.path("bad")).unwrap();
        let put = Connection::open(server.path("bad"))
            .unwrap()
            .execute_batch(sql);
        // SQLite here may be built without a module.
        if put.is_err() && sql.contains("virtual") {
            continue;
        }
        put.unwrap();
        let told = fails(&server, &["restore", "bad"]);
        assert!(
            told.contains(word) && told.contains("nothing was changed"),
            "{sql}: {told}"
        );
        assert!(bytes(&server) == before, "{sql} changed something");
    }
    for (sql, word) in &FOREIGN[..4] {
        change(&server, sql);
        let (ok, told) = finding(&server, "schema");
        assert!(!ok && told.contains(word), "{sql}: {told}");
        let kind = word.split(' ').nth(1).unwrap();
        change(&server, &format!("drop {kind} x"));
    }
    assert!(finding(&server, "schema").0);
    // What SQLite itself adds is nothing foreign.
    change(&server, "analyze");
    assert!(finding(&server, "schema").0);
    server.json(&["backup", "analysed"]);
    server.json(&["restore", "analysed"]);
    server.run();
    assert_eq!(server.call("activate", &claim(&key, "laptop")).status, 201);
}

/// An archive in which one thing is not as it should be.
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
fn an_archive_that_was_tampered_with_is_refused_untouched() {
    let mut server = Server::start();
    server.license(1);
    server.json(&["backup", "good"]);
    server.stop();
    let before = bytes(&server);
    let (good, bad) = (server.path("good"), server.path("bad"));
    let refused = |what: &str| {
        let told = fails(&server, &["restore", "bad"]);
        assert!(told.contains("nothing was changed"), "{what}: {told}");
        assert!(bytes(&server) == before, "{what} changed something");
    };
    forged(&good, &bad, |name, _, bytes| {
        if name.ends_with("ca.key") {
            bytes[100] ^= 1;
        }
    });
    refused("another key");
    forged(&good, &bad, |name, header, bytes| {
        if name.ends_with("ca.pem") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name("/etc/passwd").unwrap();
            bytes.clear();
        }
    });
    refused("a link");
    forged(&good, &bad, |name, header, _| {
        if name.ends_with("ca.pem") {
            let name = b"../../../../tmp/license-server-was-here";
            header.as_old_mut().name = [0; 100];
            header.as_old_mut().name[..name.len()].copy_from_slice(name);
        }
    });
    refused("a path that leads out");
    forged(&good, &bad, |name, _, bytes| {
        if name == "database.sqlite3" {
            bytes.extend([0; 4096]);
        }
    });
    refused("more than the list says");
    let text = fs::read(&good).unwrap();
    fs::write(&bad, &text[..text.len() / 2]).unwrap();
    refused("half of it");
    assert!(!Path::new("/tmp/license-server-was-here").exists());
}

#[test]
fn a_rotation_while_backups_are_made_leaves_none_without_its_keys() {
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
fn a_backup_folder_whose_disk_is_away_is_not_made_anew_and_everybody_is_told() {
    let settings = [("BACKUP__DIRECTORY", "disk/copies")];
    let mut server = Server::prepare(&settings);
    server.run();
    // The folder above is not there: nothing is made on the disk of the system.
    crate::support::eventually("a word in the log", || {
        server.log().contains("mount its disk, or make the folder")
    });
    let (ok, told) = finding(&server, "backup");
    assert!(
        !ok && told.contains("is not there, nor the one above it"),
        "{told}"
    );
    let mut panel = server.panel("owner");
    let home = panel.get("/").text;
    assert!(
        home.contains("The disk with the backup folder is missing"),
        "{home}"
    );
    let page = panel.get("/backups").text;
    assert!(
        page.contains("Neither the backup folder nor its parent folder exists"),
        "{page}"
    );
    server.stop();
    fs::create_dir(server.path("disk")).unwrap();
    server.run();
    let made = || {
        let entries = fs::read_dir(server.path("disk/copies"));
        entries.is_ok_and(|entries| {
            let mut paths = entries.map(|entry| entry.unwrap().path());
            paths.any(|path| path.extension().is_some_and(|end| end == "tar"))
        })
    };
    crate::support::eventually("the first backup", made);
    assert!(finding(&server, "backup").0);
    fs::rename(server.path("disk/copies"), server.path("away")).unwrap();
    for empty in [false, true] {
        if empty {
            fs::create_dir(server.path("disk/copies")).unwrap();
        }
        let (ok, told) = finding(&server, "backup");
        assert!(!ok && told.contains("mount its disk"), "{told}");
        let mut panel = server.panel("owner");
        let home = panel.get("/").text;
        assert!(
            home.contains("The disk with the backup folder is missing"),
            "{home}"
        );
        let page = panel.get("/backups").text;
        assert!(
            page.contains("not the one used for earlier backups"),
            "{page}"
        );
        let refused = panel.post("/backups", &[]);
        assert!(refused.status >= 400, "{refused:?}");
        for (name, value) in &mut panel.headers {
            if name == "Accept-Language" {
                "de".clone_into(value);
            }
        }
        let home = panel.get("/").text;
        assert!(
            home.contains("Der Datenträger mit dem Sicherungsordner fehlt"),
            "{home}"
        );
    }
    assert_eq!(fs::read_dir(server.path("disk/copies")).unwrap().count(), 0);
    fs::remove_dir(server.path("disk/copies")).unwrap();
    fs::rename(server.path("away"), server.path("disk/copies")).unwrap();
    assert!(finding(&server, "backup").0);
    assert_eq!(server.panel("owner").post("/backups", &[]).status, 303);
}

#[test]
fn an_empty_folder_is_not_marked_where_backups_were_made_before_it_was_known() {
    let mut server = Server::prepare(&[("BACKUP__DIRECTORY", "copies")]);
    server.run();
    let root = server.path("");
    let kept = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "tar"))
            .count()
    };
    crate::support::eventually("the first backup in the audit log", || {
        let sql = "select count(*) from audit_log where deed = 'backups.make'";
        crate::scene::value::<i64>(&server, sql) == 1
    });
    assert_eq!(kept("copies"), 1);
    // As an earlier version left it, and the disk is away.
    server.stop();
    fs::remove_file(server.path("data/.backup-folder")).unwrap();
    fs::rename(server.path("copies"), server.path("away")).unwrap();
    fs::remove_file(server.path("away/.license-server-backups")).unwrap();
    for empty in [false, true] {
        if empty {
            fs::create_dir(server.path("copies")).unwrap();
        }
        let (ok, told) = finding(&server, "backup");
        assert!(!ok && told.contains("none of them is in copies"), "{told}");
    }
    server.run();
    crate::support::eventually("a word in the log", || {
        server.log().contains("none of them is in copies")
    });
    let mut panel = server.panel("owner");
    assert!(
        panel
            .get("/")
            .text
            .contains("The disk with the backup folder is missing")
    );
    let page = panel.get("/backups").text;
    assert!(
        page.contains("the backup folder contains none of them"),
        "{page}"
    );
    assert!(panel.post("/backups", &[]).status >= 400);
    assert_eq!(fs::read_dir(server.path("copies")).unwrap().count(), 0);
    // The operator's word that it is a new one; with the disk mounted none would be needed.
    fs::write(server.path("copies/.license-server-backups"), "").unwrap();
    assert_eq!(panel.post("/backups", &[]).status, 303);
    assert_eq!(kept("copies"), 1);
    assert!(finding(&server, "backup").0);
    fs::rename(server.path("copies"), server.path("new")).unwrap();
    assert!(
        finding(&server, "backup")
            .1
            .contains("not the folder that backups were put in before")
    );
}
