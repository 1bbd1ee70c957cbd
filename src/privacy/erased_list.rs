//! The list of erased customers: in the database, and in files that survive when the database is lost, damaged or replaced
//! by an older copy: beside it, and in the backup folder, which is often on another disk. The customers on it are erased
//! again in such a copy.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::erase::erase_person;
use super::{Erasure, LicensePolicy, store};
use crate::audit::{Act, Actor};
use crate::clock::{Now, Pauses, Tick, UnixMs};
use crate::customers;
use crate::db::{Db, Reader};
use crate::error::{Doing, Error, Result};
use crate::id::CustomerId;
use crate::live_sessions::{LiveNow, LiveSessions};
use crate::security::private_file;
use crate::terms::Terms;

/// What follows the name of the database in the name of the file.
const SUFFIX: &str = ".erased";

/// The files in which the erasures of a database are listed.
#[derive(Clone, Debug)]
pub struct ListFiles {
    files: Vec<PathBuf>,
}

/// The result of bringing the lists together.
#[derive(Debug)]
pub struct Reconciled {
    /// The customers who were erased again, since the database is an older copy.
    pub erased_again: Vec<ErasedAgain>,
    /// Why a file was not read or written; the others were.
    pub problem: Option<Error>,
}

/// A customer who was erased in an older copy of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedAgain {
    /// The customer.
    pub customer_id: CustomerId,
    /// When the customer was erased first.
    pub first_erased_at: UnixMs,
}

/// Every erasure that the database lists.
pub fn erasures(reader: &Reader<'_>) -> Result<Vec<Erasure>> {
    store::erasures(reader)
}

/// Every erasure that the database lists; `None` if it has had no customer, so that another one may list some.
pub fn erasures_in_use(reader: &Reader<'_>) -> Result<Option<Vec<Erasure>>> {
    let listed = store::erasures(reader)?;
    let is_in_use =
        !listed.is_empty() || !customers::list(reader, &Terms::default(), 1)?.is_empty();
    Ok(is_in_use.then_some(listed))
}

/// Erases the customers of `erasures` in this copy of the database, unless that is done; and adds all of them to its
/// list.
///
/// # Errors
/// Those of an erasure.
pub fn erase_again(act: &Act<'_>, erasures: &[Erasure]) -> Result<Vec<ErasedAgain>> {
    // Nothing else uses the database now, so no session is live.
    let live = Arc::new(LiveSessions::new(act.now, Pauses::default()));
    let now = Now {
        wall: act.now,
        tick: Tick::START,
        awake: std::time::Duration::ZERO,
    };
    let mut done = Vec::new();
    for erasure in erasures {
        let sessions = LiveNow {
            sessions: &live,
            now,
        };
        if store::must_be_erased(act.tx, erasure)? {
            erase_person(act, sessions, erasure)?;
            done.push(ErasedAgain {
                customer_id: erasure.customer_id,
                first_erased_at: erasure.erased_at,
            });
        } else {
            store::insert_erasure(act.tx, erasure)?;
        }
    }
    Ok(done)
}

impl ListFiles {
    /// The files of the database at `database`: beside it, and in the backup folder, if there is one.
    pub fn of(database: &Path, backups: Option<&Path>) -> Self {
        let beside = database.with_file_name(list_name(database));
        let mut all = Self::in_folder(backups, database);
        all.files.insert(0, beside);
        all
    }

    /// The file of the database at `database` in another folder; none if there is no folder.
    pub fn in_folder(folder: Option<&Path>, database: &Path) -> Self {
        // Private files are not written through a link.
        let folder = folder.and_then(|folder| fs::canonicalize(folder).ok());
        let file = folder.map(|folder| folder.join(list_name(database)));
        let files = file.into_iter().collect();
        Self { files }
    }

    /// Every erasure in the files; `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::State`] if a file cannot be read; it says what to do.
    pub fn read(&self) -> Result<Option<Vec<Erasure>>> {
        let mut all: Option<Vec<Erasure>> = None;
        for file in &self.files {
            if let Some(listed) = read_file(file)? {
                all.get_or_insert_with(Vec::new).extend(listed);
            }
        }
        Ok(all.map(without_repetitions))
    }

