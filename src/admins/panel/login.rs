//! Logging in and out, the second factor, the question who one is before a final deed, and what a browser
//! shows: language and theme.

use rocket::http::{Cookie, CookieJar, SameSite, Status};
use rocket::{Route, State, get, post, routes};
use serde_json::json;

use super::{
    Authenticator, AwaitingSecondFactor, HOME, LoggedIn, Visitor, session_cookie, set_cookies,
};
use crate::admins::logins::{self, Shown};
use crate::admins::{Preferences, Stage, named};
use crate::config::Language;
use crate::db::Db;
use crate::error::Result;
use crate::security::secret::Secret;
use crate::web::form::{self, Form, OpenForm};
use crate::web::html::{Html, HtmlReply, address};

const LOGIN: &str = "admins/login.html.tera";
const CODE: &str = "admins/code.html.tera";
const PROVE: &str = "admins/prove.html.tera";
/// How long a browser keeps language and theme, in days.
const PREFERENCE_DAYS: i64 = 365;

/// The page to log in on.
#[get("/login?<next>")]
fn login_page(visitor: Visitor<'_>, next: Option<&str>) -> HtmlReply {
    let form = form::empty_form(json!({ "next": next.unwrap_or_default() }));
    visitor.page(Status::Ok, LOGIN, json!({ "form": form }))
}

/// Logs in.
#[post("/login", data = "<form>")]
async fn login(
    visitor: Visitor<'_>,
    gate: Result<Authenticator, ()>,
    form: OpenForm,
    cookies: &CookieJar<'_>,
) -> HtmlReply {
    let Ok(gate) = gate else {
        return Err(super::missing("login").into());
    };
    let name = gate.name(&form).await?;
    let password = Secret::new(form.raw("password").to_owned());
    let checked = match gate.password(&name, password).await {
        Ok(checked) => checked,
        Err(error) => return visitor.again(LOGIN, &form, error, json!({})),
    };
    let (arrival, now) = (gate.arrival().await?, gate.now.wall);
    let kept = arrival.clone();
    let stage = gate
        .db
        .write("admins.login", move |tx| {
            let admin = named(tx, &name)?;
            logins::begin(tx, &admin, &kept, &checked, now)
        })
        .await;
    let stage = match stage {
        Ok(stage) => stage,
        Err(error) => return visitor.again(LOGIN, &form, error, json!({})),
    };
    let next = inside(form.text("next"));
    match stage {
        Stage::Full => {
            set_cookies(cookies, &arrival);
            Html::go(next)
        }
        Stage::Password => {
            cookies.add(session_cookie(arrival.token.reveal().clone()));
            Html::go(address("/lizenzserver/login/code", &[("next", next)]))
        }
    }
}

/// The page for the second factor.
#[get("/login/code?<next>")]
async fn code_page(who: AwaitingSecondFactor<'_>, next: Option<&str>) -> HtmlReply {
    let values =
        json!({ "next": inside(next.unwrap_or_default()), "form": form::empty_form(json!({})) });
    who.page(CODE, values).await
}

/// Completes a login.
#[post("/login/code", data = "<form>")]
async fn code(
    who: AwaitingSecondFactor<'_>,
    gate: Authenticator,
    form: Form,
    cookies: &CookieJar<'_>,
) -> HtmlReply {
    let next = inside(form.text("next")).to_owned();
    let done = async {
        let proof = gate.factor(&who, form.text("code")).await?;
        let arrival = gate.arrival().await?;
        let (admin, half) = (who.admin.clone(), who.session.id);
        let (kept, now) = (arrival.clone(), who.now.wall);
        gate.db
            .write("admins.login", move |tx| {
                logins::complete(tx, (&admin, half), &kept, &proof, now)
            })
            .await?;
        Ok(arrival)
    };
    match done.await {
        Ok(arrival) => {
            set_cookies(cookies, &arrival);
            Html::go(next)
        }
        Err(error) => {
            gate.report_code(&who, &error);
            let values = json!({ "next": next });
            who.again(CODE, "admins", &form, error, values).await
        }
    }
}

