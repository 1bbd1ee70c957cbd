//! The address of the client: the peer of the connection, or the client that a trusted proxy names in a header.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use ipnet::IpNet;
use tokio::sync::Notify;

use crate::logging::RateLimitedLine;
use crate::net::address;
use crate::security::client_address::ClientAddress;
use crate::server_state::ProxyProblems as Seen;

/// Maximum number of hops that are read, from the right.
const HOPS_MAX: usize = 20;
/// The headers in which proxies name their client. A proxy may pass on the one that it does not write itself as its
/// client wrote it, so if both are present and differ, neither is trusted.
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";
/// Headers that show that a request came through a proxy, trusted or not.
const PROXY_HEADERS: &[&str] = &[
    X_FORWARDED_FOR,
    FORWARDED,
    "via",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];
/// Minimum time between two log lines about a proxy.
const LOG_EVERY: Duration = Duration::from_hours(1);

/// The trusted proxies, and what was observed of proxies that are not configured correctly.
#[derive(Clone, Debug)]
pub struct Proxies {
    networks: Vec<IpNet>,
    reports: Arc<Reports>,
}

/// Reports to the operator about proxies.
#[derive(Debug)]
struct Reports {
    unreadable_log: RateLimitedLine,
    untrusted_log: RateLimitedLine,
    /// Observations that have not been stored for the command `check` yet.
    pending: Mutex<Seen>,
    changed: Notify,
}

/// Why the client behind a trusted proxy is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreadable {
    /// Neither header is present.
    NoHeader,
    /// A hop is not an address, but for example `unknown`, empty, or a host name.
    NoAddress,
    /// Both headers are present and name different clients.
    Contradictory,
}

