//! `vswitchd supervise`: plays the service manager where there is none, as in a container.
//!
//! Enters: the daemon's options, signals, the daemon's messages. Leaves: a daemon that runs, started
//! again at once whenever it ends, with the descriptors that it left. It holds them, touches no packet,
//! and reads nothing of theirs.
//!
//! | what ends | what becomes of it |
//! |---|---|
//! | the daemon, by a crash, a kill or SIGTERM | started again from the file that is at its path then |
//! | the daemon, as its configuration is wrong, before it ever ran | we end with its exit code |
//! | the daemon, as it was drained | likewise |
//! | the daemon's turns: no `WATCHDOG=1` | killed, and started again |
//! | we, by SIGTERM | SIGTERM to the daemon, then we end; pods keep their interfaces |

mod child;
mod messages;

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{self, ExitCode};
use std::time::{Duration, Instant};

use netio::activation::SUPERVISED;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, set_parent_process_death_signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::error::{Error, Result};
use crate::notify::Notify;
pub use child::DaemonOptions;
use child::{Child, Ended, Program};
use messages::{Message, Messages};

/// A daemon that says nothing for so long is killed, as by WatchdogSec= of the unit: it says `WATCHDOG=1` each second.
const WATCHDOG: Duration = Duration::from_secs(5);
/// Until `READY=1`: a large journal and 100,000 routes take seconds.
const START: Duration = Duration::from_secs(60);
/// From SIGTERM, or from where the daemon ends by itself, to SIGKILL: as TimeoutStopSec= of the unit.
const STOP: Duration = Duration::from_secs(15);
/// Exit code of a daemon that left nothing behind and is not to be started again.
pub const DRAINED: u8 = 3;

/// Between two starts of which the first was never ready: from the first to the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Runs daemons one after the other until it is signalled to stop.
///
/// # Errors
/// If there is no socket for messages, or signals cannot be watched.
pub fn supervise(options: &DaemonOptions) -> Result<ExitCode> {
    let failed = |action| move |source| Error::Control { action, source };
    let program = Program::of_this_process(options).map_err(failed("find its own program"))?;
    let signals = Signals::register().map_err(failed("watch signals"))?;
    let messages = Messages::listen().map_err(failed("listen to the daemon"))?;
    let mut supervisor = Supervisor {
        program,
        signals,
        messages,
        store: Vec::new(),
        pause: PAUSES.0,
        was_ready: false,
        manager: Notify::from_env(),
    };
    supervisor.run().map_err(failed("supervise the daemon"))
}

struct Supervisor {
    program: Program,
    signals: Signals,
    messages: Messages,
    /// What daemons left, by name: a name may have several.
    store: Vec<(String, OwnedFd)>,
    /// Before the next start, should this daemon not become ready.
    pause: Duration,
    /// Some daemon was ready once.
    was_ready: bool,
    /// Our own service manager, if there is one.
    manager: Notify,
}

