//! The panel's handlers for releases.
//!
//! The module `products` holds the current and the minimum version, so the operations that change them are there.

use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::json::members;
use super::{Release, ReleaseState};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::error::{Error, Result};
use crate::overview;
use crate::paging::{Cursor, PageRequest};
use crate::panel::{Admin, PanelRequest, Support};
use crate::products::{self, ProductSettings};
use crate::revision::{self, Revision};
use crate::version::Version;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};
use crate::web::pager::Pager;
use crate::web::query;

/// Releases on one page.
const PAGE_SIZE: u32 = 50;
/// The address of the list.
const LIST: &str = "/lizenzserver/releases";
const PAGER: Pager<1> = Pager {
    path: LIST,
    next: ["after"],
    previous: [""],
};
/// The default channel in the form.
const DEFAULT_CHANNEL: &str = "stable";

fn page_of(version: Version) -> String {
    format!("{LIST}/{version}")
}

/// The version in an address. An invalid version is not found.
fn version_in_path(text: &str) -> Result<Version> {
    let version = text.parse::<Version>().ok();
    version.ok_or_else(|| Error::not_found("release", text))
}

/// A release as JSON for the templates.
fn template_json(release: &Release, config: &ProductSettings) -> Value {
    let mut values = members(release);
    let status = release.status(config.current_version);
    values.insert("standing".to_owned(), json!(status));
    values.insert("released_at".to_owned(), json!(release.released_at));
    let is_minimum = release.version == config.minimum_version;
    values.insert("oldest".to_owned(), is_minimum.into());
    let refused = release.version < config.minimum_version;
    values.insert("refused".to_owned(), refused.into());
    Value::Object(values)
}

/// A release and the settings with the current and the minimum version, read in one transaction.
fn with_settings(reader: &Reader<'_>, version: Version) -> Result<(Release, ProductSettings)> {
    Ok((
        super::get(reader, version)?,
        products::product_settings(reader)?,
    ))
}

/// A page of releases, newest version first.
#[get("/releases?<state>&<after>")]
async fn list(who: Support<'_>, state: Option<&str>, after: Option<&str>, app: &App) -> HtmlReply {
    let wanted = query::parsed("state", state, |word| match word {
        "released" => Some(ReleaseState::Released),
        "yanked" => Some(ReleaseState::Yanked),
        _ => None,
    })?;
    let from = query::parsed("after", after, |text| text.parse::<Version>().ok())?;
    let request = PageRequest {
        from: Cursor::after(from),
        limit: PAGE_SIZE,
    };
    let read = app.db.read(move |reader| {
        let page = super::page(reader, wanted, &request)?;
        let config = products::product_settings(reader)?;
        Ok((page, config, super::count(reader)? > 0))
    });
    let (page, config, any) = read.await?;
    let state = state.filter(|_| wanted.is_some()).unwrap_or_default();
    let links = PAGER.links(&[("state", state)], &page, |release: &Release| {
        [release.version.to_string()]
    });
    let rows = page.rows.iter();
    let rows: Vec<Value> = rows.map(|row| template_json(row, &config)).collect();
    let values = json!({
        "releases": rows, "any": any, "state": state, "older": links.older, "newer": links.newer,
    });
    who.page("releases/list.html.tera", values).await
}

/// The release of `version` with the fields of a form.
fn from_form(form: &Fields, version: Version, now: UnixMs) -> Release {
    Release {
        version,
        channel: form.text("channel").to_owned(),
        notes: form.text("notes").to_owned(),
        download_url: form.non_empty("url").map(str::to_owned),
        sha256: form.non_empty("sha256").map(str::to_ascii_lowercase),
        state: ReleaseState::Released,
        released_at: now,
    }
}

/// The form for a new release.
#[get("/releases/new")]
async fn new_form(who: Admin<'_>) -> HtmlReply {
    let form = form::empty_form(json!({ "channel": DEFAULT_CHANNEL }));
    let values = json!({ "title": "add", "back": LIST, "seen": "", "form": form });
    who.page("releases/form.html.tera", values).await
}

/// Adds a release.
#[post("/releases/new", data = "<form>")]
async fn add(who: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    let version = Version::from_input(form.text("version"));
    let added = match version.map_err(|problem| Error::invalid("version", problem)) {
        Ok(version) => {
            let release = from_form(&form, version, now);
            let write = app.db.write("releases.add", move |tx| {
                super::add(&Act::new(tx, &actor, now), &release)
            });
            write.await.map(|added| added.version)
        }
        Err(error) => Err(error),
    };
    match added {
        Ok(version) => Html::redirect(format!("{}?done=saved", page_of(version))),
        Err(error) => {
            let values = json!({ "title": "add", "back": LIST, "seen": "" });
            who.render_with_errors("releases/form.html.tera", "releases", &form, error, values)
                .await
        }
    }
}

