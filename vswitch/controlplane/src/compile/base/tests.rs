//! Whatever happens to a node, and in whatever order: tables of a base that follows are those of one
//! made anew, and lead where the RIB leads.

use std::net::IpAddr;

use api::{AttachmentId, Mode, PeerSpec, RouteTarget, Source};
use dataplane::PathMtu;
use dataplane::tables::{Adjacency, Tables};
use dataplane::wire::MacAddr;
use ipnet::{IpNet, Ipv4Net};
use proptest::prelude::*;

use super::super::adjacency::{Adjacencies, Known};
use super::super::rib;
use super::super::route::RibRoute;
use super::super::tests::{Node, ROUTER};
use super::super::{Input, compile};
use super::{Base, SPARE};
use crate::kernel::{Hop, Judgement, LearnedRoutes, Way};
use crate::model::Edit;
use crate::next_hop::NextHop;

const CONFIG: &str = r#"
[node]
name = "a"
pod_prefixes = ["198.18.1.0/28", "fd00:18:1::/120"]
cluster_prefixes = ["198.18.0.0/16", "fd00:18::/32"]
[uplink]
interface = "eth0"
[routes.kernel]
prefixes = ["198.18.0.0/16"]
"#;

/// What may happen to a node.
#[derive(Debug, Clone)]
enum Step {
    Plug(u8),
    Unplug(u8),
    /// The device is gone, the lease stays.
    Down(u8),
    Peer(u8, u8),
    NoPeer(u8),
    /// A route to one of the peers, there or not.
    To(u8, u8),
    Learn(Vec<(u8, u8)>),
    /// By these next hops, some of them in the overlay; or to nobody.
    Route(u8, Vec<u8>),
    NoRoute(u8),
    Resolve(u8, bool),
    PathMtu(u8, u16),
    HostMtu(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4u8).prop_map(Step::Plug),
        2 => (0..4u8).prop_map(Step::Unplug),
        1 => (0..4u8).prop_map(Step::Down),
        3 => (0..3u8, 2..6u8).prop_map(|(peer, net)| Step::Peer(peer, net)),
        1 => (0..3u8).prop_map(Step::NoPeer),
        3 => (0..12u8, 0..3u8).prop_map(|(net, peer)| Step::To(net, peer)),
        1 => prop::collection::vec((1..8u8, 0..5u8), 0..4).prop_map(Step::Learn),
        6 => (0..12u8, prop::collection::vec(0..5u8, 0..3))
            .prop_map(|(net, gateways)| Step::Route(net, gateways)),
        3 => (0..12u8).prop_map(Step::NoRoute),
        3 => (0..5u8, any::<bool>()).prop_map(|(peer, known)| Step::Resolve(peer, known)),
        1 => (0..3u8, 1280..1500u16).prop_map(|(peer, mtu)| Step::PathMtu(peer, mtu)),
        1 => (1300..1400u32).prop_map(Step::HostMtu),
    ];
    prop::collection::vec(step, 0..24)
}

fn underlay(number: u8) -> IpAddr {
    [203, 0, 113, 10 + number].into()
}

fn pod(number: u8) -> AttachmentId {
    AttachmentId { container_id: format!("c{number}"), ifname: "eth0".into() }
}

