//! `/health` and `/metrics`, for loopback and the operator's monitoring; any other client gets the bare 503 of
//! unknown paths.

use std::net::IpAddr;
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
use crate::logging::RateLimitedLine;
use crate::metrics::{LOGIN_FAILED, RefusalCounter};
use crate::security::client_address::ClientAddress;
use crate::server_state;
use crate::sessions::{self, LiveSessions, LivenessCutoff};
use crate::web::guards::Moment;
use crate::web::reply::Problem;

/// How long `/health` waits for its write: monitors time out after a few seconds, and must get the reason before.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Interval between log lines about refused requests through a proxy.
const LOG_INTERVAL: Duration = Duration::from_hours(1);

/// Networks that may read `/health` and `/metrics`, besides loopback.
pub struct Networks {
    listed: Vec<IpNet>,
    /// Proxies through which monitoring is allowed.
    monitoring_proxies: Vec<IpNet>,
    log_line: RateLimitedLine,
}

impl Networks {
    /// Allows the `listed` networks. Requests through a proxy are allowed only if the proxy itself is listed and
    /// also among the `trusted` ones: a proxy that passes on its clients' own `X-Forwarded-For` cannot be told
    /// from one that sets it, so the operator confirms that it is safe by listing it.
    pub fn new(listed: Vec<IpNet>, trusted: &[IpNet]) -> Self {
        let within = |network: &&IpNet| trusted.iter().any(|of| of.contains(*network));
        let monitoring_proxies = listed.iter().filter(within).copied().collect();
        Self {
            listed,
            monitoring_proxies,
            log_line: RateLimitedLine::each(LOG_INTERVAL),
        }
    }

    /// Whether monitoring is allowed through any proxy.
    pub fn through_a_proxy(&self) -> bool {
        !self.monitoring_proxies.is_empty()
    }

    fn allows(&self, client: ClientAddress) -> bool {
        match client {
            ClientAddress::Direct(_) if client.is_this_machine() => true,
            ClientAddress::Direct(address) => contains(&self.listed, address),
            ClientAddress::Forwarded { client, proxy } => {
                // If all hops are proxies, a client may have written the left-most one itself.
                let listed =
                    contains(&self.listed, client) && !contains(&self.monitoring_proxies, client);
                let through_allowed =
                    proxy.is_some_and(|proxy| contains(&self.monitoring_proxies, proxy));
                if listed && !through_allowed {
                    self.log_refusal(client, proxy);
                }
                listed && through_allowed
            }
            ClientAddress::UntrustedProxy(_) | ClientAddress::Unidentified(_) => false,
        }
    }

    fn log_refusal(&self, client: IpAddr, proxy: Option<IpAddr>) {
        let Some(more) = self.log_line.due() else {
            return;
        };
        match proxy {
            Some(proxy) => log::warn!(
                "/health or /metrics was refused to {client}, since the request came through the proxy {proxy}: have \
                 it connect directly; or, if that proxy sets X-Forwarded-For itself, add \"{proxy}\" as a separate \
                 network to [server] monitor_networks{more}"
            ),
            None => log::warn!(
                "/health or /metrics was refused to {client}, since the request came through several proxies: have \
                 it connect directly{more}"
            ),
        }
    }
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Guard for clients that may monitor. Other requests are forwarded, and end as an unknown path.
struct Watcher;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Watcher {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let networks = request.rocket().state::<Networks>();
        let client = ClientAddress::of(request);
        if networks.is_some_and(|networks| networks.allows(client)) {
            Outcome::Success(Self)
        } else {
            Outcome::Forward(Status::NotFound)
        }
    }
}

