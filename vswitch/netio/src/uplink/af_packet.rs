//! The kind `af_packet`: packet sockets on the NIC, for any driver and any kernel.
//!
//! Enters: copies of what is ours of the NIC's packets, which tc drops ([`SocketsPinhole`]). Leaves: a socket
//! for each worker, by which it receives and sends (`packet_rx`, `packet_tx`). Superframes pass whole both ways;
//! the header in front of a packet cannot say that one is inside of a tunnel, so that those that leave are cut
//! by the worker. What we send passes the NIC's queueing discipline, as for the kind `offload`. `uplink` alone
//! calls this.
//!
//! A ring that is mapped (PACKET_RX_RING) would save system calls and cost a copy: `recvmmsg` writes many
//! packets straight into frames, of whatever length each is, while a ring has places for 64 KB each, or gives
//! out blocks by a timer.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::packet_rx::PacketRx;
use super::packet_socket::{self, Way};
use super::packet_tx::PacketTx;
use super::{Rx, Tx, UplinkQueue};
use crate::pinhole::{PinholeFilter, SocketsPinhole, TcWish};
use crate::xsk::XskStatistics;
use crate::{Error, Result};

/// The sockets of an uplink, and what keeps the kernel from what they take.
#[derive(Debug)]
pub struct PacketUplink {
    sockets: Vec<Counted>,
    pinhole: SocketsPinhole,
    ifindex: u32,
}

/// A socket of a worker's, and what it lost.
#[derive(Debug)]
struct Counted {
    socket: Arc<OwnedFd>,
    /// Packets that found its buffer full: the kernel forgets them when it is asked.
    dropped: AtomicU64,
}

impl PacketUplink {
    /// Opens so many sockets, each of which gets a share of the flows.
    pub(super) fn open(
        nic: u32,
        workers: usize,
        steering: &PinholeFilter,
        wish: TcWish,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let failed = |source| Error::PacketSocket { action: "open a packet socket", source };
        let open = |_| packet_socket::open(nic, Way::Whole).map(Arc::new);
        let sockets: Vec<_> =
            (0..workers.max(1)).map(open).collect::<io::Result<_>>().map_err(failed)?;
        // Before they receive, so that they get nothing that is not ours.
        let pinhole = SocketsPinhole::attach(nic, &sockets, steering, wish)?;
        receive_all(&sockets, nic)?;
        let opened =
            sockets.iter().zip(0..).map(|(socket, number)| queue(number, socket)).collect();
        let counted = |socket| Counted { socket, dropped: AtomicU64::new(0) };
        let sockets = sockets.into_iter().map(counted).collect();
        Ok((Self { sockets, pinhole, ifindex: nic }, opened))
    }

    /// A transmit handle beside those of the sockets.
    pub(super) fn extra_tx(&self) -> Result<Tx> {
        PacketTx::open(self.ifindex, Way::Whole).map(Tx::AfPacket)
    }

    pub(super) fn steer(&mut self, steering: &PinholeFilter) -> Result<()> {
        self.pinhole.update(steering)
    }

    /// What had to be put right, if anything.
    pub(super) fn settle(&mut self) -> Result<Option<&'static str>> {
        // Often enough that what the kernel counts does not overflow.
        self.statistics()?;
        let was_missing = self.pinhole.settle()?;
        Ok(was_missing.then_some("it was detached or replaced"))
    }

    pub(super) fn settle_maps(&mut self) -> Result<bool> {
        self.pinhole.restore_peers().map(|missing| missing > 0)
    }

    /// What found a socket's buffer full, as its worker was late.
    pub(super) fn statistics(&self) -> Result<Vec<(u32, XskStatistics)>> {
        let failed =
            |source| Error::PacketSocket { action: "read the counters of a packet socket", source };
        let counted = self.sockets.iter().zip(0..).map(|(counted, number)| {
            let fresh = u64::from(packet_socket::take_dropped(&counted.socket).map_err(failed)?);
            let dropped = counted.dropped.fetch_add(fresh, Ordering::Relaxed) + fresh;
            Ok((number, XskStatistics { rx_ring_full: dropped, ..XskStatistics::default() }))
        });
        counted.collect()
    }

    pub(super) fn choices(&self) -> Vec<String> {
        let by = self.pinhole.why_classifier();
        let by: String = by
            .iter()
            .map(|why| format!(", by a classifier, as tc takes no link ({why})"))
            .collect();
        let count = self.sockets.len();
        vec![format!("{count} packet socket(s), and a program of tc that drops what they take{by}")]
    }
}

/// Two queues over a socketpair, each the other's wire.
pub(super) fn pair() -> Result<[UplinkQueue; 2]> {
    let ends = UnixDatagram::pair()
        .map_err(|source| Error::PacketSocket { action: "make a socketpair", source })?;
    let ends: [OwnedFd; 2] = [ends.0.into(), ends.1.into()];
    Ok(ends.map(|end| queue(0, &Arc::new(end))))
}

fn queue(number: u32, socket: &Arc<OwnedFd>) -> UplinkQueue {
    UplinkQueue {
        number,
        rx: Rx::AfPacket(PacketRx::new(Arc::clone(socket))),
        tx: Tx::AfPacket(PacketTx::new(Arc::clone(socket), Way::Whole)),
    }
}

fn receive_all(sockets: &[Arc<OwnedFd>], nic: u32) -> Result<()> {
    let failed = |source| Error::PacketSocket { action: "receive by a packet socket", source };
    sockets.iter().try_for_each(|socket| packet_socket::receive(socket, nic)).map_err(failed)?;
    let all: Vec<_> = sockets.iter().map(AsRef::as_ref).collect();
    packet_socket::spread(&all)
        .map_err(|source| Error::PacketSocket { action: "spread packets over sockets", source })
}
