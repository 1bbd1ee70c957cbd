//! The profile of the administrator who is logged in: password, preferences, second factor, logins.

use rocket::http::CookieJar;
use rocket::{Route, State, get, post, routes};
use serde_json::json;

use super::login::set_preference_cookie;
use super::{Authenticator, new_password, set_cookies};
use crate::admins::{Preferences, set_preferences};
use crate::audit::Act;
use crate::config::Language;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::id::AdminSessionId;
use crate::logins::factors::{self, FirstCode, RecoveryCodes};
use crate::logins::{self, ChosenPassword, SessionLifetime, choose_password};
use crate::panel::{LoggedIn, PanelRequest, Support, TotpRequired};
use crate::products::ProgramSettingsCache;
use crate::security::totp::{self, SharedSecret};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};

const PROFILE: &str = "logins/profile.html.tera";
const PASSWORD: &str = "logins/profile_password.html.tera";
const TOTP: &str = "logins/totp.html.tera";
const CODES: &str = "logins/codes.html.tera";
const CONFIRM: &str = "logins/profile_confirm.html.tera";
const HERE: &str = "/lizenzserver/profile";
/// The issuer that authenticator apps show if the product has no name.
const ISSUER: &str = "License server";

/// The profile page.
#[get("/profile")]
async fn profile(
    request: Support<'_>,
    db: &State<Db>,
    lifetime: &State<SessionLifetime>,
) -> HtmlReply {
    let (id, lifetime, now) = (request.admin.id, **lifetime, request.now.wall);
    let (state, sessions) = db
        .read(move |reader| {
            let state = factors::load(reader, id)?;
            Ok((state, logins::list(reader, id, lifetime, now)?))
        })
        .await?;
    let language = request.admin.language.map_or("browser", Language::tag);
    let theme = if request.theme.is_empty() {
        "system"
    } else {
        request.theme
    };
    let preferences = json!({
        "language": language, "theme": theme, "single_keys": request.admin.single_keys,
    });
    let values = json!({
        "form": form::empty_form(preferences),
        "codes_left": state.codes,
        "logins": sessions,
        "own": request.session.id,
    });
    request.page(PROFILE, values).await
}

/// Changes the preferences.
#[post("/profile/taste", data = "<form>")]
async fn preferences(
    request: Support<'_>,
    form: Form,
    cookies: &CookieJar<'_>,
    db: &State<Db>,
) -> HtmlReply {
    if let theme @ ("light" | "dark" | "system") = form.text("theme") {
        let theme = if theme == "system" { "" } else { theme };
        set_preference_cookie(cookies, "theme", theme);
    }
    let language = Language::from_tag(form.text("language"));
    if let Some(language) = language {
        // For the login page, where the administrator is not known yet.
        set_preference_cookie(cookies, "lang", language.tag());
    }
    let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    let preferences = Preferences::All {
        language,
        single_keys: form.has("single_keys"),
    };
    db.write("admins.set_preferences", move |tx| {
        set_preferences(&Act::new(tx, &actor, now), id, &preferences)
    })
    .await?;
    Html::redirect(format!("{HERE}?done=saved"))
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
    authenticator: Authenticator,
    form: Form,
    cookies: &CookieJar<'_>,
) -> HtmlReply {
    match change_password(&request, &authenticator, &form, cookies).await {
        Ok(()) => Html::redirect(format!("{HERE}?done=password")),
        Err(error) => {
            request
                .render_with_errors(PASSWORD, "admins", &form, error, json!({}))
                .await
        }
    }
}

async fn change_password(
    request: &PanelRequest<'_>,
    authenticator: &Authenticator,
    form: &Fields,
    cookies: &CookieJar<'_>,
) -> Result<()> {
    let checked = authenticator.own_password(request, form.raw("old")).await?;
    let new = new_password(form, &[&request.admin.name])?;
    let hash = authenticator.hasher.hash(new).await?;
    let new_login = authenticator.new_login().await?;
    let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
    let chosen = ChosenPassword {
        old: checked,
        hash,
        new_login: new_login.clone(),
    };
    authenticator
        .db
        .write("logins.choose_password", move |tx| {
            choose_password(&Act::new(tx, &actor, now), login, &chosen)
        })
        .await?;
    set_cookies(cookies, &new_login);
    Ok(())
}

/// The page that sets up a second factor: an explanation, or the secret that waits for its first code.
#[get("/profile/totp")]
async fn totp_page(
    request: LoggedIn<'_>,
    db: &State<Db>,
    settings: &State<std::sync::Arc<ProgramSettingsCache>>,
    required: &State<TotpRequired>,
) -> HtmlReply {
    if request.admin.has_totp {
        return Html::redirect(HERE);
    }
    let values = totp_values(&request, db, settings, required.0).await?;
    let mut values = crate::web::html::object_members(values);
    values.insert("form".to_owned(), form::empty_form(json!({})));
    request.page(TOTP, values.into()).await
}

async fn totp_values(
    request: &PanelRequest<'_>,
    db: &Db,
    settings: &std::sync::Arc<ProgramSettingsCache>,
    required: bool,
) -> Result<serde_json::Value> {
    let id = request.admin.id;
    let state = db.read(move |reader| factors::load(reader, id)).await?;
    let Some(pending) = state.pending else {
        return Ok(json!({ "pending": null, "required": required }));
    };
    let product = settings.get(db).await?.config.client_name.clone();
    let issuer = if product.is_empty() { ISSUER } else { &product };
    Ok(json!({ "pending": qr_code(&pending, issuer, &request.admin.name)?, "required": required }))
}

