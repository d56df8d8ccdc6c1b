//! Addresses for this node's pods.
//!
//! Enters: leases, as the model applies them. Leaves: a free address of each pod prefix. The next
//! one after the last that was given out comes first (round robin), and of those that were freed lately
//! the one that rests longest, when no other is left: neighbours, conntrack entries and policies elsewhere
//! may still believe in the pod that had it.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::AddressRange;
use ipnet::IpNet;

use super::attachments::join;
use crate::config::Config;

/// The node's pod prefixes and which of their addresses are leased.
#[derive(Debug, Clone, Default)]
pub struct Ipam {
    pools: Vec<Pool>,
    /// Every leased address, also those outside of the pools, with the number of its leases: more
    /// than one only after a journal that has it so.
    leased: BTreeMap<IpAddr, usize>,
    /// Addresses that the node has itself, besides its gateways.
    kept: Vec<IpAddr>,
}

/// So many freed addresses of a prefix are known to rest. Kubernetes runs 110 pods on a node unless told
/// otherwise: so many are nine replacements of all of them.
const MAX_RESTING: usize = 1_000;

/// So many addresses for pods a prefix has at least, if the node takes one of them for itself.
const LEAST_TO_KEEP_ONE: u128 = 4;

#[derive(Debug, Clone)]
struct Pool {
    prefix: IpNet,
    first: u128,
    last: u128,
    /// The address that was given out last.
    cursor: Option<u128>,
    /// Addresses that were freed lately, and that nobody had since; in the order in which they were.
    resting: VecDeque<u128>,
    /// Pods still have addresses of it; no new pod gets one.
    is_retired: bool,
}

/// Why an address cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IpamError {
    /// It is taken already.
    #[error("{0} is in use by another pod")]
    InUse(IpAddr),
    /// A pod may not have it.
    #[error("{address} cannot be a pod's: {reason}")]
    Unusable {
        /// The address.
        address: IpAddr,
        /// Why a pod may not have it.
        reason: String,
    },
    /// All addresses are given out.
    #[error("no address of {0} is left; delete pods or give the node a larger prefix")]
    Exhausted(IpNet),
    /// All addresses of the ranges that were asked for are given out.
    #[error("no address of {0} is left; delete pods or give the network a larger range")]
    RangeExhausted(String),
    /// Another node's pods have these addresses, or nobody's.
    #[error(
        "the range {range} lies in none of this node's pod prefixes, which are {prefixes}; ask for a part of these, or for none"
    )]
    ForeignRange {
        /// The range.
        range: AddressRange,
        /// Prefixes of which pods get addresses.
        prefixes: String,
    },
}

impl Ipam {
    /// An allocator for these prefixes, with everything free.
    #[must_use]
    pub fn new(prefixes: &[IpNet]) -> Self {
        Self {
            pools: prefixes.iter().map(Pool::new).collect(),
            leased: BTreeMap::new(),
            kept: Vec::new(),
        }
    }

    /// This allocator with what another one knows: its leases, and where it was in the same prefixes.
    /// Of a `retired` prefix nothing is given out.
    pub(super) fn with_leases_of(mut self, old: &Self, retired: &[IpNet]) -> Self {
        self.pools.extend(retired.iter().map(Pool::new));
        for pool in &mut self.pools {
            if let Some(known) = old.pools.iter().find(|known| known.prefix == pool.prefix) {
                pool.clone_from(known);
            }
            pool.is_retired = retired.contains(&pool.prefix);
        }
        self.leased.clone_from(&old.leased);
        self.kept.clone_from(&old.kept);
        self
    }

