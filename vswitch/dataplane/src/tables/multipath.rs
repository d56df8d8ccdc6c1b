//! Next-hop groups: one route, several ways, and each flow keeps to one of them.
//!
//! Enters: members and weights, when tables are compiled. Leaves: a [`Multipath`] for an adjacency,
//! which `route` asks with the hash of the inner flow.
//!
//! The table of buckets is filled by weighted rendezvous hashing: every member draws for every
//! bucket, and the best draw has it. A draw depends on the member and the bucket alone. So a member
//! that leaves gives up its own buckets and moves no other flow, one that comes takes its share from
//! all, and two nodes, or one before and after a restart, fill it alike.

use core::hash::BuildHasher;
use core::net::IpAddr;

// Not the fast variant: of numbers in a row its results hang together, and shares would be wrong.
use foldhash::quality::FixedState;

use super::{Adjacency, AdjacencyId, AdjacencyPages};

/// Buckets of a group. Shares are drawn, not counted out: with this many, a half is 50 % within 5.
const BUCKETS: usize = 1024;

/// Members at most; a bucket names its member by one byte.
pub const MAX_MEMBERS: usize = 256;

/// No secret, and the same everywhere: an attacker does not choose the members of a group.
const DRAW: FixedState = FixedState::with_seed(0x7673_7769_7463_6801);

/// One way out of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The identity that draws: the next hop's address, which stays when tables are compiled anew.
    pub identity: IpAddr,
    /// Its adjacency in these tables; not a group itself.
    pub adjacency: AdjacencyId,
    /// Its share, relative to the others'; with none it gets no flow.
    pub weight: u16,
}

/// A group of next hops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multipath {
    members: Vec<Member>,
    /// Indices of `members`.
    buckets: Box<[u8; BUCKETS]>,
}

impl Multipath {
    /// A group of these, of which those that `adjacencies` cannot forward to are left out, unless
    /// that is all of them. `None` if no member has a weight. Only the first [`MAX_MEMBERS`] with a
    /// weight count, and of those with one identity the first.
    #[must_use]
    pub fn of(members: &[Member], adjacencies: &AdjacencyPages) -> Option<Self> {
        let forwards = |member: &Member| {
            adjacencies.get(member.adjacency.0 as usize).is_some_and(Adjacency::forwards)
        };
        let any_forwards = members.iter().any(|member| member.weight > 0 && forwards(member));
        let mut kept: Vec<Member> = Vec::with_capacity(members.len().min(MAX_MEMBERS));
        for member in members {
            let known = kept.iter().any(|one| one.identity == member.identity);
            let usable = member.weight > 0 && (forwards(member) || !any_forwards);
            if usable && !known && kept.len() < MAX_MEMBERS {
                kept.push(*member);
            }
        }
        if kept.is_empty() {
            return None;
        }
        let mut buckets = Box::new([0; BUCKETS]);
        for (number, bucket) in buckets.iter_mut().enumerate() {
            let mut best = f64::NEG_INFINITY;
            for (at, member) in kept.iter().enumerate() {
                let draw = draw(member, number);
                if draw > best {
                    best = draw;
                    *bucket = at as u8;
                }
            }
        }
        Some(Self { members: kept, buckets })
    }

    /// The member that has the flow with this hash. Bits from the middle decide: the high ones are
    /// the VXLAN source port and the low ones an outer flow label, and routers of the underlay that
    /// choose by these would otherwise choose among few.
    #[inline]
    #[must_use]
    pub fn member(&self, flow_hash: u64) -> Option<&Member> {
        let bucket = self.buckets.get((flow_hash >> 32) as usize % BUCKETS)?;
        self.members.get(usize::from(*bucket))
    }

    /// The members that take part.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }
}

