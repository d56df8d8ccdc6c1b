//! What configurations, runtimes and IPAM plugins ask for, and what comes of it: as root.

use std::process::Command;

use api::{Adjustment, AttachmentId};
use serde_json::{Value, json};

use crate::lab::daemon::Fault;
use crate::lab::pod::Lab;
use crate::lab::{self, FakeIpam};

#[test]
fn a_route_that_ipam_lists_twice_is_added_once() {
    let Some(lab) = Lab::new("a_route_that_ipam_lists_twice_is_added_once") else { return };
    let ipam = FakeIpam::giving(&json!({
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
    let ipam = FakeIpam::giving(&json!({
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
fn zeros_are_for_what_is_not_asked_for() {
    let Some(lab) = Lab::new("zeros_are_for_what_is_not_asked_for") else { return };
    let mtu = lab.run("1.1.0").conf("mtu", 0);
    assert_eq!(lab.comes_and_goes(&mtu, "mtu")["interfaces"][0]["mtu"], 1450);
    let zeros = json!({
        "bandwidth": {"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
        "portMappings": [{"hostPort": 0, "containerPort": 80, "protocol": "tcp"}],
        "ips": [""], "mac": "00:00:00:00:00:00", "ipRanges": [[]], "dns": {"servers": null},
        "deviceID": "", "infinibandGUID": "00:00:00:00:00:00:00:00",
    });
    let result = lab.comes_and_goes(&lab.run("1.0.0").conf("runtimeConfig", zeros), "zeros");
    assert_eq!(result["dns"], json!({}));
    let reserve = lab.reservation();
    assert!(reserve.bandwidth.is_unlimited() && reserve.port_mappings.is_empty());
    assert!(reserve.mac.is_none() && reserve.requested.is_empty() && reserve.ranges.is_empty());
}

#[test]
fn a_container_id_may_be_as_long_as_the_daemon_takes_it() {
    let Some(lab) = Lab::new("a_container_id_may_be_as_long_as_the_daemon_takes_it") else {
        return;
    };
    for len in [200, 241, 242, 255, 256] {
        let id = |last: char| format!("{}{last}", "c".repeat(len - 1));
        let run = lab.run("1.0.0").container(&id('a'), &lab.pod.path());
        lab.comes_and_goes(&run, &format!("{len} characters"));

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

#[test]
fn ip_ranges_are_the_daemons_to_choose_from_or_refused() {
    let Some(lab) = Lab::new("ip_ranges_are_the_daemons_to_choose_from") else { return };
    let sets = |gateway: &str| {
        json!({"ipRanges": [
            [{"subnet": "198.18.1.0/24", "rangeStart": "198.18.1.40", "rangeEnd": "198.18.1.49", "gateway": gateway}],
            [{"subnet": "fd00:18:1::40/124"}],
        ]})
    };
    let run = lab.run("1.0.0").conf("runtimeConfig", sets("198.18.1.1"));
    let result = lab.comes_and_goes(&run, "ranges");
    assert_eq!(result["ips"][0]["address"], "198.18.1.40/32");
    let shown: Vec<_> = lab.reservation().ranges.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["198.18.1.40 to 198.18.1.49", "fd00:18:1::40 to fd00:18:1::4f"]);

    let refused = lab.run("1.0.0").conf("runtimeConfig", sets("198.18.1.254")).add();
    assert_eq!(refused.code(), 7);
    assert!(refused.message().contains("has the gateway 198.18.1.254;"), "{refused:?}");
    lab.assert_clean("a gateway that is none");
    lab.daemon.fail(Fault::KnowsNoRanges);
    let refused = run.add();
    assert_eq!(refused.code(), 7);
    assert!(refused.message().contains("is an older one, which knows no `ipRanges`"));
    lab.assert_clean("an older daemon");
}

#[test]
fn ip_ranges_and_ips_reach_a_delegated_plugin() {
    let test = "ip_ranges_and_ips_reach_a_delegated_plugin";
    let Some(lab) = Lab::new(test) else { return };
    if !lab::has_reference(test, &["host-local", "static"]) {
        return;
    }
    let leases = tempfile::tempdir().expect("a directory");
    let ranges = json!([[{"subnet": "198.18.1.0/24", "rangeStart": "198.18.1.40"}]]);
    for (runtime, address) in [
        (json!({"ipRanges": ranges}), "198.18.1.40/32"),
        (json!({"ipRanges": ranges, "ips": ["198.18.1.44/24"]}), "198.18.1.44/32"),
    ] {
        let ipam = json!({"type": "host-local", "dataDir": leases.path()});
        let run = lab.run("1.0.0").conf("ipam", ipam).conf("runtimeConfig", runtime.clone());
        let result = lab.comes_and_goes(&run, "host-local");
        assert_eq!(result["ips"][0]["address"], address, "{runtime}");
        assert!(lab.reservation().ranges.is_empty(), "they are the plugin's");
    }
    let addresses = json!([{"address": "198.18.1.50/24", "gateway": "198.18.1.1"}]);
    let run = lab.run("1.0.0").conf("ipam", json!({"type": "static", "addresses": addresses}));
    assert_eq!(lab.comes_and_goes(&run, "static")["ips"][0]["address"], "198.18.1.50/32");
}

#[test]
fn an_ipam_plugin_that_needs_the_interface_is_refused_before_anything_is_made() {
    let Some(lab) = Lab::new("an_ipam_plugin_that_needs_the_interface_is_refused") else { return };
    for mode in ["routed", "bridged"] {
        let run = lab.run("1.1.0").conf("mode", mode).conf("ipam", json!({"type": "dhcp"}));
        let refused = run.add();
        assert_eq!(refused.code(), 7, "{refused:?}");
        assert!(refused.message().starts_with("`ipam.type` is \"dhcp\", which"), "{refused:?}");
        assert_eq!(lab.daemon.heard(), [""; 0]);
        assert_eq!(run.run("STATUS").code(), 7, "no ADD can succeed");
        assert_eq!(run.del().code(), 0, "it is no reason to keep a pod");
        lab.assert_clean("dhcp");
        lab.daemon.heard();
    }
}

#[test]
fn check_says_what_to_do_where_tuning_changed_the_mac() {
    let test = "check_says_what_to_do_where_tuning_changed_the_mac";
    let Some(lab) = Lab::new(test) else { return };
    if !lab::has_reference(test, &["tuning"]) {
        return;
    }
    let mac = "02:00:00:00:00:07";
    let data = tempfile::tempdir().expect("a directory");
    let tuned = |conf: Value| {
        let mut conf = conf;
        conf["dataDir"] = data.path().display().to_string().into();
        lab.run("1.0.0").of_reference("tuning", conf)
    };
    let ours = lab.run("1.0.0");
    let added = ours.add().json();
    let chained = tuned(json!({"mac": mac, "prevResult": added})).add();
    assert!(chained.success, "{chained:?}");
    assert_eq!(chained.json()["interfaces"][0]["mac"], mac);
    // The gateway's neighbour went with the former MAC, which is not what there is to say.
    let checked = ours.check(&chained.json());
    assert_eq!(checked.code(), 101, "{checked:?}");
    assert!(checked.message().contains("it was attached with another MAC"), "{checked:?}");
    assert_eq!(ours.del().code(), 0);
    lab.assert_clean("DEL");

    // What it says to do.
    let ours = lab.run("1.0.0").conf("runtimeConfig", json!({"mac": mac}));
    let added = ours.add().json();
    assert!(ours.check(&added).success);
    // And tuning may change what is no business of the switch.
    let chained = tuned(json!({"mtu": 1400, "prevResult": added})).add();
    assert!(chained.success, "{chained:?}");
    assert!(ours.check(&chained.json()).success);
    assert_eq!(ours.del().code(), 0);
}
