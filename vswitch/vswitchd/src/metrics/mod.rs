//! Counters for Prometheus, by HTTP.
//!
//! Enters: HTTP requests at `metrics.listen`. Leaves: a question to the control thread, which alone knows
//! the names of ports, for each request of `/metrics`; its answer as text. One thread serves one client
//! after the other, each for a bounded time: a slow client delays other readers of metrics, and nothing
//! else. `control` starts it, and answers its questions.
//!
//! | file | does |
//! |---|---|
//! | `figures`  | what is told, as the control thread gathers it |
//! | `text`     | the same in Prometheus' text format |
//! | `http`     | a request from a stream, and the response to it |
//! | `listener` | the socket, and its clients' streams |

mod figures;
mod http;
mod listener;
mod text;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use controlplane::config::MetricsAddress;
use mio::Waker;

use crate::error::{Error, Result};
use crate::sandbox::{Sandbox, ThreadKind};
pub use figures::{
    Figures, HistogramFigures, PortFigures, ServiceFigures, SessionFigures, WorkerFigures,
};
use listener::Listener;

/// How long the control thread's answer is waited for: it may have ten thousand peers in hand.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the answer to a question goes.
type Answer = SyncSender<Figures>;

/// The control thread's end: questions that wait.
#[derive(Debug)]
pub struct Questions(Receiver<Answer>);

impl Questions {
    /// Answers all that wait.
    pub fn answer(&self, mut figures: impl FnMut() -> Figures) {
        loop {
            match self.0.try_recv() {
                // One that nobody waits for any more is lost.
                Ok(answer) => drop(answer.try_send(figures())),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// The thread that serves metrics. It ends with the process; its socket's file is removed by `drop`.
#[derive(Debug)]
pub struct MetricsServer {
    listener: Arc<Listener>,
}

impl MetricsServer {
    /// Listens, and serves from now on; `waker` tells the control thread of a question.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn start(
        address: &MetricsAddress,
        waker: Waker,
        sandbox: &Sandbox,
    ) -> Result<(Self, Questions)> {
        let listener = Arc::new(Listener::bind(address)?);
        tracing::info!("metrics are read from {address}");
        let (ask, questions) = sync_channel::<Answer>(1);
        let served = Arc::clone(&listener);
        let confine = sandbox.confining(ThreadKind::Metrics);
        let serve = move || {
            if let Err(error) = confine() {
                tracing::error!(
                    "metrics are not served, as their thread cannot be confined: {error}"
                );
                return;
            }
            let figures = || {
                let (answer, answered) = sync_channel(1);
                ask.try_send(answer).ok()?;
                waker.wake().ok()?;
                answered.recv_timeout(PATIENCE).ok()
            };
            let text = || match text::encode(&figures()?) {
                Ok(text) => Some(text),
                Err(error) => {
                    tracing::error!("metrics cannot be told: {error}");
                    None
                }
            };
            served.serve(|stream| http::serve(stream, text));
        };
        let spawned = thread::Builder::new().name("metrics".into()).spawn(serve);
        spawned
            .map_err(|source| Error::Control { action: "start the thread of metrics", source })?;
        Ok((Self { listener }, Questions(questions)))
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        self.listener.remove_file();
    }
}
