#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use etherparse::{IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv4HeaderSlice};
use proptest::prelude::*;

use super::*;
use crate::wire::testing::{POISON, refuses_truncation};

const PACKET: [u8; 24] = [
    0x45, 0xba, 0x00, 0x18, 0x12, 0x34, 0x40, 0x00, 0x40, 0x11, 0x9b, 0xbe, 198, 18, 0, 1, 198, 19,
    0, 2, 1, 2, 3, 4,
];
const REPR: Repr = Repr {
    tos: 0xba,
    total_len: 24,
    id: 0x1234,
    dont_fragment: true,
    more_fragments: false,
    fragment_offset: 0,
    ttl: 64,
    protocol: Protocol::UDP,
    source: Ipv4Addr::new(198, 18, 0, 1),
    destination: Ipv4Addr::new(198, 19, 0, 2),
};

/// The packet with one word of options before its payload.
fn with_options() -> [u8; 28] {
    let mut bytes = [0; 28];
    bytes[..20].copy_from_slice(&PACKET[..20]);
    bytes[20..24].copy_from_slice(&[0x94, 4, 0, 0]);
    bytes[24..].copy_from_slice(&PACKET[20..]);
    bytes[0] = 0x46;
    assert!(set_total_len_and_id(&mut bytes, 28, 0x1234));
    bytes
}

fn head(bytes: &mut [u8]) -> &mut [u8; HEADER_LEN] {
    bytes.first_chunk_mut().unwrap()
}

#[test]
fn deconstruct() {
    let packet = Ipv4::parse(&PACKET).unwrap();
    assert_eq!(packet.header_len(), 20);
    assert_eq!(packet.tos(), 0xba);
    assert_eq!(packet.dscp(), 46);
    assert_eq!(packet.ecn(), Ecn::Ect0);
    assert_eq!(packet.total_len(), 24);
    assert_eq!(packet.id(), 0x1234);
    assert!(packet.dont_fragment() && !packet.more_fragments() && !packet.is_fragment());
    assert_eq!(packet.ttl(), 64);
    assert_eq!(packet.protocol(), Protocol::UDP);
    assert!(packet.checksum_ok());
    assert_eq!(packet.source(), Ipv4Addr::new(198, 18, 0, 1));
    assert_eq!(packet.destination(), Ipv4Addr::new(198, 19, 0, 2));
    assert_eq!(packet.options(), []);
    assert_eq!(packet.payload(), [1, 2, 3, 4]);
}

#[test]
fn construct() {
    let mut bytes = PACKET;
    assert!(decrement_ttl(head(&mut bytes)));
    set_ecn(head(&mut bytes), Ecn::Ce);
    set_total_len(head(&mut bytes), 20);
    set_id(head(&mut bytes), 0xffff);
    set_protocol(head(&mut bytes), Protocol::IPV6);
    let packet = Ipv4::parse(&bytes).unwrap();
    assert!(packet.checksum_ok());
    let edited = Repr { tos: 0xbb, total_len: 20, id: 0xffff, ttl: 63, ..REPR };
    let expected = Repr { protocol: Protocol::IPV6, ..edited };
    assert_eq!(packet.repr(), expected);
    set_tos(head(&mut bytes), 0);
    assert!(Ipv4::parse(&bytes).unwrap().checksum_ok());
    assert_eq!(bytes[20..], PACKET[20..]);
}

#[test]
fn fragments_are_told_apart() {
    let mut bytes = PACKET;
    advance_id(head(&mut bytes), 7);
    assert_eq!(Ipv4::parse(&bytes).unwrap().repr(), REPR, "it may not be cut");
    set_dont_fragment(head(&mut bytes), false);
    set_fragment(head(&mut bytes), 1480, true);
    set_id(head(&mut bytes), 0xffff);
    advance_id(head(&mut bytes), 2);
    let packet = Ipv4::parse(&bytes).unwrap();
    assert!(packet.checksum_ok());
    let cut = Repr { dont_fragment: false, more_fragments: true, ..REPR };
    assert_eq!(packet.repr(), Repr { id: 1, fragment_offset: 1480, ..cut });
    set_fragment(head(&mut bytes), 65_528, false);
    set_dont_fragment(head(&mut bytes), true);
    let packet = Ipv4::parse(&bytes).unwrap();
    assert!(packet.checksum_ok());
    assert_eq!(packet.repr(), Repr { id: 1, fragment_offset: 65_528, ..REPR });
}

