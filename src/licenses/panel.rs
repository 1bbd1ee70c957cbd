//! Handlers for the admin panel: listing, issuing and changing licenses. The page of one license, with its devices
//! and sessions, is in `overview`.

use rocket::{FromForm, Route, State, get, post, routes};
use serde_json::{Map, Value, json};

use super::{Extension, Kind, LicenseFilter, LicenseQuery, LicenseRow, Order};
use crate::admins::panel::{Admin, PanelRequest, Support};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::paging::{Cursor, PageRequest};
use crate::revision;
use crate::web::csv::Csv;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, path_with_query};
use crate::web::pager::Pager;
use crate::web::query;

/// Licenses per page: each row draws up to 20 slots, and a page should stay below 30 kB.
pub const PAGE: u32 = 20;
/// Maximum rows of a CSV file.
const EXPORT_MAX: u32 = 100_000;
/// Keys shown after an order.
const ISSUED_MAX: u32 = 100;
/// Customers suggested in the form.
const SUGGESTED: u32 = 200;
const LIST: &str = "/lizenzserver/licenses";
const CSV: &str = "/lizenzserver/licenses.csv";
/// The list begins with the newest license, so the next page is the one before a license.
const PAGER: Pager<1> = Pager {
    path: LIST,
    next: ["before"],
    previous: ["after"],
};
const ISSUE: &str = "licenses/issue.html.tera";
const EDIT: &str = "licenses/edit.html.tera";
const EXTEND: &str = "licenses/extend.html.tera";
const CONFIRM: &str = "parts/confirm.html.tera";

/// The query parameters of a list.
#[derive(Debug, FromForm)]
struct ListParams<'r> {
    q: Option<&'r str>,
    state: Option<&'r str>,
    customer: Option<&'r str>,
    first: Option<&'r str>,
    last: Option<&'r str>,
    before: Option<&'r str>,
    after: Option<&'r str>,
}

impl ListParams<'_> {
    /// # Errors
    /// [`Error::Invalid`] if a parameter cannot be read.
    fn query(&self) -> Result<LicenseQuery> {
        let first = query::number("first", self.first)?;
        let last = query::number("last", self.last)?;
        let filter = query::parsed("state", self.state, LicenseFilter::from_word)?;
        let customer = query::number("customer", self.customer)?;
        Ok(LicenseQuery {
            search: self.q.unwrap_or_default().trim().to_owned(),
            filter: filter.unwrap_or_default(),
            customer_id: customer.map(CustomerId),
            range: first.zip(last).map(range),
        })
    }

    fn cursor(&self) -> Result<Cursor<LicenseId>> {
        PAGER.cursor(self.before, self.after, |name, text| {
            Ok(query::number(name, text)?.map(LicenseId))
        })
    }

    /// The parameters with the same search and customer.
    fn pairs(&self, filter: LicenseFilter) -> [(&str, &str); 3] {
        let state = if filter == LicenseFilter::All {
            ""
        } else {
            filter.word()
        };
        [
            ("q", self.q.unwrap_or_default().trim()),
            ("state", state),
            ("customer", self.customer.unwrap_or_default().trim()),
        ]
    }
}

const fn range((first, last): (i64, i64)) -> (LicenseId, LicenseId) {
    (LicenseId(first), LicenseId(last))
}

/// A page of licenses.
#[get("/licenses?<params..>")]
async fn list(who: Support<'_>, params: ListParams<'_>, db: &State<Db>) -> HtmlReply {
    let (query, from, now) = (params.query()?, params.cursor()?, who.now.wall);
    let filter = query.filter;
    let (page, tally, customer) = db
        .read(move |reader| {
            let request = PageRequest { from, limit: PAGE };
            let page = super::page(reader, &query, &request, now)?;
            let tally = super::count_by_filter(reader, &query, now)?;
            let customer = query.customer_id.map(|id| customers::get(reader, id));
            Ok((page, tally, customer.transpose()?))
        })
        .await?;
    let links = PAGER.links(&params.pairs(filter), &page, |row: &LicenseRow| {
        [row.license.id.to_string()]
    });
    let counts = json!(tally);
    let filters = LicenseFilter::ALL.map(|other| {
        json!({
            "word": other.word(),
            "count": counts.get(other.word()),
            "address": path_with_query(LIST, &params.pairs(other)),
            "chosen": other == filter,
        })
    });
    let count = counts.get(filter.word()).and_then(Value::as_u64);
    let is_cut = count.is_some_and(|count| count > u64::from(EXPORT_MAX));
    let sheet_max = is_cut.then_some(EXPORT_MAX);
    let searched = params.q.is_some_and(|q| !q.trim().is_empty());
    let values = json!({
        "rows": page.rows.iter().map(|row| row_json(row, now)).collect::<Vec<_>>(),
        "q": params.q.unwrap_or_default(),
        "state": filter.word(),
        "of": customer,
        "searched": searched,
        // The figures count all licenses and would mislead above a part of them.
        "figures": !searched && filter == LicenseFilter::All && customer.is_none() && from == Cursor::First,
        "tally": tally,
        "filters": filters,
        "csv": path_with_query(CSV, &params.pairs(filter)),
        "sheet_max": sheet_max,
        "newer": links.newer,
        "older": links.older,
    });
    who.page("licenses/list.html.tera", values).await
}

