//! The daemon is away, or hangs; so does what else a command waits for. Every command ends, and a DEL is
//! not lost.

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use api::{DetachQueue, MAX_QUEUED};
use serde_json::json;
use tempfile::TempDir;

use crate::lab::daemon::{Daemon, Fault};
use crate::lab::versions::in_every_version;
use crate::lab::{self, FakeIpam, NetNs, Run};

in_every_version! {
    del_waits_on_disk_for_a_daemon_that_is_away,
    a_hung_status_ends_in_time,
    a_del_ends_in_time_though_all_that_it_asks_hangs,
}

/// A place for socket and state, where no daemon is.
struct Nowhere {
    dir: TempDir,
}

impl Nowhere {
    fn new() -> Self {
        Self { dir: TempDir::new().expect("a directory") }
    }

    fn run(&self, version: &str) -> Run {
        Run::new(version, &self.dir.path().join("s")).container("c1", Path::new("/run/netns/none"))
    }

    /// What a process that was stopped leaves of its socket: connections are made, and nobody answers.
    fn stopped(&self) -> UnixListener {
        UnixListener::bind(self.dir.path().join("s")).expect("bound")
    }

    fn queued(&self) -> Vec<String> {
        lab::queued(self.dir.path())
    }
}

fn del_waits_on_disk_for_a_daemon_that_is_away(version: &str) {
    let nowhere = Nowhere::new();
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(nowhere.run(version));
    for _ in 0..2 {
        assert_eq!(run.del().code(), 0);
    }
    assert_eq!(run.container("c2", Path::new("")).del().code(), 0);
    assert_eq!(nowhere.queued(), ["c1", "c2"]);
    assert_eq!(ipam.log(), ["DEL"; 3]);
}

fn a_hung_status_ends_in_time(version: &str) {
    let nowhere = Nowhere::new();
    let run = nowhere.run(version);
    if !run.knows("STATUS") {
        return;
    }
    let _stopped = nowhere.stopped();
    assert_eq!(run.run("STATUS").code(), 51);
    // It runs, and does not answer; then it does, and the IPAM plugin does not.
    let daemon = Daemon::new();
    daemon.fail(Fault::Hang("status"));
    let run = Run::new(version, &daemon.socket());
    assert_eq!(run.run("STATUS").code(), 51);
    daemon.fail(Fault::None);
    let answer = FakeIpam::new("exec sleep 600").used_by(run).run("STATUS");
    assert_eq!(answer.code(), 104, "{answer:?}");
}

fn a_del_ends_in_time_though_all_that_it_asks_hangs(version: &str) {
    let test = "a_del_ends_in_time_though_all_that_it_asks_hangs";
    if !lab::is_root(test) {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        return lab::skipped(test, "there is no /dev/fuse");
    }
    let (nowhere, mount) = (Nowhere::new(), TempDir::new().expect("a directory"));
    let _stopped = nowhere.stopped();
    let ipam = FakeIpam::new("exec sleep 600");
    let run = nowhere.run(version).container("c1", &mount.path().join("netns"));
    let answer = ipam.used_by(run).run_on_hung_mount("DEL", mount.path());
    assert_eq!(answer.code(), 104, "{answer:?}");
    let message = answer.message();
    assert!(message.contains("hangs") && message.contains("took too long"), "{message}");
    assert_eq!(nowhere.queued(), ["c1"], "what the daemon has to do waits for it");
}

#[test]
fn del_does_not_wait_for_a_daemon_that_refuses() {
    let daemon = Daemon::new();
    daemon.fail(Fault::Refuse("detach", api::ErrorKind::Internal));
    let run = Run::new("1.0.0", &daemon.socket()).container("c1", Path::new(""));
    assert_eq!(run.del().code(), 102);
    assert_eq!(lab::queued(daemon.socket().parent().expect("a directory")), [""; 0]);
}

#[test]
fn del_finds_a_daemon_that_came_while_it_waited_for_the_queue() {
    // It waits half a second for the lock: on a busy machine we may be too late, and try anew.
    let tries = (0..20).map(|_| {
        let dir = TempDir::new().expect("a directory");
        let queue = DetachQueue::open(dir.path()).expect("made");
        let held = queue.lock(Instant::now()).expect("nobody has it");
        let run = Run::new("1.0.0", &dir.path().join("s")).container("c1", Path::new(""));
        let mut child = run.process("DEL").spawn().expect("starts");
        let conf = run.conf.to_string();
        child.stdin.take().expect("piped").write_all(conf.as_bytes()).expect("the plugin reads");
        // It opens the queue when it has found no daemon.
        while !opens(child.id(), &dir.path().join("del-queue")) && !lab::has_ended(&mut child) {
            thread::sleep(Duration::from_millis(1));
        }
        let daemon = Daemon::in_directory(dir);
        drop(held);
        (lab::finished(child), daemon)
    });
    let (_, daemon) = tries.into_iter().find(|(answer, _)| answer.success).expect("in time, once");
    assert_eq!(daemon.heard(), ["detach"]);
    assert_eq!(lab::queued(daemon.socket().parent().expect("a directory")), [""; 0]);
}

/// Whether the process has opened this path.
fn opens(process: u32, path: &Path) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|opened| opened == path)
}

