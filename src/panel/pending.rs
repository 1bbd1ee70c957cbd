//! Requests that are refused before their handler runs, and what becomes of a form in one of them: if it was sent after its login
//! had ended, it is kept for the same administrator, and shown again after the next login.

use rocket::http::Method;
use rocket::{Catcher, Request, catch, catchers};
use serde_json::{Map, Value};

use super::elsewhere::nearest_page;
use super::{PanelRequest, is_path_of_panel};
use crate::admins::Admin as Account;
use crate::app::App;
use crate::error::{Error, Result};
use crate::id::AdminId;
use crate::logins;
use crate::web::cookies;
use crate::web::flash;
use crate::web::form::{self, CSRF_FAILED, CSRF_FIELD, FORM_LEN_MAX, Fields, OPEN_FORM_LEN_MAX};
use crate::web::guards::RequestTime;
use crate::web::html::{self, Html, NOT_LOGGED_IN, PanelError, path_with_query};
use crate::web::not_served::NotServed;
use crate::web::pending::{self, PAGE_FIELD, PendingForms};
use crate::web::product_param;
use crate::web::stash::take_stashed;

/// How long the address of a page is at most, with its filters; it becomes a header.
const PAGE_LEN_MAX: usize = 2048;

/// Shows the error of a guard of the panel as a page, or redirects to where it can be resolved. Anything else gets the bare 503
/// of [`NotServed`].
#[catch(default)]
async fn refused(
    _: rocket::http::Status,
    request: &Request<'_>,
) -> Result<Result<Html, NotServed>, PanelError> {
    let Some(error) = take_stashed(request) else {
        return Ok(Err(NotServed));
    };
    match after_ended_login(request, &error).await {
        Some(page) => Ok(Ok(page)),
        None => Err(error.into()),
    }
}

/// The response to a form whose login has ended; `None` for any other request, and for one of the panel's script, which still
/// has what was typed.
async fn after_ended_login(request: &Request<'_>, error: &Error) -> Option<Html> {
    let is_ended = error.is(NOT_LOGGED_IN);
    let is_form = request.method() == Method::Post && !html::is_by_script(request);
    if !is_form || !(is_ended || error.is(CSRF_FAILED)) {
        return None;
    }
    let app = App::of(request).ok()?;
    let form = form::of_ended_login(request, max_len(app, request).await).await?;
    let owner = owner(app, form.raw(CSRF_FIELD)).await?;
    let page = page_of(request, &form);
    let is_stored = keep(request, owner, &page, form)?;
    if is_ended {
        let kept = if is_stored { "1" } else { "" };
        let pairs = [("next", &*page), ("kept", kept)];
        return Some(Html::Redirect(path_with_query(
            "/lizenzserver/login",
            &pairs,
        )));
    }
    // There is a new login by now, made in another tab. A form of another administrator waits for that one.
    (is_stored && flash::sender(request) == Some(owner)).then_some(Html::Redirect(page))
}

/// The administrator whose forms carry `csrf_token`. Only pages of that administrator's login have it.
async fn owner(app: &App, csrf_token: &str) -> Option<AdminId> {
    let csrf_token = csrf_token.to_owned();
    let found = app
        .db
        .read(move |reader| logins::form_owner(reader, &csrf_token));
    found.await.ok().flatten()
}

/// How long the form may be: as short as that of a stranger, unless the browser still has the token of a login.
async fn max_len(app: &App, request: &Request<'_>) -> usize {
    let login = request.cookies().get(cookies::LOGIN);
    let csrf_token = login.map(|cookie| logins::csrf_token(cookie.value()));
    match owner(app, &csrf_token.unwrap_or_default()).await {
        Some(_) => FORM_LEN_MAX,
        None => OPEN_FORM_LEN_MAX,
    }
}

/// The address of the page that shows the form, with the product that it was about.
fn page_of(request: &Request<'_>, form: &Fields) -> String {
    let is_page = |page: &&str| page.len() <= PAGE_LEN_MAX && is_path_of_panel(page);
    let named = Some(form.text(PAGE_FIELD)).filter(is_page);
    let nearest = nearest_page(request.rocket(), request.uri().path().as_str());
    let page = named.unwrap_or(nearest).to_owned();
    let query = request.uri().query().map(|query| query.as_str());
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let slug = pairs.find(|(name, _)| name == product_param::PRODUCT);
    let is_slug = |slug: &str| {
        slug.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match slug.filter(|(_, slug)| is_slug(slug)) {
        Some((_, slug)) => product_param::path_with(&page, &slug),
        None => page,
    }
}

/// Keeps the form for its page; whether there is anything to keep.
fn keep(request: &Request<'_>, owner: AdminId, page: &str, form: Fields) -> Option<bool> {
    let path = page.split(['?', '#']).next().unwrap_or_default();
    let RequestTime(now) = RequestTime::of(request);
    let forms = request.rocket().state::<PendingForms>()?;
    Some(forms.keep(owner, path, form, now))
}

impl PanelRequest<'_> {
    /// What was typed into a form of this page and sent after the login had ended. The next call gets nothing.
    pub fn take_pending(&self) -> Option<Fields> {
        if self.fragment || self.is_form {
            return None;
        }
        let forms = self.rocket.state::<PendingForms>()?;
        let Account { id, created_at, .. } = self.admin;
        forms.take(id, created_at, &self.path, self.now.tick)
    }

    /// Shows it in the form of the page.
    pub(super) fn show_pending(&self, values: &mut Map<String, Value>) {
        let Some(typed) = self.take_pending() else {
            return;
        };
        values.insert("kept".to_owned(), true.into());
        if let Some(form) = values.get_mut("form") {
            pending::fill(form, &typed);
        }
        if let Some(filters) = values.get_mut("filters_of_list") {
            filters["typed"] = typed.text("name").into();
        }
        let seen = typed.revision();
        if values.contains_key("seen") && !seen.is_none() {
            values.insert("seen".to_owned(), serde_json::json!(seen));
        }
    }
}

/// The catcher for requests below `/lizenzserver` that no route answers.
pub fn catchers() -> Vec<Catcher> {
    catchers![refused]
}
