//! The sentences of a trace.
//!
//! Enters: what each door of the walk found, and how ports are called here. Leaves: one line a
//! door, and one for the verdict, as `vswitchctl trace` prints them.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use api::Door;
use dataplane::session::{Direction, Endpoint};
use dataplane::tables::{Adjacency, Encap, PortId, Template, VirtualPort, policy};
use dataplane::{
    AfterBridge, Decapsulation, DecidedBy, Network, PolicyEvent, SessionStanding, TraceEvent,
    Verdict,
};

/// One line for what a door found.
pub(super) fn door(event: &TraceEvent, name: &impl Fn(PortId) -> String) -> Door {
    let (door, said) = match event {
        TraceEvent::PathMtu(path) => {
            ("decap", format!("no more than {} bytes pass to {}", path.mtu, path.address))
        }
        TraceEvent::Decapsulated(by) => ("decap", decapsulated(by)),
        TraceEvent::Parsed { macs: Some((source, destination)), network } => {
            ("parse", format!("{source} > {destination}, {}", parsed(network)))
        }
        TraceEvent::Parsed { macs: None, network } => ("parse", parsed(network)),
        TraceEvent::Bridged { segment, next } => {
            let place =
                segment.map_or("a routed port".to_owned(), |id| format!("bridge domain {}", id.0));
            let next = match next {
                AfterBridge::Route => "for the gateway, goes to route",
                AfterBridge::Stays => "stays here",
                AfterBridge::Dropped => "ends here",
            };
            ("bridge", format!("{place}: {next}"))
        }
        TraceEvent::Balanced { service, backend, is_affine } => {
            let VirtualPort { address, protocol, port } = service;
            let backend = SocketAddr::new(backend.address, backend.port);
            let service = SocketAddr::new(*address, *port);
            let why = if *is_affine { ", which its client had last" } else { "" };
            (
                "session",
                format!("a flow to the service {service} {protocol} begins: to {backend}{why}"),
            )
        }
        TraceEvent::Session { direction, to } => {
            let from = match direction {
                Direction::FromOpener => "the client",
                Direction::FromResponder => "the backend",
            };
            let end = |end: Endpoint| SocketAddr::new(end.address, end.port);
            let (source, destination) = (end(to.source()), end(to.destination()));
            ("session", format!("of a service, from {from}: becomes {source} > {destination}"))
        }
        TraceEvent::ThroughTunnel(node) => {
            ("session", format!("the node {node} opened it through its tunnel: goes back there"))
        }
        TraceEvent::Policy(event) => ("policy", judged(event, name)),
        TraceEvent::NoRoute(destination) => ("route", format!("no route to {destination}")),
        TraceEvent::Route(adjacency) => ("route", leads(adjacency, name)),
        TraceEvent::Member { next_hop, adjacency } => {
            ("route", format!("this flow by {next_hop}: {}", leads(adjacency, name)))
        }
        TraceEvent::Fragments { mtu } => {
            ("route", format!("it may be cut: fragments of at most {mtu} bytes"))
        }
        TraceEvent::MssLimit { bytes } => {
            ("route", format!("a SYN: segments of at most {bytes} bytes"))
        }
        TraceEvent::Verdict(end) => ("verdict", verdict(end, name)),
        TraceEvent::Leaves { port, len } => {
            ("rewrite", format!("{len} bytes leave by {}", name(*port)))
        }
    };
    Door { door: door.into(), said }
}

/// What policies made of the packet.
fn judged(event: &PolicyEvent, name: &impl Fn(PortId) -> String) -> String {
    match event {
        PolicyEvent::OfSession { direction, standing } => {
            let from = match direction {
                Direction::FromOpener => "the end that opened it",
                Direction::FromResponder => "the end that answers",
            };
            let standing = match standing {
                SessionStanding::Current => "allowed by the present policies",
                SessionStanding::Stale => "not judged by the present policies yet",
                SessionStanding::Revoked => "not allowed any more",
            };
            format!("of a session, from {from}: {standing}")
        }
        PolicyEvent::MaybeAnswer => "without a session it may be an answer".to_owned(),
        PolicyEvent::Related => "an error about a packet of a session: allowed".to_owned(),
        PolicyEvent::Exempt { source } => {
            format!("from this node itself, by its address {source}: allowed")
        }
        PolicyEvent::Judged { subject, direction, allowed, by } => {
            let direction = match direction {
                policy::Direction::Ingress => "ingress",
                policy::Direction::Egress => "egress",
            };
            let verb = if *allowed { "allowed" } else { "denied" };
            let why = decided(by, *allowed);
            format!("{direction} of {} {verb}{why}", name(*subject))
        }
    }
}

