//! UDP GSO: tunnel packets of one flow that leave one behind the other, handed to the kernel as one.
//!
//! Enters: finished frames in the order in which they are to leave. Leaves: how many of the first go as one
//! superframe, and what stands in front of their payloads. The NIC cuts it (`tx-udp-segmentation` of
//! `ethtool -k`), or the kernel behind the queueing discipline: either way the frames have one way through the
//! kernel for all of them, where each would have its own. `packet_tx` alone calls this.
//!
//! The kernel gives each of them a UDP checksum (net/ipv4/udp_offload.c, `__udp_gso_segment`). Only those
//! without one are taken, as tunnel packets over IPv4 are (RFC 7348, section 5): what a pod's checksum says of
//! its datagram stays as it is, also where that is wrong.

use frame::{Checksum, Gso, GsoKind, Offload};

use super::packet_socket;
use crate::port::vnet;

/// An Ethernet header, one of IPv4 without options, one of UDP.
pub(super) const HEADERS_LEN: usize = 14 + 20 + 8;

/// In front of a superframe's payloads: the virtio header, and the headers of its frames.
pub(super) const FRONT_LEN: usize = packet_socket::HEADER_BYTES + HEADERS_LEN;

/// UDP_MAX_SEGMENTS (include/linux/udp.h) before Linux 6.9, which has twice as many.
pub(super) const MAX_FRAMES: usize = 64;

/// What the length field of the IPv4 header can say, with the Ethernet header before it.
const MAX_LEN: usize = 14 + u16::MAX as usize;

const ETHERTYPE: usize = 12;
const IP: usize = 14;
const TOTAL_LEN: usize = 16;
const FLAGS: usize = 20;
const PROTOCOL: usize = 23;
const IP_CHECKSUM: usize = 24;
const ADDRESSES: usize = 26;
const UDP: usize = 34;
const UDP_LEN: usize = 38;
const UDP_CHECKSUM: usize = 40;

/// Don't fragment, no more fragments, and the first one. Each frame's identification may then be anything
/// (RFC 6864, section 4.1), and the kernel numbers them anew.
const WHOLE: [u8; 2] = [0x40, 0];

/// Frames that go as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superframe {
    /// How many.
    pub(super) frames: usize,
    /// What stands in front of their payloads, which begin [`HEADERS_LEN`] bytes into each.
    pub(super) front: [u8; FRONT_LEN],
}

/// The first frames, if two or more of them can go as one.
pub(super) fn superframe<'a>(mut frames: impl Iterator<Item = &'a [u8]>) -> Option<Superframe> {
    let (first, payload) = datagram(frames.next()?)?;
    let (mut count, mut len) = (1, HEADERS_LEN + payload.len());
    for frame in frames {
        let Some((headers, next)) = datagram(frame) else { break };
        let fits = count < MAX_FRAMES && len + next.len() <= MAX_LEN;
        if !fits || next.len() > payload.len() || !is_one_flow(first, headers) {
            break;
        }
        count += 1;
        len += next.len();
        // The last one alone may be shorter.
        if next.len() < payload.len() {
            break;
        }
    }
    (count > 1)
        .then(|| front(first, payload.len(), len))
        .flatten()
        .map(|front| Superframe { frames: count, front })
}

/// The headers and the payload of a frame that is a whole UDP datagram over IPv4 without a checksum.
fn datagram(frame: &[u8]) -> Option<(&[u8; HEADERS_LEN], &[u8])> {
    let (headers, payload) = frame.split_first_chunk::<HEADERS_LEN>()?;
    let is_plain = headers[ETHERTYPE..=IP] == [0x08, 0x00, 0x45]
        && headers[FLAGS..FLAGS + 2] == WHOLE
        && headers[PROTOCOL] == 17
        && headers[UDP_CHECKSUM..] == [0, 0];
    let is_whole = field(headers, TOTAL_LEN) == frame.len() - IP
        && field(headers, UDP_LEN) == frame.len() - UDP;
    (is_plain && is_whole && !payload.is_empty()).then_some((headers, payload))
}

/// Whether they differ in nothing but lengths, the identification, and the sum over these.
fn is_one_flow(one: &[u8; HEADERS_LEN], other: &[u8; HEADERS_LEN]) -> bool {
    one[..TOTAL_LEN] == other[..TOTAL_LEN]
        && one[FLAGS..IP_CHECKSUM] == other[FLAGS..IP_CHECKSUM]
        && one[ADDRESSES..UDP_LEN] == other[ADDRESSES..UDP_LEN]
}

/// The first frame's headers as those of a superframe of `len` bytes, behind the virtio header that has it cut.
fn front(first: &[u8; HEADERS_LEN], size: usize, len: usize) -> Option<[u8; FRONT_LEN]> {
    let gso = Gso {
        kind: GsoKind::Udp,
        size: u16::try_from(size).ok()?,
        header_len: HEADERS_LEN as u16,
        vxlan: None,
    };
    let checksum = Checksum::Partial { start: UDP as u16, offset: (UDP_CHECKSUM - UDP) as u16 };
    let virtio = vnet::encode(&Offload { checksum, gso: Some(gso) }, len).ok()?;
    let mut headers = *first;
    let total_len = u16::try_from(len - IP).ok()?;
    let udp_len = total_len - (UDP - IP) as u16;
    put(&mut headers, TOTAL_LEN, total_len);
    put(&mut headers, IP_CHECKSUM, 0);
    let ip_sum = !sum(&headers[IP..UDP], 0);
    put(&mut headers, IP_CHECKSUM, ip_sum);
    put(&mut headers, UDP_LEN, udp_len);
    // The sum of the pseudo header, which the kernel goes on from.
    let pseudo = sum(&headers[ADDRESSES..UDP], u32::from(headers[PROTOCOL]) + u32::from(udp_len));
    put(&mut headers, UDP_CHECKSUM, pseudo);
    let mut front = [0; FRONT_LEN];
    let (to_virtio, to_headers) = front.split_at_mut(packet_socket::HEADER_BYTES);
    to_virtio.copy_from_slice(virtio.get(..packet_socket::HEADER_BYTES)?);
    to_headers.copy_from_slice(&headers);
    Some(front)
}

