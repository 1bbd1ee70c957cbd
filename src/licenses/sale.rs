//! Sells licenses: finds or adds the buyer, and issues what was ordered.

use super::{License, Order, issue};
use crate::audit::Act;
use crate::customers::{self, CustomerData};
use crate::error::Result;
use crate::id::CustomerId;

/// The customer who buys.
#[derive(Clone, Debug)]
pub enum Buyer {
    /// The customer with this id.
    Known(CustomerId),
    /// The customer that this text refers to, as in [`customers::find`].
    Named(String),
    /// A customer to be added.
    New(CustomerData),
}

impl Buyer {
    /// A customer to be added of whom only the name is known.
    pub fn new_named(name: impl Into<String>) -> Self {
        Self::New(CustomerData {
            name: name.into(),
            ..CustomerData::default()
        })
    }

    fn resolve(&self, act: &Act<'_>) -> Result<CustomerId> {
        match self {
            Self::New(data) => Ok(customers::add(act, data)?.id),
            Self::Known(id) => Ok(customers::get(act.tx, *id)?.id),
            Self::Named(text) => customers::find(act.tx, text),
        }
    }
}

/// Issues the licenses of `order` to `buyer`.
///
/// # Errors
/// [`Error::Invalid`](crate::error::Error::Invalid) for a field of the order or of a new customer, `product_archived`,
/// and the errors of [`customers::get`] and [`customers::find`]; nothing is changed then.
pub fn sell(act: &Act<'_>, buyer: &Buyer, order: &Order) -> Result<Vec<License>> {
    let customer_id = buyer.resolve(act)?;
    issue::issue(act, Some(customer_id), order)
}
