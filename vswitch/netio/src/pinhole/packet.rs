//! A packet, as instructions see it: registers, offsets, and the questions that are asked more than
//! once. `program` and `too_big` use it.

use super::asm::{Assembler, Label, PacketEnd, Reg, When, Width};

// Registers: r0 to r5 are scratch, r6 to r9 survive a call.
pub(super) const RESULT: Reg = Reg(0);
pub(super) const CONTEXT: Reg = Reg(1);
pub(super) const SCRATCH: Reg = Reg(2);
pub(super) const VALUE: Reg = Reg(3);
pub(super) const HEADER_LEN: Reg = Reg(4);
pub(super) const SAVED_CONTEXT: Reg = Reg(6);
pub(super) const PACKET: Reg = Reg(7);
pub(super) const PACKET_END: Reg = Reg(8);
pub(super) const STACK: Reg = Reg(10);

// struct xdp_md, include/uapi/linux/bpf.h.
pub(super) const MD_DATA: i16 = 0;
pub(super) const MD_DATA_END: i16 = 4;
pub(super) const MD_RX_QUEUE_INDEX: i16 = 16;

// struct __sk_buff, likewise.
pub(super) const SKB_LEN: i16 = 0;
pub(super) const SKB_PKT_TYPE: i16 = 4;
pub(super) const SKB_VLAN_PRESENT: i16 = 20;
pub(super) const SKB_INGRESS_IFINDEX: i16 = 36;
pub(super) const SKB_DATA: i16 = 76;
pub(super) const SKB_DATA_END: i16 = 80;

pub(super) const XDP_PASS: i32 = 2;
/// The next program decides, and at last the kernel.
pub(super) const TCX_NEXT: i32 = -1;
pub(super) const TCX_DROP: i32 = 2;
/// A filter of a socket returns how many bytes the socket gets.
pub(super) const WHOLE: i32 = -1;
pub(super) const NOTHING: i32 = 0;
pub(super) const BPF_FUNC_MAP_LOOKUP_ELEM: i32 = 1;
pub(super) const BPF_FUNC_TAIL_CALL: i32 = 12;
pub(super) const BPF_FUNC_REDIRECT: i32 = 23;
pub(super) const BPF_FUNC_SKB_LOAD_BYTES: i32 = 26;
pub(super) const BPF_FUNC_SKB_PULL_DATA: i32 = 39;
pub(super) const BPF_FUNC_REDIRECT_MAP: i32 = 51;

pub(super) const ETHERNET_BYTES: i16 = 14;
pub(super) const IPV4_BYTES: i16 = 20;
pub(super) const IPV6_BYTES: i16 = 40;
pub(super) const UDP_BYTES: i16 = 8;
pub(super) const ARP_BYTES: i16 = 28;
/// A neighbour solicitation without options.
pub(super) const SOLICITATION_BYTES: i16 = 24;

pub(super) const PROTOCOL_ICMP: u32 = 1;
pub(super) const PROTOCOL_IPIP: u32 = 4;
pub(super) const PROTOCOL_UDP: u32 = 17;
pub(super) const PROTOCOL_IPV6: u32 = 41;
pub(super) const PROTOCOL_ICMPV6: u32 = 58;
pub(super) const NEIGHBOR_SOLICITATION: u32 = 135;
pub(super) const ARP_REQUEST: u16 = 1;

/// Every bit of the IPv4 fragment field but "don't fragment" and the reserved one: "more
/// fragments", and the offset.
pub(super) const FRAGMENT: u16 = 0x3fff;

/// Goes to `ours` if the address at `offset` is a peer's, else to `pass`.
pub(super) fn peer(
    asm: &mut Assembler,
    map_fd: i32,
    offset: i16,
    address_bytes: i16,
    ours: Label,
    pass: Label,
) {
    for at in (0..address_bytes).step_by(4) {
        asm.load(Width::Word, VALUE, PACKET, offset + at);
        asm.store(STACK, at - address_bytes, VALUE);
    }
    asm.load_map(Reg(1), map_fd);
    asm.copy(Reg(2), STACK);
    asm.add(Reg(2), -i32::from(address_bytes));
    asm.call(BPF_FUNC_MAP_LOOKUP_ELEM);
    asm.jump_if_null(RESULT, pass);
    asm.go(ours);
}

/// Passes a packet with fewer than `count` bytes from `PACKET` on. Without this the verifier
/// refuses the loads that follow, unless they are from a copy.
pub(super) fn need(asm: &mut Assembler, count: i16, pass: Label) {
    if asm.packet_end == PacketEnd::Length {
        return asm.jump(PACKET_END, When::Less, u32::from(count.unsigned_abs()), pass);
    }
    asm.copy(SCRATCH, PACKET);
    asm.add(SCRATCH, count.into());
    asm.jump_if_beyond(SCRATCH, PACKET_END, pass);
}

/// Goes to `ours` if the address at `offset` begins with `len` bits of `network`; else falls
/// through. Word by word, as IPv6 has four.
pub(super) fn prefix(asm: &mut Assembler, network: &[u8], len: u8, offset: i16, ours: Label) {
    let next = asm.label();
    let mut left = u32::from(len);
    for (word, at) in network.as_chunks::<4>().0.iter().zip((offset..).step_by(4)) {
        let bits = left.min(32);
        left -= bits;
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        if mask == 0 {
            break;
        }
        let mask = u32::from_ne_bytes(mask.to_be_bytes());
        asm.load(Width::Word, VALUE, PACKET, at);
        if mask != u32::MAX {
            asm.mask(VALUE, mask);
        }
        asm.jump(VALUE, When::NotEqual, u32::from_ne_bytes(*word) & mask, next);
    }
    asm.go(ours);
    asm.put(next);
}

/// A 16-bit field of a header as a load finds it.
pub(super) fn in_memory(value: u16) -> u32 {
    u16::from_ne_bytes(value.to_be_bytes()).into()
}
