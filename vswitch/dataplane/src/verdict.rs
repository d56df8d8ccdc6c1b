//! Verdicts: every end that a packet can meet.
//!
//! Leaves `walk::decide`, enters `walk::act`. A verdict is small and `Copy`: tests assert it, trace
//! prints it, fuzzing compares it.

use core::fmt;

use crate::tables::{AdjacencyId, BridgeId, PortId, VtepId};

/// The end of one packet. Its tag is a byte of its own: one that hides in a field has
/// to be computed wherever it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Verdict {
    /// Sent out of a port as it is (L2).
    Forward {
        /// The port.
        port: PortId,
    },
    /// Sent through the overlay as it is, Ethernet header included (L2).
    Tunnel {
        /// The stretched segment.
        bridge: BridgeId,
        /// Its other end.
        vtep: VtepId,
    },
    /// Sent out of every member of the segment but the one it came from, and to every VTEP that
    /// carries it unless it came from one.
    Flood {
        /// The segment.
        bridge: BridgeId,
        /// How many of its VTEPs get a copy: those with the largest MTU.
        vteps: u16,
        /// How many others get none, as the packet is larger than their MTU.
        too_small: u16,
    },
    /// Sent to the next hop (L3): a hop is taken from its TTL, its headers are replaced.
    Route {
        /// The next hop.
        adjacency: AdjacencyId,
        /// The port it leaves by.
        port: PortId,
    },
    /// Turned into its own answer, out of the port it came from.
    Answer(Answer),
    /// Dropped, with an ICMP error to its sender if the rate limit allows.
    Refuse {
        /// Counted under this reason.
        reason: DropReason,
        /// The ICMP error.
        error: IcmpError,
        /// The way back to a sender on another node; out of the port it came from if absent.
        back: Option<AdjacencyId>,
    },
    /// Dropped, with a TCP reset to its sender, out of the port it came from, if the rate limit allows.
    Reset {
        /// Counted under this reason.
        reason: DropReason,
    },
    /// Dropped in silence, and counted.
    Drop(DropReason),
}

/// Requests that are answered in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// ARP request for the gateway, or for anything from a routed pod.
    Arp,
    /// Neighbour solicitation likewise.
    NeighborAdvertisement,
    /// Ping to the gateway, IPv4.
    Echo4,
    /// Ping to the gateway, IPv6.
    Echo6,
}

