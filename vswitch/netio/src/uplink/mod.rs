//! The NIC, taken by one of several kinds of uplink.
//!
//! Enters: packets of this node from the NIC, by [`Rx`]; packets for other nodes, by [`Tx`]; from the
//! control thread, which packets are this node's. The rest of the house sees these enums and no kind:
//! a kind of uplink is one file here and one arm in each of them. A receiving half, and a transmit
//! handle, belongs to one worker; [`UplinkControl`] stays with the control thread.
//!
//! | file | kind |
//! |---|---|
//! | `af_xdp`    | receives by an AF_XDP socket a queue, behind the XDP pinhole, and sends by it or by `packet_tx` |
//! | `offload`   | receives and sends superframes whole by a TAP, behind the pinhole by tc; `tap_queue` and `tap_header` are its queues |
//! | `af_packet` | receives and sends by packet sockets, whose originals tc drops; `packet_rx`, `packet_tx`, `udp_gso` and `packet_socket` are its queues |
//!
//! The enums are matched once a batch on the way in and once a packet on the way out; nothing is
//! dispatched at run time by a pointer.

mod af_packet;
mod af_xdp;
mod offload;
mod packet_rx;
mod packet_socket;
mod packet_tx;
mod tap_header;
mod tap_queue;
mod udp_gso;

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};

use frame::{Frame, Packet, Pool};

use crate::Result;
use crate::pinhole::{AttachMode, AttachWish, PinholeFilter, TcWish};
use crate::xsk::{XskMode, XskRx, XskStatistics, XskTx};

pub use af_packet::PacketUplink;
pub use af_xdp::AfXdp;
pub use offload::TapUplink;
pub use packet_rx::PacketRx;
pub use packet_tx::PacketTx;
pub use tap_queue::{TapRx, TapTx};

/// How packets get from the NIC and to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UplinkKind {
    /// AF_XDP sockets.
    AfXdp,
    /// A TAP beside the NIC, by which superframes pass whole.
    Offload,
    /// Packet sockets.
    AfPacket,
}

/// What an AF_XDP uplink needs to know of the NIC, and which of the possible ways is wanted.
#[derive(Debug, Clone, Copy)]
pub struct UplinkConfig<'a> {
    /// Name of the interface, in the namespace of the calling thread.
    pub interface: &'a str,
    /// Index of the interface.
    pub ifindex: u32,
    /// Number of its receive queues.
    pub queues: u32,
    /// How the XDP program is attached.
    pub attach: AttachWish,
    /// Try zero-copy before copy mode.
    pub zero_copy: bool,
    /// What frames are sent by.
    pub send_by: SendBy,
}

/// What an AF_XDP uplink sends frames by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendBy {
    /// The queue's AF_XDP socket with zero-copy, else a packet socket.
    Auto,
    /// The queue's AF_XDP socket.
    AfXdp,
    /// A packet socket for each queue.
    AfPacket,
}

/// One receive queue of the NIC, both ways.
#[derive(Debug)]
pub struct UplinkQueue {
    /// Number of the queue.
    pub number: u32,
    /// Its receiving half, from the NIC.
    pub rx: Rx,
    /// Its sending half, to the NIC.
    pub tx: Tx,
}

/// The control thread's end of an open uplink. Dropping it gives the NIC back to Linux.
#[derive(Debug)]
pub enum UplinkControl {
    /// The XDP program.
    AfXdp(AfXdp),
    /// The TAP, and the programs of tc.
    Tap(TapUplink),
    /// The packet sockets, and the program of tc.
    Packet(PacketUplink),
}

/// The receiving half of a queue.
#[derive(Debug)]
pub enum Rx {
    /// An AF_XDP socket.
    AfXdp(Box<XskRx>),
    /// A queue of a TAP.
    Tap(TapRx),
    /// A packet socket.
    AfPacket(PacketRx),
}

/// A transmit handle for the NIC.
#[derive(Debug)]
pub enum Tx {
    /// An AF_XDP socket.
    AfXdp(XskTx),
    /// A queue of a TAP.
    Tap(TapTx),
    /// A packet socket.
    AfPacket(PacketTx),
}

/// Why a packet that came from the NIC was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RxError {
    /// No frame of the pool is free.
    NoFrame,
    /// It is longer than a frame.
    TooLong,
    /// The kernel's header in front of it contradicts it.
    Malformed,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxError {
    /// There is no room: flush, and drop what still does not fit.
    Full,
    /// Longer than the kind can send: [`MAX_FRAME_BYTES`](crate::xsk::MAX_FRAME_BYTES), or a superframe.
    TooLong,
    /// Shorter than an Ethernet header.
    TooShort,
    /// A checksum is not finished or a superframe not cut, which this kind cannot leave to the NIC.
    Unfinished,
    /// The kernel refuses it, or its interface is down.
    Refused,
    /// The interface was removed.
    Gone,
}

