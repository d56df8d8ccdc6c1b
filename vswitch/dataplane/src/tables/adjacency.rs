//! Next hops, and what they want in front of a packet.
//!
//! A route's work is done here once, when tables are compiled: the outer headers are prebuilt, so
//! that a worker copies them and patches four fields. The `rewrite` door does both.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{BridgeId, Multipath, Pages, PortId};
use crate::wire::checksum::Sum;
use crate::wire::{EtherType, Ethernet, MacAddr, Protocol, Vni, ethernet, ipv4, ipv6, udp, vxlan};

/// Number of an adjacency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdjacencyId(pub u32);

/// Adjacencies by [`AdjacencyId`], 2 KB of them in a page: with 10,000 peers they are a megabyte, of which
/// most is the same in the next version of the tables.
pub type AdjacencyPages = Pages<Adjacency, 16>;

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Adjacency {
    /// To a pod here, or to the node's kernel.
    Port {
        /// Its port.
        port: PortId,
        /// Ethernet header.
        template: Template,
        /// Largest IP packet, bytes.
        mtu: u16,
    },
    /// To an address of a bridge domain's member here, which has its port found by its MAC.
    Bridged {
        /// The domain.
        bridge: BridgeId,
        /// Ethernet header.
        template: Template,
        /// Largest IP packet, bytes.
        mtu: u16,
    },
    /// To a pod on another node.
    Remote {
        /// The port of the NIC.
        port: PortId,
        /// Everything in front of the inner IP packet; `None` while the underlay's next hop is
        /// unresolved.
        template: Option<Template>,
        /// Largest inner IP packet, bytes.
        mtu: u16,
    },
    /// The gateway's own address: ping is answered here, all else is the kernel's.
    Gateway {
        /// The host port, if there is one.
        host: Option<PortId>,
        /// Ethernet header towards it.
        template: Template,
        /// Largest IP packet, bytes.
        mtu: u16,
    },
    /// To one of several, chosen by the flow.
    Multipath(Multipath),
    /// The address of a service: to one of its backends, chosen by the flow.
    Service,
    /// Dropped silently.
    Blackhole,
    /// Dropped with an ICMP error to the sender.
    #[default]
    Unreachable,
}

impl Adjacency {
    /// Whether packets leave by it: it is a next hop, and resolved.
    #[must_use]
    pub fn forwards(&self) -> bool {
        match self {
            Self::Port { .. } | Self::Bridged { .. } | Self::Gateway { .. } => true,
            Self::Remote { template, .. } => template.is_some(),
            Self::Multipath(_) | Self::Service | Self::Blackhole | Self::Unreachable => false,
        }
    }
}

/// Encapsulation of a template, and the fields that are patched when it is put in front of a
/// packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encap {
    /// Nothing: Ethernet alone; its type follows the packet's version.
    None,
    /// Outer IPv4 length, ECN, checksum, or IPv6 length, ECN, flow label; UDP length, source port,
    /// and over IPv6 checksum. The inner Ethernet header is the packet's own.
    VxlanBridged,
    /// The same fields, and the type of the inner Ethernet header, which is the template's.
    VxlanRouted,
    /// Outer IPv4 length, ECN, protocol, checksum.
    Ipip,
}

/// Whether routers of an IPv4 underlay may cut what a tunnel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OuterDf {
    /// They may not: the sender gets an ICMP error when a packet is too large.
    #[default]
    Set,
    /// They may cut. The other end must put fragments together, which a kernel does and this switch
    /// does not.
    Clear,
    /// They may if the inner packet's header allows it; IPv6 does not.
    Inherit,
}

/// Ethernet 14, IPv6 40, UDP 8, VXLAN 8, inner Ethernet 14.
pub const MAX_TEMPLATE_LEN: usize = 84;

/// Prebuilt headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Template {
    bytes: [u8; MAX_TEMPLATE_LEN],
    len: u8,
    encap: Encap,
    over_v6: bool,
    outer_df: OuterDf,
}

/// TTL of outer headers: the default of RFC 1700, as Linux's.
const OUTER_TTL: u8 = 64;

impl Template {
    /// Overhead of VXLAN over IPv4 with an inner Ethernet header: what the pods' MTU is smaller
    /// than the underlay's. Outer Ethernet is not part of an MTU.
    pub const VXLAN_OVERHEAD: u16 = 20 + 8 + 8 + 14;
    /// Overhead of VXLAN over IPv6.
    pub const VXLAN_V6_OVERHEAD: u16 = 40 + 8 + 8 + 14;
    /// Overhead of IPIP.
    pub const IPIP_OVERHEAD: u16 = 20;

    /// An Ethernet header; its type is filled in from the packet.
    #[must_use]
    pub fn ethernet(destination: MacAddr, source: MacAddr) -> Self {
        let mut template = Self::empty(Encap::None);
        template.ethernet_header(destination, source, EtherType::IPV4);
        template
    }

    /// Outer headers of IPIP; the protocol becomes 41 for an inner IPv6 packet. `None` over IPv6:
    /// RFC 2003 is about IPv4 alone.
    #[must_use]
    pub fn ipip(outer: Outer) -> Option<Self> {
        let mut template = Self::empty(Encap::Ipip);
        matches!(outer.ends, Ends::V4 { .. }).then_some(())?;
        template.outer_headers(&outer, Protocol::IPIP, 0);
        Some(template)
    }

