//! Opens the NIC, and says which of its packets are this node's.
//!
//! Enters: the configuration and the machine's facts. Leaves: queues for the workers, and every
//! choice with its reason. The NIC itself stays Linux's.

use netio::pinhole::{AttachMode, AttachWish, Steering};
use netio::uplink::{Tx, UplinkConfig, UplinkControl, UplinkQueue};

use crate::error::{Error, Result};
use crate::machine::Facts;
use controlplane::compile::encapsulation::{heard, tunnel_ends};
use controlplane::config::{self, Config, Xdp};
use controlplane::model::Model;

/// The NIC, opened. Dropping it gives everything back to Linux.
pub struct Uplink {
    control: UplinkControl,
    steering: Steering,
    /// What the machine says of it.
    pub facts: Facts,
}

impl Uplink {
    /// Takes the NIC's packets that are this node's; with it come its queues, in their order.
    ///
    /// # Errors
    /// If somebody else has the NIC's XDP hook or one of its queues, or the kernel refuses.
    pub fn open(
        uplink: &config::Uplink,
        config: &Config,
        model: &Model,
        facts: Facts,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let steering = steering(config, model, &facts);
        let nic = UplinkConfig {
            interface: &uplink.interface,
            ifindex: facts.link.index,
            queues: facts.queues,
            attach: match uplink.xdp {
                Xdp::Auto | Xdp::Native => AttachWish::NativeThenGeneric,
                Xdp::Generic => AttachWish::Generic,
            },
            zero_copy: uplink.zero_copy,
        };
        let (control, queues) = UplinkControl::open(&nic, &steering)
            .map_err(|source| Error::Uplink { interface: uplink.interface.clone(), source })?;
        match control.xdp_mode() {
            Some(mode) if uplink.xdp == Xdp::Native && *mode != AttachMode::Native => {
                let mode = mode.to_string();
                Err(Error::NotNative { interface: uplink.interface.clone(), mode })
            }
            _ => Ok((Self { control, steering, facts }, queues)),
        }
    }

    /// The kind of uplink, and the modes that it runs in.
    #[must_use]
    pub fn control(&self) -> &UplinkControl {
        &self.control
    }

    /// A transmit handle for a worker that owns no queue.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn extra_tx(&self) -> netio::Result<Tx> {
        self.control.extra_tx()
    }

    /// What the model needs from the NIC.
    #[must_use]
    pub fn wanted(&self, config: &Config, model: &Model) -> Steering {
        steering(config, model, &self.facts)
    }

    /// Whether packets are wanted of a kind that is not taken yet, whoever sends them.
    #[must_use]
    pub fn lacks(&self, wanted: &Steering) -> bool {
        !union(&self.steering, wanted).is_same_program(&self.steering)
    }

    /// Takes from the NIC what is wanted, beside what was taken before: for tables that take both.
    ///
    /// # Errors
    /// If the kernel refuses; what was taken before is taken still.
    pub fn widen(&mut self, wanted: &Steering) -> netio::Result<()> {
        self.steer(union(&self.steering, wanted))
    }

    /// Takes from the NIC what is wanted and no more.
    ///
    /// # Errors
    /// As for `widen`.
    pub fn narrow(&mut self, wanted: Steering) -> netio::Result<()> {
        self.steer(wanted)
    }

    fn steer(&mut self, wanted: Steering) -> netio::Result<()> {
        if wanted != self.steering {
            self.control.steer(&wanted)?;
            self.steering = wanted;
        }
        Ok(())
    }

    /// For the log and `status`.
    #[must_use]
    pub fn choices(&self) -> Vec<String> {
        let (facts, name) = (&self.facts, &self.facts.link.name);
        let driver = if facts.driver.is_empty() { "unknown" } else { &facts.driver };
        let own: Vec<_> = facts.addresses.iter().map(|own| own.to_string()).collect();
        let mut choices = vec![format!(
            "uplink {name}: driver {driver}, MTU {}, {}",
            facts.mtu,
            if own.is_empty() {
                "no underlay address yet".to_owned()
            } else {
                format!("underlay address {}", own.join(", "))
            }
        )];
        let own = self.control.choices();
        choices.extend(own.into_iter().map(|choice| format!("uplink {name}: {choice}")));
        choices
    }
}

