//! The panel's handlers for customers.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::{CUSTOMER_EXISTS, Customer, CustomerColumn, CustomerData, CustomerQuery, SameName};
use crate::app::App;
use crate::audit::Act;
use crate::config::Language;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::CustomerId;
use crate::paging::PageRequest;
use crate::panel::{Admin, PanelRequest, Support};
use crate::privacy;
use crate::terms::{FOUND_MAX, Terms};
use crate::text;
use crate::web::csv::Csv;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};
use crate::web::pager::{ListParams, ListUrl};

/// The address of the list.
const LIST: &str = "/lizenzserver/customers";

/// The list that `params` ask for, with its search.
fn list_query(params: &ListParams<'_>) -> Result<(CustomerQuery, Terms)> {
    let query = CustomerQuery {
        found: None,
        order: params.sorting(CustomerColumn::parse)?.unwrap_or_default(),
    };
    Ok((query, Terms::parse(params.search)))
}

/// A page of customers.
#[get("/customers")]
async fn list(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let (mut query, search) = list_query(&params)?;
    let (column, page_request) = (query.order.0, params.page()?);
    let (page, total, is_cut) = app
        .db
        .read(move |reader| {
            query.found = super::search(reader, &search)?;
            let (page, total) = super::page(reader, &query, &page_request)?;
            Ok((page, total, query.found.is_some_and(|found| found.is_cut)))
        })
        .await?;
    let url = ListUrl {
        path: LIST,
        params: &params,
        filter: &[("q", params.search)],
        default_order: CustomerColumn::default().as_str(),
    };
    let values = json!({
        "customers": page.rows,
        "q": params.search,
        "found_max": is_cut.then_some(FOUND_MAX),
        "order": params.order,
        "csv": url.at("/lizenzserver/customers.csv"),
        "heads": url.heads(&CustomerColumn::ALL.map(CustomerColumn::as_str)),
        "pager": url.links(&page, total, |customer| customer.position(column))?,
    });
    request.page("customers/list.html.tera", values).await
}

/// Maximum rows of the CSV export.
const EXPORT_MAX: u32 = 100_000;

/// The customers of the list as a CSV file.
#[get("/customers.csv")]
async fn export(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let (mut query, search) = list_query(&params)?;
    let language = request.language;
    let csv = app
        .db
        .read(move |reader| {
            query.found = super::search(reader, &search)?;
            let page_request = PageRequest::first(EXPORT_MAX + 1);
            let (page, _) = super::page(reader, &query, &page_request)?;
            csv_of(&page.rows, language)
        })
        .await?;
    Ok(csv.into_file(&format!("customers-{}", request.today()))?)
}

fn csv_of(customers: &[Customer], language: Language) -> Result<Csv> {
    let head = [
        "id",
        "name",
        "company",
        "email",
        "note",
        "licenses",
        "created_at",
    ];
    let max = usize::try_from(EXPORT_MAX).unwrap_or(usize::MAX);
    let mut csv = Csv::new(&head, language)?;
    for customer in customers {
        let (id, licenses) = (customer.id.to_string(), customer.licenses.to_string());
        let created_at = customer.created_at.rfc3339();
        let (name, company) = (&customer.name, &customer.company);
        let (email, note) = (&customer.email, &customer.note);
        csv.row_up_to(
            max,
            &[&id, name, company, email, note, &licenses, &created_at],
        )?;
    }
    Ok(csv)
}

/// The customer's data in a form.
fn data(form: &Fields) -> CustomerData {
    CustomerData {
        name: form.text("name").to_owned(),
        email: form.text("email").to_owned(),
        company: form.text("company").to_owned(),
        note: form.text("note").to_owned(),
    }
}

/// The answer in `form` to the question whether a customer with the same name is the one that is to be added. It counts only
/// for the `name` that the question was about.
pub fn same_name(form: &Fields, name: &str) -> SameName {
    if text::casefold(form.text("asked")) != text::casefold(name) {
        return SameName::Ask;
    }
    match form.text("same_name") {
        "another" => SameName::AddAnother,
        id => id.parse().map_or(SameName::Ask, SameName::Use),
    }
}

/// The customers whom the form asks about, if a new one was refused with `error` because of their name, or if it has asked
/// already.
pub async fn namesakes(db: &Db, form: &Fields, name: &str, error: &Error) -> Result<Value> {
    if !error.is(CUSTOMER_EXISTS) && form.non_empty("same_name").is_none() {
        return Ok(json!([]));
    }
    let name = name.to_owned();
    let found = db
        .read(move |reader| super::with_name(reader, &name))
        .await?;
    let shown = found.iter().map(|one| {
        json!({
            "id": one.id.to_string(),
            "name": one.name,
            "company": one.company,
            "email": one.email,
            "licenses": one.licenses,
        })
    });
    Ok(shown.collect())
}