fn act(node: &mut Node, step: Step) {
    match step {
        Step::Plug(number) if node.model.attachments.contains_key(&pod(number)) => {}
        Step::Plug(number) => {
            node.plug(&format!("c{number}"), Mode::Routed, 2 + u16::from(number));
        }
        Step::Unplug(number) => {
            node.pods.remove(&pod(number));
            node.model.apply_all(&[Edit::NoLease { attachment: pod(number) }]);
        }
        Step::Down(number) => drop(node.pods.remove(&pod(number))),
        Step::Peer(number, net) => {
            let peer = PeerSpec {
                name: format!("n{number}"),
                address: underlay(number),
                prefixes: vec![format!("198.18.{net}.0/24").parse().expect("a prefix")],
                encapsulation: None,
                encapsulate: None,
                vtep_mac: None,
            };
            node.model.apply_all(&[Edit::Peer { peer, source: Source::Kubernetes }]);
        }
        Step::NoPeer(number) => {
            let name = format!("n{number}");
            node.model.apply_all(&[Edit::NoPeer { name, source: Source::Kubernetes }]);
        }
        Step::To(net, peer) => {
            let target = RouteTarget::Peer { name: format!("n{peer}") };
            node.model.apply_all(&[Edit::Route { prefix: destination(net), target }]);
        }
        Step::Learn(routes) => node.model.kernel = learned(&routes).into(),
        Step::Route(net, gateways) => {
            let hop = |number| Hop {
                gateway: underlay(number),
                weight: 1 + u16::from(number % 2),
                overlay: number == 4,
            };
            let hops: Vec<_> = gateways.into_iter().map(hop).collect();
            let way = if hops.is_empty() { Way::Blackhole } else { Way::Hops(hops) };
            node.model.kernel.set(destination(net), Some(Judgement::Take(way)));
        }
        Step::NoRoute(net) => drop(node.model.kernel.set(destination(net), None)),
        Step::Resolve(number, known) => {
            let mac = if known { ROUTER } else { MacAddr([2, 0, 0, 0, 0, 9]) };
            let mtu = known.then_some(1400);
            node.next_hops.insert(underlay(number), NextHop { mtu, ..NextHop::resolved(mac) });
        }
        Step::PathMtu(number, mtu) => {
            node.path_mtus.note(PathMtu { address: underlay(number), mtu }, dataplane::Millis(0));
        }
        Step::HostMtu(mtu) => node.host.as_mut().expect("it has one").mtu = mtu,
    }
}

/// Prefixes in one another, this node's own, one for all, and underlay addresses.
fn destination(number: u8) -> IpNet {
    let text = match number {
        0 => "0.0.0.0/0".into(),
        1 => "198.18.0.0/16".into(),
        2 => "198.18.2.0/23".into(),
        3 => "fd00:18:1::4/126".into(),
        4 => "fd00:18:1::5/128".into(),
        5 => "203.0.113.10/32".into(),
        6 => "203.0.113.0/28".into(),
        7.. => {
            format!("198.18.{}.2/{}", number - 6, if number.is_multiple_of(2) { 24 } else { 32 })
        }
    };
    text.parse::<IpNet>().expect("a prefix").trunc()
}

/// Some of the routes are within this node's own prefix, and hide a pod's or do not.
fn learned(routes: &[(u8, u8)]) -> LearnedRoutes {
    let mut learned = LearnedRoutes::default();
    for (net, gateway) in routes {
        let hop = Hop { gateway: underlay(*gateway), weight: 1, overlay: false };
        learned.set(destination(*net + 5), Some(Judgement::Take(Way::Hops(vec![hop]))));
    }
    learned
}

fn probes() -> impl Iterator<Item = IpAddr> {
    let v4 = (0..9u8).flat_map(|net| (0..8u8).map(move |host| IpAddr::from([198, 18, net, host])));
    let v6 = (0..8u16).map(|host| IpAddr::from([0xfd00, 0x18, 1, 0, 0, 0, 0, host]));
    v4.chain(v6).chain((0..6).map(underlay)).chain([IpAddr::from([192, 0, 2, 1])])
}

/// Where an address leads, in words; with whatever a group's members lead to.
fn leads(tables: &Tables, address: IpAddr) -> String {
    let adjacency = tables.route(address).and_then(|id| tables.adjacency(id));
    match adjacency {
        Some(Adjacency::Multipath(group)) => {
            let members = group.members().iter();
            let members =
                members.map(|one| (one.identity, one.weight, tables.adjacency(one.adjacency)));
            format!("{address}: {:?}", members.collect::<Vec<_>>())
        }
        _ => format!("{address}: {adjacency:?}"),
    }
}

/// Likewise, by the RIB.
fn should_lead(input: &Input<'_>, routes: &[RibRoute<'_>], address: IpAddr) -> String {
    let within = routes.iter().filter(|route| route.prefix.contains(&address));
    let best = within.max_by_key(|route| route.prefix.prefix_len());
    let mut tables = Tables::default();
    if let Some(route) = best {
        Adjacencies::new(input, input.pod_mtu(), &mut tables, &mut Known::new())
            .route(address.into(), &route.target);
    }
    leads(&tables, address)
}

