//! The door for administrators themselves: login and logout, and the guards that every other room's
//! `panel.rs` asks for. A guard is a role: what a route may do is said by its arguments.

use rocket::http::{Cookie, CookieJar, SameSite, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Orbit, Rocket, Route, State, get, post, routes};
use serde_json::{Map, Value, json};

use super::rules::{self, Lasting, Refusal};
use super::{Admin as Person, Origin, Role, Session, Stage};
use crate::audit::Actor;
use crate::clock::Now;
use crate::config::Language;
use crate::db::Db;
use crate::error::{Error, Refused, Result};
use crate::i18n::Catalog;
use crate::overview;
use crate::security::password::{Hasher, Verdict};
use crate::security::secret::{self, Secret};
use crate::web::form::{self, Fields, Form, OpenForm};
use crate::web::guards::{self, Lang, Moment};
use crate::web::html::{self, Html, HtmlReply};
use crate::web::page::Pages;
use crate::web::reply;

/// The cookie of a login. Its prefix binds it to this host, HTTPS and the path `/`.
const LOGIN_COOKIE: &str = "__Host-session";
/// Where the panel begins.
pub const HOME: &str = "/lizenzserver";
/// Longest description of a browser that is kept, in characters.
const BROWSER_MAX: usize = 200;
/// How old the note of the last use may be before it is written anew, in seconds.
const SEEN_AFTER_S: u32 = 60;
/// How long a browser keeps language and theme, in days.
const TASTE_DAYS: i64 = 365;

/// A person at work: who, since when, and how to answer.
pub struct Desk<'r> {
    /// Who.
    pub admin: Person,
    /// The login.
    pub session: Session,
    /// When the request came.
    pub now: Now,
    /// The language of the answer.
    pub language: Language,
    /// Where the request came from.
    pub address: String,
    /// What forms must carry.
    proof: String,
    fragment: bool,
    path: String,
    done: Option<String>,
    theme: &'static str,
    rocket: &'r Rocket<Orbit>,
}

/// Any administrator.
pub struct Support<'r>(Desk<'r>);

/// An administrator with the role `admin` or `owner`.
pub struct Admin<'r>(Desk<'r>);

/// An owner.
pub struct Owner<'r>(Desk<'r>);

macro_rules! guard {
    ($name:ident, $role:expr) => {
        impl<'r> std::ops::Deref for $name<'r> {
            type Target = Desk<'r>;

            fn deref(&self) -> &Desk<'r> {
                &self.0
            }
        }

        #[rocket::async_trait]
        impl<'r> FromRequest<'r> for $name<'r> {
            type Error = ();

            async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
                match desk(request, $role).await {
                    Ok(desk) => Outcome::Success(Self(desk)),
                    Err(error) => {
                        reply::stash(request, error);
                        Outcome::Error((Status::Forbidden, ()))
                    }
                }
            }
        }
    };
}

guard!(Support, Role::Support);
guard!(Admin, Role::Admin);
guard!(Owner, Role::Owner);

fn missing(what: &'static str) -> Error {
    Error::Internal {
        doing: "find a part of the server",
        source: From::from(what),
    }
}

/// Who sends `request`, if the login holds and the role suffices.
async fn desk<'r>(request: &'r Request<'_>, wanted: Role) -> Result<Desk<'r>> {
    let rocket = request.rocket();
    let db = rocket.state::<Db>().ok_or_else(|| missing("database"))?;
    let lasting = *rocket
        .state::<Lasting>()
        .ok_or_else(|| missing("settings"))?;
    let Moment(now) = Moment::of(request);
    let cookie = request.cookies().get(LOGIN_COOKIE);
    let token = cookie.map(|cookie| cookie.value().to_owned());
    let token = token.ok_or(Refusal::NotLoggedIn)?;
    let proof = proof_of(&token);
    let found = db
        .read(move |reader| super::visitor(reader, &token, lasting, now.wall))
        .await?;
    let (admin, session) = found.ok_or(Refusal::NotLoggedIn)?;
    if let Some(language) = admin.language {
        guards::speak(request, language);
    }
    rules::admit(&session, admin.role, wanted)?;
    if session.seen_at.plus_s(SEEN_AFTER_S) <= now.wall {
        let id = session.id;
        let seen = db.write("admins.seen", move |tx| super::seen(tx, id, now.wall));
        // On a full disk the panel must still show what is wrong.
        if let Err(error) = seen.await {
            log::debug!("could not note the use of a login: {error}");
        }
    }
    form::expect_proof(request, &proof);
    let Lang(language) = Lang::of(request);
    let address = request.client_ip().map(|address| address.to_string());
    Ok(Desk {
        admin,
        session,
        now,
        language,
        address: address.unwrap_or_default(),
        proof,
        fragment: html::is_fragment(request),
        path: request.uri().path().to_string(),
        done: request
            .query_value::<&str>("done")
            .and_then(|done| done.ok().map(str::to_owned)),
        theme: html::theme(request),
        rocket,
    })
}

