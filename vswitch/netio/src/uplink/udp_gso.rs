//! UDP GSO: tunnel packets of one flow that leave one behind the other, handed to the kernel as one.
//!
//! Enters: finished frames in the order in which they are to leave. Leaves: how many of the first go as one
//! superframe, and what stands in front of their payloads. The NIC cuts it (`tx-udp-segmentation` of
//! `ethtool -k`), or the kernel behind the queueing discipline: either way the frames have one way through the
//! kernel for all of them, where each would have its own. `packet_tx` alone calls this.
//!
//! The kernel gives each of them a UDP checksum (net/ipv4/udp_offload.c, `__udp_gso_segment`). So only those are
//! taken that have none, as tunnel packets over IPv4 (RFC 7348, section 5), or one that the worker has computed:
//! what a pod's own checksum says of its datagram stays as it is, also where that is wrong.

use frame::{Checksum, Gso, GsoKind, Offload};

use super::packet_socket::HEADER_BYTES;
use crate::port::vnet;

/// UDP_MAX_SEGMENTS (include/linux/udp.h) before Linux 6.9, which has twice as many.
pub(super) const MAX_FRAMES: usize = 64;

const ETHERNET_LEN: usize = 14;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const UDP_LEN: usize = 8;
const MAX_HEADERS_LEN: usize = ETHERNET_LEN + IPV6_LEN + UDP_LEN;

/// A frame that is to leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Queued<'a> {
    pub(super) bytes: &'a [u8],
    /// The worker has computed its checksums.
    pub(super) is_summed: bool,
}

/// Frames that go as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superframe {
    /// How many.
    pub(super) frames: usize,
    /// Where the payload of each begins.
    pub(super) headers_len: usize,
    front: [u8; HEADER_BYTES + MAX_HEADERS_LEN],
}

/// Where the headers of a family have what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Without options.
    Ipv4,
    /// Without extension headers.
    Ipv6,
}

/// A frame that is a UDP datagram: its headers, and its payload.
#[derive(Debug, Clone, Copy)]
struct Datagram<'a> {
    layout: Layout,
    headers: &'a [u8],
    payload: &'a [u8],
}

impl Superframe {
    /// What stands in front of the payloads: the virtio header, and the headers of all.
    pub(super) fn front(&self) -> &[u8] {
        &self.front[..HEADER_BYTES + self.headers_len]
    }
}

/// The first frames, if two or more of them can go as one.
pub(super) fn superframe<'a>(mut frames: impl Iterator<Item = Queued<'a>>) -> Option<Superframe> {
    let first = Datagram::parse(frames.next()?)?;
    let longest = first.layout.longest();
    let (mut count, mut len) = (1, first.headers.len() + first.payload.len());
    for frame in frames {
        let Some(next) = Datagram::parse(frame) else { break };
        let fits = count < MAX_FRAMES && len + next.payload.len() <= longest;
        if !fits || next.payload.len() > first.payload.len() || !first.is_of_one_flow_with(&next) {
            break;
        }
        count += 1;
        len += next.payload.len();
        // The last one alone may be shorter.
        if next.payload.len() < first.payload.len() {
            break;
        }
    }
    if count > 1 { first.of_many(count, len) } else { None }
}

impl Layout {
    fn headers_len(self) -> usize {
        self.udp() + UDP_LEN
    }

    fn udp(self) -> usize {
        match self {
            Self::Ipv4 => ETHERNET_LEN + IPV4_LEN,
            Self::Ipv6 => ETHERNET_LEN + IPV6_LEN,
        }
    }

    fn udp_len(self) -> usize {
        self.udp() + 4
    }

    fn udp_checksum(self) -> usize {
        self.udp() + 6
    }

    /// Where the length field of the IP header is, and what precedes the first byte that it counts.
    fn length(self) -> (usize, usize) {
        match self {
            Self::Ipv4 => (16, ETHERNET_LEN),
            Self::Ipv6 => (18, ETHERNET_LEN + IPV6_LEN),
        }
    }