/// Which tunnel ends the node accepts, and what from each.
fn hears(tables: &Tables) -> String {
    let tunnels = &tables.tunnels;
    let ids: Vec<_> = (0..5).map(|number| tunnels.by_address.get(underlay(number))).collect();
    format!("{:?} {ids:?} {} {}", tunnels.peers, tunnels.direct, tunnels.direct_from_tunnelled)
}

proptest! {
    // Each case compiles tables at every step.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_base_that_follows_makes_the_same_tables(steps in steps()) {
        let mut node = Node::new(CONFIG);
        let mut base: Option<Base> = None;
        for step in steps {
            act(&mut node, step);
            let former = base.take();
            let (fresh, tables, renewed) = node.with_input(|input| {
                let renewed = Base::renew(former, input);
                (compile(input), renewed.tables(input), renewed)
            });
            base = Some(renewed);
            prop_assert_eq!(&tables.ports, &fresh.ports);
            prop_assert_eq!(hears(&tables), hears(&fresh));
            let expected: Vec<_> = node.with_input(|input| {
                let routes = rib::routes(input).routes;
                probes().map(|address| should_lead(input, &routes, address)).collect()
            });
            for (address, expected) in probes().zip(expected) {
                prop_assert_eq!(leads(&tables, address), leads(&fresh, address));
                prop_assert_eq!(leads(&tables, address), expected);
            }
        }
    }
}

#[test]
fn what_comes_and_goes_needs_no_other_base_and_what_concerns_all_does() {
    let mut node = Node::new(CONFIG);
    let mut base = node.with_input(Base::of);
    for step in [
        Step::Plug(0),
        Step::Peer(0, 2),
        Step::To(8, 0),
        Step::Route(9, vec![0]),
        Step::Resolve(0, true),
        Step::PathMtu(0, 1400),
        Step::NoRoute(9),
        Step::NoPeer(0),
    ] {
        let said = format!("{step:?}");
        act(&mut node, step);
        assert!(node.with_input(|input| base.follow(input)), "{said}");
    }
    for step in [Step::Learn(vec![(4, 0)]), Step::HostMtu(1300)] {
        let said = format!("{step:?}");
        let mut base = node.with_input(Base::of);
        act(&mut node, step);
        assert!(!node.with_input(|input| base.follow(input)), "{said}");
    }
}

#[test]
fn adjacencies_that_nothing_leads_to_are_not_kept_for_ever() {
    let mut node = Node::new(CONFIG);
    let mut base = node.with_input(Base::of);
    let first = base.tables.adjacencies.len();
    let mut most = first;
    // Each time another group.
    for weight in 1..2 * SPARE as u16 {
        let hop = |number, weight| Hop { gateway: underlay(number), weight, overlay: false };
        let way = Way::Hops(vec![hop(0, 1), hop(1, weight)]);
        node.model.kernel.set(destination(9), Some(Judgement::Take(way)));
        base = node.with_input(|input| Base::renew(Some(base), input));
        most = most.max(base.tables.adjacencies.len());
    }
    assert!((SPARE..2 * SPARE).contains(&most), "{first} at first, {most} at most");
}

#[test]
fn a_pod_that_comes_copies_little_of_what_is_there() {
    let mut node = Node::new(CONFIG);
    for number in 0..=u8::MAX {
        let way = |gateway| Way::Hops(vec![Hop { gateway, weight: 1, overlay: false }]);
        for part in 0..16u8 {
            let net = Ipv4Net::new_assert([198, 18, number, part * 16].into(), 28);
            // Many next hops, too.
            let gateway = IpAddr::from([203, 0, number, part + 1]);
            node.model.kernel.set(net.into(), Some(Judgement::Take(way(gateway))));
        }
    }
    let mut base = node.with_input(Base::of);
    let before = node.with_input(|input| base.tables(input));
    act(&mut node, Step::Plug(0));
    assert!(node.with_input(|input| base.follow(input)));
    let after = node.with_input(|input| base.tables(input));
    for (what, copied, of) in [
        ("fib4", after.fib4.unshared_bytes(&before.fib4), after.fib4.size_bytes()),
        (
            "adjacencies",
            after.adjacencies.unshared_bytes(&before.adjacencies),
            after.adjacencies.size_bytes(),
        ),
    ] {
        assert!(copied > 0 && copied * 4 < of, "{what}: {copied} of {of} bytes");
    }
}
