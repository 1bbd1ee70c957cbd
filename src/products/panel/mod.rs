//! Handlers of the panel: the settings page, the form of the first configuration, and the products themselves.

mod first;
mod list;
mod settings;

use rocket::Route;
use serde_json::{Value, json};

use super::ProductSettings;
use crate::web::form;

const PAGE: &str = "/lizenzserver/config";

fn client(config: &ProductSettings) -> Value {
    let values = json!({
        "client_name": config.client_name,
        "current_version": config.current_version,
        "minimum_version": config.minimum_version,
        "heartbeat_interval": config.heartbeat_interval,
        "session_timeout": config.session_timeout,
        "session_policy": config.session_policy,
        "offline_days": config.offline_days,
        "trial_plan": config.trial_plan.as_ref().map_or("", |plan| plan.code.as_str()),
    });
    json!({ "seen": config.revision(), "form": form::empty_form(values) })
}

/// The routes of the settings and the products.
pub fn routes() -> Vec<Route> {
    [settings::routes(), first::routes(), list::routes()].concat()
}
