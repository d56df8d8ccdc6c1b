//! Tables from configurations and models, judged by what they have for addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{AttachmentId, Bandwidth, Mode, RateLimit, Reserve};
use dataplane::rate::Limit;
use dataplane::tables::{
    Adjacency, Attachment, BridgeId, Domain, Encap, Epoch, FdbTarget, LocalAddresses, Offloads,
    OuterDf, PortId, Tables, VtepId,
};
use dataplane::wire::{MacAddr, Vni};

use super::{HostPort, Input, PodPort, UplinkPort, compile, pod_mtu};
use crate::config::Config;
use crate::model::{Edit, Model};
use crate::next_hop::NextHop;
use crate::path_mtu::PathMtus;

const CONFIG: &str = r#"
[node]
name = "a"
pod_prefixes = ["198.18.1.0/24", "fd00:18:1::/64"]
cluster_prefixes = ["198.18.0.0/16", "fd00:18::/32"]
[uplink]
interface = "eth0"
[bridge]
vni = 20
vteps = ["198.51.100.12"]
[[peers]]
name = "b"
address = "203.0.113.12"
prefixes = ["198.18.2.0/24", "fd00:18:2::/64"]
[[peers]]
name = "c"
address = "203.0.113.13"
prefixes = ["198.18.3.0/24"]
encapsulation = "ipip"
[[routes.static]]
prefix = "198.18.50.0/24"
to = "peer"
name = "c"
[[routes.static]]
prefix = "203.0.113.192/26"
to = "blackhole"
"#;

pub(super) const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const NIC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

pub(super) struct Node {
    pub(super) config: Config,
    pub(super) model: Model,
    pub(super) pods: BTreeMap<AttachmentId, PodPort>,
    pub(super) host: Option<HostPort>,
    uplink: Option<UplinkPort>,
    pub(super) next_hops: BTreeMap<IpAddr, NextHop>,
    pub(super) path_mtus: PathMtus,
}

impl Node {
    pub(super) fn new(text: &str) -> Self {
        let config = Config::parse("f", text).expect("valid");
        let host = HostPort {
            id: PortId(0),
            mac: MacAddr([2, 0, 0, 0, 0, 3]),
            mtu: 1450,
            offloads: Offloads { checksum: true, tso: true, uso: true, vxlan: false },
        };
        let uplink = UplinkPort {
            id: PortId(1),
            mac: NIC,
            addresses: IpAddr::from([198, 51, 100, 11]).into(),
            mtu: 1500,
            offloads: Offloads::default(),
        };
        let next_hops = ["203.0.113.12", "203.0.113.13", "198.51.100.12"]
            .map(|address| (address.parse().expect("an address"), NextHop::resolved(ROUTER)));
        Self {
            model: Model::new(&config),
            config,
            pods: BTreeMap::new(),
            host: Some(host),
            uplink: Some(uplink),
            next_hops: next_hops.into(),
            path_mtus: PathMtus::default(),
        }
    }

    pub(super) fn plug(&mut self, container: &str, mode: Mode, port: u16) -> AttachmentId {
        let attachment = AttachmentId { container_id: container.into(), ifname: "eth0".into() };
        let request = Reserve {
            attachment: attachment.clone(),
            network: None,
            pod: None,
            container_name: None,
            netns: String::new(),
            mode: Some(mode),
            delegated: None,
            requested: Vec::new(),
            ranges: Vec::new(),
            mac: None,
            port_mappings: Vec::new(),
            bandwidth: Bandwidth::default(),
            queues: 1,
        };
        let (edits, _) = self.model.reserve(&self.config, &request, 1450, false).expect("free");
        self.model.apply_all(&edits);
        self.pods.insert(
            attachment.clone(),
            PodPort { id: PortId(port), offloads: Offloads::default() },
        );
        attachment
    }

    pub(super) fn tables(&self) -> Tables {
        self.with_input(compile)
    }

