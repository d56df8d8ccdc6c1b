//! The kernel's routing table as a source of routes, and with it whoever writes there: BIRD, FRR,
//! `ip route`.
//!
//! Enters: the table, once, and every change of it from `netio`'s monitor. Leaves: a [`Learned`],
//! which the model keeps beside what other sources say.
//!
//! | file | does |
//! |---|---|
//! | `mirror` | follows the events |
//! | `judge`  | says what each route means for pods |

pub mod judge;
#[cfg(test)]
pub(crate) mod lines;
pub mod mirror;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::{Encapsulate, PeerSpec};
use ipnet::IpNet;
use netio::netlink::{Event, Netlink};

use crate::config;
pub use judge::Scope;
use mirror::{Mirror, Outcome};

/// The table is read anew this often even if nothing asks for it.
const PERIOD: Duration = Duration::from_secs(60);
/// And this soon after it was read while it changed.
const AGAIN: Duration = Duration::from_secs(1);

/// What the node has learned from the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Learned {
    /// Where each prefix leads.
    pub routes: BTreeMap<IpNet, Way>,
    /// The nodes that are reached through the overlay, by underlay address; named by that, as the
    /// kernel knows no name.
    pub peers: BTreeMap<IpAddr, PeerSpec>,
    /// Prefixes behind each router or node on the uplink's own link.
    pub direct: BTreeMap<IpAddr, Vec<IpNet>>,
    /// Routes that were not taken because they would do harm, with the reason.
    pub refused: BTreeMap<IpNet, String>,
    /// Routes that mean nothing here.
    pub ignored: usize,
}

impl Learned {
    /// Whether some routes lead to neighbours on the uplink that are nobody's underlay address, and
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

    fn behind_hop(&mut self, hop: &Hop) -> &mut Vec<IpNet> {
        if !hop.overlay {
            return self.direct.entry(hop.gateway).or_default();
        }
        let new = || PeerSpec {
            name: hop.gateway.to_string(),
            address: hop.gateway,
            prefixes: Vec::new(),
            encapsulation: None,
            // The route says so: it leads into the host port, not along the link.
            encapsulate: Some(Encapsulate::Always),
            vtep_mac: None,
        };
        &mut self.peers.entry(hop.gateway).or_insert_with(new).prefixes
    }
}

/// Where a prefix leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Way {
    /// To these, by weight.
    Hops(Vec<Hop>),
    /// To the kernel, which forwards by another interface.
    Host,
    /// Nowhere, silently.
    Blackhole,
    /// Nowhere, and the sender is told.
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

/// Follows the kernel's table.
pub struct KernelSource {
    netlink: Netlink,
    table: u32,
    prefixes: Vec<IpNet>,
    protocols: Vec<u8>,
    mirror: Mirror,
    /// The table has to be read anew.
    unclear: bool,
    changed: bool,
    read_at: Option<Instant>,
    /// Since the table was read nothing has been acted upon, so that an event may be of the time
    /// before; and there are or were several routes of one metric, of which it would not be clear
    /// which it means.
    fresh: bool,
    /// The table is to be read once more.
    again: bool,
}

impl KernelSource {
    /// Nothing read yet.
    #[must_use]
    pub fn new(netlink: Netlink, settings: &config::KernelRoutes) -> Self {
        let (table, prefixes) = (settings.table, settings.prefixes.clone());
        let mirror = Mirror::new(table, &prefixes).of(&settings.protocols);
        Self {
            netlink,
            table,
            prefixes,
            protocols: settings.protocols.clone(),
            mirror,
            unclear: true,
            changed: true,
            read_at: None,
            fresh: false,
            again: false,
        }
    }

    /// Follows what the kernel announces. True if [`KernelSource::settle`] is to be called soon.
    pub fn on_event(&mut self, event: &Event) -> bool {
        let outcome = match event {
            Event::RouteChanged(route, placement) => self.mirror.changed(route, *placement),
            Event::RouteGone(route) => self.mirror.gone(route),
            // A link that goes takes routes along without a word of them, and one that comes wakes
            // next hops; so does an address that routes name as their source.
            Event::LinkChanged(link) | Event::LinkGone(link) if self.mirror.uses(link.index) => {
                Outcome::Unclear
            }
            Event::AddressChanged { .. } | Event::NextHopsChanged | Event::Overrun => {
                Outcome::Unclear
            }
            _ => Outcome::Same,
        };
        match outcome {
            Outcome::Same => {}
            Outcome::Changed => self.changed = true,
            Outcome::Unclear => self.unclear = true,
        }
        // It may be in the table already, as that was read.
        self.again |= self.fresh && outcome != Outcome::Same;
        outcome != Outcome::Same
    }

    /// The node has changed: what was read has to be judged anew.
    pub fn doubt(&mut self) {
        self.changed = true;
    }

    /// Whether the table is due to be read anew.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let period = if self.again { AGAIN } else { PERIOD };
        self.read_at.is_none_or(|at| now >= at + period)
    }

    /// Reads the table anew if that is needed. True if there may be something to judge anew.
    ///
    /// # Errors
    /// If the kernel does not answer; it is asked again next time.
    pub fn settle(&mut self, now: Instant) -> netio::Result<bool> {
        self.fresh = false;
        if self.unclear || self.is_due(now) {
            let mut mirror = Mirror::new(self.table, &self.prefixes).of(&self.protocols);
            self.netlink.kernel_routes(self.table, |route| mirror.read(route))?;
            self.changed |= mirror != self.mirror;
            (self.fresh, self.again) = (mirror.has_several() || self.mirror.has_several(), false);
            (self.mirror, self.unclear, self.read_at) = (mirror, false, Some(now));
        }
        Ok(std::mem::take(&mut self.changed))
    }

    /// What the routes mean for this node.
    #[must_use]
    pub fn learned(&self, scope: &Scope) -> Learned {
        judge::judge(&self.mirror, scope)
    }
}
