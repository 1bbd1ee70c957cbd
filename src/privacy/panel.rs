//! The panel's handlers for the data of a person: download, and erasure.

use rocket::http::ContentType;
use rocket::tokio::task::spawn_blocking;
use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::{ErasureRequest, LicensePolicy, ListFiles, unlisted};
use crate::app::App;
use crate::audit::Act;
use crate::customers::{self, Customer};
use crate::error::{Doing, Result};
use crate::id::CustomerId;
use crate::panel::{Admin, Owner, PanelRequest};
use crate::web::form::{self, Form};
use crate::web::html::{Html, HtmlReply};

const CONFIRM: &str = "parts/confirm.html.tera";
const CUSTOMERS: &str = "/lizenzserver/customers";

/// All that the database holds of a customer, as a file. A POST, because it writes an audit entry.
#[post("/customers/<id>/export", data = "<_form>")]
async fn export(request: Admin<'_>, id: i64, _form: Form, app: &App) -> HtmlReply {
    let (db, actor, now) = (app.db.clone(), request.actor(), request.now.wall);
    let export = spawn_blocking(move || super::export(&db, &actor, CustomerId(id), now));
    let data = export.await.doing("export the data of a customer")??;
    Ok(Html::File {
        name: format!("customer-{}-{}.json", data.customer_id, request.today()),
        kind: Box::new(ContentType::JSON),
        bytes: format!("{:#}\n", data.document).into_bytes(),
    })
}

/// The confirmation page before a customer is erased.
fn confirmation(request: &PanelRequest<'_>, customer: &Customer) -> Result<Value> {
    let mut members = Map::new();
    members.insert("name".to_owned(), customer.name.clone().into());
    members.insert("n".to_owned(), customer.licenses.into());
    let text = |key: &str| request.text(&format!("privacy.{key}"), &members);
    let mut why = vec![text("why_erase")?, text("why_backups")?];
    if customer.licenses > 0 {
        why.insert(1, text("why_licenses")?);
    }
    Ok(json!({
        "text_section": "privacy",
        "ask": text("ask_erase")?,
        "why": why,
        "action": text("do_erase")?,
        "back": format!("{CUSTOMERS}/{}", customer.id),
        "typed": customer.name,
        "option": (customer.licenses > 0).then_some("keep_licenses"),
    }))
}

async fn load(app: &App, id: i64) -> Result<Customer> {
    let id = CustomerId(id);
    let find = app.db.read(move |reader| customers::get(reader, id));
    find.await
}

/// Asks for confirmation before a customer is erased.
#[get("/customers/<id>/erase")]
async fn confirm_erase(request: Owner<'_>, id: i64, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let mut values = confirmation(&request, &load(app, id).await?)?;
    if let Some(values) = values.as_object_mut() {
        values.insert("form".to_owned(), form::empty_form(json!({})));
    }
    request.page(CONFIRM, values).await
}

/// Erases a customer, and revokes the licenses unless they are kept, if the name was typed.
#[post("/customers/<id>/erase", data = "<form>")]
async fn erase(request: Owner<'_>, id: i64, form: Form) -> HtmlReply {
    request.require_reauthentication()?;
    let app = request.app;
    let (actor, now, live) = (request.actor(), request.now, app.live_sessions.clone());
    let erasure = ErasureRequest {
        customer_id: CustomerId(id),
        typed: Some(form.text("typed").to_owned()),
        licenses: if form.has("keep_licenses") {
            LicensePolicy::Keep
        } else {
            LicensePolicy::Revoke
        },
    };
    let erased = app
        .db
        .write("privacy.erase", move |tx| {
            super::erase(&Act::new(tx, &actor, now.wall), live.at(now), &erasure)
        })
        .await;
    match erased {
        Ok(_) => {
            save_list(app).await;
            Html::done(format!("{CUSTOMERS}/{id}"), "erased")
        }
        Err(error) => {
            let values = confirmation(&request, &load(app, id).await?)?;
            request
                .render_with_errors(CONFIRM, form.rejected("privacy", error), values)
                .await
        }
    }
}

/// Writes the list of erased customers. The customer is erased already, so a failure is only logged.
pub async fn save_list(app: &App) {
    let (db, backups) = (app.db.clone(), app.backup_dir.clone());
    let save = move || ListFiles::of(db.path(), backups.usable_folder()).save(&db);
    let saved = spawn_blocking(save).await;
    let saved = saved.doing("write the list of erased customers");
    if let Err(error) = saved.flatten() {
        log::error!("{}", unlisted(&error));
    }
}

/// The panel's routes for the data of a person.
pub fn routes() -> Vec<Route> {
    routes![export, confirm_erase, erase]
}