    pub(super) fn with_input<T>(&self, call: impl FnOnce(&Input<'_>) -> T) -> T {
        call(&Input {
            config: &self.config,
            model: &self.model,
            pods: &self.pods,
            host: self.host.as_ref(),
            uplink: self.uplink.as_ref(),
            next_hops: &self.next_hops,
            path_mtus: &self.path_mtus,
            epoch: Epoch(7),
        })
    }
}

pub(super) fn route<'t>(tables: &'t Tables, address: &str) -> Option<&'t Adjacency> {
    let address: IpAddr = address.parse().expect("an address");
    tables.route(address).map(|id| tables.adjacency(id).expect("made with its route"))
}

/// Superframes are cut where one would be more than 10 ms of the rate.
#[test]
fn a_pods_limits_are_its_ports_seen_from_the_other_side() {
    let mut node = Node::new(CONFIG);
    let attachment = node.plug("c1", Mode::Routed, 5);
    let all = Offloads { checksum: true, tso: true, uso: true, vxlan: false };
    node.pods.get_mut(&attachment).expect("plugged").offloads = all;
    let rate = |bits_per_second| RateLimit { bits_per_second, burst_bits: Some((1 << 31) - 1) };
    let mut limited = |ingress, egress| {
        let lease = node.model.attachments.get_mut(&attachment).expect("leased");
        lease.bandwidth = Bandwidth { ingress, egress };
        let tables = node.tables();
        let port = tables.port(PortId(5)).expect("attached");
        (port.rx_limit, port.tx_limit, port.offloads)
    };
    let limit = |bits_per_second| Some(Limit::new(bits_per_second, None));
    assert_eq!(limited(None, None), (None, None, all));
    let (slow, fast) = (rate(20_000_000), rate(1_000_000_000));
    assert_eq!(limited(None, Some(slow)), (limit(20_000_000), None, all));
    assert_eq!(limited(Some(fast), None), (None, limit(1_000_000_000), all));
    let cut = Offloads { tso: false, uso: false, ..all };
    assert_eq!(limited(Some(slow), None), (None, limit(20_000_000), cut));
}

#[test]
fn rates_that_are_asked_for_are_those_that_can_be_kept() {
    assert_eq!(RateLimit::RATES, Limit::RATES);
}

#[test]
fn a_pods_addresses_lead_to_its_port() {
    let mut node = Node::new(CONFIG);
    let attachment = node.plug("c1", Mode::Routed, 5);
    let tables = node.tables();
    assert_eq!(tables.epoch, Epoch(7));
    for address in ["198.18.1.2", "fd00:18:1::2"] {
        let Some(Adjacency::Port { port, template, mtu }) = route(&tables, address) else {
            panic!("{address}: {:?}", route(&tables, address));
        };
        assert_eq!((*port, *mtu), (PortId(5), 1450));
        assert_eq!(template.destination().0, node.model.attachments[&attachment].mac.0);
    }
    let port = tables.port(PortId(5)).expect("attached");
    assert_eq!(port.attachment, Attachment::Routed);
    assert_eq!(port.addresses.len(), 2);
    // Its port gone, no pod has the address.
    node.pods.clear();
    let tables = node.tables();
    assert_eq!(route(&tables, "198.18.1.2"), Some(&Adjacency::Unreachable));
    assert!(tables.port(PortId(5)).is_none());
}

#[test]
fn every_address_of_the_cluster_has_its_place_and_the_rest_is_the_hosts() {
    let tables = Node::new(CONFIG).tables();
    let masquerade = ["198.18.1.254", "fd00:18:1:0:ffff:ffff:ffff:ffff"];
    assert_eq!(tables.gateway.masquerade_v4, masquerade[0].parse().ok());
    assert_eq!(tables.gateway.masquerade_v6, masquerade[1].parse().ok());
    for gateway in ["198.18.1.1", "fd00:18:1::1"].into_iter().chain(masquerade) {
        assert!(
            matches!(
                route(&tables, gateway),
                Some(Adjacency::Gateway { host: Some(PortId(0)), .. })
            ),
            "{gateway}"
        );
    }
    for nobody in ["198.18.1.9", "198.18.77.1", "fd00:18:1::9", "fd00:18:77::1"] {
        assert_eq!(route(&tables, nobody), Some(&Adjacency::Unreachable), "{nobody}");
    }
    for outside in ["203.0.113.1", "2001:db8::1"] {
        assert!(
            matches!(route(&tables, outside), Some(Adjacency::Port { port: PortId(0), .. })),
            "{outside}"
        );
    }
    assert_eq!(route(&tables, "203.0.113.193"), Some(&Adjacency::Blackhole));
}

