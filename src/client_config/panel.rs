//! The door for administrators in a browser: the single administration page.
//!
//! Every change on it is a form that the browser itself sends and that leads back to its place on the page, so
//! "saved in place" needs no script: scripts of the panel never send anything, and the proof in the form, the
//! check of `Sec-Fetch-Site` and the browser's own handling of faults and of a lost network hold everywhere
//! alike. What takes the place of "without leaving the page" is the address: `?at=client#client`.

use rocket::{Route, State, get, post, routes};
use serde_json::{Value, json};

use super::{
    Flag, Limit, Policy, ProductSettings, RetiredKey, RotateRequest, SettingsChange, masked,
};
use crate::admins::Role;
use crate::admins::panel::{Admin, PanelRequest, Support};
use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::error::{CHANGED_MEANWHILE, Error, Result};
use crate::overview::{self, Monitor};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, members};

const PAGE: &str = "/lizenzserver/config";
/// What comes after the first configuration.
const NEXT_STEP: &str = "/lizenzserver/setup/license";
/// Sessions in the monitor.
const NEWEST: u32 = 5;
/// How long an old API key goes on, unless somebody says otherwise.
const OVERLAP_DAYS: u32 = 7;
/// What the first configuration asks for.
const FIRST: [&str; 3] = ["client_name", "current_version", "minimum_version"];
/// What can be changed about the client configuration, by name of its column.
const COLUMNS: [&str; 7] = [
    "client_name",
    "current_version",
    "minimum_version",
    "heartbeat_interval",
    "session_timeout",
    "session_policy",
    "offline_days",
];

/// All that the page shows, read in one look.
struct SettingsPage {
    config: ProductSettings,
    no_release: bool,
    retired: Vec<RetiredKey>,
    flags: Vec<Flag>,
    limits: Vec<Limit>,
    monitor: Monitor,
}

impl SettingsPage {
    fn read(reader: &Reader<'_>, now: UnixMs) -> Result<Self> {
        let config = super::find(reader)?;
        Ok(Self {
            no_release: super::current_is_no_release(reader, &config)?,
            config,
            retired: super::retired_keys(reader, now)?,
            flags: super::flags(reader)?,
            limits: super::limits(reader)?,
            monitor: overview::monitor(reader, now, NEWEST)?,
        })
    }

    async fn of(db: &Db, now: UnixMs) -> Result<Self> {
        db.read(move |reader| Self::read(reader, now)).await
    }

    /// For the template. The API key is in it only for those who may see it.
    fn values(&self, who: &PanelRequest<'_>) -> Value {
        let key = who.may(Role::Admin).then(|| self.key());
        let flags: Vec<Value> = self.flags.iter().map(flag).collect();
        let limits: Vec<Value> = self.limits.iter().map(limit).collect();
        json!({
            "client": client(&self.config),
            "policies": Policy::ALL,
            "too_high": self.config.minimum_version > self.config.current_version,
            "no_release": self.no_release,
            "key": key,
            "flags": flags,
            "limits": limits,
            "running": running(&self.monitor),
            "no_flag": form::empty_form(json!({ "enabled": true, "share": 100 })),
            "faulty": "",
            "at": "",
        })
    }

    fn key(&self) -> Value {
        let retired = self.retired.iter();
        let retired: Vec<Value> = retired
            .map(|old| json!({ "masked": masked(&old.key), "valid_until": old.valid_until }))
            .collect();
        let key = &self.config.api_key;
        json!({ "whole": key.reveal(), "masked": masked(key), "retired": retired })
    }
}

fn client(config: &ProductSettings) -> Value {
    let values = json!({
        "client_name": config.client_name,
        "current_version": config.current_version,
        "minimum_version": config.minimum_version,
        "heartbeat_interval": config.heartbeat_interval,
        "session_timeout": config.session_timeout,
        "session_policy": config.session_policy,
        "offline_days": config.offline_days,
    });
    json!({ "seen": config.state(), "form": form::empty_form(values) })
}

fn flag(flag: &Flag) -> Value {
    let values = json!({
        "name": flag.name,
        "description": flag.description,
        "enabled": flag.enabled,
        "share": flag.share_percent,
    });
    json!({ "name": flag.name, "seen": flag.state(), "form": form::empty_form(values) })
}

