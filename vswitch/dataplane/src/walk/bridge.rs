//! Door 3: whether the packet stays on its segment.
//!
//! Enters: an [`Arrival`] with its [`Headers`]. Leaves: a verdict, or the packet goes on to
//! `route`. It depends on the port: a routed one has no segment, so everything but ARP
//! and neighbour discovery must be addressed to the gateway; a bridged one is switched by MAC.
//!
//! MACs are learned of VTEPs alone: those of pods are known from the start. Learning is only proposed
//! here ([`LearnMac`]) and done by `process`, so that `trace` leaves no mark.

use super::arrival::{Arrival, ArrivedFrom};
use super::narrator::{AfterBridge, Narrator, TraceEvent};
use super::parse::{Headers, Net};
use super::{Decision, LearnMac, View};
use crate::tables::{Attachment, Bridge, BridgeId, Domain, FdbTarget, Gateway, VtepId};
use crate::verdict::{DropReason, IcmpError, Verdict};
use crate::walk::resolve::{self, ResolveScope};
use crate::walk::{guard, route, source};

/// How the walk goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// The walk is over: the verdict is written.
    Done,
    Route,
}

/// Writes the verdict, or proposes to learn, in `decision`.
#[inline(always)]
pub(crate) fn bridge(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    decision: &mut Decision,
    narrator: &mut impl Narrator,
) -> Result<Step, DropReason> {
    let segment = match (arrival.from, arrival.port.attachment) {
        (ArrivedFrom::Peer { domain: Domain::Bridged(bridge), .. }, _) => Some(bridge),
        (ArrivedFrom::Pod, Attachment::Bridged(bridge)) => Some(bridge),
        _ => None,
    };
    let step = match segment.and_then(|id| Some((id, view.tables.bridge(id)?))) {
        Some((id, bridge)) => switched(view, arrival, id, bridge, bytes, decision),
        None => routed_only(view, arrival, bytes, decision),
    };
    narrator.event(|| {
        let next = match step {
            Ok(Step::Route) => AfterBridge::Route,
            Ok(Step::Done) => AfterBridge::Stays,
            Err(_) => AfterBridge::Dropped,
        };
        TraceEvent::Bridged { segment, next }
    });
    step
}

/// A port without a segment: a routed pod, the host, the routed overlay, direct routing.
#[inline(always)]
fn routed_only(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    decision: &mut Decision,
) -> Result<Step, DropReason> {
    if !arrival.ethernet {
        return Ok(Step::Route);
    }
    let headers = &decision.headers;
    match arrival.from {
        ArrivedFrom::Pod => source::has_own_mac(arrival.port, headers)?,
        _ => source::has_valid_mac(headers)?,
    }
    let local = match arrival.from {
        ArrivedFrom::Pod | ArrivedFrom::Host => Gateway::MAC,
        ArrivedFrom::Direct => arrival.port.mac,
        ArrivedFrom::Peer { peer, .. } => view.tables.tunnels.vtep_mac_for(peer.address),
    };
    if arrival.is_remote() {
        if view.tables.tunnels.proxy_neighbors
            && matches!(arrival.from, ArrivedFrom::Direct)
            && let Some(answer) =
                resolve::resolution(view.tables, arrival, bytes, headers, ResolveScope::Proxy)
        {
            decision.verdict = Verdict::Answer(answer?);
            return Ok(Step::Done);
        }
        return if headers.destination_mac == local {
            Ok(Step::Route)
        } else {
            Err(DropReason::DestinationMacForeign)
        };
    }
    if let Some(answer) =
        resolve::resolution(view.tables, arrival, bytes, headers, ResolveScope::Proxy)
    {
        decision.verdict = Verdict::Answer(answer?);
        return Ok(Step::Done);
    }
    if headers.destination_mac == local {
        Ok(Step::Route)
    } else if !headers.destination_mac.is_multicast() {
        Err(DropReason::DestinationMacForeign)
    } else if matches!(headers.net, Net::Ip(_)) {
        Err(DropReason::MulticastUnrouted)
    } else {
        Err(DropReason::EthertypeUnsupported)
    }
}

