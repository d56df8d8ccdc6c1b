//! CHECK: what the runtime believes of a pod, held against its namespace, the daemon, and the IPAM plugin.

use std::path::Path;

use api::ErrorKind;
use serde_json::{Value, json};

use super::input::NO_DAEMON;
use crate::lab::daemon::{Daemon, Fault};
use crate::lab::pod::Lab;
use crate::lab::versions::in_every_version;
use crate::lab::{FakeIpam, Run};

in_every_version! {
    check_compares_with_the_previous_result,
    check_names_what_was_altered_in_the_pod,
    check_asks_the_daemon,
    check_tolerates_what_later_plugins_do,
    check_passes_right_after_add,
    check_is_passed_on_to_the_ipam_plugin,
    commands_are_refused_below_their_version,
}

/// The call, and the result of its ADD; `None` for a version without CHECK.
fn added(lab: &Lab, version: &str) -> Option<(Run, Value)> {
    let run = lab.run(version);
    let added = run.add();
    assert!(added.success, "{added:?}");
    run.knows("CHECK").then(|| (run, added.json()))
}

fn check_compares_with_the_previous_result(lab: &Lab, version: &str) {
    let Some((run, result)) = added(lab, version) else { return };
    let table = [
        ("/interfaces/0/mac", json!("02:00:00:00:00:99"), 105, "has the MAC 02:00:00:00:01:9b"),
        ("/interfaces/0/name", json!("net1"), 7, "`prevResult` names no interface eth0 of a pod"),
        ("/ips/0/address", json!("198.18.1.99/32"), 105, "lacks the address 198.18.1.99/32"),
        ("/ips/0/gateway", json!("198.18.1.254"), 105, "neighbour entry of gateway 198.18.1.254"),
        ("/routes/0/dst", json!("198.19.0.0/16"), 105, "route to 198.19.0.0/16 by 198.18.1.1 is"),
        ("/routes/0/gw", json!("198.18.1.9"), 105, "the route to 0.0.0.0/0 by 198.18.1.9 is"),
    ];
    for (place, value, code, message) in table {
        let mut previous = result.clone();
        *previous.pointer_mut(place).expect("in the result") = value;
        let answer = run.check(&previous);
        assert_eq!(answer.code(), code, "{place}: {answer:?}");
        assert!(answer.message().contains(message), "{place}: {answer:?}");
    }
    assert_eq!(run.run("CHECK").code(), 7, "no prevResult");
    assert_eq!(run.check(&result).code(), 0);
}

fn check_names_what_was_altered_in_the_pod(lab: &Lab, version: &str) {
    let table: [(&[&str], &str); 9] = [
        (
            &["addr del 198.18.1.155/32 dev eth0"],
            "interface eth0 lacks the address 198.18.1.155/32",
        ),
        (
            &["addr del fd00:18:1::9b/128 dev eth0"],
            "interface eth0 lacks the address fd00:18:1::9b/128",
        ),
        (&["route del default"], "the route to 0.0.0.0/0 by 198.18.1.1 is missing"),
        (
            &["route replace default via 198.18.1.9 dev eth0 onlink"],
            "the route to 0.0.0.0/0 by 198.18.1.1 is missing",
        ),
        (
            &["neigh del 198.18.1.1 dev eth0"],
            "interface eth0 lacks the permanent neighbour entry of gateway 198.18.1.1",
        ),
        (
            &["link set eth0 address 02:00:00:00:00:99"],
            "interface eth0 has the MAC 02:00:00:00:00:99 instead of 02:00:00:00:01:9b",
        ),
        (&["link set eth0 down"], "interface eth0 is down"),
        (&["link del eth0"], "interface eth0 is missing"),
        (
            &["link del eth0", "tuntap add eth0 mode tap"],
            "interface eth0 is not the one that ADD made",
        ),
    ];
    for (commands, message) in table {
        let Some((run, result)) = added(lab, version) else { return };
        for command in commands {
            lab.pod.ip(command);
        }
        let answer = run.check(&result);
        assert_eq!(answer.code(), 105, "{commands:?}: {answer:?}");
        assert_eq!(answer.message(), format!("{message} | "));
        assert_eq!(run.del().code(), 0);
        if commands.len() == 2 {
            assert_eq!(lab.pod.links(), ["eth0"], "not ours, so not removed");
            lab.pod.ip("link del eth0");
        }
        lab.assert_clean(message);
    }
}

