//! Which packets are ours, as instructions.
//!
//! ```text
//!   Ethernet II ─ IPv4 ─ to one of `local` ─┬─ protocol 4 or 41 from a peer ─────── ours
//!               │      │                    ├─ UDP to `vxlan_ports`, unfragmented ─ ours
//!               │      │                    └─ ICMP about one of these, see `too_big` ours
//!               │      └ to one of `prefixes` ──────────────────────────────────── ours
//!               ├ IPv6 ─ to one of `local` ─┬─ UDP to `vxlan_ports`, at once ───── ours
//!               │      │                    └─ ICMPv6 about one, see `too_big` ─── ours
//!               │      ├ to one of `prefixes` ──────────────────────────────────── ours
//!               │      └ neighbour solicitation for one of `prefixes` ──────────── ours (*)
//!               └ ARP request for one of `prefixes` ────────────────────────────── ours (*)
//!   (*) if `neighbors` is set
//!   everything else: passed, so that the NIC stays Linux's
//! ```
//! The questions are the same for a frame, which XDP gives to an AF_XDP socket, and for a packet of the
//! kernel's, which tc sends out by another interface or drops, as a packet socket has a copy; only the first
//! and the last instructions differ.
//!
//! An address in `local` never goes by `prefixes`: the node's own address is the kernel's even if
//! a pod prefix contains it. A fragment of a VXLAN packet passes, as only its first part has the
//! port; the kernel may reassemble it, and drops it without a socket. A VXLAN packet with IPv4
//! options passes likewise, one with IPv6 extension headers, and a frame with a VLAN tag.
//!
//! Peers are looked up in a [`PeerMap`]. Protocols 4 and 41 have no ports: those of all other
//! hosts may be a tunnel of the kernel's own (ipip, sit), and so are the kernel's. A VXLAN port is
//! one program's on a node, as any UDP port is, and this one is ours whatever sends there: a packet
//! from an unknown sender is dropped by the workers, which count and name it (`unknown-peer`,
//! `unknown-vni`). Another VXLAN device of the kernel's needs a port of its own. `pinhole` alone
//! calls this.

use std::net::IpAddr;

use super::asm::{Assembler, Instruction, Label, PacketEnd, Reg, When, Width};
use super::packet::{
    ARP_BYTES, ARP_REQUEST, BPF_FUNC_REDIRECT, BPF_FUNC_REDIRECT_MAP, BPF_FUNC_SKB_LOAD_BYTES,
    BPF_FUNC_SKB_PULL_DATA, BPF_FUNC_TAIL_CALL, CONTEXT, ETHERNET_BYTES, FRAGMENT, HEADER_LEN,
    IPV4_BYTES, IPV6_BYTES, MD_DATA, MD_DATA_END, MD_RX_QUEUE_INDEX, NEIGHBOR_SOLICITATION,
    NOTHING, PACKET, PACKET_END, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_IPIP, PROTOCOL_IPV6,
    PROTOCOL_UDP, RESULT, SAVED_CONTEXT, SKB_DATA, SKB_DATA_END, SKB_INGRESS_IFINDEX, SKB_LEN,
    SKB_PKT_TYPE, SKB_VLAN_PRESENT, SOLICITATION_BYTES, STACK, TCX_DROP, TCX_NEXT, UDP_BYTES,
    VALUE, WHOLE, XDP_PASS, in_memory, need, peer, prefix,
};
use super::peers::PeerMap;
use super::steering::PinholeFilter;
use super::too_big::{too_big4, too_big6};

/// The longest headers that are looked at: IPv6, ICMPv6, and what that quotes.
const LOOKED_AT_BYTES: u8 = 128;

/// Where a copy of the headers lies on the stack: below the key of a look-up, and so that an IP header,
/// behind 14 bytes, is aligned as the verifier wants its loads from the stack.
const COPY_AT: i16 = -(16 + 2 + LOOKED_AT_BYTES as i16);

/// PACKET_OUTGOING of include/uapi/linux/if_packet.h: sent by this node.
const PACKET_OUTGOING: u32 = 4;

