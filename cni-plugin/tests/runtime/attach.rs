//! What ADD makes beside the contract, and what becomes of it, in namespaces of their own: as root.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::daemon::Fault;
use crate::lab::pod::Lab;
use crate::lab::{self, NetNs};
use api::{PortMapping, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;

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
