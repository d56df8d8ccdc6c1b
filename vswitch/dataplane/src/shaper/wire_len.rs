//! What a rate is charged for a packet.

use frame::{Checksum, GsoKind, Packet};

use crate::wire::{ethernet, ipv4, ipv6, tcp, udp};

/// Bytes of the frames that the packet is on a wire, from their Ethernet headers on: as tc counts
/// them, a superframe is the frames that it is cut into, each with headers of its own.
#[must_use]
pub fn wire_len(packet: &Packet) -> u32 {
    let len = packet.frame.len();
    let Some(gso) = packet.offload.gso else { return saturated(len) };
    let (shortest_l3, shortest_l4) = match gso.kind {
        GsoKind::Tcp4 { .. } => (ipv4::HEADER_LEN, tcp::HEADER_LEN),
        GsoKind::Tcp6 { .. } => (ipv6::HEADER_LEN, tcp::HEADER_LEN),
        GsoKind::Udp => (ipv4::HEADER_LEN, udp::HEADER_LEN),
    };
    // The checksum begins at the transport header. The sender's own count of headers is a hint that
    // Linux fills with whatever its first buffer holds.
    let l4 = match packet.offload.checksum {
        Checksum::Partial { start, .. } => usize::from(start),
        _ => ethernet::HEADER_LEN + shortest_l3,
    };
    let l4_len = match gso.kind {
        GsoKind::Udp => shortest_l4,
        GsoKind::Tcp4 { .. } | GsoKind::Tcp6 { .. } => {
            let words = packet.frame.get(l4 + 12).map_or(0, |byte| byte >> 4);
            (usize::from(words) * 4).max(shortest_l4)
        }
    };
    let headers = l4 + l4_len;
    let payload = len.saturating_sub(headers);
    let pieces = payload.div_ceil(usize::from(gso.size).max(1)).max(1);
    saturated(len.saturating_add((pieces - 1).saturating_mul(headers)))
}

fn saturated(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use frame::{Checksum, Gso, GsoKind, Offload, Packet, Pool};

    use super::wire_len;

    fn packet(pool: &Pool, len: usize, kind: GsoKind, size: u16, start: u16) -> Packet {
        let mut frame = pool.alloc().unwrap();
        frame.extend(len).unwrap().fill(0x80);
        let gso = Some(Gso { kind, size, header_len: 9000, vxlan: None });
        Packet {
            frame,
            offload: Offload { checksum: Checksum::Partial { start, offset: 16 }, gso },
        }
    }

    #[test]
    fn a_superframe_is_the_frames_that_it_is_cut_into() {
        let pool = Pool::new(1);
        let tcp4 = GsoKind::Tcp4 { ecn: false };
        // A TCP header of eight words, behind 34 bytes.
        assert_eq!(wire_len(&packet(&pool, 66 + 3 * 1398, tcp4, 1398, 34)), 3 * 1464);
        assert_eq!(wire_len(&packet(&pool, 66 + 3 * 1398 + 1, tcp4, 1398, 34)), 3 * 1464 + 67);
        assert_eq!(wire_len(&packet(&pool, 42 + 2 * 1000, GsoKind::Udp, 1000, 34)), 2 * 1042);
        let plain = Packet { offload: Offload::default(), ..packet(&pool, 5000, tcp4, 1398, 34) };
        assert_eq!(wire_len(&plain), 5000);
    }

    #[test]
    fn nonsense_of_a_sender_costs_at_least_the_bytes_that_it_sent() {
        let pool = Pool::new(1);
        for (len, size, start) in [(14, 1398, 34), (60, 0, 65_000), (64_000, 1, 0)] {
            let kind = GsoKind::Tcp6 { ecn: true };
            assert!(wire_len(&packet(&pool, len, kind, size, start)) >= len as u32);
        }
    }
}
