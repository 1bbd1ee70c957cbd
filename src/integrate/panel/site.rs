//! The page with the files for a website, and their downloads.

use rocket::http::ContentType;
use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{CA_FILE, key_to_show};
use crate::app::App;
use crate::clock::UnixMs;
use crate::db::Db;
use crate::domain::Domain;
use crate::error::{Error, Resource, Result};
use crate::id::LicenseId;
use crate::integrate::PublicEndpoint;
use crate::integrate::rules::{ClientFile, SiteParameters};
use crate::licenses::{self, License};
use crate::net::egress;
use crate::panel::{PanelRequest, Support};
use crate::signing_keys::{self, Published};
use crate::web::html::{Html, HtmlReply, path_with_query};

/// The placeholder for a site's domain.
const EXAMPLE: &str = "www.example.org";

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
    keys.ok_or_else(|| Error::not_found(Resource::SigningKey, "current"))
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
    request: Support<'_>,
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
    let keys = published_keys(&app.db, request.now.wall).await?;
    let site = site(&app.endpoint, &keys, named.as_ref());
    let key = key_to_show(&request, license.as_ref())?;
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
    request.page("integrate/site.html.tera", values).await
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
        "word": file.as_str(),
        "name": file.name(),
        "text": file.filled(site),
        "address": path_with_query(&address, &[("domain", domain)]),
        "line": file.line(key),
    })
}

/// Downloads the PHP file.
#[get("/integrate/site.php?<domain>")]
async fn site_php(request: Support<'_>, domain: Option<&str>, app: &App) -> HtmlReply {
    site_file(ClientFile::Php, &request, domain, app).await
}

/// Downloads the Python file.
#[get("/integrate/site.py?<domain>")]
async fn site_py(request: Support<'_>, domain: Option<&str>, app: &App) -> HtmlReply {
    site_file(ClientFile::Python, &request, domain, app).await
}

async fn site_file(
    file: ClientFile,
    request: &PanelRequest<'_>,
    domain: Option<&str>,
    app: &App,
) -> HtmlReply {
    let (_, domain) = license_and_domain(&app.db, None, domain).await?;
    let keys = published_keys(&app.db, request.now.wall).await?;
    Ok(Html::File {
        name: file.name().to_owned(),
        kind: Box::new(ContentType::Plain),
        bytes: file
            .filled(&site(&app.endpoint, &keys, domain.as_ref()))
            .into_bytes(),
    })
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![site_page, site_php, site_py]
}
