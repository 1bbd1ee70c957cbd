//! Backups in the panel, and scheduled backups.

use crate::database;
use crate::support::{Server, eventually};

#[test]
fn an_owner_makes_and_downloads_a_backup() {
    let mut server = Server::start();
    let key = server.issue_license(1);
    let mut panel = server.logged_in_browser("owner");
    assert!(panel.get("/backups").text.contains("No backup yet"));
    assert_eq!(panel.post("/backups", &[]).status, 303);
    let by_size = panel.get("/backups?order=size").text;
    assert!(by_size.contains("aria-sort=\"ascending\""), "{by_size}");
    assert_eq!(panel.get("/backups?order=name").status, 422);
    let page = panel.get("/backups").text;
    let name = page.split("/lizenzserver/backups/").nth(1).unwrap();
    let name = name.split('"').next().unwrap().to_owned();
    let copy = server.path("data/backups").join(&name);
    assert!(copy.exists(), "{page}");
    let download = panel.post(&format!("/backups/{name}"), &[]);
    assert_eq!(download.status, 200);
    let disposition = download.header("content-disposition").unwrap().to_owned();
    assert_eq!(disposition, format!("attachment; filename=\"{name}\""));
    assert!(download.text.starts_with("manifest.json"));
    for other in ["license-server.sqlite3", "..%2Flicense-server.sqlite3"] {
        let refused = panel.post(&format!("/backups/{other}"), &[]);
        assert!(
            !refused.text.contains("SQLite format") && refused.status >= 400,
            "{refused:?}"
        );
    }
    let log = panel.get("/audit?room=backups").text;
    assert!(log.contains("Backup created") && log.contains("Backup downloaded"));
    // The file contains all keys: without a recent re-authentication, the password is requested first.
    database::age_reauthentication(&server);
    let path = format!("/backups/{name}");
    for response in [panel.get(&path), panel.post(&path, &[])] {
        assert_eq!(response.status, 303, "{response:?}");
        let target = response.header("location").unwrap();
        assert!(target.starts_with("/lizenzserver/prove?"), "{target}");
    }
    // The backup can be restored.
    server.json(&["license", "suspend", &key]);
    server.stop();
    server.json(&["restore", copy.to_str().unwrap()]);
    let shown = server.json(&["license", "show", &key]);
    assert_eq!(shown["state"], "active");
}

#[test]
fn only_an_owner_sees_backups() {
    let server = Server::start();
    for role in ["admin", "support"] {
        let mut panel = server.logged_in_browser(role);
        assert_eq!(panel.get("/backups").status, 403);
        assert_eq!(panel.post("/backups", &[]).status, 403);
        assert!(
            !panel
                .get("/customers")
                .text
                .contains("/lizenzserver/backups")
        );
    }
    assert!(!server.path("data/backups").exists());
}

#[test]
fn with_a_backup_folder_the_server_makes_scheduled_backups() {
    let server = Server::start_with(&[("BACKUP__DIRECTORY", "copies")]);
    eventually("a backup", || {
        server.path("copies").exists()
            && std::fs::read_dir(server.path("copies"))
                .unwrap()
                .any(|entry| {
                    let path = entry.unwrap().path();
                    path.extension().is_some_and(|end| end == "tar")
                })
    });
    eventually("a line in the audit log", || {
        let mut panel = server.logged_in_browser("owner");
        panel
            .get("/audit?room=backups")
            .text
            .contains("Backup created")
    });
}

/// Creates a backup file that is old according to its name.
fn create_old_backup(server: &Server, folder: &str, day: u32) {
    std::fs::create_dir_all(server.path(folder)).unwrap();
    let name = format!("{folder}/license-server-202001{day:02}T000000Z.sqlite3");
    std::fs::write(server.path(&name), "as if").unwrap();
}

#[test]
fn check_and_panel_report_the_age_of_the_newest_backup() {
    let check_backup = |server: &Server| {
        let output = server.cli(&["--json", "check"]);
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = document["checks"].as_array().unwrap().clone();
        let backup = checks.into_iter().find(|check| check["name"] == "backup");
        let backup = backup.unwrap();
        let detail = backup["detail"].as_str().unwrap().to_owned();
        (backup["ok"].as_bool().unwrap(), detail)
    };
    let scheduled = Server::prepare(&[("BACKUP__DIRECTORY", "copies")]);
    let (ok, detail) = check_backup(&scheduled);
    assert!(!ok && detail.contains("none in copies"), "{detail}");
    create_old_backup(&scheduled, "copies", 1);
    let (ok, detail) = check_backup(&scheduled);
    assert!(
        !ok && detail.contains("made at 2020-01-01T00:00:00Z"),
        "{detail}"
    );
    // Without a schedule an old backup is only a warning in the panel, where a new one can be made.
    let by_hand = Server::start();
    create_old_backup(&by_hand, "data/backups", 1);
    let (ok, detail) = check_backup(&by_hand);
    assert!(
        ok && detail.contains("made at 2020-01-01T00:00:00Z"),
        "{detail}"
    );
    let mut panel = by_hand.logged_in_browser("owner");
    let old = "The newest backup is older than it should be";
    assert!(panel.get("/backups").text.contains(old));
    assert_eq!(panel.post("/backups", &[]).status, 303);
    assert!(!panel.get("/backups").text.contains(old));
}

#[test]
fn scheduled_backups_delete_the_oldest_ones() {
    let settings = [("BACKUP__DIRECTORY", "copies"), ("BACKUP__KEEP", "2")];
    let mut server = Server::prepare(&settings);
    (1..=3).for_each(|day| create_old_backup(&server, "copies", day));
    std::fs::write(server.path("copies/mine.txt"), "not a backup").unwrap();
    server.run();
    let names = || {
        let entries = std::fs::read_dir(server.path("copies")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let paths = paths.filter(|path| path.extension().is_none_or(|end| end != "part"));
        let names = paths.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
        let names = names.filter(|name| !name.starts_with('.'));
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    };
    eventually("two backups and the other file are left", || {
        names().len() == 3
    });
    let [kept, new, mine] = &names()[..] else {
        panic!("{:?}", names());
    };
    assert_eq!(kept, "license-server-20200103T000000Z.sqlite3");
    assert_eq!(mine, "mine.txt");
    let copy = server.path("copies").join(new);
    assert_eq!(server.stop(), Some(0));
    server.json(&["restore", copy.to_str().unwrap()]);
}
