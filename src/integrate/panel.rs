//! The door for administrators in a browser: what a program needs to ask this server.

use std::sync::Arc;

use rocket::http::ContentType;
use rocket::{Route, State, get, post, routes};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::rules::{self, Half, Known, Site};
use super::{DryRun, DryRunRequest};
use crate::admins::Role;
use crate::admins::panel::{Admin, PanelRequest, Support};
use crate::client_config::{self, ProductSettings, ProgramSettingsCache};
use crate::clock::{Now, UnixMs};
use crate::db::{Db, Reader};
use crate::domain::Domain;
use crate::error::{Doing, Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, License};
use crate::security::egress;
use crate::sessions::LiveSessions;
use crate::sessions::client::{EndResponse, HeartbeatResponse};
use crate::signing_keys::{self, Published};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, address, members};
use crate::web::page::Pages;

/// What clients call the file with our authority's certificate.
const CA_FILE: &str = "ca.pem";
/// Licenses to choose from: the newest. Any other one leads here from its own page.
const CHOICE: u32 = 20;

/// What stands where a site's own domain goes.
const EXAMPLE: &str = "www.example.org";

/// How clients reach this server.
#[derive(Clone, Debug)]
pub struct PublicEndpoint {
    /// `https://…`, without a slash at its end.
    pub url: String,
    /// Whether the operator said so, or it is only where the server listens.
    pub public: bool,
    /// The certificate that clients must trust, where it is our own authority's.
    pub authority: Option<Authority>,
    /// Where sites take their callbacks.
    pub callback_path: String,
    /// On which port.
    pub callback_port: u16,
}

/// The certificate of an authority of our own.
#[derive(Clone, Debug)]
pub struct Authority {
    /// Its file on this machine.
    pub file: String,
    /// The certificate as PEM; never its key.
    pub pem: String,
}

/// What the page is about, read in one look.
struct IntegratePage {
    config: ProductSettings,
    licenses: Vec<License>,
    chosen: Option<License>,
    /// What answers are verified with; none before the first start of a server.
    keys: Option<Published>,
}

impl IntegratePage {
    fn read(reader: &Reader<'_>, chosen: Option<LicenseId>, now: UnixMs) -> Result<Self> {
        let licenses = licenses::list(reader, "", CHOICE)?;
        let chosen = chosen.map(|id| licenses::find(reader, id)).transpose()?;
        Ok(Self {
            config: client_config::find(reader)?,
            keys: signing_keys::published(reader, now)?,
            chosen,
            licenses,
        })
    }

