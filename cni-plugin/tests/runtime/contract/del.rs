//! DEL: all that ADD made goes, however often and however late it is asked, whatever is left of the pod.

use std::fs;
use std::io::Write;
use std::path::Path;

use api::ErrorKind;
use serde_json::{Value, json};

use super::input::NO_DAEMON;
use crate::lab::daemon::{Daemon, Fault};
use crate::lab::pod::Lab;
use crate::lab::versions::in_every_version;
use crate::lab::{FakeIpam, NetNs, Run};

in_every_version! {
    del_undoes_all_that_add_did,
    a_second_del_succeeds,
    del_of_what_was_never_added_succeeds,
    del_without_a_namespace_frees_all,
    del_after_the_namespace_is_gone_frees_all,
    del_of_a_path_that_is_a_plain_file_frees_all,
    del_needs_no_previous_result_and_believes_no_foreign_one,
    a_delegated_del_runs_whatever_else_fails,
    del_after_a_failed_add_succeeds,
    del_goes_by_container_and_interface_and_not_by_the_path,
    a_stale_del_leaves_the_next_container_alone,
    a_delegates_error_is_passed_on,
}

/// What is in a pod, its loopback interface left out.
fn state_of(pod: &NetNs) -> [String; 4] {
    ["-o link show", "-o addr show", "-4 route show table all", "-6 route show table all"]
        .map(|what| pod.ip(what))
}

fn del_undoes_all_that_add_did(lab: &Lab, version: &str) {
    // Every pod has its loopback interface up; that is all that stays.
    lab.pod.ip("link set lo up");
    let before = state_of(&lab.pod);
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    for run in [lab.run(version), ipam.used_by(lab.run(version)).conf("mode", "bridged")] {
        let added = run.add();
        assert!(added.success, "{added:?}");
        assert_ne!(state_of(&lab.pod), before);
        assert_eq!(run.conf("prevResult", added.json()).del().code(), 0);
        assert_eq!(state_of(&lab.pod), before);
        lab.assert_clean("DEL");
        assert_eq!(lab.daemon.heard(), ["reserve", "attach", "detach"]);
    }
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
}

fn a_second_del_succeeds(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(lab.run(version));
    assert!(run.add().success);
    for time in 1..=3 {
        assert_eq!(run.del().code(), 0, "time {time}");
        lab.assert_clean("DEL");
    }
    assert_eq!(ipam.log(), ["ADD", "DEL", "DEL", "DEL"]);
}

fn del_of_what_was_never_added_succeeds(version: &str) {
    let daemon = Daemon::new();
    let file = plain_file();
    for netns in [Path::new(""), Path::new("/run/netns/gone"), file.path()] {
        for previous in [json!(null), json!({}), json!(7), json!({"ips": [{}]})] {
            let run = Run::new(version, &daemon.socket())
                .container("c1", netns)
                .conf("prevResult", previous);
            assert_eq!(run.del().code(), 0, "{netns:?}");
            assert_eq!(run.del().code(), 0, "{netns:?}");
        }
    }
}

/// What a reboot leaves at the path of a namespace.
fn plain_file() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"after a reboot").expect("written");
    file
}

/// The address is free, and the TAP has gone from the pod's namespace with its descriptor.
fn frees_all_with(lab: &Lab, version: &str, netns: &Path) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    for run in [lab.run(version), ipam.used_by(lab.run(version))] {
        assert!(run.add().success);
        assert_eq!(run.container("c1", netns).del().code(), 0);
        lab.pod.comes_to(&[]);
        lab.assert_clean("DEL");
        assert_eq!(lab.daemon.heard(), ["reserve", "attach", "detach"]);
    }
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
}

fn del_without_a_namespace_frees_all(lab: &Lab, version: &str) {
    frees_all_with(lab, version, Path::new(""));
}

fn del_after_the_namespace_is_gone_frees_all(lab: &Lab, version: &str) {
    frees_all_with(lab, version, Path::new("/run/netns/gone"));
}

fn del_of_a_path_that_is_a_plain_file_frees_all(lab: &Lab, version: &str) {
    let file = plain_file();
    frees_all_with(lab, version, file.path());
    assert_eq!(fs::read(file.path()).expect("still there"), b"after a reboot");
}

