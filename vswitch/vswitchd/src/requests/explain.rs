//! What decides about a connection that one end would open to another, for people.
//!
//! Enters: the names of both ends. Leaves: what each stage makes of the connection's first packet, which
//! `trace` walks through the live tables. What another node decides is not known here, and said so.
//!
//! | file | does |
//! |---|---|
//! | `names` | finds what is called so |
//! | `judge` | tells what judges each half of the connection, and how |

mod judge;
mod names;

use std::net::IpAddr;

use api::{
    BackendUse, ErrorKind, ErrorReply, Explain, Explained, ExplainedEnd, ExplainedRoute,
    ExplainedService, ServiceSpec, SessionEntry, TracePacket,
};
use controlplane::model::refuse;
use controlplane::ports::HOST;
use dataplane::session::Endpoint;
use dataplane::tables::policy::Direction;
use dataplane::tables::{Adjacency, Encap, PortId, Template};
use dataplane::wire::Protocol;
use dataplane::{Trace, TraceEvent, Verdict};

use super::refused;
use super::trace::dropped;
use crate::daemon::Daemon;
use judge::Half;

/// Sessions of one answer at most.
const SESSIONS_SHOWN: usize = 10;
/// The client's port of the packet that is walked: the first from here on by which the client has no session
/// with the destination.
const FIRST_SOURCE_PORT: u16 = 49_152;
/// Bytes of that packet: room for the headers of every protocol.
const LEN: u32 = 84;
const TTL: u8 = 64;

impl Daemon {
    pub(super) fn explain(&self, asked: &Explain) -> Result<Explained, ErrorReply> {
        let to = self.destination(&asked.destination, asked.protocol.as_deref())?;
        let from = self.source(&asked.source)?;
        let pairs = to.addresses.iter().filter_map(|destination| {
            let same = |source: &&IpAddr| source.is_ipv4() == destination.is_ipv4();
            Some((*from.addresses.iter().find(same)?, *destination))
        });
        let (source, destination) = pairs.into_iter().next().ok_or_else(|| {
            let message = format!(
                "{} and {} have no addresses of one IP version",
                asked.source, asked.destination
            );
            refuse(ErrorKind::Invalid, message)
        })?;
        let protocol = match (to.protocol, destination) {
            (Protocol::ICMP, IpAddr::V6(_)) => Protocol::ICMPV6,
            (protocol, _) => protocol,
        };
        let end = Endpoint { address: destination, port: to.port.unwrap_or(0) };
        let (sessions, session_count, source_port) = self.sessions_between(source, end, protocol);
        let ingress = self.comes_by(source);
        if ingress == HOST && self.plane.host().is_none() {
            let message = format!(
                "{source} is no pod of this node: its packets would come by the host port, and there is none"
            );
            return refused(ErrorKind::NotReady, message);
        }
        let packet = TracePacket {
            port: self.name_of(ingress),
            dst_mac: self.mac_on_segment(ingress, destination),
            src_mac: None,
            src: Some(source),
            dst: destination,
            protocol: word(protocol).to_owned(),
            src_port: source_port,
            dst_port: end.port,
            len: LEN,
            ttl: TTL,
            df: false,
        };
        let (_, trace) = self.walk(ingress, &packet)?;
        let chosen = trace.events.iter().find_map(|event| match event {
            TraceEvent::Balanced { backend, .. } => Some(*backend),
            _ => None,
        });
        let service = to.port.and_then(|_| self.service_at(end, protocol));
        let server = chosen.unwrap_or(end);
        let half = |direction, peer| Half { direction, peer, port: to.port.map(|_| server.port) };
        let egress = self.judge_of_source(
            &trace,
            ingress,
            source,
            half(Direction::Egress, server.address),
            protocol,
        );
        let is_served = service.is_none() || chosen.is_some();
        let ingress = is_served.then(|| {
            self.judge_of_target(&trace, server.address, half(Direction::Ingress, source), protocol)
        });
        let dropped = dropped(&trace.verdict);
        Ok(Explained {
            node: self.plane.config().node.name.clone(),
            source: ExplainedEnd { name: self.pod_with(source), address: source, port: None },
            destination: ExplainedEnd {
                name: self.pod_with(destination),
                address: destination,
                port: to.port,
            },
            protocol: word(protocol).to_owned(),
            service: service.map(|service| self.service_stage(service, destination, chosen)),
            egress,
            route: self.route_stage(&trace, server.address),
            ingress,
            sessions,
            session_count,
            allowed: dropped.is_none(),
            dropped: dropped.map(|reason| reason.label().to_owned()),
            explanation: dropped.map(|reason| reason.explanation().trim().to_owned()),
        })
    }

    fn service_stage(
        &self,
        service: &ServiceSpec,
        address: IpAddr,
        chosen: Option<Endpoint>,
    ) -> ExplainedService {
        let of_version =
            || service.backends.iter().filter(|one| one.address.is_ipv4() == address.is_ipv4());
        ExplainedService {
            name: service.name.clone(),
            usable: of_version().filter(|one| one.flows == BackendUse::All).count(),
            backends: of_version().count(),
            chosen: chosen.map(|backend| ExplainedEnd {
                name: self.pod_with(backend.address),
                address: backend.address,
                port: Some(backend.port),
            }),
        }
    }

