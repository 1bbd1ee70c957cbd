//! Commands by root on a server that runs as its own user: whatever they make belongs to that user (D7).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::commands::{STORY, words};
use crate::scene::running;
use crate::support::{Server, claim, files_below, is_there};

/// A user that exists nowhere else.
const USER: u32 = 12345;
const AS_USER: &[&str] = &[
    "setpriv",
    "--reuid=12345",
    "--regid=12345",
    "--clear-groups",
];

/// A folder in which the data belongs to the user; none where this test cannot become somebody else.
#[expect(clippy::print_stderr, reason = "a test that was not run is to be seen")]
fn prepared(data_is_there: bool) -> Option<Server> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run commands as root");
        return None;
    }
    if !is_there("setpriv") {
        return None;
    }
    let server = Server::prepare(&[("BACKUP__PASSPHRASE_FILE", "passphrase")]);
    let folder = server.path("");
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(server.path("passphrase"), "an open secret\n").unwrap();
    if data_is_there {
        fs::create_dir(server.path("data")).unwrap();
        fs::set_permissions(server.path("data"), PermissionsExt::from_mode(0o700)).unwrap();
        chown(server.path("data"), Some(USER), Some(USER)).unwrap();
    } else {
        chown(&folder, Some(USER), Some(USER)).unwrap();
    }
    Some(server)
}

/// Everything in the data folder is the user's, and nobody else's.
fn all_belongs_to_the_user(server: &Server, after: &str) {
    for path in files_below(&server.path("data")) {
        // A file that is gone by now belongs to the running server.
        let Ok(data) = path.symlink_metadata() else {
            continue;
        };
        let found = (data.uid(), data.gid(), data.mode() & 0o077);
        assert_eq!(found, (USER, USER, 0), "{} after {after}", path.display());
    }
}

#[test]
fn whatever_root_does_belongs_to_whom_the_data_folder_belongs() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    // The first of all commands, when there is nothing yet.
    server.json(&["customer", "add", "First"]);
    all_belongs_to_the_user(&server, "the first command");
    server.launch_by(AS_USER);
    server.run();
    server.launch_by(&[]);
    let issued = server.json(&["license", "issue", "--customer", "First", "--devices", "2"]);
    let key = issued["licenses"][0]["license_key"].as_str().unwrap();
    server.client().session(key, "laptop");
    let id = running(&server)[0]["id"].to_string();
    for line in STORY.lines() {
        let command = line.split(" | ").next().unwrap();
        let words = words(command, "1", key, &id);
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = server.cli(&arguments);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {told}");
        all_belongs_to_the_user(&server, command);
    }
    // Outside the data folder root has what it asked for, where its user may write nothing.
    assert_eq!(fs::metadata(server.path("copy-1.tar")).unwrap().uid(), 0);
    server.json(&["backup", "data/inside.tar"]);
    all_belongs_to_the_user(&server, "a backup in the data folder");
    assert_eq!(server.stop(), Some(0));
    for order in [
        &["restore", "copy-1.tar"][..],
        &["restore", "copy-1.sqlite3"],
        &["config", "rotate-signing-key"],
        &["config", "new-authority", "--replace"],
        &["check", "--accept-clock"],
    ] {
        server.cli(order);
        all_belongs_to_the_user(&server, order[1]);
    }
    server.launch_by(AS_USER);
    server.run();
    let checked = server.json(&["check"]);
    assert_eq!(checked["ok"], true, "{checked}");
    let told = server.call("activate", &claim(key, "other"));
    assert_eq!(told.status, 403, "revoked in the story: {told:?}");
}

#[test]
fn before_the_first_start_the_folder_above_says_whose_the_data_will_be() {
    let Some(mut server) = prepared(false) else {
        return;
    };
    server.json(&["customer", "add", "First"]);
    all_belongs_to_the_user(&server, "the first command");
    server.launch_by(AS_USER);
    server.run();
    all_belongs_to_the_user(&server, "the start");
}

