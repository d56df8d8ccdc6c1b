//! This node's end of the overlay: what it takes from which peer.
//!
//! Encapsulation carries no proof of origin, so `decap` asks here: a tunnel packet is taken from a
//! known peer alone, and only with an inner source that is that peer's.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use ipnet::IpNet;

use super::{BridgeId, PortId, Vnis};
use crate::wire::MacAddr;

/// Number of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its underlay address.
    pub address: IpAddr,
    /// Its pods' addresses: first and last of each range, ascending, none touching what another has.
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// The network that a VNI stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// The routed overlay: the inner frame is addressed to our VTEP's MAC.
    Routed,
    /// A stretched L2 segment.
    Bridged(BridgeId),
}

/// This node's end of the overlay.
#[derive(Debug, Clone, Default)]
pub struct Tunnels {
    /// The NIC's port.
    pub uplink: Option<PortId>,
    /// Our underlay addresses.
    pub local: LocalAddresses,
    /// UDP port of VXLAN, if any peer uses it.
    pub vxlan_port: Option<u16>,
    /// Further UDP ports on which VXLAN is taken: those that peers may still or already send to.
    pub more_vxlan_ports: Vec<u16>,
    /// Whether any peer uses IPIP.
    pub ipip: bool,
    /// Whether packets to this node's pods are taken without encapsulation.
    pub direct: bool,
    /// Whether a SYN to another node or from one is edited to announce no larger segments than the
    /// way there takes.
    pub clamp_mss: bool,
    /// Whether packets of pods that are reached by a tunnel are taken without one too: their node
    /// may be configured otherwise than this one, or may have changed a moment earlier.
    pub direct_from_tunnelled: bool,
    /// Whether requests on the underlay's link for this node's pods are answered, with the NIC's
    /// MAC; of use with `direct` alone.
    pub proxy_neighbors: bool,
    /// Whether a VXLAN packet over IPv6 may come without a UDP checksum (RFC 6935).
    pub zero_checksum6: bool,
    /// MAC that IPv4 peers put into the inner Ethernet header.
    pub vtep_mac: MacAddr,
    /// MAC that IPv6 peers put into the inner Ethernet header.
    pub vtep_mac6: MacAddr,
    /// Every VNI that is ours.
    pub vnis: Vnis,
    /// By [`PeerId`].
    pub peers: Vec<Peer>,
    /// Underlay address to peer.
    pub by_address: PeersByAddress,
}

/// This node's underlay addresses: one a family at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalAddresses {
    /// The address that IPv4 peers send to.
    pub v4: Option<Ipv4Addr>,
    /// The address that IPv6 peers send to.
    pub v6: Option<Ipv6Addr>,
}

/// Peers by underlay address. One table a family: an IPv4 packet costs no more for IPv6 peers.
#[derive(Debug, Clone, Default)]
pub struct PeersByAddress {
    v4: HashMap<Ipv4Addr, PeerId, RandomState>,
    v6: HashMap<Ipv6Addr, PeerId, RandomState>,
}

impl Tunnels {
    /// Whether this is a UDP port of VXLAN.
    #[inline]
    #[must_use]
    pub fn takes_vxlan_on(&self, port: u16) -> bool {
        self.vxlan_port == Some(port) || self.more_vxlan_ports.contains(&port)
    }

    /// The peer with this underlay address.
    #[must_use]
    pub fn peer_at(&self, address: IpAddr) -> Option<(PeerId, &Peer)> {
        let id = self.by_address.get(address)?;
        self.peers.get(id.0 as usize).map(|peer| (id, peer))
    }

    /// Whether this is an underlay address of a peer or of ours.
    #[must_use]
    pub fn is_end(&self, address: IpAddr) -> bool {
        self.local.has(address) || self.by_address.get(address).is_some()
    }

    /// The MAC by which a peer with this address knows our VTEP.
    #[inline]
    #[must_use]
    pub fn vtep_mac_for(&self, peer: IpAddr) -> MacAddr {
        if peer.is_ipv4() { self.vtep_mac } else { self.vtep_mac6 }
    }

    /// The MAC that a node's VTEP has unless configured otherwise, so that both ends know it from
    /// the underlay address alone.
    ///
    /// IPv4: 02:76 and the address. IPv6: 02:77 and the address's last 32 bits, XORed with the
    /// FNV-1a hash of the twelve bytes before them. Nodes of one /96 never share a MAC, others by
    /// chance alone, one pair in 2^32.
    #[must_use]
    pub fn derived_vtep_mac(address: impl Into<IpAddr>) -> MacAddr {
        match address.into() {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                MacAddr([0x02, 0x76, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                let prefix = (bits >> 32).to_be_bytes();
                // The first four bytes of the shifted word are zero: twelve are the address's.
                let hash = prefix.into_iter().skip(4).fold(FNV_OFFSET, |hash, byte| {
                    (hash ^ u32::from(byte)).wrapping_mul(FNV_PRIME)
                });
                let [a, b, c, d] = (bits as u32 ^ hash).to_be_bytes();
                MacAddr([0x02, 0x77, a, b, c, d])
            }
        }
    }
}

/// FNV-1a with 32 bits.
const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

impl LocalAddresses {
    /// Whether this is one of them.
    #[inline]
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        self.towards(address) == Some(address)
    }