/// A license as templates show it in a table.
pub fn row_json(row: &LicenseRow, now: UnixMs) -> Value {
    let license = &row.license;
    json!({
        "id": license.id,
        "key": license.key,
        "customer_id": license.customer_id,
        "customer": license.customer,
        "company": row.company,
        "kind": license.kind,
        "pill": super::badge(license, row.taken, now),
        "taken": row.taken,
        "limit": license.device_limit,
        "session": row.session,
        "valid_until": license.valid_until,
    })
}

/// The CSV export of a list.
#[get("/licenses.csv?<params..>")]
async fn export(who: Support<'_>, params: ListParams<'_>, db: &State<Db>) -> HtmlReply {
    let (query, now, language) = (params.query()?, who.now.wall, who.language);
    let csv = db
        .read(move |reader| {
            let request = PageRequest::first(EXPORT_MAX + 1);
            let page = super::page(reader, &query, &request, now)?;
            let max = usize::try_from(EXPORT_MAX).unwrap_or(usize::MAX);
            let mut csv = Csv::new(&CSV_COLUMNS, language)?;
            for row in &page.rows {
                csv.row_up_to(max, &cells(row))?;
            }
            Ok(csv)
        })
        .await?;
    Ok(csv.file(&format!("licenses-{}", now.day()))?)
}

/// The columns of the CSV export.
const CSV_COLUMNS: [&str; 12] = [
    "license_key",
    "customer",
    "company",
    "kind",
    "state",
    "device_limit",
    "device_count",
    "valid_from",
    "valid_until",
    "domain",
    "note",
    "created_at",
];

fn cells(row: &LicenseRow) -> [String; 12] {
    let license = &row.license;
    [
        license.key.formatted(),
        license.customer.clone(),
        row.company.clone(),
        license.kind.word().to_owned(),
        license.state.word().to_owned(),
        license.device_limit.to_string(),
        row.taken.to_string(),
        license.valid_from.rfc3339(),
        license.valid_until.map(UnixMs::rfc3339).unwrap_or_default(),
        license.domain.clone().unwrap_or_default(),
        license.note.clone(),
        license.created_at.rfc3339(),
    ]
}

/// The customers suggested in the form.
async fn suggested_customers(db: &Db) -> Result<Vec<String>> {
    let latest = db
        .read(move |reader| customers::latest(reader, SUGGESTED))
        .await?;
    Ok(latest.iter().map(customers::Customer::label).collect())
}

/// The form for new licenses.
#[get("/licenses/new?<customer>")]
async fn issue_form(who: Admin<'_>, customer: Option<i64>, db: &State<Db>) -> HtmlReply {
    let known = db
        .read(move |reader| {
            let id = customer.map(CustomerId);
            id.map(|id| customers::get(reader, id)).transpose()
        })
        .await?;
    let values = json!({
        "customer": known.as_ref().map(customers::Customer::label),
        "kind": "full",
        "devices": 1,
        "count": 1,
    });
    let page =
        json!({ "offered": suggested_customers(db).await?, "form": form::empty_form(values) });
    who.page(ISSUE, page).await
}

/// The order in a form; the customer is not looked up yet.
fn order_of(form: &Fields) -> Result<Order> {
    let until = form.non_empty("valid_until").map(UnixMs::parse).transpose();
    let until = until.map_err(|problem| Error::invalid("valid-until", problem))?;
    Ok(Order {
        customer_id: CustomerId(0),
        kind: Kind::from_word(form.text("kind"))?,
        device_limit: form.number("devices")?,
        valid_until: until,
        domain: form.non_empty("domain").map(str::to_owned),
        count: form.number("count")?,
        note: form.text("note").to_owned(),
    })
}

