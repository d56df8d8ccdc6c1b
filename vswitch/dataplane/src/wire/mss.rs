//! TCP's maximum segment size option (RFC 9293, section 3.7.1): what the sender of a SYN is ready to
//! receive.
//!
//! | bytes | field |
//! |---|---|
//! | 0    | kind: 2 |
//! | 1    | length: 4 |
//! | 2..4 | bytes of payload in one segment |
//!
//! Enters: a segment. Leaves: the sizes that it announces; or the segment, edited in place with its
//! checksum kept true. Options that make no sense end the search and stay as they are.

use super::checksum::updated_u16;
use super::tcp::{CHECKSUM_OFFSET, HEADER_LEN};
use super::{Tcp, header, header_mut};

const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAX_SEGMENT_SIZE: u8 = 2;

/// The largest size that the segment announces; one that announces none means 536 over IPv4 and
/// 1,220 over IPv6.
#[must_use]
pub fn announced(segment: &Tcp<'_>) -> Option<u16> {
    let options = segment.options();
    Places { options, at: 0 }
        .filter_map(|at| header(options, at).copied().map(u16::from_be_bytes))
        .max()
}

/// Lowers every announced size that is above the limit. `summed` tells whether the checksum covers
/// the options already; one that is still the pseudo header's alone stays as it is.
pub fn lower(segment: &mut [u8], limit: u16, summed: bool) {
    let Ok(tcp) = Tcp::parse(segment) else { return };
    let end = tcp.header_len();
    let mut at = HEADER_LEN;
    // One at a time: the options cannot be looked at while they are written.
    while let Some(options) = segment.get(at..end)
        && let Some(place) = (Places { options, at: 0 }).next()
    {
        at += place;
        replace(segment, at, limit, summed);
        at += 2;
    }
}

fn replace(segment: &mut [u8], at: usize, limit: u16, summed: bool) -> Option<()> {
    let size: &mut [u8; 2] = header_mut(segment, at)?;
    let (old, new) = (u16::from_be_bytes(*size), limit);
    if old <= new {
        return None;
    }
    *size = new.to_be_bytes();
    if summed {
        // An option may begin anywhere; at an odd place its bytes are of two words, each in the
        // other half (RFC 1071, section 2(B)).
        let word = |size: u16| if at.is_multiple_of(2) { size } else { size.swap_bytes() };
        let checksum: &mut [u8; 2] = header_mut(segment, CHECKSUM_OFFSET)?;
        let updated = updated_u16(u16::from_be_bytes(*checksum), word(old), word(new));
        *checksum = updated.to_be_bytes();
    }
    Some(())
}

/// Where the sizes lie in the options.
struct Places<'a> {
    options: &'a [u8],
    at: usize,
}

