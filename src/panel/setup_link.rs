//! The set-up: a one-time link that creates the first owner, available as long as there is no administrator.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::admins::{self, Role, any_exists};
use crate::audit::{Act, Actor};
use crate::clock::{Tick, UnixMs};
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, Buyer, Order};
use crate::logins::{self, CheckedPassword, NewLogin, Stage, digest};
use crate::security::secret::{self, Secret};
use crate::text;

/// How long the link is valid.
const VALID: Duration = Duration::from_mins(30);

/// The link of the set-up, if it is valid. The link is printed once; only its digest is stored, and only in memory.
#[derive(Debug, Default)]
pub struct SetupLink(Mutex<Option<Link>>);

#[derive(Debug)]
struct Link {
    digest: [u8; 32],
    until: Tick,
}

impl SetupLink {
    /// Creates a link that is valid from `now` on, and returns its token. It replaces an older link.
    ///
    /// # Errors
    /// If the operating system provides no randomness.
    pub fn create_link(&self, now: Tick) -> Result<Secret<String>> {
        let token = logins::new_token()?;
        let link = Link {
            digest: digest(token.reveal()),
            until: Tick(now.0 + VALID),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        Ok(token)
    }

    /// Whether `token` belongs to a link that is valid at `now`.
    pub(super) fn accepts(&self, token: &str, now: Tick) -> bool {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = digest(token);
        link.as_ref()
            .is_some_and(|link| secret::constant_time_eq(&link.digest, &digest) && now < link.until)
    }

    /// Makes the link invalid once it has been used.
    pub(super) fn revoke_link(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Creates the first owner and starts a login.
///
/// # Errors
/// [`Error::NotFound`] if there is an administrator already, [`Error::Invalid`] for the name.
pub(super) fn create_owner(
    tx: &Tx<'_>,
    name: &str,
    password_hash: &str,
    new_login: &NewLogin,
    now: UnixMs,
) -> Result<Stage> {
    if any_exists(tx)? {
        return Err(Error::not_found("set-up", ""));
    }
    let actor = Actor::Setup {
        name: text::to_nfc(name),
        source: new_login.origin.address.clone(),
    };
    let id = admins::add(tx, name, Role::Owner, password_hash, &actor, now)?;
    let admin = admins::get(tx, id)?;
    let checked = CheckedPassword {
        hash: Some(password_hash.to_owned()),
        rehashed: None,
    };
    logins::start(tx, &admin, new_login, &checked, now)
}

/// Adds a customer with this name and issues their first license.
///
/// # Errors
/// [`Error::Invalid`] for the name or the number of devices.
pub(super) fn first_license(
    tx: &Tx<'_>,
    customer: &str,
    device_limit: u32,
    actor: &Actor,
    now: UnixMs,
) -> Result<LicenseId> {
    let (buyer, order) = (Buyer::new_named(customer), Order::one(device_limit));
    let issued = licenses::sell(&Act::new(tx, actor, now), &buyer, &order)?;
    let first = issued.first().map(|license| license.id);
    first.ok_or_else(|| Error::not_found("license", ""))
}

/// Whether no license has been issued yet, so that the set-up offers to issue the first one.
pub(super) fn awaits_license(reader: &crate::db::Reader<'_>) -> Result<bool> {
    Ok(licenses::count(reader)? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_is_valid_for_half_an_hour_and_until_it_is_used() {
        let setup = SetupLink::default();
        let at = |minutes| Tick(Duration::from_mins(minutes));
        assert!(!setup.accepts("", at(0)), "none is open");
        let token = setup.create_link(at(1)).unwrap();
        assert_eq!(token.reveal().len(), 64);
        for (given, minutes, accepted) in [
            (token.reveal().as_str(), 1, true),
            (token.reveal(), 30, true),
            (token.reveal(), 31, false),
            ("", 1, false),
            (&"0".repeat(64), 1, false),
        ] {
            assert_eq!(setup.accepts(given, at(minutes)), accepted, "{minutes}");
        }
        let newer = setup.create_link(at(2)).unwrap();
        assert!(!setup.accepts(token.reveal(), at(2)) && setup.accepts(newer.reveal(), at(2)));
        setup.revoke_link();
        assert!(!setup.accepts(newer.reveal(), at(2)));
    }
}
