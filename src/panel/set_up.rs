//! The set-up: the first owner by the one-time link, and the first license.

use std::sync::Arc;

use rocket::http::{CookieJar, Status};
use rocket::{Route, get, post, routes};
use serde_json::json;

use super::{Admin, PanelRequest, Visitor};
use crate::admins::{self, NewOwner, any_exists, check_name};
use crate::app::App;
use crate::audit::{Act, Actor};
use crate::config::Language;
use crate::customers;
use crate::error::{Error, Faults, Resource, Result};
use crate::licenses::{self, Buyer, Order};
use crate::logins::panel::{Authenticator, new_password, set_cookies};
use crate::text;
use crate::web::form::{self, Fields, Form, LenientForm};
use crate::web::html::{Html, HtmlReply};

const OWNER: &str = "panel/setup.html.tera";
const LICENSE: &str = "panel/setup_license.html.tera";
/// The page after the last step: calls for a program.
const INTEGRATE: &str = "/lizenzserver/integrate";
/// The page of the second step: the client configuration.
const SECOND: &str = "/lizenzserver/config/client/new";

/// Whether `token` gives access to the set-up. If not, the response must be the same as for an unknown path.
async fn is_open(app: &App, token: &str, visitor: &Visitor<'_>) -> Result<bool> {
    Ok(app.setup.accepts(token, visitor.now.tick) && !app.db.read(any_exists).await?)
}

/// The page for the first owner.
#[get("/setup?<token>")]
async fn owner_page(visitor: Visitor<'_>, token: Option<&str>, app: &App) -> Option<HtmlReply> {
    let token = token.unwrap_or_default();
    match is_open(app, token, &visitor).await {
        Ok(true) => {
            let first = json!({ "language": visitor.language().tag() });
            let values = json!({
                "token": token, "asks_language": asks_language(app), "form": form::empty_form(first),
            });
            Some(visitor.page(Status::Ok, OWNER, values))
        }
        Ok(false) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// Creates the first owner.
#[post("/setup", data = "<form>")]
async fn owner(
    visitor: Visitor<'_>,
    authenticator: Authenticator<'_>,
    form: LenientForm,
    cookies: &CookieJar<'_>,
) -> Option<HtmlReply> {
    let form = form.0?;
    let token = form.raw("token");
    match is_open(authenticator.app, token, &visitor).await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => return Some(Err(error.into())),
    }
    match create_owner(&authenticator, &form, cookies).await {
        Ok(language) => {
            if let Some(language) = language {
                visitor.set_default_language(language);
            }
            Some(Html::redirect(SECOND))
        }
        // Another request has created an owner meanwhile.
        Err(Error::NotFound { .. }) => None,
        Err(error) => {
            let asks_language = asks_language(authenticator.app);
            let values = json!({ "token": token, "asks_language": asks_language });
            Some(visitor.render_with_errors(OWNER, &form, error, values))
        }
    }
}

/// Whether the default language is asked for: not if the settings name it.
fn asks_language(app: &App) -> bool {
    app.settings.panel.default_language.is_none()
}

/// Creates the first owner. Returns the default language that was chosen.
async fn create_owner(
    authenticator: &Authenticator<'_>,
    form: &Fields,
    cookies: &CookieJar<'_>,
) -> Result<Option<Language>> {
    let name = form.text("name").to_owned();
    let mut faults = Faults::default();
    faults.keep(check_name(&name));
    let password = faults.with(new_password(form, &[&name]))?;
    let language = Language::from_tag(form.text("language"));
    let owner = NewOwner {
        password_hash: authenticator.app.hasher.hash(password).await?,
        default_language: language.filter(|_| asks_language(authenticator.app)),
        name,
    };
    let default_language = owner.default_language;
    let new_login = authenticator.new_login().await?;
    let (created_login, now) = (new_login.clone(), authenticator.now.wall);
    let actor = Actor::Setup {
        name: text::to_nfc(&owner.name),
        source: new_login.origin.address.clone(),
    };
    let setup = Arc::clone(&authenticator.app.setup);
    authenticator
        .app
        .db
        .write("admins.create_owner", move |tx| {
            let act = Act::new(tx, &actor, now);
            admins::create_owner(&act, &owner, &created_login)?;
            tx.after_commit(move || setup.revoke_link());
            Ok(())
        })
        .await?;
    set_cookies(cookies, &new_login);
    Ok(default_language)
}

/// The page for the first license; redirects to the list once a license exists.
#[get("/setup/license")]
async fn license_page(request: Admin<'_>, app: &App) -> HtmlReply {
    let count = app.db.read(|reader| licenses::count(reader, None));
    if count.await? > 0 {
        return Html::redirect("/lizenzserver/licenses");
    }
    let values = json!({ "form": form::empty_form(json!({ "devices": 2 })) });
    request.page(LICENSE, values).await
}

/// Issues the first license.
#[post("/setup/license", data = "<form>")]
async fn license(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request
        .once(&form, license_once(&request, &form, app))
        .await
}

async fn license_once(request: &PanelRequest<'_>, form: &Fields, app: &App) -> HtmlReply {
    let (actor, now) = (request.actor(), request.now.wall);
    let name = form.text("name");
    let buyer = Buyer::NewNamed(name.to_owned(), customers::panel::same_name(form, name));
    let mut faults = Faults::default();
    let devices = faults.keep(form.number::<u32>("devices")).unwrap_or(1);
    let order = Order::one(request.product, devices);
    let issued = app
        .db
        .write("licenses.sell", move |tx| {
            let sold = licenses::sell(&Act::new(tx, &actor, now), &buyer, &order);
            let names = [("device_limit", "devices")];
            faults.with(sold.map_err(|error| error.with_field_names(&names)))
        })
        .await;
    match issued {
        Ok(licenses) => {
            let first = licenses.first();
            let first = first.ok_or_else(|| Error::not_found(Resource::License, ""))?;
            Html::redirect(format!("{INTEGRATE}?license={}", first.id))
        }
        Err(error) => {
            let known = customers::panel::namesakes(&app.db, form, name, &error);
            let values = json!({ "namesakes": known.await? });
            request
                .render_with_errors(LICENSE, form.rejected("setup", error), values)
                .await
        }
    }
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![owner_page, owner, license_page, license]
}
