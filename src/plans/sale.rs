//! Issues licenses by a plan, or without one. What an order names itself differs from the plan.

use super::{Plan, get, rules};
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::error::{Faults, Result};
use crate::features::Features;
use crate::id::ProductId;
use crate::licenses::{self, Buyer, Kind, License, Order, Term};

/// What is sold. Without a plan, what is `None` is as in [`Order::one`] with one device.
#[derive(Clone, Debug)]
pub struct Sale {
    /// The product that the licenses are for.
    pub product: ProductId,
    /// The code of the plan.
    pub plan: Option<String>,
    /// Another kind than the plan's.
    pub kind: Option<Kind>,
    /// Another device limit than the plan's.
    pub device_limit: Option<u32>,
    /// Another end than the plan's.
    pub valid_until: Option<UnixMs>,
    /// Other features than the plan's.
    pub features: Option<Features>,
    /// Another end of updates than the plan's.
    pub updates_until: Option<UnixMs>,
    /// The domain as typed.
    pub domain: Option<String>,
    /// The number of licenses.
    pub count: u32,
    /// A note for administrators only.
    pub note: String,
}

/// The order for one license of a plan, issued at `now`, with the values of the plan.
pub fn order(plan: &Plan, now: UnixMs) -> Order {
    let terms = &plan.terms;
    Order {
        plan: Some(plan.id),
        kind: terms.kind,
        term: rules::term(terms, now),
        features: terms.features.clone(),
        updates_until: rules::updates_until(terms, now),
        ..Order::one(plan.product, terms.device_limit)
    }
}

/// As [`order`], of the plan of a product with this code.
///
/// # Errors
/// [`Error::NotFound`](crate::error::Error::NotFound) for an unknown plan, and those of [`Plan::check_for_sale`].
pub fn order_by_code(act: &Act<'_>, product: ProductId, code: &str) -> Result<Order> {
    let plan = get(act.tx, product, code)?;
    plan.check_for_sale()?;
    Ok(order(&plan, act.now))
}

/// Issues licenses to `buyer`.
///
/// # Errors
/// [`Error::NotFound`](crate::error::Error::NotFound) for an unknown plan, [`super::Refusal::Archived`], and the errors
/// of [`licenses::sell`].
pub fn sell(act: &Act<'_>, buyer: &Buyer, sale: &Sale) -> Result<Vec<License>> {
    let mut faults = Faults::default();
    let plan = sale.plan.as_deref();
    let planned = plan.and_then(|code| faults.keep(order_by_code(act, sale.product, code)));
    let planned = planned.unwrap_or_else(|| Order::one(sale.product, 1));
    let order = Order {
        kind: sale.kind.unwrap_or(planned.kind),
        device_limit: sale.device_limit.unwrap_or(planned.device_limit),
        term: sale.valid_until.map_or(planned.term, Term::Until),
        features: sale.features.as_ref().unwrap_or(&planned.features).clone(),
        updates_until: sale.updates_until.or(planned.updates_until),
        domain: sale.domain.clone(),
        count: sale.count,
        note: sale.note.clone(),
        ..planned
    };
    faults.with(licenses::sell(act, buyer, &order))
}
