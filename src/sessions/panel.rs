//! Handlers for the admin panel: running sessions.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::{ListQuery, ListRow, Order};
use crate::app::App;
use crate::audit::Act;
use crate::error::{Error, Resource};
use crate::id::SessionId;
use crate::paging::Cursor;
use crate::panel::{Admin, PanelRequest, Support, is_path_of_panel};
use crate::session_history::panel::{ended_json, parse_position, position_text, session_json};
use crate::session_history::{self, EndReason, Position};
use crate::web::form::Form;
use crate::web::html::{self, Html, HtmlReply, path_with_query};
use crate::web::pager::{Extent, Pager, Shown};
use crate::web::query;

const LIST: &str = "/lizenzserver/sessions";
const PAGER: Pager<'_, 1> = Pager {
    path: LIST,
    next: ["after"],
    previous: ["before"],
};
const DEFAULT_ORDER: Order = Order::Newest;
/// The columns that sort the list, with their orders.
const SORTED_COLUMNS: [(&str, Order, Order); 2] = [
    ("started", Order::Newest, Order::Oldest),
    (
        "last_heartbeat",
        Order::LatestHeartbeat,
        Order::EarliestHeartbeat,
    ),
];

/// The query parameters of the list.
#[derive(Debug, rocket::FromForm)]
struct SessionsQuery<'r> {
    q: Option<&'r str>,
    order: Option<&'r str>,
    rows: Option<&'r str>,
    row: Option<&'r str>,
    after: Option<&'r str>,
    before: Option<&'r str>,
    /// Whether to return only the rows, for the script that refreshes them.
    part: bool,
}

/// A page of the running sessions.
#[get("/sessions?<params..>")]
async fn list(request: Support<'_>, params: SessionsQuery<'_>, app: &App) -> HtmlReply {
    let extent = Extent::parse(params.rows, params.row)?;
    let list_query = ListQuery {
        search: params.q.unwrap_or_default().trim().to_owned(),
        order: query::parsed("order", params.order, Order::parse)?.unwrap_or(DEFAULT_ORDER),
        page: extent.request(PAGER.cursor(params.after, params.before, parse_position)?),
        product: request.chosen(),
    };
    let (live, now, query) = (app.live_sessions.clone(), request.now, list_query.clone());
    let (page, count, total) = app
        .db
        .read(move |reader| {
            let (page, total) = super::page(reader, &live, &query, now)?;
            let count = super::live_count(reader, query.product, &live, now)?;
            Ok((page, count, total))
        })
        .await?;
    let shown = Shown::new(&[], extent, &page, total);
    let mut values = list_values(&request, &list_query, shown);
    values.insert("running".to_owned(), count.into());
    values.insert("part".to_owned(), params.part.into());
    let values = Value::Object(values);
    if params.part {
        return request.part("sessions/rows.html.tera", values);
    }
    request.page("sessions/list.html.tera", values).await
}

/// A page of the list, as values for the template.
fn list_values(
    request: &PanelRequest<'_>,
    list_query: &ListQuery,
    shown: Shown<'_, ListRow>,
) -> Map<String, Value> {
    let order = Some(list_query.order)
        .filter(|order| *order != DEFAULT_ORDER)
        .map(Order::as_str)
        .unwrap_or_default();
    let filter = [("q", list_query.search.as_str()), ("order", order)];
    let (after, before) = cursor_params(list_query.page.from);
    let cursor = [("after", after.as_str()), ("before", before.as_str())];
    let (rows, row) = (shown.extent.length_text(), shown.extent.row_text());
    let numbers = [("rows", rows.as_str()), ("row", row.as_str())];
    let refresh = [&filter[..], &cursor, &numbers, &[("part", "true")]].concat();
    let headers = SORTED_COLUMNS.map(|(name, descending, ascending)| {
        column_header(name, descending, ascending, list_query)
    });
    let shown = Shown {
        filter: &filter,
        ..shown
    };
    let links = PAGER.links(&shown, |row| [position_text(row.position)]);
    html::object_members(json!({
        "rows": shown.page.rows.iter().map(|row| row_json(request, row)).collect::<Vec<_>>(),
        "q": list_query.search,
        "order": order,
        "refresh_path": path_with_query(LIST, &refresh),
        "headers": headers.into_iter().collect::<Map<_, _>>(),
        "pager": links,
        "pager_labels": pager_labels(list_query.order),
    }))
}

