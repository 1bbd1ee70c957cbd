//! Where a request comes from, as far as that can be known, and what may follow from it.

use std::fmt;
use std::net::IpAddr;

use super::rate_limit::Source;

/// Where a request comes from. Limits, logs and what is kept go by this, never by the connection alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// The other end of the connection, and nothing says that anything is in between.
    Direct(IpAddr),
    /// A proxy that is not trusted.
    Relayed(IpAddr),
    /// The client as a trusted proxy names it.
    Named {
        /// Its address.
        client: IpAddr,
        /// The proxy that named it, where that is the only one in between.
        proxy: Option<IpAddr>,
    },
    /// Somebody behind this trusted proxy, which does not say who.
    Stranger(IpAddr),
}

impl ClientAddress {
    /// Whether this machine itself asks. What a header says is no proof of that: a proxy that adds none
    /// hands on what its client wrote.
    pub fn is_this_machine(self) -> bool {
        matches!(self, Self::Direct(address) if address.is_loopback())
    }

    /// The address, where it is known.
    pub const fn known(self) -> Option<IpAddr> {
        match self {
            Self::Direct(address)
            | Self::Relayed(address)
            | Self::Named {
                client: address, ..
            } => Some(address),
            Self::Stranger(_) => None,
        }
    }
}

impl From<ClientAddress> for Source {
    fn from(address: ClientAddress) -> Self {
        match address {
            ClientAddress::Direct(address)
            | ClientAddress::Relayed(address)
            | ClientAddress::Named {
                client: address, ..
            } => address.into(),
            // All strangers behind one proxy share a limit, which is not that of the proxy's machine.
            ClientAddress::Stranger(_) => Self::named(address.to_string().as_bytes()),
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address)
            | Self::Relayed(address)
            | Self::Named {
                client: address, ..
            } => write!(f, "{address}"),
            Self::Stranger(proxy) => write!(f, "unknown, behind {proxy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_behind_a_proxy_is_not_the_proxy() {
        let here: IpAddr = [127, 0, 0, 1].into();
        let other: IpAddr = [10, 0, 0, 1].into();
        let stranger = ClientAddress::Stranger(here);
        assert!(ClientAddress::Direct(here).is_this_machine());
        assert!(!ClientAddress::Direct(other).is_this_machine());
        let named = ClientAddress::Named {
            client: here,
            proxy: Some(here),
        };
        assert!(!ClientAddress::Relayed(here).is_this_machine() && !stranger.is_this_machine());
        assert!(!named.is_this_machine());
        assert_eq!(Source::from(named), Source::from(here));
        assert_eq!(stranger.known(), None);
        assert_eq!(stranger.to_string(), "unknown, behind 127.0.0.1");
        let source = Source::from(stranger);
        assert_ne!(source, Source::from(here));
        assert_ne!(source, Source::from(ClientAddress::Stranger(other)));
        assert_eq!(
            Source::from(ClientAddress::Relayed(here)),
            Source::from(here)
        );
    }
}
