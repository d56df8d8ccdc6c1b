#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use etherparse::{Icmpv6Header, Icmpv6Slice};
use proptest::prelude::*;

use super::*;
use crate::wire::Icmpv6;
use crate::wire::testing::{POISON, refuses_truncation};

const SOLICITATION: [u8; 32] = [
    135, 0, 0x7d, 0x98, 0, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 0,
    0, 0, 0, 1,
];
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const FROM: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const TARGET: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const REPR: Repr = Repr::Solicitation { target: TARGET, source_link: Some(MAC) };
const FLAGS: AdvertFlags = AdvertFlags { router: true, solicited: true, overriding: false };

#[test]
fn deconstruct() {
    let message = Solicitation::parse(&SOLICITATION).unwrap();
    assert_eq!(message.target(), TARGET);
    assert_eq!(message.source_link(), Some(MAC));
    assert!(Icmpv6::parse(&SOLICITATION).unwrap().checksum_ok(FROM, solicited_node(TARGET)));
}

#[test]
fn construct() {
    let repr = Repr::Advertisement { target: TARGET, flags: FLAGS, target_link: Some(MAC) };
    let mut bytes = [POISON; 32];
    assert_eq!(repr.emit(&mut bytes, TARGET, FROM), Some(32));
    assert_eq!(bytes[..2], [136, 0]);
    assert_eq!(bytes[4..8], [0xc0, 0, 0, 0]);
    assert_eq!(bytes[8..24], TARGET.octets());
    assert_eq!(bytes[24..], [2, 1, 2, 0, 0, 0, 0, 1]);
    let message = Advertisement::parse(&bytes).unwrap();
    assert_eq!(message.flags(), FLAGS);
    assert_eq!(message.target_link(), Some(MAC));
    assert_eq!(
        repr.to_string(),
        "ICMP6 neighbor advertisement, tgt is fd00::1, router, solicited, \
         target link-address 02:00:00:00:00:01"
    );
}

#[test]
fn parse_to_repr() {
    assert_eq!(Solicitation::parse(&SOLICITATION).unwrap().repr(), REPR);
    refuses_truncation(&SOLICITATION[..HEADER_LEN], Solicitation::parse);
    for len in HEADER_LEN + 1..32 {
        let cut = Solicitation::parse(&SOLICITATION[..len]);
        assert_eq!(cut.err(), Some(Malformed::Options), "{len}");
    }
    assert_eq!(Advertisement::parse(&SOLICITATION).err(), Some(Malformed::Unsupported));
    let broken = |at: usize, value: u8| {
        let mut bytes = SOLICITATION;
        bytes[at] = value;
        Solicitation::parse(&bytes).err()
    };
    assert_eq!(broken(1, 1), Some(Malformed::Unsupported));
    assert_eq!(broken(8, 0xff), Some(Malformed::Address));
    assert_eq!(broken(25, 0), Some(Malformed::Options));
    assert_eq!(broken(25, 2), Some(Malformed::Options));
}

#[test]
fn emit() {
    let mut bytes = [POISON; 34];
    assert_eq!(REPR.emit(&mut bytes, FROM, solicited_node(TARGET)), Some(32));
    assert_eq!(bytes[..32], SOLICITATION);
    assert_eq!(bytes[32..], [POISON; 2]);
    assert_eq!(REPR.emit(&mut bytes[..31], FROM, TARGET), None);
    assert_eq!(
        REPR.to_string(),
        "ICMP6 neighbor solicitation, who has fd00::1, source link-address 02:00:00:00:00:01"
    );
}

#[test]
fn a_probe_for_duplicates_names_no_link_address() {
    let probe = Repr::Solicitation { target: TARGET, source_link: None };
    let mut bytes = [POISON; 32];
    assert_eq!(probe.emit(&mut bytes, Ipv6Addr::UNSPECIFIED, solicited_node(TARGET)), Some(24));
    assert_eq!(Solicitation::parse(&bytes[..24]).unwrap().repr(), probe);
    assert_eq!(bytes[24..], [POISON; 8]);
}

