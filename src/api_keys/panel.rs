//! Handlers of the panel: the page that rotates the API key.

use rocket::{Route, get, post, routes};
use serde_json::json;

use super::ConfirmedRotation;
use crate::app::App;
use crate::audit::Act;
use crate::error::Faults;
use crate::panel::Admin;
use crate::revision::Revision;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};

/// The part of the settings page with the API key.
const KEY: &str = "/lizenzserver/config?at=key#key";
const TEMPLATE: &str = "api_keys/rotate.html.tera";
/// Default number of days for which an old API key stays valid.
const OVERLAP_DAYS: u32 = 7;

/// The form that rotates the API key.
#[get("/config/key")]
async fn rotate_form(request: Admin<'_>, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let product = request.product;
    let current = app
        .db
        .read(move |reader| super::current(reader, product))
        .await?;
    let values = json!({
        "seen": current.revision(),
        "client_name": current.client_name,
        "form": form::empty_form(json!({ "overlap_days": OVERLAP_DAYS })),
    });
    request.page(TEMPLATE, values).await
}

fn rotation(form: &Fields, faults: &mut Faults) -> ConfirmedRotation {
    ConfirmedRotation {
        confirm: form.text("confirm").to_owned(),
        seen: Revision::parse(form.raw("seen")),
        overlap_days: faults.keep(form.number("overlap_days")).unwrap_or_default(),
    }
}

/// Rotates the API key.
#[post("/config/key", data = "<form>")]
async fn rotate(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let (actor, now) = (request.actor(), request.now.wall);
    let product = request.product;
    let mut faults = Faults::default();
    let rotation = rotation(&form, &mut faults);
    let rotated = app
        .db
        .write("api_keys.rotate", move |tx| {
            let act = Act::new(tx, &actor, now);
            faults.with(super::rotate_confirmed(&act, product, &rotation))
        })
        .await;
    let Err(error) = rotated else {
        return Html::done(KEY, "part_saved");
    };
    let current = app
        .db
        .read(move |reader| super::current(reader, product))
        .await?;
    let values = json!({
        "seen": Revision::parse(form.raw("seen")).after(&error, current.revision()),
        "client_name": current.client_name,
    });
    request
        .render_with_errors(TEMPLATE, form.rejected("config", error), values)
        .await
}

/// The routes of the page.
pub fn routes() -> Vec<Route> {
    routes![rotate_form, rotate]
}
