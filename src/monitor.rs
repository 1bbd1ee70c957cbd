//! `/health` and `/metrics`, for loopback and the operator's monitoring; dark to everybody else.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rocket::http::Status;
use rocket::request::{FromRequest, Outcome, Request};
use rocket::response::content::{RawJson, RawText};
use rocket::{Route, State, get, routes};
use serde_json::json;
use tokio::time::timeout;

use crate::db::Db;
use crate::error::Result;
use crate::metrics::{LOGIN_FAILED, Tally};
use crate::security::client_address::ClientAddress;
use crate::sessions::{self, Alive, Live};
use crate::uptime;
use crate::web::guards::Moment;
use crate::web::reply::Problem;

/// How long `/health` waits for its write: monitors wait for few seconds, and have to hear the reason within them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Networks that may look, beside loopback.
pub struct Networks(pub Vec<IpNet>);

/// Somebody who may look. Anybody else is passed on, to where nothing is.
struct Watcher;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Watcher {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let networks = request.rocket().state::<Networks>();
        let client = ClientAddress::of(request);
        let listed = client.known().is_some_and(|address| {
            networks.is_some_and(|n| n.0.iter().any(|net| net.contains(&address)))
        });
        let may = client.is_this_machine() || listed;
        if may {
            Outcome::Success(Self)
        } else {
            Outcome::Forward(Status::NotFound)
        }
    }
}

/// Whether the file takes a write, found by a write, and whether what is in it comes back.
#[get("/health")]
async fn health(_watcher: Watcher, moment: Moment, db: &State<Db>) -> (Status, RawJson<String>) {
    let now = moment.0.wall;
    let written = db.write("uptime.advance", move |tx| uptime::advance(tx, now));
    let Ok(written) = timeout(PATIENCE, written).await else {
        return sick(
            "unavailable",
            "the database has taken no write for a second: another program has it locked (see `fuser` on the file), its \
             disk does not answer, or the server has more to write than the disk takes; see the log",
        );
    };
    match written {
        Ok(()) => match db.damage() {
            None => (Status::Ok, RawJson(json!({ "status": "ok" }).to_string())),
            Some(found) => sick("damaged", &format!("{found}: restore a backup")),
        },
        Err(error) => sick("unavailable", &error.to_string()),
    }
}

fn sick(status: &str, reason: &str) -> (Status, RawJson<String>) {
    let told = json!({ "status": status, "reason": reason });
    (Status::ServiceUnavailable, RawJson(told.to_string()))
}

/// Numbers in Prometheus' text format.
#[get("/metrics")]
async fn metrics(
    _watcher: Watcher,
    moment: Moment,
    db: &State<Db>,
    live: &State<Arc<Live>>,
    tally: &State<Arc<Tally>>,
) -> Result<RawText<String>, Problem> {
    let now = moment.0.wall;
    let running = db
        .read(move |reader| {
            let started_at = uptime::recall(reader)?.started_at;
            sessions::count(reader, Alive::served(started_at, now))
        })
        .await?;
    let (logins, refusals): (Vec<_>, Vec<_>) = tally
        .since_start()
        .into_iter()
        .partition(|(code, _)| *code == LOGIN_FAILED);
    let failed_logins: u64 = logins.iter().map(|(_, count)| count).sum();
    let refusals = refusals
        .into_iter()
        .fold(String::new(), |told, (code, count)| {
            told + &format!("license_server_refusals_total{{code=\"{code}\"}} {count}\n")
        });
    let up = moment.0.tick.0.as_secs();
    Ok(RawText(format!(
        "# HELP license_server_info The version that runs.\n\
         # TYPE license_server_info gauge\n\
         license_server_info{{version=\"{version}\"}} 1\n\
         # HELP license_server_uptime_seconds Since when it runs.\n\
         # TYPE license_server_uptime_seconds gauge\n\
         license_server_uptime_seconds {up}\n\
         # HELP license_server_sessions Sessions that run, by the file.\n\
         # TYPE license_server_sessions gauge\n\
         license_server_sessions {running}\n\
         # HELP license_server_sessions_heard Sessions that have been heard since the start.\n\
         # TYPE license_server_sessions_heard gauge\n\
         license_server_sessions_heard {heard}\n\
         # HELP license_server_failed_logins_total Logins of administrators that failed since the start.\n\
         # TYPE license_server_failed_logins_total counter\n\
         license_server_failed_logins_total {failed_logins}\n\
         # HELP license_server_refusals_total Programs that were refused since the start, by code.\n\
         # TYPE license_server_refusals_total counter\n\
         {refusals}",
        version = env!("CARGO_PKG_VERSION"),
        heard = live.count(),
    )))
}

/// What is behind this door.
pub fn routes() -> Vec<Route> {
    routes![health, metrics]
}
