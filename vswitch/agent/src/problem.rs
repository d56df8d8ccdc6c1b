//! What keeps a Node out, in sentences for its log and Event.

use std::net::IpAddr;

/// Why a Node makes no peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeProblem {
    /// The cluster has not assigned one yet.
    #[error("it has no podCIDR yet")]
    NoPodCidr,
    /// The kubelet has not reported one yet.
    #[error("it has no InternalIP yet")]
    NoAddress,
    /// No name for a peer.
    #[error("its name {0} is no name of a node")]
    Name(String),
    /// A podCIDR that pods cannot have.
    #[error("its podCIDR {cidr} {why}")]
    PodCidr {
        /// The CIDR, as far as it is shown.
        cidr: String,
        /// Completes the sentence.
        why: &'static str,
    },
    /// More than one a family.
    #[error("it has more than one podCIDR of a family")]
    ManyPodCidrs,
    /// An address that a node cannot have.
    #[error("its {source_name} {address} {why}")]
    Address {
        /// `InternalIP` or the annotation.
        source_name: &'static str,
        /// The address, as far as it is shown.
        address: String,
        /// Completes the sentence.
        why: &'static str,
    },
    /// The address is one of its own pods'.
    #[error(
        "its underlay address {0} lies in its own podCIDR: the tunnel would run through itself"
    )]
    AddressInside(IpAddr),
    /// A MAC that no VTEP has.
    #[error("its annotation {annotation} is {value}, which is no MAC of a host")]
    VtepMac {
        /// Which one.
        annotation: &'static str,
        /// The value, as far as it is shown.
        value: String,
    },
    /// flannel's annotation is not what flannel writes.
    #[error("its annotation {annotation} is {value}, which is not what flannel writes there")]
    FlannelData {
        /// Which one.
        annotation: &'static str,
        /// The value, as far as it is shown.
        value: String,
    },
    /// flannel encapsulates in a way that we do not support.
    #[error(
        "its flannel backend {0} is none that vswitchd speaks; it takes vxlan, ipip and host-gw"
    )]
    FlannelBackend(String),
}

impl NodeProblem {
    /// Nothing is wrong: the Node is young, and will be complete.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::NoPodCidr | Self::NoAddress)
    }
}
