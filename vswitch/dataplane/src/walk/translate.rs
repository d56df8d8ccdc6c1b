//! Right of the verdict: the addresses and ports that a translated packet gets.
//!
//! Enters: the packet as it was received, with its [`Headers`], and a [`Translation`]. Leaves: the same
//! packet with other endpoints and true checksums. An ICMP error is about a packet of its flow: what it
//! quotes is translated as well, so that its receiver knows its own packet again.
//!
//! | checksum | follows |
//! |---|---|
//! | of the IPv4 header | the addresses |
//! | of TCP and UDP, finished | addresses and ports (RFC 1624) |
//! | of TCP and UDP, left to a device | the addresses: the field holds the pseudo header's sum alone |
//! | of UDP, none | nothing (RFC 768; RFC 6935 over IPv6) |
//! | of ICMP | what it quotes; over IPv6 the addresses too |
//! | of SCTP | the ports: CRC32c over all of the packet (RFC 9260, section 6.8) |

use frame::{Checksum, Packet};

use super::flow::{Addresses, FlowKey};
use super::parse::{Headers, Net};
use crate::wire::checksum::{Sum, updated_u16};
use crate::wire::{Protocol, header_mut, icmpv4, ipv4, ipv6, sctp, tcp, udp};

/// Other endpoints for a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Translation {
    /// The packet's flow afterwards.
    pub(crate) flow: FlowKey,
    /// What an ICMP error quotes.
    pub(crate) quoted: Option<QuotedTranslation>,
}

/// Other endpoints for the packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct QuotedTranslation {
    pub(crate) quoted: Quoted,
    /// Its flow afterwards.
    pub(crate) flow: FlowKey,
}

/// The packet that an ICMP error quotes, as far as it goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quoted {
    pub(crate) flow: FlowKey,
    /// Where its network header begins, in bytes from the frame's first.
    pub(crate) l3: usize,
    /// Where its transport header begins.
    pub(crate) l4: usize,
}

/// What a transport checksum covers by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Summed {
    /// Everything.
    All,
    /// The pseudo header.
    PseudoHeader,
}

/// Replaces a packet's endpoints. It begins with its outer headers still. `None`, and half edited, if
/// its bytes end before a field that has to change.
#[inline(never)]
pub(crate) fn translate(
    packet: &mut Packet,
    headers: &Headers,
    translation: &Translation,
) -> Option<()> {
    let Net::Ip(ip) = &headers.net else { return None };
    let summed = match packet.offload.checksum {
        // `offload` lets none begin here that is not the protocol's own.
        Checksum::Partial { start, .. } if usize::from(start) == ip.l4 => Summed::PseudoHeader,
        _ => Summed::All,
    };
    let end = headers.l3 + ip.len;
    let bytes = packet.frame.get_mut(..end)?;
    if let Some(translation) = &translation.quoted {
        quoted(bytes, ip.l4, translation, summed)?;
    }
    replace(bytes, (headers.l3, ip.l4), &ip.flow, &translation.flow, summed)
}

/// Replaces the endpoints of the packet whose network and transport headers begin there.
fn replace(
    bytes: &mut [u8],
    (l3, l4): (usize, usize),
    from: &FlowKey,
    to: &FlowKey,
    summed: Summed,
) -> Option<()> {
    put_addresses(bytes, l3, &to.addresses)?;
    if from.is_later_fragment() {
        return Some(());
    }
    let addresses = (sum_of(&from.addresses), sum_of(&to.addresses));
    let transport = bytes.get_mut(l4..)?;
    match from.protocol {
        Protocol::TCP => {
            let changed = put_ports(transport, from, to)?;
            update(transport, tcp::CHECKSUM_OFFSET, addresses, changed, summed)
        }
        Protocol::UDP => {
            let changed = put_ports(transport, from, to)?;
            let field: &mut [u8; 2] = header_mut(transport, udp::CHECKSUM_OFFSET)?;
            if *field == [0, 0] && summed == Summed::All {
                return Some(());
            }
            update(transport, udp::CHECKSUM_OFFSET, addresses, changed, summed)?;
            if summed == Summed::All { some_sum(transport) } else { Some(()) }
        }
        Protocol::SCTP if from.ports() == to.ports() => Some(()),
        // A fragment has not all that is summed.
        Protocol::SCTP if from.is_fragment() => None,
        Protocol::SCTP => sctp::set_ports(transport, to.ports()?.to_be_bytes()),
        Protocol::ICMPV6 => {
            update(transport, icmpv4::CHECKSUM_OFFSET, addresses, (Sum::new(), Sum::new()), summed)
        }
        _ => Some(()),
    }
}

