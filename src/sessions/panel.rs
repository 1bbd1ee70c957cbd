//! The door for administrators in a browser: live sessions and the history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rocket::http::Status;
use rocket::{Route, State, get, post, routes};
use serde_json::{Map, Value, json};

use super::{
    Edge, EndReason, Ended, Filter, ListQuery, ListRow, LiveSessions, Order, Page, Place, Running,
};
use crate::admins::panel::{Admin, Support};
use crate::client_config::ProgramSettingsCache;
use crate::clock::UnixMs;
use crate::db::Db;
use crate::error::Error;
use crate::id::SessionId;
use crate::licenses;
use crate::web::csv::Csv;
use crate::web::form::Form;
use crate::web::html::{self, Html, HtmlReply, address};
use crate::web::query;

/// Sessions on one page.
const PAGE: u32 = 25;
const LIST: &str = "/lizenzserver/sessions";
const HISTORY: &str = "/lizenzserver/sessions/history";
/// Rows of one file to keep: some 3 MB.
const SHEET_MAX: usize = 20_000;
/// Rows that are read at once for such a file.
const SHEET_PAGE: u32 = 500;
const DAY: Duration = Duration::from_hours(24);
/// Spans of the history by their words in an address; the first is the usual one, the last has no end.
const SPANS: &[(&str, Option<u32>)] = &[
    ("1", Some(1)),
    ("7", Some(7)),
    ("30", Some(30)),
    ("all", None),
];

