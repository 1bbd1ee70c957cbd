//! Panel pages about administrators and logins, and the request guards that every other module's `panel.rs` uses. A
//! guard stands for a role: the arguments of a route say who may call it.

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
use super::logins::{self, CheckedPassword, NewLogin};
use super::rules::{self, Refusal, Required, SessionLifetime};
use super::throttle::{AccountName, LockedOut, Lockout, LoginFault, Throttle};
use super::{Admin as Account, Origin, Role, Session, Token};
use crate::audit::Actor;
use crate::clock::{Now, TrustedClock};
use crate::config::Language;
use crate::db::{Db, Reader};
use crate::error::{Error, Refused, Result};
use crate::i18n::Catalog;
use crate::metrics::RefusalCounter;
use crate::overview;
use crate::products::ProgramSettingsCache;
use crate::security::client_address::ClientAddress;
use crate::security::password::{Hasher, PasswordCheck};
use crate::security::rate_limit::{Limiter, RATE_LIMITED};
use crate::security::secret::{self, Secret};
use crate::security::totp::TypedCode;
use crate::web::cookies;
use crate::web::form::{self, Fields};
use crate::web::guards::{self, Lang, Moment};
use crate::web::html::{self, Html, HtmlReply};
use crate::web::page::Pages;
use crate::web::reply;

/// The root of the panel's paths.
pub const HOME: &str = "/lizenzserver";
/// Longest user agent that is stored, in characters.
const BROWSER_MAX: usize = 200;
/// The last use of a login is written again when the stored one is older than this, in seconds.
const SEEN_AFTER_S: u32 = 60;

/// `[panel] require_totp`: whether the panel requires a second factor.
#[derive(Clone, Copy, Debug)]
pub struct TotpRequired(pub bool);

/// A request of an administrator who is logged in, and what is needed to respond to it.
pub struct PanelRequest<'r> {
    /// The administrator.
    pub admin: Account,
    /// The login.
    pub session: Session,
    /// When the request arrived.
    pub now: Now,
    /// The language of the response.
    pub language: Language,
    /// The client's address.
    pub address: String,
    /// In how many seconds the login expires if it is not used again.
    ends_s: u64,
    /// The CSRF token that forms must carry.
    csrf_token: String,
    fragment: bool,
    path: String,
    done: Option<String>,
    theme: &'static str,
    rocket: &'r Rocket<Orbit>,
}

/// Any administrator with a complete login, even if a required second factor is not set up yet: for the pages on which
/// it is set up.
pub struct LoggedIn<'r>(PanelRequest<'r>);

/// An administrator whose password was accepted and whose second factor is missing.
struct AwaitingSecondFactor<'r>(PanelRequest<'r>);

/// An administrator of any role.
pub struct Support<'r>(PanelRequest<'r>);

/// An administrator with the role `admin` or `owner`.
pub struct Admin<'r>(PanelRequest<'r>);

/// An owner.
pub struct Owner<'r>(PanelRequest<'r>);

macro_rules! guard {
    ($name:ident, $required:expr) => {
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
                match panel_request(request, $required).await {
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

guard!(AwaitingSecondFactor, Required::AwaitingSecondFactor);
guard!(LoggedIn, Required::AnyAdmin);
guard!(Support, Required::Role(Role::Support));
guard!(Admin, Required::Role(Role::Admin));
guard!(Owner, Required::Role(Role::Owner));

fn missing_state(what: &'static str) -> Error {
    Error::Internal {
        doing: "find a part of the server's state",
        source: From::from(what),
    }
}

fn state<'r, T: Send + Sync + 'static>(
    request: &'r Request<'_>,
    what: &'static str,
) -> Result<&'r T> {
    request
        .rocket()
        .state::<T>()
        .ok_or_else(|| missing_state(what))
}

/// The administrator's request, if its login is valid and meets `required`.
async fn panel_request<'r>(
    request: &'r Request<'_>,
    required: Required,
) -> Result<PanelRequest<'r>> {
    let rocket = request.rocket();
    let db = state::<Db>(request, "database")?;
    let lifetime = *state::<SessionLifetime>(request, "settings")?;
    let TotpRequired(totp_required) = *state(request, "settings")?;
    let Moment(now) = Moment::of(request);
    let cookie = request.cookies().get(cookies::LOGIN);
    let token = cookie.map(|cookie| cookie.value().to_owned());
    let token = token.ok_or(Refusal::NotLoggedIn)?;
    let csrf_token = csrf_token_of(&token);
    let found = db
        .read(move |reader| logins::find(reader, &token, lifetime, now.wall))
        .await?;
    let (admin, session) = found.ok_or(Refusal::NotLoggedIn)?;
    if let Some(language) = admin.language {
        guards::set_language(request, language);
    }
    rules::check_access(session.stage, &admin, required, totp_required)?;
    // Fragments are requested by scripts, without any action of the administrator: they do not keep the login alive.
    let fragment = html::is_fragment(request);
    if !fragment && session.seen_at.plus_s(SEEN_AFTER_S) <= now.wall {
        let id = session.id;
        let seen = db.write("admins.seen", move |tx| logins::mark_seen(tx, id, now.wall));
        // No error for the caller: on a full disk the panel must still show what is wrong.
        if let Err(error) = seen.await {
            log::debug!("could not store the last use of a login: {error}");
        }
    }
    form::expect_csrf_token(request, &csrf_token);
    let Lang(language) = Lang::of(request);
    Ok(PanelRequest {
        ends_s: rules::ends_in_s(&session, lifetime, now.wall),
        admin,
        session,
        now,
        language,
        address: ClientAddress::of(request).to_string(),
        csrf_token,
        fragment,
        path: request.uri().path().to_string(),
        done: request
            .query_value::<&str>("done")
            .and_then(|done| done.ok().map(str::to_owned)),
        theme: html::theme(request),
        rocket,
    })
}

