//! Door 1, for the NIC alone: who sent this over the underlay, and where does the inner packet
//! begin.
//!
//! Enters: an Ethernet frame that the pinhole redirected. Leaves: an [`Arrival`] for `parse`; the
//! outer headers are stepped over, not removed. A tunnel packet carries no proof of origin
//! (CVE-2020-10136): only known peers are heard, and `route` holds the inner source against the
//! peer's prefixes.

use core::net::{IpAddr, Ipv4Addr};

use super::parse::{Headers, Net};
use crate::tables::{Adjacency, Domain, Encap, Peer, Port, PortId, Tables, Tunnels, VtepId};
use crate::trace::Narrator;
use crate::verdict::{DropReason, Verdict};
use crate::wire::{Ecn, EtherType, Ethernet, Ipv4, Protocol, Udp, Vxlan, ethernet, udp, vxlan};

/// A packet's origin, once it is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'t> {
    pub(crate) ingress: PortId,
    pub(crate) port: &'t Port,
    pub(crate) origin: Origin<'t>,
    /// Where the packet that is forwarded begins.
    pub(crate) start: usize,
    /// It ends here at the latest: what the outer headers do not count is the outer frame's padding.
    pub(crate) end: usize,
    /// It begins with an Ethernet header.
    pub(crate) ethernet: bool,
    /// Congestion mark of the outer header.
    pub(crate) outer_ecn: Option<Ecn>,
}

/// Where a packet comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'t> {
    /// A pod of this node.
    Pod,
    /// This node's kernel.
    Host,
    /// The underlay, without encapsulation.
    Direct,
    /// Another node, through the overlay.
    Peer { peer: &'t Peer, domain: Domain, vtep: Option<VtepId> },
}

impl<'t> Arrival<'t> {
    /// A whole frame of `len` bytes.
    pub(crate) fn plain(ingress: PortId, port: &'t Port, origin: Origin<'t>, len: usize) -> Self {
        Self { ingress, port, origin, start: 0, end: len, ethernet: true, outer_ecn: None }
    }

    /// It came by the NIC.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.origin, Origin::Direct | Origin::Peer { .. })
    }
}

pub(crate) fn decap<'t>(
    tables: &'t Tables,
    ingress: PortId,
    port: &'t Port,
    bytes: &[u8],
    narrator: &mut impl Narrator,
) -> Result<Arrival<'t>, Verdict> {
    let arrival = outer(&tables.tunnels, tables, ingress, port, bytes).map_err(Verdict::Drop)?;
    narrator.say("decap", || match arrival.origin {
        Origin::Peer { peer, domain: Domain::Routed, .. } if arrival.ethernet => {
            format!("VXLAN from peer {}, routed overlay", peer.address)
        }
        Origin::Peer { peer, domain: Domain::Routed, .. } => {
            format!("IPIP from peer {}", peer.address)
        }
        Origin::Peer { peer, domain: Domain::Bridged(bridge), .. } => {
            format!("VXLAN from VTEP {}, bridge domain {}", peer.address, bridge.0)
        }
        _ => "no encapsulation: direct routing".to_owned(),
    });
    Ok(arrival)
}

