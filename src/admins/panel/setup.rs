//! The set-up: the first owner by the one-time link, and the first license.

use std::sync::Arc;

use rocket::http::{CookieJar, Status};
use rocket::{Route, State, get, post, routes};
use serde_json::json;

use super::{Admin, Authenticator, Visitor, set_cookies};
use crate::admins::{Setup, any, rules, setup as verbs};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::security::password;
use crate::security::secret::Secret;
use crate::web::form::{self, Fields, Form, QuietForm};
use crate::web::html::{Html, HtmlReply};

const OWNER: &str = "admins/setup.html.tera";
const LICENSE: &str = "admins/setup_license.html.tera";
/// Where the lines for the program are, and where the second step is.
const INTEGRATE: &str = "/lizenzserver/integrate";
const SECOND: &str = "/lizenzserver/config/client/new";

/// Whether the link of the set-up still opens it; without, the page is as dark as any unknown one.
async fn is_open(setup: &Setup, token: &str, visitor: &Visitor<'_>, db: &Db) -> Result<bool> {
    Ok(setup.admits(token, visitor.now.tick) && !db.read(any).await?)
}

/// The page for the first owner.
#[get("/setup?<token>")]
async fn owner_page(
    visitor: Visitor<'_>,
    token: Option<&str>,
    setup: &State<Arc<Setup>>,
    db: &State<Db>,
) -> Option<HtmlReply> {
    let token = token.unwrap_or_default();
    match is_open(setup, token, &visitor, db).await {
        Ok(true) => {
            let values = json!({ "token": token, "form": form::empty_form(json!({})) });
            Some(visitor.page(Status::Ok, OWNER, values))
        }
        Ok(false) => None,
        Err(error) => Some(Err(error.into())),
    }
}

/// Makes the first owner.
#[post("/setup", data = "<form>")]
async fn owner(
    visitor: Visitor<'_>,
    gate: Authenticator,
    form: QuietForm,
    setup: &State<Arc<Setup>>,
    cookies: &CookieJar<'_>,
) -> Option<HtmlReply> {
    let form = form.0?;
    let token = form.raw("token");
    match is_open(setup, token, &visitor, &gate.db).await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => return Some(Err(error.into())),
    }
    match found(&gate, &form, setup, cookies).await {
        Ok(()) => Some(Html::go(SECOND)),
        // Somebody else was quicker.
        Err(Error::NotFound { .. }) => None,
        Err(error) => {
            let values = json!({ "token": token });
            Some(visitor.again(OWNER, &form, error, values))
        }
    }
}

async fn found(
    gate: &Authenticator,
    form: &Fields,
    setup: &State<Arc<Setup>>,
    cookies: &CookieJar<'_>,
) -> Result<()> {
    let name = form.text("name").to_owned();
    rules::check_name(&name)?;
    let password = new_password(form, &[&name])?;
    let hash = gate.hasher.hash(password).await?;
    let arrival = gate.arrival().await?;
    let (kept, now) = (arrival.clone(), gate.now.wall);
    let setup = Arc::clone(setup);
    gate.db
        .write("admins.setup", move |tx| {
            verbs::found(tx, &name, &hash, &kept, now)?;
            tx.after_commit(move || setup.close());
            Ok(())
        })
        .await?;
    set_cookies(cookies, &arrival);
    Ok(())
}

/// The password that a form asks for twice.
///
/// # Errors
/// [`Error::Invalid`] for `password` and `again`, `password_common`.
pub(super) fn new_password(form: &Fields, names: &[&str]) -> Result<Secret<String>> {
    let typed = form.raw("password");
    password::check(typed, names)?;
    if form.raw("again") != typed {
        return Err(Error::invalid("again", "is another one"));
    }
    Ok(Secret::new(typed.to_owned()))
}

/// The page for the first license; once there is one, the list.
#[get("/setup/license")]
async fn license_page(who: Admin<'_>, db: &State<Db>) -> HtmlReply {
    if !db.read(verbs::awaits_license).await? {
        return Html::go("/lizenzserver/licenses");
    }
    let values = json!({ "form": form::empty_form(json!({ "devices": 2 })) });
    who.page(LICENSE, values).await
}

/// Issues the first license.
#[post("/setup/license", data = "<form>")]
async fn license(who: Admin<'_>, form: Form, db: &State<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    let customer = form.text("name").to_owned();
    let devices = form.number::<u32>("devices");
    let issued = match devices {
        Ok(devices) => {
            db.write("admins.first_license", move |tx| {
                verbs::first_license(tx, &customer, devices, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    match issued {
        Ok(id) => Html::go(format!("{INTEGRATE}?license={id}")),
        Err(error) => who.again(LICENSE, "setup", &form, error, json!({})).await,
    }
}

/// What is behind this door.
pub(super) fn routes() -> Vec<Route> {
    routes![owner_page, owner, license_page, license]
}
