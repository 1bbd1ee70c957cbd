//! The second factor of an administrator (TOTP, RFC 6238) and its recovery codes: set up, confirm, use, switch off.

use serde_json::{Value, json};

use super::{Refusal, end_all, store};
use crate::admins::Admin;
use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::AdminId;
use crate::security::secret::Secret;
use crate::security::totp::{self, SharedSecret, TypedCode};

/// The stored second factor of an administrator.
#[derive(Clone, Debug, Default)]
pub(super) struct TotpState {
    /// The secret shared with the authenticator app; `None` without a second factor.
    pub(super) secret: Option<SharedSecret>,
    /// A secret that was shown and is not confirmed yet.
    pub(super) pending: Option<SharedSecret>,
    /// The time step of the last accepted code: a code is accepted only for a later step.
    pub(super) used_step: i64,
    /// Number of unused recovery codes.
    pub(super) codes: u32,
}

/// A code as it was typed.
#[derive(Clone, Debug)]
pub struct SecondFactor {
    /// A one-time code or a recovery code.
    pub typed: TypedCode,
    /// When it was typed, by the system clock and not the trusted one: authenticator apps use system time, too.
    pub at: UnixMs,
}

impl SecondFactor {
    /// Accepts the code, which cannot be used again.
    ///
    /// # Errors
    /// [`Refusal::WrongCode`].
    pub(super) fn redeem(&self, tx: &Tx<'_>, id: AdminId) -> Result<()> {
        let accepted = match &self.typed {
            TypedCode::Recovery(digest) => store::use_code(tx, id, digest)? > 0,
            TypedCode::Code(code) => {
                let state = store::totp_state(tx, id)?.unwrap_or_default();
                let step = match &state.secret {
                    Some(shared) => {
                        totp::matching_step(shared, code.reveal(), self.at.0, state.used_step)?
                    }
                    None => None,
                };
                if let Some(step) = step {
                    store::use_step(tx, id, step)?;
                }
                step.is_some()
            }
        };
        if accepted {
            Ok(())
        } else {
            Err(Refusal::WrongCode.into())
        }
    }
}

/// The second factor of the administrator `id`; [`TotpState::default`] without one.
pub(super) fn load(reader: &Reader<'_>, id: AdminId) -> Result<TotpState> {
    Ok(store::totp_state(reader, id)?.unwrap_or_default())
}

/// Stores a secret that waits for its first code; it replaces an older unconfirmed one. Does nothing if the
/// administrator has a second factor already: a concurrent request may just have confirmed one.
pub(super) fn offer(tx: &Tx<'_>, id: AdminId, shared: &SharedSecret) -> Result<()> {
    if load(tx, id)?.secret.is_some() {
        return Ok(());
    }
    store::set_pending(tx, id, shared)
}

/// Recovery codes as they are shown, each with the digest that is stored.
pub(super) type RecoveryCodes = Vec<(Secret<String>, [u8; 32])>;

/// Makes the pending secret the second factor, if `code` is one of its codes. `codes` replace all recovery codes.
///
/// # Errors
/// [`Refusal::NoPendingSecondFactor`], [`Refusal::WrongCode`].
pub(super) fn confirm(
    tx: &Tx<'_>,
    admin: &Admin,
    (code, at): (&str, UnixMs),
    codes: &RecoveryCodes,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let state = load(tx, admin.id)?;
    let pending = state.pending.ok_or(Refusal::NoPendingSecondFactor)?;
    let one_time_code = match TypedCode::parse(code) {
        TypedCode::Code(one_time_code) => one_time_code,
        TypedCode::Recovery(_) => return Err(Refusal::WrongCode.into()),
    };
    let step = totp::matching_step(&pending, one_time_code.reveal(), at.0, 0)?
        .ok_or(Refusal::WrongCode)?;
    store::confirm_pending(tx, admin.id, step)?;
    replace_codes(tx, admin.id, codes)?;
    let (before, after) = (audit_facts(state.secret.is_some()), audit_facts(true));
    let change = Change {
        action: "admins.set_totp",
        subject: &admin.name,
        before,
        after,
    };
    audit::note(tx, now, actor, &change)
}

/// Replaces the recovery codes.
///
/// # Errors
/// [`Refusal::NoPendingSecondFactor`] without a second factor: a concurrent request may just have removed it.
pub(super) fn renew_codes(
    tx: &Tx<'_>,
    admin: &Admin,
    codes: &RecoveryCodes,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    if load(tx, admin.id)?.secret.is_none() {
        return Err(Refusal::NoPendingSecondFactor.into());
    }
    replace_codes(tx, admin.id, codes)?;
    let after = json!({ "recovery_codes": codes.len() });
    let change = Change {
        action: "admins.renew_codes",
        subject: &admin.name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &change)
}

fn replace_codes(tx: &Tx<'_>, id: AdminId, codes: &RecoveryCodes) -> Result<()> {
    store::drop_codes(tx, id)?;
    for (_, digest) in codes {
        store::insert_code(tx, id, digest)?;
    }
    Ok(())
}

/// Switches the second factor of `admin` off. Without one, only the audit entry is written.
pub(super) fn switch_off(tx: &Tx<'_>, admin: &Admin, actor: &Actor, now: UnixMs) -> Result<()> {
    let (before, after) = (
        audit_facts(load(tx, admin.id)?.secret.is_some()),
        audit_facts(false),
    );
    store::drop_factor(tx, admin.id)?;
    store::drop_codes(tx, admin.id)?;
    let change = Change {
        action: "admins.reset_totp",
        subject: &admin.name,
        before,
        after,
    };
    audit::note(tx, now, actor, &change)
}

/// Removes a second factor that `admin` has lost, and ends all logins of `admin`.
pub fn reset_totp(tx: &Tx<'_>, admin: &Admin, actor: &Actor, now: UnixMs) -> Result<()> {
    switch_off(tx, admin, actor, now)?;
    end_all(tx, admin.id)
}

fn audit_facts(has_totp: bool) -> Value {
    json!({ "second_factor": has_totp })
}