/// Whether the database accepts a write, tested by a write, and whether damage was found.
#[get("/health")]
async fn health(_watcher: Watcher, moment: Moment, db: &State<Db>) -> (Status, RawJson<String>) {
    let now = moment.0.wall;
    let written = db.write("server_state.advance", move |tx| {
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
        Ok(()) => match db.damage() {
            None => (Status::Ok, RawJson(json!({ "status": "ok" }).to_string())),
            Some(found) => unhealthy("damaged", &format!("{found}: restore a backup")),
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
async fn metrics(
    _watcher: Watcher,
    moment: Moment,
    db: &State<Db>,
    live: &State<Arc<LiveSessions>>,
    refusals: &State<Arc<RefusalCounter>>,
) -> Result<RawText<String>, Problem> {
    let now = moment.0.wall;
    let running = db
        .read(move |reader| {
            let started_at = server_state::load(reader)?.started_at;
            sessions::count(reader, LivenessCutoff::while_served(started_at, now))
        })
        .await?;
    let (logins, refusals): (Vec<_>, Vec<_>) = refusals
        .since_start()
        .into_iter()
        .partition(|(code, _)| *code == LOGIN_FAILED);
    let failed_logins: u64 = logins.iter().map(|(_, count)| count).sum();
    let refusals = refusals
        .into_iter()
        .fold(String::new(), |lines, (code, count)| {
            lines + &format!("license_server_refusals_total{{code=\"{code}\"}} {count}\n")
        });
    let up = moment.0.tick.0.as_secs();
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
         # HELP license_server_failed_logins_total Failed logins of administrators since the start.\n\
         # TYPE license_server_failed_logins_total counter\n\
         license_server_failed_logins_total {failed_logins}\n\
         # HELP license_server_refusals_total Refused requests of programs since the start, by code.\n\
         # TYPE license_server_refusals_total counter\n\
         {refusals}",
        version = env!("CARGO_PKG_VERSION"),
        heard = live.count(),
    )))
}

/// The routes of this module.
pub fn routes() -> Vec<Route> {
    routes![health, metrics]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter()
            .map(|network| network.parse().unwrap())
            .collect()
    }

    #[test]
    fn monitoring_through_a_proxy_requires_the_proxy_to_be_listed() {
        let client = [10, 1, 2, 3].into();
        let proxy = Some([10, 0, 0, 1].into());
        let named = |proxy| ClientAddress::Forwarded { client, proxy };
        let itself = ClientAddress::Forwarded {
            client: [10, 0, 0, 1].into(),
            proxy,
        };
        let elsewhere = ClientAddress::Forwarded {
            client: [192, 0, 2, 1].into(),
            proxy,
        };
        let direct = ClientAddress::Direct(client);
        for (listed, trusted, client_address, allowed) in [
            (&["10.0.0.0/8"][..], &[][..], direct, true),
            (&[], &[], direct, false),
            (&[], &[], ClientAddress::Direct([127, 0, 0, 1].into()), true),
            (&["10.0.0.0/8"], &["10.0.0.1/32"], named(proxy), false),
            (
                &["10.0.0.0/8", "10.0.0.1/32"],
                &["10.0.0.1/32"],
                named(proxy),
                true,
            ),
            (
                &["10.0.0.0/8", "10.0.0.1/32"],
                &["10.0.0.1/32"],
                named(None),
                false,
            ),
            (
                &["10.0.0.0/8", "10.0.0.1/32"],
                &["10.0.0.1/32"],
                elsewhere,
                false,
            ),
            (&["10.0.0.0/8", "10.0.0.1/32"], &[], named(proxy), false),
            (
                &["10.0.0.0/8", "10.0.0.1/32"],
                &["10.0.0.1/32"],
                itself,
                false,
            ),
            (
                &["10.0.0.0/8"],
                &[],
                ClientAddress::UntrustedProxy(client),
                false,
            ),
            (
                &["10.0.0.0/8"],
                &["10.0.0.0/8"],
                ClientAddress::Unidentified(client),
                false,
            ),
        ] {
            let networks_of = Networks::new(networks(listed), &networks(trusted));
            assert_eq!(
                networks_of.allows(client_address),
                allowed,
                "{listed:?} {trusted:?} {client_address:?}"
            );
        }
    }
}
