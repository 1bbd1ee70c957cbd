//! The panel's page of the audit log, and its CSV export.

mod changes;
mod subject;

pub use changes::of as changes;

use rocket::http::Status;
use rocket::{FromForm, Route, get, routes};
use serde_json::{Map, Value, json};

use super::{Actor, Entry, EntryFilter};
use crate::app::App;
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::paging::{Cursor, Direction, PageRequest};
use crate::panel::{PanelRequest, Support};
use crate::products::Slugs;
use crate::text;
use crate::web::csv::Csv;
use crate::web::html::{HtmlReply, path_with_query};
use crate::web::pager::{self, Extent, Heads, Pager, Shown};
use crate::web::query;

/// Entries that are read at once for the CSV export.
const CSV_PAGE: u32 = 1000;
/// Most rows of the CSV export, which is built in memory.
const CSV_MAX: usize = 50_000;
const LIST: &str = "/lizenzserver/audit";
const PAGER: Pager<'_, 1> = Pager {
    path: LIST,
    next: ["after"],
    previous: ["before"],
};
/// The only column by which the log can be sorted, and how it is if no order is chosen.
const TIME: &str = "time";
const NEWEST_FIRST: &str = "-time";
/// The modules that have actions, as the filter names them.
const MODULES: &[&str] = &[
    "licenses",
    "devices",
    "customers",
    "sessions",
    "trials",
    "client_config",
    "products",
    "plans",
    "releases",
    "admins",
    "backups",
    "audit",
    "handshake",
    "keys",
    "integrate",
];

/// The module whose actions a shop with one product does not have.
const OF_SEVERAL_PRODUCTS: &str = "products";

/// The modules that the filter offers.
fn modules_offered(reader: &Reader<'_>) -> Result<Vec<&'static str>> {
    let are_several = Slugs::read(reader)?.are_several();
    let modules = MODULES.iter().copied();
    Ok(modules
        .filter(|module| are_several || *module != OF_SEVERAL_PRODUCTS)
        .collect())
}

/// The query of the page.
#[derive(Debug, FromForm)]
struct View<'r> {
    actor: Option<&'r str>,
    #[field(name = "room")]
    module: Option<&'r str>,
    subject: Option<&'r str>,
    since: Option<&'r str>,
    order: Option<&'r str>,
    rows: Option<&'r str>,
    row: Option<&'r str>,
    before: Option<&'r str>,
    after: Option<&'r str>,
}

impl View<'_> {
    /// The entries to show. The day is one of the shop.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a parameter that cannot be parsed.
    fn filter(&self, request: &PanelRequest<'_>) -> Result<EntryFilter> {
        let given = |text| query::non_empty(text).map(text::to_nfc);
        let module = query::parsed("room", self.module, |word| {
            MODULES.contains(&word).then(|| word.to_owned())
        })?;
        let order = pager::sorting(self.order, |word| (word == TIME).then_some(()))?;
        let actor = given(self.actor).map(|typed| actor_of(request, typed));
        Ok(EntryFilter {
            actor: actor.transpose()?,
            module,
            subject: given(self.subject),
            since: query::day("since", self.since, request.shop_zone())?.map(|day| day.start),
            direction: order.map_or(Direction::Descending, |((), direction)| direction),
        })
    }

    /// The column head that sorts the log.
    fn heads(&self) -> Map<String, Value> {
        let [filter @ .., (_, order)] = self.pairs();
        let heads = Heads {
            path: LIST,
            filter: &filter,
            order,
            default: NEWEST_FIRST,
        };
        heads.of(&[TIME])
    }

    fn cursor(&self) -> Result<Cursor<i64>> {
        PAGER.cursor(self.after, self.before, query::number)
    }

    /// The filter for the template, as typed.
    fn values(&self) -> Value {
        json!({
            "actor": self.actor.unwrap_or_default(),
            "module": self.module.unwrap_or_default(),
            "subject": self.subject.unwrap_or_default(),
            "since": self.since.unwrap_or_default(),
        })
    }

    /// The filter and the order as query parameters.
    fn pairs(&self) -> [(&str, &str); 5] {
        [
            ("actor", self.actor.unwrap_or_default()),
            ("room", self.module.unwrap_or_default()),
            ("subject", self.subject.unwrap_or_default()),
            ("since", self.since.unwrap_or_default()),
            ("order", self.order.unwrap_or_default().trim()),
        ]
    }
}

/// The actors who are no administrators, by their names in the log.
const OTHER_ACTORS: [&str; 3] = [Actor::SERVER, Actor::PROGRAM, Actor::COMMAND_LINE];

