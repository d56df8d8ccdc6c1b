//! ADD, CHECK and DEL in namespaces of their own, against a daemon that is played: as root.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::daemon::{Fault, GATEWAY_MAC};
use crate::lab::pod::Lab;
use crate::lab::{self, FakeIpam, NetNs, Run, VERSIONS};
use api::{ErrorKind, PortMapping, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

#[test]
fn routed_pods_come_and_go_in_every_version() {
    let Some(lab) = Lab::new("routed_pods_come_and_go_in_every_version") else { return };
    // As hosts that are wary of IPv6 have it: the pod's interface is to have it all the same.
    let off = "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
    assert!(lab.pod.command("sh").args(["-c", off]).status().expect("sh").success());
    for version in VERSIONS {
        let run = lab
            .run(version)
            .set("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;X=y")
            .conf("args", json!({"cni": {"mac": "02:00:00:00:77:01"}}));
        let answer = run.add();
        assert!(answer.success, "{answer:?}");
        let result = answer.json();

        let host = 0x9b; // of "c1", as the daemon that is played counts
        let (v4, v6) = (format!("198.18.1.{host}/32"), format!("fd00:18:1::{host:x}/128"));
        let mut expected = json!({
            "cniVersion": version,
            "interfaces": [
                {"name": "eth0", "mac": "02:00:00:00:77:01", "sandbox": lab.pod.path()},
            ],
            "ips": [
                {"address": v4, "gateway": "198.18.1.1", "interface": 0},
                {"address": v6, "gateway": "fd00:18:1::1", "interface": 0},
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
        assert_eq!(result, expected, "{version}");

        match &lab.daemon.state().requests[..] {
            [Request::Reserve(reserve), Request::Attach(attach)] => {
                let pod = reserve.pod.as_ref().expect("named");
                assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "web"));
                assert_eq!(attach.mac.to_string(), "02:00:00:00:77:01");
            }
            other => panic!("{other:?}"),
        }
        in_the_pod(&lab.pod, &v4, &v6);
        assert_eq!(lab.node.links(), [""; 0], "the TAP left the node's namespace");

        if version > "0.3.1" {
            assert_eq!(run.check(&result).code(), 0, "{version}");
        }
        // It exists: refused, and left as it was.
        assert_eq!(run.add().code(), 103);
        in_the_pod(&lab.pod, &v4, &v6);

        assert_eq!(run.conf("prevResult", result).del().code(), 0);
        lab.assert_clean("DEL");
        assert_eq!(run_again(&lab, version), 0);
        lab.daemon.heard();
    }
}

#[test]
fn host_ports_are_the_daemons_which_add_and_check_tell_of_them() {
    let Some(lab) = Lab::new("host_ports_are_the_daemons") else { return };
    let mappings = json!({"portMappings": [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "198.51.100.11"},
    ]});
    let run = || lab.run("1.0.0").conf("runtimeConfig", mappings.clone());
    let added = run().add();
    assert!(added.success, "{added:?}");
    assert_eq!(run().check(&added.json()).code(), 0);
    let shown =
        |mappings: &[PortMapping]| mappings.iter().map(ToString::to_string).collect::<Vec<_>>();
    let wanted = ["tcp 8080 -> 80", "udp 198.51.100.11:53 -> 5353"];
    match &lab.daemon.state().requests[..] {
        [Request::Reserve(reserve), Request::Attach(_), Request::Check(check)] => {
            assert_eq!(shown(&reserve.port_mappings), wanted);
            assert_eq!(shown(&check.port_mappings), wanted);
        }
        other => panic!("{other:?}"),
    }
    // DEL does with what is left of a configuration.
    assert_eq!(lab.run("1.0.0").conf("runtimeConfig", "no object").del().code(), 0);
    lab.assert_clean("DEL");

    lab.daemon.fail(Fault::KnowsNoPortMappings);
    let refused = run().add();
    assert_eq!(refused.code(), 7);
    assert!(refused.json()["msg"].as_str().expect("a message").contains("is an older one"));
    lab.assert_clean("a refused ADD");
    assert!(lab.run("1.0.0").add().success, "a pod without hostPorts is well");
}

fn run_again(lab: &Lab, version: &str) -> u64 {
    lab.run(version).del().code()
}

fn in_the_pod(pod: &NetNs, v4: &str, v6: &str) {
    let link = pod.ip("-d link show eth0");
    for part in
        ["mtu 1450", "qlen 8192", "02:00:00:00:77:01", "tun type tap", "LOWER_UP", "vnet_hdr on"]
    {
        assert!(link.contains(part), "{part}: {link}");
    }
    assert!(link.contains("alias vswitch c1/eth0"), "{link}");
    let addresses = pod.ip("-o addr show eth0");
    assert!(addresses.contains(v4) && addresses.contains(v6), "{addresses}");
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
    let output = pod
        .command("cat")
        .arg("/proc/sys/net/ipv6/conf/eth0/accept_ra")
        .output()
        .expect("readable");
    assert_eq!(output.stdout, b"0\n");
}

#[test]
fn a_pod_that_sends_at_a_rate_keeps_the_kernels_queue() {
    let Some(lab) = Lab::new("a_pod_that_sends_at_a_rate_keeps_the_kernels_queue") else { return };
    for (limit, queue) in [("egressRate", "qlen 1000"), ("ingressRate", "qlen 8192")] {
        let run = lab.run("1.0.0").conf("runtimeConfig", json!({"bandwidth": {limit: 5_000_000}}));
        assert!(run.add().success, "{limit}");
        let link = lab.pod.ip("link show eth0");
        assert!(link.contains(queue), "{limit}: {link}");
        assert_eq!(run.del().code(), 0);
        lab.daemon.heard();
    }
}

#[test]
fn a_failed_add_leaves_nothing_wherever_it_fails() {
    let Some(lab) = Lab::new("a_failed_add_leaves_nothing_wherever_it_fails") else { return };
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
        let run = ipam.used_by(lab.run("1.0.0"));
        assert_eq!(run.add().code(), code, "{fault:?}");
        assert_eq!(lab.daemon.heard(), heard, "{fault:?}");
        assert_eq!(ipam.log(), ["ADD", "DEL"], "{fault:?}");
        lab.assert_clean(&format!("{fault:?}"));
        // The runtime's DEL after a failed ADD.
        assert_eq!(run.del().code(), 0, "{fault:?}");
        lab.daemon.heard();
    }
}

