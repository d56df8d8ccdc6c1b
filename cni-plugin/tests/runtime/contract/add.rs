//! ADD: what it makes, how it answers, and that nothing is left where it fails.

use std::fs::File;
use std::io::Write;

use api::{ErrorKind, Mode, Request};
use serde_json::{Value, json};

use crate::lab::daemon::{Fault, GATEWAY_MAC};
use crate::lab::pod::Lab;
use crate::lab::versions::in_every_version;
use crate::lab::{FakeIpam, NetNs};

const MAC: &str = "02:00:00:00:77:01";
/// Those of "c1", as the daemon that is played counts.
const ADDRESSES: [&str; 2] = ["198.18.1.155/32", "fd00:18:1::9b/128"];

in_every_version! {
    the_interface_is_made_in_the_pods_namespace,
    a_name_that_the_kernel_does_not_give_is_an_error,
    an_interface_of_that_name_is_left_untouched,
    the_result_has_the_form_of_its_version,
    a_previous_result_is_kept_and_ours_is_added,
    all_that_is_made_is_in_the_result,
    each_address_has_the_index_of_its_interface,
    an_ipam_plugins_addresses_get_our_interface,
    success_is_exit_0_and_failure_is_not,
    an_add_whose_result_cannot_be_told_leaves_nothing,
    a_failed_add_leaves_nothing_wherever_it_fails,
    an_add_that_the_kernel_refuses_leaves_nothing,
    a_delegate_that_fails_is_told_to_forget,
}

fn the_interface_is_made_in_the_pods_namespace(lab: &Lab, version: &str) {
    // As hosts that are wary of IPv6 have it: the pod's interface is to have it all the same.
    let off = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
    assert!(lab.pod.command("sh").args(["-c", off]).status().expect("sh").success());
    let run = lab
        .run(version)
        .set("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;X=y")
        .conf("args", json!({"cni": {"mac": MAC}}));
    let added = run.add();
    assert!(added.success, "{added:?}");
    match &lab.daemon.state().requests[..] {
        [Request::Reserve(reserve), Request::Attach(attach)] => {
            let pod = reserve.pod.as_ref().expect("named");
            assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "web"));
            assert_eq!(attach.mac.to_string(), MAC);
        }
        other => panic!("{other:?}"),
    }
    in_the_pod(&lab.pod);
    assert_eq!(lab.node.links(), [""; 0], "nothing of it is in the node's namespace");
    if run.knows("CHECK") {
        assert_eq!(run.check(&added.json()).code(), 0);
    }
    // It exists: refused, and left as it was.
    assert_eq!(run.add().code(), 103);
    in_the_pod(&lab.pod);
    assert_eq!(run.conf("prevResult", added.json()).del().code(), 0);
    lab.assert_clean("DEL");
}

fn in_the_pod(pod: &NetNs) {
    let link = pod.ip("-d link show eth0");
    for part in ["mtu 1450", "qlen 8192", MAC, "tun type tap", "LOWER_UP", "vnet_hdr on"] {
        assert!(link.contains(part), "{part}: {link}");
    }
    assert!(link.contains("alias vswitch c1/eth0"), "{link}");
    let addresses = pod.ip("-o addr show eth0");
    assert!(ADDRESSES.iter().all(|address| addresses.contains(address)), "{addresses}");
    // The kernel settles the link-local address, which it alone chose, in its own time.
    let told = |line: &&str| line.contains("scope global");
    assert!(!addresses.lines().filter(told).any(|line| line.contains("tentative")), "{addresses}");
    assert!(pod.ip("-o addr show lo").contains("127.0.0.1"), "lo is up");
    let gateway_mac = GATEWAY_MAC.to_string();
    for gateway in ["198.18.1.1", "fd00:18:1::1"] {
        let neighbor = pod.ip(&format!("neigh show {gateway} dev eth0"));
        assert!(neighbor.contains(&gateway_mac) && neighbor.contains("PERMANENT"), "{neighbor}");
    }
    assert!(pod.ip("route show default").starts_with("default via 198.18.1.1 dev eth0"));
    assert!(pod.ip("-6 route show default").starts_with("default via fd00:18:1::1 dev eth0"));
    assert!(pod.ip("route get 198.18.9.9").contains("via 198.18.1.1"));
    assert!(pod.ip("-6 route get fd00:99::1").contains("via fd00:18:1::1"));
    let accept_ra = "/proc/sys/net/ipv6/conf/eth0/accept_ra";
    let output = pod.command("cat").arg(accept_ra).output().expect("readable");
    assert_eq!(output.stdout, b"0\n");
}

fn a_name_that_the_kernel_does_not_give_is_an_error(lab: &Lab, version: &str) {
    // "all" is a directory of sysctl's; of a pattern the kernel would make a name of its own.
    for name in ["all", "net%d"] {
        let run = lab.run(version).set("CNI_IFNAME", name);
        assert_eq!(run.add().code(), 100, "{name}");
        lab.assert_clean(name);
        assert_eq!(run.del().code(), 0, "{name}");
    }
}

