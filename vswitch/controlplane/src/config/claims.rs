//! What is taken already, and whether a peer may have what it claims.
//!
//! Enters: this node's addresses and prefixes, then one peer after the other, of any source: the
//! file, a request, the cluster's API server. Leaves: what is wrong with a peer beside those. This
//! is the only judge, and it does not know which source asks. Each question costs a few look-ups however
//! many peers there are.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use api::{Encapsulate, Encapsulation, PeerSpec, overlap};
use dataplane::tables::LocalAddresses;
use ipnet::IpNet;

use super::Config;
use super::values::{
    check_far_end, check_name, check_prefix, check_underlay, contradiction, is_unicast_mac,
};

/// More than any node has. A tunnel packet's inner source is compared with each of them.
const MAX_PREFIXES: usize = 256;

/// Owner of this node's prefixes, in messages.
pub(crate) const THIS_NODE: &str = "this node";

/// What `overlay` has for peers without settings of their own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usual {
    encapsulation: Encapsulation,
    encapsulate: Encapsulate,
}

impl Usual {
    /// The settings of this configuration.
    pub(crate) fn of(config: &Config) -> Self {
        let overlay = &config.overlay;
        Self { encapsulation: overlay.encapsulation, encapsulate: overlay.encapsulate }
    }

    /// Whether IPIP is, or may become, the way to a peer.
    fn is_ipip(usual: Option<Self>, peer: &PeerSpec) -> bool {
        let encapsulation = peer.encapsulation.or(usual.map(|usual| usual.encapsulation));
        let encapsulate = peer.encapsulate.or(usual.map(|usual| usual.encapsulate));
        encapsulation == Some(Encapsulation::Ipip) && encapsulate != Some(Encapsulate::Never)
    }
}

/// What this node and the peers that were taken have.
pub(crate) struct Claims<'a> {
    cluster: &'a [IpNet],
    own: LocalAddresses,
    /// The node has no other underlay addresses than these.
    own_is_complete: bool,
    /// How peers without settings of their own are reached, if it is known.
    usual: Option<Usual>,
    names: HashSet<&'a str>,
    addresses: HashMap<IpAddr, &'a str>,
    /// Prefixes and their owners, by first address. None overlaps another: whatever overlaps a prefix is
    /// its neighbour in this order.
    prefixes: BTreeMap<IpAddr, (IpNet, &'a str)>,
}

impl<'a> Claims<'a> {
    /// A node of this cluster, with these underlay addresses as far as they are known.
    pub(crate) fn new(cluster: &'a [IpNet], own: LocalAddresses, usual: Option<Usual>) -> Self {
        Self {
            cluster,
            own,
            own_is_complete: false,
            usual,
            names: HashSet::new(),
            addresses: HashMap::new(),
            prefixes: BTreeMap::new(),
        }
    }

    /// The node has no other underlay addresses than those that it is known by.
    pub(crate) fn with_all_addresses(mut self) -> Self {
        self.own_is_complete = true;
        self
    }

    /// The node that a configuration describes, as far as it does.
    pub(super) fn of_node(config: &'a Config) -> Self {
        let mut claims = Self::new(
            &config.node.cluster_prefixes,
            config.own_addresses(),
            Some(Usual::of(config)),
        );
        for prefix in &config.node.pod_prefixes {
            claims.take_prefix(*prefix, THIS_NODE);
        }
        claims
    }

    /// Notes a prefix, unless a part of it is taken.
    pub(crate) fn take_prefix(&mut self, prefix: IpNet, whose: &'a str) {
        if self.overlapping(&prefix).is_none() {
            self.prefixes.insert(prefix.network(), (prefix, whose));
        }
    }

    /// Notes what a peer has.
    pub(crate) fn take(&mut self, peer: &'a PeerSpec) {
        self.take_with(peer, &peer.prefixes);
    }

    /// Notes what a peer has, of its prefixes these alone.
    pub(crate) fn take_with(&mut self, peer: &'a PeerSpec, prefixes: &[IpNet]) {
        self.names.insert(&peer.name);
        self.addresses.entry(peer.address).or_insert(&peer.name);
        for prefix in prefixes {
            self.take_prefix(*prefix, &peer.name);
        }
    }

