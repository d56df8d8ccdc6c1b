//! What forwards now: an immutable snapshot, compiled by the control thread from its model.
//!
//! Enters: `Builder` calls from vswitchd's `compile`. Leaves: a [`Tables`] behind a pointer that
//! workers swap between two turns; they read it through `walk`, and it never changes.
//!
//! | file | answers |
//! |---|---|
//! | `port`      | what is attached here, and what it may do |
//! | `bridge`    | which ports and VTEPs share an L2 segment |
//! | `fdb`       | behind which VTEP a MAC was learned to be; it belongs to a worker |
//! | `fib`       | which is the longest prefix that contains an address |
//! | `adjacency` | which headers the next hop wants in front of a packet |
//! | `multipath` | which of several next hops has a flow |
//! | `pages`     | what one version of the tables shares with the next |
//! | `service`   | which backend a flow to a virtual address is given to |
//! | `policy`    | which connections of a pod are allowed |
//! | `tunnel`    | which nodes may send tunnel packets, and what may be inside |
//! | `vnis`      | which network a VNI stands for |

pub mod adjacency;
pub mod bridge;
pub mod fdb;
pub mod fib;
pub mod multipath;
pub mod pages;
pub mod policy;
pub mod port;
pub mod service;
pub mod tunnel;
pub mod vnis;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::wire::MacAddr;
pub use adjacency::{Adjacency, AdjacencyId, AdjacencyPages, Encap, OuterDf, Template};
pub use bridge::{Bridge, BridgeId, RemoteVtep, VtepId, Vteps};
pub use fdb::{Fdb, FdbTarget, LearnedMac};
pub use fib::Fib;
pub use multipath::{Member, Multipath};
pub use pages::Pages;
pub use policy::Policies;
pub use port::{Attachment, MAX_PORTS, Offloads, Port, PortId, PortRole};
pub use service::{
    Backend, BackendState, Backends, ClientAffinity, ConnectionCount, Service, Services,
    VirtualPort, WithoutBackend,
};
pub use tunnel::{Domain, LocalAddresses, Peer, PeerId, PeersByAddress, Tunnels};
pub use vnis::Vnis;

/// Generation of [`Tables`]; each publication is one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// The node's own end of every pod's default route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gateway {
    /// The same on every node, so that a pod's permanent neighbour entry is never wrong.
    pub mac: MacAddr,
    /// Source of our ICMP errors. Routes alone say which addresses are the gateway's: pods of a
    /// former prefix have another ([`Tables::is_gateway`]).
    pub v4: Option<Ipv4Addr>,
    /// Source of our ICMPv6 errors.
    pub v6: Option<Ipv6Addr>,
    /// Source of what the node's kernel masquerades towards pods, as NodePort clients of kube-proxy. It is
    /// the node's as the gateway's addresses are, but the node does not speak from it to its pods: no policy
    /// makes an exception of it.
    pub masquerade_v4: Option<Ipv4Addr>,
    /// As `masquerade_v4`, of IPv6.
    pub masquerade_v6: Option<Ipv6Addr>,
}

impl Gateway {
    /// The MAC of the gateway on every node: locally administered, "v" and "s" in ASCII.
    pub const MAC: MacAddr = MacAddr([0x02, 0x76, 0x73, 0x00, 0x00, 0x01]);
}

/// What forwards now.
#[derive(Debug, Clone, Default)]
pub struct Tables {
    /// Number of this snapshot.
    pub epoch: Epoch,
    /// By [`PortId`].
    pub ports: Vec<Option<Port>>,
    /// By [`BridgeId`].
    pub bridges: Vec<Bridge>,
    /// IPv4 routes.
    pub fib4: Fib<Ipv4Addr>,
    /// IPv6 routes.
    pub fib6: Fib<Ipv6Addr>,
    /// By [`AdjacencyId`].
    pub adjacencies: AdjacencyPages,
    /// By what flows are addressed to.
    pub services: Arc<Services>,
    /// Of the pods of this node.
    pub policies: Policies,
    /// This node's end of the overlay.
    pub tunnels: Arc<Tunnels>,
    /// The node's gateway.
    pub gateway: Gateway,
}

impl Tables {
    /// The port, if one is attached under this number.
    #[inline]
    #[must_use]
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(usize::from(id.0))?.as_ref()
    }

    /// The bridge domain.
    #[must_use]
    pub fn bridge(&self, id: BridgeId) -> Option<&Bridge> {
        self.bridges.get(usize::from(id.0))
    }

    /// The adjacency.
    #[inline]
    #[must_use]
    pub fn adjacency(&self, id: AdjacencyId) -> Option<&Adjacency> {
        self.adjacencies.get(id.0 as usize)
    }

    /// Whether the address is a pod's of this node, or the node's gateway.
    #[must_use]
    pub fn is_local(&self, address: IpAddr) -> bool {
        let adjacency = self.route(address).and_then(|id| self.adjacency(id));
        match adjacency {
            Some(Adjacency::Gateway { .. } | Adjacency::Bridged { .. }) => true,
            Some(Adjacency::Port { port, .. }) => {
                self.port(*port).is_some_and(|port| port.kind == PortRole::Pod)
            }
            _ => false,
        }
    }

    /// Whether this is an address of the node's gateway, that of a former pod prefix and the one to
    /// masquerade by included.
    #[must_use]
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        let adjacency = self.route(address).and_then(|id| self.adjacency(id));
        matches!(adjacency, Some(Adjacency::Gateway { .. }))
    }

    /// Whether the node itself has this address: the gateway's, or that by which its peers know it. Not
    /// the one that the kernel masquerades others as.
    #[must_use]
    pub fn is_of_node(&self, address: IpAddr) -> bool {
        let (masquerade, underlay) = match address {
            IpAddr::V4(_) => (
                self.gateway.masquerade_v4.map(IpAddr::from),
                self.tunnels.local.v4.map(IpAddr::from),
            ),
            IpAddr::V6(_) => (
                self.gateway.masquerade_v6.map(IpAddr::from),
                self.tunnels.local.v6.map(IpAddr::from),
            ),
        };
        masquerade != Some(address) && (underlay == Some(address) || self.is_gateway(address))
    }

    /// The adjacency of the longest prefix that contains the address.
    #[inline]
    #[must_use]
    pub fn route(&self, destination: IpAddr) -> Option<AdjacencyId> {
        match destination {
            IpAddr::V4(v4) => self.fib4.lookup(v4),
            IpAddr::V6(v6) => self.fib6.lookup(v6),
        }
    }
}