fn check_asks_the_daemon(lab: &Lab, version: &str) {
    let Some((run, result)) = added(lab, version) else { return };
    for (kind, code) in [
        (ErrorKind::Conflict, 101),
        (ErrorKind::NotReady, 11),
        (ErrorKind::Unknown, 3),
        (ErrorKind::Internal, 102),
    ] {
        lab.daemon.fail(Fault::Refuse("check", kind));
        assert_eq!(run.check(&result).code(), code, "{kind:?}");
    }
    lab.daemon.fail(Fault::Close("check"));
    assert_eq!(run.check(&result).code(), 11);
    assert_eq!(run.clone().conf("socket", NO_DAEMON).check(&result).code(), 11);
    lab.daemon.fail(Fault::None);
    lab.daemon.state().attached.iter_mut().for_each(|one| one.id.container_id = "other".into());
    assert_eq!(run.check(&result).code(), 3, "the daemon does not know it");
}

fn check_tolerates_what_later_plugins_do(lab: &Lab, version: &str) {
    let Some((run, mut result)) = added(lab, version) else { return };
    for command in [
        "addr add 198.19.0.9/16 dev eth0",
        "link set eth0 mtu 1400",
        "link set eth0 txqueuelen 100",
        "route add 198.51.100.0/24 via 198.18.1.1 dev eth0",
        "link add other0 type bridge",
        "link set other0 up",
        "addr add 203.0.113.9/24 dev other0",
        "neigh add 203.0.113.1 lladdr 02:00:00:00:00:77 dev other0",
        "route add 198.19.7.0/24 via 203.0.113.1 dev other0",
    ] {
        lab.pod.ip(command);
    }
    assert_eq!(run.check(&result).code(), 0, "they list nothing of it");
    // They list it, before ours and behind.
    let pod = lab.pod.path();
    let interfaces = result["interfaces"].as_array_mut().expect("a list");
    interfaces.insert(0, json!({"name": "other0", "sandbox": pod}));
    interfaces.push(json!({"name": "veth9", "mac": "02:00:00:00:00:09"}));
    let ips = result["ips"].as_array_mut().expect("a list");
    ips.iter_mut().for_each(|ip| ip["interface"] = 1.into());
    ips.push(json!({"version": "4", "address": "203.0.113.9/24", "interface": 0}));
    let routes = result["routes"].as_array_mut().expect("a list");
    routes.insert(0, json!({"dst": "198.19.7.0/24", "gw": "203.0.113.1"}));
    result["of.a.later.version"] = json!([1]);
    let checked = run.check(&result);
    assert!(checked.success, "{checked:?}");
}

fn check_passes_right_after_add(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let mappings = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
    let runs = [
        lab.run(version),
        lab.run(version).conf("mode", "bridged"),
        lab.run(version).conf("mtu", 1400),
        lab.run(version).conf("queues", 2),
        lab.run(version).conf("runtimeConfig", mappings),
        ipam.used_by(lab.run(version)),
        ipam.used_by(lab.run(version)).conf("mode", "bridged"),
    ];
    for run in runs {
        lab.comes_and_goes(&run, &run.conf.to_string());
    }
}

fn check_is_passed_on_to_the_ipam_plugin(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(lab.run(version));
    let result = run.add().json();
    if !run.knows("CHECK") {
        return assert_eq!(ipam.log(), ["ADD"], "of a refused command it is told nothing");
    }
    assert_eq!(run.check(&result).code(), 0);
    assert_eq!(ipam.log(), ["ADD", "CHECK"]);
    // After all that is ours.
    lab.pod.ip("route del default");
    assert_eq!(run.check(&result).code(), 105);
    assert_eq!(ipam.log(), ["ADD", "CHECK"]);
}

fn commands_are_refused_below_their_version(version: &str) {
    let daemon = Daemon::new();
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = Run::new(version, &daemon.socket()).container("c1", Path::new("/run/netns/gone"));
    let run = ipam.used_by(run).conf("cni.dev/valid-attachments", json!([]));
    let known: Vec<_> =
        ["CHECK", "STATUS", "GC"].into_iter().filter(|command| run.knows(command)).collect();
    let expected: &[&str] = match version {
        "0.3.1" => &[],
        "1.1.0" => &["CHECK", "STATUS", "GC"],
        _ => &["CHECK"],
    };
    assert_eq!(known, expected);
    assert_eq!(daemon.heard(), [""; 0]);
    assert_eq!(ipam.log(), [""; 0]);
}