    /// Notes what all of these have, if nothing of it is another's or this node's. Nothing is noted, and false
    /// returned, if something is: then each is to be judged by itself. To sort a million prefixes takes a
    /// fraction of the time that as many look-ups do.
    pub(crate) fn take_all(&mut self, peers: &[&'a PeerSpec]) -> bool {
        let Some(prefixes) = self.with_all(peers) else { return false };
        self.prefixes = prefixes.into_iter().map(|held| (held.0.network(), held)).collect();
        self.names.extend(peers.iter().map(|peer| peer.name.as_str()));
        self.addresses.extend(peers.iter().map(|peer| (peer.address, peer.name.as_str())));
        true
    }

    /// Whether `take_all` would note these.
    pub(crate) fn have_room_for(&self, peers: &[&'a PeerSpec]) -> bool {
        self.with_all(peers).is_some()
    }

    /// The prefixes with those of all these peers, by first address; none if any two claim the same.
    fn with_all(&self, peers: &[&'a PeerSpec]) -> Option<Vec<(IpNet, &'a str)>> {
        let names: HashSet<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
        let addresses: HashSet<IpAddr> = peers.iter().map(|peer| peer.address).collect();
        let are_unique = names.len() == peers.len()
            && addresses.len() == peers.len()
            && names.is_disjoint(&self.names)
            && !addresses.iter().any(|address| self.addresses.contains_key(address));
        if !are_unique {
            return None;
        }
        // A peer's prefixes often follow one another: then all are nearly in order by now.
        let mut peers = peers.to_vec();
        peers.sort_by_cached_key(|peer| peer.prefixes.first().map(IpNet::network));
        let of_peer = |peer: &&'a PeerSpec| {
            let name = peer.name.as_str();
            peer.prefixes.iter().map(move |prefix| (*prefix, name))
        };
        let count = peers.iter().map(|peer| peer.prefixes.len()).sum::<usize>();
        let mut all = Vec::with_capacity(self.prefixes.len() + count);
        all.extend(self.prefixes.values().copied());
        all.extend(peers.iter().flat_map(of_peer));
        all.sort_by_key(|(prefix, _)| prefix.network());
        are_disjoint(all.iter().map(|(prefix, _)| prefix)).then_some(all)
    }

    /// Forgets what a peer has.
    pub(crate) fn release(&mut self, peer: &PeerSpec) {
        self.names.remove(peer.name.as_str());
        let address = peer.address;
        if self.addresses.get(&address).is_some_and(|whose| *whose == peer.name) {
            self.addresses.remove(&address);
        }
        for prefix in &peer.prefixes {
            let held = self.prefixes.get(&prefix.network());
            if held.is_some_and(|held| *held == (*prefix, peer.name.as_str())) {
                self.prefixes.remove(&prefix.network());
            }
        }
    }

    /// Whether a peer of this name was taken.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The owner of this very prefix.
    pub(crate) fn owner(&self, prefix: &IpNet) -> Option<&'a str> {
        let (held, whose) = self.prefixes.get(&prefix.network())?;
        (held == prefix).then_some(*whose)
    }

    /// Everything that is wrong with a peer: field and message.
    pub(crate) fn judge(&self, peer: &PeerSpec) -> Vec<(&'static str, String)> {
        let mut problems = self.judge_alone(peer);
        if self.has_name(&peer.name) {
            let message = format!("another peer has the name \"{}\" already", peer.name);
            problems.push(("name", message));
        }
        if let Some(other) = self.addresses.get(&peer.address) {
            let message = format!("peer \"{other}\" has {} already", peer.address);
            problems.push(("address", message));
        }
        if peer.prefixes.len() <= MAX_PREFIXES {
            problems.extend(self.judge_beside(&peer.prefixes).map(|message| ("prefixes", message)));
        }
        problems
    }

    /// What of these prefixes is taken, and which overlap.
    fn judge_beside(&self, prefixes: &[IpNet]) -> impl Iterator<Item = String> {
        let taken = prefixes.iter().filter_map(|prefix| self.judge_free(prefix).err());
        taken.chain(overlaps(prefixes))
    }

    /// Everything that is wrong with a peer whatever others have: field and message.
    pub(crate) fn judge_alone(&self, peer: &PeerSpec) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut refuse = |field, message: String| problems.push((field, message));
        if let Err(message) = check_name(&peer.name) {
            refuse("name", message);
        }
        let address = peer.address;
        if let Err(message) = check_underlay(peer.address, self.cluster) {
            refuse("address", message);
        } else if (self.own_is_complete || self.own.has(address))
            && let Err(message) = check_far_end(self.own, address)
        {
            refuse("address", message);
        }
        if let Some(message) = contradiction(self.usual.map(|usual| usual.encapsulation), peer) {
            refuse("encapsulate", message);
        }
        if address.is_ipv6() && Usual::is_ipip(self.usual, peer) {
            let message = "IPIP runs over IPv4 alone; reach this peer by \"vxlan\" or \"direct\", or by an IPv4 address";
            refuse("address", message.into());
        }
        if peer.vtep_mac.is_some_and(|mac| !is_unicast_mac(mac)) {
            refuse("vtep_mac", "a group or zero address cannot be a VTEP's MAC".into());
        }
        if peer.prefixes.is_empty() {
            refuse("prefixes", "a peer needs at least one prefix, that of its pods".into());
        }
        if peer.prefixes.len() > MAX_PREFIXES {
            refuse("prefixes", format!("a peer has at most {MAX_PREFIXES} prefixes"));
            return problems;
        }
        for prefix in &peer.prefixes {
            if let Err(message) = self.judge_kind(prefix) {
                refuse("prefixes", message);
            }
        }
        problems
    }

