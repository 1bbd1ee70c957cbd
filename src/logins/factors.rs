//! The second factor of an administrator (TOTP, RFC 6238) and its recovery codes: set up, confirm, use, switch off.

use serde_json::{Value, json};

use super::{
    Account, CheckedPassword, CurrentLogin, Refusal, TotpState, account, end_all,
    require_reauthentication, store,
};
use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::AdminId;
use crate::security::secret::Secret;
use crate::security::totp::{self, SharedSecret, TypedCode};

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
///
/// # Errors
/// [`Refusal::ReauthenticationRequired`].
pub(super) fn offer(act: &Act<'_>, id: AdminId, shared: &SharedSecret) -> Result<()> {
    require_reauthentication(act)?;
    if load(act.tx, id)?.secret.is_some() {
        return Ok(());
    }
    store::set_pending(act.tx, id, shared)
}

/// Recovery codes as they are shown, each with the digest that is stored.
pub(super) type RecoveryCodes = Vec<(Secret<String>, [u8; 32])>;

/// The first code of a new second factor, as it was typed.
#[derive(Clone, Debug)]
pub(super) struct FirstCode {
    /// The code.
    pub(super) typed: String,
    /// When it was typed, by the system clock.
    pub(super) at: UnixMs,
}

/// Makes the pending secret the second factor, if `code` is one of its codes. `codes` replace all recovery codes.
///
/// # Errors
/// [`Refusal::NoPendingSecondFactor`], [`Refusal::WrongCode`].
pub(super) fn confirm(
    act: &Act<'_>,
    id: AdminId,
    code: &FirstCode,
    codes: &RecoveryCodes,
) -> Result<()> {
    let state = load(act.tx, id)?;
    let pending = state.pending.ok_or(Refusal::NoPendingSecondFactor)?;
    let one_time_code = match TypedCode::parse(&code.typed) {
        TypedCode::Code(one_time_code) => one_time_code,
        TypedCode::Recovery(_) => return Err(Refusal::WrongCode.into()),
    };
    let step = totp::matching_step(&pending, one_time_code.reveal(), code.at.0, 0)?
        .ok_or(Refusal::WrongCode)?;
    store::confirm_pending(act.tx, id, step)?;
    replace_codes(act.tx, id, codes)?;
    let (before, after) = (
        json!({ "second_factor": state.secret.is_some() }),
        json!({ "second_factor": true }),
    );
    act.note(&Change {
        action: "admins.set_totp",
        subject: &account(act.tx, id)?.name,
        before,
        after,
    })
}

/// Replaces the recovery codes.
///
/// # Errors
/// [`Refusal::NoPendingSecondFactor`] without a second factor: a concurrent request may just have removed it.
/// [`Refusal::ReauthenticationRequired`].
pub(super) fn renew_codes(act: &Act<'_>, id: AdminId, codes: &RecoveryCodes) -> Result<()> {
    require_reauthentication(act)?;
    if load(act.tx, id)?.secret.is_none() {
        return Err(Refusal::NoPendingSecondFactor.into());
    }
    replace_codes(act.tx, id, codes)?;
    let after = json!({ "recovery_codes": codes.len() });
    act.note(&Change {
        action: "admins.renew_codes",
        subject: &account(act.tx, id)?.name,
        before: Value::Null,
        after,
    })
}

fn replace_codes(tx: &Tx<'_>, id: AdminId, codes: &RecoveryCodes) -> Result<()> {
    store::drop_codes(tx, id)?;
    for (_, digest) in codes {
        store::insert_code(tx, id, digest)?;
    }
    Ok(())
}

/// Switches the second factor of an administrator off at their own request. Without one, only the audit entry is
/// written.
///
/// # Errors
/// [`Refusal::ReauthenticationRequired`], [`Refusal::WrongPassword`] if the password was changed meanwhile,
/// [`Refusal::NotLoggedIn`].
pub(super) fn switch_off(
    act: &Act<'_>,
    login: CurrentLogin,
    checked: &CheckedPassword,
) -> Result<()> {
    require_reauthentication(act)?;
    let account = checked.check_unchanged(act.tx)?;
    login.check_active(act.tx)?;
    drop_factor(act, &account)
}

/// Removes a second factor that the administrator `id` has lost, and ends all logins of the account.
///
/// # Errors
/// [`Refusal::ReauthenticationRequired`], [`crate::error::Error::NotFound`] if the id is unknown.
pub fn reset_totp(act: &Act<'_>, id: AdminId) -> Result<()> {
    require_reauthentication(act)?;
    drop_factor(act, &account(act.tx, id)?)?;
    end_all(act.tx, id)
}

fn drop_factor(act: &Act<'_>, account: &Account) -> Result<()> {
    let had_one = load(act.tx, account.id)?.secret.is_some();
    store::drop_factor(act.tx, account.id)?;
    store::drop_codes(act.tx, account.id)?;
    act.note(&Change {
        action: "admins.reset_totp",
        subject: &account.name,
        // Noted even if there was none: logins may have ended with it.
        before: json!(had_one.then(|| json!({ "second_factor": true }))),
        after: json!({ "second_factor": false }),
    })
}