#[test]
fn the_gateway_of_a_former_prefix_is_one_as_long_as_a_pod_uses_it() {
    let text = CONFIG.replace("pod_prefixes = [\"198.18.1.0/24\", \"fd00:18:1::/64\"]\n", "");
    let mut node = Node::new(&text);
    let set = |node: &mut Node, prefixes: [&str; 2]| {
        let prefixes = prefixes.map(|prefix| prefix.parse().expect("a prefix"));
        let edits = node.model.set_pod_prefixes(&node.config, &prefixes).expect("free");
        node.model.apply_all(&edits);
    };
    set(&mut node, ["198.18.1.0/24", "fd00:18:1::/64"]);
    let attachment = node.plug("c1", Mode::Bridged { bridge: None }, 5);
    set(&mut node, ["198.18.7.0/24", "fd00:18:7::/64"]);
    let judge =
        |node: &Node, address: &str| node.tables().is_gateway(address.parse().expect("an address"));
    for address in ["198.18.1.1", "fd00:18:1::1", "198.18.7.1", "fd00:18:7::1", "198.18.7.254"] {
        assert!(judge(&node, address), "{address}");
    }
    // The kernel masquerades by an address of the current one alone.
    for nobody in ["198.18.1.254", "198.18.1.2", "198.18.7.2", "fd00:18:7::2", "203.0.113.1"] {
        assert!(!judge(&node, nobody), "{nobody}");
    }
    let gateway = node.tables().gateway;
    assert_eq!(gateway.v4, Some([198, 18, 7, 1].into()));
    assert_eq!(gateway.v6, Some("fd00:18:7::1".parse().expect("an address")));
    let edits = node.model.detach(&attachment);
    node.model.apply_all(&edits);
    node.pods.clear();
    for (address, expected) in [("198.18.1.1", false), ("198.18.7.1", true)] {
        assert_eq!(judge(&node, address), expected, "{address}");
    }
}

#[test]
fn without_host_and_uplink_only_own_pods_are_reached() {
    let mut node = Node::new(CONFIG);
    (node.host, node.uplink) = (None, None);
    let tables = node.tables();
    assert_eq!(route(&tables, "203.0.113.1"), None);
    assert_eq!(route(&tables, "198.18.2.5"), Some(&Adjacency::Unreachable));
    assert!(matches!(route(&tables, "198.18.1.1"), Some(Adjacency::Gateway { host: None, .. })));
    assert_eq!(tables.tunnels.local, LocalAddresses::default());
}

#[test]
fn a_peers_template_is_its_encapsulation() {
    let tables = Node::new(CONFIG).tables();
    for (address, encap, len, expected_mtu) in [
        ("198.18.2.5", Encap::VxlanRouted, 64, 1450),
        ("fd00:18:2::5", Encap::VxlanRouted, 64, 1450),
        ("198.18.3.5", Encap::Ipip, 34, 1480),
        ("198.18.50.5", Encap::Ipip, 34, 1480),
    ] {
        let Some(Adjacency::Remote { port: PortId(1), template: Some(template), mtu }) =
            route(&tables, address)
        else {
            panic!("{address}: {:?}", route(&tables, address));
        };
        assert_eq!((template.encap(), template.bytes().len(), *mtu), (encap, len, expected_mtu));
        assert_eq!(template.bytes()[..6], ROUTER.0);
        assert_eq!(template.bytes()[6..12], NIC.0);
    }
    // Both families of one peer share one next hop.
    let addresses =
        ["198.18.2.5", "fd00:18:2::5"].map(|text| tables.route(text.parse().expect("an address")));
    assert_eq!(addresses[0], addresses[1]);
}

