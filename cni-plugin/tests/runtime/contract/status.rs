//! STATUS: whether an ADD could succeed now, and whether pods that are there suffer.

use std::path::Path;

use api::{ErrorKind, ServiceProblem, ServiceProblemKind};
use serde_json::json;

use super::input::NO_DAEMON;
use crate::lab::daemon::{Daemon, Fault};
use crate::lab::pod::Lab;
use crate::lab::versions::in_every_version;
use crate::lab::{FakeIpam, Run};

in_every_version! {
    status_succeeds_only_while_an_add_can,
    status_tells_by_its_code_whether_pods_suffer,
    status_is_passed_on_to_the_ipam_plugin,
    add_and_del_work_while_status_fails,
}

fn problem(kind: ServiceProblemKind, reason: &str) -> ServiceProblem {
    ServiceProblem { kind, reason: reason.into() }
}

fn status_succeeds_only_while_an_add_can(lab: &Lab, version: &str) {
    let run = lab.run(version);
    if !run.knows("STATUS") {
        return;
    }
    assert_eq!(run.run("STATUS").code(), 0);
    assert!(run.add().success);
    assert_eq!(run.del().code(), 0);
    let fails = |run: &Run, why: &str| {
        assert!(!run.add().success, "{why}");
        lab.assert_clean(why);
        assert!(!run.run("STATUS").success, "{why}: ADD fails, and so does STATUS");
    };
    let ipam = |kind: &str| run.clone().conf("ipam", json!({"type": kind}));
    fails(&ipam("dhcp"), "an IPAM plugin that needs the interface");
    fails(&ipam("not-installed"), "an IPAM plugin that is not there");
    fails(&run.clone().conf("queues", 99), "queues that no interface can have");
    fails(&run.clone().conf("ingressRate", "fast"), "a rate that is none");
    fails(&run.clone().conf("mtu", 1000), "an MTU that IPv6 does not have");
    fails(&run.clone().conf("mode", "sideways"), "a mode that is none");
    fails(&run.clone().conf("socket", NO_DAEMON), "no daemon");
    lab.daemon.fail(Fault::Refuse("reserve", ErrorKind::Exhausted));
    lab.daemon.state().problems = vec![problem(ServiceProblemKind::NoAddress, "none is left")];
    fails(&run, "no address");
}

fn status_tells_by_its_code_whether_pods_suffer(version: &str) {
    let nowhere = Run::new(version, Path::new(NO_DAEMON));
    if !nowhere.knows("STATUS") {
        return;
    }
    let answer = nowhere.run("STATUS");
    assert_eq!(answer.code(), 51, "nothing forwards");
    assert!(answer.message().contains(NO_DAEMON), "{answer:?}");

    let daemon = Daemon::new();
    let own = Run::new(version, &daemon.socket());
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let delegated = ipam.used_by(own.clone());
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
    assert_eq!(ipam.log(), ["STATUS"], "asked last, where all else is well");
    daemon.fail(Fault::Refuse("status", ErrorKind::NotReady));
    assert_eq!(own.run("STATUS").code(), 50, "it runs, and forwards");
}

fn status_is_passed_on_to_the_ipam_plugin(version: &str) {
    let daemon = Daemon::new();
    let ipam = FakeIpam::new(FakeIpam::RESULT);
    let run = ipam.used_by(Run::new(version, &daemon.socket()));
    if !run.knows("STATUS") {
        return assert_eq!(ipam.log(), [""; 0], "of a refused command it is told nothing");
    }
    assert_eq!(run.run("STATUS").code(), 0);
    assert_eq!(ipam.log(), ["STATUS"]);
    let full =
        FakeIpam::new(r#"cat >/dev/null; echo '{"code": 51, "msg": "range is full"}'; exit 1"#);
    let answer = full.used_by(run).run("STATUS");
    assert_eq!(answer.code(), 51);
    assert_eq!(answer.message(), "IPAM plugin fake-ipam: range is full | ");
}

fn add_and_del_work_while_status_fails(lab: &Lab, version: &str) {
    let run = lab.run(version);
    lab.daemon.state().problems = vec![problem(ServiceProblemKind::PodsSuffer, "no uplink")];
    if run.knows("STATUS") {
        assert_eq!(run.run("STATUS").code(), 51);
    }
    lab.comes_and_goes(&run, "pods suffer");
    lab.daemon.heard();
    assert!(run.add().success);
    assert_eq!(lab.daemon.heard(), ["reserve", "attach"], "neither asks for the status");
    assert_eq!(run.del().code(), 0);
    assert_eq!(lab.daemon.heard(), ["detach"]);
}
