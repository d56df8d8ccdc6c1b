//! The signals that end what would go on: SIGINT and SIGTERM.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// Waits, and notices a signal meanwhile.
pub(crate) struct Interruption {
    /// It has a byte for each signal.
    signals: UnixStream,
}

impl Interruption {
    /// Signals do not end this process by themselves from now on.
    ///
    /// # Errors
    /// If they cannot be caught.
    pub(crate) fn new() -> io::Result<Self> {
        let (signals, writer) = UnixStream::pair()?;
        pipe::register(SIGTERM, writer.try_clone()?)?;
        pipe::register(SIGINT, writer)?;
        Ok(Self { signals })
    }

    /// Waits for so long; true as soon as a signal came.
    ///
    /// # Errors
    /// If the kernel refuses to wait.
    pub(crate) fn comes_within(&mut self, pause: Duration) -> io::Result<bool> {
        // A timeout of zero is refused.
        self.signals.set_read_timeout(Some(pause.max(Duration::from_millis(1))))?;
        match self.signals.read(&mut [0; 16]) {
            Ok(bytes) => Ok(bytes > 0),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(false),
                // The handler's byte is there with the next look.
                io::ErrorKind::Interrupted => self.comes_within(pause),
                _ => Err(error),
            },
        }
    }
}
