//! Suspending, reinstating and revoking a license.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::{LIST, load};
use crate::app::App;
use crate::audit::Act;
use crate::error::Result;
use crate::id::LicenseId;
use crate::licenses::{self, LicenseRow};
use crate::panel::{Admin, PanelRequest};
use crate::web::form::{self, Form};
use crate::web::html::{Html, HtmlReply};

const CONFIRM: &str = "parts/confirm.html.tera";

/// The confirmation page before a license is suspended or revoked.
fn confirmation(request: &PanelRequest<'_>, row: &LicenseRow, action: &str) -> Result<Value> {
    let mut members = Map::new();
    let customer = super::customer_name(request, &row.license)?;
    members.insert("customer".to_owned(), customer.into());
    members.insert("key".to_owned(), row.license.key.formatted().into());
    let text = |key: &str| request.text(&format!("licenses.{key}"), &members);
    let mut why = vec![text(&format!("why_{action}"))?];
    if row.session.is_some() {
        why.insert(0, text("why_ends_session")?);
    }
    let key = row.license.key.formatted();
    let typed = key.rsplit('-').next().filter(|_| action == "revoke");
    Ok(json!({
        "text_section": "licenses",
        "ask": text(&format!("ask_{action}"))?,
        "why": why,
        "action": text(&format!("do_{action}"))?,
        "back": format!("{LIST}/{}", row.license.id),
        "typed": typed,
    }))
}

/// The confirmation before a suspension.
#[get("/licenses/<id>/suspend")]
async fn confirm_suspend(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let row = load(&app.db, id, request.now.wall).await?;
    request
        .page(CONFIRM, confirmation(&request, &row, "suspend")?)
        .await
}

/// Suspends a license.
#[post("/licenses/<id>/suspend", data = "<_form>")]
async fn suspend(request: Admin<'_>, id: i64, _form: Form, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    app.db
        .write("licenses.suspend", move |tx| {
            licenses::suspend(&Act::new(tx, &actor, now), LicenseId(id))
        })
        .await?;
    Html::done(format!("{LIST}/{id}"), "suspended")
}

/// Reinstates a license, without a confirmation because it can be undone.
#[post("/licenses/<id>/reinstate", data = "<_form>")]
async fn reinstate(request: Admin<'_>, id: i64, _form: Form, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    app.db
        .write("licenses.reinstate", move |tx| {
            licenses::reinstate(&Act::new(tx, &actor, now), LicenseId(id))
        })
        .await?;
    Html::done(format!("{LIST}/{id}"), "reinstated")
}

/// The confirmation before a revocation.
#[get("/licenses/<id>/revoke")]
async fn confirm_revoke(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let row = load(&app.db, id, request.now.wall).await?;
    let mut values = confirmation(&request, &row, "revoke")?;
    if let Some(values) = values.as_object_mut() {
        values.insert("form".to_owned(), form::empty_form(json!({})));
    }
    request.page(CONFIRM, values).await
}

/// Revokes a license, if the last group of its key was typed.
#[post("/licenses/<id>/revoke", data = "<form>")]
async fn revoke(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let (actor, now) = (request.actor(), request.now.wall);
    let typed = form.text("typed").to_owned();
    let revoked = app
        .db
        .write("licenses.revoke", move |tx| {
            licenses::revoke_confirmed(&Act::new(tx, &actor, now), LicenseId(id), &typed)
        })
        .await;
    let Err(error) = revoked else {
        return Html::done(format!("{LIST}/{id}"), "revoked");
    };
    let row = load(&app.db, id, now).await?;
    let values = confirmation(&request, &row, "revoke")?;
    request
        .render_with_errors(CONFIRM, form.rejected("licenses", error), values)
        .await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![confirm_suspend, suspend, reinstate, confirm_revoke, revoke]
}
