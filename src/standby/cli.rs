//! The command `promote`.

use std::path::Path;

use serde_json::json;

use super::Promotion;
use crate::backups::cli::{lost_text, lost_to_json, span};
use crate::backups::{LostChanges, in_words};
use crate::clock::UnixMs;
use crate::console::{self, OutputFormat};
use crate::error::Result;

/// Prints the result of a promotion, or of its check.
///
/// # Errors
/// If standard output cannot be written.
pub fn show(file: &Path, promotion: &Promotion, now: UnixMs, output: OutputFormat) -> Result<()> {
    let age = span(promotion.newest_change, now);
    if output == OutputFormat::Text {
        return console::text(&text(file, promotion, &in_words(age)));
    }
    let kept = promotion.restored.as_ref();
    console::json(&json!({
        "file": file,
        "promoted": promotion.restored.is_some(),
        "bytes": promotion.copied.bytes,
        "schema": promotion.copied.schema,
        "newest_change": promotion.newest_change.rfc3339(),
        "age_seconds": age.as_secs(),
        "sessions": promotion.sessions,
        "followed_by": promotion.followed_by,
        "kept": kept.and_then(|restored| restored.kept.as_ref()),
        "lost": lost_to_json(&promotion.lost),
    }))
}

fn text(file: &Path, promotion: &Promotion, age: &str) -> String {
    let Promotion {
        copied, sessions, ..
    } = promotion;
    let newest = promotion.newest_change.rfc3339();
    let file = file.display();
    let Some(restored) = &promotion.restored else {
        let followers = match promotion.followed_by.first() {
            Some(process) => format!("process {process} follows"),
            None => "no process that this user may see follows".to_owned(),
        };
        return format!(
            "{file} is sound: schema {}, {} bytes, the keys that it needs are here\n\
             its newest change is from {newest}, {age} ago; {followers}\n\
             {sessions} sessions would go on; nothing was changed\n",
            copied.schema, copied.bytes
        );
    };
    let kept = restored.kept.as_ref();
    let kept = kept.map(|kept| {
        format!(
            "the database that was here before is kept as {}\n",
            kept.display()
        )
    });
    let lost = (promotion.lost != LostChanges::NoFile)
        .then(|| format!("of that one, {}\n", lost_text(&promotion.lost)));
    format!(
        "{file} is now the database: schema {}, {} bytes\n\
         its newest change is from {newest}, {age} ago: what the other server acknowledged after that is lost\n\
         {sessions} sessions go on; administrators have to log in again\n{}{}\
         next: start this server, lead the name of the other one here, and see to it that the other one never starts again\n\
         next: let Litestream copy this database to a new replica, not to the old one\n",
        copied.schema,
        copied.bytes,
        kept.unwrap_or_default(),
        lost.unwrap_or_default()
    )
}