/// Where the packets go that are ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// To the AF_XDP socket of their queue, in the map of that fd: a program of XDP.
    Sockets(i32),
    /// Out by the interface of that index: a program of tc.
    Interface(u32),
    /// To the packet socket whose filter the program is.
    Reader,
    /// Nowhere, as a packet socket has a copy: a program of tc.
    Nowhere,
}

impl Destination {
    /// What the program returns for a packet that is not ours.
    fn pass(self) -> i32 {
        match self {
            Self::Sockets(_) => XDP_PASS,
            Self::Interface(_) | Self::Nowhere => TCX_NEXT,
            Self::Reader => NOTHING,
        }
    }
}

/// The maps that a program names, by fd.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    pub(super) peers4: i32,
    pub(super) peers6: i32,
}

impl Maps {
    pub(super) fn new(peers: &PeerMap) -> Self {
        Self { peers4: peers.fd4(), peers6: peers.fd6() }
    }
}

/// The program that takes what is ours.
pub(super) fn assemble(
    steering: &PinholeFilter,
    destination: Destination,
    maps: Maps,
) -> Result<Vec<Instruction>, String> {
    steering.check()?;
    let mut asm = Assembler::default();
    let [ipv4, ipv6, arp, tunnel, tunnel6, ours, pass] = std::array::from_fn(|_| asm.label());
    let proxies = |is_v4| {
        steering.neighbors && steering.prefixes.iter().any(|(prefix, _)| prefix.is_ipv4() == is_v4)
    };

    asm.copy(SAVED_CONTEXT, CONTEXT);
    match destination {
        Destination::Sockets(_) => {
            asm.load(Width::Word, PACKET, CONTEXT, MD_DATA);
            asm.load(Width::Word, PACKET_END, CONTEXT, MD_DATA_END);
        }
        Destination::Interface(_) | Destination::Nowhere => headers_of_skb(&mut asm, pass),
        Destination::Reader => copy_headers(&mut asm, pass),
    }
    need(&mut asm, ETHERNET_BYTES, pass);
    asm.load(Width::Half, VALUE, PACKET, 12);
    asm.jump(VALUE, When::Equal, in_memory(0x0800), ipv4);
    asm.jump(VALUE, When::Equal, in_memory(0x86dd), ipv6);
    if proxies(true) {
        asm.jump(VALUE, When::Equal, in_memory(0x0806), arp);
    }
    asm.go(pass);

    asm.put(ipv4);
    need(&mut asm, ETHERNET_BYTES + IPV4_BYTES, pass);
    asm.load(Width::Byte, HEADER_LEN, PACKET, ETHERNET_BYTES);
    // Version 4 and a header of five to fifteen words: nothing but 0x45 to 0x4f.
    asm.jump(HEADER_LEN, When::Less, 0x45, pass);
    asm.jump(HEADER_LEN, When::Greater, 0x4f, pass);
    asm.load(Width::Word, VALUE, PACKET, ETHERNET_BYTES + 16);
    for address in &steering.local {
        if let IpAddr::V4(address) = address {
            asm.jump(VALUE, When::Equal, u32::from_ne_bytes(address.octets()), tunnel);
        }
    }
    prefixes(&mut asm, steering, true, ETHERNET_BYTES + 16, ours);
    asm.go(pass);

    asm.put(ipv6);
    need(&mut asm, ETHERNET_BYTES + IPV6_BYTES, pass);
    for address in &steering.local {
        if let IpAddr::V6(address) = address {
            prefix(&mut asm, &address.octets(), 128, ETHERNET_BYTES + 24, tunnel6);
        }
    }
    prefixes(&mut asm, steering, false, ETHERNET_BYTES + 24, ours);
    if proxies(false) {
        asm.load(Width::Byte, VALUE, PACKET, ETHERNET_BYTES + 6);
        asm.jump(VALUE, When::NotEqual, PROTOCOL_ICMPV6, pass);
        need(&mut asm, ETHERNET_BYTES + IPV6_BYTES + SOLICITATION_BYTES, pass);
        asm.load(Width::Byte, VALUE, PACKET, ETHERNET_BYTES + IPV6_BYTES);
        asm.jump(VALUE, When::NotEqual, NEIGHBOR_SOLICITATION, pass);
        prefixes(&mut asm, steering, false, ETHERNET_BYTES + IPV6_BYTES + 8, ours);
    }
    asm.go(pass);

    // The verifier refuses instructions that no jump reaches.
    if asm.is_wanted(tunnel) {
        tunnels(&mut asm, steering, maps, tunnel, ours, pass);
    }
    if asm.is_wanted(tunnel6) {
        tunnels6(&mut asm, steering, maps, tunnel6, ours, pass);
    }
    if asm.is_wanted(arp) {
        asm.put(arp);
        need(&mut asm, ETHERNET_BYTES + ARP_BYTES, pass);
        asm.load(Width::Half, VALUE, PACKET, ETHERNET_BYTES + 6);
        asm.jump(VALUE, When::NotEqual, in_memory(ARP_REQUEST), pass);
        prefixes(&mut asm, steering, true, ETHERNET_BYTES + 24, ours);
        asm.go(pass);
    }

    asm.put(pass);
    asm.set(RESULT, destination.pass());
    asm.exit();

    if asm.is_wanted(ours) {
        asm.put(ours);
        match destination {
            Destination::Sockets(map) => {
                // bpf_redirect_map(map, rx_queue_index, XDP_PASS): a queue without socket passes.
                asm.load_map(Reg(1), map);
                asm.load(Width::Word, Reg(2), SAVED_CONTEXT, MD_RX_QUEUE_INDEX);
                asm.set(Reg(3), XDP_PASS);
                asm.call(BPF_FUNC_REDIRECT_MAP);
                asm.exit();
            }
            Destination::Interface(ifindex) => send_by(&mut asm, ifindex),
            Destination::Reader => end_with(&mut asm, WHOLE),
            Destination::Nowhere => end_with(&mut asm, TCX_DROP),
        }
    }

    asm.finish().map_err(|_| "it has too many addresses, ports and prefixes".to_owned())
}

