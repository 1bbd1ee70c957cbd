//! Panel pages with everything that a program or a website needs to call this server.

use rocket::http::ContentType;
use rocket::{Route, State, get, post, routes};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::rules::{self, CallParameters, ClientFile, SiteParameters};
use super::{DryRun, DryRunRequest, PublicEndpoint};
use crate::activations::client::{ActivateResponse, DeactivateResponse};
use crate::admins::Role;
use crate::app::App;
use crate::audit::Act;
use crate::clock::{Now, UnixMs};
use crate::db::{Db, Reader};
use crate::domain::Domain;
use crate::error::{Doing, Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, License};
use crate::net::egress;
use crate::panel::{Admin, PanelRequest, Support};
use crate::products::{self, ProductSettings};
use crate::sessions::client::{EndResponse, HeartbeatResponse, StartResponse};
use crate::signing_keys::{self, Published};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members, path_with_query};
use crate::web::page::Pages;

/// The name of the downloaded file with the certificate of the server's own authority.
const CA_FILE: &str = "ca.pem";
/// How many licenses can be chosen on the page: the newest. The page of any other license links here.
const CHOICES: u32 = 20;

/// The placeholder for a site's domain.
const EXAMPLE: &str = "www.example.org";

/// The data of the page, read in one transaction.
struct IntegratePage {
    config: ProductSettings,
    licenses: Vec<License>,
    chosen: Option<License>,
    /// The public keys that verify responses; `None` before the first start of the server.
    keys: Option<Published>,
}

impl IntegratePage {
    fn read(reader: &Reader<'_>, chosen: Option<LicenseId>, now: UnixMs) -> Result<Self> {
        let licenses = licenses::list(reader, "", CHOICES)?;
        let chosen = chosen.map(|id| licenses::find(reader, id)).transpose()?;
        Ok(Self {
            config: products::product_settings(reader)?,
            keys: signing_keys::published(reader, now)?,
            chosen,
            licenses,
        })
    }

    /// The licenses that can be chosen, including the chosen one.
    fn choices(&self) -> Vec<Value> {
        let missing = self.chosen.iter().filter(|chosen| {
            let listed = &self.licenses;
            listed.iter().all(|license| license.id != chosen.id)
        });
        let all = missing.chain(&self.licenses);
        all.map(
            |license| json!({ "id": license.id, "key": license.key, "customer": license.customer }),
        )
        .collect()
    }
}

/// The page for one request.
struct View<'a> {
    who: &'a PanelRequest<'a>,
    app: &'a App,
    pages: &'a Pages,
}

impl View<'_> {
    /// The values of the template.
    async fn values(&self, chosen: Option<LicenseId>) -> Result<Map<String, Value>> {
        let now = self.who.now.wall;
        let read = self
            .app
            .db
            .read(move |reader| IntegratePage::read(reader, chosen, now));
        let page_data = read.await?;
        values(self, &page_data)
    }

    async fn show(&self, form: &Fields, result: Result<DryRun>) -> HtmlReply {
        let chosen = form.number::<i64>("license").ok().map(LicenseId);
        let mut values = self.values(chosen).await?;
        let page = "integrate/page.html.tera";
        match result {
            Ok(dry_run) => {
                values.insert("steps".to_owned(), steps(&dry_run, self.who.now)?);
                self.who.page(page, Value::Object(values)).await
            }
            Err(error) => {
                let values = Value::Object(values);
                self.who
                    .render_with_errors(page, "integrate", form, error, values)
                    .await
            }
        }
    }
}

/// The key of a license, or a placeholder if none is chosen.
fn key_to_show(who: &PanelRequest<'_>, license: Option<&License>) -> Result<String> {
    match license {
        Some(license) => Ok(license.key.formatted()),
        None => who.text("integrate.your_license_key", &Map::new()),
    }
}

