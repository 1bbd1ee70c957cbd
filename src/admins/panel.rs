//! The door for administrators themselves: login and logout, and the guards that every other room's
//! `panel.rs` asks for. A guard is a role: what a route may do is said by its arguments.

mod login;
mod people;
mod profile;
mod setup;

use std::sync::Arc;

use rocket::http::{Cookie, CookieJar, SameSite, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Orbit, Rocket, Route};
use serde_json::{Map, Value, json};

use super::factors::SecondFactor;
use super::logins::{self, Checked, NewLogin};
use super::rules::{self, Refusal, SessionLifetime, Wanted};
use super::throttle::{Fault, Locked, Lockout, Throttle, Whose};
use super::{Admin as Person, Origin, Role, Session, Token};
use crate::audit::Actor;
use crate::client_config::ProgramSettingsCache;
use crate::clock::{Now, TrustedClock};
use crate::config::Language;
use crate::db::{Db, Reader};
use crate::error::{Error, Refused, Result};
use crate::i18n::Catalog;
use crate::metrics::RefusalCounter;
use crate::overview;
use crate::security::client_address::ClientAddress;
use crate::security::password::{Hasher, Verdict};
use crate::security::rate_limit::{Limiter, RATE_LIMITED};
use crate::security::secret::{self, Secret};
use crate::security::totp::Typed;
use crate::web::cookies;
use crate::web::form::{self, Fields};
use crate::web::guards::{self, Lang, Moment};
use crate::web::html::{self, Html, HtmlReply};
use crate::web::page::Pages;
use crate::web::reply;

/// Where the panel begins.
pub const HOME: &str = "/lizenzserver";
/// Longest description of a browser that is kept, in characters.
const BROWSER_MAX: usize = 200;
/// How old the note of the last use may be before it is written anew, in seconds.
const SEEN_AFTER_S: u32 = 60;

/// `[panel] require_totp`: whether nobody works here without a second factor.
#[derive(Clone, Copy, Debug)]
pub struct TotpRequired(pub bool);

/// A person at work: who, since when, and how to answer.
pub struct PanelRequest<'r> {
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
    /// In how many seconds the login ends if nothing more is done.
    ends_s: u64,
    /// What forms must carry.
    proof: String,
    fragment: bool,
    path: String,
    done: Option<String>,
    theme: &'static str,
    rocket: &'r Rocket<Orbit>,
}

/// Somebody who is logged in, also one who has to set up a second factor before anything else: for the
/// pages that this takes.
pub struct LoggedIn<'r>(PanelRequest<'r>);

/// Somebody whose password was right, and whose second factor is missing.
struct AwaitingSecondFactor<'r>(PanelRequest<'r>);

/// Any administrator.
pub struct Support<'r>(PanelRequest<'r>);

/// An administrator with the role `admin` or `owner`.
pub struct Admin<'r>(PanelRequest<'r>);

/// An owner.
pub struct Owner<'r>(PanelRequest<'r>);

macro_rules! guard {
    ($name:ident, $wanted:expr) => {
        impl<'r> std::ops::Deref for $name<'r> {
            type Target = PanelRequest<'r>;

            fn deref(&self) -> &PanelRequest<'r> {
                &self.0
            }
        }

        #[rocket::async_trait]
        impl<'r> FromRequest<'r> for $name<'r> {
            type Error = ();

            async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
                match panel_request(request, $wanted).await {
                    Ok(panel_request) => Outcome::Success(Self(panel_request)),
                    Err(error) => {
                        reply::stash(request, error);
                        Outcome::Error((Status::Forbidden, ()))
                    }
                }
            }
        }
    };
}

guard!(AwaitingSecondFactor, Wanted::HalfDone);
guard!(LoggedIn, Wanted::Person);
guard!(Support, Wanted::Role(Role::Support));
guard!(Admin, Wanted::Role(Role::Admin));
guard!(Owner, Wanted::Role(Role::Owner));

fn missing(what: &'static str) -> Error {
    Error::Internal {
        doing: "find a part of the server",
        source: From::from(what),
    }
}