/// The CSRF token of a login. It is derived from the login's secret token, so other sites cannot know it.
fn csrf_token_of(token: &str) -> String {
    secret::hex(&secret::sha256(format!("proof\n{token}").as_bytes()))
}

impl PanelRequest<'_> {
    /// The administrator as the actor of an audit entry.
    pub fn actor(&self) -> Actor {
        Actor::Administrator {
            id: self.admin.id,
            name: self.admin.name.clone(),
            source: self.address.clone(),
        }
    }

    /// Requires that a password or second factor was accepted within the last five minutes, for irreversible actions.
    /// The refusal redirects to the page that asks for it, and from there back to this one.
    ///
    /// # Errors
    /// [`Refusal::ReauthenticationRequired`].
    pub fn require_reauthentication(&self) -> Result<(), Refusal> {
        if rules::recently_authenticated(self.session.proved_at, self.now.wall) {
            Ok(())
        } else {
            Err(Refusal::ReauthenticationRequired)
        }
    }

    /// Whether the administrator may do everything that `role` may do.
    pub fn may(&self, role: Role) -> bool {
        self.admin.role.includes(role)
    }

    /// The text `key` in the language of the response.
    ///
    /// # Errors
    /// If the text is missing.
    pub fn text(&self, key: &str, members: &Map<String, Value>) -> Result<String> {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing_state("texts"))?;
        let text = catalog.phrase(self.language, key, members);
        text.ok_or_else(|| Error::not_found("text", key))
    }

    /// Renders the template `name` with the members of `values`, a JSON object.
    ///
    /// # Errors
    /// If the template needs a value that it did not get.
    pub async fn page(&self, name: &str, values: Value) -> HtmlReply {
        self.page_with(Status::Ok, name, values).await
    }

    /// The same with another status.
    ///
    /// # Errors
    /// As [`PanelRequest::page`].
    pub async fn page_with(&self, status: Status, name: &str, values: Value) -> HtmlReply {
        let mut all = self.common();
        // Not only for the frame: pages may show the counts, too, and any page may be requested as a fragment.
        let db = self.rocket.state::<Db>();
        let db = db.ok_or_else(|| missing_state("database"))?;
        let now = self.now.wall;
        let counts = db.read(move |reader| overview::counts(reader, now)).await?;
        all.insert("counts".to_owned(), json!(counts));
        all.extend(html::object_members(values));
        let text = self.render(name, &all)?;
        Ok(Html::Page { status, text })
    }

    /// Renders a part of a page for a script, which gets 304 if it has the same text already (`ETag`).
    ///
    /// # Errors
    /// As [`PanelRequest::page`].
    pub fn part(&self, name: &str, values: Value) -> HtmlReply {
        let mut all = self.common();
        all.extend(html::object_members(values));
        Ok(Html::Fragment(self.render(name, &all)?))
    }

    /// Renders the page `name` again with the input of its form and an error message: the text `[section] bad_<field>`
    /// for an invalid field, the text of the code for a refusal.
    ///
    /// # Errors
    /// `error` itself, if it is none that the administrator can correct in this form.
    pub async fn render_with_errors(
        &self,
        name: &str,
        section: &str,
        fields: &Fields,
        error: Error,
        values: Value,
    ) -> HtmlReply {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing_state("texts"))?;
        let status = status_of(&error);
        let (field, text) = form_error(catalog, self.language, section, error)?;
        let mut values = html::object_members(values);
        values.insert("form".to_owned(), form::with_error(fields, &field, &text));
        self.page_with(status, name, Value::Object(values)).await
    }

    /// The values that every template may use.
    fn common(&self) -> Map<String, Value> {
        let section = self.path.strip_prefix(HOME).unwrap_or_default();
        let section = section.trim_start_matches('/').split('/').next();
        html::object_members(json!({
            "lang": self.language.tag(),
            "theme": self.theme,
            "fragment": self.fragment,
            "path": self.path,
            "section": section,
            "done": self.done,
            "proof": self.csrf_token,
            "ends_s": self.ends_s,
            "who": self.admin,
            "may_change": self.may(Role::Admin),
            "is_owner": self.may(Role::Owner),
            "now": self.now.wall,
        }))
    }

    fn render(&self, name: &str, values: &Map<String, Value>) -> Result<String> {
        let pages = self.rocket.state::<Pages>();
        let pages = pages.ok_or_else(|| missing_state("pages"))?;
        pages.render_in(self.language, name, values)
    }
}

