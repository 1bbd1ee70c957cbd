//! The image of the Containerfile: its files are made by the line of the Containerfile itself, and run as an engine would
//! run them, in a root folder of their own without any privilege.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::layout::{run, top};
use crate::support::{eventually, free_port, is_installed};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_license-server");
const ROOT_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Mounts what an engine mounts into a container, and runs a program in it. The shell waits for it: only the shell ends
/// with `unshare`, and everything in the namespace ends with the shell.
const ENTER: &str = "mount --make-rprivate / && mount -t proc proc \"$1/proc\" && mount --rbind /dev \"$1/dev\" && \
                     user=$2 && root=$1 && shift 2 && chroot --userspec=\"$user\" \"$root\" \"$@\"; exit";
/// What an engine makes for its mounts.
const MOUNT_POINTS: [&str; 2] = ["proc", "dev"];

/// What follows `instruction` in the last stage or, where that has none, in an earlier one.
fn instruction<'a>(file: &'a str, instruction: &str) -> &'a str {
    let lines = file.lines();
    let mut found = lines.filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
    found
        .next_back()
        .unwrap_or_else(|| panic!("no {instruction}"))
}

/// The words of `["a", "b"]`.
fn words(list: &str) -> Vec<String> {
    serde_json::from_str(list).unwrap()
}

struct Container<'a> {
    image: &'a Path,
    containerfile: &'a str,
    port: u16,
}

impl Container<'_> {
    fn start(&self, program: &[String]) -> Child {
        let variables = instruction(self.containerfile, "ENV").split(' ');
        let variables = variables.map(|variable| variable.split_once('=').unwrap());
        Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                ENTER,
                "sh",
            ])
            .arg(self.image)
            .arg(instruction(self.containerfile, "USER"))
            .args(program)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .envs(variables)
            .env("LICENSE_SERVER_SERVER__PORT", self.port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn is_healthy(&self) -> bool {
        let check = instruction(self.containerfile, "HEALTHCHECK CMD");
        self.start(&words(check)).wait().unwrap().success()
    }
}

#[test]
fn the_image_runs_without_any_other_file_and_as_a_user_without_privileges() {
    if !rustix::process::geteuid().is_root() || !Path::new(ROOT_CERTIFICATES).exists() {
        eprintln!("SKIPPED, the image was not run: only root can, with {ROOT_CERTIFICATES}");
        return;
    }
    if !["unshare", "ldd", "strip"].into_iter().all(is_installed) {
        return;
    }
    let containerfile = fs::read_to_string(top().join("packaging/Containerfile")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    fs::create_dir_all(image.join("usr/bin")).unwrap();
    let executable = image.join("usr/bin/license-server");
    run(Command::new("strip")
        .arg("-o")
        .arg(&executable)
        .arg(EXECUTABLE));
    let line = instruction(&containerfile, "RUN").replace("/image", image.to_str().unwrap());
    run(Command::new("sh").args(["-c", &line]));
    for mount_point in MOUNT_POINTS {
        fs::create_dir(image.join(mount_point)).unwrap();
    }
    let container = Container {
        image: &image,
        containerfile: &containerfile,
        port: free_port(),
    };
    assert!(!container.is_healthy(), "nothing runs yet");
    let mut program = words(instruction(&containerfile, "ENTRYPOINT"));
    program.extend(words(instruction(&containerfile, "CMD")));
    let mut server = container.start(&program);
    eventually("the container is healthy", || container.is_healthy());
    assert!(image.join("data/license-server.sqlite3").exists());
    server.kill().unwrap();
    server.wait().unwrap();
}
