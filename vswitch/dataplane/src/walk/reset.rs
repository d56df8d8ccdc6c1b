//! Right of the verdict: the TCP reset to the sender of a refused segment.
//!
//! Enters: the segment, from `act`. Leaves: the same frame, turned into the reset in place. `session`
//! decided that there is one.

use frame::{Offload, Packet};

use super::answer::ERROR_TTL;
use super::flow::Addresses;
use super::parse::{Headers, Net};
use crate::wire::checksum::Sum;
use crate::wire::{Protocol, Tcp, TcpFlags, ipv4, ipv6, tcp};

/// Whether a segment is answered with a reset: one that is whole, and no reset itself.
pub(crate) fn is_due(segment: &[u8]) -> bool {
    Tcp::parse(segment).is_ok_and(|segment| !segment.flags().contains(TcpFlags::RST))
}

/// Turns a TCP segment into the reset that its receiver would send if nobody listened there (RFC 9293,
/// section 3.10.7.1): an IP packet that begins at the frame's first byte. `None` if it is no segment.
pub(crate) fn reset(packet: &mut Packet, headers: &Headers) -> Option<()> {
    let Net::Ip(ip) = headers.net else { return None };
    let segment = Tcp::parse(headers.transport(&packet.frame, &ip)).ok()?;
    let flags = segment.flags();
    let one_each =
        u32::from(flags.contains(TcpFlags::SYN)) + u32::from(flags.contains(TcpFlags::FIN));
    let end =
        segment.sequence().wrapping_add(segment.payload().len() as u32).wrapping_add(one_each);
    let (sequence, acknowledgement, flags) = if flags.contains(TcpFlags::ACK) {
        (segment.acknowledgement(), 0, TcpFlags::RST)
    } else {
        (0, end, TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0))
    };
    let reply = tcp::Repr {
        source: segment.destination(),
        destination: segment.source(),
        sequence,
        acknowledgement,
        flags,
        window: 0,
        checksum: 0,
        urgent: 0,
    };
    packet.offload = Offload::default();
    packet.frame.truncate(0);
    let len = tcp::HEADER_LEN as u16;
    let bytes = packet.frame.extend(tcp::HEADER_LEN).ok()?;
    reply.emit(bytes)?;
    match ip.flow.addresses {
        Addresses::V4 { source: to, destination: from } => {
            let pseudo = Sum::pseudo_v4(from, to, Protocol::TCP, len);
            tcp::fill_checksum(bytes, pseudo).then_some(())?;
            let header = ipv4::Repr {
                tos: 0,
                total_len: ipv4::HEADER_LEN as u16 + len,
                id: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                ttl: ERROR_TTL,
                protocol: Protocol::TCP,
                source: from,
                destination: to,
            };
            header.emit(packet.push(ipv4::HEADER_LEN).ok()?)?;
        }
        Addresses::V6 { source: to, destination: from } => {
            let pseudo = Sum::pseudo_v6(from, to, Protocol::TCP, len.into());
            tcp::fill_checksum(bytes, pseudo).then_some(())?;
            let header = ipv6::Repr {
                traffic_class: 0,
                flow_label: 0,
                payload_len: len,
                next_header: Protocol::TCP,
                hop_limit: ERROR_TTL,
                source: from,
                destination: to,
            };
            header.emit(packet.push(ipv6::HEADER_LEN).ok()?)?;
        }
    }
    Some(())
}
