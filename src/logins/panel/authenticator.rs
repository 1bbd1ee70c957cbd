//! What checks passwords and second factors for the pages about logins.

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};

use crate::app::App;
use crate::audit::{Act, Actor};
use crate::clock::{Now, UnixMs};
use crate::db::Reader;
use crate::error::{Error, Refused, Result};
use crate::logins::factors::SecondFactor;
use crate::logins::throttle::{AccountName, Attempt, LockedOut, Lockout, LoginFault, Throttle};
use crate::logins::{self, Account, CheckedPassword, NewLogin, Origin, Refusal, Token};
use crate::panel::PanelRequest;
use crate::security::client_address::ClientAddress;
use crate::security::password::PasswordCheck;
use crate::security::rate_limit::RATE_LIMITED;
use crate::security::secret::Secret;
use crate::security::totp::TypedCode;
use crate::web::cookies;
use crate::web::form::Fields;
use crate::web::guards::RequestTime;
use crate::web::stash::stash;

/// Longest user agent that is stored, in characters.
const BROWSER_MAX: usize = 200;

/// Checks passwords and second factors, limits the attempts, and reports those that fail.
pub struct Authenticator<'r> {
    /// The parts of the server.
    pub app: &'r App,
    throttle: Throttle,
    /// When the request arrived.
    pub now: Now,
    /// The system clock, not the trusted one: authenticator apps use system time, too.
    pub(super) system_now: UnixMs,
    address: ClientAddress,
    origin: Origin,
    /// The token of a login that the browser still has.
    old_login: Option<Token>,
    /// The token by which the browser claims to be known.
    browser: Option<Token>,
}

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Authenticator<'r> {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        match Self::of(request).await {
            Ok(authenticator) => Outcome::Success(authenticator),
            Err(error) => {
                stash(request, error);
                Outcome::Error((Status::ServiceUnavailable, ()))
            }
        }
    }
}

impl<'r> Authenticator<'r> {
    async fn of(request: &'r Request<'_>) -> Result<Self> {
        let app = App::of(request)?;
        let rule = app.program_settings.shared(&app.db).await?.limits.login;
        let address = ClientAddress::of(request);
        let browser = request.headers().get_one("user-agent").unwrap_or_default();
        let cookie = |name| {
            let cookie = request.cookies().get(name);
            cookie.map(|cookie| Secret::new(cookie.value().to_owned()))
        };
        let RequestTime(now) = RequestTime::of(request);
        Ok(Self {
            app,
            throttle: Throttle::new(app.limiter.clone(), rule, app.refusals.clone()),
            now,
            system_now: app.clock.system_date(),
            address,
            origin: Origin {
                address: address.to_string(),
                browser: browser.chars().take(BROWSER_MAX).collect(),
            },
            old_login: cookie(cookies::LOGIN),
            browser: cookie(cookies::BROWSER),
        })
    }

    /// What a login from this browser is created from, with a fresh token.
    pub async fn new_login(&self) -> Result<NewLogin> {
        let browser = self.browser.clone();
        let browser = self
            .app
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
        self.app
            .db
            .read(move |reader| logins::known_browser(reader, token.reveal(), &name))
            .await
    }

    /// The name that was typed into `form`, without the blanks that copying leaves at its ends, unless an old account
    /// has them in its name.
    pub(super) async fn name(&self, form: &Fields) -> Result<String> {
        let (raw, text) = (form.raw("name").to_owned(), form.text("name"));
        if raw == text {
            return Ok(raw);
        }
        let asked_name = raw.clone();
        let lookup = move |reader: &Reader<'_>| logins::account_named(reader, &asked_name);
        let is_account = self.app.db.read(lookup).await?.is_some();
        Ok(if is_account { raw } else { text.to_owned() })
    }

    /// Checks the password at a login. An unknown name gets the same response after the same time.
    pub(super) async fn password(
        &self,
        name: &str,
        password: Secret<String>,
    ) -> Result<CheckedPassword> {
        let known_browser = self.known_browser(name).await?;
        let tick = self.now.tick;
        let attempt = self.admit(name, known_browser.as_ref()).await?;
        let account = self.account(name).await?;
        let hash = account.as_ref().map(|found| found.password_hash.clone());
        let reported = account
            .as_ref()
            .map_or(AccountName::Unknown(name), |_| AccountName::Known(name));
        let hasher = &self.app.hasher;
        let verdict = match known_browser {
            Some(_) => hasher.verify(password, hash).await,
            None => hasher.verify_from_unknown_browser(password, hash).await,
        };
        if verdict.as_ref().is_err_and(|error| error.is(RATE_LIMITED)) {
            // Not logged with the address, which may be that of an administrator who waits among many guessers.
            self.throttle.count(self.now);
            self.throttle.report_overload(tick);
        }
        if let Ok(PasswordCheck::Wrong) = verdict {
            self.throttle.failed(&attempt, tick);
            self.report(LoginFault::Password, reported);
            return Err(Refusal::WrongPassword.into());
        }
        // The password was right, or it was not checked.
        self.throttle.release(&attempt, tick);
        let rehashed = match verdict? {
            PasswordCheck::Rehashed(hash) => Some(hash),
            PasswordCheck::Right | PasswordCheck::Wrong => None,
        };
        // An unknown name has no right password.
        let account = account.ok_or(Refusal::WrongPassword)?;
        Ok(CheckedPassword { account, rehashed })
    }

