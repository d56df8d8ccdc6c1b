use proptest::prelude::*;
use serde_json::json;

use super::{Call, Env, IpamChoice, NetConf};
use crate::args::Wanted;
use crate::error::Error;
use crate::version::Command;
use api::Mode;

const COMMANDS: [Command; 5] =
    [Command::Add, Command::Del, Command::Check, Command::Status, Command::Gc];

fn env(set: &[(&str, &str)], command: Command) -> Result<Env, Error> {
    Env::new(command, |name| {
        set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
    })
}

fn parse(more: serde_json::Value) -> Result<NetConf, Error> {
    let mut conf = json!({"cniVersion": "1.0.0", "name": "pods", "type": "vswitch-cni"});
    let object = conf.as_object_mut().expect("an object");
    object.extend(more.as_object().expect("an object").clone());
    NetConf::parse(conf.to_string().as_bytes(), Command::Add)
}

#[test]
fn missing_variables_are_all_named_at_once() {
    let error = env(&[("CNI_IFNAME", "eth0")], Command::Add).expect_err("three are missing");
    assert_eq!(error.code(), 4);
    assert_eq!(
        error.to_string(),
        "required environment variables missing: CNI_CONTAINERID, CNI_NETNS, CNI_PATH"
    );
    let error = env(&[], Command::Del).expect_err("three are missing");
    assert_eq!(
        error.to_string(),
        "required environment variables missing: CNI_CONTAINERID, CNI_IFNAME, CNI_PATH"
    );
}

#[test]
fn container_ids_and_interface_names_follow_their_patterns() {
    let table = [
        ("c1", "eth0", true),
        ("0a_b.c-d", "net1.100", true),
        ("c1", "123456789012345", true),
        ("c1", "1234567890123456", false),
        ("c1", ".", false),
        ("c1", "..", false),
        ("c1", "a/b", false),
        ("c1", "a:b", false),
        ("c1", "a b", false),
        ("c1", "a\x0bb", false),
        ("-c1", "eth0", false),
        (".c1", "eth0", false),
        ("c/1", "eth0", false),
        ("c1\n", "eth0", false),
        ("é", "eth0", false),
    ];
    for (id, ifname, valid) in table {
        let set = [("CNI_CONTAINERID", id), ("CNI_IFNAME", ifname), ("CNI_PATH", "/opt/cni/bin")];
        let outcome = env(&set, Command::Del);
        assert_eq!(outcome.is_ok(), valid, "{id:?} {ifname:?}");
        if let Err(error) = outcome {
            assert_eq!(error.code(), 4);
        }
    }
}

#[test]
fn cni_path_is_a_list_and_relative_directories_are_not_searched() {
    let env = env(&[("CNI_PATH", "/opt/cni/bin::bin:/usr/lib/cni")], Command::Gc).expect("set");
    assert_eq!(env.path, ["/opt/cni/bin", "/usr/lib/cni"].map(std::path::PathBuf::from));
}

#[test]
fn defaults_are_the_daemons() {
    let conf = parse(json!({"ipam": {}, "unheardOf": [1, 2]})).expect("valid");
    assert_eq!(conf.socket.to_str(), Some(api::DEFAULT_SOCKET));
    assert_eq!(conf.state_dir.to_str(), Some(api::DEFAULT_STATE_DIR));
    assert_eq!((conf.mode, conf.mtu, conf.ipam), (None, None, IpamChoice::Own));
    assert_eq!(parse(json!({"mtu": 0})).expect("valid").mtu, None);
}

#[test]
fn keys_are_read() {
    let conf = parse(json!({
        "socket": "/run/other.sock", "mode": "bridged", "bridge": "blue", "mtu": 1400,
        "ipam": {"type": "host-local", "subnet": "198.18.1.0/24"},
    }))
    .expect("valid");
    assert_eq!(conf.mode, Some(Mode::Bridged { bridge: Some("blue".into()) }));
    assert_eq!(conf.ipam, IpamChoice::Delegated("host-local".into()));
    assert_eq!(conf.mtu, Some(1400));
}

