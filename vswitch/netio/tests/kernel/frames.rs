//! Frames as a NIC would receive them, byte by byte: nothing of ours has a part in making them.
//!
//! Enters: what a test wants in a header. Leaves: an Ethernet frame, to be given to the program.

pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

pub(crate) struct V4 {
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    pub(crate) protocol: u8,
    pub(crate) fragment: u16,
    pub(crate) options_bytes: u8,
}

pub(crate) fn ipv4(header: &V4, payload: &[u8]) -> Vec<u8> {
    let header_len = 20 + header.options_bytes;
    let mut packet = vec![0x40 + header_len / 4, 0];
    packet.extend((u16::from(header_len) + payload.len() as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(header.fragment.to_be_bytes());
    packet.extend([64, header.protocol, 0, 0]);
    packet.extend(header.source);
    packet.extend(header.destination);
    packet.resize(header_len.into(), 1);
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

pub(crate) fn udp(port: u16) -> Vec<u8> {
    let mut datagram = vec![0xc0, 0];
    datagram.extend(port.to_be_bytes());
    datagram.extend([0, 16, 0, 0]);
    datagram.extend([0x5a; 8]);
    datagram
}

pub(crate) fn ipv6(destination: &str) -> Vec<u8> {
    ipv6_with(destination, 17, &[0; 8])
}

pub(crate) fn ipv6_with(destination: &str, next_header: u8, payload: &[u8]) -> Vec<u8> {
    let destination: std::net::Ipv6Addr = destination.parse().expect("address");
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next_header, 64];
    packet.extend([0xfd; 16]);
    packet.extend(destination.octets());
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// A message of ICMPv6 about an address, as neighbour discovery has it.
pub(crate) fn about(kind: u8, target: &str) -> Vec<u8> {
    let target: std::net::Ipv6Addr = target.parse().expect("address");
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat()
}

pub(crate) fn solicitation(target: &str) -> Vec<u8> {
    ipv6_with("ff02::1:ff00:1", 58, &about(135, target))
}

pub(crate) fn arp(operation: u8, target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend([2, 0, 0, 0, 0, 2, 198, 51, 100, 2, 0, 0, 0, 0, 0, 0]);
    packet.extend(target);
    ethernet(0x0806, &packet)
}