    /// Where the walk's packet goes; `None` if it ended before.
    fn route_stage(&self, trace: &Trace, destination: IpAddr) -> Option<ExplainedRoute> {
        let plain = |to: String| ExplainedRoute { to, encapsulation: None, mtu: None };
        let last = trace.events.iter().rev().find_map(|event| match event {
            TraceEvent::NoRoute(_) => Some(plain("none".to_owned())),
            TraceEvent::Route(adjacency) | TraceEvent::Member { adjacency, .. } => {
                Some(self.leads(adjacency, destination))
            }
            _ => None,
        });
        last.or_else(|| match trace.verdict {
            Verdict::Forward { port } => Some(plain(self.place(port))),
            Verdict::Tunnel { .. } => Some(plain(self.node_with(None, destination))),
            Verdict::Flood { .. } => Some(plain("every member of the segment".to_owned())),
            _ => None,
        })
    }

    fn leads(&self, adjacency: &Adjacency, destination: IpAddr) -> ExplainedRoute {
        let route = |to: String, mtu| ExplainedRoute { to, encapsulation: None, mtu };
        match adjacency {
            Adjacency::Port { port, mtu, .. } => route(self.place(*port), Some(*mtu)),
            Adjacency::Bridged { mtu, .. } => {
                let pod = self.pod_with(destination);
                route(pod.unwrap_or_else(|| "the segment".to_owned()), Some(*mtu))
            }
            Adjacency::Remote { template: Some(template), mtu, .. } => {
                let encapsulation = Some(encapsulation(template).to_owned());
                let to = self.node_with(template.remote_end(), destination);
                ExplainedRoute { to, encapsulation, mtu: Some(*mtu) }
            }
            Adjacency::Remote { template: None, mtu, .. } => {
                let to = self.node_with(None, destination);
                route(format!("{to}, whose next hop the kernel has not resolved"), Some(*mtu))
            }
            Adjacency::Gateway { .. } => route("this node's gateway".to_owned(), None),
            Adjacency::Multipath(_) => route("one of several next hops".to_owned(), None),
            Adjacency::Service => route("a service without a port of this kind".to_owned(), None),
            Adjacency::Blackhole => route("blackhole".to_owned(), None),
            Adjacency::Unreachable => route("unreachable".to_owned(), None),
        }
    }

    /// A port of this node, in words.
    fn place(&self, port: PortId) -> String {
        let name = self.name_of(port);
        if port == HOST { format!("this node's kernel by {name}") } else { name }
    }

    /// The node at this end of a tunnel, or with the pod of this address.
    fn node_with(&self, end: Option<IpAddr>, destination: IpAddr) -> String {
        let mut peers = self.plane.model().peers.values().map(|(peer, _)| peer.as_ref());
        let by_end = peers.find(|peer| Some(peer.address) == end);
        let peer = by_end.or_else(|| self.peer_of(destination));
        peer.map(|peer| peer.name.clone())
            .or_else(|| end.map(|end| end.to_string()))
            .unwrap_or_else(|| "another node".to_owned())
    }

    /// Some of the sessions that a client has with a server, the number of all, and a port by which the
    /// client has none. A server's port of zero is any.
    fn sessions_between(
        &self,
        client: IpAddr,
        server: Endpoint,
        protocol: Protocol,
    ) -> (Vec<SessionEntry>, usize, u16) {
        let (mut shown, mut ports) = (Vec::new(), Vec::new());
        self.each_session(|session, entry| {
            let (from, to) = (session.client_side.source(), session.client_side.destination());
            let is_same =
                to.address == server.address && (server.port == 0 || to.port == server.port);
            if from.address == client && is_same && session.protocol() == protocol {
                ports.push(from.port);
                if shown.len() < SESSIONS_SHOWN {
                    shown.push(entry(session));
                }
            }
        });
        let count = ports.len();
        ports.sort_unstable();
        let is_free = |port: &u16| ports.binary_search(port).is_err();
        let free = (FIRST_SOURCE_PORT..=u16::MAX).find(is_free);
        (shown, count, free.unwrap_or(FIRST_SOURCE_PORT))
    }
}

/// The protocol as it is asked for.
fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::SCTP => "sctp",
        _ => "icmp",
    }
}

/// The protocol of a word; that of ICMP is the one of IPv4.
fn protocol(word: &str) -> Result<Protocol, ErrorReply> {
    match word {
        "tcp" => Ok(Protocol::TCP),
        "udp" => Ok(Protocol::UDP),
        "sctp" => Ok(Protocol::SCTP),
        "icmp" => Ok(Protocol::ICMP),
        _ => refused(
            ErrorKind::Invalid,
            format!("\"{word}\" is no protocol: tcp, udp, sctp or icmp"),
        ),
    }
}

fn encapsulation(template: &Template) -> &'static str {
    match template.encap() {
        Encap::VxlanBridged | Encap::VxlanRouted => "vxlan",
        Encap::Ipip => "ipip",
        _ => "none",
    }
}
