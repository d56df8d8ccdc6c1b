//! Signals as bytes of sockets, to be waited for beside everything else.

use std::io::Read;
use std::os::unix::net::UnixStream as StdStream;

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::error::{Error, Result};

/// The reading ends.
pub struct Signals {
    pub(super) stop: UnixStream,
    pub(super) reload: UnixStream,
}

impl Signals {
    /// SIGTERM and SIGINT stop; SIGHUP reloads.
    ///
    /// # Errors
    /// If a handler cannot be installed.
    pub fn register() -> Result<Self> {
        let register = || {
            let (signals, stop, reload) = Self::by_hand()?;
            pipe::register(SIGTERM, stop.try_clone()?)?;
            pipe::register(SIGINT, stop)?;
            pipe::register(SIGHUP, reload)?;
            Ok(signals)
        };
        register().map_err(|source| Error::Control { action: "watch signals", source })
    }

    /// Without signals: the first stream stops, the second reloads, by a byte or by being closed.
    ///
    /// # Errors
    /// If the kernel refuses a socketpair.
    pub fn by_hand() -> std::io::Result<(Self, StdStream, StdStream)> {
        let ((stop, stop_writer), (reload, reload_writer)) =
            (StdStream::pair()?, StdStream::pair()?);
        for stream in [&stop, &stop_writer, &reload, &reload_writer] {
            stream.set_nonblocking(true)?;
        }
        let signals =
            Self { stop: UnixStream::from_std(stop), reload: UnixStream::from_std(reload) };
        Ok((signals, stop_writer, reload_writer))
    }

    /// Empties a stream; true if there was a byte.
    pub(super) fn drain(stream: &mut UnixStream) -> bool {
        let mut any = false;
        while let Ok(1..) = stream.read(&mut [0; 64]) {
            any = true;
        }
        any
    }
}
