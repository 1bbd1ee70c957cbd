//! Who calls: the other end of the connection, or whom a trusted proxy names.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;
use ipnet::IpNet;
use tokio::sync::Notify;

use crate::logging::RateLimitedLine;
use crate::security::address;
use crate::security::client_address::ClientAddress;
use crate::server_state::Proxies as Seen;

/// Hops that are looked at, from the right.
const HOPS_MAX: usize = 20;
/// What proxies write who they speak for into. What a proxy does not write itself, it may hand on as its
/// client wrote it, so where both are there and do not say the same, neither is believed.
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";
/// What shows that a request came through a proxy, whatever it is worth.
const TRACES: &[&str] = &[
    X_FORWARDED_FOR,
    FORWARDED,
    "via",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
];
/// Between two lines of the log about a proxy.
const TELL_EACH: Duration = Duration::from_hours(1);

/// Networks whose word about the client's address is believed.
#[derive(Clone, Debug)]
pub struct Proxies {
    networks: Vec<IpNet>,
    told: Arc<Told>,
}

/// What the operator was told already.
#[derive(Debug)]
struct Told {
    unreadable: RateLimitedLine,
    untrusted: RateLimitedLine,
    /// What `check` has not been told yet.
    seen: Mutex<Seen>,
    news: Notify,
}

/// Why nobody knows who is behind a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreadable {
    /// No header says anything.
    Silent,
    /// A hop is no address: `unknown`, nothing, a name.
    NoAddress,
    /// Both headers are there and name different clients.
    Contradictory,
}

impl Proxies {
    /// Believes these networks.
    pub fn new(networks: Vec<IpNet>) -> Self {
        let told = Told {
            unreadable: RateLimitedLine::each(TELL_EACH),
            untrusted: RateLimitedLine::each(TELL_EACH),
            seen: Mutex::default(),
            news: Notify::new(),
        };
        Self {
            networks,
            told: Arc::new(told),
        }
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// Waits until something was seen of proxies; for one listener.
    pub async fn news(&self) {
        self.told.news.notified().await;
    }

    /// Takes back what [`Proxies::seen`] gave and could not be noted, unless something newer was seen.
    pub fn put_back(&self, seen: Seen) {
        let mut memory = self.memory();
        memory.unnamed = memory.unnamed.take().or(seen.unnamed);
        memory.untrusted = memory.untrusted.take().or(seen.untrusted);
        drop(memory);
        self.told.news.notify_one();
    }

    /// What was seen of proxies since the last call; `None` if that is nothing.
    pub fn seen(&self) -> Option<Seen> {
        let seen = std::mem::take(&mut *self.memory());
        Some(seen).filter(|seen| *seen != Seen::default())
    }

    fn memory(&self) -> MutexGuard<'_, Seen> {
        self.told
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Who sent a request with these `headers` over a connection from `peer`.
    pub(super) fn client_of(&self, peer: SocketAddr, headers: &HeaderMap) -> ClientAddress {
        let peer = peer.ip().to_canonical();
        let relayed = TRACES.iter().any(|name| headers.contains_key(*name));
        if !self.trusts(peer) {
            if relayed {
                self.tell_untrusted(peer);
                return ClientAddress::Relayed(peer);
            }
            return ClientAddress::Direct(peer);
        }
        match self.named(peer, headers) {
            Ok(named) => named,
            Err((proxy, why)) => {
                self.tell_unreadable(proxy, why);
                ClientAddress::Stranger(proxy)
            }
        }
    }

    /// Whom the headers name; where that cannot be known, the last proxy that can.
    fn named(
        &self,
        peer: IpAddr,
        headers: &HeaderMap,
    ) -> Result<ClientAddress, (IpAddr, Unreadable)> {
        let usual = headers.contains_key(X_FORWARDED_FOR);
        let standard = headers.contains_key(FORWARDED);
        match (usual, standard) {
            (false, false) => Err((peer, Unreadable::Silent)),
            (true, false) => self.last_hop(peer, x_forwarded_for(headers)),
            (false, true) => self.last_hop(peer, forwarded(headers)),
            (true, true) => {
                let named = self.last_hop(peer, x_forwarded_for(headers));
                if named == self.last_hop(peer, forwarded(headers)) {
                    named
                } else {
                    Err((peer, Unreadable::Contradictory))
                }
            }
        }
    }

    /// The right-most hop that is no trusted proxy, or the left-most one where all are.
    fn last_hop(
        &self,
        peer: IpAddr,
        mut hops: Vec<Option<IpAddr>>,
    ) -> Result<ClientAddress, (IpAddr, Unreadable)> {
        let (mut client, mut proxies) = (peer, 0);
        // A chain that is longer was not written by proxies of ours alone.
        hops.truncate(HOPS_MAX);
        for hop in hops {
            client = hop.ok_or((client, Unreadable::NoAddress))?;
            proxies += 1;
            if !self.trusts(client) {
                break;
            }
        }
        let proxy = Some(peer).filter(|_| proxies == 1);
        Ok(ClientAddress::Named { client, proxy })
    }

    fn tell_unreadable(&self, proxy: IpAddr, why: Unreadable) {
        let why = match why {
            Unreadable::Silent => "without X-Forwarded-For or Forwarded",
            Unreadable::NoAddress => {
                "with an X-Forwarded-For or Forwarded that names no address where one must be"
            }
            Unreadable::Contradictory => {
                "with an X-Forwarded-For and a Forwarded that name different clients"
            }
        };
        if let Some(more) = self.told.unreadable.due() {
            self.memory().unnamed = Some(proxy.to_string());
            self.told.news.notify_one();
            log::warn!(
                "a request came through the trusted proxy {proxy} {why}: all such clients share one \
                 rate limit; have the proxy write the client's address into X-Forwarded-For, and take away the \
                 header that it does not write{more}"
            );
        }
    }

    /// From the world at large, such a header is only what a stranger wrote.
    fn tell_untrusted(&self, peer: IpAddr) {
        if address::is_global(peer) {
            return;
        }
        if let Some(more) = self.told.untrusted.due() {
            self.memory().untrusted = Some(peer.to_string());
            self.told.news.notify_one();
            log::warn!(
                "a request came through a proxy at {peer}, which is not in [server] trusted_proxies: \
                 all its clients share the rate limit of that address; if it is yours, add \
                 \"{peer}\" as a network{more}"
            );
        }
    }
}

/// The hops of every `X-Forwarded-For`, the last one first; `None` for what is no address.
fn x_forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let hops = values.flat_map(|value| value.to_str().unwrap_or_default().rsplit(','));
    hops.take(HOPS_MAX)
        .map(|hop| node(hop.trim().trim_matches('"')))
        .collect()
}