#[test]
fn direct_peers_get_ethernet_alone() {
    let text = CONFIG.replace("encapsulation = \"ipip\"", "encapsulation = \"direct\"");
    let tables = Node::new(&text).tables();
    let Some(Adjacency::Remote { template: Some(template), mtu: 1500, .. }) =
        route(&tables, "198.18.3.5")
    else {
        panic!("{:?}", route(&tables, "198.18.3.5"));
    };
    assert_eq!((template.encap(), template.bytes().len()), (Encap::None, 14));
    assert!(tables.tunnels.direct);
}

#[test]
fn direct_peers_own_addresses_are_reached_past_the_kernel() {
    let text = CONFIG.replace("encapsulation = \"ipip\"", "encapsulation = \"direct\"");
    let tables = Node::new(&text).tables();
    // The one of a tunnel is the world's, as is an address that no node has.
    for address in ["203.0.113.12", "203.0.113.14"] {
        assert!(matches!(route(&tables, address), Some(Adjacency::Port { port: PortId(0), .. })));
    }
    let Some(Adjacency::Remote { template: Some(template), .. }) = route(&tables, "203.0.113.13")
    else {
        panic!("no route to peer c's own address")
    };
    assert_eq!(template.encap(), Encap::None);
    // A route that names where nodes are to be reached is obeyed.
    let text = text.replace("203.0.113.192/26", "203.0.113.0/24");
    let tables = Node::new(&text).tables();
    assert!(matches!(route(&tables, "203.0.113.13"), Some(Adjacency::Blackhole)));
}

#[test]
fn an_unresolved_next_hop_leaves_no_template() {
    let mut node = Node::new(CONFIG);
    node.next_hops.clear();
    let tables = node.tables();
    assert!(matches!(route(&tables, "198.18.2.5"), Some(Adjacency::Remote { template: None, .. })));
    assert!(tables.bridges[0].vteps[0].template.is_none());
}

#[test]
fn what_is_heard_from_whom() {
    let tunnels = Node::new(CONFIG).tables().tunnels;
    assert_eq!((tunnels.vxlan_port, tunnels.ipip, tunnels.direct), (Some(4789), true, true));
    assert_eq!(tunnels.vtep_mac, MacAddr([2, 0x76, 198, 51, 100, 11]));
    assert_eq!(tunnels.vnis.get(&Vni::new(10).expect("24 bits")), Some(&Domain::Routed));
    assert_eq!(
        tunnels.vnis.get(&Vni::new(20).expect("24 bits")),
        Some(&Domain::Bridged(BridgeId(0)))
    );
    let has = |peer: &str, inner: &str| {
        let (_, peer) = tunnels.peer_at(peer.parse().expect("an address")).expect("known");
        peer.has(inner.parse().expect("an address"))
    };
    assert!(has("203.0.113.12", "fd00:18:2::5") && !has("203.0.113.12", "198.18.3.5"));
    // What is routed to it may come from it.
    assert!(has("203.0.113.13", "198.18.50.5"));
    // A VTEP of the bridge has no prefix at all.
    assert!(!has("198.51.100.12", "198.18.1.5"));
}

#[test]
fn segments_are_clamped_where_that_is_configured() {
    assert!(!Node::new(CONFIG).tables().tunnels.clamp_mss);
    let text = format!("{CONFIG}[overlay]\nclamp_mss = true\n");
    assert!(Node::new(&text).tables().tunnels.clamp_mss);
}

#[test]
fn the_underlays_routers_may_cut_where_that_is_configured() {
    for (overlay, expected) in [
        ("", OuterDf::Set),
        ("[overlay]\nouter_df = \"clear\"\n", OuterDf::Clear),
        ("[overlay]\nouter_df = \"inherit\"\n", OuterDf::Inherit),
    ] {
        let tables = Node::new(&format!("{CONFIG}{overlay}")).tables();
        // By VXLAN, and by IPIP.
        for pod in ["198.18.2.5", "198.18.3.5"] {
            let Some(Adjacency::Remote { template: Some(template), .. }) = route(&tables, pod)
            else {
                panic!("{pod}: {:?}", route(&tables, pod));
            };
            assert_eq!(template.outer_df(), expected, "{pod}");
        }
        let vtep = tables.bridges[0].vteps[0].template;
        assert_eq!(vtep.map(|template| template.outer_df()), Some(expected));
    }
}

