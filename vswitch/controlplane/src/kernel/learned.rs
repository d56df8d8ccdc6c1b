//! What the kernel's routes come to.
//!
//! Enters: what `judge` makes of each prefix. Leaves: where prefixes lead and which nodes are behind which
//! next hop, to `compile`, `show` and `status`. A change of one prefix costs as much whether there
//! are ten or a hundred thousand beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{Encapsulate, PeerSpec};
use ipnet::IpNet;

/// What the node has learned from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LearnedRoutes {
    /// Where each prefix leads.
    pub routes: BTreeMap<IpNet, Way>,
    /// The nodes that are reached through the overlay, by underlay address; named by that, as the
    /// kernel knows no name.
    pub peers: BTreeMap<IpAddr, PeerSpec>,
    /// Prefixes behind each router or node on the uplink's own link, ascending.
    pub direct: BTreeMap<IpAddr, Vec<IpNet>>,
    /// Routes that were not taken because they would do harm, with the reason.
    pub refused: BTreeMap<IpNet, String>,
    /// Routes that mean nothing here.
    pub ignored: BTreeSet<IpNet>,
    /// How many of `routes` have each prefix length: a hundred thousand have few.
    lengths: BTreeMap<u8, usize>,
}

/// Where a prefix leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// To these next hops, by weight.
    Hops(Vec<Hop>),
    /// To the kernel, which forwards by another interface.
    Host,
    /// Nowhere, silently.
    Blackhole,
    /// Nowhere, and the sender gets an ICMP error.
    Unreachable,
}

/// One next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// A neighbour on the uplink; or the underlay address of a node, if `overlay`.
    pub gateway: IpAddr,
    /// Its share among the others', at least 1.
    pub weight: u16,
    /// It is reached through the overlay.
    pub overlay: bool,
}

/// What becomes of one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It leads there.
    Take(Way),
    /// It means nothing here.
    Ignore,
    /// It would do harm: a sentence that names which.
    Refuse(String),
}

impl LearnedRoutes {
    /// Whether some routes lead to neighbours on the uplink that are no node's underlay address, and
    /// so packets come and go as they are.
    #[must_use]
    pub fn is_direct(&self, is_peer: impl Fn(&IpAddr) -> bool) -> bool {
        self.direct.keys().any(|gateway| !is_peer(gateway))
    }

    /// What is routed to an underlay address, and so may come from it.
    pub fn behind(&self, address: &IpAddr) -> impl Iterator<Item = IpNet> {
        let overlay = self.peers.get(address).map(|peer| &peer.prefixes);
        overlay.into_iter().chain(self.direct.get(address)).flatten().copied()
    }

    /// The prefix lengths that `routes` have.
    pub fn lengths(&self) -> impl Iterator<Item = u8> {
        self.lengths.keys().copied()
    }

    /// Takes over what becomes of a prefix; nothing, if there is no route for it any more. True if
    /// that is something else than before.
    pub fn set(&mut self, prefix: IpNet, judgement: Option<Judgement>) -> bool {
        if self.is(&prefix, judgement.as_ref()) {
            return false;
        }
        self.forget(&prefix);
        if let Some(judgement) = judgement {
            self.put(prefix, judgement);
        }
        true
    }

    /// Takes over what becomes of a prefix of which nothing is known yet.
    pub(super) fn put(&mut self, prefix: IpNet, judgement: Judgement) {
        match judgement {
            Judgement::Take(way) => {
                if let Way::Hops(hops) = &way {
                    hops.iter().for_each(|hop| insert(self.behind_hop(hop), prefix));
                }
                *self.lengths.entry(prefix.prefix_len()).or_default() += 1;
                self.routes.insert(prefix, way);
            }
            Judgement::Ignore => drop(self.ignored.insert(prefix)),
            Judgement::Refuse(reason) => drop(self.refused.insert(prefix, reason)),
        }
    }

    fn is(&self, prefix: &IpNet, judgement: Option<&Judgement>) -> bool {
        match judgement {
            Some(Judgement::Take(way)) => self.routes.get(prefix) == Some(way),
            Some(Judgement::Ignore) => self.ignored.contains(prefix),
            Some(Judgement::Refuse(reason)) => self.refused.get(prefix) == Some(reason),
            None => {
                !self.routes.contains_key(prefix)
                    && !self.ignored.contains(prefix)
                    && !self.refused.contains_key(prefix)
            }
        }
    }

    fn forget(&mut self, prefix: &IpNet) {
        self.ignored.remove(prefix);
        self.refused.remove(prefix);
        let Some(way) = self.routes.remove(prefix) else { return };
        if let Some(count) = self.lengths.get_mut(&prefix.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                self.lengths.remove(&prefix.prefix_len());
            }
        }
        let Way::Hops(hops) = way else { return };
        for hop in hops {
            if hop.overlay {
                if let Some(peer) = self.peers.get_mut(&hop.gateway)
                    && is_last(&mut peer.prefixes, prefix)
                {
                    self.peers.remove(&hop.gateway);
                }
            } else if let Some(prefixes) = self.direct.get_mut(&hop.gateway)
                && is_last(prefixes, prefix)
            {
                self.direct.remove(&hop.gateway);
            }
        }
    }

    fn behind_hop(&mut self, hop: &Hop) -> &mut Vec<IpNet> {
        if !hop.overlay {
            return self.direct.entry(hop.gateway).or_default();
        }
        let new = || PeerSpec {
            name: hop.gateway.to_string(),
            address: hop.gateway,
            prefixes: Vec::new(),
            encapsulation: None,
            // The route shows it: it leads into the host port, not along the link.
            encapsulate: Some(Encapsulate::Always),
            vtep_mac: None,
        };
        &mut self.peers.entry(hop.gateway).or_insert_with(new).prefixes
    }
}

fn insert(prefixes: &mut Vec<IpNet>, prefix: IpNet) {
    // A whole table comes in order: its prefixes are appended.
    if prefixes.last().is_none_or(|last| *last < prefix) {
        prefixes.push(prefix);
    } else if let Err(at) = prefixes.binary_search(&prefix) {
        prefixes.insert(at, prefix);
    }
}

/// Takes a prefix out; true if none is left.
fn is_last(prefixes: &mut Vec<IpNet>, prefix: &IpNet) -> bool {
    if let Ok(at) = prefixes.binary_search(prefix) {
        prefixes.remove(at);
    }
    prefixes.is_empty()
}