/// Replaces the endpoints of what an ICMP error quotes, and has the error's checksum follow. What is
/// quoted may end anywhere behind its addresses, and its own checksum may never have been finished.
fn quoted(
    bytes: &mut [u8],
    icmp: usize,
    translation: &QuotedTranslation,
    summed: Summed,
) -> Option<()> {
    let QuotedTranslation { quoted: Quoted { flow, l3, l4 }, flow: to } = translation;
    let before = Sum::new().bytes(bytes.get(*l3..)?);
    put_addresses(bytes, *l3, &to.addresses)?;
    if let Some(transport) = bytes.get_mut(*l4..) {
        quoted_transport(transport, flow, to);
    }
    let after = Sum::new().bytes(bytes.get(*l3..)?);
    if summed == Summed::All {
        let field: &mut [u8; 2] = header_mut(bytes, icmp + icmpv4::CHECKSUM_OFFSET)?;
        let updated = updated_u16(u16::from_be_bytes(*field), before.fold(), after.fold());
        *field = updated.to_be_bytes();
    }
    Some(())
}

/// As far as the bytes go; `None` where they end.
fn quoted_transport(transport: &mut [u8], from: &FlowKey, to: &FlowKey) -> Option<()> {
    let changed = put_ports(transport, from, to)?;
    let addresses = (sum_of(&from.addresses), sum_of(&to.addresses));
    match from.protocol {
        Protocol::TCP => update(transport, tcp::CHECKSUM_OFFSET, addresses, changed, Summed::All),
        Protocol::UDP => {
            let field: &mut [u8; 2] = header_mut(transport, udp::CHECKSUM_OFFSET)?;
            (*field != [0, 0]).then_some(())?;
            update(transport, udp::CHECKSUM_OFFSET, addresses, changed, Summed::All)?;
            some_sum(transport)
        }
        _ => None,
    }
}

/// RFC 768: zero is for none, and a sum that is zero is written as all ones.
fn some_sum(datagram: &mut [u8]) -> Option<()> {
    let field: &mut [u8; 2] = header_mut(datagram, udp::CHECKSUM_OFFSET)?;
    if *field == [0, 0] {
        *field = [0xff, 0xff];
    }
    Some(())
}

/// Writes addresses into an IP header, whose own checksum follows.
fn put_addresses(bytes: &mut [u8], l3: usize, to: &Addresses) -> Option<()> {
    match to {
        Addresses::V4 { source, destination } => {
            ipv4::set_addresses(header_mut(bytes, l3)?, *source, *destination);
        }
        Addresses::V6 { source, destination } => {
            ipv6::set_addresses(header_mut(bytes, l3)?, *source, *destination);
        }
    }
    Some(())
}

/// Writes the ports; their sums before and after. `None` if the packet ends before.
fn put_ports(transport: &mut [u8], from: &FlowKey, to: &FlowKey) -> Option<(Sum, Sum)> {
    let (Some(from), Some(to)) = (from.ports(), to.ports()) else { return None };
    let field: &mut [u8; 4] = header_mut(transport, 0)?;
    *field = to.to_be_bytes();
    Some((Sum::new().bytes(&from.to_be_bytes()), Sum::new().bytes(&to.to_be_bytes())))
}

fn sum_of(addresses: &Addresses) -> Sum {
    match addresses {
        Addresses::V4 { source, destination } => {
            Sum::new().u32(source.to_bits()).u32(destination.to_bits())
        }
        Addresses::V6 { source, destination } => {
            Sum::new().bytes(&source.octets()).bytes(&destination.octets())
        }
    }
}

/// Has a transport checksum follow addresses and ports that changed from the first sum to the second.
fn update(
    transport: &mut [u8],
    at: usize,
    addresses: (Sum, Sum),
    ports: (Sum, Sum),
    summed: Summed,
) -> Option<()> {
    let field: &mut [u8; 2] = header_mut(transport, at)?;
    let was = u16::from_be_bytes(*field);
    let (old, new) = (addresses.0.fold(), addresses.1.fold());
    let is = match summed {
        Summed::All => updated_u16(updated_u16(was, old, new), ports.0.fold(), ports.1.fold()),
        // The sum itself is there, not its complement.
        Summed::PseudoHeader => !updated_u16(!was, old, new),
    };
    *field = is.to_be_bytes();
    Some(())
}

#[cfg(test)]
mod tests;