/// The program that sends everything out by an interface.
pub(super) fn assemble_redirect(ifindex: u32) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    send_by(&mut asm, ifindex);
    asm.finish().expect("no jump is in it")
}

/// The program that lets through what another interface has received, and drops what the kernel or
/// another program sends.
pub(super) fn assemble_only_from(ifindex: u32) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let forwarded = asm.label();
    asm.load(Width::Word, VALUE, CONTEXT, SKB_INGRESS_IFINDEX);
    asm.jump(VALUE, When::Equal, ifindex, forwarded);
    asm.set(RESULT, TCX_DROP);
    asm.exit();
    asm.put(forwarded);
    asm.set(RESULT, TCX_NEXT);
    asm.exit();
    asm.finish().expect("its one jump is short")
}

/// The program that does what the one in a slot does, by the fd of the slot's map; without one a socket gets
/// nothing.
pub(super) fn assemble_call(slot_fd: i32) -> Vec<Instruction> {
    let mut asm = Assembler::default();
    asm.load_map(Reg(2), slot_fd);
    asm.set(Reg(3), 0);
    // Comes back only if there is none.
    asm.call(BPF_FUNC_TAIL_CALL);
    end_with(&mut asm, NOTHING);
    asm.finish().expect("no jump is in it")
}

fn end_with(asm: &mut Assembler, result: i32) {
    asm.set(RESULT, result);
    asm.exit();
}

/// `bpf_redirect(ifindex, 0)`: to the egress of the interface.
fn send_by(asm: &mut Assembler, ifindex: u32) {
    asm.set(Reg(1), ifindex.cast_signed());
    asm.set(Reg(2), 0);
    asm.call(BPF_FUNC_REDIRECT);
    asm.exit();
}