    /// The one of the other end's family.
    #[inline]
    #[must_use]
    pub fn towards(&self, other: IpAddr) -> Option<IpAddr> {
        match other {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

impl From<IpAddr> for LocalAddresses {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self { v4: Some(v4), v6: None },
            IpAddr::V6(v6) => Self { v4: None, v6: Some(v6) },
        }
    }
}

impl PeersByAddress {
    /// Adds a peer, or gives the address to another.
    pub fn insert(&mut self, address: IpAddr, peer: PeerId) {
        match address {
            IpAddr::V4(v4) => self.v4.insert(v4, peer),
            IpAddr::V6(v6) => self.v6.insert(v6, peer),
        };
    }

    /// The peer with this address.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, address: IpAddr) -> Option<PeerId> {
        match address {
            IpAddr::V4(v4) => self.v4.get(&v4).copied(),
            IpAddr::V6(v6) => self.v6.get(&v6).copied(),
        }
    }
}

impl FromIterator<(IpAddr, PeerId)> for PeersByAddress {
    fn from_iter<I: IntoIterator<Item = (IpAddr, PeerId)>>(peers: I) -> Self {
        let mut by_address = Self::default();
        for (address, peer) in peers {
            by_address.insert(address, peer);
        }
        by_address
    }
}

impl Peer {
    /// A node with the pods of these prefixes.
    #[must_use]
    pub fn new(address: IpAddr, prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self { address, v4: joined(v4), v6: joined(v6) }
    }

    /// The same without the addresses of these prefixes: those of this node, which a route to the peer may
    /// cover.
    #[must_use]
    pub fn without(mut self, own: impl IntoIterator<Item = IpNet>) -> Self {
        for own in own {
            match own {
                IpNet::V4(net) => {
                    cut(&mut self.v4, net.network().to_bits(), net.broadcast().to_bits());
                }
                IpNet::V6(net) => {
                    cut(&mut self.v6, net.network().to_bits(), net.broadcast().to_bits());
                }
            }
        }
        self
    }

    /// An address of its pods of each family that has some: by its route the peer is reached.
    pub(crate) fn samples(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v4 = self.v4.first().map(|(first, _)| IpAddr::from(Ipv4Addr::from_bits(*first)));
        let v6 = self.v6.first().map(|(first, _)| IpAddr::from(Ipv6Addr::from_bits(*first)));
        v4.into_iter().chain(v6)
    }

    /// Whether a pod of this peer has the address.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => is_within(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => is_within(&self.v6, v6.to_bits()),
        }
    }
}

/// The ranges' addresses in as few ranges as may be, ascending.
fn joined<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, known)| {
        let lies_within = *first <= *known;
        if lies_within {
            *known = (*known).max(*last);
        }
        lies_within
    });
    ranges.shrink_to_fit();
    ranges
}

/// Takes the addresses from `first` to `last` out of the ranges.
fn cut<T>(ranges: &mut Vec<(T, T)>, first: T, last: T)
where
    T: Ord + Copy + From<u8> + core::ops::Add<Output = T> + core::ops::Sub<Output = T>,
{
    let one = T::from(1);
    let is_touched = |(from, to): &(T, T)| *from <= last && first <= *to;
    let begin = ranges.partition_point(|(_, to)| *to < first);
    let touched = ranges.iter().skip(begin).take_while(|range| is_touched(range)).count();
    let mut left = Vec::new();
    for (from, to) in ranges.iter().skip(begin).take(touched) {
        if *from < first {
            left.push((*from, first - one));
        }
        if last < *to {
            left.push((last + one, *to));
        }
    }
    ranges.splice(begin..begin + touched, left);
}

