//! Logins, second factors and known browsers in the database.

use rusqlite::{Row, named_params};

use super::{Account, NewLogin, Session, Stage, TotpState, digest};
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::{AdminId, AdminSessionId};
use crate::security::totp::SharedSecret;
use crate::sql;

pub(super) fn totp_state(reader: &Reader<'_>, id: AdminId) -> Result<Option<TotpState>> {
    let params = named_params! { ":admin_id": id };
    reader.maybe(sql!("logins/totp_state"), params, |row| {
        let secret = |column| -> rusqlite::Result<Option<SharedSecret>> {
            let bytes: Option<Vec<u8>> = row.get(column)?;
            Ok(bytes.map(SharedSecret::new))
        };
        Ok(TotpState {
            secret: secret("totp_secret")?,
            pending: secret("totp_pending")?,
            used_step: row.get("totp_last_step")?,
            codes: row.get("codes")?,
        })
    })
}

pub(super) fn set_pending(tx: &Tx<'_>, id: AdminId, shared: &SharedSecret) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":totp_pending": shared.reveal() };
    tx.run(sql!("logins/set_pending"), params).map(drop)
}

pub(super) fn confirm_pending(tx: &Tx<'_>, id: AdminId, step: i64) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":step": step };
    tx.run(sql!("logins/confirm_pending"), params).map(drop)
}

pub(super) fn drop_factor(tx: &Tx<'_>, id: AdminId) -> Result<()> {
    let params = named_params! { ":admin_id": id };
    tx.run(sql!("logins/drop_factor"), params).map(drop)
}

pub(super) fn use_step(tx: &Tx<'_>, id: AdminId, step: i64) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":step": step };
    tx.run(sql!("logins/use_step"), params).map(drop)
}

pub(super) fn insert_code(tx: &Tx<'_>, id: AdminId, digest: &[u8; 32]) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":code_hash": digest };
    tx.run(sql!("logins/insert_code"), params).map(drop)
}

pub(super) fn use_code(tx: &Tx<'_>, id: AdminId, digest: &[u8; 32]) -> Result<usize> {
    let params = named_params! { ":admin_id": id, ":code_hash": digest };
    tx.run(sql!("logins/use_code"), params)
}

pub(super) fn drop_codes(tx: &Tx<'_>, id: AdminId) -> Result<()> {
    let params = named_params! { ":admin_id": id };
    tx.run(sql!("logins/drop_codes"), params).map(drop)
}

pub(super) fn sessions_of(reader: &Reader<'_>, id: AdminId) -> Result<Vec<Session>> {
    let params = named_params! { ":admin_id": id };
    reader.list(sql!("logins/sessions_of"), params, login)
}

pub(super) fn remove_session_of(tx: &Tx<'_>, id: AdminId, login: AdminSessionId) -> Result<usize> {
    let params = named_params! { ":admin_id": id, ":admin_session_id": login };
    tx.run(sql!("logins/remove_session_of"), params)
}

pub(super) fn remove_other_sessions(
    tx: &Tx<'_>,
    id: AdminId,
    own: AdminSessionId,
) -> Result<usize> {
    let params = named_params! { ":admin_id": id, ":own": own };
    tx.run(sql!("logins/remove_other_sessions"), params)
}

pub(super) fn mark_reauthenticated(tx: &Tx<'_>, login: AdminSessionId, now: UnixMs) -> Result<()> {
    let params = named_params! { ":admin_session_id": login, ":now_ms": now };
    tx.run(sql!("logins/mark_reauthenticated"), params)
        .map(drop)
}

pub(super) fn purge_sessions(
    tx: &Tx<'_>,
    created: UnixMs,
    seen: UnixMs,
    incomplete: UnixMs,
) -> Result<usize> {
    let params =
        named_params! { ":created_ms": created, ":seen_ms": seen, ":incomplete_ms": incomplete };
    tx.run(sql!("logins/purge_sessions"), params)
}

pub(super) fn purge_browsers(tx: &Tx<'_>, seen: UnixMs) -> Result<()> {
    let params = named_params! { ":seen_ms": seen };
    tx.run(sql!("logins/purge_browsers"), params).map(drop)
}

pub(super) fn knows_browser(reader: &Reader<'_>, digest: &[u8; 32], name: &str) -> Result<bool> {
    let params = named_params! { ":token_hash": digest, ":name": name };
    reader.one(sql!("logins/knows_browser"), params, |row| row.get(0))
}

pub(super) fn browser_is_known(reader: &Reader<'_>, digest: &[u8; 32]) -> Result<bool> {
    let params = named_params! { ":token_hash": digest };
    let known: u32 = reader.one(sql!("logins/browser_is_known"), params, |row| row.get(0))?;
    Ok(known > 0)
}

