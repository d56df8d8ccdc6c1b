//! The kind `af_xdp`: the XDP pinhole on the NIC, and an AF_XDP socket for each of its queues.
//!
//! Enters: frames that the pinhole redirects, as packets; finished frames. Everything that the
//! pinhole does not take stays Linux's. `uplink` alone calls it.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

use frame::{Packet, Pool};

use super::{Rx, RxError, Tx, UplinkConfig, UplinkQueue};
use crate::pinhole::{AttachMode, Pinhole, PinholeFilter, XskMap};
use crate::xsk::{XskConfig, XskCounters, XskMode, XskRx, XskSocket, XskStatistics};
use crate::{Error, Result};

/// The XDP program of an AF_XDP uplink, and how its sockets were bound.
#[derive(Debug)]
pub struct AfXdp {
    pinhole: Pinhole,
    ifindex: u32,
    queues: u32,
    copy_mode: Option<XskMode>,
    /// In the order of the queues' numbers.
    counters: Vec<XskCounters>,
}

impl AfXdp {
    /// Attaches the program, then binds a socket to each queue.
    pub(super) fn open(
        config: &UplinkConfig,
        steering: &PinholeFilter,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let UplinkConfig { interface, ifindex, queues, attach, zero_copy } = *config;
        let pinhole = Pinhole::attach(ifindex, queues, steering, attach)?;
        let xsk = XskConfig { zero_copy, ..XskConfig::default() };
        let sockets = open_sockets(interface, queues, &xsk, pinhole.xsk_map())?;
        let copy_mode = sockets.first().map(|socket| socket.mode().clone());
        let counters = sockets.iter().map(XskSocket::for_statistics).collect::<Result<_>>()?;
        let opened = (0..queues).zip(sockets).map(|(number, socket)| UplinkQueue {
            number,
            rx: Rx::AfXdp(Box::new(socket.rx)),
            tx: Tx::AfXdp(socket.tx),
        });
        Ok((Self { pinhole, ifindex, queues, copy_mode, counters }, opened.collect()))
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

    pub(super) fn ifindex(&self) -> u32 {
        self.ifindex
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
        choices
    }
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
