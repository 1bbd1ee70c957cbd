//! Issues licenses.

use std::time::Duration;

use serde_json::Value;

use super::{Kind, License, LicenseKey, audit_json, find, rules, store};
use crate::audit::{self, Actor, Change};
use crate::clock::UnixMs;
use crate::db::Tx;
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::id::CustomerId;
use crate::text;

/// Maximum number of licenses per order.
pub const ORDER_MAX: u32 = 10_000;
/// How long a trial lasts if the order has no expiry date.
const TRIAL: Duration = Duration::from_hours(30 * 24);

/// An order for licenses that are to be issued.
#[derive(Clone, Debug)]
pub struct Order {
    /// The buyer.
    pub customer_id: CustomerId,
    /// Full or trial.
    pub kind: Kind,
    /// The device limit of each license.
    pub device_limit: u32,
    /// The last moment; `None` for no expiry, or for 30 days if it is a trial.
    pub valid_until: Option<UnixMs>,
    /// The domain as typed; stored in ASCII.
    pub domain: Option<String>,
    /// The number of licenses, 1 to [`ORDER_MAX`].
    pub count: u32,
    /// A note for administrators only.
    pub note: String,
}

/// Issues the licenses of `order`.
///
/// # Errors
/// [`Error::Invalid`] if a field is invalid; nothing is issued then.
pub fn issue(tx: &Tx<'_>, order: &Order, actor: &Actor, now: UnixMs) -> Result<Vec<License>> {
    let order = Order {
        note: text::clean_input(&order.note),
        ..order.clone()
    };
    check_order(&order, now)?;
    let domain = order.domain.as_deref().map(parse_domain).transpose()?;
    let valid_until = match (order.valid_until, order.kind) {
        (None, Kind::Trial) => Some(now.plus(TRIAL)),
        (until, _) => until,
    };
    let mut ids = Vec::new();
    for _ in 0..order.count {
        let key = LicenseKey::new()?;
        ids.push(store::insert(
            tx,
            &key,
            &order,
            domain.as_ref(),
            valid_until,
            now,
        )?);
    }
    let licenses = ids
        .iter()
        .map(|id| find(tx, *id))
        .collect::<Result<Vec<_>>>()?;
    let subject = match (ids.first(), ids.last()) {
        (Some(first), Some(last)) if first != last => format!("{first}..{last}"),
        (first, _) => first.map(ToString::to_string).unwrap_or_default(),
    };
    let after = licenses.first().map_or(Value::Null, audit_json);
    audit::note(
        tx,
        now,
        actor,
        &Change {
            action: "licenses.issue",
            subject: &subject,
            before: Value::Null,
            after,
        },
    )?;
    tx.invalidate_caches();
    Ok(licenses)
}

fn check_order(order: &Order, now: UnixMs) -> Result<()> {
    if !(1..=ORDER_MAX).contains(&order.count) {
        return Err(Error::invalid("count", format!("must be 1..{ORDER_MAX}")));
    }
    if order.valid_until.is_some_and(|until| until < now) {
        return Err(Error::invalid("valid-until", "is in the past"));
    }
    rules::check_terms(order.device_limit, &order.note)
}

/// Parses a typed host name.
fn parse_domain(text: &str) -> Result<Domain> {
    Domain::from_input(text)
        .ok_or_else(|| Error::invalid("domain", "must be a host name like www.example.org"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_stored_in_ascii() {
        let stored = |typed| parse_domain(typed).unwrap().to_string();
        assert_eq!(stored(" Bücher.example "), "xn--bcher-kva.example");
        assert_eq!(stored("https://example.org./"), "example.org");
        for wrong in ["", ".", "localhost", "192.0.2.1.", "example.org.."] {
            assert!(parse_domain(wrong).is_err(), "{wrong}");
        }
    }
}