impl Proxies {
    /// Trusts the proxies in `networks`.
    pub fn new(networks: Vec<IpNet>) -> Self {
        let reports = Reports {
            unreadable_log: RateLimitedLine::each(LOG_EVERY),
            untrusted_log: RateLimitedLine::each(LOG_EVERY),
            pending: Mutex::default(),
            changed: Notify::new(),
        };
        Self {
            networks,
            reports: Arc::new(reports),
        }
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Waits for new observations. Only one task may wait at a time.
    pub async fn changed(&self) {
        self.reports.changed.notified().await;
    }

    /// Puts back observations from [`Proxies::take_observations`] that could not be stored. Newer ones take precedence.
    pub fn put_back(&self, seen: Seen) {
        let mut pending = self.pending();
        pending.unnamed = pending.unnamed.take().or(seen.unnamed);
        pending.untrusted = pending.untrusted.take().or(seen.untrusted);
        drop(pending);
        self.reports.changed.notify_one();
    }

    /// Takes the observations since the last call; `None` if there are none.
    pub fn take_observations(&self) -> Option<Seen> {
        let seen = std::mem::take(&mut *self.pending());
        Some(seen).filter(|seen| *seen != Seen::default())
    }

    fn pending(&self) -> MutexGuard<'_, Seen> {
        self.reports
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The client that sent a request with these `headers` over a connection from `peer`.
    pub(super) fn client_of(&self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        let peer = peer.ip().to_canonical();
        let is_relayed = PROXY_HEADERS.iter().any(|name| headers.contains_key(*name));
        if !self.trusts(peer) {
            if is_relayed {
                self.report_untrusted(peer);
                return ClientAddress::UntrustedProxy(peer);
            }
            return ClientAddress::Direct(peer);
        }
        match self.client_named(peer, headers) {
            Ok(client) => client,
            Err((proxy, why)) => {
                self.report_unreadable(proxy, why);
                ClientAddress::Unidentified(proxy)
            }
        }
    }

    /// The client that the headers name; if that is unknown, the address of the last known proxy, and why.
    fn client_named(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<ClientAddress, (IpAddr, Unreadable)> {
        let has_x_forwarded_for = headers.contains_key(X_FORWARDED_FOR);
        let has_forwarded = headers.contains_key(FORWARDED);
        match (has_x_forwarded_for, has_forwarded) {
            (false, false) => Err((peer, Unreadable::NoHeader)),
            (true, false) => self.last_hop(peer, x_forwarded_for(headers)),
            (false, true) => self.last_hop(peer, forwarded(headers)),
            (true, true) => {
                let client = self.last_hop(peer, x_forwarded_for(headers));
                if client == self.last_hop(peer, forwarded(headers)) {
                    client
                } else {
                    Err((peer, Unreadable::Contradictory))
                }
            }
        }
    }

    /// The right-most hop that is not a trusted proxy, or the left-most one if all are. `hops` begins at the right.
    fn last_hop(
        &self,
        peer: IpAddr,
        mut hops: Vec<Option<IpAddr>>,
    ) -> Result<ClientAddress, (IpAddr, Unreadable)> {
        let (mut client, mut proxies) = (peer, 0);
        // The trusted proxies alone do not make a longer chain.
        hops.truncate(HOPS_MAX);
        for hop in hops {
            client = hop.ok_or((client, Unreadable::NoAddress))?;
            proxies += 1;
            if !self.trusts(client) {
                break;
            }
        }
        let proxy = Some(peer).filter(|_| proxies == 1);
        Ok(ClientAddress::Forwarded { client, proxy })
    }

    fn report_unreadable(&self, proxy: IpAddr, why: Unreadable) {
        let why = match why {
            Unreadable::NoHeader => "without X-Forwarded-For or Forwarded",
            Unreadable::NoAddress => {
                "with an X-Forwarded-For or Forwarded header in which an address is missing or invalid"
            }
            Unreadable::Contradictory => {
                "with X-Forwarded-For and Forwarded headers that name different clients"
            }
        };
        if let Some(more) = self.reports.unreadable_log.due() {
            self.pending().unnamed = Some(proxy.to_string());
            self.reports.changed.notify_one();
            log::warn!(
                "a request came through the trusted proxy {proxy} {why}: all such clients share one \
                 rate limit; configure the proxy to write the client's address into X-Forwarded-For, and to \
                 remove the header that it does not write{more}"
            );
        }
    }

    /// Reports a proxy that is not trusted, unless its address is public: anyone can send such headers.
    fn report_untrusted(&self, peer: IpAddr) {
        if address::is_global(peer) {
            return;
        }
        if let Some(more) = self.reports.untrusted_log.due() {
            self.pending().untrusted = Some(peer.to_string());
            self.reports.changed.notify_one();
            log::warn!(
                "a request came through a proxy at {peer}, which is not in [server] trusted_proxies: \
                 all its clients share the rate limit of that address; if it is yours, add \
                 \"{peer}\" as a network{more}"
            );
        }
    }
}

/// The hops of all `X-Forwarded-For` headers, the last one first; `None` for one that is not an address.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let hops = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    hops.take(HOPS_MAX)
        .map(|hop| node(hop.trim().trim_matches('"')))
        .collect()
}

/// The hops of all `Forwarded` headers (RFC 7239), the last one first; `None` for one that does not name an address,
/// and for a malformed header line.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(FORWARDED).iter().rev();
    let hops = values.flat_map(|value| {
        let elements = value.to_str().ok().and_then(|text| split(text, ','));
        let elements = elements.unwrap_or_else(|| vec![""]);
        elements.into_iter().rev().map(element)
    });
    hops.take(HOPS_MAX).collect()
}

/// The address in the `for=` of an element; `None` if there is not exactly one.
fn element(text: &str) -> Option<IpAddr> {
    let pairs = split(text, ';')?;
    let mut values = pairs.into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    let (value, second) = (values.next()?, values.next());
    let value = value.trim();
    // Escapes are not decoded, because an address needs none.
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    node(inner.unwrap_or(value)).filter(|_| second.is_none())
}

