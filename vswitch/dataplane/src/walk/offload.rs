//! Door 2, its other half: whether the work that the sender left undone fits the packet.
//!
//! Enters: the offload of a received packet, with its [`Headers`]. Leaves: for `bridge` and `route`,
//! how long its pieces are; or the drop. An unfinished checksum is two bytes that are written into
//! the packet later, behind every check: a pod that chose their place could change its source
//! address, or a port that was looked at, by choosing a payload with the right sum. So they are
//! written where the protocol has its checksum, or further in, into a payload that no door reads.

use frame::{Checksum, Gso, GsoKind, Offload};

use super::parse::{Headers, Ip, Net};
use crate::verdict::DropReason;
use crate::wire::{Protocol, Tcp, tcp, udp};

/// The bytes above Ethernet of the packet's longest piece, if the request is sound.
#[inline(always)]
pub(crate) fn offload(
    bytes: &[u8],
    headers: &Headers,
    offload: &Offload,
) -> Result<usize, DropReason> {
    if !offload.is_undone() {
        return Ok(whole(headers));
    }
    let sound = match &headers.net {
        Net::Ip(ip) => {
            sum_is_sound(headers, ip, offload.checksum)
                && offload.gso.is_none_or(|gso| gso_is_sound(ip, gso))
        }
        // It is dropped as what it is.
        Net::Malformed(_) => true,
        Net::Arp | Net::Other => false,
    };
    if sound { Ok(longest_piece(bytes, headers, offload)) } else { Err(DropReason::OffloadInvalid) }
}

/// The bytes above Ethernet of a packet that is no superframe.
#[inline(always)]
fn whole(headers: &Headers) -> usize {
    match &headers.net {
        Net::Ip(ip) => ip.len,
        _ => headers.end - headers.l3,
    }
}

fn sum_is_sound(headers: &Headers, ip: &Ip, sum: Checksum) -> bool {
    let Checksum::Partial { start, offset } = sum else { return true };
    let (start, offset) = (usize::from(start), usize::from(offset));
    let inside = start >= ip.l4 && start + offset + 2 <= headers.l3 + ip.len;
    let (field, header_len) = match ip.flow.protocol {
        Protocol::TCP => (tcp::CHECKSUM_OFFSET, tcp::HEADER_LEN),
        Protocol::UDP => (udp::CHECKSUM_OFFSET, udp::HEADER_LEN),
        // Every byte of an ICMP message is read by a door or an edit.
        Protocol::ICMP | Protocol::ICMPV6 => (2, usize::MAX),
        // A pod's own tunnel: no door reads its inner headers.
        _ => (0, 0),
    };
    let at_the_field = start == ip.l4 && offset == field;
    // RFC 1071 sums words: a field across two of them would not be what its receiver adds up to.
    let aligned = offset % 2 == 0;
    inside && aligned && !ip.flow.is_fragment() && (at_the_field || start - ip.l4 >= header_len)
}

fn gso_is_sound(ip: &Ip, gso: Gso) -> bool {
    let kind = match gso.kind {
        GsoKind::Tcp4 { .. } => ip.flow.protocol == Protocol::TCP && !ip.flow.is_v6(),
        GsoKind::Tcp6 { .. } => ip.flow.protocol == Protocol::TCP && ip.flow.is_v6(),
        GsoKind::Udp => ip.flow.protocol == Protocol::UDP,
    };
    kind && gso.size > 0 && !ip.flow.is_fragment()
}

fn longest_piece(bytes: &[u8], headers: &Headers, offload: &Offload) -> usize {
    let (Net::Ip(ip), Some(gso)) = (&headers.net, offload.gso) else { return whole(headers) };
    let transport = headers.transport(bytes, ip);
    let header_len = match gso.kind {
        GsoKind::Tcp4 { .. } | GsoKind::Tcp6 { .. } => {
            Tcp::parse(transport).map_or(0, |tcp| tcp.header_len())
        }
        GsoKind::Udp => udp::HEADER_LEN,
    };
    let l3_len = ip.len - transport.len().min(ip.len);
    (l3_len + header_len + usize::from(gso.size)).min(ip.len)
}
