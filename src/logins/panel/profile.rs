//! The profile of the administrator who is logged in: password, preferences, logins.

use rocket::http::CookieJar;
use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::login::set_preference_cookie;
use super::{Authenticator, new_password, set_cookies};
use crate::admins::{Admin as Account, Preferences, get, set_preferences};
use crate::app::App;
use crate::audit::Act;
use crate::config::Language;
use crate::error::{Error, Faults, Result};
use crate::id::AdminSessionId;
use crate::logins::factors;
use crate::logins::{self, ChosenPassword, choose_password};
use crate::panel::{PanelRequest, Support};
use crate::security::secret::Secret;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members};
use crate::web::query;
use crate::zone::Zone;

const PROFILE: &str = "logins/profile.html.tera";
const PASSWORD: &str = "logins/profile_password.html.tera";
pub(super) const HERE: &str = "/lizenzserver/profile";

/// The profile page.
#[get("/profile")]
async fn profile(request: Support<'_>, app: &App) -> HtmlReply {
    let mut values = page_values(&request, app).await?;
    let shown = form::empty_form(preferences_json(&request.admin, request.theme));
    values.insert("form".to_owned(), shown);
    values.insert(
        "seen".to_owned(),
        json!(request.admin.preferences_revision()),
    );
    request.page(PROFILE, Value::Object(values)).await
}

/// The preferences in the form; `theme` is that of the browser.
fn preferences_json(admin: &Account, theme: &str) -> Value {
    json!({
        "language": admin.language.map_or("browser", Language::tag),
        "theme": if theme.is_empty() { "system" } else { theme },
        "time_zone": admin.time_zone,
        "single_keys": admin.single_keys,
    })
}

/// What the page shows besides the form.
async fn page_values(request: &PanelRequest<'_>, app: &App) -> Result<Map<String, Value>> {
    let (id, lifetime, now) = (request.admin.id, app.login_lifetime(), request.now.wall);
    let (state, sessions) = app
        .db
        .read(move |reader| {
            let state = factors::load(reader, id)?;
            Ok((state, logins::list(reader, id, lifetime, now)?))
        })
        .await?;
    Ok(object_members(json!({
        "zones": Zone::names(),
        "codes_left": state.codes,
        "logins": sessions,
        "own": request.session.id,
    })))
}

/// Changes the preferences.
#[post("/profile/taste", data = "<form>")]
async fn preferences(
    request: Support<'_>,
    form: Form,
    cookies: &CookieJar<'_>,
    app: &App,
) -> HtmlReply {
    let language = Language::from_tag(form.text("language"));
    let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    let preferences = Preferences::All {
        language,
        time_zone: chosen_zone(&form)?,
        single_keys: form.has("single_keys"),
        seen: form.seen(),
    };
    let saved = app
        .db
        .write("admins.set_preferences", move |tx| {
            set_preferences(&Act::new(tx, &actor, now), id, &preferences)
        })
        .await;
    if let Err(error) = saved {
        return render_with_errors(&request, &form, error, app).await;
    }
    if let theme @ ("light" | "dark" | "system") = form.text("theme") {
        let theme = if theme == "system" { "" } else { theme };
        set_preference_cookie(cookies, "theme", theme);
    }
    if let Some(language) = language {
        // For the login page, where the administrator is not known yet.
        set_preference_cookie(cookies, "lang", language.tag());
    }
    Html::done(HERE, "saved")
}

/// The profile page with an error in the preferences, such as a change from another browser.
async fn render_with_errors(
    request: &PanelRequest<'_>,
    form: &Fields,
    error: Error,
    app: &App,
) -> HtmlReply {
    let id = request.admin.id;
    let present = app.db.read(move |reader| get(reader, id)).await?;
    let mut values = page_values(request, app).await?;
    let seen = form
        .revision()
        .after(&error, present.preferences_revision());
    values.insert("seen".to_owned(), json!(seen));
    let rejected = form.rejected("admins", error);
    let rejected = rejected.against(preferences_json(&present, request.theme));
    request
        .render_with_errors(PROFILE, rejected, Value::Object(values))
        .await
}

/// The time zone in the form; `None` for the shop's.
///
/// # Errors
/// [`crate::error::Error::Invalid`] if there is no such zone.
fn chosen_zone(form: &Fields) -> Result<Option<Zone>> {
    let name = Some(form.text("time_zone"));
    query::parsed("time_zone", name, Zone::named)
}

/// The form for a new password.
#[get("/profile/password")]
async fn password_form(request: Support<'_>) -> HtmlReply {
    let values = json!({ "form": form::empty_form(json!({})) });
    request.page(PASSWORD, values).await
}

/// Sets the password. Every other login ends, and this one gets a new token.
#[post("/profile/password", data = "<form>")]
async fn password(
    request: Support<'_>,
    authenticator: Authenticator<'_>,
    form: Form,
    cookies: &CookieJar<'_>,
) -> HtmlReply {
    match change_password(&request, &authenticator, &form, cookies).await {
        Ok(()) => Html::done(HERE, "password"),
        Err(error) => {
            request
                .render_with_errors(PASSWORD, form.rejected("admins", error), json!({}))
                .await
        }
    }
}

async fn change_password(
    request: &PanelRequest<'_>,
    authenticator: &Authenticator<'_>,
    form: &Fields,
    cookies: &CookieJar<'_>,
) -> Result<()> {
    let mut faults = Faults::default();
    let new = faults.keep(new_password(form, &[&request.admin.name]));
    let checked = authenticator.own_password(request, form.raw("old")).await;
    let checked = faults.with(checked)?;
    let new = new.unwrap_or_else(|| Secret::new(String::new()));
    let hash = authenticator.app.hasher.hash(new).await?;
    let new_login = authenticator.new_login().await?;
    let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
    let chosen = ChosenPassword {
        old: checked,
        hash,
        new_login: new_login.clone(),
    };
    authenticator
        .app
        .db
        .write("logins.choose_password", move |tx| {
            choose_password(&Act::new(tx, &actor, now), login, &chosen)
        })
        .await?;
    set_cookies(cookies, &new_login);
    Ok(())
}

/// Ends one of the administrator's own logins.
#[post("/profile/logins/<id>/end", data = "<_form>")]
async fn end_login(request: Support<'_>, id: i64, _form: Form, app: &App) -> HtmlReply {
    let (own_id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    app.db
        .write("logins.end_one", move |tx| {
            logins::end_one(&Act::new(tx, &actor, now), own_id, AdminSessionId(id))
        })
        .await?;
    Html::done(HERE, "login_ended")
}

/// Ends all of the administrator's own logins except this one.
#[post("/profile/logins/end-others", data = "<_form>")]
async fn end_other_logins(request: Support<'_>, _form: Form, app: &App) -> HtmlReply {
    let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
    app.db
        .write("logins.end_others", move |tx| {
            logins::end_others(&Act::new(tx, &actor, now), login)
        })
        .await?;
    Html::done(HERE, "logins_ended")
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![
        profile,
        preferences,
        password_form,
        password,
        end_login,
        end_other_logins
    ]
}
