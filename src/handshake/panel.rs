//! The door for administrators in a browser: which licenses are on which domains, how handshakes ended, and
//! the domain of one license.

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
use crate::web::html::{Html, HtmlReply, address};
use crate::web::query;

/// Licenses on one page.
const PAGE: u32 = 50;
/// Licenses on their way that are shown above them.
const MOVING: u32 = 20;
/// The latest handshakes below them, and those on a page of their own.
const LATEST: u32 = 10;
const HANDSHAKES: u32 = 50;
const LIST: &str = "/lizenzserver/sites";
const PAST: &str = "/lizenzserver/sites/handshakes";
const LICENSES: &str = "/lizenzserver/licenses";
const FORM: &str = "handshake/domain.html.tera";

/// A name, and how people of its script write it.
fn name(domain: &Domain) -> Value {
    json!({ "name": domain, "script": domain.in_its_script() })
}

/// The domains of a license as pages show them.
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
        "stopped": licenses::standing(&bound.license, now).is_err(),
        "site": self::binding(&bound.binding, bound.proved_at),
    })
}

fn past(past: &LogEntry) -> Value {
    let ended = &past.ended;
    let tone = match ended.ending {
        Outcome::Delivered => "ok",
        Outcome::Undelivered | Outcome::Unanswered => "bad",
        Outcome::Refused => "warn",
        Outcome::Abandoned => "idle",
    };
    json!({
        "at": ended.at,
        "domain": name(&ended.domain),
        "source": ended.source,
        "operation": ended.operation,
        "tone": tone,
        "ending": ended.ending.word(),
        "status": ended.reason.strip_prefix("status_"),
        "reason": ended.reason,
    })
}

/// Sites: who is where, who moves, and who asked lately.
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
    let (first, looked_for) = (from.is_none(), search.clone());
    let (mut rows, moving, latest) = db
        .read(move |reader| {
            let (name, id) = from.unwrap_or_default();
            let rows = super::bound(reader, &looked_for, (&name, LicenseId(id)), PAGE + 1)?;
            let latest = super::last(reader, None, i64::MAX, LATEST)?;
            Ok((rows, super::moving(reader, MOVING)?, latest))
        })
        .await?;
    let more = rows.len() > PAGE as usize;
    rows.truncate(PAGE as usize);
    let now = who.now.wall;
    let last = rows.last().filter(|_| more);
    let older = last.and_then(|last| {
        let (domain, id) = (last.binding.domain.as_ref()?, last.license.id.to_string());
        let pairs = [
            ("q", search.as_str()),
            ("after", domain.as_str()),
            ("after_id", &id),
        ];
        Some(address(LIST, &pairs))
    });
    // Above a search or a further page they would only be in the way.
    let plain = first && search.is_empty();
    let moving = moving.iter().filter(|_| plain).map(|bound| row(bound, now));
    let values = json!({
        "rows": rows.iter().map(|bound| row(bound, now)).collect::<Vec<_>>(),
        "moving": moving.collect::<Vec<_>>(),
        "latest": latest.iter().filter(|_| plain).map(past).collect::<Vec<_>>(),
        "q": search,
        "older": older,
        "newer": (!first).then(|| address(LIST, &[("q", &search)])),
    });
    who.page("handshake/list.html.tera", values).await
}

/// The last handshakes, of one domain or of all.
#[get("/sites/handshakes?<domain>&<before>")]
async fn handshakes(
    who: Support<'_>,
    domain: Option<&str>,
    before: Option<&str>,
    db: &State<Db>,
) -> HtmlReply {
    let before = query::number("before", before)?;
    let typed = domain.unwrap_or_default().trim().to_owned();
    let wanted = Domain::typed(&typed);
    let unknown = wanted.is_none() && !typed.is_empty();
    let from = before.unwrap_or(i64::MAX);
    let mut rows = db
        .read(move |reader| {
            if unknown {
                return Ok(Vec::new());
            }
            super::last(reader, wanted.as_ref(), from, HANDSHAKES + 1)
        })
        .await?;
    let more = rows.len() > HANDSHAKES as usize;
    rows.truncate(HANDSHAKES as usize);
    let last = rows.last().filter(|_| more).map(|past| past.id.to_string());
    let at = |before: &str| address(PAST, &[("domain", typed.as_str()), ("before", before)]);
    let values = json!({
        "rows": rows.iter().map(past).collect::<Vec<_>>(),
        "domain": typed,
        "older": last.map(|id| at(&id)),
        "newer": before.map(|_| at("")),
    });
    who.page("handshake/past.html.tera", values).await
}

/// A license and its domains, for a page about them.
async fn one(db: &Db, id: i64, now: UnixMs) -> Result<(License, DomainBinding)> {
    db.read(move |reader| {
        let id = LicenseId(id);
        Ok((
            licenses::find(reader, id)?,
            super::binding_at(reader, id, now)?,
        ))
    })
    .await
}

