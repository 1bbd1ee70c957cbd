//! Handlers for customers' sites: `/api/site/request` and `/api/site/transaction`.
//!
//! They respond with 202 or a bare 503. The result of an accepted request is sent to the site's domain.

use rocket::{Route, post, routes};

use super::{Id, Operation, Request};
use crate::app::App;
use crate::domain::{DOMAIN_LEN_MAX, Domain};
use crate::error::{Error, Result};
use crate::licenses::{self, LicenseKey};
use crate::security::client_address::ClientAddress;
use crate::web::body::{FromFields, JsonFields, Lenient};
use crate::web::guards::RequestTime;
use crate::web::not_served::{Accepted, NotServed, accepted};

/// Longest text that is read as an id.
const ID_TEXT_MAX: usize = 64;
const OPERATION_MAX: usize = 32;

fn id(fields: &mut JsonFields, name: &'static str) -> Result<Id> {
    let text = fields.text(name, ID_TEXT_MAX)?;
    Id::parse(&text).ok_or_else(|| Error::invalid(name, "must be 64 hexadecimal digits"))
}

impl FromFields for Request {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
        let domain = fields.text("domain", DOMAIN_LEN_MAX)?;
        Ok(Self {
            domain: Domain::parse(&domain)
                .ok_or_else(|| Error::invalid("domain", "must be a host name"))?,
            request_id: id(fields, "request_id")?,
            license_key: licenses::client::key_if_given(fields)?,
        })
    }
}

/// The third message. A missing or malformed parameter does not fail here but in [`redeem`](super::Handshakes::redeem), which uses up
/// the transaction id.
struct Transaction {
    id: Id,
    /// `None` if it is unknown, or if a parameter is missing or malformed.
    operation: Option<Operation>,
}

impl FromFields for Transaction {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
        Ok(Self {
            operation: operation(fields),
            id: id(fields, "transaction_id")?,
        })
    }
}

fn operation(fields: &mut JsonFields) -> Option<Operation> {
    // A malformed parameter counts as missing.
    let key = licenses::client::key_if_given(fields).ok().flatten();
    let mut text = |name, max| fields.text(name, max).ok();
    let name = text("operation", OPERATION_MAX);
    let domain = text("domain", DOMAIN_LEN_MAX);
    let new_domain = text("new_domain", DOMAIN_LEN_MAX);
    let key = || LicenseKey::parse(key.as_deref()?);
    let parsed = |text: Option<String>| Domain::parse(&text?);
    match name?.as_str() {
        "versions" => Some(Operation::Versions),
        "license" => key().map(Operation::License),
        "register" => key().map(Operation::Register),
        "deregister" => Some(Operation::Deregister(key()?, parsed(domain)?)),
        "transfer" => Some(Operation::Transfer(key()?, parsed(new_domain)?)),
        "cancel_transfer" => key().map(Operation::CancelTransfer),
        _ => None,
    }
}

/// The first message.
#[post("/request", data = "<body>")]
async fn request(
    body: Lenient<Request>,
    from: ClientAddress,
    moment: RequestTime,
    app: &App,
) -> Result<Accepted, NotServed> {
    let Some(request) = body.0 else {
        return Err(NotServed);
    };
    accepted(app.handshakes.request(request, from, moment.0).await)
}

/// The third message.
#[post("/transaction", data = "<body>")]
async fn transaction(
    body: Lenient<Transaction>,
    moment: RequestTime,
    app: &App,
) -> Result<Accepted, NotServed> {
    let Some(Transaction { id, operation }) = body.0 else {
        return Err(NotServed);
    };
    accepted(app.handshakes.redeem(&id, operation, moment.0).await)
}

/// The routes for sites.
pub fn routes() -> Vec<Route> {
    routes![request, transaction]
}
