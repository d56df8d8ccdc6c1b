//! Loads what the walk of a packet is going to read, while other packets of its batch are loading theirs.
//!
//! Enters: a packet of a batch, before the first of them is processed. Leaves: nothing, but its route and
//! its next hop are in the cache then. A walk waits for each of these in turn; here the processor waits for
//! those of many packets at the same time. Nothing is checked and nothing decided: bytes at a fixed place
//! that mean something else cost a look-up.

use core::net::Ipv4Addr;

use frame::prefetch;

use crate::tables::{PortId, PortRole, Tables};
use crate::wire::{EtherType, Protocol, ethernet, ipv4, udp, vxlan};

/// Where an IPv4 header has its protocol and its destination.
const PROTOCOL: usize = 9;
const DESTINATION: usize = 16;

/// Looks the destination of an IPv4 packet up. `None` for others, which are left alone.
#[inline]
pub(crate) fn ahead(tables: &Tables, ingress: PortId, bytes: &[u8]) -> Option<()> {
    let l3 = match tables.port(ingress)?.kind {
        PortRole::Uplink => l3_in_tunnel(bytes)?,
        PortRole::Pod | PortRole::Host => l3_behind(bytes, 0)?,
    };
    let destination: &[u8; 4] = bytes.get(l3 + DESTINATION..)?.first_chunk()?;
    let adjacency = tables.fib4.lookup(Ipv4Addr::from(*destination))?;
    prefetch(tables.adjacency(adjacency)?);
    Some(())
}

/// Where the network header is behind an Ethernet header that says IPv4.
#[inline]
fn l3_behind(bytes: &[u8], ethernet_at: usize) -> Option<usize> {
    let l3 = ethernet_at + ethernet::HEADER_LEN;
    (*bytes.get(l3 - 2..l3)? == EtherType::IPV4.0.to_be_bytes()).then_some(l3)
}

/// The same of the packet inside, if a tunnel over IPv4 carries one.
#[inline]
fn l3_in_tunnel(bytes: &[u8]) -> Option<usize> {
    let l3 = l3_behind(bytes, 0)?;
    let l4 = l3 + ipv4::HEADER_LEN;
    match Protocol(*bytes.get(l3 + PROTOCOL)?) {
        Protocol::UDP => l3_behind(bytes, l4 + udp::HEADER_LEN + vxlan::HEADER_LEN),
        Protocol::IPIP => Some(l4),
        _ => Some(l3),
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::{Ipv4Addr, PortId, PortRole, Tables, ahead};
    use crate::tables::{Adjacency, AdjacencyId, Attachment, Offloads, Port};
    use crate::wire::MacAddr;

    fn tables() -> Tables {
        let port = |kind| {
            Some(Port {
                kind,
                attachment: Attachment::Routed,
                mac: MacAddr::ZERO,
                mtu: 1500,
                offloads: Offloads::default(),
                addresses: Vec::new(),
                rx_limit: None,
                tx_limit: None,
            })
        };
        let ports = vec![port(PortRole::Pod), port(PortRole::Uplink)];
        let mut tables = Tables { ports, ..Tables::default() };
        tables.adjacencies.push(Adjacency::Blackhole);
        tables.fib4.insert(Ipv4Addr::new(198, 18, 1, 2), 32, AdjacencyId(0));
        tables
    }

    /// An IPv4 header, as far as it is read.
    fn ip(protocol: u8) -> Vec<u8> {
        let mut header = vec![0; 20];
        header[9] = protocol;
        header[16..].copy_from_slice(&[198, 18, 1, 2]);
        header
    }

    fn framed(behind: &[u8]) -> Vec<u8> {
        [&[0; 12][..], &[8, 0], behind].concat()
    }

    #[test]
    fn the_destination_is_found_behind_whichever_headers_are_taken_away() {
        let (tables, pod, uplink) = (tables(), PortId(0), PortId(1));
        let plain = framed(&ip(17));
        let vxlan = framed(&[&ip(17)[..16], &[0; 4], &[0; 16], &plain].concat());
        let ipip = framed(&[&ip(4)[..16], &[0; 4], &ip(17)].concat());
        let direct = framed(&ip(6));
        for (what, ingress, bytes) in [
            ("a pod's", pod, &plain),
            ("VXLAN", uplink, &vxlan),
            ("IPIP", uplink, &ipip),
            ("direct", uplink, &direct),
        ] {
            assert_eq!(ahead(&tables, ingress, bytes), Some(()), "{what}");
            // Whatever is missing of them.
            for len in 0..bytes.len() {
                assert_eq!(ahead(&tables, ingress, &bytes[..len]), None, "{what}, {len} bytes");
            }
        }
        assert_eq!(ahead(&tables, PortId(2), &plain), None);
    }
}
