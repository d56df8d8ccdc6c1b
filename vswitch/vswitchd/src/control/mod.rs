//! The control thread's loop.
//!
//! Enters: clients on the unix socket, signals, the kernel's announcements, time. Leaves: answers;
//! everything else is the daemon's. A client can delay others by one request at a time, holds
//! bounded memory, and is closed when it stalls; it is root or the daemon's own user, or it is
//! refused.

mod client;
mod listener;
mod signals;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use api::{ErrorKind, ErrorReply};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::daemon::Daemon;
use crate::descriptors::DescriptorStore;
use crate::error::{Error, Result};
use crate::metrics::{MetricsServer, Questions};
use crate::notify::Notify;
use crate::requests::{Handled, Held, fault};
use crate::sandbox::ThreadKind;
use client::{Client, Progress};
pub use listener::Socket;
pub use signals::Signals;

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
const RELOAD: Token = Token(2);
const KERNEL: Token = Token(3);
const RULESET: Token = Token(4);
const NAMESPACES: Token = Token(5);
const JOURNAL: Token = Token(6);
const METRICS: Token = Token(7);
const RULES: Token = Token(8);
const FIRST_CLIENT: usize = 16;

/// Clients at once: a node starts some tens of pods at a time.
const MAX_CLIENTS: usize = 256;
/// A client without a request for so long, or with half of one, makes room for another if there are too many.
const ROOM_AFTER: Duration = Duration::from_secs(1);
/// Bytes of all clients' requests that are not whole: four of the largest, of which a cluster's agent sends one
/// at a time.
const MAX_HELD_BYTES: usize = 4 * api::MAX_REQUEST_BYTES;
const TICK: Duration = Duration::from_secs(1);

/// The loop.
pub struct ControlLoop {
    daemon: Daemon,
    socket: Socket,
    signals: Signals,
    notify: Notify,
    poll: Poll,
    clients: BTreeMap<Token, Client>,
    /// Answers that wait, as for the disk, with those who wait for them; the oldest first.
    held: VecDeque<(Token, Held)>,
    /// Clients that may have more to do, though no event will announce it.
    ready: VecDeque<Token>,
    next_token: usize,
    /// What readers of metrics ask, if there may be any.
    metrics: Option<(MetricsServer, Questions)>,
}

