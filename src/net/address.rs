//! Which addresses the server may connect to: globally routable ones, but not this machine, its network, or addresses
//! that embed one of those (protection against server-side request forgery).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// An IPv4 network: its first address, and the length of its prefix in bits.
type NetworkV4 = ([u8; 4], u32);
/// An IPv6 network: the first three groups of its first address, of which the others are 0, and the length of its prefix in
/// bits.
type NetworkV6 = ([u16; 3], u32);

/// The complete IANA registry of special-purpose IPv4 addresses, plus multicast.
const SPECIAL_V4: &[NetworkV4] = &[
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // carrier-grade NAT
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, and metadata services of cloud providers
    ([172, 16, 0, 0], 12),   // private
    ([192, 0, 0, 0], 24),    // protocol assignments
    ([192, 0, 2, 0], 24),    // documentation
    ([192, 31, 196, 0], 24), // AS112
    ([192, 52, 193, 0], 24), // AMT
    ([192, 88, 99, 0], 24),  // 6to4 relays
    ([192, 168, 0, 0], 16),  // private
    ([192, 175, 48, 0], 24), // AS112
    ([198, 18, 0, 0], 15),   // benchmarks
    ([198, 51, 100, 0], 24), // documentation
    ([203, 0, 113, 0], 24),  // documentation
    ([224, 0, 0, 0], 4),     // multicast
    ([240, 0, 0, 0], 4),     // reserved, and broadcast
];
/// The only IPv6 range that is allocated for global unicast. Outside it are `::1`, IPv4-mapped addresses, NAT64
/// (`64:ff9b::/96`), unique local, link-local and multicast addresses.
const GLOBAL_V6: NetworkV6 = ([0x2000, 0, 0], 3);
/// The parts of [`GLOBAL_V6`] that the IANA registry lists as special-purpose addresses.
const SPECIAL_V6: &[NetworkV6] = &[
    ([0x2001, 0, 0], 23), // protocol assignments: Teredo, benchmarks, ORCHID, AMT
    ([0x2001, 0x0db8, 0], 32), // documentation
    ([0x2002, 0, 0], 16), // 6to4
    ([0x2620, 0x004f, 0x8000], 48), // AS112
    ([0x3fff, 0, 0], 20), // documentation
];
/// IPv6 addresses that a NAT64 gateway translates to the IPv4 address embedded in them.
const NAT64: NetworkV6 = ([0x0064, 0xff9b, 0], 96);

/// Whether `address` is globally routable. A request to it cannot reveal anything about a private network.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|network| in_v4(v4, *network)),
        IpAddr::V6(v6) => {
            in_v6(v6, GLOBAL_V6) && !SPECIAL_V6.iter().any(|network| in_v6(v6, *network))
        }
    }
}

/// Whether the server may connect to `address`: it is global and not one of this machine's, or it is in one of the
/// networks that the operator allows. If an IPv4 address is embedded in it, that one must be permitted as well.
pub fn may_be_called(address: IpAddr, allowed: &[IpNet]) -> bool {
    let is_allowed = allowed.iter().any(|network| network.contains(&address));
    let embedded = match address {
        IpAddr::V6(v6) => embedded_v4(v6).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    match (is_allowed, embedded) {
        (true, Some(embedded)) => {
            let is_allowed = allowed.iter().any(|network| network.contains(&embedded));
            is_allowed || is_global(embedded)
        }
        (true, None) => true,
        (false, _) => is_global(address) && !is_own(address),
    }
}

/// The IPv4 address that is embedded in an IPv4-mapped or NAT64 address.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = address.octets();
    let is_nat64 = in_v6(address, NAT64);
    (is_nat64 || address.to_ipv4_mapped().is_some()).then_some(Ipv4Addr::new(a, b, c, d))
}

/// Whether `address` is one of this machine's own: then the system chooses the same address as the source of a
/// connection to it. No packet is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Without a route this fails, and so will the connection.
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(address, 443))?;
        socket.local_addr()
    });
    source.is_ok_and(|from| from.ip() == address)
}

fn in_v4(address: Ipv4Addr, (network, prefix): NetworkV4) -> bool {
    let host_bits = 32 - prefix;
    address.to_bits() >> host_bits == Ipv4Addr::from(network).to_bits() >> host_bits
}

fn in_v6(address: Ipv6Addr, ([a, b, c], prefix): NetworkV6) -> bool {
    let host_bits = 128 - prefix;
    address.to_bits() >> host_bits == Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_bits() >> host_bits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last address of each range, and their neighbors.
    const GLOBAL: &str = "\
        1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 \
        169.253.255.255 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 \
        198.20.0.0 223.255.255.255 2000::1 2001:200::1 2001:db7:ffff::1 2001:db9::1 2606:4700::1111 \
        2620:4f:8001::1 3ffe:ffff::1 3fff:1000::1 \
        ";
    const SPECIAL: &str = "\
        0.0.0.0 0.1.2.3 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.1 127.255.255.255 \
        169.254.169.254 172.16.0.0 172.31.255.255 192.0.0.8 192.0.0.170 192.0.2.1 192.88.99.1 \
        192.168.0.0 198.18.0.0 198.19.255.255 198.51.100.7 203.0.113.7 224.0.0.1 239.255.255.250 \
        240.0.0.1 255.255.255.255 :: ::1 ::ffff:1.1.1.1 ::ffff:127.0.0.1 ::1.1.1.1 64:ff9b::1.1.1.1 \
        64:ff9b::7f00:1 64:ff9b:1::1 100::1 1fff:ffff::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 \
        2001:2::1 2001:10::1 2001:20::1 2001:1ff:ffff::1 2001:db8::1 2002:7f00:1::1 2002:101:101::1 \
        2620:4f:8000::1 3fff::1 3fff:fff:ffff::1 4000::1 5f00::1 fc00::1 fdff:ffff::1 fe80::1 fec0::1 \
        ff02::1 \
        ";

    #[test]
    fn only_globally_routable_addresses_are_global() {
        for (list, global) in [(GLOBAL, true), (SPECIAL, false)] {
            for text in list.split_whitespace() {
                let address: IpAddr = text.parse().unwrap();
                assert_eq!(is_global(address), global, "{text}");
                assert!(global || !may_be_called(address, &[]), "{text}");
            }
        }
    }

    #[test]
    fn only_networks_that_the_operator_allows_may_be_called_beside_global_addresses() {
        let allowed: Vec<IpNet> = [
            "127.0.0.0/8",
            "10.1.0.0/16",
            "64:ff9b::/96",
            "::ffff:0:0/96",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        for (text, may) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("10.2.0.1", false),
            ("192.168.1.1", false),
            ("::1", false),
            ("64:ff9b::1.1.1.1", true),
            ("64:ff9b::10.1.2.3", true),
            ("64:ff9b::192.168.1.1", false),
            ("::ffff:10.1.2.3", true),
            ("::ffff:192.168.1.1", false),
        ] {
            assert_eq!(
                may_be_called(text.parse().unwrap(), &allowed),
                may,
                "{text}"
            );
        }
    }

    #[test]
    fn own_addresses_are_detected() {
        assert!(is_own([127, 0, 0, 1].into()));
        // The source address of outgoing packets, if there is a route to other networks.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:443").is_ok() {
            assert!(is_own(socket.local_addr().unwrap().ip()));
        }
        assert!(!is_own([192, 0, 2, 1].into()));
    }
}