#[test]
fn bridged_pods_are_members_with_known_macs() {
    let mut node = Node::new(CONFIG);
    let first = node.plug("c1", Mode::Bridged { bridge: None }, 9);
    node.plug("c2", Mode::Bridged { bridge: None }, 4);
    node.plug("c3", Mode::Routed, 5);
    let remote = api::Mac([2, 0, 0, 0, 9, 9]);
    node.model.apply_all(&[
        Edit::Fdb {
            bridge: "default".into(),
            mac: remote,
            vtep: "198.51.100.12".parse().expect("an address"),
        },
        Edit::Neighbor {
            bridge: "default".into(),
            address: "198.18.1.200".parse().expect("an address"),
            mac: remote,
        },
    ]);
    let tables = node.tables();
    let bridge = &tables.bridges[0];
    assert_eq!(bridge.members, [PortId(4), PortId(9)]);
    let mac = MacAddr(node.model.attachments[&first].mac.0);
    assert_eq!(bridge.fdb.get(&mac), Some(&FdbTarget::Port(PortId(9))));
    // Forwarding looks for no other place of a member's own MAC.
    for member in &bridge.members {
        let mac = tables.port(*member).expect("attached").mac;
        assert_eq!(bridge.fdb.get(&mac), Some(&FdbTarget::Port(*member)));
    }
    assert_eq!(bridge.fdb.get(&MacAddr(remote.0)), Some(&FdbTarget::Vtep(VtepId(0))));
    assert_eq!(bridge.vteps[0].template.as_ref().map(|template| template.bytes().len()), Some(50));
    assert!(matches!(
        route(&tables, "198.18.1.200"),
        Some(Adjacency::Bridged { bridge: BridgeId(0), .. })
    ));
}

#[test]
fn the_pods_mtu_suits_every_peer() {
    let node = Node::new(CONFIG);
    assert_eq!(pod_mtu(&node.config, &node.model, Some(1500)), 1450);
    let plain = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\"]\ncluster_prefixes = [\"198.18.0.0/16\"]\n[uplink]\ninterface = \"eth0\"\n[overlay]\nencapsulation = ";
    for (overlay, uplink, expected) in [
        ("\"vxlan\"", Some(1500), 1450),
        ("\"ipip\"", Some(1500), 1480),
        ("\"direct\"", Some(9000), 9000),
        ("\"vxlan\"\npod_mtu = 1400", Some(1500), 1400),
        ("\"vxlan\"", None, 1500),
    ] {
        let config = Config::parse("f", &format!("{plain}{overlay}\n")).expect("valid");
        assert_eq!(pod_mtu(&config, &Model::new(&config), uplink), expected, "{overlay}");
    }
}

#[test]
fn each_peer_is_reached_by_an_address_of_its_own_family() {
    let text = CONFIG
        .replace("[uplink]", "[uplink]\nproxy_neighbors = true")
        .replace("vteps = [\"198.51.100.12\"]", "vteps = [\"198.51.100.12\", \"2001:db8:2::13\"]")
        + "[[peers]]\nname = \"d\"\naddress = \"2001:db8:2::12\"\nprefixes = [\"198.18.4.0/24\", \"fd00:18:4::/64\"]\n";
    let mut node = Node::new(&text);
    let uplink = node.uplink.as_mut().expect("given");
    uplink.addresses.v6 = Some("2001:db8:1::11".parse().expect("an address"));
    for address in ["2001:db8:2::12", "2001:db8:2::13"] {
        node.next_hops.insert(address.parse().expect("an address"), NextHop::resolved(ROUTER));
    }
    let tables = node.tables();
    for (inner, over_v6, expected) in [("198.18.2.5", false, 1450), ("198.18.4.5", true, 1430)] {
        let Some(Adjacency::Remote { template: Some(template), mtu, .. }) = route(&tables, inner)
        else {
            panic!("{inner}: {:?}", route(&tables, inner));
        };
        assert_eq!((template.is_over_v6(), *mtu), (over_v6, expected), "{inner}");
    }
    let vteps: Vec<_> = tables.bridges[0].vteps.iter().map(|vtep| vtep.mtu).collect();
    assert_eq!(vteps, [1450, 1430]);
    let tunnels = &tables.tunnels;
    assert!(tunnels.proxy_neighbors && tunnels.zero_checksum6);
    let derived = |own: &str| -> MacAddr {
        dataplane::tables::Tunnels::derived_vtep_mac(own.parse::<IpAddr>().expect("an address"))
    };
    assert_eq!(tunnels.vtep_mac, derived("198.51.100.11"));
    assert_eq!(tunnels.vtep_mac6, derived("2001:db8:1::11"));
    assert_eq!(pod_mtu(&node.config, &node.model, Some(1500)), 1430);

    // Without an address of its family a peer is not reached.
    node.uplink.as_mut().expect("given").addresses.v6 = None;
    let tables = node.tables();
    assert!(matches!(route(&tables, "198.18.4.5"), Some(Adjacency::Remote { template: None, .. })));
}

