//! Handlers for the admin panel: selling the license of a trial, from its page.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::TrialDay;
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::customers;
use crate::db::{Db, Reader};
use crate::error::Result;
use crate::id::{LicenseId, ProductId};
use crate::licenses::{self, Kind};
use crate::panel::{Admin, PanelRequest};
use crate::plans;
use crate::products;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members};
use crate::zone::Day;

const LICENSES: &str = "/lizenzserver/licenses";
const SELL: &str = "trials/sell.html.tera";
/// How many days the page of figures shows.
pub const SUMMARY_DAYS: u32 = 30;

/// What the form shows besides its fields: the license, the latest customers, and the plans of its product that end a
/// trial.
async fn page_values(db: &Db, id: LicenseId, now: UnixMs) -> Result<Map<String, Value>> {
    let row = db
        .read(move |reader| licenses::find_row(reader, id, now))
        .await?;
    let mut plans = plans::panel::offered(db, row.license.product, None).await?;
    plans.retain(|plan| plan.get("kind").and_then(Value::as_str) == Some(Kind::Full.as_str()));
    Ok(object_members(json!({
        "license": licenses::panel::row_json(&row, now),
        "offered": licenses::panel::suggested_customers(db).await?,
        "plans": plans,
    })))
}

/// The form that gives the license of a trial a customer.
#[get("/licenses/<id>/sell")]
async fn sell_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let mut values = page_values(&app.db, LicenseId(id), request.now.wall).await?;
    values.insert("form".to_owned(), form::empty_form(json!({})));
    request.page(SELL, Value::Object(values)).await
}

/// Gives the license of a trial a customer, and makes it a license of the plan that the form names.
#[post("/licenses/<id>/sell", data = "<form>")]
async fn sell(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    request
        .once(&form, sell_once(&request, &form, id, app))
        .await
}

async fn sell_once(request: &PanelRequest<'_>, form: &Fields, id: i64, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    let buyer = licenses::panel::buyer_of(form);
    let plan = form.non_empty("plan").map(str::to_owned);
    let sold = app
        .db
        .write("trials.sell", move |tx| {
            let act = Act::new(tx, &actor, now);
            super::sell(&act, LicenseId(id), &buyer, plan.as_deref())
        })
        .await;
    let Err(error) = sold else {
        return Html::done(format!("{LICENSES}/{id}"), "sold");
    };
    let error = licenses::panel::as_field(error).with_field_names(&[("name", "customer")]);
    let mut values = page_values(&app.db, LicenseId(id), now).await?;
    let known = customers::panel::namesakes(&app.db, form, form.text("customer"), &error);
    values.insert("namesakes".to_owned(), known.await?);
    request
        .render_with_errors(
            SELL,
            form.rejected("licenses", error),
            Value::Object(values),
        )
        .await
}

/// The trials of a product on each of these days, for the page of figures; `product` is `None` for all of them. `None` if no
/// trials were ever offered.
pub fn summary(
    reader: &Reader<'_>,
    product: Option<ProductId>,
    days: &[Day],
) -> Result<Option<Value>> {
    let all = products::list(reader)?.into_iter().map(|one| one.id);
    let products: Vec<ProductId> = all
        .filter(|id| product.is_none_or(|chosen| chosen == *id))
        .collect();
    if !super::were_offered(reader, &products)? {
        return Ok(None);
    }
    let found = super::by_day(reader, &products, days)?;
    let total = |count: fn(&TrialDay) -> u32| found.iter().map(count).sum::<u32>();
    let (started, bought) = (total(|day| day.started), total(|day| day.bought));
    let rows = found
        .iter()
        .map(|day| json!({ "day": day.day, "started": day.started, "bought": day.bought }));
    let rows: Vec<Value> = rows.collect();
    Ok(Some(json!({
        "days": days.len(),
        "rows": rows,
        "started": started,
        "bought": bought,
    })))
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![sell_form, sell]
}