fn an_interface_of_that_name_is_left_untouched(lab: &Lab, version: &str) {
    lab.pod.ip("link add eth0 type bridge");
    let before = lab.pod.ip("-d link show eth0");
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(lab.run(version));
    assert_eq!(run.add().code(), 103);
    assert_eq!(run.del().code(), 0);
    assert_eq!(lab.pod.ip("-d link show eth0"), before);
    assert_eq!(ipam.log(), ["DEL"]);
    assert_eq!(lab.daemon.heard(), ["detach"]);
}

fn the_result_has_the_form_of_its_version(lab: &Lab, version: &str) {
    let run = lab.run(version).conf("args", json!({"cni": {"mac": MAC}}));
    let mut expected = json!({
        "cniVersion": version,
        "interfaces": [{"name": "eth0", "mac": MAC, "sandbox": lab.pod.path()}],
        "ips": [
            {"address": ADDRESSES[0], "gateway": "198.18.1.1", "interface": 0},
            {"address": ADDRESSES[1], "gateway": "fd00:18:1::1", "interface": 0},
        ],
        "routes": [
            {"dst": "0.0.0.0/0", "gw": "198.18.1.1"}, {"dst": "::/0", "gw": "fd00:18:1::1"},
        ],
        "dns": {},
    });
    if version < "1.0.0" {
        expected["ips"][0]["version"] = "4".into();
        expected["ips"][1]["version"] = "6".into();
    }
    if version == "1.1.0" {
        expected["interfaces"][0]["mtu"] = 1450.into();
    }
    assert_eq!(run.add().json(), expected);
    // Errors have the version as well.
    assert_eq!(run.add().json()["cniVersion"], version);
}

fn a_previous_result_is_kept_and_ours_is_added(lab: &Lab, version: &str) {
    let mut previous = json!({
        "cniVersion": version,
        "interfaces": [{"name": "lo", "sandbox": lab.pod.path()}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "routes": [{"dst": "127.0.0.0/8"}],
        "of.a.later.version": {"kept": true},
    });
    if version < "1.0.0" {
        previous["ips"][0]["version"] = "4".into();
    }
    let wishes = json!({"ips": ["198.18.1.42/24"], "dns": {"nameservers": ["198.18.0.10"]}});
    let added = lab
        .run(version)
        .conf("prevResult", previous.clone())
        .conf("mtu", 1400)
        .conf("mode", "bridged")
        .conf("bridge", "blue")
        .conf("dns", json!({"nameservers": ["198.18.0.9"]}))
        .conf("runtimeConfig", wishes)
        .add();
    assert!(added.success, "{added:?}");
    let result = added.json();
    for key in ["interfaces", "ips", "routes"] {
        assert_eq!(result[key][0], previous[key][0], "{key}");
    }
    assert_eq!(result["of.a.later.version"], previous["of.a.later.version"]);
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    let mtu = if version == "1.1.0" { json!(1400) } else { Value::Null };
    assert_eq!(result["interfaces"][1]["mtu"], mtu);
    assert_eq!(result["ips"][1]["interface"], 1);
    assert_eq!(result["dns"], json!({"nameservers": ["198.18.0.10"]}));
    assert!(lab.pod.ip("link show eth0").contains("mtu 1400"));
    let reserve = lab.reservation();
    assert_eq!(reserve.requested, ["198.18.1.42".parse::<std::net::IpAddr>().expect("ok")]);
    assert_eq!(reserve.mode, Some(Mode::Bridged { bridge: Some("blue".into()) }));
}

fn all_that_is_made_is_in_the_result(lab: &Lab, version: &str) {
    let result = lab.run(version).add().json();
    // The node's end of the interface is a descriptor of the daemon's, so no link of the node's is listed.
    assert_eq!((lab.node.links(), lab.pod.links()), (vec![], vec!["eth0".to_owned()]));
    let [interface] = &result["interfaces"].as_array().expect("a list")[..] else {
        panic!("{result}")
    };
    assert_eq!(interface["name"], "eth0");
    assert_eq!(interface["sandbox"], lab.pod.path().display().to_string());
    let mac = interface["mac"].as_str().expect("a MAC");
    assert!(lab.pod.ip("link show eth0").contains(mac), "{mac}");
}

fn each_address_has_the_index_of_its_interface(lab: &Lab, version: &str) {
    let ipam = FakeIpam::giving(&json!({
        "cniVersion": version, "ips": [
            {"version": "4", "address": "198.18.1.77/24", "gateway": "198.18.1.1"},
            {"version": "4", "address": "198.18.77.5/24", "gateway": "198.18.77.1"},
            {"version": "6", "address": "fd00:18:1::77/64", "gateway": "fd00:18:1::1"},
        ],
    }));
    let others = json!([{"name": "veth7"}, {"name": "net7", "sandbox": lab.pod.path()}]);
    for (previous, index) in [(json!({}), 0), (json!({ "interfaces": others }), 2)] {
        let run = ipam.used_by(lab.run(version)).conf("prevResult", previous);
        let result = run.add().json();
        assert_eq!(result["interfaces"][index]["name"], "eth0");
        let ips = result["ips"].as_array().expect("a list");
        let indices: Vec<_> = ips.iter().map(|ip| &ip["interface"]).collect();
        assert_eq!(indices, [&json!(index); 3]);
        assert_eq!(run.del().code(), 0);
    }
}

fn an_ipam_plugins_addresses_get_our_interface(lab: &Lab, version: &str) {
    // It lists no interface, and one that does so all the same is not believed.
    for more in [json!({}), json!({"interface": 3})] {
        let mut ip = json!({"address": "198.18.1.77/24", "gateway": "198.18.1.1"});
        ip.as_object_mut().expect("one").extend(more.as_object().expect("one").clone());
        let ipam = FakeIpam::giving(&json!({
            "cniVersion": version, "ips": [ip], "interfaces": [{"name": "veth9"}],
        }));
        let run = ipam.used_by(lab.run(version));
        let result = lab.comes_and_goes(&run, "delegated");
        assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(1), "{result}");
        assert_eq!(result["interfaces"][0]["name"], "eth0");
        assert_eq!(result["ips"][0]["interface"], 0);
    }
}

