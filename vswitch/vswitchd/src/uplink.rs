//! Opens the NIC, and decides which of its packets are this node's.
//!
//! Enters: the configuration and the machine's facts. Leaves: queues for the workers, and every
//! choice with its reason. The NIC itself stays Linux's.

use controlplane::config::{self, Xdp};
use controlplane::desired::Steering;
use controlplane::plane::UplinkState;
use netio::pinhole::{self, AttachMode, AttachWish};
use netio::uplink::{Tx, UplinkConfig, UplinkControl, UplinkQueue};

use crate::error::{Error, Result};
use crate::machine::Facts;

/// The NIC, opened. Dropping it gives everything back to Linux.
pub struct OpenUplink {
    control: UplinkControl,
    /// The NIC as it is on the machine.
    pub facts: Facts,
    /// The kernel has removed it.
    pub is_gone: bool,
}

impl OpenUplink {
    /// Takes the NIC's packets that are this node's; with it come its queues, in their order.
    ///
    /// # Errors
    /// If another program has the NIC's XDP hook or one of its queues, or the kernel refuses.
    pub fn open(
        uplink: &config::UplinkSettings,
        steering: &Steering,
        facts: Facts,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let nic = UplinkConfig {
            interface: &uplink.interface,
            ifindex: facts.link.index,
            queues: facts.queues,
            attach: match uplink.xdp {
                Xdp::Auto | Xdp::Native => AttachWish::NativeThenGeneric,
                Xdp::Generic => AttachWish::Generic,
            },
            zero_copy: uplink.zero_copy,
        };
        let (control, queues) = UplinkControl::open_af_xdp(&nic, &program(steering))
            .map_err(|source| Error::Uplink { interface: uplink.interface.clone(), source })?;
        match control.xdp_mode() {
            Some(mode) if uplink.xdp == Xdp::Native && *mode != AttachMode::Native => {
                let mode = mode.to_string();
                Err(Error::NotNative { interface: uplink.interface.clone(), mode })
            }
            _ => Ok((Self { control, facts, is_gone: false }, queues)),
        }
    }

    /// The kind of uplink, and the modes that it runs in.
    #[must_use]
    pub fn control(&self) -> &UplinkControl {
        &self.control
    }

    /// A transmit handle for a worker that owns no queue.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn extra_tx(&self) -> netio::Result<Tx> {
        self.control.extra_tx()
    }

    /// Takes from the NIC what is wanted and no more.
    ///
    /// # Errors
    /// If the kernel refuses; what was taken before is taken still.
    pub fn steer(&mut self, wanted: &Steering) -> netio::Result<()> {
        self.control.steer(&program(wanted))
    }

    /// Puts back what another program took of ours, and says what was wrong.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn settle(&mut self) -> netio::Result<Option<&'static str>> {
        self.control.settle()
    }

    /// As `settle`, for the maps of the program: a call of the kernel for each peer.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn settle_maps(&mut self) -> netio::Result<bool> {
        self.control.settle_maps()
    }

    /// What was chosen and why, for the log and `status`.
    #[must_use]
    pub fn choices(&self, state: &UplinkState) -> Vec<String> {
        let (facts, name) = (&self.facts, &self.facts.link.name);
        let driver = if facts.driver.is_empty() { "unknown" } else { &facts.driver };
        let own: Vec<_> = state.port.addresses.iter().map(|own| own.to_string()).collect();
        let mut choices = vec![format!(
            "uplink {name}: driver {driver}, MTU {}, {}",
            state.port.mtu,
            if own.is_empty() {
                "no underlay address yet".to_owned()
            } else {
                format!("underlay address {}", own.join(", "))
            }
        )];
        let own = self.control.choices();
        choices.extend(own.into_iter().map(|choice| format!("uplink {name}: {choice}")));
        choices
    }
}

/// The steering as the pinhole's program has it.
fn program(steering: &Steering) -> pinhole::PinholeFilter {
    let Steering { local, vxlan_ports, ipip, peers, prefixes, neighbors } = steering;
    pinhole::PinholeFilter {
        local: local.clone(),
        vxlan_ports: vxlan_ports.clone(),
        ipip: *ipip,
        peers: peers.clone(),
        prefixes: prefixes.iter().map(|net| (net.network(), net.prefix_len())).collect(),
        neighbors: *neighbors,
    }
}