/// The form for a domain: the first of a license, or the one that it is to move to.
async fn ask(
    who: &PanelRequest<'_>,
    deed: &str,
    id: i64,
    db: &Db,
    handshakes: &Handshakes,
) -> Result<Value> {
    let (license, binding) = one(db, id, who.now.wall).await?;
    let days = handshakes.grace().as_secs() / 86_400;
    Ok(json!({
        "deed": deed,
        "license": { "id": license.id, "key": license.key, "customer": license.customer },
        "site": self::binding(&binding, None),
        "seen": super::state(&binding),
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
    let values = ask(&who, "bind", id, db, handshakes).await?;
    who.page(FORM, values).await
}

/// The form that begins a move.
#[get("/licenses/<id>/transfer")]
async fn transfer_form(
    who: Admin<'_>,
    id: i64,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    let values = ask(&who, "transfer", id, db, handshakes).await?;
    who.page(FORM, values).await
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
    place(
        &who,
        ("bind", BindingChange::Bind),
        id,
        &form,
        (db, handshakes),
    )
    .await
}

/// Begins a move.
#[post("/licenses/<id>/transfer", data = "<form>")]
async fn transfer(
    who: Admin<'_>,
    id: i64,
    form: Form,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    place(
        &who,
        ("transfer", BindingChange::Transfer),
        id,
        &form,
        (db, handshakes),
    )
    .await
}

async fn place(
    who: &PanelRequest<'_>,
    (deed, wish): (&'static str, fn(Domain) -> BindingChange),
    id: i64,
    form: &Form,
    (db, handshakes): (&Db, &Arc<Handshakes>),
) -> HtmlReply {
    let domain = Domain::typed(form.text("domain"));
    let domain = domain.ok_or_else(|| Error::invalid("domain", "must be a host name"));
    let placed = match domain {
        Ok(domain) => {
            let seen = form.raw("seen").to_owned();
            change(who, id, (wish(domain), Some(seen)), (db, handshakes)).await
        }
        Err(error) => Err(error),
    };
    let Err(error) = placed else {
        return Html::go(format!("{LICENSES}/{id}?done=domain_{deed}"));
    };
    let values = ask(who, deed, id, db, handshakes).await?;
    who.again(FORM, "handshake", form, error, values).await
}

async fn change(
    who: &PanelRequest<'_>,
    id: i64,
    (wish, seen): (BindingChange, Option<String>),
    (db, handshakes): (&Db, &Arc<Handshakes>),
) -> Result<()> {
    let (actor, now, grace) = (who.actor(), who.now.wall, handshakes.grace());
    db.write("handshake.set_domain", move |tx| {
        let id = LicenseId(id);
        match seen {
            Some(seen) => super::set_domain_seen(tx, id, (&wish, &seen), grace, &actor, now),
            None => super::set_domain(tx, id, &wish, grace, &actor, now),
        }
        .map(drop)
    })
    .await
}

/// Asks before a license leaves its domain.
#[get("/licenses/<id>/free")]
async fn ask_free(who: Admin<'_>, id: i64, db: &State<Db>) -> HtmlReply {
    let (license, binding) = one(db, id, who.now.wall).await?;
    let seen = super::state(&binding);
    let domain = binding
        .domain
        .ok_or_else(|| Error::from(super::Refusal::NoDomain))?;
    let mut members = Map::new();
    members.insert("domain".to_owned(), json!(domain));
    members.insert("customer".to_owned(), license.customer.into());
    let text = |key: &str| who.text(&format!("handshake.{key}"), &members);
    let mut why = vec![text("why_unbind")?];
    if let Some(transfer) = binding.transfer {
        members.insert("to".to_owned(), json!(transfer.domain));
        why.push(who.text("handshake.why_unbind_in_transfer", &members)?);
    }
    let values = json!({
        "ask": who.text("handshake.ask_unbind", &members)?,
        "why": why,
        "deed": who.text("handshake.do_unbind", &members)?,
        "back": format!("{LICENSES}/{id}"),
        "seen": seen,
    });
    who.page("parts/confirm.html.tera", values).await
}

/// Frees a license from its domains.
#[post("/licenses/<id>/free", data = "<form>")]
async fn free(
    who: Admin<'_>,
    id: i64,
    form: Form,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    let seen = form.raw("seen").to_owned();
    change(
        &who,
        id,
        (BindingChange::Free, Some(seen)),
        (db, handshakes),
    )
    .await?;
    Html::go(format!("{LICENSES}/{id}?done=domain_free"))
}

/// Calls a move off: it can be begun again, so nobody is asked.
#[post("/licenses/<id>/cancel-transfer", data = "<_form>")]
async fn cancel_transfer(
    who: Admin<'_>,
    id: i64,
    _form: Form,
    db: &State<Db>,
    handshakes: &State<Arc<Handshakes>>,
) -> HtmlReply {
    change(
        &who,
        id,
        (BindingChange::CancelTransfer, None),
        (db, handshakes),
    )
    .await?;
    Html::go(format!("{LICENSES}/{id}?done=domain_stays"))
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![
        list,
        handshakes,
        bind_form,
        bind,
        transfer_form,
        transfer,
        ask_free,
        free,
        cancel_transfer
    ]
}
