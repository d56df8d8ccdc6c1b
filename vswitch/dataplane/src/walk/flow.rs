//! Which flow does a packet belong to.
//!
//! Asked by `route`, to choose among the members of a next-hop group, and by `rewrite`, for the
//! source port of VXLAN. Both see the inner packet, so that a flow takes one way out of the node and
//! one through the underlay.

use core::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;

use super::parse::{Addresses, Ip};
use crate::wire::{MacAddr, Protocol, header};

/// Seeded alike on every node and at every start: a flow keeps its path through the underlay when
/// the daemon restarts. Nothing is stored by this hash, so it needs no secret.
const FLOW_HASH: FixedState = FixedState::with_seed(0x7673_7769_7463_6800);

/// Of addresses, protocol and ports; `transport` begins with the transport header.
#[inline(always)]
pub(crate) fn hash(ip: &Ip, transport: &[u8]) -> u64 {
    // All fragments of a packet take one path: none of them is asked for its ports.
    let ports = match ip.protocol {
        _ if ip.fragment => 0,
        Protocol::TCP | Protocol::UDP => {
            header(transport, 0).copied().map_or(0, u32::from_be_bytes)
        }
        _ => 0,
    };
    let mut hasher = FLOW_HASH.build_hasher();
    match ip.addresses {
        Addresses::V4 { source, destination } => {
            hasher.write_u64(u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits()));
        }
        Addresses::V6 { source, destination } => {
            hasher.write_u128(source.to_bits());
            hasher.write_u128(destination.to_bits());
        }
    }
    hasher.write_u64(u64::from(ip.protocol.0) << 32 | u64::from(ports));
    hasher.finish()
}

/// Of a frame that is not IP.
pub(crate) fn hash_macs(source: MacAddr, destination: MacAddr) -> u64 {
    FLOW_HASH.hash_one((source, destination))
}

/// Of what begins with these bytes: tells packets of one flow apart.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    FLOW_HASH.hash_one(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use super::hash;
    use crate::tables::{Adjacency, AdjacencyId, Member, Multipath, PortId, Template};
    use crate::walk::parse::{Addresses, Ip};
    use crate::wire::{Ecn, MacAddr, Protocol};

    fn ip(host: u8, v6: bool) -> Ip {
        let addresses = if v6 {
            let address = |host: u8| Ipv6Addr::from([0xfd00, 0, 0, 0, 0, 0, 0, host.into()]);
            Addresses::V6 { source: address(host), destination: address(0) }
        } else {
            let address = |host: u8| Ipv4Addr::from([198, 18, 9, host]);
            Addresses::V4 { source: address(host), destination: address(0) }
        };
        Ip {
            addresses,
            len: 28,
            ttl: 64,
            ecn: Ecn::NotEct,
            protocol: Protocol::UDP,
            l4: 20,
            later_fragment: false,
            fragment: false,
            dont_fragment: true,
        }
    }

    /// As clients make them: ports and addresses in a row.
    #[test]
    fn neighbouring_flows_are_shared_evenly() {
        let template = Template::ethernet(MacAddr::ZERO, MacAddr::ZERO);
        let hop = Adjacency::Port { port: PortId(0), template, mtu: 1500 };
        let member = |number| Member {
            identity: [203, 0, 113, number].into(),
            adjacency: AdjacencyId(0),
            weight: 1,
        };
        let members = [member(12), member(13), member(14), member(15)];
        let group = Multipath::of(&members, &[hop]).unwrap();
        for v6 in [false, true] {
            let flows = (0..=255).flat_map(|host| (0..64u16).map(move |port| (host, port)));
            let mut shares = [0u32; 4];
            for (host, port) in flows {
                let [high, low] = (40_000 + port).to_be_bytes();
                let hash = hash(&ip(host, v6), &[high, low, 0, 80]);
                let member = group.member(hash).unwrap();
                let at = members.iter().position(|one| one == member).unwrap();
                *shares.get_mut(at).unwrap() += 1;
            }
            let even = 256 * 64 / 4;
            let bounds = even * 8 / 10..even * 12 / 10;
            assert!(shares.iter().all(|share| bounds.contains(share)), "{shares:?}");
        }
    }
}
