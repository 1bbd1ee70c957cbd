//! Handlers of the panel: the list of sites, the handshake log, and the domain of one license.

use std::sync::Arc;

use rocket::{Route, State, get, post, routes};
use serde_json::{Map, Value, json};

use super::{BindingChange, BoundLicense, DomainBinding, Handshakes, LogEntry, Outcome};
use crate::admins::panel::{Admin, PanelRequest, Support};
use crate::clock::UnixMs;
use crate::db::Db;
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::id::LicenseId;
use crate::licenses::{self, License};
use crate::web::form::{self, Form};
use crate::web::html::{Html, HtmlReply, path_with_query};
use crate::web::query;

/// Licenses on one page of the list.
const PAGE_SIZE: u32 = 50;
/// Transfers in progress that are shown above the list.
const TRANSFERS_SHOWN: u32 = 20;
/// Log entries that are shown below the list.
const LOG_ENTRIES_SHOWN: u32 = 10;
/// Log entries on one page of the handshake log.
const LOG_PAGE_SIZE: u32 = 50;
const SITES_PATH: &str = "/lizenzserver/sites";
const LOG_PATH: &str = "/lizenzserver/sites/handshakes";
const LICENSES_PATH: &str = "/lizenzserver/licenses";
const FORM_TEMPLATE: &str = "handshake/domain.html.tera";

/// A domain in ASCII (`name`) and in its own script.
fn name(domain: &Domain) -> Value {
    json!({ "name": domain, "script": domain.to_unicode() })
}

/// A binding for templates.
pub fn binding(binding: &DomainBinding, proved_at: Option<UnixMs>) -> Value {
    let transfer = binding.transfer.as_ref().map(|transfer| {
        json!({
            "to": name(&transfer.domain),
            "until": transfer.until,
            "confirmed_at": transfer.confirmed_at,
        })
    });
    json!({
        "domain": binding.domain.as_ref().map(name),
        "proved_at": proved_at,
        "transfer": transfer,
    })
}

fn row(bound: &BoundLicense, now: UnixMs) -> Value {
    let License {
        id, key, customer, ..
    } = &bound.license;
    json!({
        "license": { "id": id, "key": key, "customer": customer },
        "stopped": licenses::check_usable(&bound.license, now).is_err(),
        "site": self::binding(&bound.binding, bound.proved_at),
    })
}

fn log_row(entry: &LogEntry) -> Value {
    let finished = &entry.finished;
    let tone = match finished.outcome {
        Outcome::Delivered => "ok",
        Outcome::Undelivered | Outcome::Unanswered => "bad",
        Outcome::Refused => "warn",
        Outcome::Abandoned => "idle",
    };
    json!({
        "at": finished.at,
        "domain": name(&finished.domain),
        "source": finished.source,
        "operation": finished.operation,
        "tone": tone,
        "ending": finished.outcome.word(),
        "status": finished.reason.strip_prefix("status_"),
        "reason": finished.reason,
    })
}

/// The list of sites, with the transfers in progress and the latest handshakes.
#[get("/sites?<q>&<after>&<after_id>")]
async fn list(
    who: Support<'_>,
    q: Option<&str>,
    after: Option<&str>,
    after_id: Option<&str>,
    db: &State<Db>,
) -> HtmlReply {
    let search = q.unwrap_or_default().trim().to_owned();
    let after_id = query::number("after_id", after_id)?;
    let from = after.zip(after_id).map(|(name, id)| (name.to_owned(), id));
    let (is_first_page, search_text) = (from.is_none(), search.clone());
    let (mut rows, moving, latest) = db
        .read(move |reader| {
            let (name, id) = from.unwrap_or_default();
            let rows =
                super::bound_licenses(reader, &search_text, (&name, LicenseId(id)), PAGE_SIZE + 1)?;
            let latest = super::log_entries(reader, None, i64::MAX, LOG_ENTRIES_SHOWN)?;
            Ok((
                rows,
                super::transfers_in_progress(reader, TRANSFERS_SHOWN)?,
                latest,
            ))
        })
        .await?;
    let more = rows.len() > PAGE_SIZE as usize;
    rows.truncate(PAGE_SIZE as usize);
    let now = who.now.wall;
    let last = rows.last().filter(|_| more);
    let older = last.and_then(|last| {
        let (domain, id) = (last.binding.domain.as_ref()?, last.license.id.to_string());
        let pairs = [
            ("q", search.as_str()),
            ("after", domain.as_str()),
            ("after_id", &id),
        ];
        Some(path_with_query(SITES_PATH, &pairs))
    });
    // Transfers and handshakes are on the first page only, and not beside search results.
    let is_start = is_first_page && search.is_empty();
    let moving = moving
        .iter()
        .filter(|_| is_start)
        .map(|bound| row(bound, now));
    let values = json!({
        "rows": rows.iter().map(|bound| row(bound, now)).collect::<Vec<_>>(),
        "moving": moving.collect::<Vec<_>>(),
        "latest": latest.iter().filter(|_| is_start).map(log_row).collect::<Vec<_>>(),
        "q": search,
        "older": older,
        "newer": (!is_first_page).then(|| path_with_query(SITES_PATH, &[("q", &search)])),
    });
    who.page("handshake/list.html.tera", values).await
}