/// The message for an error that the user of a form can correct, and the field that it is about; empty for none.
///
/// # Errors
/// `error` itself, if it cannot be corrected in a form.
fn form_error(
    catalog: &Catalog,
    language: Language,
    section: &str,
    error: Error,
) -> Result<(String, String)> {
    match error {
        Error::Invalid {
            field,
            problem,
            fault,
        } => {
            let word = field.replace('-', "_");
            let key = format!("{section}.bad_{word}");
            let text = catalog.phrase(language, &key, &Map::new());
            let text = text.or_else(|| catalog.fault(language, field, fault));
            Ok((word, text.unwrap_or(problem)))
        }
        Error::Refused(refused) => {
            let field = refused.members.get("field").and_then(Value::as_str);
            let (_, text) = catalog.refusal(language, &refused);
            Ok((field.unwrap_or_default().to_owned(), text))
        }
        other => Err(other),
    }
}

/// A request without a login, and what is needed to render a page for it.
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
        let pages = pages.ok_or_else(|| missing_state("pages"))?;
        let mut all = html::object_members(json!({
            "lang": self.language.tag(),
            "theme": self.theme,
            "fragment": false,
        }));
        all.extend(html::object_members(values));
        let text = pages.render_in(self.language, name, &all)?;
        Ok(Html::Page { status, text })
    }

    /// As [`PanelRequest::render_with_errors`].
    fn render_with_errors(
        &self,
        name: &str,
        fields: &Fields,
        error: Error,
        values: Value,
    ) -> HtmlReply {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing_state("texts"))?;
        let status = status_of(&error);
        let (field, text) = form_error(catalog, self.language, "admins", error)?;
        let mut values = html::object_members(values);
        values.insert("form".to_owned(), form::with_error(fields, &field, &text));
        self.page(status, name, Value::Object(values))
    }
}

/// The status of a form that is rendered again with an error.
fn status_of(error: &Error) -> Status {
    match error {
        Error::Refused(refused) if refused.code == RATE_LIMITED => Status::TooManyRequests,
        _ => Status::UnprocessableEntity,
    }
}

/// Checks passwords and second factors, limits the attempts, and reports those that fail.
struct Authenticator {
    db: Db,
    hasher: Hasher,
    throttle: Throttle,
    now: Now,
    /// The system clock, not the trusted one: authenticator apps use system time, too.
    system_now: crate::clock::UnixMs,
    address: ClientAddress,
    origin: Origin,
    /// The token of a login that the browser still has.
    old_login: Option<Token>,
    /// The token by which the browser claims to be known.
    browser: Option<Token>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Authenticator {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match Self::of(request).await {
            Ok(authenticator) => Outcome::Success(authenticator),
            Err(error) => {
                reply::stash(request, error);
                Outcome::Error((Status::ServiceUnavailable, ()))
            }
        }
    }
}

