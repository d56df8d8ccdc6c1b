//! Door 1, for the NIC alone: who sent this over the underlay, and where does the inner packet
//! begin.
//!
//! Enters: an Ethernet frame that the pinhole redirected. Leaves: an [`Arrival`] for `parse`; the
//! outer headers are stepped over, not removed. A tunnel packet carries no proof of origin
//! (CVE-2020-10136): only known peers are heard, and `route` holds the inner source against the
//! peer's prefixes.

use core::net::IpAddr;

use super::narrator::Narrator;
use super::parse::{Headers, Net};
use crate::tables::{Adjacency, Domain, Encap, Peer, Port, PortId, Tables, Tunnels, VtepId};
use crate::verdict::DropReason;
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
    #[inline(always)]
    pub(crate) fn plain(ingress: PortId, port: &'t Port, origin: Origin<'t>, len: usize) -> Self {
        Self { ingress, port, origin, start: 0, end: len, ethernet: true, outer_ecn: None }
    }

    /// It came by the NIC.
    #[inline(always)]
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.origin, Origin::Direct | Origin::Peer { .. })
    }
}

/// Makes of a whole frame that came by the NIC what it is: `arrival` is [`Origin::Direct`].
pub(crate) fn decap<'t>(
    tables: &'t Tables,
    bytes: &[u8],
    arrival: &mut Arrival<'t>,
    narrator: &mut impl Narrator,
) -> Result<(), DropReason> {
    outer(&tables.tunnels, tables, bytes, arrival)?;
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
    Ok(())
}

#[inline(always)]
fn outer<'t>(
    tunnels: &'t Tunnels,
    tables: &'t Tables,
    bytes: &[u8],
    arrival: &mut Arrival<'t>,
) -> Result<(), DropReason> {
    let Ok(ethernet) = Ethernet::parse(bytes) else { return Err(DropReason::FrameTooShort) };
    if ethernet.ethertype() == EtherType::IPV6 && tunnels.direct {
        return Ok(());
    }
    if ethernet.ethertype() != EtherType::IPV4 {
        return Err(DropReason::NotForUs);
    }
    let Ok(ip) = Ipv4::parse(ethernet.payload()) else { return Err(DropReason::OuterMalformed) };
    if tunnels.local.v4 != Some(ip.destination()) {
        return if tunnels.direct { Ok(()) } else { Err(DropReason::NotForUs) };
    }
    if !ip.checksum_ok() || ip.is_fragment() {
        return Err(DropReason::OuterMalformed);
    }
    arrival.outer_ecn = Some(ip.ecn());
    let l4 = ethernet::HEADER_LEN + ip.header_len();
    match ip.protocol() {
        Protocol::IPIP | Protocol::IPV6 if tunnels.ipip => {
            let peer = peer(tunnels, ip.source().into())?;
            arrival.origin = Origin::Peer { peer, domain: Domain::Routed, vtep: None };
            arrival.ethernet = false;
            arrival.start = l4;
            arrival.end = l4 + ip.payload().len();
        }
        Protocol::UDP => {
            let Ok(udp) = Udp::parse(ip.payload()) else { return Err(DropReason::OuterMalformed) };
            if !tunnels.takes_vxlan_on(udp.destination()) {
                return Err(DropReason::NotForUs);
            }
            let Ok(vxlan) = Vxlan::parse(udp.payload()) else {
                return Err(DropReason::OuterMalformed);
            };
            let domain = *tunnels.vnis.get(&vxlan.vni()).ok_or(DropReason::UnknownVni)?;
            let peer = peer(tunnels, ip.source().into())?;
            let vtep = match domain {
                Domain::Routed => None,
                Domain::Bridged(bridge) => Some(
                    tables
                        .bridge(bridge)
                        .and_then(|bridge| bridge.vtep_at(ip.source().into()))
                        .ok_or(DropReason::UnknownPeer)?,
                ),
            };
            arrival.origin = Origin::Peer { peer, domain, vtep };
            arrival.start = l4 + udp::HEADER_LEN + vxlan::HEADER_LEN;
            arrival.end = arrival.start + vxlan.payload().len();
        }
        _ => return Err(DropReason::NotForUs),
    }
    Ok(())
}

#[inline(always)]
fn peer(tunnels: &Tunnels, source: IpAddr) -> Result<&Peer, DropReason> {
    tunnels.peer_at(source).map(|(_, peer)| peer).ok_or(DropReason::UnknownPeer)
}

/// The congestion mark that the inner packet gets, if it changes. `Err` if the outer one must not
/// be lost and the inner packet cannot carry it.
#[inline(always)]
pub(crate) fn congestion(
    arrival: &Arrival<'_>,
    headers: &Headers,
) -> Result<Option<Ecn>, DropReason> {
    let (Some(outer), Net::Ip(ip)) = (arrival.outer_ecn, &headers.net) else { return Ok(None) };
    match Ecn::decapsulated(ip.ecn, outer) {
        Some(ecn) if ecn == ip.ecn => Ok(None),
        Some(ecn) => Ok(Some(ecn)),
        None => Err(DropReason::EcnNotCapable),
    }
}

/// Whether the origin may send from this address, which no one else is to claim.
#[inline(always)]
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
        // Any host of the underlay may talk to pods that it routes to, but not in our pods' name;
        // nor in that of pods whose packets come through a tunnel from a known peer, unless their
        // node may have left the tunnel.
        Origin::Direct
            if tables.is_local(source)
                || !tables.tunnels.direct_from_tunnelled && is_tunnelled(tables, source) =>
        {
            Err(DropReason::SourceAddressSpoofed)
        }
        Origin::Direct => Ok(()),
    }
}

fn is_tunnelled(tables: &Tables, address: IpAddr) -> bool {
    let tunnels = |adjacency: &Adjacency| {
        matches!(adjacency, Adjacency::Remote { template: Some(template), .. }
            if template.encap() != Encap::None)
    };
    match tables.route(address).and_then(|id| tables.adjacency(id)) {
        Some(Adjacency::Multipath(group)) => {
            let mut members = group.members().iter();
            members.any(|member| tables.adjacency(member.adjacency).is_some_and(tunnels))
        }
        adjacency => adjacency.is_some_and(tunnels),
    }
}