    /// One free address of each prefix, with the prefix; those that are requested if they are. Of a family
    /// that has `ranges` an address is of one of these.
    ///
    /// # Errors
    /// If one of the requested cannot be had, or a prefix or the ranges are used up, or a range is none of this
    /// node's.
    pub fn allocate(
        &self,
        requested: &[IpAddr],
        ranges: &[AddressRange],
    ) -> Result<Vec<(IpAddr, IpNet)>, IpamError> {
        ranges.iter().try_for_each(|range| self.admit_range(range))?;
        for (index, address) in requested.iter().enumerate() {
            let pool = self.pool_of(*address).filter(|pool| !pool.is_retired).ok_or_else(|| {
                IpamError::Unusable {
                    address: *address,
                    reason: "it is in none of this node's pod prefixes".into(),
                }
            })?;
            if let Some(reason) = pool.reserved(*address) {
                return Err(IpamError::Unusable { address: *address, reason: reason.into() });
            }
            if self.kept.contains(address) {
                let reason = "it is the one by which this node's kernel masquerades".into();
                return Err(IpamError::Unusable { address: *address, reason });
            }
            if !is_within(ranges, *address) {
                let reason = format!("it is not of the ranges asked for, {}", join(ranges));
                return Err(IpamError::Unusable { address: *address, reason });
            }
            if requested[..index].iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                let reason = "only one address a family can be requested".into();
                return Err(IpamError::Unusable { address: *address, reason });
            }
            if self.leased.contains_key(address) {
                return Err(IpamError::InUse(*address));
            }
        }
        self.pools
            .iter()
            .filter(|pool| !pool.is_retired)
            .map(|pool| {
                let address = requested
                    .iter()
                    .copied()
                    .find(|address| pool.prefix.contains(address))
                    .or_else(|| self.next_free(pool, &pool.spans(ranges)))
                    .ok_or_else(|| pool.exhausted(ranges))?;
                Ok((address, pool.prefix))
            })
            .collect()
    }

    fn admit_range(&self, range: &AddressRange) -> Result<(), IpamError> {
        let current = self.pools.iter().filter(|pool| !pool.is_retired).map(|pool| pool.prefix);
        let holds = |prefix: &IpNet| prefix.contains(&range.first) && prefix.contains(&range.last);
        if current.clone().any(|prefix| holds(&prefix)) {
            return Ok(());
        }
        let prefixes = join(&current.collect::<Vec<_>>());
        Err(IpamError::ForeignRange { range: *range, prefixes })
    }

    /// Whether an address that another allocator gave out can be a pod's.
    ///
    /// # Errors
    /// If it is leased, or one of the node's own.
    pub fn admit(&self, address: IpAddr) -> Result<(), IpamError> {
        if let Some(reason) = self.pool_of(address).and_then(|pool| pool.reserved(address)) {
            return Err(IpamError::Unusable { address, reason: reason.into() });
        }
        if self.leased.contains_key(&address) { Err(IpamError::InUse(address)) } else { Ok(()) }
    }

    /// The address of a prefix that the node can have for itself: the highest that no pod has. `None` if
    /// there is none, or the prefix is small.
    pub(super) fn highest_free(&self, prefix: &IpNet) -> Option<IpAddr> {
        let pool = self.pools.iter().find(|pool| pool.prefix == *prefix)?;
        if pool.last.saturating_sub(pool.first) + 1 < LEAST_TO_KEEP_ONE {
            return None;
        }
        // As many steps as there are leases at the end, and one.
        let mut downwards = (pool.first..=pool.last).rev().map(|bits| pool.address(bits));
        downwards.find(|address| !self.leased.contains_key(address))
    }

    /// Keeps addresses for the node: no pod gets one.
    pub(super) fn keep(&mut self, addresses: &[IpAddr]) {
        addresses.clone_into(&mut self.kept);
    }

    /// An address is a pod's now.
    pub(super) fn take(&mut self, address: IpAddr) {
        *self.leased.entry(address).or_default() += 1;
        if let Some(pool) = self.pool_of_mut(address) {
            pool.resting.retain(|resting| *resting != bits(address));
        }
        self.set_cursor(address);
    }

    /// An address is no longer that pod's.
    pub(super) fn release(&mut self, address: IpAddr) {
        let Some(leases) = self.leased.get_mut(&address) else { return };
        *leases -= 1;
        if *leases == 0 {
            self.leased.remove(&address);
            if let Some(pool) = self.pool_of_mut(address) {
                if pool.resting.len() == MAX_RESTING {
                    pool.resting.pop_front();
                }
                pool.resting.push_back(bits(address));
            }
        }
    }

    /// Sets where the search for the next address begins; returns where it began before.
    pub(super) fn set_cursor(&mut self, address: IpAddr) -> Option<IpAddr> {
        let pool = self.pool_of_mut(address)?;
        let old = pool.cursor.replace(bits(address));
        old.map(|bits| pool.address(bits))
    }

    /// Where the search begins, for each prefix that was used.
    pub(super) fn cursors(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.pools.iter().filter_map(|pool| pool.cursor.map(|bits| pool.address(bits)))
    }

    fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.prefix.contains(&address))
    }

    fn pool_of_mut(&mut self, address: IpAddr) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.prefix.contains(&address))
    }

    /// Within the spans, the first free one after the cursor that does not rest, else the one that rests longest.
    fn next_free(&self, pool: &Pool, spans: &[(u128, u128)]) -> Option<IpAddr> {
        let range = |from: u128, to: u128| {
            // Each leased address is one step: as many steps as leases, and one.
            let mut leased = self.leased.range(pool.address(from)..=pool.address(to)).peekable();
            let mut next = from;
            std::iter::from_fn(move || {
                while next <= to {
                    let this = next;
                    next += 1;
                    let is_leased =
                        leased.next_if(|(address, _)| bits(**address) == this).is_some();
                    if !is_leased && !self.kept.contains(&pool.address(this)) {
                        return Some(this);
                    }
                }
                None
            })
        };
        let cursor = pool.cursor.unwrap_or(pool.last).clamp(pool.first - 1, pool.last);
        let after = spans.iter().map(|(from, to)| ((cursor + 1).max(*from), *to));
        let before = spans.iter().map(|(from, to)| (*from, cursor.min(*to)));
        let searched = after.chain(before).filter(|(from, to)| from <= to);
        let mut free = searched.flat_map(|(from, to)| range(from, to));
        let resting: HashSet<u128> = pool.resting.iter().copied().collect();
        let rested = free.find(|address| !resting.contains(address));
        let can_be = |address: &u128| {
            let is_within = spans.iter().any(|(from, to)| (from..=to).contains(&address));
            is_within && !self.kept.contains(&pool.address(*address))
        };
        let longest = || pool.resting.iter().copied().find(can_be);
        rested.or_else(longest).map(|chosen| pool.address(chosen))
    }
}

