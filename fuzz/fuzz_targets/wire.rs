//! Each header on any bytes: no panic; what was parsed is written back as it was, where there is
//! one way to write it; a checksum that is made verifies.
//!
//! The first byte chooses the header, the rest is the packet.

#![no_main]

use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::wire::{
    Advertisement, Arp, Ethernet, Icmpv4, Icmpv6, Ipv4, Ipv6, Protocol, Solicitation, Tcp, Udp,
    Vxlan, arp, checksum, checksum::Sum, ethernet, ipv4, ipv6, tcp, udp, vxlan,
};

const V4: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 2), Ipv4Addr::new(198, 18, 0, 3)];
const V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 3)];
/// No header's value by accident: a byte that is not written shows.
const POISON: u8 = 0xa5;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&header, bytes)) = input.split_first() else { return };
    match header % 11 {
        0 => on_ethernet(bytes),
        1 => on_arp(bytes),
        2 => on_ipv4(bytes),
        3 => on_ipv6(bytes),
        4 => on_icmpv4(bytes),
        5 => on_icmpv6(bytes),
        6 => on_udp(bytes),
        7 => on_tcp(bytes),
        8 => on_vxlan(bytes),
        9 => on_ndp(bytes),
        _ => on_checksum(bytes),
    }
});

/// What `emit` makes of a poisoned buffer, which must be wholly written.
fn emitted<const N: usize>(emit: impl FnOnce(&mut [u8]) -> Option<usize>) -> [u8; N] {
    let mut buffer = [POISON; N];
    assert_eq!(emit(&mut buffer), Some(N), "a header has room in its own length");
    buffer
}

fn on_ethernet(bytes: &[u8]) {
    let Ok(frame) = Ethernet::parse(bytes) else { return };
    let repr = frame.repr();
    assert_eq!(emitted::<{ ethernet::HEADER_LEN }>(|b| repr.emit(b)), bytes[..14]);
    assert_eq!(frame.payload(), &bytes[14..]);
    let _ = repr.to_string();
}

fn on_arp(bytes: &[u8]) {
    let Ok(packet) = Arp::parse(bytes) else { return };
    let repr = packet.repr();
    assert_eq!(emitted::<{ arp::HEADER_LEN }>(|b| repr.emit(b)), bytes[..28]);
    let _ = repr.to_string();
}

fn on_ipv4(bytes: &[u8]) {
    let _ = Ipv4::parse_header(bytes);
    let Ok(packet) = Ipv4::parse(bytes) else { return };
    assert_eq!(packet.header_len() + packet.payload().len(), usize::from(packet.total_len()));
    let repr = packet.repr();
    let _ = repr.to_string();
    let written = emitted::<{ ipv4::HEADER_LEN }>(|b| repr.emit(b));
    let reserved = bytes[6] & 0x80 != 0;
    if packet.options().is_empty() && !reserved {
        assert_eq!((&written[..10], &written[12..]), (&bytes[..10], &bytes[12..20]));
        // All ones and zero are one number in this arithmetic.
        if packet.checksum_ok() && packet.checksum() != u16::MAX {
            assert_eq!(written, bytes[..20]);
        }
    }
    let verified = packet.checksum_ok();
    let mut edited = bytes.to_vec();
    let header = edited.first_chunk_mut().expect("parsed");
    if ipv4::decrement_ttl(header) && verified {
        assert!(Ipv4::parse(&edited).is_ok_and(|packet| packet.checksum_ok()));
    }
}

fn on_ipv6(bytes: &[u8]) {
    let _ = Ipv6::parse_header(bytes);
    let Ok(packet) = Ipv6::parse(bytes) else { return };
    let repr = packet.repr();
    let _ = repr.to_string();
    assert_eq!(emitted::<{ ipv6::HEADER_LEN }>(|b| repr.emit(b)), bytes[..40]);
    if let Ok(upper) = packet.upper() {
        assert!((40..=40 + packet.payload().len()).contains(&upper.offset));
    }
}

fn on_icmpv4(bytes: &[u8]) {
    let Ok(message) = Icmpv4::parse(bytes) else { return };
    let _ = message.repr().to_string();
    let mut written = bytes.to_vec();
    assert_eq!(message.repr().emit(&mut written), Some(8));
    assert_eq!((&written[..2], &written[4..]), (&bytes[..2], &bytes[4..]));
    // A sum over nothing but zeros has no checksum that verifies.
    if bytes[..2].iter().chain(&bytes[4..]).any(|byte| *byte != 0) {
        assert!(Icmpv4::parse(&written).is_ok_and(|message| message.checksum_ok()));
    }
}

