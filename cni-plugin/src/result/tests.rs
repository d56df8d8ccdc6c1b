use std::path::Path;

use serde_json::{Value, json};

use super::{Plugged, PluggedIp, Previous, Route, added, error, versions};
use crate::config::NetConf;
use crate::error::Error;
use crate::version::{Command, SpecVersion};

fn added_in(version: SpecVersion, previous: Option<&Value>) -> Value {
    let gateway = "198.18.1.1".parse().expect("an address");
    let plugged = Plugged {
        ifname: "eth0",
        netns: Path::new("/run/netns/p"),
        mac: "02:00:00:00:00:01".parse().expect("a MAC"),
        mtu: 1450,
        ips: &[("198.18.1.5/32", Some(gateway)), ("fd00::5/128", None)].map(
            |(address, gateway)| PluggedIp { address: address.parse().expect("a prefix"), gateway },
        ),
        routes: &[Route {
            mtu: Some(1400),
            ..Route::via("0.0.0.0/0".parse().expect("a prefix"), Some(gateway))
        }],
        dns: None,
    };
    added(version, previous.and_then(Value::as_object), &plugged)
}

#[test]
fn results_have_the_form_of_their_version() {
    for version in SpecVersion::ALL {
        let old = version < SpecVersion::V1_0_0;
        let newest = version == SpecVersion::V1_1_0;
        let mut expected = json!({
            "cniVersion": version.as_str(),
            "interfaces": [
                {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/p"},
            ],
            "ips": [
                {"address": "198.18.1.5/32", "gateway": "198.18.1.1", "interface": 0},
                {"address": "fd00::5/128", "interface": 0},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "198.18.1.1"}],
            "dns": {},
        });
        if old {
            expected["ips"][0]["version"] = "4".into();
            expected["ips"][1]["version"] = "6".into();
        }
        if newest {
            expected["interfaces"][0]["mtu"] = 1450.into();
            expected["routes"][0]["mtu"] = 1400.into();
        }
        assert_eq!(added_in(version, None), expected, "{version}");
    }
}

#[test]
fn a_previous_result_is_kept_and_indices_count_on() {
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "lo", "sandbox": "/run/netns/p"}, {"name": "veth1"}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "dns": {"nameservers": ["198.18.0.10"]},
        "later": {"kept": true},
    });
    let result = added_in(SpecVersion::V1_0_0, Some(&previous));
    assert_eq!(result["interfaces"].as_array().map(Vec::len), Some(3));
    assert_eq!(result["ips"][0], previous["ips"][0]);
    assert_eq!(result["ips"][1]["interface"], 2);
    assert_eq!(result["dns"], previous["dns"]);
    assert_eq!(result["later"], previous["later"]);
}

fn conf(previous: Option<Value>) -> NetConf {
    let conf = json!({"cniVersion": "1.1.0", "name": "n", "prevResult": previous});
    NetConf::parse(conf.to_string().as_bytes(), Command::Check).expect("valid")
}

#[test]
fn check_reads_what_add_printed() {
    for version in SpecVersion::ALL {
        let read = Previous::of(&conf(Some(added_in(version, None))), "eth0").expect("ours");
        assert_eq!(read.mac.map(|mac| mac.to_string()).as_deref(), Some("02:00:00:00:00:01"));
        let addresses: Vec<_> = read.addresses.iter().map(|ip| ip.address.to_string()).collect();
        assert_eq!(addresses, ["198.18.1.5/32", "fd00::5/128"]);
        assert_eq!(read.routes.len(), 1);
    }
}

#[test]
fn check_refuses_what_add_cannot_have_printed() {
    let host_side = json!({"interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01"}]});
    let bad_mac = json!({"interfaces": [{"name": "eth0", "sandbox": "/p", "mac": "x"}]});
    let table = [
        (None, 7),
        (Some(json!({})), 7),
        (Some(host_side), 7),
        (Some(bad_mac), 7),
        (Some(json!({"ips": [{"address": "x"}]})), 6),
        (Some(json!([[], [], []])), 7),
    ];
    for (previous, code) in table {
        let error = Previous::of(&conf(previous.clone()), "eth0").expect_err("refused");
        assert_eq!(error.code(), code, "{previous:?}");
    }
}

#[test]
fn errors_of_del_never_say_not_found() {
    let failure = || Error::Delegate {
        code: 7,
        msg: "IPAM plugin x: lease not found".into(),
        details: "file not found".into(),
    };
    let shown = error(&failure(), Some(Command::Del), Some("0.4.0".into()));
    assert_eq!(
        shown,
        json!({"cniVersion": "0.4.0", "code": 7, "msg": "IPAM plugin x: lease absent",
               "details": "file absent"})
    );
    let shown = error(&failure(), Some(Command::Add), None);
    assert_eq!(shown["details"], "file not found");
}

#[test]
fn versions_are_listed_oldest_first() {
    assert_eq!(
        versions(),
        json!({"cniVersion": "1.1.0", "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]})
    );
}
