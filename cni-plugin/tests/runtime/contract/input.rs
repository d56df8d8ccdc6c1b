//! The binary as a runtime executes it, without a daemon and without root: versions, environment,
//! configuration, errors.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use api::{ErrorKind, ServiceProblem, ServiceProblemKind};
use serde_json::json;

use crate::lab::daemon::{Daemon, Fault};
use crate::lab::{FakeIpam, Run, VERSIONS};

const NO_DAEMON: &str = "/run/vswitch-cni-test/nobody-listens";

fn run(version: &str) -> Run {
    Run::new(version, Path::new(NO_DAEMON)).container("c1", Path::new("/run/netns/none"))
}

#[test]
fn version_lists_what_works_and_never_reads_stdin() {
    let mut child = run("1.1.0").process("VERSION").spawn().expect("starts");
    let stdin = child.stdin.take();
    let output = child.wait_with_output().expect("ends though stdin is open");
    drop(stdin);
    assert!(output.status.success());
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer, json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS}));
}

#[test]
fn help_is_for_people_and_stdout_stays_empty() {
    for args in [&["--help"][..], &[]] {
        let output = Command::new(env!("CARGO_BIN_EXE_vswitch-cni"))
            .args(args)
            .env_remove("CNI_COMMAND")
            .stdin(Stdio::null())
            .output()
            .expect("runs");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(text.starts_with("vswitch-cni is the CNI plugin of vswitchd"), "{text}");
        assert_eq!(output.status.success(), !args.is_empty());
        // A runtime that forgot CNI_COMMAND gets its error.
        assert_eq!(output.stdout.is_empty(), !args.is_empty());
    }
}

