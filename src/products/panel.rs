//! Handlers of the panel: the settings page.
//!
//! Every change is a plain form that redirects back to its part of the page: `?at=client#client`. Scripts of the panel
//! never send changes, so the CSRF token, the check of `Sec-Fetch-Site`, and the browser's handling of network errors
//! work the same everywhere.

use rocket::{Route, State, get, post, routes};
use serde_json::{Value, json};

use super::{
    Flag, Limit, ProductSettings, RetiredKey, RotateRequest, SessionPolicy, SettingsChange, masked,
};
use crate::admins::Role;
use crate::admins::panel::{Admin, PanelRequest, Support};
use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::error::{CHANGED_MEANWHILE, Error, Result};
use crate::overview::{self, Monitor};
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members};

const PAGE: &str = "/lizenzserver/config";
/// The step of the set-up after the first configuration.
const NEXT_STEP: &str = "/lizenzserver/setup/license";
/// Sessions that the monitor lists.
const NEWEST: u32 = 5;
/// Default number of days for which an old API key stays valid.
const OVERLAP_DAYS: u32 = 7;
/// Columns in the form of the first configuration.
const FIRST_COLUMNS: [&str; 3] = ["client_name", "current_version", "minimum_version"];
/// Columns in the form of the settings page.
const COLUMNS: [&str; 7] = [
    "client_name",
    "current_version",
    "minimum_version",
    "heartbeat_interval",
    "session_timeout",
    "session_policy",
    "offline_days",
];

