//! Runs of the program `nft`, bounded in time and in what they print.
//!
//! Enters: scripts, from `nft`. Leaves: what was printed, or why a run failed. A run that takes too long is
//! killed, with all that it has started. Nobody but the thread of [`super::Rules`] waits for one, except where a
//! daemon starts.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::error::{Error, Result};

/// The longest that a run may take. A table with 10,000 elements takes some hundred milliseconds, a core that is
/// busy with other things several times that; what takes longer waits for something that does not come.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// The most that a run may print: a listing of a full table, with 65,535 ports of three protocols and two families,
/// has some 20 MB.
const MOST_PRINTED_BYTES: usize = 64 << 20;
/// What is kept of its complaints.
const MOST_SAID_BYTES: usize = 64 << 10;
/// Processes of ours that are remembered: more than change the table before the kernel's announcements of
/// that are read.
const OWN_PROCESSES: usize = 64;

/// The program, and what is known of its runs to others than the thread that waits for them.
#[derive(Debug, Clone)]
pub(super) struct Program {
    command: OsString,
    arguments: Vec<OsString>,
    limit: Duration,
    runs: Runs,
}

/// What every thread may know of runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Those that have changed the table, the latest first.
    own_processes: VecDeque<u32>,
    /// Since when there is one.
    since: Option<Instant>,
}

impl Runs {
    /// Whether a process that changed the table was one of ours.
    #[must_use]
    pub(super) fn is_own(&self, pid: u32) -> bool {
        self.with(|known| known.own_processes.contains(&pid))
    }

    /// Since when `nft` runs, if it does.
    #[must_use]
    pub(super) fn since(&self) -> Option<Instant> {
        self.with(|known| known.since)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        // What is in there is whole after each of these calls.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Program {
    /// `nft`, as it is found in PATH.
    #[must_use]
    pub(super) fn nft() -> Self {
        Self::of("nft", ["-f", "-"], LIMIT)
    }

    pub(super) fn of<const N: usize>(command: &str, arguments: [&str; N], limit: Duration) -> Self {
        let arguments = arguments.map(OsString::from).into();
        Self { command: command.into(), arguments, limit, runs: Runs::default() }
    }

    /// What others may know of its runs.
    #[must_use]
    pub(super) fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Runs it, to read something; what it printed.
    ///
    /// # Errors
    /// If it is missing, reports an error, or takes too long.
    pub(super) fn ask(&self, script: &str) -> Result<String> {
        self.run(script, |_| {})
    }

    /// Runs it, to change something. Its number is known before it has read anything: the kernel announces what it
    /// changes to another thread.
    ///
    /// # Errors
    /// As for `ask`. Nothing is changed then, except by one that was killed, which may have just done it.
    pub(super) fn change(&self, script: &str) -> Result<()> {
        let remember = |pid| {
            self.runs.with(|known| {
                known.own_processes.truncate(OWN_PROCESSES - 1);
                known.own_processes.push_front(pid);
            });
        };
        self.run(script, remember).map(drop)
    }

    fn run(&self, script: &str, started: impl FnOnce(u32)) -> Result<String> {
        let deadline = Instant::now() + self.limit;
        let mut child = self.start()?;
        started(child.id());
        self.runs.with(|known| known.since = Some(Instant::now()));
        let outcome = self.attend(&mut child, script, deadline);
        self.runs.with(|known| known.since = None);
        let (status, output) = outcome?;
        if status.success() {
            return Ok(String::from_utf8_lossy(&output.printed).into_owned());
        }
        let said = String::from_utf8_lossy(&output.said);
        Err(match (said.trim(), status.signal()) {
            ("", Some(signal)) => failed(format!("nft was ended by signal {signal}")),
            ("", None) => failed(format!("nft ended with {status}, and says nothing")),
            (said, _) => failed(format!("nft says: {}", said.replace('\n', "; "))),
        })
    }

    fn start(&self) -> Result<Child> {
        let mut command = Command::new(&self.command);
        command
            .args(&self.arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts is killed with it.
            .process_group(0);
        command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => failed(
                "the program `nft` is missing; install nftables, or set host.masquerade = false"
                    .into(),
            ),
            _ => failed(format!("cannot run nft: {error}")),
        })
    }

    fn attend(
        &self,
        child: &mut Child,
        script: &str,
        deadline: Instant,
    ) -> Result<(ExitStatus, Output)> {
        let attended = exchange(child, script.as_bytes(), deadline);
        if attended.is_err() {
            // Fails only where it has ended meanwhile.
            let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        }
        let ended = child.wait();
        let output = attended.map_err(|why| match why {
            Stop::TooLate => Error::NftTooSlow(format!(
                "nft did not end within {} and was killed; see what holds it up: `nft list ruleset` may hang as well, or the machine lacks processor time",
                self.words_for_limit()
            )),
            Stop::TooMuch => failed(format!(
                "nft printed more than {} MiB and was killed; see what `nft list table inet vswitch` prints",
                MOST_PRINTED_BYTES >> 20
            )),
            Stop::System(error) => failed(format!("cannot wait for nft: {error}")),
        })?;
        let status = ended.map_err(|error| failed(format!("cannot wait for nft: {error}")))?;
        Ok((status, output))
    }

    fn words_for_limit(&self) -> String {
        match self.limit.as_secs() {
            0 => format!("{} ms", self.limit.as_millis()),
            seconds => format!("{seconds} s"),
        }
    }
}

fn failed(why: String) -> Error {
    Error::Masquerade(why)
}