#[test]
fn commands_are_refused_below_their_version() {
    let table = [
        ("CHECK", "0.3.1"),
        ("STATUS", "1.0.0"),
        ("GC", "0.4.0"),
        ("ADD", "0.2.0"),
        ("DEL", "2.0.0"),
    ];
    for (command, version) in table {
        let answer = run(version).run(command);
        assert_eq!(answer.code(), 1, "{command} {version}");
        assert_eq!(answer.json()["cniVersion"], version);
    }
    let answer = run("1.0.0").run_with("ADD", br#"{"name": "pods"}"#);
    assert_eq!(answer.code(), 1);
}

#[test]
fn errors_of_the_input_are_the_same_in_every_version() {
    for version in VERSIONS {
        let nameless = run(version).conf("name", "").add();
        assert_eq!(nameless.code(), 7);
        assert_eq!(nameless.json()["cniVersion"], version);
        let slash = run(version).set("CNI_IFNAME", "a/b").add();
        assert_eq!(slash.code(), 4);
        let ipam = run(version).conf("ipam", json!({"type": "../../bin/sh"})).del();
        assert_eq!(ipam.code(), 7);
        let no_netns = run(version).add();
        assert_eq!(no_netns.code(), 8, "{no_netns:?}");
        let own = run(version).container("c1", Path::new("/proc/self/ns/net")).add();
        assert_eq!(own.code(), 8);
    }
    assert_eq!(run("1.0.0").run_with("ADD", b"{").code(), 6);
    assert_eq!(run("1.0.0").run("UPDATE").code(), 4);
}

#[test]
fn a_missing_environment_is_reported_at_once() {
    let answer = Run::new("1.0.0", Path::new(NO_DAEMON)).set("CNI_PATH", "").add();
    assert_eq!(answer.code(), 4);
    let message = answer.message();
    for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn del_that_cannot_be_left_on_disk_is_to_be_repeated_but_the_delegate_runs() {
    for version in VERSIONS {
        let ipam = FakeIpam::new(FakeIpam::RESULT);
        let answer = ipam.used_by(run(version)).del();
        assert_eq!(answer.code(), 11);
        assert_eq!(ipam.log(), ["DEL"]);
        let message = answer.message();
        assert!(message.contains(NO_DAEMON) && message.contains("cannot open"), "{message}");
        assert!(!message.contains("not found"), "{message}");
    }
}

#[test]
fn del_never_says_not_found_even_when_the_delegate_does() {
    let daemon = Daemon::new();
    let script = "cat >/dev/null; echo '{\"code\": 9, \"msg\": \"lease not found\"}'; exit 1";
    let ipam = FakeIpam::new(script);
    let run = Run::new("1.0.0", &daemon.socket()).container("c1", Path::new(""));
    let answer = ipam.used_by(run).del();
    assert_eq!(answer.code(), 9);
    assert_eq!(answer.message(), "IPAM plugin fake-ipam: lease absent | ");
    assert_eq!(daemon.heard(), ["detach"]);
}

#[test]
fn del_of_what_was_never_added_succeeds_whatever_netns_and_prev_result_are() {
    let daemon = Daemon::new();
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"after a reboot").expect("written");
    for version in VERSIONS {
        for netns in [Path::new(""), Path::new("/run/netns/gone"), file.path()] {
            for previous in [json!(null), json!({}), json!(7), json!({"ips": [{}]})] {
                let run = Run::new(version, &daemon.socket())
                    .container("c1", netns)
                    .conf("prevResult", previous);
                assert_eq!(run.del().code(), 0, "{version} {netns:?}");
                assert_eq!(run.del().code(), 0, "{version} {netns:?}");
            }
        }
    }
}

#[test]
fn status_says_whether_add_could_succeed_and_pods_are_well() {
    let run = Run::new("1.1.0", Path::new(NO_DAEMON));
    let answer = run.run("STATUS");
    assert_eq!(answer.code(), 51, "nothing forwards");
    assert!(answer.message().contains(NO_DAEMON), "{answer:?}");

    let daemon = Daemon::new();
    let own = Run::new("1.1.0", &daemon.socket());
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let delegated = ipam.used_by(own.clone());
    assert_eq!(own.run("STATUS").code(), 0);
    assert_eq!(delegated.run("STATUS").code(), 0);
    assert_eq!(ipam.log(), ["STATUS"]);

    let problem = |kind, reason: &str| ServiceProblem { kind, reason: reason.into() };
    let no_address = problem(ServiceProblemKind::NoAddress, "no address is left");
    let no_adds = problem(ServiceProblemKind::AddsFail, "no pod prefixes");
    let suffer = problem(ServiceProblemKind::PodsSuffer, "the uplink is gone");
    let table = [
        (vec![no_address.clone()], 50, "no address is left", 0),
        (vec![no_adds.clone()], 50, "no pod prefixes", 50),
        (vec![suffer.clone()], 51, "the uplink is gone", 51),
        (vec![no_address, suffer], 51, "no address is left; the uplink is gone", 51),
    ];
    for (problems, code, details, code_delegated) in table {
        daemon.state().problems = problems;
        let answer = own.run("STATUS");
        assert_eq!((answer.code(), &answer.json()["details"]), (code, &json!(details)));
        assert_eq!(delegated.run("STATUS").code(), code_delegated, "{details}");
    }
    assert_eq!(ipam.log(), ["STATUS"; 2]);
    daemon.fail(Fault::Refuse("status", ErrorKind::NotReady));
    assert_eq!(own.run("STATUS").code(), 50, "it runs, and forwards");
}

#[test]
fn status_passes_on_what_the_ipam_plugin_says() {
    let daemon = Daemon::new();
    let ipam =
        FakeIpam::new(r#"cat >/dev/null; echo '{"code": 51, "msg": "range is full"}'; exit 1"#);
    let answer = ipam.used_by(Run::new("1.1.0", &daemon.socket())).run("STATUS");
    assert_eq!(answer.code(), 51);
    assert_eq!(answer.message(), "IPAM plugin fake-ipam: range is full | ");
}

#[test]
fn gc_hands_over_the_runtimes_list_with_the_networks_name() {
    let daemon = Daemon::new();
    let ipam = FakeIpam::new("cat >/dev/null");
    let run = ipam.used_by(Run::new("1.1.0", &daemon.socket())).conf("name", "one");
    assert_eq!(run.run("GC").code(), 7, "an absent list is no empty one");
    assert_eq!(daemon.heard(), [""; 0]);
    let listed = |id: &str| json!({"containerID": id, "ifname": "eth0"});
    let list = json!([listed("c1"), listed("c1"), listed("c2")]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(run.clone().conf(key, list.clone()).run("GC").code(), 0);
        let collect = daemon.state().collected.pop().expect("asked");
        let ids: Vec<_> = collect.valid.iter().map(|id| id.container_id.as_str()).collect();
        assert_eq!((collect.network.as_str(), ids), ("one", vec!["c1", "c2"]), "{key}");
    }
    assert_eq!(ipam.log(), ["GC"; 2]);
    // A daemon that fails does not keep the delegate from its part.
    daemon.fail(Fault::Refuse("collect", ErrorKind::Internal));
    assert_eq!(run.conf("cni.dev/valid-attachments", json!([])).run("GC").code(), 102);
    assert_eq!(ipam.log(), ["GC"; 3]);
    assert_eq!(daemon.heard(), ["collect"; 3]);
}
