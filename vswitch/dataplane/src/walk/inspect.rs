//! Inspection of ARP and neighbour discovery: what a pod may tell other members of its segment about
//! itself.
//!
//! Enters: an ARP message or an ICMPv6 packet of a pod on a segment, from `source`. Leaves: nothing, or
//! the drop. The messages of a routed pod end at the switch, which answers and believes nothing.
//!
//! | message | what has to be the pod's own |
//! |---|---|
//! | ARP request or reply   | the sender's MAC and address |
//! | ARP probe (RFC 5227)   | the sender's MAC, and the address that is asked for |
//! | neighbour solicitation | the MAC in its options; from the unspecified address, the target too |
//! | neighbour advertisement | the target, and the MAC in its options |
//! | router solicitation    | the MAC in its options |
//!
//! A probe for another's address, of which neither ARP nor duplicate address detection (RFC 4862,
//! section 5.4.3) can tell whether an interface sends it that really wants the address, would take it
//! from an interface that is about to have it.

use core::net::Ipv6Addr;

use super::parse::{Headers, Ip};
use crate::tables::Port;
use crate::verdict::DropReason;
use crate::wire::{Arp, arp, header, icmpv6, ndp};

/// Checks an ARP message, which these bytes begin with.
#[inline(never)]
pub(super) fn arp(port: &Port, bytes: &[u8], headers: &Headers) -> Result<(), DropReason> {
    let arp = Arp::parse(bytes).map_err(|_| DropReason::ArpMalformed)?;
    if arp.sender_mac() != headers.source_mac {
        return Err(DropReason::SourceMacSpoofed);
    }
    let is_probe = arp.operation() == arp::Operation::Request && arp.sender_ip().is_unspecified();
    let claimed = if is_probe { arp.target_ip() } else { arp.sender_ip() };
    if port.addresses.contains(&claimed.into()) {
        Ok(())
    } else {
        Err(DropReason::SourceAddressSpoofed)
    }
}

/// Checks an ICMPv6 message.
#[inline(never)]
pub(super) fn discovery(port: &Port, message: &[u8], ip: &Ip) -> Result<(), DropReason> {
    let malformed = DropReason::NeighborDiscoveryMalformed;
    let kind = ip.flow.icmp().map(|icmp| icmp.kind);
    let options_offset = match kind {
        Some(icmpv6::ROUTER_SOLICITATION) => icmpv6::HEADER_LEN,
        Some(icmpv6::NEIGHBOR_SOLICITATION | icmpv6::NEIGHBOR_ADVERTISEMENT) => ndp::HEADER_LEN,
        _ => return Ok(()),
    };
    let options = message.get(options_offset..).ok_or(malformed)?;
    if !ndp::names_only(options, port.mac).map_err(|_| malformed)? {
        return Err(DropReason::SourceMacSpoofed);
    }
    let claims = match kind {
        Some(icmpv6::NEIGHBOR_ADVERTISEMENT) => true,
        Some(icmpv6::NEIGHBOR_SOLICITATION) => ip.flow.source().is_unspecified(),
        _ => false,
    };
    // RFC 4861, sections 4.3 and 4.4: the target is behind checksum and flags.
    let target: &[u8; 16] = match claims {
        true => header(message, icmpv6::HEADER_LEN).ok_or(malformed)?,
        false => return Ok(()),
    };
    if has_v6(port, Ipv6Addr::from(*target)) {
        Ok(())
    } else {
        Err(DropReason::SourceAddressSpoofed)
    }
}

/// Whether an IPv6 address is the pod's, its link-local one included.
pub(super) fn has_v6(port: &Port, address: Ipv6Addr) -> bool {
    address == port.mac.link_local() || port.addresses.contains(&address.into())
}

/// Whether an IPv6 packet may be from the unspecified address: what an interface sends before it has
/// one (RFC 4862, section 5.4; RFC 4861, section 4.1; RFC 3590).
pub(super) fn is_of_new_interface(ip: &Ip) -> bool {
    ip.flow.icmp().is_some_and(|icmp| {
        matches!(
            icmp.kind,
            icmpv6::NEIGHBOR_SOLICITATION
                | icmpv6::ROUTER_SOLICITATION
                | icmpv6::LISTENER_REPORT
                | icmpv6::LISTENER_DONE
                | icmpv6::LISTENER_REPORT_V2
        )
    })
}
