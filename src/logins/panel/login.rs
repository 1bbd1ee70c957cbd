//! Login, second factor, logout, re-authentication before an irreversible action, and the language and theme of a
//! browser.

use rocket::http::{Cookie, CookieJar, SameSite, Status};
use rocket::{Route, get, post, routes};
use serde_json::json;

use super::{Authenticator, session_cookie, set_cookies};
use crate::admins::{Preferences, any_exists};
use crate::app::App;
use crate::audit::Act;
use crate::config::Language;
use crate::error::Result;
use crate::logins::{self, CheckedPassword, Credential, NewLogin, Stage};
use crate::panel::{
    AwaitingSecondFactor, HOME, LoggedIn, Visitor, is_path_of_panel, missing_state,
};
use crate::security::secret::Secret;
use crate::web::form::{self, Form, OpenForm};
use crate::web::html::{Html, HtmlReply, path_with_query};

const LOGIN: &str = "logins/login.html.tera";
const CODE: &str = "logins/code.html.tera";
const REAUTHENTICATE: &str = "logins/reauthenticate.html.tera";
/// How long the cookies for language and theme last, in days.
const PREFERENCE_DAYS: i64 = 365;

/// The login page; before the set-up, how to begin.
#[get("/login?<next>&<kept>")]
async fn login_page(
    visitor: Visitor<'_>,
    next: Option<&str>,
    kept: Option<&str>,
    app: &App,
) -> HtmlReply {
    // The page does not need the database, so it is shown even if that cannot be read.
    let any_exists = app.db.read(any_exists).await.unwrap_or(true);
    if !any_exists {
        return visitor.page(Status::Ok, "logins/no_administrator.html.tera", json!({}));
    }
    let form =
        form::empty_form(json!({ "next": next.unwrap_or_default(), "kept": kept == Some("1") }));
    visitor.page(Status::Ok, LOGIN, json!({ "form": form }))
}

/// Checks name and password, and starts a login.
#[post("/login", data = "<form>")]
async fn login(
    visitor: Visitor<'_>,
    authenticator: Result<Authenticator<'_>, ()>,
    form: OpenForm,
    cookies: &CookieJar<'_>,
) -> HtmlReply {
    let Ok(authenticator) = authenticator else {
        return Err(missing_state("login").into());
    };
    let name = authenticator.name(&form).await?;
    let password = Secret::new(form.raw("password").to_owned());
    let checked = match authenticator.password(&name, password).await {
        Ok(checked) => checked,
        Err(error) => return visitor.render_with_errors(LOGIN, &form, error, json!({})),
    };
    let new_login = authenticator.new_login().await?;
    let stage = match start(&authenticator, checked, &new_login).await {
        Ok(stage) => stage,
        Err(error) => return visitor.render_with_errors(LOGIN, &form, error, json!({})),
    };
    let next = panel_path_or_home(form.text("next"));
    match stage {
        Stage::Full => {
            set_cookies(cookies, &new_login);
            Html::redirect(next)
        }
        Stage::Password => {
            cookies.add(session_cookie(new_login.token.reveal().clone()));
            Html::redirect(path_with_query(
                "/lizenzserver/login/code",
                &[("next", next)],
            ))
        }
    }
}

/// Starts a login of the account whose password was checked.
async fn start(
    authenticator: &Authenticator<'_>,
    checked: CheckedPassword,
    new_login: &NewLogin,
) -> Result<Stage> {
    let now = authenticator.now.wall;
    let created_login = new_login.clone();
    let actor = checked.actor(&new_login.origin, now);
    authenticator
        .app
        .db
        .write("logins.start", move |tx| {
            logins::start(&Act::new(tx, &actor, now), &checked, &created_login)
        })
        .await
}

/// The page for the second factor.
#[get("/login/code?<next>")]
async fn code_page(request: AwaitingSecondFactor<'_>, next: Option<&str>) -> HtmlReply {
    let values = json!({ "next": panel_path_or_home(next.unwrap_or_default()), "form": form::empty_form(json!({})) });
    request.page(CODE, values).await
}

/// Checks the second factor, and completes the login.
#[post("/login/code", data = "<form>")]
async fn code(
    request: AwaitingSecondFactor<'_>,
    authenticator: Authenticator<'_>,
    form: Form,
    cookies: &CookieJar<'_>,
) -> HtmlReply {
    let next = panel_path_or_home(form.text("next")).to_owned();
    let outcome = async {
        let second_factor = authenticator
            .second_factor(&request, form.text("code"))
            .await?;
        let new_login = authenticator.new_login().await?;
        let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
        let created_login = new_login.clone();
        authenticator
            .app
            .db
            .write("logins.complete", move |tx| {
                let act = Act::new(tx, &actor, now);
                logins::complete(&act, login, &created_login, &second_factor)
            })
            .await?;
        Ok(new_login)
    };
    match outcome.await {
        Ok(new_login) => {
            set_cookies(cookies, &new_login);
            Html::redirect(next)
        }
        Err(error) => {
            authenticator.report_code(&request, &error);
            let values = json!({ "next": next });
            request
                .render_with_errors(CODE, form.rejected("admins", error), values)
                .await
        }
    }
}

