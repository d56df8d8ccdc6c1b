//! The virtio header in front of every frame of a TAP: `struct virtio_net_hdr_v1`, 12 bytes.
//!
//! ```text
//!   0 flags  1 gso_type  2 hdr_len  4 gso_size  6 csum_start  8 csum_offset  10 num_buffers
//! ```
//!
//! Virtio 1.2, section 5.1.6, in the host's byte order, as a TAP has it without TUNSETVNETLE.
//! Enters: bytes from a TAP, or from a socketpair with an untrusted other end; leaves: an
//! [`Offload`] with checksum offsets that lie in the packet. `port` calls it, and the uplink by a TAP,
//! whose longer header begins with this one.

use frame::{Checksum, Gso, GsoKind, Offload};

pub(crate) const HEADER_BYTES: usize = tap::VNET_HEADER_BYTES;

/// A frame needs its Ethernet header; a TAP answers a shorter write with EINVAL at best.
pub(crate) const MIN_FRAME_BYTES: usize = 14;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// The header contradicts itself or the packet, or asks for what was not agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Reads the header of a packet of `packet_len` bytes.
///
/// `hdr_len` is carried on unchecked: the kernel puts the length of its linear buffer there, which
/// may be anything.
pub(crate) fn decode(header: &[u8; HEADER_BYTES], packet_len: usize) -> Result<Offload, Malformed> {
    let [flags, gso_type, ..] = *header;
    if packet_len < MIN_FRAME_BYTES {
        return Err(Malformed);
    }
    let checksum = if flags & NEEDS_CSUM != 0 {
        let partial = Checksum::Partial { start: field(header, 6), offset: field(header, 8) };
        if !checksum_lies_in(partial, packet_len) {
            return Err(Malformed);
        }
        partial
    } else if flags & DATA_VALID != 0 {
        Checksum::Valid
    } else {
        Checksum::Unchecked
    };

    let ecn = gso_type & GSO_ECN != 0;
    let kind = match gso_type & !GSO_ECN {
        GSO_NONE if !ecn => return Ok(Offload { checksum, gso: None }),
        GSO_TCPV4 => GsoKind::Tcp4 { ecn },
        GSO_TCPV6 => GsoKind::Tcp6 { ecn },
        GSO_UDP_L4 if !ecn => GsoKind::Udp,
        _ => return Err(Malformed),
    };
    let gso = Gso { kind, size: field(header, 4), header_len: field(header, 2), vxlan: None };
    // The pieces' checksums are made from the superframe's partial one, so a TAP always has it
    // (include/linux/virtio_net.h sets it for every skb that it may cut).
    if gso.size == 0 || !matches!(checksum, Checksum::Partial { .. }) {
        return Err(Malformed);
    }
    Ok(Offload { checksum, gso: Some(gso) })
}

