//! What other plugins of a chain printed: any `prevResult`, in any version. ADD keeps all of it and adds its own;
//! CHECK then reads what ADD printed.
//!
//! The first byte chooses the version; the rest is the JSON of the previous result.

#![no_main]

use std::path::Path;

use serde_json::{Value, json};
use vswitch_cni::{
    Command, Error, NetConf, Plugged, PluggedIp, Previous, Route, SpecVersion, added,
    previous_of_add,
};

const IFNAME: &str = "eth0";
/// What ADD writes anew, or adds to.
const OURS: [&str; 5] = ["cniVersion", "interfaces", "ips", "routes", "dns"];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&number, text)) = input.split_first() else { return };
    let version = SpecVersion::ALL[usize::from(number) % SpecVersion::ALL.len()];
    let Ok(previous) = serde_json::from_slice::<Value>(text) else { return };
    // Its last digit may change when it is read; no field of a result has such a number.
    if has_fraction(&previous) {
        return;
    }

    let before = Previous::of(&conf(version, Command::Check, &previous), IFNAME);
    said(before.as_ref().err());
    let routes = before.as_ref().map_or(&[][..], |before| &before.routes);
    let plugged = Plugged {
        ifname: IFNAME,
        netns: Path::new("/run/netns/pod"),
        mac: "02:00:00:00:00:01".parse().expect("a MAC"),
        mtu: 1450,
        ips: &["198.18.1.5/32", "fd00::5/128"]
            .map(|address| PluggedIp { address: address.parse().expect("one"), gateway: None }),
        // What was read is written, too.
        routes,
        dns: None,
    };
    let conf_of_add = conf(version, Command::Add, &previous);
    let result = match previous_of_add(&conf_of_add) {
        Ok(before) => added(version, before, &plugged),
        Err(error) => {
            assert!(!previous.is_object(), "{error}");
            return said(Some(&error));
        }
    };
    keeps(&previous, &result);
    let after = Previous::of(&conf(version, Command::Check, &result), IFNAME);
    said(after.as_ref().err());
    checks(&previous, &before, &after, &plugged, version);
});

fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(values) => values.iter().any(has_fraction),
        Value::Object(fields) => fields.values().any(has_fraction),
        _ => false,
    }
}

/// A configuration that has this as `prevResult`.
fn conf(version: SpecVersion, command: Command, previous: &Value) -> NetConf {
    // There is no CHECK before, and what it reads is the same in all.
    let version = match command {
        Command::Check => version.max(SpecVersion::V0_4_0),
        _ => version,
    };
    let conf = json!({ "cniVersion": version.as_str(), "name": "n", "prevResult": previous });
    NetConf::parse(conf.to_string().as_bytes(), command).expect("the other keys are valid")
}

fn said(error: Option<&Error>) {
    assert!(error.is_none_or(|error| !error.to_string().is_empty()), "an error says what is wrong");
}

/// Nothing of the other plugins' is lost: keys stay, and lists get longer.
fn keeps(previous: &Value, result: &Value) {
    for (key, value) in previous.as_object().into_iter().flatten() {
        match (value, &result[key]) {
            (Value::Array(before), Value::Array(after))
                if OURS.contains(&&**key) && key != "dns" =>
            {
                assert_eq!(after[..before.len()], before[..], "{key} begins as it was");
            }
            (before, after) if !OURS.contains(&&**key) || key == "dns" => {
                assert_eq!(before, after, "{key} stays");
            }
            _ => {}
        }
    }
}

/// CHECK finds in the result what ADD made, unless another plugin's part cannot be read.
fn checks(
    previous: &Value,
    before: &Result<Previous, Error>,
    after: &Result<Previous, Error>,
    plugged: &Plugged<'_>,
    version: SpecVersion,
) {
    let lists = ["interfaces", "ips", "routes"];
    let has_lists = lists.iter().any(|key| previous.get(key).is_some_and(Value::is_array));
    match (before, after) {
        // Another plugin had made an interface of that name in the pod: the first one is looked at.
        (Ok(before), Ok(after)) => {
            assert_eq!(before.mac, after.mac);
            let routes: Vec<&Route> = before.routes.iter().chain(plugged.routes).collect();
            assert_eq!(after.routes.len(), routes.len());
            if version == SpecVersion::V1_1_0 {
                assert_eq!(after.routes.iter().collect::<Vec<_>>(), routes);
            }
        }
        (_, Ok(after)) => {
            assert_eq!(after.mac, Some(plugged.mac));
            for ip in plugged.ips {
                assert!(after.addresses.iter().any(|found| found.address == ip.address));
            }
        }
        (before, Err(error)) => {
            assert!(before.is_err(), "what could be read is spoiled: {error}");
            assert!(has_lists, "ADD printed what CHECK cannot read: {error}");
        }
    }
}