/// The labels of the links to the previous and the next page, for the template. The previous page has newer sessions only
/// if the latest start comes first.
const fn pager_labels(order: Order) -> &'static str {
    match order {
        Order::Newest => "newer_older",
        Order::Oldest | Order::LatestHeartbeat | Order::EarliestHeartbeat => "previous_next",
    }
}

/// The values of the query parameters `after` and `before` for the current page.
fn cursor_params(cursor: Cursor<Position>) -> (String, String) {
    match cursor {
        Cursor::First => (String::new(), String::new()),
        Cursor::After(position) => (position_text(position), String::new()),
        Cursor::Before(position) => (String::new(), position_text(position)),
    }
}

/// The header of a sortable column, with a link that sorts by it: in `descending` order, or in `ascending` order if the
/// list is in `descending` order already.
fn column_header(
    name: &str,
    descending: Order,
    ascending: Order,
    list_query: &ListQuery,
) -> (String, Value) {
    let (sort, next) = match list_query.order {
        order if order == descending => ("descending", ascending),
        order if order == ascending => ("ascending", descending),
        _ => ("", descending),
    };
    let next = Some(next).filter(|order| *order != DEFAULT_ORDER);
    let next = next.map(Order::as_str).unwrap_or_default();
    let href = path_with_query(LIST, &[("q", &list_query.search), ("order", next)]);
    (name.to_owned(), json!({ "sort": sort, "href": href }))
}

fn row_json(request: &PanelRequest<'_>, row: &ListRow) -> Value {
    let mut members = session_json(request, &row.session);
    members.insert("late".to_owned(), row.late.into());
    Value::Object(members)
}

/// The page that asks for confirmation before a session is ended, or states that it has ended already.
#[get("/sessions/<id>/terminate?<back>")]
async fn confirm_terminate(
    request: Admin<'_>,
    id: i64,
    back: Option<&str>,
    app: &App,
) -> HtmlReply {
    let id = SessionId(id);
    let (running, ended) = app
        .db
        .read(move |reader| {
            Ok((
                super::running_by_id(reader, id)?,
                session_history::by_id(reader, id)?,
            ))
        })
        .await?;
    let session = running
        .as_ref()
        .or(ended.as_ref().map(|ended| &ended.session));
    let session = session.ok_or_else(|| Error::not_found(Resource::Session, id))?;
    let settings = app.program_settings.get(&app.db, session.product).await?;
    let values = json!({
        "session": running.as_ref().map(|session| session_json(&request, session)),
        "ended": ended.as_ref().map(|ended| ended_json(&request, ended)),
        "interval": settings.config.heartbeat_interval,
        "back": page_before(back.unwrap_or_default()),
    });
    request.page("sessions/terminate.html.tera", values).await
}

/// The page from which the session is ended, and to which one returns.
fn page_before(back: &str) -> &str {
    if is_path_of_panel(back) { back } else { LIST }
}

/// Ends a session.
#[post("/sessions/<id>/terminate", data = "<form>")]
async fn terminate(request: Admin<'_>, id: i64, form: Form, app: &App) -> HtmlReply {
    let (id, live, actor, now) = (
        SessionId(id),
        app.live_sessions.clone(),
        request.actor(),
        request.now,
    );
    let outcome = app
        .db
        .write("sessions.terminate", move |tx| {
            super::terminate(&Act::new(tx, &actor, now.wall), live.at(now), id)
        })
        .await;
    match outcome {
        Ok(reason) => {
            let done = match reason {
                EndReason::Forced => "session_ended",
                _ => "session_had_timed_out",
            };
            Html::done(page_before(form.text("back")), done)
        }
        // It ended while the confirmation page was open. Loaded again, that page shows how it ended.
        Err(Error::NotFound { .. }) => {
            let back = page_before(form.text("back"));
            let path = format!("{LIST}/{id}/terminate");
            Html::redirect(path_with_query(&path, &[("back", back)]))
        }
        Err(other) => Err(other.into()),
    }
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![list, confirm_terminate, terminate]
}
