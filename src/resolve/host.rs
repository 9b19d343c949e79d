//! Which address of this machine other sidecars are told. PURE: facts come in as values.
//!
//! Source: Dapr's `utils/host.go`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Documentation addresses: a UDP socket connected to them shows the source address that the
/// kernel prefers, and sends nothing.
pub const PROBES: [(IpAddr, u16); 2] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 80),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 80),
];

/// `preferred`: what the probes showed, in order; `interfaces`: every address of every interface.
pub fn choose(preferred: &[IpAddr], interfaces: &[IpAddr]) -> Option<IpAddr> {
    let usable = |address: &&IpAddr| !is_clat(**address) && !address.is_unspecified();
    if let Some(address) = preferred.iter().find(usable) {
        return Some(*address);
    }
    let candidates = interfaces.iter().filter(usable).filter(|address| !address.is_loopback());
    // The first of the best class, as Go's loop keeps it.
    candidates
        .filter_map(|address| Some((class(*address)?, *address)))
        .min_by_key(|(c, _)| *c)
        .map(|(_, address)| address)
}

/// 464XLAT's own network, RFC 7335.
fn is_clat(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [192, 0, 0] && v4.octets()[3] < 8,
        IpAddr::V6(_) => false,
    }
}

/// Lower is better.
fn class(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(v4) if v4.is_link_local() => Some(9),
        IpAddr::V4(v4) if v4.is_multicast() || v4.is_broadcast() => None,
        IpAddr::V4(v4) if v4.is_private() || is_shared(v4) => Some(2),
        IpAddr::V4(_) => Some(0),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some(9),
        IpAddr::V6(v6) if v6.is_unique_local() => Some(3),
        IpAddr::V6(v6) if v6.is_multicast() => None,
        IpAddr::V6(_) => Some(1),
    }
}

/// RFC 6598.
fn is_shared(v4: Ipv4Addr) -> bool {
    v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(preferred: &[&str], interfaces: &[&str]) -> Option<String> {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        choose(&parse(preferred), &parse(interfaces)).map(|address| address.to_string())
    }

    #[test]
    fn prefers_what_the_kernel_prefers() {
        assert_eq!(of(&["10.0.0.5"], &["8.8.8.8"]).as_deref(), Some("10.0.0.5"));
        assert_eq!(of(&["192.0.0.4", "2001::5"], &[]).as_deref(), Some("2001::5"));
        assert_eq!(of(&["192.0.0.8"], &[]).as_deref(), Some("192.0.0.8"));
    }

    #[test]
    fn orders_interfaces_as_daprd_does() {
        let all = ["127.0.0.1", "fe80::1", "fd00::1", "10.0.0.1", "2001::1", "8.8.8.8"];
        for best in (2..=all.len()).rev() {
            assert_eq!(of(&[], &all[..best]).as_deref(), Some(all[best - 1]));
        }
        assert_eq!(of(&[], &["100.64.0.1", "fd00::1"]).as_deref(), Some("100.64.0.1"));
        assert_eq!(of(&[], &["10.0.0.1", "10.0.0.2"]).as_deref(), Some("10.0.0.1"));
        assert_eq!(of(&[], &["127.0.0.1", "::1", "192.0.0.1"]), None);
    }
}
