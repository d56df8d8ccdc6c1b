//! Which ICMP errors are about our tunnel packets, as instructions.
//!
//! ```text
//!   IPv4 header ─ ICMP 3, 4 ── quoted IPv4 header ─┬─ protocol 4 or 41 ───── to a peer ─ ours
//!                                                  └─ UDP to `vxlan_ports` ─ to a peer ─ ours
//!   IPv6 header ─ ICMPv6 2 ─── quoted IPv6 header ─── UDP to `vxlan_ports` ─ to a peer ─ ours
//! ```
//! A router of the underlay reports that a tunnel packet was too large. The kernel has no socket that
//! sent it, and so no receiver for it: unless it went to a host that is no peer, as those of the
//! kernel's own tunnels do. All other ICMP stays Linux's, and so does what has IPv4 options
//! or extension headers, outside or quoted: the quoted ports would be at a variable place, and our
//! packets have none. `program` alone calls this, for packets to one of our addresses.

use super::asm::{Assembler, Label, When, Width};
use super::packet::{
    ETHERNET_BYTES, FRAGMENT, HEADER_LEN, IPV4_BYTES, IPV6_BYTES, PACKET, PROTOCOL_ICMPV6,
    PROTOCOL_IPIP, PROTOCOL_IPV6, PROTOCOL_UDP, UDP_BYTES, VALUE, in_memory, need, peer,
};
use super::steering::PinholeFilter;

/// Length of an ICMP or ICMPv6 header.
const ICMP_BYTES: i16 = 8;
/// Type 3, destination unreachable; code 4, fragmentation needed (RFC 792).
const FRAGMENTATION_NEEDED: u16 = 0x0304;
/// Type 2 (RFC 4443); the code is ignored.
const PACKET_TOO_BIG: u32 = 2;

/// Filters from here on an ICMP packet with a checked IPv4 header.
pub(super) fn too_big4(
    asm: &mut Assembler,
    steering: &PinholeFilter,
    peers_fd: i32,
    ours: Label,
    pass: Label,
) {
    const QUOTED: i16 = ETHERNET_BYTES + IPV4_BYTES + ICMP_BYTES;
    asm.jump(HEADER_LEN, When::NotEqual, 0x45, pass);
    asm.load(Width::Half, VALUE, PACKET, ETHERNET_BYTES + 6);
    asm.mask(VALUE, in_memory(FRAGMENT));
    asm.jump(VALUE, When::NotEqual, 0, pass);
    // RFC 792: "the internet header plus the first 64 bits of the original datagram's data".
    need(asm, QUOTED + IPV4_BYTES + UDP_BYTES, pass);
    asm.load(Width::Half, VALUE, PACKET, ETHERNET_BYTES + IPV4_BYTES);
    asm.jump(VALUE, When::NotEqual, in_memory(FRAGMENTATION_NEEDED), pass);
    asm.load(Width::Byte, VALUE, PACKET, QUOTED);
    asm.jump(VALUE, When::NotEqual, 0x45, pass);
    asm.load(Width::Byte, VALUE, PACKET, QUOTED + 9);
    let tunnelled = asm.label();
    if steering.ipip {
        asm.jump(VALUE, When::Equal, PROTOCOL_IPIP, tunnelled);
        asm.jump(VALUE, When::Equal, PROTOCOL_IPV6, tunnelled);
    }
    asm.jump(VALUE, When::NotEqual, PROTOCOL_UDP, pass);
    vxlan(asm, steering, QUOTED + IPV4_BYTES, tunnelled, pass);
    asm.put(tunnelled);
    peer(asm, peers_fd, QUOTED + 16, 4, ours, pass);
}

/// From here on: an IPv6 packet to us that is not UDP; its next header is in `VALUE`.
pub(super) fn too_big6(
    asm: &mut Assembler,
    steering: &PinholeFilter,
    peers_fd: i32,
    ours: Label,
    pass: Label,
) {
    const QUOTED: i16 = ETHERNET_BYTES + IPV6_BYTES + ICMP_BYTES;
    asm.jump(VALUE, When::NotEqual, PROTOCOL_ICMPV6, pass);
    need(asm, QUOTED + IPV6_BYTES + UDP_BYTES, pass);
    asm.load(Width::Byte, VALUE, PACKET, ETHERNET_BYTES + IPV6_BYTES);
    asm.jump(VALUE, When::NotEqual, PACKET_TOO_BIG, pass);
    asm.load(Width::Byte, VALUE, PACKET, QUOTED + 6);
    asm.jump(VALUE, When::NotEqual, PROTOCOL_UDP, pass);
    let tunnelled = asm.label();
    vxlan(asm, steering, QUOTED + IPV6_BYTES, tunnelled, pass);
    asm.put(tunnelled);
    peer(asm, peers_fd, QUOTED + 24, 16, ours, pass);
}

/// Goes to `tunnelled` if the UDP header at `at` names one of our ports, else to `pass`.
fn vxlan(asm: &mut Assembler, steering: &PinholeFilter, at: i16, tunnelled: Label, pass: Label) {
    if !steering.vxlan_ports.is_empty() {
        asm.load(Width::Half, VALUE, PACKET, at + 2);
        for port in &steering.vxlan_ports {
            asm.jump(VALUE, When::Equal, in_memory(*port), tunnelled);
        }
    }
    asm.go(pass);
}
