//! Handlers for customers' sites: `/api/site/request` and `/api/site/transaction`.
//!
//! They respond with 202 or a bare 503. The result of an accepted request is sent to the site's domain.

use std::sync::Arc;

use rocket::{Route, State, post, routes};

use super::{Handshakes, Id, OperationDetails, Request};
use crate::domain::{DOMAIN_LEN_MAX, Domain};
use crate::error::{Error, Result};
use crate::licenses;
use crate::security::client_address::ClientAddress;
use crate::web::body::{Fields, FromFields, Lenient};
use crate::web::guards::Moment;
use crate::web::reply::{Accepted, NotServed, accepted};

/// Longest text that is read as an id.
const ID_TEXT_MAX: usize = 64;
const OPERATION_MAX: usize = 32;

fn id(fields: &mut Fields, name: &'static str) -> Result<Id> {
    let text = fields.text(name, ID_TEXT_MAX)?;
    Id::parse(&text).ok_or_else(|| Error::invalid(name, "must be 64 hexadecimal digits"))
}

impl FromFields for Request {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        let domain = fields.text("domain", DOMAIN_LEN_MAX)?;
        Ok(Self {
            domain: Domain::parse(&domain)
                .ok_or_else(|| Error::invalid("domain", "must be a host name"))?,
            request_id: id(fields, "request_id")?,
            license_key: licenses::client::key_if_given(fields)?,
        })
    }
}

/// The third message. A missing or malformed parameter does not fail here but in [`Handshakes::redeem`], which uses up
/// the transaction id.
struct Transaction {
    id: Id,
    operation: String,
    details: OperationDetails,
}

impl FromFields for Transaction {
    fn from_fields(fields: &mut Fields) -> Result<Self> {
        // A malformed parameter counts as missing.
        let license_key = licenses::client::key_if_given(fields).ok().flatten();
        let mut detail = |name, max| fields.text(name, max).ok();
        let operation = detail("operation", OPERATION_MAX);
        let details = OperationDetails {
            license_key,
            domain: detail("domain", DOMAIN_LEN_MAX),
            new_domain: detail("new_domain", DOMAIN_LEN_MAX),
        };
        Ok(Self {
            id: id(fields, "transaction_id")?,
            operation: operation.unwrap_or_default(),
            details,
        })
    }
}

/// The first message.
#[post("/request", data = "<body>")]
async fn request(
    body: Lenient<Request>,
    from: ClientAddress,
    moment: Moment,
    handshakes: &State<Arc<Handshakes>>,
) -> Result<Accepted, NotServed> {
    let Some(request) = body.0 else {
        return Err(NotServed);
    };
    accepted(handshakes.request(request, from, moment.0).await)
}

/// The third message.
#[post("/transaction", data = "<body>")]
async fn transaction(
    body: Lenient<Transaction>,
    moment: Moment,
    handshakes: &State<Arc<Handshakes>>,
) -> Result<Accepted, NotServed> {
    let Some(Transaction {
        id,
        operation,
        details,
    }) = body.0
    else {
        return Err(NotServed);
    };
    accepted(handshakes.redeem(&id, &operation, &details, moment.0).await)
}

/// The routes for sites.
pub fn routes() -> Vec<Route> {
    routes![request, transaction]
}
