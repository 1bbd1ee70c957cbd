//! Reading and writing inside a transaction.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;

use rusqlite::{Connection, Params, Row};

use super::generation::Generation;
use super::{disk, schema, search_index};
use crate::error::{Error, Result};
use crate::id::LicenseId;

/// Read-only access.
pub struct Reader<'a> {
    pub(super) conn: &'a Connection,
    pub(super) generation: &'a Generation,
}

/// Runs after the commit of an operation.
pub(super) type Hook = Box<dyn FnOnce() + Send>;

/// Read-write access inside one transaction: all changes of an operation are committed or none is.
pub struct Tx<'a> {
    pub(super) reader: Reader<'a>,
    pub(super) after: RefCell<Vec<Hook>>,
    pub(super) invalidates: Cell<bool>,
    pub(super) changed: RefCell<Vec<LicenseId>>,
}

impl Reader<'_> {
    /// The single row of `sql`; no row is an error.
    pub fn one<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let found = self.maybe(sql, params, row)?;
        Ok(found.ok_or(rusqlite::Error::QueryReturnedNoRows)?)
    }

    /// The row of `sql`; `None` if there is none.
    pub fn maybe<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>> {
        let (mut row, mut found) = (Some(row), None);
        self.each(sql, params, &mut |columns| {
            // Others are not looked at.
            if let Some(row) = row.take() {
                found = Some(row(columns)?);
            }
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// All rows of `sql`, in its order.
    pub fn list<T>(
        &self,
        sql: &'static str,
        params: impl Params,
        mut row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.each(sql, params, &mut |columns| {
            found.push(row(columns)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Calls `row` with the rows of `sql`. Not generic over what it does: there are hundreds of queries, and each would
    /// have a copy of this.
    fn each(
        &self,
        sql: &'static str,
        params: impl Params,
        row: &mut dyn FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut statement = self.conn.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        while let Some(columns) = rows.next()? {
            if row(columns)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The generation in which this read began: data cached from it is valid until the number changes.
    pub fn generation(&self) -> u64 {
        self.generation.number()
    }

    /// Objects in the schema that this program did not create, and those that are missing; empty if the schema is
    /// as it should be.
    pub fn foreign_objects(&self) -> Result<Vec<String>> {
        schema::foreign_objects(self.conn, schema::SCHEMA)
    }

    /// The problems that SQLite finds in the database; empty if it is sound. Reads the whole file.
    pub fn integrity(&self) -> Result<Vec<String>> {
        search_index::forget_cached(self.conn);
        let mut found = self.list("pragma integrity_check(20)", [], |row| {
            row.get::<_, String>(0)
        })?;
        found.retain(|line| line != "ok");
        let orphans = self.list("pragma foreign_key_check", [], |row| {
            Ok(format!(
                "a row of {} refers to a row that does not exist",
                row.get::<_, String>(0)?
            ))
        })?;
        found.extend(orphans.into_iter().take(20));
        Ok(found)
    }
}

impl<'a> Tx<'a> {
    pub(super) fn new(reader: Reader<'a>) -> Self {
        Self {
            reader,
            after: RefCell::default(),
            invalidates: Cell::default(),
            changed: RefCell::default(),
        }
    }

    /// Runs `sql` and returns the number of changed rows.
    pub fn run(&self, sql: &'static str, params: impl Params) -> Result<usize> {
        Ok(self.conn.prepare_cached(sql)?.execute(params)?)
    }

    /// Runs `sql`, an insert, and returns the row id.
    pub fn insert(&self, sql: &'static str, params: impl Params) -> Result<i64> {
        Ok(self.conn.prepare_cached(sql)?.insert(params)?)
    }

    /// Runs `hook` after the commit, before the caller gets its result; never, if the operation is rolled back.
    pub fn after_commit(&self, hook: impl FnOnce() + Send + 'static) {
        self.after.borrow_mut().push(Box::new(hook));
    }

    /// Notes that the operation changes `license`, one of its devices or its session: what was kept about it is no longer
    /// valid; see [`super::Db::is_current`].
    pub fn changes_license(&self, license: LicenseId) {
        self.changed.borrow_mut().push(license);
    }

    /// Begins a new generation with this commit: what other parts of the process cached from the database is no
    /// longer valid.
    pub fn invalidate_caches(&self) {
        self.invalidates.set(true);
    }
}

impl<'a> std::ops::Deref for Tx<'a> {
    type Target = Reader<'a>;

    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}

impl From<rusqlite::Error> for Error {
    fn from(source: rusqlite::Error) -> Self {
        disk::classify(source)
    }
}
