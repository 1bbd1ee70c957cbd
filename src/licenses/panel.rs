//! The door for administrators in a browser: licenses, as far as it is about licenses alone. What belongs
//! to one of them is put side by side in `overview`.

use rocket::{FromForm, Route, State, get, post, routes};
use serde_json::{Map, Value, json};

use super::{Extension, Filter, From, Kind, LicenseQuery, LicenseRow, Order};
use crate::admins::panel::{Admin, PanelRequest, Support};
use crate::clock::UnixMs;
use crate::customers;
use crate::db::Db;
use crate::error::{CHANGED_MEANWHILE, Error, Result};
use crate::id::{CustomerId, LicenseId};
use crate::web::csv::Csv;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, address};
use crate::web::query;

/// Licenses on one page: each of them draws up to 20 boxes, and a page is to stay below 30 kB.
pub const PAGE: u32 = 20;
/// Licenses in one file.
const EXPORT_MAX: u32 = 100_000;
/// Keys that are shown after an order.
const ISSUED_MAX: u32 = 100;
/// Customers that a form offers to choose from.
const OFFERED: u32 = 200;
const LIST: &str = "/lizenzserver/licenses";
const ISSUE: &str = "licenses/issue.html.tera";
const EDIT: &str = "licenses/edit.html.tera";
const EXTEND: &str = "licenses/extend.html.tera";
const CONFIRM: &str = "parts/confirm.html.tera";

/// What the address of a view says.
#[derive(Debug, FromForm)]
struct View<'r> {
    q: Option<&'r str>,
    state: Option<&'r str>,
    customer: Option<&'r str>,
    first: Option<&'r str>,
    last: Option<&'r str>,
    before: Option<&'r str>,
    after: Option<&'r str>,
}

impl View<'_> {
    /// What to show.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a part that cannot be read.
    fn wanted(&self) -> Result<LicenseQuery> {
        let first = query::number("first", self.first)?;
        let last = query::number("last", self.last)?;
        let filter = query::known("state", self.state, Filter::of_word)?;
        let customer = query::number("customer", self.customer)?;
        Ok(LicenseQuery {
            search: self.q.unwrap_or_default().trim().to_owned(),
            filter: filter.unwrap_or_default(),
            customer_id: customer.map(CustomerId),
            range: first.zip(last).map(range),
        })
    }

    fn from(&self) -> Result<From> {
        let before = query::number("before", self.before)?;
        let after = query::number("after", self.after)?;
        Ok(match (before, after) {
            (Some(id), _) => From::Before(LicenseId(id)),
            (None, Some(id)) => From::After(LicenseId(id)),
            (None, None) => From::Newest,
        })
    }

    /// An address with the same search among the same customer's licenses.
    fn at(&self, path: &str, filter: Filter, way: &str, id: &str) -> String {
        let state = if filter == Filter::All {
            ""
        } else {
            filter.word()
        };
        let pairs = [
            ("q", self.q.unwrap_or_default().trim()),
            ("state", state),
            ("customer", self.customer.unwrap_or_default().trim()),
            (way, id),
        ];
        address(path, &pairs)
    }
}

const fn range((first, last): (i64, i64)) -> (LicenseId, LicenseId) {
    (LicenseId(first), LicenseId(last))
}

