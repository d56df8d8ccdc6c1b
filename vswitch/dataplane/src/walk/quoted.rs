//! The packet that an ICMP error is about.
//!
//! Enters: an ICMP or ICMPv6 error. Leaves: the key of the flow of the packet that it quotes, and where
//! that packet's headers are. A quote may end behind the first eight bytes of the transport header
//! (RFC 792), which have the ports.

use super::flow::FlowKey;
use super::parse::Ip;
use super::translate::Quoted;
use crate::wire::{Ipv4, Ipv6, icmpv4};

/// What an error quotes; `None` if it is no IP packet of the error's own version.
pub(crate) fn quoted(bytes: &[u8], error: &Ip) -> Option<Quoted> {
    // Both versions have eight bytes in front of it (RFC 792, RFC 4443).
    let l3 = error.l4 + icmpv4::HEADER_LEN;
    let quote = bytes.get(l3..)?;
    if error.flow.is_v6() {
        let ip = Ipv6::parse_header(quote).ok()?;
        let upper = ip.upper().ok()?;
        return Some(Quoted { flow: FlowKey::of_v6(&ip, &upper), l3, l4: l3 + upper.offset });
    }
    let ip = Ipv4::parse_header(quote).ok()?;
    Some(Quoted { flow: FlowKey::of_v4(&ip), l3, l4: l3 + ip.header_len() })
}
