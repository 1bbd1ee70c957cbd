//! The list of releases.

use rocket::{Route, get, routes};
use serde_json::json;

use super::{LIST, template_json};
use crate::app::App;
use crate::paging::Direction;
use crate::panel::Support;
use crate::products;
use crate::releases::{self, Release, ReleaseColumn, ReleaseQuery, ReleaseState};
use crate::web::html::HtmlReply;
use crate::web::pager::{ListParams, ListUrl};
use crate::web::query;

/// The newest version first.
const DEFAULT_ORDER: (&str, (ReleaseColumn, Direction)) =
    ("-version", (ReleaseColumn::Version, Direction::Descending));

fn parse_state(word: &str) -> Option<ReleaseState> {
    match word {
        "released" => Some(ReleaseState::Released),
        "yanked" => Some(ReleaseState::Yanked),
        _ => None,
    }
}

/// A page of releases.
#[get("/releases?<state>")]
async fn list(
    request: Support<'_>,
    params: ListParams<'_>,
    state: Option<&str>,
    app: &App,
) -> HtmlReply {
    let (product, page_request) = (request.product, params.page()?);
    let sorting = params.sorting(ReleaseColumn::parse)?;
    let query = ReleaseQuery {
        product,
        state: query::parsed("state", state, parse_state)?,
        order: sorting.unwrap_or(DEFAULT_ORDER.1),
    };
    let read = app.db.read(move |reader| {
        let page = releases::page(reader, &query, &page_request)?;
        let config = products::product_settings(reader, product)?;
        Ok((page, config, releases::count(reader, product)? > 0))
    });
    let ((page, total), config, any) = read.await?;
    let state = query::trimmed(state);
    let url = ListUrl {
        path: LIST,
        params: &params,
        filter: &[("state", state)],
        default_order: DEFAULT_ORDER.0,
    };
    let position = |release: &Release| release.position(query.order.0);
    let rows = page.rows.iter();
    let values = json!({
        "releases": rows.map(|row| template_json(row, &config)).collect::<Vec<_>>(),
        "any": any,
        "state": state,
        "heads": url.heads(&ReleaseColumn::ALL.map(ReleaseColumn::as_str)),
        "pager": url.links(&page, total, position)?,
    });
    request.page("releases/list.html.tera", values).await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![list]
}
