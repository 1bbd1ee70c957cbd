//! Everything in a database, to tell whether anything has changed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row};

/// The rows of each table, each row as its values by column, in a fixed order.
pub type Rows = BTreeMap<String, Vec<BTreeMap<String, Value>>>;

/// The contents of a database, read again only after somebody has written.
pub struct Watch {
    path: PathBuf,
    connection: Connection,
    last: RefCell<Option<(i64, Rc<Rows>)>>,
}

impl Watch {
    pub fn of(path: &Path) -> Self {
        let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
        Self {
            path: path.to_owned(),
            connection: Connection::open_with_flags(path, read_only).unwrap(),
            last: RefCell::new(None),
        }
    }

    /// The contents now.
    pub fn contents(&self) -> Rc<Rows> {
        // SQLite changes this number for a connection whenever another one has committed.
        let version = "pragma data_version";
        let version = self.connection.query_row(version, [], |row| row.get(0));
        let version: i64 = version.unwrap();
        if let Some((known, contents)) = &*self.last.borrow()
            && *known == version
        {
            return Rc::clone(contents);
        }
        let contents = Rc::new(rows(&self.path));
        *self.last.borrow_mut() = Some((version, Rc::clone(&contents)));
        contents
    }
}

/// Every row of the database.
pub fn rows(path: &Path) -> Rows {
    // One connection for all: some tests read all rows before and after each of many requests.
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let tables = "select name from sqlite_schema where type = 'table' and name not like 'sqlite%' order by name";
    let mut tables = conn.prepare(tables).unwrap();
    let tables = tables.query_map([], |row| row.get(0)).unwrap();
    tables
        .map(|table| {
            let table: String = table.unwrap();
            let rows = rows_of(&conn, &table);
            (table, rows)
        })
        .collect()
}

fn rows_of(conn: &Connection, table: &str) -> Vec<BTreeMap<String, Value>> {
    let columns = conn.prepare(&format!("select * from {table}")).unwrap();
    let order: Vec<String> = (1..=columns.column_count())
        .map(|at| at.to_string())
        .collect();
    let columns: Vec<String> = columns.column_names().map(ToString::to_string).collect();
    let sql = format!("select * from {table} order by {}", order.join(", "));
    let mut rows = conn.prepare(&sql).unwrap();
    let read = |row: &Row<'_>| {
        let columns = columns.iter().enumerate();
        columns
            .map(|(at, column)| Ok((column.clone(), row.get(at)?)))
            .collect()
    };
    let rows = rows.query_map([], read).unwrap();
    rows.map(Result::unwrap).collect()
}
