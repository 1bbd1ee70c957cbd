//! Handlers of the panel: the contents of the manual, and its pages.

use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{Page, Section};
use crate::app::App;
use crate::error::{Error, Resource};
use crate::panel::Support;
use crate::web::html::HtmlReply;

/// The contents of the manual.
#[get("/help")]
async fn contents(request: Support<'_>, app: &App) -> HtmlReply {
    let pages = app.manual.pages(request.language).iter();
    let pages = pages
        .map(|page| json!({ "name": page.name, "title": page.title, "lead": page.lead }))
        .collect::<Vec<_>>();
    request
        .page("manual/contents.html.tera", json!({ "pages": pages }))
        .await
}

/// A page of the manual.
#[get("/help/<page>")]
async fn page(request: Support<'_>, page: &str, app: &App) -> HtmlReply {
    let pages = app.manual.pages(request.language);
    let at = pages.iter().position(|known| known.name == page);
    let at = at.ok_or_else(|| Error::not_found(Resource::ManualPage, page))?;
    let neighbor = |at: Option<usize>| at.and_then(|at| pages.get(at)).map(link);
    let shown = pages.get(at);
    let values = json!({
        "title": shown.map(|page| &page.title),
        "html": shown.map(|page| &page.html),
        "parts": shown.map(parts),
        "previous": neighbor(at.checked_sub(1)),
        "next": neighbor(at.checked_add(1)),
    });
    request.page("manual/page.html.tera", values).await
}

fn link(page: &Page) -> Value {
    json!({ "name": page.name, "title": page.title })
}

/// The headings that the contents of a page list.
fn parts(page: &Page) -> Vec<Value> {
    let headings = page.sections.iter().filter(|part| part.level == 2);
    headings
        .map(|Section { id, heading, .. }| json!({ "id": id, "heading": heading }))
        .collect()
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![contents, page]
}
