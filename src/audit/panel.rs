//! The door for administrators in a browser: who did what, when and from where.

use rocket::http::Status;
use rocket::{FromForm, Route, State, get, routes};
use serde_json::{Value, json};

use super::{Actor, Entry, Filter, From};
use crate::admins::panel::Support;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::text;
use crate::web::csv::Csv;
use crate::web::html::{HtmlReply, address};
use crate::web::query;

/// Rows on one page.
const PAGE: u32 = 40;
/// Rows that are read at once for a table to keep.
const TABLE_PAGE: u32 = 1000;
/// Rows of a table to keep, which are held at once.
const TABLE_MAX: usize = 50_000;
const LIST: &str = "/lizenzserver/audit";
/// Whose deeds there are, as the filter names them.
const ROOMS: &[&str] = &[
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

/// What the address of a view says.
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
    /// What to show.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a part that cannot be read.
    fn filter(&self) -> Result<Filter> {
        let given = |text| query::given(text).map(text::composed);
        let room = query::known("room", self.room, |word| {
            ROOMS.contains(&word).then(|| word.to_owned())
        })?;
        Ok(Filter {
            actor: given(self.actor),
            room,
            subject: given(self.subject),
            since: query::day("since", self.since)?,
        })
    }

    fn from(&self) -> Result<From> {
        let before = query::number("before", self.before)?;
        let after = query::number("after", self.after)?;
        Ok(match (before, after) {
            (Some(id), _) => From::Before(id),
            (None, Some(id)) => From::After(id),
            (None, None) => From::Newest,
        })
    }

    /// The filter as the page shows it.
    fn shown(&self) -> Value {
        json!({
            "actor": self.actor.unwrap_or_default(),
            "room": self.room.unwrap_or_default(),
            "subject": self.subject.unwrap_or_default(),
            "since": self.since.unwrap_or_default(),
        })
    }

    /// The address of the same view from another row on.
    fn at(&self, way: &str, id: i64) -> String {
        self.address(LIST, way, &id.to_string())
    }

    fn address(&self, path: &str, way: &str, id: &str) -> String {
        address(
            path,
            &[
                ("actor", self.actor.unwrap_or_default()),
                ("room", self.room.unwrap_or_default()),
                ("subject", self.subject.unwrap_or_default()),
                ("since", self.since.unwrap_or_default()),
                (way, id),
            ],
        )
    }
}

/// A page of the log.
#[get("/audit?<view..>")]
async fn list(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let from = view.from()?;
    let filter = match view.filter() {
        Ok(filter) => filter,
        // A day can be typed where a browser has no calendar: what else was asked for stays.
        Err(Error::Invalid { field: "since", .. }) => {
            let values = json!({
                "rows": [], "rooms": ROOMS, "filter": view.shown(), "wrong": "since",
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
    let full = rows.len() > PAGE as usize;
    let later = matches!(from, From::After(_));
    if full && later {
        rows.remove(0);
    }
    rows.truncate(PAGE as usize);
    let (first, last) = (
        rows.first().map(|row| row.id),
        rows.last().map(|row| row.id),
    );
    let newer = first.filter(|_| matches!(from, From::Before(_)) || (later && full));
    let older = last.filter(|_| full || later);
    let values = json!({
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
        "rooms": ROOMS,
        "filter": view.shown(),
        "wrong": null,
        "table": view.address("/lizenzserver/audit.csv", "", ""),
        "newer": newer.map(|id| view.at("after", id)),
        "older": older.map(|id| view.at("before", id)),
    });
    who.page_with(Status::Ok, "audit/list.html.tera", values)
        .await
}

/// A row as the template shows it.
fn row(entry: &Entry) -> Value {
    json!({
        "id": entry.id,
        "at": entry.at,
        "actor": super::visible(&entry.actor.name),
        "source": super::visible(&entry.actor.source),
        "deed": entry.what,
        "word": entry.what.replace('.', "_"),
        "subject": super::visible(&entry.subject),
        "changes": super::changes(&entry.before, &entry.after),
    })
}

/// What the filter shows, as a table to keep.
#[get("/audit.csv?<view..>")]
async fn table(who: Support<'_>, view: View<'_>, db: &State<Db>) -> HtmlReply {
    let filter = view.filter()?;
    let head = [
        "id", "at", "who", "from", "what", "subject", "before", "after",
    ];
    let mut sheet = Csv::new(&head, who.language)?;
    let mut from = From::Newest;
    loop {
        let part = filter.clone();
        let rows = db
            .read(move |reader| super::page(reader, &part, from, TABLE_PAGE))
            .await?;
        let mut has_room = true;
        for row in &rows {
            let (id, at) = (row.id.to_string(), row.at.rfc3339());
            let Actor { name, source } = &row.actor;
            let (before, after) = (&row.before, &row.after);
            let (what, subject) = (&row.what, &row.subject);
            let cells = [&id, &at, name, source, what, subject, before, after];
            has_room = sheet.row_up_to(TABLE_MAX, &cells)?;
        }
        match rows.last() {
            Some(last) if rows.len() == TABLE_PAGE as usize && has_room => {
                from = From::Before(last.id);
            }
            _ => break,
        }
    }
    Ok(sheet.file(&format!("audit-{}", who.now.wall.day()))?)
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![list, table]
}
