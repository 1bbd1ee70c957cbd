//! Helpers that prepare a test and inspect its server: settings, commands before the start, lists of sessions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{Server, files_below};

/// The command that sets a rate limit.
pub const fn limit<'a>(group: &'a str, per_minute: &'a str, burst: &'a str) -> [&'a str; 7] {
    [
        "limit",
        "set",
        group,
        "--per-minute",
        per_minute,
        "--burst",
        burst,
    ]
}

/// The command that limits programs to one call a minute.
pub const ONE_A_MINUTE: &[&str] = &limit("client", "1", "1");
/// Delays the sweep of timed-out sessions beyond the end of every test.
pub const NO_SWEEP: (&str, &str) = ("SESSIONS__CLEANUP_INTERVAL", "3600");
pub const AUTO_ACTIVATE: (&str, &str) = ("SESSIONS__AUTO_ACTIVATE", "true");
/// The command that lets a session time out after two seconds without a heartbeat.
pub const SHORT_TIMEOUT: &[&str] = &["config", "set", "heartbeat_interval=1", "session_timeout=2"];
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// No limit on the starts of one license.
pub const MANY_STARTS: (&str, &str) = ("SESSIONS__STARTS_PER_MINUTE", "0");
/// No limit on the ended sessions that are stored one by one.
pub const WHOLE_HISTORY: (&str, &str) = ("SESSIONS__HISTORY_PER_DAY", "0");
pub const NO_LIMIT: &[&str] = &["limit", "set", "client", "--per-minute", "0"];

/// Whether the server responds to a program.
pub fn responds(server: &Server) -> bool {
    let version = server.client().get("/api/license/version?version=1.0.0");
    version.status == 200
}

/// A server that is started after these commands were run on its database.
pub fn started(settings: &[(&str, &str)], commands: &[&[&str]]) -> Server {
    let mut server = Server::prepare(settings);
    for command in commands {
        server.json(command);
    }
    server.run();
    server
}

/// The system clock in Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Waits until `span` after `since` has passed.
pub fn wait_until(since: Instant, span: Duration) {
    while let Some(left) = span
        .checked_sub(since.elapsed())
        .filter(|left| !left.is_zero())
    {
        std::thread::park_timeout(left);
    }
}

/// Runs a test that needs a fast enough machine, and repeats it while it returns `None`.
pub fn retry_while_too_slow(test: impl Fn() -> Option<()>) {
    let completed = (0..10).any(|_| test().is_some());
    assert!(completed, "this machine is too slow for the test");
}

/// A well-formed key that no license has.
pub const UNKNOWN: &str = "00000-00000-00000-00000-00000";

/// Runs `operation` in `count` threads that start at the same moment; returns their results.
pub fn run_together<T: Send>(count: usize, operation: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = std::sync::Barrier::new(count);
    let run = |number| {
        barrier.wait();
        operation(number)
    };
    let run = &run;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
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
