//! The door for administrators in a browser: releases.
//!
//! Which version is current and which is the oldest that works is said by `client_config`, so making a release
//! one of them is a verb of that room.

use rocket::{Route, State as Held, get, post, routes};
use serde_json::{Value, json};

use super::{Release, Standing, State};
use crate::admins::panel::{Admin, PanelRequest, Support};
use crate::client_config::{self, ProductSettings};
use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::error::{CHANGED_MEANWHILE, Error, Result};
use crate::overview;
use crate::version::Version;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, address, members};
use crate::web::query;

/// Releases on one page.
const PAGE: usize = 50;
const LIST: &str = "/lizenzserver/releases";
/// The channel of a release that nobody said one of.
const CHANNEL: &str = "stable";

fn page_of(version: Version) -> String {
    format!("{LIST}/{version}")
}

/// The version in an address; there is nothing under another one.
fn named(text: &str) -> Result<Version> {
    let version = text.parse::<Version>().ok();
    version.ok_or_else(|| Error::not_found("release", text))
}

/// A release as the pages show it.
fn shown(release: &Release, config: &ProductSettings) -> Value {
    let mut values = members(json!(release));
    let standing: Standing = release.standing(config.current_version);
    values.insert("standing".to_owned(), json!(standing));
    values.insert("released_at".to_owned(), json!(release.released_at));
    let oldest = release.version == config.minimum_version;
    values.insert("oldest".to_owned(), oldest.into());
    let refused = release.version < config.minimum_version;
    values.insert("refused".to_owned(), refused.into());
    Value::Object(values)
}

/// A release and what programs are told of versions, in one look.
fn look(reader: &Reader<'_>, version: Version) -> Result<(Release, ProductSettings)> {
    Ok((super::get(reader, version)?, client_config::find(reader)?))
}

/// A page of releases, newest version first.
#[get("/releases?<state>&<after>")]
async fn list(
    who: Support<'_>,
    state: Option<&str>,
    after: Option<&str>,
    db: &Held<Db>,
) -> HtmlReply {
    let (releases, config) = db
        .read(|reader| Ok((super::list(reader)?, client_config::find(reader)?)))
        .await?;
    let wanted = query::known("state", state, |word| match word {
        "released" => Some(State::Released),
        "yanked" => Some(State::Yanked),
        _ => None,
    })?;
    let from = query::known("after", after, |text| text.parse::<Version>().ok())?;
    let any = !releases.is_empty();
    let mut page = releases
        .iter()
        .filter(|release| wanted.is_none_or(|state| release.state == state))
        .filter(|release| from.is_none_or(|from| release.version < from));
    let rows: Vec<&Release> = page.by_ref().take(PAGE).collect();
    let state = state.filter(|_| wanted.is_some()).unwrap_or_default();
    let last = rows.last().filter(|_| page.next().is_some());
    let older = last.map(|release| {
        let version = release.version.to_string();
        address(LIST, &[("state", state), ("after", &version)])
    });
    let newer = from.map(|_| address(LIST, &[("state", state)]));
    let rows = rows.iter().map(|release| shown(release, &config));
    let values = json!({
        "releases": rows.collect::<Vec<_>>(), "any": any, "state": state, "older": older, "newer": newer,
    });
    who.page("releases/list.html.tera", values).await
}

/// What was typed about the release of `version`.
fn typed(form: &Fields, version: Version, now: UnixMs) -> Release {
    Release {
        version,
        channel: form.text("channel").to_owned(),
        notes: form.text("notes").to_owned(),
        download_url: form.given("url").map(str::to_owned),
        sha256: form.given("sha256").map(str::to_ascii_lowercase),
        state: State::Released,
        released_at: now,
    }
}

/// The form for a new one.
#[get("/releases/new")]
async fn new_form(who: Admin<'_>) -> HtmlReply {
    let form = form::empty_form(json!({ "channel": CHANNEL }));
    let values = json!({ "title": "add", "back": LIST, "seen": "", "form": form });
    who.page("releases/form.html.tera", values).await
}

/// Adds one.
#[post("/releases/new", data = "<form>")]
async fn add(who: Admin<'_>, form: Form, db: &Held<Db>) -> HtmlReply {
    let (actor, now) = (who.actor(), who.now.wall);
    let version = Version::typed(form.text("version"));
    let added = match version.map_err(|problem| Error::invalid("version", problem)) {
        Ok(version) => {
            let release = typed(&form, version, now);
            let write = db.write("releases.add", move |tx| super::add(tx, &release, &actor));
            write.await.map(|()| version)
        }
        Err(error) => Err(error),
    };
    match added {
        Ok(version) => Html::go(format!("{}?done=saved", page_of(version))),
        Err(error) => {
            let values = json!({ "title": "add", "back": LIST, "seen": "" });
            who.again("releases/form.html.tera", "releases", &form, error, values)
                .await
        }
    }
}

