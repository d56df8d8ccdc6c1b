//! Peers and routes, those in force and those that wait, with the source of each.

use std::collections::HashSet;
use std::net::IpAddr;

use api::{FibEntry, Mac, PeerEntry, PeerSpec, RouteTarget, Source, SourceStatus};
use ipnet::IpNet;

use crate::daemon::Daemon;
use controlplane::compile::Input;
use controlplane::compile::rib;
use controlplane::compile::route::{Exit, RibRoute, RouteOrigin, Target};

/// Refused peers that `status` names one by one.
const NAMED: usize = 5;

impl Daemon {
    /// By prefix; what forwards stands before what it hides.
    pub(super) fn show_fib(&self) -> Vec<FibEntry> {
        self.plane.with_input(|input| {
            let rib = rib::routes(input);
            let pod_mtu = self.plane.pod_mtu();
            let mut entries: Vec<_> = rib
                .routes
                .iter()
                .map(|route| self.fib_entry(input, route, pod_mtu, None))
                .collect();
            // What closes gaps twice is no source's statement.
            let stated = rib.hidden.iter().filter(|(route, _)| route.origin != RouteOrigin::Gap);
            entries.extend(stated.map(|(route, above)| {
                self.fib_entry(
                    input,
                    route,
                    pod_mtu,
                    Some(format!("{} stands above", above.label())),
                )
            }));
            let hidden = &input.model.hidden;
            entries.extend(hidden.routes.iter().map(|route| {
                let target = match &route.target {
                    RouteTarget::Peer { name } => format!("peer {name}"),
                    RouteTarget::Host => "host".into(),
                    RouteTarget::Blackhole => "blackhole".into(),
                    RouteTarget::Unreachable => "unreachable".into(),
                };
                waiting(route.prefix, target, route.source, &route.reason)
            }));
            for peer in &hidden.peers {
                let target = format!("peer {}", plain(&peer.peer.name));
                let entry =
                    |prefix: &IpNet| waiting(*prefix, target.clone(), peer.source, &peer.reason);
                entries.extend(peer.peer.prefixes.iter().map(entry));
            }
            entries.sort_by(|a, b| {
                (a.prefix, a.hidden.is_some()).cmp(&(b.prefix, b.hidden.is_some()))
            });
            entries
        })
    }

    fn fib_entry(
        &self,
        input: &Input<'_>,
        route: &RibRoute<'_>,
        pod_mtu: u32,
        hidden: Option<String>,
    ) -> FibEntry {
        let (target, mtu) = match &route.target {
            Target::Pod { attachment, lease, .. } => {
                (format!("pod {}", self.plane.port_name(attachment)), Some(lease.mtu))
            }
            Target::Gateway => ("gateway".into(), None),
            Target::Host => ("host".into(), input.host.map(|host| host.mtu)),
            Target::Peer(peer) => {
                let hop = input.next_hops.get(&peer.address);
                let decision = input.choose_encapsulation(peer);
                let encapsulation = words(decision.in_force);
                let via = match hop.and_then(|hop| hop.via) {
                    Some(via) => format!(" via {via}"),
                    None => " (unresolved)".into(),
                };
                let mtu = input.peer_mtu(peer);
                (format!("peer {} {encapsulation}{via}", peer.name), mtu)
            }
            Target::Direct(gateway) => {
                (direct(input, gateway), input.uplink.map(|uplink| uplink.mtu))
            }
            Target::Several(exits) => {
                let ways = exits.iter().map(|(exit, weight)| {
                    let to = match exit {
                        Exit::Peer(peer) => format!("peer {}", peer.name),
                        Exit::Direct(gateway) => direct(input, gateway),
                    };
                    format!("{to} weight {weight}")
                });
                (ways.collect::<Vec<_>>().join(", "), None)
            }
            Target::Neighbor { bridge, mac } => (format!("bridge {bridge} {mac}"), Some(pod_mtu)),
            Target::Service => ("service".into(), None),
            Target::Blackhole => ("blackhole".into(), None),
            Target::Unreachable => ("unreachable".into(), None),
        };
        let source = route.origin.label().into();
        FibEntry { prefix: route.prefix, target, source, mtu, hidden }
    }

    /// All peers by name; one in force stands before one that waits.
    pub(super) fn show_peers(&self) -> Vec<PeerEntry> {
        self.plane.with_input(|input| self.peer_entries(input))
    }

