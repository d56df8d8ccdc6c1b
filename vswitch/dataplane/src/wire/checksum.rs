//! The internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Enters: the bytes that a checksum covers, in pieces, and the pseudo header's fields. Leaves: the
//! 16-bit value, in host order like every other field. The header files call in here, and the walk
//! where it finishes a checksum that the sender left to a device.

use core::net::{Ipv4Addr, Ipv6Addr};

use super::ip::Protocol;

/// A sum under way. The pieces that are added are taken to lie end to end, so that after a piece
/// of odd length the next one begins in the low half of a word, as it would in one buffer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum {
    /// Words in the machine's order: RFC 1071 section 2(B) lets the one swap wait until the end.
    /// 64 bits hold the carries of 2^32 additions of 32 bits.
    words: u64,
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self { words: 0, odd: false }
    }

    /// The pseudo header of TCP and UDP over IPv4 (RFC 9293 section 3.1); `len` counts the
    /// transport header and its payload.
    #[inline]
    #[must_use]
    pub fn pseudo_v4(
        source: Ipv4Addr,
        destination: Ipv4Addr,
        protocol: Protocol,
        len: u16,
    ) -> Self {
        Self::new()
            .u32(source.to_bits())
            .u32(destination.to_bits())
            .u16(u16::from(protocol.0))
            .u16(len)
    }

    /// The pseudo header of all transports over IPv6 (RFC 8200 section 8.1); `len` counts the
    /// transport header and its payload, not extension headers.
    #[inline]
    #[must_use]
    pub fn pseudo_v6(
        source: Ipv6Addr,
        destination: Ipv6Addr,
        protocol: Protocol,
        len: u32,
    ) -> Self {
        Self::new()
            .bytes(&source.octets())
            .bytes(&destination.octets())
            .u32(len)
            .u32(u32::from(protocol.0))
    }

    /// Adds a piece.
    #[inline(always)]
    #[must_use]
    pub fn bytes(self, piece: &[u8]) -> Self {
        Self { odd: self.odd ^ (piece.len() % 2 == 1), ..self.plus(sum_of(piece)) }
    }

    /// Adds a 16-bit field.
    #[inline]
    #[must_use]
    pub fn u16(self, field: u16) -> Self {
        self.plus(u64::from(field.to_be()))
    }

    /// Adds a 32-bit field.
    #[inline]
    #[must_use]
    pub fn u32(self, field: u32) -> Self {
        self.plus(u64::from(field.to_be()))
    }

    /// The sum itself, carries folded in: what a sender with checksum offload stores.
    #[inline]
    #[must_use]
    pub fn fold(self) -> u16 {
        u16::from_be(folded(self.words))
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub fn finish(self) -> u16 {
        !self.fold()
    }

    /// The checksum, where zero means that there is none and is sent as all ones (RFC 768): UDP,
    /// and whatever might be UDP.
    #[inline]
    #[must_use]
    pub fn finish_nonzero(self) -> u16 {
        match self.finish() {
            0 => u16::MAX,
            checksum => checksum,
        }
    }

    /// Whether a sum over everything, the checksum field included, shows it intact.
    #[inline]
    #[must_use]
    pub fn verifies(self) -> bool {
        self.fold() == u16::MAX
    }

    /// Adds words that lie at the position reached; at an odd one each byte counts for the other
    /// half of its word.
    #[inline]
    fn plus(self, words: u64) -> Self {
        let words = if self.odd { u64::from(folded(words).swap_bytes()) } else { words };
        Self { words: self.words + words, ..self }
    }
}

/// The sum of the bytes as words of the machine's order; an odd last byte is followed by zero.
#[inline(always)]
fn sum_of(bytes: &[u8]) -> u64 {
    // Halves of 32 bits into 64: no carry is lost, no branch is taken, and the loop vectorises.
    let (blocks, tail) = bytes.as_chunks::<8>();
    let mut sum = 0u64;
    for &block in blocks {
        let word = u64::from_ne_bytes(block);
        sum += (word & 0xffff_ffff) + (word >> 32);
    }
    let (quads, tail) = tail.as_chunks::<4>();
    for &quad in quads {
        sum += u64::from(u32::from_ne_bytes(quad));
    }
    let (pairs, last) = tail.as_chunks::<2>();
    for &pair in pairs {
        sum += u64::from(u16::from_ne_bytes(pair));
    }
    if let [byte] = last {
        sum += u64::from(u16::from_ne_bytes([*byte, 0]));
    }
    sum
}