#[test]
fn other_options_are_skipped_and_counted() {
    // A nonce of 8 bytes and an unknown option of 16 before the address.
    let mut bytes = SOLICITATION[..24].to_vec();
    bytes.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    bytes.extend([99, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // An address of another medium, then ours, then another that comes too late.
    bytes.extend([1, 2, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]);
    bytes.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    bytes.extend([1, 1, 2, 0, 0, 0, 0, 7]);
    assert_eq!(Solicitation::parse(&bytes).unwrap().source_link(), Some(MAC));
    for _ in 5..8 {
        bytes.extend([14, 1, 0, 0, 0, 0, 0, 0]);
    }
    assert!(Solicitation::parse(&bytes).is_ok());
    bytes.extend([14, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(Solicitation::parse(&bytes).err(), Some(Malformed::Options));
}

#[test]
fn no_link_address_of_a_message_is_anothers() {
    let own: &[u8] = &[1, 1, 2, 0, 0, 0, 0, 1];
    let other: &[u8] = &[2, 1, 2, 0, 0, 0, 0, 7];
    let other_medium: &[u8] = &[1, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let nonce: &[u8] = &[14, 1, 2, 0, 0, 0, 0, 7];
    for (options, only) in [
        (vec![], true),
        (vec![own], true),
        (vec![nonce, own], true),
        (vec![other], false),
        (vec![own, other], false),
        (vec![other, own], false),
        (vec![other_medium], false),
    ] {
        assert_eq!(names_only(&options.concat(), MAC), Ok(only), "{options:?}");
    }
    assert_eq!(names_only(&[1, 0], MAC), Err(Malformed::Options));
    assert_eq!(names_only(&[1, 1, 2, 0], MAC), Err(Malformed::Options));
}

#[test]
fn solicited_node_keeps_the_last_24_bits() {
    let target = "2001:db8::28:9c5a".parse().unwrap();
    assert_eq!(solicited_node(target).to_string(), "ff02::1:ff28:9c5a");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn emit_then_parse(
        target: u128, from: u128, to: u128, link: Option<[u8; 6]>, bits in 0u8..8, asks: bool,
    ) {
        // The first bit cleared: no multicast.
        let target = Ipv6Addr::from_bits(target >> 1);
        let (from, to) = (Ipv6Addr::from_bits(from), Ipv6Addr::from_bits(to));
        let link = link.map(MacAddr);
        let repr = if asks {
            Repr::Solicitation { target, source_link: link }
        } else {
            Repr::Advertisement { target, flags: AdvertFlags::from_bits(bits << 5), target_link: link }
        };
        let mut bytes = [POISON; 32];
        let len = repr.emit(&mut bytes, from, to).unwrap();
        let message = &bytes[..len];
        let parsed = if asks {
            Solicitation::parse(message).unwrap().repr()
        } else {
            Advertisement::parse(message).unwrap().repr()
        };
        prop_assert_eq!(parsed, repr);
        prop_assert!(Icmpv6::parse(message).unwrap().checksum_ok(from, to));

        let judge = Icmpv6Slice::from_slice(message).unwrap();
        prop_assert!(judge.is_checksum_valid(from.octets(), to.octets()));
        let (header, rest) = Icmpv6Header::from_slice(message).unwrap();
        prop_assert_eq!(header.header_len() + rest.len(), len);
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..100), kind in 135u8..137) {
        if let Some(head) = bytes.first_chunk_mut() {
            *head = [kind, 0];
        }
        // Short options, so that the walk gets further than the first.
        for units in bytes.iter_mut().skip(25).step_by(8) {
            *units &= 1;
        }
        let _ = Solicitation::parse(&bytes).map(|message| message.repr().to_string());
        let _ = Advertisement::parse(&bytes).map(|message| message.repr().to_string());
    }
}