/// A release, and what can be done with it.
#[get("/releases/<version>")]
async fn one(who: Support<'_>, version: &str, db: &Held<Db>) -> HtmlReply {
    let version = named(version)?;
    let (release, config) = db.read(move |reader| look(reader, version)).await?;
    let values = json!({
        "release": shown(&release, &config),
        "current": config.current_version,
        "minimum": config.minimum_version,
    });
    who.page("releases/one.html.tera", values).await
}

/// The form for a change.
#[get("/releases/<version>/edit")]
async fn edit_form(who: Admin<'_>, version: &str, db: &Held<Db>) -> HtmlReply {
    let version = named(version)?;
    let release = db.read(move |reader| super::get(reader, version)).await?;
    let values = json!({
        "title": "edit",
        "back": page_of(version),
        "seen": release.digest(),
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

/// Changes one.
#[post("/releases/<version>/edit", data = "<form>")]
async fn edit(who: Admin<'_>, version: &str, form: Form, db: &Held<Db>) -> HtmlReply {
    let version = named(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    let (release, seen) = (typed(&form, version, now), form.raw("seen").to_owned());
    let changed = db
        .write("releases.edit", move |tx| {
            super::edit(tx, &release, &seen, &actor, now)
        })
        .await;
    let Err(error) = changed else {
        return Html::go(format!("{}?done=saved", page_of(version)));
    };
    let late = matches!(&error, Error::Refused(refused) if refused.code == CHANGED_MEANWHILE);
    let present = db.read(move |reader| super::get(reader, version)).await?;
    // Who saves again after having been told has seen what is there now.
    let seen = if late {
        present.digest()
    } else {
        form.raw("seen").to_owned()
    };
    let values = json!({
        "title": "edit", "back": page_of(version), "seen": seen, "version": version,
        "present": late.then_some(present),
    });
    who.again("releases/form.html.tera", "releases", &form, error, values)
        .await
}

/// Tells programs of older versions that this one is to be had.
#[post("/releases/<version>/current", data = "<_form>")]
async fn make_current(who: Admin<'_>, version: &str, _form: Form, db: &Held<Db>) -> HtmlReply {
    let version = named(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    db.write("client_config.make_current", move |tx| {
        client_config::make_current(tx, version, &actor, now)
    })
    .await?;
    Html::go(format!("{}?done=release_current", page_of(version)))
}

/// Asks about a release, saying whom it meets.
async fn ask(who: &PanelRequest<'_>, page: &str, version: &str, db: &Db) -> HtmlReply {
    let version = named(version)?;
    let read = db.read(move |reader| {
        let (release, config) = look(reader, version)?;
        release.expect_offered()?;
        Ok((
            release,
            config,
            overview::devices_older_than(reader, version)?,
        ))
    });
    let (release, config, older) = read.await?;
    let values = json!({
        "release": shown(&release, &config), "current": config.current_version, "older": older,
        "ahead": version > config.current_version,
    });
    who.page(page, values).await
}

/// Asks whether older programs are to be refused.
#[get("/releases/<version>/minimum")]
async fn minimum_question(who: Admin<'_>, version: &str, db: &Held<Db>) -> HtmlReply {
    ask(&who, "releases/minimum.html.tera", version, db).await
}

/// Refuses older programs from now on.
#[post("/releases/<version>/minimum", data = "<_form>")]
async fn make_minimum(who: Admin<'_>, version: &str, _form: Form, db: &Held<Db>) -> HtmlReply {
    let version = named(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    db.write("client_config.make_minimum", move |tx| {
        client_config::make_minimum(tx, version, &actor, now)
    })
    .await?;
    Html::go(format!("{}?done=release_minimum", page_of(version)))
}

/// Asks whether a release is to be taken back.
#[get("/releases/<version>/withdraw")]
async fn withdraw_question(who: Admin<'_>, version: &str, db: &Held<Db>) -> HtmlReply {
    ask(&who, "releases/withdraw.html.tera", version, db).await
}

/// Takes a release back.
#[post("/releases/<version>/withdraw", data = "<_form>")]
async fn withdraw(who: Admin<'_>, version: &str, _form: Form, db: &Held<Db>) -> HtmlReply {
    let version = named(version)?;
    let (actor, now) = (who.actor(), who.now.wall);
    db.write("releases.yank", move |tx| {
        super::yank(tx, version, &actor, now)
    })
    .await?;
    Html::go(format!("{}?done=release_withdrawn", page_of(version)))
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![
        list,
        new_form,
        add,
        one,
        edit_form,
        edit,
        make_current,
        minimum_question,
        make_minimum,
        withdraw_question,
        withdraw
    ]
}