/// A gateway may have all of a cluster behind it: found by halving.
#[inline(always)]
fn is_within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    let before = after.checked_sub(1).and_then(|at| ranges.get(at));
    before.is_some_and(|(_, last)| address <= *last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use ipnet::{IpNet, Ipv4Net};
    use proptest::prelude::*;

    use super::{LocalAddresses, Peer, PeerId, PeersByAddress, Tunnels};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn both_ends_derive_the_same_mac() {
        for (text, mac) in [
            ("198.51.100.11", "02:76:c6:33:64:0b"),
            ("::", "02:77:e2:3c:62:b5"),
            ("2001:db8:1::11", "02:77:57:6e:3f:0d"),
            ("2001:db8:1::12", "02:77:57:6e:3f:0e"),
            ("2001:db8:2::11", "02:77:f4:6e:56:1c"),
        ] {
            assert_eq!(Tunnels::derived_vtep_mac(address(text)).to_string(), mac, "{text}");
        }
    }

    #[test]
    fn the_own_address_is_of_the_family_of_the_other_end() {
        let (v4, v6) = (address("198.51.100.11"), address("2001:db8::11"));
        let mut local = LocalAddresses::from(v6);
        assert_eq!(local.towards(address("203.0.113.1")), None);
        assert_eq!(local.towards(address("2001:db8::1")), Some(v6));
        local.v4 = LocalAddresses::from(v4).v4;
        assert_eq!(local.towards(address("203.0.113.1")), Some(v4));
        assert_eq!(local.iter().collect::<Vec<_>>(), [v4, v6]);
        assert!(local.has(v4) && local.has(v6) && !local.has(address("2001:db8::12")));
    }

    #[test]
    fn peers_are_told_apart_by_family() {
        let peers: PeersByAddress =
            [(address("203.0.113.1"), PeerId(0)), (address("2001:db8::1"), PeerId(1))]
                .into_iter()
                .collect();
        assert_eq!(peers.get(address("203.0.113.1")), Some(PeerId(0)));
        assert_eq!(peers.get(address("2001:db8::1")), Some(PeerId(1)));
        assert_eq!(peers.get(address("::ffff:203.0.113.1")), None);
    }

    #[test]
    fn the_ends_of_a_prefix_are_in_it() {
        let prefixes = ["198.18.2.0/24", "198.18.2.64/26", "fd00:18:2::/64", "255.255.255.0/24"];
        let prefixes = prefixes.map(|text| text.parse::<IpNet>().unwrap());
        let peer = Peer::new(address("203.0.113.12"), prefixes);
        for inside in ["198.18.2.0", "198.18.2.255", "fd00:18:2::", "255.255.255.255"] {
            assert!(peer.has(address(inside)), "{inside}");
        }
        for outside in ["198.18.1.255", "198.18.3.0", "fd00:18:3::", "0.0.0.0", "::198.18.2.1"] {
            assert!(!peer.has(address(outside)), "{outside}");
        }
        assert!(!Peer::new(address("203.0.113.12"), []).has(address("198.18.2.0")));
    }

    #[test]
    fn a_peer_has_nothing_of_this_node() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let all = [net("0.0.0.0/0"), net("fd00::/8")];
        let own = ["198.18.1.0/24", "198.51.100.11/32", "255.255.255.255/32", "0.0.0.0/32"];
        let own = own.map(net).into_iter().chain([net("fd00:18:1::/64")]);
        let peer = Peer::new(address("203.0.113.12"), all).without(own);
        for outside in ["198.18.1.0", "198.18.1.255", "198.51.100.11", "fd00:18:1::7", "0.0.0.0"] {
            assert!(!peer.has(address(outside)), "{outside}");
        }
        for inside in ["198.18.0.255", "198.18.2.0", "198.51.100.10", "198.51.100.12", "fd00::1"] {
            assert!(peer.has(address(inside)), "{inside}");
        }
        let samples: Vec<_> = peer.samples().collect();
        assert_eq!(samples, [address("0.0.0.1"), address("fd00::")]);
    }

    proptest! {
        #[test]
        fn a_peer_has_what_one_of_its_prefixes_contains_and_this_node_has_not(
            prefixes in proptest::collection::vec((any::<u8>(), 20u8..=32), 0..20),
            own in proptest::collection::vec((any::<u8>(), 22u8..=32), 0..6),
            bits in any::<u16>(),
        ) {
            let net = |(bits, len): &(u8, u8)| {
                Ipv4Net::new(Ipv4Addr::from_bits(0xc612_0000 | u32::from(*bits) << 4), *len).unwrap()
            };
            let prefixes: Vec<_> = prefixes.iter().map(net).collect();
            let own: Vec<_> = own.iter().map(net).collect();
            let peer = Peer::new(address("203.0.113.12"), prefixes.iter().copied().map(IpNet::V4));
            let peer = peer.without(own.iter().copied().map(IpNet::V4));
            let address = Ipv4Addr::from_bits(0xc612_0000 | u32::from(bits));
            let contains = |prefixes: &[Ipv4Net]| prefixes.iter().any(|net| net.contains(&address));
            let expected = contains(&prefixes) && !contains(&own);
            prop_assert_eq!(peer.has(address.into()), expected);
        }
    }
}
