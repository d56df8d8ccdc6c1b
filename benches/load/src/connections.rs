//! Connections that begin, ask, are answered and end, a fixed number of them at once.
//!
//! Enters: destinations, how many at once, for how long. Leaves: how many ended well, how many did not,
//! and how long they took from `connect` to the server's end. The server closes first, so that the
//! client's ports are free at once.

use std::io::{self, Read, Write};
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};

/// A connection that takes so long has lost a packet: the kernel waits as long before it repeats a SYN.
const LONGEST: Duration = Duration::from_secs(30);

struct Connection {
    stream: TcpStream,
    began: Instant,
    asked: bool,
}

/// What becomes of a connection when its socket is ready.
enum Step {
    Goes,
    Ended,
}

/// Makes connections for so long, to scattered targets.
///
/// # Errors
/// No socket or descriptor is left, or there is no target.
pub(crate) fn make(
    targets: Vec<SocketAddrV4>,
    clients: usize,
    duration: Duration,
) -> io::Result<Value> {
    let mut targets = Scattered { targets, next: 0 };
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(clients.max(1));
    let mut took =
        Histogram::<u64>::new_with_max(LONGEST.as_micros() as u64, 3).map_err(io::Error::other)?;
    let mut failed = 0_u64;
    let started = Instant::now();
    let mut connections = (0..clients)
        .map(|client| begin(&poll, Token(client), targets.next()?))
        .collect::<io::Result<Vec<_>>>()?;
    while let Some(left) = duration.checked_sub(started.elapsed()) {
        poll.poll(&mut events, Some(left)).or_else(again)?;
        for event in &events {
            let Some(connection) = connections.get_mut(event.token().0) else { continue };
            match advance(connection) {
                Ok(Step::Goes) => continue,
                Ok(Step::Ended) => {
                    took.saturating_record(connection.began.elapsed().as_micros() as u64)
                }
                Err(_) => failed += 1,
            }
            *connection = begin(&poll, event.token(), targets.next()?)?;
        }
    }
    let stuck =
        connections.iter().filter(|connection| connection.began.elapsed() > duration / 2).count();
    Ok(json!({
        "connections": took.len(), "failed": failed, "stuck": stuck,
        "seconds": started.elapsed().as_secs_f64(),
        "p50_us": took.value_at_quantile(0.5), "p99_us": took.value_at_quantile(0.99),
    }))
}

fn begin(poll: &Poll, token: Token, target: SocketAddrV4) -> io::Result<Connection> {
    let mut stream = TcpStream::connect(target.into())?;
    poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(Connection { stream, began: Instant::now(), asked: false })
}

/// Asks once it is connected, and reads to the end.
fn advance(connection: &mut Connection) -> io::Result<Step> {
    if !connection.asked {
        match connection.stream.write(b"?") {
            Ok(written) => connection.asked = written > 0,
            Err(error) => return again(error).map(|()| Step::Goes),
        }
    }
    let mut answer = [0; 16];
    loop {
        match connection.stream.read(&mut answer) {
            Ok(0) => return Ok(Step::Ended),
            Ok(_) => {}
            Err(error) => return again(error).map(|()| Step::Goes),
        }
    }
}

/// What is not ready yet is no error.
pub(crate) fn again(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected => {
            Ok(())
        }
        _ => Err(error),
    }
}

/// Targets in an order in which neighbours are far from each other.
struct Scattered {
    targets: Vec<SocketAddrV4>,
    next: usize,
}

impl Scattered {
    fn next(&mut self) -> io::Result<SocketAddrV4> {
        // A prime that divides no number of targets of ours: all of them have their turn.
        self.next = self.next.wrapping_add(7919);
        let index = self
            .next
            .checked_rem(self.targets.len())
            .ok_or_else(|| io::Error::other("no target"))?;
        Ok(self.targets[index])
    }
}
