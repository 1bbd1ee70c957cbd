//! Database paths that are not databases, and permissions of the files beside the database.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::database;
use crate::support::{Server, files_below, identity};

/// Runs a command that must fail, and returns its output.
fn refused(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{arguments:?}: {output:?}"
    );
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

/// Commands that open the database.
const COMMANDS: &[&[&str]] = &[
    &["serve"],
    &["customer", "add", "Eve"],
    &["license", "list"],
    &["backup", "copy"],
    &["restore", "good"],
    &["check"],
];

#[test]
fn a_path_that_is_not_a_database_is_refused_before_a_file_is_created_beside_it() {
    let mut server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["backup", "good"]);
    fs::create_dir_all(server.path("place/folder")).unwrap();
    fs::write(server.path("place/letter.txt"), "Dear Ada,").unwrap();
    database::create_foreign(&server.path("place/foreign.sqlite3"));
    let _socket = UnixListener::bind(server.path("place/socket")).unwrap();
    let mut fifo = Command::new("mkfifo");
    assert!(
        fifo.arg(server.path("place/pipe"))
            .status()
            .unwrap()
            .success()
    );
    symlink("/dev/null", server.path("place/link")).unwrap();
    fs::set_permissions(server.path("place"), PermissionsExt::from_mode(0o755)).unwrap();
    let place = server.path("place");
    let modes = || {
        let files = files_below(&place).into_iter();
        let modes = files.map(|path| (path.symlink_metadata().unwrap().mode(), path));
        modes.collect::<Vec<_>>()
    };
    for name in ["letter.txt", "foreign.sqlite3"] {
        let open = PermissionsExt::from_mode(0o644);
        fs::set_permissions(server.path("place").join(name), open).unwrap();
    }
    let before = modes();
    for (name, word) in [
        ("place/folder", "is a folder"),
        ("place/letter.txt", "no database of license-server"),
        ("place/foreign.sqlite3", "no database of license-server"),
        ("place/socket", "is a socket"),
        ("place/pipe", "is a named pipe"),
        ("place/link", "is a device"),
        ("/dev/null", "is a device"),
    ] {
        server.set("DATABASE__PATH", name);
        for arguments in COMMANDS {
            let message = refused(&server, arguments);
            assert!(message.contains(word), "{name} {arguments:?}: {message}");
            assert_eq!(modes(), before, "{name} {arguments:?}");
        }
    }
    assert!(!server.path("copy").exists());
    assert_eq!(
        fs::read(server.path("place/letter.txt")).unwrap(),
        b"Dear Ada,"
    );
    assert!(
        fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert!(!std::path::Path::new("/dev/null.lock").exists());
}

#[test]
fn the_database_cannot_be_opened_by_a_hard_link() {
    let mut server = Server::start();
    let key = server.issue_license(1);
    fs::create_dir(server.path("other")).unwrap();
    fs::set_permissions(server.path("other"), PermissionsExt::from_mode(0o700)).unwrap();
    let link = server.path("other/link.sqlite3");
    fs::hard_link(server.database(), &link).unwrap();
    for arguments in COMMANDS
        .iter()
        .filter(|arguments| arguments[0] != "restore")
    {
        let mut command = server.command(arguments);
        command.env("LICENSE_SERVER_DATABASE__PATH", "other/link.sqlite3");
        command.env("LICENSE_SERVER_SERVER__PORT", "1");
        let output = command.output().unwrap();
        let message = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(
            !output.status.success() && message.contains("2 names"),
            "{arguments:?}: {message}"
        );
        assert_eq!(
            fs::read_dir(server.path("other")).unwrap().count(),
            1,
            "{arguments:?}"
        );
    }
    // The running server is not affected.
    assert_eq!(
        server.call("activate", &identity(&key, "laptop")).status,
        201
    );
    fs::remove_file(link).unwrap();
    server.restart();
}

/// The state after a restore that was killed between two steps.
#[test]
fn a_hard_link_that_an_interrupted_restore_left_is_removed() {
    let mut server = Server::start();
    server.stop();
    let kept = format!(
        "{}.before-restore-20261122T140531Z",
        server.database().display()
    );
    fs::hard_link(server.database(), &kept).unwrap();
    assert_eq!(
        server.json(&["license", "list"])["licenses"],
        serde_json::json!([])
    );
    server.run();
    assert_eq!(fs::metadata(server.database()).unwrap().nlink(), 1);
    assert!(!std::path::Path::new(&kept).exists());
}

