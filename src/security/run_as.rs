//! Commands by root: the work is done as the user to whom the data folder belongs.
//!
//! Whatever a process creates belongs to the user that it runs as. Creating files as root and handing them over
//! afterwards would follow whatever the owner of the folder has put in the way, and miss the files that SQLite
//! creates by itself; so root becomes that user first. Threads that are started later inherit it.

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

/// A user by number, as files name it.
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

    /// To whom a file belongs.
    pub fn owner(data: &Metadata) -> Self {
        Self {
            uid: data.uid(),
            gid: data.gid(),
        }
    }

    /// The number.
    pub const fn uid(self) -> u32 {
        self.uid
    }

    /// How `sudo -u` takes it: by its name, where it has one.
    pub fn sudo_name(self) -> String {
        name_of(self.uid).unwrap_or_else(|| format!("'#{}'", self.uid))
    }

    /// For a sentence: `license-server (uid 998)`.
    pub fn described(self) -> String {
        match name_of(self.uid) {
            Some(name) => format!("{name} (uid {})", self.uid),
            None => format!("uid {}", self.uid),
        }
    }
}

/// To whom `folder` belongs or, where it does not exist yet, the nearest folder above it that does.
///
/// # Errors
/// [`Error::State`] when it cannot be looked at.
pub fn owner_of(folder: &Path) -> Result<User> {
    for place in folder.ancestors() {
        let here = place.as_os_str().is_empty();
        let place = if here { Path::new(".") } else { place };
        match fs::metadata(place) {
            Ok(data) => return Ok(User::owner(&data)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let (name, me) = (place.display(), User::current().described());
                return Err(Error::State(format!(
                    "{me} cannot look at {name} ({error}): run this as the user to whom the data folder belongs"
                )));
            }
        }
    }
    Ok(User::current())
}

/// The user whom root has to become to work in `folder`; none for everybody else, and where it is root's own.
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

/// Makes root, for good, the user to whom `folder` belongs. Of root's rights the process keeps the one to listen
/// on ports below 1024. Call it before any thread is started.
///
/// # Errors
/// [`Error::State`] where root may not do that; it says as whom to run.
pub fn become_owner(folder: &Path) -> Result<()> {
    let Some(owner) = other_than_root(folder)? else {
        return Ok(());
    };
    set_keep_capabilities(true).doing("keep the right to listen on low ports")?;
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
    // A container may have taken that right from root before.
    set_capabilities(None, sets)
        .or_else(|_| set_capabilities(None, empty))
        .doing("give up the rights of root")
}

/// Does `work` as the user to whom `folder` belongs, where this is root; the caller stays what it is.
///
/// # Errors
/// What `work` returns, or as [`become_owner`].
pub fn as_owner<T: Send>(folder: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(owner) = other_than_root(folder)? else {
        return work();
    };
    // Linux keeps these rights for each thread; the threads that this one starts inherit its.
    let thread = std::thread::scope(|scope| {
        let thread = scope.spawn(|| become_user(owner).and_then(|()| work()));
        thread.join()
    });
    thread.unwrap_or_else(|_| {
        Err(Error::Internal {
            doing: "work as the owner of the data folder",
            source: "the work broke off".into(),
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
            "the data folder belongs to {}, and root may not become that user here ({error}): run \
             `sudo -u {} license-server …`",
            user.described(),
            user.sudo_name()
        ))
    })
}

/// The groups of a user that this machine's own files name, such as the one that may read a certificate's key.
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

/// A list of this machine's users: a user that is not in it has a number all the same.
fn lines_of(file: &str) -> Vec<String> {
    let text = fs::read_to_string(PathBuf::from(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_belongs_to_whom_the_one_above_belongs() {
        let dir = tempfile::tempdir().unwrap();
        let own = User::owner(&fs::metadata(dir.path()).unwrap());
        assert_eq!(owner_of(dir.path()).unwrap(), own);
        assert_eq!(owner_of(&dir.path().join("a/b")).unwrap(), own);
    }

    #[test]
    fn users_are_described_by_name_where_they_have_one() {
        let root = User { uid: 0, gid: 0 };
        assert_eq!(root.described(), "root (uid 0)");
        assert_eq!(root.sudo_name(), "root");
        let nobody = User {
            uid: 3_999_999_999,
            gid: 7,
        };
        assert_eq!(nobody.described(), "uid 3999999999");
        assert_eq!(nobody.sudo_name(), "'#3999999999'");
        assert_eq!(groups_of(nobody), [7]);
    }
}