    /// Checks that every file can be read and lists the erasures in `db`. Returns how many are listed.
    ///
    /// # Errors
    /// [`Error::State`] if not; it says what to do.
    pub fn check(&self, db: Option<&Db>) -> Result<usize> {
        let listed = self.read()?.unwrap_or_default();
        let known = db.map(|db| db.read_blocking(store::erasures)).transpose()?;
        match self.lacking(&known.unwrap_or_default())? {
            None => Ok(listed.len()),
            Some(file) => Err(Error::State(format!(
                "the list {} lacks customers that were erased: restart the server, which writes it",
                file.display()
            ))),
        }
    }

    /// The first file that lacks one of `erasures`, if there is one.
    fn lacking(&self, erasures: &[Erasure]) -> Result<Option<&Path>> {
        for file in &self.files {
            let listed = read_file(file)?.unwrap_or_default();
            let is_listed =
                |erasure: &Erasure| listed.iter().any(|other| key_of(other) == key_of(erasure));
            if !erasures.iter().all(is_listed) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Adds `erasures` to each file.
    ///
    /// # Errors
    /// If a file cannot be read or written; the others are.
    pub fn add(&self, erasures: &[Erasure]) -> Result<()> {
        let added = self.files.iter().map(|file| add_to(file, erasures));
        added.fold(Ok(()), Result::and)
    }

    /// Adds the erasures that the database lists to the files.
    ///
    /// # Errors
    /// If the database cannot be read, or a file cannot be read or written.
    pub fn save(&self, db: &Db) -> Result<()> {
        self.add(&db.read_blocking(store::erasures)?)
    }

    /// Brings the list in the database and the files together. Customers that a file lists and the database still has are
    /// erased again: it is an older copy. Called at the start of the server.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the database cannot be read or written now.
    pub fn reconcile(&self, db: &Db, now: UnixMs) -> Result<Reconciled> {
        let known = db.read_blocking(store::erasures)?;
        let (mut missing, mut problem) = (Vec::new(), None);
        for file in &self.files {
            match read_file(file) {
                Ok(listed) => missing.extend(listed.unwrap_or_default()),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        missing.retain(|erasure| known.iter().all(|other| key_of(other) != key_of(erasure)));
        let missing = without_repetitions(missing);
        let listed: Vec<Erasure> = known.iter().chain(&missing).copied().collect();
        let mut erased_again = Vec::new();
        if !missing.is_empty() {
            erased_again = db.write_blocking("privacy.erase_again", move |tx| {
                erase_again(&Act::new(tx, &Actor::server(), now), &missing)
            })?;
        }
        let problem = problem.or(self.add(&listed).err());
        Ok(Reconciled {
            erased_again,
            problem,
        })
    }
}

/// Adds `erasures` to the file.
fn add_to(file: &Path, erasures: &[Erasure]) -> Result<()> {
    let listed = read_file(file)?.unwrap_or_default();
    let mut all = listed.clone();
    all.extend(erasures);
    let all = without_repetitions(all);
    if all == listed {
        return Ok(());
    }
    let mut lines = String::new();
    for erasure in &all {
        lines += &line(erasure).to_string();
        lines.push('\n');
    }
    private_file::write(file, lines).doing("write the list of erased customers")
}

/// The name of the file that lists the erasures of the database at `database`.
pub fn list_name(database: &Path) -> OsString {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push(SUFFIX);
    name
}

/// What a list must hold of an erasure: the customer, and the last time.
fn key_of(erasure: &Erasure) -> (i64, i64, Option<UnixMs>) {
    (
        erasure.customer_id.0,
        erasure.created_at.0,
        erasure.again_at,
    )
}

/// Each customer once, by id, with the first and the last erasure. Licenses that were revoked once stay so.
fn without_repetitions(erasures: Vec<Erasure>) -> Vec<Erasure> {
    let mut by_customer: BTreeMap<(i64, i64), Erasure> = BTreeMap::new();
    for erasure in erasures {
        let key = (erasure.customer_id.0, erasure.created_at.0);
        let all = by_customer.entry(key).or_insert(erasure);
        all.erased_at = all.erased_at.min(erasure.erased_at);
        all.again_at = all.again_at.max(erasure.again_at);
        if erasure.licenses == LicensePolicy::Revoke {
            all.licenses = LicensePolicy::Revoke;
        }
    }
    by_customer.into_values().collect()
}

/// The erasures in the file; `None` if there is no file.
fn read_file(path: &Path) -> Result<Option<Vec<Erasure>>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::State(format!(
            "the list of erased customers {} cannot be read ({error}): put it back from a copy of its folder, or delete it",
            path.display()
        ))),
        Ok(text) => parse_list(&text, path).map(Some),
    }
}

/// The erasures in the text of the list `path`.
///
/// # Errors
/// [`Error::State`] if a line cannot be read.
pub fn parse_list(text: &str, path: &Path) -> Result<Vec<Erasure>> {
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| {
            parse_line(line).ok_or_else(|| {
                Error::State(format!(
                    "line {} of the list of erased customers {} cannot be read: put it back from a copy of its folder, or \
                     delete the line",
                    number + 1,
                    path.display()
                ))
            })
        })
        .collect()
}