/// What the forms of a login carry: only who knows its token can tell.
fn proof_of(token: &str) -> String {
    secret::hex(&secret::sha256(format!("proof\n{token}").as_bytes()))
}

impl Desk<'_> {
    /// Who does what is done now, for the audit log.
    pub fn actor(&self) -> Actor {
        Actor {
            name: self.admin.name.clone(),
            source: self.address.clone(),
        }
    }

    /// Whether the role suffices for what `role` may do.
    pub fn may(&self, role: Role) -> bool {
        self.admin.role.includes(role)
    }

    /// The text `key` in the language of this person.
    ///
    /// # Errors
    /// When there is no such text.
    pub fn text(&self, key: &str, members: &Map<String, Value>) -> Result<String> {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing("texts"))?;
        let text = catalog.phrase(self.language, key, members);
        text.ok_or_else(|| Error::not_found("text", key))
    }

    /// The page `name` with what `values`, a JSON object, holds.
    ///
    /// # Errors
    /// When the page asks for something it was not given.
    pub async fn page(&self, name: &str, values: Value) -> HtmlReply {
        self.page_with(Status::Ok, name, values).await
    }

    /// The same with another status.
    ///
    /// # Errors
    /// As [`Desk::page`].
    pub async fn page_with(&self, status: Status, name: &str, values: Value) -> HtmlReply {
        let mut all = self.common();
        if !self.fragment {
            let db = self.rocket.state::<Db>();
            let db = db.ok_or_else(|| missing("database"))?;
            let now = self.now.wall;
            let counts = db.read(move |reader| overview::counts(reader, now)).await?;
            all.insert("counts".to_owned(), json!(counts));
        }
        all.extend(html::members(values));
        let text = self.render(name, &all)?;
        Ok(Html::Page { status, text })
    }

    /// A part of a page, for a script that may know it already.
    ///
    /// # Errors
    /// As [`Desk::page`].
    pub fn part(&self, name: &str, values: Value) -> HtmlReply {
        let mut all = self.common();
        all.extend(html::members(values));
        Ok(Html::Part(self.render(name, &all)?))
    }

    /// The page `name` again, with what was typed into its form and what is wrong with it in words:
    /// `[room] bad_<field>` for a field, the text of its code for a refusal.
    ///
    /// # Errors
    /// `error` itself, where it is none that a person can mend in this form.
    pub async fn again(
        &self,
        name: &str,
        room: &str,
        fields: &Fields,
        error: Error,
        values: Value,
    ) -> HtmlReply {
        let (field, text) = match error {
            Error::Invalid { field, problem } => {
                let word = field.replace('-', "_");
                let known = self.text(&format!("{room}.bad_{word}"), &Map::new());
                (word, known.unwrap_or(problem))
            }
            Error::Refused(refused) => (String::new(), self.detail(&refused)?),
            other => return Err(other.into()),
        };
        let mut values = html::members(values);
        values.insert("form".to_owned(), form::faulty(fields, &field, &text));
        self.page_with(Status::UnprocessableEntity, name, Value::Object(values))
            .await
    }

    /// The sentence of a refusal in the language of this person.
    fn detail(&self, refused: &Refused) -> Result<String> {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing("texts"))?;
        Ok(catalog
            .problem(self.language, refused.code, &refused.members)
            .1)
    }

    /// What every page may use.
    fn common(&self) -> Map<String, Value> {
        let section = self.path.strip_prefix(HOME).unwrap_or_default();
        let section = section.trim_start_matches('/').split('/').next();
        html::members(json!({
            "lang": self.language.tag(),
            "theme": self.theme,
            "fragment": self.fragment,
            "path": self.path,
            "section": section,
            "done": self.done,
            "proof": self.proof,
            "who": self.admin,
            "may_change": self.may(Role::Admin),
            "is_owner": self.may(Role::Owner),
            "now": self.now.wall,
        }))
    }

    fn render(&self, name: &str, values: &Map<String, Value>) -> Result<String> {
        let pages = self.rocket.state::<Pages>();
        let pages = pages.ok_or_else(|| missing("pages"))?;
        pages.render_in(self.language, name, values)
    }
}

