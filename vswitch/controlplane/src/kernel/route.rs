//! A route of the kernel's routing table, as plain values.
//!
//! `vswitchd` makes them of netlink's messages; `mirror` keeps them and `judge` reads them.

use std::net::IpAddr;

/// RTPROT_* of the routes that vswitchd itself gives the kernel.
pub const ROUTE_PROTOCOL: u8 = 86;

/// A route of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KernelRoute {
    /// Network and prefix length.
    pub destination: (IpAddr, u8),
    /// The table that it is in; 254 is the main one.
    pub table: u32,
    /// For packets with this type of service alone; 0 for all.
    pub tos: u8,
    /// Which of several routes to one destination wins: the lowest.
    pub metric: u32,
    /// Protocol of the program that made it: RTPROT_*, 4 for `ip route`, 12 for BIRD, 186 for BGP by FRR.
    pub protocol: u8,
    /// What becomes of packets.
    pub kind: RouteKind,
    /// Where they go; none for a blackhole.
    pub next_hops: Vec<KernelHop>,
}

/// One of a route's next hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KernelHop {
    /// The interface that packets leave by; 0 if the kernel named none.
    pub oif: u32,
    /// The router that forwards them; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Its share among the others', 1 to 256.
    pub weight: u16,
    /// The gateway is on the link, whatever the addresses suggest.
    pub onlink: bool,
    /// The interface is up and has its carrier.
    pub usable: bool,
}

/// What a route does with packets: RTN_*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Forwards them.
    Unicast,
    /// The destination is this node.
    Local,
    /// Drops them.
    Blackhole,
    /// Drops them and reports that the destination is unreachable.
    Unreachable,
    /// Drops them and reports that it is forbidden.
    Prohibit,
    /// Broadcast, anycast, multicast and what this program does not know.
    Other(u8),
}

/// Where an added route stands among those of the same destination and metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Before the others.
    First,
    /// Instead of the first.
    Replaces,
    /// Behind the others, or joined to them.
    Appended,
}

impl KernelRoute {
    /// The same route, whatever its links do now.
    #[must_use]
    pub fn is_same_as(&self, other: &Self) -> bool {
        let hop = |hop: &KernelHop| (hop.oif, hop.gateway, hop.weight);
        (self.destination, self.table, self.tos, self.metric, self.protocol, self.kind)
            == (other.destination, other.table, other.tos, other.metric, other.protocol, other.kind)
            && self.next_hops.iter().map(hop).eq(other.next_hops.iter().map(hop))
    }
}