fn success_is_exit_0_and_failure_is_not(lab: &Lab, version: &str) {
    let run = lab.run(version);
    assert!(run.run("VERSION").success && run.run("DEL").success);
    // An IPAM plugin, the configuration or the daemon: each error is JSON on stdout.
    let fails = FakeIpam::new("cat >/dev/null; exit 1");
    assert_eq!(fails.used_by(run.clone()).add().code(), 104);
    assert_eq!(run.run_with("ADD", b"{").code(), 6);
    lab.daemon.fail(Fault::Refuse("reserve", ErrorKind::Conflict));
    assert_eq!(run.add().code(), 101);
    lab.daemon.fail(Fault::Refuse("detach", ErrorKind::Internal));
    assert_eq!(run.del().code(), 102);
    let added = run.add();
    assert!(added.success && added.json()["code"].is_null(), "{added:?}");
}

fn an_add_whose_result_cannot_be_told_leaves_nothing(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(lab.run(version));
    let full = File::create("/dev/full").expect("a full device");
    let mut child = run.process("ADD").stdout(full).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(run.conf.to_string().as_bytes()).expect("the plugin reads");
    drop(stdin);
    assert!(!child.wait().expect("ends").success());
    assert_eq!(lab.daemon.heard(), ["reserve", "attach", "detach"]);
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
    lab.assert_clean("a full stdout");
}

fn a_failed_add_leaves_nothing_wherever_it_fails(lab: &Lab, version: &str) {
    let refuse = Fault::Refuse;
    let table = [
        (refuse("reserve", ErrorKind::Exhausted), 11, vec!["reserve"]),
        (refuse("reserve", ErrorKind::Invalid), 7, vec!["reserve"]),
        (refuse("reserve", ErrorKind::Conflict), 101, vec!["reserve"]),
        (Fault::Close("reserve"), 11, vec!["reserve", "detach"]),
        (refuse("attach", ErrorKind::NotReady), 11, vec!["reserve", "attach", "detach"]),
        (refuse("attach", ErrorKind::Internal), 102, vec!["reserve", "attach", "detach"]),
        (Fault::Close("attach"), 11, vec!["reserve", "attach", "detach"]),
        (Fault::Hang("attach"), 11, vec!["reserve", "attach", "detach"]),
    ];
    for (fault, code, heard) in table {
        let ipam = FakeIpam::new(FakeIpam::RESULT);
        lab.daemon.fail(fault);
        let run = ipam.used_by(lab.run(version));
        assert_eq!(run.add().code(), code, "{fault:?}");
        assert_eq!(lab.daemon.heard(), heard, "{fault:?}");
        assert_eq!(ipam.log(), ["ADD", "DEL"], "{fault:?}");
        lab.assert_clean(&format!("{fault:?}"));
        // The runtime's DEL after a failed ADD.
        assert_eq!(run.del().code(), 0, "{fault:?}");
        lab.daemon.heard();
    }
}

fn an_add_that_the_kernel_refuses_leaves_nothing(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(
        &FakeIpam::RESULT.replace("0.0.0.0/0\"", "198.19.0.0/16\", \"gw\": \"127.0.0.1\""),
    );
    let answer = ipam.used_by(lab.run(version)).add();
    assert_eq!(answer.code(), 100, "{answer:?}");
    assert!(answer.message().starts_with("cannot add the route to 198.19.0.0/16 to eth0"));
    assert_eq!(lab.daemon.heard(), ["reserve", "detach"]);
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
    lab.assert_clean("a route that cannot be");
}

fn a_delegate_that_fails_is_told_to_forget(lab: &Lab, version: &str) {
    let ipam = FakeIpam::new(FakeIpam::FAILS_ADD);
    let answer = ipam.used_by(lab.run(version)).add();
    assert_eq!(answer.code(), 42);
    assert_eq!(answer.message(), "IPAM plugin fake-ipam: range is full | not found");
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
    assert_eq!(lab.daemon.heard(), [""; 0]);
    lab.assert_clean("delegate");
}
