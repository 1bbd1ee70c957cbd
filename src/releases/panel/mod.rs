//! The panel's handlers for releases.
//!
//! The module `products` holds the current and the minimum version, so the operations that change them are there.

mod form;
mod list;
mod one;

use rocket::Route;
use serde_json::{Value, json};

use super::Release;
use super::json::members;
use crate::error::{Error, Resource, Result};
use crate::products::ProductSettings;
use crate::version::Version;

/// The address of the list.
const LIST: &str = "/lizenzserver/releases";

fn page_of(version: Version) -> String {
    format!("{LIST}/{version}")
}

/// The version in an address. An invalid version is not found.
fn version_in_path(text: &str) -> Result<Version> {
    let version = text.parse::<Version>().ok();
    version.ok_or_else(|| Error::not_found(Resource::Release, text))
}

/// A release as JSON for the templates.
fn template_json(release: &Release, config: &ProductSettings) -> Value {
    let mut values = members(release);
    let status = release.status(config.current_version);
    values.insert("standing".to_owned(), json!(status));
    values.insert("released_at".to_owned(), json!(release.released_at));
    let is_minimum = release.version == config.minimum_version;
    values.insert("oldest".to_owned(), is_minimum.into());
    let refused = release.version < config.minimum_version;
    values.insert("refused".to_owned(), refused.into());
    Value::Object(values)
}

/// The panel's routes for releases.
pub fn routes() -> Vec<Route> {
    [list::routes(), form::routes(), one::routes()].concat()
}
