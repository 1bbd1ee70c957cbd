//! The panel's handlers for backups: list, make, download.

use rocket::http::ContentType;
use rocket::{Route, get, post, routes};
use serde_json::{Value, json};

use super::{Backup, BackupAge, BackupDir, BackupEvent, FolderFault};
use crate::app::App;
use crate::audit::Act;
use crate::error::{Doing, Error, RefusalKind, Refused, Resource, Result};
use crate::paging::SortPosition;
use crate::panel::{Owner, PanelRequest};
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};
use crate::web::pager::{ListParams, ListUrl};

const LIST: &str = "/lizenzserver/backups";
/// How many backups the page lists.
const LISTED_MAX: usize = 50;
/// Maximum size of a backup to download, in bytes: the response is held in memory.
const DOWNLOAD_MAX: u64 = 64 * 1024 * 1024;

/// The columns by which the list can be sorted, and how it is if none is chosen.
const COLUMNS: [&str; 2] = ["made_at", "size"];
const NEWEST_FIRST: &str = "-made_at";

/// The newest backups, in the order that the heads ask for.
fn sorted(backups: &[Backup], params: &ListParams<'_>) -> Result<Vec<Value>> {
    let sorting = params.sorting(|word| COLUMNS.into_iter().find(|name| *name == word))?;
    let mut rows: Vec<&Backup> = backups.iter().take(LISTED_MAX).collect();
    if let Some((column, direction)) = sorting {
        direction.sort(&mut rows, |backup| {
            let size = i64::try_from(backup.bytes).unwrap_or(i64::MAX);
            match column {
                "size" => SortPosition::number(size, backup.made_at.0),
                _ => SortPosition::number(backup.made_at.0, size),
            }
        });
    }
    let row = |backup: &&Backup| {
        json!({
            "name": backup.name,
            "bytes": backup.bytes,
            "made_at": backup.made_at,
            "small": backup.bytes <= DOWNLOAD_MAX,
        })
    };
    Ok(rows.iter().map(row).collect())
}

/// The page with the newest backups.
#[get("/backups")]
async fn list(request: Owner<'_>, params: ListParams<'_>, app: &App) -> HtmlReply {
    let backup_dir = &app.backup_dir;
    let (dir, db) = (backup_dir.clone(), app.db.clone());
    let read = move || Ok::<_, Error>((dir.list()?, dir.folder_fault(Some(&db))?));
    let read = rocket::tokio::task::spawn_blocking(read).await;
    let (backups, away) = read.doing("read the backup folder")??;
    let newest = backups.first().map(|backup| backup.made_at);
    let age = match super::age(newest, backup_dir.every(), request.now.wall) {
        BackupAge::NoBackup => "none",
        BackupAge::Old => "old",
        BackupAge::Fresh => "",
    };
    let url = ListUrl {
        path: LIST,
        params: &params,
        filter: &[],
        default_order: NEWEST_FIRST,
    };
    let values = json!({
        "backups": sorted(&backups, &params)?,
        "order": params.order,
        "heads": url.heads(&COLUMNS),
        "folder": backup_dir.folder(),
        "hours": backup_dir.every().map(|every| every.as_secs() / 3600),
        "age": age,
        "away": away.as_ref().map(FolderFault::as_str),
        "encrypted": backup_dir.is_encrypted(),
    });
    request.page("backups/list.html.tera", values).await
}

/// Makes a backup now.
#[post("/backups", data = "<form>")]
async fn make(request: Owner<'_>, form: Form, app: &App) -> HtmlReply {
    request.once(&form, make_once(&request, app)).await
}

async fn make_once(request: &PanelRequest<'_>, app: &App) -> HtmlReply {
    let made = super::make(&app.db, &app.backup_dir, request.actor(), request.now.wall).await?;
    made.noted?;
    Html::done("/lizenzserver/backups", "backup_made")
}

/// The backup `name`, if it is in the list.
async fn find(backup_dir: &BackupDir, name: &str) -> Result<Backup> {
    let (dir, name) = (backup_dir.clone(), name.to_owned());
    let read = move || {
        let found = dir.list()?.into_iter().find(|backup| backup.name == name);
        found.ok_or_else(|| Error::not_found(Resource::Backup, name))
    };
    let read = rocket::tokio::task::spawn_blocking(read).await;
    read.doing("read the backup folder")?
}

/// Asks for confirmation before a backup is downloaded.
#[get("/backups/<name>")]
async fn confirm_download(request: Owner<'_>, name: &str, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    let backup = find(&app.backup_dir, name).await?;
    let values = json!({ "backup": backup });
    request.page("backups/download.html.tera", values).await
}

/// Downloads a backup. A POST with an audit entry, because the file contains all keys.
#[post("/backups/<name>", data = "<_form>")]
async fn download(request: Owner<'_>, name: &str, _form: Form, app: &App) -> HtmlReply {
    request.require_reauthentication()?;
    if find(&app.backup_dir, name).await?.bytes > DOWNLOAD_MAX {
        return Err(Refused::new(RefusalKind::Conflict, "backup_too_large").into());
    }
    let (dir, wanted) = (app.backup_dir.clone(), name.to_owned());
    let read = rocket::tokio::task::spawn_blocking(move || dir.read(&wanted));
    let bytes = read.await.doing("read a backup")??;
    let (actor, now, backup) = (request.actor(), request.now.wall, name.to_owned());
    let size = bytes.len() as u64;
    app.db
        .write("backups.download", move |tx| {
            let act = Act::new(tx, &actor, now);
            super::note(&act, BackupEvent::Downloaded, &backup, size)
        })
        .await?;
    Ok(Html::File {
        name: name.to_owned(),
        kind: Box::new(ContentType::Binary),
        bytes,
    })
}

/// The panel's routes for backups.
pub fn routes() -> Vec<Route> {
    routes![list, make, confirm_download, download]
}