    /// Outer headers of VXLAN for a frame that keeps its own Ethernet header.
    #[must_use]
    pub fn vxlan_bridged(outer: Outer, vni: Vni, port: u16) -> Self {
        let mut template = Self::empty(Encap::VxlanBridged);
        let udp_len = (udp::HEADER_LEN + vxlan::HEADER_LEN) as u16;
        template.outer_headers(&outer, Protocol::UDP, udp_len);
        let checksum = match outer.ends {
            // RFC 7348 section 5 asks for zero over IPv4.
            Ends::V4 { .. } => 0,
            // What is the same in every packet: `outer_checksum` adds the rest.
            Ends::V6 { source, destination } => {
                Sum::pseudo_v6(source, destination, Protocol::UDP, 0).fold()
            }
        };
        let udp = udp::Repr { source: 0, destination: port, len: udp_len, checksum };
        template.append(|bytes| udp.emit(bytes));
        template.append(|bytes| vxlan::Repr { vni }.emit(bytes));
        template
    }

    /// Outer headers of VXLAN and the inner Ethernet header between two VTEPs.
    #[must_use]
    pub fn vxlan_routed(
        outer: Outer,
        vni: Vni,
        port: u16,
        remote_vtep: MacAddr,
        local_vtep: MacAddr,
    ) -> Self {
        let mut template = Self::vxlan_bridged(outer, vni, port);
        template.encap = Encap::VxlanRouted;
        template.ethernet_header(remote_vtep, local_vtep, EtherType::IPV4);
        template
    }

    /// The template with another policy for its outer header. Without one, or over IPv6, it stays
    /// the same.
    #[must_use]
    pub fn with_outer_df(mut self, outer_df: OuterDf) -> Self {
        if self.encap != Encap::None && !self.over_v6 {
            self.outer_df = outer_df;
        }
        self
    }

    /// Whether routers of the underlay may cut.
    #[inline]
    #[must_use]
    pub fn outer_df(&self) -> OuterDf {
        self.outer_df
    }

    /// The bytes, from the outer Ethernet header on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// The first of its headers, which is Ethernet's whatever follows.
    #[inline]
    pub(crate) fn outermost(&self) -> Option<&[u8; ethernet::HEADER_LEN]> {
        self.bytes.first_chunk()
    }

    /// The encapsulation, and with it the fields to be patched.
    #[must_use]
    pub fn encap(&self) -> Encap {
        self.encap
    }

    /// Whether the outer header is IPv6.
    #[inline]
    #[must_use]
    pub fn is_over_v6(&self) -> bool {
        self.over_v6
    }

    /// Destination MAC of the (outer) Ethernet header.
    #[must_use]
    pub fn destination(&self) -> MacAddr {
        Ethernet::parse(self.bytes()).map(|ethernet| ethernet.destination()).unwrap_or_default()
    }

    /// Underlay address of the tunnel's other end; `None` without encapsulation.
    #[must_use]
    pub fn remote_end(&self) -> Option<IpAddr> {
        let outer = self.bytes().get(ethernet::HEADER_LEN..)?;
        match (self.encap, self.over_v6) {
            (Encap::None, _) => None,
            (_, true) => {
                ipv6::Ipv6::parse_header(outer).ok().map(|outer| outer.destination().into())
            }
            (_, false) => {
                ipv4::Ipv4::parse_header(outer).ok().map(|outer| outer.destination().into())
            }
        }
    }

    fn empty(encap: Encap) -> Self {
        Self { bytes: [0; MAX_TEMPLATE_LEN], len: 0, encap, over_v6: false, outer_df: OuterDf::Set }
    }

    fn ethernet_header(&mut self, destination: MacAddr, source: MacAddr, ethertype: EtherType) {
        let header = ethernet::Repr { destination, source, ethertype };
        self.append(|bytes| header.emit(bytes));
    }

    /// Lengths count what follows in the template: patched by what the packet adds.
    fn outer_headers(&mut self, outer: &Outer, protocol: Protocol, payload_len: u16) {
        match outer.ends {
            Ends::V4 { source, destination } => {
                self.ethernet_header(outer.next_hop_mac, outer.source_mac, EtherType::IPV4);
                let header = ipv4::Repr {
                    tos: 0,
                    total_len: ipv4::HEADER_LEN as u16 + payload_len,
                    // RFC 6864 section 4.1: an atomic datagram's identification means nothing.
                    id: 0,
                    dont_fragment: true,
                    more_fragments: false,
                    fragment_offset: 0,
                    ttl: OUTER_TTL,
                    protocol,
                    source,
                    destination,
                };
                self.append(|bytes| header.emit(bytes));
            }
            Ends::V6 { source, destination } => {
                self.over_v6 = true;
                self.ethernet_header(outer.next_hop_mac, outer.source_mac, EtherType::IPV6);
                let header = ipv6::Repr {
                    traffic_class: 0,
                    flow_label: 0,
                    payload_len,
                    next_header: protocol,
                    hop_limit: OUTER_TTL,
                    source,
                    destination,
                };
                self.append(|bytes| header.emit(bytes));
            }
        }
    }

    /// The longest template has exactly [`MAX_TEMPLATE_LEN`] bytes, so `emit` always finds room.
    fn append(&mut self, emit: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let room = self.bytes.get_mut(usize::from(self.len)..).unwrap_or_default();
        self.len += emit(room).unwrap_or(0) as u8;
    }
}

/// The underlay's part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outer {
    /// The NIC's.
    pub source_mac: MacAddr,
    /// The underlay next hop's, as the kernel resolved it.
    pub next_hop_mac: MacAddr,
    /// Both tunnel ends.
    pub ends: Ends,
}

/// The underlay addresses of a tunnel's ends, which are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Over IPv4.
    V4 {
        /// Ours.
        source: Ipv4Addr,
        /// The peer's.
        destination: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// Ours.
        source: Ipv6Addr,
        /// The peer's.
        destination: Ipv6Addr,
    },
}

impl Ends {
    /// `None` if the addresses are of different families.
    #[must_use]
    pub fn between(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 { source, destination }),
            _ => None,
        }
    }
}
