//! The page of a release, with its actions.

use rocket::{Route, get, post, routes};
use serde_json::json;

use super::{page_of, template_json, version_in_path};
use crate::app::App;
use crate::audit::Act;
use crate::db::{Db, Reader};
use crate::devices;
use crate::error::Result;
use crate::id::ProductId;
use crate::panel::{Admin, PanelRequest, Support};
use crate::products::{self, ProductSettings};
use crate::releases::{self, Release};
use crate::version::Version;
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};

/// A release and the settings with the current and the minimum version, read in one transaction.
fn with_settings(
    reader: &Reader<'_>,
    product: ProductId,
    version: Version,
) -> Result<(Release, ProductSettings)> {
    Ok((
        releases::get(reader, product, version)?,
        products::product_settings(reader, product)?,
    ))
}

/// The page of a release, with its actions.
#[get("/releases/<version>")]
async fn one(request: Support<'_>, version: &str, app: &App) -> HtmlReply {
    let (version, product) = (version_in_path(version)?, request.product);
    let (release, config) = app
        .db
        .read(move |reader| with_settings(reader, product, version))
        .await?;
    let values = json!({
        "release": template_json(&release, &config),
        "current": config.current_version,
        "minimum": config.minimum_version,
        "ahead": version > config.current_version,
    });
    request.page("releases/one.html.tera", values).await
}

/// Makes a release the current version, which older programs are informed about.
#[post("/releases/<version>/current", data = "<_form>")]
async fn make_current(request: Admin<'_>, version: &str, _form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    app.db
        .write("products.make_current", move |tx| {
            products::make_current(&Act::new(tx, &actor, now), product, version)
        })
        .await?;
    Html::done(page_of(version), "release_current")
}

/// A confirmation page with the number of devices that run older versions.
async fn confirm(request: &PanelRequest<'_>, page: &str, version: &str, db: &Db) -> HtmlReply {
    let (version, product) = (version_in_path(version)?, request.product);
    let read = db.read(move |reader| {
        let (release, config) = with_settings(reader, product, version)?;
        release.check_available()?;
        Ok((
            release,
            config,
            devices::count_older_than(reader, product, version)?,
        ))
    });
    let (release, config, older) = read.await?;
    let values = json!({
        "release": template_json(&release, &config), "current": config.current_version, "older": older,
        "minimum": config.minimum_version,
        "ahead": version > config.current_version,
    });
    request.page(page, values).await
}

/// Asks for confirmation before older programs are refused.
#[get("/releases/<version>/minimum")]
async fn confirm_minimum(request: Admin<'_>, version: &str, app: &App) -> HtmlReply {
    confirm(&request, "releases/minimum.html.tera", version, &app.db).await
}

/// Makes a release the minimum version: older programs are refused.
#[post("/releases/<version>/minimum", data = "<_form>")]
async fn make_minimum(request: Admin<'_>, version: &str, _form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    let before = app
        .db
        .write("products.make_minimum", move |tx| {
            products::make_minimum(&Act::new(tx, &actor, now), product, version)
        })
        .await?;
    let done = if before > version {
        "release_minimum_lowered"
    } else {
        "release_minimum"
    };
    Html::done(page_of(version), done)
}

/// Asks for confirmation before a release is withdrawn.
#[get("/releases/<version>/withdraw")]
async fn confirm_withdraw(request: Admin<'_>, version: &str, app: &App) -> HtmlReply {
    confirm(&request, "releases/withdraw.html.tera", version, &app.db).await
}

/// Withdraws a release.
#[post("/releases/<version>/withdraw", data = "<_form>")]
async fn withdraw(request: Admin<'_>, version: &str, _form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    app.db
        .write("releases.yank", move |tx| {
            releases::yank(&Act::new(tx, &actor, now), product, version)
        })
        .await?;
    Html::done(page_of(version), "release_withdrawn")
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![
        one,
        make_current,
        confirm_minimum,
        make_minimum,
        confirm_withdraw,
        withdraw
    ]
}
