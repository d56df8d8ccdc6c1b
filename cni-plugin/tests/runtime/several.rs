//! A pod with several interfaces, of this plugin and of Debian's reference plugins, in either order; and ADDs of
//! one interface at once: as root.

use std::fs::File;
use std::path::Path;
use std::thread;

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::lab::daemon::GATEWAY_MAC;
use crate::lab::pod::Lab;
use crate::lab::{self, FakeIpam, Run};

const GATEWAYS: [&str; 2] = ["198.18.1.1", "fd00:18:1::1"];
const IFNAMES: [&str; 2] = ["eth0", "net1"];

/// What makes an interface of the pod.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Routed,
    Bridged,
    Bridge,
    Ptp,
}

use Kind::{Bridge, Bridged, Ptp, Routed};

impl Kind {
    fn is_ours(self) -> bool {
        matches!(self, Routed | Bridged)
    }

    fn call(self, lab: &Lab, ifname: &str, leases: &Path) -> Run {
        let run = lab.run("1.0.0").set("CNI_IFNAME", ifname);
        match self {
            Routed => run.conf("mode", "routed"),
            Bridged => run.conf("mode", "bridged"),
            Bridge => run.of_reference(
                "bridge",
                json!({"bridge": "of-bridge", "isGateway": true, "ipam": ipam(leases)}),
            ),
            Ptp => run.of_reference("ptp", json!({"ipam": ipam(leases)})),
        }
    }
}

