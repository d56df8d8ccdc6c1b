//! The other end of `connections`.
//!
//! Enters: the address and ports to listen at. Leaves: to each client one byte, which tells the port that its
//! connection reached, and then the end of the connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddrV4;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::connections::again;

/// Answers at even ports from the first on, and at the others.
const ANSWERS: [u8; 2] = *b"ab";

/// Serves until the process ends.
///
/// # Errors
/// An address is another's, or no descriptor is left.
pub(crate) fn serve(at: SocketAddrV4, ports: u16) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(256);
    let mut listeners = Vec::new();
    for (token, answer) in (0..ports.into()).map(Token).zip(ANSWERS.into_iter().cycle()) {
        let port = at.port().saturating_add(token.0 as u16);
        let mut listener = TcpListener::bind(SocketAddrV4::new(*at.ip(), port).into())?;
        poll.registry().register(&mut listener, token, Interest::READABLE)?;
        listeners.push((listener, answer));
    }
    let mut streams = HashMap::new();
    let mut next = listeners.len();
    loop {
        poll.poll(&mut events, None).or_else(again)?;
        for event in &events {
            let Some((listener, answer)) = listeners.get(event.token().0) else {
                let ended = |(stream, answer): &mut (TcpStream, u8)| answered(stream, *answer);
                if streams.get_mut(&event.token()).is_none_or(ended) {
                    streams.remove(&event.token());
                }
                continue;
            };
            while let Some(mut stream) = accept(listener)? {
                if answered(&mut stream, *answer) {
                    continue;
                }
                poll.registry().register(&mut stream, Token(next), Interest::READABLE)?;
                streams.insert(Token(next), (stream, *answer));
                next += 1;
            }
        }
    }
}

fn accept(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return Ok(Some(stream)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return again(error).map(|()| None),
        }
    }
}

/// Whether it is over with the connection: it has answered, or the client is gone.
fn answered(stream: &mut TcpStream, answer: u8) -> bool {
    match stream.read(&mut [0; 16]) {
        Ok(0) => true,
        Ok(_) => {
            _ = stream.write_all(&[answer]);
            true
        }
        Err(error) => again(error).is_err(),
    }
}