impl UplinkQueue {
    /// Two queues, each the other's wire, without privileges: of the kind `af_packet` over a socketpair.
    ///
    /// # Errors
    /// If the kernel refuses a socketpair.
    pub fn pair() -> Result<[Self; 2]> {
        af_packet::pair()
    }
}

impl UplinkControl {
    /// Takes from the NIC what `steering` names, by AF_XDP; with it come the queues, in the order of
    /// their numbers.
    ///
    /// # Errors
    /// If another program has the NIC's XDP hook or one of its queues, or the kernel refuses.
    pub fn open_af_xdp(
        config: &UplinkConfig,
        steering: &PinholeFilter,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let (control, queues) = AfXdp::open(config, steering)?;
        Ok((Self::AfXdp(control), queues))
    }

    /// Takes from the NIC of that index what `steering` names, by a TAP with so many queues beside it, one
    /// for each worker.
    ///
    /// # Errors
    /// If the kernel lacks what it takes: Linux 6.17 cuts superframes inside of UDP tunnels.
    pub fn open_offload(
        nic: u32,
        queues: usize,
        steering: &PinholeFilter,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let (control, queues) = TapUplink::open(nic, queues, steering)?;
        Ok((Self::Tap(control), queues))
    }

    /// Takes from the NIC of that index what `steering` names, by so many packet sockets, one for each worker.
    ///
    /// # Errors
    /// If the kernel refuses. It needs Linux 5.8, and a classifier of tc where it has no links to tc (6.6).
    pub fn open_af_packet(
        nic: u32,
        workers: usize,
        steering: &PinholeFilter,
        wish: TcWish,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let (control, queues) = PacketUplink::open(nic, workers, steering, wish)?;
        Ok((Self::Packet(control), queues))
    }

    /// A transmit handle for a worker that owns no queue.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn extra_tx(&self) -> Result<Tx> {
        match self {
            Self::AfXdp(control) => control.extra_tx(),
            Self::Tap(control) => control.extra_tx(),
            Self::Packet(control) => control.extra_tx(),
        }
    }

    /// Puts back what another program took of ours, and says what was wrong.
    ///
    /// # Errors
    /// If the kernel refuses: another program is in its place, or the NIC is gone.
    pub fn settle(&mut self) -> Result<Option<&'static str>> {
        match self {
            Self::AfXdp(control) => {
                let was_missing = control.settle()?;
                Ok(was_missing.then_some("it was detached or replaced"))
            }
            Self::Tap(control) => control.settle(),
            Self::Packet(control) => control.settle(),
        }
    }

    /// Puts back what another program took from the maps of our program; true if something was
    /// missing. A call of the kernel for each peer.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn settle_maps(&mut self) -> Result<bool> {
        match self {
            Self::AfXdp(control) => control.settle_maps(),
            Self::Tap(control) => control.settle_maps(),
            Self::Packet(control) => control.settle_maps(),
        }
    }

    /// Takes what `steering` names from now on, and nothing else.
    ///
    /// # Errors
    /// If the kernel refuses; what was taken before is taken still.
    pub fn steer(&mut self, steering: &PinholeFilter) -> Result<()> {
        match self {
            Self::AfXdp(control) => control.steer(steering),
            Self::Tap(control) => control.steer(steering),
            Self::Packet(control) => control.steer(steering),
        }
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> UplinkKind {
        match self {
            Self::AfXdp(_) => UplinkKind::AfXdp,
            Self::Tap(_) => UplinkKind::Offload,
            Self::Packet(_) => UplinkKind::AfPacket,
        }
    }

    /// Whether frames are sent by packet sockets, which take superframes whole if there is no tunnel.
    #[must_use]
    pub fn sends_by_packet_sockets(&self) -> bool {
        match self {
            Self::AfXdp(control) => control.sends_by_packet_sockets(),
            Self::Tap(_) => false,
            Self::Packet(_) => true,
        }
    }

    /// Name of the TAP beside the NIC; `None` without one.
    #[must_use]
    pub fn tap_name(&self) -> Option<&str> {
        match self {
            Self::AfXdp(_) | Self::Packet(_) => None,
            Self::Tap(control) => Some(control.tap_name()),
        }
    }

    /// Where the XDP program runs; `None` without one.
    #[must_use]
    pub fn xdp_mode(&self) -> Option<&AttachMode> {
        match self {
            Self::AfXdp(control) => Some(control.xdp_mode()),
            Self::Tap(_) | Self::Packet(_) => None,
        }
    }

    /// Whether the kernel copies each frame; `None` for a kind that has no choice.
    #[must_use]
    pub fn copy_mode(&self) -> Option<&XskMode> {
        match self {
            Self::AfXdp(control) => control.copy_mode(),
            Self::Tap(_) | Self::Packet(_) => None,
        }
    }

    /// What the kernel counts of the sockets of the queues, by number; none for a kind without sockets. Of a
    /// packet socket it is what found its buffer full.
    ///
    /// # Errors
    /// If the kernel does not report it.
    pub fn statistics(&self) -> Result<Vec<(u32, XskStatistics)>> {
        match self {
            Self::AfXdp(control) => control.statistics(),
            Self::Tap(_) => Ok(Vec::new()),
            Self::Packet(control) => control.statistics(),
        }
    }

    /// Choices that were made and why, one sentence each.
    #[must_use]
    pub fn choices(&self) -> Vec<String> {
        match self {
            Self::AfXdp(control) => control.choices(),
            Self::Tap(control) => control.choices(),
            Self::Packet(control) => control.choices(),
        }
    }
}