/// One's complement sum of the four 16-bit words of `sum`.
#[inline]
fn folded(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    // At most 2^33, then 0x2fffe, then 0x10001: the last step leaves no carry.
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after one of the 16-bit fields that it covers changed: HC' = ~(~HC + ~m + m')
/// (RFC 1624 section 3, equation 3). It equals a fresh sum unless all that is covered is now zero;
/// for UDP the caller turns a result of zero into all ones.
#[inline]
#[must_use]
pub fn updated_u16(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    // At most 0x2fffd, then 0x10000: the second step leaves no carry.
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum after one of the 32-bit fields that it covers changed.
#[inline]
#[must_use]
pub fn updated_u32(checksum: u16, old: u32, new: u32) -> u16 {
    !folded(u64::from(!checksum) + u64::from(!old) + u64::from(new))
}

/// What all bytes from `start` on will sum to once [`complete_partial`] has finished the checksum
/// that lies `offset` bytes after: the complement of the pseudo header's share, which is in the
/// field still. So they need not be summed twice. `None` if that place is not inside the packet.
#[must_use]
pub fn completed_sum(packet: &[u8], start: usize, offset: usize) -> Option<u16> {
    let field: &[u8; 2] = packet.get(start..)?.get(offset..)?.first_chunk()?;
    Some(!u16::from_be_bytes(*field))
}

/// Finishes a checksum of which the sender wrote the pseudo header's sum only (virtio's
/// `NEEDS_CSUM`): sums from `start` to the packet's end and stores the checksum `offset` bytes
/// after `start`. `None`, and nothing is changed, if that place is not inside the packet.
#[must_use]
pub fn complete_partial(packet: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = packet.get_mut(start..)?;
    let end = offset.checked_add(2)?;
    covered.get(offset..end)?;
    // The field is part of what is summed, and holds the pseudo header's share. Which protocol it
    // is was never said, and all ones is right for each.
    let checksum = Sum::new().bytes(covered).finish_nonzero();
    covered.get_mut(offset..end)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::{Sum, complete_partial, updated_u16, updated_u32};
    use crate::wire::Protocol;

    /// RFC 1071 as its text has it, one word at a time.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().bytes(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::new().u16(1).u32(0xf203_f4f5).u16(0xf6f7).fold(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // The header whose checksum equation 2 of RFC 1141 gets wrong.
        assert_eq!(updated_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn zero_is_sent_as_all_ones() {
        assert_eq!(Sum::new().u16(0xffff).finish(), 0);
        assert_eq!(Sum::new().u16(0xffff).finish_nonzero(), 0xffff);
        assert_eq!(Sum::new().u16(0x1234).finish_nonzero(), !0x1234);
    }

    #[test]
    fn carries_of_a_superframe_of_ones_are_kept() {
        assert_eq!(Sum::new().bytes(&[0xff; 65535]).fold(), reference(&[0xff; 65535]));
    }

    #[test]
    fn the_pseudo_headers_agree_with_their_bytes() {
        let (a, b) = ([198, 18, 0, 1], [198, 19, 255, 254]);
        let flat = [&a[..], &b[..], &[0, 17, 0x12, 0x34]].concat();
        let sum = Sum::pseudo_v4(a.into(), b.into(), Protocol::UDP, 0x1234);
        assert_eq!(sum.fold(), reference(&flat));

        let (a, b) = ([0xfd; 16], [0x21; 16]);
        let flat = [&a[..], &b[..], &[0, 1, 0x12, 0x34, 0, 0, 0, 58]].concat();
        let sum = Sum::pseudo_v6(a.into(), b.into(), Protocol::ICMPV6, 0x11234);
        assert_eq!(sum.fold(), reference(&flat));
    }

    #[test]
    fn a_partial_checksum_outside_the_packet_is_refused() {
        let mut packet = [7u8; 20];
        for (start, offset) in
            [(20, 0), (21, 0), (0, 19), (4, 15), (usize::MAX, 0), (0, usize::MAX), (1, usize::MAX)]
        {
            assert_eq!(complete_partial(&mut packet, start, offset), None, "{start}+{offset}");
        }
        assert_eq!(packet, [7; 20]);
        assert_eq!(complete_partial(&mut packet, 4, 14), Some(()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn equals_the_reference(bytes in prop::collection::vec(any::<u8>(), 0..2000), at in 0usize..9) {
            let bytes = bytes.get(at..).unwrap_or(&[]);
            prop_assert_eq!(Sum::new().bytes(bytes).fold(), reference(bytes));
        }

        #[test]
        fn pieces_lie_end_to_end(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
            let sum = pieces.iter().fold(Sum::new(), |sum, piece| sum.bytes(piece));
            prop_assert_eq!(sum.fold(), reference(&pieces.concat()));
        }

        #[test]
        fn fields_continue_odd_pieces(piece in prop::collection::vec(any::<u8>(), 0..40), a: u16, b: u32) {
            let flat = [&piece[..], &a.to_be_bytes(), &b.to_be_bytes()].concat();
            prop_assert_eq!(Sum::new().bytes(&piece).u16(a).u32(b).fold(), reference(&flat));
        }

        #[test]
        fn an_update_equals_a_fresh_sum(mut bytes: [u8; 20], new: u16, wide: u32, at in 0usize..9) {
            bytes[0] = 0x45;
            let before = Sum::new().bytes(&bytes).finish();
            let old = u16::from_be_bytes([bytes[2 * at + 2], bytes[2 * at + 3]]);
            bytes[2 * at + 2..][..2].copy_from_slice(&new.to_be_bytes());
            let after = Sum::new().bytes(&bytes).finish();
            prop_assert_eq!(updated_u16(before, old, new), after);

            let old = u32::from_be_bytes(*bytes[8..].first_chunk().unwrap());
            bytes[8..12].copy_from_slice(&wide.to_be_bytes());
            prop_assert_eq!(updated_u32(after, old, wide), Sum::new().bytes(&bytes).finish());
        }

        #[test]
        fn a_completed_partial_verifies(
            mut packet in prop::collection::vec(any::<u8>(), 30..200), start in 0usize..10, pseudo: u16,
        ) {
            packet[start + 16..start + 18].copy_from_slice(&pseudo.to_be_bytes());
            let head = packet[..start].to_vec();
            complete_partial(&mut packet, start, 16).unwrap();
            prop_assert!(Sum::new().u16(pseudo).bytes(&packet[start..]).verifies());
            prop_assert_eq!(&packet[..start], &head[..]);
        }
    }
}