/// Logs out.
#[post("/logout", data = "<_form>")]
async fn logout(
    _who: LoggedIn<'_>,
    _form: Form,
    cookies: &CookieJar<'_>,
    db: &State<Db>,
) -> HtmlReply {
    if let Some(cookie) = cookies.get(crate::web::cookies::LOGIN) {
        let token = cookie.value().to_owned();
        db.write("admins.logout", move |tx| logins::end(tx, &token))
            .await?;
    }
    cookies.remove(session_cookie(String::new()));
    Html::go("/lizenzserver/login")
}

/// Asks who one is, before a final deed.
#[get("/prove?<next>")]
async fn prove_page(who: LoggedIn<'_>, next: Option<&str>) -> HtmlReply {
    let values =
        json!({ "next": inside(next.unwrap_or_default()), "form": form::empty_form(json!({})) });
    who.page(PROVE, values).await
}

/// Takes the password, or the second factor where there is one, and leads on.
#[post("/prove", data = "<form>")]
async fn prove(who: LoggedIn<'_>, gate: Authenticator, form: Form) -> HtmlReply {
    let next = inside(form.text("next")).to_owned();
    let done = async {
        let shown = if who.admin.has_totp {
            Shown::Factor(gate.factor(&who, form.text("code")).await?)
        } else {
            Shown::Password(gate.own_password(&who, form.raw("old")).await?)
        };
        let (session, admin, now) = (who.session.id, who.admin.clone(), who.now.wall);
        gate.db
            .write("admins.reauthenticate", move |tx| {
                logins::prove(tx, (&admin, session), &shown, now)
            })
            .await
    };
    match done.await {
        Ok(()) => Html::go(next),
        Err(error) => {
            gate.report_code(&who, &error);
            let values = json!({ "next": next });
            who.again(PROVE, "admins", &form, error, values).await
        }
    }
}

/// Sets the language and the theme of this browser, and the language of who is logged in.
#[post("/appearance", data = "<form>")]
async fn appearance(
    who: Option<LoggedIn<'_>>,
    form: OpenForm,
    cookies: &CookieJar<'_>,
    db: &State<Db>,
) -> HtmlReply {
    for (name, known) in [
        (crate::web::cookies::LANGUAGE, &["de", "en"][..]),
        (crate::web::cookies::THEME, &["light", "dark", ""]),
    ] {
        if form.has(name) && known.contains(&form.text(name)) {
            set_preference_cookie(cookies, name, form.text(name));
        }
    }
    let language = Language::of_tag(form.text("lang"));
    if let (Some(who), Some(language)) = (who.filter(|_| form.has_valid_csrf_token()), language) {
        let (id, actor, now) = (who.admin.id, who.actor(), who.now.wall);
        let taste = Preferences::Language(language);
        db.write("admins.prefer", move |tx| {
            crate::admins::set_preferences(tx, id, &taste, &actor, now)
        })
        .await?;
    }
    Html::go(match form.text("back") {
        "/lizenzserver/login" => "/lizenzserver/login",
        back => inside(back),
    })
}

/// Keeps what this browser shows.
pub(super) fn set_preference_cookie(cookies: &CookieJar<'_>, name: &'static str, value: &str) {
    let cookie = Cookie::build((name, value.to_owned()))
        .path("/")
        .secure(true)
        .same_site(SameSite::Strict)
        .max_age(rocket::time::Duration::days(PREFERENCE_DAYS));
    cookies.add(cookie);
}

/// Where somebody wanted to go, if it is a page of the panel.
fn inside(next: &str) -> &str {
    let clean = next
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let below = next
        .strip_prefix(HOME)
        .is_some_and(|rest| rest.starts_with(['/', '?']));
    if clean && below && !next.contains("//") {
        next
    } else {
        HOME
    }
}

/// What is behind this door.
pub(super) fn routes() -> Vec<Route> {
    routes![
        login_page, login, code_page, code, logout, prove_page, prove, appearance
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_out_of_the_panel() {
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
            assert_eq!(inside(next), to, "{next:?}");
        }
    }
}
