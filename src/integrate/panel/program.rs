//! The page with the calls of a program, and the dry run of them.

use rocket::http::ContentType;
use rocket::{Route, get, post, routes};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{CA_FILE, api_key_to_show, key_to_show};
use crate::activations::client::{ActivateResponse, DeactivateResponse};
use crate::admins::Role;
use crate::app::App;
use crate::audit::Act;
use crate::clock::{Now, UnixMs};
use crate::db::Reader;
use crate::error::{Doing, Error, Resource, Result};
use crate::id::{LicenseId, ProductId};
use crate::integrate::rules::{self, CallParameters};
use crate::integrate::{self, DryRun, DryRunRequest};
use crate::licenses::{self, License};
use crate::panel::{Admin, PanelRequest, Support};
use crate::products::{self, ProductSettings};
use crate::search;
use crate::sessions::client::{EndResponse, HeartbeatResponse, StartResponse};
use crate::signing_keys::{self, Published};
use crate::terms::Terms;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members};

const PAGE: &str = "/lizenzserver/integrate";
/// How many licenses can be chosen on the page: the newest, or the newest of those that were searched for.
const CHOICES: u32 = 20;

/// The data of the page, read in one transaction.
struct IntegratePage {
    config: ProductSettings,
    /// The licenses that can be chosen, at most one more than [`CHOICES`].
    licenses: Vec<License>,
    chosen: Option<License>,
    /// What was searched for.
    search: Terms,
    /// The public keys that verify responses; `None` before the first start of the server.
    keys: Option<Published>,
}

impl IntegratePage {
    fn read(reader: &Reader<'_>, product: ProductId, choice: Choice, now: UnixMs) -> Result<Self> {
        let query = licenses::LicenseSearch {
            search: &choice.search,
            product: Some(product),
            limit: CHOICES + 1,
        };
        let licenses = licenses::list(reader, query)?;
        let chosen = match choice.license {
            Some(id) => Some(licenses::find(reader, id)?),
            None => search::license_with_key(reader, &choice.search)?,
        };
        Ok(Self {
            config: products::product_settings(reader, product)?,
            keys: signing_keys::published(reader, now)?,
            chosen,
            licenses,
            search: choice.search,
        })
    }

    /// The search for a license and what it found, as values for the template. The chosen license is among those that can be
    /// chosen.
    fn choice_values(&self) -> Map<String, Value> {
        let missing = self.chosen.iter().filter(|chosen| {
            let listed = &self.licenses;
            listed.iter().all(|license| license.id != chosen.id)
        });
        let all = missing.chain(self.licenses.iter().take(CHOICES as usize));
        let row = |license: &License| json!({ "id": license.id, "key": license.key, "customer": license.customer });
        let licenses: Vec<Value> = all.map(row).collect();
        object_members(json!({
            "has_licenses": !licenses.is_empty() || !self.search.is_empty(),
            "licenses": licenses,
            "has_more": self.licenses.len() > CHOICES as usize,
            "chosen": self.chosen.as_ref().map(|license| license.id),
            "q": self.search.typed(),
        }))
    }
}

/// Which license the page is about.
#[derive(Clone, Debug, Default)]
struct Choice {
    license: Option<LicenseId>,
    /// What was searched for; a whole key chooses its license.
    search: Terms,
}

/// The page for one request.
struct View<'a> {
    request: &'a PanelRequest<'a>,
    app: &'a App,
}

impl View<'_> {
    async fn read(&self, choice: Choice) -> Result<IntegratePage> {
        let (product, now) = (self.request.product, self.request.now.wall);
        let read = self
            .app
            .db
            .read(move |reader| IntegratePage::read(reader, product, choice, now));
        read.await
    }

    async fn show(&self, form: &Fields, result: Result<DryRun>) -> HtmlReply {
        let choice = Choice {
            license: form.number::<i64>("license").ok().map(LicenseId),
            search: Terms::parse(form.text("q")),
        };
        let mut values = values(self, &self.read(choice).await?)?;
        let page = "integrate/page.html.tera";
        match result {
            Ok(dry_run) => {
                values.insert("steps".to_owned(), steps(&dry_run, self.request.now)?);
                self.request.page(page, Value::Object(values)).await
            }
            Err(error) => {
                let values = Value::Object(values);
                self.request
                    .render_with_errors(page, form.rejected("integrate", error), values)
                    .await
            }
        }
    }
}

