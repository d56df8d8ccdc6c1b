//! VERSION, the environment and the configuration: what is refused, with which code, and what is ignored.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use api::Request;
use serde_json::{Value, json};

use crate::lab::daemon::Daemon;
use crate::lab::pod::Lab;
use crate::lab::versions::{VERSIONS, in_every_version};
use crate::lab::{self, FakeIpam, NetNs, Run};

pub(super) const NO_DAEMON: &str = "/run/vswitch-cni-test/nobody-listens";
const COMMANDS: [&str; 5] = ["ADD", "DEL", "CHECK", "STATUS", "GC"];

in_every_version! {
    version_lists_exactly_what_works_and_reads_nothing,
    a_configuration_without_a_known_version_is_refused,
    names_of_containers_networks_and_interfaces_follow_their_patterns,
    missing_variables_are_named_all_at_once,
    bad_json_is_code_6_and_no_name_code_7,
    the_plugins_own_namespace_is_refused_before_anything_is_made,
    unknown_keys_are_ignored_and_args_win_over_cni_args,
    capabilities_are_honoured_ignored_or_refused_by_name,
    pods_come_and_go_concurrently,
    an_ipam_type_that_is_a_path_is_refused,
}

fn run(version: &str) -> Run {
    Run::new(version, Path::new(NO_DAEMON)).container("c1", Path::new("/run/netns/none"))
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

fn version_lists_exactly_what_works_and_reads_nothing(version: &str) {
    let mut child = run(version).process("VERSION").spawn().expect("starts");
    let stdin = child.stdin.take();
    let answer = lab::finished(child);
    drop(stdin);
    assert!(answer.success, "it ends though stdin is open: {answer:?}");
    let expected = json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS});
    assert_eq!(answer.json(), expected);
    assert_eq!(run(version).run("VERSION").json(), expected);
    // It works, by way of what needs no root.
    let daemon = Daemon::new();
    assert_eq!(Run::new(version, &daemon.socket()).container("c1", Path::new("")).del().code(), 0);
}

fn a_configuration_without_a_known_version_is_refused(version: &str) {
    let mut absent = run(version);
    absent.conf.as_object_mut().expect("an object").remove("cniVersion");
    for command in COMMANDS {
        assert_eq!(absent.run(command).code(), 1, "{command}");
        for unknown in ["0.1.0", "0.2.0", "0.3.0", "1.2.0", "2.0.0", "", "latest"] {
            let answer = run(version).conf("cniVersion", unknown).run(command);
            assert_eq!(answer.code(), 1, "{command} {unknown}");
            assert_eq!(answer.json()["cniVersion"], unknown, "{command}");
        }
    }
    assert_eq!(absent.run("UPDATE").code(), 4, "no command");
}

fn names_of_containers_networks_and_interfaces_follow_their_patterns(version: &str) {
    for (variable, refused) in [
        ("CNI_CONTAINERID", &["-c1", ".c1", "_c1", "c/1", "c 1", "c1;", "é"][..]),
        ("CNI_IFNAME", &["a/b", "a:b", "a b", "a\tb", ".", "..", "1234567890123456"]),
    ] {
        for value in refused {
            for command in ["ADD", "DEL", "CHECK"] {
                let answer = run(version).set(variable, value).run(command);
                assert_eq!(answer.code(), 4, "{command} {value}");
                assert!(answer.message().contains(variable), "{answer:?}");
            }
        }
    }
    for name in ["", "-n", "a b", "a/b", ".n"] {
        assert_eq!(run(version).conf("name", name).del().code(), 7, "{name:?}");
    }
    let daemon = Daemon::new();
    let (container, ifname) = ("0A_b.c-d", "123456789012345");
    let run = Run::new(version, &daemon.socket()).container(container, Path::new(""));
    assert_eq!(run.set("CNI_IFNAME", ifname).conf("name", "0.N_-").del().code(), 0);
    match &daemon.state().requests[..] {
        [Request::Detach(id)] => {
            assert_eq!((id.container_id.as_str(), id.ifname.as_str()), (container, ifname));
        }
        other => panic!("{other:?}"),
    }
}