/// A page of licenses.
#[get("/licenses?<view..>")]
async fn list(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let (wanted, from, now) = (view.wanted()?, view.from()?, who.now.wall);
    let filter = wanted.filter;
    let (mut rows, tally, of) = db
        .read(move |reader| {
            let rows = super::page(reader, &wanted, from, PAGE + 1, now)?;
            let tally = super::tally(reader, &wanted, now)?;
            let of = wanted.customer_id.map(|id| customers::get(reader, id));
            Ok((rows, tally, of.transpose()?))
        })
        .await?;
    let back = matches!(from, From::After(_));
    let full = rows.len() > PAGE as usize;
    if full && back {
        rows.remove(0);
    }
    rows.truncate(PAGE as usize);
    let edge = |row: Option<&LicenseRow>| row.map(|row| row.license.id.to_string());
    let newer = edge(rows.first()).filter(|_| matches!(from, From::Before(_)) || (back && full));
    let older = edge(rows.last()).filter(|_| full || back);
    let counts = json!(tally);
    let filters = Filter::ALL.map(|known| {
        json!({
            "word": known.word(),
            "count": counts.get(known.word()),
            "address": view.at(LIST, known, "", ""),
            "chosen": known == filter,
        })
    });
    let count = counts.get(filter.word()).and_then(Value::as_u64);
    let sheet_max = count.is_some_and(|count| count > u64::from(EXPORT_MAX));
    let sheet_max = sheet_max.then_some(EXPORT_MAX);
    let searched = view.q.is_some_and(|q| !q.trim().is_empty());
    let values = json!({
        "rows": rows.iter().map(|row| shown(row, now)).collect::<Vec<_>>(),
        "q": view.q.unwrap_or_default(),
        "state": filter.word(),
        "of": of,
        "searched": searched,
        // Figures are of all licenses: beside a part of them they would mislead.
        "figures": !searched && filter == Filter::All && of.is_none() && matches!(from, From::Newest),
        "tally": tally,
        "filters": filters,
        "csv": view.at("/lizenzserver/licenses.csv", filter, "", ""),
        "sheet_max": sheet_max,
        "newer": newer.map(|id| view.at(LIST, filter, "after", &id)),
        "older": older.map(|id| view.at(LIST, filter, "before", &id)),
    });
    who.page("licenses/list.html.tera", values).await
}

/// A license as tables show it.
pub fn shown(row: &LicenseRow, now: UnixMs) -> Value {
    let license = &row.license;
    json!({
        "id": license.id,
        "key": license.key,
        "customer_id": license.customer_id,
        "customer": license.customer,
        "company": row.company,
        "kind": license.kind,
        "pill": super::shown(license, row.taken, now),
        "taken": row.taken,
        "limit": license.device_limit,
        "session": row.session,
        "valid_until": license.valid_until,
    })
}

/// What a list shows, to keep.
#[get("/licenses.csv?<view..>")]
async fn export(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let (wanted, now, language) = (view.wanted()?, who.now.wall, who.language);
    let sheet = db
        .read(move |reader| {
            let rows = super::page(reader, &wanted, From::Newest, EXPORT_MAX + 1, now)?;
            let max = usize::try_from(EXPORT_MAX).unwrap_or(usize::MAX);
            let mut sheet = Csv::new(&HEAD, language)?;
            for row in &rows {
                sheet.row_up_to(max, &cells(row))?;
            }
            Ok(sheet)
        })
        .await?;
    Ok(sheet.file(&format!("licenses-{}", now.day()))?)
}

