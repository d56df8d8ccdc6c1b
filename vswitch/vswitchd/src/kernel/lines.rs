//! Kernel routes from the words of `ip route`, for tests: tables of lines are easy to judge.
//!
//! Interfaces are `eth0`, the uplink, number 2; `vsw0`, the host port, 3; `docker0`, 4; `lo`, 1.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink::{KernelHop, KernelRoute, RouteKind};

pub(crate) const UPLINK: u32 = 2;
pub(crate) const HOST: u32 = 3;

/// One route.
pub(crate) fn route(line: &str) -> KernelRoute {
    let mut words = line.split_whitespace().peekable();
    let kind = match words.peek() {
        Some(&"blackhole") => RouteKind::Blackhole,
        Some(&"unreachable") => RouteKind::Unreachable,
        Some(&"prohibit") => RouteKind::Prohibit,
        Some(&"local") => RouteKind::Local,
        _ => RouteKind::Unicast,
    };
    if kind != RouteKind::Unicast {
        words.next();
    }
    let destination = words.next().expect("a destination");
    let destination: IpNet = destination.parse().expect("a prefix");
    let mut route = KernelRoute {
        destination: (destination.addr(), destination.prefix_len()),
        table: 254,
        tos: 0,
        metric: 0,
        protocol: 4,
        kind,
        next_hops: Vec::new(),
    };
    let fresh = KernelHop { oif: 0, gateway: None, weight: 1, onlink: false, usable: true };
    let mut hop = fresh;
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value");
        match word {
            "nexthop" => {
                if hop != fresh {
                    route.next_hops.push(hop);
                }
                hop = fresh;
            }
            "via" => hop.gateway = Some(value().parse::<IpAddr>().expect("an address")),
            "dev" => {
                hop.oif = match value() {
                    "lo" => 1,
                    "eth0" => UPLINK,
                    "vsw0" => HOST,
                    "docker0" => 4,
                    other => panic!("no interface {other}"),
                }
            }
            "weight" => hop.weight = value().parse().expect("a number"),
            "onlink" => hop.onlink = true,
            "dead" | "linkdown" => hop.usable = false,
            "metric" => route.metric = value().parse().expect("a number"),
            "table" => route.table = value().parse().expect("a number"),
            "proto" => route.protocol = value().parse().expect("a number"),
            "tos" => route.tos = value().parse().expect("a number"),
            other => panic!("what is {other} in {line}"),
        }
    }
    if hop != fresh {
        route.next_hops.push(hop);
    }
    route
}