#[test]
fn parse() {
    assert_eq!(Ipv4::parse(&PACKET).unwrap().repr(), REPR);
    refuses_truncation(&PACKET, Ipv4::parse);
    refuses_truncation(&with_options(), Ipv4::parse);
    let cut = Ipv4::parse_header(&PACKET[..21]).unwrap();
    assert_eq!((cut.repr(), cut.payload()), (REPR, &[1][..]));
    refuses_truncation(&with_options()[..24], Ipv4::parse_header);
}

#[test]
fn emit() {
    let mut bytes = [POISON; 24];
    assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
    assert_eq!(bytes[..20], PACKET[..20]);
    assert_eq!(bytes[20..], [POISON; 4]);
    assert_eq!(REPR.emit(&mut bytes[..19]), None);
    assert_eq!(
        REPR.to_string(),
        "IP 198.18.0.1 > 198.19.0.2: UDP, tos 0xba, ttl 64, id 4660, offset 0, flags [DF], length 24"
    );
}

#[test]
fn options_are_covered_by_the_checksum() {
    let mut bytes = with_options();
    let packet = Ipv4::parse(&bytes).unwrap();
    assert_eq!(packet.options(), [0x94, 4, 0, 0]);
    assert_eq!(packet.payload(), [1, 2, 3, 4]);
    assert!(packet.checksum_ok());
    assert_eq!(Ipv4Header::from_slice(&bytes).unwrap().0.calc_header_checksum(), packet.checksum());
    bytes[23] = 1;
    assert!(!Ipv4::parse(&bytes).unwrap().checksum_ok());
}

#[test]
fn a_source_route_is_found_among_other_options() {
    let of = |options: &[u8]| {
        let mut bytes = [0; 60];
        REPR.emit(&mut bytes).unwrap();
        bytes[0] = 0x45 + options.len() as u8 / 4;
        bytes[20..20 + options.len()].copy_from_slice(options);
        Ipv4::parse_header(&bytes).unwrap().is_source_routed()
    };
    assert_eq!(of(&[]), Ok(false));
    assert_eq!(of(&[131, 3, 4, 0]), Ok(true));
    assert_eq!(of(&[1, 137, 3, 4]), Ok(true));
    assert_eq!(of(&[148, 4, 0, 0, 131, 3, 4, 0]), Ok(true));
    assert_eq!(of(&[148, 4, 131, 137]), Ok(false));
    // What is behind the end is padding.
    assert_eq!(of(&[0, 131, 3, 4]), Ok(false));
    for broken in [&[7, 0, 0, 0], &[7, 1, 0, 0], &[7, 5, 0, 0], &[1, 1, 1, 7]] {
        assert_eq!(of(broken), Err(Malformed::Options), "{broken:?}");
    }
}

#[test]
fn padding_is_not_payload() {
    let padded = [&PACKET[..], &[0; 22]].concat();
    assert_eq!(Ipv4::parse(&padded).unwrap().payload(), [1, 2, 3, 4]);
}

#[test]
fn lengths_that_contradict_are_refused() {
    let broken = |at: usize, value: u8| {
        let mut bytes = PACKET;
        bytes[at] = value;
        Ipv4::parse(&bytes).err()
    };
    assert_eq!(broken(0, 0x65), Some(Malformed::Version));
    assert_eq!(broken(0, 0x44), Some(Malformed::HeaderLength));
    assert_eq!(broken(0, 0x40), Some(Malformed::HeaderLength));
    assert_eq!(broken(0, 0x47), Some(Malformed::HeaderLength));
    assert_eq!(broken(3, 19), Some(Malformed::TotalLength));
    assert_eq!(broken(3, 25), Some(Malformed::TotalLength));
    assert_eq!(broken(2, 0xff), Some(Malformed::TotalLength));
    assert_eq!(broken(3, 20), None);
}

#[test]
fn edits_refuse_what_they_cannot_do() {
    let mut bytes = PACKET;
    bytes[8] = 0;
    let before = bytes;
    assert!(!decrement_ttl(head(&mut bytes)));
    assert!(!set_total_len_and_id(&mut bytes[..19], 20, 1));
    assert!(!set_total_len_and_id(&mut [], 20, 1));
    bytes[0] = 0x44;
    assert!(!set_total_len_and_id(&mut bytes, 20, 1));
    assert_eq!(bytes[1..], before[1..]);
}