fn values(view: &View<'_>, page_data: &IntegratePage) -> Result<Map<String, Value>> {
    let View { who, app, pages } = view;
    let endpoint = &app.endpoint;
    let may_see = who.may(Role::Admin);
    let api_key = if may_see {
        page_data.config.api_key.reveal().clone()
    } else {
        who.text("integrate.your_api_key", &Map::new())?
    };
    let license_key = key_to_show(who, page_data.chosen.as_ref())?;
    let version = page_data.config.current_version.to_string();
    let parameters = CallParameters {
        url: &endpoint.url,
        api_key: &api_key,
        license_key: &license_key,
        version: &version,
        authority: endpoint.authority.as_ref().map(|_| CA_FILE),
    };
    let keys = page_data.keys.as_ref().map(signing_keys::json::published);
    let program = json!({
        "url": endpoint.url, "api_key": api_key, "license_key": license_key, "version": version,
        "product": page_data.config.client_name,
        "ca": parameters.authority, "keys": keys,
    });
    let chosen = page_data.chosen.as_ref().map(|license| license.id);
    Ok(object_members(json!({
        "url": endpoint.url,
        "public": endpoint.public,
        "keys": keys,
        "ca": endpoint.authority.as_ref().map(|authority| &authority.file),
        "calls": rules::calls(&parameters),
        "program": pages.render_in(who.language, "integrate/example.py.tera", &program)?,
        "licenses": page_data.choices(),
        "chosen": chosen,
        "sees_key": may_see,
        "steps": null,
        "form": form::empty_form(json!({})),
    })))
}

/// The calls of a program, with the known values filled in.
#[get("/integrate?<license>")]
async fn page(
    who: Support<'_>,
    license: Option<i64>,
    pages: &State<Pages>,
    app: &App,
) -> HtmlReply {
    let view = View {
        who: &who,
        app,
        pages,
    };
    let values = view.values(license.map(LicenseId)).await?;
    who.page("integrate/page.html.tera", Value::Object(values))
        .await
}

/// Downloads the certificate that clients must trust.
#[get("/integrate/ca.pem")]
fn authority(_who: Support<'_>, app: &App) -> HtmlReply {
    let authority = app.endpoint.authority.as_ref();
    let authority = authority.ok_or_else(|| Error::not_found("certificate", CA_FILE))?;
    Ok(Html::File {
        name: CA_FILE.to_owned(),
        kind: Box::new(ContentType::new("application", "x-pem-file")),
        bytes: authority.pem.clone().into_bytes(),
    })
}

/// Makes the calls of a program with a license, and shows the responses.
#[post("/integrate", data = "<form>")]
async fn dry_run(who: Admin<'_>, form: Form, pages: &State<Pages>, app: &App) -> HtmlReply {
    let result = match form.number::<i64>("license") {
        Ok(id) => {
            let request = DryRunRequest {
                license_id: LicenseId(id),
                address: who.address.clone(),
            };
            let (live, settings) = (app.live_sessions.clone(), app.program_settings.clone());
            let (actor, now) = (who.actor(), who.now);
            app.db
                .write("integrate.rehearse", move |tx| {
                    let act = Act::new(tx, &actor, now.wall);
                    super::dry_run(&act, live.at(now), &settings, &request)
                })
                .await
        }
        Err(error) => Err(error),
    };
    let view = View {
        who: &who,
        app,
        pages,
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
        { "deed": "activate", "answer": pretty(&activated)? },
        { "deed": "session/start", "answer": pretty(&started)? },
        { "deed": "session/heartbeat", "answer": pretty(&heartbeat)? },
        { "deed": "session/end", "answer": pretty(&ended)? },
        { "deed": "deactivate", "answer": pretty(&slots)? },
    ]))
}

fn pretty(answer: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(answer).doing("show an answer")
}

// ── The files for a website ─────────────────────────────────────────────────────────────────────────────────

/// The license of a query, and the domain to fill in: the typed one, else that of the license.
async fn license_and_domain(
    db: &Db,
    license: Option<i64>,
    domain: Option<&str>,
) -> Result<(Option<License>, Option<Domain>)> {
    let license = match license.map(LicenseId) {
        Some(id) => Some(db.read(move |reader| licenses::find(reader, id)).await?),
        None => None,
    };
    let typed = domain.map(str::trim).filter(|domain| !domain.is_empty());
    let own = license
        .as_ref()
        .and_then(|license| license.domain.as_deref());
    let domain = typed.or(own).map(|text| {
        Domain::from_input(text).ok_or_else(|| Error::invalid("domain", "must be a host name"))
    });
    Ok((license, domain.transpose()?))
}

