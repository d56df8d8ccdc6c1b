//! A journal that lost a line: the pod of that line is found by its interface.

use std::fs;
use std::path::Path;

use api::{ErrorKind, Recover, Reply, Request, ServiceProblemKind, Survey};
use ipnet::IpNet;

use crate::node::{Node, Pod, Running};

impl Node {
    /// Flips a bit in every line about this pod.
    pub(crate) fn damage(&self, name: &str) {
        let path = self.file("state/journal");
        let journal = fs::read_to_string(&path).expect("the daemon made it");
        let lines = journal.lines().map(|line| {
            if line.contains(&format!("\"container_id\":\"{name}\"")) {
                line.replacen("lease", "leasd", 1)
            } else {
                line.to_owned()
            }
        });
        let damaged = lines.collect::<Vec<_>>().join("\n") + "\n";
        assert_ne!(damaged, journal);
        fs::write(path, damaged).expect("the directory is ours");
    }
}

impl Running<'_> {
    fn survey(&self) -> Option<Survey> {
        let Reply::Survey(survey) = self.ask(&Request::Survey) else { panic!("not a survey") };
        survey
    }
}

pub(crate) fn recover(name: &str, pod: &Pod) -> Recover {
    Recover {
        attachment: Pod::id(name),
        netns: "/run/netns/b".to_owned(),
        addresses: vec![IpNet::from(pod.address)],
        gateways: vec!["198.18.1.1".parse().expect("an address")],
        mac: pod.mac,
        mtu: 1400,
    }
}

#[test]
fn a_pod_whose_line_is_damaged_is_taken_up_again_and_keeps_its_address() {
    let node = Node::new("");
    let daemon = node.start();
    let (_a, b) = (daemon.plug("a"), daemon.plug("b"));
    daemon.kill();
    node.damage("b");
    let daemon = node.start();
    let survey = daemon.survey().expect("a line is damaged");
    assert_eq!(survey.known.iter().collect::<Vec<_>>(), [&Pod::id("a")]);
    assert!(survey.directories.contains(Path::new("/run/netns")), "{survey:?}");

    let refused = daemon.try_ask(&Request::Reserve(Pod::reserve("c"))).expect_err("b is missing");
    assert_eq!(refused.kind, ErrorKind::NotReady);
    let status = daemon.status_once(|_| true);
    let problem = status.problems.iter().find(|p| p.kind == ServiceProblemKind::AddsFail);
    assert_eq!(problem.map(|p| &p.reason), Some(&refused.message));

    let foreign =
        Recover { addresses: vec!["203.0.113.1/32".parse().expect("one")], ..recover("b", &b) };
    let refused = daemon.try_ask(&Request::Recover(foreign)).expect_err("no pod's");
    assert!(refused.message.contains("203.0.113.1"), "{refused}");
    let twice = Recover { attachment: Pod::id("a"), ..recover("a", &b) };
    assert!(daemon.try_ask(&Request::Recover(twice)).is_err(), "it is known");
    let Reply::Reserved(reserved) = daemon.ask(&Request::Recover(recover("b", &b))) else {
        panic!("not a reservation")
    };
    assert_eq!(reserved.addresses, [IpNet::from(b.address)]);
    assert_eq!((reserved.mac, reserved.mtu), (b.mac, 1400));
    let (ours, _port) = netio::port::PortFd::pair().expect("a socketpair");
    assert_eq!(daemon.attach("b", b.mac, ours.into()), Ok(Reply::Done));
    assert_eq!(daemon.ask(&Request::Surveyed), Reply::Done);

    assert_eq!(daemon.survey(), None, "nothing is missing");
    let c = daemon.plug("c");
    assert_ne!(c.address, b.address);
    assert_eq!(daemon.status_once(|_| true).problems, []);
    daemon.kill();
    let daemon = node.start();
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("not ports") };
    let pods: Vec<_> = ports.into_iter().filter_map(|port| port.attachment).collect();
    assert_eq!(pods, [Pod::id("a"), Pod::id("b"), Pod::id("c")]);
    daemon.stop();
}

#[test]
fn a_descriptor_that_the_journal_does_not_know_is_a_pod_that_is_missing() {
    let node = Node::new("");
    let running = node.start_as(node.supervised());
    let (_a, _b) = (running.plug("a"), running.plug("b"));
    let journal = node.journal();
    // Without the last two lines, as if none had been written.
    let lines: Vec<_> = journal.lines().filter(|line| !line.contains("\"b\"")).collect();
    fs::write(node.file("state/journal"), lines.join("\n") + "\n").expect("ours");
    running.ends_daemon("-KILL");
    let survey = running.survey().expect("a descriptor is of no pod");
    assert_eq!(survey.known.iter().collect::<Vec<_>>(), [&Pod::id("a")]);
    assert!(running.try_ask(&Request::Reserve(Pod::reserve("c"))).is_err());
    running.stop();
}

#[test]
fn nothing_is_missing_from_a_journal_that_is_whole() {
    let node = Node::new("");
    let running = node.start_as(node.supervised());
    let _a = running.plug("a");
    running.ends_daemon("-KILL");
    assert_eq!(running.survey(), None);
    running.plug("b");
    running.stop();
}
