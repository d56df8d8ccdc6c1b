//! What the runtime asks for this pod: addresses, MAC, names. Three sources, the later wins:
//! CNI_ARGS, the configuration's `args.cni`, and the capabilities in its `runtimeConfig`. Limits of its
//! traffic have an order of their own (`bandwidth`).

use std::net::IpAddr;

use api::{Bandwidth, MAX_QUEUES, Mac, PodName, PortMapping};
use ipnet::IpNet;
use serde_json::Value;

use crate::bandwidth;
use crate::config::{IpamChoice, NetConf};
use crate::error::Error;
use crate::ip_ranges::IpRanges;
use crate::port_mappings;

/// Capabilities that are for another plugin, or for none: they need a refusal, as a pod whose device was
/// dropped silently is worse than one that did not start.
const UNSUPPORTED: [&str; 2] = ["infinibandGUID", "deviceID"];

/// Wishes of the runtime for one attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// K8S_POD_NAMESPACE, K8S_POD_NAME and K8S_POD_UID.
    pub pod: Option<PodName>,
    /// K8S_POD_NAME, where it comes without a namespace.
    pub container_name: Option<String>,
    /// Addresses that the pod must get, at most one a family.
    pub addresses: Vec<IpAddr>,
    /// The `ipRanges` capability, where the daemon allocates: a delegated plugin reads it itself.
    pub ip_ranges: IpRanges,
    /// MAC of the pod's interface.
    pub mac: Option<Mac>,
    /// The `dns` capability.
    pub dns: Option<Value>,
    /// The `portMappings` capability.
    pub port_mappings: Vec<PortMapping>,
    /// Limits of the pod's traffic.
    pub bandwidth: Bandwidth,
    /// Queues of the pod's interface: `queues` of the configuration, and of its `args.cni` for one pod alone.
    pub queues: u8,
}

impl Wanted {
    /// Collects the wishes; keys that are unknown here are ignored.
    ///
    /// # Errors
    /// `Env` for malformed CNI_ARGS, `Unsupported` for a capability that cannot be honoured, and
    /// `Invalid` for a wish that makes no sense.
    pub fn new(conf: &NetConf, cni_args: &str) -> Result<Self, Error> {
        let runtime = conf.runtime_config.as_ref();
        refuse_unsupported(runtime)?;
        let of_args = |key: &str| conf.args.as_ref()?.get("cni")?.get(key);
        let of_runtime = |key: &str| runtime?.get(key);

        let (mut namespace, mut name, mut uid) = (None, None, None);
        let (mut addresses, mut mac) = (Vec::new(), None);
        for pair in cni_args.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(Error::Env(format!("CNI_ARGS has {pair:?}; expected KEY=VALUE")));
            };
            match key {
                "K8S_POD_NAMESPACE" => namespace = Some(value.to_owned()),
                "K8S_POD_NAME" => name = Some(value.to_owned()),
                "K8S_POD_UID" => uid = Some(value.to_owned()),
                "IP" => addresses = value.split(',').map(str::to_owned).collect(),
                "MAC" => mac = Some(value.to_owned()),
                _ => {}
            }
        }
        for (from, ips) in
            [("args.cni.ips", of_args("ips")), ("runtimeConfig.ips", of_runtime("ips"))]
        {
            if let Some(ips) = ips.filter(|ips| is_given(ips)) {
                addresses = strings(from, ips)?;
            }
        }
        for (from, value) in
            [("args.cni.mac", of_args("mac")), ("runtimeConfig.mac", of_runtime("mac"))]
        {
            if let Some(value) = value.filter(|value| is_given(value)) {
                let Some(text) = value.as_str() else {
                    return Err(Error::Invalid(format!("`{from}` is {value}; expected a string")));
                };
                mac = Some(text.to_owned());
            }
        }
        let (pod, container_name) = match (namespace, name) {
            (Some(namespace), Some(name)) => (Some(PodName { namespace, name, uid }), None),
            // podman names its container so.
            (None, name) => (None, name.filter(|name| !name.is_empty())),
            (Some(_), None) => (None, None),
        };
        Ok(Self {
            pod,
            container_name,
            addresses: one_a_family(&addresses)?,
            ip_ranges: match of_runtime("ipRanges").filter(|ranges| is_given(ranges)) {
                Some(ranges) if conf.ipam == IpamChoice::Own => IpRanges::read(ranges)?,
                _ => IpRanges::default(),
            },
            mac: mac.filter(|mac| !mac.is_empty()).map(|mac| unicast(&mac)).transpose()?,
            dns: of_runtime("dns").filter(|dns| is_given(dns)).cloned(),
            port_mappings: port_mappings(conf)?,
            bandwidth: bandwidth::wanted(conf.bandwidth.as_ref(), of_runtime("bandwidth"))?,
            queues: queues(conf.queues.as_ref(), of_args("queues"))?,
        })
    }
}

