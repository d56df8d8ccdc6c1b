//! The daemon as a process: how it is executed, and what became of it.
//!
//! Enters: the program, its options, the descriptors that it gets. Leaves: a process, its end, and
//! signals to it. Other processes that become ours, as we may be the first of a container, are waited for
//! and forgotten.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use libc::SIGSYS;
use netio::activation::SUPERVISED;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};

use super::own_id;

/// What the daemon is told on its command line.
#[derive(Debug, Clone, Args)]
pub struct DaemonOptions {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = "/etc/vswitch/vswitch.toml")]
    pub config: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter of tracing. RUST_LOG if absent.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}

/// What is executed.
pub(super) struct Program {
    pub(super) path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// The file that this process was started from, by its path: after an upgrade another is there.
    pub(super) fn of_this_process(options: &DaemonOptions) -> io::Result<Self> {
        let mut arguments = vec!["--config".into(), options.config.clone().into()];
        if let Some(level) = &options.log_level {
            arguments.extend(["--log-level".into(), level.into()]);
        }
        Ok(Self { path: std::env::current_exe()?, arguments })
    }

    /// Executes it, with these descriptors under their own numbers.
    pub(super) fn start(&self, notify: &str, store: &[(String, OwnedFd)]) -> io::Result<Child> {
        let fds: Vec<_> =
            store.iter().map(|(name, fd)| format!("{}:{name}", fd.as_raw_fd())).collect();
        let mut command = Command::new(&self.path);
        command
            .args(&self.arguments)
            .env("NOTIFY_SOCKET", notify)
            .env(SUPERVISED, format!("{} {}", own_id(), fds.join(" ")))
            .env_remove("LISTEN_PID")
            .env_remove("WATCHDOG_USEC");
        for (_, fd) in store {
            fcntl_setfd(fd, FdFlags::empty())?;
        }
        let started = command.spawn();
        for (_, fd) in store {
            fcntl_setfd(fd, FdFlags::CLOEXEC)?;
        }
        // Waited for by `Child::ended`, with all others.
        started.map(|started| Child {
            id: started.id(),
            is_ready: false,
            is_stopping: false,
            is_told_to_stop: false,
        })
    }
}

/// A daemon that runs.
pub(super) struct Child {
    id: u32,
    /// It forwards.
    pub(super) is_ready: bool,
    /// It was told to stop, or ends by itself.
    pub(super) is_stopping: bool,
    /// It was told to stop.
    pub(super) is_told_to_stop: bool,
}

impl Child {
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// One that has ended meanwhile needs none.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }

    /// Whether it has ended.
    pub(super) fn ended(&mut self) -> io::Result<Option<Ended>> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == self.pid() => return Ok(Some(of(status))),
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.id.cast_signed())
    }
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Exited(i32),
    Killed(i32),
}

fn of(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Killed(signal.unwrap_or_default()),
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with exit code {code}"),
            Self::Killed(SIGSYS) => f.write_str(
                "was ended by signal SIGSYS: it made a system call that its filter does not allow; please report which, as the kernel's log names it (`dmesg`, a line with syscall=), and set sandbox.seccomp = \"log\" meanwhile",
            ),
            Self::Killed(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ended;

    #[test]
    fn a_forbidden_call_is_named_as_one() {
        let ended = Ended::Killed(31).to_string();
        assert!(ended.contains("SIGSYS") && ended.contains("sandbox.seccomp"), "{ended}");
        assert_eq!(Ended::Killed(9).to_string(), "was ended by signal 9");
    }
}
