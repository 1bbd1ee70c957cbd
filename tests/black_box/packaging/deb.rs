//! The Debian package, installed on a machine of its own: systemd boots in namespaces, on a copy of this machine's files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use license_server::config;

use super::layout::{installed_files, make_archive, make_packages, setting, top};
use crate::support::is_installed;

/// What `machine.sh` ends with if namespaces, mounts or control groups are not permitted.
const NOT_PERMITTED: i32 = 77;
/// The highest score of `systemd-analyze security` that is allowed, times ten.
const EXPOSURE_MAX: &str = "--threshold=20";

#[expect(clippy::print_stderr, reason = "a skipped test must be visible")]
fn skipped(reason: &str) {
    eprintln!("SKIPPED, the package was not installed: {reason}");
}

#[test]
fn the_package_is_installed_started_upgraded_removed_and_purged_without_losing_a_license() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can");
    }
    let tools = ["dpkg", "dpkg-deb", "strip", "unshare", "ip", "curl"];
    if !tools.into_iter().all(is_installed) || !is_installed("/lib/systemd/systemd") {
        return;
    }
    // On a disk: what a service writes in its namespace must be as durable as elsewhere.
    let folder = tempfile::tempdir().unwrap();
    make_packages(folder.path(), &["first", "second"]);
    make_archive(folder.path(), "license-server-linux.tar.gz");
    let tests = top().join("tests/black_box/packaging");
    let install = top().join("packaging/install.sh");
    for script in [tests.join("life.sh"), install] {
        let name = script.file_name().unwrap();
        fs::copy(&script, folder.path().join(name)).unwrap();
    }
    let output = Command::new(tests.join("machine.sh"))
        .arg("life.sh")
        .arg(folder.path())
        .output()
        .unwrap();
    if output.status.code() == Some(NOT_PERMITTED) {
        return skipped(&String::from_utf8_lossy(&output.stdout));
    }
    let log = fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    assert!(log.ends_with("== done\n"), "{output:?}\n{log}");
}

#[test]
fn the_service_has_few_privileges() {
    if !is_installed("systemd-analyze") {
        return;
    }
    let unit = top().join("packaging/license-server.service");
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", EXPOSURE_MAX])
        .arg(&unit)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn the_settings_of_the_package_are_valid_and_name_the_folders_of_the_service() {
    let file = top().join("packaging/license-server.toml");
    config::load(Some(&file)).unwrap();
    let unit = fs::read_to_string(top().join("packaging/license-server.service")).unwrap();
    let scripts = ["postinst", "postrm"].map(|script| {
        let path = top().join("packaging/debian").join(script);
        fs::read_to_string(path).unwrap()
    });
    let database = setting("database", "path");
    let state = Path::new(database.as_str().unwrap()).ancestors().nth(2);
    let state = state.unwrap().to_str().unwrap();
    let backups = setting("backup", "directory");
    assert!(unit.contains(&format!("WorkingDirectory={state}\n")));
    assert!(unit.contains(&format!("ReadWritePaths=-{}\n", backups.as_str().unwrap())));
    for script in scripts {
        assert!(script.contains(state) && script.contains(backups.as_str().unwrap()));
    }
    let files = installed_files();
    assert!(files.contains(&"etc/license-server.toml".into()));
    assert!(files.contains(&"usr/bin/license-server".into()));
}

#[test]
fn the_scripts_can_be_run_and_are_valid() {
    for script in [
        "packaging/debian/postinst",
        "packaging/debian/prerm",
        "packaging/debian/postrm",
        "packaging/check.sh",
        "packaging/generate.sh",
        "packaging/install.sh",
        "packaging/release.sh",
    ] {
        let path = top().join(script);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script}");
        let shell = if fs::read_to_string(&path).unwrap().contains("bash\n") {
            "bash"
        } else {
            "sh"
        };
        let output = Command::new(shell).arg("-n").arg(&path).output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
    }
}

#[test]
fn a_release_with_a_path_of_this_machine_or_a_newer_glibc_is_refused() {
    if !is_installed("readelf") {
        return;
    }
    let check = |glibc: &str, path: &Path| {
        Command::new(top().join("packaging/check.sh"))
            .args([env!("CARGO_BIN_EXE_license-server"), glibc])
            .arg(path)
            .output()
            .unwrap()
    };
    let accepted = check("99.0", Path::new("/no-such-folder"));
    assert!(accepted.status.success(), "{accepted:?}");
    // The debug information of these tests' executable names the folder of the sources, but nothing in it.
    let around = top().parent().unwrap();
    for (refused, reason) in [
        (check("99.0", around), "names the folder"),
        (check("2.0", Path::new("/no-such-folder")), "needs glibc"),
    ] {
        let message = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success());
        assert!(message.contains(reason), "{message}");
    }
}
