//! `/health` and `/metrics`, for loopback and the operator's monitoring; dark to everybody else.

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

/// How long `/health` waits for its write: monitors wait for few seconds, and have to hear the reason within them.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two lines of the log about a look through a proxy.
const TELL_EACH: Duration = Duration::from_hours(1);

/// Networks that may look, beside loopback.
pub struct Networks {
    listed: Vec<IpNet>,
    /// Proxies through which one may look.
    vouched: Vec<IpNet>,
    told: RateLimitedLine,
}

impl Networks {
    /// These may look, and through a proxy that is both here and among the `trusted` ones: a proxy that hands
    /// on what its clients write into `X-Forwarded-For` is not to be told from one that writes it, so the
    /// operator has to say that it is safe, by naming the proxy itself.
    pub fn new(listed: Vec<IpNet>, trusted: &[IpNet]) -> Self {
        let within = |network: &&IpNet| trusted.iter().any(|of| of.contains(*network));
        let vouched = listed.iter().filter(within).copied().collect();
        Self {
            listed,
            vouched,
            told: RateLimitedLine::each(TELL_EACH),
        }
    }

    /// Whether there is a proxy through which one may look.
    pub fn through_a_proxy(&self) -> bool {
        !self.vouched.is_empty()
    }

    fn admit(&self, client: ClientAddress) -> bool {
        match client {
            ClientAddress::Direct(_) if client.is_this_machine() => true,
            ClientAddress::Direct(address) => among(&self.listed, address),
            ClientAddress::Named { client, proxy } => {
                // Where all hops are proxies, the left-most one may be what a client wrote.
                let listed = among(&self.listed, client) && !among(&self.vouched, client);
                let vouched = proxy.is_some_and(|proxy| among(&self.vouched, proxy));
                if listed && !vouched {
                    self.tell(client, proxy);
                }
                listed && vouched
            }
            ClientAddress::Relayed(_) | ClientAddress::Stranger(_) => false,
        }
    }

    fn tell(&self, client: IpAddr, proxy: Option<IpAddr>) {
        let Some(more) = self.told.due() else {
            return;
        };
        match proxy {
            Some(proxy) => log::warn!(
                "/health or /metrics was not answered to {client}, since it asked through the proxy {proxy}: have \
                 it ask directly; or, if that proxy itself writes X-Forwarded-For, add \"{proxy}\" as a network of \
                 its own to [server] monitor_networks{more}"
            ),
            None => log::warn!(
                "/health or /metrics was not answered to {client}, since it asked through several proxies: have it \
                 ask directly{more}"
            ),
        }
    }
}

fn among(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Somebody who may look. Anybody else is passed on, to where nothing is.
struct Watcher;

#[rocket::async_trait]
impl<'r> FromRequest<'r> for Watcher {
    type Error = ();

    async fn from_request(request: &'r Request<'_>) -> Outcome<Self, ()> {
        let networks = request.rocket().state::<Networks>();
        let client = ClientAddress::of(request);
        if networks.is_some_and(|networks| networks.admit(client)) {
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
    let written = db.write("server_state.advance", move |tx| {
        server_state::advance(tx, now)
    });
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
    live: &State<Arc<LiveSessions>>,
    tally: &State<Arc<RefusalCounter>>,
) -> Result<RawText<String>, Problem> {
    let now = moment.0.wall;
    let running = db
        .read(move |reader| {
            let started_at = server_state::load(reader)?.started_at;
            sessions::count(reader, LivenessCutoff::served(started_at, now))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> Vec<IpNet> {
        list.iter()
            .map(|network| network.parse().unwrap())
            .collect()
    }

    #[test]
    fn a_look_through_a_proxy_needs_the_proxy_named_by_itself() {
        let client = [10, 1, 2, 3].into();
        let proxy = Some([10, 0, 0, 1].into());
        let named = |proxy| ClientAddress::Named { client, proxy };
        let itself = ClientAddress::Named {
            client: [10, 0, 0, 1].into(),
            proxy,
        };
        let elsewhere = ClientAddress::Named {
            client: [192, 0, 2, 1].into(),
            proxy,
        };
        let direct = ClientAddress::Direct(client);
        for (listed, trusted, who, may) in [
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
            (&["10.0.0.0/8"], &[], ClientAddress::Relayed(client), false),
            (
                &["10.0.0.0/8"],
                &["10.0.0.0/8"],
                ClientAddress::Stranger(client),
                false,
            ),
        ] {
            let networks_of = Networks::new(networks(listed), &networks(trusted));
            assert_eq!(
                networks_of.admit(who),
                may,
                "{listed:?} {trusted:?} {who:?}"
            );
        }
    }
}
