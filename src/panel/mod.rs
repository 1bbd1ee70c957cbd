//! The frame of every page of the panel, and the request guards that the `panel.rs` of every module uses. A guard stands
//! for a role: the arguments of a route say who may call it.

mod choice;
mod conflict;
mod counts;
mod elsewhere;
mod pending;
mod rules;
mod set_up;
mod visitor;

pub use pending::catchers;
pub use rules::{Refusal, is_path_of_panel};
pub use visitor::Visitor;

use rocket::http::{Method, Status};
use rocket::request::{FromRequest, Outcome, Request};
use rocket::{Orbit, Rocket, Route};
use serde::Serialize;
use serde_json::{Map, Value, json};

use choice::ProductChoice;
use rules::Required;

use crate::admins::{self, Admin as Account, Role};
use crate::app::App;
use crate::audit::Actor;
use crate::clock::Now;
use crate::config::Language;
use crate::db::Db;
use crate::error::{Error, Resource, Result};
use crate::i18n::Catalog;
use crate::id::ProductId;
use crate::logins::{self, CurrentLogin, Session, SessionLifetime, Stage};
use crate::products::{self, Product};
use crate::revision;
use crate::saved_filters::{self, SavedFilter};
use crate::security::client_address::ClientAddress;
use crate::security::rate_limit::RATE_LIMITED;
use crate::security::secret;
use crate::web::cookies;
use crate::web::flash::{self, Flashes};
use crate::web::form::{self, Fields, RejectedForm};
use crate::web::guards::{self, RequestTime, ResponseLanguage};
use crate::web::html::{self, Html, HtmlReply};
use crate::web::once::{Sender, SentForms};
use crate::web::page::Pages;
use crate::web::product_param::PRODUCT;
use crate::web::stash::stash;
use crate::zone::Zone;

/// The root of the panel's paths.
pub const HOME: &str = "/lizenzserver";
/// The last use of a login is written again when the stored one is older than this, in seconds.
const SEEN_AFTER_S: u32 = 60;

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
    /// The query of the URL.
    query: String,
    /// Whether this is a form that was sent: its path may have no page.
    is_form: bool,
    /// The theme that this browser chose: `light`, `dark`, or empty for that of the system.
    pub theme: &'static str,
    /// The product that the page is about, if it is about one: the chosen product, or the first that is not archived.
    pub product: ProductId,
    choice: ProductChoice,
    /// The parts of the server.
    pub app: &'r App,
    rocket: &'r Rocket<Orbit>,
}

/// Any administrator with a complete login, even if a required second factor is not set up yet: for the pages on which
/// it is set up.
pub struct LoggedIn<'r>(PanelRequest<'r>);

/// An administrator whose password was accepted and whose second factor is missing.
pub struct AwaitingSecondFactor<'r>(PanelRequest<'r>);

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
                        stash(request, error);
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

/// The error for a part of the server that was not handed to Rocket.
pub fn missing_state(what: &'static str) -> Error {
    Error::Internal {
        doing: "find a part of the server's state",
        source: From::from(what),
    }
}

/// The administrator's request, if its login is valid and meets `required`.
async fn panel_request<'r>(
    request: &'r Request<'_>,
    required: Required,
) -> Result<PanelRequest<'r>> {
    let app = App::of(request)?;
    let RequestTime(now) = RequestTime::of(request);
    let token = login_token_of(request).ok_or(Refusal::NotLoggedIn)?;
    let csrf_token = logins::csrf_token(&token);
    let (admin, session, products) = find_login(&app.db, token, app.login_lifetime(), now).await?;
    if let Some(language) = admin.language {
        guards::set_language(request, language);
    }
    let access = rules::check_access(session.stage, &admin, required, &app.settings.panel);
    let choice = ProductChoice::of(request, products);
    let panel_request = PanelRequest {
        ends_s: logins::ends_in_s(&session, app.login_lifetime(), now.wall),
        admin,
        session,
        now,
        language: ResponseLanguage::of(request).0,
        address: ClientAddress::of(request).to_string(),
        csrf_token,
        fragment: html::is_fragment(request),
        path: request.uri().path().to_string(),
        query: query_of(request),
        is_form: request.method() == Method::Post,
        theme: html::theme(request),
        product: choice.product(),
        choice,
        app,
        rocket: request.rocket(),
    };
    panel_request.prepare_errors(request);
    access?;
    panel_request.choice.check()?;
    panel_request.accept(request).await;
    Ok(panel_request)
}