/// The public keys that a site verifies signatures with.
async fn published_keys(db: &Db, now: UnixMs) -> Result<Published> {
    let keys = db
        .read(move |reader| signing_keys::published(reader, now))
        .await?;
    keys.ok_or_else(|| Error::not_found("signing key", "current"))
}

fn site<'a>(
    endpoint: &'a PublicEndpoint,
    keys: &Published,
    domain: Option<&'a Domain>,
) -> SiteParameters<'a> {
    SiteParameters {
        url: &endpoint.url,
        public_keys: format!("{} {}", keys.current.base64(), keys.next.base64()),
        origin: egress::origin(
            domain.map_or(EXAMPLE, Domain::as_str),
            endpoint.callback_port,
        ),
        callback_path: &endpoint.callback_path,
        authority: endpoint.authority.as_ref().map(|_| CA_FILE),
    }
}

/// The page with the files that a website needs for the handshake, with the known values filled in.
#[get("/integrate/site?<license>&<domain>")]
async fn site_page(
    who: Support<'_>,
    license: Option<i64>,
    domain: Option<&str>,
    app: &App,
) -> HtmlReply {
    let (license, named, wrong) = match license_and_domain(&app.db, license, domain).await {
        Ok((license, domain)) => (license, domain, false),
        Err(Error::Invalid { .. }) => (None, None, true),
        Err(error) => return Err(error.into()),
    };
    let typed = if wrong {
        domain
    } else {
        named.as_ref().map(Domain::as_str)
    };
    let keys = published_keys(&app.db, who.now.wall).await?;
    let site = site(&app.endpoint, &keys, named.as_ref());
    let key = key_to_show(&who, license.as_ref())?;
    let files = ClientFile::ALL.map(|file| file_values(file, &site, named.as_ref(), &key));
    let values = json!({
        "url": app.endpoint.url,
        "public": app.endpoint.public,
        "authority": site.authority,
        "callback": format!("{}{}", site.origin, site.callback_path),
        "domain": typed,
        "wrong": wrong,
        "license": license.as_ref().map(|license| license.id),
        "files": files,
        "keys": signing_keys::json::published(&keys),
    });
    who.page("integrate/site.html.tera", values).await
}

/// A file for the template, with the known values filled in.
fn file_values(
    file: ClientFile,
    site: &SiteParameters<'_>,
    domain: Option<&Domain>,
    key: &str,
) -> Value {
    let address = format!("/lizenzserver/integrate/{}", file.address());
    let domain = domain.map_or("", Domain::as_str);
    json!({
        "word": file.word(),
        "name": file.name(),
        "text": file.filled(site),
        "address": path_with_query(&address, &[("domain", domain)]),
        "line": file.line(key),
    })
}

/// Downloads the PHP file.
#[get("/integrate/site.php?<domain>")]
async fn site_php(who: Support<'_>, domain: Option<&str>, app: &App) -> HtmlReply {
    site_file(ClientFile::Php, &who, domain, app).await
}

/// Downloads the Python file.
#[get("/integrate/site.py?<domain>")]
async fn site_py(who: Support<'_>, domain: Option<&str>, app: &App) -> HtmlReply {
    site_file(ClientFile::Python, &who, domain, app).await
}

async fn site_file(
    file: ClientFile,
    who: &PanelRequest<'_>,
    domain: Option<&str>,
    app: &App,
) -> HtmlReply {
    let (_, domain) = license_and_domain(&app.db, None, domain).await?;
    let keys = published_keys(&app.db, who.now.wall).await?;
    Ok(Html::File {
        name: file.name().to_owned(),
        kind: Box::new(ContentType::Plain),
        bytes: file
            .filled(&site(&app.endpoint, &keys, domain.as_ref()))
            .into_bytes(),
    })
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![page, authority, dry_run, site_page, site_php, site_py]
}
