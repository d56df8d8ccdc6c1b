//! Opens the NIC: the pinhole, and a socket for each of its queues.
//!
//! Enters: the configuration and the machine's facts. Leaves: sockets for the workers, and every
//! choice with its reason. The NIC itself stays Linux's.

use controlplane::config::{self, Xdp};
use controlplane::desired::Steering;
use controlplane::plane::UplinkState;
use netio::pinhole::{self, AttachMode, AttachWish, Pinhole};
use netio::xsk::{XskConfig, XskSocket};

use crate::error::{Error, Result};
use crate::machine::Facts;

/// The NIC, opened. Dropping it gives everything back to Linux.
pub struct Uplink {
    pinhole: Pinhole,
    /// What the machine says of it.
    pub facts: Facts,
    /// `native` or `generic`, with the reason.
    pub xdp_mode: String,
    /// `zero-copy` or `copy`, with the reason.
    pub copy_mode: String,
}

impl Uplink {
    /// Attaches the pinhole and binds the sockets, one a queue, in the order of the queues.
    ///
    /// # Errors
    /// If somebody else has the NIC's XDP hook or one of its queues, or the kernel refuses.
    pub fn open(
        uplink: &config::Uplink,
        steering: &Steering,
        facts: Facts,
    ) -> Result<(Self, Vec<XskSocket>)> {
        let failed = |source| Error::Uplink { interface: uplink.interface.clone(), source };
        let wish = match uplink.xdp {
            Xdp::Auto | Xdp::Native => AttachWish::NativeThenGeneric,
            Xdp::Generic => AttachWish::Generic,
        };
        let pinhole = Pinhole::attach(facts.link.index, facts.queues, &program(steering), wish)
            .map_err(failed)?;
        if uplink.xdp == Xdp::Native && *pinhole.mode() != AttachMode::Native {
            let mode = pinhole.mode().to_string();
            return Err(Error::NotNative { interface: uplink.interface.clone(), mode });
        }
        let xsk = XskConfig { zero_copy: uplink.zero_copy, ..XskConfig::default() };
        let sockets = (0..facts.queues)
            .map(|queue| XskSocket::open(&uplink.interface, queue, &xsk, pinhole.xsk_map()))
            .collect::<netio::Result<Vec<_>>>()
            .map_err(failed)?;
        let xdp_mode = pinhole.mode().to_string();
        let copy_mode =
            sockets.first().map_or_else(String::new, |socket| socket.mode().to_string());
        Ok((Self { pinhole, facts, xdp_mode, copy_mode }, sockets))
    }

    /// Takes from the NIC what is wanted and no more.
    ///
    /// # Errors
    /// If the kernel refuses; what was taken before is taken still.
    pub fn steer(&mut self, wanted: &Steering) -> netio::Result<()> {
        self.pinhole.update(&program(wanted))
    }

    /// For the log and `status`.
    #[must_use]
    pub fn choices(&self, state: &UplinkState) -> Vec<String> {
        let (facts, name) = (&self.facts, &self.facts.link.name);
        let driver = if facts.driver.is_empty() { "unknown" } else { &facts.driver };
        let own: Vec<_> = state.port.addresses.iter().map(|own| own.to_string()).collect();
        vec![
            format!(
                "uplink {name}: driver {driver}, MTU {}, {}",
                state.port.mtu,
                if own.is_empty() {
                    "no underlay address yet".to_owned()
                } else {
                    format!("underlay address {}", own.join(", "))
                }
            ),
            format!("uplink {name}: AF_XDP on {} queue(s), all that receive", facts.queues),
            format!("uplink {name}: XDP mode {}", self.xdp_mode),
            format!("uplink {name}: {}", self.copy_mode),
        ]
    }
}

/// As the pinhole's program has it.
fn program(steering: &Steering) -> pinhole::Steering {
    let Steering { local, vxlan_ports, ipip, peers, prefixes, neighbors } = steering;
    pinhole::Steering {
        local: local.clone(),
        vxlan_ports: vxlan_ports.clone(),
        ipip: *ipip,
        peers: peers.clone(),
        prefixes: prefixes.iter().map(|net| (net.network(), net.prefix_len())).collect(),
        neighbors: *neighbors,
    }
}

/// Queues for each worker, spread evenly.
#[must_use]
pub fn spread(queues: usize, workers: usize) -> Vec<Vec<usize>> {
    let mut spread = vec![Vec::new(); workers];
    for queue in 0..queues {
        spread[queue % workers].push(queue);
    }
    spread
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn queues_are_spread_evenly() {
        assert_eq!(spread(5, 2), [vec![0, 2, 4], vec![1, 3]]);
        assert_eq!(spread(1, 1), [vec![0]]);
    }
}
