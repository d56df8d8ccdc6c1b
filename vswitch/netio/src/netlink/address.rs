//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Netlink;
use crate::Result;

impl Netlink {
    /// The addresses of an interface, of both families, with their prefix lengths.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn addresses(&mut self, ifindex: u32) -> Result<Vec<(IpAddr, u8)>> {
        let mut wanted = AddressMessage::default();
        wanted.header.index = ifindex;
        let answers = self.dump(
            &RouteNetlinkMessage::GetAddress(wanted),
            format_args!("list the addresses of interface {ifindex}"),
        )?;
        let addresses = answers.iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address) if address.header.index == ifindex => {
                read(address)
            }
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Gives an interface an address; one that it has already is fine. An IPv6 address is usable
    /// at once, without duplicate address detection.
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
    match ip {
        IpAddr::V4(_) => message.header.family = AddressFamily::Inet,
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    message
}

/// An address and its prefix length from the kernel's message.
pub(super) fn read(message: &AddressMessage) -> Option<(IpAddr, u8)> {
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
