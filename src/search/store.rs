//! SQL calls of the search; texts are looked up by the modules that own them.

use rusqlite::named_params;

use crate::db::Reader;
use crate::error::Result;
use crate::id::{SessionId, SessionToken};
use crate::sql;

pub(super) fn session_of_token(
    reader: &Reader<'_>,
    token: &SessionToken,
) -> Result<Option<SessionId>> {
    let params = named_params! { ":session_token": token };
    reader.maybe(sql!("search/session_of_token"), params, |row| {
        row.get("session_id")
    })
}
