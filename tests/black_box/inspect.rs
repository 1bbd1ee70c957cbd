//! What tests read from their server: sessions, errors, the files of its data folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Server, files_below};

/// Whether the server responds to a program.
pub fn responds(server: &Server) -> bool {
    let version = server.client().get("/api/license/version?version=1.0.0");
    version.status == 200
}

/// The running sessions, as `session list` prints them.
pub fn running(server: &Server) -> Vec<Value> {
    server.json(&["session", "list"])["sessions"]
        .as_array()
        .unwrap()
        .clone()
}

/// The sessions that ended within two days, newest first.
pub fn ended(server: &Server) -> Vec<Value> {
    server.json(&["session", "history", "--hours", "48"])["sessions"]
        .as_array()
        .unwrap()
        .clone()
}

/// How each of them ended, newest first.
pub fn end_reasons(server: &Server) -> Vec<String> {
    ended(server)
        .iter()
        .map(|ended| ended["end_reason"].as_str().unwrap().to_owned())
        .collect()
}

/// Every spelling in which a secret could be stored or logged.
pub fn spellings(secret: &str) -> Vec<String> {
    let bare = secret.replace('-', "");
    let mut spellings = vec![
        secret.to_owned(),
        bare.clone(),
        secret.to_lowercase(),
        bare.to_lowercase(),
    ];
    // The bytes as numbers, as `{:?}` prints them.
    let bytes = format!("{:?}", secret.as_bytes());
    spellings.push(bytes.trim_matches(['[', ']']).to_owned());
    spellings
}

/// Runs a command that must fail with status 1, and returns its error output.
pub fn error_of(server: &Server, arguments: &[&str]) -> String {
    let output = server.cli(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
    message
}

/// The content of every file below `data`, except files that SQLite keeps beside an open database.
pub fn data_files(server: &Server) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files_below(&server.path("data"));
    let files = files.into_iter().filter(|path| path.is_file());
    let own = files.filter(|path| {
        let name = path.to_string_lossy();
        !["shm", "wal", "lock"].iter().any(|end| name.ends_with(end))
    });
    own.map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}
