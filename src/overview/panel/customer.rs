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
        Some(erased_at) if request.may(Role::Owner) => copies(app, customer.id, erased_at).await?,
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

/// The backups and replaced databases that still hold what was erased at `erased_at`.
async fn copies(app: &App, id: CustomerId, erased_at: UnixMs) -> Result<Vec<PathBuf>> {
    let since = app.db.read(move |reader| privacy::data_since(reader, id));
    let span = since.await?..=erased_at;
    let (backups, database) = (app.backup_dir.clone(), app.db.path().to_owned());
    let list = spawn_blocking(move || backups.copies_made_in(span, &database));
    list.await.doing("list earlier copies of the database")?
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![customer]
}
