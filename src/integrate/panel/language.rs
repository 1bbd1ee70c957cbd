//! The page with a program's file in one language, and its download.

use rocket::http::ContentType;
use rocket::{Route, get, routes};
use serde_json::{Value, json};

use super::{CA_FILE, api_key_to_show};
use crate::admins::Role;
use crate::app::App;
use crate::error::Result;
use crate::integrate::programs::{Language, ProgramParameters};
use crate::panel::{PanelRequest, Support};
use crate::products;
use crate::signing_keys;
use crate::web::html::{Html, HtmlReply, path_with_query};

const PAGE: &str = "/lizenzserver/integrate/program";
const DOWNLOAD: &str = "/lizenzserver/integrate/program/file";

fn address(path: &str, language: Language) -> String {
    path_with_query(path, &[("language", language.as_str())])
}

/// Links to the page of each language, for templates.
pub(super) fn tabs(chosen: Option<Language>) -> Vec<Value> {
    let link = |language: Language| {
        json!({
            "title": language.title(),
            "address": address(PAGE, language),
            "chosen": Some(language) == chosen,
        })
    };
    Language::ALL.map(link).to_vec()
}

/// The file with the known values filled in.
async fn filled(request: &PanelRequest<'_>, app: &App, language: Language) -> Result<String> {
    let (product, now) = (request.product, request.now.wall);
    let read = app.db.read(move |reader| {
        let config = products::product_settings(reader, product)?;
        Ok((config, signing_keys::published(reader, now)?))
    });
    let (config, keys) = read.await?;
    Ok(language.filled(&ProgramParameters {
        url: &app.endpoint.url,
        api_key: &api_key_to_show(request, &config)?,
        product: &config.client_name,
        version: &config.current_version.to_string(),
        own_authority: app.endpoint.authority.is_some(),
        trials: config.trial_plan.is_some(),
        keys: keys.map(|keys| {
            let (current, next) = (keys.current, keys.next);
            [current.id(), current.base64(), next.id(), next.base64()]
        }),
    }))
}

/// The file of one language, ready to copy.
#[get("/integrate/program?<language>")]
async fn page(request: Support<'_>, language: Option<&str>, app: &App) -> HtmlReply {
    let language = Language::from_name(language);
    let values = json!({
        "language": language.as_str(),
        "languages": tabs(Some(language)),
        "file": language.file_name(),
        "commands": language.commands(),
        "example": language.example().map(|(name, text)| json!({ "name": name, "text": text })),
        "download": address(DOWNLOAD, language),
        "text": filled(&request, app, language).await?,
        "ca": app.endpoint.authority.as_ref().map(|_| CA_FILE),
        "public": app.endpoint.public,
        "sees_key": request.may(Role::Admin),
    });
    request.page("integrate/program.html.tera", values).await
}

/// Downloads the file of one language.
#[get("/integrate/program/file?<language>")]
async fn download(request: Support<'_>, language: Option<&str>, app: &App) -> HtmlReply {
    let language = Language::from_name(language);
    Ok(Html::File {
        name: language.file_name().to_owned(),
        kind: Box::new(ContentType::Plain),
        bytes: filled(&request, app, language).await?.into_bytes(),
    })
}

/// The routes of this file.
pub(super) fn routes() -> Vec<Route> {
    routes![page, download]
}
