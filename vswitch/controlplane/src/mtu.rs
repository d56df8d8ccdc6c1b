//! How long a pod's packet may be: what every peer can be reached with.
//!
//! Enters: the configuration, the model, the uplink's MTU. Leaves: the MTU of pods and of the host
//! port, to `daemon` and `compile`; and why a configuration or a peer cannot work with the uplink's,
//! to `machine`, `requests` and `daemon`. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::{Encapsulation, IPV6_MIN_MTU, PeerSpec, Source};
use dataplane::wire::{ipv4, ipv6};

use crate::compile::encapsulation::{longest, overhead};
use crate::config::Config;
use crate::model::Model;

/// Pods' MTU on a node without an uplink: Ethernet's.
const WITHOUT_UPLINK: u32 = 1500;
// The contract with the plugin and the datapath mean the same packets.
const _: () = assert!(IPV6_MIN_MTU == ipv6::MIN_MTU as u32);

/// MTU of pods' interfaces: what every peer can be reached with, whether it is encapsulated now or
/// may be at the next change of the underlay's routes. Not less than an interface can do with: below
/// 1280 bytes the kernel takes IPv6 from it, with addresses, neighbours and routes, and for good.
#[must_use]
pub fn pod_mtu(config: &Config, model: &Model, uplink_mtu: Option<u32>) -> u32 {
    match (config.overlay.pod_mtu, uplink_mtu) {
        (Some(mtu), _) => mtu,
        (None, None) => WITHOUT_UPLINK,
        (None, Some(uplink_mtu)) => {
            uplink_mtu.saturating_sub(largest_overhead(config, model)).max(least(model))
        }
    }
}

/// What a pod's interface has at least, bytes.
pub fn least(model: &Model) -> u32 {
    if model.pods.has_family(false) { IPV6_MIN_MTU } else { ipv4::MIN_RECEIVED.into() }
}

/// What encapsulation takes at most: of each peer, or of the default while there is none; and that
/// of VXLAN for a stretched bridge.
fn largest_overhead(config: &Config, model: &Model) -> u32 {
    let peers = model.all_peers().map(|peer| (longest(config, peer), peer.address));
    // The underlay of peers to come is what the uplink is configured for.
    let uplink = config.uplink.as_ref();
    let only_v6 =
        uplink.is_some_and(|uplink| uplink.address.is_none() && uplink.address6.is_some());
    let to_come: IpAddr =
        if only_v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    // The kernel may name the first at any moment.
    let may_be_first = model.peers.is_empty() || config.kernel_routes.is_some();
    let usual = may_be_first.then(|| (config.overlay.usual(), to_come));
    let vteps = config.bridge.vteps.iter().map(|vtep| (Encapsulation::Vxlan, *vtep));
    let stretched = config.bridge.vni.map(|_| (Encapsulation::Vxlan, to_come));
    let all = peers.chain(usual).chain(vteps).chain(stretched);
    all.map(|(encapsulation, towards)| overhead(encapsulation, towards)).max().unwrap_or(0)
}

/// What cannot work: the key that is to blame, and a sentence with the numbers.
#[must_use]
pub fn problem(
    config: &Config,
    model: &Model,
    uplink: &str,
    uplink_mtu: u32,
) -> Option<(&'static str, String)> {
    let taken = largest_overhead(config, model);
    let room = uplink_mtu.saturating_sub(taken);
    let of_which = format!("{uplink} carries {uplink_mtu} bytes, of which encapsulation takes");
    let least = least(model);
    match config.overlay.pod_mtu {
        Some(mtu) if mtu > room => {
            Some(("overlay.pod_mtu", format!("{of_which} {taken}: {room} is the most, not {mtu}")))
        }
        None if room < least => Some((
            "uplink.interface",
            format!(
                "{of_which} {taken}: the {room} left are less than the {least} that pods need; raise its MTU"
            ),
        )),
        _ => None,
    }
}

/// Why a peer that comes at run time cannot be reached with the pods' MTU. It is refused rather than
/// the MTU lowered, as that would be every pod's; and not for what is wrong without it already.
#[must_use]
pub fn refuses(
    config: &Config,
    model: &Model,
    uplink: &str,
    uplink_mtu: u32,
    peer: &PeerSpec,
) -> Option<String> {
    if problem(config, model, uplink, uplink_mtu).is_some() {
        return None;
    }
    peer_mtu_problem(config, model, uplink, uplink_mtu, peer)
}

