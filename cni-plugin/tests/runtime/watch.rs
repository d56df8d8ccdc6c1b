//! `--adjust --watch`, against a daemon that is played: what it does and when it ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use api::{Adjustment, AttachmentId};

use crate::lab::daemon::Daemon;
use crate::lab::{self, NetNs, Run};

/// Longer than anything here takes, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(30);

/// The binary, and its log as it comes. Ends with the test.
struct Watcher {
    process: Child,
    lines: Receiver<String>,
}

impl Watcher {
    fn new(mut command: Command, socket: &Path) -> Self {
        command.args(["--adjust", "--watch"]).arg(socket);
        let mut process = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(process.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { process, lines }
    }

    fn alone(socket: &Path) -> Self {
        Self::new(Command::new(env!("CARGO_BIN_EXE_vswitch-cni")), socket)
    }

    /// Waits for a line with these words.
    fn says(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            if line.contains(words) {
                return;
            }
            seen.push(line);
        }
        panic!("not {words:?}, but {seen:?}");
    }

    /// Waits for its end; its log closes with it.
    fn ended(&mut self) -> ExitStatus {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it goes on"),
            }
        }
        self.process.wait().expect("ours")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ask(daemon: &Daemon, adjustment: Adjustment) {
    let text = format!("{}\n", adjustment.mtu);
    daemon.state().adjustments = vec![adjustment];
    std::fs::write(daemon.socket().with_extension("adjust"), text).expect("written");
}

fn adjustment(container: &str, netns: &Path, mtu: u32) -> Adjustment {
    let attachment = AttachmentId { container_id: container.into(), ifname: "eth0".into() };
    Adjustment { attachment, netns: netns.display().to_string(), mtu }
}

#[test]
fn a_live_pod_follows_whenever_the_daemon_asks() {
    if !lab::is_root("a_live_pod_follows_whenever_the_daemon_asks") {
        return;
    }
    let (daemon, node, pod) = (Daemon::new(), NetNs::new(), NetNs::new());
    let run = Run::new("1.0.0", &daemon.socket()).on(&node).container("c1", &pod.path());
    assert!(run.add().success);

    // What was asked for before it came is done at once.
    daemon.state().adjustments = vec![adjustment("c1", &pod.path(), 1400)];
    let watcher = Watcher::new(node.command(env!("CARGO_BIN_EXE_vswitch-cni")), &daemon.socket());
    watcher.says("eth0 of container c1: MTU 1400");
    assert!(pod.ip("link show eth0").contains("mtu 1400"));
    for mtu in [1300, 1480] {
        ask(&daemon, adjustment("c1", &pod.path(), mtu));
        watcher.says(&format!("eth0 of container c1: MTU {mtu}"));
        assert!(pod.ip("link show eth0").contains(&format!("mtu {mtu}")));
    }
    assert!(run.del().success);
}

#[test]
fn what_fails_is_tried_again_without_being_asked() {
    let daemon = Daemon::new();
    let watcher = Watcher::alone(&daemon.socket());
    watcher.says("watching");
    ask(&daemon, adjustment("c1", Path::new("/nowhere"), 1300));
    for _ in 0..2 {
        watcher.says("c1: network namespace \"/nowhere\" cannot be opened");
    }
}

#[test]
fn a_daemon_that_does_not_run_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("s");
    let mut watcher = Watcher::alone(&socket);
    watcher.says("watching");
    assert_eq!(watcher.process.try_wait().expect("ours"), None);

    // What it watches goes: it ends, and prints why.
    drop(dir);
    watcher.says("any longer");
    let status = watcher.ended();
    assert!(!status.success() && status.signal().is_none(), "{status:?}");

    let mut watcher = Watcher::alone(&socket);
    watcher.says("cannot watch the directory");
    assert!(!watcher.ended().success());
}

#[test]
fn a_polite_signal_ends_it_well() {
    let daemon = Daemon::new();
    let mut watcher = Watcher::alone(&daemon.socket());
    watcher.says("watching");
    let id = watcher.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().expect("kill of procps").success());
    assert_eq!(watcher.ended().code(), Some(0));
}
