//! What configurations, runtimes and IPAM plugins ask for, and what comes of it: as root.

use std::process::Command;

use api::{Adjustment, AttachmentId};
use serde_json::Value;

use crate::lab::Run;
use crate::lab::pod::Lab;

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