/// The ones' complement sum of 16-bit words (RFC 1071), and of what is to be added.
fn sum(words: &[u8], more: u32) -> u16 {
    let mut sum = more;
    for word in words.chunks_exact(2) {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn field(headers: &[u8; HEADERS_LEN], at: usize) -> usize {
    u16::from_be_bytes([headers[at], headers[at + 1]]).into()
}

fn put(headers: &mut [u8; HEADERS_LEN], at: usize, value: u16) {
    headers[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::{FRONT_LEN, HEADERS_LEN, MAX_FRAMES, Superframe, UDP, field, sum, superframe};
    use crate::uplink::packet_socket::HEADER_BYTES;

    /// A whole datagram without a checksum, that no router may cut.
    fn frame(payload: &[u8]) -> Vec<u8> {
        let (total, udp) = ((28 + payload.len()) as u16, (8 + payload.len()) as u16);
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 11, 198, 51, 100, 12]);
        let ip_sum = !sum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&ip_sum.to_be_bytes());
        frame.extend([0xc0, 1, 0x12, 0xb5]);
        frame.extend(udp.to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }

    fn of(frames: &[Vec<u8>]) -> Option<Superframe> {
        superframe(frames.iter().map(Vec::as_slice))
    }

    fn count(frames: &[Vec<u8>]) -> usize {
        of(frames).map_or(1, |superframe| superframe.frames)
    }

    #[test]
    fn pieces_of_one_length_go_as_one_with_a_shorter_last() {
        let (long, short) = (frame(&[1; 1000]), frame(&[2; 999]));
        assert_eq!(count(&[]), 1);
        assert_eq!(count(std::slice::from_ref(&long)), 1);
        assert_eq!(count(&vec![long.clone(); 5]), 5);
        assert_eq!(count(&[long.clone(), long.clone(), short.clone(), short.clone()]), 3);
        assert_eq!(count(&[short.clone(), long]), 1, "a longer one is no piece");
        assert_eq!(count(&[short.clone(), short, frame(&[])]), 2, "an empty one neither");
    }

    #[test]
    fn no_more_go_as_one_than_the_kernel_and_the_length_field_take() {
        assert_eq!(count(&vec![frame(&[1; 64]); 100]), MAX_FRAMES);
        // 45 of 1,458 bytes are 65,610.
        assert_eq!(count(&vec![frame(&[1; 1458]); 100]), 44);
        assert_eq!(count(&vec![frame(&[1; 1365]); 48]), 47, "65,520 bytes and 28 of headers");
        assert_eq!(count(&vec![frame(&[1; 1364]); 48]), 48, "65,472 and 28");
    }

    #[test]
    fn what_differs_in_more_than_its_length_stays_alone() {
        let whole = frame(&[1; 100]);
        let mut numbered = whole.clone();
        numbered[18] = 7;
        assert_eq!(count(&[whole.clone(), numbered]), 2, "the identification may differ");
        // MACs, type, header length, traffic class, fragments, TTL, protocol, addresses, ports, checksum.
        for at in [0, 6, 12, 14, 15, 20, 21, 22, 23, 26, 30, 34, 36, 40, 41] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(count(&[whole.clone(), other.clone()]), 1, "byte {at}");
            assert_eq!(count(&[other, whole.clone()]), 1, "byte {at}");
        }
        // Lengths that are not those of the frame: padding is none of the datagram's.
        let mut padded = whole.clone();
        padded.push(0);
        assert_eq!(count(&[padded.clone(), padded]), 1);
        for at in [17, 39] {
            let mut wrong = whole.clone();
            wrong[at] -= 1;
            assert_eq!(count(&[wrong.clone(), wrong]), 1, "byte {at}");
        }
        assert_eq!(count(&[whole[..41].to_vec(), whole]), 1);
    }

    #[test]
    fn in_front_stand_the_headers_of_the_whole_and_how_to_cut_it() {
        let frames = [frame(&[1; 1000]), frame(&[2; 1000]), frame(&[3; 10])];
        let front = of(&frames).expect("three").front;
        assert_eq!(front.len(), FRONT_LEN);
        let (virtio, headers) = front.split_at(HEADER_BYTES);
        let words = |at: usize| u16::from_ne_bytes([virtio[at], virtio[at + 1]]);
        assert_eq!(virtio[..2], [1, 5], "NEEDS_CSUM, GSO_UDP_L4");
        assert_eq!([words(2), words(4), words(6), words(8)], [42, 1000, 34, 6]);
        let headers: &[u8; HEADERS_LEN] = headers.try_into().expect("the rest");
        assert_eq!((field(headers, 16), field(headers, 38)), (20 + 8 + 2010, 8 + 2010));
        assert_eq!(sum(&headers[14..34], 0), 0xffff, "the sum of a header that holds");
        assert_eq!(field(headers, 40), usize::from(sum(&headers[26..34], 17 + 8 + 2010)));
        let alike = |range: std::ops::Range<usize>| headers[range.clone()] == frames[0][range];
        assert!(alike(0..16) && alike(18..24) && alike(26..UDP + 4));
    }
}