fn part<'r, T: Send + Sync + 'static>(
    request: &'r Request<'_>,
    what: &'static str,
) -> Result<&'r T> {
    request.rocket().state::<T>().ok_or_else(|| missing(what))
}

/// Who sends `request`, if the login holds and suffices.
async fn panel_request<'r>(request: &'r Request<'_>, wanted: Wanted) -> Result<PanelRequest<'r>> {
    let rocket = request.rocket();
    let db = part::<Db>(request, "database")?;
    let lasting = *part::<SessionLifetime>(request, "settings")?;
    let TotpRequired(totp_required) = *part(request, "settings")?;
    let Moment(now) = Moment::of(request);
    let cookie = request.cookies().get(cookies::LOGIN);
    let token = cookie.map(|cookie| cookie.value().to_owned());
    let token = token.ok_or(Refusal::NotLoggedIn)?;
    let proof = proof_of(&token);
    let found = db
        .read(move |reader| logins::visitor(reader, &token, lasting, now.wall))
        .await?;
    let (admin, session) = found.ok_or(Refusal::NotLoggedIn)?;
    if let Some(language) = admin.language {
        guards::speak(request, language);
    }
    rules::admit(session.stage, &admin, wanted, totp_required)?;
    // What a script asks for by itself keeps nobody logged in.
    let fragment = html::is_fragment(request);
    if !fragment && session.seen_at.plus_s(SEEN_AFTER_S) <= now.wall {
        let id = session.id;
        let seen = db.write("admins.seen", move |tx| logins::seen(tx, id, now.wall));
        // On a full disk the panel must still show what is wrong.
        if let Err(error) = seen.await {
            log::debug!("could not note the use of a login: {error}");
        }
    }
    form::expect_csrf_token(request, &proof);
    let Lang(language) = Lang::of(request);
    Ok(PanelRequest {
        ends_s: rules::ends_in_s(&session, lasting, now.wall),
        admin,
        session,
        now,
        language,
        address: ClientAddress::of(request).to_string(),
        proof,
        fragment,
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

impl PanelRequest<'_> {
    /// Who does what is done now, for the audit log.
    pub fn actor(&self) -> Actor {
        Actor {
            name: self.admin.name.clone(),
            source: self.address.clone(),
        }
    }

    /// Asks for a password or second factor that was given within the last five minutes: for final deeds. Who
    /// has none is led to the page that asks for it, and from there back to where he was.
    ///
    /// # Errors
    /// [`Refusal::ProveFirst`].
    pub fn proved(&self) -> Result<(), Refusal> {
        if rules::proved_lately(self.session.proved_at, self.now.wall) {
            Ok(())
        } else {
            Err(Refusal::ProveFirst)
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
    /// As [`PanelRequest::page`].
    pub async fn page_with(&self, status: Status, name: &str, values: Value) -> HtmlReply {
        let mut all = self.common();
        // Not for the frame alone: pages may show them too, and any page may be asked for as a fragment.
        let db = self.rocket.state::<Db>();
        let db = db.ok_or_else(|| missing("database"))?;
        let now = self.now.wall;
        let counts = db.read(move |reader| overview::counts(reader, now)).await?;
        all.insert("counts".to_owned(), json!(counts));
        all.extend(html::members(values));
        let text = self.render(name, &all)?;
        Ok(Html::Page { status, text })
    }

    /// A part of a page, for a script that may know it already.
    ///
    /// # Errors
    /// As [`PanelRequest::page`].
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
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing("texts"))?;
        let status = status_of(&error);
        let (field, text) = fault(catalog, self.language, room, error)?;
        let mut values = html::members(values);
        values.insert("form".to_owned(), form::with_error(fields, &field, &text));
        self.page_with(status, name, Value::Object(values)).await
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
            "ends_s": self.ends_s,
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

/// What is wrong with a form, as a person can mend it: the field, if it is one, and the words.
///
/// # Errors
/// `error` itself, where nobody can mend it.
fn fault(
    catalog: &Catalog,
    language: Language,
    room: &str,
    error: Error,
) -> Result<(String, String)> {
    match error {
        Error::Invalid {
            field,
            problem,
            fault,
        } => {
            let word = field.replace('-', "_");
            let key = format!("{room}.bad_{word}");
            let known = catalog.phrase(language, &key, &Map::new());
            let known = known.or_else(|| catalog.fault(language, field, fault));
            Ok((word, known.unwrap_or(problem)))
        }
        Error::Refused(refused) => {
            let field = refused.members.get("field").and_then(Value::as_str);
            let (_, text) = catalog.refusal(language, &refused);
            Ok((field.unwrap_or_default().to_owned(), text))
        }
        other => Err(other),
    }
}

/// Somebody who is not logged in, and what a page for him needs.
struct Visitor<'r> {
    now: Now,
    language: Language,
    theme: &'static str,
    rocket: &'r Rocket<Orbit>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Visitor<'r> {
    type Error = std::convert::Infallible;

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, Self::Error> {
        let (Moment(now), Lang(language)) = (Moment::of(request), Lang::of(request));
        Outcome::Success(Self {
            now,
            language,
            theme: html::theme(request),
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

    /// As [`PanelRequest::again`].
    fn again(&self, name: &str, fields: &Fields, error: Error, values: Value) -> HtmlReply {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing("texts"))?;
        let status = status_of(&error);
        let (field, text) = fault(catalog, self.language, "admins", error)?;
        let mut values = html::members(values);
        values.insert("form".to_owned(), form::with_error(fields, &field, &text));
        self.page(status, name, Value::Object(values))
    }
}

/// The status of a form that comes back.
fn status_of(error: &Error) -> Status {
    match error {
        Error::Refused(refused) if refused.code == RATE_LIMITED => Status::TooManyRequests,
        _ => Status::UnprocessableEntity,
    }
}

/// What it takes to check who somebody is.
struct Authenticator {
    db: Db,
    hasher: Hasher,
    throttle: Throttle,
    now: Now,
    /// What the machine's clock says: telephones go by the same.
    machine: crate::clock::UnixMs,
    address: ClientAddress,
    origin: Origin,
    /// By what the browser proves a login that it still has.
    stale: Option<Token>,
    /// What the browser is known by, or says it is.
    browser: Option<Token>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Authenticator {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match Self::of(request).await {
            Ok(gate) => Outcome::Success(gate),
            Err(error) => {
                reply::stash(request, error);
                Outcome::Error((Status::ServiceUnavailable, ()))
            }
        }
    }
}

impl Authenticator {
    async fn of(request: &Request<'_>) -> Result<Self> {
        let db = part::<Db>(request, "database")?.clone();
        let current = part::<Arc<ProgramSettingsCache>>(request, "client configuration")?;
        let limiter = part::<Arc<Limiter>>(request, "rate limiter")?.clone();
        let tally = part::<Arc<RefusalCounter>>(request, "tally")?.clone();
        let rule = current.get(&db).await?.login_limit;
        let address = ClientAddress::of(request);
        let browser = request.headers().get_one("user-agent").unwrap_or_default();
        let cookie = |name| {
            let cookie = request.cookies().get(name);
            cookie.map(|cookie| Secret::new(cookie.value().to_owned()))
        };
        let Moment(now) = Moment::of(request);
        Ok(Self {
            hasher: part::<Hasher>(request, "hasher")?.clone(),
            throttle: Throttle::new(limiter, rule, tally),
            now,
            machine: part::<TrustedClock>(request, "calendar")?.machine(),
            address,
            origin: Origin {
                address: address.to_string(),
                browser: browser.chars().take(BROWSER_MAX).collect(),
            },
            stale: cookie(cookies::LOGIN),
            browser: cookie(cookies::BROWSER),
            db,
        })
    }

    /// What a login begins with: tokens that nobody has seen before.
    async fn arrival(&self) -> Result<NewLogin> {
        let browser = self.browser.clone();
        let browser = self
            .db
            .read(move |reader| logins::browser_token(reader, browser))
            .await?;
        Ok(NewLogin {
            origin: self.origin.clone(),
            stale: self.stale.clone(),
            browser,
            token: logins::new_token()?,
        })
    }

    /// What is kept of the browser, if the person of this name logged in from it before.
    async fn known(&self, name: &str) -> Result<Option<[u8; 32]>> {
        let Some(token) = self.browser.clone() else {
            return Ok(None);
        };
        let name = name.to_owned();
        self.db
            .read(move |reader| logins::known_browser(reader, token.reveal(), &name))
            .await
    }

    /// The name that was typed into `form`: without what copying leaves at its ends, unless an account of earlier days
    /// has that in its name.
    async fn name(&self, form: &Fields) -> Result<String> {
        let (raw, text) = (form.raw("name").to_owned(), form.text("name"));
        if raw == text {
            return Ok(raw);
        }
        let asked = raw.clone();
        let look = move |reader: &Reader<'_>| super::password_hash(reader, &asked);
        let is_account = self.db.read(look).await?.is_some();
        Ok(if is_account { raw } else { text.to_owned() })
    }

    /// Checks the password of somebody who is not logged in. Who has no account waits as long for the same
    /// answer. Gives the new hash, where the old one was made with less effort than is asked for today.
    async fn password(&self, name: &str, password: Secret<String>) -> Result<Checked> {
        let known = self.known(name).await?;
        let tick = self.now.tick;
        let taken = self
            .throttle
            .take(name, self.address.into(), known.as_ref(), tick);
        let guess = match taken {
            Ok(guess) => guess,
            Err(refused) => {
                self.refuse_login(name, known.is_some()).await?;
                return Err(refused.into());
            }
        };
        let asked = name.to_owned();
        let hash = self
            .db
            .read(move |reader| super::password_hash(reader, &asked))
            .await?;
        let whose = hash.as_ref().map_or(Whose::Nobody, |_| Whose::Known(name));
        let against = hash.clone();
        let verdict = match known {
            Some(_) => self.hasher.verify(password, hash).await,
            None => self.hasher.verify_stranger(password, hash).await,
        };
        if verdict.as_ref().is_err_and(|error| error.is(RATE_LIMITED)) {
            // No line that names an address: whoever waits here may be an administrator in a crowd.
            self.throttle.count(self.now);
            self.throttle.report_crowd(tick);
        }
        if let Ok(Verdict::Wrong) = verdict {
            self.throttle.failed(&guess, tick);
            self.report(Fault::Password, whose);
            return Err(Refusal::WrongPassword.into());
        }
        // Right, or not looked at.
        self.throttle.give_back(&guess, tick);
        let rehashed = match verdict? {
            Verdict::Rehashed(hash) => Some(hash),
            Verdict::Right | Verdict::Wrong => None,
        };
        Ok(Checked { against, rehashed })
    }

    /// Checks the password of somebody who is logged in.
    async fn own_password(
        &self,
        panel_request: &PanelRequest<'_>,
        password: &str,
    ) -> Result<Checked> {
        self.proof(panel_request).await?;
        let name = panel_request.admin.name.clone();
        let hash = self
            .db
            .read(move |reader| super::password_hash(reader, &name))
            .await?;
        let (password, against) = (Secret::new(password.to_owned()), hash.clone());
        if self.hasher.verify(password, hash).await? == Verdict::Wrong {
            self.report(Fault::Password, Whose::Known(&panel_request.admin.name));
            return Err(Error::invalid("old", "is wrong"));
        }
        Ok(Checked {
            against,
            rehashed: None,
        })
    }

    /// Takes a try at whatever a login is asked for.
    async fn proof(&self, panel_request: &PanelRequest<'_>) -> Result<()> {
        let taken = self.throttle.proof(panel_request.session.id, self.now.tick);
        self.seen(taken, &panel_request.admin.name).await
    }

    /// Hands on whether there was a try left for the account `name`; makes it seen where there was none.
    async fn seen(&self, taken: Result<(), Refused>, name: &str) -> Result<()> {
        if taken.is_err() {
            let lockout = self.throttle.lockout(Locked::Account(name), self.now.tick);
            self.report_refused(lockout, Whose::Known(name)).await;
        }
        taken.map_err(Error::from)
    }

    /// Makes a login seen that was refused before anybody looked at the password.
    async fn refuse_login(&self, name: &str, browser_is_known: bool) -> Result<()> {
        let locked = if browser_is_known {
            Locked::Account(name)
        } else {
            Locked::Source(self.address)
        };
        let lockout = self.throttle.lockout(locked, self.now.tick);
        let whose = if browser_is_known {
            Whose::Known(name)
        } else if lockout == Lockout::Told {
            Whose::Unsaid
        } else {
            let asked = name.to_owned();
            let look = move |reader: &Reader<'_>| super::password_hash(reader, &asked);
            let is_account = self.db.read(look).await?.is_some();
            if is_account {
                Whose::Known(name)
            } else {
                Whose::Nobody
            }
        };
        self.report_refused(lockout, whose).await;
        Ok(())
    }

    /// Makes a try seen that was refused; in the audit log too, where a lockout begins.
    async fn report_refused(&self, lockout: Lockout, whose: Whose<'_>) {
        let Lockout::Begins { audited } = lockout else {
            self.report(Fault::TooManyTries, whose);
            return;
        };
        self.throttle.report_lockout(whose, self.address, self.now);
        if !audited {
            return;
        }
        let account = match whose {
            Whose::Known(name) => Some(name.to_owned()),
            Whose::Nobody | Whose::Unsaid => None,
        };
        let (address, now) = (self.address, self.now.wall);
        let noted = self.db.write("admins.lockout", move |tx| {
            logins::note_lockout(tx, account.as_deref(), address, now)
        });
        // The answer is the same, and the log has it.
        if let Err(error) = noted.await {
            log::warn!("a lockout is not in the audit log: {error}");
        }
    }

    /// Makes it seen that somebody failed to prove who they are.
    fn report(&self, fault: Fault, whose: Whose<'_>) {
        self.throttle.report(fault, whose, self.address, self.now);
    }

    /// The same for a second factor that was looked at: `error` says whether it was wrong.
    fn report_code(&self, panel_request: &PanelRequest<'_>, error: &Error) {
        if error.is(Refusal::WrongCode.code()) {
            self.report(Fault::Code, Whose::Known(&panel_request.admin.name));
        }
    }

    /// A second factor as it was typed, as long as the person may try.
    async fn factor(&self, panel_request: &PanelRequest<'_>, typed: &str) -> Result<SecondFactor> {
        self.proof(panel_request).await?;
        let typed = Typed::read(typed);
        if matches!(typed, Typed::Code(_)) {
            let known = self.known(&panel_request.admin.name).await?;
            let (id, tick) = (panel_request.admin.id, self.now.tick);
            let taken = self.throttle.code(id, known.as_ref(), tick);
            self.seen(taken, &panel_request.admin.name).await?;
        }
        Ok(SecondFactor {
            typed,
            at: self.machine,
        })
    }
}

/// Gives the browser what it is to prove its login with.
fn set_cookies(cookies: &CookieJar<'_>, arrival: &NewLogin) {
    cookies.add(session_cookie(arrival.token.reveal().clone()));
    let days = i64::try_from(logins::BROWSER_DAYS).unwrap_or(i64::MAX);
    let known = Cookie::build((cookies::BROWSER, arrival.browser.reveal().clone()))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
        .max_age(rocket::time::Duration::days(days));
    cookies.add(known);
}

fn session_cookie(token: String) -> Cookie<'static> {
    Cookie::build((cookies::LOGIN, token))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Strict)
        .build()
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    [
        login::routes(),
        setup::routes(),
        profile::routes(),
        people::routes(),
    ]
    .concat()
}
