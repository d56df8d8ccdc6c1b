//! Before the walks, for the NIC alone: tunnel packets that came as one.
//!
//! Enters: a packet as it was received. Leaves: how to cut it into the tunnel packets that it was made of, each of
//! which is then received as if it had come alone. Their sender had the kernel take them as one superframe of UDP
//! (UDP GSO), and none has cut it: the sender is on this machine, or its NIC's veth leads here. Or the NIC's
//! driver merged them (`rx-udp-gro-forwarding` of `ethtool -k`). A pod's superframe of UDP is another thing: it
//! stays whole, in a tunnel and without. `Dataplane::process` and `trace` call this.

use frame::{Checksum, GsoKind, Packet, Pool};

use super::rewrite::{Layers, OuterHeaders};
use super::segment::Plan;
use crate::tables::{PortId, PortRole, Tables, Tunnels};
use crate::verdict::DropReason;
use crate::wire::{EtherType, Ethernet, Ipv4, Ipv6, Protocol, Udp, ethernet, ipv6, udp};

/// How to cut it, if it is several tunnel packets for this node.
#[inline(always)]
pub(crate) fn tunnel_packets(tables: &Tables, ingress: PortId, packet: &Packet) -> Option<Plan> {
    let is_udp = packet.offload.gso.is_some_and(|gso| gso.kind == GsoKind::Udp);
    if is_udp && tables.port(ingress)?.kind == PortRole::Uplink {
        return cut(&tables.tunnels, packet);
    }
    None
}

/// One of them, or why it is lost.
pub(crate) fn tunnel_packet(
    joined: &Packet,
    plan: &Plan,
    piece: usize,
    pool: &Pool,
) -> Result<Packet, DropReason> {
    let mut packet = Packet::plain(pool.alloc().ok_or(DropReason::NoFrames)?);
    let space = packet.frame.extend(plan.len(piece)).ok();
    let written = space.and_then(|space| plan.write(joined, piece, space));
    written.map(|()| packet).ok_or(DropReason::OffloadInvalid)
}

#[inline(never)]
fn cut(tunnels: &Tunnels, packet: &Packet) -> Option<Plan> {
    let ethernet = Ethernet::parse(&packet.frame).ok()?;
    let (datagram, is_ours, l4, is_v6) = if ethernet.ethertype() == EtherType::IPV6 {
        let ip = Ipv6::parse(ethernet.payload()).ok()?;
        let is_ours =
            tunnels.local.v6 == Some(ip.destination()) && ip.next_header() == Protocol::UDP;
        (ip.payload(), is_ours, ethernet::HEADER_LEN + ipv6::HEADER_LEN, true)
    } else {
        let ip = Ipv4::parse(ethernet.payload()).ok()?;
        let is_ours = tunnels.local.v4 == Some(ip.destination()) && ip.protocol() == Protocol::UDP;
        (ip.payload(), is_ours, ethernet::HEADER_LEN + ip.header_len(), false)
    };
    if !is_ours || !tunnels.takes_vxlan_on(Udp::parse(datagram).ok()?.destination()) {
        return None;
    }
    // Else it is the inner packet that is to be cut.
    let is_outer = matches!(packet.offload.checksum, Checksum::Partial { start, offset }
        if usize::from(start) == l4 && usize::from(offset) == udp::CHECKSUM_OFFSET);
    let layers =
        Layers { outer: OuterHeaders::None, l3: ethernet::HEADER_LEN, l4, is_v6, is_tcp: false };
    is_outer.then(|| Plan::new(packet, packet.offload.gso?, layers)).flatten()
}