#[test]
fn a_server_that_root_starts_becomes_the_user_of_its_data() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    server.run();
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let uids = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    assert_eq!(uids, "Uid:\t12345\t12345\t12345\t12345");
    // Of root's rights it keeps that to low ports, and no other.
    let rights = status.lines().find(|line| line.starts_with("CapEff:"));
    assert_eq!(rights, Some("CapEff:\t0000000000000400"));
    let key = server.license(1);
    server.client().session(&key, "laptop");
    all_belongs_to_the_user(&server, "serving");
}

#[test]
fn root_puts_back_what_only_root_may_read() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    server.launch_by(AS_USER);
    server.run();
    server.launch_by(&[]);
    let key = server.license(1);
    fs::create_dir(server.path("vault")).unwrap();
    fs::set_permissions(server.path("vault"), PermissionsExt::from_mode(0o700)).unwrap();
    server.json(&["backup", "vault/copy.tar.age"]);
    server.json(&["backup", "vault/copy.sqlite3", "--database-only"]);
    server.json(&["license", "suspend", &key]);
    assert_eq!(server.stop(), Some(0));
    for copy in ["vault/copy.tar.age", "vault/copy.sqlite3"] {
        let data = fs::metadata(server.path(copy)).unwrap();
        assert_eq!((data.uid(), data.mode() & 0o777), (0, 0o600), "{copy}");
        server.json(&["restore", copy]);
        all_belongs_to_the_user(&server, copy);
        let shown = server.json(&["license", "show", &key]);
        assert_eq!(shown["state"], "active", "{copy}");
    }
    server.launch_by(AS_USER);
    server.run();
}

#[test]
fn a_link_that_the_user_has_put_in_the_way_leads_root_nowhere() {
    let Some(server) = prepared(true) else {
        return;
    };
    server.json(&["customer", "add", "First"]);
    let precious = server.path("precious");
    fs::write(&precious, "root's own").unwrap();
    let untouched = |after: &str| {
        let data = fs::metadata(&precious).unwrap();
        assert_eq!(data.uid(), 0, "{after}");
        assert_eq!(fs::read(&precious).unwrap(), b"root's own", "{after}");
    };
    let database = server.database();
    let beside = |end: &str| format!("{}{end}", database.display());
    for (end, order) in [
        (".lock", &["config", "new-authority"][..]),
        (".users", &["customer", "list"]),
        (".restored", &["restore", "copy"]),
    ] {
        drop(fs::remove_file(server.path("copy")));
        server.cli(&["backup", "copy"]);
        drop(fs::remove_file(beside(end)));
        symlink(&precious, beside(end)).unwrap();
        server.cli(order);
        untouched(end);
        drop(fs::remove_file(beside(end)));
    }
    symlink(&precious, server.path("data/copy.part")).unwrap();
    server.cli(&["backup", "data/copy"]);
    untouched("a backup");
}

/// What a command says that fails.
fn told(server: &Server, order: &[&str]) -> String {
    let output = server.cli(order);
    assert_eq!(output.status.code(), Some(1), "{order:?}: {output:?}");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_file_that_may_not_be_read_is_told_as_that() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    server.launch_by(AS_USER);
    server.run();
    assert_eq!(server.stop(), Some(0));
    // Files that a command of an earlier version has left to root.
    let signing = files_below(&server.path("data/signing"));
    let key = signing.iter().find(|path| path.is_file()).unwrap();
    for file in [&server.database(), &server.path("data/tls/ca.key"), key] {
        chown(file, Some(0), Some(0)).unwrap();
        for order in [&["serve"][..], &["customer", "list"], &["check"]] {
            let told = told(&server, order);
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(told.contains(name), "{order:?}: {told}");
            assert!(
                told.contains("belongs to root (uid 0)"),
                "{order:?}: {told}"
            );
            assert!(told.contains("chown 12345"), "{order:?}: {told}");
        }
        chown(file, Some(USER), Some(USER)).unwrap();
    }
    // A third one, who is neither root nor the user.
    server.launch_by(&[
        "setpriv",
        "--reuid=12346",
        "--regid=12346",
        "--clear-groups",
    ]);
    for order in [&["serve"][..], &["license", "list"], &["check"]] {
        let told = told(&server, order);
        assert!(
            told.contains("sudo -u '#12345' license-server"),
            "{order:?}: {told}"
        );
    }
    assert!(Path::new(&server.database()).exists());
}
