//! The settings page.
//!
//! Every change is a plain form that redirects back to its part of the page: `?at=client#client`. The panel's script sends
//! the same forms and reads the same pages, so there is one way to change something, with one token and one check of
//! `Sec-Fetch-Site`.

use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::first::{FIRST_COLUMNS, NEXT_STEP, render_first_with_errors};
use super::{PAGE, client, client_values};
use crate::admins::Role;
use crate::api_keys::{self, RetiredKey, masked};
use crate::app::App;
use crate::audit::Act;
use crate::clock::UnixMs;
use crate::db::{Db, Reader};
use crate::error::{Error, Faults, Result};
use crate::flags::{self, Flag};
use crate::id::ProductId;
use crate::licenses::Kind;
use crate::limits::{self, Limit, Rate};
use crate::overview::{self, Monitor};
use crate::panel::{Admin, PanelRequest, Support};
use crate::plans::{self, Plan};
use crate::products::{self, ProductSettings, SessionPolicy, SettingsChange, UnconfirmedMinimum};
use crate::revision::Revision;
use crate::version::Version;
use crate::web::form::{self, Fields, Form};
use crate::web::html::{Html, HtmlReply, object_members};

/// Sessions that the monitor lists.
const NEWEST: u32 = 5;
/// The field with the confirmed minimum version.
const CONFIRMED: &str = "confirmed_minimum";
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
    /// The plans by which trials can be issued.
    trial_plans: Vec<Plan>,
    monitor: Monitor,
}

impl SettingsPage {
    fn read(reader: &Reader<'_>, product: ProductId, now: UnixMs) -> Result<Self> {
        let config = products::product_settings(reader, product)?;
        Ok(Self {
            no_release: products::current_is_no_release(reader, &config)?,
            config,
            retired: api_keys::retired(reader, product, now)?,
            flags: flags::list(reader, product)?,
            limits: limits::list(reader)?,
            trial_plans: trial_plans(reader, product)?,
            monitor: overview::monitor(reader, product, now, NEWEST)?,
        })
    }

    async fn of(request: &PanelRequest<'_>, db: &Db) -> Result<Self> {
        let (product, now) = (request.product, request.now.wall);
        db.read(move |reader| Self::read(reader, product, now))
            .await
    }

    /// The values of the template. The API key is included only if the administrator may see it.
    fn values(&self, request: &PanelRequest<'_>) -> Value {
        let key = request.may(Role::Admin).then(|| self.key());
        let flags: Vec<Value> = self.flags.iter().map(flag).collect();
        let limits: Vec<Value> = self.shown_limits().map(limit).collect();
        json!({
            "client": client(&self.config),
            "trial_plans": self.trial_plans(),
            "policies": SessionPolicy::ALL,
            "too_high": self.config.minimum_version > self.config.current_version,
            "no_release": self.no_release,
            "key": key,
            "flags": flags,
            "limits": limits,
            "running": running(&self.monitor),
            "no_flag": form::empty_form(json!({ "enabled": true, "share": 100 })),
            "product_name": request.product_name(self.config.product),
            "faulty": "",
            "at": "",
        })
    }

    /// The plans that the field for trials offers, with the present one. Without any, the field is not shown.
    fn trial_plans(&self) -> Vec<Value> {
        let offered = self.trial_plans.iter();
        let mut plans: Vec<Value> = offered
            .map(|plan| json!({ "code": plan.code, "name": plan.terms.name }))
            .collect();
        if let Some(present) = &self.config.trial_plan
            && !self.trial_plans.iter().any(|plan| plan.id == present.id)
        {
            plans.push(json!({ "code": present.code, "name": present.code }));
        }
        plans
    }

    /// The limits; that of new trials only for a shop that has a plan for them.
    fn shown_limits(&self) -> impl Iterator<Item = &Limit> {
        let has_trials = !self.trial_plans.is_empty() || self.config.trial_plan.is_some();
        let limits = self.limits.iter();
        limits.filter(move |limit| has_trials || limit.name != limits::TRIALS)
    }

