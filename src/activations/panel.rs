//! Handlers for the admin panel: releasing a device, from the page of its license.

use rocket::{Route, get, post, routes};
use serde_json::{Map, json};

use crate::app::App;
use crate::audit::Act;
use crate::devices;
use crate::id::{DeviceId, LicenseId};
use crate::licenses;
use crate::panel::Support;
use crate::sessions;
use crate::web::form::Form;
use crate::web::html::{Html, HtmlReply};

const LICENSES: &str = "/lizenzserver/licenses";

/// The page that asks for confirmation before a device is released.
#[get("/licenses/<id>/devices/<device>/release")]
async fn confirm_release(request: Support<'_>, id: i64, device: i64, app: &App) -> HtmlReply {
    let (id, device, now) = (LicenseId(id), DeviceId(device), request.now.wall);
    let (found, listed, session_device) = app
        .db
        .read(move |reader| {
            let found = devices::get(reader, id, device)?;
            let listed = licenses::find_row(reader, id, now)?;
            Ok((found, listed, sessions::device_running_on(reader, id)?))
        })
        .await?;
    let mut members = Map::new();
    members.insert("device".to_owned(), found.machine_id.into());
    let customer = licenses::panel::customer_name(&request, &listed.license)?;
    members.insert("customer".to_owned(), customer.into());
    let text = |key: &str| request.text(key, &members);
    let mut why = vec![text("devices.why_release")?];
    if listed.session.is_some() && session_device == Some(device) {
        why.insert(0, text("devices.why_ends_session")?);
    }
    let values = json!({
        "ask": text("devices.ask_release")?,
        "why": why,
        "action": text("devices.do_release")?,
        "back": format!("{LICENSES}/{id}"),
    });
    request.page("parts/confirm.html.tera", values).await
}

/// Releases a device, which ends its session.
#[post("/licenses/<id>/devices/<device>/release", data = "<_form>")]
async fn release(request: Support<'_>, id: i64, device: i64, _form: Form) -> HtmlReply {
    let (id, device, app) = (LicenseId(id), DeviceId(device), request.app);
    let (actor, now, live) = (request.actor(), request.now, app.live_sessions.clone());
    app.db
        .write("activations.release", move |tx| {
            let act = Act::new(tx, &actor, now.wall);
            super::release(&act, live.at(now), id, device)
        })
        .await?;
    Html::done(format!("{LICENSES}/{id}"), "released")
}

/// The routes of this module in the panel.
pub fn routes() -> Vec<Route> {
    routes![confirm_release, release]
}
