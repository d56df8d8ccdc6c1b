//! The fields of a Node, parsed: each may be hostile.
//!
//! Enters: what a [`NodeObject`] has in it. Leaves: names, prefixes, addresses and MACs that can be
//! meant, and how a node is reached by them, to `node` and `flannel`; or the [`Problem`].

use std::net::{IpAddr, Ipv4Addr};

use api::{Encapsulation, Mac, PeerSpec, is_v4};
use ipnet::IpNet;

use crate::object::NodeObject;
use crate::problem::NodeProblem;

/// Of a hostile value so much is repeated in messages.
const SHOWN_CHARS: usize = 64;
/// The longest prefix or address in text is below this.
const ADDRESS_CHARS: usize = 64;
/// A node's pods do not fill more: a /8 of IPv4, a /16 of IPv6.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 16;

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeReach {
    /// One; or two, if each family of its pods has an underlay address of its own.
    pub peers: Vec<PeerSpec>,
    /// The network identifier that the node names; to be compared with ours.
    pub vni: Option<u32>,
}

/// The one place that turns a judged node into a peer for the daemon.
pub(crate) fn peer(
    name: String,
    address: IpAddr,
    prefixes: Vec<IpNet>,
    encapsulation: Option<Encapsulation>,
    vtep_mac: Option<Mac>,
) -> Result<PeerSpec, NodeProblem> {
    if prefixes.iter().any(|prefix| prefix.contains(&address)) {
        return Err(NodeProblem::AddressInside(address));
    }
    Ok(PeerSpec { name, address, prefixes, encapsulation, encapsulate: None, vtep_mac })
}

/// A Node's name.
pub(crate) fn check_name(name: &str) -> Result<(), NodeProblem> {
    let is_subdomain_char = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    if name.is_empty() || name.len() > 253 || !name.bytes().all(is_subdomain_char) {
        return Err(NodeProblem::Name(shown(name)));
    }
    Ok(())
}

/// `spec.podCIDRs`, or the older `spec.podCIDR` alone; at least one.
///
/// # Errors
/// If there is none, or one that pods cannot have.
pub fn pod_cidrs(object: &NodeObject) -> Result<Vec<IpNet>, NodeProblem> {
    let several = object.spec.pod_cidrs.as_deref().unwrap_or_default();
    let one = object.spec.pod_cidr.as_slice();
    let texts = if several.is_empty() { one } else { several };
    let mut prefixes: Vec<IpNet> = Vec::with_capacity(2);
    for text in texts.iter().filter(|text| !text.is_empty()) {
        let prefix = parse_pod_cidr(text)?;
        if prefixes.iter().any(|other| is_v4(other) == is_v4(&prefix)) {
            return Err(NodeProblem::ManyPodCidrs);
        }
        prefixes.push(prefix);
    }
    if prefixes.is_empty() { Err(NodeProblem::NoPodCidr) } else { Ok(prefixes) }
}

fn parse_pod_cidr(text: &str) -> Result<IpNet, NodeProblem> {
    let refuse = |why| NodeProblem::PodCidr { cidr: shown(text), why };
    if text.len() > ADDRESS_CHARS {
        return Err(refuse("is no prefix"));
    }
    let prefix: IpNet = text.parse().map_err(|_| refuse("is no prefix"))?;
    if prefix.trunc() != prefix {
        return Err(refuse("has bits set beyond its length"));
    }
    if prefix.prefix_len() == 0 {
        return Err(refuse("is everything"));
    }
    let is_special = match prefix.addr() {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.octets()[0] == 0
                // Multicast, and beyond it what is reserved.
                || v4.octets()[0] >= 224
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some()
        }
    };
    if is_special {
        return Err(refuse("is loopback, link-local, multicast or reserved"));
    }
    let shortest = if is_v4(&prefix) { SHORTEST_V4 } else { SHORTEST_V6 };
    if prefix.prefix_len() < shortest {
        return Err(refuse("is larger than the pods of any node"));
    }
    Ok(prefix)
}

/// The first InternalIP of IPv4, else the first one.
pub(crate) fn internal_address(object: &NodeObject) -> Result<IpAddr, NodeProblem> {
    let addresses = object.status.addresses.as_deref().unwrap_or_default();
    let mut first = None;
    for entry in addresses.iter().filter(|entry| entry.kind == "InternalIP") {
        let address = parse_address("InternalIP", &entry.address)?;
        if address.is_ipv4() {
            return Ok(address);
        }
        first = first.or(Some(address));
    }
    first.ok_or(NodeProblem::NoAddress)
}

/// An address that a node can have on its underlay.
pub(crate) fn parse_address(source_name: &'static str, text: &str) -> Result<IpAddr, NodeProblem> {
    let refuse = |why| NodeProblem::Address { source_name, address: shown(text), why };
    let address: IpAddr = text.parse().map_err(|_| refuse("is no address"))?;
    let is_special = match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.octets()[0] == 0
                || v4.octets()[0] >= 224
                || v4 == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.to_ipv4_mapped().is_some()
        }
    };
    if is_special { Err(refuse("is no address of a node")) } else { Ok(address) }
}

/// A MAC that an interface can have.
pub(crate) fn parse_mac(annotation: &'static str, text: &str) -> Result<Mac, NodeProblem> {
    let mac = text.parse::<Mac>().ok().filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6]);
    mac.ok_or_else(|| NodeProblem::VtepMac { annotation, value: shown(text) })
}

/// A value that may be hostile, quoted and cut.
pub(crate) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN_CHARS).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut:?}{more}")
}
