//! Peers and routes that each source names, and which of them are in force.
//!
//! Enters: the configuration, edits. Leaves: the peers and routes of the model, and what is hidden,
//! with the reason. The sources are taken in their order: the first one has the name, the
//! address, the prefix; a later one keeps what is left, and the rest of it waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{PeerSpec, RouteTarget, Source};
use ipnet::IpNet;

use super::{Edit, Model};
use crate::config::{Claims, Config, THIS_NODE};

/// Peers and routes that each source names.
#[derive(Debug, Clone, Default)]
pub struct SourceRib {
    /// Peers by source, then by name.
    pub peers: BTreeMap<Source, BTreeMap<String, Arc<PeerSpec>>>,
    /// Routes by source, then by destination.
    pub routes: BTreeMap<Source, BTreeMap<IpNet, RouteTarget>>,
}

/// Peers and routes that are named and not in force.
#[derive(Debug, Clone, Default)]
pub struct Hidden {
    /// Peers, with those of their prefixes that are not in force.
    pub peers: Vec<HiddenPeer>,
    /// Routes.
    pub routes: Vec<HiddenRoute>,
}

/// A peer that is not in force, or not with these prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenPeer {
    /// The peer as its source names it, with the prefixes that are not in force alone.
    pub peer: PeerSpec,
    /// The source that names it.
    pub source: Source,
    /// What stands against it.
    pub reason: String,
}

/// A route that is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenRoute {
    /// Destination.
    pub prefix: IpNet,
    /// Where it would lead.
    pub target: RouteTarget,
    /// The source that names it.
    pub source: Source,
    /// What stands against it.
    pub reason: String,
}

/// Peers that were named and not taken: the last form from each source, with what is wrong with it.
pub type Refused = BTreeMap<(Source, String), (PeerSpec, String)>;

impl SourceRib {
    /// Replaces what the configuration names.
    pub(super) fn take_config(&mut self, config: &Config) {
        let peers =
            config.peers.iter().map(|peer| (peer.name.clone(), Arc::new(peer.clone()))).collect();
        self.peers.insert(Source::Config, peers);
        let routes = config.routes.iter().map(|route| (route.prefix, route.target.clone()));
        self.routes.insert(Source::Config, routes.collect());
    }

    /// The routes that were added at run time.
    pub(super) fn runtime_routes(&mut self) -> &mut BTreeMap<IpNet, RouteTarget> {
        self.routes.entry(Source::Runtime).or_default()
    }

    /// The peer of this name, as this source has it.
    #[must_use]
    pub fn peer(&self, source: Source, name: &str) -> Option<&PeerSpec> {
        self.peers.get(&source)?.get(name).map(Arc::as_ref)
    }

    /// The route to this prefix, as this source has it.
    #[must_use]
    pub fn route(&self, source: Source, prefix: &IpNet) -> Option<&RouteTarget> {
        self.routes.get(&source)?.get(prefix)
    }

    /// The peers of a source.
    pub fn peers_of(&self, source: Source) -> impl Iterator<Item = &PeerSpec> {
        self.peers.get(&source).into_iter().flat_map(BTreeMap::values).map(Arc::as_ref)
    }

    /// The edits that make again what only the journal has.
    pub(super) fn edits(&self) -> impl Iterator<Item = Edit> + '_ {
        let peers = [Source::Runtime, Source::Kubernetes].into_iter().flat_map(|source| {
            self.peers_of(source).map(move |peer| Edit::Peer { peer: peer.clone(), source })
        });
        let routes = self.routes.get(&Source::Runtime).into_iter().flatten();
        peers.chain(
            routes.map(|(prefix, target)| Edit::Route { prefix: *prefix, target: target.clone() }),
        )
    }
}

