//! The list of releases.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{LIST, template_json};
use crate::app::App;
use crate::paging::{Cursor, PageRequest};
use crate::panel::Support;
use crate::products;
use crate::releases::{self, Release, ReleaseState};
use crate::version::Version;
use crate::web::html::HtmlReply;
use crate::web::pager::Pager;
use crate::web::query;

/// Releases on one page.
const PAGE_SIZE: u32 = 50;
const PAGER: Pager<1> = Pager {
    path: LIST,
    next: ["after"],
    previous: [""],
};

/// A page of releases, newest version first.
#[get("/releases?<state>&<after>")]
async fn list(
    request: Support<'_>,
    state: Option<&str>,
    after: Option<&str>,
    app: &App,
) -> HtmlReply {
    let wanted = query::parsed("state", state, |word| match word {
        "released" => Some(ReleaseState::Released),
        "yanked" => Some(ReleaseState::Yanked),
        _ => None,
    })?;
    let from = query::parsed("after", after, |text| text.parse::<Version>().ok())?;
    let page_request = PageRequest {
        from: Cursor::after(from),
        limit: PAGE_SIZE,
    };
    let product = request.product;
    let read = app.db.read(move |reader| {
        let page = releases::page(reader, product, wanted, &page_request)?;
        let config = products::product_settings(reader, product)?;
        Ok((page, config, releases::count(reader, product)? > 0))
    });
    let (page, config, any) = read.await?;
    let state = state.filter(|_| wanted.is_some()).unwrap_or_default();
    let links = PAGER.links(&[("state", state)], &page, |release: &Release| {
        [release.version.to_string()]
    });
    let rows = page.rows.iter();
    let rows: Vec<Value> = rows.map(|row| template_json(row, &config)).collect();
    let values = json!({
        "releases": rows, "any": any, "state": state, "older": links.older, "newer": links.newer,
    });
    request.page("releases/list.html.tera", values).await
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![list]
}