/// The content of the page, read in one transaction.
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
        let config = super::product_settings(reader)?;
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

    /// The values of the template. The API key is included only if the administrator may see it.
    fn values(&self, who: &PanelRequest<'_>) -> Value {
        let key = who.may(Role::Admin).then(|| self.key());
        let flags: Vec<Value> = self.flags.iter().map(flag).collect();
        let limits: Vec<Value> = self.limits.iter().map(limit).collect();
        json!({
            "client": client(&self.config),
            "policies": SessionPolicy::ALL,
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
    json!({ "seen": config.revision(), "form": form::empty_form(values) })
}

fn flag(flag: &Flag) -> Value {
    let values = json!({
        "name": flag.name,
        "description": flag.description,
        "enabled": flag.enabled,
        "share": flag.share_percent,
    });
    json!({ "name": flag.name, "seen": flag.revision(), "form": form::empty_form(values) })
}

fn limit(limit: &Limit) -> Value {
    let values = json!({ "per_minute": limit.per_minute, "burst": limit.burst });
    json!({ "name": limit.name, "seen": limit.revision(), "form": form::empty_form(values) })
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

/// The page. `at` names the part that was just saved; with `part=monitor`, only the active sessions, for a script that
/// polls them.
#[get("/config?<at>&<part>")]
async fn page(who: Support<'_>, at: Option<&str>, part: Option<&str>, db: &State<Db>) -> HtmlReply {
    let now = who.now.wall;
    if part == Some("monitor") {
        let monitor = db.read(move |reader| overview::monitor(reader, now, NEWEST));
        let values = json!({ "running": running(&monitor.await?) });
        return who.part("products/monitor.html.tera", values);
    }
    let mut values = object_members(SettingsPage::of(db, now).await?.values(&who));
    values.insert("at".to_owned(), at.unwrap_or_default().into());
    who.page("products/page.html.tera", Value::Object(values))
        .await
}

/// The `id` of the part of the page that contains the form.
fn part_id(form: &Fields) -> Result<&'static str> {
    match form.text("part") {
        "client" => Ok("client"),
        "first" => Ok("first"),
        "flag" | "new_flag" => Ok("flags"),
        "limit" => Ok("limits"),
        _ => Err(Error::invalid("part", "names no part of the page")),
    }
}

/// The change that a form asks for.
fn change(form: &Fields) -> Result<SettingsChange> {
    Ok(match form.text("part") {
        "client" => SettingsChange::Client(typed(form, &COLUMNS)),
        "first" => SettingsChange::Client(typed(form, &FIRST_COLUMNS)),
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
    let at = part_id(&form)?;
    let saved = match change(&form) {
        Ok(change) => {
            let (seen, actor) = (form.raw("seen").to_owned(), who.actor());
            let now = who.now.wall;
            db.write("products.update", move |tx| {
                super::update(tx, &change, &seen, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    match (saved, at) {
        (Ok(()), "first") => Html::redirect(NEXT_STEP),
        (Ok(()), at) => Html::redirect(format!("{PAGE}?at={at}#{at}")),
        (Err(error), "first") => render_first_with_errors(&who, &form, error, db).await,
        (Err(error), _) => render_with_errors(&who, &form, error, db).await,
    }
}

/// Redirects to the page. After a form with an error, this is the address in the browser, which may be reloaded.
#[get("/config/update")]
fn updated(_who: Admin<'_>) -> HtmlReply {
    Html::redirect(PAGE)
}

/// The `seen` of a form that is shown again. After an edit conflict it is the current revision, so that the
/// administrator can save over it; after any other error it stays the same.
fn seen_for_retry(error: &Error, form: &Fields, current: String) -> String {
    match error {
        Error::Refused(refused) if refused.code == CHANGED_MEANWHILE => current,
        _ => form.raw("seen").to_owned(),
    }
}

/// The page with an error in the form that was sent, which keeps its input.
async fn render_with_errors(
    who: &PanelRequest<'_>,
    form: &Fields,
    error: Error,
    db: &Db,
) -> HtmlReply {
    let page = SettingsPage::of(db, who.now.wall).await?;
    let (part, name) = (form.text("part"), form.text("name"));
    let current = match part {
        "client" => page.config.revision(),
        "flag" => {
            let flag = page.flags.iter().find(|flag| flag.name == name);
            flag.map(Flag::revision).unwrap_or_default()
        }
        _ => {
            let limit = page.limits.iter().find(|limit| limit.name == name);
            limit.map(Limit::revision).unwrap_or_default()
        }
    };
    let mut values = object_members(page.values(who));
    // Identifies the form on the page: client, new_flag, flag:<name>, limit:<name>.
    let form_id = match part {
        "flag" | "limit" => format!("{part}:{name}"),
        _ => part.to_owned(),
    };
    values.insert("faulty".to_owned(), form_id.into());
    values.insert(
        "seen".to_owned(),
        seen_for_retry(&error, form, current).into(),
    );
    who.render_with_errors(
        "products/page.html.tera",
        "config",
        form,
        error,
        Value::Object(values),
    )
    .await
}

/// The form of the first configuration, until an administrator has reviewed the default values.
#[get("/config/client/new")]
async fn first(who: Admin<'_>, db: &State<Db>) -> HtmlReply {
    let (config, reviewed) = db
        .read(|reader| Ok((super::product_settings(reader)?, super::reviewed(reader)?)))
        .await?;
    if reviewed {
        return Html::redirect(PAGE);
    }
    let values = client(&config);
    who.page("products/first.html.tera", values).await
}

async fn render_first_with_errors(
    who: &PanelRequest<'_>,
    form: &Fields,
    error: Error,
    db: &Db,
) -> HtmlReply {
    let current = db.read(super::product_settings).await?.revision();
    let values = json!({ "seen": seen_for_retry(&error, form, current) });
    who.render_with_errors("products/first.html.tera", "config", form, error, values)
        .await
}

/// The form that rotates the API key.
#[get("/config/key")]
async fn rotate_key_form(who: Admin<'_>, db: &State<Db>) -> HtmlReply {
    who.require_reauthentication()?;
    let config = db.read(super::product_settings).await?;
    let values = json!({
        "seen": config.key_revision(),
        "client_name": config.client_name,
        "form": form::empty_form(json!({ "overlap_days": OVERLAP_DAYS })),
    });
    who.page("products/key.html.tera", values).await
}

fn rotate_request(form: &Fields) -> Result<RotateRequest> {
    Ok(RotateRequest {
        confirm: form.text("confirm").to_owned(),
        seen: form.raw("seen").to_owned(),
        overlap_days: form.number("overlap_days")?,
    })
}

/// Rotates the API key.
#[post("/config/key", data = "<form>")]
async fn rotate_key(who: Admin<'_>, form: Form, db: &State<Db>) -> HtmlReply {
    who.require_reauthentication()?;
    let (actor, now) = (who.actor(), who.now.wall);
    let rotated = match rotate_request(&form) {
        Ok(request) => {
            db.write("products.rotate_api_key", move |tx| {
                super::replace_api_key(tx, &request, &actor, now)
            })
            .await
        }
        Err(error) => Err(error),
    };
    let Err(error) = rotated else {
        return Html::redirect(format!("{PAGE}?at=key#key"));
    };
    let config = db.read(super::product_settings).await?;
    let values = json!({
        "seen": seen_for_retry(&error, &form, config.key_revision()),
        "client_name": config.client_name,
    });
    who.render_with_errors("products/key.html.tera", "config", &form, error, values)
        .await
}

/// The confirmation page for removing a feature flag.
#[get("/config/flags/<name>/remove")]
async fn confirm_remove_flag(who: Admin<'_>, name: &str, db: &State<Db>) -> HtmlReply {
    let name = name.to_owned();
    let flag = db.read(move |reader| super::flag(reader, &name)).await?;
    who.page("products/remove_flag.html.tera", json!({ "flag": flag }))
        .await
}

/// Removes a feature flag.
#[post("/config/flags/<name>/remove", data = "<_form>")]
async fn remove_flag(who: Admin<'_>, name: &str, _form: Form, db: &State<Db>) -> HtmlReply {
    let (name, actor, now) = (name.to_owned(), who.actor(), who.now.wall);
    db.write("products.remove_flag", move |tx| {
        super::remove_flag(tx, &name, &actor, now)
    })
    .await?;
    Html::redirect(format!("{PAGE}?at=flags#flags"))
}

/// The routes of the settings page.
pub fn routes() -> Vec<Route> {
    routes![
        page,
        update,
        updated,
        first,
        rotate_key_form,
        rotate_key,
        confirm_remove_flag,
        remove_flag
    ]
}
