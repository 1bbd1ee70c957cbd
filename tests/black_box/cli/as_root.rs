//! Commands that root runs while the data folder belongs to another user: files that they create belong to that user
//! (D7).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::cli::commands::{COMMANDS, words};
use crate::inspect::running;
use crate::support::{Server, files_below, identity, is_installed};

/// An id that no user of the machine has.
const USER: u32 = 12345;
const AS_USER: &[&str] = &[
    "setpriv",
    "--reuid=12345",
    "--regid=12345",
    "--clear-groups",
];

/// Commands that are not in [`COMMANDS`].
const OTHER_COMMANDS: [&str; 6] = [
    "product add Ledger",
    "plan add small --name Small --product ledger",
    "customer export 1 --output data/customer.json",
    "customer erase 1 --yes",
    "vacuum",
    "reindex",
];

/// A server whose data folder belongs to the user; without `data_exists`, its parent does, and there is no data folder.
/// `None` if this test cannot switch users.
#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
fn prepared(data_exists: bool) -> Option<Server> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can run commands as root");
        return None;
    }
    if !is_installed("setpriv") {
        return None;
    }
    let server = Server::prepare(&[("BACKUP__PASSPHRASE_FILE", "passphrase")]);
    let folder = server.path("");
    fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(server.path("passphrase"), "an open secret\n").unwrap();
    if data_exists {
        fs::create_dir(server.path("data")).unwrap();
        fs::set_permissions(server.path("data"), PermissionsExt::from_mode(0o700)).unwrap();
        chown(server.path("data"), Some(USER), Some(USER)).unwrap();
    } else {
        chown(&folder, Some(USER), Some(USER)).unwrap();
    }
    Some(server)
}

/// Asserts that all files in the data folder belong to the user and are not accessible to others.
fn assert_all_belongs_to_the_user(server: &Server, after: &str) {
    for path in files_below(&server.path("data")) {
        // The running server has deleted this file meanwhile.
        let Ok(data) = path.symlink_metadata() else {
            continue;
        };
        let found = (data.uid(), data.gid(), data.mode() & 0o077);
        assert_eq!(found, (USER, USER, 0), "{} after {after}", path.display());
    }
}

#[test]
fn files_that_commands_of_root_create_belong_to_the_owner_of_the_data_folder() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    // The first command of all, on an empty data folder.
    server.json(&["customer", "add", "First"]);
    assert_all_belongs_to_the_user(&server, "the first command");
    server.set_launcher(AS_USER);
    server.run();
    server.set_launcher(&[]);
    let issued = server.json(&["license", "issue", "--customer", "First", "--devices", "2"]);
    let key = issued["licenses"][0]["license_key"].as_str().unwrap();
    server.client().session(key, "laptop");
    let id = running(&server)[0]["id"].to_string();
    for line in COMMANDS.lines() {
        let command = line.split(" | ").next().unwrap();
        let words = words(command, "1", key, &id);
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = server.cli(&arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {message}");
        assert_all_belongs_to_the_user(&server, command);
    }
    for command in OTHER_COMMANDS {
        let arguments: Vec<&str> = command.split(' ').collect();
        server.json(&arguments);
        assert_all_belongs_to_the_user(&server, command);
    }
    // A backup outside the data folder belongs to root: the user may not write there.
    assert_eq!(fs::metadata(server.path("copy-1.tar")).unwrap().uid(), 0);
    server.json(&["backup", "data/inside.tar"]);
    assert_all_belongs_to_the_user(&server, "a backup in the data folder");
    assert_eq!(server.stop(), Some(0));
    for arguments in [
        &["restore", "copy-1.tar"][..],
        &["restore", "copy-1.sqlite3"],
        &["config", "rotate-signing-key"],
        &["config", "new-authority", "--replace"],
        &["check", "--accept-clock"],
    ] {
        server.cli(arguments);
        assert_all_belongs_to_the_user(&server, arguments[1]);
    }
    server.set_launcher(AS_USER);
    server.run();
    let checked = server.json(&["check"]);
    assert_eq!(checked["ok"], true, "{checked}");
    let response = server.call("activate", &identity(key, "other"));
    assert_eq!(
        response.status, 403,
        "revoked by a command above: {response:?}"
    );
}

#[test]
fn before_the_first_start_the_owner_of_the_parent_folder_becomes_the_owner_of_the_data() {
    let Some(mut server) = prepared(false) else {
        return;
    };
    server.json(&["customer", "add", "First"]);
    assert_all_belongs_to_the_user(&server, "the first command");
    server.set_launcher(AS_USER);
    server.run();
    assert_all_belongs_to_the_user(&server, "the start");
}

#[test]
fn a_server_that_root_starts_switches_to_the_owner_of_its_data() {
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
    // The only capability that it keeps is CAP_NET_BIND_SERVICE.
    let capabilities = status.lines().find(|line| line.starts_with("CapEff:"));
    assert_eq!(capabilities, Some("CapEff:\t0000000000000400"));
    let key = server.issue_license(1);
    server.client().session(&key, "laptop");
    assert_all_belongs_to_the_user(&server, "serving");
}

