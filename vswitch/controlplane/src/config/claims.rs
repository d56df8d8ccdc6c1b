//! What is taken already, and whether a peer may have what it claims.
//!
//! Enters: this node's addresses and prefixes, then one peer after the other, of any source: the
//! file, a request, the cluster's API server. Leaves: what is wrong with a peer beside those. This
//! is the only judge, and it does not know which source asks. Each question costs a few look-ups however
//! many peers there are.

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
        let mut problems = Vec::new();
        let mut refuse = |field, message: String| problems.push((field, message));
        if let Err(message) = check_name(&peer.name) {
            refuse("name", message);
        }
        if self.has_name(&peer.name) {
            refuse("name", format!("another peer has the name \"{}\" already", peer.name));
        }
        let address = peer.address;
        if let Err(message) = check_underlay(peer.address, self.cluster) {
            refuse("address", message);
        } else if (self.own_is_complete || self.own.has(address))
            && let Err(message) = check_far_end(self.own, address)
        {
            refuse("address", message);
        }
        if let Some(other) = self.addresses.get(&address) {
            refuse("address", format!("peer \"{other}\" has {address} already"));
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
        for (index, prefix) in peer.prefixes.iter().enumerate() {
            if let Err(message) = self.judge_prefix(prefix) {
                refuse("prefixes", message);
            }
            let earlier = peer.prefixes.iter().take(index);
            for earlier in earlier.filter(|earlier| overlap(earlier, prefix)) {
                refuse("prefixes", format!("{prefix} overlaps {earlier} of the same peer"));
            }
        }
        problems
    }

    /// Whether a new owner may have a prefix.
    ///
    /// # Errors
    /// What stands against it.
    pub(crate) fn judge_prefix(&self, prefix: &IpNet) -> Result<(), String> {
        check_prefix(prefix)?;
        if !self.cluster.iter().any(|cluster| cluster.contains(prefix)) {
            return Err(format!(
                "{prefix} is not within any of node.cluster_prefixes; add it or one that contains it there"
            ));
        }
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

#[cfg(test)]
mod tests {
    use api::{Encapsulate, Encapsulation, PeerSpec, overlap};
    use dataplane::tables::LocalAddresses;
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::{Claims, Usual};

    fn peer(name: &str, address: &str, prefixes: &[&str]) -> PeerSpec {
        PeerSpec {
            name: name.into(),
            address: address.parse().expect("an address"),
            prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
            encapsulation: None,
            encapsulate: None,
            vtep_mac: None,
        }
    }

    #[test]
    fn whatever_no_peer_can_have_is_refused_by_name() {
        let cluster: Vec<IpNet> =
            ["198.18.0.0/15", "fd00:18::/32"].map(|text| text.parse().expect("a prefix")).into();
        let own = LocalAddresses { v4: "198.51.100.11".parse().ok(), v6: None };
        let mut claims = Claims::new(&cluster, own, None);
        claims.take_prefix("198.18.1.0/24".parse().expect("a prefix"), "this node");
        let taken = peer("b", "203.0.113.12", &["198.18.2.0/24"]);
        claims.take(&taken);
        let good = ["198.18.3.0/24"];
        for (peer, expected) in [
            (peer("", "203.0.113.13", &good), "a name has 1 to 253"),
            (peer("a\u{7}b", "203.0.113.13", &good), "a name has 1 to 253"),
            (peer("b", "203.0.113.13", &good), "another peer has the name"),
            (peer("c", "203.0.113.12", &good), "peer \"b\" has 203.0.113.12"),
            (peer("c", "198.51.100.11", &good), "198.51.100.11 is this node itself"),
            (peer("c", "0.0.0.0", &good), "0.0.0.0 cannot be"),
            (peer("c", "0.1.2.3", &good), "0.1.2.3 cannot be"),
            (peer("c", "224.0.0.5", &good), "224.0.0.5 cannot be"),
            (peer("c", "127.0.0.1", &good), "127.0.0.1 cannot be"),
            (peer("c", "169.254.1.1", &good), "169.254.1.1 cannot be"),
            (peer("c", "255.255.255.255", &good), "255.255.255.255 cannot be"),
            (peer("c", "198.19.0.1", &good), "198.19.0.1 lies in the cluster prefix"),
            (peer("c", "203.0.113.13", &[]), "at least one prefix"),
            (peer("c", "203.0.113.13", &["0.0.0.0/0"]), "0.0.0.0/0 is everything"),
            (peer("c", "203.0.113.13", &["::/0"]), "::/0 is everything"),
            (peer("c", "203.0.113.13", &["0.0.0.0/8"]), "0.0.0.0/8 is no prefix"),
            (peer("c", "203.0.113.13", &["198.0.0.0/8"]), "198.0.0.0/8 is not within"),
            (peer("c", "203.0.113.13", &["224.0.0.0/24"]), "224.0.0.0/24 is no prefix"),
            (peer("c", "203.0.113.13", &["169.254.0.0/16"]), "169.254.0.0/16 is no prefix"),
            (peer("c", "203.0.113.13", &["ff00::/8"]), "ff00::/8 is no prefix"),
            (peer("c", "203.0.113.13", &["fe80::/64"]), "fe80::/64 is no prefix"),
            (peer("c", "203.0.113.13", &["198.18.3.1/24"]), "did you mean 198.18.3.0/24?"),
            (peer("c", "203.0.113.13", &["198.18.0.0/23"]), "overlaps 198.18.1.0/24 of this node"),
            (peer("c", "203.0.113.13", &["198.18.1.7/32"]), "overlaps 198.18.1.0/24 of this node"),
            (peer("c", "203.0.113.13", &["198.18.2.128/25"]), "overlaps 198.18.2.0/24 of b"),
            (
                peer("c", "203.0.113.13", &["198.18.4.0/24", "198.18.4.0/25"]),
                "overlaps 198.18.4.0/24 of the same peer",
            ),
        ] {
            let problems = claims.judge(&peer);
            assert!(
                problems.iter().any(|(_, message)| message.contains(expected)),
                "{expected}: {problems:?}"
            );
        }
        let many: Vec<_> = (0..300).map(|number| format!("fd00:18:{number:x}::/64")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(claims.judge(&peer("c", "203.0.113.13", &many)).len(), 1);
        assert_eq!(claims.judge(&peer("c", "203.0.113.13", &good)), []);
        claims.release(&taken);
        assert_eq!(claims.judge(&taken), []);
    }

    #[test]
    fn ipip_over_ipv6_is_refused_only_if_it_may_be_spoken() {
        use Encapsulate::{Always, CrossSubnet, Never};
        use Encapsulation::{Ipip, Vxlan};
        let cluster = ["198.18.0.0/15".parse().expect("a prefix")];
        for (encapsulation, encapsulate, own, is_refused) in [
            (Ipip, Always, (None, None), true),
            (Ipip, CrossSubnet, (None, None), true),
            (Ipip, Never, (None, None), false),
            (Ipip, Never, (Some(Ipip), None), false),
            (Ipip, Never, (None, Some(CrossSubnet)), true),
            (Ipip, Always, (None, Some(Never)), false),
            (Ipip, Always, (Some(Vxlan), None), false),
            (Vxlan, Always, (None, None), false),
            (Vxlan, Always, (Some(Ipip), None), true),
            (Vxlan, Never, (Some(Ipip), None), false),
        ] {
            let usual = Usual { encapsulation, encapsulate };
            let claims = Claims::new(&cluster, LocalAddresses::default(), Some(usual));
            let judged = |address: &str| {
                let mut peer = peer("b", address, &["198.18.2.0/24"]);
                (peer.encapsulation, peer.encapsulate) = own;
                claims.judge(&peer).iter().any(|(_, message)| message.starts_with("IPIP runs"))
            };
            assert_eq!(judged("2001:db8::12"), is_refused, "{usual:?} {own:?}");
            assert!(!judged("203.0.113.12"), "{usual:?} {own:?}");
        }
    }

    proptest! {
        #[test]
        fn an_overlap_is_found_as_by_comparing_with_all(
            taken in prop::collection::vec((any::<u32>(), 8u8..=32), 0..24),
            asked in (any::<u32>(), 4u8..=32),
        ) {
            let net = |(bits, len): (u32, u8)| {
                // Few bits that differ, so that prefixes lie inside one another.
                let address = std::net::Ipv4Addr::from_bits(bits & 0x0303_0303);
                IpNet::new(address.into(), len).expect("a length of IPv4").trunc()
            };
            let mut claims = Claims::new(&[], LocalAddresses::default(), None);
            let mut all: Vec<IpNet> = Vec::new();
            for prefix in taken.into_iter().map(net) {
                claims.take_prefix(prefix, "x");
                if !all.iter().any(|other| overlap(other, &prefix)) {
                    all.push(prefix);
                }
            }
            let asked = net(asked);
            let expected = all.iter().any(|other| overlap(other, &asked));
            prop_assert_eq!(claims.overlapping(&asked).is_some(), expected);
        }
    }
}
