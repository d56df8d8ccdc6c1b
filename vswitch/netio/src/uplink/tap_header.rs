//! The virtio header in front of every frame of the uplink's TAP: `struct virtio_net_hdr_v1_hash_tunnel`,
//! 24 bytes.
//!
//! ```text
//!   0 as a pod's TAP has it, 12 bytes   12 hash, 8 bytes   20 outer_th_offset   22 inner_nh_offset
//! ```
//! Virtio 1.4, section 5.1.6. A superframe inside of a UDP tunnel has a bit of `gso_type` set; `csum_start`
//! then is the inner transport header's. Enters: bytes that the kernel wrote. Leaves: an [`Offload`] with
//! offsets that lie in the packet. `tap_queue` alone calls it.

use frame::{Checksum, Offload, VxlanOver};

use crate::port::vnet::{self, Malformed};

pub(super) const HEADER_BYTES: usize = tap::tunnelling::TUNNEL_VNET_HEADER_BYTES;

/// A bit of `flags`: the outer UDP checksum is to be made for each piece.
const UDP_TUNNEL_CSUM: u8 = 8;
const GSO_UDP_TUNNEL_IPV4: u8 = 0x20;
const GSO_UDP_TUNNEL_IPV6: u8 = 0x40;
const GSO_UDP_TUNNEL: u8 = GSO_UDP_TUNNEL_IPV4 | GSO_UDP_TUNNEL_IPV6;

const ETHERNET_BYTES: u16 = 14;
const IPV4_BYTES: u16 = 20;
const IPV6_BYTES: u16 = 40;
/// UDP, VXLAN and the inner Ethernet header.
const UDP_TO_INNER_BYTES: u16 = 8 + 8 + 14;

/// Reads the header of a packet of `packet_len` bytes.
///
/// That a checksum was verified is not carried on: of a tunnel packet it may be the outer one alone.
pub(super) fn decode(header: &[u8; HEADER_BYTES], packet_len: usize) -> Result<Offload, Malformed> {
    let (base, _) = header.split_first_chunk().ok_or(Malformed)?;
    let mut base: [u8; vnet::HEADER_BYTES] = *base;
    if base[1] & GSO_UDP_TUNNEL == GSO_UDP_TUNNEL {
        return Err(Malformed);
    }
    base[1] &= !GSO_UDP_TUNNEL;
    let mut offload = vnet::decode(&base, packet_len)?;
    if offload.checksum == Checksum::Valid {
        offload.checksum = Checksum::Unchecked;
    }
    Ok(offload)
}

/// Writes the header for a packet of `packet_len` bytes; every byte of it is set.
pub(super) fn encode(
    offload: &Offload,
    packet_len: usize,
) -> Result<[u8; HEADER_BYTES], Malformed> {
    let mut plain = *offload;
    let vxlan = plain.gso.as_mut().and_then(|gso| gso.vxlan.take());
    let mut header = [0; HEADER_BYTES];
    header[..vnet::HEADER_BYTES].copy_from_slice(&vnet::encode(&plain, packet_len)?);
    let Some(over) = vxlan else { return Ok(header) };
    let outer_th = match over {
        VxlanOver::Ipv4 => {
            header[1] |= GSO_UDP_TUNNEL_IPV4;
            ETHERNET_BYTES + IPV4_BYTES
        }
        VxlanOver::Ipv6 => {
            header[0] |= UDP_TUNNEL_CSUM;
            header[1] |= GSO_UDP_TUNNEL_IPV6;
            ETHERNET_BYTES + IPV6_BYTES
        }
    };
    // These two are little-endian whatever the other fields are.
    header[20..22].copy_from_slice(&outer_th.to_le_bytes());
    header[22..24].copy_from_slice(&(outer_th + UDP_TO_INNER_BYTES).to_le_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use frame::{Checksum, Gso, GsoKind, Offload, VxlanOver};

    use super::{HEADER_BYTES, Malformed, decode, encode};

    fn superframe(vxlan: Option<VxlanOver>, start: u16) -> Offload {
        let kind = GsoKind::Tcp4 { ecn: false };
        Offload {
            checksum: Checksum::Partial { start, offset: 16 },
            gso: Some(Gso { kind, size: 1390, header_len: start + 32, vxlan }),
        }
    }

    #[test]
    fn a_tunnel_superframe_says_where_its_headers_are() {
        for (over, start, flags, gso_type, outer, inner) in
            [(VxlanOver::Ipv4, 84, 1, 0x21, 34, 64), (VxlanOver::Ipv6, 104, 9, 0x41, 54, 84)]
        {
            let header = encode(&superframe(Some(over), start), 9000).expect("valid");
            assert_eq!((header[0], header[1]), (flags, gso_type), "{over:?}");
            assert_eq!(u16::from_ne_bytes([header[6], header[7]]), start, "{over:?}");
            assert_eq!(header[10..20], [0; 10], "{over:?}");
            assert_eq!(header[20..], [outer, 0, inner, 0], "{over:?}");
            // Where it is read, its outer headers are decapsulation's.
            assert_eq!(decode(&header, 9000), Ok(superframe(None, start)), "{over:?}");
        }
    }

    #[test]
    fn what_is_in_no_tunnel_reads_back() {
        let plain = Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, gso: None };
        for offload in [Offload::default(), plain, superframe(None, 34)] {
            let header = encode(&offload, 9000).expect("valid");
            assert_eq!(header[12..], [0; 12]);
            assert_eq!(decode(&header, 9000), Ok(offload));
        }
    }

    #[test]
    fn a_verified_checksum_may_be_the_outer_one() {
        let mut header = [0; HEADER_BYTES];
        header[0] = 2;
        assert_eq!(decode(&header, 100), Ok(Offload::default()));
    }

    #[test]
    fn headers_that_contradict_themselves_are_refused() {
        let valid = encode(&superframe(Some(VxlanOver::Ipv4), 84), 9000).expect("valid");
        let with = |at: usize, byte: u8| {
            let mut header = valid;
            header[at] = byte;
            decode(&header, 9000)
        };
        assert_eq!(with(1, 0x61), Err(Malformed), "a tunnel over both versions");
        assert_eq!(with(1, 0x20), Ok(Offload { gso: None, ..superframe(None, 84) }), "no pieces");
        assert_eq!(with(0, 0), Err(Malformed), "pieces without checksum");
        assert_eq!(decode(&valid, 90), Err(Malformed), "a sum beyond the packet");
    }
}
