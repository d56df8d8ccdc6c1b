//! Opens a NIC as one kind of uplink, or as the first of several that is to be had.
//!
//! Enters: the configuration, the NIC's facts, what is to be taken from it. Leaves: the kind, opened, and why
//! it is that. `uplink` alone calls it.

use std::error::Error as _;

use controlplane::config::{SendByChoice, UplinkSettings, Xdp};
use netio::pinhole::{AttachMode, AttachWish, PinholeFilter, TcWish};
use netio::uplink::{SendBy, UplinkConfig, UplinkControl, UplinkKind, UplinkQueue};
use netio::xsk::XskMode;

use crate::error::{Error, Result, chain};
use crate::machine::Facts;

/// A kind of uplink, and its queues in their order.
pub(super) type Opened = (UplinkControl, Vec<UplinkQueue>);

/// A NIC that is to be opened.
pub(super) struct Nic<'a> {
    pub(super) settings: &'a UplinkSettings,
    pub(super) facts: &'a Facts,
    pub(super) workers: usize,
    pub(super) steering: &'a PinholeFilter,
}

impl Nic<'_> {
    /// Opens it as one kind, whatever else there is.
    pub(super) fn open(&self, kind: UplinkKind) -> Result<Opened> {
        match kind {
            UplinkKind::AfXdp => self.af_xdp(self.settings.zero_copy),
            UplinkKind::Offload => self.offload(),
            UplinkKind::AfPacket => self.af_packet(),
        }
    }

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
            send_by: match self.settings.send_by {
                SendByChoice::Auto => SendBy::Auto,
                SendByChoice::AfXdp => SendBy::AfXdp,
                SendByChoice::AfPacket => SendBy::AfPacket,
            },
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

    fn af_packet(&self) -> Result<Opened> {
        let (nic, wish) = (self.facts.link.index, TcWish::LinkThenClassifier);
        UplinkControl::open_af_packet(nic, self.workers, self.steering, wish).map_err(|source| {
            Error::PacketUplink { interface: self.settings.interface.clone(), source }
        })
    }

    /// The kind that costs least on this machine, and why it is that. AF_XDP stays open until the next is:
    /// it may have to do.
    pub(super) fn best(&self) -> Result<(Opened, String)> {
        let (af_xdp, why_no_zero_copy) = match self.af_xdp(true) {
            Ok(opened) => match opened.0.copy_mode() {
                Some(XskMode::Copy { reason }) => {
                    let why = format!("AF_XDP would copy each frame ({reason})");
                    (Some(opened), why)
                }
                _ => return Ok((opened, "the driver has zero-copy".to_owned())),
            },
            Err(error) => (None, format!("AF_XDP is not to be had ({})", reason(&error))),
        };
        let why_no_offload = match self.offload() {
            Ok(opened) => {
                let cuts = "the kernel cuts superframes inside of tunnels";
                return Ok((opened, format!("{why_no_zero_copy}, and {cuts}")));
            }
            Err(error) => format!("the kind \"offload\" is not to be had ({})", reason(&error)),
        };
        if let Some(opened) = af_xdp {
            return Ok((opened, format!("it copies each frame, but {why_no_offload}")));
        }
        let opened = self.af_packet()?;
        Ok((opened, format!("{why_no_zero_copy}, and {why_no_offload}")))
    }

    /// The best kind of those that have not stopped working, and why it is that.
    ///
    /// # Errors
    /// Why the last of them is not to be had; nothing if none is left.
    pub(super) fn best_but(
        &self,
        stopped: &[UplinkKind],
        why: &str,
    ) -> Option<Result<(Opened, String)>> {
        let kinds = [UplinkKind::Offload, UplinkKind::AfXdp, UplinkKind::AfPacket];
        let (mut whys, mut refusal) = (why.to_owned(), None);
        for kind in kinds.into_iter().filter(|kind| !stopped.contains(kind)) {
            let opened = match kind {
                UplinkKind::AfXdp => self.af_xdp(true),
                other => self.open(other),
            };
            match opened {
                Ok(opened) => return Some(Ok((opened, whys))),
                Err(error) => {
                    whys = format!(
                        "{whys}, and the kind \"{kind}\" is not to be had ({})",
                        reason(&error)
                    );
                    refusal = Some(Err(error));
                }
            }
        }
        refusal
    }
}

/// Why a kind is not to be had, without what an operator would do who has asked for it.
fn reason(error: &Error) -> String {
    error.source().map_or_else(|| chain(error), chain)
}
