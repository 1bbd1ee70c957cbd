//! The second factor of an administrator: set up, confirmed, used, switched off; and its recovery codes.

use serde_json::{Value, json};

use super::rules::Refusal;
use super::{Admin, logins, store};
use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::{Reader, Tx};
use crate::error::Result;
use crate::id::AdminId;
use crate::security::secret::Secret;
use crate::security::totp::{self, Shared, Typed};

/// What is known of somebody's second factor.
#[derive(Clone, Debug, Default)]
pub(super) struct Factor {
    /// What the telephone has; none: no second factor.
    pub(super) shared: Option<Shared>,
    /// What was shown, and is not confirmed yet.
    pub(super) pending: Option<Shared>,
    /// The last step that served.
    pub(super) used_step: i64,
    /// Recovery codes that are left.
    pub(super) codes: u32,
}

/// A second factor as somebody gave it, and when by the machine's clock: telephones go by the same.
#[derive(Clone, Debug)]
pub(super) struct SecondFactor {
    /// What was typed.
    pub(super) typed: Typed,
    /// When.
    pub(super) at: UnixMs,
}

impl SecondFactor {
    /// Takes what was given, which serves once.
    ///
    /// # Errors
    /// [`Refusal::WrongCode`].
    pub(super) fn serve(&self, tx: &Tx<'_>, id: AdminId) -> Result<()> {
        let served = match &self.typed {
            Typed::Recovery(digest) => store::use_code(tx, id, digest)? > 0,
            Typed::Code(code) => {
                let factor = store::factor(tx, id)?.unwrap_or_default();
                let step = match &factor.shared {
                    Some(shared) => totp::step(shared, code.reveal(), self.at.0, factor.used_step)?,
                    None => None,
                };
                if let Some(step) = step {
                    store::use_step(tx, id, step)?;
                }
                step.is_some()
            }
        };
        if served {
            Ok(())
        } else {
            Err(Refusal::WrongCode.into())
        }
    }
}

/// What is known of the second factor of `id`.
pub(super) fn of(reader: &Reader<'_>, id: AdminId) -> Result<Factor> {
    Ok(store::factor(reader, id)?.unwrap_or_default())
}

/// Keeps a secret that is to be shown; an older one that was not confirmed is forgotten. Where there is a second
/// factor already, perhaps since a moment ago, it stays the only one.
pub(super) fn offer(tx: &Tx<'_>, id: AdminId, shared: &Shared) -> Result<()> {
    if of(tx, id)?.shared.is_some() {
        return Ok(());
    }
    store::set_pending(tx, id, shared)
}

/// Recovery codes as people see them, with what is kept of each.
pub(super) type RecoveryCodes = Vec<(Secret<String>, [u8; 32])>;

/// The secret that was shown becomes the second factor: `code` is one of it. `codes` are new, too.
///
/// # Errors
/// [`Refusal::NothingPending`], [`Refusal::WrongCode`].
pub(super) fn confirm(
    tx: &Tx<'_>,
    admin: &Admin,
    (code, at): (&str, UnixMs),
    codes: &RecoveryCodes,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    let known = of(tx, admin.id)?;
    let pending = known.pending.ok_or(Refusal::NothingPending)?;
    let bare = match Typed::read(code) {
        Typed::Code(bare) => bare,
        Typed::Recovery(_) => return Err(Refusal::WrongCode.into()),
    };
    let step = totp::step(&pending, bare.reveal(), at.0, 0)?.ok_or(Refusal::WrongCode)?;
    store::confirm_pending(tx, admin.id, step)?;
    keep(tx, admin.id, codes)?;
    let (before, after) = (factor(known.shared.is_some()), factor(true));
    let deed = Change {
        what: "admins.set_totp",
        subject: &admin.name,
        before,
        after,
    };
    audit::note(tx, now, actor, &deed)
}

/// The old recovery codes count no more; these do.
///
/// # Errors
/// [`Refusal::NothingPending`] where there is no second factor, perhaps since a moment ago.
pub(super) fn renew_codes(
    tx: &Tx<'_>,
    admin: &Admin,
    codes: &RecoveryCodes,
    actor: &Actor,
    now: UnixMs,
) -> Result<()> {
    if of(tx, admin.id)?.shared.is_none() {
        return Err(Refusal::NothingPending.into());
    }
    keep(tx, admin.id, codes)?;
    let after = json!({ "recovery_codes": codes.len() });
    let deed = Change {
        what: "admins.renew_codes",
        subject: &admin.name,
        before: Value::Null,
        after,
    };
    audit::note(tx, now, actor, &deed)
}

fn keep(tx: &Tx<'_>, id: AdminId, codes: &RecoveryCodes) -> Result<()> {
    store::drop_codes(tx, id)?;
    for (_, digest) in codes {
        store::insert_code(tx, id, digest)?;
    }
    Ok(())
}

/// Switches the second factor of `admin` off. That there is none is no error.
///
/// # Errors
/// When SQLite fails.
pub(super) fn switch_off(tx: &Tx<'_>, admin: &Admin, actor: &Actor, now: UnixMs) -> Result<()> {
    let (before, after) = (factor(of(tx, admin.id)?.shared.is_some()), factor(false));
    store::drop_factor(tx, admin.id)?;
    store::drop_codes(tx, admin.id)?;
    let deed = Change {
        what: "admins.reset_totp",
        subject: &admin.name,
        before,
        after,
    };
    audit::note(tx, now, actor, &deed)
}

/// Takes the second factor of `admin` away, who has lost it, and ends his logins.
pub(super) fn reset(tx: &Tx<'_>, admin: &Admin, actor: &Actor, now: UnixMs) -> Result<()> {
    switch_off(tx, admin, actor, now)?;
    logins::end_all(tx, admin.id)
}

fn factor(is_there: bool) -> Value {
    json!({ "second_factor": is_there })
}