impl Iterator for Places<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            match *self.options.get(self.at)? {
                END => return None,
                NO_OPERATION => self.at += 1,
                kind => {
                    let len = usize::from(*self.options.get(self.at + 1)?);
                    let begins = self.at;
                    // Kind and length are part of an option; one cannot be shorter, nor reach beyond.
                    let ends = begins + len;
                    if len < 2 || ends > self.options.len() {
                        return None;
                    }
                    self.at = ends;
                    if (kind, len) == (MAX_SEGMENT_SIZE, 4) {
                        return Some(begins + 2);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use etherparse::TcpOptionElement;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::checksum::Sum;
    use crate::wire::tcp::{Repr, fill_checksum};
    use crate::wire::{TcpFlags, testing::POISON};

    fn segment(options: &[u8]) -> Vec<u8> {
        let repr = Repr {
            source: 1,
            destination: 2,
            sequence: 3,
            acknowledgement: 0,
            flags: TcpFlags::SYN,
            window: 64240,
            checksum: 0,
            urgent: 0,
        };
        let mut bytes = [&[POISON; HEADER_LEN][..], options].concat();
        repr.emit(&mut bytes).unwrap();
        bytes[12] = ((bytes.len() / 4) as u8) << 4;
        bytes.extend(b"fast open");
        assert!(fill_checksum(&mut bytes, Sum::new()));
        bytes
    }

    fn lowered(options: &[u8], limit: u16) -> Vec<u8> {
        let mut bytes = segment(options);
        lower(&mut bytes, limit, true);
        assert!(Tcp::parse(&bytes).unwrap().checksum_ok(Sum::new()));
        assert_eq!(bytes[20 + options.len()..], *b"fast open");
        bytes[20..20 + options.len()].to_vec()
    }

    #[test]
    fn what_is_above_the_limit_is_lowered() {
        // As Linux sends it: size, selective acknowledgement, timestamps, no operation, scale.
        let linux = |size: u16| {
            let [high, low] = size.to_be_bytes();
            vec![2, 4, high, low, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7]
        };
        let bytes = segment(&linux(1460));
        assert_eq!(announced(&Tcp::parse(&bytes).unwrap()), Some(1460));
        assert_eq!(lowered(&linux(1460), 1410), linux(1410));
        assert_eq!(lowered(&linux(1410), 1410), linux(1410));
        assert_eq!(lowered(&linux(536), 1410), linux(536));
    }

    #[test]
    fn at_an_odd_place_and_twice() {
        assert_eq!(
            lowered(&[1, 2, 4, 5, 0xb4, 2, 4, 0xff, 0xff, 0, 0, 0], 1410),
            [1, 2, 4, 5, 0x82, 2, 4, 5, 0x82, 0, 0, 0]
        );
    }

    #[test]
    fn what_makes_no_sense_stays() {
        for options in [
            // No length, a length of nothing, one beyond the header, another option's length.
            [1, 1, 1, 2],
            [2, 0, 0xff, 0xff],
            [2, 1, 0xff, 0xff],
            [2, 5, 0xff, 0xff],
            [2, 3, 0xff, 1],
            // Behind the end.
            [0, 2, 4, 0xff],
        ] {
            assert_eq!(lowered(&options, 1000), options);
            assert_eq!(announced(&Tcp::parse(&segment(&options)).unwrap()), None);
        }
        lower(&mut [0x50; 19], 1000, true);
    }

    #[test]
    fn a_checksum_that_is_unfinished_is_not_touched() {
        let mut bytes = segment(&[2, 4, 0xff, 0xff]);
        bytes[16..18].copy_from_slice(&[0x12, 0x34]);
        lower(&mut bytes, 1410, false);
        assert_eq!(bytes[16..18], [0x12, 0x34]);
        assert_eq!(bytes[20..24], [2, 4, 5, 0x82]);
    }

    #[test]
    fn a_checksum_that_was_wrong_stays_wrong() {
        let mut bytes = segment(&[2, 4, 0xff, 0xff]);
        bytes[16] ^= 1;
        lower(&mut bytes, 1410, true);
        assert!(!Tcp::parse(&bytes).unwrap().checksum_ok(Sum::new()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn the_judge_agrees(
            words in prop::collection::vec(any::<[u8; 4]>(), 0..=10), limit: u16,
            kinds in prop::collection::vec((0usize..40, 0u8..5), 0..8),
        ) {
            let mut options = words.concat();
            for (at, kind) in kinds {
                if let Some(byte) = options.get_mut(at) {
                    *byte = kind;
                }
            }
            let before = segment(&options);
            let judged = |bytes: &[u8]| {
                let tcp = etherparse::TcpHeaderSlice::from_slice(bytes).unwrap();
                let sizes = tcp.options_iterator().map_while(Result::ok).filter_map(|option| match option {
                    TcpOptionElement::MaximumSegmentSize(size) => Some(size),
                    _ => None,
                });
                sizes.collect::<Vec<_>>()
            };
            let after = [&before[..20], &lowered(&options, limit), b"fast open"].concat();
            let expected: Vec<u16> =
                judged(&before).into_iter().map(|size| size.min(limit)).collect();
            prop_assert_eq!(judged(&after), expected);
        }

        #[test]
        fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80), limit: u16) {
            if let Ok(segment) = Tcp::parse(&bytes) {
                let _ = announced(&segment);
            }
            lower(&mut bytes, limit, true);
        }
    }
}