/// The form for a new customer.
#[get("/customers/new")]
async fn new_form(request: Admin<'_>) -> HtmlReply {
    let values =
        json!({ "title": "add", "back": LIST, "seen": "", "form": form::empty_form(json!({})) });
    request.page("customers/form.html.tera", values).await
}

/// Adds a customer.
#[post("/customers/new", data = "<form>")]
async fn add(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request.once(&form, add_once(&request, &form, app)).await
}

async fn add_once(request: &PanelRequest<'_>, form: &Fields, app: &App) -> HtmlReply {
    let (new, actor, now) = (data(form), request.actor(), request.now.wall);
    let (name, same_name) = (new.name.clone(), same_name(form, &new.name));
    let added = app
        .db
        .write("customers.add", move |tx| {
            super::add_or_use(&Act::new(tx, &actor, now), &new, same_name)
        })
        .await;
    match added {
        Ok(used) if same_name == SameName::Use(used.id) => {
            Html::redirect(format!("{LIST}/{}", used.id))
        }
        Ok(added) => Html::done(format!("{LIST}/{}", added.id), "saved"),
        Err(error) => {
            let known = namesakes(&app.db, form, &name, &error).await?;
            let values = json!({ "title": "add", "back": LIST, "seen": "", "namesakes": known });
            request
                .render_with_errors(
                    "customers/form.html.tera",
                    form.rejected("customers", error),
                    values,
                )
                .await
        }
    }
}

/// The form for editing a customer.
#[get("/customers/<id>/edit")]
async fn edit_form(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let customer = app
        .db
        .read(move |reader| super::get(reader, CustomerId(id)))
        .await?;
    let values = json!({
        "title": "edit",
        "back": format!("{LIST}/{id}"),
        "seen": customer.revision(),
        "form": form::empty_form(json!(customer)),
    });
    request.page("customers/form.html.tera", values).await
}

/// Changes a customer.
#[post("/customers/<id>/edit", data = "<form>")]
async fn edit(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    let (id, new, seen) = (CustomerId(id), data(&form), form.revision());
    let (actor, now) = (request.actor(), request.now.wall);
    let changed = app
        .db
        .write("customers.edit", move |tx| {
            super::edit(&Act::new(tx, &actor, now), id, &new, &seen)
        })
        .await;
    let Err(error) = changed else {
        return Html::done(format!("{LIST}/{id}"), "saved");
    };
    let present = app.db.read(move |reader| super::get(reader, id)).await?;
    let values = json!({
        "title": "edit",
        "back": format!("{LIST}/{id}"),
        "seen": form.revision().after(&error, present.revision()),
    });
    let rejected = form.rejected("customers", error).against(json!(present));
    request
        .render_with_errors("customers/form.html.tera", rejected, values)
        .await
}

/// Asks for confirmation before a customer is removed.
#[get("/customers/<id>/remove")]
async fn confirm_remove(request: Admin<'_>, id: i64, app: &App) -> HtmlReply {
    let customer = app
        .db
        .read(move |reader| super::removable(reader, CustomerId(id)))
        .await?;
    let mut members = Map::new();
    members.insert("name".to_owned(), customer.name.into());
    let values = json!({
        "ask": request.text("customers.ask_remove", &members)?,
        "why": [request.text("customers.why_remove", &members)?],
        "action": request.text("customers.do_remove", &members)?,
        "back": format!("{LIST}/{id}"),
    });
    request.page("parts/confirm.html.tera", values).await
}

/// Removes a customer without licenses, whose data is erased.
#[post("/customers/<id>/remove", data = "<_form>")]
async fn remove(request: Admin<'_>, id: i64, _form: Form, app: &App) -> HtmlReply {
    let (actor, now, live) = (request.actor(), request.now, app.live_sessions.clone());
    app.db
        .write("customers.remove", move |tx| {
            privacy::remove(
                &Act::new(tx, &actor, now.wall),
                live.at(now),
                CustomerId(id),
            )
        })
        .await?;
    privacy::panel::save_list(app).await;
    Html::done(LIST, "removed")
}

/// The panel's routes for customers.
pub fn routes() -> Vec<Route> {
    routes![
        list,
        export,
        new_form,
        add,
        edit_form,
        edit,
        confirm_remove,
        remove
    ]
}
