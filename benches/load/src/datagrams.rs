//! A flood of datagrams, a batch with each system call.
//!
//! Enters: the first destination, how many flows, bytes of each datagram. Leaves: how many were sent, and
//! in what time. The receiver's interface counts what arrived.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use serde_json::{Value, json};

/// Datagrams a system call: its own cost is then a small part of theirs.
const BATCH: usize = 64;

/// Sends for so long, to a flow after the other.
///
/// # Errors
/// Those of the socket. A full queue is none: what it refuses is not sent.
pub(crate) fn send(
    to: SocketAddrV4,
    flows: u16,
    payload: u16,
    duration: Duration,
) -> io::Result<Value> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let bytes = vec![0x5a; payload.into()];
    let parts = [IoSlice::new(&bytes)];
    let destinations: Vec<_> = (0..flows.max(1))
        .map(|flow| SocketAddrV4::new(*to.ip(), to.port().wrapping_add(flow)).as_any())
        .collect();
    let mut control: Vec<_> = destinations.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let mut messages: Vec<_> = destinations
        .iter()
        .zip(&mut control)
        .map(|(destination, control)| MMsgHdr::new_with_addr(destination, &parts, control))
        .collect();
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < duration {
        for batch in messages.chunks_mut(BATCH) {
            match sendmmsg(&socket, batch, SendFlags::empty()) {
                Ok(count) => sent += count,
                Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(json!({ "sent": sent, "seconds": started.elapsed().as_secs_f64() }))
}