fn queues(of_network: Option<&Value>, of_pod: Option<&Value>) -> Result<u8, Error> {
    let named = [("queues", of_network), ("args.cni.queues", of_pod)];
    let mut wanted = 1;
    for (from, value) in named {
        let Some(value) = value.filter(|value| !value.is_null()) else { continue };
        let count = value.as_u64().and_then(|count| u8::try_from(count).ok());
        let count = count.filter(|count| (1..=MAX_QUEUES).contains(count));
        wanted = count.ok_or_else(|| {
            Error::Invalid(format!(
                "`{from}` is {value}; expected a whole number from 1 to {MAX_QUEUES}: the queues of the pod's interface"
            ))
        })?;
    }
    Ok(wanted)
}

/// Ports of the node that are to lead to the pod.
///
/// # Errors
/// `Invalid` for the first that no pod could have.
pub(crate) fn port_mappings(conf: &NetConf) -> Result<Vec<PortMapping>, Error> {
    let given = conf.runtime_config.as_ref().and_then(|runtime| runtime.get("portMappings"));
    given.filter(|value| is_given(value)).map_or(Ok(Vec::new()), port_mappings::read)
}

/// Runtimes send a capability that is not used as null, as zero, as what has zeros alone, or as what is empty.
pub(crate) fn is_given(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is_set) => *is_set,
        Value::Number(number) => number.as_f64() != Some(0.0),
        // Zeros of a MAC or a GUID.
        Value::String(text) => text.chars().any(|char| !matches!(char, '0' | ':')),
        Value::Array(list) => list.iter().any(is_given),
        Value::Object(object) => object.values().any(is_given),
    }
}

fn refuse_unsupported(runtime: Option<&Value>) -> Result<(), Error> {
    for key in UNSUPPORTED {
        if let Some(value) = runtime.and_then(|r| r.get(key)).filter(|value| is_given(value)) {
            return Err(Error::Unsupported {
                key: format!("runtimeConfig.{key}"),
                value: value.to_string(),
            });
        }
    }
    Ok(())
}

