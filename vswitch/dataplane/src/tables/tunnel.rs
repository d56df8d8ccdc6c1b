//! Our end of the overlay: what comes from whom.
//!
//! Encapsulation carries no proof of origin, so `decap` asks here: a tunnel packet is taken from a
//! known peer alone, and only with an inner source that is that peer's.

use core::net::{IpAddr, Ipv4Addr};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use ipnet::IpNet;

use super::{BridgeId, PortId};
use crate::wire::{MacAddr, Vni};

/// Number of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its underlay address.
    pub address: Ipv4Addr,
    /// Its pods.
    pub prefixes: Vec<IpNet>,
}

/// What a VNI means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// The routed overlay: the inner frame is addressed to our VTEP's MAC.
    Routed,
    /// A stretched L2 segment.
    Bridged(BridgeId),
}

/// Our end of the overlay.
#[derive(Debug, Clone, Default)]
pub struct Tunnels {
    /// The NIC's port.
    pub uplink: Option<PortId>,
    /// Our underlay address.
    pub address: Option<Ipv4Addr>,
    /// UDP port of VXLAN, if it is spoken with anyone.
    pub vxlan_port: Option<u16>,
    /// IPIP is spoken with someone.
    pub ipip: bool,
    /// Packets to our pods are taken without encapsulation.
    pub direct: bool,
    /// MAC that peers put into the inner Ethernet header.
    pub vtep_mac: MacAddr,
    /// Every VNI that is ours.
    pub vnis: HashMap<Vni, Domain, RandomState>,
    /// By [`PeerId`].
    pub peers: Vec<Peer>,
    /// Underlay address to peer.
    pub by_address: HashMap<Ipv4Addr, PeerId, RandomState>,
}

impl Tunnels {
    /// The peer with this underlay address.
    #[must_use]
    pub fn peer_at(&self, address: Ipv4Addr) -> Option<(PeerId, &Peer)> {
        let id = *self.by_address.get(&address)?;
        self.peers.get(id.0 as usize).map(|peer| (id, peer))
    }

    /// The MAC that a node's VTEP has unless it is told otherwise: 02:76 and the underlay address.
    #[must_use]
    pub fn derived_vtep_mac(address: Ipv4Addr) -> MacAddr {
        let [a, b, c, d] = address.octets();
        MacAddr([0x02, 0x76, a, b, c, d])
    }
}

impl Peer {
    /// Whether a pod of this peer has the address.
    #[inline]
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        // One comparison under the mask; the crate's own makes two addresses to compare with.
        self.prefixes.iter().any(|prefix| match (prefix, address) {
            (IpNet::V4(prefix), IpAddr::V4(address)) => {
                let differing = prefix.addr().to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(prefix.prefix_len())
            }
            (IpNet::V6(prefix), IpAddr::V6(address)) => {
                let differing = prefix.addr().to_bits() ^ address.to_bits();
                differing.leading_zeros() >= u32::from(prefix.prefix_len())
            }
            _ => false,
        })
    }
}