fn limit(limit: &Limit) -> Value {
    let values = json!({ "per_minute": limit.per_minute, "burst": limit.burst });
    json!({ "name": limit.name, "seen": limit.state(), "form": form::empty_form(values) })
}

fn running(monitor: &Monitor) -> Value {
    let newest = monitor.newest.iter().map(|session| {
        json!({
            "customer": session.customer,
            "license_key": session.license_key,
            "machine_id": session.machine_id,
            "version": session.version,
            "started_at": session.started_at,
        })
    });
    json!({ "count": monitor.count, "newest": newest.collect::<Vec<_>>() })
}

/// The page. `at` names the part that was just saved; `part=monitor` asks for who is running now, for a script
/// that asks again and again.
#[get("/config?<at>&<part>")]
async fn page(who: Support<'_>, at: Option<&str>, part: Option<&str>, db: &State<Db>) -> HtmlReply {
    let now = who.now.wall;
    if part == Some("monitor") {
        let monitor = db.read(move |reader| overview::monitor(reader, now, NEWEST));
        let values = json!({ "running": running(&monitor.await?) });
        return who.part("client_config/monitor.html.tera", values);
    }
    let mut values = members(SettingsPage::of(db, now).await?.values(&who));
    values.insert("at".to_owned(), at.unwrap_or_default().into());
    who.page("client_config/page.html.tera", Value::Object(values))
        .await
}

/// The part of the page, its `id`, that a form with this `part` stands in.
fn at(form: &Fields) -> Result<&'static str> {
    match form.text("part") {
        "client" => Ok("client"),
        "first" => Ok("first"),
        "flag" | "new_flag" => Ok("flags"),
        "limit" => Ok("limits"),
        _ => Err(Error::invalid("part", "names no part of the page")),
    }
}

/// What a form of the page changes.
fn change(form: &Fields) -> Result<SettingsChange> {
    Ok(match form.text("part") {
        "client" => SettingsChange::Client(typed(form, &COLUMNS)),
        "first" => SettingsChange::Client(typed(form, &FIRST)),
        "new_flag" => SettingsChange::NewFlag(flag_of(form)?),
        "flag" => SettingsChange::Flag(flag_of(form)?),
        _ => SettingsChange::Limit(Limit {
            name: form.text("name").to_owned(),
            per_minute: form.number("per_minute")?,
            burst: form.number("burst")?,
        }),
    })
}

fn typed(form: &Fields, columns: &[&str]) -> Vec<(String, String)> {
    let columns = columns.iter();
    columns
        .map(|column| ((*column).to_owned(), form.text(column).to_owned()))
        .collect()
}

fn flag_of(form: &Fields) -> Result<Flag> {
    Ok(Flag {
        name: form.text("name").to_owned(),
        description: form.text("description").to_owned(),
        enabled: form.has("enabled"),
        share_percent: form.number("share")?,
    })
}