/// The actor as entries name it, for a name that an administrator typed as the page shows it.
fn actor_of(request: &PanelRequest<'_>, typed: String) -> Result<String> {
    for actor in OTHER_ACTORS {
        let shown = request.text(&format!("actors.{actor}"), &Map::new())?;
        if text::casefold(&shown) == text::casefold(&typed) {
            return Ok(actor.to_owned());
        }
    }
    Ok(typed)
}

/// A page of the audit log.
#[get("/audit?<view..>")]
async fn list(request: Support<'_>, view: View<'_>, app: &App) -> HtmlReply {
    let from = view.cursor()?;
    let mut filter = match view.filter(&request) {
        Ok(filter) => filter,
        // Some browsers have no date picker, so the date may be mistyped: the other filters stay.
        Err(Error::Invalid { field: "since", .. }) => {
            return mistyped_date(&request, &view, app).await;
        }
        Err(other) => return Err(other.into()),
    };
    let extent = Extent::parse(view.rows, view.row)?;
    let page_request = extent.request(from);
    let (page, rows, total, modules) = app
        .db
        .read(move |reader| {
            filter.subject = subject::stored(reader, filter.subject)?;
            let page = super::page(reader, &filter, &page_request)?;
            let total = super::count_matching(reader, &filter)?;
            let rows = page.rows.iter().map(|entry| row(reader, entry));
            let rows = rows.collect::<Result<Vec<_>>>()?;
            Ok((page, rows, total, modules_offered(reader)?))
        })
        .await?;
    let filter = view.pairs();
    let shown = Shown::new(&filter, extent, &page, total);
    let links = PAGER.links(&shown, |entry: &Entry| [entry.id.to_string()]);
    let values = json!({
        "rows": rows,
        "modules": modules,
        "filter": view.values(),
        "order": view.order.unwrap_or_default().trim(),
        "heads": view.heads(),
        "wrong": null,
        "table": path_with_query("/lizenzserver/audit.csv", &view.pairs()),
        "pager": links,
    });
    request
        .page_with(Status::Ok, "audit/list.html.tera", values)
        .await
}

/// The page without entries, for a date that cannot be read.
async fn mistyped_date(request: &PanelRequest<'_>, view: &View<'_>, app: &App) -> HtmlReply {
    let modules = app.db.read(modules_offered).await?;
    let values = json!({
        "rows": [], "modules": modules, "filter": view.values(), "wrong": "since",
        "order": "", "heads": {}, "table": null, "pager": null,
    });
    let status = Status::UnprocessableEntity;
    request
        .page_with(status, "audit/list.html.tera", values)
        .await
}

/// An entry for the template, with its subject and what it changed.
fn row(reader: &Reader<'_>, entry: &Entry) -> Result<Value> {
    Ok(json!({
        "id": entry.id,
        "at": entry.at,
        "actor": super::escape_invisible(&entry.actor),
        "source": super::escape_invisible(&entry.source),
        "action": entry.action,
        "word": entry.action.replace('.', "_"),
        "subject": subject::of(reader, entry)?,
        "erased_at": entry.erased_at,
        "changes": changes::of(reader, entry)?,
    }))
}

/// The entries that match the filter, as a CSV file.
#[get("/audit.csv?<view..>")]
async fn table(request: Support<'_>, view: View<'_>, app: &App) -> HtmlReply {
    let mut filter = view.filter(&request)?;
    let typed = filter.subject.take();
    filter.subject = app
        .db
        .read(move |reader| subject::stored(reader, typed))
        .await?;
    let head = [
        "id", "at", "who", "from", "what", "subject", "before", "after", "erased",
    ];
    let mut csv = Csv::new(&head, request.language)?;
    let mut page_request = PageRequest::first(CSV_PAGE);
    loop {
        let page_filter = filter.clone();
        let page = app
            .db
            .read(move |reader| super::page(reader, &page_filter, &page_request))
            .await?;
        let mut fits = true;
        for row in &page.rows {
            let (id, at) = (row.id.to_string(), row.at.rfc3339());
            let (name, source) = (&row.actor, &row.source);
            let (before, after) = (&row.before, &row.after);
            let (action, subject) = (&row.action, &row.subject);
            let erased = row.erased_at.map(UnixMs::rfc3339).unwrap_or_default();
            let cells = [
                &id, &at, name, source, action, subject, before, after, &erased,
            ];
            fits = csv.row_up_to(CSV_MAX, &cells)?;
        }
        match page.next_edge() {
            Some(last) if fits => page_request.from = Cursor::After(last.id),
            _ => break,
        }
    }
    Ok(csv.into_file(&format!("audit-{}", request.today()))?)
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![list, table]
}