fn del_needs_no_previous_result_and_believes_no_foreign_one(lab: &Lab, version: &str) {
    let foreign = json!({
        "cniVersion": version,
        "interfaces": [{"name": "net7", "sandbox": "/run/netns/other"}],
        "ips": [{"version": "4", "address": "198.18.1.99/32", "interface": 0}],
    });
    for previous in [Value::Null, json!({}), json!(7), json!({"ips": [{}]}), foreign] {
        let run = lab.run(version);
        assert!(run.add().success);
        assert_eq!(run.conf("prevResult", previous).del().code(), 0);
        lab.assert_clean("DEL");
    }
    let run = lab.run(version);
    assert!(run.add().success);
    assert!(run.conf.get("prevResult").is_none());
    assert_eq!(run.del().code(), 0);
    lab.assert_clean("DEL");
}

fn a_delegated_del_runs_whatever_else_fails(version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    // No daemon, and no directory in which the order could wait for one.
    let gone = Path::new("/run/netns/gone");
    let run = Run::new(version, Path::new(NO_DAEMON)).container("c1", gone);
    let answer = ipam.used_by(run).del();
    assert_eq!(answer.code(), 11);
    assert_eq!(ipam.log(), ["DEL"]);
    let message = answer.message();
    assert!(message.contains(NO_DAEMON) && message.contains("cannot open"), "{message}");
    assert!(!message.contains("not found"), "{message}");

    let daemon = Daemon::new();
    let run = ipam.used_by(Run::new(version, &daemon.socket()).container("c1", gone));
    daemon.fail(Fault::Refuse("detach", ErrorKind::Internal));
    assert_eq!(run.del().code(), 102);
    assert_eq!(ipam.log(), ["DEL"; 2]);
    daemon.fail(Fault::Close("detach"));
    assert_eq!(run.del().code(), 0, "the order waits on disk");
    assert_eq!(ipam.log(), ["DEL"; 3]);
}

fn del_after_a_failed_add_succeeds(lab: &Lab, version: &str) {
    let fails = FakeIpam::new(FakeIpam::FAILS_ADD);
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    for run in [lab.run(version), ipam.used_by(lab.run(version)), fails.used_by(lab.run(version))] {
        lab.daemon.fail(Fault::Refuse("attach", ErrorKind::Internal));
        assert!(!run.add().success);
        assert_eq!(run.del().code(), 0);
        lab.assert_clean("DEL");
    }
    assert_eq!([ipam.log(), fails.log()], [["ADD", "DEL", "DEL"]; 2]);
}

fn del_goes_by_container_and_interface_and_not_by_the_path(lab: &Lab, version: &str) {
    let (elsewhere, other) = (NetNs::new(), lab.run(version).set("CNI_IFNAME", "net1"));
    let neighbour = lab.run(version).container("c2", &elsewhere.path());
    let run = lab.run(version);
    for added in [&run, &other, &neighbour] {
        assert!(added.add().success);
    }
    // The path is another pod's, which has an interface of that name.
    assert_eq!(run.container("c1", &elsewhere.path()).del().code(), 0);
    lab.pod.comes_to(&["net1"]);
    assert_eq!(elsewhere.links(), ["eth0"]);
    let held = |lab: &Lab| {
        let state = lab.daemon.state();
        let name = |id: &api::AttachmentId| format!("{}/{}", id.container_id, id.ifname);
        state.attached.iter().map(|one| name(&one.id)).collect::<Vec<_>>()
    };
    assert_eq!(held(lab), ["c1/net1", "c2/eth0"]);
    assert_eq!(other.del().code(), 0);
    assert_eq!(held(lab), ["c2/eth0"]);
}

fn a_stale_del_leaves_the_next_container_alone(lab: &Lab, version: &str) {
    let new = lab.run(version).container("c2", &lab.pod.path());
    assert!(new.add().success);
    assert_eq!(lab.run(version).del().code(), 0);
    assert_eq!(lab.pod.links(), ["eth0"]);
    assert!(!lab.daemon.is_empty());
    assert_eq!(new.del().code(), 0);
    lab.assert_clean("its own DEL");
}

fn a_delegates_error_is_passed_on(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::FAILS_AFTER_ADD);
    let run = ipam.used_by(lab.run(version)).conf("cni.dev/valid-attachments", json!([]));
    let added = run.add();
    assert!(added.success, "{added:?}");
    let run = run.conf("prevResult", added.json());
    let mut expected = vec!["ADD"];
    for command in ["CHECK", "DEL", "STATUS", "GC"] {
        if !run.knows(command) {
            continue;
        }
        expected.push(command);
        let answer = run.run(command);
        assert_eq!(answer.code(), 42, "{command}");
        assert_eq!(answer.message(), "IPAM plugin fake-ipam: range is full | by 7", "{command}");
        assert_eq!(ipam.log(), expected, "{command}");
    }
    // What is ours is undone all the same.
    lab.assert_clean("DEL");
}