fn missing_variables_are_named_all_at_once(version: &str) {
    let table: [(&str, &[&str]); 5] = [
        ("ADD", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("CHECK", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("STATUS", &["CNI_PATH"]),
        ("GC", &["CNI_PATH"]),
    ];
    for (command, names) in table {
        for empty in [true, false] {
            let mut run = Run::new(version, Path::new(NO_DAEMON));
            run.env.clear();
            let run = if empty { run.set("CNI_PATH", "") } else { run };
            let answer = run.run(command);
            assert_eq!(answer.code(), 4, "{command}");
            let expected = format!("variables missing: {} | ", names.join(", "));
            assert!(answer.message().ends_with(&expected), "{command}: {answer:?}");
        }
    }
}

fn bad_json_is_code_6_and_no_name_code_7(version: &str) {
    for command in COMMANDS {
        let run = run(version);
        for bytes in [&b""[..], b"{", b"[]", b"null", b"\xff"] {
            assert_eq!(run.run_with(command, bytes).code(), 6, "{command} {bytes:?}");
        }
        let mut nameless = run.clone();
        nameless.conf.as_object_mut().expect("an object").remove("name");
        for run in [nameless, run.conf("name", "")] {
            if run.knows(command) {
                let answer = run.run(command);
                assert_eq!(answer.code(), 7, "{command}");
                assert_eq!(answer.json()["cniVersion"], version);
            }
        }
    }
}

fn the_plugins_own_namespace_is_refused_before_anything_is_made(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let own = Path::new("/proc/self/ns/net");
    for netns in [&lab.node.path(), own, Path::new("/run/netns/none")] {
        let run = ipam.used_by(lab.run(version).container("c1", netns));
        assert_eq!(run.add().code(), 8, "{netns:?}");
    }
    assert_eq!(lab.daemon.heard(), [""; 0]);
    assert_eq!(ipam.log(), [""; 0]);
    assert_eq!(lab.node.links(), [""; 0]);
}

fn unknown_keys_are_ignored_and_args_win_over_cni_args(lab: &Lab, version: &str) {
    let environment = "IP=198.18.1.7;MAC=02:00:00:00:00:07;IgnoreUnknown=1;X=a=b;Y=";
    for environment in [environment.to_owned(), environment.replace("IgnoreUnknown=1;", "")] {
        let run = lab
            .run(version)
            .set("CNI_ARGS", &environment)
            .conf("of.a.later.version", json!({"x": [1]}))
            .conf("capabilities", json!({"mac": true}))
            .conf("type", "renamed");
        let wanted = |run: &Run| {
            lab.comes_and_goes(run, &run.conf.to_string());
            let reserve = lab.reservation();
            (reserve.requested[0].to_string(), reserve.mac.expect("asked for").to_string())
        };
        assert_eq!(wanted(&run), ("198.18.1.7".into(), "02:00:00:00:00:07".into()));
        let args = json!({"ips": ["198.18.1.8"], "mac": "02:00:00:00:00:08", "z": {}});
        let run = run.conf("args", json!({"cni": args, "of.another": 1}));
        assert_eq!(wanted(&run), ("198.18.1.8".into(), "02:00:00:00:00:08".into()));
    }
}

fn capabilities_are_honoured_ignored_or_refused_by_name(lab: &Lab, version: &str) {
    let given = |runtime: Value| lab.run(version).conf("runtimeConfig", runtime);
    let ignored = json!({
        "aliases": {"pods": ["db"]}, "cgroupPath": "/kubepods/pod1",
        "io.kubernetes.cri.pod-annotations": {"a": "b"}, "of.a.later.version": [1],
    });
    lab.comes_and_goes(&given(ignored), "ignored");
    let honoured = json!({
        "mac": "02:00:00:00:00:07", "ips": ["198.18.1.42/24"], "dns": {"servers": ["198.18.0.10"]},
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": 5_000_000, "egressRate": 6_000_000},
        "ipRanges": [[{"subnet": "198.18.1.0/24", "rangeStart": "198.18.1.42"}]],
    });
    let result = lab.comes_and_goes(&given(honoured), "honoured");
    assert_eq!(result["interfaces"][0]["mac"], "02:00:00:00:00:07");
    assert_eq!(result["dns"]["servers"], json!(["198.18.0.10"]));
    let reserve = lab.reservation();
    assert_eq!(reserve.requested.len(), 1);
    assert_eq!(reserve.port_mappings.len(), 1);
    assert!(reserve.bandwidth.ingress.is_some() && reserve.bandwidth.egress.is_some());
    assert_eq!(reserve.ranges.len(), 1);
    for (key, value) in
        [("deviceID", "0000:3b:02.1"), ("infinibandGUID", "c2:11:22:33:44:55:66:77")]
    {
        let run = given(json!({key: value}));
        let refused = run.add();
        assert_eq!(refused.code(), 2, "{refused:?}");
        let message = refused.message();
        assert!(message.contains(&format!("runtimeConfig.{key}")), "{message}");
        assert!(message.contains(value), "{message}");
        assert_eq!(run.del().code(), 0, "{key}");
        lab.assert_clean(key);
    }
}

fn pods_come_and_go_concurrently(lab: &Lab, version: &str) {
    let pods: Vec<NetNs> = (0..8).map(|_| NetNs::new()).collect();
    let runs: Vec<Run> =
        (0..8).map(|i| lab.run(version).container(&format!("c{i}"), &pods[i].path())).collect();
    let at_once = |command: &str| {
        thread::scope(|scope| {
            for run in &runs {
                scope.spawn(|| {
                    let answer = run.run(command);
                    assert!(answer.success, "{answer:?}");
                });
            }
        });
    };
    at_once("ADD");
    assert!(pods.iter().all(|pod| pod.links() == ["eth0"]));
    assert_eq!(lab.node.links(), [""; 0]);
    let is_ours = |request: &Request| match request {
        Request::Reserve(reserve) => reserve.network.as_deref() == Some("pods"),
        _ => true,
    };
    assert!(lab.daemon.state().requests.iter().all(is_ours), "each names its network");
    at_once("DEL");
    assert!(pods.iter().all(|pod| pod.links().is_empty()));
    lab.assert_clean("DEL");
}

fn an_ipam_type_that_is_a_path_is_refused(version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    // All of these would lead to it.
    let dir = ipam.path().join("below");
    std::fs::create_dir(&dir).expect("made");
    let absolute = ipam.path().join("fake-ipam").display().to_string();
    for kind in ["../fake-ipam", "./../fake-ipam", &absolute, "..", "a/../../fake-ipam"] {
        let run = run(version).set("CNI_PATH", &dir.display().to_string());
        let run = run.conf("ipam", json!({"type": kind}));
        for command in COMMANDS.into_iter().filter(|command| run.knows(command)) {
            let answer = run.run(command);
            assert_eq!(answer.code(), 7, "{command} {kind}");
            assert!(answer.message().starts_with("`ipam.type` is "), "{answer:?}");
        }
    }
    assert_eq!(ipam.log(), [""; 0], "it was not executed");
}
