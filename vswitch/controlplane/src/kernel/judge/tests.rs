use super::super::lines::{HOST, UPLINK, route};
use super::super::{LearnedRoutes, Way};
use super::{Mirror, Scope, judge};

fn nets(texts: &[&str]) -> Vec<ipnet::IpNet> {
    texts.iter().map(|text| text.parse().expect("a prefix")).collect()
}

fn scope() -> Scope {
    let addresses =
        |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect();
    Scope {
        prefixes: nets(&["198.18.0.0/16", "fd00:18::/32"]),
        covering: true,
        own: nets(&["198.18.1.0/24", "fd00:18:1::/64"]),
        cluster: nets(&["198.18.0.0/16", "fd00:18::/32"]),
        pods: addresses(&["198.18.1.5", "198.18.200.7"]),
        node: addresses(&["198.51.100.11", "198.18.1.1", "198.18.254.11"]),
        uplink: Some(UPLINK),
        host: Some(HOST),
    }
}

fn judged(scope: &Scope, lines: &[&str]) -> LearnedRoutes {
    let mut mirror = Mirror::new(254, &scope.prefixes);
    for line in lines {
        mirror.read(route(line));
    }
    judge(&mirror, scope)
}

/// As one line a route.
fn shown(learned: &LearnedRoutes) -> Vec<String> {
    let way = |way: &Way| match way {
        Way::Hops(hops) => {
            let hops = hops.iter().map(|hop| {
                let how = if hop.overlay { "overlay" } else { "direct" };
                format!("{how} {} {}", hop.gateway, hop.weight)
            });
            hops.collect::<Vec<_>>().join(", ")
        }
        Way::Host => "host".into(),
        Way::Blackhole => "blackhole".into(),
        Way::Unreachable => "unreachable".into(),
    };
    let taken = learned.routes.iter().map(|(prefix, to)| format!("{prefix}: {}", way(to)));
    let refused = learned.refused.iter().map(|(prefix, why)| format!("{prefix}! {why}"));
    taken.chain(refused).collect()
}

#[test]
fn each_kind_of_route_has_its_meaning() {
    for (line, expected) in [
        ("198.18.2.0/24 via 198.51.100.12 dev eth0", "198.18.2.0/24: direct 198.51.100.12 1"),
        ("198.18.2.0/24 via 203.0.113.12 dev vsw0 onlink", "198.18.2.0/24: overlay 203.0.113.12 1"),
        (
            "198.18.2.0/24 nexthop via 198.51.100.2 dev eth0 weight 3 nexthop via 203.0.113.9 dev vsw0 onlink",
            "198.18.2.0/24: direct 198.51.100.2 3, overlay 203.0.113.9 1",
        ),
        (
            "198.18.2.0/24 nexthop via 198.51.100.2 dev eth0 dead nexthop via 198.51.100.3 dev eth0",
            "198.18.2.0/24: direct 198.51.100.3 1",
        ),
        (
            "198.18.2.0/24 via 198.51.100.2 dev eth0 linkdown",
            "198.18.2.0/24: direct 198.51.100.2 1",
        ),
        (
            "198.18.2.0/24 nexthop via 198.51.100.2 dev eth0 nexthop dev docker0",
            "198.18.2.0/24: direct 198.51.100.2 1",
        ),
        ("198.18.2.0/24 dev docker0", "198.18.2.0/24: host"),
        ("198.18.2.0/24 via 198.51.100.77 dev docker0", "198.18.2.0/24: host"),
        ("198.18.2.0/24 dev eth0", "198.18.2.0/24: host"),
        ("blackhole 198.18.2.0/24", "198.18.2.0/24: blackhole"),
        ("unreachable 198.18.2.0/24", "198.18.2.0/24: unreachable"),
        ("prohibit 198.18.2.0/24", "198.18.2.0/24: unreachable"),
        ("198.18.0.0/16 via 198.51.100.1 dev eth0", "198.18.0.0/16: direct 198.51.100.1 1"),
        ("fd00:18:2::/64 via fe80::1 dev eth0", "fd00:18:2::/64: direct fe80::1 1"),
        (
            "fd00:18:2::/64 via ::ffff:203.0.113.12 dev vsw0 onlink",
            "fd00:18:2::/64: overlay 203.0.113.12 1",
        ),
        ("blackhole 198.18.1.0/24", ""),
        ("198.18.1.5/32 dev docker0", ""),
        ("198.18.254.11/32 dev docker0", ""),
        // Ours has the lower metric: the kernel would send it back.
        ("198.18.0.0/16 dev docker0 metric 51", ""),
        ("198.18.0.0/16 dev docker0 metric 50", "198.18.0.0/16: host"),
    ] {
        assert_eq!(shown(&judged(&scope(), &[line])).join("; "), expected, "{line}");
    }
}

