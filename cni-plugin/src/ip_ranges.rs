//! The capability `ipRanges`, where the daemon allocates: parts of the node's prefixes that a pod's addresses are
//! to be of. A delegated IPAM plugin reads the capability itself.
//!
//! Enters: `runtimeConfig.ipRanges`, as the conventions of CNI and `host-local` have it. Leaves: ranges for the
//! daemon, which judges whether they are of this node; and what its answer has to be like.

use std::net::IpAddr;

use api::{AddressRange, Reserved};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Error;

/// What the capability asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IpRanges {
    /// Ranges, of which each address that the pod gets of their family is to be.
    pub ranges: Vec<AddressRange>,
    /// Gateways that they name.
    pub gateways: Vec<IpAddr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawRange {
    subnet: IpNet,
    #[serde(default)]
    range_start: Option<String>,
    #[serde(default)]
    range_end: Option<String>,
    #[serde(default)]
    gateway: Option<String>,
}

impl IpRanges {
    /// Reads the capability: a list of sets, of each of which a pod gets one address.
    ///
    /// # Errors
    /// `Invalid` for what is no range, and for two sets of a family: a pod gets one address of each.
    pub(crate) fn read(value: &Value) -> Result<Self, Error> {
        let invalid = |why: String| Error::Invalid(format!("`runtimeConfig.ipRanges` {why}"));
        let sets = Vec::<Vec<RawRange>>::deserialize(value)
            .map_err(|error| invalid(format!("is {value}: {error}")))?;
        let mut read = Self::default();
        for set in sets {
            let former = read.ranges.len();
            for raw in set {
                let (range, gateway) = range(&raw).map_err(&invalid)?;
                read.ranges.push(range);
                read.gateways.extend(gateway);
            }
            let (others, this) = read.ranges.split_at(former);
            let is_v4 = |range: &AddressRange| range.first.is_ipv4();
            let Some(family) = this.first().map(is_v4) else { continue };
            if this.iter().any(|range| is_v4(range) != family) {
                return Err(invalid("has a set with ranges of both families".into()));
            }
            if others.iter().any(|range| is_v4(range) == family) {
                return Err(invalid(
                    "has two sets of one family; a pod gets at most one address a family".into(),
                ));
            }
        }
        Ok(read)
    }

    /// Compares what was reserved with what was asked for.
    ///
    /// # Errors
    /// `Invalid` for an address of no range: the daemon is an older one. `Invalid` for a gateway that is none of
    /// this node.
    pub(crate) fn confirm(&self, reserved: &Reserved) -> Result<(), Error> {
        for address in reserved.addresses.iter().map(IpNet::addr) {
            let mut of_family =
                self.ranges.iter().filter(|range| range.is_of_family(address)).peekable();
            if of_family.peek().is_some() && !of_family.any(|range| range.contains(address)) {
                return Err(Error::Invalid(
                    "the vswitchd that runs is an older one, which knows no `ipRanges`; restart it as the version of this plugin".into(),
                ));
            }
        }
        let is_foreign = |gateway: &&IpAddr| !reserved.gateways.contains(gateway);
        match self.gateways.iter().find(is_foreign) {
            None => Ok(()),
            Some(gateway) => Err(Error::Invalid(format!(
                "`runtimeConfig.ipRanges` has the gateway {gateway}; a pod of this node has {}, or leave the gateway out",
                reserved.gateways.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
            ))),
        }
    }
}

fn range(raw: &RawRange) -> Result<(AddressRange, Option<IpAddr>), String> {
    let subnet = raw.subnet.trunc();
    let address = |key: &str, text: Option<&str>| match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<IpAddr>() {
            Ok(address) if subnet.contains(&address) => Ok(Some(address)),
            _ => Err(format!("has {key} {text:?}, which is no address of {subnet}")),
        },
    };
    let first = address("rangeStart", raw.range_start.as_deref())?;
    let last = address("rangeEnd", raw.range_end.as_deref())?;
    let range = AddressRange {
        first: first.unwrap_or(subnet.network()),
        last: last.unwrap_or(subnet.broadcast()),
    };
    if range.first > range.last {
        return Err(format!("has {range}, which is no range"));
    }
    Ok((range, address("gateway", raw.gateway.as_deref())?))
}

