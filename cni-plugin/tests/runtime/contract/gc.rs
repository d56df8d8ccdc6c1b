//! GC: what the runtime lists stays, and the daemon and the IPAM plugin free the rest.

use api::ErrorKind;
use serde_json::{Value, json};

use crate::lab::daemon::{Daemon, Fault};
use crate::lab::versions::in_every_version;
use crate::lab::{FakeIpam, Run};

const LIST: &str = "cni.dev/valid-attachments";

in_every_version! {
    gc_hands_over_the_list_with_the_networks_name,
    gc_goes_on_past_errors_and_reports_all,
    gc_is_passed_on_to_the_ipam_plugin,
    gc_refuses_an_absent_list,
    gc_takes_the_list_by_either_name,
    gc_and_status_print_nothing_where_they_succeed,
}

fn listed(ids: &[&str]) -> Value {
    ids.iter().map(|id| json!({"containerID": id, "ifname": "eth0"})).collect()
}

/// The network and the containers of the last GC, as the daemon got them.
fn collected(daemon: &Daemon) -> (String, Vec<String>) {
    let collect = daemon.state().collected.pop().expect("asked");
    (collect.network, collect.valid.into_iter().map(|id| id.container_id).collect())
}

fn gc_hands_over_the_list_with_the_networks_name(version: &str) {
    let daemon = Daemon::new();
    let run = Run::new(version, &daemon.socket()).conf("name", "one");
    if !run.knows("GC") {
        return assert_eq!(daemon.heard(), [""; 0]);
    }
    // Twice, and unheard of: what the daemon does with those is the daemon's test.
    for (list, ids) in [
        (listed(&["c1", "c1", "c2", "never-added"]), vec!["c1", "c2", "never-added"]),
        (listed(&[]), vec![]),
    ] {
        assert_eq!(run.clone().conf(LIST, list).run("GC").code(), 0);
        assert_eq!(collected(&daemon), ("one".into(), ids.into_iter().map(Into::into).collect()));
    }
    assert_eq!(run.conf(LIST, json!([{"containerID": "c1"}])).run("GC").code(), 6);
    assert_eq!(daemon.heard(), ["collect"; 2]);
}

fn gc_goes_on_past_errors_and_reports_all(version: &str) {
    let daemon = Daemon::new();
    daemon.fail(Fault::Refuse("collect", ErrorKind::Internal));
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(Run::new(version, &daemon.socket())).conf(LIST, json!([]));
    if !run.knows("GC") {
        return assert_eq!(ipam.log(), [""; 0]);
    }
    // A daemon that fails does not keep the IPAM plugin from its part.
    assert_eq!(run.run("GC").code(), 102);
    assert_eq!(ipam.log(), ["GC"]);
    let fails = FakeIpam::new(FakeIpam::FAILS_AFTER_ADD);
    let message = fails.used_by(run).run("GC").message();
    for part in ["vswitchd cannot free", "the test says so", "fake-ipam: range is full: by 7"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(daemon.heard(), ["collect"; 2]);
}

fn gc_is_passed_on_to_the_ipam_plugin(version: &str) {
    let daemon = Daemon::new();
    let ipam = FakeIpam::new(FakeIpam::KEEPS_STDIN);
    let run = ipam.used_by(Run::new(version, &daemon.socket())).conf(LIST, listed(&["c1"]));
    if !run.knows("GC") {
        return assert_eq!(ipam.log(), [""; 0]);
    }
    assert_eq!(run.run("GC").code(), 0);
    assert_eq!(ipam.log(), ["GC"]);
    assert_eq!(ipam.stdin(), run.conf, "with the list");
}

fn gc_refuses_an_absent_list(version: &str) {
    let daemon = Daemon::new();
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(Run::new(version, &daemon.socket()));
    if run.knows("GC") {
        for run in [run.clone(), run.conf(LIST, Value::Null)] {
            assert_eq!(run.run("GC").code(), 7, "an absent list is no empty one");
        }
    }
    assert_eq!(daemon.heard(), [""; 0]);
    assert_eq!(ipam.log(), [""; 0]);
}

fn gc_takes_the_list_by_either_name(version: &str) {
    let daemon = Daemon::new();
    let run = Run::new(version, &daemon.socket());
    if !run.knows("GC") {
        return;
    }
    let legacy = "cni.dev/attachments";
    for (run, id) in [
        (run.clone().conf(LIST, listed(&["c1"])), "c1"),
        (run.clone().conf(legacy, listed(&["c2"])), "c2"),
        // libcni sends both.
        (run.conf(LIST, listed(&["c3"])).conf(legacy, listed(&["c3"])), "c3"),
    ] {
        assert_eq!(run.run("GC").code(), 0);
        assert_eq!(collected(&daemon).1, [id]);
    }
}

fn gc_and_status_print_nothing_where_they_succeed(version: &str) {
    let daemon = Daemon::new();
    // What an IPAM plugin prints is not passed on.
    let ipam = FakeIpam::new("cat >/dev/null; echo '{\"said\": true}'");
    let run = ipam.used_by(Run::new(version, &daemon.socket())).conf(LIST, json!([]));
    for command in ["GC", "STATUS"].into_iter().filter(|command| run.knows(command)) {
        let answer = run.run(command);
        assert!(answer.success && answer.stdout.is_empty(), "{command}: {answer:?}");
    }
}
