//! What the kernel has of router advertisements (RFC 4861, RFC 4862).

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::address::{AddressHeaderFlags, AddressMessage, AddressScope};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, Result, RouteFilter};

/// RTPROT_RA of include/uapi/linux/rtnetlink.h: the kernel's own, or of a program that takes advertisements.
const PROTOCOL: u8 = 9;

impl Netlink {
    /// Numbers of the interfaces that have a default route by a router's advertisement, or an IPv6 address that
    /// passes: by one, too, or by DHCP, which has no default routes.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn advertised_interfaces(&mut self) -> Result<BTreeSet<u32>> {
        let routes = self.routes(RouteFilter { table: None, protocol: Some(PROTOCOL) })?;
        let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let routes = routes.into_iter().filter(|route| route.destination == (unspecified, 0));
        let mut wanted = AddressMessage::default();
        wanted.header.family = AddressFamily::Inet6;
        let wanted = RouteNetlinkMessage::GetAddress(wanted);
        let addresses = self.dump(wanted, "list the IPv6 addresses of all interfaces")?;
        let passing = addresses.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) if passes(address) => {
                Some(address.header.index)
            }
            _ => None,
        });
        Ok(routes.filter_map(|route| route.oif).chain(passing).collect())
    }
}

fn passes(address: &AddressMessage) -> bool {
    let header = &address.header;
    header.family == AddressFamily::Inet6
        && header.scope == AddressScope::Universe
        && !header.flags.contains(AddressHeaderFlags::Permanent)
}