impl Supervisor {
    fn run(&mut self) -> io::Result<ExitCode> {
        loop {
            failpoint::hit("supervise-start")?;
            let mut child =
                self.program.start(self.messages.address(), &self.store).inspect_err(|error| {
                    tracing::error!("{} cannot be executed: {error}", self.program.path.display());
                })?;
            tracing::info!(
                "vswitchd runs as process {}, with {} descriptor(s) of the former one",
                child.id(),
                self.store.len()
            );
            let ended = self.attend(&mut child)?;
            failpoint::pass("supervise-ended");
            let is_ready = child.is_ready;
            tracing::warn!("vswitchd {ended}");
            if self.signals.is_stopped {
                return Ok(ExitCode::SUCCESS);
            }
            if let Ended::Exited(code) = ended
                && code == i32::from(Error::CONFIGURATION)
                && !self.was_ready
            {
                return Ok(ExitCode::from(Error::CONFIGURATION));
            }
            if ended == Ended::Exited(DRAINED.into()) {
                return Ok(ExitCode::from(DRAINED));
            }
            if is_ready {
                self.pause = PAUSES.0;
                continue;
            }
            if self.rest(self.pause)? {
                return Ok(ExitCode::SUCCESS);
            }
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
    }

    /// Listens to the daemon until it ends.
    fn attend(&mut self, child: &mut Child) -> io::Result<Ended> {
        let mut deadline = Instant::now() + START;
        loop {
            self.wait(deadline)?;
            let (now, mut is_alive) = (Instant::now(), false);
            while let Some(message) = self.messages.next(child.id())? {
                if matches!(message, Message::Ends) && !child.is_stopping {
                    child.is_stopping = true;
                    deadline = now + STOP;
                }
                is_alive |= self.take(message, child);
            }
            if is_alive && !child.is_stopping {
                deadline = now + WATCHDOG;
            }
            if let Some(ended) = child.ended()? {
                // What it sent last is in the socket still.
                while let Some(message) = self.messages.next(child.id())? {
                    self.take(message, child);
                }
                return Ok(ended);
            }
            if self.signals.take_reload() {
                child.signal(Signal::HUP);
            }
            if self.signals.is_stopped && !child.is_told_to_stop {
                (child.is_stopping, child.is_told_to_stop) = (true, true);
                child.signal(Signal::TERM);
                deadline = now + STOP;
            }
            if now >= deadline {
                tracing::error!("vswitchd does not turn any more, and is killed");
                child.signal(Signal::KILL);
                deadline = now + STOP;
            }
        }
    }

    /// Does as the daemon says; whether that shows that it turns.
    fn take(&mut self, message: Message, child: &mut Child) -> bool {
        match message {
            Message::Ready => {
                (child.is_ready, self.was_ready) = (true, true);
                self.manager.send("READY=1");
                true
            }
            Message::Alive => {
                self.manager.send("WATCHDOG=1");
                true
            }
            Message::Ends => false,
            Message::Keep { name, fds } => {
                self.store.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
                failpoint::pass("supervise-kept");
                false
            }
            Message::Forget { name } => {
                self.store.retain(|(kept, _)| *kept != name);
                false
            }
        }
    }

    /// Sleeps until a signal, a message or that moment.
    fn wait(&mut self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        // Deadlines of this file fit.
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [
            PollFd::new(&self.messages, PollFlags::IN),
            PollFd::new(&self.signals.woken, PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.signals.look();
        Ok(())
    }

    /// Sleeps; true if told to stop meanwhile.
    fn rest(&mut self, pause: Duration) -> io::Result<bool> {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.signals.is_stopped {
            self.wait(until)?;
        }
        Ok(self.signals.is_stopped)
    }
}

/// Signals as bytes of sockets.
struct Signals {
    /// Has a byte for each signal.
    woken: UnixStream,
    stop: UnixStream,
    reload: UnixStream,
    is_stopped: bool,
    is_reloaded: bool,
}

impl Signals {
    fn register() -> io::Result<Self> {
        let pair = || -> io::Result<(UnixStream, UnixStream)> {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            theirs.set_nonblocking(true)?;
            Ok((ours, theirs))
        };
        let ((woken, wake), (stop, stops), (reload, reloads)) = (pair()?, pair()?, pair()?);
        for (signal, writer) in [(SIGTERM, &stops), (SIGINT, &stops), (SIGHUP, &reloads)] {
            pipe::register(signal, writer.try_clone()?)?;
        }
        // After the others, so that their byte is there when this one wakes.
        for signal in [SIGCHLD, SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, wake.try_clone()?)?;
        }
        Ok(Self { woken, stop, reload, is_stopped: false, is_reloaded: false })
    }

    fn look(&mut self) {
        drain(&mut self.woken);
        self.is_stopped |= drain(&mut self.stop);
        self.is_reloaded |= drain(&mut self.reload);
    }

    fn take_reload(&mut self) -> bool {
        std::mem::take(&mut self.is_reloaded)
    }
}

fn drain(stream: &mut UnixStream) -> bool {
    let mut any = false;
    while let Ok(1..) = stream.read(&mut [0; 64]) {
        any = true;
    }
    any
}

impl AsFd for Messages {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd()
    }
}

/// Ends this process, a daemon, with its supervisor: the next one starts a daemon of its own.
///
/// # Errors
/// If the kernel refuses.
pub fn end_with_supervisor() -> Result<()> {
    if std::env::var_os(SUPERVISED).is_none() {
        return Ok(());
    }
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| Error::Control {
        action: "be told of its supervisor's end",
        source: error.into(),
    })
}

/// Our own number, by which a daemon knows that its descriptors are meant for it.
fn own_id() -> u32 {
    process::id()
}

#[cfg(test)]
mod tests {
    use super::{START, STOP, WATCHDOG};

    /// A new container has none of the descriptors that this process holds.
    #[test]
    fn the_liveness_probe_waits_for_longer_than_the_supervisor() {
        let manifest = include_str!("../../../config/kubernetes/base/daemonset.yaml");
        let (_, probe) = manifest.split_once("livenessProbe:").expect("vswitchd has one");
        assert!(!probe.contains("livenessProbe:"), "it is vswitchd's alone");
        let value = |key: &str| {
            let (_, behind) = probe.split_once(key).expect("the probe has this key");
            let number = behind.lines().next().expect("a value").trim();
            number.parse::<u64>().expect("a number")
        };
        let patience = value("periodSeconds:") * value("failureThreshold:");
        assert!(patience > (WATCHDOG + STOP + START).as_secs(), "{patience} s");
        let command = probe.lines().find(|line| line.contains("command:")).expect("a command");
        assert!(command.ends_with("[/usr/local/sbin/vswitchctl, status]"), "{command}");
    }
}
