//! Door 3: does the packet stay on its segment.
//!
//! Enters: an [`Arrival`] with its [`Headers`]. Leaves: a verdict, or the packet goes on to
//! `route`. Who is asked depends on the port: a routed one has no segment, so everything but ARP
//! and neighbour discovery must be addressed to the gateway; a bridged one is switched by MAC.
//!
//! Learning is only proposed here ([`Source`]) and done by `process`, so that `trace` leaves no
//! mark.

use super::decap::{Arrival, Origin};
use super::parse::{Headers, Net};
use super::{Source, View};
use crate::tables::{Attachment, Bridge, BridgeId, Domain, FdbTarget, Gateway};
use crate::trace::Narrator;
use crate::verdict::{DropReason, IcmpError, Verdict};
use crate::walk::{claims, reply, route};

/// How the walk goes on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Done(Verdict),
    Route,
}

/// What this door found.
pub(crate) struct Bridged {
    pub(crate) learn: Option<Source>,
    pub(crate) step: Result<Step, Verdict>,
}

pub(crate) fn bridge(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
    narrator: &mut impl Narrator,
) -> Bridged {
    let segment = match (arrival.origin, arrival.port.attachment) {
        (Origin::Peer { domain: Domain::Bridged(bridge), .. }, _) => Some(bridge),
        (Origin::Pod, Attachment::Bridged(bridge)) => Some(bridge),
        _ => None,
    };
    let bridged = match segment.and_then(|id| Some((id, view.tables.bridge(id)?))) {
        Some((id, bridge)) => switched(view, arrival, id, bridge, bytes, headers),
        None => Bridged { learn: None, step: routed_only(view, arrival, bytes, headers) },
    };
    narrator.say("bridge", || {
        let place =
            segment.map_or("a routed port".to_owned(), |id| format!("bridge domain {}", id.0));
        match bridged.step {
            Ok(Step::Route) => format!("{place}: for the gateway, goes to route"),
            Ok(Step::Done(_)) => format!("{place}: stays here"),
            Err(_) => format!("{place}: ends here"),
        }
    });
    bridged
}

/// A port without a segment: a routed pod, the host, the routed overlay, direct routing.
fn routed_only(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
) -> Result<Step, Verdict> {
    if !arrival.ethernet {
        return Ok(Step::Route);
    }
    source_is_valid(headers)?;
    let local = match arrival.origin {
        Origin::Pod if headers.source_mac != arrival.port.mac => {
            return Err(Verdict::Drop(DropReason::SourceMacSpoofed));
        }
        Origin::Pod | Origin::Host => Gateway::MAC,
        Origin::Direct => arrival.port.mac,
        Origin::Peer { .. } => view.tables.tunnels.vtep_mac,
    };
    if arrival.is_remote() {
        return if headers.destination_mac == local {
            Ok(Step::Route)
        } else {
            Err(Verdict::Drop(DropReason::DestinationMacForeign))
        };
    }
    if let Some(answer) =
        reply::resolution(view.tables, arrival, bytes, headers, reply::For::Anyone)
    {
        return answer.map(Step::Done).map_err(Verdict::Drop);
    }
    if headers.destination_mac == local {
        Ok(Step::Route)
    } else if !headers.destination_mac.is_multicast() {
        Err(Verdict::Drop(DropReason::DestinationMacForeign))
    } else if matches!(headers.net, Net::Ip(_)) {
        Err(Verdict::Drop(DropReason::MulticastUnrouted))
    } else {
        Err(Verdict::Drop(DropReason::EthertypeUnsupported))
    }
}

/// A member of a learning segment.
fn switched(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    id: BridgeId,
    bridge: &Bridge,
    bytes: &[u8],
    headers: &Headers,
) -> Bridged {
    let here = match arrival.origin {
        Origin::Peer { vtep: Some(vtep), .. } => FdbTarget::Vtep(vtep),
        _ => FdbTarget::Port(arrival.ingress),
    };
    let (source, destination) = (headers.source_mac, headers.destination_mac);
    let known = bridge.fdb.get(&source);
    let spoofed = source == Gateway::MAC || known.is_some_and(|target| *target != here);
    let checked = match source_is_valid(headers) {
        Ok(()) if spoofed => Err(Verdict::Drop(DropReason::SourceMacSpoofed)),
        Ok(()) if matches!(arrival.origin, Origin::Pod) => claims::claims(arrival, bytes, headers),
        checked => checked,
    };
    if let Err(early) = checked {
        return Bridged { learn: None, step: Err(early) };
    }
    let learn = known.is_none().then_some(Source { bridge: id, mac: source, target: here });

    let step = if matches!(arrival.origin, Origin::Pod)
        && let Some(answer) =
            reply::resolution(view.tables, arrival, bytes, headers, reply::For::Gateway)
    {
        answer.map(Step::Done).map_err(Verdict::Drop)
    } else if destination == Gateway::MAC {
        if matches!(arrival.origin, Origin::Pod) {
            Ok(Step::Route)
        } else {
            Err(Verdict::Drop(DropReason::DestinationMacForeign))
        }
    } else {
        by_mac(view, arrival, id, bridge, here, bytes, headers)
    };
    Bridged { learn, step }
}

fn by_mac(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    id: BridgeId,
    bridge: &Bridge,
    here: FdbTarget,
    bytes: &[u8],
    headers: &Headers,
) -> Result<Step, Verdict> {
    let destination = headers.destination_mac;
    let target = if destination.is_multicast() {
        None
    } else {
        bridge.fdb.get(&destination).copied().or_else(|| view.fdb.lookup(id, destination, view.now))
    };
    let from_overlay = matches!(here, FdbTarget::Vtep(_));
    match target {
        Some(target) if target == here => Err(Verdict::Drop(DropReason::SamePort)),
        Some(FdbTarget::Port(port)) => Ok(Step::Done(Verdict::Forward { port })),
        Some(FdbTarget::Vtep(_)) if from_overlay => Err(Verdict::Drop(DropReason::SplitHorizon)),
        Some(FdbTarget::Vtep(vtep)) => match bridge.vtep(vtep).map(|vtep| vtep.mtu) {
            Some(mtu) if headers.piece_len > usize::from(mtu) => {
                Err(too_big(view, arrival, bytes, headers, mtu))
            }
            _ => Ok(Step::Done(Verdict::Tunnel { bridge: id, vtep })),
        },
        None => {
            let others = bridge.members.iter().any(|member| *member != arrival.ingress);
            if others || (!from_overlay && !bridge.vteps.is_empty()) {
                Ok(Step::Done(Verdict::Flood { bridge: id }))
            } else {
                Err(Verdict::Drop(DropReason::FloodNowhere))
            }
        }
    }
}

/// A segment promises its members one MTU, but the overlay under it carries less than they may
/// send: without a word from us this would be a black hole.
fn too_big(
    view: &View<'_>,
    arrival: &Arrival<'_>,
    bytes: &[u8],
    headers: &Headers,
    mtu: u16,
) -> Verdict {
    let Net::Ip(ip) = &headers.net else { return Verdict::Drop(DropReason::TooBig) };
    let (transport, error) = (headers.transport(bytes, ip), IcmpError::TooBig { mtu });
    route::refuse(view.tables, arrival, transport, ip, DropReason::TooBig, error)
}

/// A group address never sends (IEEE 802.3, 3.2.3); zero is nobody's.
fn source_is_valid(headers: &Headers) -> Result<(), Verdict> {
    if headers.source_mac.is_multicast() || headers.source_mac.is_zero() {
        return Err(Verdict::Drop(DropReason::SourceMacInvalid));
    }
    Ok(())
}
