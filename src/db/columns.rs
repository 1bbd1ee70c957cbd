//! Reading the columns of a row one after another.

use rusqlite::types::{FromSql, ValueRef};
use rusqlite::{Error, Result, Row};

/// The columns of a row, in the order of its query. Looking each of them up by its name costs about as much as finding
/// the row by an index.
pub struct Columns<'r> {
    row: &'r Row<'r>,
    next: usize,
}

/// A type that is read from columns which stand side by side in a query.
pub trait FromColumns: Sized {
    /// How many columns these are.
    const COUNT: usize;

    /// Reads the next [`Self::COUNT`] columns.
    ///
    /// # Errors
    /// If a value is unknown or of another type.
    fn from_columns(columns: &mut Columns<'_>) -> Result<Self>;
}

/// A row that begins with the columns of `T`.
///
/// # Errors
/// As [`FromColumns::from_columns`].
pub fn from_row<T: FromColumns>(row: &Row<'_>) -> Result<T> {
    T::from_columns(&mut Columns::of(row))
}

impl<'r> Columns<'r> {
    /// All columns of `row`.
    pub fn of(row: &'r Row<'r>) -> Self {
        Self { row, next: 0 }
    }

    /// The value of the next column, which is called `name` in the query.
    ///
    /// # Errors
    /// If it is of another type; in builds for tests, also if it has another name.
    pub fn take<T: FromSql>(&mut self, name: &str) -> Result<T> {
        let index = self.advance(name)?;
        self.row.get(index)
    }

    /// As [`Columns::take`], without a copy of the text.
    ///
    /// # Errors
    /// As [`Columns::take`].
    pub fn take_ref(&mut self, name: &str) -> Result<ValueRef<'r>> {
        let index = self.advance(name)?;
        self.row.get_ref(index)
    }

    /// What an outer join has found; `None` if the first of its columns is null.
    ///
    /// # Errors
    /// As [`FromColumns::from_columns`].
    pub fn take_joined<T: FromColumns>(&mut self) -> Result<Option<T>> {
        if self.row.get_ref(self.next)? == ValueRef::Null {
            self.next += T::COUNT;
            return Ok(None);
        }
        T::from_columns(self).map(Some)
    }

    fn advance(&mut self, name: &str) -> Result<usize> {
        let index = self.next;
        self.next += 1;
        // Every query is run by some test, so that none whose columns stand in another order is released.
        if cfg!(debug_assertions) && self.row.as_ref().column_name(index)? != name {
            return Err(Error::InvalidColumnName(name.to_owned()));
        }
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Pair(i64, String);

    impl FromColumns for Pair {
        const COUNT: usize = 2;

        fn from_columns(columns: &mut Columns<'_>) -> Result<Self> {
            Ok(Self(columns.take("number")?, columns.take("text")?))
        }
    }

    type Row3 = (i64, Option<Pair>, i64);

    fn read(sql: &str) -> Result<Row3> {
        let conn = rusqlite::Connection::open_in_memory()?;
        conn.query_row(sql, [], |row| {
            let mut columns = Columns::of(row);
            let before = columns.take("before")?;
            Ok((before, columns.take_joined()?, columns.take("after")?))
        })
    }

    #[test]
    fn columns_are_read_in_their_order_and_a_join_without_a_row_is_skipped() {
        let found = Some(Pair(2, "two".to_owned()));
        let joined = "select 1 as before, 2 as number, 'two' as text, 3 as after";
        assert_eq!(read(joined).unwrap(), (1, found, 3));
        let not_joined = "select 1 as before, null as number, null as text, 3 as after";
        assert_eq!(read(not_joined).unwrap(), (1, None, 3));
    }

    #[test]
    fn columns_in_another_order_are_an_error() {
        let swapped = "select 1 as before, 'two' as text, 2 as number, 3 as after";
        let error = read(swapped).unwrap_err();
        assert_eq!(error, Error::InvalidColumnName("number".to_owned()));
    }
}