/// The handshake log, of one domain or of all.
#[get("/sites/handshakes?<domain>&<before>")]
async fn handshakes(
    who: Support<'_>,
    domain: Option<&str>,
    before: Option<&str>,
    db: &State<Db>,
) -> HtmlReply {
    let before = query::number("before", before)?;
    let typed = domain.unwrap_or_default().trim().to_owned();
    let wanted = Domain::from_input(&typed);
    let is_malformed = wanted.is_none() && !typed.is_empty();
    let from = before.unwrap_or(i64::MAX);
    let mut rows = db
        .read(move |reader| {
            if is_malformed {
                return Ok(Vec::new());
            }
            super::log_entries(reader, wanted.as_ref(), from, LOG_PAGE_SIZE + 1)
        })
        .await?;
    let more = rows.len() > LOG_PAGE_SIZE as usize;
    rows.truncate(LOG_PAGE_SIZE as usize);
    let last = rows
        .last()
        .filter(|_| more)
        .map(|entry| entry.id.to_string());
    let at =
        |before: &str| path_with_query(LOG_PATH, &[("domain", typed.as_str()), ("before", before)]);
    let values = json!({
        "rows": rows.iter().map(log_row).collect::<Vec<_>>(),
        "domain": typed,
        "older": last.map(|id| at(&id)),
        "newer": before.map(|_| at("")),
    });
    who.page("handshake/past.html.tera", values).await
}

/// A license and its binding.
async fn license_with_binding(db: &Db, id: i64, now: UnixMs) -> Result<(License, DomainBinding)> {
    db.read(move |reader| {
        let id = LicenseId(id);
        Ok((
            licenses::find(reader, id)?,
            super::binding_at(reader, id, now)?,
        ))
    })
    .await
}

/// The values of the form for binding a license or starting a transfer.
async fn domain_form(
    who: &PanelRequest<'_>,
    action: &str,
    id: i64,
    db: &Db,
    handshakes: &Handshakes,
) -> Result<Value> {
    let (license, binding) = license_with_binding(db, id, who.now.wall).await?;
    let days = handshakes.grace().as_secs() / 86_400;
    Ok(json!({
        "deed": action,
        "license": { "id": license.id, "key": license.key, "customer": license.customer },
        "site": self::binding(&binding, None),
        "seen": super::revision(&binding),
        "days": days,
        "form": form::empty_form(json!({})),
    }))
}

/// The form that binds a license.
#[get("/licenses/<id>/bind")]
async fn bind_form(
    who: Admin<'_>,
    id: i64,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    let values = domain_form(&who, "bind", id, db, handshakes).await?;
    who.page(FORM_TEMPLATE, values).await
}

/// The form that starts a transfer.
#[get("/licenses/<id>/transfer")]
async fn transfer_form(
    who: Admin<'_>,
    id: i64,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    let values = domain_form(&who, "transfer", id, db, handshakes).await?;
    who.page(FORM_TEMPLATE, values).await
}

/// Binds a license.
#[post("/licenses/<id>/bind", data = "<form>")]
async fn bind(
    who: Admin<'_>,
    id: i64,
    form: Form,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    submit_domain(
        &who,
        ("bind", BindingChange::Bind),
        id,
        &form,
        (db, handshakes),
    )
    .await
}

