//! The annotations of flannel's `kube` subnet manager: how nodes with flannel and nodes with ours
//! share a cluster.
//!
//! Enters: a Node that flannel manages, from `node`; this node's VTEP, from `publish`. Leaves: the
//! peers that it makes; the annotations by which flannel programs us. flannel keeps one VXLAN device
//! a family, each with a MAC and a public address of its own, and its VNI is 1 unless configured.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{Encapsulation, Mac, is_v4};
use ipnet::IpNet;
use serde::Deserialize;

use crate::fields::{NodeReach, parse_address, parse_mac, peer, shown};
use crate::object::NodeObject;
use crate::problem::NodeProblem;

/// `true` where flannel, or a node in its manner, keeps the following.
pub const MANAGED: &str = "flannel.alpha.coreos.com/kube-subnet-manager";
/// `vxlan`, `host-gw` and others.
pub const BACKEND_TYPE: &str = "flannel.alpha.coreos.com/backend-type";
/// VNI and MAC of the VXLAN device for IPv4.
pub const BACKEND_DATA: &str = "flannel.alpha.coreos.com/backend-data";
/// VNI and MAC of the VXLAN device for IPv6.
pub const BACKEND_V6_DATA: &str = "flannel.alpha.coreos.com/backend-v6-data";
/// Where packets with IPv4 inside are sent.
pub const PUBLIC_IP: &str = "flannel.alpha.coreos.com/public-ip";
/// Where packets with IPv6 inside are sent.
pub const PUBLIC_IPV6: &str = "flannel.alpha.coreos.com/public-ipv6";
/// Set by an operator: flannel publishes this instead of what it detected.
pub const PUBLIC_IP_OVERWRITE: &str = "flannel.alpha.coreos.com/public-ip-overwrite";
/// Likewise for IPv6.
pub const PUBLIC_IPV6_OVERWRITE: &str = "flannel.alpha.coreos.com/public-ipv6-overwrite";

/// Settings of the backend as flannel names them.
#[derive(Debug, Deserialize)]
struct BackendData {
    #[serde(rename = "VNI")]
    vni: u32,
    #[serde(rename = "VtepMAC")]
    vtep_mac: String,
}

/// Whether flannel's annotations are to be believed.
pub(crate) fn is_managed(object: &NodeObject) -> bool {
    object.annotation(MANAGED) == Some("true")
}

/// The peers that a node of flannel's makes, one for each family of its pods that flannel carries.
pub(crate) fn reach(object: &NodeObject, prefixes: &[IpNet]) -> Result<NodeReach, NodeProblem> {
    let backend = object.annotation(BACKEND_TYPE).unwrap_or_default();
    let encapsulation = match backend {
        "vxlan" => Encapsulation::Vxlan,
        "ipip" => Encapsulation::Ipip,
        "host-gw" => Encapsulation::Direct,
        other => return Err(NodeProblem::FlannelBackend(shown(other))),
    };
    let (v4, v6): (Vec<IpNet>, Vec<IpNet>) = prefixes.iter().partition(|prefix| is_v4(prefix));
    let name = object.name();
    let (mut peers, mut vni) = (Vec::with_capacity(2), None);
    for (name, prefixes, address_key, data_key) in [
        (name.to_owned(), v4, PUBLIC_IP, BACKEND_DATA),
        (format!("{name}/v6"), v6, PUBLIC_IPV6, BACKEND_V6_DATA),
    ] {
        let Some(address) = object.annotation(address_key).filter(|_| !prefixes.is_empty()) else {
            continue;
        };
        let address = parse_address(address_key, address)?;
        let mac = if encapsulation == Encapsulation::Vxlan {
            let (its_vni, mac) = backend_data(object, data_key)?;
            if *vni.get_or_insert(its_vni) != its_vni {
                let value = shown(object.annotation(data_key).unwrap_or_default());
                return Err(NodeProblem::FlannelData { annotation: data_key, value });
            }
            Some(mac)
        } else {
            None
        };
        peers.push(peer(name, address, prefixes, Some(encapsulation), mac)?);
    }
    if peers.is_empty() { Err(NodeProblem::NoAddress) } else { Ok(NodeReach { peers, vni }) }
}

fn backend_data(object: &NodeObject, key: &'static str) -> Result<(u32, Mac), NodeProblem> {
    let text = object.annotation(key).unwrap_or_default();
    let data: BackendData = serde_json::from_str(text)
        .map_err(|_| NodeProblem::FlannelData { annotation: key, value: shown(text) })?;
    Ok((data.vni, parse_mac(key, &data.vtep_mac)?))
}

/// What makes flannel's nodes program this one, in each family of `addresses`; an operator's setting
/// among the annotations that are there goes before, as flannel has it.
#[must_use]
pub fn annotations(
    present: &BTreeMap<String, String>,
    addresses: &[IpAddr],
    vni: u32,
    vtep_mac: Mac,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (MANAGED.to_owned(), "true".to_owned()),
        (BACKEND_TYPE.to_owned(), "vxlan".to_owned()),
    ]);
    for address in addresses {
        let (address_key, overwrite_key, data_key) = if address.is_ipv4() {
            (PUBLIC_IP, PUBLIC_IP_OVERWRITE, BACKEND_DATA)
        } else {
            (PUBLIC_IPV6, PUBLIC_IPV6_OVERWRITE, BACKEND_V6_DATA)
        };
        let overwrite = present.get(overwrite_key).and_then(|text| text.parse::<IpAddr>().ok());
        let overwrite = overwrite.filter(|ip| ip.is_ipv4() == address.is_ipv4());
        all.insert(address_key.to_owned(), overwrite.unwrap_or(*address).to_string());
        let data = format!(r#"{{"VNI":{vni},"VtepMAC":"{vtep_mac}"}}"#);
        all.insert(data_key.to_owned(), data);
    }
    all
}