fn on_icmpv6(bytes: &[u8]) {
    let Ok(message) = Icmpv6::parse(bytes) else { return };
    let _ = message.repr().to_string();
    let mut written = bytes.to_vec();
    assert_eq!(message.repr().emit(&mut written, V6[0], V6[1]), Some(8));
    assert_eq!((&written[..2], &written[4..]), (&bytes[..2], &bytes[4..]));
    assert!(Icmpv6::parse(&written).is_ok_and(|message| message.checksum_ok(V6[0], V6[1])));
}

fn on_udp(bytes: &[u8]) {
    let _ = Udp::parse_header(bytes);
    let Ok(datagram) = Udp::parse(bytes) else { return };
    let repr = datagram.repr();
    let _ = repr.to_string();
    assert_eq!(emitted::<{ udp::HEADER_LEN }>(|b| repr.emit(b)), bytes[..8]);
    let pseudo = Sum::pseudo_v4(V4[0], V4[1], Protocol::UDP, repr.len);
    let mut written = bytes[..usize::from(repr.len)].to_vec();
    assert!(udp::fill_checksum(&mut written, pseudo));
    assert!(Udp::parse(&written).is_ok_and(|it| it.checksum() != 0 && it.checksum_ok(pseudo)));
}

fn on_tcp(bytes: &[u8]) {
    let Ok(segment) = Tcp::parse(bytes) else { return };
    let repr = segment.repr();
    let _ = repr.to_string();
    if segment.header_len() == tcp::HEADER_LEN && bytes[12] & 0x0f == 0 {
        assert_eq!(emitted::<{ tcp::HEADER_LEN }>(|b| repr.emit(b)), bytes[..20]);
    }
    let pseudo = Sum::pseudo_v6(V6[0], V6[1], Protocol::TCP, bytes.len() as u32);
    let mut written = bytes.to_vec();
    assert!(tcp::fill_checksum(&mut written, pseudo));
    assert!(Tcp::parse(&written).is_ok_and(|segment| segment.checksum_ok(pseudo)));
}

fn on_vxlan(bytes: &[u8]) {
    let Ok(packet) = Vxlan::parse(bytes) else { return };
    let repr = packet.repr();
    let _ = repr.to_string();
    let written = emitted::<{ vxlan::HEADER_LEN }>(|b| repr.emit(b));
    assert_eq!(written[4..7], bytes[4..7]);
    if bytes[..4] == [8, 0, 0, 0] && bytes[7] == 0 {
        assert_eq!(written, bytes[..8]);
    }
}

fn on_ndp(bytes: &[u8]) {
    let repr = match (Solicitation::parse(bytes), Advertisement::parse(bytes)) {
        (Ok(message), Err(_)) => message.repr(),
        (Err(_), Ok(message)) => message.repr(),
        (Err(_), Err(_)) => return,
        (Ok(_), Ok(_)) => panic!("no message is both"),
    };
    let _ = repr.to_string();
    let mut written = vec![POISON; repr.message_len()];
    assert_eq!(repr.emit(&mut written, V6[0], V6[1]), Some(written.len()));
    let again = match (Solicitation::parse(&written), Advertisement::parse(&written)) {
        (Ok(message), _) => message.repr(),
        (_, Ok(message)) => message.repr(),
        _ => panic!("what was written is a message"),
    };
    assert_eq!(again, repr);
    assert!(Icmpv6::parse(&written).is_ok_and(|message| message.checksum_ok(V6[0], V6[1])));
}

/// Two pieces sum like one; an unfinished checksum is finished in its place alone.
fn on_checksum(bytes: &[u8]) {
    let [start, offset, cut, bytes @ ..] = bytes else { return };
    let (front, back) = bytes.split_at(usize::from(*cut).min(bytes.len()));
    assert_eq!(Sum::new().bytes(front).bytes(back).fold(), Sum::new().bytes(bytes).fold());

    let (start, offset) = (usize::from(*start), usize::from(*offset));
    let mut finished = bytes.to_vec();
    if checksum::complete_partial(&mut finished, start, offset).is_some() {
        let field = start + offset..start + offset + 2;
        assert_eq!(finished[..field.start], bytes[..field.start]);
        assert_eq!(finished[field.end..], bytes[field.end..]);
        assert_ne!(finished[field], [0, 0]);
    } else {
        assert_eq!(finished, bytes);
        assert!(start + offset + 2 > bytes.len());
    }
}
