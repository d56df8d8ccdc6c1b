//! Opens the NIC, and decides which of its packets are this node's.
//!
//! Enters: the configuration and the machine's facts. Leaves: queues for the workers, and every
//! choice with its reason. The NIC itself stays Linux's. `choose` opens the kind.

mod choose;

use controlplane::config::{UplinkChoice, UplinkSettings};
use controlplane::desired::Steering;
use controlplane::plane::UplinkState;
use controlplane::repairs::Part;
use dataplane::tables::Offloads;
use netio::uplink::{Tx, UplinkControl, UplinkKind, UplinkQueue};
use netio::{ethtool, pinhole};

use crate::error::Result;
use crate::machine::Facts;
use choose::Nic;

/// The NIC, opened. Dropping it gives everything back to Linux.
pub struct OpenUplink {
    control: UplinkControl,
    /// Why it is of this kind, if it was chosen.
    why: Option<String>,
    /// Kinds that stopped working since the start.
    stopped: Vec<UplinkKind>,
    /// The NIC as it is on the machine.
    pub facts: Facts,
    /// The kernel has removed it.
    pub is_gone: bool,
}

impl OpenUplink {
    /// Takes the NIC's packets that are this node's, for so many workers; with it come its queues, in
    /// their order.
    ///
    /// # Errors
    /// If another program has the NIC's XDP hook or one of its queues, the kernel refuses, or lacks what
    /// the configured kind takes.
    pub fn open(
        settings: &UplinkSettings,
        workers: usize,
        steering: &Steering,
        mut facts: Facts,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        pinhole::remove_leftover(facts.link.index);
        let steering = program(steering);
        let nic = Nic { settings, facts: &facts, workers, steering: &steering };
        let ((control, queues), why) = match settings.kind {
            UplinkChoice::AfXdp => (nic.open(UplinkKind::AfXdp)?, None),
            UplinkChoice::Offload => (nic.open(UplinkKind::Offload)?, None),
            UplinkChoice::AfPacket => (nic.open(UplinkKind::AfPacket)?, None),
            UplinkChoice::Auto => {
                let (opened, why) = nic.best()?;
                (opened, Some(why))
            }
        };
        facts.queues = queues.len() as u32;
        Ok((Self { control, why, stopped: Vec::new(), facts, is_gone: false }, queues))
    }

    /// Opens the NIC by the next kind, as this one has stopped working: `None` if the kind is not the daemon's
    /// to choose, or none is left. This one stays as it is until it is dropped.
    ///
    /// # Errors
    /// If no kind that is left can be had.
    pub fn next_kind(
        &self,
        settings: &UplinkSettings,
        workers: usize,
        steering: &Steering,
        why: &str,
    ) -> Option<Result<(Self, Vec<UplinkQueue>)>> {
        if settings.kind != UplinkChoice::Auto {
            return None;
        }
        let kind = self.control.kind();
        let stopped: Vec<_> = self.stopped.iter().copied().chain([kind]).collect();
        let mut facts = self.facts.clone();
        // Those of this kind may be others.
        facts.queues = ethtool::rx_queues(&facts.link.name)
            .ok()
            .flatten()
            .unwrap_or(facts.link.rx_queues)
            .max(1);
        let steering = program(steering);
        let nic = Nic { settings, facts: &facts, workers, steering: &steering };
        let opened = nic.best_but(&stopped, &format!("{kind} stopped working: {why}"))?;
        Some(opened.map(|((control, queues), why)| {
            facts.queues = queues.len() as u32;
            (Self { control, why: Some(why), stopped, facts, is_gone: false }, queues)
        }))
    }

    /// Why it is of this kind, if it was chosen.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// The kind of uplink, and the modes that it runs in.
    #[must_use]
    pub fn control(&self) -> &UplinkControl {
        &self.control
    }

    /// Work that it takes undone.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        if self.control.kind() == UplinkKind::Offload {
            return Offloads { checksum: true, tso: true, uso: true, vxlan: true };
        }
        // No virtio header of a packet socket can say a tunnel; a superframe of UDP is one since Linux 6.2.
        let whole = self.control.sends_by_packet_sockets();
        Offloads { checksum: whole, tso: whole, ..Offloads::default() }
    }

    /// What of it is compared and put right.
    #[must_use]
    pub fn part(&self) -> Part {
        match self.control.kind() {
            UplinkKind::Offload => Part::UplinkTap,
            UplinkKind::AfXdp => Part::XdpProgram,
            UplinkKind::AfPacket => Part::PacketSockets,
        }
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
        let kind = self.control.kind();
        choices.extend(self.why.iter().map(|why| format!("uplink {name}: {kind}, as {why}")));
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
