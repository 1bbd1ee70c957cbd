//! The client address of a request, and how far it can be trusted behind proxies.

use std::fmt;
use std::net::IpAddr;

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
}
