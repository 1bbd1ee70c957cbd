//! Handlers of the panel: the removal of a flag. The form for changing flags is on the settings page, which belongs to
//! `products`.

use rocket::{Route, get, post, routes};
use serde_json::json;

use crate::app::App;
use crate::audit::Act;
use crate::panel::Admin;
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};

/// The part of the settings page with the flags.
const FLAGS: &str = "/lizenzserver/config?at=flags#flags";

/// The confirmation page for removing a feature flag.
#[get("/config/flags/<name>/remove")]
async fn confirm_remove(request: Admin<'_>, name: &str, app: &App) -> HtmlReply {
    let (name, product) = (name.to_owned(), request.product);
    let flag = app
        .db
        .read(move |reader| super::find(reader, product, &name))
        .await?;
    let values = json!({ "flag": { "name": flag.name } });
    request.page("flags/remove.html.tera", values).await
}

/// Removes a feature flag.
#[post("/config/flags/<name>/remove", data = "<_form>")]
async fn remove(request: Admin<'_>, name: &str, _form: Form, app: &App) -> HtmlReply {
    let (name, actor, now) = (name.to_owned(), request.actor(), request.now.wall);
    let product = request.product;
    app.db
        .write("flags.remove", move |tx| {
            super::remove(&Act::new(tx, &actor, now), product, &name)
        })
        .await?;
    Html::done(FLAGS, "part_saved")
}

/// The routes of the pages about flags.
pub fn routes() -> Vec<Route> {
    routes![confirm_remove, remove]
}