#[test]
fn what_would_do_harm_is_refused() {
    for (line, expected) in [
        (
            "198.18.200.0/24 via 198.51.100.2 dev eth0",
            "198.18.200.0/24! it covers 198.18.200.7, which a pod of this node has",
        ),
        (
            "198.18.1.64/26 via 198.51.100.2 dev eth0",
            "198.18.1.64/26! it leads away from this node, whose pods have 198.18.1.0/24",
        ),
        (
            "fd00:18:1::5/128 via fe80::1 dev eth0",
            "fd00:18:1::5/128! it leads away from this node, whose pods have fd00:18:1::/64",
        ),
        (
            "198.18.254.11/32 via 198.51.100.2 dev eth0",
            "198.18.254.11/32! it is an address of this node itself",
        ),
        (
            "198.18.2.0/24 dev vsw0",
            "198.18.2.0/24! it leads into the host port and names no node; add `via ADDRESS onlink`",
        ),
        (
            "198.18.2.0/24 via 198.51.100.11 dev vsw0 onlink",
            "198.18.2.0/24! its next hop 198.51.100.11 is this node itself",
        ),
        (
            "198.18.2.0/24 via 198.51.100.11 dev eth0 onlink",
            "198.18.2.0/24! its next hop 198.51.100.11 is this node itself",
        ),
        (
            "198.18.2.0/24 via 169.254.118.1 dev vsw0 onlink",
            "198.18.2.0/24! 169.254.118.1 cannot be another node's underlay address",
        ),
        (
            "198.18.2.0/24 via 198.18.9.9 dev vsw0 onlink",
            "198.18.2.0/24! the underlay address 198.18.9.9 lies in the cluster prefix 198.18.0.0/16: a tunnel would run through itself",
        ),
    ] {
        assert_eq!(shown(&judged(&scope(), &[line])).join("; "), expected, "{line}");
    }
    let mut without_host = scope();
    without_host.host = None;
    assert_eq!(
        shown(&judged(&without_host, &["198.18.2.0/24 dev docker0"])),
        ["198.18.2.0/24! the kernel would forward it, but there is no host port"]
    );
}

#[test]
fn a_covering_route_is_taken_for_the_whole_prefix_and_no_more() {
    let lines = [
        "0.0.0.0/0 via 198.51.100.1 dev eth0",
        "0.0.0.0/0 via 198.51.100.9 dev eth0 metric 9",
        "198.18.2.0/24 via 198.51.100.2 dev eth0",
    ];
    let learned = judged(&scope(), &lines);
    assert_eq!(
        shown(&learned),
        ["198.18.0.0/16: direct 198.51.100.1 1", "198.18.2.0/24: direct 198.51.100.2 1"]
    );
    let mut narrow = scope();
    narrow.covering = false;
    let learned = judged(&narrow, &lines);
    assert_eq!(shown(&learned), ["198.18.2.0/24: direct 198.51.100.2 1"]);
    assert_eq!(learned.ignored.len(), 1);
}

#[test]
fn the_longest_of_covering_routes_counts_and_a_route_of_its_own_more() {
    let covering =
        ["0.0.0.0/0 via 198.51.100.1 dev eth0", "198.18.0.0/15 via 198.51.100.2 dev eth0"];
    assert_eq!(shown(&judged(&scope(), &covering)), ["198.18.0.0/16: direct 198.51.100.2 1"]);
    let own = [&covering[..], &["198.18.0.0/16 via 198.51.100.3 dev eth0"]].concat();
    assert_eq!(shown(&judged(&scope(), &own)), ["198.18.0.0/16: direct 198.51.100.3 1"]);
    // The kernel's way to other links is closed by the host port's own route.
    assert_eq!(shown(&judged(&scope(), &["0.0.0.0/0 dev docker0"])), [""; 0]);
}

#[test]
fn who_is_behind_whom_is_known() {
    let learned = judged(
        &scope(),
        &[
            "198.18.2.0/24 via 203.0.113.12 dev vsw0 onlink",
            "198.18.3.0/24 via 203.0.113.12 dev vsw0 onlink",
            "198.18.4.0/24 via 198.51.100.2 dev eth0",
        ],
    );
    let behind = |address: &str| -> Vec<_> {
        learned.behind(&address.parse().expect("an address")).collect()
    };
    assert_eq!(behind("203.0.113.12"), nets(&["198.18.2.0/24", "198.18.3.0/24"]));
    assert_eq!(behind("198.51.100.2"), nets(&["198.18.4.0/24"]));
    assert_eq!(learned.peers.len(), 1);
    assert!(learned.is_direct(|_| false) && !learned.is_direct(|_| true));
}
