//! What a value must be by itself, whatever source it comes from.
//!
//! Enters: names, prefixes, addresses, words. Leaves: a sentence for what cannot be meant, to
//! `semantic`, `claims` and `sections`.

use std::net::IpAddr;

use api::{Encapsulate, Encapsulation, PeerSpec};
use dataplane::tables::LocalAddresses;
use ipnet::IpNet;

/// RFC 1035 section 2.3.4, as Kubernetes names its nodes.
const MAX_NAME: usize = 253;

/// What a node or a peer may be called.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_well_formed = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.chars().all(|char| !char.is_whitespace() && !char.is_control());
    if is_well_formed {
        Ok(())
    } else {
        Err(format!("a name has 1 to {MAX_NAME} bytes and no spaces"))
    }
}

/// What the kernel takes for an interface's name: `dev_valid_name`, net/core/dev.c.
pub(super) fn check_interface(name: &str) -> Result<(), String> {
    let is_well_formed = !name.is_empty()
        && name.len() <= 15
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':');
    if is_well_formed {
        Ok(())
    } else {
        Err(format!(
            "\"{name}\" cannot be an interface: 1 to 15 characters, no space, no slash, no colon"
        ))
    }
}

/// A prefix, and no address beside it.
pub(super) fn check_canonical(prefix: &IpNet) -> Result<(), String> {
    let canonical = prefix.trunc();
    if *prefix == canonical {
        Ok(())
    } else {
        Err(format!("{prefix} has bits beyond its length; did you mean {canonical}?"))
    }
}

/// A prefix that pods may have addresses from.
pub(super) fn check_prefix(prefix: &IpNet) -> Result<(), String> {
    check_canonical(prefix)?;
    if prefix.prefix_len() == 0 {
        return Err(format!("{prefix} is everything; pods need a prefix of their own"));
    }
    let is_special = match prefix.addr() {
        IpAddr::V4(v4) => {
            v4.is_loopback() || v4.is_multicast() || v4.is_link_local() || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.is_unspecified()
        }
    };
    if is_special {
        return Err(format!(
            "{prefix} is no prefix that pods may have: it is loopback, multicast, link-local or unspecified"
        ));
    }
    Ok(())
}

/// Whether a tunnel can lead from one of our addresses to this one.
///
/// # Errors
/// Why not.
pub(crate) fn check_far_end(own: LocalAddresses, address: IpAddr) -> Result<(), String> {
    match own.towards(address) {
        Some(here) if here == address => Err(format!("{address} is this node itself")),
        Some(_) => Ok(()),
        None => {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            Err(format!("this node's uplink has no {family} address to reach {address} from"))
        }
    }
}

/// An address that another node may have, of those outside these prefixes.
pub(super) fn check_underlay(address: IpAddr, cluster: &[IpNet]) -> Result<(), String> {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_broadcast() || v4.is_link_local() || v4.octets()[0] == 0,
        // A link-local address is one on each link, and a mapped one is none at all.
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6.is_unspecified() || v6.to_ipv4_mapped().is_some()
        }
    };
    if is_special || address.is_loopback() || address.is_multicast() {
        return Err(format!("{address} cannot be a node's underlay address"));
    }
    match cluster.iter().find(|prefix| prefix.contains(&address)) {
        Some(prefix) => Err(format!(
            "{address} lies in the cluster prefix {prefix}: tunnels would run through themselves"
        )),
        None => Ok(()),
    }
}

/// Neither all zero nor a group's.
pub(super) fn is_unicast_mac(mac: api::Mac) -> bool {
    mac.0[0] & 1 == 0 && mac.0 != [0; 6]
}

/// Why a peer's own two keys contradict each other, or the node's `overlay.encapsulation`.
pub(super) fn contradiction(node: Option<Encapsulation>, peer: &PeerSpec) -> Option<String> {
    let wanted = peer.encapsulate.filter(|wanted| *wanted != Encapsulate::Never)?;
    let tunnel = peer.encapsulation.or(node);
    (tunnel == Some(Encapsulation::Direct)).then(|| nothing_to_encapsulate_by(wanted))
}

/// The sentence about "always" or "cross-subnet" beside "direct".
pub(super) fn nothing_to_encapsulate_by(wanted: Encapsulate) -> String {
    let word = if wanted == Encapsulate::Always { "always" } else { "cross-subnet" };
    format!(
        "\"{word}\" needs an encapsulation, and that is \"direct\" here; choose \"vxlan\" or \"ipip\""
    )
}