#[test]
fn a_queue_that_another_holds_takes_nothing() {
    let nowhere = Nowhere::new();
    let queue = DetachQueue::open(nowhere.dir.path()).expect("made");
    let held = queue.lock(Instant::now()).expect("nobody has it");
    let answer = nowhere.run("1.0.0").del();
    assert_eq!(answer.code(), 11);
    assert!(answer.message().contains("locked by another process"), "{answer:?}");
    drop(held);
    assert_eq!(nowhere.queued(), [""; 0]);
    assert_eq!(nowhere.run("1.0.0").del().code(), 0);
    assert_eq!(nowhere.queued(), ["c1"]);
}

#[test]
fn a_queue_that_is_full_takes_no_more() {
    let nowhere = Nowhere::new();
    let queue = DetachQueue::open(nowhere.dir.path()).expect("made");
    for number in 0..MAX_QUEUED {
        fs::write(nowhere.dir.path().join(format!("del-queue/{number}.json")), "").expect("room");
    }
    let answer = nowhere.run("1.0.0").del();
    assert_eq!(answer.code(), 11);
    assert!(answer.message().contains("has 1024 entries"), "{answer:?}");
    assert!(queue.queued().expect("readable").attachments.is_empty());
}

#[test]
fn a_stopped_daemon_holds_no_command_up() {
    let nowhere = Nowhere::new();
    let _stopped = nowhere.stopped();
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(nowhere.run("1.1.0"));
    assert_eq!(run.del().code(), 0);
    assert_eq!(nowhere.queued(), ["c1"]);
    assert_eq!(run.run("STATUS").code(), 51);
    let list = json!([]);
    assert_eq!(run.clone().conf("cni.dev/valid-attachments", list).run("GC").code(), 11);
    assert_eq!(ipam.log(), ["DEL", "GC"]);
    assert!(run.run("VERSION").success);
}

#[test]
fn add_and_check_end_with_a_stopped_daemon_and_leave_nothing() {
    if !lab::is_root("add_and_check_end_with_a_stopped_daemon") {
        return;
    }
    let (node, pod, nowhere) = (NetNs::new(), NetNs::new(), Nowhere::new());
    let daemon = Daemon::new();
    let there = Run::new("1.1.0", &daemon.socket()).on(&node).container("c1", &pod.path());
    let result = there.add().json();
    let stopped = nowhere.stopped();
    let gone = nowhere.run("1.1.0").on(&node).container("c1", &pod.path());
    assert_eq!(gone.check(&result).code(), 11);
    assert_eq!(there.del().code(), 0);
    for listener in [Some(stopped), None] {
        let is_stopped = listener.is_some();
        assert_eq!(gone.add().code(), 11);
        assert_eq!(pod.links(), [""; 0]);
        // A daemon that got the reservation may hold it: it is to be taken back.
        let expected: &[&str] = if is_stopped { &["c1"] } else { &[] };
        assert_eq!(nowhere.queued(), expected);
        drop(listener);
        let queue = DetachQueue::open(nowhere.dir.path()).expect("made");
        for attachment in queue.queued().expect("readable").attachments {
            queue.remove(&attachment).expect("there");
        }
        let _ = fs::remove_file(nowhere.dir.path().join("s"));
    }
}

#[test]
fn a_delegate_that_hangs_holds_no_command_up() {
    let daemon = Daemon::new();
    let run = |version| {
        let ipam = FakeIpam::new("exec sleep 600");
        let run = Run::new(version, &daemon.socket()).container("c1", Path::new(""));
        (ipam.used_by(run), ipam)
    };
    for command in ["DEL", "STATUS", "GC"] {
        let (run, _ipam) = run("1.1.0");
        let answer = run.conf("cni.dev/valid-attachments", json!([])).run(command);
        assert_eq!(answer.code(), 104, "{command}");
        assert!(answer.message().contains("took too long"), "{command}: {answer:?}");
    }
    assert_eq!(daemon.heard(), ["detach", "status", "collect"]);
}

#[test]
fn stdin_that_is_never_closed_holds_no_command_up() {
    let nowhere = Nowhere::new();
    let run = nowhere.run("1.0.0");
    let mut child = run.process("DEL").spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(run.conf.to_string().as_bytes()).expect("the plugin reads");
    let answer = lab::finished(child);
    drop(stdin);
    assert_eq!(answer.code(), 5, "{answer:?}");
}

#[test]
fn a_file_system_that_hangs_holds_no_command_up() {
    let test = "a_file_system_that_hangs_holds_no_command_up";
    if !lab::is_root(test) {
        return;
    }
    if !Path::new("/dev/fuse").exists() {
        return lab::skipped(test, "there is no /dev/fuse");
    }
    let (daemon, mount) = (Daemon::new(), TempDir::new().expect("a directory"));
    let netns = mount.path().join("netns");
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    for (command, code) in [("ADD", 11), ("DEL", 8), ("CHECK", 11)] {
        let run = Run::new("1.1.0", &daemon.socket())
            .container("c1", &netns)
            .conf("prevResult", json!({"interfaces": [{"name": "eth0", "sandbox": netns}]}));
        // Of a FUSE file system without a process that answers, every look waits.
        let answer = ipam.used_by(run).run_on_hung_mount(command, mount.path());
        assert_eq!(answer.code(), code, "{command}: {answer:?}");
        assert_eq!(answer.json()["cniVersion"], "1.1.0");
    }
    assert_eq!(daemon.heard(), ["detach"]);
    assert_eq!(ipam.log(), ["DEL"]);
}
