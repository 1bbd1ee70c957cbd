//! A second server that is stopped, beside which Litestream follows the database of the first one. When the first one
//! is lost, the second one takes the followed file over (`promote`).

pub mod cli;
mod rules;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use crate::archive::BackupKind;
use crate::audit::{Act, Actor, Change};
use crate::backups::{self, ExpectedKeys, LostChanges, RestoreTarget};
use crate::clock::UnixMs;
use crate::db::{self, CopyInfo, OldDatabase, Reader, Restored, Tx};
use crate::error::{Doing, Error, Result};
use crate::sessions::LivenessCutoff;
use crate::timelines::{self, Timeline};
use crate::{logins, server_state, sessions};

/// The name of the followed file, beside the database.
const FOLLOWED: &str = "standby.sqlite3";
/// What Litestream and SQLite add to its name for the files beside it.
const BESIDE: [&str; 4] = ["-txid", "-wal", "-shm", "-journal"];

/// The path of the followed file of a server whose database is at `database`, unless the operator names another one.
pub fn default_file(database: &Path) -> PathBuf {
    database.with_file_name(FOLLOWED)
}

/// The file that Litestream keeps up to date.
#[derive(Debug)]
pub struct FollowedFile {
    path: PathBuf,
    /// The processes that have it open.
    followed_by: Vec<u32>,
    mode: Mode,
}

/// Whether the followed file is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It becomes the database.
    Promote,
    /// It is only checked, also while Litestream follows.
    Check,
}

/// The result of [`promote`].
#[derive(Debug)]
pub struct Promotion {
    /// What was put in place. `None` if it was only checked.
    pub restored: Option<Restored>,
    /// Size and schema of what is, or would be, the database.
    pub copied: CopyInfo,
    /// The processes that follow.
    pub followed_by: Vec<u32>,
    /// The latest date in the followed file.
    pub newest_change: UnixMs,
    /// How many sessions go on.
    pub sessions: u32,
    /// The changes of a replaced database that are lost.
    pub lost: LostChanges,
}

impl FollowedFile {
    /// Examines the file at `path`, to do with it what `mode` says. `database` is where it is to be put.
    ///
    /// # Errors
    /// [`Error::State`] if it cannot be taken over as it is; it says why and what to do.
    pub fn examine(path: &Path, database: &Path, mode: Mode) -> Result<Self> {
        let problem = rules::problem(&facts(path, database)?, path);
        let followed_by = processes_with(path);
        let followers = rules::problem_of_followers(&followed_by, path);
        let problem = problem.or(followers.filter(|_| mode == Mode::Promote));
        match problem {
            Some(problem) => Err(Error::State(problem)),
            None => Ok(Self {
                path: path.to_owned(),
                followed_by,
                mode,
            }),
        }
    }

