//! rtnetlink and ctnetlink against the kernel, in namespaces of the test's own. Needs root.

use std::net::IpAddr;

// Namespaces are made by an unsafe call, which stands once, beside netio's tests.
#[path = "../../../netio/tests/kernel/common.rs"]
mod common;
mod conntrack;
mod links;
mod monitor;
mod routes;

use common::{ip, link};
use netlink::{MAIN_TABLE, Netlink, ROUTE_PROTOCOL, RouteFilter};

const MAC: [u8; 6] = [0x02, 0x76, 0x73, 0x77, 0, 1];

/// What the daemon wrote.
const OURS: RouteFilter = RouteFilter { table: Some(MAIN_TABLE), protocol: Some(ROUTE_PROTOCOL) };

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> (IpAddr, u8) {
    let (network, len) = text.split_once('/').expect("a slash");
    (addr(network), len.parse().expect("a length"))
}

/// A veth pair `v0` and `v1`, up, in the calling thread's namespace.
fn veth() -> (Netlink, u32) {
    ip("link add v0 numrxqueues 2 numtxqueues 2 type veth peer name v1");
    let mut netlink = Netlink::open().expect("a socket");
    for name in ["v0", "v1"] {
        netlink.set_up(link(name).index).expect("up");
    }
    (netlink, link("v0").index)
}
