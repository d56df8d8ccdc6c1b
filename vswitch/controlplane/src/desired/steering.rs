//! What is taken from the NIC; everything else stays the kernel's.
//!
//! Enters: the configuration, the model, this node's underlay addresses. Leaves: a [`Steering`], of
//! which `vswitchd` makes the XDP program and its maps.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane::tables::LocalAddresses;
use ipnet::IpNet;

use crate::compile::encapsulation::{accepted, tunnel_ends};
use crate::config::Config;
use crate::model::Model;

/// What is taken from the NIC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steering {
    /// The node's addresses in the underlay, to which tunnel packets come.
    pub local: Vec<IpAddr>,
    /// The UDP ports of VXLAN: several while the nodes change from one to another.
    pub vxlan_ports: Vec<u16>,
    /// IPIP from the peers is taken: protocol 4, and 41 for IPv6 in IPv4.
    pub ipip: bool,
    /// The underlay addresses of the other tunnel ends.
    pub peers: BTreeSet<IpAddr>,
    /// The node's pod prefixes, for packets that come without a tunnel.
    pub prefixes: Vec<IpNet>,
    /// Requests for the MAC of an address in `prefixes` are taken.
    pub neighbors: bool,
}

impl Steering {
    /// No more than what is accepted by the tables of this model.
    #[must_use]
    pub fn of(config: &Config, model: &Model, own: LocalAddresses) -> Self {
        let accepted = accepted(config, model);
        let mut steering = Self {
            local: own.iter().collect(),
            vxlan_ports: accepted.vxlan_ports,
            ipip: accepted.ipip,
            peers: tunnel_ends(config, model).collect(),
            ..Self::default()
        };
        if accepted.direct {
            steering.neighbors =
                config.uplink.as_ref().is_some_and(|uplink| uplink.proxy_neighbors);
            steering.prefixes = model.pods.all().copied().collect();
        }
        steering
    }

    /// Whether both take packets of the same kinds: peers are no kind.
    #[must_use]
    pub fn is_same_kind(&self, other: &Self) -> bool {
        let Self { local, vxlan_ports, ipip, peers: _, prefixes, neighbors } = self;
        (local, vxlan_ports, prefixes) == (&other.local, &other.vxlan_ports, &other.prefixes)
            && (*ipip, *neighbors) == (other.ipip, other.neighbors)
    }

    /// What either takes.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        fn all<T: Clone + PartialEq>(a: &[T], b: &[T]) -> Vec<T> {
            let more = b.iter().filter(|one| !a.contains(one));
            a.iter().chain(more).cloned().collect()
        }
        Self {
            local: all(&self.local, &other.local),
            vxlan_ports: all(&self.vxlan_ports, &other.vxlan_ports),
            ipip: self.ipip || other.ipip,
            peers: self.peers.union(&other.peers).copied().collect(),
            prefixes: all(&self.prefixes, &other.prefixes),
            neighbors: self.neighbors || other.neighbors,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::Steering;
    use crate::config::Config;
    use crate::kernel::{Hop, Judgement, Way};
    use crate::model::Model;

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 11));

    fn steering(config: &Config, model: &Model) -> Steering {
        Steering::of(config, model, OWN.into())
    }

    #[test]
    fn only_what_is_spoken_is_taken_from_the_nic() {
        let pods = "198.18.1.0/24".parse().expect("a prefix");
        let none = Steering { local: vec![OWN], ..Steering::default() };
        for (encapsulation, expected) in [
            ("vxlan", Steering { vxlan_ports: vec![4789], ..none.clone() }),
            ("ipip", Steering { ipip: true, ..none.clone() }),
            ("direct", Steering { prefixes: vec![pods], ..none.clone() }),
        ] {
            let text = format!(
                "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n[uplink]\ninterface = \"eth0\"\n[overlay]\nencapsulation = \"{encapsulation}\"\n"
            );
            let config = Config::parse("f", &text).expect("valid");
            assert_eq!(steering(&config, &Model::new(&config)), expected);
        }
    }

    #[test]
    fn every_other_end_is_taken_from_whichever_source_names_it() {
        let text = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n[uplink]\ninterface = \"eth0\"\n[bridge]\nvni = 20\nvteps = [\"203.0.113.13\"]\n[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\n";
        let config = Config::parse("f", text).unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut model = Model::new(&config);
        let ends = |model: &Model| {
            steering(&config, model).peers.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(ends(&model), ["203.0.113.12", "203.0.113.13"]);
        let hop = Hop { gateway: [203, 0, 113, 14].into(), weight: 1, overlay: true };
        let way = Judgement::Take(Way::Hops(vec![hop]));
        model.kernel.set("198.18.4.0/24".parse().expect("a prefix"), Some(way));
        assert_eq!(ends(&model), ["203.0.113.12", "203.0.113.13", "203.0.113.14"]);
        model.peers = Arc::default();
        assert_eq!(ends(&model), ["203.0.113.13", "203.0.113.14"]);
    }

    #[test]
    fn a_peer_is_no_other_kind_of_packet() {
        let one = Steering { ipip: true, ..Steering::default() };
        let more = Steering { peers: [[203, 0, 113, 12].into()].into(), ..one.clone() };
        assert!(more.is_same_kind(&one));
        assert!(one.union(&more).is_same_kind(&one));
        assert_eq!(one.union(&more), more);
        let vxlan = Steering { vxlan_ports: vec![4789], ..Steering::default() };
        assert!(!more.union(&vxlan).is_same_kind(&more));
    }
}
