//! What stands where the database should be, and who else can get at what is beside it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use rusqlite::Connection;

use crate::support::{Server, claim, files_below};

/// What a command says that fails.
fn refused(server: &Server, order: &[&str]) -> String {
    let output = server.cli(order);
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{order:?}: {output:?}"
    );
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

const ORDERS: &[&[&str]] = &[
    &["serve"],
    &["customer", "add", "Eve"],
    &["license", "list"],
    &["backup", "copy"],
    &["restore", "good"],
    &["check"],
];

#[test]
fn anything_but_a_database_of_ours_in_its_place_is_refused_before_anything_is_made_beside_it() {
    let mut server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    server.json(&["backup", "good"]);
    fs::create_dir_all(server.path("place/folder")).unwrap();
    fs::write(server.path("place/letter.txt"), "Dear Ada,").unwrap();
    let foreign = Connection::open(server.path("place/foreign.sqlite3")).unwrap();
    foreign.execute_batch("create table x (y)").unwrap();
    drop(foreign);
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
        for order in ORDERS {
            let told = refused(&server, order);
            assert!(told.contains(word), "{name} {order:?}: {told}");
            assert_eq!(modes(), before, "{name} {order:?}");
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
fn a_hard_link_of_the_database_lets_no_second_server_on_and_no_command() {
    let mut server = Server::start();
    let key = server.license(1);
    fs::create_dir(server.path("other")).unwrap();
    fs::set_permissions(server.path("other"), PermissionsExt::from_mode(0o700)).unwrap();
    let link = server.path("other/link.sqlite3");
    fs::hard_link(server.database(), &link).unwrap();
    for order in ORDERS.iter().filter(|order| order[0] != "restore") {
        let mut command = server.command(order);
        command.env("LICENSE_SERVER_DATABASE__PATH", "other/link.sqlite3");
        command.env("LICENSE_SERVER_SERVER__PORT", "1");
        let output = command.output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(
            !output.status.success() && told.contains("2 names"),
            "{order:?}: {told}"
        );
        assert_eq!(
            fs::read_dir(server.path("other")).unwrap().count(),
            1,
            "{order:?}"
        );
    }
    // The server that runs is not disturbed by it.
    assert_eq!(server.call("activate", &claim(&key, "laptop")).status, 201);
    fs::remove_file(link).unwrap();
    server.restart();
}

/// As a restore leaves it that breaks off between two of its steps.
#[test]
fn a_second_name_that_a_restore_left_is_no_other_database() {
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
fn what_others_may_read_or_write_is_told_by_check_and_closed_by_the_next_start() {
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
        let told = refused(&server, &["check"]);
        let line = told
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
fn a_link_in_the_place_of_a_key_stops_the_start_and_nothing_is_written_through_it() {
    let mut server = Server::start();
    assert_eq!(server.stop(), Some(0));
    let (signing, away) = (server.path("data/signing"), server.path("away"));
    fs::rename(&signing, &away).unwrap();
    symlink(&away, &signing).unwrap();
    let before = files_below(&away);
    for order in [
        &["serve"][..],
        &["config", "rotate-signing-key"],
        &["check"],
    ] {
        let told = refused(&server, order);
        assert!(told.contains("signing is a link"), "{order:?}: {told}");
    }
    assert_eq!(files_below(&away), before);
    fs::remove_file(&signing).unwrap();
    fs::rename(&away, &signing).unwrap();
    server.run();
}

#[test]
fn beside_other_things_the_database_is_closed_and_nothing_else() {
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
    let told = String::from_utf8(checked.stdout).unwrap();
    assert!(told.contains("ok    file "), "{told}");
    // But in a folder that others may write in, they could put another database in its place.
    assert_eq!(server.stop(), Some(0));
    fs::set_permissions(&place, PermissionsExt::from_mode(0o775)).unwrap();
    for order in [&["serve"][..], &["license", "list"], &["check"]] {
        let told = refused(&server, order);
        assert!(told.contains("chmod g-w place"), "{order:?}: {told}");
    }
}