fn outer<'t>(
    tunnels: &'t Tunnels,
    tables: &'t Tables,
    ingress: PortId,
    port: &'t Port,
    bytes: &[u8],
) -> Result<Arrival<'t>, DropReason> {
    let ethernet = Ethernet::parse(bytes).map_err(|_| DropReason::FrameTooShort)?;
    let direct = Arrival::plain(ingress, port, Origin::Direct, bytes.len());
    if ethernet.ethertype() == EtherType::IPV6 && tunnels.direct {
        return Ok(direct);
    }
    if ethernet.ethertype() != EtherType::IPV4 {
        return Err(DropReason::NotForUs);
    }
    let ip = Ipv4::parse(ethernet.payload()).map_err(|_| DropReason::OuterMalformed)?;
    if tunnels.address != Some(ip.destination()) {
        return if tunnels.direct { Ok(direct) } else { Err(DropReason::NotForUs) };
    }
    if !ip.checksum_ok() || ip.is_fragment() {
        return Err(DropReason::OuterMalformed);
    }
    let l4 = ethernet::HEADER_LEN + ip.header_len();
    let arrival = |origin, start, len, ethernet| Arrival {
        ingress,
        port,
        origin,
        start,
        end: start + len,
        ethernet,
        outer_ecn: Some(ip.ecn()),
    };
    match ip.protocol() {
        Protocol::IPIP | Protocol::IPV6 if tunnels.ipip => {
            let peer = peer(tunnels, ip.source())?;
            let origin = Origin::Peer { peer, domain: Domain::Routed, vtep: None };
            Ok(arrival(origin, l4, ip.payload().len(), false))
        }
        Protocol::UDP => {
            let udp = Udp::parse(ip.payload()).map_err(|_| DropReason::OuterMalformed)?;
            if tunnels.vxlan_port != Some(udp.destination()) {
                return Err(DropReason::NotForUs);
            }
            let vxlan = Vxlan::parse(udp.payload()).map_err(|_| DropReason::OuterMalformed)?;
            let domain = *tunnels.vnis.get(&vxlan.vni()).ok_or(DropReason::UnknownVni)?;
            let peer = peer(tunnels, ip.source())?;
            let vtep = match domain {
                Domain::Routed => None,
                Domain::Bridged(bridge) => Some(
                    tables
                        .bridge(bridge)
                        .and_then(|bridge| bridge.vtep_at(ip.source()))
                        .ok_or(DropReason::UnknownPeer)?,
                ),
            };
            let start = l4 + udp::HEADER_LEN + vxlan::HEADER_LEN;
            let len = vxlan.payload().len();
            Ok(arrival(Origin::Peer { peer, domain, vtep }, start, len, true))
        }
        _ => Err(DropReason::NotForUs),
    }
}

fn peer(tunnels: &Tunnels, source: Ipv4Addr) -> Result<&Peer, DropReason> {
    tunnels.peer_at(source).map(|(_, peer)| peer).ok_or(DropReason::UnknownPeer)
}

/// The congestion mark that the inner packet gets, if it changes. `Err` if the outer one must not
/// be lost and the inner packet cannot carry it.
pub(crate) fn congestion(arrival: &Arrival<'_>, headers: &Headers) -> Result<Option<Ecn>, Verdict> {
    let (Some(outer), Net::Ip(ip)) = (arrival.outer_ecn, &headers.net) else { return Ok(None) };
    match Ecn::decapsulated(ip.ecn, outer) {
        Some(ecn) if ecn == ip.ecn => Ok(None),
        Some(ecn) => Ok(Some(ecn)),
        None => Err(Verdict::Drop(DropReason::EcnNotCapable)),
    }
}

/// Whether the origin may send from this address, which no one else is to claim.
pub(crate) fn may_send_from(
    tables: &Tables,
    arrival: &Arrival<'_>,
    source: IpAddr,
) -> Result<(), DropReason> {
    match arrival.origin {
        Origin::Host => Ok(()),
        Origin::Pod if arrival.port.addresses.contains(&source) => Ok(()),
        Origin::Pod => Err(DropReason::SourceAddressSpoofed),
        Origin::Peer { peer, .. } if peer.has(source) => Ok(()),
        Origin::Peer { .. } => Err(DropReason::InnerSourceForeign),
        // Any host of the underlay may talk to pods that it routes to, but neither in our pods' name
        // nor in that of pods whose packets come through a tunnel from a known peer.
        Origin::Direct if tables.is_local(source) || is_tunnelled(tables, source) => {
            Err(DropReason::SourceAddressSpoofed)
        }
        Origin::Direct => Ok(()),
    }
}

fn is_tunnelled(tables: &Tables, address: IpAddr) -> bool {
    let adjacency = tables.route(address).and_then(|id| tables.adjacency(id));
    matches!(adjacency, Some(Adjacency::Remote { template: Some(template), .. })
        if template.encap() != Encap::None)
}