/// As `refuses`, for a node on which nothing is wrong: a question for each of many peers.
#[must_use]
pub fn peer_mtu_problem(
    config: &Config,
    model: &Model,
    uplink: &str,
    uplink_mtu: u32,
    peer: &PeerSpec,
) -> Option<String> {
    // Its encapsulation alone matters.
    let mut with = Model::default();
    with.pods.clone_from(&model.pods);
    let peer = Arc::new(peer.clone());
    with.peers = Arc::new([(peer.name.clone(), (peer, Source::Runtime))].into());
    let (_, message) = problem(config, &with, uplink, uplink_mtu)?;
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::{pod_mtu, problem, refuses};
    use crate::config::Config;
    use crate::model::Model;

    fn config(pods: &str, overlay: &str) -> Config {
        let text = format!(
            "[node]\nname = \"a\"\npod_prefixes = [\"{pods}\"]\ncluster_prefixes = [\"198.18.0.0/16\", \"fd00:18::/32\"]\n\
             [uplink]\ninterface = \"eth0\"\n[overlay]\n{overlay}\n"
        );
        Config::parse("f", &text).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    #[test]
    fn what_may_be_encapsulated_has_room_to_be() {
        for (overlay, uplink_mtu, expected) in [
            ("", Some(1500), 1450),
            ("encapsulation = \"ipip\"", Some(1500), 1480),
            ("encapsulation = \"ipip\"\nencapsulate = \"cross-subnet\"", Some(1500), 1480),
            ("encapsulate = \"cross-subnet\"", Some(1500), 1450),
            ("encapsulate = \"never\"", Some(1500), 1500),
            ("encapsulation = \"direct\"", Some(9000), 9000),
            ("pod_mtu = 1400", Some(1500), 1400),
            ("", None, 1500),
        ] {
            let config = config("198.18.1.0/24", overlay);
            assert_eq!(pod_mtu(&config, &Model::new(&config), uplink_mtu), expected, "{overlay}");
        }
    }

    #[test]
    fn no_interface_gets_less_than_it_can_do_with() {
        for (pods, expected) in [("fd00:18:1::/64", 1280), ("198.18.1.0/24", 1250)] {
            let config = config(pods, "");
            assert_eq!(pod_mtu(&config, &Model::new(&config), Some(1300)), expected, "{pods}");
        }
    }

    #[test]
    fn what_the_underlay_cannot_carry_has_a_sentence() {
        for (pods, overlay, uplink_mtu, expected) in [
            ("fd00:18:1::/64", "pod_mtu = 1450", 1500, None),
            (
                "fd00:18:1::/64",
                "pod_mtu = 1451",
                1500,
                Some(
                    "eth0 carries 1500 bytes, of which encapsulation takes 50: 1450 is the most, not 1451",
                ),
            ),
            ("fd00:18:1::/64", "pod_mtu = 1451\nencapsulate = \"never\"", 1500, None),
            ("fd00:18:1::/64", "", 1330, None),
            (
                "fd00:18:1::/64",
                "",
                1329,
                Some(
                    "eth0 carries 1329 bytes, of which encapsulation takes 50: the 1279 left are less than the 1280 that pods need; raise its MTU",
                ),
            ),
            ("198.18.1.0/24", "", 1329, None),
            (
                "198.18.1.0/24",
                "encapsulate = \"cross-subnet\"",
                600,
                Some(
                    "eth0 carries 600 bytes, of which encapsulation takes 50: the 550 left are less than the 576 that pods need; raise its MTU",
                ),
            ),
        ] {
            let config = config(pods, overlay);
            let found = problem(&config, &Model::new(&config), "eth0", uplink_mtu);
            assert_eq!(found.map(|(_, text)| text).as_deref(), expected, "{overlay} {uplink_mtu}");
        }
    }

    #[test]
    fn a_peer_is_refused_for_its_own_encapsulation_alone() {
        let config = config("198.18.1.0/24", "encapsulation = \"ipip\"\npod_mtu = 1480");
        let model = Model::new(&config);
        let mut peer = api::PeerSpec {
            name: "b".into(),
            address: [198, 51, 100, 12].into(),
            prefixes: vec!["198.18.2.0/24".parse().expect("a prefix")],
            encapsulation: None,
            encapsulate: None,
            vtep_mac: None,
        };
        assert_eq!(refuses(&config, &model, "eth0", 1500, &peer), None);
        peer.encapsulation = Some(api::Encapsulation::Vxlan);
        let refusal = refuses(&config, &model, "eth0", 1500, &peer);
        assert_eq!(
            refusal.as_deref(),
            Some(
                "eth0 carries 1500 bytes, of which encapsulation takes 50: 1450 is the most, not 1480"
            )
        );
        peer.address = "2001:db8::12".parse().expect("an address");
        let refusal = refuses(&config, &model, "eth0", 1540, &peer).expect("of IPv6");
        assert!(refusal.contains("encapsulation takes 70: 1470 is the most"), "{refusal}");
        peer.encapsulate = Some(api::Encapsulate::Never);
        assert_eq!(refuses(&config, &model, "eth0", 1500, &peer), None);
        // The uplink shrank: no peer is to blame.
        assert_eq!(refuses(&config, &model, "eth0", 1400, &peer), None);
    }
}
