//! The set-up: a one-time link by which the first owner is made, as long as there is nobody.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::logins::{self, Checked, NewLogin};
use super::{Role, Stage, any, digest};
use crate::audit::Actor;
use crate::clock::{Tick, UnixMs};
use crate::customers::{self, NewCustomer};
use crate::db::Tx;
use crate::error::{Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, Kind, Order};
use crate::security::secret::{self, Secret};
use crate::text;

/// How long the link holds.
const HOLDS: Duration = Duration::from_mins(30);

/// Whether the link may still be used. It is printed once; kept is only its digest, and only in memory.
#[derive(Debug, Default)]
pub struct Setup(Mutex<Option<Link>>);

#[derive(Debug)]
struct Link {
    digest: [u8; 32],
    until: Tick,
}

impl Setup {
    /// A link that holds from `now` on: what it carries.
    ///
    /// # Errors
    /// When the operating system has no randomness.
    pub fn open(&self, now: Tick) -> Result<Secret<String>> {
        let token = logins::new_token()?;
        let link = Link {
            digest: digest(token.reveal()),
            until: Tick(now.0 + HOLDS),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(link);
        Ok(token)
    }

    /// Whether `token` is the link's, at `now`.
    pub(super) fn admits(&self, token: &str, now: Tick) -> bool {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = digest(token);
        link.as_ref()
            .is_some_and(|link| secret::same(&link.digest, &digest) && now < link.until)
    }

    /// The link has served.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Makes the first owner, and logs him in.
///
/// # Errors
/// [`Error::NotFound`] when there is an administrator already, [`Error::Invalid`] for the name.
pub(super) fn found(
    tx: &Tx<'_>,
    name: &str,
    password_hash: &str,
    arrival: &NewLogin,
    now: UnixMs,
) -> Result<Stage> {
    if any(tx)? {
        return Err(Error::not_found("set-up", ""));
    }
    let actor = Actor {
        name: text::composed(name),
        source: arrival.origin.address.clone(),
    };
    let id = super::add(tx, name, Role::Owner, password_hash, &actor, now)?;
    let admin = super::get(tx, id)?;
    let checked = Checked {
        against: Some(password_hash.to_owned()),
        rehashed: None,
    };
    logins::begin(tx, &admin, arrival, &checked, now)
}

/// The first license, for a customer of this name.
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
    let new = NewCustomer {
        name: customer.to_owned(),
        ..NewCustomer::default()
    };
    let customer_id = customers::add(tx, &new, actor, now)?;
    let order = Order {
        customer_id,
        kind: Kind::Full,
        device_limit,
        valid_until: None,
        domain: None,
        count: 1,
        note: String::new(),
    };
    let issued = licenses::issue(tx, &order, actor, now)?;
    let first = issued.first().map(|license| license.id);
    first.ok_or_else(|| Error::not_found("license", ""))
}

/// Whether nothing was issued yet: then the set-up may still ask for the first license.
///
/// # Errors
/// When SQLite fails.
pub(super) fn awaits_license(reader: &crate::db::Reader<'_>) -> Result<bool> {
    Ok(licenses::count(reader)? == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_holds_for_half_an_hour_and_until_it_has_served() {
        let setup = Setup::default();
        let at = |minutes| Tick(Duration::from_mins(minutes));
        assert!(!setup.admits("", at(0)), "none is open");
        let token = setup.open(at(1)).unwrap();
        assert_eq!(token.reveal().len(), 64);
        for (given, minutes, admitted) in [
            (token.reveal().as_str(), 1, true),
            (token.reveal(), 30, true),
            (token.reveal(), 31, false),
            ("", 1, false),
            (&"0".repeat(64), 1, false),
        ] {
            assert_eq!(setup.admits(given, at(minutes)), admitted, "{minutes}");
        }
        let newer = setup.open(at(2)).unwrap();
        assert!(!setup.admits(token.reveal(), at(2)) && setup.admits(newer.reveal(), at(2)));
        setup.close();
        assert!(!setup.admits(newer.reveal(), at(2)));
    }
}
