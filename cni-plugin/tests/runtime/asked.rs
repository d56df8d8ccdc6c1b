//! What configurations, runtimes and IPAM plugins ask for, and what comes of it: as root.

use std::process::Command;

use api::{Adjustment, AttachmentId};
use serde_json::{Value, json};

use crate::lab::pod::Lab;
use crate::lab::{FakeIpam, Run};

/// An IPAM plugin that gives this.
fn giving(result: &Value) -> FakeIpam {
    FakeIpam::new(&format!(
        "cat >/dev/null\n[ \"$CNI_COMMAND\" != ADD ] || cat <<'END'\n{result}\nEND"
    ))
}

/// ADD, CHECK and DEL succeed; answers with ADD's result.
fn comes_and_goes(lab: &Lab, run: &Run, what: &str) -> Value {
    let added = run.add();
    assert!(added.success, "{what}: {added:?}");
    let result = added.json();
    let checked = run.check(&result);
    assert!(checked.success, "{what}: {checked:?}");
    let deleted = run.del();
    assert!(deleted.success, "{what}: {deleted:?}");
    lab.assert_clean(what);
    result
}

#[test]
fn a_route_that_ipam_lists_twice_is_added_once() {
    let Some(lab) = Lab::new("a_route_that_ipam_lists_twice_is_added_once") else { return };
    let ipam = giving(&json!({
        "cniVersion": "1.0.0", "ips": [{"address": "198.18.1.77/24", "gateway": "198.18.1.1"}],
        "routes": [
            {"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0"}, {"dst": "0.0.0.0/0", "gw": "198.18.1.1"},
            {"dst": "198.18.1.1/32"},
        ],
    }));
    for mode in ["routed", "bridged"] {
        let run = ipam.used_by(lab.run("1.0.0")).conf("mode", mode);
        let added = run.add();
        assert!(added.success, "{mode}: {added:?}");
        assert_eq!(lab.pod.ip("route show default").lines().count(), 1, "{mode}");
        assert_eq!(added.json()["routes"].as_array().map(Vec::len), Some(2), "{mode}");
        assert!(run.check(&added.json()).success, "{mode}");
        assert_eq!(run.del().code(), 0);
    }
}

#[test]
fn an_address_of_a_second_subnet_has_its_own_gateway() {
    let Some(lab) = Lab::new("an_address_of_a_second_subnet_has_its_own_gateway") else { return };
    let ipam = giving(&json!({
        "cniVersion": "1.0.0", "ips": [
            {"address": "198.18.1.77/24", "gateway": "198.18.1.1"},
            {"address": "198.18.77.5/24", "gateway": "198.18.77.1"},
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "198.19.0.0/16", "gw": "198.18.77.1"}],
    }));
    for mode in ["routed", "bridged"] {
        let run = ipam.used_by(lab.run("1.0.0")).conf("mode", mode);
        let added = run.add();
        assert!(added.success, "{mode}: {added:?}");
        let ips = added.json()["ips"].clone();
        assert_eq!([&ips[0]["gateway"], &ips[1]["gateway"]], ["198.18.1.1", "198.18.77.1"]);
        let way = lab.pod.ip("route get 198.19.0.9");
        assert!(way.contains("via 198.18.77.1 dev eth0"), "{mode}: {way}");
        let way = lab.pod.ip("route get 198.18.77.1");
        assert!(way.starts_with("198.18.77.1 dev eth0"), "{mode}: {way}");
        assert!(lab.pod.ip("neigh show 198.18.77.1").contains("PERMANENT"), "{mode}");
        assert!(run.check(&added.json()).success, "{mode}");
        lab.pod.ip("neigh del 198.18.77.1 dev eth0");
        assert_eq!(
            run.check(&added.json()).message(),
            "interface eth0 lacks the permanent neighbour entry of gateway 198.18.77.1 | "
        );
        assert_eq!(run.del().code(), 0);
    }
}

#[test]
fn a_container_id_may_be_as_long_as_the_daemon_takes_it() {
    let Some(lab) = Lab::new("a_container_id_may_be_as_long_as_the_daemon_takes_it") else {
        return;
    };
    for len in [200, 241, 242, 255, 256] {
        let id = |last: char| format!("{}{last}", "c".repeat(len - 1));
        let run = lab.run("1.0.0").container(&id('a'), &lab.pod.path());
        comes_and_goes(&lab, &run, &format!("{len} characters"));

        // Another with the same beginning does not take its interface.
        assert!(run.add().success, "{len}");
        let other = lab.run("1.0.0").container(&id('b'), &lab.pod.path());
        assert_eq!(other.del().code(), 0);
        assert_eq!(lab.pod.links(), ["eth0"], "{len}");
        // `--adjust` knows it.
        let attachment = AttachmentId { container_id: id('a'), ifname: "eth0".into() };
        let netns = lab.pod.path().display().to_string();
        let adjustment = |attachment| Adjustment { attachment, netns: netns.clone(), mtu: 1400 };
        let stranger = AttachmentId { container_id: id('b'), ifname: "eth0".into() };
        lab.daemon.state().adjustments = vec![adjustment(attachment), adjustment(stranger)];
        let mut adjust: Command = lab.node.command(env!("CARGO_BIN_EXE_vswitch-cni"));
        let output = adjust.arg("--adjust").arg(lab.daemon.socket()).output().expect("nsenter");
        let log = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(log.contains("a: MTU 1400") && log.contains("b: not in"), "{log}");
        assert!(lab.pod.ip("link show eth0").contains("mtu 1400"));
        lab.daemon.state().adjustments.clear();
        assert_eq!(run.del().code(), 0);
        lab.assert_clean("DEL");
    }
}
