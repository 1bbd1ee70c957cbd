//! The forms that edit and extend a license.

use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::{DEVICES_FIELD, LIST, load, row_json};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::error::{Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, Extension, Kind, LicenseRow};
use crate::panel::Admin;
use crate::revision;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};

const EDIT: &str = "licenses/edit.html.tera";
const EXTEND: &str = "licenses/extend.html.tera";

fn form_values(row: &LicenseRow) -> Value {
    let license = &row.license;
    json!({
        "kind": license.kind,
        "devices": license.device_limit,
        "valid_from": license.valid_from.day(),
        "valid_until": license.valid_until.map(UnixMs::day),
        "note": license.note,
    })
}

/// The form to edit a license.
#[get("/licenses/<id>/edit")]
async fn edit_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let row = load(&app.db, id, request.now.wall).await?;
    let values = json!({
        "license": row_json(&row, request.now.wall),
        "seen": row.license.revision(),
        "form": form::empty_form(form_values(&row)),
    });
    request.page(EDIT, values).await
}

fn terms_of(form: &Fields) -> Result<licenses::EditedTerms> {
    Ok(licenses::EditedTerms {
        kind: Kind::parse(form.text("kind"))?,
        device_limit: form.number("devices")?,
        valid_from: form.text("valid_from").to_owned(),
        valid_until: form.text("valid_until").to_owned(),
        note: form.text("note").to_owned(),
    })
}

/// Edits a license.
#[post("/licenses/<id>/edit", data = "<form>")]
async fn edit(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    let (actor, now, seen) = (request.actor(), request.now.wall, form.revision());
    let changed = match terms_of(&form) {
        Ok(terms) => {
            app.db
                .write("licenses.edit", move |tx| {
                    licenses::edit(&Act::new(tx, &actor, now), LicenseId(id), &terms, &seen)
                })
                .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = changed else {
        return Html::redirect(format!("{LIST}/{id}?done=saved"));
    };
    let error = error.with_field_names(&[DEVICES_FIELD]);
    // After a conflict, the form also shows the current values and may be sent again to overwrite them.
    let (row, conflict) = (load(&app.db, id, now).await?, revision::is_conflict(&error));
    let values = json!({
        "license": row_json(&row, now),
        "seen": form.revision().after(&error, row.license.revision()),
        "present": conflict.then(|| form_values(&row)),
    });
    request
        .render_with_errors(EDIT, form.rejected("licenses", error), values)
        .await
}

/// The form to extend a license.
#[get("/licenses/<id>/extend")]
async fn extend_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let row = load(&app.db, id, request.now.wall).await?;
    let values = json!({
        "license": row_json(&row, request.now.wall),
        "seen": row.license.revision(),
        "form": form::empty_form(json!({})),
    });
    request.page(EXTEND, values).await
}

fn extension_of(form: &Fields) -> Result<Extension> {
    match (form.non_empty("days"), form.non_empty("until")) {
        (Some(_), Some(_)) => Err(Error::invalid("until", "cannot be combined with days")),
        (None, Some(day)) => UnixMs::parse(day)
            .map(Extension::Until)
            .map_err(|problem| Error::invalid("until", problem)),
        (_, None) => form.number("days").map(Extension::Days),
    }
}

/// Extends a license.
#[post("/licenses/<id>/extend", data = "<form>")]
async fn extend(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    let (actor, now, seen) = (request.actor(), request.now.wall, form.revision());
    let extended = match extension_of(&form) {
        Ok(by) => {
            app.db
                .write("licenses.extend", move |tx| {
                    licenses::extend_unchanged(&Act::new(tx, &actor, now), LicenseId(id), by, &seen)
                })
                .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = extended else {
        return Html::redirect(format!("{LIST}/{id}?done=extended"));
    };
    let row = load(&app.db, id, now).await?;
    let seen = form.revision().after(&error, row.license.revision());
    let values = json!({ "license": row_json(&row, now), "seen": seen });
    request
        .render_with_errors(EXTEND, form.rejected("licenses", error), values)
        .await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![edit_form, edit, extend_form, extend]
}
