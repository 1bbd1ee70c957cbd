//! SQL calls for the public keys of the signing keys, and for the trusted authority.

use rusqlite::named_params;

use super::SigningKeyRow;
use super::rules::Role;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx, unknown_value};
use crate::error::Result;
use crate::security::signing::PublicKey;
use crate::sql;
use crate::tls::TrustedAuthority;

pub(super) fn all(reader: &Reader<'_>) -> Result<Vec<SigningKeyRow>> {
    reader.list(sql!("signing_keys/all"), [], |row| {
        Ok(SigningKeyRow {
            public: PublicKey(row.get("public_key")?),
            role: Role::parse(row.get_ref("role")?.as_str()?)
                .ok_or_else(|| unknown_value("role of a signing key"))?,
            retired_at: row.get("retired_at_ms")?,
        })
    })
}

pub(super) fn insert(tx: &Tx<'_>, public: &PublicKey, role: Role) -> Result<()> {
    let params = named_params! { ":public_key": public.0, ":role": role.as_str() };
    tx.run(sql!("signing_keys/insert"), params).map(drop)
}

pub(super) fn promote(tx: &Tx<'_>, public: &PublicKey) -> Result<()> {
    let params = named_params! { ":public_key": public.0 };
    tx.run(sql!("signing_keys/promote"), params).map(drop)
}

pub(super) fn retire(tx: &Tx<'_>, public: &PublicKey, now: UnixMs) -> Result<()> {
    let params = named_params! { ":public_key": public.0, ":now_ms": now };
    tx.run(sql!("signing_keys/retire"), params).map(drop)
}

pub(super) fn forget(tx: &Tx<'_>, before: UnixMs) -> Result<()> {
    let params = named_params! { ":before_ms": before };
    tx.run(sql!("signing_keys/forget"), params).map(drop)
}

pub(super) fn authority(reader: &Reader<'_>) -> Result<TrustedAuthority> {
    let row = reader.one(sql!("signing_keys/authority"), [], |row| {
        let served = row.get::<_, i64>("started_at_ms")? > 0;
        let key: Option<Vec<u8>> = row.get("authority")?;
        Ok((key, served))
    });
    Ok(match row? {
        (None, true) => TrustedAuthority::Unknown,
        (None, false) => TrustedAuthority::None,
        // Empty: recorded that there was none yet.
        (Some(key), _) => key
            .try_into()
            .map_or(TrustedAuthority::None, TrustedAuthority::Key),
    })
}

pub(super) fn set_authority(tx: &Tx<'_>, key: &[u8]) -> Result<()> {
    let params = named_params! { ":authority": key };
    tx.run(sql!("signing_keys/set_authority"), params).map(drop)
}
