//! Requests and responses of a byte over one TCP connection, one after the other.
//!
//! Enters: the address, for how long. Leaves: how many exchanges there were, and how long they took. The next
//! request waits for the response to the last one, so that nothing queues: `paced` measures what does.

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Nanoseconds; a longer exchange counts as so long.
const LONGEST_NS: u64 = 10_000_000_000;
/// Exchanges before the first one that counts: the way's neighbours and caches are known then.
const WARM_UP: usize = 100;

/// Asks for so long.
///
/// # Errors
/// Those of the socket.
pub(crate) fn ask(to: SocketAddrV4, duration: Duration) -> io::Result<Value> {
    let mut socket = TcpStream::connect(to)?;
    socket.set_nodelay(true)?;
    let mut took = Histogram::<u64>::new_with_max(LONGEST_NS, 3).map_err(io::Error::other)?;
    for _ in 0..WARM_UP {
        exchange(&mut socket)?;
    }
    let started = Instant::now();
    while started.elapsed() < duration {
        let began = Instant::now();
        exchange(&mut socket)?;
        took.saturating_record(began.elapsed().as_nanos() as u64);
    }
    Ok(json!({
        "exchanges": took.len(), "seconds": started.elapsed().as_secs_f64(),
        "p50_us": took.value_at_quantile(0.5) as f64 / 1e3,
        "p99_us": took.value_at_quantile(0.99) as f64 / 1e3,
    }))
}

fn exchange(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(b"?")?;
    socket.read_exact(&mut [0])
}

/// Responds until the process ends.
///
/// # Errors
/// The address is another's, or no descriptor is left.
pub(crate) fn echo(at: SocketAddrV4) -> io::Result<()> {
    for socket in TcpListener::bind(at)?.incoming() {
        let socket = socket?;
        // A connection that breaks off is its client's to tell.
        thread::spawn(move || respond(socket));
    }
    Ok(())
}

fn respond(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut request = [0; 64];
    loop {
        match socket.read(&mut request)? {
            0 => return Ok(()),
            read => socket.write_all(&request[..read])?,
        }
    }
}
