//! Addresses of interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Netlink, Result};

impl Netlink {
    /// The addresses of an interface, of both families, with their prefix lengths. Those of IPv4 are in
    /// the order in which the kernel chooses among them.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn addresses(&mut self, ifindex: u32) -> Result<Vec<(IpAddr, u8)>> {
        Ok(self.address_messages(ifindex)?.iter().filter_map(read).collect())
    }

    /// Those of them that others may know the interface by: not link-local, not temporary
    /// (RFC 8981), not deprecated, and not still, or in vain, checked for duplicates.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn lasting_addresses(&mut self, ifindex: u32) -> Result<Vec<IpAddr>> {
        let messages = self.address_messages(ifindex)?;
        Ok(messages
            .iter()
            .filter(|message| lasts(message))
            .filter_map(read)
            .map(|(ip, _)| ip)
            .collect())
    }

    /// The IPv6 addresses of an interface that are deprecated (RFC 4862, section 5.5.4).
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn deprecated_addresses(&mut self, ifindex: u32) -> Result<Vec<Ipv6Addr>> {
        let messages = self.address_messages(ifindex)?;
        let deprecated = messages
            .iter()
            .filter(|message| message.header.flags.contains(AddressHeaderFlags::Deprecated));
        let addresses = deprecated.filter_map(read).filter_map(|(ip, _)| match ip {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => None,
        });
        Ok(addresses.collect())
    }

    /// The addresses of all interfaces, of both families.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn local_addresses(&mut self) -> Result<Vec<IpAddr>> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.dump(all, "list the addresses of all interfaces")?;
        let addresses = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) => read(address),
            _ => None,
        });
        Ok(addresses.map(|(ip, _)| ip).collect())
    }

    fn address_messages(&mut self, ifindex: u32) -> Result<Vec<AddressMessage>> {
        let mut wanted = AddressMessage::default();
        wanted.header.index = ifindex;
        let answers = self.dump(
            RouteNetlinkMessage::GetAddress(wanted),
            format_args!("list the addresses of interface {ifindex}"),
        )?;
        let of_interface = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == ifindex => {
                Some(address)
            }
            _ => None,
        });
        Ok(of_interface.collect())
    }

    /// Gives an interface an address; one that it has already is fine. An IPv6 address is usable
    /// at once, without duplicate address detection; an IPv4 address comes with the broadcast
    /// address of its prefix, where that has room for one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn add_address(&mut self, ifindex: u32, address: (IpAddr, u8)) -> Result<()> {
        let (ip, len) = address;
        self.change(
            RouteNetlinkMessage::NewAddress(message(ifindex, address)),
            NLM_F_CREATE | NLM_F_REPLACE,
            format_args!("add address {ip}/{len} to interface {ifindex}"),
        )
    }

    /// Has the kernel choose an IPv6 address of an interface as a source only where nothing else is to be
    /// had, for good. `add_address` takes it back. An interface that does not have the address gets it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn deprecate_address(&mut self, ifindex: u32, address: (Ipv6Addr, u8)) -> Result<()> {
        let (ip, len) = address;
        let mut message = message(ifindex, (ip.into(), len));
        let mut lifetimes = CacheInfo::default();
        (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
        message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_REPLACE,
            format_args!("deprecate address {ip}/{len} of interface {ifindex}"),
        )
    }

    /// Takes an address from an interface; false if it did not have it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_address(&mut self, ifindex: u32, address: (IpAddr, u8)) -> Result<bool> {
        let (ip, len) = address;
        self.remove(
            RouteNetlinkMessage::DelAddress(message(ifindex, address)),
            format_args!("remove address {ip}/{len} from interface {ifindex}"),
        )
    }
}

fn message(ifindex: u32, (ip, len): (IpAddr, u8)) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = ifindex;
    message.header.prefix_len = len;
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    match ip {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            // RFC 3021: a prefix of 31 bits has two hosts and no broadcast address.
            if len < 31 {
                let host_bits = u32::MAX >> len;
                let broadcast = Ipv4Addr::from_bits(v4.to_bits() | host_bits);
                message.attributes.push(AddressAttribute::Broadcast(broadcast));
            }
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn lasts(message: &AddressMessage) -> bool {
    // IFA_F_SECONDARY is the same bit: IPv4's second address of a subnet lasts.
    let is_v6 = message.header.family == AddressFamily::Inet6;
    let passing = AddressHeaderFlags::Deprecated
        | AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Secondary;
    let link_local =
        matches!(read(message), Some((IpAddr::V6(v6), _)) if v6.is_unicast_link_local());
    !(link_local || is_v6 && message.header.flags.intersects(passing))
}

/// An address and its prefix length from the kernel's message.
pub(crate) fn read(message: &AddressMessage) -> Option<(IpAddr, u8)> {
    // On a point-to-point link "address" is the other end's; IPv6 often has "address" alone.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    Some((local.or(address)?, message.header.prefix_len))
}
