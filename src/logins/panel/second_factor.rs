//! The second factor of the administrator who is logged in: set-up, recovery codes, switching it off.

use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::Authenticator;
use super::profile::HERE;
use crate::app::App;
use crate::audit::Act;
use crate::error::{Error, Result};
use crate::id::ProductId;
use crate::logins::factors::{self, FirstCode, RecoveryCodes};
use crate::panel::{LoggedIn, PanelRequest, Support};
use crate::security::totp::{self, SharedSecret};
use crate::web::form::{self, Form};
use crate::web::html::{Html, HtmlReply, object_members};

const TOTP: &str = "logins/totp.html.tera";
const CODES: &str = "logins/codes.html.tera";
const CONFIRM: &str = "logins/profile_confirm.html.tera";
/// The issuer that authenticator apps show if the product has no name.
const ISSUER: &str = "License server";

/// The page that sets up a second factor: an explanation, or the secret that waits for its first code.
#[get("/profile/totp")]
async fn totp_page(request: LoggedIn<'_>, app: &App) -> HtmlReply {
    if request.admin.has_totp {
        return Html::redirect(HERE);
    }
    let values = totp_values(&request, app).await?;
    let mut values = object_members(values);
    values.insert("form".to_owned(), form::empty_form(json!({})));
    request.page(TOTP, values.into()).await
}

async fn totp_values(request: &PanelRequest<'_>, app: &App) -> Result<Value> {
    let (id, required) = (request.admin.id, app.settings.panel.require_totp);
    let state = app.db.read(move |reader| factors::load(reader, id)).await?;
    let Some(pending) = state.pending else {
        return Ok(json!({ "pending": null, "required": required }));
    };
    // The login is one for all products: it is named after the first one, as it was before there were others.
    let settings = app.program_settings.get(&app.db, ProductId::FIRST).await?;
    let product = &settings.config.client_name;
    let issuer = if product.is_empty() { ISSUER } else { product };
    Ok(json!({ "pending": qr_code(&pending, issuer, &request.admin.name)?, "required": required }))
}

/// A TOTP secret as a QR code and as text.
fn qr_code(shared: &SharedSecret, issuer: &str, account: &str) -> Result<Value> {
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
async fn offer(request: LoggedIn<'_>, _form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    let shared = totp::new_secret()?;
    app.db
        .write("logins.offer_totp", move |tx| {
            factors::offer(&Act::new(tx, &actor, now), id, &shared)
        })
        .await?;
    Html::redirect(format!("{HERE}/totp"))
}

/// Confirms the secret by one of its codes, and shows the recovery codes, once.
#[post("/profile/totp", data = "<form>")]
async fn confirm(
    request: LoggedIn<'_>,
    authenticator: Authenticator<'_>,
    form: Form,
    app: &App,
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
            .app
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
            let values = totp_values(&request, app).await?;
            request
                .render_with_errors(TOTP, form.rejected("admins", error), values)
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
    let values = json!({ "action": "codes", "form": form::empty_form(json!({})) });
    request.page(CONFIRM, values).await
}

/// Replaces the recovery codes, and shows the new ones, once.
#[post("/profile/codes", data = "<_form>")]
async fn renew_codes(request: Support<'_>, _form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    if !request.admin.has_totp {
        return Html::redirect(HERE);
    }
    let codes = totp::recovery_codes()?;
    let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
    let stored = codes.clone();
    app.db
        .write("logins.renew_codes", move |tx| {
            factors::renew_codes(&Act::new(tx, &actor, now), id, &stored)
        })
        .await?;
    codes_page(&request, &codes).await
}

/// Asks for the password before the second factor is switched off.
#[get("/profile/totp/off")]
async fn off_question(request: Support<'_>) -> HtmlReply {
    request.require_reauthentication()?;
    let values = json!({ "action": "off", "form": form::empty_form(json!({})) });
    request.page(CONFIRM, values).await
}

/// Switches the second factor off.
#[post("/profile/totp/off", data = "<form>")]
async fn switch_off(
    request: Support<'_>,
    authenticator: Authenticator<'_>,
    form: Form,
) -> HtmlReply {
    request.require_reauthentication()?;
    let outcome = async {
        let checked = authenticator
            .own_password(&request, form.raw("old"))
            .await?;
        let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
        authenticator
            .app
            .db
            .write("logins.switch_totp_off", move |tx| {
                factors::switch_off(&Act::new(tx, &actor, now), login, &checked)
            })
            .await
    };
    match outcome.await {
        Ok(()) => Html::done(HERE, "totp_off"),
        Err(error) => {
            let values = json!({ "action": "off" });
            request
                .render_with_errors(CONFIRM, form.rejected("admins", error), values)
                .await
        }
    }
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![
        totp_page,
        offer_again,
        offer,
        confirm,
        codes_question,
        renew_codes,
        off_question,
        switch_off
    ]
}