/// Makes the headers of a packet of the kernel's readable: they may lie in several pieces, as a
/// superframe's do. One with a VLAN tag passes; the kernel keeps the tag beside the packet.
fn headers_of_skb(asm: &mut Assembler, pass: Label) {
    let [pull, short, readable] = std::array::from_fn(|_| asm.label());
    let find = |asm: &mut Assembler| {
        asm.load(Width::Word, PACKET, SAVED_CONTEXT, SKB_DATA);
        asm.load(Width::Word, PACKET_END, SAVED_CONTEXT, SKB_DATA_END);
    };
    asm.load(Width::Word, VALUE, SAVED_CONTEXT, SKB_VLAN_PRESENT);
    asm.jump(VALUE, When::NotEqual, 0, pass);
    find(asm);
    need(asm, LOOKED_AT_BYTES.into(), pull);
    asm.go(readable);
    asm.put(pull);
    asm.copy(Reg(1), SAVED_CONTEXT);
    asm.load(Width::Word, Reg(2), SAVED_CONTEXT, SKB_LEN);
    asm.jump(Reg(2), When::Less, LOOKED_AT_BYTES.into(), short);
    asm.set(Reg(2), LOOKED_AT_BYTES.into());
    asm.put(short);
    // Where it fails, what is read there stays, and what is shorter than a header passes.
    asm.call(BPF_FUNC_SKB_PULL_DATA);
    find(asm);
    asm.put(readable);
}

/// Copies the headers of a packet to the stack: the filter of a socket cannot read it in place. What this
/// node sent passes, and what has a VLAN tag, as `headers_of_skb` has it.
fn copy_headers(asm: &mut Assembler, pass: Label) {
    let whole = asm.label();
    asm.packet_end = PacketEnd::Length;
    asm.load(Width::Word, VALUE, SAVED_CONTEXT, SKB_PKT_TYPE);
    asm.jump(VALUE, When::Equal, PACKET_OUTGOING, pass);
    asm.load(Width::Word, VALUE, SAVED_CONTEXT, SKB_VLAN_PRESENT);
    asm.jump(VALUE, When::NotEqual, 0, pass);
    // The verifier wants each byte written, whatever the length is.
    asm.set(VALUE, 0);
    for at in (COPY_AT - 2..-16).step_by(4) {
        asm.store(STACK, at, VALUE);
    }
    asm.copy(PACKET, STACK);
    asm.add(PACKET, COPY_AT.into());
    asm.load(Width::Word, PACKET_END, SAVED_CONTEXT, SKB_LEN);
    need(asm, ETHERNET_BYTES, pass);
    asm.copy(Reg(4), PACKET_END);
    asm.jump(Reg(4), When::Less, LOOKED_AT_BYTES.into(), whole);
    asm.set(Reg(4), LOOKED_AT_BYTES.into());
    asm.put(whole);
    asm.copy(Reg(1), SAVED_CONTEXT);
    asm.set(Reg(2), 0);
    asm.copy(Reg(3), PACKET);
    asm.call(BPF_FUNC_SKB_LOAD_BYTES);
    asm.jump(RESULT, When::NotEqual, 0, pass);
}

/// From `tunnel` on: is a packet to one of our addresses one of our tunnels', or about one?
fn tunnels(
    asm: &mut Assembler,
    steering: &PinholeFilter,
    maps: Maps,
    tunnel: Label,
    ours: Label,
    pass: Label,
) {
    asm.put(tunnel);
    if !steering.ipip && steering.vxlan_ports.is_empty() {
        return asm.go(pass);
    }
    asm.load(Width::Byte, VALUE, PACKET, ETHERNET_BYTES + 9);
    let [ipip, icmp] = std::array::from_fn(|_| asm.label());
    if steering.ipip {
        asm.jump(VALUE, When::Equal, PROTOCOL_IPIP, ipip);
        asm.jump(VALUE, When::Equal, PROTOCOL_IPV6, ipip);
    }
    asm.jump(VALUE, When::Equal, PROTOCOL_ICMP, icmp);
    if !steering.vxlan_ports.is_empty() {
        asm.jump(VALUE, When::NotEqual, PROTOCOL_UDP, pass);
        asm.load(Width::Half, VALUE, PACKET, ETHERNET_BYTES + 6);
        asm.mask(VALUE, in_memory(FRAGMENT));
        asm.jump(VALUE, When::NotEqual, 0, pass);
        // A header with options would put the port at a variable place, which the verifier allows
        // only to CAP_PERFMON; no tunnel end sends options.
        asm.jump(HEADER_LEN, When::NotEqual, 0x45, pass);
        need(asm, ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES, pass);
        asm.load(Width::Half, VALUE, PACKET, ETHERNET_BYTES + IPV4_BYTES + 2);
        for port in &steering.vxlan_ports {
            asm.jump(VALUE, When::Equal, in_memory(*port), ours);
        }
    }
    asm.go(pass);
    if asm.is_wanted(ipip) {
        asm.put(ipip);
        peer(asm, maps.peers4, ETHERNET_BYTES + 12, 4, ours, pass);
    }
    asm.put(icmp);
    too_big4(asm, steering, maps.peers4, ours, pass);
}

