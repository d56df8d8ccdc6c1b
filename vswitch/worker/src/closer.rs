//! Closes file descriptors that workers need no more, on a thread of its own.
//!
//! Enters: handles of removed ports, and of queues of a former uplink, from every worker. Leaves: nothing; the
//! last handle of a port closes it. Closing a TAP takes some 17 ms, as the kernel waits for its readers: too
//! long for a pinned core or for the reply to a CNI DEL.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, bounded, unbounded};
use netio::port::PortFd;
use netio::uplink::{Rx, Tx};

use crate::{Confine, essential};

/// What is to be closed, by being dropped.
pub(crate) enum Disused {
    /// A worker's handle of a port.
    Port { _io: Arc<PortFd> },
    /// A worker's share of a former uplink.
    Uplink { _queues: Vec<Rx>, _tx: Option<Box<Tx>> },
}

/// Where workers send what is to be closed.
pub(crate) type ToClose = Sender<Disused>;

pub(crate) struct Closer {
    to_close: ToClose,
    thread: JoinHandle<()>,
}

impl Closer {
    /// Starts the thread, confined.
    pub(crate) fn spawn(confine: Confine) -> io::Result<Self> {
        Self::spawn_with(confine, drop)
    }

    /// `close` is called for each handle.
    fn spawn_with(
        confine: Confine,
        close: impl FnMut(Disused) + Send + 'static,
    ) -> io::Result<Self> {
        let (to_close, handles) = unbounded();
        let (confined_tx, confined) = bounded(1);
        let thread = essential::spawn("closer", move || {
            let outcome = confine();
            let is_confined = outcome.is_ok();
            // The thread that starts it waits for this.
            let _ = confined_tx.send(outcome);
            if is_confined {
                handles.into_iter().for_each(close);
            }
        })?;
        confined.recv().map_err(|_| io::Error::other("the closer ended at its start"))??;
        Ok(Self { to_close, thread })
    }

    pub(crate) fn to_close(&self) -> ToClose {
        self.to_close.clone()
    }

    /// Waits until everything that was sent is closed. The workers have ended: each holds a sender.
    pub(crate) fn stop(self) {
        drop(self.to_close);
        essential::join(self.thread);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use netio::port::PortFd;

    use super::{Closer, Disused};
    use crate::essential::testing::ends_its_process;

    #[test]
    fn a_panic_of_the_closer_ends_the_process() {
        let message =
            ends_its_process("closer::tests::a_panic_of_the_closer_ends_the_process", || {
                let close = |_| panic!("no such descriptor");
                let closer = Closer::spawn_with(Arc::new(|| Ok(())), close).expect("a thread");
                let (port, _other_end) = PortFd::pair().expect("a socketpair");
                closer
                    .to_close()
                    .send(Disused::Port { _io: Arc::new(port) })
                    .expect("the thread runs");
                closer.stop();
            });
        assert!(
            message.contains("vswitchd: thread closer panicked (no such descriptor)"),
            "{message}"
        );
    }
}
