//! That a server runs, told apart from its data folder: where that folder is moved, deleted or unmounted, the lock in
//! it is gone too. A server listens on a Unix socket in Linux's abstract namespace, whose name is made from the path of
//! its database: such a socket is no file, and ends with its process. A process that connects is told which files the
//! server has open.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use super::lock::Holder;
use super::place::{DatabaseFiles, Identity, Parts};
use crate::error::{Doing, Result};

/// How long a server is waited for that may be stopped or frozen.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest answer.
const ANSWER_MAX: u64 = 512;
/// Between two tries to take a name that a process which is about to end still has, and how many.
const AGAIN: Duration = Duration::from_millis(20);
const TRIES: u32 = 10;

/// Tells other processes that this one serves a database, until it is dropped.
#[derive(Debug)]
pub(super) struct Presence {
    stop: Arc<AtomicBool>,
    listeners: Vec<(Arc<UnixListener>, JoinHandle<()>)>,
}

impl Presence {
    /// For the database that the settings call `path`, opened at `place`. That it cannot be told is no reason not to
    /// serve: the lock tells it too, as long as the data folder is there.
    pub(super) fn tell(path: &Path, place: &Arc<DatabaseFiles>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut listeners = Vec::new();
        for name in names(&[path, place.path()]) {
            let begun = listen(&name).doing("tell commands that this server runs");
            match begun.and_then(|listener| begin(listener, place.clone(), stop.clone())) {
                Ok(listener) => listeners.push(listener),
                Err(error) => log::warn!(
                    "commands will not find this server if the data folder is moved or deleted: {error}"
                ),
            }
        }
        Self { stop, listeners }
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for (listener, thread) in self.listeners.drain(..) {
            // Ends the wait for the next caller.
            if let Err(error) = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both) {
                log::debug!("a listener for commands stays until the process ends: {error}");
            } else if thread.join().is_err() {
                log::error!("the thread that answers commands broke off");
            }
        }
    }
}

/// The server of the database that the settings call `path`, found without its data folder; none where no server
/// answers. One that is frozen is found too, but does not tell its files.
pub(super) fn find(path: &Path) -> Option<Holder> {
    names(&[path]).iter().find_map(ask)
}

/// The names by which a database at one of these paths is found: as the settings have it, and where that leads.
fn names(paths: &[&Path]) -> Vec<SocketAddr> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in paths {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| (*path).to_owned());
        for path in [led_to(&absolute), absolute] {
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    let named = found.iter().map(|path| name_of(path));
    named.filter_map(Result::ok).collect()
}

/// Where a path leads, as far as its folders are there.
fn led_to(path: &Path) -> PathBuf {
    for folder in path.ancestors() {
        if let (Ok(known), Ok(rest)) = (fs::canonicalize(folder), path.strip_prefix(folder)) {
            return if rest.as_os_str().is_empty() {
                known
            } else {
                known.join(rest)
            };
        }
    }
    path.to_owned()
}

/// Containers may share a network and use the same paths: the root folder and the process ids that a path is meant
/// for are in its name.
fn name_of(path: &Path) -> std::io::Result<SocketAddr> {
    let mut text = Vec::new();
    for scope in ["/", "/proc/self/ns/pid"] {
        let scope = fs::metadata(scope).map_or((0, 0), |data| (data.dev(), data.ino()));
        text.extend(format!("{}:{} ", scope.0, scope.1).into_bytes());
    }
    text.extend(path.as_os_str().as_bytes());
    let mut name = b"license-server/".to_vec();
    name.extend_from_slice(digest(&SHA256, &text).as_ref());
    SocketAddr::from_abstract_name(name)
}

fn listen(name: &SocketAddr) -> std::io::Result<UnixListener> {
    let mut tries = 0;
    loop {
        match UnixListener::bind_addr(name) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries < TRIES => {
                tries += 1;
                std::thread::park_timeout(AGAIN);
            }
            bound => return bound,
        }
    }
}

fn begin(
    listener: UnixListener,
    place: Arc<DatabaseFiles>,
    stop: Arc<AtomicBool>,
) -> Result<(Arc<UnixListener>, JoinHandle<()>)> {
    let listener = Arc::new(listener);
    let own = listener.clone();
    let thread = std::thread::Builder::new()
        .name("presence".to_owned())
        .spawn(move || answer(&own, &place, &stop))
        .doing("start the thread that answers commands")?;
    Ok((listener, thread))
}

fn answer(listener: &UnixListener, place: &DatabaseFiles, stop: &AtomicBool) {
    for caller in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let line = line(&place.parts());
        let told = caller.and_then(|mut caller| {
            caller.set_write_timeout(Some(ANSWER))?;
            caller.write_all(line.as_bytes())
        });
        if let Err(error) = told {
            log::debug!("a command was not told which files are open: {error}");
            // Too many open files, perhaps: not again and again at once.
            std::thread::park_timeout(AGAIN);
        }
    }
}

fn ask(name: &SocketAddr) -> Option<Holder> {
    let server = UnixStream::connect_addr(name).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&server).ok()?;
    let me = rustix::process::geteuid();
    // Any user may take any name. The server runs as the user to whom the data folder belonged, or as root.
    if peer.uid != me && !peer.uid.is_root() && !me.is_root() {
        return None;
    }
    let mut line = String::new();
    let told = server
        .set_read_timeout(Some(ANSWER))
        .and_then(|()| server.take(ANSWER_MAX).read_to_string(&mut line));
    if let Err(error) = told {
        log::debug!("the server does not tell which files it has open: {error}");
    }
    Some(Holder {
        pid: peer.pid.to_string(),
        parts: parse(&line),
    })
}

/// What a server tells: the identity of each part, or `-` for one that it does not have open.
fn line(parts: &Parts) -> String {
    let words = parts.map(|part| part.map_or_else(|| "-".to_owned(), |part| part.to_string()));
    words.join(" ")
}

fn parse(line: &str) -> Parts {
    let mut parts = Parts::default();
    for (part, word) in parts.iter_mut().zip(line.split_whitespace()) {
        *part = Identity::parse(word);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_by_each_path_to_its_database_also_after_its_folder_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (data, link) = (dir.path().join("data"), dir.path().join("link"));
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let paths = [link.join("t.sqlite3"), data.join("t.sqlite3")];
        fs::write(&paths[1], "x").unwrap();
        let place = Arc::new(DatabaseFiles::new(&fs::canonicalize(&paths[0]).unwrap()));
        place.learn(None).unwrap();
        let presence = Presence::tell(&paths[0], &place);
        for gone in [false, true] {
            if gone {
                fs::remove_dir_all(&data).unwrap();
            }
            for path in &paths {
                let found = find(path).unwrap();
                assert_eq!(found.pid, std::process::id().to_string());
                assert_eq!(found.parts, place.parts(), "{}", path.display());
            }
            assert!(find(&dir.path().join("other.sqlite3")).is_none());
        }
        drop(presence);
        assert!(paths.iter().all(|path| find(path).is_none()));
        // The name is free for the next one.
        let next = Presence::tell(&paths[0], &place);
        assert!(next.listeners.len() == 2 && find(&paths[1]).is_some());
    }

    #[test]
    fn which_files_are_open_is_read_as_it_was_told() {
        let parts = [Identity::parse("1:2"), None, Identity::parse("3:4"), None];
        assert_eq!(parse(&line(&parts)), parts);
        assert_eq!(parse(""), Parts::default());
    }
}