/// Ends the login.
#[post("/logout", data = "<_form>")]
async fn logout(
    _request: LoggedIn<'_>,
    _form: Form,
    cookies: &CookieJar<'_>,
    app: &App,
) -> HtmlReply {
    if let Some(cookie) = cookies.get(crate::web::cookies::LOGIN) {
        let token = cookie.value().to_owned();
        app.db
            .write("logins.end", move |tx| logins::end(tx, &token))
            .await?;
    }
    cookies.remove(session_cookie(String::new()));
    Html::redirect("/lizenzserver/login")
}

/// The page that asks for the password or second factor before an irreversible action.
#[get("/prove?<next>")]
async fn reauthenticate_page(request: LoggedIn<'_>, next: Option<&str>) -> HtmlReply {
    let values = json!({ "next": panel_path_or_home(next.unwrap_or_default()), "form": form::empty_form(json!({})) });
    request.page(REAUTHENTICATE, values).await
}

/// Checks the second factor, or the password of an account without one, and redirects to `next`.
#[post("/prove", data = "<form>")]
async fn reauthenticate(
    request: LoggedIn<'_>,
    authenticator: Authenticator<'_>,
    form: Form,
) -> HtmlReply {
    let next = panel_path_or_home(form.text("next")).to_owned();
    let outcome = async {
        let credential = if request.admin.has_totp {
            Credential::SecondFactor(
                authenticator
                    .second_factor(&request, form.text("code"))
                    .await?,
            )
        } else {
            Credential::Password(
                authenticator
                    .own_password(&request, form.raw("old"))
                    .await?,
            )
        };
        let (login, actor, now) = (request.login(), request.actor(), request.now.wall);
        authenticator
            .app
            .db
            .write("logins.reauthenticate", move |tx| {
                logins::reauthenticate(&Act::new(tx, &actor, now), login, &credential)
            })
            .await
    };
    match outcome.await {
        Ok(()) => Html::redirect(next),
        Err(error) => {
            authenticator.report_code(&request, &error);
            let values = json!({ "next": next });
            request
                .render_with_errors(REAUTHENTICATE, form.rejected("admins", error), values)
                .await
        }
    }
}

/// Sets the language and theme of this browser, and the language of the administrator who is logged in.
#[post("/appearance", data = "<form>")]
async fn appearance(
    request: Option<LoggedIn<'_>>,
    form: OpenForm,
    cookies: &CookieJar<'_>,
    app: &App,
) -> HtmlReply {
    for (name, known) in [
        (crate::web::cookies::LANGUAGE, &["de", "en"][..]),
        (crate::web::cookies::THEME, &["light", "dark", ""]),
    ] {
        if form.has(name) && known.contains(&form.text(name)) {
            set_preference_cookie(cookies, name, form.text(name));
        }
    }
    let language = Language::from_tag(form.text("lang"));
    if let (Some(request), Some(language)) =
        (request.filter(|_| form.has_valid_csrf_token()), language)
    {
        let (id, actor, now) = (request.admin.id, request.actor(), request.now.wall);
        let preferences = Preferences::Language(language);
        app.db
            .write("admins.set_preferences", move |tx| {
                crate::admins::set_preferences(&Act::new(tx, &actor, now), id, &preferences)
            })
            .await?;
    }
    Html::redirect(match form.text("back") {
        "/lizenzserver/login" => "/lizenzserver/login",
        back => panel_path_or_home(back),
    })
}

/// Sets a cookie for the language or theme of this browser.
pub(super) fn set_preference_cookie(cookies: &CookieJar<'_>, name: &'static str, value: &str) {
    let cookie = Cookie::build((name, value.to_owned()))
        .path("/")
        .secure(true)
        .same_site(SameSite::Strict)
        .max_age(rocket::time::Duration::days(PREFERENCE_DAYS));
    cookies.add(cookie);
}

/// `next` if it is a path of the panel, else [`HOME`]: a link must not redirect out of the panel.
fn panel_path_or_home(next: &str) -> &str {
    if is_path_of_panel(next) { next } else { HOME }
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![
        login_page,
        login,
        code_page,
        code,
        logout,
        reauthenticate_page,
        reauthenticate,
        appearance
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_never_leaves_the_panel() {
        for (next, to) in [
            ("/lizenzserver/licenses?q=a", "/lizenzserver/licenses?q=a"),
            ("/lizenzserver?days=7", "/lizenzserver?days=7"),
            ("", HOME),
            ("https://example.org", HOME),
            ("//example.org", HOME),
            ("/lizenzserver//example.org", HOME),
            ("/lizenzserver/\\example.org", HOME),
            ("/lizenzserverx", HOME),
            ("/lizenzserver/a\r\nb", HOME),
        ] {
            assert_eq!(panel_path_or_home(next), to, "{next:?}");
        }
    }
}
