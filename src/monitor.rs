//! `/health` and `/metrics`, for loopback and the operator's monitoring; any other client gets the bare 503 of
//! unknown paths.

use std::time::Duration;

use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::content::{RawJson, RawText};
use rocket::{Route, get, routes};
use serde_json::json;
use tokio::time::timeout;

use crate::app::App;
use crate::db;
use crate::error::Result;
use crate::metrics::LOGIN_FAILED;
use crate::security::client_address::ClientAddress;
use crate::server_state;
use crate::sessions::{self, LivenessCutoff};
use crate::web::guards::RequestTime;
use crate::web::reply::Problem;

/// How long `/health` waits for its write: monitors time out after a few seconds, and must get the reason before.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// Guard for clients that may monitor. Other requests are forwarded, and end as an unknown path.
struct Watcher;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Watcher {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let client = ClientAddress::of(request);
        if App::of(request).is_ok_and(|app| app.monitor_networks.allows(client)) {
            Outcome::Success(Self)
        } else {
            Outcome::Forward(Status::NotFound)
        }
    }
}

/// Whether the database accepts a write, tested by a write, and whether damage was found.
#[get("/health")]
async fn health(_guard: Watcher, at: RequestTime, app: &App) -> (Status, RawJson<String>) {
    let now = at.0.wall;
    let written = app.db.write("server_state.advance", move |tx| {
        server_state::advance(tx, now)
    });
    let Ok(written) = timeout(WRITE_TIMEOUT, written).await else {
        return unhealthy(
            "unavailable",
            "the database has accepted no write for a second: another program has locked it (see `fuser` on the file), \
             its disk does not answer, or the disk is too slow for the server's writes; see the log",
        );
    };
    match written {
        Ok(()) => match app.db.damage() {
            None => (Status::Ok, RawJson(json!({ "status": "ok" }).to_string())),
            Some(found) => unhealthy("damaged", &format!("{found}: {}", db::remedy(&found))),
        },
        Err(error) => unhealthy("unavailable", &error.to_string()),
    }
}

fn unhealthy(status: &str, reason: &str) -> (Status, RawJson<String>) {
    let body = json!({ "status": status, "reason": reason });
    (Status::ServiceUnavailable, RawJson(body.to_string()))
}

/// Metrics in the Prometheus text format.
#[get("/metrics")]
async fn metrics(_guard: Watcher, at: RequestTime, app: &App) -> Result<RawText<String>, Problem> {
    let now = at.0.wall;
    let running = app
        .db
        .read(move |reader| sessions::count(reader, LivenessCutoff::while_served(now), None))
        .await?;
    let refusals = refusals(app);
    let up = at.0.tick.0.as_secs();
    Ok(RawText(format!(
        "# HELP license_server_info The running version.\n\
         # TYPE license_server_info gauge\n\
         license_server_info{{version=\"{version}\"}} 1\n\
         # HELP license_server_uptime_seconds Seconds since the start.\n\
         # TYPE license_server_uptime_seconds gauge\n\
         license_server_uptime_seconds {up}\n\
         # HELP license_server_sessions Running sessions, by the database.\n\
         # TYPE license_server_sessions gauge\n\
         license_server_sessions {running}\n\
         # HELP license_server_sessions_heard Sessions with a heartbeat since the start.\n\
         # TYPE license_server_sessions_heard gauge\n\
         license_server_sessions_heard {heard}\n\
         {refusals}",
        version = env!("CARGO_PKG_VERSION"),
        heard = app.live_sessions.count(),
    )))
}

/// The metrics about failed logins and refused requests.
fn refusals(app: &App) -> String {
    let counted = app.refusals.since_start().into_iter();
    let (logins, refusals): (Vec<_>, Vec<_>) = counted.partition(|(code, _)| *code == LOGIN_FAILED);
    let failed_logins: u64 = logins.iter().map(|(_, count)| count).sum();
    let refusals = refusals.into_iter();
    let refusals = refusals.fold(String::new(), |lines, (code, count)| {
        lines + &format!("license_server_refusals_total{{code=\"{code}\"}} {count}\n")
    });
    let unrecorded = app.refusal_queue.unrecorded();
    format!(
        "# HELP license_server_failed_logins_total Failed logins of administrators since the start.\n\
         # TYPE license_server_failed_logins_total counter\n\
         license_server_failed_logins_total {failed_logins}\n\
         # HELP license_server_refusals_total Refused requests of programs since the start, by code.\n\
         # TYPE license_server_refusals_total counter\n\
         {refusals}\
         # HELP license_server_refusals_unrecorded_total Refused requests since the start that are counted but not listed.\n\
         # TYPE license_server_refusals_unrecorded_total counter\n\
         license_server_refusals_unrecorded_total {unrecorded}\n"
    )
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![health, metrics]
}
