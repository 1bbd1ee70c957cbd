//! What the stage of a test is set with: settings, commands before the start, looks into the file.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::types::FromSql;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::support::Server;

/// The command that gives a group of limits so many calls a minute, and so many at once.
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

/// The command after which a program may call once a minute.
pub const ONE_A_MINUTE: &[&str] = &limit("client", "1", "1");
/// Sweeps so late that no test ever sees it.
pub const NO_SWEEP: (&str, &str) = ("SESSIONS__CLEANUP_INTERVAL", "3600");
pub const AUTO_ACTIVATE: (&str, &str) = ("SESSIONS__AUTO_ACTIVATE", "true");
/// A session is over after two seconds of silence.
pub const HURRY: &[&str] = &["config", "set", "heartbeat_interval=1", "session_timeout=2"];
pub const SILENCE: Duration = Duration::from_secs(2);
/// No license starts too often.
pub const MANY_STARTS: (&str, &str) = ("SESSIONS__STARTS_PER_MINUTE", "0");
/// Every session that ended stays in a row of its own.
pub const WHOLE_HISTORY: (&str, &str) = ("SESSIONS__HISTORY_PER_DAY", "0");
pub const NO_LIMIT: &[&str] = &["limit", "set", "client", "--per-minute", "0"];

/// Whether a program gets its answer.
pub fn answers(server: &Server) -> bool {
    let version = server.client().get("/api/license/version?version=1.0.0");
    version.status == 200
}

/// A running server on whose file these commands were run before its start.
pub fn started(settings: &[(&str, &str)], commands: &[&[&str]]) -> Server {
    let mut server = Server::prepare(settings);
    for command in commands {
        server.json(command);
    }
    server.run();
    server
}

/// The one value that `sql` gives.
pub fn value<T: FromSql>(server: &Server, sql: &str) -> T {
    let conn = Connection::open_with_flags(server.database(), OpenFlags::SQLITE_OPEN_READ_ONLY);
    let value = conn.unwrap().query_row(sql, [], |row| row.get(0));
    value.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// Changes the file as a hand with the sqlite3 shell does.
pub fn change(server: &Server, sql: &str) {
    let conn = Connection::open(server.database()).unwrap();
    conn.busy_timeout(Duration::from_secs(10)).unwrap();
    conn.execute_batch(sql).unwrap();
}

/// Milliseconds of this machine's clock.
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

/// Runs a scene that depends on this machine being quick enough, again where it says so by none.
pub fn unless_too_slow(scene: impl Fn() -> Option<()>) {
    let seen = (0..10).any(|_| scene().is_some());
    assert!(seen, "this machine is too slow to tell");
}

/// A key that is well formed, and no license's.
pub const UNKNOWN: &str = "00000-00000-00000-00000-00000";

/// Runs `deed` in `count` threads that set off together; what each of them got.
pub fn together<T: Send>(count: usize, deed: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let barrier = std::sync::Barrier::new(count);
    let run = |number| {
        barrier.wait();
        deed(number)
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

/// The running sessions, as `session list` has them.
pub fn running(server: &Server) -> Vec<Value> {
    server.json(&["session", "list"])["sessions"]
        .as_array()
        .unwrap()
        .clone()
}

/// The sessions that ended within the hour, the latest first.
pub fn ended(server: &Server) -> Vec<Value> {
    server.json(&["session", "history", "--hours", "48"])["sessions"]
        .as_array()
        .unwrap()
        .clone()
}

/// How each of them ended, the latest first.
pub fn end_reasons(server: &Server) -> Vec<String> {
    ended(server)
        .iter()
        .map(|ended| ended["end_reason"].as_str().unwrap().to_owned())
        .collect()
}

/// Every form in which a secret could be written down.
pub fn forms(secret: &str) -> Vec<String> {
    let bare = secret.replace('-', "");
    let mut forms = vec![
        secret.to_owned(),
        bare.clone(),
        secret.to_lowercase(),
        bare.to_lowercase(),
    ];
    // As bytes, as a debug print of them would have it.
    let bytes = format!("{:?}", secret.as_bytes());
    forms.push(bytes.trim_matches(['[', ']']).to_owned());
    forms
}
