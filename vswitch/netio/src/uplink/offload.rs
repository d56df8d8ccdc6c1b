//! The kind `offload`: a TAP beside the NIC, by which the kernel takes and gives superframes whole.
//!
//! Enters: what is ours of the NIC's packets; the TAP's queues, one for each worker. Leaves: a TAP that two
//! programs of tc connect with the NIC ([`TcPinhole`]). What we write leaves by the NIC through its queueing
//! discipline, and is cut by the NIC or at the last moment before it, inside of VXLAN too. The NIC stays
//! Linux's: it has no socket of ours, and no XDP program. `uplink` alone calls it.
//!
//! The TAP has no address, and no IPv6: what the kernel itself would send by it is dropped. It ends with
//! the daemon.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use super::tap_queue::{TapRx, TapTx};
use super::{Rx, Tx, UplinkQueue};
use crate::ethtool::any_socket;
use crate::pinhole::{PinholeFilter, TcPinhole};
use crate::sys::check;
use crate::{Error, Result};

/// The kernel puts a number: another daemon on another NIC may have the first.
const NAME: &str = "vswup%d";

/// Packets that wait in the TAP for a worker: as many as an AF_XDP socket's ring holds. A tenth of a second
/// of 1,500 bytes at 250 Mbit/s, or 2 ms of superframes at 10 Gbit/s.
const QUEUE_LEN: libc::c_int = 2048;

/// The TAP of an uplink, and the programs that connect it with the NIC.
#[derive(Debug)]
pub struct TapUplink {
    queues: Vec<Arc<File>>,
    name: String,
    pinhole: TcPinhole,
}

impl TapUplink {
    /// Makes a TAP with so many queues, and connects it with the NIC.
    pub(super) fn open(
        nic: u32,
        queues: usize,
        steering: &PinholeFilter,
    ) -> Result<(Self, Vec<UplinkQueue>)> {
        let fds = tap::tunnelling::create(NAME, queues.max(1))?;
        let queues: Vec<_> = fds.into_iter().map(|fd| Arc::new(File::from(fd))).collect();
        let name = name_of(&queues)?;
        prepare(&name)?;
        // Before it is up, so that nothing of the kernel's own gets to us or to the NIC.
        let pinhole = TcPinhole::attach(nic, index(&name)?, steering)?;
        set_up(&name)?;
        let opened = queues.iter().zip(0..).map(|(queue, number)| UplinkQueue {
            number,
            rx: Rx::Tap(TapRx::new(Arc::clone(queue))),
            tx: Tx::Tap(TapTx::new(Arc::clone(queue))),
        });
        let opened = opened.collect();
        Ok((Self { queues, name, pinhole }, opened))
    }

    /// A transmit handle beside those of the queues: the kernel keeps each frame whole.
    pub(super) fn extra_tx(&self) -> Result<Tx> {
        let queue = self.queues.first().ok_or(Error::NoInterface { name: self.name.clone() })?;
        Ok(Tx::Tap(TapTx::new(Arc::clone(queue))))
    }

    pub(super) fn steer(&mut self, steering: &PinholeFilter) -> Result<()> {
        self.pinhole.update(steering)
    }

    /// What had to be put right, if anything.
    pub(super) fn settle(&mut self) -> Result<Option<&'static str>> {
        if self.queues.iter().any(|queue| tap::tunnelling::is_gone(queue.as_fd())) {
            self.make_tap_again()?;
            return Ok(Some("its TAP was removed"));
        }
        self.name = name_of(&self.queues)?;
        let was_detached = self.pinhole.settle()?;
        let was_down = set_up(&self.name)?;
        Ok(match (was_detached, was_down) {
            (true, _) => Some("a program of tc was detached or replaced"),
            (_, true) => Some("its TAP was down"),
            _ => None,
        })
    }

    fn make_tap_again(&mut self) -> Result<()> {
        let fds: Vec<BorrowedFd<'_>> = self.queues.iter().map(AsFd::as_fd).collect();
        tap::tunnelling::make_again(&fds, &self.name)?;
        prepare(&self.name)?;
        self.pinhole.change_tap(index(&self.name)?)?;
        set_up(&self.name).map(drop)
    }

    pub(super) fn settle_maps(&mut self) -> Result<bool> {
        self.pinhole.restore_peers().map(|missing| missing > 0)
    }

    pub(super) fn tap_name(&self) -> &str {
        &self.name
    }

    pub(super) fn choices(&self) -> Vec<String> {
        vec![format!(
            "superframes pass whole by the TAP {} with {} queue(s), connected by programs of tc",
            self.name,
            self.queues.len()
        )]
    }
}

fn name_of(queues: &[Arc<File>]) -> Result<String> {
    let queue = queues.first().ok_or(Error::NoInterface { name: NAME.to_owned() })?;
    tap::name(queue.as_fd())
        .map_err(|source| Error::PortSetup { action: "read the name of the uplink's TAP", source })
}

/// Settings of a TAP that is still down. It works without them.
fn prepare(name: &str) -> Result<()> {
    // An address would only stand in people's way: what the kernel sends by it is dropped.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1");
    let mut request = request(name)?;
    request.ifr_ifru.ifru_metric = QUEUE_LEN;
    interface_call(libc::SIOCSIFTXQLEN, &mut request, "set the queue of")
}

/// Switches the interface on; true if it was down.
fn set_up(name: &str) -> Result<bool> {
    let mut request = request(name)?;
    interface_call(libc::SIOCGIFFLAGS, &mut request, "read the flags of")?;
    // SAFETY: an integer of the union, which SIOCGIFFLAGS wrote.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let up = libc::IFF_UP as libc::c_short;
    if flags & up != 0 {
        return Ok(false);
    }
    request.ifr_ifru.ifru_flags = flags | up | libc::IFF_NOARP as libc::c_short;
    interface_call(libc::SIOCSIFFLAGS, &mut request, "switch on")?;
    Ok(true)
}

fn index(name: &str) -> Result<u32> {
    let mut request = request(name)?;
    interface_call(libc::SIOCGIFINDEX, &mut request, "read the index of")?;
    // SAFETY: an integer of the union, which SIOCGIFINDEX wrote.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex }.cast_unsigned())
}

fn request(name: &str) -> Result<libc::ifreq> {
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_ifindex: 0 };
    Ok(libc::ifreq { ifr_name: tap::interface_name(name)?, ifr_ifru })
}

/// One of the ioctls for interfaces (netdevice(7)) that read or write an integer of an `ifreq`.
fn interface_call(
    command: libc::c_ulong,
    request: &mut libc::ifreq,
    action: &'static str,
) -> Result<()> {
    let answer = any_socket().and_then(|socket| {
        // SAFETY: each of these commands reads and writes one ifreq, without a pointer in it.
        check(unsafe { libc::ioctl(socket.as_raw_fd(), command, std::ptr::from_mut(request)) })
    });
    answer.map(drop).map_err(|source| Error::UplinkTap { action, source })
}