/// A reference plugin's subnets, and default routes.
fn ipam(leases: &Path) -> Value {
    json!({
        "type": "host-local",
        "ranges": [[{"subnet": "198.19.7.0/24"}], [{"subnet": "fd00:19:7::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "dataDir": leases,
    })
}

/// The interface leads to its gateway, whatever the others do.
fn assert_works(lab: &Lab, kind: Kind, ifname: &str, when: &str) {
    let ping = |to: &str, [count, patience]: [&str; 2]| {
        let args = ["-n", "-c", count, "-i", "0.2", "-W", patience, "-I", ifname, to];
        lab.pod.command("ping").args(args).output().expect("ping of iputils").status.success()
    };
    if !kind.is_ours() {
        for gateway in ["198.19.7.1", "fd00:19:7::1"] {
            assert!(ping(gateway, ["3", "2"]), "{gateway} by {ifname}, {when}");
        }
        return;
    }
    lab.sent(ifname);
    for gateway in GATEWAYS {
        // The daemon is played: it is enough that the packet comes, and is for the gateway.
        ping(gateway, ["1", "0.1"]);
        let sent = lab.sent(ifname);
        let to: Vec<u8> = match gateway.parse().expect("an address") {
            std::net::IpAddr::V4(v4) => v4.octets().into(),
            std::net::IpAddr::V6(v6) => v6.octets().into(),
        };
        let at = if to.len() == 4 { 14 + 16 } else { 14 + 24 };
        let is_it = |frame: &Vec<u8>| {
            frame[..6] == GATEWAY_MAC.0 && frame.get(at..at + to.len()) == Some(&to)
        };
        assert!(sent.iter().any(is_it), "{gateway} by {ifname}, {when}: {sent:02x?}");
    }
}

/// Both interfaces come, pass CHECK and work; then one goes, in turn, and the other is as it was.
fn pair(test: &str, kinds: [Kind; 2]) {
    let Some(lab) = Lab::new(test) else { return };
    let reference = kinds.iter().filter(|kind| !kind.is_ours()).count();
    if reference > 0 && !lab::has_reference(test, &["bridge", "ptp", "host-local"]) {
        return;
    }
    let leases = tempfile::tempdir().expect("a directory");
    let calls = [0, 1].map(|at| kinds[at].call(&lab, IFNAMES[at], leases.path()));
    for gone in [0, 1] {
        let stays = 1 - gone;
        let results = calls.each_ref().map(|call| {
            let added = call.add();
            assert!(added.success, "{added:?}: {}", lab.pod.ip("route"));
            added.json()
        });
        for (at, call) in calls.iter().enumerate() {
            let checked = call.check(&results[at]);
            assert!(checked.success, "{}: {checked:?}", IFNAMES[at]);
            assert_works(&lab, kinds[at], IFNAMES[at], "beside the other");
        }
        if reference == 0 {
            assert_eq!(results[1]["routes"], json!([]), "no second default route");
        }
        for family in ["-4", "-6"] {
            let routes = lab.pod.ip(&format!("{family} route show default"));
            assert!(
                kinds[0] == Ptp || kinds[0] == Bridge || routes.contains("dev eth0"),
                "{routes}"
            );
            assert_eq!(routes.contains("dev net1"), !kinds[1].is_ours(), "{routes}");
        }

        let deleted = calls[gone].clone().conf("prevResult", results[gone].clone()).del();
        assert!(deleted.success, "{deleted:?}");
        assert_eq!(lab.pod.links(), [IFNAMES[stays]]);
        let checked = calls[stays].check(&results[stays]);
        assert!(checked.success, "{} alone: {checked:?}", IFNAMES[stays]);
        assert_works(&lab, kinds[stays], IFNAMES[stays], "alone");
        if kinds[stays].is_ours() {
            for gateway in GATEWAYS {
                let way = lab.pod.ip(&format!("route get {gateway}"));
                assert!(way.contains(&format!("dev {} ", IFNAMES[stays])), "{way}");
            }
        }
        assert!(calls[stays].clone().conf("prevResult", results[stays].clone()).del().success);
        assert_eq!(lab.pod.links(), [""; 0]);
        assert!(lab.daemon.is_empty());
    }
}

#[test]
fn routed_beside_routed() {
    pair("routed_beside_routed", [Routed, Routed]);
}

#[test]
fn bridged_beside_routed() {
    pair("bridged_beside_routed", [Routed, Bridged]);
    pair("bridged_beside_routed", [Bridged, Routed]);
}

#[test]
fn bridged_beside_bridged() {
    pair("bridged_beside_bridged", [Bridged, Bridged]);
}

#[test]
fn behind_the_reference_bridge() {
    pair("behind_the_reference_bridge", [Bridge, Routed]);
}

#[test]
fn before_the_reference_bridge() {
    pair("before_the_reference_bridge", [Routed, Bridge]);
}

#[test]
fn behind_the_reference_ptp() {
    pair("behind_the_reference_ptp", [Ptp, Routed]);
}

#[test]
fn before_the_reference_ptp() {
    pair("before_the_reference_ptp", [Routed, Ptp]);
}

#[test]
fn a_second_add_that_fails_takes_nothing_from_the_first() {
    let Some(lab) = Lab::new("a_second_add_that_fails_takes_nothing_from_the_first") else {
        return;
    };
    let first = lab.run("1.0.0");
    let added = first.add();
    assert!(added.success, "{added:?}");
    let before = lab.pod.ip("route");
    // Refused by the kernel after the route to the gateway was made.
    let ipam = FakeIpam::new(
        &FakeIpam::RESULT.replace("0.0.0.0/0\"", "198.19.0.0/16\", \"gw\": \"127.0.0.1\""),
    );
    let second = ipam.used_by(lab.run("1.0.0").set("CNI_IFNAME", "net1"));
    assert_eq!(second.add().code(), 100);
    assert_eq!(second.del().code(), 0);
    assert_eq!(lab.pod.links(), ["eth0"]);
    assert_eq!(lab.pod.ip("route"), before);
    assert!(first.check(&added.json()).success);
    assert_works(&lab, Routed, "eth0", "after the other's failure");
}

#[test]
fn a_route_that_ipam_gives_to_each_interface_stands_behind_the_first_ones() {
    let test = "a_route_that_ipam_gives_to_each_interface_stands_behind_the_first_ones";
    let Some(lab) = Lab::new(test) else { return };
    let ipams = ["77", "78"]
        .map(|host| FakeIpam::new(&FakeIpam::RESULT.replace(".77/", &format!(".{host}/"))));
    let call = |at: usize| ipams[at].used_by(lab.run("1.1.0").set("CNI_IFNAME", IFNAMES[at]));
    let [first, second] = [0, 1].map(|at| {
        let added = call(at).add();
        assert!(added.success, "{added:?}");
        added.json()
    });
    assert_eq!(first["routes"], json!([{"dst": "0.0.0.0/0", "gw": "198.18.1.1"}]));
    let behind = json!([{"dst": "0.0.0.0/0", "gw": "198.18.1.1", "priority": 1}]);
    assert_eq!(second["routes"], behind, "the result has what was made");
    assert!(lab.pod.ip("route get 198.18.9.9").contains("dev eth0"));
    for (at, result) in [(0, &first), (1, &second)] {
        assert!(call(at).check(result).success, "{}", IFNAMES[at]);
    }
    // CHECK tells the one's route from the other's.
    lab.pod.ip("route del default metric 1");
    assert_eq!(
        call(1).check(&second).message(),
        "the route to 0.0.0.0/0 by 198.18.1.1 is missing | "
    );
    assert!(call(0).check(&first).success);
    lab.pod.ip("route add default via 198.18.1.1 dev net1 onlink metric 1");

    assert_eq!(call(0).del().code(), 0);
    assert!(lab.pod.ip("route get 198.18.9.9").contains("via 198.18.1.1 dev net1"));
    assert!(call(1).check(&second).success);
}

#[test]
fn a_default_route_of_one_family_leaves_the_other_to_be_invented() {
    let test = "a_default_route_of_one_family_leaves_the_other_to_be_invented";
    let Some(lab) = Lab::new(test) else { return };
    // Its address makes the kernel's local table, without which no gateway is a valid one.
    lab.pod.ip("link set lo up");
    for (family, others, ours) in
        [("-4", "198.19.0.1", "fd00:18:1::1"), ("-6", "fd00:19::1", "198.18.1.1")]
    {
        lab.pod.ip("link add other0 type bridge");
        lab.pod.ip("link set other0 up");
        lab.pod.ip(&format!("{family} route add default via {others} dev other0 onlink"));
        let added = lab.run("1.0.0").add();
        assert!(added.success, "{added:?}");
        let routes = added.json()["routes"].clone();
        assert_eq!(routes.as_array().map(Vec::len), Some(1), "{routes}");
        assert_eq!(routes[0]["gw"], ours);
        assert!(lab.run("1.0.0").check(&added.json()).success);
        assert_eq!(lab.run("1.0.0").del().code(), 0);
        lab.pod.ip("link del other0");
    }
}

#[test]
fn of_adds_of_one_interface_at_once_one_succeeds_and_its_interface_stands() {
    let test = "of_adds_of_one_interface_at_once_one_succeeds_and_its_interface_stands";
    let Some(lab) = Lab::new(test) else { return };
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    for round in 0..12 {
        let own = lab.run("1.0.0");
        let run = if round % 2 == 0 { own } else { ipam.used_by(own) };
        let answers = thread::scope(|scope| {
            let adds = [0; 3].map(|_| scope.spawn(|| run.add()));
            adds.map(|add| add.join().expect("no assertion failed"))
        });
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.success);
        assert_eq!(won.len(), 1, "round {round}: {answers:?}");
        assert!(lost.iter().all(|answer| answer.code() == 103), "round {round}: {answers:?}");
        assert_eq!(lab.pod.links(), ["eth0"], "round {round}");
        assert_eq!(lab.daemon.heard(), ["reserve", "attach"], "round {round}");
        assert!(run.check(&won[0].json()).success, "round {round}");
        assert_eq!(run.del().code(), 0);
        lab.assert_clean(&format!("round {round}"));
        lab.daemon.heard();
    }
    assert!(!ipam.log().windows(2).any(|two| two == ["ADD", "ADD"] || two == ["DEL", "DEL"]));
}

#[test]
fn an_add_does_not_wait_for_ever_for_another() {
    let Some(lab) = Lab::new("an_add_does_not_wait_for_ever_for_another") else { return };
    let netns = File::open(lab.pod.path()).expect("a namespace");
    flock(&netns, FlockOperation::LockExclusive).expect("nobody has it");
    let answer = lab.run("1.0.0").add();
    assert_eq!(answer.code(), 11, "{answer:?}");
    assert!(answer.message().starts_with("another ADD is at work in network namespace"));
    assert_eq!(lab.run("1.0.0").del().code(), 0, "DEL waits for nobody");
    drop(netns);
    assert!(lab.run("1.0.0").add().success);
}