#[test]
fn what_the_kernels_route_says_lowers_that_way_with_a_tunnel_or_without() {
    let mtus = |node: &Node| {
        ["203.0.113.12", "203.0.113.13"].map(|address| {
            let peer = node.model.all_peers().find(|peer| peer.address.to_string() == address);
            node.with_input(|input| input.peer_mtu(peer.expect("configured")).expect("an uplink"))
        })
    };
    let narrow = |node: &mut Node, mtu| {
        for hop in node.next_hops.values_mut() {
            hop.mtu = Some(mtu);
        }
    };
    let mut node = Node::new(CONFIG);
    narrow(&mut node, 9000);
    assert_eq!(mtus(&node), [1450, 1480]);
    narrow(&mut node, 1400);
    assert_eq!(mtus(&node), [1350, 1380]);
    assert!(matches!(
        route(&node.tables(), "198.18.2.5"),
        Some(Adjacency::Remote { mtu: 1350, .. })
    ));
    assert_eq!(node.tables().bridges[0].vteps[0].mtu, 1350);
    // The smallest of all that are reported.
    let said = dataplane::PathMtu { address: [203, 0, 113, 12].into(), mtu: 1390 };
    node.path_mtus.note(said, dataplane::Millis(0));
    assert_eq!(mtus(&node), [1340, 1380]);
    // A forged message to the kernel takes no IPv6 from pods.
    narrow(&mut node, 552);
    assert_eq!(mtus(&node), [1280, 1280]);

    let mut node = Node::new(&CONFIG.replace("ipip", "direct"));
    narrow(&mut node, 1400);
    assert_eq!(mtus(&node), [1350, 1400]);
}

#[test]
fn what_a_router_said_lowers_that_way_alone_and_nothing_without_a_tunnel() {
    let heard = |node: &mut Node, address: &str| {
        let address = address.parse().expect("an address");
        let said = dataplane::PathMtu { address, mtu: 1400 };
        node.path_mtus.note(said, dataplane::Millis(0));
    };
    let mtus = |node: &Node| {
        let tables = node.tables();
        let peer = |pod| match route(&tables, pod) {
            Some(Adjacency::Remote { mtu, .. }) => *mtu,
            other => panic!("{other:?}"),
        };
        [peer("198.18.2.5"), peer("198.18.3.5"), tables.bridges[0].vteps[0].mtu]
    };
    let mut node = Node::new(CONFIG);
    assert_eq!(mtus(&node), [1450, 1480, 1450]);
    heard(&mut node, "203.0.113.12");
    assert_eq!(mtus(&node), [1350, 1480, 1450]);
    heard(&mut node, "198.51.100.12");
    assert_eq!(mtus(&node), [1350, 1480, 1350]);
    let mut node = Node::new(&CONFIG.replace("ipip", "direct"));
    heard(&mut node, "203.0.113.13");
    assert_eq!(mtus(&node), [1450, 1500, 1450]);
}
