//! How each peer is reached, by which encapsulation or by none; and what is accepted from the peers.
//!
//! Enters: the configuration, peers, and the kernel's way to their underlay addresses. Leaves: a
//! [`EncapsulationChoice`] for each, to `compile`, `requests` and `mtu`; and what is [`Accepted`], to `compile`
//! and `uplink`. Pure, and the only place that decides.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;

use api::{Encapsulate, Encapsulation, PeerSpec};
use dataplane::tables::Template;

use crate::config::Config;
use crate::model::Model;
use crate::next_hop::NextHop;

/// An outer IPv6 header has 40 bytes, an IPv4 one 20.
const LONGER_IPV6: u32 = 20;

/// How a peer is reached, and why so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncapsulationChoice {
    /// What packets get.
    pub in_force: Encapsulation,
    /// What was asked for.
    pub policy: Encapsulate,
    /// What decided.
    pub reason: Reason,
}

/// What decided on an encapsulation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is the same whatever the underlay is like.
    Policy,
    /// The kernel reaches the peer on the uplink's own link.
    OnLink,
    /// The kernel reaches it by this router.
    Router(IpAddr),
    /// The kernel has reported no way yet. A tunnel arrives wherever the underlay leads, a pod's
    /// address does not.
    Unknown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => f.write_str("as configured"),
            Self::OnLink => f.write_str("on the uplink's link"),
            Self::Router(router) => write!(f, "behind router {router}"),
            Self::Unknown => f.write_str("the way there is unknown"),
        }
    }
}

/// How to reach a peer. Whether it is in another subnet is what the kernel's route shows, never what
/// a mask suggests: nodes with /32 addresses are neighbours if there is a route on the link, and two
/// addresses under one mask are not if a router stands between them.
#[must_use]
pub fn choose_encapsulation(
    config: &Config,
    peer: &PeerSpec,
    hop: Option<&NextHop>,
) -> EncapsulationChoice {
    let (tunnel, policy) = (tunnel(config, peer), policy(config, peer));
    let (in_force, reason) = match policy {
        Encapsulate::Always => (tunnel, Reason::Policy),
        Encapsulate::Never => (Encapsulation::Direct, Reason::Policy),
        Encapsulate::CrossSubnet => match hop.and_then(|hop| hop.via) {
            Some(via) if via == peer.address => (Encapsulation::Direct, Reason::OnLink),
            Some(router) => (tunnel, Reason::Router(router)),
            None => (tunnel, Reason::Unknown),
        },
    };
    EncapsulationChoice { in_force, policy, reason }
}

/// Whether packets to this peer are encapsulated. Without an encapsulation to do it by: never.
#[must_use]
pub fn policy(config: &Config, peer: &PeerSpec) -> Encapsulate {
    match tunnel(config, peer) {
        Encapsulation::Direct => Encapsulate::Never,
        Encapsulation::Vxlan | Encapsulation::Ipip => {
            peer.encapsulate.unwrap_or(config.overlay.encapsulate)
        }
    }
}

/// The encapsulation of packets to this peer, where they get one.
#[must_use]
pub fn tunnel(config: &Config, peer: &PeerSpec) -> Encapsulation {
    peer.encapsulation.unwrap_or(config.overlay.encapsulation)
}

/// The encapsulation with the longest headers that a packet to this peer may get: what the pods'
/// MTU leaves room for, whichever is in force.
#[must_use]
pub fn longest(config: &Config, peer: &PeerSpec) -> Encapsulation {
    match policy(config, peer) {
        Encapsulate::Never => Encapsulation::Direct,
        Encapsulate::Always | Encapsulate::CrossSubnet => tunnel(config, peer),
    }
}