/// ICMP errors to a packet's sender, in the packet's IP version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// TTL or hop limit reached zero.
    TimeExceeded,
    /// Larger than the next hop's MTU, in bytes, and not to be fragmented.
    TooBig {
        /// The largest IP packet that passes.
        mtu: u16,
    },
    /// No route.
    NetUnreachable,
    /// A route, but no host at its end.
    HostUnreachable,
    /// A host, but nobody at its port.
    PortUnreachable,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arp => "ARP reply",
            Self::NeighborAdvertisement => "neighbour advertisement",
            Self::Echo4 => "ICMP echo reply",
            Self::Echo6 => "ICMPv6 echo reply",
        })
    }
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeExceeded => f.write_str("time exceeded"),
            Self::TooBig { mtu } => write!(f, "too big, the MTU is {mtu} bytes"),
            Self::NetUnreachable => f.write_str("network unreachable"),
            Self::HostUnreachable => f.write_str("host unreachable"),
            Self::PortUnreachable => f.write_str("port unreachable"),
        }
    }
}

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $label:literal,)*) => {
        /// Why a packet is not forwarded: one reason a packet, each counted by port.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name under which it is counted and shown.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// One sentence for people.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*).trim_ascii_start(),)* }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than an Ethernet header.
    FrameTooShort = "frame-too-short",
    /// The frame is neither IPv4, IPv6 nor ARP, or has a VLAN tag.
    EthertypeUnsupported = "ethertype-unsupported",
    /// The source MAC is zero or a group address.
    SourceMacInvalid = "source-mac-invalid",
    /// The source MAC, or one that ARP or neighbour discovery announces, is not the sender's own.
    SourceMacSpoofed = "source-mac-spoofed",
    /// The destination MAC is neither the gateway's nor that of anyone on a port that only routes.
    DestinationMacForeign = "destination-mac-foreign",
    /// The destination MAC is one to which no bridge forwards, as that of spanning tree or LLDP.
    DestinationMacReserved = "destination-mac-reserved",
    /// The destination MAC is behind the port that the frame came from.
    SamePort = "same-port",
    /// A segment without another member to flood to.
    FloodNowhere = "flood-nowhere",

    /// The ARP packet is malformed, or neither request nor reply.
    ArpMalformed = "arp-malformed",
    /// An ARP packet that asks nothing of us.
    ArpUnanswered = "arp-unanswered",
    /// The IPv4 header contradicts itself or the frame's length.
    Ipv4Malformed = "ipv4-malformed",
    /// The IPv4 header's checksum is wrong.
    Ipv4Checksum = "ipv4-checksum",
    /// The IPv6 header or its extensions contradict themselves or the frame's length.
    Ipv6Malformed = "ipv6-malformed",
    /// A neighbour discovery message that is malformed, cut into fragments, or came over a router.
    NeighborDiscoveryMalformed = "nd-malformed",
    /// A neighbour discovery message that asks nothing of us.
    NeighborDiscoveryUnanswered = "nd-unanswered",
    /// A router advertisement, redirect or DHCP server's message, from a pod or for one: a pod has no
    /// router but the switch, and is no server.
    RogueAdvertisement = "rogue-advertisement",
    /// A multicast router's query or advertisement (IGMP, MLD) from a pod.
    RogueQuery = "rogue-query",
    /// A pod's first fragment without all headers of its packet, or a later one that begins within them.
    FragmentTiny = "fragment-tiny",
    /// The source address, or one that ARP or neighbour discovery claims, is not the sender's own.
    SourceAddressSpoofed = "source-address-spoofed",
    /// The source address is one that no host may send from, such as loopback or multicast.
    SourceMartian = "source-martian",
    /// The destination address is one that no router may forward to, such as loopback.
    DestinationMartian = "destination-martian",
    /// Multicast or link-local traffic on a port that only routes.
    MulticastUnrouted = "multicast-unrouted",
    /// An IPv4 source route, or an IPv6 routing header of type 0 or with segments left.
    SourceRouted = "source-routed",
    /// A tunnel packet made by a pod, for a node or by way of one.
    TunnelFromPod = "tunnel-from-pod",

    /// No route to the destination.
    NoRoute = "no-route",
    /// The route is a blackhole.
    Blackhole = "blackhole",
    /// The route says unreachable: an address of this cluster that nobody has.
    Unreachable = "unreachable",
    /// TTL or hop limit used up.
    TtlExceeded = "ttl-exceeded",
    /// Larger than the next hop's MTU.
    TooBig = "too-big",
    /// The kernel has not resolved the underlay's next hop, or the MAC is behind no known port.
    NextHopUnresolved = "next-hop-unresolved",
    /// From the overlay and not for this node: it would go back where it came from.
    SplitHorizon = "split-horizon",

    /// A service's address, but not one of its ports, or no backend is ready.
    ServiceRefused = "service-refused",
    /// Backends of the service are on other nodes alone, and its traffic policy wants one of this node.
    ServiceWithoutLocalBackend = "service-without-local-backend",
    /// The client is not within the service's source ranges.
    ServiceSourceRefused = "service-source-refused",
    /// A pod that is its own backend, where there is no gateway address to speak for it.
    ServiceHairpin = "service-hairpin",
    /// A fragment to a service, or of a pod with policies, that came before the first of its packet,
    /// which has the ports.
    FragmentEarly = "fragment-early",
    /// The packet ends before a field that a translation changes, or is a fragment of SCTP.
    TranslationCut = "translation-cut",
    /// The session table is full of sessions that may not be evicted.
    SessionFull = "session-full",
    /// The port that opens the session has its share of the session table, without those that are over.
    SessionQuota = "session-quota",
    /// The session was being changed by another worker for longer than a packet waits.
    SessionBusy = "session-busy",
    /// The source port is another session's with the same backend, and so is every other that was tried.
    SessionPortsUsed = "session-ports-used",

    /// No policy of a pod allows it: of the one that sends it, or of the one that it is for.
    PolicyDenied = "policy-denied",
    /// The policies of a pod are not known yet.
    PolicyPending = "policy-pending",
    /// Policies have changed, and do not allow this connection any more.
    PolicyRevoked = "policy-revoked",
    /// A flooded frame, or a copy of one, from or for a pod whose policies judge each connection.
    PolicyFlood = "policy-flood",

    /// From the NIC, but neither a tunnel packet nor for one of our pods.
    NotForUs = "not-for-us",
    /// The outer headers or the VXLAN header are malformed, or contradict the packet inside.
    OuterMalformed = "outer-malformed",
    /// A tunnel packet that was sent to the MAC of another host than this one.
    OuterMacForeign = "outer-mac-foreign",
    /// The outer UDP checksum over IPv6 is wrong, or missing where it must not be.
    OuterChecksum = "outer-checksum",
    /// A tunnel packet from an address that is no peer's.
    UnknownPeer = "unknown-peer",
    /// A VXLAN network identifier that is not ours.
    UnknownVni = "unknown-vni",
    /// A router of the underlay said how large packets to a peer may be: noted, and at its end.
    PathMtuNoted = "path-mtu-noted",
    /// A router's word about the size of packets that quotes none of ours, or makes no sense.
    PathMtuRefused = "path-mtu-refused",
    /// The inner source address is neither one of that peer's pods nor its own.
    InnerSourceForeign = "inner-source-foreign",
    /// Congestion was marked on the way, but the inner packet cannot carry the mark (RFC 6040).
    EcnNotCapable = "ecn-not-capable",

    /// The sender's offload request contradicts the packet.
    OffloadInvalid = "offload-invalid",
    /// The answer is over the rate limit.
    AnswerRateLimited = "answer-rate-limited",
    /// No packet memory is left for a copy.
    NoFrames = "no-frames",
    /// The packet has no room for the headers in front of it.
    NoHeadroom = "no-headroom",
    /// More is sent to a pod than its rate allows, and its queue holds as much as may wait.
    BandwidthExceeded = "bandwidth-exceeded",
    /// Another worker was to process the packet, and as many as may wait for it waited.
    HandoffFull = "handoff-full",
    /// The port's queue is full.
    QueueFull = "queue-full",
    /// The port's device is gone.
    PortGone = "port-gone",
    /// The port's device refused the packet.
    PortRefused = "port-refused",
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn numbers_follow_the_list_and_names_differ() {
        for (number, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert!(reason.explanation().ends_with('.'), "{reason}");
        }
        let mut labels: Vec<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }
}