/// What a run has written.
#[derive(Default)]
struct Output {
    printed: Vec<u8>,
    said: Vec<u8>,
}

/// Why a run was given up.
enum Stop {
    TooLate,
    TooMuch,
    System(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

/// Writes the script and reads what comes, as either is possible, until the process has ended. What it started may
/// hold its pipes open for longer, which is not waited for.
fn exchange(
    child: &mut Child,
    mut script: &[u8],
    deadline: Instant,
) -> std::result::Result<Output, Stop> {
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut stdin = child.stdin.take();
    let mut stdout = child.stdout.take();
    let mut stderr = child.stderr.take();
    stdin.as_ref().map_or(Ok(()), without_waiting)?;
    stdout.as_ref().map_or(Ok(()), without_waiting)?;
    stderr.as_ref().map_or(Ok(()), without_waiting)?;
    let mut output = Output::default();
    loop {
        let has_ended = {
            let mut fds = vec![PollFd::new(&ended, PollFlags::IN)];
            fds.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
            fds.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            fds.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Stop::TooLate);
            }
            let timeout = Timespec::try_from(left).ok();
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            fds.first().is_some_and(|fd| !fd.revents().is_empty())
        };
        if !write_some(&mut stdin, &mut script) {
            stdin = None;
        }
        if !read_all(&mut stdout, &mut output.printed)? {
            stdout = None;
        }
        if output.printed.len() > MOST_PRINTED_BYTES {
            return Err(Stop::TooMuch);
        }
        if !read_all(&mut stderr, &mut output.said)? {
            stderr = None;
        }
        output.said.truncate(MOST_SAID_BYTES);
        if has_ended {
            return Ok(output);
        }
    }
}

fn without_waiting(pipe: &impl AsFd) -> rustix::io::Result<()> {
    rustix::io::ioctl_fionbio(pipe, true)
}

/// Writes what the pipe takes; false once there is nothing more to write.
fn write_some(pipe: &mut Option<ChildStdin>, script: &mut &[u8]) -> bool {
    let Some(pipe) = pipe else { return false };
    while !script.is_empty() {
        match pipe.write(script) {
            Ok(written) => *script = script.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // An nft that ends early gives the reason on its stderr.
            Err(_) => return false,
        }
    }
    false
}

/// Reads what the pipe has, or so much that the caller is to look whether it is too much; false at its end.
fn read_all(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(false) };
    let mut part = [0; 1 << 14];
    let most = into.len() + (1 << 20);
    while into.len() < most {
        match pipe.read(&mut part) {
            Ok(0) => return Ok(false),
            Ok(read) => into.extend_from_slice(part.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LIMIT, Program};
    use crate::error::chain;

    fn shell(script: &str, limit: Duration) -> Program {
        Program::of("sh", ["-c", script], limit)
    }

    #[test]
    fn a_run_prints_what_it_was_given_however_much_that_is() {
        // More than both pipes hold: it prints while it is still being written to.
        let script = "element\n".repeat(1 << 17);
        let printed = shell("cat", LIMIT).ask(&script).expect("it ends");
        assert!(printed == script, "{} bytes of {}", printed.len(), script.len());
    }

    #[test]
    fn what_a_run_says_is_the_error() {
        let refused = shell("cat >/dev/null; echo 'Error: no' >&2; echo such >&2; exit 1", LIMIT);
        let told = chain(&refused.ask("list").expect_err("it fails"));
        assert!(told.ends_with("nft says: Error: no; such"), "{told}");
        let silent = shell("kill -TERM $$", LIMIT).ask("").expect_err("it is ended");
        assert!(chain(&silent).ends_with("nft was ended by signal 15"), "{silent}");
        let missing = Program::of("no such program", [], LIMIT).ask("").expect_err("it is not");
        assert!(chain(&missing).contains("`nft` is missing"), "{missing}");
    }

    #[test]
    fn a_run_that_hangs_is_killed_with_all_that_it_started() {
        let limit = Duration::from_millis(50);
        // The script, which nobody reads, is more than its pipe holds.
        let script = "element\n".repeat(1 << 17);
        for hangs in ["sleep 1000", "sleep 1000 & exec sleep 1000", "exec >&- 2>&-; sleep 1000"] {
            let program = shell(hangs, limit);
            let told = chain(&program.change(&script).expect_err("it hangs"));
            assert!(told.contains("nft did not end within 50 ms and was killed"), "{told}");
            assert!(program.runs().since().is_none());
        }
    }

    #[test]
    fn what_a_run_leaves_behind_is_not_waited_for() {
        // Longer than the limit, at which a run would fail that waits for the end of the pipe.
        let printed = shell("sleep 30 & echo done", LIMIT).ask("").expect("it ends");
        assert_eq!(printed, "done\n");
    }

    #[test]
    fn a_run_that_prints_without_end_is_killed() {
        let told = chain(&shell("yes", LIMIT).ask("").expect_err("too much"));
        assert!(told.contains("nft printed more than 64 MiB"), "{told}");
    }

    #[test]
    fn those_that_change_something_are_known_by_their_number() {
        let program = shell("exec cat >/dev/null", LIMIT);
        program.ask("list").expect("it ends");
        assert!(program.runs().0.lock().expect("nobody panicked").own_processes.is_empty());
        program.change("delete").expect("it ends");
        let known = program.runs().0.lock().expect("nobody panicked").own_processes[0];
        assert!(program.runs().is_own(known) && !program.runs().is_own(0));
    }
}
