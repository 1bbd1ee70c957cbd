//! The client address of a request, and how far it can be trusted behind proxies.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::rate_limit::Source;

/// The client address of a request. Rate limits, log lines and stored addresses use this, never the peer address of the
/// connection alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// The peer of the connection. The request has no header that indicates a proxy.
    Direct(IpAddr),
    /// The address of a proxy that is not trusted.
    UntrustedProxy(IpAddr),
    /// The client address that a trusted proxy forwarded.
    Forwarded {
        /// The client's address.
        client: IpAddr,
        /// The proxy that forwarded it. `None` if there are several proxies.
        proxy: Option<IpAddr>,
    },
    /// A client behind this trusted proxy, which did not forward the client's address.
    Unidentified(IpAddr),
}

impl ClientAddress {
    /// Whether the request comes from this machine. A loopback address in a header does not count: a proxy may pass on
    /// a header that its client wrote.
    pub fn is_this_machine(self) -> bool {
        matches!(self, Self::Direct(address) if address.is_loopback())
    }

    /// The address. `None` for a client behind a proxy that did not forward it.
    pub const fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Direct(address)
            | Self::UntrustedProxy(address)
            | Self::Forwarded {
                client: address, ..
            } => Some(address),
            Self::Unidentified(_) => None,
        }
    }

    /// The network of the client: its IPv4 address, or its IPv6 /64, which usually belongs to one customer. `None` for
    /// unknown clients behind a proxy, because one of them says nothing about the others.
    pub fn network(self) -> Option<String> {
        Some(match self.ip()?.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => {
                let network = Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64);
                format!("{network}/64")
            }
        })
    }
}

impl From<ClientAddress> for Source {
    fn from(address: ClientAddress) -> Self {
        match address {
            ClientAddress::Direct(address)
            | ClientAddress::UntrustedProxy(address)
            | ClientAddress::Forwarded {
                client: address, ..
            } => address.into(),
            // All unidentified clients behind one proxy share a limit, separate from that of the proxy's own address.
            ClientAddress::Unidentified(_) => Self::from_identifier(address.to_string().as_bytes()),
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address)
            | Self::UntrustedProxy(address)
            | Self::Forwarded {
                client: address, ..
            } => write!(f, "{address}"),
            Self::Unidentified(proxy) => write!(f, "unknown, behind {proxy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unidentified_client_behind_a_proxy_is_not_the_proxy() {
        let loopback: IpAddr = [127, 0, 0, 1].into();
        let other: IpAddr = [10, 0, 0, 1].into();
        let unidentified = ClientAddress::Unidentified(loopback);
        assert!(ClientAddress::Direct(loopback).is_this_machine());
        assert!(!ClientAddress::Direct(other).is_this_machine());
        let named = ClientAddress::Forwarded {
            client: loopback,
            proxy: Some(loopback),
        };
        assert!(
            !ClientAddress::UntrustedProxy(loopback).is_this_machine()
                && !unidentified.is_this_machine()
        );
        assert!(!named.is_this_machine());
        assert_eq!(Source::from(named), Source::from(loopback));
        assert_eq!(unidentified.ip(), None);
        assert_eq!(unidentified.to_string(), "unknown, behind 127.0.0.1");
        let source = Source::from(unidentified);
        assert_ne!(source, Source::from(loopback));
        assert_ne!(source, Source::from(ClientAddress::Unidentified(other)));
        assert_eq!(
            Source::from(ClientAddress::UntrustedProxy(loopback)),
            Source::from(loopback)
        );
    }

    #[test]
    fn a_client_network_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
        for (text, expected) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            let address = text.parse().unwrap();
            let network = ClientAddress::UntrustedProxy(address).network();
            assert_eq!(network.as_deref(), Some(expected));
            assert_eq!(ClientAddress::Unidentified(address).network(), None);
        }
    }
}