pub(super) fn remember_browser(
    tx: &Tx<'_>,
    digest: &[u8; 32],
    id: AdminId,
    now: UnixMs,
) -> Result<()> {
    let params = named_params! { ":token_hash": digest, ":admin_id": id, ":now_ms": now };
    tx.run(sql!("logins/remember_browser"), params).map(drop)
}

pub(super) fn trim_browsers(tx: &Tx<'_>, id: AdminId, keep: u32) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":keep": keep };
    tx.run(sql!("logins/trim_browsers"), params).map(drop)
}

pub(super) fn forget_browsers(tx: &Tx<'_>, id: AdminId) -> Result<()> {
    let params = named_params! { ":admin_id": id };
    tx.run(sql!("logins/forget_browsers"), params).map(drop)
}

pub(super) fn insert_session(
    act: &Act<'_>,
    id: AdminId,
    new_login: &NewLogin,
    stage: Stage,
) -> Result<()> {
    let params = named_params! {
        ":admin_id": id,
        ":token_hash": digest(new_login.token.reveal()),
        ":stage": stage.as_str(),
        ":address": new_login.origin.address,
        ":browser": new_login.origin.browser,
        ":now_ms": act.now,
    };
    act.tx.run(sql!("logins/insert_session"), params).map(drop)
}

pub(super) fn insert_form_token(act: &Act<'_>, id: AdminId, digest: &[u8; 32]) -> Result<()> {
    let params = named_params! { ":token_hash": digest, ":admin_id": id, ":now_ms": act.now };
    act.tx
        .run(sql!("logins/insert_form_token"), params)
        .map(drop)
}

pub(super) fn form_owner(reader: &Reader<'_>, digest: &[u8; 32]) -> Result<Option<AdminId>> {
    let params = named_params! { ":token_hash": digest };
    reader.maybe(sql!("logins/form_owner"), params, |row| row.get(0))
}

pub(super) fn purge_form_tokens(tx: &Tx<'_>, created: UnixMs) -> Result<()> {
    let params = named_params! { ":created_ms": created };
    tx.run(sql!("logins/purge_form_tokens"), params).map(drop)
}

pub(super) fn forget_form_tokens(tx: &Tx<'_>, id: AdminId) -> Result<()> {
    let params = named_params! { ":admin_id": id };
    tx.run(sql!("logins/forget_form_tokens"), params).map(drop)
}

pub(super) fn remove_session(tx: &Tx<'_>, token_hash: &[u8; 32]) -> Result<()> {
    let params = named_params! { ":token_hash": token_hash };
    tx.run(sql!("logins/remove_session"), params).map(drop)
}

pub(super) fn session(
    reader: &Reader<'_>,
    token_hash: &[u8; 32],
) -> Result<Option<(AdminId, Session)>> {
    let params = named_params! { ":token_hash": token_hash };
    reader.maybe(sql!("logins/session"), params, |row| {
        Ok((row.get("admin_id")?, login(row)?))
    })
}

pub(super) fn mark_seen(tx: &Tx<'_>, id: AdminSessionId, now: UnixMs) -> Result<()> {
    let params = named_params! { ":admin_session_id": id, ":now_ms": now };
    tx.run(sql!("logins/mark_seen"), params).map(drop)
}

pub(super) fn account(reader: &Reader<'_>, id: AdminId) -> Result<Option<Account>> {
    let params = named_params! { ":admin_id": id };
    reader.maybe(sql!("logins/account"), params, account_of_row)
}

pub(super) fn account_named(reader: &Reader<'_>, name: &str) -> Result<Option<Account>> {
    let params = named_params! { ":name": name };
    reader.maybe(sql!("logins/account_named"), params, account_of_row)
}

fn account_of_row(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get("admin_id")?,
        name: row.get("name")?,
        has_totp: row.get("has_totp")?,
        password_hash: row.get("password_hash")?,
    })
}

pub(super) fn set_password(tx: &Tx<'_>, id: AdminId, hash: &str, now: UnixMs) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":password_hash": hash, ":now_ms": now };
    tx.run(sql!("logins/set_password"), params).map(drop)
}

pub(super) fn rehash(tx: &Tx<'_>, id: AdminId, hash: &str) -> Result<()> {
    let params = named_params! { ":admin_id": id, ":password_hash": hash };
    tx.run(sql!("logins/rehash"), params).map(drop)
}

impl Stage {
    /// Its name in the database.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Full => "full",
        }
    }
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
