//! Issues licenses to a customer.

use std::time::Duration;

use serde_json::Value;

use super::{Features, Kind, License, LicenseKey, audit_json, find, rules, store};
use crate::audit::{Act, Change};
use crate::clock::UnixMs;
use crate::domain::Domain;
use crate::error::{Error, Faults, Result};
use crate::id::{CustomerId, PlanId, ProductId};
use crate::product_state;
use crate::text;

/// Maximum number of licenses per order.
pub const ORDER_MAX: u32 = 10_000;
/// How long a trial lasts if the order has no expiry date.
const TRIAL: Duration = Duration::from_hours(30 * 24);

/// When the term of a license ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Term {
    /// Never; of a trial after 30 days.
    Default,
    /// At this last moment.
    Until(UnixMs),
    /// So many days after the first activation.
    DaysFromActivation(u32),
}

impl Term {
    /// The last moment, if it is known.
    pub(super) const fn valid_until(self) -> Option<UnixMs> {
        match self {
            Self::Until(until) => Some(until),
            Self::Default | Self::DaysFromActivation(_) => None,
        }
    }

    /// The days that the first activation begins.
    pub(super) const fn pending_days(self) -> Option<u32> {
        match self {
            Self::DaysFromActivation(days) => Some(days),
            Self::Default | Self::Until(_) => None,
        }
    }
}

/// An order for licenses that are to be issued.
#[derive(Clone, Debug)]
pub struct Order {
    /// The product that they are for.
    pub product: ProductId,
    /// The plan of that product that they are sold by, if any.
    pub plan: Option<PlanId>,
    /// Full or trial.
    pub kind: Kind,
    /// The device limit of each license.
    pub device_limit: u32,
    /// When they end.
    pub term: Term,
    /// What they allow a program to do.
    pub features: Features,
    /// Versions that are released later are not covered; `None` if all are.
    pub updates_until: Option<UnixMs>,
    /// The domain as typed; stored in ASCII.
    pub domain: Option<String>,
    /// The number of licenses, 1 to [`ORDER_MAX`].
    pub count: u32,
    /// A note for administrators only.
    pub note: String,
}

impl Order {
    /// One full license without expiry, plan, domain and note.
    pub fn one(product: ProductId, device_limit: u32) -> Self {
        Self {
            product,
            plan: None,
            kind: Kind::Full,
            device_limit,
            term: Term::Default,
            features: Features::default(),
            updates_until: None,
            domain: None,
            count: 1,
            note: String::new(),
        }
    }
}

/// Issues the licenses of `order` to a customer.
///
/// # Errors
/// [`Error::Invalid`] if a field is invalid, `product_archived`; nothing is issued then.
pub(super) fn issue(act: &Act<'_>, customer_id: CustomerId, order: &Order) -> Result<Vec<License>> {
    let licenses = insert(act, Some(customer_id), order)?;
    act.changed(&Change {
        action: "licenses.issue",
        subject: &subject_of(&licenses),
        before: Value::Null,
        after: licenses.first().map_or(Value::Null, audit_json),
    })?;
    Ok(licenses)
}

/// Issues one license without a customer for a program that has no key. The caller writes the audit entry.
///
/// # Errors
/// [`Error::Invalid`] if a field is invalid, or the order is not one for a trial; nothing is issued then.
pub fn issue_trial(act: &Act<'_>, order: &Order) -> Result<License> {
    if order.kind != Kind::Trial {
        return Err(Error::invalid("kind", "must be trial without a customer"));
    }
    let order = Order {
        count: 1,
        ..order.clone()
    };
    let issued = insert(act, None, &order)?.into_iter().next();
    issued.ok_or_else(|| Error::invalid("count", "must be 1"))
}

/// Inserts the licenses of `order`; without a customer only trials.
fn insert(act: &Act<'_>, customer_id: Option<CustomerId>, order: &Order) -> Result<Vec<License>> {
    let order = Order {
        note: text::clean_input(&order.note),
        term: completed_term(order, act.now),
        ..order.clone()
    };
    product_state::check_in_use(act.tx, order.product)?;
    let domain = check_order(&order, act.now)?;
    let mut licenses = Vec::new();
    for _ in 0..order.count {
        let new = store::NewLicense {
            key: LicenseKey::new()?,
            customer_id,
            order: &order,
            domain: domain.as_ref(),
        };
        licenses.push(find(act.tx, store::insert(act.tx, &new, act.now)?)?);
    }
    Ok(licenses)
}

/// The term of `order`, which for a trial without one is 30 days.
pub(super) fn completed_term(order: &Order, now: UnixMs) -> Term {
    match (order.term, order.kind) {
        (Term::Default, Kind::Trial) => Term::Until(now.plus(TRIAL)),
        (term, _) => term,
    }
}

/// The id of the license, or the first and the last id of several: `7..9`.
fn subject_of(licenses: &[License]) -> String {
    let id = |license: &License| license.id;
    match (licenses.first().map(id), licenses.last().map(id)) {
        (Some(first), Some(last)) if first != last => format!("{first}..{last}"),
        (first, _) => first.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// Checks everything but the customer; returns the domain.
pub(super) fn check_order(order: &Order, now: UnixMs) -> Result<Option<Domain>> {
    let mut faults = Faults::default();
    if !(1..=ORDER_MAX).contains(&order.count) {
        faults.add(Error::invalid("count", format!("must be 1..{ORDER_MAX}")));
    }
    if order.term.valid_until().is_some_and(|until| until < now) {
        faults.add(Error::invalid("valid_until", "is in the past"));
    }
    faults.keep(rules::check_terms(order.device_limit, &order.note));
    let domain = order.domain.as_deref().map(parse_domain).transpose();
    faults.with(domain)
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