    /// The longest frame whose length the field can say.
    fn longest(self) -> usize {
        self.length().1 + usize::from(u16::MAX)
    }

    /// Where source and destination begin; the ports follow.
    fn addresses(self) -> usize {
        match self {
            Self::Ipv4 => 26,
            Self::Ipv6 => 22,
        }
    }
}

impl<'a> Datagram<'a> {
    /// `None` unless it is whole, has nothing behind it, and its checksum may be computed anew.
    fn parse(frame: Queued<'a>) -> Option<Self> {
        let bytes = frame.bytes;
        let layout = match bytes.get(12..=ETHERNET_LEN)? {
            [0x08, 0x00, 0x45] => Layout::Ipv4,
            [0x86, 0xdd, first] if first >> 4 == 6 => Layout::Ipv6,
            _ => return None,
        };
        let (headers, payload) = bytes.split_at_checked(layout.headers_len())?;
        let is_udp = match layout {
            // Don't fragment, no more fragments, and the first one: the identification may be anything (RFC 6864,
            // section 4.1), and the kernel numbers them anew.
            Layout::Ipv4 => headers[20..22] == [0x40, 0] && headers[23] == 17,
            Layout::Ipv6 => headers[20] == 17,
        };
        let (length, before) = layout.length();
        let is_whole = field(headers, length) == bytes.len() - before
            && field(headers, layout.udp_len()) == bytes.len() - layout.udp();
        let may_be_summed = frame.is_summed || field(headers, layout.udp_checksum()) == 0;
        (is_udp && is_whole && may_be_summed && !payload.is_empty()).then_some(Self {
            layout,
            headers,
            payload,
        })
    }

    /// Whether they differ in nothing but lengths, the identification, and checksums.
    fn is_of_one_flow_with(&self, other: &Self) -> bool {
        let alike =
            |range: core::ops::Range<usize>| self.headers[range.clone()] == other.headers[range];
        self.layout == other.layout
            && alike(self.layout.addresses()..self.layout.udp_len())
            && match self.layout {
                Layout::Ipv4 => alike(0..16) && alike(20..24),
                Layout::Ipv6 => alike(0..18) && alike(20..22),
            }
    }

    /// Its headers as those of so many of `len` bytes together, behind the virtio header that has them cut.
    fn of_many(&self, frames: usize, len: usize) -> Option<Superframe> {
        let Self { layout, headers, payload } = *self;
        let (udp, headers_len) = (layout.udp(), layout.headers_len());
        let gso = Gso {
            kind: GsoKind::Udp,
            size: u16::try_from(payload.len()).ok()?,
            header_len: headers_len as u16,
            vxlan: None,
        };
        let offset = (layout.udp_checksum() - udp) as u16;
        let checksum = Checksum::Partial { start: udp as u16, offset };
        let virtio = vnet::encode(&Offload { checksum, gso: Some(gso) }, len).ok()?;
        let mut front = [0; HEADER_BYTES + MAX_HEADERS_LEN];
        let (to_virtio, to_headers) = front.split_at_mut(HEADER_BYTES);
        to_virtio.copy_from_slice(virtio.get(..HEADER_BYTES)?);
        let to_headers = &mut to_headers[..headers_len];
        to_headers.copy_from_slice(headers);
        let (length, before) = layout.length();
        put(to_headers, length, u16::try_from(len - before).ok()?);
        if layout == Layout::Ipv4 {
            put(to_headers, 24, 0);
            let ip_sum = !sum(&to_headers[ETHERNET_LEN..udp], 0);
            put(to_headers, 24, ip_sum);
        }
        let udp_len = u16::try_from(len - udp).ok()?;
        put(to_headers, layout.udp_len(), udp_len);
        // The sum of the pseudo header, which the kernel goes on from.
        let pseudo = sum(&to_headers[layout.addresses()..udp], 17 + u32::from(udp_len));
        put(to_headers, layout.udp_checksum(), pseudo);
        Some(Superframe { frames, headers_len, front })
    }
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

fn field(headers: &[u8], at: usize) -> usize {
    u16::from_be_bytes([headers[at], headers[at + 1]]).into()
}

fn put(headers: &mut [u8], at: usize, value: u16) {
    headers[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::{MAX_FRAMES, Queued, Superframe, field, sum, superframe};
    use crate::uplink::packet_socket::HEADER_BYTES;

    /// A whole datagram without a checksum, that no router may cut.
    fn over_ipv4(payload: &[u8]) -> Vec<u8> {
        let total = (28 + payload.len()) as u16;
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 198, 51, 100, 11, 198, 51, 100, 12]);
        let ip_sum = !sum(&frame[14..34], 0);
        frame[24..26].copy_from_slice(&ip_sum.to_be_bytes());
        with_udp(frame, payload)
    }

