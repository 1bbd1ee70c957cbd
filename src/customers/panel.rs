//! The panel's handlers for customers.

use rocket::{FromForm, Route, get, post, routes};
use serde_json::{Map, json};

use super::{Customer, CustomerData, CustomerPosition};
use crate::app::App;
use crate::audit::Act;
use crate::error::Result;
use crate::id::CustomerId;
use crate::paging::{Cursor, PageRequest};
use crate::panel::{Admin, Support};
use crate::privacy;
use crate::revision;
use crate::terms::{FOUND_MAX, Terms};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};
use crate::web::pager::Pager;
use crate::web::query;

/// Customers on one page.
const PAGE_SIZE: u32 = 50;
/// The address of the list.
const LIST: &str = "/lizenzserver/customers";
/// Several customers may have the same name, so the position of a customer is the name and the id.
const PAGER: Pager<2> = Pager {
    path: LIST,
    next: ["after", "after_id"],
    previous: ["", ""],
};

/// The query parameters of the list.
#[derive(Debug, FromForm)]
struct ListParams<'r> {
    q: Option<&'r str>,
    after: Option<&'r str>,
    after_id: Option<&'r str>,
}

impl ListParams<'_> {
    fn cursor(&self) -> Result<Cursor<CustomerPosition>> {
        let id = query::number("after_id", self.after_id)?;
        let position = self.after.zip(id).map(|(name, id)| CustomerPosition {
            name: name.to_owned(),
            id: CustomerId(id),
        });
        Ok(Cursor::after(position))
    }
}

/// A page of customers.
#[get("/customers?<params..>")]
async fn list(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let search = params.q.unwrap_or_default().trim().to_owned();
    let page_request = PageRequest {
        from: params.cursor()?,
        limit: PAGE_SIZE,
    };
    let terms = Terms::parse(&search);
    let (page, is_cut) = app
        .db
        .read(move |reader| {
            let found = super::search(reader, &terms)?;
            let page = super::page(reader, found.as_ref(), &page_request)?;
            Ok((page, found.is_some_and(|found| found.is_cut)))
        })
        .await?;
    let links = PAGER.links(&[("q", &search)], &page, |customer: &Customer| {
        [customer.name.clone(), customer.id.to_string()]
    });
    let values = json!({
        "customers": page.rows,
        "q": search,
        "found_max": is_cut.then_some(FOUND_MAX),
        "newer": links.newer,
        "older": links.older,
    });
    request.page("customers/list.html.tera", values).await
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
    let (new, actor, now) = (data(&form), request.actor(), request.now.wall);
    let added = app
        .db
        .write("customers.add", move |tx| {
            super::add(&Act::new(tx, &actor, now), &new)
        })
        .await;
    match added {
        Ok(added) => Html::redirect(format!("{LIST}/{}?done=saved", added.id)),
        Err(error) => {
            let values = json!({ "title": "add", "back": LIST, "seen": "" });
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
        return Html::redirect(format!("{LIST}/{id}?done=saved"));
    };
    // After an edit conflict the form shows the saved data, too, and saving again overwrites it.
    let conflict = revision::is_conflict(&error);
    let present = app.db.read(move |reader| super::get(reader, id)).await?;
    let values = json!({
        "title": "edit",
        "back": format!("{LIST}/{id}"),
        "seen": form.revision().after(&error, present.revision()),
        "present": conflict.then_some(present),
    });
    request
        .render_with_errors(
            "customers/form.html.tera",
            form.rejected("customers", error),
            values,
        )
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
    Html::redirect(format!("{LIST}?done=removed"))
}

/// The panel's routes for customers.
pub fn routes() -> Vec<Route> {
    routes![list, new_form, add, edit_form, edit, confirm_remove, remove]
}
