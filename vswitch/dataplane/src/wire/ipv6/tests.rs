#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use etherparse::{IpNumber, Ipv6Extensions, Ipv6FlowLabel, Ipv6Header};
use proptest::prelude::*;

use super::*;
use crate::wire::testing::{POISON, refuses_truncation};

const PACKET: [u8; 44] = [
    0x6b, 0xa5, 0x43, 0x21, 0x00, 0x04, 0x11, 0x40, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    1, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 3, 4,
];
const REPR: Repr = Repr {
    traffic_class: 0xba,
    flow_label: 0x54321,
    payload_len: 4,
    next_header: Protocol::UDP,
    hop_limit: 64,
    source: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    destination: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2),
};

/// A packet with the given payload.
fn packet(next_header: Protocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![POISON; HEADER_LEN];
    let payload_len = u16::try_from(payload.len()).unwrap();
    Repr { next_header, payload_len, ..REPR }.emit(&mut bytes).unwrap();
    bytes.extend_from_slice(payload);
    bytes
}

fn upper(next_header: Protocol, payload: &[u8]) -> Result<Upper, Malformed> {
    Ipv6::parse(&packet(next_header, payload)).unwrap().upper()
}

/// Of a packet that is neither a fragment nor source-routed.
fn plain(protocol: Protocol, offset: usize) -> Upper {
    Upper { protocol, offset, fragment: None, is_source_routed: false }
}

#[test]
fn deconstruct() {
    let packet = Ipv6::parse(&PACKET).unwrap();
    assert_eq!(packet.traffic_class(), 0xba);
    assert_eq!(packet.dscp(), 46);
    assert_eq!(packet.ecn(), Ecn::Ect0);
    assert_eq!(packet.flow_label(), 0x54321);
    assert_eq!(packet.payload_len(), 4);
    assert_eq!(packet.next_header(), Protocol::UDP);
    assert_eq!(packet.hop_limit(), 64);
    assert_eq!(packet.source(), REPR.source);
    assert_eq!(packet.destination(), REPR.destination);
    assert_eq!(packet.payload(), [1, 2, 3, 4]);
    let upper = packet.upper().unwrap();
    assert_eq!(upper, plain(Protocol::UDP, 40));
    assert!(upper.has_transport_header());
}

#[test]
fn construct() {
    let mut bytes = PACKET;
    let header = bytes.first_chunk_mut().unwrap();
    assert!(decrement_hop_limit(header));
    set_ecn(header, Ecn::Ce);
    set_payload_len(header, 3);
    set_flow_label(header, 0xfff1_2345);
    let expected =
        Repr { traffic_class: 0xbb, flow_label: 0x1_2345, hop_limit: 63, payload_len: 3, ..REPR };
    assert_eq!(Ipv6::parse(&bytes).unwrap().repr(), expected);
    let header = bytes.first_chunk_mut().unwrap();
    set_traffic_class(header, 0x5c);
    header[7] = 0;
    assert!(!decrement_hop_limit(header));
    let expected = Repr { traffic_class: 0x5c, hop_limit: 0, ..expected };
    assert_eq!(Ipv6::parse(&bytes).unwrap().repr(), expected);
}

#[test]
fn parse() {
    assert_eq!(Ipv6::parse(&PACKET).unwrap().repr(), REPR);
    refuses_truncation(&PACKET, Ipv6::parse);
    let cut = Ipv6::parse_header(&PACKET[..41]).unwrap();
    assert_eq!((cut.repr(), cut.payload()), (REPR, &[1][..]));
    refuses_truncation(&PACKET[..HEADER_LEN], Ipv6::parse_header);
    let mut bytes = PACKET;
    bytes[0] = 0x4b;
    assert_eq!(Ipv6::parse(&bytes).err(), Some(Malformed::Version));
}

#[test]
fn emit() {
    let mut bytes = [POISON; 44];
    assert_eq!(REPR.emit(&mut bytes), Some(HEADER_LEN));
    assert_eq!(bytes[..40], PACKET[..40]);
    assert_eq!(bytes[40..], [POISON; 4]);
    assert_eq!(REPR.emit(&mut bytes[..39]), None);
    assert_eq!(
        REPR.to_string(),
        "IP6 fd00::1 > 2001:db8::2: UDP, class 0xba, flowlabel 0x54321, hlim 64, payload length 4"
    );
}

#[test]
fn padding_is_not_payload() {
    let padded = [&PACKET[..], &[0; 16]].concat();
    assert_eq!(Ipv6::parse(&padded).unwrap().payload(), [1, 2, 3, 4]);
}

#[test]
fn extensions_are_walked_to_the_transport() {
    // Hop-by-hop of 8 bytes, destination options of 16, routing of type 2 and 8 bytes, first
    // fragment, TCP.
    let mut payload = [0u8; 60];
    payload[0] = Protocol::DEST_OPTIONS.0;
    payload[8..10].copy_from_slice(&[Protocol::ROUTING.0, 1]);
    payload[24..27].copy_from_slice(&[Protocol::FRAGMENT.0, 0, 2]);
    payload[32..40].copy_from_slice(&[Protocol::TCP.0, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef]);
    let found = upper(Protocol::HOP_BY_HOP, &payload).unwrap();
    let fragment = Fragment { offset: 0, more: true, id: 0xdead_beef };
    assert_eq!(found, Upper { fragment: Some(fragment), ..plain(Protocol::TCP, 80) });
    assert!(found.has_transport_header());

    let hop_by_hop = IpNumber::IPV6_HEADER_HOP_BY_HOP;
    let (judge, next, rest) = Ipv6Extensions::from_slice(hop_by_hop, &payload).unwrap();
    assert_eq!((next.0, HEADER_LEN + judge.header_len()), (found.protocol.0, found.offset));
    assert_eq!(rest.len(), 20);
}

