//! JSON on stdout: the result of ADD, errors, the list of versions; and the same result as it comes
//! back in `prevResult`.

use std::net::IpAddr;
use std::path::Path;

use api::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::config::NetConf;
use crate::error::Error;
use crate::version::{Command, SpecVersion};

/// A route of a result, as IPAM plugins give it and as it is printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; the address's gateway if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// MTU, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Advertised MSS, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Routing table; the main one if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
}

impl Route {
    /// A route to `dst` by way of `gw`, in the main table.
    pub fn via(dst: IpNet, gw: Option<IpAddr>) -> Self {
        Self { dst, gw, mtu: None, advmss: None, priority: None, table: None }
    }
}

/// What ADD made.
pub struct Plugged<'a> {
    /// The pod's interface.
    pub ifname: &'a str,
    /// Path of its network namespace.
    pub netns: &'a Path,
    /// Its MAC.
    pub mac: Mac,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Its addresses.
    pub ips: &'a [PluggedIp],
    /// Routes by it.
    pub routes: &'a [Route],
    /// The pod's name servers, if the configuration has them.
    pub dns: Option<Value>,
}

/// An address of the pod's interface, and the gateway of its subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PluggedIp {
    /// The address, with the length of its prefix.
    pub address: IpNet,
    /// The gateway, if there is one.
    pub gateway: Option<IpAddr>,
}

/// The result of ADD, added to the previous plugin's if there was one. The vSwitch's side of the
/// attachment is a descriptor, so the pod's interface is the only one to list.
#[must_use]
pub fn added(
    version: SpecVersion,
    previous: Option<&Map<String, Value>>,
    plugged: &Plugged,
) -> Value {
    let mut result = previous.cloned().unwrap_or_default();
    result.insert("cniVersion".into(), version.as_str().into());

    let interfaces = list(&mut result, "interfaces");
    let index = interfaces.len();
    let mut interface = json!({
        "name": plugged.ifname,
        "mac": plugged.mac,
        "sandbox": plugged.netns,
    });
    if version >= SpecVersion::V1_1_0 {
        interface["mtu"] = plugged.mtu.into();
    }
    interfaces.push(interface);

    let ips = list(&mut result, "ips");
    for PluggedIp { address, gateway } in plugged.ips {
        let mut ip = json!({"address": address, "interface": index});
        if let Some(gateway) = gateway {
            ip["gateway"] = json!(gateway);
        }
        if version < SpecVersion::V1_0_0 {
            ip["version"] = if address.addr().is_ipv4() { "4" } else { "6" }.into();
        }
        ips.push(ip);
    }

    let routes = list(&mut result, "routes");
    for route in plugged.routes {
        // The other attributes are known since 1.1.0.
        let shown = match version {
            SpecVersion::V1_1_0 => route.clone(),
            _ => Route::via(route.dst, route.gw),
        };
        routes.push(json!(shown));
    }
    match &plugged.dns {
        Some(dns) => _ = result.insert("dns".into(), dns.clone()),
        None => _ = result.entry("dns").or_insert_with(|| json!({})),
    }
    Value::Object(result)
}

fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> &'a mut Vec<Value> {
    let value = result.entry(key).or_insert_with(|| json!([]));
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it was made a list where it was none")
}

/// The one of `addresses` that has the family of `address`.
pub(crate) fn of_family(addresses: &[IpAddr], address: IpAddr) -> Option<IpAddr> {
    addresses.iter().copied().find(|other| other.is_ipv4() == address.is_ipv4())
}

/// The previous plugin's result, to which ADD adds.
///
/// # Errors
/// `Invalid` if it is there and no object.
pub fn previous_of_add(conf: &NetConf) -> Result<Option<&Map<String, Value>>, Error> {
    match &conf.prev_result {
        None => Ok(None),
        Some(Value::Object(previous)) => Ok(Some(previous)),
        Some(other) => {
            Err(Error::Invalid(format!("`prevResult` is {other}; expected the result of an ADD")))
        }
    }
}

/// What CHECK reads in `prevResult`: that which concerns this attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// MAC of the pod's interface, if it is named.
    pub mac: Option<Mac>,
    /// Its addresses, and those of no interface.
    pub addresses: Vec<PreviousIp>,
    /// All routes.
    pub routes: Vec<Route>,
}

/// An address of a previous result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PreviousIp {
    /// The address, with the length of its prefix.
    pub address: IpNet,
    /// The gateway of its subnet.
    pub gateway: Option<IpAddr>,
    interface: Option<usize>,
}

#[derive(Deserialize)]
struct RawPrevious {
    #[serde(default)]
    interfaces: Vec<RawInterface>,
    #[serde(default)]
    ips: Vec<PreviousIp>,
    #[serde(default)]
    routes: Vec<Route>,
}

#[derive(Deserialize)]
struct RawInterface {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
}

impl Previous {
    /// Reads `prevResult` for the pod's interface `ifname`.
    ///
    /// # Errors
    /// `Invalid` or `Decode` if there is none, or none that names the interface.
    pub fn of(conf: &NetConf, ifname: &str) -> Result<Self, Error> {
        let Some(value) = conf.prev_result.as_ref().filter(|value| value.is_object()) else {
            return Err(Error::Invalid("CHECK needs `prevResult`, the result of the ADD".into()));
        };
        let raw = RawPrevious::deserialize(value)
            .map_err(|source| Error::Decode { what: "`prevResult`".into(), source })?;
        let ours =
            |interface: &RawInterface| interface.name == ifname && !interface.sandbox.is_empty();
        let Some(index) = raw.interfaces.iter().position(ours) else {
            return Err(Error::Invalid(format!(
                "`prevResult` names no interface {ifname} of a pod"
            )));
        };
        let mac = Some(raw.interfaces[index].mac.as_str()).filter(|mac| !mac.is_empty());
        let mac = mac.map(str::parse).transpose().map_err(|error: api::MacParseError| {
            Error::Invalid(format!("`prevResult`, interface {ifname}: {error}"))
        })?;
        let mut addresses = raw.ips;
        addresses.retain(|ip| ip.interface.is_none_or(|of| of == index));
        Ok(Self { mac, addresses, routes: raw.routes })
    }
}

/// A CNI error.
pub(crate) fn error(error: &Error, command: Option<Command>, version: Option<String>) -> Value {
    let text = |text: String| match command {
        // go-cni takes a failed DEL with these words in its error for a success, and the runtime then
        // forgets the pod while its address is still held.
        Some(Command::Del) => text.replace("not found", "absent"),
        _ => text,
    };
    let mut value = json!({
        "cniVersion": version.as_deref().unwrap_or(SpecVersion::LATEST.as_str()),
        "code": error.code(),
        "msg": text(error.to_string()),
    });
    let details = error.details();
    if !details.is_empty() {
        value["details"] = text(details).into();
    }
    value
}

/// The answer to VERSION.
pub(crate) fn versions() -> Value {
    json!({
        "cniVersion": SpecVersion::LATEST.as_str(),
        "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str),
    })
}

#[cfg(test)]
mod tests;
