//! From what should be to what forwards.
//!
//! Enters: the model, the ports, and the kernel's ways to underlay addresses. Leaves: [`Tables`], for
//! `publish`. A pure function: the same input gives the same tables, and a test needs neither
//! interfaces nor time.
//!
//! | file | answers |
//! |---|---|
//! | `route`         | what a route is |
//! | `candidates`    | which routes are to be had |
//! | `rib`           | which of them wins for each prefix |
//! | `encapsulation` | how a peer is reached, and how pods' packets may come |
//! | `adjacency`     | what goes in front of a packet |
//! | `tunnels`       | what is accepted from which peers, with which inner sources |
//! | `ports`         | what is attached here |
//! | `services`      | what stands behind virtual addresses |
//! | `bridge`        | what shares the L2 segment |
//! | `base`          | what of all this is as before |
//! | `made_of`       | what is not |

mod adjacency;
pub mod base;
mod bridge;
mod candidates;
pub mod encapsulation;
#[cfg(test)]
mod kernel_tests;
mod made_of;
mod ports;
pub mod rib;
pub mod route;
mod services;
#[cfg(test)]
mod tests;
mod tunnels;

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{AttachmentId, Encapsulation, PeerSpec};
use dataplane::tables::{
    BridgeId, Epoch, Gateway, LocalAddresses, Offloads, PortId, Tables, Tunnels,
};
use dataplane::wire::{MacAddr, Vni};

use crate::config::Config;
use crate::model::Model;
use crate::mtu::{least, pod_mtu};
use crate::next_hop::NextHop;
use crate::path_mtu::PathMtus;
pub use base::Base;
use encapsulation::{EncapsulationChoice, choose_encapsulation, overhead};

/// The bridge domain of the configuration; the only one so far.
const DEFAULT_BRIDGE: BridgeId = BridgeId(0);

/// The NIC, as far as forwarding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkPort {
    /// Number of the port.
    pub id: PortId,
    /// MAC of the NIC.
    pub mac: MacAddr,
    /// Underlay addresses.
    pub addresses: LocalAddresses,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Work that it takes undone.
    pub offloads: Offloads,
}

/// The host port, as far as forwarding needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Number of the port.
    pub id: PortId,
    /// The TAP's MAC.
    pub mac: MacAddr,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    /// Offloads that the kernel accepts.
    pub offloads: Offloads,
}

/// A pod's live port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodPort {
    /// Number of the port.
    pub id: PortId,
    /// Offloads that the pod's kernel accepts.
    pub offloads: Offloads,
}

/// Everything that tables are made of.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The operator's decisions.
    pub config: &'a Config,
    /// The desired state.
    pub model: &'a Model,
    /// Attachments with a live port.
    pub pods: &'a BTreeMap<AttachmentId, PodPort>,
    /// The node's own port.
    pub host: Option<&'a HostPort>,
    /// The NIC.
    pub uplink: Option<&'a UplinkPort>,
    /// How the kernel reaches underlay addresses.
    pub next_hops: &'a BTreeMap<IpAddr, NextHop>,
    /// MTUs that routers reported of the ways there.
    pub path_mtus: &'a PathMtus,
    /// Epoch of the tables to be.
    pub epoch: Epoch,
}

impl Input<'_> {
    /// How a peer is reached.
    #[must_use]
    pub fn choose_encapsulation(&self, peer: &PeerSpec) -> EncapsulationChoice {
        choose_encapsulation(self.config, peer, self.next_hops.get(&peer.address))
    }

    /// Largest inner packet to a peer, bytes; without an uplink there is none.
    #[must_use]
    pub fn peer_mtu(&self, peer: &PeerSpec) -> Option<u32> {
        let uplink = self.uplink?;
        Some(self.mtu_within(self.choose_encapsulation(peer).in_force, peer.address, uplink))
    }

    /// MTU of pods' interfaces.
    fn pod_mtu(&self) -> u32 {
        pod_mtu(self.config, self.model, self.uplink.map(|uplink| uplink.mtu))
    }

    /// The MTU that an encapsulation to this address leaves. Routers report on tunnel packets: of
    /// others their senders get the reports. What the kernel's route has is about all that
    /// goes there; but the kernel may have it from a forged ICMP message, so it lowers
    /// no packet below what every pod's interface has.
    fn mtu_within(
        &self,
        encapsulation: Encapsulation,
        towards: IpAddr,
        uplink: &UplinkPort,
    ) -> u32 {
        let overhead = overhead(encapsulation, towards);
        let said = self.path_mtus.to(towards).filter(|_| encapsulation != Encapsulation::Direct);
        let of_route = self.next_hops.get(&towards).and_then(|hop| hop.mtu);
        let of_route = of_route.map(|mtu| mtu.max(least(self.model) + overhead));
        let outer = said.into_iter().chain(of_route).fold(uplink.mtu, u32::min);
        outer.saturating_sub(overhead)
    }
}

/// The tables of this input.
#[must_use]
pub fn compile(input: &Input<'_>) -> Tables {
    Base::of(input).tables(input)
}

/// MAC of this node's VTEP, as a peer knows it that reaches us by this address of ours.
#[must_use]
pub fn vtep_mac(config: &Config, own: IpAddr) -> MacAddr {
    config.overlay.vtep_mac.map_or_else(|| Tunnels::derived_vtep_mac(own), |mac| MacAddr(mac.0))
}

fn gateway(model: &Model) -> Gateway {
    let mut gateway = Gateway { mac: Gateway::MAC, ..Gateway::default() };
    // The current ones last: the switch's own packets to pods come from them.
    for address in model.pods.gateways().collect::<Vec<_>>().into_iter().rev() {
        match address {
            IpAddr::V4(v4) => gateway.v4 = Some(v4),
            IpAddr::V6(v6) => gateway.v6 = Some(v6),
        }
    }
    for address in model.pods.masquerade() {
        match address {
            IpAddr::V4(v4) => gateway.masquerade_v4 = Some(*v4),
            IpAddr::V6(v6) => gateway.masquerade_v6 = Some(*v6),
        }
    }
    gateway
}

fn vni(number: u32) -> Vni {
    Vni::new(number).expect("the configuration allows 24 bits")
}

/// An IP packet has at most 65,535 bytes, whatever an interface says.
fn clamp(mtu: u32) -> u16 {
    u16::try_from(mtu).unwrap_or(u16::MAX)
}