    fn over_ipv6(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((8 + payload.len() as u16).to_be_bytes());
        frame.extend([17, 64]);
        frame.extend([0xfd; 16]);
        frame.extend([0xfe; 16]);
        with_udp(frame, payload)
    }

    fn with_udp(mut frame: Vec<u8>, payload: &[u8]) -> Vec<u8> {
        frame.extend([0xc0, 1, 0x12, 0xb5]);
        frame.extend((8 + payload.len() as u16).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(payload);
        frame
    }

    fn of(frames: &[Vec<u8>], is_summed: bool) -> Option<Superframe> {
        superframe(frames.iter().map(|bytes| Queued { bytes, is_summed }))
    }

    fn count(frames: &[Vec<u8>]) -> usize {
        of(frames, false).map_or(1, |superframe| superframe.frames)
    }

    #[test]
    fn pieces_of_one_length_go_as_one_with_a_shorter_last() {
        for frame in [over_ipv4, over_ipv6] {
            let (long, short) = (frame(&[1; 1000]), frame(&[2; 999]));
            assert_eq!(count(&[]), 1);
            assert_eq!(count(std::slice::from_ref(&long)), 1);
            assert_eq!(count(&vec![long.clone(); 5]), 5);
            assert_eq!(count(&[long.clone(), long.clone(), short.clone(), short.clone()]), 3);
            assert_eq!(count(&[short.clone(), long]), 1, "a longer one is no piece");
            assert_eq!(count(&[short.clone(), short, frame(&[])]), 2, "an empty one neither");
        }
        assert_eq!(count(&[over_ipv4(&[1; 100]), over_ipv6(&[1; 100])]), 1);
    }

    #[test]
    fn no_more_go_as_one_than_the_kernel_and_the_length_field_take() {
        assert_eq!(count(&vec![over_ipv4(&[1; 64]); 100]), MAX_FRAMES);
        assert_eq!(count(&vec![over_ipv4(&[1; 1458]); 100]), 44, "45 are 65,610 bytes");
        assert_eq!(count(&vec![over_ipv4(&[1; 1365]); 48]), 47, "65,520 bytes and 28 of headers");
        assert_eq!(count(&vec![over_ipv4(&[1; 1364]); 48]), 48, "65,472 and 28");
        assert_eq!(count(&vec![over_ipv6(&[1; 1365]); 48]), 48, "65,520 and 8, which alone count");
        assert_eq!(count(&vec![over_ipv6(&[1; 1366]); 48]), 47, "65,568");
    }

    #[test]
    fn what_differs_in_more_than_its_length_stays_alone() {
        let mut numbered = over_ipv4(&[1; 100]);
        numbered[18] = 7;
        assert_eq!(count(&[over_ipv4(&[1; 100]), numbered]), 2, "the identification may differ");
        // MACs, type, version, traffic class, fragments, TTL, protocol, addresses, ports, and checksum.
        let of_ipv4: &[usize] = &[0, 6, 12, 14, 15, 20, 21, 22, 23, 26, 30, 34, 36, 40, 41];
        let of_ipv6: &[usize] = &[0, 6, 12, 14, 15, 17, 20, 21, 22, 53, 54, 56, 60, 61];
        // Lengths that are not those of the frame.
        let lengths: [&[usize]; 2] = [&[17, 39], &[19, 59]];
        let layouts = [(over_ipv4(&[1; 100]), of_ipv4), (over_ipv6(&[1; 100]), of_ipv6)];
        for ((whole, places), lengths) in layouts.into_iter().zip(lengths) {
            for &at in places {
                let mut other = whole.clone();
                other[at] ^= 0x10;
                assert_eq!(count(&[whole.clone(), other.clone()]), 1, "byte {at}");
                assert_eq!(count(&[other, whole.clone()]), 1, "byte {at}");
            }
            for &at in lengths {
                let mut wrong = whole.clone();
                wrong[at] -= 1;
                assert_eq!(count(&[wrong.clone(), wrong]), 1, "byte {at}");
            }
            let padded = [whole.clone(), vec![0]].concat();
            assert_eq!(count(&[padded.clone(), padded]), 1, "padding is none of the datagram's");
            assert_eq!(count(&[whole[..41].to_vec(), whole]), 1);
        }
    }

    #[test]
    fn a_checksum_that_the_worker_has_not_computed_stays() {
        for (mut frame, at) in [(over_ipv4(&[1; 100]), 40), (over_ipv6(&[1; 100]), 60)] {
            frame[at] = 1;
            let frames = [frame.clone(), frame];
            assert_eq!(of(&frames, false), None);
            assert_eq!(of(&frames, true).expect("two").frames, 2);
        }
    }

    #[test]
    fn in_front_stand_the_headers_of_the_whole_and_how_to_cut_it() {
        let frames = [over_ipv4(&[1; 1000]), over_ipv4(&[2; 1000]), over_ipv4(&[3; 10])];
        let whole = of(&frames, false).expect("three");
        let (virtio, headers) = whole.front().split_at(HEADER_BYTES);
        let words = |at: usize| u16::from_ne_bytes([virtio[at], virtio[at + 1]]);
        assert_eq!(virtio[..2], [1, 5], "NEEDS_CSUM, GSO_UDP_L4");
        assert_eq!([words(2), words(4), words(6), words(8)], [42, 1000, 34, 6]);
        assert_eq!((headers.len(), whole.headers_len), (42, 42));
        assert_eq!((field(headers, 16), field(headers, 38)), (20 + 8 + 2010, 8 + 2010));
        assert_eq!(sum(&headers[14..34], 0), 0xffff, "the sum of a header that holds");
        assert_eq!(field(headers, 40), usize::from(sum(&headers[26..34], 17 + 8 + 2010)));
        let alike = |range: std::ops::Range<usize>| headers[range.clone()] == frames[0][range];
        assert!(alike(0..16) && alike(18..24) && alike(26..38));
    }

    #[test]
    fn over_ipv6_likewise() {
        let frames = [over_ipv6(&[1; 1000]), over_ipv6(&[2; 10])];
        let whole = of(&frames, true).expect("two");
        let (virtio, headers) = whole.front().split_at(HEADER_BYTES);
        let words = |at: usize| u16::from_ne_bytes([virtio[at], virtio[at + 1]]);
        assert_eq!([words(2), words(4), words(6), words(8)], [62, 1000, 54, 6]);
        assert_eq!((headers.len(), whole.headers_len), (62, 62));
        assert_eq!((field(headers, 18), field(headers, 58)), (8 + 1010, 8 + 1010));
        assert_eq!(field(headers, 60), usize::from(sum(&headers[22..54], 17 + 8 + 1010)));
        let alike = |range: std::ops::Range<usize>| headers[range.clone()] == frames[0][range];
        assert!(alike(0..18) && alike(20..58));
    }
}
