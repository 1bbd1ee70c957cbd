//! SQL calls for the API key, and for the keys that were rotated out.

use rusqlite::named_params;

use super::{CurrentKey, RetiredKey};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::security::secret::Secret;
use crate::sql;

pub(super) fn current(reader: &Reader<'_>) -> Result<Option<CurrentKey>> {
    reader.maybe(sql!("api_keys/current"), [], |row| {
        Ok(CurrentKey {
            client_name: row.get("client_name")?,
            key: Secret::new(row.get("api_key")?),
        })
    })
}

pub(super) fn set_current(tx: &Tx<'_>, key: &Secret<String>, now: UnixMs) -> Result<()> {
    let params = named_params! { ":api_key": key.reveal(), ":now_ms": now };
    tx.run(sql!("api_keys/set_current"), params).map(drop)
}

pub(super) fn retired(reader: &Reader<'_>) -> Result<Vec<RetiredKey>> {
    reader.list(sql!("api_keys/retired"), [], |row| {
        Ok(RetiredKey {
            key: Secret::new(row.get("api_key")?),
            valid_until: row.get("valid_until_ms")?,
        })
    })
}

pub(super) fn retire(tx: &Tx<'_>, key: &RetiredKey) -> Result<()> {
    let params = named_params! { ":api_key": key.key.reveal(), ":valid_until_ms": key.valid_until };
    tx.run(sql!("api_keys/retire"), params).map(drop)
}

pub(super) fn forget_retired(tx: &Tx<'_>, now: UnixMs) -> Result<()> {
    let params = named_params! { ":now_ms": now };
    tx.run(sql!("api_keys/forget_retired"), params).map(drop)
}