impl Model {
    /// What this node itself has and no other may have.
    pub(super) fn claims(&self) -> Claims<'_> {
        let mut claims = Claims::new(&self.cluster_prefixes, self.own, self.usual);
        if self.own_is_complete {
            claims = claims.with_all_addresses();
        }
        for prefix in self.pods.all() {
            claims.take_prefix(*prefix, THIS_NODE);
        }
        claims
    }

    /// As `claims`, with the pods' addresses that are of no prefix of this node's. A newcomer must
    /// respect them; one that was there before they were given is not judged again.
    pub(super) fn claims_with_pods(&self) -> Claims<'_> {
        let mut claims = self.claims();
        for net in self.attachments.values().flat_map(|lease| &lease.addresses) {
            claims.take_prefix(IpNet::from(net.addr()), "a pod of this node");
        }
        claims
    }

    /// Makes what is in force of what the sources name.
    pub(super) fn resolve(&mut self) {
        let mut claims = self.claims();
        let mut peers: BTreeMap<String, (Arc<PeerSpec>, Source)> = BTreeMap::new();
        let mut hidden = Hidden::default();
        let mut sources =
            self.source_rib.peers.iter().filter(|(_, said)| !said.is_empty()).peekable();
        while let Some((source, said)) = sources.next() {
            let is_possible = |peer: &&PeerSpec| {
                !peers.contains_key(&peer.name) && claims.judge_alone(peer).is_empty()
            };
            let every: Vec<_> = said.values().map(Arc::as_ref).collect();
            // What the last source has is in no other's way.
            let is_last = sources.peek().is_none();
            if every.iter().all(is_possible)
                && if is_last { claims.have_room_for(&every) } else { claims.take_all(&every) }
            {
                let whole = said.iter().map(|(name, peer)| (name.clone(), (peer.clone(), *source)));
                peers.extend(whole);
                continue;
            }
            for (name, peer) in said {
                let (rest, lost) = match peers.get(name) {
                    Some((_, above)) => (None, Some(above_all(*above))),
                    None => what_is_left(&claims, peer),
                };
                if let Some(reason) = lost {
                    let mut lost = PeerSpec::clone(peer);
                    if let Some(rest) = &rest {
                        lost.prefixes.retain(|prefix| !rest.prefixes.contains(prefix));
                    }
                    hidden.peers.push(HiddenPeer { peer: lost, source: *source, reason });
                }
                if let Some(rest) = rest {
                    claims.take_with(peer, &rest.prefixes);
                    peers.insert(name.clone(), (Arc::new(rest), *source));
                }
            }
        }
        let mut routes: BTreeMap<IpNet, (RouteTarget, Source)> = BTreeMap::new();
        for (source, said) in &self.source_rib.routes {
            for (prefix, target) in said {
                let reason = match (target, routes.get(prefix)) {
                    (_, Some((_, above))) => Some(above_all(*above)),
                    (RouteTarget::Peer { name }, None) if !peers.contains_key(name) => {
                        Some(format!("there is no peer \"{name}\""))
                    }
                    _ => None,
                };
                match reason {
                    None => {
                        routes.insert(*prefix, (target.clone(), *source));
                    }
                    Some(reason) => hidden.routes.push(HiddenRoute {
                        prefix: *prefix,
                        target: target.clone(),
                        source: *source,
                        reason,
                    }),
                }
            }
        }
        (self.peers, self.routes, self.hidden) = (Arc::new(peers), Arc::new(routes), hidden);
        self.serve();
    }
}

fn above_all(source: Source) -> String {
    format!("{} says otherwise, and stands above", source.label())
}

/// A peer with what of it is still free, and why not with all.
fn what_is_left(claims: &Claims<'_>, peer: &PeerSpec) -> (Option<PeerSpec>, Option<String>) {
    let problems = claims.judge(peer);
    let Some((field, message)) = problems.first() else { return (Some(peer.clone()), None) };
    let reason = Some(format!("{field}: {message}"));
    if problems.iter().any(|(field, _)| *field != "prefixes") {
        return (None, reason);
    }
    let mut rest = peer.clone();
    rest.prefixes.retain(|prefix| claims.judge_prefix(prefix).is_ok());
    let is_usable = claims.judge(&rest).is_empty();
    (is_usable.then_some(rest), reason)
}
