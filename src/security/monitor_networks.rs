//! Which clients may read `/health` and `/metrics`.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::client_address::ClientAddress;
use crate::logging::RateLimitedLine;

/// Interval between log lines about refused requests through a proxy.
const LOG_INTERVAL: Duration = Duration::from_hours(1);

/// Networks that may read `/health` and `/metrics`, besides loopback.
pub struct MonitorNetworks {
    listed: Vec<IpNet>,
    /// Proxies through which monitoring is allowed.
    monitoring_proxies: Vec<IpNet>,
    log_line: RateLimitedLine,
}

impl MonitorNetworks {
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

    /// Whether `client` may read them.
    pub fn allows(&self, client: ClientAddress) -> bool {
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
            let networks_of = MonitorNetworks::new(networks(listed), &networks(trusted));
            assert_eq!(
                networks_of.allows(client_address),
                allowed,
                "{listed:?} {trusted:?} {client_address:?}"
            );
        }
    }
}