#[test]
fn a_delegate_that_fails_is_told_to_forget_and_its_error_is_ours() {
    let Some(lab) = Lab::new("a_delegate_that_fails_is_told_to_forget") else { return };
    let ipam = FakeIpam::new(FakeIpam::FAILS_ADD);
    let answer = ipam.used_by(lab.run("1.0.0")).add();
    assert_eq!(answer.code(), 42);
    assert_eq!(answer.message(), "IPAM plugin fake-ipam: range is full | not found");
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
    assert_eq!(lab.daemon.heard(), [""; 0]);
    lab.assert_clean("delegate");
}

#[test]
fn an_add_that_the_kernel_refuses_leaves_nothing() {
    let Some(lab) = Lab::new("an_add_that_the_kernel_refuses_leaves_nothing") else { return };
    let ipam = FakeIpam::new(
        &FakeIpam::RESULT.replace("0.0.0.0/0\"", "198.19.0.0/16\", \"gw\": \"127.0.0.1\""),
    );
    let answer = ipam.used_by(lab.run("1.0.0")).add();
    assert_eq!(answer.code(), 100, "{answer:?}");
    assert!(answer.message().starts_with("cannot add the route to 198.19.0.0/16 to eth0"));
    assert_eq!(lab.daemon.heard(), ["reserve", "detach"]);
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
    lab.assert_clean("a route that cannot be");
}

