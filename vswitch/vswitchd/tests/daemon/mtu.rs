//! Live pods and the MTU that they are to have.

use api::{Adjustment, ErrorKind, Reply, Request};

use crate::node::{Node, Pod, Running};

fn adjustments(daemon: &Running<'_>) -> Vec<Adjustment> {
    match daemon.ask(&Request::Adjustments) {
        Reply::Adjustments(adjustments) => adjustments,
        other => panic!("{other:?}"),
    }
}

fn warnings(daemon: &Running<'_>) -> Vec<String> {
    match daemon.ask(&Request::Status) {
        Reply::Status(status) => status.warnings,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_live_pods_mtu_follows_once_somebody_has_set_it() {
    let node = Node::new("");
    let daemon = node.start();
    let _a = daemon.plug("a");
    let plain = node.text();
    assert_eq!(adjustments(&daemon), []);
    assert!(!node.file("vswitch.sock.adjust").exists());

    node.append("[overlay]\npod_mtu = 1400\n");
    daemon.reload("the configuration is reloaded");
    let waiting = adjustments(&daemon);
    let [wanted] = waiting.as_slice() else { panic!("{waiting:?}") };
    assert_eq!((&wanted.attachment, wanted.mtu), (&Pod::id("a"), 1400));
    let called = "1 pod(s) have another MTU than 1400; `vswitch-cni --adjust` gives it to them";
    assert!(warnings(&daemon).contains(&called.to_owned()), "{:?}", warnings(&daemon));
    let written = std::fs::read_to_string(node.file("vswitch.sock.adjust"));
    assert_eq!(written.expect("whoever may adjust is called"), "1400\n");

    // The program that has set it reports so; then it is forwarded by, shown, and remembered.
    let adjusted = |mtu| daemon.try_ask(&Request::Adjusted { attachment: Pod::id("a"), mtu });
    assert_eq!(adjusted(67).expect_err("impossible").kind, ErrorKind::Invalid);
    assert_eq!(adjusted(1400), Ok(Reply::Done));
    assert_eq!(adjustments(&daemon), []);
    assert!(!warnings(&daemon).iter().any(|warning| warning.contains("another MTU")));
    let Reply::Ports(ports) = daemon.ask(&Request::ShowPorts) else { panic!("ports") };
    assert_eq!(ports.iter().map(|port| port.mtu).collect::<Vec<_>>(), [1400]);
    assert!(node.journal().contains("\"mtu\":1400"), "{}", node.journal());
    // A pod that comes later has it from the start.
    let _b = daemon.plug("b");
    assert_eq!(adjustments(&daemon), []);

    node.write(&plain);
    daemon.reload("the configuration is reloaded");
    let back = adjustments(&daemon);
    assert_eq!(back.iter().map(|one| one.mtu).collect::<Vec<_>>(), [1500, 1500]);
    let unknown = Request::Adjusted { attachment: Pod::id("c"), mtu: 1500 };
    assert_eq!(daemon.try_ask(&unknown).expect_err("nobody").kind, ErrorKind::Unknown);
    daemon.stop();
}