impl Rx {
    /// Delivers at most `budget` packets, each in a frame of `pool`, or what became of it; returns
    /// how many there were. Fewer than `budget` means that the queue was empty for a moment.
    pub fn recv(
        &mut self,
        pool: &Pool,
        budget: usize,
        deliver: impl FnMut(std::result::Result<Packet, RxError>),
    ) -> usize {
        match self {
            Self::AfXdp(rx) => af_xdp::recv(rx, pool, budget, deliver),
            Self::Tap(rx) => rx.recv(pool, budget, deliver),
            Self::AfPacket(rx) => rx.recv(pool, budget, deliver),
        }
    }

    /// The queue's descriptor has become readable.
    pub fn note_ready(&mut self) {
        match self {
            // Its ring is looked at whenever it is asked.
            Self::AfXdp(_) => {}
            Self::Tap(rx) => rx.note_ready(),
            Self::AfPacket(rx) => rx.note_ready(),
        }
    }

    /// Whether there may be packets of which no readiness will be reported any more.
    #[must_use]
    pub fn has_more(&self) -> bool {
        match self {
            Self::AfXdp(_) => false,
            Self::Tap(rx) => rx.is_ready(),
            Self::AfPacket(rx) => rx.is_ready(),
        }
    }
}

impl AsRawFd for Rx {
    /// Readable while packets wait.
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::AfXdp(rx) => rx.as_raw_fd(),
            Self::Tap(rx) => rx.as_raw_fd(),
            Self::AfPacket(rx) => rx.as_raw_fd(),
        }
    }
}

impl Tx {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> UplinkKind {
        match self {
            Self::AfXdp(_) => UplinkKind::AfXdp,
            Self::Tap(_) => UplinkKind::Offload,
            Self::AfPacket(_) => UplinkKind::AfPacket,
        }
    }

    /// Queues a packet, or sends it. Its bytes are as before afterwards.
    ///
    /// # Errors
    /// If there is no room, the length is impossible, or its offload asks for more than the kind
    /// has.
    pub fn send(&mut self, packet: &mut Packet) -> std::result::Result<(), TxError> {
        match self {
            Self::AfXdp(tx) => {
                let frame = finished(packet)?;
                tx.send_with(frame.len(), |into| into.copy_from_slice(frame))
            }
            Self::Tap(tx) => tx.send(packet),
            Self::AfPacket(tx) => tx.send(packet),
        }
    }

    /// Queues a frame of `len` bytes, which `write` writes straight into the memory that the kernel
    /// sends from. It is given what an earlier packet left there and must overwrite all of it.
    ///
    /// # Errors
    /// If there is no room, or the length is impossible; `write` is then not called.
    pub fn send_with(
        &mut self,
        len: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> std::result::Result<(), TxError> {
        match self {
            Self::AfXdp(tx) => tx.send_with(len, write),
            Self::Tap(tx) => tx.send_with(len, write),
            Self::AfPacket(tx) => tx.send_with(len, write),
        }
    }

    /// Has the kernel take what is queued. What it takes no room for stays queued for the next call.
    ///
    /// # Errors
    /// If the device is down or gone, or refused a frame.
    pub fn flush(&mut self) -> Result<()> {
        match self {
            Self::AfXdp(tx) => tx.flush(),
            Self::Tap(_) => Ok(()),
            Self::AfPacket(tx) => tx.flush(),
        }
    }

    /// Whether packets are queued until the next flush; if not, `send` is all that it takes.
    #[must_use]
    pub fn is_batched(&self) -> bool {
        match self {
            Self::AfXdp(_) | Self::AfPacket(_) => true,
            Self::Tap(_) => false,
        }
    }

    /// Frames that are queued and that the kernel has not taken yet.
    pub fn pending(&mut self) -> u32 {
        match self {
            Self::AfXdp(tx) => tx.pending(),
            Self::Tap(_) => 0,
            Self::AfPacket(tx) => tx.pending(),
        }
    }
}

/// The frame of a packet of which nothing is left to do.
fn finished(packet: &Packet) -> std::result::Result<&Frame, TxError> {
    if packet.offload.is_undone() { Err(TxError::Unfinished) } else { Ok(&packet.frame) }
}

impl fmt::Display for UplinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AfXdp => "af_xdp",
            Self::Offload => "offload",
            Self::AfPacket => "af_packet",
        })
    }
}