    /// The revision and the values of the form of a part of the page; `name` is that of a flag or limit.
    fn part(&self, part: &str, name: &str) -> Option<(Revision, Value)> {
        match part {
            "client" => Some((self.config.revision(), client_values(&self.config))),
            "flag" => {
                let flag = self.flags.iter().find(|flag| flag.name == name)?;
                Some((flag.revision(), flag_values(flag)))
            }
            "limit" => {
                let limit = self.limits.iter().find(|limit| limit.name == name)?;
                Some((limit.revision(), limit_values(limit).0))
            }
            _ => None,
        }
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

/// The plans by which a product can issue trials.
fn trial_plans(reader: &Reader<'_>, product: ProductId) -> Result<Vec<Plan>> {
    let mut plans = plans::for_sale(reader, product)?;
    plans.retain(|plan| plan.terms.kind == Kind::Trial);
    Ok(plans)
}

fn flag_values(flag: &Flag) -> Value {
    json!({
        "name": flag.name,
        "description": flag.description,
        "enabled": flag.enabled,
        "share": flag.share_percent,
    })
}

fn flag(flag: &Flag) -> Value {
    let form = form::empty_form(flag_values(flag));
    json!({ "name": flag.name, "seen": flag.revision(), "form": form })
}

/// The values of the form of a limit, and the unit of time.
fn limit_values(limit: &Limit) -> (Value, &'static str) {
    match limit.rate {
        Rate::PerMinute { calls, burst } => {
            (json!({ "per_minute": calls, "burst": burst }), "minute")
        }
        Rate::PerHour { trials } => (json!({ "per_hour": trials }), "hour"),
    }
}

fn limit(limit: &Limit) -> Value {
    let (values, unit) = limit_values(limit);
    json!({
        "name": limit.name,
        "unit": unit,
        "seen": limit.revision(),
        "form": form::empty_form(values),
    })
}

fn running(monitor: &Monitor) -> Value {
    let newest = monitor.newest.iter().map(|session| {
        json!({
            "customer_id": session.customer_id,
            "customer": session.customer,
            "license_id": session.license_id,
            "license_key": session.license_key,
            "machine_id": session.machine_id,
            "version": session.version,
            "started_at": session.started_at,
        })
    });
    json!({ "count": monitor.count, "newest": newest.collect::<Vec<_>>() })
}

/// The page. `at` names the part that is open at first; with `part=monitor`, only the active sessions, for a script that
/// polls them.
#[get("/config?<at>&<part>")]
async fn page(request: Support<'_>, at: Option<&str>, part: Option<&str>, app: &App) -> HtmlReply {
    let (product, now) = (request.product, request.now.wall);
    if part == Some("monitor") {
        let monitor = app
            .db
            .read(move |reader| overview::monitor(reader, product, now, NEWEST));
        let values = json!({ "running": running(&monitor.await?) });
        return request.part("products/monitor.html.tera", values);
    }
    let mut values = object_members(SettingsPage::of(&request, &app.db).await?.values(&request));
    values.insert("at".to_owned(), at.unwrap_or_default().into());
    if let Some(typed) = request.take_pending() {
        values.insert("kept".to_owned(), true.into());
        values.insert("faulty".to_owned(), form_id(&typed).into());
        values.insert("seen".to_owned(), json!(typed.revision()));
        values.insert("rejected".to_owned(), form::with_errors(&typed, Vec::new()));
    }
    request
        .page("products/page.html.tera", Value::Object(values))
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

/// Identifies a form on the page: `client`, `new_flag`, `flag:<name>`, `limit:<name>`.
fn form_id(form: &Fields) -> String {
    match form.text("part") {
        part @ ("flag" | "limit") => format!("{part}:{}", form.text("name")),
        part => part.to_owned(),
    }
}

/// The change that a form asks for, and the faults of the form.
fn change(form: &Fields) -> (SettingsChange, Faults) {
    let mut faults = Faults::default();
    let change = match form.text("part") {
        "client" => {
            let mut columns = typed(form, &COLUMNS);
            // The page has this field only if there is a plan for trials.
            if form.has("trial_plan") {
                columns.extend(typed(form, &["trial_plan"]));
            }
            SettingsChange::Client(columns, confirmed_minimum(form))
        }
        "first" => SettingsChange::Client(typed(form, &FIRST_COLUMNS), confirmed_minimum(form)),
        "new_flag" => SettingsChange::NewFlag(flag_of(form, &mut faults)),
        "flag" => SettingsChange::Flag(flag_of(form, &mut faults)),
        _ => SettingsChange::Limit(Limit {
            name: form.text("name").to_owned(),
            rate: rate_of(form, &mut faults),
        }),
    };
    (change, faults)
}

/// The minimum version that the administrator has confirmed on the page of the question.
fn confirmed_minimum(form: &Fields) -> Option<Version> {
    form.text(CONFIRMED).parse().ok()
}

fn rate_of(form: &Fields, faults: &mut Faults) -> Rate {
    let mut number = |name| faults.keep(form.number(name)).unwrap_or(1);
    if form.has("per_hour") {
        let trials = number("per_hour");
        return Rate::PerHour { trials };
    }
    Rate::PerMinute {
        calls: number("per_minute"),
        burst: number("burst"),
    }
}

fn typed(form: &Fields, columns: &[&str]) -> Vec<(String, String)> {
    let columns = columns.iter();
    columns
        .map(|column| ((*column).to_owned(), form.text(column).to_owned()))
        .collect()
}

fn flag_of(form: &Fields, faults: &mut Faults) -> Flag {
    Flag {
        name: form.text("name").to_owned(),
        description: form.text("description").to_owned(),
        enabled: form.has("enabled"),
        share_percent: faults.keep(form.number("share")).unwrap_or_default(),
    }
}

/// Saves any part of the page.
#[post("/config/update", data = "<form>")]
async fn update(request: Admin<'_>, form: Form, app: &App) -> HtmlReply {
    request.once(&form, update_once(&request, &form, app)).await
}

async fn update_once(request: &PanelRequest<'_>, form: &Fields, app: &App) -> HtmlReply {
    let at = part_id(form)?;
    let (change, faults) = change(form);
    let (seen, actor) = (form.revision(), request.actor());
    let (product, now) = (request.product, request.now.wall);
    let saved = app
        .db
        .write("products.update", move |tx| {
            let act = Act::new(tx, &actor, now);
            faults.with(products::update(&act, product, &change, &seen))
        })
        .await;
    if let Err(error) = &saved
        && let Some(minimum) = UnconfirmedMinimum::of(error)
    {
        return ask_minimum(request, form, minimum).await;
    }
    match (saved, at) {
        (Ok(()), "first") => Html::redirect(NEXT_STEP),
        (Ok(()), at) => Html::done(format!("{PAGE}?at={at}#{at}"), "part_saved"),
        (Err(error), "first") => render_first_with_errors(request, form, error, &app.db).await,
        (Err(error), _) => render_with_errors(request, form, error, &app.db).await,
    }
}

/// Asks before programs older than a new minimum version are refused. The question carries the whole form.
async fn ask_minimum(
    request: &PanelRequest<'_>,
    form: &Fields,
    minimum: UnconfirmedMinimum,
) -> HtmlReply {
    let fields = form.iter().filter(|(name, _)| *name != CONFIRMED);
    let back = match form.text("part") {
        "first" => "/lizenzserver/config/client/new",
        _ => PAGE,
    };
    let values = json!({
        "version": minimum.version,
        "devices": minimum.devices,
        "current": form.text("current_version"),
        "fields": fields.collect::<Vec<_>>(),
        "back": back,
    });
    request.page("products/minimum.html.tera", values).await
}

/// Redirects to the page. After a form with an error, this is the address in the browser, which may be reloaded.
#[get("/config/update")]
fn updated(_request: Admin<'_>) -> HtmlReply {
    Html::redirect(PAGE)
}

/// The page with an error in the form that was sent, which keeps its input.
async fn render_with_errors(
    request: &PanelRequest<'_>,
    form: &Fields,
    error: Error,
    db: &Db,
) -> HtmlReply {
    let page = SettingsPage::of(request, db).await?;
    let (part, name) = (form.text("part"), form.text("name"));
    let saved = page.part(part, name);
    let current = saved.as_ref().map(|(revision, _)| revision.clone());
    let current = current.unwrap_or_default();
    let mut values = object_members(page.values(request));
    values.insert("faulty".to_owned(), form_id(form).into());
    let seen = Revision::parse(form.raw("seen")).after(&error, current);
    values.insert("seen".to_owned(), json!(seen));
    let rejected = form.rejected("config", error);
    let rejected = match saved {
        Some((_, values)) => rejected.against(values),
        None => rejected,
    };
    let (status, rejected) = request.rejected_form(rejected)?;
    values.insert("rejected".to_owned(), rejected);
    request
        .page_with(status, "products/page.html.tera", Value::Object(values))
        .await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![page, update, updated]
}
