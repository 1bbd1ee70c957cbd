//! Lets commands detect a running server independently of its data folder: if that folder is moved, deleted or
//! unmounted, the lock file in it is gone too. A server listens on a Unix socket in Linux's abstract namespace,
//! whose name is derived from the path of its database: such a socket is no file, and ends with its process. A
//! process that connects gets the list of the files that the server has open.

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

use super::location::{DatabaseFiles, Identity, Parts};
use crate::error::{Doing, Result};

/// The server that has a database open.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) pid: String,
    /// The files that it has open.
    pub(super) parts: Parts,
}

/// How long a command waits for a server that may be stopped or frozen.
const ANSWER: Duration = Duration::from_secs(1);
/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 512;
/// Pause and number of attempts to bind a name that an ending process still has.
const BIND_RETRY: Duration = Duration::from_millis(20);
const BIND_TRIES: u32 = 10;

/// Answers commands about the database that this process serves, until it is dropped.
#[derive(Debug)]
pub(super) struct Presence {
    stop: Arc<AtomicBool>,
    listeners: Vec<(Arc<UnixListener>, JoinHandle<()>)>,
}

impl Presence {
    /// For the database at `path` (as in the settings), opened at `location`. A failure is only logged: as long as
    /// the data folder is there, the lock file has the same information.
    pub(super) fn announce(path: &Path, location: &Arc<DatabaseFiles>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut listeners = Vec::new();
        for name in names(&[path, location.path()]) {
            let started = listen(&name).doing("open the socket for commands");
            match started
                .and_then(|listener| start_thread(listener, location.clone(), stop.clone()))
            {
                Ok(listener) => listeners.push(listener),
                Err(error) => log::warn!(
                    "commands cannot find this server if the data folder is moved or deleted: {error}"
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
            // Ends the thread's `accept`.
            if let Err(error) = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both) {
                log::debug!("a socket for commands is not closed before the process ends: {error}");
            } else if thread.join().is_err() {
                log::error!("the thread that answers commands panicked");
            }
        }
    }
}

/// The server of the database at `path` (as in the settings), found without its data folder; `None` if no server
/// answers. A frozen server is found too, but does not list its files.
pub(super) fn find(path: &Path) -> Option<Holder> {
    names(&[path]).iter().find_map(ask)
}

/// The socket names for a database at one of these paths: for each path as given, and with links resolved.
fn names(paths: &[&Path]) -> Vec<SocketAddr> {
    let mut found: Vec<PathBuf> = Vec::new();
    for path in paths {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| (*path).to_owned());
        for path in [resolve_existing(&absolute), absolute] {
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    let named = found.iter().map(|path| name_of(path));
    named.filter_map(Result::ok).collect()
}

/// The path with links resolved, as far as its folders exist.
fn resolve_existing(path: &Path) -> PathBuf {
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

/// Containers may share a network namespace and use the same paths, so the name also covers the root folder and
/// the process namespace.
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
            Err(error) if error.kind() == ErrorKind::AddrInUse && tries < BIND_TRIES => {
                tries += 1;
                std::thread::park_timeout(BIND_RETRY);
            }
            bound => return bound,
        }
    }
}

fn start_thread(
    listener: UnixListener,
    location: Arc<DatabaseFiles>,
    stop: Arc<AtomicBool>,
) -> Result<(Arc<UnixListener>, JoinHandle<()>)> {
    let listener = Arc::new(listener);
    let own = listener.clone();
    let thread = std::thread::Builder::new()
        .name("presence".to_owned())
        .spawn(move || answer(&own, &location, &stop))
        .doing("start the thread that answers commands")?;
    Ok((listener, thread))
}

fn answer(listener: &UnixListener, location: &DatabaseFiles, stop: &AtomicBool) {
    for caller in listener.incoming() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        let line = line(&location.parts());
        let sent = caller.and_then(|mut caller| {
            caller.set_write_timeout(Some(ANSWER))?;
            caller.write_all(line.as_bytes())
        });
        if let Err(error) = sent {
            log::debug!("a command did not get the list of open files: {error}");
            // Possibly too many open files: pause before the next attempt.
            std::thread::park_timeout(BIND_RETRY);
        }
    }
}

fn ask(name: &SocketAddr) -> Option<Holder> {
    let server = UnixStream::connect_addr(name).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&server).ok()?;
    let me = rustix::process::geteuid();
    // Any user can bind any name. A server runs as the owner of the data folder, or as root.
    if peer.uid != me && !peer.uid.is_root() && !me.is_root() {
        return None;
    }
    let mut line = String::new();
    let sent = server
        .set_read_timeout(Some(ANSWER))
        .and_then(|()| server.take(ANSWER_MAX).read_to_string(&mut line));
    if let Err(error) = sent {
        log::debug!("the server did not send the list of its open files: {error}");
    }
    Some(Holder {
        pid: peer.pid.to_string(),
        parts: parse(&line),
    })
}

/// The answer of a server: the identity of each file, or `-` for one that it does not have open.
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
    fn a_server_is_found_by_each_path_to_its_database_even_after_its_folder_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let (data, link) = (dir.path().join("data"), dir.path().join("link"));
        fs::create_dir(&data).unwrap();
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let paths = [link.join("t.sqlite3"), data.join("t.sqlite3")];
        fs::write(&paths[1], "x").unwrap();
        let location = Arc::new(DatabaseFiles::new(&fs::canonicalize(&paths[0]).unwrap()));
        location.record_files(None).unwrap();
        let presence = Presence::announce(&paths[0], &location);
        for deleted in [false, true] {
            if deleted {
                fs::remove_dir_all(&data).unwrap();
            }
            for path in &paths {
                let found = find(path).unwrap();
                assert_eq!(found.pid, std::process::id().to_string());
                assert_eq!(found.parts, location.parts(), "{}", path.display());
            }
            assert!(find(&dir.path().join("other.sqlite3")).is_none());
        }
        drop(presence);
        assert!(paths.iter().all(|path| find(path).is_none()));
        // The names are free for the next server.
        let next = Presence::announce(&paths[0], &location);
        assert!(next.listeners.len() == 2 && find(&paths[1]).is_some());
    }

    #[test]
    fn the_list_of_open_files_is_parsed_as_it_was_sent() {
        let parts = [Identity::parse("1:2"), None, Identity::parse("3:4"), None];
        assert_eq!(parse(&line(&parts)), parts);
        assert_eq!(parse(""), Parts::default());
    }
}
