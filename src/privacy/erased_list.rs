//! The list of erased customers: in the database, and in a file beside it that survives when the database is lost, damaged
//! or replaced by an older copy. The customers on it are erased again in such a copy.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::erase::erase_person;
use super::{Erased, Erasure, LicensePolicy, store};
use crate::audit::{Act, Actor};
use crate::clock::{Now, Pauses, Tick, UnixMs};
use crate::db::{Db, Reader};
use crate::error::{Doing, Error, Result};
use crate::id::CustomerId;
use crate::live_sessions::{LiveNow, LiveSessions};
use crate::security::private_file;

/// The suffix of the file beside the database.
const SUFFIX: &str = ".erased";

/// A customer who was erased in an older copy of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErasedAgain {
    /// The customer.
    pub customer_id: CustomerId,
    /// When the customer was erased first.
    pub first_erased_at: UnixMs,
    /// What was erased.
    pub erased: Erased,
}

/// Every erasure that the database lists.
pub fn erasures(reader: &Reader<'_>) -> Result<Vec<Erasure>> {
    store::erasures(reader)
}

/// Every erasure in the file beside the database at `database`; none if there is no file.
///
/// # Errors
/// [`Error::State`] if the file cannot be read.
pub fn erasures_beside(database: &Path) -> Result<Vec<Erasure>> {
    read_file(&file_of(database))
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
            done.push(ErasedAgain {
                customer_id: erasure.customer_id,
                first_erased_at: erasure.erased_at,
                erased: erase_person(act, sessions, erasure)?,
            });
        } else {
            store::insert_erasure(act.tx, erasure)?;
        }
    }
    Ok(done)
}

/// Adds the erasures that the database lists to the file beside it.
///
/// # Errors
/// If the database cannot be read, or the file cannot be read or written.
pub fn save(db: &Db) -> Result<()> {
    let known = db.read_blocking(store::erasures)?;
    save_beside(db.path(), &known)
}

/// Adds `erasures` to the file beside the database at `database`.
///
/// # Errors
/// If the file cannot be read or written.
pub fn save_beside(database: &Path, erasures: &[Erasure]) -> Result<()> {
    let path = file_of(database);
    let listed = read_file(&path)?;
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
    private_file::write(&path, lines).doing("write the list of erased customers")
}

/// Brings the list in the database and the file beside it together. Customers that the file lists and the database
/// still has are erased again: it is an older copy. Called at the start of the server.
///
/// # Errors
/// [`Error::Unavailable`] if the database cannot be written now, [`Error::State`] if the file cannot be read.
pub fn reconcile(db: &Db, now: UnixMs) -> Result<Vec<ErasedAgain>> {
    let database = db.path().to_owned();
    let (known, missing) = db.read_blocking(|reader| {
        let listed = erasures_beside(&database)?;
        let known = store::erasures(reader)?;
        let missing: Vec<Erasure> = listed
            .into_iter()
            .filter(|erasure| known.iter().all(|other| key_of(other) != key_of(erasure)))
            .collect();
        Ok((known, missing))
    })?;
    save_beside(&database, &known)?;
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    db.write_blocking("privacy.erase_again", move |tx| {
        erase_again(&Act::new(tx, &Actor::server(), now), &missing)
    })
}

fn file_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
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

/// The erasures in the file; none if there is no file.
fn read_file(path: &Path) -> Result<Vec<Erasure>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.doing("read the list of erased customers")?,
    };
    let lines = text.lines().enumerate();
    lines
        .map(|(number, line)| {
            parse_line(line).ok_or_else(|| {
                Error::State(format!(
                    "line {} of the list of erased customers {} cannot be read: put it back from a copy of the data \
                     folder, or delete the line",
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
    fn the_file_lists_each_erasure_once_and_a_line_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("t.sqlite3");
        let known = || erasures_beside(&database);
        assert_eq!(known().unwrap(), []);
        save_beside(&database, &[]).unwrap();
        assert!(!file_of(&database).exists());
        save_beside(&database, &[erasure(7, 80), erasure(3, 40)]).unwrap();
        save_beside(&database, &[erasure(7, 90), erasure(8, 90)]).unwrap();
        assert_eq!(
            known().unwrap(),
            [erasure(3, 40), erasure(7, 80), erasure(8, 90)]
        );
        fs::write(file_of(&database), "{\"customer_id\":7}\n").unwrap();
        let error = known().unwrap_err().to_string();
        assert!(error.contains("line 1 of the list"), "{error}");
        assert!(save_beside(&database, &[erasure(9, 1)]).is_err());
    }
}