impl Authenticator {
    async fn of(request: &Request<'_>) -> Result<Self> {
        let db = state::<Db>(request, "database")?.clone();
        let settings = state::<Arc<ProgramSettingsCache>>(request, "client configuration")?;
        let limiter = state::<Arc<Limiter>>(request, "rate limiter")?.clone();
        let refusals = state::<Arc<RefusalCounter>>(request, "tally")?.clone();
        let rule = settings.get(&db).await?.limits.login;
        let address = ClientAddress::of(request);
        let browser = request.headers().get_one("user-agent").unwrap_or_default();
        let cookie = |name| {
            let cookie = request.cookies().get(name);
            cookie.map(|cookie| Secret::new(cookie.value().to_owned()))
        };
        let Moment(now) = Moment::of(request);
        Ok(Self {
            hasher: state::<Hasher>(request, "hasher")?.clone(),
            throttle: Throttle::new(limiter, rule, refusals),
            now,
            system_now: state::<TrustedClock>(request, "calendar")?.system_date(),
            address,
            origin: Origin {
                address: address.to_string(),
                browser: browser.chars().take(BROWSER_MAX).collect(),
            },
            old_login: cookie(cookies::LOGIN),
            browser: cookie(cookies::BROWSER),
            db,
        })
    }

    /// What a login from this browser is created from, with a fresh token.
    async fn new_login(&self) -> Result<NewLogin> {
        let browser = self.browser.clone();
        let browser = self
            .db
            .read(move |reader| logins::browser_token(reader, browser))
            .await?;
        Ok(NewLogin {
            origin: self.origin.clone(),
            replaces: self.old_login.clone(),
            browser,
            token: logins::new_token()?,
        })
    }

    /// The digest of the browser's token, if the administrator `name` has logged in from this browser before.
    async fn known_browser(&self, name: &str) -> Result<Option<[u8; 32]>> {
        let Some(token) = self.browser.clone() else {
            return Ok(None);
        };
        let name = name.to_owned();
        self.db
            .read(move |reader| logins::known_browser(reader, token.reveal(), &name))
            .await
    }

    /// The name that was typed into `form`, without the blanks that copying leaves at its ends, unless an old account
    /// has them in its name.
    async fn name(&self, form: &Fields) -> Result<String> {
        let (raw, text) = (form.raw("name").to_owned(), form.text("name"));
        if raw == text {
            return Ok(raw);
        }
        let asked_name = raw.clone();
        let lookup = move |reader: &Reader<'_>| super::password_hash(reader, &asked_name);
        let is_account = self.db.read(lookup).await?.is_some();
        Ok(if is_account { raw } else { text.to_owned() })
    }

    /// Checks the password at a login. An unknown name gets the same response after the same time.
    async fn password(&self, name: &str, password: Secret<String>) -> Result<CheckedPassword> {
        let known_browser = self.known_browser(name).await?;
        let tick = self.now.tick;
        let taken = self
            .throttle
            .acquire(name, self.address.into(), known_browser.as_ref(), tick);
        let attempt = match taken {
            Ok(attempt) => attempt,
            Err(refused) => {
                self.report_refused_login(name, known_browser.is_some())
                    .await?;
                return Err(refused.into());
            }
        };
        let asked_name = name.to_owned();
        let hash = self
            .db
            .read(move |reader| super::password_hash(reader, &asked_name))
            .await?;
        let account = hash
            .as_ref()
            .map_or(AccountName::Unknown, |_| AccountName::Known(name));
        let stored_hash = hash.clone();
        let verdict = match known_browser {
            Some(_) => self.hasher.verify(password, hash).await,
            None => {
                self.hasher
                    .verify_from_unknown_browser(password, hash)
                    .await
            }
        };
        if verdict.as_ref().is_err_and(|error| error.is(RATE_LIMITED)) {
            // Not logged with the address, which may be that of an administrator who waits among many guessers.
            self.throttle.count(self.now);
            self.throttle.report_overload(tick);
        }
        if let Ok(PasswordCheck::Wrong) = verdict {
            self.throttle.failed(&attempt, tick);
            self.report(LoginFault::Password, account);
            return Err(Refusal::WrongPassword.into());
        }
        // The password was right, or it was not checked.
        self.throttle.release(&attempt, tick);
        let rehashed = match verdict? {
            PasswordCheck::Rehashed(hash) => Some(hash),
            PasswordCheck::Right | PasswordCheck::Wrong => None,
        };
        Ok(CheckedPassword {
            hash: stored_hash,
            rehashed,
        })
    }

    /// Checks the password of an administrator who is logged in.
    async fn own_password(
        &self,
        panel_request: &PanelRequest<'_>,
        password: &str,
    ) -> Result<CheckedPassword> {
        self.attempt_in_login(panel_request).await?;
        let name = panel_request.admin.name.clone();
        let hash = self
            .db
            .read(move |reader| super::password_hash(reader, &name))
            .await?;
        let (password, stored_hash) = (Secret::new(password.to_owned()), hash.clone());
        if self.hasher.verify(password, hash).await? == PasswordCheck::Wrong {
            self.report(
                LoginFault::Password,
                AccountName::Known(&panel_request.admin.name),
            );
            return Err(Error::invalid("old", "is wrong"));
        }
        Ok(CheckedPassword {
            hash: stored_hash,
            rehashed: None,
        })
    }

