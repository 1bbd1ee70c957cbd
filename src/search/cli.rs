//! The command `reindex`.

use serde_json::json;

use crate::console::Console;
use crate::error::Result;

/// Makes the index of the search anew.
///
/// # Errors
/// The errors of [`Db::reindex`](crate::db::Db::reindex).
pub fn reindex(console: &Console) -> Result<()> {
    let done = console.db.reindex()?;
    let seconds = done.took_ms.div_ceil(1000);
    let line = format!(
        "the search index was made anew in {seconds} s; restart the server if it reported damage"
    );
    console.show_line(&json!(done), &line)
}