/// Somebody who is not logged in, and what a page for him needs.
struct Visitor<'r> {
    now: Now,
    language: Language,
    theme: &'static str,
    origin: Origin,
    rocket: &'r Rocket<Orbit>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Visitor<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let (Moment(now), Lang(language)) = (Moment::of(request), Lang::of(request));
        let browser = request.headers().get_one("user-agent").unwrap_or_default();
        let address = request.client_ip().map(|address| address.to_string());
        Outcome::Success(Self {
            now,
            language,
            theme: html::theme(request),
            origin: Origin {
                address: address.unwrap_or_default(),
                browser: browser.chars().take(BROWSER_MAX).collect(),
            },
            rocket: request.rocket(),
        })
    }
}

impl Visitor<'_> {
    fn page(&self, status: Status, name: &str, values: Value) -> HtmlReply {
        let pages = self.rocket.state::<Pages>();
        let pages = pages.ok_or_else(|| missing("pages"))?;
        let mut all = html::members(json!({
            "lang": self.language.tag(),
            "theme": self.theme,
            "fragment": false,
        }));
        all.extend(html::members(values));
        let text = pages.render_in(self.language, name, &all)?;
        Ok(Html::Page { status, text })
    }
}

/// The page to log in on.
#[get("/login?<next>")]
fn login_page(visitor: Visitor<'_>, next: Option<&str>) -> HtmlReply {
    let values = json!({ "next": next.unwrap_or_default(), "name": "", "wrong": null });
    visitor.page(Status::Ok, "admins/login.html.tera", values)
}

/// Logs in.
#[post("/login", data = "<form>")]
async fn login(
    visitor: Visitor<'_>,
    form: OpenForm,
    cookies: &CookieJar<'_>,
    hasher: &State<Hasher>,
    db: &State<Db>,
) -> HtmlReply {
    let name = form.text("name").to_owned();
    let password = Secret::new(form.raw("password").to_owned());
    let asked = name.clone();
    let known = db
        .read(move |reader| super::password_hash(reader, &asked))
        .await?;
    if hasher.verify(password, known).await? == Verdict::Wrong {
        let values = json!({
            "next": form.text("next"), "name": name, "wrong": Refusal::WrongPassword.code(),
        });
        return visitor.page(
            Status::UnprocessableEntity,
            "admins/login.html.tera",
            values,
        );
    }
    let (token, origin, now) = (super::new_token()?, visitor.origin, visitor.now.wall);
    let kept = token.clone();
    let stage = db
        .write("admins.login", move |tx| {
            let admin = super::named(tx, &name)?;
            super::begin_session(tx, &admin, &kept, &origin, now)
        })
        .await?;
    cookies.add(session_cookie(token.reveal().clone()));
    match stage {
        Stage::Full => Html::go(inside(form.text("next"))),
        Stage::Password => Html::go("/lizenzserver/login/code"),
    }
}

fn session_cookie(token: String) -> Cookie<'static> {
    Cookie::build((LOGIN_COOKIE, token))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
        .build()
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

/// Logs out.
#[post("/logout", data = "<_form>")]
async fn logout(
    _who: Support<'_>,
    _form: Form,
    cookies: &CookieJar<'_>,
    db: &State<Db>,
) -> HtmlReply {
    if let Some(cookie) = cookies.get(LOGIN_COOKIE) {
        let token = cookie.value().to_owned();
        db.write("admins.logout", move |tx| super::end_session(tx, &token))
            .await?;
    }
    cookies.remove(session_cookie(String::new()));
    Html::go("/lizenzserver/login")
}

/// Sets the language and the theme of this browser. Changes nothing on the server.
#[post("/appearance", data = "<form>")]
fn appearance(form: OpenForm, cookies: &CookieJar<'_>) -> HtmlReply {
    for (name, known) in [
        ("lang", &["de", "en"][..]),
        ("theme", &["light", "dark", ""]),
    ] {
        if form.has(name) && known.contains(&form.text(name)) {
            let cookie = Cookie::build((name, form.text(name).to_owned()))
                .path("/")
                .secure(true)
                .same_site(SameSite::Strict)
                .max_age(rocket::time::Duration::days(TASTE_DAYS));
            cookies.add(cookie);
        }
    }
    Html::go(match form.text("back") {
        "/lizenzserver/login" => "/lizenzserver/login",
        back => inside(back),
    })
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![login_page, login, logout, appearance]
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
