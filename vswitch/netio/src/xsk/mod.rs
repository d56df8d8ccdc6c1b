//! AF_XDP: one socket for each queue of a NIC.
//!
//! Frames that the pinhole redirects enter by [`XskRx::recv`]; a worker leaves frames by
//! [`XskTx::send_with`] and `flush`. A socket belongs to one worker.
//!
//! Frames are copied between the UMEM and the worker's pool: xsk-rs owns its memory and cannot
//! move a descriptor's start, so a header cannot be pushed in place, and towards the NIC most
//! packets are pieces of a superframe, from it they are coalesced into one: both copy anyway.
//!
//! The two halves are fields, so that a worker may borrow them one beside the other.

mod options;
mod owners;
mod rx;
mod tx;

use std::error::Error as _;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};
use std::{fmt, io};

use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig,
};
use xsk_rs::socket::{Socket, SocketCreateError};
use xsk_rs::umem::frame::FrameDesc;
use xsk_rs::umem::{CompQueue, FillQueue, Umem};
use xsk_rs::{RxQueue, TxQueue};

use owners::CHUNK_BYTES;
pub use rx::XskRx;
pub use tx::XskTx;

use crate::pinhole::XskMap;
use crate::{Error, Result};

/// The longest frame, either way: a chunk less the 256 bytes that XDP keeps before a packet
/// (XDP_PACKET_HEADROOM). The kernel drops a longer one before it gets here, into `rx_dropped`.
pub const MAX_FRAME_BYTES: usize = CHUNK_BYTES - 256;

/// How long a queue that was just given up may stay busy: 9 to 20 ms were seen, a second is ample.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// Sizes of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XskConfig {
    /// Chunks to receive into, a power of two.
    pub rx_frames: u32,
    /// Chunks to send from, a power of two.
    pub tx_frames: u32,
    /// Try zero-copy before copy mode.
    pub zero_copy: bool,
}

impl Default for XskConfig {
    /// Copy mode delivers about 1.2 million frames a second to a queue, so 2,048 bridge 1.7 ms in
    /// which the worker does not run. To send, a batch of 32 superframes is 32 × 45 = 1,440 pieces.
    /// Together 16 MiB a queue.
    fn default() -> Self {
        Self { rx_frames: 2048, tx_frames: 2048, zero_copy: false }
    }
}

/// One AF_XDP socket. Dropping it gives the queue back to the kernel.
#[derive(Debug)]
pub struct XskSocket {
    /// The receiving half, from the NIC.
    pub rx: XskRx,
    /// The sending half, to the NIC.
    pub tx: XskTx,
    mode: XskMode,
}

/// How frames get from the driver to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XskMode {
    /// The NIC writes into the UMEM.
    ZeroCopy,
    /// The kernel copies.
    Copy {
        /// Why not zero-copy.
        reason: String,
    },
}

/// The kernel's counters of a socket: frames lost before they got here, and descriptors of ours
/// that it would not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XskStatistics {
    /// Frames dropped because there was no memory to receive into, as the worker was late, or because they
    /// are longer than [`MAX_FRAME_BYTES`].
    pub rx_dropped: u64,
    /// Frames dropped because the receive ring was full: the worker was late.
    pub rx_ring_full: u64,
    /// Times that the kernel found no memory to receive into, in the fill ring, when a frame came: the
    /// worker was late.
    pub fill_ring_empty: u64,
    /// Descriptors in the fill ring that the kernel refused.
    pub rx_invalid_descriptors: u64,
    /// Descriptors in the transmit ring that the kernel refused.
    pub tx_invalid_descriptors: u64,
    /// Times that the transmit ring was empty when the kernel looked.
    pub tx_ring_empty: u64,
}

/// What reads the counters of a socket that a worker has.
#[derive(Debug)]
pub struct XskCounters(OwnedFd);

impl XskCounters {
    /// The kernel's counters since the socket was opened.
    ///
    /// # Errors
    /// If the kernel does not report them.
    pub fn read(&self) -> Result<XskStatistics> {
        statistics(self.0.as_fd())
    }
}

fn statistics(socket: BorrowedFd<'_>) -> Result<XskStatistics> {
    options::statistics(socket.as_raw_fd())
        .map_err(|source| Error::Xsk { action: "read the statistics", source })
}

type Rings = (TxQueue, RxQueue, FillQueue, CompQueue);

impl XskSocket {
    /// Binds a socket to a queue of an interface in the calling thread's namespace and puts it into
    /// the map, from where on the pinhole gives it frames.
    ///
    /// A queue that is still busy from a socket that was just closed is waited for, a second at
    /// most.
    ///
    /// # Errors
    /// If the sizes are impossible, the memory cannot be had, the queue is another program's or does
    /// not exist, or has no place in the map.
    pub fn open(ifname: &str, queue: u32, config: &XskConfig, map: &XskMap) -> Result<Self> {
        tap::interface_name(ifname)?;
        let rx_frames = queue_size("rx_frames", config.rx_frames)?;
        let tx_frames = queue_size("tx_frames", config.tx_frames)?;
        let (umem, mut descriptors) = register_memory(ifname, queue, rx_frames, tx_frames)?;
        let (rings, refusal) = bind(ifname, queue, config.zero_copy, &umem, rx_frames, tx_frames)?;
        let (tx, rx, fill, completion) = rings;

        let zero_copy = options::is_zero_copy(rx.fd().as_raw_fd())
            .map_err(|source| Error::Xsk { action: "read the options", source })?;
        let mode = if zero_copy { XskMode::ZeroCopy } else { XskMode::Copy { reason: refusal } };

        let first_tx = rx_frames.get() as usize;
        let for_tx = descriptors.split_off(first_tx);
        let socket = Self {
            rx: XskRx::new(umem.clone(), 0, descriptors, rx, fill),
            tx: XskTx::new(umem, first_tx, for_tx, tx, completion),
            mode,
        };
        map.insert(queue, socket.as_fd())?;
        Ok(socket)
    }

