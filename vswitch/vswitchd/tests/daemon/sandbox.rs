//! Filters of system calls on the threads of the built daemon.

use std::collections::BTreeMap;
use std::fs;

use api::{Reply, Request};

use crate::node::{Node, Running};

#[test]
fn each_thread_has_its_filter() {
    let node = Node::new("");
    let socket = node.file("metrics.sock");
    node.append(&format!("[metrics]\nlisten = \"unix:{}\"\n", socket.display()));
    let daemon = node.start();
    daemon.plug("a");
    let filters = daemon_filters(&daemon);
    let names: Vec<_> = filters.keys().map(String::as_str).collect();
    assert_eq!(names, ["closer", "journal", "metrics", "nft", "vswitchd", "worker-0"]);
    assert!(filters.values().all(|mode| mode == "2"), "{filters:?}");
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("not a status") };
    assert!(status.choices.iter().any(|choice| choice.contains("another one ends the daemon")));
    assert!(!status.warnings.iter().any(|warning| warning.contains("sandbox")));
    daemon.stop();
}

#[test]
fn without_filters_the_operator_is_told() {
    let node = Node::new("");
    node.append("[sandbox]\nseccomp = \"off\"\n");
    let daemon = node.start();
    let own = fs::read_to_string("/proc/self/status").expect("every Linux has it");
    let own = field(&own, "Seccomp:");
    let filters = daemon_filters(&daemon);
    assert!(filters.values().all(|mode| *mode == own), "{filters:?}");
    let Reply::Status(status) = daemon.ask(&Request::Status) else { panic!("not a status") };
    assert!(status.warnings.iter().any(|warning| warning.contains("sandbox.seccomp")));
    daemon.stop();
}

/// The mode of seccomp of each thread, by the thread's name: 2 is a filter.
fn daemon_filters(daemon: &Running<'_>) -> BTreeMap<String, String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it runs");
    let of = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        Some((field(&status, "Name:"), field(&status, "Seccomp:")))
    };
    tasks.filter_map(|task| of(task.ok()?)).collect()
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.expect("the kernel tells it").trim().to_owned()
}