/// The hops of every `Forwarded` (RFC 7239), the last one first; `None` for one that names no address, and
/// for a header line that cannot be read.
fn forwarded(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(FORWARDED).iter().rev();
    let hops = values.flat_map(|value| {
        let elements = value.to_str().ok().and_then(|text| split(text, ','));
        let elements = elements.unwrap_or_else(|| vec![""]);
        elements.into_iter().rev().map(element)
    });
    hops.take(HOPS_MAX).collect()
}

/// The address in the one `for=` of an element.
fn element(text: &str) -> Option<IpAddr> {
    let pairs = split(text, ';')?;
    let mut named = pairs.into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    });
    let (value, second) = (named.next()?, named.next());
    let value = value.trim();
    // Nothing in an address needs a backslash: what has one is no address.
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    node(inner.unwrap_or(value)).filter(|_| second.is_none())
}

/// The parts of `text` between `separator`s that are not in quotes; `None` where a quote does not end.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(text.get(begin..at)?);
                begin = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..)?);
    (!quoted).then_some(parts)
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
    // RFC 7239, 6.3: a port may be hidden, as an address may.
    let hidden = port.starts_with('_');
    let fits = port.is_empty() || hidden || port.parse::<u16>().is_ok();
    let parsed = address.parse::<IpAddr>().ok().filter(|_| fits)?;
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

    /// `peer`, `X-Forwarded-For` lines, and who that is: an address, or a stranger's.
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
    fn forwarded_is_read_as_its_standard_has_it() {
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
    fn where_both_headers_are_there_and_contradict_each_other_neither_is_believed() {
        for (named, forwarded, expected) in [
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
            let headers = [(FORWARDED, forwarded), (X_FORWARDED_FOR, named)];
            assert_eq!(
                client("10.0.0.1", &headers).to_string(),
                expected,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn a_request_that_came_through_a_proxy_is_not_this_machines() {
        let itself = |peer, headers: &[(&str, &str)]| client(peer, headers).is_this_machine();
        assert!(itself("127.0.0.1", &[]));
        for trace in TRACES {
            assert!(!itself("127.0.0.1", &[(trace, "x")]), "{trace}");
        }
        // A proxy of ours: with nothing, with what its client made up, with what it wrote itself.
        assert!(!itself("::1", &[]));
        assert!(!itself("::1", &[(X_FORWARDED_FOR, "127.0.0.1")]));
        assert!(!itself("::1", &[(FORWARDED, "for=\"[::1]\"")]));
    }

    #[test]
    fn what_was_seen_of_proxies_is_told_once() {
        let proxies = Proxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
        let comes = |peer: [u8; 4], via: bool| {
            let mut headers = HeaderMap::new();
            if via {
                headers.insert("via", "x".parse().unwrap());
            }
            proxies.client_of(SocketAddr::from((peer, 1)), &headers);
        };
        comes([127, 0, 0, 1], false);
        // What the world at large writes says nothing of a proxy of ours.
        comes([8, 8, 8, 8], true);
        assert_eq!(proxies.seen(), None);
        comes([10, 0, 0, 1], false);
        comes([127, 0, 0, 1], true);
        let seen = proxies.seen().unwrap();
        assert_eq!(seen.unnamed.as_deref(), Some("10.0.0.1"));
        assert_eq!(seen.untrusted.as_deref(), Some("127.0.0.1"));
        assert_eq!(proxies.seen(), None);
        proxies.put_back(seen.clone());
        assert_eq!(
            proxies.seen(),
            Some(seen),
            "what could not be noted is not lost"
        );
    }

    #[test]
    fn a_chain_without_an_end_is_cut() {
        let long = vec!["10.1.1.1"; 500].join(",");
        let told = client("10.0.0.1", &[(X_FORWARDED_FOR, &format!("1.2.3.4,{long}"))]);
        assert_eq!(told.to_string(), "10.1.1.1");
    }
}
