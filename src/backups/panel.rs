//! The door for administrators in a browser: the last backups, another one, a copy to take away.

use rocket::http::ContentType;
use rocket::{Route, State, get, post, routes};
use serde_json::json;

use super::{Age, Away, Backup, BackupDir, Done};
use crate::admins::panel::Owner;
use crate::db::Db;
use crate::error::{Doing, Error, Refused, Result};
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};

/// Backups that the page lists.
const SHOWN: usize = 50;
/// Largest backup that the panel hands out: it is held in memory on its way.
const DOWNLOAD_MAX: u64 = 64 * 1024 * 1024;

/// The last backups.
#[get("/backups")]
async fn list(who: Owner<'_>, shelf: &State<BackupDir>, db: &State<Db>) -> HtmlReply {
    let (looked, db) = (shelf.inner().clone(), db.inner().clone());
    let look = move || Ok::<_, Error>((looked.list()?, looked.away(Some(&db))?));
    let looked = rocket::tokio::task::spawn_blocking(look).await;
    let (backups, away) = looked.doing("join a look")??;
    let newest = backups.first().map(|backup| backup.made_at);
    let age = match super::age(newest, shelf.every(), who.now.wall) {
        Age::None => "none",
        Age::Old => "old",
        Age::Fresh => "",
    };
    let shown = backups.iter().take(SHOWN).map(|backup| {
        json!({
            "name": backup.name,
            "bytes": backup.bytes,
            "made_at": backup.made_at,
            "small": backup.bytes <= DOWNLOAD_MAX,
        })
    });
    let values = json!({
        "backups": shown.collect::<Vec<_>>(),
        "folder": shelf.folder(),
        "hours": shelf.every().map(|every| every.as_secs() / 3600),
        "age": age,
        "away": away.as_ref().map(Away::word),
        "encrypted": shelf.is_encrypted(),
    });
    who.page("backups/list.html.tera", values).await
}

/// Makes one now.
#[post("/backups", data = "<_form>")]
async fn make(who: Owner<'_>, _form: Form, shelf: &State<BackupDir>, db: &State<Db>) -> HtmlReply {
    let (work, copied, now) = (shelf.inner().clone(), db.inner().clone(), who.now.wall);
    let made = rocket::tokio::task::spawn_blocking(move || work.make(&copied, now)).await;
    let made = made.doing("join a backup")??;
    let actor = who.actor();
    db.write("backups.make", move |tx| {
        super::note(tx, Done::Made, &made.name, made.bytes, &actor, now)
    })
    .await?;
    Html::go("/lizenzserver/backups?done=backup_made")
}

/// The backup of `name`, if it is in the list.
async fn known(shelf: &BackupDir, name: &str) -> Result<Backup> {
    let (shelf, name) = (shelf.clone(), name.to_owned());
    let look = move || {
        let found = shelf.list()?.into_iter().find(|backup| backup.name == name);
        found.ok_or_else(|| Error::not_found("backup", name))
    };
    let looked = rocket::tokio::task::spawn_blocking(look).await;
    looked.doing("join a look")?
}

/// Asks before a backup leaves the house.
#[get("/backups/<name>")]
async fn question(who: Owner<'_>, name: &str, shelf: &State<BackupDir>) -> HtmlReply {
    who.proved()?;
    let backup = known(shelf, name).await?;
    let values = json!({ "backup": backup });
    who.page("backups/download.html.tera", values).await
}

/// A backup to take away. A deed: who has it has every key.
#[post("/backups/<name>", data = "<_form>")]
async fn download(
    who: Owner<'_>,
    name: &str,
    _form: Form,
    shelf: &State<BackupDir>,
    db: &State<Db>,
) -> HtmlReply {
    who.proved()?;
    if known(shelf, name).await?.bytes > DOWNLOAD_MAX {
        return Err(Refused::plain("backup_too_large").into());
    }
    let (work, wanted) = (shelf.inner().clone(), name.to_owned());
    let read = rocket::tokio::task::spawn_blocking(move || work.read(&wanted));
    let bytes = read.await.doing("join a read")??;
    let (actor, now, handed) = (who.actor(), who.now.wall, name.to_owned());
    let size = bytes.len() as u64;
    db.write("backups.download", move |tx| {
        super::note(tx, Done::HandedOut, &handed, size, &actor, now)
    })
    .await?;
    Ok(Html::File {
        name: name.to_owned(),
        kind: Box::new(ContentType::Binary),
        bytes,
    })
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![list, make, question, download]
}