/// What decided about a connection.
fn decided(by: &DecidedBy, allowed: bool) -> String {
    match by {
        DecidedBy::NoPolicy => ": no policy concerns it".to_owned(),
        DecidedBy::Rule { policy, index } => format!(" by {policy} rule {index}"),
        DecidedBy::Default { policies } => {
            let verb = if allowed { "denies" } else { "allows" };
            format!(": no rule of {} {verb} it", policies.join(", "))
        }
        DecidedBy::Pending => ": its policies are not known yet".to_owned(),
        DecidedBy::Closed => ": its policies cannot be compiled".to_owned(),
    }
}

/// The end of the walk, in one line.
pub(super) fn verdict(verdict: &Verdict, name: &impl Fn(PortId) -> String) -> String {
    match verdict {
        Verdict::Forward { port } => format!("forward to {}", name(*port)),
        Verdict::Tunnel { bridge, vtep } => {
            format!("tunnel to VTEP {} of bridge domain {}", vtep.0, bridge.0)
        }
        Verdict::Flood { bridge, vteps, too_small } => {
            let remote = match (vteps, too_small) {
                (0, 0) => String::new(),
                (vteps, 0) => format!(" and {vteps} VTEP(s)"),
                (vteps, small) => {
                    format!(" and {vteps} VTEP(s), not the {small} whose MTU is smaller")
                }
            };
            format!("flood bridge domain {}{remote}", bridge.0)
        }
        Verdict::Route { port, .. } => format!("route to {}", name(*port)),
        Verdict::Answer(answer) => format!("answered in place: {answer}"),
        Verdict::Refuse { reason, error, .. } => {
            format!("drop: {} The sender is told: {error}.", reason.explanation())
        }
        Verdict::Reset { reason } => {
            format!("drop: {} The sender is sent a TCP reset.", reason.explanation())
        }
        Verdict::Drop(reason) => format!("drop: {}", reason.explanation()),
    }
}

fn decapsulated(by: &Decapsulation) -> String {
    match by {
        Decapsulation::Direct => "no encapsulation: direct routing".to_owned(),
        Decapsulation::Ipip(peer) => format!("IPIP from peer {peer}"),
        Decapsulation::Vxlan(peer) => format!("VXLAN from peer {peer}, routed overlay"),
        Decapsulation::Vtep(peer, bridge) => {
            format!("VXLAN from VTEP {peer}, bridge domain {}", bridge.0)
        }
    }
}

fn parsed(network: &Network) -> String {
    match network {
        Network::Ip { source, destination, protocol, len, ttl } => {
            format!("{source} > {destination}, {protocol}, {len} bytes, ttl {ttl}")
        }
        Network::Arp => "ARP".to_owned(),
        Network::Other => "neither IP nor ARP".to_owned(),
        Network::Malformed(reason) => format!("malformed: {}", reason.explanation()),
    }
}

/// Where an adjacency leads.
fn leads(adjacency: &Adjacency, name: &impl Fn(PortId) -> String) -> String {
    match adjacency {
        Adjacency::Port { port, template, mtu } => {
            format!("{}, next hop {}, mtu {mtu}", name(*port), template.destination())
        }
        Adjacency::Bridged { bridge, template, mtu } => {
            format!("bridge domain {}, host {}, mtu {mtu}", bridge.0, template.destination())
        }
        Adjacency::Remote { port, template: Some(template), mtu } => {
            format!("another node by {}: {}, mtu {mtu}", name(*port), way(template))
        }
        Adjacency::Remote { port, template: None, .. } => {
            format!("another node by {}, whose next hop the kernel has not resolved", name(*port))
        }
        Adjacency::Gateway { .. } => "an address of this node's gateway".to_owned(),
        Adjacency::Multipath(group) => {
            let members = group.members().iter();
            let members: Vec<_> = members
                .map(|member| format!("{} weight {}", member.identity, member.weight))
                .collect();
            format!("one of {} next hops: {}", members.len(), members.join(", "))
        }
        Adjacency::Service => "the address of a service".to_owned(),
        Adjacency::Blackhole => "blackhole".to_owned(),
        Adjacency::Unreachable => "unreachable".to_owned(),
    }
}

/// The encapsulation, its other end, and the underlay's next hop.
fn way(template: &Template) -> String {
    let next_hop = template.destination();
    match (template.encap(), template.remote_end()) {
        (Encap::VxlanBridged | Encap::VxlanRouted, Some(remote)) => {
            format!("VXLAN to {remote}, next hop {next_hop}")
        }
        (Encap::Ipip, Some(remote)) => format!("IPIP to {remote}, next hop {next_hop}"),
        _ => format!("no encapsulation, next hop {next_hop}"),
    }
}
