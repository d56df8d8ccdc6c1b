//! Network namespaces of a test's own.
//!
//! A namespace is a thread that has left the others' by `unshare`: what is opened in it stays in
//! it, and when the thread and its sockets are gone, so are its devices. No name is given to it,
//! so that nothing is left behind however a test ends.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netlink::{Link, Netlink};

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with its loopback up.
pub(crate) struct Namespace {
    thread_id: i32,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// `None`, with a message, where this process may not make one.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let (ready, entered) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            // SAFETY: changes the namespace of this thread alone, which was made for it.
            let unshared = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            let error = std::io::Error::last_os_error();
            // SAFETY: gives an integer.
            let thread_id = unsafe { libc::gettid() };
            let outcome = if unshared == 0 { Ok(thread_id) } else { Err(error) };
            ready.send(outcome).expect("the test waits for it");
            queue.into_iter().for_each(|job| job());
        });
        match entered.recv().expect("the thread says how it went") {
            Ok(thread_id) => {
                let namespace = Self { thread_id, jobs: Some(jobs), thread: Some(thread) };
                namespace.run(|| up("lo"));
                Some(namespace)
            }
            Err(error) => {
                skip(test, &format!("no network namespace can be made ({error}); run it as root"));
                None
            }
        }
    }

    /// Runs something in the namespace.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            done.send(outcome).expect("the test waits for it");
        });
        self.jobs.as_ref().expect("open until drop").send(job).expect("the thread runs");
        match result.recv().expect("the job ends") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// The name of this namespace for `ip link … netns`.
    pub(crate) fn id(&self) -> String {
        self.thread_id.to_string()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Prints that a test was not run, past the test harness's capture of output.
pub(crate) fn skip(test: &str, reason: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}

/// Runs `ip` in the calling thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is there");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The interface of that name in the calling thread's namespace.
pub(crate) fn link(name: &str) -> Link {
    Netlink::open().expect("a socket").link(name).expect("an answer").expect("there is one")
}

/// Switches on an interface.
pub(crate) fn up(name: &str) {
    Netlink::open().expect("a socket").set_up(link(name).index).expect("it can be up");
}

/// Asks again until there is an answer; a limit, so that a fault ends the test.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}: not in ten seconds");
        std::thread::sleep(Duration::from_millis(2));
    }
}