fn line(erasure: &Erasure) -> Value {
    json!({
        "customer_id": erasure.customer_id,
        "created_at_ms": erasure.created_at.0,
        "erased_at_ms": erasure.erased_at.0,
        "again_at_ms": erasure.again_at.map(|at| at.0),
        "licenses": erasure.licenses.as_str(),
    })
}

fn parse_line(line: &str) -> Option<Erasure> {
    let line: Value = serde_json::from_str(line).ok()?;
    let number = |name: &str| line.get(name)?.as_i64();
    Some(Erasure {
        customer_id: CustomerId(number("customer_id")?),
        created_at: UnixMs(number("created_at_ms")?),
        erased_at: UnixMs(number("erased_at_ms")?),
        // Earlier versions did not write it.
        again_at: number("again_at_ms").map(UnixMs),
        licenses: LicensePolicy::parse(line.get("licenses")?.as_str()?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn erasure(id: i64, erased_at: i64) -> Erasure {
        Erasure {
            customer_id: CustomerId(id),
            created_at: UnixMs(id * 10),
            erased_at: UnixMs(erased_at),
            again_at: None,
            licenses: LicensePolicy::Keep,
        }
    }

    #[test]
    fn each_file_lists_each_erasure_once_and_a_line_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (database, backups) = (dir.path().join("t.sqlite3"), dir.path().join("copies"));
        let without = ListFiles::of(&database, Some(&backups));
        assert_eq!(without.files, [dir.path().join("t.sqlite3.erased")]);
        fs::create_dir(&backups).unwrap();
        let lists = ListFiles::of(&database, Some(&backups));
        let known = || lists.read().unwrap();
        lists.add(&[]).unwrap();
        assert_eq!(known(), None);
        without.add(&[erasure(7, 80), erasure(3, 40)]).unwrap();
        let second = backups.join("t.sqlite3.erased");
        let lacking = lists.lacking(&[erasure(3, 40)]).unwrap().unwrap();
        assert_eq!(lacking.file_name(), second.file_name());
        lists.add(&[erasure(7, 90), erasure(8, 90)]).unwrap();
        let all = [erasure(3, 40), erasure(7, 80), erasure(8, 90)];
        assert_eq!(known(), Some(all.to_vec()));
        assert_eq!(without.lacking(&all).unwrap(), None);
        fs::write(&without.files[0], "{\"customer_id\":7}\n").unwrap();
        let error = lists.read().unwrap_err().to_string();
        assert!(error.contains("line 1 of the list"), "{error}");
        assert!(lists.add(&[erasure(9, 1)]).is_err());
        // The other one was written all the same.
        let text = fs::read_to_string(&second).unwrap();
        assert!(text.contains("\"customer_id\":9,"), "{text}");
    }
}
