//! The kind `af_xdp`: the XDP pinhole on the NIC, and an AF_XDP socket for each of its queues.
//!
//! Enters: frames that the pinhole redirects, as packets; what is to be sent. Everything that the
//! pinhole does not take stays Linux's. `uplink` alone calls it.
//!
//! With zero-copy the NIC sends from the sockets' memory. Without, AF_XDP copies each frame into a packet of the
//! kernel's, which it hands to the driver before the next (net/xdp/xsk.c, `__xsk_generic_xmit`): no offload, no
//! batch. A packet socket copies as well, but takes the frames of a flow as one (`udp_gso`), and superframes whole.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

use frame::{Packet, Pool};

use super::packet_socket::Way;
use super::packet_tx::PacketTx;
use super::{Rx, RxError, SendBy, Tx, UplinkConfig, UplinkQueue};
use crate::pinhole::{AttachMode, Pinhole, PinholeFilter, XskMap};
use crate::xsk::{XskConfig, XskCounters, XskMode, XskRx, XskSocket, XskStatistics};
use crate::{Error, Result};

/// Chunks to send from of a socket that sends nothing: the fewest that it may have.
const UNUSED_FRAMES: u32 = 64;

/// The XDP program of an AF_XDP uplink, and how its sockets were bound.
#[derive(Debug)]
pub struct AfXdp {
    pinhole: Pinhole,
    ifindex: u32,
    queues: u32,
    copy_mode: Option<XskMode>,
    by_packet_sockets: bool,
    /// In the order of the queues' numbers.
    counters: Vec<XskCounters>,
}

impl AfXdp {
    /// Attaches the program, then binds a socket to each queue.
    pub(super) fn open(
        config: &UplinkConfig,
        steering: &PinholeFilter,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let UplinkConfig { interface, ifindex, queues, attach, zero_copy, send_by } = *config;
        let pinhole = Pinhole::attach(ifindex, queues, steering, attach)?;
        let mut xsk = XskConfig { zero_copy, ..XskConfig::default() };
        if send_by == SendBy::AfPacket || (send_by == SendBy::Auto && !zero_copy) {
            xsk.tx_frames = UNUSED_FRAMES;
        }
        let sockets = open_sockets(interface, queues, &xsk, pinhole.xsk_map())?;
        let copy_mode = sockets.first().map(|socket| socket.mode().clone());
        let counters = sockets.iter().map(XskSocket::for_statistics).collect::<Result<_>>()?;
        let by_packet_sockets = match send_by {
            SendBy::AfXdp => false,
            SendBy::AfPacket => true,
            SendBy::Auto => !matches!(copy_mode, Some(XskMode::ZeroCopy)),
        };
        let opened = (0..queues).zip(sockets).map(|(number, socket)| {
            let XskSocket { rx, tx, .. } = socket;
            let tx = if by_packet_sockets { packet_tx(ifindex)? } else { Tx::AfXdp(tx) };
            Ok(UplinkQueue { number, rx: Rx::AfXdp(Box::new(rx)), tx })
        });
        let opened = opened.collect::<Result<_>>()?;
        Ok((Self { pinhole, ifindex, queues, copy_mode, by_packet_sockets, counters }, opened))
    }

    /// A transmit handle beside those of the queues. Those of AF_XDP bypass the queueing discipline: this one
    /// then does, too, so that it makes no difference to a pod which worker it has.
    pub(super) fn extra_tx(&self) -> Result<Tx> {
        if self.by_packet_sockets {
            return packet_tx(self.ifindex);
        }
        PacketTx::open(self.ifindex, Way::Bypass).map(Tx::AfPacket)
    }

    pub(super) fn steer(&mut self, steering: &PinholeFilter) -> Result<()> {
        self.pinhole.update(steering)
    }

    pub(super) fn settle(&mut self) -> Result<bool> {
        if self.pinhole.is_in_place()? {
            return Ok(false);
        }
        self.pinhole.put_back().map(|()| true)
    }

    pub(super) fn settle_maps(&mut self) -> Result<bool> {
        self.pinhole.restore_peers().map(|missing| missing > 0)
    }

    pub(super) fn sends_by_packet_sockets(&self) -> bool {
        self.by_packet_sockets
    }

    pub(super) fn xdp_mode(&self) -> &AttachMode {
        self.pinhole.mode()
    }

    pub(super) fn copy_mode(&self) -> Option<&XskMode> {
        self.copy_mode.as_ref()
    }

    pub(super) fn statistics(&self) -> Result<Vec<(u32, XskStatistics)>> {
        let read = self.counters.iter().map(XskCounters::read);
        (0..self.queues).zip(read).map(|(queue, read)| Ok((queue, read?))).collect()
    }

    pub(super) fn choices(&self) -> Vec<String> {
        let mut choices = vec![
            format!("AF_XDP on {} queue(s), all that receive", self.queues),
            format!("XDP mode {}", self.xdp_mode()),
        ];
        choices.extend(self.copy_mode.iter().map(XskMode::to_string));
        let why = match self.copy_mode {
            Some(XskMode::ZeroCopy) => "",
            _ => ", as AF_XDP would copy and send frame by frame",
        };
        if self.by_packet_sockets {
            choices.push(format!("sends by packet sockets{why}"));
        }
        choices
    }
}

fn packet_tx(ifindex: u32) -> Result<Tx> {
    PacketTx::open(ifindex, Way::Whole).map(Tx::AfPacket)
}

/// A socket for each queue, as many at once as there are cores: the kernel takes 7 to 14 ms to clear the
/// memory of one.
fn open_sockets(
    interface: &str,
    queues: u32,
    xsk: &XskConfig,
    map: &XskMap,
) -> Result<Vec<XskSocket>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let queues: Vec<_> = (0..queues).collect();
    let mut sockets = Vec::with_capacity(queues.len());
    for queues in queues.chunks(cores) {
        let opened = thread::scope(|scope| {
            let open = |&queue: &u32| {
                let opening = thread::Builder::new()
                    .spawn_scoped(scope, move || XskSocket::open(interface, queue, xsk, map));
                opening.map_err(|source| Error::Xsk { action: "start a thread to open", source })
            };
            let opening = queues.iter().map(open).collect::<Result<Vec<_>>>()?;
            let opened = opening.into_iter().map(|one| match one.join() {
                Ok(opened) => opened,
                Err(panic) => resume_unwind(panic),
            });
            opened.collect::<Result<Vec<_>>>()
        })?;
        sockets.extend(opened);
    }
    Ok(sockets)
}

/// Copies frames from the socket's memory into frames of the pool. The pinhole's frames come with
/// complete checksums.
pub(super) fn recv(
    rx: &mut XskRx,
    pool: &Pool,
    budget: usize,
    mut deliver: impl FnMut(std::result::Result<Packet, RxError>),
) -> usize {
    rx.recv(budget, |bytes| {
        let Some(mut frame) = pool.alloc() else { return deliver(Err(RxError::NoFrame)) };
        match frame.extend_from_slice(bytes) {
            Ok(()) => deliver(Ok(Packet::plain(frame))),
            Err(_) => deliver(Err(RxError::TooLong)),
        }
    })
}
