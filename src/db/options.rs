//! How to open the database.

use std::path::PathBuf;

/// When a commit counts as durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// After the disk confirms it: a power cut loses nothing that was acknowledged.
    Full,
    /// After the operating system accepted it: a power cut may lose the last commits.
    Normal,
}

/// How to open the database.
#[derive(Clone, Debug)]
pub struct Options {
    /// The database file.
    pub path: PathBuf,
    /// When a commit counts as durable.
    pub synchronous: Synchronous,
    /// Connections in the read pool; at least 1.
    pub read_connections: u32,
}

#[cfg(test)]
impl Options {
    /// A database in the folder of a test.
    pub(crate) fn in_folder(folder: &std::path::Path) -> Self {
        Self {
            path: folder.join("t.sqlite3"),
            synchronous: Synchronous::Full,
            read_connections: 1,
        }
    }
}