impl Pool {
    /// Network, gateway and, for IPv4, broadcast are no pod's. Of IPv6 the first is the subnet
    /// router's anycast address (RFC 4291 section 2.6.1).
    fn new(prefix: &IpNet) -> Self {
        let gateway = bits(Config::gateway_of(prefix));
        let last = bits(prefix.broadcast());
        let last = if matches!(prefix, IpNet::V4(_)) { last - 1 } else { last };
        Self {
            prefix: *prefix,
            first: gateway + 1,
            last,
            cursor: None,
            resting: VecDeque::new(),
            is_retired: false,
        }
    }

    fn address(&self, bits: u128) -> IpAddr {
        match self.prefix {
            IpNet::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
            IpNet::V6(_) => Ipv6Addr::from_bits(bits).into(),
        }
    }

    /// The parts of the prefix that an address may be of, from the first to the last.
    fn spans(&self, ranges: &[AddressRange]) -> Vec<(u128, u128)> {
        let mut of_family = of_family(ranges, self.prefix.addr()).peekable();
        if of_family.peek().is_none() {
            return vec![(self.first, self.last)];
        }
        let part = |range: &AddressRange| {
            (bits(range.first).max(self.first), bits(range.last).min(self.last))
        };
        of_family.map(part).filter(|(from, to)| from <= to).collect()
    }

    fn exhausted(&self, ranges: &[AddressRange]) -> IpamError {
        let asked: Vec<_> = of_family(ranges, self.prefix.addr()).copied().collect();
        if asked.is_empty() {
            IpamError::Exhausted(self.prefix)
        } else {
            IpamError::RangeExhausted(join(&asked))
        }
    }

    fn reserved(&self, address: IpAddr) -> Option<&'static str> {
        let number = bits(address);
        if (self.first..=self.last).contains(&number) {
            None
        } else if number + 1 == self.first {
            Some("it is this node's gateway")
        } else if number > self.last {
            Some("it is the broadcast address of the pod prefix")
        } else {
            Some("it is the network's own address")
        }
    }
}

/// Whether an address is of one of the ranges, if there are any of its family.
pub(super) fn is_within(ranges: &[AddressRange], address: IpAddr) -> bool {
    let mut of_family = of_family(ranges, address).peekable();
    of_family.peek().is_none() || of_family.any(|range| range.contains(address))
}

fn of_family(ranges: &[AddressRange], address: IpAddr) -> impl Iterator<Item = &AddressRange> {
    ranges.iter().filter(move |range| range.is_of_family(address))
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests;