/// What an encapsulation to this underlay address adds to an inner IP packet, bytes.
#[must_use]
pub fn overhead(encapsulation: Encapsulation, towards: IpAddr) -> u32 {
    let over_ipv4 = match encapsulation {
        Encapsulation::Vxlan => Template::VXLAN_OVERHEAD.into(),
        Encapsulation::Ipip => Template::IPIP_OVERHEAD.into(),
        Encapsulation::Direct => return 0,
    };
    if towards.is_ipv6() { over_ipv4 + LONGER_IPV6 } else { over_ipv4 }
}

/// What pods' packets may come by: everything that a peer may send, in whatever order the two ends
/// are changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// UDP ports of VXLAN, the one that is sent to first; empty if VXLAN is not accepted.
    pub vxlan_ports: Vec<u16>,
    /// Identifiers of the routed overlay, the one that is sent first.
    pub vnis: Vec<u32>,
    /// IPIP.
    pub ipip: bool,
    /// Packets without encapsulation.
    pub direct: bool,
    /// Those from pods that are reached by a tunnel.
    pub direct_from_tunnelled: bool,
}

/// What is accepted: what is sent, as the peers do likewise, and what the configuration accepts.
#[must_use]
pub fn accepted(config: &Config, model: &Model) -> Accepted {
    let overlay = &config.overlay;
    let mut accepted = Accepted::default();
    let mut vxlan = config.bridge.vni.is_some();
    let mut accept = |encapsulation| match encapsulation {
        Encapsulation::Vxlan => vxlan = true,
        Encapsulation::Ipip => accepted.ipip = true,
        Encapsulation::Direct => accepted.direct = true,
    };
    let mut either_way = false;
    for peer in model.all_peers() {
        accept(longest(config, peer));
        either_way |= policy(config, peer) == Encapsulate::CrossSubnet;
    }
    if model.peers.is_empty() || config.kernel_routes.is_some() {
        // The first peer comes at any moment.
        accept(overlay.usual());
    }
    if model.all_peers().next().is_some() {
        overlay.accept.iter().copied().for_each(&mut accept);
    }
    if is_direct(model) {
        accept(Encapsulation::Direct);
    }
    if either_way {
        accept(Encapsulation::Direct);
    }
    accepted.direct_from_tunnelled =
        accepted.direct && (either_way || overlay.accept.contains(&Encapsulation::Direct));
    if vxlan {
        accepted.vxlan_ports = distinct(overlay.vxlan_port, &overlay.accept_vxlan_ports);
        accepted.vnis = distinct(overlay.vni, &overlay.accept_vnis);
    }
    accepted
}

/// The underlay addresses of all tunnel ends that are accepted: the peers, and the bridge domain's VTEPs.
pub fn tunnel_ends<'a>(config: &'a Config, model: &'a Model) -> impl Iterator<Item = IpAddr> + 'a {
    let peers = model.all_peers().map(|peer| peer.address);
    peers.chain(config.bridge.vteps.iter().copied())
}

/// Whether routes of the kernel's lead to the uplink's link and to no peer.
fn is_direct(model: &Model) -> bool {
    if model.kernel.direct.is_empty() {
        return false;
    }
    let peers: HashSet<IpAddr> = model.peers.values().map(|(peer, _)| peer.address).collect();
    model.kernel.is_direct(|gateway| peers.contains(gateway))
}

