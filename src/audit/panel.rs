//! The panel's page of the audit log, and its CSV export.

mod changes;
mod subject;

pub use changes::of as changes;

use rocket::http::Status;
use rocket::{FromForm, Route, get, routes};
use serde_json::{Map, Value, json};

use super::{Actor, Entry, EntryColumn, EntryFilter};
use crate::app::App;
use crate::clock::UnixMs;
use crate::db::Reader;
use crate::error::{Error, Result};
use crate::paging::{Cursor, Direction, Page, PageRequest, SORTED_MAX, SortPosition, Total};
use crate::panel::{PanelRequest, Support};
use crate::products::Slugs;
use crate::text;
use crate::web::csv::Csv;
use crate::web::html::HtmlReply;
use crate::web::pager::{ListParams, ListUrl};
use crate::web::query;

/// Entries that are read at once for the CSV export.
const CSV_PAGE: u32 = 1000;
/// Most rows of the CSV export, which is built in memory.
const CSV_MAX: usize = 50_000;
const LIST: &str = "/lizenzserver/audit";
/// The order if none is chosen.
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
}

impl View<'_> {
    /// The entries to show. The day is one of the shop.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a parameter that cannot be parsed.
    fn filter(&self, params: &ListParams<'_>, request: &PanelRequest<'_>) -> Result<EntryFilter> {
        let given = |text| query::non_empty(text).map(text::to_nfc);
        let module = query::parsed("room", self.module, |word| {
            MODULES.contains(&word).then(|| word.to_owned())
        })?;
        let order = params.sorting(EntryColumn::parse)?;
        let actor = given(self.actor).map(|typed| actor_of(request, typed));
        Ok(EntryFilter {
            actor: actor.transpose()?,
            module,
            subject: given(self.subject),
            since: query::day("since", self.since, request.shop_zone())?.map(|day| day.start),
            order: order.unwrap_or(EntryColumn::DEFAULT),
        })
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

    /// The filter as query parameters.
    fn pairs(&self) -> [(&'static str, &str); 4] {
        [
            ("actor", self.actor.unwrap_or_default()),
            ("room", self.module.unwrap_or_default()),
            ("subject", self.subject.unwrap_or_default()),
            ("since", self.since.unwrap_or_default()),
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

fn list_url<'a>(params: &'a ListParams<'a>, filter: &'a [(&'a str, &'a str)]) -> ListUrl<'a> {
    ListUrl {
        path: LIST,
        params,
        filter,
        default_order: NEWEST_FIRST,
    }
}

/// A page of the log that was read.
struct Listed {
    page: Page<Entry>,
    /// Its entries for the template.
    rows: Vec<Value>,
    total: Total,
    /// Not the chosen one, if the log has too many entries for it.
    order: (EntryColumn, Direction),
    /// The modules that the filter offers.
    modules: Vec<&'static str>,
}

fn read_list(
    reader: &Reader<'_>,
    mut filter: EntryFilter,
    page_request: PageRequest<SortPosition>,
) -> Result<Listed> {
    let asked = filter.order;
    let total = prepare(reader, &mut filter)?;
    let page_request = page_request.in_order(asked, filter.order);
    let page = super::page(reader, &filter, &page_request)?;
    let rows = page.rows.iter().map(|entry| row(reader, entry));
    Ok(Listed {
        rows: rows.collect::<Result<_>>()?,
        page,
        total,
        order: filter.order,
        modules: modules_offered(reader)?,
    })
}

/// How many entries match the filter. Its subject becomes the stored form, its order one in which so many can be shown.
fn prepare(reader: &Reader<'_>, filter: &mut EntryFilter) -> Result<Total> {
    filter.subject = subject::stored(reader, filter.subject.take())?;
    let total = super::count_matching(reader, filter)?;
    filter.order = total.order(filter.order, EntryColumn::DEFAULT);
    Ok(total)
}

/// A page of the audit log.
#[get("/audit?<view..>")]
async fn list(
    request: Support<'_>,
    params: ListParams<'_>,
    view: View<'_>,
    app: &App,
) -> HtmlReply {
    let page_request = params.page()?;
    let filter = match view.filter(&params, &request) {
        Ok(filter) => filter,
        // Some browsers have no date picker, so the date may be mistyped: the other filters stay.
        Err(Error::Invalid { field: "since", .. }) => {
            return mistyped_date(&request, &view, app).await;
        }
        Err(other) => return Err(other.into()),
    };
    let chosen = filter.order;
    let listed = app
        .db
        .read(move |reader| read_list(reader, filter, page_request))
        .await?;
    let params = params.in_order(chosen, listed.order);
    let (column, _) = listed.order;
    let pairs = view.pairs();
    let url = list_url(&params, &pairs);
    let values = json!({
        "rows": listed.rows,
        "modules": listed.modules,
        "filter": view.values(),
        "order": params.order,
        "heads": url.heads(&EntryColumn::ALL.map(EntryColumn::as_str)),
        "sorted_max": (listed.order != chosen).then_some(SORTED_MAX),
        "wrong": null,
        "table": url.at("/lizenzserver/audit.csv"),
        "pager": url.links(&listed.page, listed.total, |entry| entry.position(column))?,
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
        "order": "", "heads": {}, "sorted_max": null, "table": null, "pager": null,
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

const CSV_COLUMNS: [&str; 9] = [
    "id", "at", "who", "from", "what", "subject", "before", "after", "erased",
];

fn csv_cells(entry: &Entry) -> [String; 9] {
    [
        entry.id.to_string(),
        entry.at.rfc3339(),
        entry.actor.clone(),
        entry.source.clone(),
        entry.action.clone(),
        entry.subject.clone(),
        entry.before.clone(),
        entry.after.clone(),
        entry.erased_at.map(UnixMs::rfc3339).unwrap_or_default(),
    ]
}

/// The entries that match the filter, as a CSV file.
#[get("/audit.csv?<view..>")]
async fn table(
    request: Support<'_>,
    params: ListParams<'_>,
    view: View<'_>,
    app: &App,
) -> HtmlReply {
    let mut filter = view.filter(&params, &request)?;
    let filter = app
        .db
        .read(move |reader| {
            prepare(reader, &mut filter)?;
            Ok(filter)
        })
        .await?;
    let column = filter.order.0;
    let mut csv = Csv::new(&CSV_COLUMNS, request.language)?;
    let mut page_request = PageRequest::first(CSV_PAGE);
    loop {
        let (page_filter, wanted) = (filter.clone(), page_request.clone());
        let page = app
            .db
            .read(move |reader| super::page(reader, &page_filter, &wanted))
            .await?;
        let mut fits = true;
        for row in &page.rows {
            let cells = csv_cells(row);
            fits = csv.row_up_to(CSV_MAX, &cells.each_ref().map(String::as_str))?;
        }
        match page.next_edge() {
            Some(last) if fits => page_request.from = Cursor::After(last.position(column)),
            _ => break,
        }
    }
    Ok(csv.into_file(&format!("audit-{}", request.today()))?)
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![list, table]
}
