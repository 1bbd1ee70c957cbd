//! Panel pages with everything that a program or a website needs to call this server.

mod language;
mod program;
mod site;

use rocket::Route;
use serde_json::Map;

use crate::admins::Role;
use crate::error::Result;
use crate::licenses::License;
use crate::panel::PanelRequest;
use crate::products::ProductSettings;

/// The name of the downloaded file with the certificate of the server's own authority.
const CA_FILE: &str = "ca.pem";

/// The key of a license, or a placeholder if none is chosen.
fn key_to_show(request: &PanelRequest<'_>, license: Option<&License>) -> Result<String> {
    match license {
        Some(license) => Ok(license.key.formatted()),
        None => request.text("integrate.your_license_key", &Map::new()),
    }
}

/// The API key, or a placeholder if the role of the administrator does not allow to see it.
fn api_key_to_show(request: &PanelRequest<'_>, config: &ProductSettings) -> Result<String> {
    if request.may(Role::Admin) {
        Ok(config.api_key.reveal().clone())
    } else {
        request.text("integrate.your_api_key", &Map::new())
    }
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    [program::routes(), language::routes(), site::routes()].concat()
}
