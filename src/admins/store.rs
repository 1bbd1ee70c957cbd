//! Administrators in the database.

use rusqlite::{Row, named_params};

use super::{Admin, Role};
use crate::audit::Act;
use crate::config::Language;
use crate::db::{Reader, Tx, unknown_value};
use crate::error::Result;
use crate::id::AdminId;
use crate::sql;
use crate::zone::Zone;

pub(super) fn insert(
    act: &Act<'_>,
    name: &str,
    role: Role,
    password_hash: &str,
) -> Result<AdminId> {
    let params = named_params! {
        ":name": name, ":role": role.as_str(), ":password_hash": password_hash, ":now_ms": act.now,
    };
    act.tx.insert(sql!("admins/insert"), params).map(AdminId)
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

pub(super) fn by_id(reader: &Reader<'_>, id: AdminId) -> Result<Option<Admin>> {
    let params = named_params! { ":admin_id": id };
    reader.maybe(sql!("admins/by_id"), params, admin)
}

pub(super) fn owners(reader: &Reader<'_>) -> Result<u32> {
    reader.one(sql!("admins/owners"), [], |row| row.get(0))
}

pub(super) fn set_role(tx: &Tx<'_>, id: AdminId, role: Role) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":role": role.as_str() };
    tx.run(sql!("admins/set_role"), params).map(drop)
}

pub(super) fn remove(tx: &Tx<'_>, id: AdminId) -> Result<()> {
    let params = named_params! { ":admin_id": id };
    tx.run(sql!("admins/remove"), params).map(drop)
}

/// Stores the preferences that `admin` has.
pub(super) fn set_preferences(tx: &Tx<'_>, admin: &Admin) -> Result<()> {
    let params = named_params! {
        ":admin_id": admin.id,
        ":language": admin.language.map(Language::tag),
        ":time_zone": admin.time_zone.as_ref().map(Zone::name),
        ":single_keys": admin.single_keys,
    };
    tx.run(sql!("admins/set_preferences"), params).map(drop)
}

fn admin(row: &Row<'_>) -> rusqlite::Result<Admin> {
    let language: Option<String> = row.get("language")?;
    let time_zone: Option<String> = row.get("time_zone")?;
    let role = Role::parse(row.get_ref("role")?.as_str()?)
        .map_err(|error| unknown_value(&error.to_string()))?;
    Ok(Admin {
        id: row.get("admin_id")?,
        name: row.get("name")?,
        role,
        language: language.as_deref().and_then(Language::from_tag),
        time_zone: time_zone.as_deref().and_then(Zone::named),
        single_keys: row.get("single_keys")?,
        has_totp: row.get("has_totp")?,
        created_at: row.get("created_at_ms")?,
        password_set_at: row.get("password_set_at_ms")?,
    })
}