/// Saves any part of the page.
#[post("/config/update", data = "<form>")]
async fn update(who: Admin<'_>, form: Form, db: &State<Db>) -> HtmlReply {
    let at = at(&form)?;
    let saved = match change(&form) {
        Ok(change) => {
            let (seen, actor) = (form.raw("seen").to_owned(), who.actor());
            let now = who.now.wall;
            db.write("client_config.update", move |tx| {
                super::update(tx, &change, &seen, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    match (saved, at) {
        (Ok(()), "first") => Html::go(NEXT_STEP),
        (Ok(()), at) => Html::go(format!("{PAGE}?at={at}#{at}")),
        (Err(error), "first") => again_first(&who, &form, error, db).await,
        (Err(error), _) => again(&who, &form, error, db).await,
    }
}

/// Where a form was sent to and came back with a fault, a reader who asks for the address finds the page.
#[get("/config/update")]
fn updated(_who: Admin<'_>) -> HtmlReply {
    Html::go(PAGE)
}

/// Who is told that somebody else was quicker sees what is there now, and may save over it; in any other
/// case what he saw stays what it was.
fn seen_now(error: &Error, form: &Fields, present: String) -> String {
    match error {
        Error::Refused(refused) if refused.code == CHANGED_MEANWHILE => present,
        _ => form.raw("seen").to_owned(),
    }
}

/// The page again, with the form that has a fault as it was typed.
async fn again(who: &PanelRequest<'_>, form: &Fields, error: Error, db: &Db) -> HtmlReply {
    let whole = SettingsPage::of(db, who.now.wall).await?;
    let (part, name) = (form.text("part"), form.text("name"));
    let present = match part {
        "client" => whole.config.state(),
        "flag" => {
            let known = whole.flags.iter().find(|flag| flag.name == name);
            known.map(Flag::state).unwrap_or_default()
        }
        _ => {
            let known = whole.limits.iter().find(|limit| limit.name == name);
            known.map(Limit::state).unwrap_or_default()
        }
    };
    let mut values = members(whole.values(who));
    // Names the one form among several: client, new_flag, flag:<name>, limit:<name>.
    let faulty = match part {
        "flag" | "limit" => format!("{part}:{name}"),
        _ => part.to_owned(),
    };
    values.insert("faulty".to_owned(), faulty.into());
    values.insert("seen".to_owned(), seen_now(&error, form, present).into());
    who.again(
        "client_config/page.html.tera",
        "config",
        form,
        error,
        Value::Object(values),
    )
    .await
}

/// The first configuration, while nobody has looked through what the first start made up.
#[get("/config/client/new")]
async fn first(who: Admin<'_>, db: &State<Db>) -> HtmlReply {
    let (config, reviewed) = db
        .read(|reader| Ok((super::find(reader)?, super::reviewed(reader)?)))
        .await?;
    if reviewed {
        return Html::go(PAGE);
    }
    let values = client(&config);
    who.page("client_config/first.html.tera", values).await
}

async fn again_first(who: &PanelRequest<'_>, form: &Fields, error: Error, db: &Db) -> HtmlReply {
    let present = db.read(super::find).await?.state();
    let values = json!({ "seen": seen_now(&error, form, present) });
    who.again(
        "client_config/first.html.tera",
        "config",
        form,
        error,
        values,
    )
    .await
}

/// Asks whether the API key is to be replaced.
#[get("/config/key")]
async fn key_question(who: Admin<'_>, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let config = db.read(super::find).await?;
    let values = json!({
        "seen": config.key_state(),
        "client_name": config.client_name,
        "form": form::empty_form(json!({ "overlap_days": OVERLAP_DAYS })),
    });
    who.page("client_config/key.html.tera", values).await
}

fn replacement(form: &Fields) -> Result<RotateRequest> {
    Ok(RotateRequest {
        confirm: form.text("confirm").to_owned(),
        seen: form.raw("seen").to_owned(),
        overlap_days: form.number("overlap_days")?,
    })
}

/// Replaces the API key.
#[post("/config/key", data = "<form>")]
async fn replace_key(who: Admin<'_>, form: Form, db: &State<Db>) -> HtmlReply {
    who.proved()?;
    let (actor, now) = (who.actor(), who.now.wall);
    let replaced = match replacement(&form) {
        Ok(wish) => {
            db.write("client_config.rotate_api_key", move |tx| {
                super::replace_api_key(tx, &wish, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = replaced else {
        return Html::go(format!("{PAGE}?at=key#key"));
    };
    let config = db.read(super::find).await?;
    let values = json!({
        "seen": seen_now(&error, &form, config.key_state()),
        "client_name": config.client_name,
    });
    who.again(
        "client_config/key.html.tera",
        "config",
        &form,
        error,
        values,
    )
    .await
}

/// Asks whether a feature flag is to go.
#[get("/config/flags/<name>/remove")]
async fn remove_question(who: Admin<'_>, name: &str, db: &State<Db>) -> HtmlReply {
    let name = name.to_owned();
    let flag = db.read(move |reader| super::flag(reader, &name)).await?;
    who.page(
        "client_config/remove_flag.html.tera",
        json!({ "flag": flag }),
    )
    .await
}

/// Removes a feature flag.
#[post("/config/flags/<name>/remove", data = "<_form>")]
async fn remove(who: Admin<'_>, name: &str, _form: Form, db: &State<Db>) -> HtmlReply {
    let (name, actor, now) = (name.to_owned(), who.actor(), who.now.wall);
    db.write("client_config.remove_flag", move |tx| {
        super::remove_flag(tx, &name, &actor, now)
    })
    .await?;
    Html::go(format!("{PAGE}?at=flags#flags"))
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![
        page,
        update,
        updated,
        first,
        key_question,
        replace_key,
        remove_question,
        remove
    ]
}
