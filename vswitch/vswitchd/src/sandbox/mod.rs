//! The system calls that each thread may make.
//!
//! Enters: `sandbox.seccomp`, and the kind of a thread. Leaves: a filter on that thread, put on when it has what it
//! works with, and before it works; threads and programs that it starts later inherit it. A call that the filter
//! does not allow ends the process (SIGSYS), and whatever started the daemon starts it again. `daemon`, `journal`,
//! `metrics`, `rules` and the workers put filters on.
//!
//! | file | holds |
//! |---|---|
//! | `calls`     | a call with the reason for it |
//! | `every`     | what a thread needs whatever it does |
//! | `control`, `worker`, `closer`, `journal`, `metrics` | what that thread needs besides |
//! | `children`  | what the program `nft` and the thread that runs it need |
//! | `arguments` | calls of which some arguments alone are allowed |
//!
//! For calls of a packet's way the kernel (5.11) does not run the filter: it keeps a bitmap of those that a filter allows
//! whatever their arguments.

mod arguments;
mod calls;
mod children;
mod closer;
mod control;
mod every;
mod journal;
mod metrics;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;

use ::worker::{Confine, Confinement};
use controlplane::config::SeccompSetting;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::error::{Error, Result};
use calls::Call;

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThreadKind {
    /// Everything but what the others do.
    Control,
    /// Runs `nft`.
    Rules,
    /// Forwards packets.
    Worker,
    /// Closes the descriptors of removed ports.
    Closer,
    /// Waits for the disk.
    Journal,
    /// Answers readers of metrics.
    Metrics,
}

impl ThreadKind {
    /// The lists of calls that it may make.
    fn lists(self) -> Vec<&'static [Call]> {
        match self {
            Self::Control => vec![every::CALLS, control::CALLS],
            Self::Rules => vec![every::CALLS, children::CALLS],
            Self::Worker => vec![every::CALLS, worker::CALLS],
            Self::Closer => vec![every::CALLS, closer::CALLS],
            Self::Journal => vec![every::CALLS, journal::CALLS],
            Self::Metrics => vec![every::CALLS, metrics::CALLS],
        }
    }

    /// Programs that it executes are loaded, and so map code.
    fn runs_programs(self) -> bool {
        self == Self::Rules
    }
}

/// Puts filters on threads, or nothing if they are switched off.
#[derive(Debug, Clone)]
pub struct Sandbox(SeccompSetting);

impl Sandbox {
    /// Tries on a thread that ends at once whether the kernel takes a filter.
    ///
    /// # Errors
    /// If it does not.
    pub fn new(setting: SeccompSetting) -> Result<Self> {
        let sandbox = Self(setting);
        let confine = sandbox.confining(ThreadKind::Control);
        let tried = thread::Builder::new().spawn(move || confine());
        let tried = tried.and_then(|thread| {
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        });
        tried.map_err(Error::Sandbox)?;
        Ok(sandbox)
    }

    /// One that leaves every thread what it has.
    #[must_use]
    pub fn off() -> Self {
        Self(SeccompSetting::Off)
    }

    /// What a thread of this kind calls to be confined.
    #[must_use]
    pub fn confining(&self, kind: ThreadKind) -> Confine {
        let setting = self.0;
        Arc::new(move || {
            let action = match setting {
                SeccompSetting::Kill => SeccompAction::KillProcess,
                SeccompSetting::Log => SeccompAction::Log,
                SeccompSetting::Off => return Ok(()),
            };
            apply_filter(&filter(kind, action)?).map_err(io::Error::other)
        })
    }

    /// What the workers' crate calls on its threads.
    #[must_use]
    pub fn of_workers(&self) -> Confinement {
        Confinement {
            worker: self.confining(ThreadKind::Worker),
            closer: self.confining(ThreadKind::Closer),
        }
    }

    /// What was chosen, for `status`.
    #[must_use]
    pub fn choice(&self) -> String {
        let seccomp = match self.0 {
            SeccompSetting::Kill => "another one ends the daemon",
            SeccompSetting::Log => "another one is logged by the kernel",
            SeccompSetting::Off => return "system calls: not filtered".to_owned(),
        };
        format!("system calls: each thread may make those that it needs; {seccomp}")
    }

    /// What needs the operator's attention.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let what = match self.0 {
            SeccompSetting::Kill => return None,
            SeccompSetting::Log => "logged, and not forbidden",
            SeccompSetting::Off => "not filtered",
        };
        Some(format!(
            "the daemon's system calls are {what}, as sandbox.seccomp says; remove that key to have them filtered"
        ))
    }
}

fn filter(kind: ThreadKind, action: SeccompAction) -> io::Result<BpfProgram> {
    let calls = kind.lists().into_iter().flatten();
    let rules = calls
        .map(|call| Ok((call.number, arguments::allowed(call.number, kind)?)))
        .collect::<std::result::Result<BTreeMap<_, _>, seccompiler::BackendError>>();
    let architecture = TargetArch::try_from(std::env::consts::ARCH);
    let filter = rules
        .and_then(|rules| SeccompFilter::new(rules, action, SeccompAction::Allow, architecture?));
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}