#[cfg(test)]
mod tests {
    use api::{Bandwidth, Mac, Mode, Reserved};
    use serde_json::{Value, json};

    use super::IpRanges;

    fn read(value: Value) -> Result<IpRanges, String> {
        IpRanges::read(&value).map_err(|error| format!("{} {error}", error.code()))
    }

    fn shown(value: Value) -> Vec<String> {
        let ranges = read(value).expect("valid").ranges;
        ranges.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn sets_are_read_as_runtimes_write_them() {
        let sets = json!([
            [
                {"subnet": "198.18.1.64/26"},
                {"subnet": "198.18.1.0/24", "rangeStart": "198.18.1.10", "rangeEnd": "198.18.1.20"},
            ],
            [{"subnet": "fd00:18:1::/64", "rangeStart": "", "rangeEnd": "fd00:18:1::ff"}],
        ]);
        let ranges = [
            "198.18.1.64 to 198.18.1.127",
            "198.18.1.10 to 198.18.1.20",
            "fd00:18:1:: to fd00:18:1::ff",
        ];
        assert_eq!(shown(sets), ranges);
        assert_eq!(shown(json!([[], []])), [""; 0]);
    }

    #[test]
    fn what_is_no_range_is_refused_by_name() {
        let of = |range: Value| json!([[range]]);
        let subnet = "198.18.1.0/24";
        let table = [
            (json!("198.18.1.0/24"), "is \"198.18.1.0/24\": invalid type"),
            (of(json!({})), "is [[{}]]: missing field `subnet`"),
            (
                of(json!({"subnet": subnet, "rangeStart": "198.18.2.1"})),
                "has rangeStart \"198.18.2.1\", which is no address of 198.18.1.0/24",
            ),
            (
                of(json!({"subnet": subnet, "rangeEnd": "x"})),
                "has rangeEnd \"x\", which is no address of 198.18.1.0/24",
            ),
            (
                of(json!({"subnet": subnet, "rangeStart": "198.18.1.9", "rangeEnd": "198.18.1.8"})),
                "has 198.18.1.9 to 198.18.1.8, which is no range",
            ),
            (
                json!([[{"subnet": subnet}], [{"subnet": subnet}]]),
                "has two sets of one family; a pod gets at most one address a family",
            ),
            (
                json!([[{"subnet": subnet}, {"subnet": "fd00::/64"}]]),
                "has a set with ranges of both families",
            ),
        ];
        for (value, why) in table {
            let refused = read(value).expect_err("refused");
            assert!(refused.starts_with(&format!("7 `runtimeConfig.ipRanges` {why}")), "{refused}");
        }
    }

    #[test]
    fn an_answer_that_does_not_keep_to_them_is_no_answer() {
        let reserved = |address: &str| Reserved {
            addresses: [address, "fd00::7/128"].map(|a| a.parse().expect("a prefix")).to_vec(),
            gateways: ["198.18.1.1", "fd00::1"].map(|a| a.parse().expect("an address")).to_vec(),
            gateway_mac: Mac([2, 0, 0, 0, 0, 1]),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            mtu: 1450,
            mode: Mode::Routed,
            port_mappings: Vec::new(),
            bandwidth: Bandwidth::default(),
            queues: 1,
        };
        let asked = |gateway: &str| {
            read(json!([[{"subnet": "198.18.1.64/26"}, {"subnet": "198.18.1.0/24",
                "rangeStart": "198.18.1.9", "rangeEnd": "198.18.1.9", "gateway": gateway}]]))
            .expect("valid")
        };
        for address in ["198.18.1.9/32", "198.18.1.127/24"] {
            assert!(asked("198.18.1.1").confirm(&reserved(address)).is_ok());
        }
        let older = asked("").confirm(&reserved("198.18.1.8/32")).expect_err("in no range");
        assert!(older.to_string().contains("is an older one"), "{older}");
        let foreign = asked("198.18.1.254").confirm(&reserved("198.18.1.9/32"));
        assert_eq!(
            foreign.expect_err("no gateway").to_string(),
            "`runtimeConfig.ipRanges` has the gateway 198.18.1.254; a pod of this node has 198.18.1.1 and fd00::1, or leave the gateway out"
        );
    }
}