#[test]
fn an_add_whose_result_cannot_be_told_leaves_nothing() {
    let Some(lab) = Lab::new("an_add_whose_result_cannot_be_told") else { return };
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(lab.run("1.0.0"));
    let full = std::fs::File::create("/dev/full").expect("a full device");
    let mut child = run.process("ADD").stdout(full).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(run.conf.to_string().as_bytes()).expect("the plugin reads");
    drop(stdin);
    assert!(!child.wait().expect("ends").success());
    assert_eq!(lab.daemon.heard(), ["reserve", "attach", "detach"]);
    assert_eq!(ipam.log(), ["ADD", "DEL"]);
    lab.assert_clean("a full stdout");
}

#[test]
fn the_tutorials_host_local_serves_bridged_pods() {
    let test = "the_tutorials_host_local_serves_bridged_pods";
    let Some(lab) = Lab::new(test) else { return };
    if !Path::new("/usr/lib/cni/host-local").is_file() {
        return lab::skipped(test, "containernetworking-plugins is not installed");
    }
    let data = tempfile::tempdir().expect("a directory");
    for (version, mode, len) in
        [("0.3.1", "bridged", 24), ("0.4.0", "routed", 32), ("1.0.0", "bridged", 24)]
    {
        let run = lab.run(version).conf("mode", mode).conf(
            "ipam",
            json!({"type": "host-local", "subnet": "198.18.1.0/24", "dataDir": data.path()}),
        );
        let leases = || {
            let entries = std::fs::read_dir(data.path().join("pods")).expect("host-local's state");
            let name = |entry: std::io::Result<std::fs::DirEntry>| {
                entry.expect("readable").file_name().into_string().expect("UTF-8")
            };
            entries.map(name).filter(|name| name.starts_with("198.")).collect::<Vec<_>>()
        };
        let answer = run.add();
        assert!(answer.success, "{version}: {answer:?}");
        let result = answer.json();
        let address = result["ips"][0]["address"].as_str().expect("an address").to_owned();
        assert!(address.starts_with("198.18.1.") && address.ends_with(&format!("/{len}")));
        assert_eq!(result["ips"][0]["gateway"], "198.18.1.1");
        assert_eq!(leases(), [address.split('/').next().expect("an address")]);
        assert!(lab.pod.ip("-o -4 addr show eth0").contains(&address));
        assert!(lab.pod.ip("route show default").starts_with("default via 198.18.1.1 dev eth0"));
        if version > "0.3.1" {
            assert_eq!(run.check(&result).code(), 0);
        }
        assert_eq!(run.del().code(), 0);
        assert_eq!(leases(), [""; 0]);
        lab.assert_clean(version);
    }
}

