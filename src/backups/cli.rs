//! The door for the operator on the machine: a copy out, a copy back in.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Lost, Restored, rules};
use crate::audit::Actor;
use crate::clock::UnixMs;
use crate::console::{self, Console};
use crate::error::Result;

/// Writes a copy to `file`, also while a server runs.
///
/// # Errors
/// As [`crate::db::Db::backup`].
pub fn backup(console: &Console, file: &Path) -> Result<()> {
    let copied = console.db.backup(file)?;
    let line = format!(
        "{} bytes written and checked: {}",
        copied.bytes,
        file.display()
    );
    console.tell(
        &json!({ "file": file, "bytes": copied.bytes, "schema": copied.schema }),
        &line,
    )
}

/// Makes the copy `file` the database at `path`, and says what that costs.
///
/// # Errors
/// As [`super::restore`].
pub fn restore(file: &Path, path: &Path, user: &str, now: UnixMs, json: bool) -> Result<()> {
    let restored = super::restore(file, path, &Actor::command_line(user), now)?;
    if json {
        return console::json(&json!({ "database": path, "restored": document(&restored) }));
    }
    console::text(&lines(file, &restored))
}

fn document(restored: &Restored) -> Value {
    let mut document = json!(restored.file);
    let lost = match &restored.lost {
        Lost::NoFile => Value::Null,
        Lost::Span(from, until) => json!({
            "from": from.rfc3339(), "until": until.rfc3339(), "seconds": span(*from, *until).as_secs(),
        }),
        Lost::Unknown(from, reason) => {
            json!({ "from": from.rfc3339(), "until": null, "reason": reason })
        }
    };
    if let Some(map) = document.as_object_mut() {
        map.insert("lost".to_owned(), lost);
        map.insert("sessions_ended".to_owned(), restored.sessions_ended.into());
    }
    document
}

fn lines(file: &Path, restored: &Restored) -> String {
    let kept = restored.file.kept.as_ref();
    let kept = kept.map(|kept| format!("; the old one is kept as {}", kept.display()));
    let lost = match &restored.lost {
        Lost::NoFile => "there was no database in its place".to_owned(),
        Lost::Span(from, until) if from >= until => {
            "nothing is lost: the copy is as new as the database that it replaces".to_owned()
        }
        Lost::Span(from, until) => format!(
            "lost is what was done from {} to {}, {}: it is only in the old one",
            from.rfc3339(),
            until.rfc3339(),
            rules::words(span(*from, *until)),
        ),
        Lost::Unknown(from, reason) => format!(
            "lost is what was done after {}; until when cannot be told: {reason}",
            from.rfc3339()
        ),
    };
    format!(
        "{} is the database now{}\n{lost}\n{} sessions of the copy were ended: their programs are told, and \
         start anew\n",
        file.display(),
        kept.unwrap_or_default(),
        restored.sessions_ended,
    )
}

fn span(from: UnixMs, until: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(until.0.saturating_sub(from.0)).unwrap_or(0))
}
