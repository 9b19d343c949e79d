//! The machine's network interfaces, by getifaddrs(3).

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Interfaces on which mDNS is spoken; more are ignored.
const INTERFACES_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    /// Its first IPv4 address, if any.
    pub v4: Option<Ipv4Addr>,
}

/// All that are up and take multicast; if there is none, the loopback one, which takes it
/// without saying so.
pub fn multicast() -> io::Result<Vec<Interface>> {
    let all: Vec<InterfaceAddress> = getifaddrs()?.collect();
    let flag = |wanted: InterfaceFlags| {
        all.iter().filter(move |a| a.flags.contains(wanted | InterfaceFlags::IFF_UP))
    };
    let found = gather(flag(InterfaceFlags::IFF_MULTICAST));
    if found.is_empty() {
        return Ok(gather(flag(InterfaceFlags::IFF_LOOPBACK)));
    }
    Ok(found)
}

/// Every address of every interface that is up.
pub fn addresses() -> io::Result<Vec<IpAddr>> {
    let up = getifaddrs()?.filter(|address| address.flags.contains(InterfaceFlags::IFF_UP));
    Ok(up.filter_map(|address| ip(&address)).collect())
}

fn gather<'a>(addresses: impl Iterator<Item = &'a InterfaceAddress>) -> Vec<Interface> {
    let mut found: Vec<Interface> = Vec::new();
    for address in addresses {
        let Ok(index) = if_nametoindex(address.interface_name.as_str()) else { continue };
        let v4 = match ip(address) {
            Some(IpAddr::V4(v4)) => Some(v4),
            Some(IpAddr::V6(_)) | None => None,
        };
        if let Some(known) = found.iter_mut().find(|interface| interface.index == index) {
            known.v4 = known.v4.or(v4);
        } else if found.len() < INTERFACES_MAX {
            found.push(Interface { index, v4 });
        }
    }
    found
}

fn ip(address: &InterfaceAddress) -> Option<IpAddr> {
    let address = address.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_loopback_at_least() {
        assert!(addresses().unwrap().iter().any(IpAddr::is_loopback));
        assert!(multicast().unwrap().iter().all(|interface| interface.index > 0));
    }
}