#[test]
fn check_notices_what_was_altered_in_the_pod_and_in_the_daemon() {
    let Some(lab) = Lab::new("check_notices_what_was_altered") else { return };
    let table: [(&[&str], &str); 6] = [
        (
            &["addr del 198.18.1.155/32 dev eth0"],
            "interface eth0 lacks the address 198.18.1.155/32",
        ),
        (&["route del default"], "the route to 0.0.0.0/0 by 198.18.1.1 is missing"),
        (
            &["neigh del 198.18.1.1 dev eth0"],
            "interface eth0 lacks the permanent neighbour entry of gateway 198.18.1.1",
        ),
        (
            &["link set eth0 address 02:00:00:00:00:99"],
            "interface eth0 has the MAC 02:00:00:00:00:99 instead of 02:00:00:00:01:9b",
        ),
        (&["link del eth0"], "interface eth0 is missing"),
        (
            &["link del eth0", "tuntap add eth0 mode tap"],
            "interface eth0 is not the one that ADD made",
        ),
    ];
    for (commands, message) in table {
        let run = lab.run("0.4.0");
        let result = run.add().json();
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
    let run = lab.run("1.1.0");
    let result = run.add().json();
    lab.daemon.state().attached.iter_mut().for_each(|one| one.id.container_id = "other".into());
    assert_eq!(run.check(&result).code(), 3, "the daemon does not know it");
    assert_eq!(lab.run("1.1.0").run("CHECK").code(), 7, "no prevResult");
}

#[test]
fn del_frees_the_daemons_side_whatever_became_of_the_namespace() {
    let Some(lab) = Lab::new("del_frees_the_daemons_side") else { return };
    let file = tempfile::NamedTempFile::new().expect("a file");
    for netns in [Path::new(""), Path::new("/run/netns/gone"), file.path()] {
        assert!(lab.run("0.4.0").add().success);
        let run = lab.run("0.4.0").container("c1", netns);
        assert_eq!(run.del().code(), 0, "{netns:?}");
        lab.assert_clean(&format!("{netns:?}"));
    }
}

#[test]
fn a_stale_del_does_not_touch_the_next_container() {
    let Some(lab) = Lab::new("a_stale_del_does_not_touch_the_next_container") else { return };
    let new = lab.run("1.0.0").container("c2", &lab.pod.path());
    assert!(new.add().success);
    assert_eq!(lab.run("1.0.0").container("c1", &lab.pod.path()).del().code(), 0);
    assert_eq!(lab.pod.links(), ["eth0"]);
    assert!(!lab.daemon.is_empty());
    assert_eq!(new.del().code(), 0);
    lab.assert_clean("its own DEL");
}

#[test]
fn an_interface_of_that_name_is_left_untouched() {
    let Some(lab) = Lab::new("an_interface_of_that_name_is_left_untouched") else { return };
    lab.pod.ip("link add eth0 type bridge");
    let before = lab.pod.ip("-d link show eth0");
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    for version in VERSIONS {
        let run = ipam.used_by(lab.run(version));
        assert_eq!(run.add().code(), 103);
        assert_eq!(run.del().code(), 0);
    }
    assert_eq!(lab.pod.ip("-d link show eth0"), before);
    assert_eq!(ipam.log(), ["DEL"; 4]);
    assert_eq!(lab.daemon.heard(), ["detach"; 4]);
}

#[test]
fn the_plugins_own_namespace_is_refused() {
    let Some(lab) = Lab::new("the_plugins_own_namespace_is_refused") else { return };
    for version in VERSIONS {
        let run = lab.run(version).container("c1", &lab.node.path());
        assert_eq!(run.add().code(), 8);
        assert_eq!(lab.daemon.heard(), [""; 0]);
    }
}

#[test]
fn a_pod_that_dies_shows_at_its_process_and_goes_when_the_port_is_closed() {
    let Some(mut lab) = Lab::new("a_pod_that_dies_shows_at_its_process") else { return };
    assert!(lab.run("1.0.0").add().success);
    // It goes with the pod's namespace, and with nothing else.
    let node = lab.node.process();
    lab.pod.ip(&format!("link add mark type veth peer name mark netns {node}"));

    lab.pod = NetNs::new(); // the former one ends here
    let attached = lab.daemon.state().attached.remove(0);
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut watched = [PollFd::new(&attached.process, PollFlags::IN)];
    assert_eq!(poll(&mut watched, Some(&patience)), Ok(1), "its end is told");
    assert_eq!(lab.node.links().len(), 1, "the descriptor keeps the namespace");
    drop(attached);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !lab.node.links().is_empty() {
        assert!(Instant::now() < deadline, "without it the namespace ends");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_previous_result_is_kept_and_wishes_reach_the_daemon() {
    let Some(lab) = Lab::new("a_previous_result_is_kept") else { return };
    let previous = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo", "sandbox": lab.pod.path()}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
    });
    let answer = lab
        .run("1.1.0")
        .conf("prevResult", previous.clone())
        .conf("mtu", 1400)
        .conf("mode", "bridged")
        .conf("bridge", "blue")
        .conf("dns", json!({"nameservers": ["198.18.0.9"]}))
        .conf(
            "runtimeConfig",
            json!({"ips": ["198.18.1.42/24"], "dns": {"nameservers": ["198.18.0.10"]}}),
        )
        .add();
    let result = answer.json();
    assert!(answer.success, "{result}");
    assert_eq!(result["interfaces"][0], previous["interfaces"][0]);
    assert_eq!(result["interfaces"][1]["mtu"], 1400);
    assert_eq!(result["ips"][1]["interface"], 1);
    assert_eq!(result["dns"], json!({"nameservers": ["198.18.0.10"]}));
    assert!(lab.pod.ip("link show eth0").contains("mtu 1400"));
    let Request::Reserve(reserve) = &lab.daemon.state().requests[0] else {
        panic!("Reserve first")
    };
    assert_eq!(reserve.requested, ["198.18.1.42".parse::<std::net::IpAddr>().expect("ok")]);
    assert_eq!(reserve.mode, Some(api::Mode::Bridged { bridge: Some("blue".into()) }));
}

#[test]
fn pods_come_concurrently() {
    let Some(lab) = Lab::new("pods_come_concurrently") else { return };
    let pods: Vec<NetNs> = (0..8).map(|_| NetNs::new()).collect();
    let runs: Vec<Run> =
        (0..8).map(|i| lab.run("1.1.0").container(&format!("c{i}"), &pods[i].path())).collect();
    thread::scope(|scope| {
        for run in &runs {
            scope.spawn(|| {
                let answer = run.add();
                assert!(answer.success, "{answer:?}");
            });
        }
    });
    assert!(pods.iter().all(|pod| pod.links() == ["eth0"]));
    assert_eq!(lab.node.links(), [""; 0]);
    let is_ours = |request: &Request| match request {
        Request::Reserve(reserve) => reserve.network.as_deref() == Some("pods"),
        _ => true,
    };
    assert!(lab.daemon.state().requests.iter().all(is_ours), "each names its network");
}

#[test]
fn an_interface_has_as_many_queues_as_its_network_or_its_pod_wants() {
    let test = "an_interface_has_as_many_queues_as_its_network_or_its_pod_wants";
    let Some(lab) = Lab::new(test) else { return };
    let of_network = lab.run("1.0.0").conf("queues", 2);
    let of_pod = lab.run("1.0.0").conf("queues", 2).conf("args", json!({"cni": {"queues": 3}}));
    let plain = lab.run("1.0.0").conf("args", json!({"cni": {"queues": null}}));
    for (run, queues) in [(of_network, 2), (of_pod, 3), (plain, 1)] {
        let added = run.add();
        assert!(added.success, "{added:?}");
        let shown = lab.pod.ip("-details link show eth0");
        if queues == 1 {
            assert!(!shown.contains("multi_queue"), "{shown}");
        } else {
            assert!(shown.contains(&format!("multi_queue numqueues {queues} ")), "{shown}");
            assert!(shown.contains("qdisc noqueue"), "256 queues of the kernel's: {shown}");
        }
        assert_eq!(lab.daemon.state().attached[0].more.len(), queues - 1);
        assert!(run.check(&added.json()).success);
        assert!(run.del().success);
        lab.assert_clean("DEL");
    }
}

#[test]
fn queues_that_no_interface_can_have_are_refused_by_name() {
    let Some(lab) = Lab::new("queues_that_no_interface_can_have_are_refused_by_name") else {
        return;
    };
    for value in [json!(0), json!(9), json!(-1), json!(1.5), json!("2"), json!([2])] {
        let refused = lab.run("1.0.0").conf("queues", value.clone()).add();
        assert_eq!(refused.code(), 7, "{refused:?}");
        assert!(refused.message().starts_with(&format!("`queues` is {value}; expected")));
        let args = json!({"cni": {"queues": value}});
        let refused = lab.run("1.0.0").conf("args", args).add();
        assert!(refused.message().starts_with("`args.cni.queues` is "), "{refused:?}");
        // It may have been added before the value was there.
        assert!(lab.run("1.0.0").conf("queues", value).del().success);
    }
    lab.assert_clean("refusals");
}
