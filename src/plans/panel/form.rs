//! Adding and editing plans.

use rocket::{Route, get, post, routes};
use serde_json::json;

use super::{LIST, load, page_of, template_json};
use crate::app::App;
use crate::audit::Act;
use crate::error::{Error, Faults};
use crate::features::Features;
use crate::licenses::Kind;
use crate::panel::{Admin, PanelRequest};
use crate::plans::{self, PlanChange, PlanTerms, TermStart};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};

const FORM: &str = "plans/form.html.tera";

/// The terms in a form, and its faults.
fn terms_of(form: &Fields) -> (PlanTerms, Faults) {
    let mut faults = Faults::default();
    let days = |name| form.non_empty(name).map(|_| form.number(name)).transpose();
    let start = TermStart::parse(form.text("term_starts"));
    let unknown = || Error::invalid("term_starts", "must be issue or first_activation");
    let kind = faults.keep(Kind::parse(form.text("kind")));
    let term_starts = faults.keep(start.ok_or_else(unknown));
    let features = Features::from_input(form.text("features"));
    let terms = PlanTerms {
        name: form.text("name").to_owned(),
        kind: kind.unwrap_or(Kind::Full),
        device_limit: faults.keep(form.number("device_limit")).unwrap_or(1),
        term_days: faults.keep(days("term_days")).flatten(),
        term_starts: term_starts.unwrap_or(TermStart::Issue),
        features: faults.keep(features).unwrap_or_default(),
        updates_days: faults.keep(days("updates_days")).flatten(),
    };
    (terms, faults)
}

/// The form for a new plan.
#[get("/plans/new")]
async fn new_form(request: Admin<'_>) -> HtmlReply {
    let values = json!({ "kind": "full", "device_limit": 1, "term_starts": "issue" });
    let values = json!({ "seen": "", "form": form::empty_form(values) });
    request.page(FORM, values).await
}

/// Adds a plan.
#[post("/plans/new", data = "<form>")]
async fn add(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request.once(&form, add_once(&request, &form, app)).await
}

async fn add_once(request: &PanelRequest<'_>, form: &Fields, app: &App) -> HtmlReply {
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    let (terms, faults) = terms_of(form);
    let code = form.text("code").to_owned();
    let added = app
        .db
        .write("plans.add", move |tx| {
            let act = Act::new(tx, &actor, now);
            faults.with(plans::add(&act, product, &code, &terms))
        })
        .await;
    match added {
        Ok(_) => Html::done(LIST, "plan_added"),
        Err(error) => {
            request
                .render_with_errors(FORM, form.rejected("plans", error), json!({ "seen": "" }))
                .await
        }
    }
}

/// The form for editing a plan, with its other actions.
#[get("/plans/<code>/edit")]
async fn edit_form(request: Admin<'_>, code: &str, app: &App) -> HtmlReply {
    let plan = load(&app.db, request.product, code).await?;
    let values = json!({
        "plan": template_json(&plan),
        "seen": plan.revision(),
        "form": form::empty_form(plan.terms.facts()),
    });
    request.page(FORM, values).await
}

/// Changes a plan.
#[post("/plans/<code>/edit", data = "<form>")]
async fn edit(request: Admin<'_>, code: &str, form: Form, app: &App) -> HtmlReply {
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    let (terms, faults) = terms_of(&form);
    let change = PlanChange::replacing(terms, form.revision());
    let edited = code.to_owned();
    let changed = app
        .db
        .write("plans.edit", move |tx| {
            let act = Act::new(tx, &actor, now);
            faults.with(plans::edit(&act, product, &edited, &change))
        })
        .await;
    let Err(error) = changed else {
        return Html::done(page_of(code), "plan_saved");
    };
    let plan = load(&app.db, product, code).await?;
    let values = json!({
        "plan": template_json(&plan),
        "seen": form.revision().after(&error, plan.revision()),
    });
    let rejected = form.rejected("plans", error);
    let rejected = rejected.against(plan.terms.facts());
    request.render_with_errors(FORM, rejected, values).await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![new_form, add, edit_form, edit]
}
