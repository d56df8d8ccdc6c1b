//! Closes what workers let go of.
//!
//! Enters: handles of removed ports, from every worker and the control thread. Closing the last one
//! of a TAP takes some 17 ms, as the kernel waits for its readers: too long for a pinned core or
//! for the reply to a CNI DEL.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, unbounded};
use netio::port::PortFd;

/// Where handles are sent to be dropped.
pub(crate) type Grave = Sender<Arc<PortFd>>;

pub(crate) struct Reaper {
    grave: Grave,
    thread: JoinHandle<()>,
}

impl Reaper {
    pub(crate) fn spawn() -> io::Result<Self> {
        let (grave, handles) = unbounded::<Arc<PortFd>>();
        let thread = thread::Builder::new()
            .name("reaper".to_owned())
            .spawn(move || handles.into_iter().for_each(drop))?;
        Ok(Self { grave, thread })
    }

    pub(crate) fn grave(&self) -> Grave {
        self.grave.clone()
    }

    /// Waits until everything that was sent is closed; the workers have ended.
    pub(crate) fn stop(self) {
        drop(self.grave);
        if self.thread.join().is_err() {
            tracing::error!("the thread that closes ports had panicked");
        }
    }
}
