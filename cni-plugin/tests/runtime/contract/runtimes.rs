//! What runtimes do that no specification has: they lose what they knew, repeat themselves, come late, and give up.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::daemon::{Daemon, Fault};
use crate::lab::pod::Lab;
use crate::lab::versions::{VERSIONS, in_every_version};
use crate::lab::{self, FakeIpam, NetNs, Run};

in_every_version! {
    a_runtime_that_lost_its_cache_deletes_without_prev_result,
    a_failed_add_is_followed_by_one_del,
    a_retry_under_a_new_id_needs_no_end_of_the_old_one,
    a_del_never_says_not_found,
    a_del_with_the_configuration_of_another_day_frees_all,
    a_repeated_or_late_del_leaves_the_pod_that_has_the_address_now,
    a_plugin_that_is_replaced_while_it_runs_ends_as_it_began,
}

/// Starts a command that has all that it waits for.
fn start(run: &Run, command: &str) -> Child {
    let mut child = run.process(command).spawn().expect("the plugin starts");
    let conf = run.conf.to_string();
    child.stdin.take().expect("piped").write_all(conf.as_bytes()).expect("the plugin reads");
    child
}

/// An ADD whose plugin is killed when the daemon has the pod's interface.
fn killed_add(lab: &Lab, run: &Run) {
    lab.daemon.fail(Fault::Hang("attach"));
    let mut child = start(run, "ADD");
    let deadline = Instant::now() + Duration::from_secs(30);
    while lab.daemon.state().requests.len() < 2 {
        assert!(!lab::has_ended(&mut child) && Instant::now() < deadline, "it gets so far");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().expect("it is our child");
    child.wait().expect("killed");
    lab.daemon.fail(Fault::None);
    assert_eq!(lab.daemon.heard(), ["reserve", "attach"]);
}

fn a_runtime_that_lost_its_cache_deletes_without_prev_result(lab: &Lab, version: &str) {
    // libcni keeps results and what it gave beside the configuration in files that a crash leaves empty.
    let wishes = json!({
        "ips": ["198.18.1.42/24"], "mac": "02:00:00:00:00:07",
        "portMappings": [{"hostPort": 8080, "containerPort": 80}],
    });
    let added = lab
        .run(version)
        .set("CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web")
        .conf("runtimeConfig", wishes)
        .add();
    assert!(added.success, "{added:?}");
    let forgetful = lab.run(version).container("c1", Path::new(""));
    assert!(forgetful.conf.get("prevResult").is_none());
    assert_eq!(forgetful.del().code(), 0);
    lab.pod.comes_to(&[]);
    lab.assert_clean("DEL");
}

fn a_failed_add_is_followed_by_one_del(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(lab.run(version));
    killed_add(lab, &run);
    assert!(!lab.daemon.is_empty(), "it had no time to take anything back");
    assert_eq!(run.del().code(), 0);
    lab.assert_clean("one DEL");
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
}

fn a_retry_under_a_new_id_needs_no_end_of_the_old_one(lab: &Lab, version: &str) {
    // The runtime gives the old one up, as its DEL failed too.
    killed_add(lab, &lab.run(version));
    let netns = NetNs::new();
    let retry = lab.run(version).container("c2", &netns.path());
    let added = retry.add();
    assert!(added.success, "{added:?}");
    assert_eq!(netns.links(), ["eth0"]);
    // And comes back to it in the end, when the sandbox is collected.
    assert_eq!(lab.run(version).del().code(), 0);
    assert_eq!(netns.links(), ["eth0"]);
    if retry.knows("CHECK") {
        assert_eq!(retry.check(&added.json()).code(), 0);
    }
    assert_eq!(retry.del().code(), 0);
    lab.assert_clean("DEL");
}

fn a_del_never_says_not_found(version: &str) {
    // go-cni takes an error of DEL with these words for a success.
    let daemon = Daemon::new();
    let script = r#"cat >/dev/null
        echo '{"code": 9, "msg": "lease not found", "details": "file not found"}'; exit 1"#;
    let ipam = FakeIpam::new(script);
    let run = Run::new(version, &daemon.socket()).container("c1", Path::new(""));
    let answer = ipam.used_by(run).del();
    assert_eq!(answer.code(), 9);
    assert_eq!(answer.message(), "IPAM plugin fake-ipam: lease absent | file absent");
    assert_eq!(daemon.heard(), ["detach"]);
    // Nor what we say of names that we were given.
    let named = Run::new(version, Path::new("/not found/s")).container("c1", Path::new(""));
    let answer = named.del();
    assert_eq!(answer.code(), 11);
    assert!(!answer.stdout.contains("not found"), "{answer:?}");
}

fn a_del_with_the_configuration_of_another_day_frees_all(lab: &Lab, version: &str) {
    // CRI-O has that of the ADD in its cache, others read the conflist of now.
    let now = |key: &str, value: serde_json::Value| lab.run(version).conf(key, value);
    let others = VERSIONS.map(|other| now("cniVersion", other.into()));
    let more = [
        now("mode", "bridged".into()),
        now("mtu", 1280.into()),
        now("queues", 99.into()),
        now("runtimeConfig", json!("no object")),
        now("ingressRate", json!("fast")),
        now("ipam", json!({})),
        now("ipam", json!({"type": "dhcp"})),
    ];
    for run in others.into_iter().chain(more) {
        assert!(lab.run(version).add().success);
        assert_eq!(run.del().code(), 0, "{}", run.conf);
        lab.assert_clean(&run.conf.to_string());
    }
}

fn a_repeated_or_late_del_leaves_the_pod_that_has_the_address_now(lab: &Lab, version: &str) {
    // It gives the one address that it has left.
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let old = ipam.used_by(lab.run(version));
    let first = old.add().json();
    assert_eq!(old.del().code(), 0);
    let new = ipam.used_by(lab.run(version)).container("c2", &lab.pod.path());
    let second = new.add().json();
    assert_eq!(first["ips"], second["ips"], "the same address");
    for late in [old.clone(), old.clone().container("c1", Path::new("")), old] {
        assert_eq!(late.conf("prevResult", first.clone()).del().code(), 0);
        assert_eq!(lab.pod.links(), ["eth0"]);
        if new.knows("CHECK") {
            assert_eq!(new.check(&second).code(), 0);
        }
    }
    assert_eq!(new.del().code(), 0);
    lab.assert_clean("DEL");
}

fn a_plugin_that_is_replaced_while_it_runs_ends_as_it_began(lab: &Lab, version: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    let (installed, next) = (dir.path().join("vswitch-cni"), dir.path().join("vswitch-cni.new"));
    // By another process: what this one has open for writing another test's child may hold as it begins.
    let copy = |from: &str, to: &Path| {
        assert!(Command::new("cp").arg(from).arg(to).status().expect("cp").success(), "{from}");
    };
    let run = lab.run(version).by(&installed);
    for command in ["ADD", "DEL"] {
        copy(env!("CARGO_BIN_EXE_vswitch-cni"), &installed);
        let mut child = run.process(command).spawn().expect("the plugin starts");
        let executed = format!("/proc/{}/exe", child.id());
        // nsenter is before it.
        while fs::read_link(&executed).is_ok_and(|now| now != installed) {
            thread::sleep(Duration::from_millis(1));
        }
        // As scripts/install does it, by one of which nothing is to be executed.
        copy("/bin/false", &next);
        fs::rename(&next, &installed).expect("renamed");
        let conf = run.conf.to_string();
        child.stdin.take().expect("piped").write_all(conf.as_bytes()).expect("the plugin reads");
        let answer = lab::finished(child);
        assert!(answer.success, "{command}: {answer:?}");
    }
    lab.assert_clean("DEL");
}