/// What the cells of a row are called.
const HEAD: [&str; 12] = [
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
        license.key.shown(),
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

/// The customers to choose from.
async fn offered(db: &Db) -> Result<Vec<String>> {
    let latest = db
        .read(move |reader| customers::latest(reader, OFFERED))
        .await?;
    Ok(latest.iter().map(customers::Customer::named).collect())
}

/// The form for new ones.
#[get("/licenses/new?<customer>")]
async fn issue_form(who: Admin<'_>, customer: Option<i64>, db: &State<Db>) -> HtmlReply {
    let known = db
        .read(move |reader| {
            let id = customer.map(CustomerId);
            id.map(|id| customers::get(reader, id)).transpose()
        })
        .await?;
    let values = json!({
        "customer": known.as_ref().map(customers::Customer::named),
        "kind": "full",
        "devices": 1,
        "count": 1,
    });
    let page = json!({ "offered": offered(db).await?, "form": form::empty_form(values) });
    who.page(ISSUE, page).await
}

/// What the form for new ones asks for; the customer is not looked up yet.
fn order(form: &Fields) -> Result<Order> {
    let until = form.given("valid_until").map(UnixMs::parse).transpose();
    let until = until.map_err(|problem| Error::invalid("valid-until", problem))?;
    Ok(Order {
        customer_id: CustomerId(0),
        kind: Kind::of_word(form.text("kind"))?,
        device_limit: form.number("devices")?,
        valid_until: until,
        domain: form.given("domain").map(str::to_owned),
        count: form.number("count")?,
        note: form.text("note").to_owned(),
    })
}

/// Issues licenses, to a customer who is new if the form says so.
#[post("/licenses/new", data = "<form>")]
async fn issue(who: Admin<'_>, form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    let (buyer, is_new) = (form.text("customer").to_owned(), form.has("new_customer"));
    let issued = match order(&form) {
        Ok(order) => {
            db.write("licenses.issue", move |tx| {
                let customer_id = if is_new {
                    let new = customers::NewCustomer {
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
            return Html::go(format!("{LIST}/issued/{first}/{last}"));
        }
        Ok(None) => return Html::go(LIST),
        // Both are about the one field that names the customer.
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
    let values = json!({ "offered": offered(db).await? });
    who.again(ISSUE, "licenses", &form, error, values).await
}

/// The keys that an order brought.
#[get("/licenses/issued/<first>/<last>")]
async fn issued(who: Support<'_>, first: i64, last: i64, db: &State<Db>) -> HtmlReply {
    let now = who.now.wall;
    let wanted = LicenseQuery {
        range: Some(range((first, last))),
        ..LicenseQuery::default()
    };
    let rows = db
        .read(move |reader| super::page(reader, &wanted, From::Newest, ISSUED_MAX, now))
        .await?;
    let newest = rows.first();
    let newest = newest.ok_or_else(|| Error::not_found("license", first))?;
    let keys: Vec<String> = rows.iter().map(|row| row.license.key.shown()).collect();
    let (first, last) = (first.to_string(), last.to_string());
    let values = json!({
        "rows": rows.iter().map(|row| shown(row, now)).collect::<Vec<_>>(),
        "license": shown(newest, now),
        "all_keys": keys.join("\n"),
        "more": keys.len() >= ISSUED_MAX as usize,
        "csv": address("/lizenzserver/licenses.csv", &[("first", &first), ("last", &last)]),
    });
    who.page("licenses/issued.html.tera", values).await
}

/// One license as lists show it, for a page about it.
async fn one(db: &Db, id: i64, now: UnixMs) -> Result<LicenseRow> {
    db.read(move |reader| super::listed(reader, LicenseId(id), now))
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

/// The form for a change.
#[get("/licenses/<id>/edit")]
async fn edit_form(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let row = one(db, id, who.now.wall).await?;
    let values = json!({
        "license": shown(&row, who.now.wall),
        "seen": super::state(&row.license),
        "form": form::empty_form(form_values(&row)),
    });
    who.page(EDIT, values).await
}

fn terms(form: &Fields) -> Result<super::EditedTerms> {
    Ok(super::EditedTerms {
        kind: Kind::of_word(form.text("kind"))?,
        device_limit: form.number("devices")?,
        valid_from: form.text("valid_from").to_owned(),
        valid_until: form.text("valid_until").to_owned(),
        note: form.text("note").to_owned(),
    })
}

/// Changes one.
#[post("/licenses/<id>/edit", data = "<form>")]
async fn edit(who: Admin<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now, seen) = (who.actor(), who.now.wall, form.raw("seen").to_owned());
    let changed = match terms(&form) {
        Ok(terms) => {
            db.write("licenses.edit", move |tx| {
                super::edit(tx, LicenseId(id), &terms, &seen, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = changed else {
        return Html::go(format!("{LIST}/{id}?done=saved"));
    };
    // Who is told that somebody else was quicker sees what is there now, and may save over it.
    let (row, late) = (one(db, id, now).await?, error.is(CHANGED_MEANWHILE));
    let values = json!({
        "license": shown(&row, now),
        "seen": if late { super::state(&row.license) } else { form.raw("seen").to_owned() },
        "present": late.then(|| form_values(&row)),
    });
    who.again(EDIT, "licenses", &form, error, values).await
}

/// The form for another end.
#[get("/licenses/<id>/extend")]
async fn extend_form(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let row = one(db, id, who.now.wall).await?;
    let values = json!({
        "license": shown(&row, who.now.wall),
        "seen": super::state(&row.license),
        "form": form::empty_form(json!({})),
    });
    who.page(EXTEND, values).await
}

fn extension(form: &Fields) -> Result<Extension> {
    match (form.given("days"), form.given("until")) {
        (Some(_), Some(_)) => Err(Error::invalid("until", "is given beside days")),
        (None, Some(day)) => UnixMs::parse(day)
            .map(Extension::Until)
            .map_err(|problem| Error::invalid("until", problem)),
        (_, None) => form.number("days").map(Extension::Days),
    }
}

/// Gives one another end.
#[post("/licenses/<id>/extend", data = "<form>")]
async fn extend(who: Admin<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now, seen) = (who.actor(), who.now.wall, form.raw("seen").to_owned());
    let extended = match extension(&form) {
        Ok(by) => {
            db.write("licenses.extend", move |tx| {
                super::extend_seen(tx, LicenseId(id), by, &seen, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = extended else {
        return Html::go(format!("{LIST}/{id}?done=extended"));
    };
    let (row, late) = (one(db, id, now).await?, error.is(CHANGED_MEANWHILE));
    let seen = if late {
        super::state(&row.license)
    } else {
        form.raw("seen").to_owned()
    };
    let values = json!({ "license": shown(&row, now), "seen": seen });
    who.again(EXTEND, "licenses", &form, error, values).await
}

/// What a deed that stops a license does, asked on a page of its own.
fn question(who: &PanelRequest<'_>, row: &LicenseRow, deed: &str) -> Result<Value> {
    let mut members = Map::new();
    members.insert("customer".to_owned(), row.license.customer.clone().into());
    members.insert("key".to_owned(), row.license.key.shown().into());
    let text = |key: &str| who.text(&format!("licenses.{key}"), &members);
    let mut why = vec![text(&format!("why_{deed}"))?];
    if row.session.is_some() {
        why.insert(0, text("why_ends_session")?);
    }
    let key = row.license.key.shown();
    let typed = key.rsplit('-').next().filter(|_| deed == "revoke");
    Ok(json!({
        "room": "licenses",
        "ask": text(&format!("ask_{deed}"))?,
        "why": why,
        "deed": text(&format!("do_{deed}"))?,
        "back": format!("{LIST}/{}", row.license.id),
        "typed": typed,
    }))
}

/// Asks before a suspension.
#[get("/licenses/<id>/suspend")]
async fn ask_suspend(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let row = one(db, id, who.now.wall).await?;
    who.page(CONFIRM, question(&who, &row, "suspend")?).await
}

/// Stops one for now.
#[post("/licenses/<id>/suspend", data = "<_form>")]
async fn suspend(who: Admin<'_>, id: i64, _form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    db.write("licenses.suspend", move |tx| {
        super::suspend(tx, LicenseId(id), &actor, now)
    })
    .await?;
    Html::go(format!("{LIST}/{id}?done=suspended"))
}

/// Puts one back into use: that can be undone, so nobody is asked.
#[post("/licenses/<id>/reinstate", data = "<_form>")]
async fn reinstate(who: Admin<'_>, id: i64, _form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    db.write("licenses.reinstate", move |tx| {
        super::reinstate(tx, LicenseId(id), &actor, now)
    })
    .await?;
    Html::go(format!("{LIST}/{id}?done=reinstated"))
}

/// Asks before a revocation.
#[get("/licenses/<id>/revoke")]
async fn ask_revoke(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let row = one(db, id, who.now.wall).await?;
    let mut values = question(&who, &row, "revoke")?;
    if let Some(values) = values.as_object_mut() {
        values.insert("form".to_owned(), form::empty_form(json!({})));
    }
    who.page(CONFIRM, values).await
}

/// Stops one for good, where the end of its key was typed.
#[post("/licenses/<id>/revoke", data = "<form>")]
async fn revoke(who: Admin<'_>, id: i64, form: Form, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let (actor, now) = (who.actor(), who.now.wall);
    let typed = form.text("typed").to_owned();
    let revoked = db
        .write("licenses.revoke", move |tx| {
            super::revoke_named(tx, LicenseId(id), &typed, &actor, now)
        })
        .await;
    let Err(error) = revoked else {
        return Html::go(format!("{LIST}/{id}?done=revoked"));
    };
    let row = one(db, id, now).await?;
    let values = question(&who, &row, "revoke")?;
    who.again(CONFIRM, "licenses", &form, error, values).await
}

/// What is behind this door.
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
        ask_suspend,
        suspend,
        reinstate,
        ask_revoke,
        revoke
    ]
}
