//! The folder of scheduled backups when its disk is not mounted.

use std::fs;

use crate::backups::archives::check_line;
use crate::database;
use crate::support::Server;

#[test]
fn a_backup_folder_on_an_unmounted_disk_is_not_created_and_log_check_and_panel_report_it() {
    let settings = [("BACKUP__DIRECTORY", "disk/copies")];
    let mut server = Server::prepare(&settings);
    server.run();
    // The parent folder is missing: nothing is created on the system disk.
    crate::support::eventually("a line in the log", || {
        server.log().contains("mount its disk, or make the folder")
    });
    let (ok, message) = check_line(&server, "backup");
    assert!(
        !ok && message.contains("does not exist, nor does its parent"),
        "{message}"
    );
    let mut panel = server.logged_in_browser("owner");
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
    assert!(check_line(&server, "backup").0);
    fs::rename(server.path("disk/copies"), server.path("away")).unwrap();
    for empty in [false, true] {
        if empty {
            fs::create_dir(server.path("disk/copies")).unwrap();
        }
        let (ok, message) = check_line(&server, "backup");
        assert!(!ok && message.contains("mount its disk"), "{message}");
        let mut panel = server.logged_in_browser("owner");
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
    assert!(check_line(&server, "backup").0);
    assert_eq!(
        server
            .logged_in_browser("owner")
            .post("/backups", &[])
            .status,
        303
    );
}

#[test]
fn an_empty_folder_is_not_used_if_an_earlier_version_made_backups_before() {
    let mut server = Server::prepare(&[("BACKUP__DIRECTORY", "copies")]);
    server.run();
    let root = server.path("");
    let archives = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.extension().is_some_and(|end| end == "tar"))
            .count()
    };
    crate::support::eventually("the first backup in the audit log", || {
        database::audited(&server, "backups.make").len() == 1
    });
    assert_eq!(archives("copies"), 1);
    // The state that an earlier version leaves, with the disk unmounted.
    server.stop();
    fs::remove_file(server.path("data/.backup-folder")).unwrap();
    fs::rename(server.path("copies"), server.path("away")).unwrap();
    fs::remove_file(server.path("away/.license-server-backups")).unwrap();
    for empty in [false, true] {
        if empty {
            fs::create_dir(server.path("copies")).unwrap();
        }
        let (ok, message) = check_line(&server, "backup");
        assert!(
            !ok && message.contains("none of them is in copies"),
            "{message}"
        );
    }
    server.run();
    crate::support::eventually("a line in the log", || {
        server.log().contains("none of them is in copies")
    });
    let mut panel = server.logged_in_browser("owner");
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
    // The operator confirms with an empty mark that the folder is new. With the disk mounted that is not needed.
    fs::write(server.path("copies/.license-server-backups"), "").unwrap();
    assert_eq!(panel.post("/backups", &[]).status, 303);
    assert_eq!(archives("copies"), 1);
    assert!(check_line(&server, "backup").0);
    fs::rename(server.path("copies"), server.path("new")).unwrap();
    assert!(
        check_line(&server, "backup")
            .1
            .contains("not the folder that backups were put in before")
    );
}
