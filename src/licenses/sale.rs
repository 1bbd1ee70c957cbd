//! Sells licenses: finds or adds the buyer, and issues what was ordered, or gives the buyer a license that exists.

use std::time::Duration;

use super::{
    License, LicenseRow, LicenseState, Order, Term, audit_json, find, find_row, issue, store,
};
use crate::audit::{Act, Change};
use crate::customers::{self, CustomerData, SameName};
use crate::error::{Error, Faults, RefusalKind, Refused, Result};
use crate::id::{CustomerId, LicenseId};
use crate::product_state;

const DAY: Duration = Duration::from_hours(24);

/// The customer who buys.
#[derive(Clone, Debug)]
pub enum Buyer {
    /// The customer with this id.
    Known(CustomerId),
    /// The customer that this text refers to, as in [`customers::find`].
    Named(String),
    /// A customer to be added.
    New(CustomerData),
    /// A customer to be added of whom only the name is known, and what to do if another one has it.
    NewNamed(String, SameName),
}

impl Buyer {
    fn resolve(&self, act: &Act<'_>) -> Result<CustomerId> {
        match self {
            Self::New(data) => Ok(customers::add(act, data)?.id),
            Self::NewNamed(name, same_name) => {
                let new = CustomerData {
                    name: name.clone(),
                    ..CustomerData::default()
                };
                Ok(customers::add_or_use(act, &new, *same_name)?.id)
            }
            Self::Known(id) => Ok(customers::not_erased(act.tx, *id)?.id),
            Self::Named(text) => customers::find_not_erased(act.tx, text),
        }
    }
}

/// Issues the licenses of `order` to `buyer`.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) for a field of the order or of a new customer, `product_archived`,
/// and the errors of [`customers::not_erased`] and [`customers::find`]; nothing is changed then.
pub fn sell(act: &Act<'_>, buyer: &Buyer, order: &Order) -> Result<Vec<License>> {
    let mut faults = Faults::default();
    match faults.keep(buyer.resolve(act)) {
        Some(customer_id) => issue::issue(act, customer_id, order),
        None => faults.with(issue::check_order(order, act.now).map(|_| Vec::new())),
    }
}

/// Gives a license without a customer to `buyer`, such as a trial that somebody buys: from then on it is no longer bound to the device that
/// started it. With `order`, what that says replaces what the license is, and its term begins; its key, first moment,
/// domain and note stay.
///
/// # Errors
/// [`Error::NotFound`], `product_archived`, `license_revoked`, `slots_taken` if more devices hold a slot than the order allows, and the errors
/// of [`sell`]; nothing is changed then.
pub fn assign(
    act: &Act<'_>,
    id: LicenseId,
    buyer: &Buyer,
    order: Option<&Order>,
) -> Result<License> {
    let row = find_row(act.tx, id, act.now)?;
    product_state::check_in_use(act.tx, row.license.product)?;
    if row.license.state == LicenseState::Revoked {
        return Err(Refused::new(RefusalKind::Conflict, "license_revoked").into());
    }
    let customer_id = buyer.resolve(act)?;
    store::set_customer(act.tx, id, customer_id)?;
    if let Some(order) = order {
        replace_terms(act, &row, order)?;
    }
    let license = find(act.tx, id)?;
    act.changed(&Change {
        action: "licenses.assign",
        subject: &id.to_string(),
        before: audit_json(&row.license),
        after: audit_json(&license),
    })?;
    Ok(license)
}

/// Makes a license what `order` says. A term that the first activation begins has begun if a device holds a slot.
fn replace_terms(act: &Act<'_>, row: &LicenseRow, order: &Order) -> Result<()> {
    let LicenseRow { license, taken, .. } = row;
    if order.product != license.product {
        return Err(Error::invalid("plan", "is a plan of another product"));
    }
    if order.device_limit < *taken {
        let refused = Refused::new(RefusalKind::Conflict, "slots_taken");
        return Err(refused.with("n", *taken).into());
    }
    let term = match issue::completed_term(order, act.now) {
        Term::DaysFromActivation(days) if *taken > 0 => Term::Until(act.now.plus(DAY * days)),
        term => term,
    };
    store::apply_order(
        act.tx,
        license.id,
        &Order {
            term,
            ..order.clone()
        },
    )
}
