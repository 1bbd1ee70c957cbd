//! Applying a plan to the licenses that were issued by it, after a confirmation that names their number.

use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::{LIST, page_of, template_json};
use crate::app::App;
use crate::audit::Act;
use crate::db::Db;
use crate::error::Result;
use crate::panel::{Admin, PanelRequest};
use crate::plans::{self, Applied, ApplyPreview, ApplyStep, SkippedLicense};
use crate::revision;
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};

/// Asks for confirmation before a plan is applied.
#[get("/plans/<code>/apply")]
async fn confirm_apply(request: Admin<'_>, code: &str, app: &App) -> HtmlReply {
    let (product, owned) = (request.product, code.to_owned());
    let (plan, preview) = app
        .db
        .read(move |reader| {
            let plan = plans::get(reader, product, &owned)?;
            let preview = plans::apply_preview(reader, &plan)?;
            Ok((plan, preview))
        })
        .await?;
    let values = json!({
        "plan": template_json(&plan),
        "seen": plan.revision(),
        "preview": preview_json(&preview),
        "back": page_of(code),
    });
    request.page("plans/apply.html.tera", values).await
}

fn preview_json(preview: &ApplyPreview) -> Value {
    let skipped = preview.first_skipped.iter();
    json!({
        "licenses": preview.licenses,
        "skipped": preview.skipped,
        "first_skipped": skipped.map(skipped_json).collect::<Vec<_>>(),
    })
}

fn skipped_json(skipped: &SkippedLicense) -> Value {
    json!({
        "id": skipped.license.id,
        "key": skipped.license.key,
        "customer_id": skipped.license.customer_id,
        "customer": skipped.license.customer,
        "taken": skipped.taken,
    })
}

/// Applies a plan.
#[post("/plans/<code>/apply", data = "<form>")]
async fn apply(request: Admin<'_>, code: &str, form: Form, app: &App) -> HtmlReply {
    let first = ApplyStep::first(form.revision());
    match apply_to_all(&request, code, first, &app.db).await {
        Ok(applied) if applied.skipped.is_empty() => Html::done(LIST, "plan_applied"),
        // The page of the question names the licenses that stay as they are.
        Ok(_) => Html::done(format!("{LIST}/{code}/apply"), "plan_applied_in_part"),
        Err(error) if revision::is_conflict(&error) => {
            Html::done(format!("{LIST}/{code}/apply"), "plan_changed_meanwhile")
        }
        Err(error) => Err(error.into()),
    }
}

/// Applies the plan with this code in as many steps as its licenses need.
async fn apply_to_all(
    request: &PanelRequest<'_>,
    code: &str,
    mut step: ApplyStep,
    db: &Db,
) -> Result<Applied> {
    let mut all = Applied::default();
    loop {
        let (actor, now, product) = (request.actor(), request.now.wall, request.product);
        let (code, next) = (code.to_owned(), step.clone());
        let applied = db
            .write("plans.apply", move |tx| {
                plans::apply(&Act::new(tx, &actor, now), product, &code, &next)
            })
            .await?;
        all.add(applied);
        match all.next {
            Some(after) => step.after = after,
            None => return Ok(all),
        }
    }
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![confirm_apply, apply]
}
