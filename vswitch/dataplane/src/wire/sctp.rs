//! SCTP's common header (RFC 9260, section 3.1), as far as a translation changes it.
//!
//! | bytes | field |
//! |---|---|
//! | 0..2  | source port |
//! | 2..4  | destination port |
//! | 4..8  | verification tag |
//! | 8..12 | CRC32c over the packet, least significant byte first, with zeros in its place |
//!
//! Enters: a whole SCTP packet. Leaves: the same with other ports and a checksum that follows them.

use crc::{CRC_32_ISCSI, Crc};

use super::header_mut;

/// Bytes of the header.
pub const HEADER_LEN: usize = 12;

const CHECKSUM_OFFSET: usize = 8;

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Sets both ports. A checksum that was wrong is wrong afterwards too: its receiver is to see that.
/// `None`, and unchanged, if the packet is shorter than its header.
#[must_use]
pub fn set_ports(packet: &mut [u8], ports: [u8; 4]) -> Option<()> {
    let field: &mut [u8; 4] = header_mut(packet, CHECKSUM_OFFSET)?;
    let was = u32::from_le_bytes(*field);
    *field = [0; 4];
    let before = CRC32C.checksum(packet);
    *header_mut(packet, 0)? = ports;
    let is = was ^ before ^ CRC32C.checksum(packet);
    *header_mut(packet, CHECKSUM_OFFSET)? = is.to_le_bytes();
    Some(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::{CRC32C, HEADER_LEN, set_ports};

    /// An INIT with a payload, and its checksum as RFC 9260 has it.
    fn packet() -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..60).collect();
        bytes[8..12].fill(0);
        let sum = CRC32C.checksum(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&sum);
        bytes
    }

    fn is_summed(packet: &[u8]) -> bool {
        let mut bytes = packet.to_vec();
        bytes[8..12].fill(0);
        CRC32C.checksum(&bytes).to_le_bytes() == packet[8..12]
    }

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // RFC 3720, appendix B.4: 32 bytes of zero.
        assert_eq!(CRC32C.checksum(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_checksum_follows_the_ports_and_a_wrong_one_stays_wrong() {
        let mut right = packet();
        let mut wrong = packet();
        wrong[40] ^= 1;
        for bytes in [&mut right, &mut wrong] {
            set_ports(bytes, [0x13, 0x88, 0x1f, 0x90]).unwrap();
            assert_eq!(bytes[..4], [0x13, 0x88, 0x1f, 0x90]);
        }
        assert!(is_summed(&right) && !is_summed(&wrong));
        assert_eq!(set_ports(&mut [0; HEADER_LEN - 1], [0; 4]), None);
    }
}