/// What is ours on the wire: no more than what is heard.
fn steering(config: &Config, model: &Model, facts: &Facts) -> Steering {
    let heard = heard(config, model);
    let mut steering = Steering {
        local: facts.addresses.iter().collect(),
        vxlan_ports: heard.vxlan_ports,
        ipip: heard.ipip,
        peers: tunnel_ends(config, model).collect(),
        ..Steering::default()
    };
    if heard.direct {
        steering.neighbors = config.uplink.as_ref().is_some_and(|uplink| uplink.proxy_neighbors);
        let prefixes = model.pods.all();
        steering.prefixes =
            prefixes.map(|prefix| (prefix.network(), prefix.prefix_len())).collect();
    }
    steering
}

/// What either takes.
fn union(a: &Steering, b: &Steering) -> Steering {
    fn all<T: Clone + PartialEq>(a: &[T], b: &[T]) -> Vec<T> {
        let more = b.iter().filter(|one| !a.contains(one));
        a.iter().chain(more).cloned().collect()
    }
    Steering {
        local: all(&a.local, &b.local),
        vxlan_ports: all(&a.vxlan_ports, &b.vxlan_ports),
        ipip: a.ipip || b.ipip,
        peers: a.peers.union(&b.peers).copied().collect(),
        prefixes: all(&a.prefixes, &b.prefixes),
        neighbors: a.neighbors || b.neighbors,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use netio::pinhole::Steering;
    use netlink::Link;

    use super::{steering, union};
    use crate::machine::Facts;
    use controlplane::config::Config;
    use controlplane::kernel::{Hop, Judgement, Way};
    use controlplane::model::Model;

    fn facts() -> Facts {
        Facts {
            link: Link::default(),
            mac: [2; 6],
            addresses: IpAddr::from([198, 51, 100, 11]).into(),
            mtu: 1500,
            queues: 1,
            driver: String::new(),
            warnings: Vec::new(),
            awaited: Vec::new(),
        }
    }

    #[test]
    fn only_what_is_spoken_is_taken_from_the_nic() {
        let facts = facts();
        let pods = ("198.18.1.0".parse().expect("an address"), 24);
        let local = facts.addresses.iter().collect();
        let none = Steering { local, ..Steering::default() };
        for (encapsulation, expected) in [
            ("vxlan", Steering { vxlan_ports: vec![4789], ..none.clone() }),
            ("ipip", Steering { ipip: true, ..none.clone() }),
            ("direct", Steering { prefixes: vec![pods], ..none.clone() }),
        ] {
            let text = format!(
                "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n[uplink]\ninterface = \"eth0\"\n[overlay]\nencapsulation = \"{encapsulation}\"\n"
            );
            let config = Config::parse("f", &text).expect("valid");
            assert_eq!(steering(&config, &Model::new(&config), &facts), expected);
        }
    }

    #[test]
    fn every_other_end_is_a_peer_of_the_pinhole_whoever_names_it() {
        let text = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n[uplink]\ninterface = \"eth0\"\n[bridge]\nvni = 20\nvteps = [\"203.0.113.13\"]\n[[peers]]\nname = \"b\"\naddress = \"203.0.113.12\"\nprefixes = [\"198.18.2.0/24\"]\n";
        let config = Config::parse("f", text).unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut model = Model::new(&config);
        let ends = |model: &Model| {
            steering(&config, model, &facts())
                .peers
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
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
        assert!(more.is_same_program(&one));
        assert!(union(&one, &more).is_same_program(&one));
        assert_eq!(union(&one, &more), more);
        let vxlan = Steering { vxlan_ports: vec![4789], ..Steering::default() };
        assert!(!union(&more, &vxlan).is_same_program(&more));
    }
}