fn strings(from: &str, value: &Value) -> Result<Vec<String>, Error> {
    let list = value.as_array().and_then(|list| {
        list.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    list.ok_or_else(|| Error::Invalid(format!("`{from}` is {value}; expected a list of strings")))
}

fn one_a_family(texts: &[String]) -> Result<Vec<IpAddr>, Error> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        // With or without the length of its prefix, which is the daemon's to set.
        let address = text
            .parse::<IpAddr>()
            .or_else(|_| text.parse::<IpNet>().map(|net| net.addr()))
            .map_err(|_| Error::Invalid(format!("{text:?} was asked for, which is no address")))?;
        if addresses.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
            return Err(Error::Invalid(format!(
                "{} were asked for; a pod gets at most one address a family",
                texts.join(", ")
            )));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn unicast(text: &str) -> Result<Mac, Error> {
    let mac: Mac =
        text.parse().map_err(|error| Error::Invalid(format!("MAC asked for: {error}")))?;
    if mac.0[0] & 1 != 0 || mac.0 == [0; 6] {
        return Err(Error::Invalid(format!(
            "MAC {mac} was asked for, which no interface can have"
        )));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Wanted;
    use crate::config::NetConf;
    use crate::error::Error;
    use crate::version::Command;

    fn wanted(more: Value, cni_args: &str) -> Result<Wanted, Error> {
        let mut conf = json!({"cniVersion": "1.0.0", "name": "pods"});
        conf.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        let conf = NetConf::parse(conf.to_string().as_bytes(), Command::Add).expect("valid");
        Wanted::new(&conf, cni_args)
    }

    #[test]
    fn the_pods_name_comes_from_cni_args_and_other_keys_are_ignored() {
        let args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;FOO=a=b";
        let pod = wanted(json!({}), args).expect("valid").pod.expect("named");
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("default", "web"));
        assert_eq!(pod.uid, None, "older runtimes give none");
        let args = format!("{args};K8S_POD_UID=4a5e");
        let pod = wanted(json!({}), &args).expect("valid").pod.expect("named");
        assert_eq!(pod.uid.as_deref(), Some("4a5e"));
        let of_podman = wanted(json!({}), "IgnoreUnknown=1;K8S_POD_NAME=db").expect("valid");
        assert_eq!((of_podman.pod, of_podman.container_name.as_deref()), (None, Some("db")));
    }

    #[test]
    fn args_win_over_cni_args_and_capabilities_over_both() {
        let environment = "IP=198.18.1.7;MAC=02:00:00:00:00:07";
        let args = json!({"cni": {"ips": ["198.18.1.8"], "mac": "02:00:00:00:00:08"}});
        let runtime = json!({"ips": ["198.18.1.9/24", "fd00::9"], "mac": "02:00:00:00:00:09"});
        let table = [
            (json!({}), vec!["198.18.1.7"], "02:00:00:00:00:07"),
            (json!({"args": args}), vec!["198.18.1.8"], "02:00:00:00:00:08"),
            (
                json!({"args": args, "runtimeConfig": runtime}),
                vec!["198.18.1.9", "fd00::9"],
                "02:00:00:00:00:09",
            ),
            (
                json!({"runtimeConfig": {"ips": [], "mac": ""}}),
                vec!["198.18.1.7"],
                "02:00:00:00:00:07",
            ),
        ];
        for (conf, addresses, mac) in table {
            let wanted = wanted(conf.clone(), environment).expect("valid");
            let have: Vec<_> = wanted.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(have, addresses, "{conf}");
            assert_eq!(wanted.mac.map(|m| m.to_string()).as_deref(), Some(mac), "{conf}");
        }
    }

    #[test]
    fn wishes_that_make_no_sense_are_refused() {
        let table = [
            (json!({}), "IP", 4),
            (json!({}), "IP=nowhere", 7),
            (json!({}), "IP=198.18.1.1,198.18.1.2", 7),
            (json!({}), "MAC=01:00:5e:00:00:01", 7),
            (json!({}), "MAC=00:00:00:00:00:00", 7),
            (json!({"args": {"cni": {"ips": "198.18.1.1"}}}), "", 7),
            (json!({"runtimeConfig": {"mac": 5}}), "", 7),
            (json!({"runtimeConfig": {"portMappings": [{"hostPort": 80}]}}), "", 7),
            (json!({"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}), "", 7),
            (json!({"ingressRate": "fast"}), "", 7),
            (json!({"runtimeConfig": {"ipRanges": [[{"rangeStart": "198.18.1.9"}]]}}), "", 7),
            (json!({"runtimeConfig": {"deviceID": "0000:3b:02.1"}}), "", 2),
            (json!({"runtimeConfig": {"infinibandGUID": "c2:11:22:33:44:55:66:77"}}), "", 2),
        ];
        for (conf, args, code) in table {
            let error = wanted(conf.clone(), args).expect_err("refused");
            assert_eq!(error.code(), code, "{conf} {args}: {error}");
        }
    }

    #[test]
    fn capabilities_that_are_unused_or_for_the_delegate_are_no_obstacle() {
        let plain = wanted(json!({}), "").expect("valid");
        let zero_rates =
            json!({"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0});
        for conf in [
            json!({"runtimeConfig": {"portMappings": [], "bandwidth": {}, "aliases": {"n": ["a"]}}}),
            json!({"runtimeConfig": {
                "bandwidth": zero_rates, "mac": "00:00:00:00:00:00", "ips": [""], "dns": {"servers": []},
                "portMappings": [{"hostPort": 0, "containerPort": 80}], "ipRanges": [[], [{}]],
                "deviceID": "", "infinibandGUID": "00:00:00:00:00:00:00:00",
            }}),
            json!({"runtimeConfig": {
                "portMappings": null, "bandwidth": null, "mac": null, "ips": null, "ipRanges": null,
                "dns": null, "deviceID": null, "infinibandGUID": null,
            }}),
            json!({"runtimeConfig": {
                "cgroupPath": "/kubepods/pod1", "io.kubernetes.cri.pod-annotations": {"a": "b"},
            }}),
            json!({"ipam": {"type": "host-local"}, "runtimeConfig": {"ipRanges": [[{"subnet": "198.19.0.0/24"}]]}}),
        ] {
            assert_eq!(wanted(conf.clone(), "").expect("valid"), plain, "{conf}");
        }
    }
}
