//! Closes the file descriptors of removed ports, on a thread of its own.
//!
//! Enters: handles of removed ports, from every worker. Leaves: nothing; the last handle of a port
//! closes it. Closing a TAP takes some 17 ms, as the kernel waits for its readers: too long for a
//! pinned core or for the reply to a CNI DEL.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, unbounded};
use netio::port::PortFd;

/// Where workers send the handles to be closed.
pub(crate) type ToClose = Sender<Arc<PortFd>>;

pub(crate) struct Closer {
    to_close: ToClose,
    thread: JoinHandle<()>,
}

impl Closer {
    pub(crate) fn spawn() -> io::Result<Self> {
        let (to_close, handles) = unbounded::<Arc<PortFd>>();
        let thread = thread::Builder::new()
            .name("closer".to_owned())
            .spawn(move || handles.into_iter().for_each(drop))?;
        Ok(Self { to_close, thread })
    }

    pub(crate) fn to_close(&self) -> ToClose {
        self.to_close.clone()
    }

    /// Waits until everything that was sent is closed. The workers have ended: each holds a sender.
    pub(crate) fn stop(self) {
        drop(self.to_close);
        if self.thread.join().is_err() {
            tracing::error!("the thread that closes ports had panicked");
        }
    }
}