impl ControlLoop {
    /// Opens the socket of a daemon that forwards, unless it inherited one.
    ///
    /// # Errors
    /// If the socket cannot be made, or readiness not be watched; the daemon gives up then.
    pub fn new(
        daemon: Daemon,
        inherited: Option<Socket>,
        mut signals: Signals,
        notify: Notify,
    ) -> Result<Self> {
        let opened = open(&daemon, inherited, &mut signals, &notify).and_then(|(socket, poll)| {
            let metrics = serve_metrics(&daemon, &poll)?;
            Ok((socket, poll, metrics))
        });
        let (socket, poll, metrics) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                daemon.give_up();
                return Err(error);
            }
        };
        Ok(Self {
            daemon,
            socket,
            signals,
            notify,
            poll,
            clients: BTreeMap::new(),
            held: VecDeque::new(),
            ready: VecDeque::new(),
            next_token: FIRST_CLIENT,
            metrics,
        })
    }

    /// Confines this thread and serves until it is signalled to stop, or drained; then stops the daemon. True if it
    /// was drained.
    ///
    /// # Errors
    /// If readiness can no longer be waited for, or the thread cannot be confined.
    pub fn run(mut self) -> Result<bool> {
        // From here on: what starts the daemon takes calls that nothing takes later.
        let confine = self.daemon.sandbox.confining(ThreadKind::Control);
        if let Err(source) = confine() {
            self.daemon.give_up();
            return Err(Error::Sandbox(source));
        }
        self.daemon.socket_is_open();
        failpoint::pass("start-ready");
        self.notify.send("READY=1");
        let result = self.serve();
        let is_drained = self.daemon.is_drained();
        failpoint::pass("stop-begun");
        self.notify.send("STOPPING=1");
        // First of all no client connects any more.
        drop(self.socket);
        drop(self.clients);
        drop(self.metrics);
        failpoint::pass("stop-socket");
        self.daemon.stop();
        result.map(|()| is_drained)
    }

    fn serve(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(128);
        let mut tick = Instant::now() + TICK;
        loop {
            let now = Instant::now();
            let waits = self.held.iter().filter_map(|(_, held)| held.deadline(now));
            let due = self.daemon.deadline().into_iter().chain(waits).fold(tick, Instant::min);
            let timeout = if self.ready.is_empty() {
                due.saturating_duration_since(now)
            } else {
                Duration::ZERO
            };
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Control { action: "wait", source }),
            }
            let woken = Instant::now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    STOP => {
                        tracing::info!("told to stop");
                        return Ok(());
                    }
                    RELOAD => self.reload(),
                    KERNEL => self.daemon.on_kernel_event(),
                    NAMESPACES => self.daemon.on_namespace_event(),
                    RULESET => self.daemon.on_ruleset_event(),
                    JOURNAL => self.daemon.on_journal_event(),
                    RULES => self.daemon.on_rules_event(),
                    METRICS => self.tell_metrics(),
                    token if !self.ready.contains(&token) => self.ready.push_back(token),
                    _ => {}
                }
                self.daemon.feed_watchdog();
            }
            // One request of each that has one, then the others have their turn.
            for token in std::mem::take(&mut self.ready) {
                self.progress(token);
                self.daemon.feed_watchdog();
            }
            self.answer_held();
            // The one that asked for it has its answer by the turn after.
            if self.daemon.is_drained() && self.ready.is_empty() && self.held.is_empty() {
                return Ok(());
            }
            let now = Instant::now();
            if self.daemon.deadline().is_some_and(|deadline| now >= deadline) {
                self.daemon.on_time(now);
            }
            if now >= tick {
                tick = now + TICK;
                self.daemon.on_time(now);
                // After a long turn it is not known yet what clients have sent meanwhile.
                if now.duration_since(woken) < TICK {
                    self.close_stalled(now);
                }
                self.accept();
                self.daemon.look_at_frames(now);
                self.daemon.balance_workers(now);
            }
            self.daemon.feed_watchdog();
        }
    }

    fn reload(&mut self) {
        if Signals::drain(&mut self.signals.reload) {
            self.daemon.reload();
        }
    }

    fn tell_metrics(&mut self) {
        let Some((_, questions)) = &self.metrics else { return };
        let sources = self.clients.values().filter(|client| client.is_source()).count();
        questions.answer(|| self.daemon.figures(sources));
    }

    fn accept(&mut self) {
        loop {
            let stream = match self.socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Out of file descriptors, most likely: those that wait are tried again a
                    // second later.
                    tracing::error!("cannot accept a client: {error}");
                    return;
                }
            };
            let mut client = Client::new(stream);
            if let Err(refusal) = listener::admit(client.stream()) {
                client.refuse(refusal);
                continue;
            }
            if self.clients.len() >= MAX_CLIENTS && !self.make_room() {
                let message = format!("{MAX_CLIENTS} clients are connected; try again later");
                client.refuse(ErrorReply { kind: ErrorKind::NotReady, message });
                continue;
            }
            let token = Token(self.next_token);
            self.next_token += 1;
            let interest = Interest::READABLE | Interest::WRITABLE;
            match self.poll.registry().register(client.stream_mut(), token, interest) {
                Ok(()) => {
                    self.clients.insert(token, client);
                    self.ready.push_back(token);
                }
                Err(error) => tracing::error!("cannot watch a client: {error}"),
            }
        }
    }

    /// Closes the client that has been idle, or within a request, longest; false if all have been busy lately.
    fn make_room(&mut self) -> bool {
        let idle = self.clients.iter().filter_map(|(token, client)| {
            let since = client.idle_since().or(client.begun())?;
            (since.elapsed() > ROOM_AFTER).then_some((since, *token))
        });
        let Some((_, token)) = idle.min() else { return false };
        self.close(token);
        true
    }

    /// Closes clients with half a request, those first that have been at it longest, until what all of them
    /// hold is bounded.
    fn bound_held_bytes(&mut self) {
        loop {
            let halves = self.clients.iter().filter(|(_, client)| client.begun().is_some());
            if halves.clone().map(|(_, client)| client.held_bytes()).sum::<usize>()
                <= MAX_HELD_BYTES
            {
                return;
            }
            let oldest = halves.min_by_key(|(_, client)| client.begun()).map(|(token, _)| *token);
            let Some(oldest) = oldest else { return };
            tracing::warn!(
                "a client is closed: too much is held of requests that do not come whole"
            );
            self.close(oldest);
        }
    }

    fn progress(&mut self, token: Token) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        let handle = |request, fds| match self.daemon.handle(request, fds) {
            Handled::Now(response) => Some(response),
            Handled::Later(held) => {
                self.held.push_back((token, held));
                None
            }
        };
        let before = client.held_bytes();
        match client.progress(handle) {
            Progress::Waiting if client.held_bytes() > before => self.bound_held_bytes(),
            Progress::Waiting => {}
            Progress::More => self.ready.push_back(token),
            Progress::Closed => self.close(token),
        }
    }

    /// Answers all that have nothing to wait for any more.
    fn answer_held(&mut self) {
        let now = Instant::now();
        for (token, held) in std::mem::take(&mut self.held) {
            let Some(answer) = held.due(&mut self.daemon, now) else {
                self.held.push_back((token, held));
                continue;
            };
            let answer = failpoint::hit("change-on-disk").map_err(fault).and(answer);
            if let Some(client) = self.clients.get_mut(&token) {
                client.answer(&answer);
                self.ready.push_back(token);
            }
        }
    }

    fn close_stalled(&mut self, now: Instant) {
        let stalled: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| client.has_stalled(now))
            .map(|(token, _)| *token)
            .collect();
        for token in stalled {
            self.close(token);
        }
    }

    fn close(&mut self, token: Token) {
        self.held.retain(|(waiting, _)| *waiting != token);
        if let Some(mut client) = self.clients.remove(&token)
            && let Err(error) = self.poll.registry().deregister(client.stream_mut())
        {
            tracing::debug!("a client was closed already: {error}");
        }
    }
}

