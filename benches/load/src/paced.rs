//! Datagrams on a schedule, and how late each arrives after the time at which it was to be sent.
//!
//! Enters: the address, datagrams a second, for how long. Leaves, at the receiver: how many arrived of how
//! many, and their lateness. Each carries its intended time, on the clock that all namespaces of a machine
//! share. A sender that was kept from sending sends what is due at once, and the wait counts: a slow way
//! does not hide what it delays by being asked less often.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::num::NonZeroU64;
use std::thread;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::thread::{ClockId, clock_nanosleep_absolute, set_current_timer_slack};
use rustix::time::{Timespec, clock_gettime};
use serde_json::{Value, json};

/// Bytes of a datagram: number, intended time in nanoseconds, and two more, as the floods' datagrams have.
const LENGTH: usize = 18;
/// The number of a datagram that ends the schedule; its time is then how many were sent.
const END: u64 = u64::MAX;
const ENDS: usize = 20;
const BETWEEN_ENDS: Duration = Duration::from_millis(10);
/// A receiver that hears nothing for so long gives up.
const PATIENCE: Duration = Duration::from_secs(10);
const SECOND_NS: u64 = 1_000_000_000;
/// Lateness of more counts as so much.
const LONGEST_NS: u64 = 10 * SECOND_NS;

/// Sends so many a second, evenly, for so long.
///
/// # Errors
/// Those of the socket; a rate of zero.
pub(crate) fn send(to: SocketAddrV4, rate: NonZeroU64, duration: Duration) -> io::Result<Value> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    set_current_timer_slack(NonZeroU64::new(1))?;
    let count = (duration.as_secs_f64() * rate.get() as f64) as u64;
    let started = now();
    for number in 0..count {
        let intended = started + intended(number, rate);
        if now() < intended {
            clock_nanosleep_absolute(ClockId::Monotonic, &timespec(intended))?;
        }
        deliver(&socket, number, intended)?;
    }
    for _ in 0..ENDS {
        thread::sleep(BETWEEN_ENDS);
        // A receiver that has heard one of them is gone, which the next ones are told.
        _ = deliver(&socket, END, count);
    }
    Ok(json!({ "sent": count }))
}

/// Nanoseconds after the start at which that datagram is due.
fn intended(number: u64, rate: NonZeroU64) -> u64 {
    (u128::from(number) * u128::from(SECOND_NS) / u128::from(rate.get())) as u64
}

/// A full queue loses the datagram, as it loses those of others.
fn deliver(socket: &UdpSocket, number: u64, time: u64) -> io::Result<()> {
    let mut datagram = [0; LENGTH];
    datagram[..8].copy_from_slice(&number.to_be_bytes());
    datagram[8..16].copy_from_slice(&time.to_be_bytes());
    match socket.send(&datagram) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// Receives one schedule.
///
/// # Errors
/// Those of the socket; a schedule that never comes, or never ends.
pub(crate) fn receive(at: SocketAddrV4) -> io::Result<Value> {
    hear(&UdpSocket::bind(at)?)
}

fn hear(socket: &UdpSocket) -> io::Result<Value> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut late = Histogram::<u64>::new_with_max(LONGEST_NS, 3).map_err(io::Error::other)?;
    let mut datagram = [0; LENGTH];
    loop {
        if socket.recv(&mut datagram)? != LENGTH {
            continue;
        }
        match read(&datagram) {
            (END, sent) => return Ok(lateness(&late, sent)),
            (_, intended) => late.saturating_record(now().saturating_sub(intended)),
        }
    }
}

/// Number and time.
fn read(datagram: &[u8; LENGTH]) -> (u64, u64) {
    let word =
        |at: usize| datagram[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    (word(0), word(8))
}

fn lateness(late: &Histogram<u64>, sent: u64) -> Value {
    let us = |quantile| late.value_at_quantile(quantile) as f64 / 1e3;
    json!({
        "received": late.len(), "sent": sent, "max_us": late.max() as f64 / 1e3,
        "p50_us": us(0.5), "p99_us": us(0.99), "p999_us": us(0.999),
    })
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * SECOND_NS + time.tv_nsec as u64
}

fn timespec(ns: u64) -> Timespec {
    Timespec { tv_sec: (ns / SECOND_NS) as i64, tv_nsec: (ns % SECOND_NS) as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_from_leaving_counts_as_late() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        for number in 0..4 {
            deliver(&sender, number, now() - 2_000_000_000).unwrap();
        }
        deliver(&sender, END, 5).unwrap();
        let told = hear(&receiver).unwrap();
        assert_eq!((&told["received"], &told["sent"]), (&json!(4), &json!(5)));
        assert!(told["p50_us"].as_f64().unwrap() >= 1_990_000.0, "{told}");
    }

    #[test]
    fn a_schedule_is_even_and_does_not_drift() {
        let rate = NonZeroU64::new(3).unwrap();
        let due: Vec<_> = (0..4).map(|number| intended(number, rate)).collect();
        assert_eq!(due, [0, 333_333_333, 666_666_666, SECOND_NS]);
    }
}