#[test]
fn a_later_fragment_has_no_transport_header() {
    let payload = [Protocol::HOP_BY_HOP.0, 0, 0x05, 0xa8, 0, 0, 0, 9, 1, 2];
    let found = upper(Protocol::FRAGMENT, &payload).unwrap();
    let fragment = Fragment { offset: 1448, more: false, id: 9 };
    assert_eq!(found, Upper { fragment: Some(fragment), ..plain(Protocol::HOP_BY_HOP, 48) });
    assert!(!found.has_transport_header());
}

#[test]
fn the_walk_stops_at_what_it_cannot_look_into() {
    for protocol in [Protocol::ESP, Protocol::AH, Protocol::NO_NEXT, Protocol(253)] {
        assert_eq!(upper(protocol, &[]), Ok(plain(protocol, 40)));
    }
}

#[test]
fn a_routing_header_leads_on_if_it_is_of_type_0_or_has_segments_left() {
    for (kind, segments_left, leads_on) in
        [(0, 0, true), (0, 1, true), (2, 0, false), (2, 1, true), (4, 0, false), (4, 3, true)]
    {
        let payload = [Protocol::TCP.0, 0, kind, segments_left, 0, 0, 0, 0];
        let found = upper(Protocol::ROUTING, &payload).unwrap();
        assert_eq!(found.is_source_routed, leads_on, "type {kind}, {segments_left} left");
        // Behind another one that does not.
        let both = [&[Protocol::ROUTING.0, 0, 2, 0, 0, 0, 0, 0], &payload[..]].concat();
        assert_eq!(upper(Protocol::ROUTING, &both).unwrap().is_source_routed, leads_on);
    }
}

#[test]
fn extensions_are_bounded() {
    let chain = |count: usize| {
        let mut payload = vec![0; 8 * count];
        for extension in payload.chunks_mut(8) {
            extension[0] = Protocol::DEST_OPTIONS.0;
        }
        payload[8 * count - 8] = Protocol::TCP.0;
        upper(Protocol::DEST_OPTIONS, &payload).map(|upper| upper.offset)
    };
    assert_eq!(chain(1), Ok(48));
    assert_eq!(chain(8), Ok(40 + 64));
    assert_eq!(chain(9), Err(Malformed::Extensions));
    assert_eq!(chain(1000), Err(Malformed::Extensions));

    let late = [Protocol::HOP_BY_HOP.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(upper(Protocol::DEST_OPTIONS, &late), Err(Malformed::Extensions));
    for len in 0..16 {
        let cut = &[Protocol::TCP.0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..len];
        assert_eq!(upper(Protocol::ROUTING, cut), Err(Malformed::Extensions), "{len}");
    }
}

fn reprs() -> impl Strategy<Value = Repr> {
    (any::<(u8, u8, u8, u128, u128)>(), 0u32..1 << 20, 0u16..100).prop_map(
        |((traffic_class, next_header, hop_limit, from, to), flow_label, payload_len)| Repr {
            traffic_class,
            flow_label,
            payload_len,
            next_header: Protocol(next_header),
            hop_limit,
            source: Ipv6Addr::from_bits(from),
            destination: Ipv6Addr::from_bits(to),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn emit_then_parse(repr in reprs()) {
        let mut bytes = [POISON; 140];
        repr.emit(&mut bytes).unwrap();
        prop_assert_eq!(Ipv6::parse(&bytes).unwrap().repr(), repr);
    }

    #[test]
    fn the_judge_agrees(repr in reprs()) {
        let mut ours = [POISON; HEADER_LEN];
        repr.emit(&mut ours).unwrap();
        let judge = Ipv6Header {
            traffic_class: repr.traffic_class,
            flow_label: Ipv6FlowLabel::try_new(repr.flow_label).unwrap(),
            payload_length: repr.payload_len,
            next_header: IpNumber(repr.next_header.0),
            hop_limit: repr.hop_limit,
            source: repr.source.octets(),
            destination: repr.destination.octets(),
        };
        prop_assert_eq!(judge.to_bytes(), ours);
    }

    #[test]
    fn no_bytes_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        nexts in prop::collection::vec(prop::sample::select(vec![0u8, 43, 44, 60]), 25),
        likely: bool,
    ) {
        if likely && bytes.len() >= HEADER_LEN {
            bytes[0] = 0x60 | bytes[0] & 0xf;
            let len = u16::try_from(bytes.len() - HEADER_LEN).unwrap();
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            bytes[6] = nexts[0];
            // Chains of extensions of 8 or 16 bytes.
            for (extension, next) in bytes[HEADER_LEN..].chunks_mut(8).zip(&nexts) {
                extension[0] = *next;
                if let Some(len) = extension.get_mut(1) {
                    *len &= 1;
                }
            }
        }
        if let Ok(packet) = Ipv6::parse(&bytes) {
            if let Ok(upper) = packet.upper() {
                prop_assert!((HEADER_LEN..=HEADER_LEN + packet.payload().len()).contains(&upper.offset));
            }
            let _ = packet.repr().to_string();
        }
    }
}
