//! The form of the first configuration.

use rocket::{Route, get, routes};
use serde_json::json;

use super::{PAGE, client};
use crate::app::App;
use crate::db::Db;
use crate::error::Error;
use crate::panel::{Admin, PanelRequest};
use crate::products;
use crate::revision::Revision;
use crate::web::form::Fields;
use crate::web::html::{Html, HtmlReply};

/// The step of the set-up after the first configuration.
pub(super) const NEXT_STEP: &str = "/lizenzserver/setup/license";
/// Columns in the form of the first configuration.
pub(super) const FIRST_COLUMNS: [&str; 3] = ["client_name", "current_version", "minimum_version"];

/// The form of the first configuration, until an administrator has reviewed the default values.
#[get("/config/client/new")]
async fn first(request: Admin<'_>, app: &App) -> HtmlReply {
    let product = request.product;
    let (config, reviewed) = app
        .db
        .read(move |reader| {
            Ok((
                products::product_settings(reader, product)?,
                products::reviewed(reader, product)?,
            ))
        })
        .await?;
    if reviewed {
        return Html::redirect(PAGE);
    }
    let values = client(&config);
    request.page("products/first.html.tera", values).await
}

pub(super) async fn render_first_with_errors(
    request: &PanelRequest<'_>,
    form: &Fields,
    error: Error,
    db: &Db,
) -> HtmlReply {
    let product = request.product;
    let current = db.read(move |reader| products::product_settings(reader, product));
    let current = current.await?.revision();
    let seen = Revision::parse(form.raw("seen")).after(&error, current);
    let values = json!({ "seen": seen });
    request
        .render_with_errors(
            "products/first.html.tera",
            form.rejected("config", error),
            values,
        )
        .await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![first]
}
