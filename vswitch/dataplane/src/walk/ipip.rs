//! The flow inside of an IPIP packet, before any door is passed.
//!
//! Enters: a frame from the NIC that a worker has not processed yet. Leaves: the hash of the inner flow, by which
//! the worker may leave the packet to another one. Workers call it, as the outer header of IPIP has nothing by
//! which a NIC could tell flows apart. Nothing is decided: what is found here passes `decap` all the same, on
//! whichever worker.

use crate::tables::Tables;
use crate::wire::{EtherType, Ethernet, Ipv4, Ipv6, Protocol};

use super::flow::FlowKey;

/// What an IPIP packet for this node carries.
#[derive(Debug, Clone, Copy)]
pub struct Ipip<'a> {
    inner: &'a [u8],
}

impl<'a> Ipip<'a> {
    /// The packet in a frame, if that is one of IPIP as `decap` takes them: over IPv4, whole, and for this node.
    #[inline]
    #[must_use]
    pub fn of(tables: &Tables, frame: &'a [u8]) -> Option<Self> {
        let tunnels = &tables.tunnels;
        if !tunnels.ipip {
            return None;
        }
        let ethernet = Ethernet::parse(frame).ok()?;
        if ethernet.ethertype() != EtherType::IPV4 {
            return None;
        }
        let ip = Ipv4::parse(ethernet.payload()).ok()?;
        let is_ours = matches!(ip.protocol(), Protocol::IPIP | Protocol::IPV6)
            && tunnels.local.v4 == Some(ip.destination())
            && !ip.is_fragment();
        is_ours.then(|| Self { inner: ip.payload() })
    }

    /// A hash of the inner packet's addresses, protocol and ports, the same for all packets of a flow, and for all
    /// fragments of a packet. It is the sender's, too: bits 42 to 49 have chosen neither a port of VXLAN nor a
    /// way there. Packets that are none have one hash, as they are dropped wherever they are processed.
    #[must_use]
    pub fn flow_hash(&self) -> u64 {
        self.key().map_or(0, |key| key.hash())
    }

    fn key(&self) -> Option<FlowKey> {
        match self.inner.first()? >> 4 {
            4 => Ipv4::parse(self.inner).ok().map(|ip| FlowKey::of_v4(&ip)),
            6 => {
                let ip = Ipv6::parse(self.inner).ok()?;
                let upper = ip.upper().ok()?;
                Some(FlowKey::of_v6(&ip, &upper))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use super::Ipip;
    use crate::tables::Tables;
    use crate::wire::{Protocol, ipv4, ipv6};

    const LOCAL: [u8; 4] = [198, 51, 100, 11];

    fn tables() -> Tables {
        let mut tables = Tables::default();
        let tunnels = Arc::make_mut(&mut tables.tunnels);
        tunnels.ipip = true;
        tunnels.local.v4 = Some(LOCAL.into());
        tables
    }

    /// An IPv4 packet.
    fn v4(
        protocol: Protocol,
        destination: [u8; 4],
        fragment: (bool, u16),
        payload: &[u8],
    ) -> Vec<u8> {
        let mut bytes = vec![0; 20];
        let header = ipv4::Repr {
            tos: 0,
            total_len: 20 + payload.len() as u16,
            id: 7,
            dont_fragment: false,
            more_fragments: fragment.0,
            fragment_offset: fragment.1,
            ttl: 64,
            protocol,
            source: [203, 0, 113, 12].into(),
            destination: destination.into(),
        };
        header.emit(&mut bytes).unwrap();
        bytes.extend(payload);
        bytes
    }

    fn framed(packet: &[u8]) -> Vec<u8> {
        [&[2; 12][..], &[8, 0], packet].concat()
    }

    /// An IPIP packet to this node.
    fn ipip(protocol: Protocol, inner: &[u8]) -> Vec<u8> {
        framed(&v4(protocol, LOCAL, (false, 0), inner))
    }

    fn udp(from: u16, fragment: (bool, u16)) -> Vec<u8> {
        let ports = [from.to_be_bytes(), 53_u16.to_be_bytes()].concat();
        v4(Protocol::UDP, [198, 18, 1, 2], fragment, &[&ports[..], &[0; 12]].concat())
    }

    fn hash(frame: &[u8]) -> Option<u64> {
        Ipip::of(&tables(), frame).map(|ipip| ipip.flow_hash())
    }

    #[test]
    fn flows_of_one_peer_differ_and_packets_of_one_do_not() {
        let of = |from: u16, last: u8| {
            let mut inner = udp(from, (false, 0));
            *inner.last_mut().unwrap() = last;
            hash(&ipip(Protocol::IPIP, &inner)).unwrap()
        };
        let hashes: BTreeSet<_> = (1000..1100).map(|from| of(from, 0) >> 42 & 0xff).collect();
        assert!(hashes.len() > 50, "{} of 256 places", hashes.len());
        assert_eq!(of(1000, 1), of(1000, 2));
    }

    #[test]
    fn all_fragments_of_a_packet_have_one_hash() {
        let first = hash(&ipip(Protocol::IPIP, &udp(1000, (true, 0)))).unwrap();
        let later = hash(&ipip(Protocol::IPIP, &udp(0xffff, (false, 16)))).unwrap();
        assert_eq!(first, later);
        assert_ne!(first, hash(&ipip(Protocol::IPIP, &udp(1000, (false, 0)))).unwrap());
    }

    #[test]
    fn ipv6_inside_is_told_apart_by_its_ports_as_well() {
        let of = |from: u8| {
            let mut inner = vec![0; 40];
            let header = ipv6::Repr {
                traffic_class: 0,
                flow_label: 0,
                payload_len: 8,
                next_header: Protocol::UDP,
                hop_limit: 64,
                source: [1; 16].into(),
                destination: [2; 16].into(),
            };
            header.emit(&mut inner).unwrap();
            inner.extend([from, 1, 0, 53, 0, 8, 0, 0]);
            hash(&ipip(Protocol::IPV6, &inner)).unwrap()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn what_decap_would_not_take_as_ipip_is_none() {
        let inner = udp(1000, (false, 0));
        assert!(hash(&ipip(Protocol::IPIP, &inner)).is_some());
        assert_eq!(hash(&framed(&v4(Protocol::UDP, LOCAL, (false, 0), &inner))), None);
        assert_eq!(
            hash(&framed(&v4(Protocol::IPIP, [198, 51, 100, 12], (false, 0), &inner))),
            None
        );
        assert_eq!(hash(&framed(&v4(Protocol::IPIP, LOCAL, (true, 0), &inner))), None);
        let mut without = tables();
        Arc::make_mut(&mut without.tunnels).ipip = false;
        assert!(Ipip::of(&without, &ipip(Protocol::IPIP, &inner)).is_none());
    }

    #[test]
    fn no_byte_is_read_that_is_not_there() {
        let whole = ipip(Protocol::IPIP, &udp(1000, (false, 0)));
        for len in 0..whole.len() {
            assert_eq!(hash(&whole[..len]), None, "{len} bytes");
        }
        for inner in [&[][..], &[0x45], &[0x60; 39], &[0xff; 60]] {
            assert_eq!(hash(&ipip(Protocol::IPIP, inner)), Some(0), "{inner:?}");
        }
    }
}