/// A TOTP secret as a QR code and as text.
fn qr_code(shared: &SharedSecret, issuer: &str, account: &str) -> Result<serde_json::Value> {
    let (width, path) = totp::qr_code(&totp::otpauth_url(shared, issuer, account))?;
    Ok(json!({ "text": totp::base32(shared), "width": width, "path": path }))
}

/// Redirects to the page with the form. Re-authentication leads back to this path with a GET request.
#[get("/profile/totp/new")]
fn offer_again(_request: LoggedIn<'_>) -> HtmlReply {
    Html::redirect(format!("{HERE}/totp"))
}

/// Creates a secret, which the page then shows.
#[post("/profile/totp/new", data = "<_form>")]
async fn offer(request: LoggedIn<'_>, _form: Form, db: &State<Db>) -> HtmlReply {
    request.require_reauthentication()?;
    let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    let shared = totp::new_secret()?;
    db.write("logins.offer_totp", move |tx| {
        factors::offer(&Act::new(tx, &actor, now), id, &shared)
    })
    .await?;
    Html::redirect(format!("{HERE}/totp"))
}

/// Confirms the secret by one of its codes, and shows the recovery codes, once.
#[post("/profile/totp", data = "<form>")]
async fn confirm(
    request: LoggedIn<'_>,
    authenticator: Authenticator,
    form: Form,
    settings: &State<std::sync::Arc<ProgramSettingsCache>>,
    required: &State<TotpRequired>,
) -> HtmlReply {
    let confirmed = async {
        authenticator.attempt_in_login(&request).await?;
        let codes = totp::recovery_codes()?;
        let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
        let (code, stored) = (
            FirstCode {
                typed: form.text("code").to_owned(),
                at: authenticator.system_now,
            },
            codes.clone(),
        );
        authenticator
            .db
            .write("logins.confirm_totp", move |tx| {
                factors::confirm(&Act::new(tx, &actor, now), id, &code, &stored)
            })
            .await?;
        Ok::<_, Error>(codes)
    };
    match confirmed.await {
        Ok(codes) => codes_page(&request, &codes).await,
        Err(error) => {
            authenticator.report_code(&request, &error);
            let values = totp_values(&request, &authenticator.db, settings, required.0).await?;
            request
                .render_with_errors(TOTP, "admins", &form, error, values)
                .await
        }
    }
}

/// The page with the recovery codes. It cannot be shown again, since only their digests are stored.
async fn codes_page(request: &PanelRequest<'_>, codes: &RecoveryCodes) -> HtmlReply {
    let shown: Vec<&String> = codes.iter().map(|(code, _)| code.reveal()).collect();
    request.page(CODES, json!({ "codes": shown })).await
}

/// Asks for confirmation before the recovery codes are replaced.
#[get("/profile/codes")]
async fn codes_question(request: Support<'_>) -> HtmlReply {
    request.require_reauthentication()?;
    let values = json!({ "deed": "codes", "form": form::empty_form(json!({})) });
    request.page(CONFIRM, values).await
}

/// Replaces the recovery codes, and shows the new ones, once.
#[post("/profile/codes", data = "<_form>")]
async fn renew_codes(request: Support<'_>, _form: Form, db: &State<Db>) -> HtmlReply {
    request.require_reauthentication()?;
    if !request.admin.has_totp {
        return Html::redirect(HERE);
    }
    let codes = totp::recovery_codes()?;
    let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    let stored = codes.clone();
    db.write("logins.renew_codes", move |tx| {
        factors::renew_codes(&Act::new(tx, &actor, now), id, &stored)
    })
    .await?;
    codes_page(&request, &codes).await
}

/// Asks for the password before the second factor is switched off.
#[get("/profile/totp/off")]
async fn off_question(request: Support<'_>) -> HtmlReply {
    request.require_reauthentication()?;
    let values = json!({ "deed": "off", "form": form::empty_form(json!({})) });
    request.page(CONFIRM, values).await
}

/// Switches the second factor off.
#[post("/profile/totp/off", data = "<form>")]
async fn switch_off(request: Support<'_>, authenticator: Authenticator, form: Form) -> HtmlReply {
    request.require_reauthentication()?;
    let outcome = async {
        let checked = authenticator
            .own_password(&request, form.raw("old"))
            .await?;
        let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
        authenticator
            .db
            .write("logins.switch_totp_off", move |tx| {
                factors::switch_off(&Act::new(tx, &actor, now), login, &checked)
            })
            .await
    };
    match outcome.await {
        Ok(()) => Html::redirect(format!("{HERE}?done=totp_off")),
        Err(error) => {
            let values = json!({ "deed": "off" });
            request
                .render_with_errors(CONFIRM, "admins", &form, error, values)
                .await
        }
    }
}

/// Ends one of the administrator's own logins.
#[post("/profile/logins/<id>/end", data = "<_form>")]
async fn end_login(request: Support<'_>, id: i64, _form: Form, db: &State<Db>) -> HtmlReply {
    let (own_id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    db.write("logins.end_one", move |tx| {
        logins::end_one(&Act::new(tx, &actor, now), own_id, AdminSessionId(id))
    })
    .await?;
    Html::redirect(format!("{HERE}?done=login_ended"))
}

/// Ends all of the administrator's own logins except this one.
#[post("/profile/logins/end-others", data = "<_form>")]
async fn end_other_logins(request: Support<'_>, _form: Form, db: &State<Db>) -> HtmlReply {
    let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
    db.write("logins.end_others", move |tx| {
        logins::end_others(&Act::new(tx, &actor, now), login)
    })
    .await?;
    Html::redirect(format!("{HERE}?done=logins_ended"))
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![
        profile,
        preferences,
        password_form,
        password,
        totp_page,
        offer_again,
        offer,
        confirm,
        codes_question,
        renew_codes,
        off_question,
        switch_off,
        end_login,
        end_other_logins
    ]
}
