//! Tunnel packets that their sender's kernel took as one, and that nothing has cut on the way.

use dataplane::counters::Accounting;
use frame::{Checksum, Gso, GsoKind, Offload};

use crate::node::Worker;

const NODE: &str = "underlay 198.51.100.11 2001:db8:1::11 offload
    vxlan 10
    gateway 198.18.1.1
    pod a 198.18.1.2
    pod b 198.18.1.3
    peer b 203.0.113.12 vxlan 198.18.2.0/24
    peer d 2001:db8:2::14 vxlan 198.18.4.0/24";

const OVER_IPV4: &str = "uplink eth router > uplink / ip 203.0.113.12 > 198.51.100.11 df / \
    udp 50000 > 4789 nosum / vxlan 10 / eth vtep-b > vtep / ip 198.18.2.7 > 198.18.1.";
const OVER_IPV6: &str = "uplink eth router > uplink / ip 2001:db8:2::14 > 2001:db8:1::11 / \
    udp 50000 > 4789 / vxlan 10 / eth vtep-d > vtep6 / ip 198.18.4.7 > 198.18.1.";

/// Ethernet, IP and UDP.
const HEADERS: [usize; 2] = [14 + 20 + 8, 14 + 40 + 8];

/// Datagrams to two pods in turn, of 500 bytes but for the last.
fn tunnel_packets(worker: &Worker, outer: &str, count: usize) -> Vec<Vec<u8>> {
    let packet = |number: usize| {
        let len = if number + 1 == count { 100 } else { 500 };
        let text = format!("{outer}{} df / udp {number} > 9 / {len} bytes", 2 + number % 2);
        worker.described(&text).1.bytes
    };
    (1..=count).map(|number| packet(number - 1)).collect()
}

/// The same as one, as a packet socket and a TAP hand it over.
fn joined(packets: &[Vec<u8>], headers: usize) -> (Vec<u8>, Offload) {
    let payloads = packets.iter().flat_map(|packet| &packet[headers..]);
    let mut bytes: Vec<u8> = packets[0][..headers].iter().chain(payloads).copied().collect();
    let udp = headers - 8;
    let udp_len = u16::try_from(bytes.len() - udp).expect("below 64 KB").to_be_bytes();
    bytes[udp + 4..udp + 6].copy_from_slice(&udp_len);
    if headers == HEADERS[0] {
        let total = (bytes.len() - 14) as u16;
        let former = u16::from_be_bytes([bytes[16], bytes[17]]);
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        // RFC 1624.
        let sum = u32::from(!u16::from_be_bytes([bytes[24], bytes[25]]))
            + u32::from(!former)
            + u32::from(total);
        let sum = (sum & 0xffff) + (sum >> 16);
        bytes[24..26].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    } else {
        bytes[18..20].copy_from_slice(&udp_len);
    }
    let size = (packets[0].len() - headers) as u16;
    let gso = Gso { kind: GsoKind::Udp, size, header_len: headers as u16, vxlan: None };
    (
        bytes,
        Offload { checksum: Checksum::Partial { start: udp as u16, offset: 6 }, gso: Some(gso) },
    )
}

#[test]
fn what_came_as_one_is_received_one_by_one() {
    for (outer, headers) in [OVER_IPV4, OVER_IPV6].into_iter().zip(HEADERS) {
        for count in [2, 3, 45, 64] {
            let (mut whole, mut single) = (Worker::new(NODE), Worker::new(NODE));
            let packets = tunnel_packets(&single, outer, count);
            let (bytes, offload) = joined(&packets, headers);
            let uplink = whole.node.port("uplink").expect("the NIC");
            let sent = whole.batch(&[(uplink, &bytes, offload)]);
            assert_eq!(sent.len(), count, "{outer}");
            let each: Vec<_> = packets
                .iter()
                .map(|packet| (uplink, packet.as_slice(), Offload::default()))
                .collect();
            assert_eq!(sent, single.batch(&each));
            assert_eq!(whole.counters.accounting(), single.counters.accounting());
            assert_eq!(whole.counters.accounting().received, count as u64);
        }
    }
}

#[test]
fn one_that_is_no_tunnel_packet_costs_itself_alone() {
    let mut worker = Worker::new(NODE);
    let mut packets = tunnel_packets(&worker, OVER_IPV4, 3);
    packets[1][HEADERS[0]..].fill(0);
    let (bytes, offload) = joined(&packets, HEADERS[0]);
    let uplink = worker.node.port("uplink").expect("the NIC");
    assert_eq!(worker.batch(&[(uplink, &bytes, offload)]).len(), 2);
    let Accounting { received, sent, dropped, .. } = worker.counters.accounting();
    assert_eq!((received, sent, dropped), (3, 2, 1));
}

#[test]
fn what_contradicts_itself_is_dropped_once() {
    let mut worker = Worker::new(NODE);
    let packets = tunnel_packets(&worker, OVER_IPV4, 3);
    let (bytes, offload) = joined(&packets, HEADERS[0]);
    let uplink = worker.node.port("uplink").expect("the NIC");
    // Not for this node, for another port, of no length.
    let with = |at: usize, value: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = value;
        bytes
    };
    let (elsewhere, other_port) = (with(33, 99), with(37, 0));
    let no_size = Offload { gso: offload.gso.map(|gso| Gso { size: 0, ..gso }), ..offload };
    let all = [(&elsewhere, offload), (&other_port, offload), (&bytes, no_size)];
    let all = all.map(|(bytes, offload)| (uplink, bytes.as_slice(), offload));
    assert_eq!(worker.batch(&all), []);
    assert_eq!(worker.counters.accounting().dropped, 3);
}
