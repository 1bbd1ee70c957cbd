//! Handlers for the admin panel: running sessions.

use rocket::{Route, get, post, routes};
use serde_json::{Map, Value, json};

use super::{ListPage, ListQuery, ListRow, SessionColumn};
use crate::app::App;
use crate::audit::Act;
use crate::error::{Error, Resource, Result};
use crate::id::SessionId;
use crate::paging::{Direction, SORTED_MAX};
use crate::panel::{Admin, PanelRequest, Support, is_path_of_panel};
use crate::session_history::panel::{ended_json, session_json};
use crate::session_history::{self, EndReason};
use crate::web::form::Form;
use crate::web::html::{self, Html, HtmlReply, path_with_query};
use crate::web::pager::{ListParams, ListUrl};

const LIST: &str = "/lizenzserver/sessions";
/// The order if none is chosen.
const NEWEST_FIRST: &str = "-started";

/// A page of the running sessions; with `part` only its rows, for the script that refreshes them.
#[get("/sessions?<part>")]
async fn list(
    request: Support<'_>,
    params: ListParams<'_>,
    part: Option<bool>,
    app: &App,
) -> HtmlReply {
    let chosen = params.sorting(SessionColumn::parse)?;
    let chosen = chosen.unwrap_or(SessionColumn::DEFAULT);
    let list_query = ListQuery {
        search: params.search.to_owned(),
        order: chosen,
        page: params.page()?,
        product: request.chosen(),
    };
    let (live, now) = (app.live_sessions.clone(), request.now);
    let (listed, count) = app
        .db
        .read(move |reader| {
            let listed = super::page(reader, &live, &list_query, now)?;
            let count = super::live_count(reader, list_query.product, &live, now)?;
            Ok((listed, count))
        })
        .await?;
    let params = params.in_order(chosen, listed.order);
    let mut values = list_values(&request, &params, &listed)?;
    values.insert("running".to_owned(), count.into());
    let part = part.unwrap_or(false);
    values.insert("part".to_owned(), part.into());
    let sorted_max = (listed.order != chosen).then_some(SORTED_MAX);
    values.insert("sorted_max".to_owned(), sorted_max.into());
    let values = Value::Object(values);
    if part {
        return request.part("sessions/rows.html.tera", values);
    }
    request.page("sessions/list.html.tera", values).await
}

/// A page of the list, as values for the template.
fn list_values(
    request: &PanelRequest<'_>,
    params: &ListParams<'_>,
    listed: &ListPage,
) -> Result<Map<String, Value>> {
    let ListPage { page, total, order } = listed;
    let filter = [("q", params.search)];
    let url = ListUrl {
        path: LIST,
        params,
        filter: &filter,
        default_order: NEWEST_FIRST,
    };
    let order_pair = [("order", params.order)];
    let part_pair = [("part", "true")];
    let refresh = [
        &filter[..],
        &order_pair,
        &params.pairs_of_page(),
        &part_pair,
    ]
    .concat();
    Ok(html::object_members(json!({
        "rows": page.rows.iter().map(|row| row_json(request, row)).collect::<Vec<_>>(),
        "q": params.search,
        "order": params.order,
        "refresh_path": path_with_query(LIST, &refresh),
        "heads": url.heads(&SessionColumn::ALL.map(SessionColumn::as_str)),
        "pager": url.links(page, *total, |row| row.position.clone())?,
        "pager_labels": pager_labels(*order),
    })))
}

/// The labels of the links to the previous and the next page, for the template. The previous page has newer sessions only
/// if the latest start comes first.
fn pager_labels(order: (SessionColumn, Direction)) -> &'static str {
    if order == SessionColumn::DEFAULT {
        "newer_older"
    } else {
        "previous_next"
    }
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