/// The secret token of the login that the browser has.
fn login_token_of(request: &Request<'_>) -> Option<String> {
    let cookie = request.cookies().get(cookies::LOGIN);
    cookie.map(|cookie| cookie.value().to_owned())
}

/// The login with this token and its administrator, and the products of the shop.
async fn find_login(
    db: &Db,
    token: String,
    lifetime: SessionLifetime,
    now: Now,
) -> Result<(Account, Session, Vec<Product>)> {
    let found = db
        .read(move |reader| {
            let found = logins::find(reader, &token, lifetime, now.wall)?;
            let account =
                |(id, session)| Ok((admins::get(reader, id)?, session, products::list(reader)?));
            found.map(account).transpose()
        })
        .await?;
    Ok(found.ok_or(Refusal::NotLoggedIn)?)
}

/// The query of the URL; empty if there is none.
fn query_of(request: &Request<'_>) -> String {
    let query = request.uri().query();
    query.map(|query| query.to_string()).unwrap_or_default()
}

/// Stores the last use of a login, if the stored one is old.
async fn mark_seen(db: &Db, session: &Session, now: Now) {
    if session.seen_at.plus_s(SEEN_AFTER_S) > now.wall {
        return;
    }
    let id = session.id;
    let seen = db.write("logins.mark_seen", move |tx| {
        logins::mark_seen(tx, id, now.wall)
    });
    // No error for the caller: on a full disk the panel must still show what is wrong.
    if let Err(error) = seen.await {
        log::debug!("could not store the last use of a login: {error}");
    }
}