#[test]
fn permissions_that_are_too_open_are_reported_by_check_and_repaired_by_the_next_start() {
    let mut server = Server::start();
    assert_eq!(server.stop(), Some(0));
    let signing = files_below(&server.path("data/signing"));
    let key = signing.iter().find(|path| path.is_file()).unwrap().clone();
    let open = [
        (server.path("data"), 0o755),
        (server.path("data/tls"), 0o777),
        (server.path("data/tls/ca.key"), 0o644),
        (server.path("data/tls/ca.pem"), 0o666),
        (key, 0o640),
        (server.database(), 0o604),
    ];
    for (path, mode) in &open {
        let before = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, PermissionsExt::from_mode(*mode)).unwrap();
        let message = refused(&server, &["check"]);
        let line = message
            .lines()
            .find(|line| line.starts_with("TODO  file"))
            .unwrap();
        assert!(
            line.contains(path.file_name().unwrap().to_str().unwrap()),
            "{line}"
        );
        assert!(line.contains("chmod"), "{line}");
        fs::set_permissions(path, before).unwrap();
    }
    for (path, mode) in &open {
        fs::set_permissions(path, PermissionsExt::from_mode(*mode)).unwrap();
    }
    server.run();
    for path in files_below(&server.path("data")) {
        let mode = path.symlink_metadata().unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{} has {mode:o}", path.display());
    }
    let log = server.log();
    assert!(
        log.contains("others had access to") && log.contains("ca.key"),
        "{log}"
    );
}

#[test]
fn a_link_in_place_of_the_signing_folder_stops_the_start_and_is_not_followed() {
    let mut server = Server::start();
    assert_eq!(server.stop(), Some(0));
    let (signing, away) = (server.path("data/signing"), server.path("away"));
    fs::rename(&signing, &away).unwrap();
    symlink(&away, &signing).unwrap();
    let before = files_below(&away);
    for arguments in [
        &["serve"][..],
        &["config", "rotate-signing-key"],
        &["check"],
    ] {
        let message = refused(&server, arguments);
        assert!(
            message.contains("signing is a link"),
            "{arguments:?}: {message}"
        );
    }
    assert_eq!(files_below(&away), before);
    fs::remove_file(&signing).unwrap();
    fs::rename(&away, &signing).unwrap();
    server.run();
}

#[test]
fn in_a_shared_folder_only_the_permissions_of_the_database_are_repaired() {
    let mut server = Server::prepare(&[]);
    let place = server.path("place");
    fs::create_dir_all(place.join("tls-notes")).unwrap();
    let others = [
        "place/signing-list.pdf",
        "place/tls-notes/a.txt",
        "place/shop.db.pdf",
        "place",
    ];
    for name in others {
        let path = server.path(name);
        if !path.is_dir() {
            fs::write(&path, "x").unwrap();
        }
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    symlink("/etc", place.join("tls-of-the-machine")).unwrap();
    server.set("DATABASE__PATH", "place/shop.db");
    server.run();
    assert_eq!(server.stop(), Some(0));
    let open = PermissionsExt::from_mode(0o664);
    fs::set_permissions(place.join("shop.db"), open).unwrap();
    server.run();
    let mode = |path: &std::path::Path| path.metadata().unwrap().mode() & 0o777;
    for name in others {
        assert_eq!(mode(&server.path(name)), 0o755, "{name}");
    }
    assert_eq!(mode(&place.join("shop.db")), 0o600);
    let checked = server.cli(&["check"]);
    let message = String::from_utf8(checked.stdout).unwrap();
    assert!(message.contains("ok    file "), "{message}");
    // But if others may write in the folder, they could replace the database.
    assert_eq!(server.stop(), Some(0));
    fs::set_permissions(&place, PermissionsExt::from_mode(0o775)).unwrap();
    for arguments in [&["serve"][..], &["license", "list"], &["check"]] {
        let message = refused(&server, arguments);
        assert!(
            message.contains("chmod g-w place"),
            "{arguments:?}: {message}"
        );
    }
}
