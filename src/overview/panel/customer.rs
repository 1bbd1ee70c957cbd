//! The page of one customer.

use std::path::PathBuf;

use rocket::tokio::task::spawn_blocking;
use rocket::{Route, get, routes};
use serde_json::{Value, json};

use crate::admins::Role;
use crate::app::App;
use crate::clock::UnixMs;
use crate::error::{Doing, Result};
use crate::id::CustomerId;
use crate::licenses;
use crate::overview;
use crate::panel::Support;
use crate::privacy;
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
    let copies = match customer.erased_at {
        Some(_) if request.may(Role::Owner) => copies(app, customer.id, now).await?,
        _ => Vec::new(),
    };
    let values = json!({
        "customer": customer,
        "created_at": customer.created_at,
        "erased_at": customer.erased_at,
        "copies": copies,
        "rows": rows,
    });
    request.page("customers/one.html.tera", values).await
}

/// The backups and replaced databases that still hold what was erased.
async fn copies(app: &App, id: CustomerId, now: UnixMs) -> Result<Vec<PathBuf>> {
    let span = app
        .db
        .read(move |reader| privacy::span_of_copies(reader, id, now));
    let span = span.await?;
    let (backups, database) = (app.backup_dir.clone(), app.db.path().to_owned());
    let list = spawn_blocking(move || backups.copies_made_in(span, &database));
    list.await.doing("list earlier copies of the database")?
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![customer]
}