    /// Takes an attempt at a login, and reports a refusal.
    async fn admit(&self, name: &str, known_browser: Option<&[u8; 32]>) -> Result<Attempt> {
        let taken = self
            .throttle
            .acquire(name, self.address.into(), known_browser, self.now.tick);
        match taken {
            Ok(attempt) => Ok(attempt),
            Err(refused) => {
                match known_browser {
                    Some(_) => self.report_limited_account(name).await,
                    None => self.report_limited_address(name).await?,
                }
                Err(refused.into())
            }
        }
    }

    /// The account `name`, if there is one.
    async fn account(&self, name: &str) -> Result<Option<Account>> {
        let asked_name = name.to_owned();
        self.app
            .db
            .read(move |reader| logins::account_named(reader, &asked_name))
            .await
    }

    /// Checks the password of an administrator who is logged in.
    pub(super) async fn own_password(
        &self,
        request: &PanelRequest<'_>,
        password: &str,
    ) -> Result<CheckedPassword> {
        self.attempt_in_login(request).await?;
        let id = request.admin.id;
        let account = self
            .app
            .db
            .read(move |reader| logins::account(reader, id))
            .await?;
        let hash = Some(account.password_hash.clone());
        if self
            .app
            .hasher
            .verify(Secret::new(password.to_owned()), hash)
            .await?
            == PasswordCheck::Wrong
        {
            self.report(
                LoginFault::Password,
                AccountName::Known(&request.admin.name),
            );
            return Err(Error::invalid("old", "is wrong"));
        }
        Ok(CheckedPassword {
            account,
            rehashed: None,
        })
    }

    /// Takes one of the attempts at a password or code within a login.
    pub(super) async fn attempt_in_login(&self, request: &PanelRequest<'_>) -> Result<()> {
        let taken = self.throttle.in_login(request.session.id, self.now.tick);
        self.report_if_limited(taken, &request.admin.name).await
    }

    /// Returns `taken`, and reports a lockout of the account `name` if it is an error.
    async fn report_if_limited(&self, taken: Result<(), Refused>, name: &str) -> Result<()> {
        if taken.is_err() {
            self.report_limited_account(name).await;
        }
        taken.map_err(Error::from)
    }

    /// Reports an attempt that was rejected without a check, because the account `name` had too many.
    async fn report_limited_account(&self, name: &str) {
        let locked_out = LockedOut::Account(name);
        let lockout = self.throttle.lockout(locked_out, self.now.tick);
        self.report_refused(lockout, AccountName::Known(name)).await;
    }

    /// Reports a login as `name` that was rejected without a check, because the address had too many attempts.
    async fn report_limited_address(&self, name: &str) -> Result<()> {
        let locked_out = LockedOut::Source(self.address);
        let lockout = self.throttle.lockout(locked_out, self.now.tick);
        let account = if lockout == Lockout::Reported {
            AccountName::NotLookedUp(name)
        } else if self.account(name).await?.is_some() {
            AccountName::Known(name)
        } else {
            AccountName::Unknown(name)
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
            AccountName::Unknown(_) | AccountName::NotLookedUp(_) => None,
        };
        let now = self.now.wall;
        let actor = Actor::Server {
            source: Some(self.address),
        };
        let noted = self.app.db.write("logins.note_lockout", move |tx| {
            logins::note_lockout(&Act::new(tx, &actor, now), account.as_deref())
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
    pub(super) fn report_code(&self, request: &PanelRequest<'_>, error: &Error) {
        if error.is(Refusal::WrongCode.code()) {
            self.report(LoginFault::Code, AccountName::Known(&request.admin.name));
        }
    }

    /// Parses a second factor, if the account has attempts left.
    pub(super) async fn second_factor(
        &self,
        request: &PanelRequest<'_>,
        typed: &str,
    ) -> Result<SecondFactor> {
        self.attempt_in_login(request).await?;
        let typed = TypedCode::parse(typed);
        if matches!(typed, TypedCode::Code(_)) {
            let known_browser = self.known_browser(&request.admin.name).await?;
            let (id, tick) = (request.admin.id, self.now.tick);
            let taken = self.throttle.code(id, known_browser.as_ref(), tick);
            self.report_if_limited(taken, &request.admin.name).await?;
        }
        Ok(SecondFactor {
            typed,
            at: self.system_now,
        })
    }
}
