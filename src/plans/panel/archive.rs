//! Archiving a plan, after a confirmation.

use rocket::{Route, get, post, routes};
use serde_json::{Map, json};

use super::{LIST, load, page_of};
use crate::app::App;
use crate::audit::Act;
use crate::panel::Admin;
use crate::plans;
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};

/// Asks for confirmation before a plan is archived.
#[get("/plans/<code>/archive")]
async fn confirm_archive(request: Admin<'_>, code: &str, app: &App) -> HtmlReply {
    let plan = load(&app.db, request.product, code).await?;
    let mut members = Map::new();
    members.insert("name".to_owned(), plan.terms.name.into());
    members.insert("code".to_owned(), plan.code.into());
    let values = json!({
        "ask": request.text("plans.ask_archive", &members)?,
        "why": [request.text("plans.why_archive", &members)?],
        "action": request.text("plans.do_archive", &members)?,
        "back": page_of(code),
    });
    request.page("parts/confirm.html.tera", values).await
}

/// Archives a plan.
#[post("/plans/<code>/archive", data = "<_form>")]
async fn archive(request: Admin<'_>, code: &str, _form: Form, app: &App) -> HtmlReply {
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    let code = code.to_owned();
    app.db
        .write("plans.archive", move |tx| {
            plans::archive(&Act::new(tx, &actor, now), product, &code)
        })
        .await?;
    Html::done(LIST, "plan_archived")
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![confirm_archive, archive]
}
