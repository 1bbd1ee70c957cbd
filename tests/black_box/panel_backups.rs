//! Backups in the panel, and those that the server makes by itself.

use crate::support::{Server, eventually};

#[test]
fn an_owner_makes_a_backup_and_takes_it_away() {
    let mut server = Server::start();
    let key = server.license(1);
    let mut panel = server.panel("owner");
    assert!(panel.get("/backups").text.contains("No backup yet"));
    assert_eq!(panel.post("/backups", &[]).status, 303);
    let page = panel.get("/backups").text;
    let name = page.split("/lizenzserver/backups/").nth(1).unwrap();
    let name = name.split('"').next().unwrap().to_owned();
    let copy = server.path("data/backups").join(&name);
    assert!(copy.exists(), "{page}");
    let taken = panel.post(&format!("/backups/{name}"), &[]);
    assert_eq!(taken.status, 200);
    let told = taken.header("content-disposition").unwrap().to_owned();
    assert_eq!(told, format!("attachment; filename=\"{name}\""));
    assert!(taken.text.starts_with("SQLite format 3"));
    for other in ["license-server.sqlite3", "..%2Flicense-server.sqlite3"] {
        let refused = panel.post(&format!("/backups/{other}"), &[]);
        assert!(
            !refused.text.contains("SQLite") && refused.status >= 400,
            "{refused:?}"
        );
    }
    let log = panel.get("/audit?room=backups").text;
    assert!(log.contains("Backup made") && log.contains("Backup downloaded"));
    // It is a whole one.
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
        let mut panel = server.panel(role);
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
fn with_a_folder_the_server_backs_up_by_itself() {
    let server = Server::start_with(&[("BACKUP__DIRECTORY", "copies")]);
    eventually("a backup", || {
        server.path("copies").exists()
            && std::fs::read_dir(server.path("copies"))
                .unwrap()
                .any(|entry| {
                    let name = entry.unwrap().file_name().into_string().unwrap();
                    name.ends_with(".sqlite3")
                })
    });
    eventually("a line in the audit log", || {
        let mut panel = server.panel("owner");
        panel
            .get("/audit?room=backups")
            .text
            .contains("Backup made")
    });
}