/// What an address says of the list.
#[derive(Debug, rocket::FromForm)]
struct SessionsQuery<'r> {
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
    asked: SessionsQuery<'_>,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
    current: &State<Arc<ProgramSettingsCache>>,
) -> HtmlReply {
    let usual = Order::Newest;
    let settings = current.get(db).await?;
    let look = ListQuery {
        search: asked.q.unwrap_or_default().trim().to_owned(),
        order: query::known("order", asked.order, Order::of_word)?.unwrap_or(usual),
        from: edge(asked.after, asked.before)?,
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
    let sorted = Some(look.order)
        .filter(|order| *order != usual)
        .map(Order::word)
        .unwrap_or_default();
    let filter = [("q", look.search.as_str()), ("order", sorted)];
    let (after, before) = written(look.from);
    let here = [("after", after.as_str()), ("before", before.as_str())];
    let part = [&filter[..], &here[..], &[("part", "true")]].concat();
    let heads = [
        ("started", Order::Newest, Order::Oldest),
        ("heard", Order::Heard, Order::Silent),
    ];
    let heads = heads.map(|(name, down, up)| head(name, down, up, &look));
    let (newer, older) = neighbours(LIST, &filter, &page, |row: &ListRow| row.place);
    let values = json!({
        "rows": page.rows.iter().map(listed).collect::<Vec<_>>(),
        "running": count,
        "q": look.search,
        "order": sorted,
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
fn head(name: &str, down: Order, up: Order, look: &ListQuery) -> (String, Value) {
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

fn listed(row: &ListRow) -> Value {
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
    facts.insert("sessions".to_owned(), json!(ended.sessions));
    Value::Object(facts)
}

/// Where a page begins: `<moment>.<number>` of a row.
fn edge(after: Option<&str>, before: Option<&str>) -> Result<Edge, Error> {
    let place = |text: &str| {
        let (at, id) = text.split_once('.')?;
        let (at, id) = (at.parse().ok()?, id.parse().ok()?);
        Some(Place {
            at: UnixMs(at),
            id: SessionId(id),
        })
    };
    let after = query::known("after", after, place)?.map(Edge::After);
    let before = query::known("before", before, place)?.map(Edge::Before);
    Ok(after.or(before).unwrap_or(Edge::Top))
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
    current: &State<Arc<ProgramSettingsCache>>,
) -> HtmlReply {
    let settings = current.get(db).await?;
    let id = SessionId(id);
    let (running, ended) = db
        .read(move |reader| Ok((super::running_by_id(reader, id)?, super::ended(reader, id)?)))
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
    live: &State<Arc<LiveSessions>>,
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

/// What an address says of the history.
#[derive(Debug, rocket::FromForm)]
struct View<'r> {
    license: Option<&'r str>,
    customer: Option<&'r str>,
    reason: Option<&'r str>,
    span: Option<&'r str>,
    from: Option<&'r str>,
    to: Option<&'r str>,
    after: Option<&'r str>,
    before: Option<&'r str>,
}

fn given(text: Option<&str>) -> &str {
    text.unwrap_or_default().trim()
}

impl View<'_> {
    /// The filter as the address of another page has it.
    fn pairs(&self) -> [(&'static str, &str); 6] {
        [
            ("license", given(self.license)),
            ("customer", given(self.customer)),
            ("reason", given(self.reason)),
            ("span", self.span()),
            ("from", given(self.from)),
            ("to", given(self.to)),
        ]
    }

    /// The word of the span; empty for the usual one, and where days were given.
    fn span(&self) -> &str {
        let days = !given(self.from).is_empty() || !given(self.to).is_empty();
        let (usual, _) = SPANS.first().copied().unwrap_or_default();
        let known = |word: &&str| *word != usual;
        Some(given(self.span))
            .filter(known)
            .filter(|_| !days)
            .unwrap_or_default()
    }

    /// What to show at `now`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a day that is none.
    fn filter(&self, now: UnixMs) -> Result<Filter, Error> {
        let (from, to) = (given(self.from), given(self.to));
        let is_span = |word: &str| SPANS.iter().any(|(known, _)| *known == word).then_some(());
        query::known("span", self.span, is_span)?;
        let key = given(self.license);
        if !key.is_empty() && licenses::key_part(key).is_empty() {
            return Err(Error::invalid("license", "must be a part of a license key"));
        }
        let span = SPANS.iter().find(|(word, _)| *word == self.span());
        let days = span.map_or(Some(1), |(_, days)| *days);
        let since = match (from, to) {
            ("", "") => days.map_or(UnixMs(0), |days| now.minus(DAY * days)),
            ("", _) => UnixMs(0),
            (day, _) => day_end("from", day)?.minus(DAY).plus_s(1),
        };
        let until = match to {
            "" => UnixMs(i64::MAX),
            day => day_end("to", day)?.plus_s(1),
        };
        Ok(Filter {
            key: key.to_owned(),
            customer: given(self.customer).to_owned(),
            reason: query::known("reason", self.reason, EndReason::of_word)?,
            since,
            until,
        })
    }
}

/// The last second of a day.
fn day_end(field: &'static str, day: &str) -> Result<UnixMs, Error> {
    let end = UnixMs::parse(day).ok().filter(|_| day.len() == 10);
    end.ok_or_else(|| Error::invalid(field, "must be a date like 2026-12-31"))
}

/// A page of the sessions that ended.
#[get("/sessions/history?<view..>")]
async fn history(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let mut values = html::members(json!({
        "filter": view.pairs().into_iter().collect::<HashMap<_, _>>(),
        "reasons": EndReason::ALL.map(EndReason::word),
        "spans": SPANS.iter().map(|(word, _)| *word).collect::<Vec<_>>(),
        "sheet_max": SHEET_MAX,
        "rows": [], "newer": null, "older": null, "sheet": null, "wrong": null,
    }));
    let filter = match view.filter(who.now.wall) {
        Ok(filter) => filter,
        Err(Error::Invalid {
            field: field @ ("from" | "to"),
            ..
        }) => {
            values.insert("wrong".to_owned(), field.into());
            let (status, page) = (Status::UnprocessableEntity, "sessions/history.html.tera");
            return who.page_with(status, page, Value::Object(values)).await;
        }
        Err(other) => return Err(other.into()),
    };
    let from = edge(view.after, view.before)?;
    let page = db
        .read(move |reader| super::history_page(reader, &filter, from, PAGE))
        .await?;
    let (newer, older) = neighbours(HISTORY, &view.pairs(), &page, Ended::place);
    let sheet = address(&format!("{HISTORY}.csv"), &view.pairs());
    values.extend(html::members(json!({
        "rows": page.rows.iter().map(past).collect::<Vec<_>>(),
        "newer": newer,
        "older": older,
        "sheet": sheet,
    })));
    who.page("sessions/history.html.tera", Value::Object(values))
        .await
}

/// The same as a table to keep, read page by page: so long a history must not stand in the way of others.
#[get("/sessions/history.csv?<view..>")]
async fn sheet(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let filter = Arc::new(view.filter(who.now.wall)?);
    let head = [
        "id",
        "license_key",
        "customer",
        "machine_id",
        "hardware_id",
        "address",
        "version",
        "started_at",
        "last_heartbeat_at",
        "ended_at",
        "end_reason",
        "sessions",
    ];
    let mut sheet = Csv::new(&head, who.language)?;
    let mut from = Edge::Top;
    loop {
        let filter = filter.clone();
        let page = db
            .read(move |reader| super::history_page(reader, &filter, from, SHEET_PAGE))
            .await?;
        let mut has_room = true;
        for ended in &page.rows {
            has_room = sheet.row_up_to(SHEET_MAX, &cells(ended))?;
        }
        match page.rows.last().filter(|_| page.below && has_room) {
            Some(last) => from = Edge::After(last.place()),
            None => break,
        }
    }
    Ok(sheet.file("sessions")?)
}

fn cells(ended: &Ended) -> [String; 12] {
    let session = &ended.session;
    [
        session.id.to_string(),
        session.license_key.shown(),
        session.customer.clone(),
        session.machine_id.clone(),
        session.hardware_id.clone(),
        session.address.clone(),
        session.version.to_string(),
        session.started_at.rfc3339(),
        session.last_heartbeat_at.rfc3339(),
        ended.ended_at.rfc3339(),
        ended.reason.word().to_owned(),
        ended.sessions.to_string(),
    ]
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![list, ask, terminate, history, sheet]
}
