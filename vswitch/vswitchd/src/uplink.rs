//! Opens the NIC, and decides which of its packets are this node's.
//!
//! Enters: the configuration and the machine's facts. Leaves: queues for the workers, and every
//! choice with its reason. The NIC itself stays Linux's.

use controlplane::config::{UplinkChoice, UplinkSettings, Xdp};
use controlplane::desired::Steering;
use controlplane::plane::UplinkState;
use controlplane::repairs::Part;
use dataplane::tables::Offloads;
use netio::pinhole::{self, AttachMode, AttachWish};
use netio::uplink::{Tx, UplinkConfig, UplinkControl, UplinkKind, UplinkQueue};
use netio::xsk::XskMode;

use crate::error::{Error, Result, chain};
use crate::machine::Facts;

/// The NIC, opened. Dropping it gives everything back to Linux.
pub struct OpenUplink {
    control: UplinkControl,
    /// Why it is of this kind, if nobody said which.
    why: Option<String>,
    /// The NIC as it is on the machine.
    pub facts: Facts,
    /// The kernel has removed it.
    pub is_gone: bool,
}

type Opened = (UplinkControl, Vec<UplinkQueue>);

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
        let steering = program(steering);
        let nic = Nic { settings, facts: &facts, workers, steering: &steering };
        let ((control, queues), why) = match settings.kind {
            UplinkChoice::AfXdp => (nic.af_xdp(settings.zero_copy)?, None),
            UplinkChoice::Offload => (nic.offload()?, None),
            UplinkChoice::Auto => {
                let (opened, why) = nic.auto()?;
                (opened, Some(why))
            }
        };
        facts.queues = queues.len() as u32;
        Ok((Self { control, why, facts, is_gone: false }, queues))
    }

    /// The kind of uplink, and the modes that it runs in.
    #[must_use]
    pub fn control(&self) -> &UplinkControl {
        &self.control
    }

    /// Work that it takes undone.
    #[must_use]
    pub fn offloads(&self) -> Offloads {
        match self.control.kind() {
            UplinkKind::Offload => Offloads { checksum: true, tso: true, uso: true, vxlan: true },
            UplinkKind::AfXdp | UplinkKind::AfPacket => Offloads::default(),
        }
    }

    /// What of it is compared and put right.
    #[must_use]
    pub fn part(&self) -> Part {
        match self.control.kind() {
            UplinkKind::Offload => Part::UplinkTap,
            UplinkKind::AfXdp | UplinkKind::AfPacket => Part::XdpProgram,
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

/// A NIC that is to be opened.
struct Nic<'a> {
    settings: &'a UplinkSettings,
    facts: &'a Facts,
    workers: usize,
    steering: &'a pinhole::PinholeFilter,
}

impl Nic<'_> {
    fn af_xdp(&self, zero_copy: bool) -> Result<Opened> {
        let interface = &self.settings.interface;
        let nic = UplinkConfig {
            interface,
            ifindex: self.facts.link.index,
            queues: self.facts.queues,
            attach: match self.settings.xdp {
                Xdp::Auto | Xdp::Native => AttachWish::NativeThenGeneric,
                Xdp::Generic => AttachWish::Generic,
            },
            zero_copy,
        };
        let (control, queues) = UplinkControl::open_af_xdp(&nic, self.steering)
            .map_err(|source| Error::Uplink { interface: interface.clone(), source })?;
        match control.xdp_mode() {
            Some(mode) if self.settings.xdp == Xdp::Native && *mode != AttachMode::Native => {
                let mode = mode.to_string();
                Err(Error::NotNative { interface: interface.clone(), mode })
            }
            _ => Ok((control, queues)),
        }
    }

    fn offload(&self) -> Result<Opened> {
        UplinkControl::open_offload(self.facts.link.index, self.workers, self.steering).map_err(
            |source| Error::OffloadUplink { interface: self.settings.interface.clone(), source },
        )
    }

    /// The kind that costs least on this machine, and why it is that. AF_XDP stays open until the other is:
    /// it may have to do.
    fn auto(&self) -> Result<(Opened, String)> {
        let (af_xdp, why_no_zero_copy) = match self.af_xdp(true) {
            Ok(opened) => match opened.0.copy_mode() {
                Some(XskMode::Copy { reason }) => {
                    let reason = format!("AF_XDP would copy each frame ({reason})");
                    (Ok(opened), reason)
                }
                _ => return Ok((opened, "the driver has zero-copy".to_owned())),
            },
            Err(error) => {
                let reason = format!("AF_XDP is not to be had ({})", chain(&error));
                (Err(error), reason)
            }
        };
        match (self.offload(), af_xdp) {
            (Ok(opened), _) => Ok((
                opened,
                format!("{why_no_zero_copy}, and the kernel cuts superframes inside of tunnels"),
            )),
            (Err(error), Ok(opened)) => Ok((
                opened,
                format!(
                    "it copies each frame, but the kind \"offload\" is not to be had ({})",
                    chain(&error)
                ),
            )),
            (Err(_), Err(error)) => Err(error),
        }
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
