//! What killed backups, restores and migrations leave behind holds the whole database, and no erasure reaches it.

use std::fs;

use crate::support::Server;

#[test]
fn a_start_deletes_what_killed_processes_left_and_nothing_else() {
    let mut server = Server::prepare(&[]);
    server.json(&["customer", "add", "Ada"]);
    let data = server.path("data");
    let left = [
        "license-server.sqlite3.restored",
        "license-server.sqlite3.restored-wal",
        "license-server.sqlite3.restored.part",
        "license-server.sqlite3.before-v9.part",
        ".license-server-copy-Ab3dEf",
        ".restore-Ab3dEf/license-server.sqlite3",
    ];
    let kept = [
        "license-server.sqlite3.before-v9",
        "license-server.sqlite3.before-restore-20260101T000000Z",
        "license-server.sqlite3.restored-by-hand",
        "notes.part",
    ];
    fs::create_dir(data.join(".restore-Ab3dEf")).unwrap();
    for name in left.iter().chain(&kept) {
        fs::write(data.join(name), "Ada").unwrap();
    }
    server.run();
    for name in left {
        assert!(!data.join(name).exists(), "{name}");
    }
    assert!(!data.join(".restore-Ab3dEf").exists());
    for name in kept {
        assert!(data.join(name).exists(), "{name}");
    }
    assert_eq!(
        server.json(&["customer", "list"])["customers"][0]["name"],
        "Ada"
    );
}