#[test]
fn root_restores_backups_that_only_root_may_read() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    server.set_launcher(AS_USER);
    server.run();
    server.set_launcher(&[]);
    let key = server.issue_license(1);
    fs::create_dir(server.path("vault")).unwrap();
    fs::set_permissions(server.path("vault"), PermissionsExt::from_mode(0o700)).unwrap();
    server.json(&["backup", "vault/copy.tar.age"]);
    server.json(&["backup", "vault/copy.sqlite3", "--database-only"]);
    // An export belongs to the owner of the data, who may not write there.
    let message = fails(
        &server,
        &["customer", "export", "1", "--output", "vault/1.json"],
    );
    assert!(message.contains("written by uid 12345"), "{message}");
    server.json(&["license", "suspend", &key]);
    assert_eq!(server.stop(), Some(0));
    for copy in ["vault/copy.tar.age", "vault/copy.sqlite3"] {
        let data = fs::metadata(server.path(copy)).unwrap();
        assert_eq!((data.uid(), data.mode() & 0o777), (0, 0o600), "{copy}");
        server.json(&["restore", copy]);
        assert_all_belongs_to_the_user(&server, copy);
        let shown = server.json(&["license", "show", &key]);
        assert_eq!(shown["state"], "active", "{copy}");
    }
    server.set_launcher(AS_USER);
    server.run();
}

#[test]
fn commands_of_root_do_not_follow_links_that_the_user_has_planted() {
    let Some(server) = prepared(true) else {
        return;
    };
    server.json(&["customer", "add", "First"]);
    let precious = server.path("precious");
    fs::write(&precious, "root's own").unwrap();
    let assert_untouched = |after: &str| {
        let data = fs::metadata(&precious).unwrap();
        assert_eq!(data.uid(), 0, "{after}");
        assert_eq!(fs::read(&precious).unwrap(), b"root's own", "{after}");
    };
    let database = server.database();
    let beside = |end: &str| format!("{}{end}", database.display());
    for (end, arguments) in [
        (".lock", &["config", "new-authority"][..]),
        (".users", &["customer", "list"]),
        (".restored", &["restore", "copy"]),
    ] {
        drop(fs::remove_file(server.path("copy")));
        server.cli(&["backup", "copy"]);
        drop(fs::remove_file(beside(end)));
        symlink(&precious, beside(end)).unwrap();
        server.cli(arguments);
        assert_untouched(end);
        drop(fs::remove_file(beside(end)));
    }
    symlink(&precious, server.path("data/copy.part")).unwrap();
    server.cli(&["backup", "data/copy"]);
    assert_untouched("a backup");
}

/// Runs a command that must fail with status 1, and returns its output.
fn fails(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_key_of_another_user_that_all_users_may_read_stops_the_start() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = certificate.self_signed(&key).unwrap().pem();
    for (name, text) in [("chain.pem", certificate), ("key.pem", key.serialize_pem())] {
        fs::write(server.path(name), text).unwrap();
        fs::set_permissions(server.path(name), PermissionsExt::from_mode(0o644)).unwrap();
    }
    for (key, value) in [
        ("TLS__MODE", "files"),
        ("TLS__CERTIFICATE", "chain.pem"),
        ("TLS__KEY", "key.pem"),
    ] {
        server.set(key, value);
    }
    server.set_launcher(AS_USER);
    for arguments in [["serve"], ["check"]] {
        let message = fails(&server, &arguments);
        assert!(
            message.contains("others may read the key"),
            "{arguments:?}: {message}"
        );
        assert!(
            message.contains("as root (uid 0), chmod 640"),
            "{arguments:?}: {message}"
        );
    }
    // Readable by the group of the server alone.
    fs::set_permissions(server.path("key.pem"), PermissionsExt::from_mode(0o640)).unwrap();
    chown(server.path("key.pem"), Some(0), Some(USER)).unwrap();
    server.run();
}

#[test]
fn a_file_that_may_not_be_read_is_reported_with_its_owner() {
    let Some(mut server) = prepared(true) else {
        return;
    };
    server.set_launcher(AS_USER);
    server.run();
    assert_eq!(server.stop(), Some(0));
    // An earlier version of a command may have left files that belong to root.
    let signing = files_below(&server.path("data/signing"));
    let key = signing.iter().find(|path| path.is_file()).unwrap();
    for file in [&server.database(), &server.path("data/tls/ca.key"), key] {
        chown(file, Some(0), Some(0)).unwrap();
        for arguments in [&["serve"][..], &["customer", "list"], &["check"]] {
            let message = fails(&server, arguments);
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(message.contains(name), "{arguments:?}: {message}");
            assert!(
                message.contains("belongs to root (uid 0)"),
                "{arguments:?}: {message}"
            );
            assert!(message.contains("chown 12345"), "{arguments:?}: {message}");
        }
        chown(file, Some(USER), Some(USER)).unwrap();
    }
    // A third user, who is neither root nor the owner.
    server.set_launcher(&[
        "setpriv",
        "--reuid=12346",
        "--regid=12346",
        "--clear-groups",
    ]);
    for arguments in [&["serve"][..], &["license", "list"], &["check"]] {
        let message = fails(&server, arguments);
        assert!(
            message.contains("sudo -u '#12345' license-server"),
            "{arguments:?}: {message}"
        );
    }
    assert!(Path::new(&server.database()).exists());
}
