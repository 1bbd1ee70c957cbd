//! A disk of its own for a server: small, soon full, and without power when a test says so.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::support::Server;
use crate::{not_here, skipped};

const TOOLS: [&str; 3] = ["mkfs.ext4", "mount", "python3"];

/// What ends a file system at once, without writing anything more: `EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`.
const CUT: &str = "import fcntl, os, struct, sys\n\
                   disk = os.open(sys.argv[1], os.O_RDONLY)\n\
                   print('ready', flush=True)\n\
                   sys.stdin.readline()\n\
                   fcntl.ioctl(disk, 0x8004587D, struct.pack('I', 2))";

/// An ext4 in a file, mounted where a server has its data; gone when this goes.
pub(crate) struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// One of so many MiB. None where this machine mounts nothing for us, which is said aloud.
    pub(crate) fn of(server: &Server, mib: u64) -> Option<Self> {
        let disk = Self {
            image: server.path("disk.img"),
            at: server.path("data"),
        };
        std::fs::create_dir_all(&disk.at).unwrap();
        File::create(&disk.image)
            .and_then(|file| file.set_len(mib * 1024 * 1024))
            .unwrap();
        if let Some(tool) = TOOLS.iter().find(|tool| absent(tool)) {
            skipped(tool);
            return None;
        }
        // No room for root alone: root runs these tests, and the disk must be full for it too.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(&disk.image));
        if let Err(reason) = disk.mount() {
            not_here(&format!("no file system can be mounted: {reason}"));
            return None;
        }
        std::fs::set_permissions(&disk.at, PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::remove_dir(disk.at.join("lost+found")).unwrap();
        Some(disk)
    }

    fn mount(&self) -> Result<(), String> {
        let mut command = Command::new("mount");
        command.args(["-o", "loop"]).arg(&self.image).arg(&self.at);
        match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The power goes: what the disk does not have now it will never have.
    pub(crate) fn cut(&self) {
        self.fuse().blow();
    }

    /// What cuts the power without any delay.
    pub(crate) fn fuse(&self) -> Fuse {
        let mut python = Command::new("python3");
        let python = python.args(["-c", CUT]).arg(&self.at);
        let python = python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut ready = String::new();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        told.read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready");
        Fuse(child)
    }

    /// The power is back, and the machine mounts its disk; nobody may have it open.
    pub(crate) fn back(&self) {
        run(Command::new("umount").arg(&self.at));
        self.mount().unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        for size in [65_536, 4096, 512, 1] {
            let block = vec![0; size];
            while ballast.write_all(&block).is_ok() {}
        }
        // What is left to be placed is placed now: a full disk stays full.
        drop(ballast.sync_all());
    }

    /// Mounts it anew for writing, or for reading only; nobody may have a file open for writing.
    pub(crate) fn takes_writes(&self, yes: bool) {
        let how = if yes { "remount,rw" } else { "remount,ro" };
        run(Command::new("mount").args(["-o", how]).arg(&self.at));
    }

    /// Gives the room back.
    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

/// Cuts the power of a disk when it blows.
pub(crate) struct Fuse(Child);

impl Fuse {
    pub(crate) fn blow(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy: whoever still has it open, a server in a test that failed, keeps it to the end.
        drop(Command::new("umount").arg("-l").arg(&self.at).output());
    }
}

fn absent(tool: &str) -> bool {
    Command::new(tool).arg("-V").output().is_err()
}

fn run(command: &mut Command) {
    let Output { status, stderr, .. } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {told}");
}
