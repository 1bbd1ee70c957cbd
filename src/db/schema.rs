//! The schema: its migrations, the version of a file, and what does not belong to it. `user_version` is the number of
//! applied migrations, `application_id` marks a license-server database.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;

use super::path_check::APPLICATION_ID;
use super::{pool, search_index};
use crate::error::{Doing, Error, Result};

/// All migrations, oldest first. A released one is never changed.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../sql/migrations/0001_init.sql"),
    include_str!("../../sql/migrations/0002_panel.sql"),
    include_str!("../../sql/migrations/0003_sites.sql"),
    include_str!("../../sql/migrations/0004_signing.sql"),
    include_str!("../../sql/migrations/0005_composed.sql"),
    include_str!("../../sql/migrations/0006_authority.sql"),
    include_str!("../../sql/migrations/0007_proxies.sql"),
    include_str!("../../sql/migrations/0008_folded_history.sql"),
    include_str!("../../sql/migrations/0009_folded_time.sql"),
    include_str!("../../sql/migrations/0010_action_operation.sql"),
    include_str!("../../sql/migrations/0011_running_sessions.sql"),
    include_str!("../../sql/migrations/0012_products.sql"),
    include_str!("../../sql/migrations/0013_trials.sql"),
    include_str!("../../sql/migrations/0014_privacy.sql"),
    include_str!("../../sql/migrations/0015_former_owners.sql"),
    include_str!("../../sql/migrations/0016_refusals.sql"),
    include_str!("../../sql/migrations/0017_search.sql"),
    include_str!("../../sql/migrations/0018_saved_filters.sql"),
    include_str!("../../sql/migrations/0019_figures.sql"),
    include_str!("../../sql/migrations/0020_counts.sql"),
    include_str!("../../sql/migrations/0021_time_zones.sql"),
    include_str!("../../sql/migrations/0022_lists.sql"),
    include_str!("../../sql/migrations/0023_timelines.sql"),
    include_str!("../../sql/migrations/0024_audit_lists.sql"),
    include_str!("../../sql/migrations/0025_refusal_search.sql"),
    include_str!("../../sql/migrations/0026_session_devices.sql"),
    include_str!("../../sql/migrations/0027_form_tokens.sql"),
    include_str!("../../sql/migrations/0028_default_language.sql"),
    include_str!("../../sql/migrations/0029_released_by_programs.sql"),
    include_str!("../../sql/migrations/0030_session_orders.sql"),
    include_str!("../../sql/migrations/0031_counts_one_by_one.sql"),
];
/// The schema version of this program.
pub const SCHEMA: u32 = 31;
const _: () = assert!(
    MIGRATIONS.len() == SCHEMA as usize,
    "SCHEMA counts MIGRATIONS"
);

/// The schema version of `conn`; at most [`SCHEMA`].
///
/// # Errors
/// [`Error::State`] if it is no license-server database, or one of a newer program.
pub(super) fn schema(conn: &Connection, path: &Path) -> Result<u32> {
    let pragma = |name: &str| conn.query_row(name, [], |row| row.get::<_, i64>(0));
    let name = path.display();
    let (whose, version) = match (
        pragma("pragma application_id"),
        pragma("pragma user_version"),
    ) {
        (Ok(whose), Ok(version)) => (whose, version),
        (Err(error), _) | (_, Err(error)) => return Err(pool::unreadable(path, error.into())),
    };
    if whose != i64::from(APPLICATION_ID) {
        return Err(Error::State(format!(
            "{name} is a database, but not one of license-server"
        )));
    }
    u32::try_from(version).ok().filter(|version| *version <= SCHEMA).ok_or_else(|| {
        Error::State(format!(
            "{name} has schema {version}, and this program supports only up to {SCHEMA}: start the \
             newer license-server that wrote it; nothing was changed"
        ))
    })
}

/// Differences between the schema of `conn` and that of a database of version `version` that this program creates.
/// A foreign trigger, view or table would take part in every query on it.
pub(super) fn foreign_objects(conn: &Connection, version: u32) -> Result<Vec<String>> {
    let ours = in_memory(version)?;
    let (ours, found) = (objects(&ours)?, objects(conn)?);
    let foreign = found
        .difference(&ours)
        .filter(|object| !object.is_allowed());
    let foreign = foreign.map(|object| {
        format!(
            "the {} {:?} does not belong to license-server",
            object.kind, object.name
        )
    });
    let missing = ours.difference(&found);
    let missing = missing.map(|object| {
        format!(
            "the {} {:?} is missing or altered",
            object.kind, object.name
        )
    });
    Ok(missing.chain(foreign).collect())
}

/// A row of `sqlite_schema`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Object {
    kind: String,
    name: String,
    table: String,
    sql: Option<String>,
}

impl Object {
    /// Tables that SQLite's `analyze` creates, and the two that Litestream adds to every file it replicates.
    fn is_allowed(&self) -> bool {
        let statistics = ["sqlite_stat1", "sqlite_stat4"].contains(&self.name.as_str());
        let sql = self.sql.as_deref().unwrap_or_default().to_ascii_lowercase();
        let litestream = [
            "create table _litestream_seq (id integer primary key, seq integer)",
            "create table _litestream_lock (id integer)",
        ];
        self.kind == "table" && (statistics || litestream.contains(&sql.as_str()))
    }
}

fn objects(conn: &Connection) -> Result<BTreeSet<Object>> {
    let mut rows = conn.prepare("select type, name, tbl_name, sql from sqlite_schema")?;
    let rows = rows.query_map([], |row| {
        Ok(Object {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            sql: row.get(3)?,
        })
    })?;
    let rows = rows.map(|object| {
        let mut object = object?;
        if search_index::is_part(&object.name) {
            // SQLite itself makes these tables, and another version of it may word them differently.
            object.sql = None;
        }
        Ok(object)
    });
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// An empty in-memory database of this schema version.
fn in_memory(version: u32) -> Result<Connection> {
    let conn = Connection::open_in_memory()?;
    pool::register_functions(&conn)?;
    let count = usize::try_from(version).unwrap_or(usize::MAX);
    for text in MIGRATIONS.iter().take(count) {
        conn.execute_batch(text).doing("make an empty schema")?;
    }
    Ok(conn)
}