/// The thread that serves metrics, if the configuration has them served.
fn serve_metrics(daemon: &Daemon, poll: &Poll) -> Result<Option<(MetricsServer, Questions)>> {
    let Some(address) = daemon.metrics_address() else { return Ok(None) };
    let waker = Waker::new(poll.registry(), METRICS)
        .map_err(|source| Error::Control { action: "be woken for metrics", source })?;
    MetricsServer::start(address, waker, &daemon.sandbox).map(Some)
}

/// The socket, and the readiness of all that is waited for.
fn open(
    daemon: &Daemon,
    inherited: Option<Socket>,
    signals: &mut Signals,
    notify: &Notify,
) -> Result<(Socket, Poll)> {
    let failed = |action| move |source| Error::Control { action, source };
    let mut socket = match inherited {
        Some(socket) => socket,
        None => {
            let mut socket = Socket::bind(daemon.socket())?;
            if DescriptorStore::keep_socket(notify, &socket.listener) {
                socket.outlives_us();
            }
            socket
        }
    };
    failpoint::hit("start-socket")?;
    let poll = Poll::new().map_err(failed("make its readiness queue"))?;
    let watch = failed("watch its file descriptors");
    let registry = poll.registry();
    registry
        .register(&mut socket.listener, LISTENER, Interest::READABLE)
        .and_then(|()| registry.register(&mut signals.stop, STOP, Interest::READABLE))
        .and_then(|()| registry.register(&mut signals.reload, RELOAD, Interest::READABLE))
        .and_then(|()| match daemon.monitor() {
            Some(monitor) => {
                registry.register(&mut SourceFd(&monitor.as_raw_fd()), KERNEL, Interest::READABLE)
            }
            None => Ok(()),
        })
        .and_then(|()| {
            let namespaces = daemon.namespaces().as_raw_fd();
            registry.register(&mut SourceFd(&namespaces), NAMESPACES, Interest::READABLE)
        })
        .and_then(|()| match daemon.ruleset() {
            Some(ruleset) => {
                registry.register(&mut SourceFd(&ruleset.as_raw_fd()), RULESET, Interest::READABLE)
            }
            None => Ok(()),
        })
        .and_then(|()| {
            let bell = daemon.journal_bell().as_raw_fd();
            registry.register(&mut SourceFd(&bell), JOURNAL, Interest::READABLE)
        })
        .and_then(|()| {
            let bell = daemon.rules_bell().as_raw_fd();
            registry.register(&mut SourceFd(&bell), RULES, Interest::READABLE)
        })
        .map_err(watch)?;
    Ok((socket, poll))
}
