//! Commands that root runs switch to the user that owns the data folder.
//!
//! A file belongs to the user that creates it. Creating files as root and changing their owner afterwards would follow
//! links that the folder's owner may have planted, and would miss files that SQLite creates by itself. So root becomes
//! that user first. Threads that are started later inherit it.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use rustix::{fs::Gid, fs::Uid};

use crate::error::{Doing, Error, Result};

/// A user and its primary group, by their numeric ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The user that this thread runs as.
    pub fn current() -> Self {
        Self {
            uid: geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
        }
    }

    /// The owner of a file.
    pub fn owner(data: &Metadata) -> Self {
        Self {
            uid: data.uid(),
            gid: data.gid(),
        }
    }

    /// The numeric user id.
    pub const fn uid(self) -> u32 {
        self.uid
    }

    /// The user as an argument of `sudo -u`: its name, or `'#998'` if it has none.
    pub fn sudo_name(self) -> String {
        name_of(self.uid).unwrap_or_else(|| format!("'#{}'", self.uid))
    }

    /// The user in messages: `license-server (uid 998)`.
    pub fn describe(self) -> String {
        match name_of(self.uid) {
            Some(name) => format!("{name} (uid {})", self.uid),
            None => format!("uid {}", self.uid),
        }
    }
}

/// The owner of `folder` or, if it does not exist yet, of its nearest existing ancestor.
///
/// # Errors
/// [`Error::State`] when the folder cannot be accessed.
pub fn owner_of(folder: &Path) -> Result<User> {
    for ancestor in folder.ancestors() {
        let here = ancestor.as_os_str().is_empty();
        let ancestor = if here { Path::new(".") } else { ancestor };
        match fs::metadata(ancestor) {
            Ok(data) => return Ok(User::owner(&data)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let (name, me) = (ancestor.display(), User::current().describe());
                return Err(Error::State(format!(
                    "{me} cannot access {name} ({error}): run this as the user that owns the data folder"
                )));
            }
        }
    }
    Ok(User::current())
}

/// The user that root has to become to work in `folder`. `None` if this is not root, or if root owns the folder.
///
/// # Errors
/// As [`owner_of`].
fn other_than_root(folder: &Path) -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let owner = owner_of(folder)?;
    Ok(Some(owner).filter(|owner| owner.uid != 0))
}

/// If this is root, permanently becomes the owner of `folder`. The only privilege that the process keeps is to listen
/// on ports below 1024. Call it before any thread is started.
///
/// # Errors
/// [`Error::State`] if root may not switch users here; it says as which user to run.
pub fn become_owner(folder: &Path) -> Result<()> {
    let Some(owner) = other_than_root(folder)? else {
        return Ok(());
    };
    set_keep_capabilities(true).doing("keep the privilege to listen on low ports")?;
    become_user(owner)?;
    let ports = CapabilitySet::NET_BIND_SERVICE;
    let sets = CapabilitySets {
        effective: ports,
        permitted: ports,
        inheritable: CapabilitySet::empty(),
    };
    let empty = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // A container may not have granted that privilege to root.
    set_capabilities(None, sets)
        .or_else(|_| set_capabilities(None, empty))
        .doing("drop the privileges of root")
}

/// Runs `work` as the owner of `folder` if this is root; the calling thread stays root.
///
/// # Errors
/// The error of `work`, or as [`become_owner`].
pub fn as_owner<T: Send>(folder: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(owner) = other_than_root(folder)? else {
        return work();
    };
    // Linux keeps user ids per thread, and threads inherit them from the thread that starts them.
    let thread = std::thread::scope(|scope| {
        let thread = scope.spawn(|| become_user(owner).and_then(|()| work()));
        thread.join()
    });
    thread.unwrap_or_else(|_| {
        Err(Error::Internal {
            doing: "work as the owner of the data folder",
            source: "the thread panicked".into(),
        })
    })
}

fn become_user(user: User) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<Gid> = groups_of(user).into_iter().map(Gid::from_raw).collect();
    let changed = set_thread_groups(&groups)
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    changed.map_err(|error| {
        Error::State(format!(
            "the data folder belongs to {}, and root cannot switch to that user here ({error}): run \
             `sudo -u {} license-server …`",
            user.describe(),
            user.sudo_name()
        ))
    })
}

/// The groups of a user according to `/etc/group`. One of them may be needed to read a certificate's key.
fn groups_of(user: User) -> Vec<u32> {
    let mut groups = vec![user.gid];
    let Some(name) = name_of(user.uid) else {
        return groups;
    };
    for line in lines_of("/etc/group") {
        // name:password:gid:members
        let mut fields = line.split(':').skip(2);
        let gid = fields.next().and_then(|gid| gid.parse().ok());
        let mut members = fields.next().unwrap_or_default().split(',');
        if let Some(gid) = gid
            && members.any(|member| member == name)
        {
            groups.push(gid);
        }
    }
    groups
}

fn name_of(uid: u32) -> Option<String> {
    lines_of("/etc/passwd").into_iter().find_map(|line| {
        // name:password:uid:…
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found = fields.nth(1)?.parse() == Ok(uid);
        (found && !name.is_empty()).then(|| name.to_owned())
    })
}

/// The lines of a file such as `/etc/passwd`. Empty if it cannot be read: users need not be listed there.
fn lines_of(file: &str) -> Vec<String> {
    let text = fs::read_to_string(PathBuf::from(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_has_the_owner_of_its_nearest_existing_ancestor() {
        let dir = tempfile::tempdir().unwrap();
        let own = User::owner(&fs::metadata(dir.path()).unwrap());
        assert_eq!(owner_of(dir.path()).unwrap(), own);
        assert_eq!(owner_of(&dir.path().join("a/b")).unwrap(), own);
    }

    #[test]
    fn users_are_described_by_name_if_they_have_one() {
        let root = User { uid: 0, gid: 0 };
        assert_eq!(root.describe(), "root (uid 0)");
        assert_eq!(root.sudo_name(), "root");
        let unlisted = User {
            uid: 3_999_999_999,
            gid: 7,
        };
        assert_eq!(unlisted.describe(), "uid 3999999999");
        assert_eq!(unlisted.sudo_name(), "'#3999999999'");
        assert_eq!(groups_of(unlisted), [7]);
    }
}
