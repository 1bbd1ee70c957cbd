//! Handlers of the panel: the settings page, the form of the first configuration, and the products themselves.

mod first;
mod list;
mod settings;

use rocket::Route;
use serde_json::{Value, json};

use super::ProductSettings;
use crate::web::form;
use crate::web::html::object_members;

const PAGE: &str = "/lizenzserver/config";

/// The values of the form of the settings.
fn client_values(config: &ProductSettings) -> Value {
    let mut values = object_members(json!({
        "client_name": config.client_name,
        "current_version": config.current_version,
        "minimum_version": config.minimum_version,
        "heartbeat_interval": config.heartbeat_interval,
        "session_timeout": config.session_timeout,
        "session_policy": config.session_policy,
        "offline_days": config.offline_days,
    }));
    // A shop without trials sees nothing of them.
    if let Some(plan) = &config.trial_plan {
        values.insert("trial_plan".to_owned(), plan.code.as_str().into());
    }
    values.into()
}

fn client(config: &ProductSettings) -> Value {
    let form = form::empty_form(client_values(config));
    json!({ "seen": config.revision(), "form": form })
}

/// The routes of the settings and the products.
pub fn routes() -> Vec<Route> {
    [settings::routes(), first::routes(), list::routes()].concat()
}