impl PanelRequest<'_> {
    /// Gives the page of an error the frame with the navigation, also if the request is refused.
    fn prepare_errors(&self, request: &Request<'_>) {
        if self.session.stage == Stage::Full {
            let mut values = self.common();
            // Nothing is read for the page of an error.
            values.insert("counts".to_owned(), counts::none());
            html::set_frame(request, values);
        }
    }

    /// What a request does that is not refused, besides its own action.
    async fn accept(&self, request: &Request<'_>) {
        // Fragments are requested by scripts, without any action of the administrator: they do not keep the login alive.
        if !self.fragment {
            mark_seen(&self.app.db, &self.session, self.now).await;
        }
        form::expect_csrf_token(request, &self.csrf_token);
        flash::set_sender(request, self.admin.id);
    }

    /// The administrator as the actor of an audit entry.
    pub fn actor(&self) -> Actor {
        Actor::Administrator {
            id: self.admin.id,
            name: self.admin.name.clone(),
            source: self.address.clone(),
            proved_at: self.session.proved_at,
        }
    }

    /// The administrator and the login, for operations on them.
    pub const fn login(&self) -> CurrentLogin {
        CurrentLogin {
            admin_id: self.admin.id,
            session_id: self.session.id,
        }
    }

    /// The time zone of the times on the page: the administrator's choice, or the shop's.
    fn zone(&self) -> &Zone {
        self.admin.time_zone.as_ref().unwrap_or(self.shop_zone())
    }

    /// The shop's time zone, whose days are the days of figures and filters.
    pub const fn shop_zone(&self) -> &Zone {
        &self.app.settings.panel.time_zone
    }

    /// The shop's date, such as `2026-11-22`.
    pub fn today(&self) -> String {
        self.shop_zone().date(self.now.wall)
    }

    /// The product that is chosen; `None` if the page is about all products.
    pub const fn chosen(&self) -> Option<ProductId> {
        self.choice.chosen()
    }

    /// The name of a product, to be shown beside what belongs to it; `None` in a shop with one product.
    pub fn product_name(&self, id: ProductId) -> Option<String> {
        self.choice.name_of(id)
    }

    /// `path` as an address that chooses the product `id`; `path` itself in a shop with one product. Other addresses
    /// keep the product that is chosen already.
    pub fn address_of(&self, path: &str, id: ProductId) -> String {
        self.choice.address_of(path, id)
    }

    /// Requires that a password or second factor was accepted within the last five minutes, for irreversible actions.
    /// The refusal redirects to the page that asks for it, and from there back to this one.
    ///
    /// # Errors
    /// [`logins::Refusal::ReauthenticationRequired`].
    pub fn require_reauthentication(&self) -> Result<(), logins::Refusal> {
        if logins::recently_authenticated(self.session.proved_at, self.now.wall) {
            Ok(())
        } else {
            Err(logins::Refusal::ReauthenticationRequired)
        }
    }

    /// Whether a script asked for a part of the page.
    pub const fn is_fragment(&self) -> bool {
        self.fragment
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
        text.ok_or_else(|| Error::not_found(Resource::Text, key))
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
        let (chosen, product, now) = (self.chosen(), self.product, self.now.wall);
        let (admin, list) = (self.admin.id, self.list());
        let (counts, saved) = self
            .app
            .db
            .read(move |reader| {
                let saved = list.map(|list| saved_filters::of_list(reader, admin, list));
                let counts = counts::counts(reader, chosen, product, now)?;
                Ok((counts, saved.transpose()?.unwrap_or_default()))
            })
            .await?;
        all.insert("counts".to_owned(), json!(counts));
        all.insert("done".to_owned(), json!(self.take_done()));
        all.insert("filters_of_list".to_owned(), self.filters_json(&saved));
        all.extend(html::object_members(values));
        self.show_pending(&mut all);
        let text = self.render(name, &all)?;
        Ok(Html::Page { status, text })
    }

    /// The list that the page shows, one of [`saved_filters::LISTS`].
    fn list(&self) -> Option<&'static str> {
        let below = self.path.strip_prefix(HOME)?.strip_prefix('/')?;
        saved_filters::LISTS.into_iter().find(|list| *list == below)
    }

    /// The filters that the administrator saved for the list on this page, and the present one, which can be saved.
    fn filters_json(&self, saved: &[SavedFilter]) -> Value {
        let present = saved_filters::filter_of(&self.query);
        let filter = |filter: &SavedFilter| {
            json!({
                "id": filter.id,
                "name": filter.name,
                "url": format!("{}?{}", self.path, filter.query),
                "is_chosen": filter.query == present,
            })
        };
        json!({
            "list": self.list(),
            "typed": "",
            "present": present,
            "is_saved": saved.iter().any(|filter| filter.query == present),
            "saved": saved.iter().map(filter).collect::<Vec<_>>(),
        })
    }

    /// What was just done, to be reported on this page: see [`Html::done`]. The next call gets nothing.
    fn take_done(&self) -> Option<&'static str> {
        if self.fragment {
            return None;
        }
        let flashes = self.rocket.state::<Flashes>()?;
        let address = format!("{}?{}", self.path, self.query);
        flashes.take(self.admin.id, &address, self.now.tick)
    }

    /// The address of the page, without the product: every response adds the chosen
    /// one to its links and redirects. Of the nearest page for a form that was sent to a path without one.
    fn here(&self) -> String {
        let page = elsewhere::nearest_page(self.rocket, &self.path);
        if self.is_form && page != self.path {
            return page.to_owned();
        }
        let pairs = form_urlencoded::parse(self.query.as_bytes());
        let pairs = pairs.filter(|(name, _)| !["part", PRODUCT].contains(&name.as_ref()));
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish();
        if query.is_empty() {
            self.path.clone()
        } else {
            format!("{}?{query}", self.path)
        }
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
        form: RejectedForm<'_>,
        values: Value,
    ) -> HtmlReply {
        let (status, form) = self.rejected_form(form)?;
        let mut values = html::object_members(values);
        values.insert("form".to_owned(), form);
        self.page_with(status, name, Value::Object(values)).await
    }

    /// A rejected form for a template, with its input and an error message, and the status of the page. A page with several
    /// forms must not call it `form` in its template: macros have a parameter of this name, and Tera looks up what is missing
    /// in the parameter, such as the error of a field, in the value of the page that has the same name.
    ///
    /// # Errors
    /// As [`PanelRequest::render_with_errors`].
    pub fn rejected_form(&self, form: RejectedForm<'_>) -> Result<(Status, Value)> {
        let catalog = self.rocket.state::<Catalog>();
        let catalog = catalog.ok_or_else(|| missing_state("texts"))?;
        let RejectedForm {
            fields,
            section,
            error,
            present,
        } = form;
        let (status, language) = (status_of(&error), (catalog, self.language));
        let present = present.filter(|_| revision::is_conflict(&error));
        let errors = form_errors(language, section, error)?;
        let form = match present {
            Some(present) => {
                conflict::with_conflicts(language, section, &fields.merged(&present), errors)
            }
            None => form::with_errors(fields, errors),
        };
        Ok((status, form))
    }

    /// The response of `make`; if the same form was sent twice, that to the first one. See [`SentForms::once`].
    ///
    /// # Errors
    /// Those of `make`.
    pub async fn once(&self, form: &Fields, make: impl Future<Output = HtmlReply>) -> HtmlReply {
        let forms = self.rocket.state::<SentForms>();
        let forms = forms.ok_or_else(|| missing_state("sent forms"))?;
        let address = format!("{}?{}", self.path, self.query);
        let sender = Sender {
            admin: self.admin.id,
            address: &address,
            at: self.now.tick,
        };
        forms.once(sender, form, make).await
    }

    /// The values that every template may use.
    fn common(&self) -> Map<String, Value> {
        let section = self.path.strip_prefix(HOME).unwrap_or_default();
        let section = section.trim_start_matches('/').split('/').next();
        let here = self.here();
        let archived = self.choice.is_archived() && rules::is_about_one_product(&self.path);
        html::object_members(json!({
            "lang": self.language.tag(),
            "zone": self.zone(),
            "shop_zone": self.shop_zone(),
            "theme": self.theme,
            "fragment": self.fragment,
            "path": self.path,
            "here": here,
            "here_encoded": form_urlencoded::byte_serialize(here.as_bytes()).collect::<String>(),
            "section": section,
            "done": null,
            "kept": false,
            "products": self.choice.switcher(&self.path),
            "csrf_token": self.csrf_token,
            // Without an id, a form works as well, but makes two things if it is sent twice.
            "form_id": secret::random::<16>().map(|id| secret::hex(&id)).unwrap_or_default(),
            "ends_s": self.ends_s,
            "current_admin": self.admin,
            "archived": archived,
            "may_change": self.may(Role::Admin) && !archived,
            "is_owner": self.may(Role::Owner),
            "now": self.now.wall,
        }))
    }

    /// The text of the template `name` with nothing but `values`, for a page to show it.
    ///
    /// # Errors
    /// If the template needs a value that it did not get.
    pub fn render(&self, name: &str, values: &impl Serialize) -> Result<String> {
        let pages = self.rocket.state::<Pages>();
        let pages = pages.ok_or_else(|| missing_state("pages"))?;
        pages.render_in(self.language, name, values)
    }
}

/// The messages for all that `error` consists of, as [`form_error`].
fn form_errors(
    language: (&Catalog, Language),
    section: &str,
    error: Error,
) -> Result<Vec<(String, String)>> {
    let errors = error.into_each().into_iter();
    errors
        .map(|error| form_error(language, section, error))
        .collect()
}

/// The message for an error that the user of a form can correct, and the field that it is about; empty for none.
///
/// # Errors
/// `error` itself, if it cannot be corrected in a form.
fn form_error(
    (catalog, language): (&Catalog, Language),
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
            let field = refused.field.map(|field| field.replace('-', "_"));
            let (_, text) = catalog.refusal(language, &refused);
            Ok((field.unwrap_or_default(), text))
        }
        other => Err(other),
    }
}

/// The status of a form that is rendered again with an error.
fn status_of(error: &Error) -> Status {
    if error.is(RATE_LIMITED) {
        Status::TooManyRequests
    } else {
        Status::UnprocessableEntity
    }
}

/// The routes of the set-up.
pub fn routes() -> Vec<Route> {
    set_up::routes()
}

pub use elsewhere::{root_routes, unknown_routes};
