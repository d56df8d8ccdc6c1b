//! Right of the verdict: a superframe that leaves whole, for a port that takes it as it is.
//!
//! Enters: a packet as it would leave, outer headers included. Leaves: the same with what the port needs
//! to cut it. `act` calls this, and `segment` for the others.

use core::net::Ipv6Addr;

use frame::{GsoKind, Packet, VxlanOver};

use super::rewrite::OuterHeaders;
use crate::tables::Offloads;
use crate::wire::checksum::Sum;
use crate::wire::{Ipv6, Protocol, ethernet, header_mut, ipv6, udp};

/// The longest IP packet whose length its header can say. The pieces of a longer one still can be sent.
const MAX_LEN: usize = u16::MAX as usize;

/// Whether a port takes a superframe of `len` bytes in one.
pub(crate) fn is_taken(takes: Offloads, kind: GsoKind, outer: OuterHeaders, len: usize) -> bool {
    let is_kind_taken = match kind {
        GsoKind::Udp => takes.uso,
        GsoKind::Tcp4 { .. } | GsoKind::Tcp6 { .. } => takes.tso,
    };
    let is_tunnel_taken = match outer {
        OuterHeaders::None => true,
        OuterHeaders::Vxlan4 | OuterHeaders::Vxlan6 => takes.vxlan,
        // No virtio header can say where the inner packet begins.
        OuterHeaders::Ipip => false,
    };
    is_kind_taken && is_tunnel_taken && len <= ethernet::HEADER_LEN + MAX_LEN
}

/// Says what the outer headers are, and begins their checksum over IPv6: the pieces' are made of it.
/// `None` if there is no such header.
pub(crate) fn finish(packet: &mut Packet, outer: OuterHeaders) -> Option<()> {
    let vxlan = match outer {
        OuterHeaders::None | OuterHeaders::Ipip => return Some(()),
        OuterHeaders::Vxlan4 => VxlanOver::Ipv4,
        OuterHeaders::Vxlan6 => {
            begin_sum(&mut packet.frame)?;
            VxlanOver::Ipv6
        }
    };
    packet.offload.gso.as_mut()?.vxlan = Some(vxlan);
    Some(())
}

/// Stores the sum of the pseudo header, with the length of the whole superframe.
#[inline(never)]
fn begin_sum(bytes: &mut [u8]) -> Option<()> {
    const UDP_AT: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
    let ends = |ip: Ipv6<'_>| -> (Ipv6Addr, Ipv6Addr) { (ip.source(), ip.destination()) };
    let (source, destination) =
        Ipv6::parse_header(bytes.get(ethernet::HEADER_LEN..)?).ok().map(ends)?;
    let len = u32::try_from(bytes.len().checked_sub(UDP_AT)?).ok()?;
    let sum = Sum::pseudo_v6(source, destination, Protocol::UDP, len).fold();
    udp::set_checksum(header_mut(bytes, UDP_AT)?, sum);
    Some(())
}

#[cfg(test)]
mod tests {
    use frame::GsoKind;

    use super::is_taken;
    use crate::tables::Offloads;
    use crate::walk::rewrite::OuterHeaders;

    #[test]
    fn one_that_is_too_long_for_the_length_field_of_its_outermost_header_is_cut() {
        let all = Offloads { checksum: true, tso: true, uso: true, vxlan: true };
        for outer in [OuterHeaders::None, OuterHeaders::Vxlan4, OuterHeaders::Vxlan6] {
            assert!(is_taken(all, GsoKind::Udp, outer, 14 + 65_535), "{outer:?}");
            assert!(!is_taken(all, GsoKind::Udp, outer, 14 + 65_536), "{outer:?}");
        }
    }

    #[test]
    fn each_port_gets_no_more_than_it_takes() {
        let tcp = GsoKind::Tcp4 { ecn: false };
        let takes = |offloads: Offloads, kind, outer| is_taken(offloads, kind, outer, 9000);
        let plain = Offloads { checksum: true, tso: true, uso: false, vxlan: false };
        assert!(takes(plain, tcp, OuterHeaders::None));
        assert!(!takes(plain, GsoKind::Udp, OuterHeaders::None));
        assert!(!takes(plain, tcp, OuterHeaders::Vxlan4));
        let tunnels = Offloads { vxlan: true, ..plain };
        assert!(takes(tunnels, tcp, OuterHeaders::Vxlan4));
        assert!(!takes(tunnels, GsoKind::Udp, OuterHeaders::Vxlan6));
        assert!(!takes(tunnels, tcp, OuterHeaders::Ipip));
    }
}