/// From `tunnel` on: is a packet to one of our IPv6 addresses VXLAN, or about it? Extension headers,
/// and so fragments, are not: they stand where UDP would.
fn tunnels6(
    asm: &mut Assembler,
    steering: &PinholeFilter,
    maps: Maps,
    tunnel: Label,
    ours: Label,
    pass: Label,
) {
    asm.put(tunnel);
    if steering.vxlan_ports.is_empty() {
        return asm.go(pass);
    }
    asm.load(Width::Byte, VALUE, PACKET, ETHERNET_BYTES + 6);
    let other = asm.label();
    asm.jump(VALUE, When::NotEqual, PROTOCOL_UDP, other);
    need(asm, ETHERNET_BYTES + IPV6_BYTES + UDP_BYTES, pass);
    asm.load(Width::Half, VALUE, PACKET, ETHERNET_BYTES + IPV6_BYTES + 2);
    for port in &steering.vxlan_ports {
        asm.jump(VALUE, When::Equal, in_memory(*port), ours);
    }
    asm.go(pass);
    asm.put(other);
    too_big6(asm, steering, maps.peers6, ours, pass);
}

/// Goes to `ours` if the address at `offset` is in one of the prefixes of its family; else falls
/// through.
fn prefixes(asm: &mut Assembler, steering: &PinholeFilter, v4: bool, offset: i16, ours: Label) {
    for (network, len) in &steering.prefixes {
        match network {
            IpAddr::V4(network) if v4 => prefix(asm, &network.octets(), *len, offset, ours),
            IpAddr::V6(network) if !v4 => prefix(asm, &network.octets(), *len, offset, ours),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::steering::MAX_ENTRIES;
    use super::{Destination, Maps, PinholeFilter, assemble};

    const MAPS: Maps = Maps { peers4: 4, peers6: 5 };
    const ALL: [Destination; 4] = [
        Destination::Sockets(3),
        Destination::Interface(2),
        Destination::Reader,
        Destination::Nowhere,
    ];

    #[test]
    fn prefixes_that_would_take_the_node_are_refused() {
        for prefix in ["0.0.0.0/0", "::/0", "198.18.0.0/33", "fd00::/129"] {
            let (network, len) = prefix.split_once('/').expect("a slash");
            let prefixes =
                vec![(network.parse().expect("address"), len.parse().expect("a number"))];
            let steering = PinholeFilter { prefixes, ..PinholeFilter::default() };
            for destination in ALL {
                let refused = assemble(&steering, destination, MAPS);
                assert!(refused.expect_err("refused").contains(prefix), "{prefix}");
            }
        }
    }

    #[test]
    fn the_largest_program_still_assembles() {
        let longest = ("fd00::1".parse().expect("address"), 127);
        let mut steering = PinholeFilter {
            local: vec!["2001:db8::1".parse().expect("address")],
            vxlan_ports: vec![4789],
            ipip: true,
            prefixes: vec![longest; MAX_ENTRIES - 2],
            ..PinholeFilter::default()
        };
        assert!(ALL.iter().all(|to| assemble(&steering, *to, MAPS).is_ok()));
        steering.prefixes.push(longest);
        assert!(ALL.iter().all(|to| assemble(&steering, *to, MAPS).is_err()));
    }
}