fn values(view: &View<'_>, page_data: &IntegratePage) -> Result<Map<String, Value>> {
    let View { request, app } = view;
    let endpoint = &app.endpoint;
    let api_key = api_key_to_show(request, &page_data.config)?;
    let license_key = key_to_show(request, page_data.chosen.as_ref())?;
    let version = page_data.config.current_version.to_string();
    let parameters = CallParameters {
        url: &endpoint.url,
        api_key: &api_key,
        license_key: &license_key,
        version: &version,
        authority: endpoint.authority.as_ref().map(|_| CA_FILE),
    };
    let mut values = object_members(json!({
        "url": endpoint.url,
        "public": endpoint.public,
        "keys": page_data.keys.as_ref().map(signing_keys::json::published),
        "ca": endpoint.authority.as_ref().map(|authority| &authority.file),
        "calls": rules::calls(&parameters),
        "languages": super::language::tabs(None),
        "sees_key": request.may(Role::Admin),
        "steps": null,
        "form": form::empty_form(json!({})),
    }));
    values.extend(page_data.choice_values());
    Ok(values)
}

/// The calls of a program, with the known values filled in.
#[get("/integrate?<license>&<q>")]
async fn page(request: Support<'_>, license: Option<i64>, q: Option<&str>, app: &App) -> HtmlReply {
    let view = View {
        request: &request,
        app,
    };
    let kept = request.take_pending();
    let license_of_form = kept
        .as_ref()
        .and_then(|form| form.number::<i64>("license").ok());
    let choice = Choice {
        license: license_of_form.or(license).map(LicenseId),
        search: Terms::parse(q.unwrap_or_default()),
    };
    let page_data = view.read(choice).await?;
    let chosen = page_data.chosen.as_ref();
    if let Some(other) = chosen.filter(|license| license.product != request.product) {
        // Its program has the API key of that product.
        let path = format!("{PAGE}?license={}", other.id);
        return Html::redirect(request.address_of(&path, other.product));
    }
    let mut values = values(&view, &page_data)?;
    values.insert("kept".to_owned(), kept.is_some().into());
    request
        .page("integrate/page.html.tera", Value::Object(values))
        .await
}

/// Downloads the certificate that clients must trust.
#[get("/integrate/ca.pem")]
fn authority(_request: Support<'_>, app: &App) -> HtmlReply {
    let authority = app.endpoint.authority.as_ref();
    let authority = authority.ok_or_else(|| Error::not_found(Resource::Certificate, CA_FILE))?;
    Ok(Html::File {
        name: CA_FILE.to_owned(),
        kind: Box::new(ContentType::new("application", "x-pem-file")),
        bytes: authority.pem.clone().into_bytes(),
    })
}

/// Makes the calls of a program with a license, and shows the responses.
#[post("/integrate", data = "<form>")]
async fn dry_run(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    let result = match form.number::<i64>("license") {
        Ok(id) => {
            let dry_run_request = DryRunRequest {
                license_id: LicenseId(id),
                address: request.address.clone(),
            };
            let (live, settings) = (app.live_sessions.clone(), app.program_settings.clone());
            let (actor, now) = (request.actor(), request.now);
            app.db
                .write("integrate.rehearse", move |tx| {
                    let act = Act::new(tx, &actor, now.wall);
                    integrate::dry_run(&act, live.at(now), &settings, &dry_run_request)
                })
                .await
        }
        Err(error) => Err(error),
    };
    let view = View {
        request: &request,
        app,
    };
    view.show(&form, result).await
}

/// The responses of a dry run for the template.
fn steps(dry_run: &DryRun, now: Now) -> Result<Value> {
    let heartbeat = HeartbeatResponse::new(dry_run.heartbeat, &dry_run.settings, now);
    let ended = EndResponse::new(dry_run.ended);
    let activated = ActivateResponse::new(&dry_run.activated);
    // Without a lease for offline use: the device of a dry run is removed at once.
    let started = StartResponse::new(&dry_run.started, None);
    let slots = DeactivateResponse::new(dry_run.slots);
    Ok(json!([
        { "endpoint": "activate", "answer": pretty(&activated)? },
        { "endpoint": "session/start", "answer": pretty(&started)? },
        { "endpoint": "session/heartbeat", "answer": pretty(&heartbeat)? },
        { "endpoint": "session/end", "answer": pretty(&ended)? },
        { "endpoint": "deactivate", "answer": pretty(&slots)? },
    ]))
}

fn pretty(answer: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(answer).doing("show an answer")
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![page, authority, dry_run]
}
