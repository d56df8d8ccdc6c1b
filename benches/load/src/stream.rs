//! Bytes over TCP connections, as many as the way takes.
//!
//! Enters: the address, how many connections, for how long. Leaves: how many bytes the other end has read,
//! until when, and how many segments this namespace sent again meanwhile. A thread for each connection, at
//! both ends; the sender's end of a connection is answered with the count of what arrived.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Bytes of one write and one read.
const BLOCK: usize = 128 * 1024;

/// Sends over so many connections for so long.
///
/// # Errors
/// Those of the sockets; an answer that is missing.
pub(crate) fn send(to: SocketAddrV4, streams: usize, duration: Duration) -> io::Result<Value> {
    let sockets =
        (0..streams.max(1)).map(|_| TcpStream::connect(to)).collect::<Result<Vec<_>, _>>()?;
    let before = retransmitted()?;
    let started = Instant::now();
    let bytes = thread::scope(|scope| {
        let senders: Vec<_> = sockets
            .into_iter()
            .map(|socket| scope.spawn(move || fill(socket, started, duration)))
            .collect();
        senders
            .into_iter()
            .map(|sender| sender.join().map_err(|_| panicked())?)
            .sum::<io::Result<u64>>()
    })?;
    let seconds = started.elapsed().as_secs_f64();
    Ok(json!({
        "bytes": bytes, "seconds": seconds, "retransmits": retransmitted()?.saturating_sub(before),
    }))
}

fn panicked() -> io::Error {
    io::Error::other("a sender's thread panicked")
}

/// Bytes that arrived.
fn fill(mut socket: TcpStream, started: Instant, duration: Duration) -> io::Result<u64> {
    let block = vec![0x5a; BLOCK];
    while started.elapsed() < duration {
        socket.write_all(&block)?;
    }
    socket.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    socket.read_exact(&mut count)?;
    Ok(u64::from_be_bytes(count))
}

/// Reads what `send` sends, until the process ends.
///
/// # Errors
/// The address is another's, or no descriptor is left.
pub(crate) fn sink(at: SocketAddrV4) -> io::Result<()> {
    for socket in TcpListener::bind(at)?.incoming() {
        let socket = socket?;
        // A connection that breaks off is its sender's to tell.
        thread::spawn(move || drain(socket));
    }
    Ok(())
}

fn drain(mut socket: TcpStream) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut count = 0_u64;
    loop {
        match socket.read(&mut block)? {
            0 => return socket.write_all(&count.to_be_bytes()),
            read => count += read as u64,
        }
    }
}

/// Segments that TCP in this network namespace has sent again since it exists.
fn retransmitted() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/net/snmp")?;
    counter(&text, "Tcp", "RetransSegs")
        .ok_or_else(|| io::Error::other("/proc/self/net/snmp has no RetransSegs of Tcp"))
}

/// A figure of /proc/net/snmp: a line of names for each protocol, then one of numbers.
fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'));
    let at = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: MaxConn RetransSegs InErrs\nTcp: -1 42 7\n";
        assert_eq!(counter(text, "Tcp", "RetransSegs"), Some(42));
        assert_eq!(counter(text, "Tcp", "Gone"), None);
        assert_eq!(counter(text, "Udp", "InErrs"), None);
    }

    #[test]
    fn what_the_other_end_has_read_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| drain(listener.accept().unwrap().0).unwrap());
            let socket = TcpStream::connect(address).unwrap();
            let bytes = fill(socket, Instant::now(), Duration::from_millis(5)).unwrap();
            assert!(bytes > 0 && bytes.is_multiple_of(BLOCK as u64), "{bytes}");
        });
    }
}
