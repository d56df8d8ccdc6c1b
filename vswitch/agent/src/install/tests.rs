//! Files in the runtime's directories.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::Duration;

use api::{Decoder, Reply, encode_response};
use serde_json::{Value, json};

use super::{InstallTarget, wait_for_daemon};
use crate::error::Error;

fn placement(dir: &Path, name: &str, content: &str) -> InstallTarget {
    let (from, directory) = (dir.join("from"), dir.join("to"));
    fs::create_dir_all(&from).and_then(|()| fs::create_dir_all(&directory)).expect("made");
    fs::write(from.join(name), content).expect("written");
    InstallTarget { file: from.join(name), directory }
}

fn files(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("to")).expect("a directory");
    entries.map(|entry| entry.expect("one").file_name().into_string().expect("text")).collect()
}

#[test]
fn a_program_replaces_one_that_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    placement(dir.path(), "vswitch-cni", "old").install_program().expect("installed");
    let old = fs::File::open(dir.path().join("to/vswitch-cni")).expect("there");
    let new = placement(dir.path(), "vswitch-cni", "new");
    new.install_program().expect("installed");
    let mut text = String::new();
    (&old).read_to_string(&mut text).expect("the old file is whole");
    assert_eq!(text, "old");
    assert_eq!(fs::read_to_string(new.target()).expect("there"), "new");
    assert_eq!(fs::metadata(new.target()).expect("there").permissions().mode() & 0o777, 0o755);
    assert_eq!(files(dir.path()), ["vswitch-cni"]);
}

#[test]
fn a_configuration_is_written_once_and_removed_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let conflist = placement(dir.path(), "10-vswitch.conflist", "{}");
    conflist.install_configuration(dir.path()).expect("installed");
    let modified =
        || fs::metadata(conflist.target()).and_then(|meta| meta.modified()).expect("there");
    let first = modified();
    conflist.install_configuration(dir.path()).expect("it is there");
    assert_eq!(first, modified());
    assert_eq!(files(dir.path()), ["10-vswitch.conflist"]);
    conflist.remove().and_then(|()| conflist.remove()).expect("gone");
    assert!(files(dir.path()).is_empty());
}

#[test]
fn one_plugin_serves_host_ports_and_it_is_portmap_where_that_is_chained_and_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let installed = |text: &str| {
        let conflist = placement(dir.path(), "10-vswitch.conflist", text);
        conflist.install_configuration(dir.path()).expect("installed");
        fs::read_to_string(conflist.target()).expect("there")
    };
    let shipped = include_str!("../../../../config/10-vswitch.conflist");
    let plugins_of = |text: &str| {
        let conflist: Value = serde_json::from_str(text).expect("JSON");
        assert_eq!((&conflist["name"], &conflist["cniVersion"]), (&json!("n"), &json!("1.0.0")));
        conflist["plugins"].clone()
    };
    let conflist = |plugins: &[&Value]| {
        json!({"cniVersion": "1.0.0", "name": "n", "plugins": plugins}).to_string()
    };
    let capability = json!({"portMappings": true});
    let plain = json!({"type": "vswitch-cni"});
    let ours = json!({"type": "vswitch-cni", "capabilities": capability});
    let portmap = json!({"type": "portmap", "capabilities": capability});
    for (ours, chained) in [(&plain, &portmap), (&ours, &portmap)] {
        let text = installed(&conflist(&[ours, chained]));
        assert_eq!(
            plugins_of(&text),
            json!([json!({"type": "vswitch-cni", "capabilities": capability})])
        );
    }
    assert_eq!(installed(shipped), shipped);
    // To a place that the node has, and this container has not.
    symlink("/nonexistent/portmap", dir.path().join("portmap")).expect("linked");
    for ours in [&plain, &ours] {
        let text = installed(&conflist(&[ours, &portmap]));
        assert_eq!(plugins_of(&text), json!([plain, portmap]));
    }
    let as_it_was = conflist(&[&plain, &portmap]);
    assert_eq!(installed(&as_it_was), as_it_was, "byte for byte");
    assert_eq!(installed(shipped), shipped);
}

#[test]
fn what_cannot_be_installed_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut missing = placement(dir.path(), "x", "");
    missing.file = dir.path().join("nowhere");
    assert!(matches!(missing.install_program(), Err(Error::File { action: "read", .. })));
    assert!(files(dir.path()).is_empty());
}

/// A daemon that answers each status with the next of these prefixes.
fn daemon(path: &Path, answers: Vec<Vec<&'static str>>) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(path).expect("bound");
    thread::spawn(move || {
        for prefixes in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut decoder = Decoder::for_requests();
            let mut byte = [0];
            while decoder.next_request().expect("ours").is_none() {
                stream.read_exact(&mut byte).expect("a request");
                decoder.feed(&byte);
            }
            let status = serde_json::from_value(serde_json::json!({
                "version": "0", "node": "n", "uptime_seconds": 0, "epoch": 0,
                "pod_prefixes": prefixes, "cluster_prefixes": [], "pod_mtu": 1450, "pods": 0,
                "peers": 0, "uplink": null, "workers": [], "host_interface": null,
                "masquerade": null, "publish_latency_us": null, "choices": [], "warnings": [],
            }));
            let reply = Ok(Reply::Status(Box::new(status.expect("a status"))));
            stream.write_all(&encode_response(&reply).expect("small")).expect("sent");
        }
    })
}

#[tokio::test]
async fn the_daemon_is_waited_for_until_it_has_prefixes() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let daemon = daemon(&path, vec![vec![], vec!["198.18.1.0/24"]]);
    wait_for_daemon(&path, Duration::from_secs(60)).await.expect("ready");
    daemon.join().expect("the daemon's thread");
}

#[tokio::test]
async fn a_daemon_that_does_not_come_is_given_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let error = wait_for_daemon(&path, Duration::from_millis(300)).await.expect_err("nobody");
    assert!(matches!(error, Error::NotReady { .. }), "{error}");
}