    /// Deletes it with the files beside it: the database is elsewhere now. A file that Litestream does not follow is left
    /// alone, unless it would be in the way of the next start: it may be somebody's backup.
    fn remove(&self, database: &Path) {
        let is_followed = beside(&self.path, "-txid").exists();
        if !is_followed && self.path != default_file(database) {
            return;
        }
        let names = BESIDE.iter().map(|suffix| beside(&self.path, suffix));
        for name in std::iter::once(self.path.clone()).chain(names) {
            match fs::remove_file(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    log::warn!("{} cannot be deleted ({error}): delete it", name.display());
                }
                _ => {}
            }
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What can be seen from outside of the file at `path`, which is to be put at `database`.
fn facts(path: &Path, database: &Path) -> Result<rules::Facts> {
    let Ok(data) = fs::metadata(path) else {
        return Ok(rules::Facts::Missing);
    };
    if !data.is_file() {
        return Ok(rules::Facts::NoFile(db::file_kind(&data)));
    }
    let file = fs::File::open(path).map_err(|error| {
        Error::State(format!(
            "{} cannot be read ({error}): run Litestream as the owner of the data folder",
            path.display()
        ))
    })?;
    let kind = BackupKind::of(&file).doing("read the followed file")?;
    let has_content =
        |suffix| fs::metadata(beside(path, suffix)).is_ok_and(|other| other.len() > 0);
    let modified = |name: &Path| -> Option<SystemTime> { fs::metadata(name).ok()?.modified().ok() };
    let applied = modified(&beside(path, "-txid"));
    let is_own = fs::metadata(database).is_ok_and(|own| is_same_file(&own, &data));
    Ok(rules::Facts::File {
        is_own,
        is_database: kind == Some(BackupKind::Database),
        was_written_to: has_content("-wal") || has_content("-journal"),
        is_half_applied: applied.is_some_and(|at| modified(path).is_some_and(|now| now > at)),
    })
}

fn is_same_file(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The processes that have the file open, as far as this user may see them.
fn processes_with(path: &Path) -> Vec<u32> {
    let Ok(wanted) = fs::metadata(path) else {
        return Vec::new();
    };
    let is_wanted =
        |link: PathBuf| fs::metadata(link).is_ok_and(|opened| is_same_file(&opened, &wanted));
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let others = processes.filter(|pid| *pid != std::process::id());
    others
        .filter(|pid| {
            let open = fs::read_dir(format!("/proc/{pid}/fd"));
            let mut open = open.into_iter().flatten().flatten();
            open.any(|link| is_wanted(link.path()))
        })
        .collect()
}

/// Takes the followed file over as the database: its sessions go on, and a new timeline begins. Programs and the other
/// keys notice nothing.
///
/// # Errors
/// [`Error::State`] if a server runs, if the file is damaged, older than the database or belongs to a server that was
/// replaced, or if keys are missing; then nothing is changed.
pub fn promote(
    file: &FollowedFile,
    target: RestoreTarget<'_>,
    actor: &Actor,
    now: UnixMs,
) -> Result<Promotion> {
    let replacement = db::Restore::begin(target.database)?;
    let finalize = |tx: &Tx<'_>, replaced: &OldDatabase<'_>| {
        finalize(&Act::new(tx, actor, now), &file.path, target, replaced)
    };
    let (ready, taken) = replacement.prepare_followed(&file.path, finalize)?;
    let (restored, copied) = match file.mode {
        Mode::Check => (None, replacement.discard(&ready)?),
        Mode::Promote => {
            let restored = replacement.put_in_place(ready, &backups::timestamp(now))?;
            file.remove(target.database);
            let copied = restored.copied;
            (Some(restored), copied)
        }
    };
    Ok(Promotion {
        restored,
        copied,
        followed_by: file.followed_by.clone(),
        newest_change: taken.newest_change,
        sessions: taken.sessions,
        lost: taken.lost,
    })
}

/// The result of [`finalize`].
struct Taken {
    newest_change: UnixMs,
    sessions: u32,
    lost: LostChanges,
}

/// Prepares the copy of the followed file for its use.
fn finalize(
    act: &Act<'_>,
    from: &Path,
    target: RestoreTarget<'_>,
    replaced: &OldDatabase<'_>,
) -> Result<Taken> {
    let newest_change = backups::newest_change(act.tx)?;
    let present = match replaced {
        // A damaged database may be replaced.
        OldDatabase::File(present) => timelines::list(present).unwrap_or_default(),
        OldDatabase::Nothing | OldDatabase::Unreadable(_) => Vec::new(),
    };
    let relation = timelines::relation(&timelines::list(act.tx)?, &present);
    let missing = ExpectedKeys::of(act.tx, act.now)?.missing_in(target)?;
    let lost = backups::lost(newest_change, replaced);
    let problem = rules::problem_of_relation(&relation, newest_change, from)
        .or_else(|| rules::problem_of_age(&relation, &lost, from, target.database))
        .or_else(|| rules::problem_of_keys(&missing, target.data));
    if let Some(problem) = problem {
        return Err(Error::State(problem));
    }
    // The trusted date must not go back: what had expired by then stays expired.
    if let LostChanges::Span(_, until) = &lost {
        server_state::advance(act.tx, *until)?;
    }
    let sessions = sessions::count(act.tx, LivenessCutoff::without_server(), None)?;
    timelines::begin(act.tx, newest_change, act.now)?;
    // A logout in the changes that are lost must not be undone.
    logins::end_all_logins(act.tx)?;
    act.note(&Change {
        action: "backups.promote",
        subject: &from.display().to_string(),
        before: lost.replaced(),
        after: json!({ "newest_change": newest_change.rfc3339(), "sessions": sessions }),
    })?;
    Ok(Taken {
        newest_change,
        sessions,
        lost,
    })
}

/// What of a database tells how recent it is.
struct State {
    timelines: Vec<Timeline>,
    newest_change: UnixMs,
}

impl State {
    fn of(path: &Path) -> Result<Self> {
        db::read_file(path, |reader: &Reader<'_>| {
            Ok(Self {
                timelines: timelines::list(reader)?,
                newest_change: backups::newest_change(reader)?,
            })
        })
    }
}

/// Refuses to serve, or to create, the database at `database` on a standby that has not been promoted.
///
/// # Errors
/// [`Error::State`] that says what to do.
pub fn refuse_on_standby(database: &Path) -> Result<()> {
    let followed = default_file(database);
    if !followed.exists() {
        return Ok(());
    }
    if !database.exists() {
        return Err(Error::State(rules::not_promoted(&followed, database)));
    }
    // Which of the two is newer is not known then, and a standby that serves an old database does more harm than a
    // server that waits.
    let unreadable = |error: Error| Error::State(rules::unreadable_copy(&followed, &error));
    let copy = State::of(&followed).map_err(unreadable)?;
    // A database that cannot be read is reported where it is opened.
    let is_newer = State::of(database).is_ok_and(|present| {
        let relation = timelines::relation(&copy.timelines, &present.timelines);
        rules::is_newer(&relation, copy.newest_change, present.newest_change)
    });
    if is_newer {
        return Err(Error::State(rules::not_promoted(&followed, database)));
    }
    log::warn!(
        "{} is an older copy than the database, though it is where a standby follows: stop Litestream's `restore -f` on \
         this machine, and delete the file",
        followed.display()
    );
    Ok(())
}