    /// Whether a new owner may have a prefix.
    ///
    /// # Errors
    /// What stands against it.
    pub(crate) fn judge_prefix(&self, prefix: &IpNet) -> Result<(), String> {
        self.judge_kind(prefix)?;
        self.judge_free(prefix)
    }

    /// Whether any pods may have such a prefix.
    fn judge_kind(&self, prefix: &IpNet) -> Result<(), String> {
        check_prefix(prefix)?;
        if !self.cluster.iter().any(|cluster| cluster.contains(prefix)) {
            return Err(format!(
                "{prefix} is not within any of node.cluster_prefixes; add it or one that contains it there"
            ));
        }
        Ok(())
    }

    /// Whether nobody has a part of it.
    fn judge_free(&self, prefix: &IpNet) -> Result<(), String> {
        match self.overlapping(prefix) {
            Some((other, whose)) => Err(format!("{prefix} overlaps {other} of {whose}")),
            None => Ok(()),
        }
    }

    /// A prefix that has addresses in common with this one.
    fn overlapping(&self, prefix: &IpNet) -> Option<(IpNet, &'a str)> {
        // `IpAddr` sorts all of IPv4 before all of IPv6, as does a range of one family.
        let last_before = self.prefixes.range(..=prefix.broadcast()).next_back();
        let (_, (other, whose)) = last_before?;
        overlap(other, prefix).then_some((*other, *whose))
    }
}

/// Whether none overlaps another, of prefixes by their first addresses. Whatever lies within a prefix comes
/// right behind it, or behind another that does.
fn are_disjoint<'p>(sorted: impl Iterator<Item = &'p IpNet> + Clone) -> bool {
    let next = sorted.clone().skip(1);
    sorted.zip(next).all(|(prefix, next)| prefix.broadcast() < next.network())
}

/// Which of a peer's own prefixes overlap, as sentences.
fn overlaps(prefixes: &[IpNet]) -> Vec<String> {
    let mut sorted: Vec<&IpNet> = prefixes.iter().collect();
    sorted.sort_unstable_by_key(|prefix| prefix.network());
    if are_disjoint(sorted.iter().copied()) {
        return Vec::new();
    }
    let earlier = |(index, prefix)| {
        prefixes
            .iter()
            .take(index)
            .filter(move |earlier| overlap(earlier, prefix))
            .map(move |earlier| format!("{prefix} overlaps {earlier} of the same peer"))
    };
    prefixes.iter().enumerate().flat_map(earlier).collect()
}