/// Issues licenses, to a new customer if the form says so.
#[post("/licenses/new", data = "<form>")]
async fn issue(who: Admin<'_>, form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    let (buyer, is_new) = (form.text("customer").to_owned(), form.has("new_customer"));
    let issued = match order_of(&form) {
        Ok(order) => {
            db.write("licenses.issue", move |tx| {
                let customer_id = if is_new {
                    let new = customers::CustomerData {
                        name: buyer,
                        ..Default::default()
                    };
                    customers::add(tx, &new, &actor, now)?
                } else {
                    customers::find(tx, &buyer)?
                };
                let order = Order {
                    customer_id,
                    ..order
                };
                let issued = super::issue(tx, &order, &actor, now)?;
                Ok(issued.first().zip(issued.last()).map(|(a, z)| (a.id, z.id)))
            })
            .await
        }
        Err(error) => Err(error),
    };
    let error = match issued {
        Ok(Some((first, last))) => {
            return Html::redirect(format!("{LIST}/issued/{first}/{last}"));
        }
        Ok(None) => return Html::redirect(LIST),
        // Both concern the form's field `customer`.
        Err(Error::NotFound {
            what: "customer", ..
        }) => Error::invalid("customer", "is unknown"),
        Err(Error::Invalid {
            field: "name",
            problem,
            ..
        }) => Error::invalid("customer", problem),
        Err(error) => error,
    };
    let values = json!({ "offered": suggested_customers(db).await? });
    who.render_with_errors(ISSUE, "licenses", &form, error, values)
        .await
}

/// The keys of an order.
#[get("/licenses/issued/<first>/<last>")]
async fn issued(who: Support<'_>, first: i64, last: i64, db: &State<Db>) -> HtmlReply {
    let now = who.now.wall;
    let query = LicenseQuery {
        range: Some(range((first, last))),
        ..LicenseQuery::default()
    };
    let request = PageRequest::first(ISSUED_MAX);
    let page = db
        .read(move |reader| super::page(reader, &query, &request, now))
        .await?;
    let rows = page.rows;
    let newest = rows.first();
    let newest = newest.ok_or_else(|| Error::not_found("license", first))?;
    let keys: Vec<String> = rows.iter().map(|row| row.license.key.formatted()).collect();
    let (first, last) = (first.to_string(), last.to_string());
    let values = json!({
        "rows": rows.iter().map(|row| row_json(row, now)).collect::<Vec<_>>(),
        "license": row_json(newest, now),
        "all_keys": keys.join("\n"),
        "more": keys.len() >= ISSUED_MAX as usize,
        "csv": path_with_query(CSV, &[("first", &first), ("last", &last)]),
    });
    who.page("licenses/issued.html.tera", values).await
}

/// One license, for a page about it.
async fn load(db: &Db, id: i64, now: UnixMs) -> Result<LicenseRow> {
    db.read(move |reader| super::find_row(reader, LicenseId(id), now))
        .await
}

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
async fn edit_form(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let row = load(db, id, who.now.wall).await?;
    let values = json!({
        "license": row_json(&row, who.now.wall),
        "seen": row.license.revision(),
        "form": form::empty_form(form_values(&row)),
    });
    who.page(EDIT, values).await
}

fn terms_of(form: &Fields) -> Result<super::EditedTerms> {
    Ok(super::EditedTerms {
        kind: Kind::from_word(form.text("kind"))?,
        device_limit: form.number("devices")?,
        valid_from: form.text("valid_from").to_owned(),
        valid_until: form.text("valid_until").to_owned(),
        note: form.text("note").to_owned(),
    })
}

