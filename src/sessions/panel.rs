//! The door for administrators in a browser: live sessions and the history.

use std::sync::Arc;

use rocket::{Route, State, get, post, routes};
use serde_json::{Map, Value, json};

use super::{Edge, EndReason, Ended, Listed, Live, Look, Order, Page, Place, Running};
use crate::admins::panel::{Admin, Support};
use crate::client_config::Current;
use crate::clock::UnixMs;
use crate::db::Db;
use crate::error::Error;
use crate::id::SessionId;
use crate::web::form::Form;
use crate::web::html::{self, Html, HtmlReply, address};

/// Sessions on one page.
const PAGE: u32 = 25;
const LIST: &str = "/lizenzserver/sessions";

/// What an address says of the list.
#[derive(Debug, rocket::FromForm)]
struct Asked<'r> {
    q: Option<&'r str>,
    order: Option<&'r str>,
    after: Option<&'r str>,
    before: Option<&'r str>,
    /// Only the rows, for a script.
    part: bool,
}

/// A page of the sessions that run.
#[get("/sessions?<asked..>")]
async fn list(
    who: Support<'_>,
    asked: Asked<'_>,
    db: &State<Db>,
    live: &State<Arc<Live>>,
    current: &State<Arc<Current>>,
) -> HtmlReply {
    let usual = Order::Newest;
    let settings = current.get(db).await?;
    let look = Look {
        search: asked.q.unwrap_or_default().trim().to_owned(),
        order: asked.order.and_then(Order::of_word).unwrap_or(usual),
        from: edge(asked.after, asked.before),
        limit: PAGE,
        heartbeat_interval: settings.config.heartbeat_interval,
    };
    let (live, now, wanted) = (live.inner().clone(), who.now, look.clone());
    let (page, count) = db
        .read(move |reader| {
            let page = super::page(reader, &live, &wanted, now)?;
            Ok((page, super::live_count(reader, &live, now)?))
        })
        .await?;
    let order = Some(look.order)
        .filter(|order| *order != usual)
        .map(Order::word)
        .unwrap_or_default();
    let filter = [("q", look.search.as_str()), ("order", order)];
    let (after, before) = written(look.from);
    let here = [("after", after.as_str()), ("before", before.as_str())];
    let part = [&filter[..], &here[..], &[("part", "true")]].concat();
    let heads = [
        ("started", Order::Newest, Order::Oldest),
        ("heard", Order::Heard, Order::Silent),
    ];
    let heads = heads.map(|(name, down, up)| head(name, down, up, &look));
    let (newer, older) = neighbours(LIST, &filter, &page, |row: &Listed| row.place);
    let values = json!({
        "rows": page.rows.iter().map(listed).collect::<Vec<_>>(),
        "running": count,
        "q": look.search,
        "order": order,
        "live": address(LIST, &part),
        "heads": heads.into_iter().collect::<Map<_, _>>(),
        "newer": newer,
        "older": older,
        // Only by start are the rows above newer ones.
        "pages": if look.order == usual { "time" } else { "place" },
        "part": asked.part,
    });
    if asked.part {
        return who.part("sessions/rows.html.tera", values);
    }
    who.page("sessions/list.html.tera", values).await
}

/// The head of a column that orders the list: by `down` first, by `up` when pressed again.
fn head(name: &str, down: Order, up: Order, look: &Look) -> (String, Value) {
    let (sort, next) = match look.order {
        order if order == down => ("descending", up),
        order if order == up => ("ascending", down),
        _ => ("", down),
    };
    let next = Some(next).filter(|order| *order != Order::Newest);
    let next = next.map(Order::word).unwrap_or_default();
    let href = address(LIST, &[("q", &look.search), ("order", next)]);
    (name.to_owned(), json!({ "sort": sort, "href": href }))
}

fn listed(row: &Listed) -> Value {
    let mut facts = session(&row.session);
    facts.insert("silent".to_owned(), row.silent.into());
    Value::Object(facts)
}