    fn peer_entries(&self, input: &Input<'_>) -> Vec<PeerEntry> {
        let has_end = |peer: &PeerSpec| {
            input.uplink.is_none_or(|uplink| uplink.addresses.towards(peer.address).is_some())
        };
        let entry = |peer: &PeerSpec, source: Source| {
            let hop = input.next_hops.get(&peer.address);
            let state = match hop {
                None if input.uplink.is_none() => "this node has no uplink".to_owned(),
                None => "not looked up yet".to_owned(),
                Some(_) if !has_end(peer) => {
                    "the uplink has no address yet to reach it from".to_owned()
                }
                Some(hop) => hop.problem.clone().unwrap_or_else(|| "ready".into()),
            };
            let decision = input.choose_encapsulation(peer);
            PeerEntry {
                spec: peer.clone(),
                in_force: decision.in_force,
                policy: decision.policy,
                reason: decision.reason.to_string(),
                source: source.label().into(),
                hidden: None,
                next_hop: hop.and_then(|hop| hop.via),
                next_hop_mac: hop.and_then(|hop| hop.mac).map(|mac| Mac(mac.0)),
                mtu: input.peer_mtu(peer).unwrap_or(0),
                state,
            }
        };
        let waiting = |peer: &PeerSpec, source: Source, state: &str, reason: &str| PeerEntry {
            // Names that were refused may hold anything, and end on a terminal.
            spec: PeerSpec { name: plain(&peer.name), ..peer.clone() },
            hidden: Some(reason.to_owned()),
            next_hop: None,
            next_hop_mac: None,
            state: state.to_owned(),
            ..entry(peer, source)
        };
        let told = self.plane.model().peers.values();
        let addresses: HashSet<_> = told.clone().map(|(peer, _)| peer.address).collect();
        let of_kernel = self.plane.model().kernel.peers.values();
        let of_kernel = of_kernel.filter(|peer| !addresses.contains(&peer.address));
        let in_force = told
            .map(|(peer, source)| entry(peer, *source))
            .chain(of_kernel.map(|peer| entry(peer, Source::Kernel)));
        let hidden = self.plane.model().hidden.peers.iter();
        let hidden =
            hidden.map(|hidden| waiting(&hidden.peer, hidden.source, "hidden", &hidden.reason));
        let refused = self
            .plane
            .model()
            .refused
            .iter()
            .map(|((source, _), (peer, reason))| waiting(peer, *source, "refused", reason));
        let mut entries: Vec<_> = in_force.chain(hidden).chain(refused).collect();
        // A stable sort: of one name, in this order.
        entries.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        entries
    }

    /// Counts of the peers and routes of each source.
    pub(super) fn source_status(&self) -> Vec<SourceStatus> {
        let model = self.plane.model();
        let of = |source| {
            let hidden_peers = model.hidden.peers.iter().filter(|peer| peer.source == source);
            let hidden_routes = model.hidden.routes.iter().filter(|route| route.source == source);
            SourceStatus {
                source,
                peers: model.peers.values().filter(|(_, of)| *of == source).count()
                    + of_kernel(source, model.kernel.peers.len()),
                routes: model.routes.values().filter(|(_, of)| *of == source).count()
                    + of_kernel(source, model.kernel.routes.len()),
                hidden: hidden_peers.count() + hidden_routes.count(),
                refused: model.refused.keys().filter(|(of, _)| *of == source).count(),
                refused_total: self.plane.refusals(source),
            }
        };
        [Source::Config, Source::Runtime, Source::Kernel, Source::Kubernetes]
            .map(of)
            .into_iter()
            .filter(|status| {
                let said = status.peers + status.routes + status.hidden + status.refused;
                said > 0 || status.refused_total > 0
            })
            .collect()
    }

    /// What needs the operator's attention.
    pub(super) fn attention(&self) -> Vec<String> {
        let known = self.warnings.iter().chain(self.plane.attention()).cloned();
        known.chain(self.source_warnings()).collect()
    }

    /// Sentences on the sources that need attention.
    fn source_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.plane.model().pods.current().is_empty() {
            warnings.push(
                "this node has no pod prefixes: pods cannot be added until vswitch-agent tells them, or node.pod_prefixes is configured"
                    .to_owned(),
            );
        }
        let refused = &self.plane.model().refused;
        let named = refused.iter().take(NAMED);
        warnings.extend(named.map(|((source, name), (_, reason))| {
            format!("peer {} of {} is refused: {reason}", plain(name), source.label())
        }));
        if refused.len() > NAMED {
            let more = refused.len() - NAMED;
            warnings.push(format!("{more} more peers are refused; see `vswitchctl show peers`"));
        }
        warnings
    }
}

fn waiting(prefix: IpNet, target: String, source: Source, reason: &str) -> FibEntry {
    let (source, hidden) = (source.label().to_owned(), Some(reason.to_owned()));
    FibEntry { prefix, target, source, mtu: None, hidden }
}

/// A name without what a terminal would obey.
fn plain(name: &str) -> String {
    name.escape_debug().to_string()
}

fn direct(input: &Input<'_>, gateway: &IpAddr) -> String {
    let is_resolved = input.next_hops.get(gateway).is_some_and(|hop| hop.mac.is_some());
    format!("direct via {gateway}{}", if is_resolved { "" } else { " (unresolved)" })
}

fn of_kernel(source: Source, count: usize) -> usize {
    if source == Source::Kernel { count } else { 0 }
}

fn words(encapsulation: api::Encapsulation) -> &'static str {
    match encapsulation {
        api::Encapsulation::Vxlan => "vxlan",
        api::Encapsulation::Ipip => "ipip",
        api::Encapsulation::Direct => "direct",
    }
}
