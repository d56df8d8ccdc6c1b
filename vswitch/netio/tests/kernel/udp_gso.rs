//! Tunnel packets of one flow that leave as one superframe of UDP, on a veth pair. Needs root.
//!
//! The node has the NIC `nic0`; the peer's kernel receives what the frames carry, each by itself.

use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use netio::uplink::{SendBy, Tx};

use crate::common::{Namespace, eventually, ip};
use crate::uplink::{open_to_send_by, send};
use crate::xsk::{PEER, datagram, lab};

const NODE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);

/// What a program says.
fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it is installed");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Frames that the NIC has sent, a superframe as one.
fn sent_by_nic(node: &Namespace) -> u64 {
    node.run(|| {
        let text = told("ip", &["-json", "-stats", "link", "show", "dev", "nic0"]);
        let tx = text.split("\"tx\":{").nth(1).expect("counters");
        let packets = tx.split("\"packets\":").nth(1).expect("a counter");
        packets.split(',').next().and_then(|number| number.parse().ok()).expect("a number")
    })
}

/// A UDP datagram to the peer's port with its checksum.
fn datagram6(port: u16, payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    let addresses = [NODE6.octets(), PEER6.octets()].concat();
    let ports = [0x12, 0xb5, port.to_be_bytes()[0], port.to_be_bytes()[1]];
    let mut summed = [&addresses[..], &[0, 17], &len, &ports, &len, payload].concat();
    summed.resize(summed.len().next_multiple_of(2), 0);
    let sum =
        summed.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes();
    let macs = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0];
    [&macs[..], &len, &[17, 64], &addresses, &ports, &len, &checksum, payload].concat()
}

/// Sockets of the peer's, with their ports.
fn receivers(peer: &Namespace, address: IpAddr) -> [(UdpSocket, u16); 2] {
    [(); 2].map(|()| {
        let receiver = peer.run(move || UdpSocket::bind((address, 0)).expect("a socket"));
        receiver.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
        let port = receiver.local_addr().expect("bound").port();
        (receiver, port)
    })
}

/// Sends to one receiver and the other in turn, then to each in a row; returns how many frames it were.
fn send_flows(
    tx: &mut Tx,
    receivers: &[(UdpSocket, u16); 2],
    frame: impl Fn(u16, &[u8]) -> Vec<u8>,
) -> usize {
    let alternately = (0..40).map(|number| (number % 2, 100));
    // 64 of one flow, the other six with a shorter one behind them; one that is longer than that.
    let in_a_row = [(1, 20, 500), (0, 70, 1000), (0, 1, 7), (0, 1, 1400)];
    let in_a_row = in_a_row.into_iter().flat_map(|(to, count, len)| vec![(to, len); count]);
    let all: Vec<_> = alternately
        .chain(in_a_row)
        .enumerate()
        .map(|(number, (to, len))| (&receivers[to], vec![number as u8; len]))
        .collect();
    for ((_, port), payload) in &all {
        send(tx, &frame(*port, payload)).expect("room");
    }
    eventually("room in the kernel", || {
        tx.flush().expect("the device is there");
        (tx.pending() == 0).then_some(())
    });
    for ((receiver, _), expected) in &all {
        let mut arrived = vec![0; 2000];
        let len = receiver.recv(&mut arrived).expect("a datagram");
        assert!(arrived[..len] == *expected, "{len} bytes of {}", arrived[0]);
    }
    all.len()
}

#[test]
fn tunnel_packets_of_one_flow_leave_as_one_and_arrive_each_by_itself() {
    let test = "tunnel_packets_of_one_flow_leave_as_one_and_arrive_each_by_itself";
    let Some((node, peer)) = lab(test) else { return };
    for (side, nic, own, other, mac) in [
        (&node, "nic0", NODE6, PEER6, "02:00:00:00:00:02"),
        (&peer, "up0", PEER6, NODE6, "02:00:00:00:00:01"),
    ] {
        side.run(move || {
            ip(&format!("address add {own}/64 dev {nic} nodad"));
            ip(&format!("neigh replace {other} lladdr {mac} dev {nic}"));
        });
    }
    let (_control, mut queues) = node.run(|| open_to_send_by(SendBy::AfPacket));
    let tx = &mut queues[0].tx;
    let over_ipv4 = receivers(&peer, PEER.into());
    let over_ipv6 = receivers(&peer, PEER6.into());
    for whole in ["on", "off"] {
        node.run(move || drop(told("ethtool", &["-K", "nic0", "tx-udp-segmentation", whole])));
        for is_v6 in [false, true] {
            let before = sent_by_nic(&node);
            let frames = if is_v6 {
                send_flows(tx, &over_ipv6, datagram6)
            } else {
                send_flows(tx, &over_ipv4, datagram)
            };
            let expected = if whole == "on" { 40 + 1 + 2 + 1 } else { frames as u64 };
            assert_eq!(sent_by_nic(&node) - before, expected, "{whole}, IPv6: {is_v6}");
        }
    }
}