#[test]
fn what_cannot_work_is_refused_with_its_code() {
    let long = format!("/{}", "s".repeat(107));
    let table = [
        (json!({"name": ""}), 7),
        (json!({"name": null}), 7),
        (json!({"name": "a b"}), 7),
        (json!({"name": 5}), 6),
        (json!({"socket": "relative.sock"}), 7),
        (json!({"socket": long}), 7),
        (json!({"stateDir": "relative"}), 7),
        (json!({"mode": "switched"}), 7),
        (json!({"bridge": "blue"}), 7),
        (json!({"mode": "routed", "bridge": "blue"}), 7),
        (json!({"mtu": 67}), 7),
        (json!({"mtu": 65536}), 7),
        (json!({"mtu": "1500"}), 6),
        (json!({"ipam": "host-local"}), 7),
        (json!({"ipam": {"subnet": "198.18.1.0/24"}}), 7),
        (json!({"ipam": {"type": "../bin/sh"}}), 7),
        (json!({"ipam": {"type": "/bin/sh"}}), 7),
        (json!({"ipam": {"type": ".."}}), 7),
        (json!({"ipam": {"type": "vswitch-cni"}}), 7),
        (json!({"cniVersion": 1}), 6),
        (json!({"cniVersion": null}), 1),
    ];
    for (more, code) in table {
        let error = parse(more.clone()).expect_err("refused");
        assert_eq!(error.code(), code, "{more}: {error}");
    }
}

#[test]
fn bad_json_is_code_6() {
    for bytes in
        [&b""[..], b"{", b"null", b"[]", b"[\"1.0.0\"]", b"\xff", b"{\"cniVersion\": \"1.0.0\"} x"]
    {
        let error = NetConf::parse(bytes, Command::Del).expect_err("not a configuration");
        assert_eq!(error.code(), 6, "{bytes:?}");
    }
}

#[test]
fn both_names_of_the_attachment_list_are_accepted() {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        assert_eq!(parse(json!({key: []})).expect("valid").valid_attachments, Some(json!([])));
    }
    assert_eq!(parse(json!({})).expect("valid").valid_attachments, None);
}

#[test]
fn del_does_not_care_about_what_only_add_needs() {
    let stdin = json!({
        "cniVersion": "0.4.0", "name": "pods", "prevResult": 7, "runtimeConfig": "x", "args": [],
    });
    let call = Call::new(
        Command::Del,
        |name| (name != "CNI_NETNS").then(|| if name == "CNI_PATH" { "/p" } else { "x" }.into()),
        stdin.to_string().as_bytes(),
    )
    .expect("enough for DEL");
    assert_eq!(call.env.netns, None);
}

/// JSON that resembles a configuration, so that the later stages are reached as well.
fn conf_like() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        Just("null".to_owned()),
        Just("{}".to_owned()),
        Just("[\"198.18.1.9\", \"fd00::9/64\"]".to_owned()),
        Just("{\"cni\": {\"ips\": [\"x\"], \"mac\": \"02:00:00:00:00:01\"}}".to_owned()),
        Just("{\"ips\": [\"198.18.1.9/24\"], \"mac\": \"01:00:00:00:00:01\"}".to_owned()),
        "\"[ -~&&[^\"\\\\]]{0,20}\"",
        any::<i64>().prop_map(|n| n.to_string()),
    ];
    let key = prop::sample::select(vec![
        "name",
        "socket",
        "stateDir",
        "mode",
        "bridge",
        "mtu",
        "ipam",
        "dns",
        "runtimeConfig",
        "args",
        "prevResult",
        "cni.dev/valid-attachments",
    ]);
    prop::collection::vec((key, value), 0..8).prop_map(|pairs| {
        let mut text = String::from("{\"cniVersion\": \"1.1.0\", \"name\": \"n\"");
        for (key, value) in pairs.iter().filter(|(key, _)| *key != "name") {
            text.push_str(&format!(", \"{key}\": {value}"));
        }
        text.push('}');
        text.into_bytes()
    })
}

proptest! {
    #[test]
    fn arbitrary_stdin_never_panics(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..256), conf_like()],
        args in "\\PC{0,60}",
    ) {
        for command in COMMANDS {
            if let Ok(conf) = NetConf::parse(&bytes, command) {
                let _ = Wanted::new(&conf, &args);
                let _ = crate::gc::valid_attachments(&conf);
                let _ = crate::result::Previous::of(&conf, "eth0");
            }
        }
    }
}
