//! Handlers for customers' sites: `/api/site/request` and `/api/site/transaction`.
//!
//! They respond with 202 or a bare 503. The result of an accepted request is sent to the site's domain.

use rocket::{Route, post, routes};

use super::{OneTimeId, Operation, RequestMessage};
use crate::app::App;
use crate::domain::{DOMAIN_LEN_MAX, Domain};
use crate::error::{Error, Result};
use crate::licenses::{self, LicenseKey};
use crate::security::client_address::ClientAddress;
use crate::text::SLUG_MAX;
use crate::web::body::{FromFields, JsonFields, Lenient};
use crate::web::guards::RequestTime;
use crate::web::not_served::{Accepted, RefusedSite, accepted};

/// Maximum length of an id, in characters.
const ID_LEN_MAX: usize = 64;
/// Maximum length of the name of an operation, in characters.
const OPERATION_LEN_MAX: usize = 32;

fn id(fields: &mut JsonFields, name: &'static str) -> Result<OneTimeId> {
    let text = fields.text(name, ID_LEN_MAX)?;
    OneTimeId::parse(&text).ok_or_else(|| Error::invalid(name, "must be 64 hexadecimal digits"))
}

impl FromFields for RequestMessage {
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

/// The third message. A missing or malformed parameter of the operation is not refused here but by
/// [`redeem`](super::Handshakes::redeem), because that also uses up the transaction id.
struct TransactionMessage {
    id: OneTimeId,
    /// `None` if its name is unknown, or if one of its parameters is missing or malformed.
    operation: Option<Operation>,
}

impl FromFields for TransactionMessage {
    fn from_fields(fields: &mut JsonFields) -> Result<Self> {
        Ok(Self {
            operation: operation(fields),
            id: id(fields, "transaction_id")?,
        })
    }
}

/// The operation and its parameters.
fn operation(fields: &mut JsonFields) -> Option<Operation> {
    // A malformed parameter counts as missing. Not so `product`: a missing one stands for that of the domain's oldest
    // license, so a malformed one makes the operation invalid.
    let key = licenses::client::key_if_given(fields).ok().flatten();
    let mut text = |name, max| fields.text(name, max).ok();
    let name = text("operation", OPERATION_LEN_MAX);
    let domain = text("domain", DOMAIN_LEN_MAX);
    let new_domain = text("new_domain", DOMAIN_LEN_MAX);
    let product = fields.optional_text("product", SLUG_MAX).ok();
    let key = || LicenseKey::parse(key.as_deref()?);
    let parse_domain = |text: Option<String>| Domain::parse(&text?);
    match name?.as_str() {
        "versions" => product.map(Operation::Versions),
        "license" => key().map(Operation::License),
        "register" => key().map(Operation::Register),
        "deregister" => Some(Operation::Deregister(key()?, parse_domain(domain)?)),
        "transfer" => Some(Operation::Transfer(key()?, parse_domain(new_domain)?)),
        "cancel_transfer" => key().map(Operation::CancelTransfer),
        _ => None,
    }
}

/// The first message.
#[post("/request", data = "<body>")]
async fn request(
    body: Lenient<RequestMessage>,
    from: ClientAddress,
    at: RequestTime,
    app: &App,
) -> Result<Accepted, RefusedSite> {
    let Some(request) = body.0 else {
        return Err(RefusedSite::UNKNOWN);
    };
    accepted(app.handshakes.handle_request(request, from, at.0).await)
}

/// The third message.
#[post("/transaction", data = "<body>")]
async fn transaction(
    body: Lenient<TransactionMessage>,
    at: RequestTime,
    app: &App,
) -> Result<Accepted, RefusedSite> {
    let Some(TransactionMessage { id, operation }) = body.0 else {
        return Err(RefusedSite::UNKNOWN);
    };
    accepted(app.handshakes.redeem(&id, operation, at.0).await)
}

/// The routes for sites.
pub fn routes() -> Vec<Route> {
    routes![request, transaction]
}