    /// Takes one of the attempts at a password or code within a login.
    async fn attempt_in_login(&self, panel_request: &PanelRequest<'_>) -> Result<()> {
        let taken = self
            .throttle
            .in_login(panel_request.session.id, self.now.tick);
        self.report_if_limited(taken, &panel_request.admin.name)
            .await
    }

    /// Returns `taken`, and reports a lockout of the account `name` if it is an error.
    async fn report_if_limited(&self, taken: Result<(), Refused>, name: &str) -> Result<()> {
        if taken.is_err() {
            let lockout = self
                .throttle
                .lockout(LockedOut::Account(name), self.now.tick);
            self.report_refused(lockout, AccountName::Known(name)).await;
        }
        taken.map_err(Error::from)
    }

    /// Reports a login that was rejected before its password was checked.
    async fn report_refused_login(&self, name: &str, browser_is_known: bool) -> Result<()> {
        let locked_out = if browser_is_known {
            LockedOut::Account(name)
        } else {
            LockedOut::Source(self.address)
        };
        let lockout = self.throttle.lockout(locked_out, self.now.tick);
        let account = if browser_is_known {
            AccountName::Known(name)
        } else if lockout == Lockout::Reported {
            AccountName::NotLookedUp
        } else {
            let asked_name = name.to_owned();
            let lookup = move |reader: &Reader<'_>| super::password_hash(reader, &asked_name);
            let is_account = self.db.read(lookup).await?.is_some();
            if is_account {
                AccountName::Known(name)
            } else {
                AccountName::Unknown
            }
        };
        self.report_refused(lockout, account).await;
        Ok(())
    }

    /// Reports a rejected attempt; in the audit log, too, if a lockout begins.
    async fn report_refused(&self, lockout: Lockout, account: AccountName<'_>) {
        let Lockout::Begins { audited } = lockout else {
            self.report(LoginFault::TooManyAttempts, account);
            return;
        };
        self.throttle
            .report_lockout(account, self.address, self.now);
        if !audited {
            return;
        }
        let account = match account {
            AccountName::Known(name) => Some(name.to_owned()),
            AccountName::Unknown | AccountName::NotLookedUp => None,
        };
        let (address, now) = (self.address, self.now.wall);
        let noted = self.db.write("admins.lockout", move |tx| {
            logins::note_lockout(tx, account.as_deref(), address, now)
        });
        // No error for the caller: the response stays the same, and the lockout is in the log.
        if let Err(error) = noted.await {
            log::warn!("could not write a lockout to the audit log: {error}");
        }
    }

    /// Reports a wrong password or code, or one that was rejected without a check.
    fn report(&self, fault: LoginFault, account: AccountName<'_>) {
        self.throttle.report(fault, account, self.address, self.now);
    }

    /// Reports a wrong code if that is what `error` says.
    fn report_code(&self, panel_request: &PanelRequest<'_>, error: &Error) {
        if error.is(Refusal::WrongCode.code()) {
            self.report(
                LoginFault::Code,
                AccountName::Known(&panel_request.admin.name),
            );
        }
    }

    /// Parses a second factor, if the account has attempts left.
    async fn second_factor(
        &self,
        panel_request: &PanelRequest<'_>,
        typed: &str,
    ) -> Result<SecondFactor> {
        self.attempt_in_login(panel_request).await?;
        let typed = TypedCode::parse(typed);
        if matches!(typed, TypedCode::Code(_)) {
            let known_browser = self.known_browser(&panel_request.admin.name).await?;
            let (id, tick) = (panel_request.admin.id, self.now.tick);
            let taken = self.throttle.code(id, known_browser.as_ref(), tick);
            self.report_if_limited(taken, &panel_request.admin.name)
                .await?;
        }
        Ok(SecondFactor {
            typed,
            at: self.system_now,
        })
    }
}

/// Sets the cookies of a login: its token, and the one by which the browser is recognized later.
fn set_cookies(cookies: &CookieJar<'_>, new_login: &NewLogin) {
    cookies.add(session_cookie(new_login.token.reveal().clone()));
    let days = i64::try_from(logins::BROWSER_DAYS).unwrap_or(i64::MAX);
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

/// The routes of the panel about administrators.
pub fn routes() -> Vec<Route> {
    [
        login::routes(),
        setup::routes(),
        profile::routes(),
        people::routes(),
    ]
    .concat()
}