#[test]
fn fragments_are_recognised() {
    let word = |word: u16| {
        let mut bytes = PACKET;
        bytes[6..8].copy_from_slice(&word.to_be_bytes());
        let packet = Ipv4::parse(&bytes).unwrap();
        (packet.is_fragment(), packet.more_fragments(), packet.fragment_offset())
    };
    assert_eq!(word(0x4000), (false, false, 0));
    assert_eq!(word(0x2000), (true, true, 0));
    assert_eq!(word(0x2001), (true, true, 8));
    assert_eq!(word(0x1fff), (true, false, 65528));
}

fn reprs() -> impl Strategy<Value = Repr> {
    (any::<(u8, u16, bool, bool, u8, u8)>(), 0u16..0x2000, 20u16..200, any::<(u32, u32)>())
        .prop_map(
            |(
                (tos, id, dont_fragment, more_fragments, ttl, protocol),
                units,
                total_len,
                (from, to),
            )| {
                Repr {
                    tos,
                    total_len,
                    id,
                    dont_fragment,
                    more_fragments,
                    fragment_offset: units * 8,
                    ttl,
                    protocol: Protocol(protocol),
                    source: Ipv4Addr::from_bits(from),
                    destination: Ipv4Addr::from_bits(to),
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn emit_then_parse(repr in reprs()) {
        let mut bytes = [POISON; 200];
        repr.emit(&mut bytes).unwrap();
        let packet = Ipv4::parse(&bytes).unwrap();
        prop_assert!(packet.checksum_ok());
        prop_assert_eq!(packet.repr(), repr);
        prop_assert_eq!(packet.payload().len(), usize::from(repr.total_len) - 20);
    }

    #[test]
    fn the_judge_agrees(repr in reprs()) {
        let mut ours = [POISON; 200];
        repr.emit(&mut ours).unwrap();
        let mut judge = Ipv4Header::new(
            repr.total_len - 20,
            repr.ttl,
            IpNumber(repr.protocol.0),
            repr.source.octets(),
            repr.destination.octets(),
        ).unwrap();
        judge.dscp = IpDscp::try_new(repr.tos >> 2).unwrap();
        judge.ecn = IpEcn::try_new(repr.tos & 3).unwrap();
        judge.identification = repr.id;
        judge.dont_fragment = repr.dont_fragment;
        judge.more_fragments = repr.more_fragments;
        judge.fragment_offset = IpFragOffset::try_new(repr.fragment_offset / 8).unwrap();
        judge.header_checksum = judge.calc_header_checksum();
        prop_assert_eq!(&judge.to_bytes()[..], &ours[..20]);
    }

    #[test]
    fn edits_keep_the_checksum(repr in reprs(), ecn in 0u8..4, len in 20u16..200, id: u16) {
        let mut bytes = [POISON; 200];
        repr.emit(&mut bytes).unwrap();
        let lives = decrement_ttl(head(&mut bytes));
        prop_assert_eq!(lives, repr.ttl > 0);
        set_ecn(head(&mut bytes), Ecn::from_bits(ecn));
        set_total_len(head(&mut bytes), len);
        set_id(head(&mut bytes), id);
        let packet = Ipv4::parse(&bytes).unwrap();
        prop_assert!(packet.checksum_ok());
        prop_assert_eq!(packet.repr(), Repr {
            ttl: repr.ttl.saturating_sub(1),
            tos: repr.tos & 0xfc | ecn,
            total_len: len,
            id,
            ..repr
        });
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), likely: bool) {
        if let (true, Some(first)) = (likely, bytes.first_mut()) {
            *first = 0x40 | *first & 0xf;
        }
        if let Ok(packet) = Ipv4::parse(&bytes) {
            prop_assert!(Ipv4HeaderSlice::from_slice(&bytes).is_ok());
            prop_assert_eq!(packet.header_len() + packet.payload().len(), usize::from(packet.total_len()));
            let _ = (packet.repr().to_string(), packet.checksum_ok(), packet.is_source_routed());
        }
        let _ = set_total_len_and_id(&mut bytes, 20, 7);
    }
}
