//! A disk for one server: small, quickly filled, and cut off from power on request.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use crate::support::Server;
use crate::{skipped, skipped_here};

const TOOLS: [&str; 3] = ["mkfs.ext4", "mount", "python3"];

/// Shuts a file system down at once, without writing anything more: `EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`.
const SHUTDOWN: &str = "import fcntl, os, struct, sys\n\
                   disk = os.open(sys.argv[1], os.O_RDONLY)\n\
                   print('ready', flush=True)\n\
                   sys.stdin.readline()\n\
                   fcntl.ioctl(disk, 0x8004587D, struct.pack('I', 2))";

/// An ext4 file system in a file, mounted as the data folder of a server; unmounted when dropped.
pub(crate) struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// Mounts a disk of `mib` MiB. `None` if this machine does not permit that, which is printed.
    pub(crate) fn of(server: &Server, mib: u64) -> Option<Self> {
        Self::at(server, server.path("disk.img"), mib)
    }

    fn at(server: &Server, image: PathBuf, mib: u64) -> Option<Self> {
        let disk = Self {
            image,
            at: server.path("data"),
        };
        std::fs::create_dir_all(&disk.at).unwrap();
        File::create(&disk.image)
            .and_then(|file| file.set_len(mib * 1024 * 1024))
            .unwrap();
        if let Some(tool) = TOOLS.iter().find(|tool| is_missing(tool)) {
            skipped(tool);
            return None;
        }
        // No blocks reserved for root: root runs these tests, and the disk must be full for root too.
        run(Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0", "-E", "lazy_journal_init=0"])
            .arg(&disk.image));
        if let Err(reason) = disk.mount() {
            skipped_here(&format!("no file system can be mounted: {reason}"));
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

    /// Cuts the power: data that is not on the disk yet is lost.
    pub(crate) fn cut_power(&self) {
        self.power_switch().cut();
    }

    /// Prepares a power cut, so that it happens without delay.
    pub(crate) fn power_switch(&self) -> PowerSwitch {
        let mut python = Command::new("python3");
        let python = python.args(["-c", SHUTDOWN]).arg(&self.at);
        let python = python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let mut ready = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut ready).unwrap();
        assert_eq!(ready.trim(), "ready");
        PowerSwitch(child)
    }

    /// Restores the power and mounts the disk; no process may have it open.
    pub(crate) fn restore_power(&self) {
        run(Command::new("umount").arg(&self.at));
        self.mount().unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Fills the disk completely.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        for size in [65_536, 4096, 512, 1] {
            let block = vec![0; size];
            while filler.write_all(&block).is_ok() {}
        }
        // Blocks with delayed allocation are allocated now: a full disk stays full.
        drop(filler.sync_all());
    }

    /// Remounts it writable or read-only; no process may have a file open for writing.
    pub(crate) fn set_writable(&self, writable: bool) {
        let how = if writable { "remount,rw" } else { "remount,ro" };
        run(Command::new("mount").args(["-o", how]).arg(&self.at));
    }

    /// Frees the space again.
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

/// An ext4 file system in a sparse file on a smaller file system. Once that is full, the loop device refuses every block
/// that was never written, and the kernel reports it at the next sync.
pub(crate) struct ThinDisk {
    pool: PathBuf,
    disk: Option<Disk>,
}

impl ThinDisk {
    /// Mounts a disk with `mib` MiB behind it. `None` if this machine does not permit that, which is printed.
    pub(crate) fn of(server: &Server, mib: u64) -> Option<Self> {
        let pool = server.path("pool");
        std::fs::create_dir_all(&pool).unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &size, "none"]).arg(&pool);
        match mount.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let reason = String::from_utf8_lossy(&output.stderr).into_owned();
                skipped_here(&format!("no file system can be mounted: {reason}"));
                return None;
            }
            Err(error) => {
                skipped(&format!("mount: {error}"));
                return None;
            }
        }
        let mut thin = Self { pool, disk: None };
        thin.disk = Some(Disk::at(server, thin.pool.join("disk.img"), 4 * mib)?);
        Some(thin)
    }

    /// Refuses from now on every block that was never written.
    pub(crate) fn refuse_new_blocks(&self) {
        let mut ballast = File::create(self.pool.join("ballast")).unwrap();
        for size in [65_536, 4096] {
            let block = vec![0; size];
            while ballast.write_all(&block).is_ok() {}
        }
    }

    /// Makes the kernel write what it holds back, as it does by itself after half a minute.
    pub(crate) fn write_back(&self) {
        let at = &self.disk.as_ref().unwrap().at;
        // It fails once the disk does; the server is to notice that by its own file.
        drop(Command::new("sync").arg("-f").arg(at).output());
    }

    /// Accepts everything again, and mounts the disk anew; no process may have it open.
    pub(crate) fn recover(&self) {
        std::fs::remove_file(self.pool.join("ballast")).unwrap();
        self.disk.as_ref().unwrap().restore_power();
    }
}

impl Drop for ThinDisk {
    fn drop(&mut self) {
        drop(self.disk.take());
        drop(Command::new("umount").arg("-l").arg(&self.pool).output());
    }
}

/// Cuts the power of a disk on request.
pub(crate) struct PowerSwitch(Child);

impl PowerSwitch {
    pub(crate) fn cut(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy: a server of a failed test may still have it open.
        drop(Command::new("umount").arg("-l").arg(&self.at).output());
    }
}

fn is_missing(tool: &str) -> bool {
    Command::new(tool).arg("-V").output().is_err()
}

fn run(command: &mut Command) {
    let Output { status, stderr, .. } = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let output = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {output}");
}
