//! The panel's handlers for plans: the list, the form, and the pages that ask before a plan is archived or applied.

mod apply;
mod archive;
mod form;
mod list;

use rocket::Route;
use serde_json::{Value, json};

use super::Plan;
use super::json::members;
use crate::db::Db;
use crate::error::Result;
use crate::id::ProductId;

const LIST: &str = "/lizenzserver/plans";

/// The address of the form that edits a plan.
fn page_of(code: &str) -> String {
    format!("{LIST}/{code}/edit")
}

/// A plan as templates show it.
fn template_json(plan: &Plan) -> Value {
    let mut values = members(plan);
    values.insert("archived_at".to_owned(), json!(plan.archived_at));
    Value::Object(values)
}

/// The plans that a form offers: those for sale, by name, and `present`, the code of the plan that a license has.
pub async fn offered(db: &Db, product: ProductId, present: Option<&str>) -> Result<Vec<Value>> {
    let present = present.map(str::to_owned);
    let plans = db.read(move |reader| {
        let mut plans = super::for_sale(reader, product)?;
        if let Some(code) = present
            && plans.iter().all(|plan| plan.code != code)
        {
            plans.push(super::get(reader, product, &code)?);
        }
        Ok(plans)
    });
    Ok(plans.await?.iter().map(template_json).collect())
}

/// The plan with this code, for a page about it.
async fn load(db: &Db, product: ProductId, code: &str) -> Result<Plan> {
    let code = code.to_owned();
    db.read(move |reader| super::get(reader, product, &code))
        .await
}

/// The panel's routes for plans.
pub fn routes() -> Vec<Route> {
    let pages = [
        list::routes(),
        form::routes(),
        archive::routes(),
        apply::routes(),
    ];
    pages.concat()
}