/// The page of a release, with its actions.
#[get("/releases/<version>")]
async fn one(who: Support<'_>, version: &str, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (release, config) = app
        .db
        .read(move |reader| with_settings(reader, version))
        .await?;
    let values = json!({
        "release": template_json(&release, &config),
        "current": config.current_version,
        "minimum": config.minimum_version,
    });
    who.page("releases/one.html.tera", values).await
}

/// The form for editing a release.
#[get("/releases/<version>/edit")]
async fn edit_form(who: Admin<'_>, version: &str, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let release = app
        .db
        .read(move |reader| super::get(reader, version))
        .await?;
    let values = json!({
        "title": "edit",
        "back": page_of(version),
        "seen": release.revision(),
        "version": version,
        "form": form::empty_form(json!({
            "channel": release.channel,
            "notes": release.notes,
            "url": release.download_url,
            "sha256": release.sha256,
        })),
    });
    who.page("releases/form.html.tera", values).await
}

/// Changes a release.
#[post("/releases/<version>/edit", data = "<form>")]
async fn edit(who: Admin<'_>, version: &str, form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    let (release, seen) = (
        from_form(&form, version, now),
        Revision::parse(form.raw("seen")),
    );
    let based_on = seen.clone();
    let changed = app
        .db
        .write("releases.edit", move |tx| {
            super::edit(&Act::new(tx, &actor, now), &release, &based_on)
        })
        .await;
    let Err(error) = changed else {
        return Html::redirect(format!("{}?done=saved", page_of(version)));
    };
    let present = app
        .db
        .read(move |reader| super::get(reader, version))
        .await?;
    // After an edit conflict the form shows the saved data, too, and saving again overwrites it.
    let conflict = revision::is_conflict(&error);
    let seen = seen.after(&error, present.revision());
    let values = json!({
        "title": "edit", "back": page_of(version), "seen": seen, "version": version,
        "present": conflict.then(|| members(&present)),
    });
    who.render_with_errors("releases/form.html.tera", "releases", &form, error, values)
        .await
}

/// Makes a release the current version, which older programs are informed about.
#[post("/releases/<version>/current", data = "<_form>")]
async fn make_current(who: Admin<'_>, version: &str, _form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    app.db
        .write("products.make_current", move |tx| {
            products::make_current(&Act::new(tx, &actor, now), version)
        })
        .await?;
    Html::redirect(format!("{}?done=release_current", page_of(version)))
}

/// A confirmation page with the number of devices that run older versions.
async fn confirm(who: &PanelRequest<'_>, page: &str, version: &str, db: &Db) -> HtmlReply {
    let version = version_in_path(version)?;
    let read = db.read(move |reader| {
        let (release, config) = with_settings(reader, version)?;
        release.check_available()?;
        Ok((
            release,
            config,
            overview::devices_older_than(reader, version)?,
        ))
    });
    let (release, config, older) = read.await?;
    let values = json!({
        "release": template_json(&release, &config), "current": config.current_version, "older": older,
        "ahead": version > config.current_version,
    });
    who.page(page, values).await
}

/// Asks for confirmation before older programs are refused.
#[get("/releases/<version>/minimum")]
async fn confirm_minimum(who: Admin<'_>, version: &str, app: &App) -> HtmlReply {
    confirm(&who, "releases/minimum.html.tera", version, &app.db).await
}

/// Makes a release the minimum version: older programs are refused.
#[post("/releases/<version>/minimum", data = "<_form>")]
async fn make_minimum(who: Admin<'_>, version: &str, _form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    app.db
        .write("products.make_minimum", move |tx| {
            products::make_minimum(&Act::new(tx, &actor, now), version)
        })
        .await?;
    Html::redirect(format!("{}?done=release_minimum", page_of(version)))
}

/// Asks for confirmation before a release is withdrawn.
#[get("/releases/<version>/withdraw")]
async fn confirm_withdraw(who: Admin<'_>, version: &str, app: &App) -> HtmlReply {
    confirm(&who, "releases/withdraw.html.tera", version, &app.db).await
}

/// Withdraws a release.
#[post("/releases/<version>/withdraw", data = "<_form>")]
async fn withdraw(who: Admin<'_>, version: &str, _form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    app.db
        .write("releases.yank", move |tx| {
            super::yank(&Act::new(tx, &actor, now), version)
        })
        .await?;
    Html::redirect(format!("{}?done=release_withdrawn", page_of(version)))
}

/// The panel's routes for releases.
pub fn routes() -> Vec<Route> {
    routes![
        list,
        new_form,
        add,
        one,
        edit_form,
        edit,
        make_current,
        confirm_minimum,
        make_minimum,
        confirm_withdraw,
        withdraw
    ]
}
