//! `--adjust` on a live pod, against a daemon that is played: as root.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use api::{Adjustment, AttachmentId, Reattachment, Request};

use crate::lab::daemon::Daemon;
use crate::lab::{self, NetNs, Run};

fn adjustment(container: &str, netns: &Path, mtu: u32) -> Adjustment {
    let attachment = AttachmentId { container_id: container.into(), ifname: "eth0".into() };
    Adjustment { attachment, netns: netns.display().to_string(), mtu }
}

/// Whether it ended well, and its log.
fn adjust(node: &NetNs, daemon: &Daemon) -> (bool, String) {
    let mut command: Command = node.command(env!("CARGO_BIN_EXE_vswitch-cni"));
    let output =
        command.arg("--adjust").arg(daemon.socket()).output().expect("nsenter of util-linux");
    assert!(output.stdout.is_empty(), "a log goes to stderr");
    (output.status.success(), String::from_utf8(output.stderr).expect("UTF-8"))
}

#[test]
fn a_live_pod_gets_another_mtu_and_nobody_else_does() {
    if !lab::is_root("a_live_pod_gets_another_mtu_and_nobody_else_does") {
        return;
    }
    let (daemon, node, pod) = (Daemon::new(), NetNs::new(), NetNs::new());
    let run = Run::new("1.0.0", &daemon.socket()).on(&node).container("c1", &pod.path());
    let added = run.add();
    assert!(added.success, "{added:?}");
    assert!(pod.ip("link show eth0").contains("mtu 1450"));

    // One adjustment names another container at this pod's place, another a place where nothing is.
    let stranger = adjustment("c2", &pod.path(), 1300);
    let gone = adjustment("c3", Path::new("/nowhere"), 1300);
    daemon.state().adjustments = vec![gone, stranger, adjustment("c1", &pod.path(), 1400)];
    daemon.heard();
    let (is_well, log) = adjust(&node, &daemon);
    assert!(!is_well, "one namespace cannot be opened: {log}");
    let link = pod.ip("link show eth0");
    assert!(link.contains("mtu 1400") && link.contains("UP"), "{link}");
    let adjusted: Vec<_> = daemon
        .state()
        .requests
        .iter()
        .filter_map(|request| match request {
            Request::Adjusted { attachment, mtu } => Some((attachment.container_id.clone(), *mtu)),
            _ => None,
        })
        .collect();
    assert_eq!(adjusted, [("c1".to_owned(), 1400)]);
    assert!(log.contains("eth0 of container c1: MTU 1400"), "{log}");
    assert!(log.contains("c2: not in") && log.contains("c3: network namespace"), "{log}");

    // Growing, with nobody else in the way.
    daemon.state().adjustments = vec![adjustment("c1", &pod.path(), 1480)];
    let (is_well, log) = adjust(&node, &daemon);
    assert!(is_well, "{log}");
    assert!(pod.ip("link show eth0").contains("mtu 1480"));
    assert!(run.check(&added.json()).success, "CHECK finds nothing wrong with it");
    assert!(run.del().success);
}