    /// Which mode was got, and why.
    #[must_use]
    pub fn mode(&self) -> &XskMode {
        &self.mode
    }

    /// The kernel's counters since the socket was opened.
    ///
    /// # Errors
    /// If the kernel does not report them.
    pub fn statistics(&self) -> Result<XskStatistics> {
        statistics(self.as_fd())
    }

    /// A descriptor for the control thread, which counts with it what the worker's socket lost. The queue
    /// is given back once both are closed.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn for_statistics(&self) -> Result<XskCounters> {
        let failed = |source| Error::Xsk { action: "duplicate the descriptor of", source };
        self.as_fd().try_clone_to_owned().map(XskCounters).map_err(failed)
    }

    /// Descriptors from the kernel that were not believed: each is a fault of the driver, and a
    /// frame that was lost. Must be zero.
    #[must_use]
    pub fn ring_violations(&self) -> u64 {
        self.rx.violations() + self.tx.violations()
    }
}

impl AsRawFd for XskSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }
}

impl AsFd for XskSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is closed when the last of its rings is dropped, and `self`, which is
        // borrowed as long as the result, has them all.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

impl fmt::Display for XskMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroCopy => f.write_str("zero-copy"),
            Self::Copy { reason } => write!(f, "copy ({reason})"),
        }
    }
}

fn queue_size(what: &str, frames: u32) -> Result<QueueSize> {
    // 64 is a worker's batch; the largest ring that is of use is far below the kernel's limit.
    let size = (64..=65_536).contains(&frames).then(|| QueueSize::new(frames).ok()).flatten();
    size.ok_or_else(|| Error::XskConfig {
        reason: format!("{what} is {frames}; it must be a power of two from 64 to 65536"),
    })
}

fn register_memory(
    ifname: &str,
    queue: u32,
    rx_frames: QueueSize,
    tx_frames: QueueSize,
) -> Result<(Umem, Vec<FrameDesc>)> {
    let frames = rx_frames.get() + tx_frames.get();
    let config = UmemConfig::builder()
        .frame_size(FrameSize::new(CHUNK_BYTES as u32).expect("above the smallest size"))
        .fill_queue_size(rx_frames)
        .comp_queue_size(tx_frames)
        .build()
        .expect("a power of two that exceeds the headroom");
    let frames = NonZeroU32::new(frames).expect("at least 64 each");
    Umem::new(config, frames, false).map_err(|source| Error::XskMemory {
        ifname: ifname.to_owned(),
        queue,
        mib: (frames.get() as usize * CHUNK_BYTES) >> 20,
        source: source.into(),
    })
}

/// Binds in the best mode; with the rings comes why it is not zero-copy.
fn bind(
    ifname: &str,
    queue: u32,
    zero_copy: bool,
    umem: &Umem,
    rx_frames: QueueSize,
    tx_frames: QueueSize,
) -> Result<(Rings, String)> {
    let attempt = |mode| {
        let config = SocketConfig::builder()
            .rx_queue_size(rx_frames)
            .tx_queue_size(tx_frames)
            // Our pinhole is the program. The one that libxdp loads would take the whole NIC.
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(mode | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        bind_patiently(config, ifname, queue, umem)
    };
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::EBUSY) => Error::XskBusy { ifname: ifname.to_owned(), queue },
        Some(libc::ENODEV) => Error::NoInterface { name: ifname.to_owned() },
        _ => Error::XskBind { ifname: ifname.to_owned(), queue, source },
    };
    let reason = if zero_copy {
        match attempt(BindFlags::XDP_ZEROCOPY) {
            Ok(rings) => return Ok((rings, String::new())),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(failed(error)),
            Err(error) => format!("the driver refuses zero-copy: {error}"),
        }
    } else {
        "zero-copy is not configured".to_owned()
    };
    attempt(BindFlags::XDP_COPY).map(|rings| (rings, reason)).map_err(failed)
}

fn bind_patiently(
    config: SocketConfig,
    ifname: &str,
    queue: u32,
    umem: &Umem,
) -> io::Result<Rings> {
    let interface: Interface = ifname.parse().expect("a name that was checked holds no NUL");
    let deadline = Instant::now() + BUSY_PATIENCE;
    loop {
        // SAFETY: the UMEM is shared with no other socket, and INHIBIT_PROG_LOAD is set.
        match unsafe { Socket::new(config, umem, &interface, queue) } {
            Ok((tx, rx, Some((fill, completion)))) => return Ok((tx, rx, fill, completion)),
            Ok((_, _, None)) => {
                return Err(io::Error::other("xsk-rs gave no fill ring to the UMEM's only socket"));
            }
            Err(error) => {
                let error = os_error(&error);
                if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() >= deadline {
                    return Err(error);
                }
                std::thread::sleep(BUSY_PAUSE);
            }
        }
    }
}

/// The system's error in one of xsk-rs.
fn os_error(error: &SocketCreateError) -> io::Error {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error)
        .map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::{XskSocket, queue_size};

    #[test]
    fn sizes_that_no_ring_can_have_are_refused() {
        assert!(queue_size("rx_frames", 2048).is_ok());
        for frames in [0, 1, 32, 1000, 131_072] {
            let refused = queue_size("rx_frames", frames).expect_err("refused").to_string();
            assert!(refused.contains(&frames.to_string()), "{refused}");
        }
    }

    #[test]
    fn a_socket_can_be_given_to_its_worker() {
        fn is_send<T: Send>() {}
        is_send::<XskSocket>();
    }
}