/// Of independent draws `ln(u) / weight`, `u` uniform, each is the highest with a probability in
/// proportion to its weight: `-ln(u)` is exponential with rate one.
fn draw(member: &Member, bucket: usize) -> f64 {
    let hash = DRAW.hash_one((member.identity, bucket as u64));
    // The 53 bits that a double holds, and half a step, so that it is never zero.
    let uniform = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    uniform.ln() / f64::from(member.weight)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tables::{PortId, Template};
    use crate::wire::MacAddr;

    fn member(number: u8, weight: u16) -> Member {
        let identity = IpAddr::from([203, 0, 113, number]);
        Member { identity, adjacency: AdjacencyId(number.into()), weight }
    }

    fn remote(resolved: bool) -> Adjacency {
        let template = resolved.then(|| Template::ethernet(MacAddr::ZERO, MacAddr::ZERO));
        Adjacency::Remote { port: PortId(0), template, mtu: 1500 }
    }

    fn all_resolved() -> AdjacencyPages {
        (0..256).map(|_| remote(true)).collect()
    }

    fn hashes() -> impl Iterator<Item = u64> {
        (0..20_000u64).map(|flow| DRAW.hash_one(flow))
    }

    #[test]
    fn members_that_cannot_forward_stand_aside_unless_all_do() {
        let members = [member(0, 1), member(1, 1), member(2, 1)];
        let one = [remote(false), remote(true), remote(false)].into_iter().collect();
        let group = Multipath::of(&members, &one).unwrap();
        assert_eq!(group.members(), [member(1, 1)]);
        let none = [remote(false), remote(false), Adjacency::Blackhole].into_iter().collect();
        let group = Multipath::of(&members, &none);
        assert_eq!(group.unwrap().members(), members);
    }

    #[test]
    fn weightless_members_and_repetitions_do_not_count() {
        let members = [member(1, 0), member(2, 1), member(2, 9)];
        let group = Multipath::of(&members, &all_resolved()).unwrap();
        assert_eq!(group.members(), [member(2, 1)]);
        assert_eq!(Multipath::of(&members[..1], &all_resolved()), None);
        assert_eq!(Multipath::of(&[], &AdjacencyPages::default()), None);
    }

    #[test]
    fn of_more_members_than_a_byte_can_name_the_first_count() {
        let member = |number: u32| Member {
            identity: IpAddr::V4((0xc633_6400 + number).into()),
            adjacency: AdjacencyId(0),
            weight: 1,
        };
        let members: Vec<_> = (0..300).map(member).collect();
        let group = Multipath::of(&members, &all_resolved()).unwrap();
        assert_eq!(group.members(), &members[..MAX_MEMBERS]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn flows_are_shared_by_weight(weights in prop::collection::vec(1u16..=16, 1..8), from: u8) {
            let members: Vec<_> = weights.iter().zip(0u8..)
                .map(|(weight, at)| member(from.wrapping_add(at), *weight)).collect();
            let group = Multipath::of(&members, &all_resolved()).unwrap();
            let total: u16 = weights.iter().sum();
            for member in &members {
                let has = hashes().filter(|hash| group.member(*hash) == Some(member)).count();
                let (got, wanted) = (has as f64 / 20_000.0, f64::from(member.weight) / f64::from(total));
                // Four standard deviations of a draw for each bucket, and one percent for the flows.
                let bound = 4.0 * (wanted * (1.0 - wanted) / BUCKETS as f64).sqrt() + 0.01;
                prop_assert!((got - wanted).abs() < bound, "{got} of {wanted} for {weights:?}");
            }
        }

        #[test]
        fn a_member_that_leaves_moves_its_own_flows_alone(
            weights in prop::collection::vec(1u16..=16, 2..8), leaver: prop::sample::Index,
        ) {
            let mut members: Vec<_> =
                weights.iter().zip(0u8..).map(|(weight, at)| member(at, *weight)).collect();
            let before = Multipath::of(&members, &all_resolved()).unwrap();
            let leaver = members.remove(leaver.index(members.len()));
            // Neither the order nor the numbers of this compilation matter.
            members.reverse();
            for member in &mut members {
                member.adjacency.0 += 100;
            }
            let after = Multipath::of(&members, &all_resolved()).unwrap();
            for hash in hashes() {
                let (old, new) = (before.member(hash).unwrap(), after.member(hash).unwrap());
                prop_assert!(old.identity == new.identity || old.identity == leaver.identity);
            }
        }
    }
}
