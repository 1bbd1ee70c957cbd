//! Administrators and their logins in the database.

use rusqlite::types::{FromSqlError, Type};
use rusqlite::{Row, named_params};

use super::{Admin, Origin, Role, Session, Stage};
use crate::clock::UnixMs;
use crate::config::Language;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::{AdminId, AdminSessionId};
use crate::sql;

pub(super) fn insert(
    tx: &Tx<'_>,
    name: &str,
    role: Role,
    password_hash: &str,
    now: UnixMs,
) -> Result<AdminId> {
    let params = named_params! {
        ":name": name, ":role": role.word(), ":password_hash": password_hash, ":now_ms": now,
    };
    tx.insert(sql!("admins/insert"), params).map(AdminId)
}

pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Admin>> {
    reader.list(sql!("admins/list"), [], admin)
}

pub(super) fn count(reader: &Reader<'_>) -> Result<u32> {
    reader.one(sql!("admins/count"), [], |row| row.get(0))
}

pub(super) fn by_name(reader: &Reader<'_>, name: &str) -> Result<Option<Admin>> {
    reader.maybe(
        sql!("admins/by_name"),
        named_params! { ":name": name },
        admin,
    )
}

pub(super) fn password_hash(reader: &Reader<'_>, name: &str) -> Result<Option<String>> {
    let params = named_params! { ":name": name };
    reader.maybe(sql!("admins/password_hash"), params, |row| row.get(0))
}

pub(super) fn insert_session(
    tx: &Tx<'_>,
    id: AdminId,
    token_hash: &[u8; 32],
    stage: Stage,
    origin: &Origin,
    now: UnixMs,
) -> Result<()> {
    let params = named_params! {
        ":admin_id": id,
        ":token_hash": token_hash,
        ":stage": stage.word(),
        ":address": origin.address,
        ":browser": origin.browser,
        ":now_ms": now,
    };
    tx.run(sql!("admins/insert_session"), params).map(drop)
}

pub(super) fn remove_session(tx: &Tx<'_>, token_hash: &[u8; 32]) -> Result<()> {
    let params = named_params! { ":token_hash": token_hash };
    tx.run(sql!("admins/remove_session"), params).map(drop)
}

pub(super) fn session(
    reader: &Reader<'_>,
    token_hash: &[u8; 32],
) -> Result<Option<(Admin, Session)>> {
    let params = named_params! { ":token_hash": token_hash };
    reader.maybe(sql!("admins/session"), params, |row| {
        Ok((admin(row)?, login(row)?))
    })
}

pub(super) fn seen(tx: &Tx<'_>, id: AdminSessionId, now: UnixMs) -> Result<()> {
    let params = named_params! { ":admin_session_id": id, ":now_ms": now };
    tx.run(sql!("admins/seen"), params).map(drop)
}

impl Stage {
    /// The word in the file.
    const fn word(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Full => "full",
        }
    }
}

fn admin(row: &Row<'_>) -> rusqlite::Result<Admin> {
    let language: Option<String> = row.get("language")?;
    let role = Role::of_word(row.get_ref("role")?.as_str()?)
        .map_err(|error| unknown(&error.to_string()))?;
    Ok(Admin {
        id: row.get("admin_id")?,
        name: row.get("name")?,
        role,
        language: language.as_deref().and_then(Language::of_tag),
        single_keys: row.get("single_keys")?,
        has_totp: row.get("has_totp")?,
        created_at: row.get("created_at_ms")?,
    })
}

fn login(row: &Row<'_>) -> rusqlite::Result<Session> {
    Ok(Session {
        id: row.get("admin_session_id")?,
        stage: match row.get_ref("stage")?.as_str()? {
            "full" => Stage::Full,
            _ => Stage::Password,
        },
        address: row.get("address")?,
        browser: row.get("browser")?,
        created_at: row.get("session_created_at_ms")?,
        seen_at: row.get("seen_at_ms")?,
        proved_at: row.get("proved_at_ms")?,
    })
}

fn unknown(what: &str) -> rusqlite::Error {
    let cause = FromSqlError::Other(format!("an unknown {what}").into());
    rusqlite::Error::FromSqlConversionFailure(0, Type::Text, cause.into())
}
