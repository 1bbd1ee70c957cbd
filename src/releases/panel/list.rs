//! The list of releases.

use rocket::{FromForm, Route, get, routes};
use serde_json::{Map, Value, json};

use super::{LIST, template_json};
use crate::app::App;
use crate::error::Result;
use crate::id::ProductId;
use crate::paging::Direction;
use crate::panel::Support;
use crate::products;
use crate::releases::{self, Release, ReleaseColumn, ReleaseQuery, ReleaseState};
use crate::web::html::HtmlReply;
use crate::web::pager::{self, Extent, Heads, Pager, Shown};
use crate::web::query;

const PAGER: Pager<'_, 2> = Pager::sorted(LIST);
/// The newest version first.
const DEFAULT_ORDER: (&str, (ReleaseColumn, Direction)) =
    ("-version", (ReleaseColumn::Version, Direction::Descending));

/// The query parameters of the list.
#[derive(FromForm)]
struct ListParams<'r> {
    state: Option<&'r str>,
    order: Option<&'r str>,
    rows: Option<&'r str>,
    row: Option<&'r str>,
    after: Option<&'r str>,
    after_id: Option<&'r str>,
    before: Option<&'r str>,
    before_id: Option<&'r str>,
}

impl ListParams<'_> {
    fn query(&self, product: ProductId) -> Result<ReleaseQuery> {
        let state = query::parsed("state", self.state, |word| match word {
            "released" => Some(ReleaseState::Released),
            "yanked" => Some(ReleaseState::Yanked),
            _ => None,
        })?;
        let order = pager::sorting(self.order, ReleaseColumn::parse)?;
        Ok(ReleaseQuery {
            product,
            state,
            order: order.unwrap_or(DEFAULT_ORDER.1),
        })
    }
}

/// A page of releases.
#[get("/releases?<params..>")]
async fn list(request: Support<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let product = request.product;
    let query = params.query(product)?;
    let extent = Extent::parse(params.rows, params.row)?;
    let from = PAGER.sorted_cursor(
        (params.after, params.after_id),
        (params.before, params.before_id),
    )?;
    let page_request = extent.request(from);
    let read = app.db.read(move |reader| {
        let page = releases::page(reader, &query, &page_request)?;
        let config = products::product_settings(reader, product)?;
        Ok((page, config, releases::count(reader, product)? > 0))
    });
    let ((page, total), config, any) = read.await?;
    let state = ("state", params.state.unwrap_or_default().trim());
    let order = ("order", params.order.unwrap_or_default().trim());
    let filter = [state, order];
    let shown = Shown::new(&filter, extent, &page, total);
    let links = PAGER.sorted_links(&shown, |release: &Release| release.position(query.order.0));
    let rows = page.rows.iter();
    let rows: Vec<Value> = rows.map(|row| template_json(row, &config)).collect();
    let values = json!({
        "releases": rows,
        "any": any,
        "state": state.1,
        "heads": heads(&[state], order.1),
        "pager": links,
    });
    request.page("releases/list.html.tera", values).await
}

/// The column heads that sort the list.
fn heads(filter: &[(&str, &str)], order: &str) -> Map<String, Value> {
    let heads = Heads {
        path: LIST,
        filter,
        order,
        default: DEFAULT_ORDER.0,
    };
    heads.of(&ReleaseColumn::ALL.map(ReleaseColumn::as_str))
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![list]
}