/// Starts a transfer.
#[post("/licenses/<id>/transfer", data = "<form>")]
async fn transfer(
    who: Admin<'_>,
    id: i64,
    form: Form,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    submit_domain(
        &who,
        ("transfer", BindingChange::Transfer),
        id,
        &form,
        (db, handshakes),
    )
    .await
}

async fn submit_domain(
    who: &PanelRequest<'_>,
    (action, change): (&'static str, fn(Domain) -> BindingChange),
    id: i64,
    form: &Form,
    (db, handshakes): (&Db, &Arc<Handshakes>),
) -> HtmlReply {
    let domain = Domain::from_input(form.text("domain"));
    let domain = domain.ok_or_else(|| Error::invalid("domain", "must be a host name"));
    let saved = match domain {
        Ok(domain) => {
            let seen = form.raw("seen").to_owned();
            apply_change(who, id, (change(domain), Some(seen)), (db, handshakes)).await
        }
        Err(error) => Err(error),
    };
    let Err(error) = saved else {
        return Html::redirect(format!("{LICENSES_PATH}/{id}?done=domain_{action}"));
    };
    let values = domain_form(who, action, id, db, handshakes).await?;
    who.render_with_errors(FORM_TEMPLATE, "handshake", form, error, values)
        .await
}

async fn apply_change(
    who: &PanelRequest<'_>,
    id: i64,
    (change, seen): (BindingChange, Option<String>),
    (db, handshakes): (&Db, &Arc<Handshakes>),
) -> Result<()> {
    let (actor, now, grace) = (who.actor(), who.now.wall, handshakes.grace());
    db.write("handshake.set_domain", move |tx| {
        let id = LicenseId(id);
        match seen {
            Some(seen) => {
                super::set_domain_if_unchanged(tx, id, (&change, &seen), grace, &actor, now)
            }
            None => super::set_domain(tx, id, &change, grace, &actor, now),
        }
        .map(drop)
    })
    .await
}

/// The confirmation page for unbinding a license.
#[get("/licenses/<id>/free")]
async fn confirm_unbind(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let (license, binding) = license_with_binding(db, id, who.now.wall).await?;
    let seen = super::revision(&binding);
    let domain = binding
        .domain
        .ok_or_else(|| Error::from(super::Refusal::NoDomain))?;
    let mut params = Map::new();
    params.insert("domain".to_owned(), json!(domain));
    params.insert("customer".to_owned(), license.customer.into());
    let text = |key: &str| who.text(&format!("handshake.{key}"), &params);
    let mut why = vec![text("why_unbind")?];
    if let Some(transfer) = binding.transfer {
        params.insert("to".to_owned(), json!(transfer.domain));
        why.push(who.text("handshake.why_unbind_in_transfer", &params)?);
    }
    let values = json!({
        "ask": who.text("handshake.ask_unbind", &params)?,
        "why": why,
        "deed": who.text("handshake.do_unbind", &params)?,
        "back": format!("{LICENSES_PATH}/{id}"),
        "seen": seen,
    });
    who.page("parts/confirm.html.tera", values).await
}

/// Unbinds a license from its domains.
#[post("/licenses/<id>/free", data = "<form>")]
async fn unbind(
    who: Admin<'_>,
    id: i64,
    form: Form,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    let seen = form.raw("seen").to_owned();
    apply_change(
        &who,
        id,
        (BindingChange::Unbind, Some(seen)),
        (db, handshakes),
    )
    .await?;
    Html::redirect(format!("{LICENSES_PATH}/{id}?done=domain_free"))
}

/// Cancels a transfer. It can be started again, so there is no confirmation page.
#[post("/licenses/<id>/cancel-transfer", data = "<_form>")]
async fn cancel_transfer(
    who: Admin<'_>,
    id: i64,
    _form: Form,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    apply_change(
        &who,
        id,
        (BindingChange::CancelTransfer, None),
        (db, handshakes),
    )
    .await?;
    Html::redirect(format!("{LICENSES_PATH}/{id}?done=domain_stays"))
}

/// The routes of this module's pages.
pub fn routes() -> Vec<Route> {
    routes![
        list,
        handshakes,
        bind_form,
        bind,
        transfer_form,
        transfer,
        confirm_unbind,
        unbind,
        cancel_transfer
    ]
}