/// Splits `text` at each `separator` outside quotes; `None` if a quote does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let (mut in_quotes, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_quotes => escaped = true,
            '"' => in_quotes = !in_quotes,
            c if c == separator && !in_quotes => {
                parts.push(text.get(begin..at)?);
                begin = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..)?);
    (!in_quotes).then_some(parts)
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn node(text: &str) -> Option<IpAddr> {
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => (address, port),
            _ => (text, ""),
        },
    };
    let port = port.strip_prefix(':').unwrap_or(port);
    // RFC 7239, 6.3: a port may be obfuscated.
    let is_obfuscated = port.starts_with('_');
    let is_valid_port = port.is_empty() || is_obfuscated || port.parse::<u16>().is_ok();
    let parsed = address.parse::<IpAddr>().ok().filter(|_| is_valid_port)?;
    Some(parsed.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, headers: &[(&str, &str)]) -> ClientAddress {
        let proxies = Proxies::new(vec![
            "10.0.0.0/8".parse().unwrap(),
            "::1/128".parse().unwrap(),
        ]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: hyper::header::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        proxies.client_of(SocketAddr::new(peer.parse().unwrap(), 1), &map)
    }

    /// Rows: the peer, the `X-Forwarded-For` lines, and the expected client.
    #[test]
    fn the_right_most_untrusted_hop_counts_and_only_from_a_trusted_proxy() {
        for (peer, lines, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("192.0.2.1", &[], "192.0.2.1"),
            ("::ffff:192.0.2.1", &["198.51.100.7"], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["1.2.3.4, 198.51.100.7"], "198.51.100.7"),
            (
                "10.0.0.1",
                &["1.2.3.4, 198.51.100.7, 10.9.9.9"],
                "198.51.100.7",
            ),
            ("10.0.0.1", &["1.2.3.4", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            ("::ffff:10.0.0.1", &["2001:db8::5"], "2001:db8::5"),
            ("::1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7:50123"], "198.51.100.7"),
            ("10.0.0.1", &["[2001:db8::5]"], "2001:db8::5"),
            ("10.0.0.1", &["[2001:db8::5]:443"], "2001:db8::5"),
            ("10.0.0.1", &["\"[2001:db8::5]:443\""], "2001:db8::5"),
            (
                "10.0.0.1",
                &["1.2.3.4:1, 198.51.100.7:2, 10.1.1.1:3"],
                "198.51.100.7",
            ),
            ("10.0.0.1", &["unknown"], "unknown, behind 10.0.0.1"),
            ("10.0.0.1", &[""], "unknown, behind 10.0.0.1"),
            ("10.0.0.1", &[" , "], "unknown, behind 10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4, "], "unknown, behind 10.0.0.1"),
            (
                "10.0.0.1",
                &["1.2.3.4, nonsense"],
                "unknown, behind 10.0.0.1",
            ),
            (
                "10.0.0.1",
                &["1.2.3.4, unknown, 10.9.9.9"],
                "unknown, behind 10.9.9.9",
            ),
            ("10.0.0.1", &["1.2.3.4:99999"], "unknown, behind 10.0.0.1"),
            ("10.0.0.1", &["[2001:db8::5"], "unknown, behind 10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4;5.6.7.8"], "unknown, behind 10.0.0.1"),
            ("10.0.0.1", &["1.2.3.4 5.6.7.8"], "unknown, behind 10.0.0.1"),
            ("10.0.0.1", &[], "unknown, behind 10.0.0.1"),
            ("::1", &["localhost"], "unknown, behind ::1"),
        ] {
            let headers: Vec<_> = lines.iter().map(|line| (X_FORWARDED_FOR, *line)).collect();
            assert_eq!(
                client(peer, &headers).to_string(),
                expected,
                "{peer} {lines:?}"
            );
        }
    }

    #[test]
    fn forwarded_is_parsed_as_in_rfc_7239() {
        for (lines, expected) in [
            (&["for=192.0.2.60"][..], "192.0.2.60"),
            (&["For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"], "192.0.2.60"),
            (
                &["proto=https; for = \"192.0.2.60:80\" ;host=\"a,b;for=1.1.1.1\""],
                "192.0.2.60",
            ),
            (&["for=1.2.3.4, for=192.0.2.60"], "192.0.2.60"),
            (&["for=1.2.3.4, for=192.0.2.60, for=10.1.1.1"], "192.0.2.60"),
            (&["for=1.2.3.4", "for=192.0.2.60"], "192.0.2.60"),
            (&["for=192.0.2.60:_hidden"], "192.0.2.60"),
            (&["for=\"1.2.3.4, 5.6.7.8\""], ""),
            (&["for=unknown"], ""),
            (&["for=_hidden"], ""),
            (&["for=\"_gazonk\""], ""),
            (&["for="], ""),
            (&["proto=https"], ""),
            (&["192.0.2.60"], ""),
            (&[""], ""),
            (&["for=192.0.2.60;for=192.0.2.61"], ""),
            (&["for=1.2.3.4, for=\"192.0.2.60"], ""),
            (&["for=\"192.0.2.\\60\""], ""),
            (&["for=1.2.3.4, for=_hidden"], ""),
        ] {
            let headers: Vec<_> = lines.iter().map(|line| (FORWARDED, *line)).collect();
            let expected = if expected.is_empty() {
                "unknown, behind 10.0.0.1"
            } else {
                expected
            };
            assert_eq!(
                client("10.0.0.1", &headers).to_string(),
                expected,
                "{lines:?}"
            );
        }
    }

    #[test]
    fn contradictory_headers_are_not_trusted() {
        for (x_forwarded_for, forwarded, expected) in [
            ("198.51.100.7", "for=1.2.3.4", "unknown, behind 10.0.0.1"),
            ("198.51.100.7", "for=_hidden", "unknown, behind 10.0.0.1"),
            ("198.51.100.7", "for=198.51.100.7", "198.51.100.7"),
            (
                "1.2.3.4, 198.51.100.7",
                "for=\"198.51.100.7:80\"",
                "198.51.100.7",
            ),
            (
                "198.51.100.7",
                "for=1.2.3.4, for=198.51.100.7",
                "198.51.100.7",
            ),
            (
                "198.51.100.7",
                "for=198.51.100.7, for=1.2.3.4",
                "unknown, behind 10.0.0.1",
            ),
            ("unknown", "for=_hidden", "unknown, behind 10.0.0.1"),
            ("unknown", "for=1.2.3.4", "unknown, behind 10.0.0.1"),
            ("", "for=1.2.3.4", "unknown, behind 10.0.0.1"),
        ] {
            let headers = [(FORWARDED, forwarded), (X_FORWARDED_FOR, x_forwarded_for)];
            assert_eq!(
                client("10.0.0.1", &headers).to_string(),
                expected,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_request_through_a_proxy_is_not_from_this_machine() {
        let is_local = |peer, headers: &[(&str, &str)]| client(peer, headers).is_this_machine();
        assert!(is_local("127.0.0.1", &[]));
        for header in PROXY_HEADERS {
            assert!(!is_local("127.0.0.1", &[(header, "x")]), "{header}");
        }
        // A trusted proxy: without a header, with one made up by its client, with one of its own.
        assert!(!is_local("::1", &[]));
        assert!(!is_local("::1", &[(X_FORWARDED_FOR, "127.0.0.1")]));
        assert!(!is_local("::1", &[(FORWARDED, "for=\"[::1]\"")]));
    }

    #[test]
    fn an_observation_of_a_proxy_is_returned_once() {
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let receive = |peer: [u8; 4], via: bool| {
            let mut headers = HeaderMap::new();
            if via {
                headers.insert("via", "x".parse().unwrap());
            }
            proxies.client_of(SocketAddr::from((peer, 1)), &headers);
        };
        receive([127, 0, 0, 1], false);
        // A header from a public address does not indicate a proxy of the operator.
        receive([8, 8, 8, 8], true);
        assert_eq!(proxies.take_observations(), None);
        receive([10, 0, 0, 1], false);
        receive([127, 0, 0, 1], true);
        let seen = proxies.take_observations().unwrap();
        assert_eq!(seen.unnamed.as_deref(), Some("10.0.0.1"));
        assert_eq!(seen.untrusted.as_deref(), Some("127.0.0.1"));
        assert_eq!(proxies.take_observations(), None);
        proxies.put_back(seen.clone());
        assert_eq!(
            proxies.take_observations(),
            Some(seen),
            "what could not be stored is not lost"
        );
    }

    #[test]
    fn a_very_long_chain_is_truncated() {
        let long = vec!["10.1.1.1"; 500].join(",");
        let named = client("10.0.0.1", &[(X_FORWARDED_FOR, &format!("1.2.3.4,{long}"))]);
        assert_eq!(named.to_string(), "10.1.1.1");
    }
}