#[test]
fn an_interface_whose_descriptor_is_lost_is_opened_again_and_no_other() {
    if !lab::is_root("an_interface_whose_descriptor_is_lost_is_opened_again") {
        return;
    }
    let (daemon, node, pod) = (Daemon::new(), NetNs::new(), NetNs::new());
    let run = Run::new("1.0.0", &daemon.socket()).on(&node).container("c1", &pod.path());
    let added = run.add();
    assert!(added.success, "{added:?}");
    // As the daemon does, whose end it is to outlive.
    let attached = daemon.state().attached.remove(0);
    tap::set_persistent(attached.tap.as_fd(), true).expect("a TAP");
    let mac = attached.mac;
    drop(attached);
    // As an earlier version made it.
    pod.ip("link set eth0 txqueuelen 1000");
    let before = pod.ip("-o link show eth0");
    assert!(before.contains("NO-CARRIER"), "{before}");

    let missing = |container: &str, netns: &Path| Reattachment {
        attachment: AttachmentId { container_id: container.into(), ifname: "eth0".into() },
        netns: netns.display().to_string(),
        mac,
        bandwidth: api::Bandwidth::default(),
        queues: 1,
    };
    let stranger = missing("c2", &pod.path());
    let gone = missing("c3", Path::new("/nowhere"));
    daemon.state().reattachments = vec![gone, stranger, missing("c1", &pod.path())];
    let (is_well, log) = adjust(&node, &daemon);
    assert!(!is_well, "one namespace cannot be opened: {log}");
    assert!(log.contains("eth0 of container c1: its interface is open again"), "{log}");
    assert!(log.contains("c2: not in") && log.contains("c3: network namespace"), "{log}");
    let opened: Vec<_> =
        daemon.state().attached.iter().map(|one| one.id.container_id.clone()).collect();
    assert_eq!(opened, ["c1"]);
    let after = pod.ip("-o link show eth0");
    assert_eq!(after.split(':').next(), before.split(':').next(), "its index is the same");
    assert!(after.contains("LOWER_UP") && after.contains("qlen 8192"), "{after}");
    assert!(run.check(&added.json()).success, "CHECK finds nothing wrong with it");

    // What somebody has open is left to it.
    daemon.state().reattachments = vec![missing("c1", &pod.path())];
    let (is_well, log) = adjust(&node, &daemon);
    assert!(!is_well && log.contains("c1: cannot open eth0 again"), "{log}");
    assert!(run.del().success);
    assert!(pod.links().is_empty());
}

#[test]
fn an_interface_of_several_queues_is_opened_again_with_them_and_only_if_nobody_has_one() {
    let test = "an_interface_of_several_queues_is_opened_again_with_them";
    if !lab::is_root(test) {
        return;
    }
    let (daemon, node, pod) = (Daemon::new(), NetNs::new(), NetNs::new());
    let run = Run::new("1.0.0", &daemon.socket()).on(&node).container("c1", &pod.path());
    let run = run.conf("queues", 3);
    let added = run.add();
    assert!(added.success, "{added:?}");
    let attached = daemon.state().attached.remove(0);
    tap::set_persistent(attached.tap.as_fd(), true).expect("a TAP");
    let mac = attached.mac;
    drop(attached);
    let missing = |queues| Reattachment {
        attachment: AttachmentId { container_id: "c1".into(), ifname: "eth0".into() },
        netns: pod.path().display().to_string(),
        mac,
        bandwidth: api::Bandwidth::default(),
        queues,
    };
    // The daemon that asks has two workers.
    daemon.state().reattachments = vec![missing(2)];
    let (is_well, log) = adjust(&node, &daemon);
    assert!(is_well, "{log}");
    assert_eq!(daemon.state().attached[0].more.len(), 1);
    let shown = pod.ip("-details link show eth0");
    assert!(shown.contains("multi_queue numqueues 2 numdisabled 0"), "{shown}");
    assert!(run.check(&added.json()).success, "CHECK finds nothing wrong with it");

    // The kernel would give a second process queues beside the first one's.
    daemon.state().reattachments = vec![missing(2)];
    let (is_well, log) = adjust(&node, &daemon);
    assert!(!is_well && log.contains("c1: cannot open eth0 again"), "{log}");
    let shown = pod.ip("-details link show eth0");
    assert!(shown.contains("multi_queue numqueues 2 numdisabled 0"), "{shown}");
    assert!(run.del().success);
    assert!(pod.links().is_empty());
}

#[test]
fn without_a_daemon_nothing_is_adjusted_and_that_is_said() {
    let output = Command::new(env!("CARGO_BIN_EXE_vswitch-cni"))
        .args(["--adjust", "/nowhere/s"])
        .output()
        .expect("the binary starts");
    assert!(!output.status.success());
    let log = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(log.contains("/nowhere/s"), "{log}");
}