fn session(session: &Running) -> Map<String, Value> {
    html::members(json!({
        "id": session.id,
        "license_id": session.license_id,
        "key": session.license_key,
        "customer": session.customer,
        "machine": session.machine_id,
        "hardware": session.hardware_id,
        "address": session.address,
        "version": session.version,
        "started_at": session.started_at,
        "heard_at": session.last_heartbeat_at,
    }))
}

fn past(ended: &Ended) -> Value {
    let mut facts = session(&ended.session);
    facts.insert("ended_at".to_owned(), json!(ended.ended_at));
    facts.insert("reason".to_owned(), json!(ended.reason));
    Value::Object(facts)
}

/// Where a page begins: `<moment>.<number>` of a row.
fn edge(after: Option<&str>, before: Option<&str>) -> Edge {
    let place = |text: &str| {
        let (at, id) = text.split_once('.')?;
        let (at, id) = (at.parse().ok()?, id.parse().ok()?);
        Some(Place {
            at: UnixMs(at),
            id: SessionId(id),
        })
    };
    let after = after.and_then(place).map(Edge::After);
    let before = before.and_then(place).map(Edge::Before);
    after.or(before).unwrap_or(Edge::Top)
}

fn word(place: Place) -> String {
    format!("{}.{}", place.at.0, place.id)
}

/// The values of `after` and `before` in an address.
fn written(edge: Edge) -> (String, String) {
    match edge {
        Edge::Top => (String::new(), String::new()),
        Edge::After(place) => (word(place), String::new()),
        Edge::Before(place) => (String::new(), word(place)),
    }
}

/// The addresses of the pages above and below.
fn neighbours<T>(
    list: &str,
    filter: &[(&str, &str)],
    page: &Page<T>,
    place: impl Fn(&T) -> Place,
) -> (Option<String>, Option<String>) {
    let to = |name: &str, row: Option<&T>| {
        let at = word(place(row?));
        Some(address(list, &[filter, &[(name, &at)]].concat()))
    };
    let above = page.rows.first().filter(|_| page.above);
    let below = page.rows.last().filter(|_| page.below);
    (to("before", above), to("after", below))
}

/// Asks before a session is ended; says so where it is over already.
#[get("/sessions/<id>/terminate")]
async fn ask(
    who: Admin<'_>,
    id: i64,
    db: &State<Db>,
    current: &State<Arc<Current>>,
) -> HtmlReply {
    let settings = current.get(db).await?;
    let id = SessionId(id);
    let (running, ended) = db
        .read(move |reader| {
            Ok((
                super::running_by_id(reader, id)?,
                super::ended(reader, id)?,
            ))
        })
        .await?;
    if running.is_none() && ended.is_none() {
        return Err(Error::not_found("session", id).into());
    }
    let values = json!({
        "session": running.as_ref().map(session),
        "ended": ended.as_ref().map(past),
        "interval": settings.config.heartbeat_interval,
    });
    who.page("sessions/terminate.html.tera", values).await
}

/// Ends a session.
#[post("/sessions/<id>/terminate", data = "<_form>")]
async fn terminate(
    who: Admin<'_>,
    id: i64,
    _form: Form,
    db: &State<Db>,
    live: &State<Arc<Live>>,
) -> HtmlReply {
    let (id, live, actor, now) = (SessionId(id), live.inner().clone(), who.actor(), who.now);
    let done = db
        .write("sessions.terminate", move |tx| {
            super::terminate(tx, &live, id, &actor, now)
        })
        .await;
    match done {
        Ok(EndReason::Forced) => Html::go(format!("{LIST}?done=session_ended")),
        Ok(_) => Html::go(format!("{LIST}?done=session_over")),
        // It ended while the question was on the screen: the page of the question says how.
        Err(Error::NotFound { .. }) => Html::go(format!("{LIST}/{id}/terminate")),
        Err(other) => Err(other.into()),
    }
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![list, ask, terminate]
}
