//! Compares tables by what they do: the numbers of adjacencies depend on how tables came to be.
//!
//! Enters: two tables, and addresses to look up. Leaves: the first difference, in words.

use std::fmt::Debug;
use std::net::IpAddr;

use dataplane::tables::{Adjacency, AdjacencyId, Bridge, Tables};

/// What is different, if something is.
pub(crate) fn difference(one: &Tables, other: &Tables, probes: &[IpAddr]) -> Option<String> {
    differ("ports", &one.ports, &other.ports)
        .or_else(|| differ("gateway", &one.gateway, &other.gateway))
        .or_else(|| differ("number of bridges", &one.bridges.len(), &other.bridges.len()))
        .or_else(|| {
            let mut pairs = one.bridges.iter().zip(&other.bridges);
            pairs.find_map(|(one, other)| bridges_differ(one, other))
        })
        .or_else(|| tunnels_differ(one, other, probes))
        .or_else(|| {
            probes.iter().find_map(|probe| {
                if lead_alike(one, other, one.route(*probe), other.route(*probe)) {
                    return None;
                }
                let lead = |tables: &Tables| {
                    let adjacency = tables.route(*probe).and_then(|id| tables.adjacency(id));
                    format!("{adjacency:?}")
                };
                Some(format!("{probe} leads to {} and to {}", lead(one), lead(other)))
            })
        })
}

fn differ<T: PartialEq + Debug>(what: &str, one: &T, other: &T) -> Option<String> {
    (one != other).then(|| format!("{what}: {one:?} and {other:?}"))
}

fn bridges_differ(one: &Bridge, other: &Bridge) -> Option<String> {
    let ends = |bridge: &Bridge| -> Vec<_> {
        let ends = bridge.vteps.iter();
        ends.map(|end| (end.address, end.port, end.template, end.mtu)).collect()
    };
    differ("bridge members", &one.members, &other.members)
        .or_else(|| differ("bridge VNI", &one.vni, &other.vni))
        .or_else(|| differ("VTEPs", &ends(one), &ends(other)))
        .or_else(|| differ("bridge FDB", &one.fdb, &other.fdb))
}

fn tunnels_differ(one: &Tables, other: &Tables, probes: &[IpAddr]) -> Option<String> {
    let (one, other) = (&one.tunnels, &other.tunnels);
    differ("uplink", &one.uplink, &other.uplink)
        .or_else(|| differ("local addresses", &one.local, &other.local))
        .or_else(|| differ("VXLAN port", &one.vxlan_port, &other.vxlan_port))
        .or_else(|| differ("VXLAN ports", &one.more_vxlan_ports, &other.more_vxlan_ports))
        .or_else(|| differ("IPIP", &one.ipip, &other.ipip))
        .or_else(|| differ("direct", &one.direct, &other.direct))
        .or_else(|| differ("clamp_mss", &one.clamp_mss, &other.clamp_mss))
        .or_else(|| {
            let of = |tunnels: &dataplane::tables::Tunnels| tunnels.direct_from_tunnelled;
            differ("direct from tunnelled", &of(one), &of(other))
        })
        .or_else(|| differ("proxy_neighbors", &one.proxy_neighbors, &other.proxy_neighbors))
        .or_else(|| differ("zero checksum", &one.zero_checksum6, &other.zero_checksum6))
        .or_else(|| differ("VTEP MAC", &one.vtep_mac, &other.vtep_mac))
        .or_else(|| differ("VTEP MAC over IPv6", &one.vtep_mac6, &other.vtep_mac6))
        .or_else(|| differ("VNIs", &one.vnis, &other.vnis))
        .or_else(|| differ("peers", &one.peers, &other.peers))
        .or_else(|| {
            let of = |tunnels: &dataplane::tables::Tunnels| -> Vec<_> {
                probes.iter().map(|probe| tunnels.by_address.get(*probe)).collect()
            };
            differ("peers by address", &of(one), &of(other))
        })
}

/// Whether both lead to the same, a group's members included.
fn lead_alike(
    one: &Tables,
    other: &Tables,
    id: Option<AdjacencyId>,
    other_id: Option<AdjacencyId>,
) -> bool {
    let adjacency = id.and_then(|id| one.adjacency(id));
    let other_adjacency = other_id.and_then(|id| other.adjacency(id));
    let (Some(Adjacency::Multipath(group)), Some(Adjacency::Multipath(other_group))) =
        (adjacency, other_adjacency)
    else {
        return adjacency == other_adjacency;
    };
    let (members, other_members) = (group.members(), other_group.members());
    members.len() == other_members.len()
        && members.iter().zip(other_members).all(|(a, b)| {
            (a.identity, a.weight) == (b.identity, b.weight)
                && one.adjacency(a.adjacency) == other.adjacency(b.adjacency)
        })
}