/// A member of a segment.
#[inline(always)]
fn switched(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    id: BridgeId,
    bridge: &Bridge,
    bytes: &[u8],
    decision: &mut Decision,
) -> Result<Step, DropReason> {
    let headers = &decision.headers;
    let is_for_gateway = headers.destination_mac == Gateway::MAC;
    if let ArrivedFrom::Peer { vtep: Some(vtep), .. } = arrival.from {
        source::is_not_this_node(view.tables, headers)?;
        decision.effects.learn = from_vtep(vtep, (id, bridge), headers)?;
        if let Net::Ip(ip) = &headers.net {
            guard::remote(bytes, headers, ip)?;
        }
        if is_for_gateway {
            return Err(DropReason::DestinationMacForeign);
        }
        return by_mac(view, arrival, FdbTarget::Vtep(vtep), (id, bridge), decision);
    }
    source::has_own_mac(arrival.port, headers)?;
    source::bridged_pod(&view.tables.tunnels, arrival, bytes, headers)?;
    if let Some(answer) =
        resolve::resolution(view.tables, arrival, bytes, headers, ResolveScope::Segment)
    {
        decision.verdict = Verdict::Answer(answer?);
        Ok(Step::Done)
    } else if is_for_gateway {
        Ok(Step::Route)
    } else {
        by_mac(view, arrival, FdbTarget::Port(arrival.ingress), (id, bridge), decision)
    }
}

/// What is to be learned of a frame from another end of the segment: nothing, if its MAC was put
/// there by hand. A node cannot claim the MAC of a pod of ours, nor the gateway's.
#[inline(always)]
fn from_vtep(
    vtep: VtepId,
    (id, bridge): (BridgeId, &Bridge),
    headers: &Headers,
) -> Result<Option<LearnMac>, DropReason> {
    source::has_valid_mac(headers)?;
    let mac = headers.source_mac;
    match bridge.fdb.get(&mac) {
        _ if mac == Gateway::MAC => Err(DropReason::SourceMacSpoofed),
        None => Ok(Some(LearnMac { bridge: id, mac, vtep })),
        Some(FdbTarget::Vtep(known)) if *known == vtep => Ok(None),
        Some(_) => Err(DropReason::SourceMacSpoofed),
    }
}

#[inline(always)]
fn by_mac(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    here: FdbTarget,
    (id, bridge): (BridgeId, &Bridge),
    decision: &mut Decision,
) -> Result<Step, DropReason> {
    let headers = &decision.headers;
    let destination = headers.destination_mac;
    let target = if destination.is_multicast() {
        if destination.is_reserved() {
            return Err(DropReason::DestinationMacReserved);
        }
        None
    } else {
        match bridge.fdb.get(&destination) {
            Some(target) => Some(*target),
            None => view.fdb.lookup(id, destination, view.now).map(FdbTarget::Vtep),
        }
    };
    let from_overlay = matches!(here, FdbTarget::Vtep(_));
    match target {
        Some(target) if target == here => return Err(DropReason::SamePort),
        Some(FdbTarget::Port(port)) => decision.verdict = Verdict::Forward { port },
        Some(FdbTarget::Vtep(_)) if from_overlay => return Err(DropReason::SplitHorizon),
        Some(FdbTarget::Vtep(vtep)) => match bridge.vtep(vtep).map(|vtep| vtep.mtu) {
            Some(mtu) if headers.piece_len > usize::from(mtu) => {
                decision.verdict = too_big(view, arrival, headers, mtu);
            }
            _ => decision.verdict = Verdict::Tunnel { bridge: id, vtep },
        },
        None => {
            let others = bridge.members.iter().any(|member| *member != arrival.ingress);
            // Every VTEP has served its own side.
            let (vteps, too_small) = match arrival.from {
                ArrivedFrom::Peer { .. } => (0, 0),
                _ => served(bridge, headers.piece_len),
            };
            if !others && (vteps, too_small) == (0, 0) {
                return Err(DropReason::FloodNowhere);
            }
            decision.verdict = Verdict::Flood { bridge: id, vteps, too_small };
        }
    }
    Ok(Step::Done)
}

/// The number of VTEPs that a packet of this length is flooded to, and of those it is too long for.
#[inline(never)]
fn served(bridge: &Bridge, len_bytes: usize) -> (u16, u16) {
    let vteps = bridge.vteps.carrying(len_bytes);
    (vteps, bridge.vteps.widest_first().len() as u16 - vteps)
}

/// A segment promises its members one MTU, but the overlay under it carries less than they may
/// send: without an ICMP error this would be a black hole.
#[cold]
fn too_big(view: &View<'_>, arrival: &Arrival<'_>, headers: &Headers, mtu: u16) -> Verdict {
    let Net::Ip(ip) = &headers.net else { return Verdict::Drop(DropReason::TooBig) };
    let error = IcmpError::TooBig { mtu };
    route::refuse(view.tables, arrival, ip, DropReason::TooBig, error)
}