    /// Every license to choose from, by number; the chosen one among them.
    fn choice(&self) -> Vec<Value> {
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

/// What the page shows; `language` words are the template's.
fn values(
    who: &PanelRequest<'_>,
    reached: &PublicEndpoint,
    pages: &Pages,
    whole: &IntegratePage,
) -> Result<Map<String, Value>> {
    let may_see = who.may(Role::Admin);
    let word = |key: &str| who.text(key, &Map::new());
    let api_key = if may_see {
        whole.config.api_key.reveal().clone()
    } else {
        word("integrate.your_api_key")?
    };
    let license_key = match &whole.chosen {
        Some(license) => license.key.shown(),
        None => word("integrate.your_license_key")?,
    };
    let version = whole.config.current_version.to_string();
    let known = Known {
        url: &reached.url,
        api_key: &api_key,
        license_key: &license_key,
        version: &version,
        authority: reached.authority.as_ref().map(|_| CA_FILE),
    };
    let keys = whole.keys.as_ref().map(Published::document);
    let program = json!({
        "url": reached.url, "api_key": api_key, "license_key": license_key, "version": version,
        "product": whole.config.client_name,
        "ca": known.authority, "keys": keys,
    });
    let chosen = whole.chosen.as_ref().map(|license| license.id);
    Ok(members(json!({
        "url": reached.url,
        "public": reached.public,
        "keys": keys,
        "ca": reached.authority.as_ref().map(|authority| &authority.file),
        "calls": rules::calls(&known),
        "program": pages.render_in(who.language, "integrate/example.py.tera", &program)?,
        "licenses": whole.choice(),
        "chosen": chosen,
        "sees_key": may_see,
        "steps": null,
        "form": form::empty_form(json!({})),
    })))
}

/// The calls of a program, with all that is known filled in.
#[get("/integrate?<license>")]
async fn page(
    who: Support<'_>,
    license: Option<i64>,
    reached: &State<PublicEndpoint>,
    pages: &State<Pages>,
    db: &State<Db>,
) -> HtmlReply {
    let (chosen, now) = (license.map(LicenseId), who.now.wall);
    let whole = db
        .read(move |reader| IntegratePage::read(reader, chosen, now))
        .await?;
    let values = values(&who, reached, pages, &whole)?;
    who.page("integrate/page.html.tera", Value::Object(values))
        .await
}

/// The certificate that clients must trust.
#[get("/integrate/ca.pem")]
fn authority(_who: Support<'_>, reached: &State<PublicEndpoint>) -> HtmlReply {
    let authority = reached.authority.as_ref();
    let authority = authority.ok_or_else(|| Error::not_found("certificate", CA_FILE))?;
    Ok(Html::File {
        name: CA_FILE.to_owned(),
        kind: Box::new(ContentType::new("application", "x-pem-file")),
        bytes: authority.pem.clone().into_bytes(),
    })
}

/// Goes the way of a program on a license, and shows what it would have heard.
#[post("/integrate", data = "<form>")]
async fn dry_run(
    who: Admin<'_>,
    form: Form,
    reached: &State<PublicEndpoint>,
    pages: &State<Pages>,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
    current: &State<Arc<ProgramSettingsCache>>,
) -> HtmlReply {
    let rehearsed = match form.number::<i64>("license") {
        Ok(id) => {
            let wish = DryRunRequest {
                license_id: LicenseId(id),
                address: who.address.clone(),
            };
            let (live, current) = (live.inner().clone(), current.inner().clone());
            let (actor, now) = (who.actor(), who.now);
            db.write("integrate.rehearse", move |tx| {
                super::dry_run(tx, &live, &current, &wish, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    show(&who, &form, rehearsed, (reached, pages), db).await
}

async fn show(
    who: &PanelRequest<'_>,
    form: &Fields,
    rehearsed: Result<DryRun>,
    (reached, pages): (&PublicEndpoint, &Pages),
    db: &Db,
) -> HtmlReply {
    let chosen = form.number::<i64>("license").ok().map(LicenseId);
    let now = who.now.wall;
    let whole = db
        .read(move |reader| IntegratePage::read(reader, chosen, now))
        .await?;
    let mut values = values(who, reached, pages, &whole)?;
    let page = "integrate/page.html.tera";
    match rehearsed {
        Ok(dry_run) => {
            values.insert("steps".to_owned(), steps(&dry_run, who.now)?);
            who.page(page, Value::Object(values)).await
        }
        Err(error) => {
            let values = Value::Object(values);
            who.again(page, "integrate", form, error, values).await
        }
    }
}

/// The answers, as a program reads them.
fn steps(dry_run: &DryRun, now: Now) -> Result<Value> {
    let alive = HeartbeatResponse::new(dry_run.heard, &dry_run.settings, now);
    let over = EndResponse::new(dry_run.ended);
    Ok(json!([
        { "deed": "activate", "answer": again(&dry_run.activated)? },
        { "deed": "session/start", "answer": again(&dry_run.started)? },
        { "deed": "session/heartbeat", "answer": written(&alive)? },
        { "deed": "session/end", "answer": written(&over)? },
        { "deed": "deactivate", "answer": written(&dry_run.slots)? },
    ]))
}

fn written(answer: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(answer).doing("show an answer")
}

fn again(answer: &str) -> Result<String> {
    let answer: Value = serde_json::from_str(answer).doing("show an answer")?;
    written(&answer)
}

// ── What a website needs ─────────────────────────────────────────────────────────────────────────────────

/// The domain that is filled in, and the license that it came from.
async fn place(
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
        Domain::typed(text).ok_or_else(|| Error::invalid("domain", "must be a host name"))
    });
    Ok((license, domain.transpose()?))
}

/// What a site verifies with.
async fn known(db: &Db, now: UnixMs) -> Result<Published> {
    let known = db
        .read(move |reader| signing_keys::published(reader, now))
        .await?;
    known.ok_or_else(|| Error::not_found("signing key", "current"))
}

fn site<'a>(
    reached: &'a PublicEndpoint,
    known: &Published,
    domain: Option<&'a Domain>,
) -> Site<'a> {
    Site {
        url: &reached.url,
        public_keys: format!("{} {}", known.current.base64(), known.next.base64()),
        origin: egress::origin(
            domain.map_or(EXAMPLE, Domain::as_str),
            reached.callback_port,
        ),
        callback_path: &reached.callback_path,
        authority: reached.authority.as_ref().map(|_| CA_FILE),
    }
}

/// A site's half of the handshake, with all that is known filled in.
#[get("/integrate/site?<license>&<domain>")]
async fn site_page(
    who: Support<'_>,
    license: Option<i64>,
    domain: Option<&str>,
    reached: &State<PublicEndpoint>,
    db: &State<Db>,
) -> HtmlReply {
    let (license, named, wrong) = match place(db, license, domain).await {
        Ok((license, domain)) => (license, domain, false),
        Err(Error::Invalid { .. }) => (None, None, true),
        Err(error) => return Err(error.into()),
    };
    let typed = if wrong {
        domain
    } else {
        named.as_ref().map(Domain::as_str)
    };
    let known = known(db, who.now.wall).await?;
    let site = site(reached, &known, named.as_ref());
    let key = match &license {
        Some(license) => license.key.shown(),
        None => who.text("integrate.your_license_key", &Map::new())?,
    };
    let files = Half::ALL.map(|half| {
        let name = half.file();
        let at = format!("/lizenzserver/integrate/{}", half.address());
        json!({
            "word": half.word(),
            "name": name,
            "text": half.filled(&site),
            "address": address(&at, &[("domain", named.as_ref().map_or("", Domain::as_str))]),
            "line": half.line(&key),
        })
    });
    let values = json!({
        "url": reached.url,
        "public": reached.public,
        "authority": site.authority,
        "callback": format!("{}{}", site.origin, site.callback_path),
        "domain": typed,
        "wrong": wrong,
        "license": license.as_ref().map(|license| license.id),
        "files": files,
        "keys": known.document(),
    });
    who.page("integrate/site.html.tera", values).await
}

/// The same in PHP, to keep.
#[get("/integrate/site.php?<domain>")]
async fn site_php(
    who: Support<'_>,
    domain: Option<&str>,
    reached: &State<PublicEndpoint>,
    db: &State<Db>,
) -> HtmlReply {
    site_file(Half::Php, &who, domain, reached, db).await
}

/// The same in Python, to keep.
#[get("/integrate/site.py?<domain>")]
async fn site_py(
    who: Support<'_>,
    domain: Option<&str>,
    reached: &State<PublicEndpoint>,
    db: &State<Db>,
) -> HtmlReply {
    site_file(Half::Python, &who, domain, reached, db).await
}

async fn site_file(
    half: Half,
    who: &PanelRequest<'_>,
    domain: Option<&str>,
    reached: &PublicEndpoint,
    db: &Db,
) -> HtmlReply {
    let (_, domain) = place(db, None, domain).await?;
    let known = known(db, who.now.wall).await?;
    Ok(Html::File {
        name: half.file().to_owned(),
        kind: Box::new(ContentType::Plain),
        bytes: half
            .filled(&site(reached, &known, domain.as_ref()))
            .into_bytes(),
    })
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![page, authority, dry_run, site_page, site_php, site_py]
}
