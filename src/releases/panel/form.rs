//! Adding and editing releases.

use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::{LIST, page_of, version_in_path};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::error::{Error, Faults};
use crate::panel::{Admin, PanelRequest};
use crate::products::{self, Publication};
use crate::releases::{self, Release, ReleaseState};
use crate::revision::Revision;
use crate::version::Version;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply};

/// The default channel in the form.
const DEFAULT_CHANNEL: &str = "stable";

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

/// The values of the form that edits a release.
fn form_values(release: &Release) -> Value {
    json!({
        "channel": release.channel,
        "notes": release.notes,
        "url": release.download_url,
        "sha256": release.sha256,
    })
}

/// The form for a new release.
#[get("/releases/new")]
async fn new_form(request: Admin<'_>) -> HtmlReply {
    let form = form::empty_form(json!({ "channel": DEFAULT_CHANNEL }));
    let values = json!({ "title": "add", "back": LIST, "seen": "", "form": form });
    request.page("releases/form.html.tera", values).await
}

/// Adds a release, and makes it the current version if the form says so.
#[post("/releases/new", data = "<form>")]
async fn add(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request.once(&form, add_once(&request, &form, app)).await
}

async fn add_once(request: &PanelRequest<'_>, form: &Fields, app: &App) -> HtmlReply {
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    let mut faults = Faults::default();
    let version = Version::from_input(form.text("version"));
    let version = faults.keep(version.map_err(|problem| Error::invalid("version", problem)));
    let publication = if version.is_some() && form.has("make_current") {
        Publication::Current
    } else {
        Publication::Available
    };
    let version = version.unwrap_or(Version::new(0, 0, 0));
    let release = from_form(form, version, now);
    let added = app
        .db
        .write("products.add_release", move |tx| {
            let act = Act::new(tx, &actor, now);
            faults.with(products::add_release(&act, product, &release, publication))
        })
        .await;
    match added {
        Ok(()) => Html::done(page_of(version), "saved"),
        Err(error) => {
            let values = json!({ "title": "add", "back": LIST, "seen": "" });
            request
                .render_with_errors(
                    "releases/form.html.tera",
                    form.rejected("releases", error),
                    values,
                )
                .await
        }
    }
}

/// The form for editing a release.
#[get("/releases/<version>/edit")]
async fn edit_form(request: Admin<'_>, version: &str, app: &App) -> HtmlReply {
    let (version, product) = (version_in_path(version)?, request.product);
    let release = app
        .db
        .read(move |reader| releases::get(reader, product, version))
        .await?;
    let values = json!({
        "title": "edit",
        "back": page_of(version),
        "seen": release.revision(),
        "version": version,
        "form": form::empty_form(form_values(&release)),
    });
    request.page("releases/form.html.tera", values).await
}

/// Changes a release.
#[post("/releases/<version>/edit", data = "<form>")]
async fn edit(request: Admin<'_>, version: &str, form: Form, app: &App) -> HtmlReply {
    let version = version_in_path(version)?;
    let (actor, now, product) = (request.actor(), request.now.wall, request.product);
    let (release, seen) = (
        from_form(&form, version, now),
        Revision::parse(form.raw("seen")),
    );
    let based_on = seen.clone();
    let changed = app
        .db
        .write("releases.edit", move |tx| {
            releases::edit(&Act::new(tx, &actor, now), product, &release, &based_on)
        })
        .await;
    let Err(error) = changed else {
        return Html::done(page_of(version), "saved");
    };
    let present = app
        .db
        .read(move |reader| releases::get(reader, product, version))
        .await?;
    let seen = seen.after(&error, present.revision());
    let values = json!({
        "title": "edit", "back": page_of(version), "seen": seen, "version": version,
    });
    let rejected = form.rejected("releases", error);
    let rejected = rejected.against(form_values(&present));
    request
        .render_with_errors("releases/form.html.tera", rejected, values)
        .await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![new_form, add, edit_form, edit]
}
