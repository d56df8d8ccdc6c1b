//! Threads without which the process is of no use: a panic in one ends the process at once.
//!
//! Enters: what the thread runs. Leaves: the thread; or a message on standard error and exit code 1.
//!
//! A worker that panics leaves the rest of the daemon as it was: the control socket answers, CNI ADD
//! and STATUS succeed, and no pod behind that worker reaches anything. Only a new process cures it,
//! so this one ends and the service manager starts another. The kernel then takes back the XDP
//! program, the NIC's queues and the host port, all of which hang on file descriptors of the
//! process, as after SIGKILL.

use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::thread::{self, JoinHandle};

/// The exit code of every failure that is not one of the configuration.
const EXIT_CODE: i32 = 1;

/// Starts a thread of that name. The thread ends by returning from `body`, which it does when it is
/// asked to stop; a panic ends the process instead.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let own_name = name.to_owned();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nothing that `body` leaves half-changed is looked at afterwards.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(body)) {
            end_process(&own_name, payload.as_ref());
        }
    })
}

/// Waits for the end of a thread that `spawn` started.
pub(crate) fn join(thread: JoinHandle<()>) {
    thread.join().expect("a panic in that thread would have ended the process");
}

fn end_process(name: &str, payload: &(dyn Any + Send)) -> ! {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    // Not by the log: a filter may hide it there.
    let _ = writeln!(
        io::stderr(),
        "vswitchd: thread {name} panicked ({text}); pods would be cut off without it, so the \
         process ends and has to be started again. This is a defect: please report the lines above"
    );
    process::exit(EXIT_CODE)
}

/// Runs a test's closure in a process of its own.
#[cfg(test)]
pub(crate) mod testing {
    use std::process::{self, Command};
    use std::time::Duration;
    use std::{env, thread};

    /// Set in the child.
    const IN_CHILD: &str = "WORKER_TEST_CHILD";

    /// A child that nothing ends ends itself after that, and successfully, which fails the test.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Runs `doomed` in a child, in which `test`, the caller's full name, runs again and comes here.
    /// Returns what the child printed on standard error before it ended with exit code 1.
    pub(crate) fn ends_its_process(test: &str, doomed: impl FnOnce()) -> String {
        if env::var_os(IN_CHILD).is_some() {
            doomed();
            thread::sleep(PATIENCE);
            process::exit(0);
        }
        let output = Command::new(env::current_exe().expect("a test has a binary"))
            .args(["--exact", test, "--nocapture"])
            .env(IN_CHILD, "1")
            .output()
            .expect("the binary runs again");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        message
    }
}

#[cfg(test)]
mod tests {
    use super::testing::ends_its_process;
    use super::{join, spawn};

    #[test]
    fn a_formatted_message_is_told() {
        let message = ends_its_process("essential::tests::a_formatted_message_is_told", || {
            let found = 7;
            spawn("worker-3", move || panic!("found {found}")).expect("a thread");
        });
        assert!(message.contains("vswitchd: thread worker-3 panicked (found 7);"), "{message}");
    }

    #[test]
    fn a_thread_that_returns_ends_nothing_else() {
        join(spawn("short", || ()).expect("a thread"));
    }
}
