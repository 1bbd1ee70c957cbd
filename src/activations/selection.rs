//! The same change to several licenses, which an administrator selected in a list. It is here since a license that moves
//! to another customer loses its devices.

use crate::audit::Act;
use crate::error::{Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, EditedTerms, Extension, License, LicenseEdit};
use crate::live_sessions::LiveNow;

/// Most licenses that can be selected: the rows of the longest page of a list.
pub const SELECTED_MAX: usize = 200;
/// The member of a refusal with the key of the license that was refused.
pub const REFUSED_KEY: &str = "license_key";

/// A change to the selected licenses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SelectedChange {
    /// As [`licenses::suspend`].
    Suspend,
    /// As [`licenses::reinstate`].
    Reinstate,
    /// As [`licenses::extend`].
    Extend(Extension),
    /// To the customer with this id or name, as [`super::edit_license`].
    Move(String),
}

/// Makes the same change to each of these licenses, with an audit entry for each, or to none of them.
///
/// # Errors
/// Those of the change to one license; a refusal has the key of that license as the member [`REFUSED_KEY`]. The caller's
/// transaction must not be committed then.
pub fn change_selected(
    act: &Act<'_>,
    live: LiveNow<'_>,
    selected: &[LicenseId],
    change: &SelectedChange,
) -> Result<()> {
    for id in selected.iter().take(SELECTED_MAX) {
        let license = licenses::find(act.tx, *id)?;
        apply(act, live, &license, change).map_err(|error| with_key(error, &license))?;
    }
    Ok(())
}

fn apply(
    act: &Act<'_>,
    live: LiveNow<'_>,
    license: &License,
    change: &SelectedChange,
) -> Result<()> {
    let id = license.id;
    match change {
        SelectedChange::Suspend => licenses::suspend(act, id).map(drop),
        SelectedChange::Reinstate => licenses::reinstate(act, id).map(drop),
        SelectedChange::Extend(extension) => licenses::extend(act, id, *extension).map(drop),
        SelectedChange::Move(customer) => {
            let terms = EditedTerms {
                customer: Some(customer.clone()),
                ..EditedTerms::default()
            };
            let edit = LicenseEdit {
                id,
                terms,
                seen: None,
            };
            // No entry says that a license went to the customer who has it.
            if license.customer_id.is_some() && licenses::former_owner(act.tx, &edit)?.is_none() {
                return Ok(());
            }
            super::edit_license(act, live, &edit).map(drop)
        }
    }
}

fn with_key(error: Error, license: &License) -> Error {
    match error {
        Error::Refused(refused) => refused.with(REFUSED_KEY, license.key.formatted()).into(),
        other => other,
    }
}