fn distinct<T: Copy + PartialEq>(first: T, more: &[T]) -> Vec<T> {
    let mut all = vec![first];
    for one in more {
        if !all.contains(one) {
            all.push(*one);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use api::{Encapsulate, Encapsulation};

    use super::{Accepted, EncapsulationChoice, Reason, accepted, choose_encapsulation};
    use crate::config::Config;
    use crate::model::Model;
    use crate::next_hop::NextHop;

    fn config(overlay: &str, peer: &str) -> Config {
        let text = format!(
            "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n\
             [uplink]\ninterface = \"eth0\"\n[overlay]\n{overlay}\n\
             [[peers]]\nname = \"b\"\naddress = \"198.51.100.12\"\nprefixes = [\"198.18.2.0/24\"]\n{peer}\n"
        );
        Config::parse("f", &text).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn by(via: &str) -> NextHop {
        NextHop { via: Some(via.parse().expect("an address")), ..NextHop::default() }
    }

    #[test]
    fn the_kernels_way_decides_across_subnets_alone() {
        use Encapsulate::{Always, CrossSubnet, Never};
        use Encapsulation::{Direct, Ipip, Vxlan};
        let (near, far) = (by("198.51.100.12"), by("198.51.100.1"));
        let router = Reason::Router([198, 51, 100, 1].into());
        for (overlay, peer, hop, in_force, policy, reason) in [
            ("", "", Some(&near), Vxlan, Always, Reason::Policy),
            ("", "", None, Vxlan, Always, Reason::Policy),
            ("encapsulation = \"direct\"", "", Some(&far), Direct, Never, Reason::Policy),
            ("encapsulate = \"never\"", "", Some(&far), Direct, Never, Reason::Policy),
            (
                "encapsulate = \"cross-subnet\"",
                "",
                Some(&near),
                Direct,
                CrossSubnet,
                Reason::OnLink,
            ),
            ("encapsulate = \"cross-subnet\"", "", Some(&far), Vxlan, CrossSubnet, router),
            ("encapsulate = \"cross-subnet\"", "", None, Vxlan, CrossSubnet, Reason::Unknown),
            (
                "encapsulate = \"cross-subnet\"",
                "encapsulation = \"ipip\"",
                Some(&NextHop::default()),
                Ipip,
                CrossSubnet,
                Reason::Unknown,
            ),
            (
                "",
                "encapsulate = \"cross-subnet\"",
                Some(&near),
                Direct,
                CrossSubnet,
                Reason::OnLink,
            ),
            (
                "encapsulate = \"cross-subnet\"",
                "encapsulate = \"always\"",
                Some(&near),
                Vxlan,
                Always,
                Reason::Policy,
            ),
            (
                "encapsulate = \"cross-subnet\"",
                "encapsulation = \"direct\"",
                Some(&far),
                Direct,
                Never,
                Reason::Policy,
            ),
        ] {
            let config = config(overlay, peer);
            let expected = EncapsulationChoice { in_force, policy, reason };
            assert_eq!(
                choose_encapsulation(&config, &config.peers[0], hop),
                expected,
                "{overlay} {peer}"
            );
        }
    }

    #[test]
    fn all_that_a_peer_may_send_is_heard() {
        let all = Accepted {
            vxlan_ports: vec![4789],
            vnis: vec![10],
            ipip: true,
            direct: true,
            direct_from_tunnelled: true,
        };
        let none = Accepted::default();
        let vxlan = Accepted { vxlan_ports: vec![4789], vnis: vec![10], ..none.clone() };
        for (overlay, peer, expected) in [
            ("", "", all.clone()),
            ("encapsulation = \"direct\"", "", all.clone()),
            ("accept = []", "", vxlan.clone()),
            ("accept = [\"ipip\"]", "", Accepted { ipip: true, ..vxlan.clone() }),
            (
                "accept = []\naccept_vxlan_ports = [8472, 4789]\naccept_vnis = [1]",
                "",
                Accepted { vxlan_ports: vec![4789, 8472], vnis: vec![10, 1], ..none.clone() },
            ),
            // A peer that may be reached either way may send either way.
            (
                "accept = []\nencapsulate = \"cross-subnet\"",
                "",
                Accepted { direct: true, direct_from_tunnelled: true, ..vxlan },
            ),
            ("accept = []", "encapsulate = \"never\"", Accepted { direct: true, ..none.clone() }),
            ("accept = []", "encapsulation = \"ipip\"", Accepted { ipip: true, ..none }),
        ] {
            let config = config(overlay, peer);
            assert_eq!(accepted(&config, &Model::new(&config)), expected, "{overlay} {peer}");
        }
    }
}
