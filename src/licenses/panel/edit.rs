//! The forms that edit and extend a license.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::{LIST, in_form, load, row_json, suggested_customers};
use crate::activations;
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Db;
use crate::error::{Error, Faults, Result};
use crate::features::Features;
use crate::id::LicenseId;
use crate::licenses::{self, EditedTerms, Extension, Kind, License, LicenseEdit, LicenseRow};
use crate::panel::{Admin, PanelRequest};
use crate::plans;
use crate::revision;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members};

const EDIT: &str = "licenses/edit.html.tera";
const EXTEND: &str = "licenses/extend.html.tera";

fn form_values(license: &License, customer: &str) -> Value {
    json!({
        "customer": customer,
        "plan": license.plan,
        "kind": license.kind,
        "devices": license.device_limit,
        "valid_from": license.valid_from.day(),
        "valid_until": license.valid_until.map(UnixMs::day),
        "pending_days": license.pending_days,
        "features": license.features.stored(),
        "updates_until": license.updates_until.map(UnixMs::day),
        "note": license.note,
    })
}

/// What the form shows besides its values: the license, the plans and the customers that it offers.
struct EditPage {
    row: LicenseRow,
    plans: Vec<Value>,
    customers: Vec<String>,
    values: Value,
}

impl EditPage {
    async fn read(db: &Db, id: i64, now: UnixMs) -> Result<Self> {
        let row = load(db, id, now).await?;
        let customer = row.license.customer_id;
        let customer = db.read(move |reader| {
            let customer = customer.map(|id| customers::get(reader, id));
            Ok(customer.transpose()?.map(|customer| customer.label()))
        });
        let customer = customer.await?.unwrap_or_default();
        Ok(Self {
            plans: plans::panel::offered(db, row.license.product, row.license.plan.as_deref())
                .await?,
            customers: suggested_customers(db).await?,
            values: form_values(&row.license, &customer),
            row,
        })
    }

    fn json(&self, now: UnixMs) -> Map<String, Value> {
        let license = &self.row.license;
        // Without plans, nothing of what they sell is shown.
        let is_by_plan = !self.plans.is_empty()
            || license.plan.is_some()
            || license.updates_until.is_some()
            || !license.features.words().is_empty();
        object_members(json!({
            "license": row_json(&self.row, now),
            "plans": self.plans,
            "offered": self.customers,
            "by_plan": is_by_plan,
        }))
    }
}

/// The form to edit a license.
#[get("/licenses/<id>/edit")]
async fn edit_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let page = EditPage::read(&app.db, id, request.now.wall).await?;
    let mut values = page.json(request.now.wall);
    values.insert("seen".to_owned(), json!(page.row.license.revision()));
    values.insert("form".to_owned(), form::empty_form(page.values));
    request.page(EDIT, Value::Object(values)).await
}

/// The terms in a form, and its faults. Fields that it does not show, or that are faulty, are not changed.
fn terms_of(form: &Fields) -> (EditedTerms, Faults) {
    let mut faults = Faults::default();
    let shown = |name| form.has(name).then(|| form.text(name).to_owned());
    let features = shown("features").map(|text| Features::from_input(&text));
    let terms = EditedTerms {
        kind: faults.keep(Kind::parse(form.text("kind"))),
        device_limit: faults.keep(form.number("devices")),
        valid_from: Some(form.text("valid_from").to_owned()),
        valid_until: Some(form.text("valid_until").to_owned()),
        pending_days: shown("pending_days"),
        plan: shown("plan"),
        features: features.and_then(|features| faults.keep(features)),
        updates_until: shown("updates_until"),
        customer: shown("customer"),
        note: Some(form.text("note").to_owned()),
    };
    (terms, faults)
}

/// Edits a license.
#[post("/licenses/<id>/edit", data = "<form>")]
async fn edit(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    let (actor, seen) = (request.actor(), form.revision());
    let (now, moment, live) = (request.now.wall, request.now, app.live_sessions.clone());
    let (terms, faults) = terms_of(&form);
    let edit = LicenseEdit {
        id: LicenseId(id),
        terms,
        seen: Some(seen),
    };
    let changed = app
        .db
        .write("licenses.edit", move |tx| {
            let act = Act::new(tx, &actor, now);
            let edited = activations::edit_license(&act, live.at(moment), &edit);
            faults.with(edited.map_err(in_form))
        })
        .await;
    let Err(error) = changed else {
        return Html::done(format!("{LIST}/{id}"), "saved");
    };
    let page = EditPage::read(&app.db, id, now).await?;
    let seen = form.revision().after(&error, page.row.license.revision());
    let mut values = page.json(now);
    values.insert("seen".to_owned(), json!(seen));
    let rejected = form.rejected("licenses", error).against(page.values);
    request
        .render_with_errors(EDIT, rejected, Value::Object(values))
        .await
}

/// The form to extend a license.
#[get("/licenses/<id>/extend")]
async fn extend_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let row = load(&app.db, id, request.now.wall).await?;
    let values = json!({
        "license": row_json(&row, request.now.wall),
        "seen": row.license.end_revision(),
        "form": form::empty_form(json!({})),
    });
    request.page(EXTEND, values).await
}

/// How a form extends a license.
///
/// # Errors
/// [`Error::Invalid`] if it names no number of days and no date, or both.
pub(super) fn extension_of(form: &Fields) -> Result<Extension> {
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
    request
        .once(&form, extend_once(&request, &form, id, app))
        .await
}

async fn extend_once(request: &PanelRequest<'_>, form: &Fields, id: i64, app: &App) -> HtmlReply {
    let (actor, now, seen) = (request.actor(), request.now.wall, form.revision());
    let extended = match extension_of(form) {
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
        return Html::done(format!("{LIST}/{id}"), "extended");
    };
    let row = load(&app.db, id, now).await?;
    let seen = form.revision().after(&error, row.license.end_revision());
    let values = json!({
        "license": row_json(&row, now),
        "seen": seen,
        "is_changed": revision::is_conflict(&error),
    });
    request
        .render_with_errors(EXTEND, form.rejected("licenses", error), values)
        .await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![edit_form, edit, extend_form, extend]
}
