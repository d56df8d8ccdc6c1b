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
//!   everything else: XDP_PASS, so that the NIC stays Linux's
//! ```
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

use super::asm::{Assembler, Instruction, Label, Reg, When, Width};
use super::packet::{
    ARP_BYTES, ARP_REQUEST, BPF_FUNC_REDIRECT_MAP, CONTEXT, ETHERNET_BYTES, FRAGMENT, HEADER_LEN,
    IPV4_BYTES, IPV6_BYTES, MD_DATA, MD_DATA_END, MD_RX_QUEUE_INDEX, NEIGHBOR_SOLICITATION, PACKET,
    PACKET_END, PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_IPIP, PROTOCOL_IPV6, PROTOCOL_UDP, RESULT,
    SAVED_CONTEXT, SOLICITATION_BYTES, UDP_BYTES, VALUE, XDP_PASS, in_memory, need, peer, prefix,
};
use super::peers::PeerMap;
use super::steering::PinholeFilter;
use super::too_big::{too_big4, too_big6};

/// The maps that a program names, by fd.
#[derive(Debug, Clone, Copy)]
pub(super) struct Maps {
    pub(super) sockets: i32,
    pub(super) peers4: i32,
    pub(super) peers6: i32,
}

impl Maps {
    pub(super) fn new(sockets: i32, peers: &PeerMap) -> Self {
        Self { sockets, peers4: peers.fd4(), peers6: peers.fd6() }
    }
}

/// The program that redirects what is ours to the AF_XDP socket of its queue, by the maps.
pub(super) fn assemble(steering: &PinholeFilter, maps: Maps) -> Result<Vec<Instruction>, String> {
    steering.check()?;
    let mut asm = Assembler::default();
    let [ipv4, ipv6, arp, tunnel, tunnel6, ours, pass] = std::array::from_fn(|_| asm.label());
    let proxies = |is_v4| {
        steering.neighbors && steering.prefixes.iter().any(|(prefix, _)| prefix.is_ipv4() == is_v4)
    };

    asm.copy(SAVED_CONTEXT, CONTEXT);
    asm.load(Width::Word, PACKET, CONTEXT, MD_DATA);
    asm.load(Width::Word, PACKET_END, CONTEXT, MD_DATA_END);
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
    asm.set(RESULT, XDP_PASS);
    asm.exit();

    if asm.is_wanted(ours) {
        asm.put(ours);
        // bpf_redirect_map(map, rx_queue_index, XDP_PASS): a queue without socket passes.
        asm.load_map(Reg(1), maps.sockets);
        asm.load(Width::Word, Reg(2), SAVED_CONTEXT, MD_RX_QUEUE_INDEX);
        asm.set(Reg(3), XDP_PASS);
        asm.call(BPF_FUNC_REDIRECT_MAP);
        asm.exit();
    }

    asm.finish().map_err(|_| "it has too many addresses, ports and prefixes".to_owned())
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
    use super::{Maps, PinholeFilter, assemble};

    const MAPS: Maps = Maps { sockets: 3, peers4: 4, peers6: 5 };

    #[test]
    fn prefixes_that_would_take_the_node_are_refused() {
        for prefix in ["0.0.0.0/0", "::/0", "198.18.0.0/33", "fd00::/129"] {
            let (network, len) = prefix.split_once('/').expect("a slash");
            let prefixes =
                vec![(network.parse().expect("address"), len.parse().expect("a number"))];
            let refused = assemble(&PinholeFilter { prefixes, ..PinholeFilter::default() }, MAPS);
            assert!(refused.expect_err("refused").contains(prefix), "{prefix}");
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
        assert!(assemble(&steering, MAPS).is_ok());
        steering.prefixes.push(longest);
        assert!(assemble(&steering, MAPS).is_err());
    }
}
