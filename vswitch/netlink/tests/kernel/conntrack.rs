//! Tracked flows: those that are unwanted are deleted, and no others.

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use netlink::{Conntrack, FlowFilter};

use super::addr;
use super::common::Namespace;

const UDP: u8 = 17;

/// Has the namespace track flows, and translate those to port 7001 of ::1 and 127.0.0.1 to 7002.
fn translate() {
    let rules = "table inet t {
        chain o {
            type nat hook output priority -100
            udp dport 7001 redirect to :7002
        }
    }";
    assert!(Command::new("nft").arg(rules).status().expect("nft").success());
}

/// Sends a packet from a port of its own.
fn send(from: &str, to: &str) {
    let socket = UdpSocket::bind(from).expect("bound");
    // That nobody listens does not matter: the flow is tracked.
    let _ = socket.send_to(b"x", to);
}

fn seen(is_v4: bool, port: Option<u16>) -> Vec<(SocketAddr, SocketAddr)> {
    let mut seen = Vec::new();
    let filter = FlowFilter { is_v4, protocol: UDP, port };
    let deleted = Conntrack::open().expect("a socket").delete(filter, |flow| {
        seen.push((flow.destination, flow.answerer));
        false
    });
    assert_eq!(deleted.expect("an answer"), 0);
    seen.sort();
    seen
}

fn pair(destination: &str, answerer: &str) -> (SocketAddr, SocketAddr) {
    (destination.parse().expect("an address"), answerer.parse().expect("an address"))
}

#[test]
fn flows_are_found_by_family_protocol_and_port_and_deleted_by_choice() {
    let Some(node) = Namespace::new("flows_are_found") else { return };
    node.run(|| {
        translate();
        send("127.0.0.1:0", "127.0.0.1:7001");
        send("127.0.0.1:0", "127.0.0.1:7001");
        send("127.0.0.1:0", "127.0.0.1:7009");
        send("[::1]:0", "[::1]:7001");
        let translated = pair("127.0.0.1:7001", "127.0.0.1:7002");
        assert_eq!(seen(true, Some(7001)), [translated, translated]);
        let other = pair("127.0.0.1:7009", "127.0.0.1:7009");
        assert_eq!(seen(true, None), [translated, translated, other]);
        assert_eq!(seen(false, Some(7001)), [pair("[::1]:7001", "[::1]:7002")]);
        assert_eq!(seen(true, Some(7002)), []);

        let filter = FlowFilter { is_v4: true, protocol: UDP, port: None };
        let mut conntrack = Conntrack::open().expect("a socket");
        let deleted = conntrack.delete(filter, |flow| flow.answerer.port() == 7002);
        assert_eq!(deleted.expect("an answer"), 2);
        assert_eq!(seen(true, None), [other]);
        assert_eq!(seen(false, None).len(), 1, "the other family's stay");
    });
}

#[test]
fn the_addresses_of_all_interfaces_are_listed() {
    let Some(node) = Namespace::new("the_addresses_of_all") else { return };
    node.run(|| {
        let (mut netlink, index) = super::veth();
        netlink.add_address(index, (addr("198.18.1.1"), 32)).expect("added");
        let all = netlink.local_addresses().expect("a list");
        for address in ["127.0.0.1", "::1", "198.18.1.1"] {
            assert!(all.contains(&addr(address)), "{address} in {all:?}");
        }
    });
}
