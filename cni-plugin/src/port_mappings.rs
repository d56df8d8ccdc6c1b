//! The capability `portMappings`: ports of the node that lead to the pod.
//!
//! Enters: `runtimeConfig.portMappings`, as the runtime gives it to every plugin that declares the
//! capability. Leaves: mappings for the daemon, which judges what it alone can: whether they are free, and
//! of the pod's families.

use std::net::IpAddr;

use api::{MAX_PORT_MAPPINGS, PortMapping, TransportProtocol};
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

/// One mapping, as the conventions of CNI have it; containerd writes the names of Go's fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawMapping {
    #[serde(alias = "HostPort")]
    host_port: Option<i64>,
    #[serde(alias = "ContainerPort")]
    container_port: Option<i64>,
    #[serde(alias = "Protocol")]
    protocol: Option<String>,
    #[serde(rename = "hostIP", alias = "HostIP")]
    host_ip: Option<String>,
}

/// Reads the mappings.
///
/// # Errors
/// `Invalid` for the first that no pod could have.
pub(crate) fn read(value: &Value) -> Result<Vec<PortMapping>, Error> {
    let invalid = |why: String| Error::Invalid(format!("`runtimeConfig.portMappings` {why}"));
    let Some(list) = value.as_array() else {
        return Err(invalid(format!("is {value}; expected a list")));
    };
    if list.len() > MAX_PORT_MAPPINGS {
        let count = list.len();
        return Err(invalid(format!("has {count} entries; a pod can have {MAX_PORT_MAPPINGS}")));
    }
    // No port of the node: kubelet has zero for it.
    let is_none = |entry: &&Value| {
        let host_port = entry.get("hostPort").or_else(|| entry.get("HostPort"));
        host_port.and_then(Value::as_i64) == Some(0)
    };
    list.iter()
        .filter(|entry| !is_none(entry))
        .map(|entry| mapping(entry).map_err(|why| invalid(format!("has {entry}: {why}"))))
        .collect()
}

fn mapping(entry: &Value) -> Result<PortMapping, String> {
    let raw = RawMapping::deserialize(entry).map_err(|error| error.to_string())?;
    let protocol = raw.protocol.as_deref().unwrap_or("tcp").to_ascii_lowercase();
    let protocol = match protocol.as_str() {
        "tcp" => TransportProtocol::Tcp,
        "udp" => TransportProtocol::Udp,
        "sctp" => TransportProtocol::Sctp,
        _ => return Err("protocol is to be tcp, udp or sctp".into()),
    };
    let host_ip = match raw.host_ip.as_deref().map(str::trim) {
        None | Some("") => None,
        Some(text) => Some(text.parse::<IpAddr>().map_err(|_| "hostIP is no address")?),
    };
    Ok(PortMapping {
        protocol,
        host_ip,
        host_port: port("hostPort", raw.host_port)?,
        container_port: port("containerPort", raw.container_port)?,
    })
}

fn port(key: &str, number: Option<i64>) -> Result<u16, String> {
    let number = number.ok_or_else(|| format!("{key} is missing"))?;
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{key} is to be 1 to 65535"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::read;

    fn shown(value: Value) -> Result<Vec<String>, String> {
        let mappings = read(&value).map_err(|error| error.to_string())?;
        Ok(mappings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn mappings_are_read_as_runtimes_write_them() {
        let mappings = json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "198.51.100.11"},
            {"hostPort": 9, "containerPort": 9, "protocol": "sctp", "hostIP": "2001:db8::11"},
            {"hostPort": 81, "containerPort": 81, "hostIP": "0.0.0.0", "range": 1},
            {"HostPort": 82, "ContainerPort": 81, "HostIP": "", "Protocol": "tcp"},
            {"hostPort": 0, "containerPort": 83}, {"HostPort": 0, "ContainerPort": 0},
        ]);
        let wanted = [
            "tcp 8080 -> 80",
            "udp 198.51.100.11:53 -> 5353",
            "sctp [2001:db8::11]:9 -> 9",
            "tcp 0.0.0.0:81 -> 81",
            "tcp 82 -> 81",
        ];
        assert_eq!(shown(mappings).expect("valid"), wanted);
    }

    #[test]
    fn what_no_pod_could_have_is_refused_with_the_entry() {
        let many: Vec<_> = (0..1025).map(|_| json!({"hostPort": 1, "containerPort": 1})).collect();
        let table = [
            (json!({}), "is {}; expected a list"),
            (json!([{"hostPort": 80, "containerPort": 0}]), "containerPort is to be 1 to 65535"),
            (json!([{"hostPort": 65536, "containerPort": 80}]), "hostPort is to be 1 to 65535"),
            (json!([{"hostPort": 80, "containerPort": -1}]), "containerPort is to be 1 to 65535"),
            (json!([{"hostPort": 80}]), "containerPort is missing"),
            (json!([{"hostPort": "80", "containerPort": 80}]), "invalid type"),
            (
                json!([{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]),
                "protocol is to be tcp, udp or sctp",
            ),
            (
                json!([{"hostPort": 80, "containerPort": 80, "hostIP": "node-a"}]),
                "hostIP is no address",
            ),
            (json!(["80:80"]), "invalid type"),
            (json!(many), "has 1025 entries; a pod can have 1024"),
        ];
        for (value, why) in table {
            let error = shown(value.clone()).expect_err("invalid");
            assert!(error.starts_with("`runtimeConfig.portMappings` "), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }
}
