//! Which addresses may be called: those that the whole world reaches, and none that means this machine, its
//! network, or a way around the question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use ipnet::IpNet;

/// A network: its first address and the length of its prefix.
type V4 = ([u8; 4], u32);
type V6 = ([u16; 3], u32);

/// The IANA registry of special-purpose IPv4 addresses, whole, and what is no unicast.
const SPECIAL_V4: &[V4] = &[
    ([0, 0, 0, 0], 8),       // this network
    ([10, 0, 0, 0], 8),      // private
    ([100, 64, 0, 0], 10),   // carrier-grade NAT
    ([127, 0, 0, 0], 8),     // loopback
    ([169, 254, 0, 0], 16),  // link-local, and the clouds' metadata
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
/// The only IPv6 addresses that are given out for global unicast. Outside of it lie `::1`, IPv4-mapped
/// addresses, NAT64 (`64:ff9b::/96`), unique local, link-local and multicast ones.
const GLOBAL_V6: V6 = ([0x2000, 0, 0], 3);
/// What the IANA registry of special-purpose addresses takes out of it.
const SPECIAL_V6: &[V6] = &[
    ([0x2001, 0, 0], 23), // protocol assignments: Teredo, benchmarks, ORCHID, AMT
    ([0x2001, 0x0db8, 0], 32), // documentation
    ([0x2002, 0, 0], 16), // 6to4
    ([0x2620, 0x004f, 0x8000], 48), // AS112
    ([0x3fff, 0, 0], 20), // documentation
];
/// IPv4 addresses in the clothes of IPv6, which a translator on the way takes off.
const NAT64: V6 = ([0x0064, 0xff9b, 0], 96);
const IPV4_MAPPED_PREFIX: u32 = 96;

/// Whether everybody reaches `address`, so that a call to it tells us nothing that others may not see.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|network| in_v4(v4, *network)),
        IpAddr::V6(v6) => {
            in_v6(v6, GLOBAL_V6) && !SPECIAL_V6.iter().any(|network| in_v6(v6, *network))
        }
    }
}

/// Whether `address` may be called: it is global and not this machine's, or in one of the networks that the
/// operator allows. An IPv4 address inside an IPv6 one must be allowed itself, too.
pub fn may_be_called(address: IpAddr, allowed: &[IpNet]) -> bool {
    let named = allowed.iter().any(|network| network.contains(&address));
    let inner = match address {
        IpAddr::V6(v6) => inner_v4(v6).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    match (named, inner) {
        (true, Some(inner)) => {
            let named = allowed.iter().any(|network| network.contains(&inner));
            named || is_global(inner)
        }
        (true, None) => true,
        (false, _) => is_global(address) && !is_ours(address),
    }
}

/// The IPv4 address that a translator would make of `address`.
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let low = || Ipv4Addr::from_bits(u32::try_from(address.to_bits() & 0xffff_ffff).unwrap_or(0));
    let mapped = address.to_bits() >> (128 - IPV4_MAPPED_PREFIX) == 0xffff;
    (in_v6(address, NAT64) || mapped).then(low)
}

/// Whether `address` is one of this machine's: then the way to it begins at itself. No packet is sent.
fn is_ours(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Where there is no way at all, the connection will say so.
    let way = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(SocketAddr::new(address, 443))?;
        socket.local_addr()
    });
    way.is_ok_and(|from| from.ip() == address)
}

fn in_v4(address: Ipv4Addr, (network, prefix): V4) -> bool {
    let rest = 32 - prefix;
    address.to_bits() >> rest == Ipv4Addr::from(network).to_bits() >> rest
}

fn in_v6(address: Ipv6Addr, ([a, b, c], prefix): V6) -> bool {
    let rest = 128 - prefix;
    address.to_bits() >> rest == Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).to_bits() >> rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first and the last of each range, and their neighbours.
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
    fn only_what_the_whole_world_reaches_is_global() {
        for (list, global) in [(GLOBAL, true), (SPECIAL, false)] {
            for text in list.split_whitespace() {
                let address: IpAddr = text.parse().unwrap();
                assert_eq!(is_global(address), global, "{text}");
                assert!(global || !may_be_called(address, &[]), "{text}");
            }
        }
    }

    #[test]
    fn what_the_operator_allows_may_be_called_and_nothing_beside_it() {
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
    fn this_machines_own_addresses_are_known() {
        assert!(is_ours([127, 0, 0, 1].into()));
        // The address that packets for elsewhere begin at, where there is a way to elsewhere.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        if socket.connect("192.0.2.1:443").is_ok() {
            assert!(is_ours(socket.local_addr().unwrap().ip()));
        }
        assert!(!is_ours([192, 0, 2, 1].into()));
    }
}
