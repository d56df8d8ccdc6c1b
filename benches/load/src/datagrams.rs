//! Datagrams in batches of one system call: as fast as they can be sent, so many a second, or in bursts.
//!
//! Enters: the first destination, how many flows, bytes of each datagram, the pace. Leaves: how many were
//! sent, and in what time. The receiver's interface counts what arrived.

use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use serde_json::{Value, json};

/// Datagrams a system call: its own cost is then a small part of theirs.
const BATCH: usize = 64;

/// When the datagrams are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// As fast as the socket takes them.
    Flood,
    /// So many a second, each batch once all of it is due.
    Rate(u64),
    /// So many without a pause, then so long nothing.
    Bursts(usize, Duration),
}

/// Sends for so long, to a flow after the other.
///
/// # Errors
/// Those of the socket. A full queue is none: what it refuses is not sent.
pub(crate) fn send(
    to: SocketAddrV4,
    flows: u16,
    payload: u16,
    pace: Pace,
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
    let mut turn = Turn { pace, offered: 0 };
    let mut sent = 0;
    while started.elapsed() < duration {
        for batch in messages.chunks_mut(BATCH) {
            let count = turn.next(batch.len(), started);
            match sendmmsg(&socket, &mut batch[..count], SendFlags::empty()) {
                Ok(count) => sent += count,
                Err(Errno::NOBUFS | Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if started.elapsed() >= duration {
                break;
            }
        }
    }
    Ok(json!({ "sent": sent, "seconds": started.elapsed().as_secs_f64() }))
}

/// How far the pace has got.
struct Turn {
    pace: Pace,
    offered: usize,
}

impl Turn {
    /// Waits until datagrams are due; how many of the next `most`. A burst ends with a batch of its own.
    fn next(&mut self, most: usize, started: Instant) -> usize {
        let count = match self.pace {
            Pace::Flood => most,
            Pace::Rate(rate) => {
                // It spins: a sleep would gather what is due into bursts.
                let due = (self.offered + most) as f64 / rate.max(1) as f64;
                while started.elapsed().as_secs_f64() < due {
                    std::hint::spin_loop();
                }
                most
            }
            Pace::Bursts(burst, pause) => {
                let left = burst.max(1) - self.offered % burst.max(1);
                if left == burst.max(1) && self.offered > 0 {
                    std::thread::sleep(pause);
                }
                most.min(left)
            }
        };
        self.offered += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_have_their_length_whatever_the_batches_are() {
        let mut turn = Turn { pace: Pace::Bursts(100, Duration::ZERO), offered: 0 };
        let started = Instant::now();
        let counts: Vec<_> = (0..5).map(|_| turn.next(64, started)).collect();
        assert_eq!(counts, [64, 36, 64, 36, 64]);
    }

    #[test]
    fn a_rate_is_not_exceeded() {
        let mut turn = Turn { pace: Pace::Rate(10_000), offered: 0 };
        let started = Instant::now();
        (0..5).for_each(|_| _ = turn.next(64, started));
        assert!(started.elapsed() >= Duration::from_millis(32), "{:?}", started.elapsed());
    }
}
