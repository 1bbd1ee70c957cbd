//! The page of one customer.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use crate::app::App;
use crate::id::CustomerId;
use crate::licenses;
use crate::overview;
use crate::panel::Support;
use crate::web::html::HtmlReply;

/// The page of a customer, with their newest licenses.
#[get("/customers/<id>")]
async fn customer(request: Support<'_>, id: i64, app: &App) -> HtmlReply {
    let now = request.now.wall;
    let (customer, rows) = app
        .db
        .read(move |reader| overview::customer(reader, CustomerId(id), licenses::panel::PAGE, now))
        .await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| licenses::panel::row_with_product(&request, row))
        .collect();
    let values = json!({ "customer": customer, "created_at": customer.created_at, "rows": rows });
    request.page("customers/one.html.tera", values).await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![customer]
}
