//! Panel pages about logins: the login itself, and the profile of the administrator who is logged in.

mod authenticator;
mod login;
mod profile;
mod second_factor;

pub use authenticator::Authenticator;

use rocket::Route;
use rocket::http::{Cookie, CookieJar, SameSite};

use super::NewLogin;
use crate::error::{Error, Faults, Result};
use crate::security::password;
use crate::security::secret::Secret;
use crate::web::cookies;
use crate::web::form::Fields;

/// The password that a form asks for twice.
///
/// # Errors
/// [`Error::Invalid`] for `password` and `again`, `password_common`.
pub fn new_password(form: &Fields, names: &[&str]) -> Result<Secret<String>> {
    let typed = form.raw("password");
    let mut faults = Faults::default();
    faults.keep(password::check(typed, names));
    if form.raw("again") != typed {
        faults.add(Error::invalid("again", "is another one"));
    }
    faults.with(Ok(Secret::new(typed.to_owned())))
}

/// Sets the cookies of a login: its token, and the one by which the browser is recognized later.
pub fn set_cookies(cookies: &CookieJar<'_>, new_login: &NewLogin) {
    cookies.add(session_cookie(new_login.token.reveal().clone()));
    let days = i64::try_from(super::BROWSER_DAYS).unwrap_or(i64::MAX);
    let browser = Cookie::build((cookies::BROWSER, new_login.browser.reveal().clone()))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
        .max_age(rocket::time::Duration::days(days));
    cookies.add(browser);
}

fn session_cookie(token: String) -> Cookie<'static> {
    Cookie::build((cookies::LOGIN, token))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
        .build()
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    [login::routes(), profile::routes(), second_factor::routes()].concat()
}