/// Edits a license.
#[post("/licenses/<id>/edit", data = "<form>")]
async fn edit(who: Admin<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now, seen) = (who.actor(), who.now.wall, form.revision());
    let changed = match terms_of(&form) {
        Ok(terms) => {
            db.write("licenses.edit", move |tx| {
                super::edit(tx, LicenseId(id), &terms, &seen, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = changed else {
        return Html::redirect(format!("{LIST}/{id}?done=saved"));
    };
    // After a conflict, the form also shows the current values and may be sent again to overwrite them.
    let (row, conflict) = (load(db, id, now).await?, revision::is_conflict(&error));
    let values = json!({
        "license": row_json(&row, now),
        "seen": form.revision().after(&error, row.license.revision()),
        "present": conflict.then(|| form_values(&row)),
    });
    who.render_with_errors(EDIT, "licenses", &form, error, values)
        .await
}

/// The form to extend a license.
#[get("/licenses/<id>/extend")]
async fn extend_form(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let row = load(db, id, who.now.wall).await?;
    let values = json!({
        "license": row_json(&row, who.now.wall),
        "seen": row.license.revision(),
        "form": form::empty_form(json!({})),
    });
    who.page(EXTEND, values).await
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
async fn extend(who: Admin<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now, seen) = (who.actor(), who.now.wall, form.revision());
    let extended = match extension_of(&form) {
        Ok(by) => {
            db.write("licenses.extend", move |tx| {
                super::extend_unchanged(tx, LicenseId(id), by, &seen, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = extended else {
        return Html::redirect(format!("{LIST}/{id}?done=extended"));
    };
    let row = load(db, id, now).await?;
    let seen = form.revision().after(&error, row.license.revision());
    let values = json!({ "license": row_json(&row, now), "seen": seen });
    who.render_with_errors(EXTEND, "licenses", &form, error, values)
        .await
}

/// The confirmation page before a license is suspended or revoked.
fn confirmation(who: &PanelRequest<'_>, row: &LicenseRow, action: &str) -> Result<Value> {
    let mut members = Map::new();
    members.insert("customer".to_owned(), row.license.customer.clone().into());
    members.insert("key".to_owned(), row.license.key.formatted().into());
    let text = |key: &str| who.text(&format!("licenses.{key}"), &members);
    let mut why = vec![text(&format!("why_{action}"))?];
    if row.session.is_some() {
        why.insert(0, text("why_ends_session")?);
    }
    let key = row.license.key.formatted();
    let typed = key.rsplit('-').next().filter(|_| action == "revoke");
    Ok(json!({
        "room": "licenses",
        "ask": text(&format!("ask_{action}"))?,
        "why": why,
        "deed": text(&format!("do_{action}"))?,
        "back": format!("{LIST}/{}", row.license.id),
        "typed": typed,
    }))
}

/// The confirmation before a suspension.
#[get("/licenses/<id>/suspend")]
async fn confirm_suspend(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let row = load(db, id, who.now.wall).await?;
    who.page(CONFIRM, confirmation(&who, &row, "suspend")?)
        .await
}

/// Suspends a license.
#[post("/licenses/<id>/suspend", data = "<_form>")]
async fn suspend(who: Admin<'_>, id: i64, _form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    db.write("licenses.suspend", move |tx| {
        super::suspend(tx, LicenseId(id), &actor, now)
    })
    .await?;
    Html::redirect(format!("{LIST}/{id}?done=suspended"))
}

/// Reinstates a license, without a confirmation because it can be undone.
#[post("/licenses/<id>/reinstate", data = "<_form>")]
async fn reinstate(who: Admin<'_>, id: i64, _form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    db.write("licenses.reinstate", move |tx| {
        super::reinstate(tx, LicenseId(id), &actor, now)
    })
    .await?;
    Html::redirect(format!("{LIST}/{id}?done=reinstated"))
}

/// The confirmation before a revocation.
#[get("/licenses/<id>/revoke")]
async fn confirm_revoke(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    who.require_reauthentication()?;
    let row = load(db, id, who.now.wall).await?;
    let mut values = confirmation(&who, &row, "revoke")?;
    if let Some(values) = values.as_object_mut() {
        values.insert("form".to_owned(), form::empty_form(json!({})));
    }
    who.page(CONFIRM, values).await
}

/// Revokes a license, if the last group of its key was typed.
#[post("/licenses/<id>/revoke", data = "<form>")]
async fn revoke(who: Admin<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    who.require_reauthentication()?;
    let (actor, now) = (who.actor(), who.now.wall);
    let typed = form.text("typed").to_owned();
    let revoked = db
        .write("licenses.revoke", move |tx| {
            super::revoke_confirmed(tx, LicenseId(id), &typed, &actor, now)
        })
        .await;
    let Err(error) = revoked else {
        return Html::redirect(format!("{LIST}/{id}?done=revoked"));
    };
    let row = load(db, id, now).await?;
    let values = confirmation(&who, &row, "revoke")?;
    who.render_with_errors(CONFIRM, "licenses", &form, error, values)
        .await
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![
        list,
        export,
        issue_form,
        issue,
        issued,
        edit_form,
        edit,
        extend_form,
        extend,
        confirm_suspend,
        suspend,
        reinstate,
        confirm_revoke,
        revoke
    ]
}