/// Writes the header for a packet of `packet_len` bytes; every byte of it is set.
pub(crate) fn encode(
    offload: &Offload,
    packet_len: usize,
) -> Result<[u8; HEADER_BYTES], Malformed> {
    if packet_len < MIN_FRAME_BYTES || !checksum_lies_in(offload.checksum, packet_len) {
        return Err(Malformed);
    }
    let (flags, start, offset) = match offload.checksum {
        Checksum::Unchecked => (0, 0, 0),
        Checksum::Valid => (DATA_VALID, 0, 0),
        Checksum::Partial { start, offset } => (NEEDS_CSUM, start, offset),
    };
    let (gso_type, header_len, size) = match offload.gso {
        None => (GSO_NONE, 0, 0),
        // A tunnel's headers have no place in this one.
        Some(Gso { size: 0, .. } | Gso { vxlan: Some(_), .. }) => return Err(Malformed),
        Some(Gso { kind, size, header_len, vxlan: None }) => {
            let gso_type = match kind {
                GsoKind::Tcp4 { ecn } => GSO_TCPV4 | if ecn { GSO_ECN } else { 0 },
                GsoKind::Tcp6 { ecn } => GSO_TCPV6 | if ecn { GSO_ECN } else { 0 },
                GsoKind::Udp => GSO_UDP_L4,
            };
            // The kernel refuses a hint beyond the packet (drivers/net/tun.c, tun_get_user).
            let longest = u16::try_from(packet_len).unwrap_or(u16::MAX);
            (gso_type, header_len.min(longest), size)
        }
    };
    let mut header = [0; HEADER_BYTES];
    header[0] = flags;
    header[1] = gso_type;
    for (at, value) in [(2, header_len), (4, size), (6, start), (8, offset)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    Ok(header)
}

fn checksum_lies_in(checksum: Checksum, packet_len: usize) -> bool {
    match checksum {
        Checksum::Partial { start, offset } => {
            usize::from(start) + usize::from(offset) + 2 <= packet_len
        }
        Checksum::Unchecked | Checksum::Valid => true,
    }
}

fn field(header: &[u8; HEADER_BYTES], at: usize) -> u16 {
    u16::from_ne_bytes([header[at], header[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::{HEADER_BYTES, Malformed, decode, encode};
    use frame::{Checksum, Gso, GsoKind, Offload};

    const PARTIAL: Checksum = Checksum::Partial { start: 34, offset: 16 };

    /// Fields in the order of the header, over a poisoned `num_buffers`, which is not read.
    fn header(flags: u8, gso_type: u8, rest: [u16; 4]) -> [u8; HEADER_BYTES] {
        let mut header = [0xa5; HEADER_BYTES];
        header[0] = flags;
        header[1] = gso_type;
        for (to, from) in header[2..10].chunks_exact_mut(2).zip(rest) {
            to.copy_from_slice(&from.to_ne_bytes());
        }
        header
    }

    fn superframe(kind: GsoKind) -> Offload {
        Offload {
            checksum: PARTIAL,
            gso: Some(Gso { kind, size: 1448, header_len: 66, vxlan: None }),
        }
    }

    #[test]
    fn each_kind_of_offload_is_read() {
        let plain = |checksum| Offload { checksum, gso: None };
        let tcp4 = |ecn| superframe(GsoKind::Tcp4 { ecn });
        let tcp6 = |ecn| superframe(GsoKind::Tcp6 { ecn });
        let cases = [
            (0, 0, plain(Checksum::Unchecked)),
            (2, 0, plain(Checksum::Valid)),
            (1, 0, plain(PARTIAL)),
            (3, 0, plain(PARTIAL)),
            (1, 1, tcp4(false)),
            (1, 0x81, tcp4(true)),
            (1, 4, tcp6(false)),
            (1, 0x84, tcp6(true)),
            (1, 5, superframe(GsoKind::Udp)),
        ];
        for (flags, gso_type, expected) in cases {
            let header = header(flags, gso_type, [66, 1448, 34, 16]);
            assert_eq!(decode(&header, 60_000), Ok(expected), "flags {flags} gso {gso_type:#x}");
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let cases = [
            ("UFO, which we never accept", header(1, 3, [42, 1448, 34, 6])),
            ("an unknown gso type", header(1, 2, [66, 1448, 34, 16])),
            ("a tunnel type that was not agreed", header(1, 0x21, [66, 1448, 34, 16])),
            ("ECN without TCP", header(1, 0x80, [66, 1448, 34, 16])),
            ("ECN with UDP", header(1, 0x85, [42, 1448, 34, 6])),
            ("pieces of no size", header(1, 1, [66, 0, 34, 16])),
            ("pieces without checksum", header(0, 1, [66, 1448, 34, 16])),
            ("a sum that is stored one byte beyond", header(1, 0, [0, 0, 34, 65])),
            ("a sum that begins beyond", header(1, 0, [0, 0, 101, 0])),
            ("offsets that overflow 16 bits", header(1, 0, [0, 0, u16::MAX, u16::MAX])),
        ];
        for (what, header) in cases {
            assert_eq!(decode(&header, 100), Err(Malformed), "{what}");
        }
        assert_eq!(decode(&header(0, 0, [0; 4]), 13), Err(Malformed), "a runt");
    }

    #[test]
    fn the_last_two_bytes_may_hold_the_sum() {
        let at_end = header(1, 0, [0, 0, 34, 64]);
        let expected = Checksum::Partial { start: 34, offset: 64 };
        assert_eq!(decode(&at_end, 100).map(|offload| offload.checksum), Ok(expected));
    }

    #[test]
    fn a_written_header_reads_back() {
        let all = [
            Offload::default(),
            Offload { checksum: Checksum::Valid, gso: None },
            Offload { checksum: PARTIAL, gso: None },
            superframe(GsoKind::Tcp4 { ecn: true }),
            superframe(GsoKind::Tcp6 { ecn: false }),
            superframe(GsoKind::Udp),
        ];
        for offload in all {
            let header = encode(&offload, 2000).expect("valid");
            assert_eq!(header[10..], [0, 0], "num_buffers is the device's to set");
            assert_eq!(decode(&header, 2000), Ok(offload));
        }
    }

    #[test]
    fn what_the_kernel_would_refuse_is_not_written() {
        let beyond = Checksum::Partial { start: 98, offset: 1 };
        assert_eq!(encode(&Offload { checksum: beyond, gso: None }, 100), Err(Malformed));
        assert_eq!(encode(&Offload::default(), 13), Err(Malformed));
        let mut no_size = superframe(GsoKind::Udp);
        no_size.gso.as_mut().expect("set above").size = 0;
        assert_eq!(encode(&no_size, 100), Err(Malformed));
    }

    #[test]
    fn the_length_hint_never_exceeds_the_packet() {
        let mut offload = superframe(GsoKind::Tcp4 { ecn: false });
        offload.gso.as_mut().expect("set above").header_len = u16::MAX;
        let header = encode(&offload, 1500).expect("valid");
        assert_eq!(u16::from_ne_bytes([header[2], header[3]]), 1500);
    }
}
