//! The panel's page of the audit log, and its CSV export.

use rocket::http::Status;
use rocket::{FromForm, Route, State, get, routes};
use serde_json::{Value, json};

use super::{Entry, EntryFilter, PageStart};
use crate::admins::panel::Support;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::text;
use crate::web::csv::Csv;
use crate::web::html::{HtmlReply, path_with_query};
use crate::web::query;

/// Entries on one page.
const PAGE: u32 = 40;
/// Entries that are read at once for the CSV export.
const CSV_PAGE: u32 = 1000;
/// Most rows of the CSV export, which is built in memory.
const CSV_MAX: usize = 50_000;
const LIST: &str = "/lizenzserver/audit";
/// The modules that have actions, as the filter names them.
const MODULES: &[&str] = &[
    "licenses",
    "devices",
    "customers",
    "sessions",
    "client_config",
    "releases",
    "admins",
    "backups",
    "handshake",
    "keys",
    "integrate",
];

/// The query of the page.
#[derive(Debug, FromForm)]
struct View<'r> {
    actor: Option<&'r str>,
    room: Option<&'r str>,
    subject: Option<&'r str>,
    since: Option<&'r str>,
    before: Option<&'r str>,
    after: Option<&'r str>,
}

impl View<'_> {
    /// The entries to show.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a parameter that cannot be parsed.
    fn filter(&self) -> Result<EntryFilter> {
        let given = |text| query::non_empty(text).map(text::to_nfc);
        let module = query::parsed("room", self.room, |word| {
            MODULES.contains(&word).then(|| word.to_owned())
        })?;
        Ok(EntryFilter {
            actor: given(self.actor),
            module,
            subject: given(self.subject),
            since: query::day("since", self.since)?,
        })
    }

    fn from(&self) -> Result<PageStart> {
        let before = query::number("before", self.before)?;
        let after = query::number("after", self.after)?;
        Ok(match (before, after) {
            (Some(id), _) => PageStart::Before(id),
            (None, Some(id)) => PageStart::After(id),
            (None, None) => PageStart::Newest,
        })
    }

    /// The filter for the template, as typed.
    fn values(&self) -> Value {
        json!({
            "actor": self.actor.unwrap_or_default(),
            "room": self.room.unwrap_or_default(),
            "subject": self.subject.unwrap_or_default(),
            "since": self.since.unwrap_or_default(),
        })
    }

    /// The address of the page of the same view that begins at another entry.
    fn page_address(&self, direction: &str, id: i64) -> String {
        self.address(LIST, direction, &id.to_string())
    }

    fn address(&self, path: &str, direction: &str, id: &str) -> String {
        path_with_query(
            path,
            &[
                ("actor", self.actor.unwrap_or_default()),
                ("room", self.room.unwrap_or_default()),
                ("subject", self.subject.unwrap_or_default()),
                ("since", self.since.unwrap_or_default()),
                (direction, id),
            ],
        )
    }
}

/// A page of the audit log.
#[get("/audit?<view..>")]
async fn list(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let from = view.from()?;
    let filter = match view.filter() {
        Ok(filter) => filter,
        // Some browsers have no date picker, so the date may be mistyped: the other filters stay.
        Err(Error::Invalid { field: "since", .. }) => {
            let values = json!({
                "rows": [], "rooms": MODULES, "filter": view.values(), "wrong": "since",
                "table": null, "newer": null, "older": null,
            });
            let status = Status::UnprocessableEntity;
            return who.page_with(status, "audit/list.html.tera", values).await;
        }
        Err(other) => return Err(other.into()),
    };
    let mut rows = db
        .read(move |reader| super::page(reader, &filter, from, PAGE + 1))
        .await?;
    let has_more = rows.len() > PAGE as usize;
    let backwards = matches!(from, PageStart::After(_));
    if has_more && backwards {
        rows.remove(0);
    }
    rows.truncate(PAGE as usize);
    let (first, last) = (
        rows.first().map(|row| row.id),
        rows.last().map(|row| row.id),
    );
    let newer = first.filter(|_| matches!(from, PageStart::Before(_)) || (backwards && has_more));
    let older = last.filter(|_| has_more || backwards);
    let values = json!({
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "rooms": MODULES,
        "filter": view.values(),
        "wrong": null,
        "table": view.address("/lizenzserver/audit.csv", "", ""),
        "newer": newer.map(|id| view.page_address("after", id)),
        "older": older.map(|id| view.page_address("before", id)),
    });
    who.page_with(Status::Ok, "audit/list.html.tera", values)
        .await
}

/// An entry for the template.
fn row(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "at": entry.at,
        "actor": super::escape_invisible(&entry.actor),
        "source": super::escape_invisible(&entry.source),
        "deed": entry.action,
        "word": entry.action.replace('.', "_"),
        "subject": super::escape_invisible(&entry.subject),
        "changes": super::changed_fields(&entry.before, &entry.after),
    })
}

/// The entries that match the filter, as a CSV file.
#[get("/audit.csv?<view..>")]
async fn table(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let filter = view.filter()?;
    let head = [
        "id", "at", "who", "from", "what", "subject", "before", "after",
    ];
    let mut csv = Csv::new(&head, who.language)?;
    let mut from = PageStart::Newest;
    loop {
        let page_filter = filter.clone();
        let rows = db
            .read(move |reader| super::page(reader, &page_filter, from, CSV_PAGE))
            .await?;
        let mut fits = true;
        for row in &rows {
            let (id, at) = (row.id.to_string(), row.at.rfc3339());
            let (name, source) = (&row.actor, &row.source);
            let (before, after) = (&row.before, &row.after);
            let (action, subject) = (&row.action, &row.subject);
            let cells = [&id, &at, name, source, action, subject, before, after];
            fits = csv.row_up_to(CSV_MAX, &cells)?;
        }
        match rows.last() {
            Some(last) if rows.len() == CSV_PAGE as usize && fits => {
                from = PageStart::Before(last.id);
            }
            _ => break,
        }
    }
    Ok(csv.file(&format!("audit-{}", who.now.wall.day()))?)
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![list, table]
}
