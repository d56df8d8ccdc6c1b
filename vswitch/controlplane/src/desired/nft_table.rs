//! The nftables table `inet vswitch`, as `nft` reads it.
//!
//! Enters: the configuration and the node's pod prefixes. Leaves: the script that makes the table, to
//! `vswitchd`, which runs it.
//!
//! Pods that send to another node's underlay address are of two kinds. Towards one that is reached
//! through a tunnel they are masqueraded like all others: the underlay may drop a pod's address, and
//! the answer comes back to this node. One that is reached without may itself send to pods from its
//! underlay address, and its packets come to the pod past this node's kernel: the answers, of which
//! conntrack has seen no question, would be masqueraded (UDP) or be invalid to a firewall (TCP).
//! `compile::rib` therefore routes such addresses like the pods behind them, and they never come here:
//! an exception in these rules would cure the first, and not the second.
//!
//! kube-proxy and the plugin `portmap` have the kernel translate what a pod sends to a Service or to a
//! hostPort. If the endpoint is a pod, its answer would go from pod to pod past the kernel, untranslated,
//! and the first pod would take it for a stranger's. Such connections come from the node's gateway address
//! therefore: by the chain `services`; its counter is none of those of masqueraded connections.

use std::fmt::Write as _;

use ipnet::IpNet;

use crate::config::{Config, HostSettings, NodeSettings};
use crate::model::{Model, PodPrefixes};

/// Name of the table.
pub const NAME: &str = "vswitch";

/// Name and family of the table, as `nft` writes them.
pub const TABLE: &str = "table inet vswitch";

/// The comment that the table is known by, as `nft` lists it, up to the host port's name.
pub const OWNER_MARK: &str = "comment \"vswitchd, host port ";

/// The table, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NftTable {
    host_interface: String,
    script: String,
}

impl NftTable {
    /// What masquerades for this node; `None` if nothing is to be masqueraded.
    #[must_use]
    pub fn of(config: &Config, model: &Model) -> Option<Self> {
        let host = config.host.as_ref().filter(|host| host.masquerade)?;
        let script = script(&config.node, host, &model.pods);
        Some(Self { host_interface: host.interface.clone(), script })
    }

    /// The host port that the table belongs to.
    #[must_use]
    pub fn host_interface(&self) -> &str {
        &self.host_interface
    }

    /// The input of `nft -f` that puts the table in place of the one that is there, in one
    /// transaction of the kernel's.
    #[must_use]
    pub fn script(&self) -> &str {
        &self.script
    }
}

/// The first two lines remove the table whether or not it was there. Nothing jumps to the chain `owner`:
/// it names the table's owner. The chain `services` knows neither
/// prefixes nor protocols: what enters and leaves by the host port goes from pod to pod.
fn script(node: &NodeSettings, host: &HostSettings, pods: &PodPrefixes) -> String {
    let mut text = format!("{TABLE}\ndelete {TABLE}\n{TABLE} {{\n");
    let host_interface = &host.interface;
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "  chain owner {{
    return {OWNER_MARK}{host_interface}\"
  }}
  chain services {{
    type nat hook postrouting priority 100; policy accept;
    iifname \"{host_interface}\" oifname \"{host_interface}\" ct status dnat counter masquerade
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
"
    );
    for prefix in pods.all() {
        let is_v4 = matches!(prefix, IpNet::V4(_));
        let family = if is_v4 { "ip" } else { "ip6" };
        let kept = kept(node, host, is_v4);
        let kept = kept.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        // A set is not empty, and a family without a cluster prefix has no pods.
        let kept = if kept.is_empty() {
            String::new()
        } else {
            format!(" {family} daddr != {{ {kept} }}")
        };
        let _ = writeln!(
            text,
            "    {family} saddr {prefix}{kept} oifname != \"{host_interface}\" counter masquerade"
        );
    }
    text.push_str("  }\n}\n");
    text
}

/// The destinations that see pods' own addresses. A set of nft's has no overlapping intervals.
fn kept(node: &NodeSettings, host: &HostSettings, is_v4: bool) -> Vec<IpNet> {
    let of_family = |prefix: &&IpNet| matches!(prefix, IpNet::V4(_)) == is_v4;
    let all = node.cluster_prefixes.iter().chain(&host.non_masquerade_prefixes);
    let mut kept: Vec<IpNet> = Vec::new();
    for prefix in all.filter(of_family) {
        if !kept.iter().any(|wider| wider.contains(prefix)) {
            kept.retain(|narrower| !prefix.contains(narrower));
            kept.push(*prefix);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::NftTable;
    use crate::config::Config;
    use crate::model::Model;

    const NODE: &str = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\", \"fd00:18:1::/64\"]\ncluster_prefixes = [\"198.18.0.0/16\", \"198.19.0.0/16\", \"fd00:18::/32\"]\n";

    fn rules_of(host: &str) -> String {
        let config = Config::parse("f", &format!("{NODE}[host]\n{host}\n")).expect("valid");
        let table = NftTable::of(&config, &Model::new(&config)).expect("masquerading");
        table.script().to_owned()
    }

    #[test]
    fn a_node_that_masquerades_nothing_has_no_table() {
        let config = format!("{NODE}[host]\nmasquerade = false\n");
        let config = Config::parse("f", &config).expect("valid");
        assert_eq!(NftTable::of(&config, &Model::new(&config)), None);
    }

    #[test]
    fn each_family_is_masqueraded_to_outside_of_its_own_cluster_prefixes() {
        assert_eq!(
            rules_of(""),
            "table inet vswitch
delete table inet vswitch
table inet vswitch {
  chain owner {
    return comment \"vswitchd, host port vsw0\"
  }
  chain services {
    type nat hook postrouting priority 100; policy accept;
    iifname \"vsw0\" oifname \"vsw0\" ct status dnat counter masquerade
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 198.18.1.0/24 ip daddr != { 198.18.0.0/16, 198.19.0.0/16 } oifname != \"vsw0\" counter masquerade
    ip6 saddr fd00:18:1::/64 ip6 daddr != { fd00:18::/32 } oifname != \"vsw0\" counter masquerade
  }
}
"
        );
    }

    #[test]
    fn further_destinations_see_pods_addresses_and_none_is_named_twice() {
        let text = rules_of(
            "non_masquerade_prefixes = [\"198.18.7.0/24\", \"203.0.113.128/25\", \"203.0.113.0/24\", \"2001:db8::/32\"]",
        );
        assert!(
            text.contains("ip daddr != { 198.18.0.0/16, 198.19.0.0/16, 203.0.113.0/24 } oifname"),
            "{text}"
        );
        assert!(text.contains("ip6 daddr != { fd00:18::/32, 2001:db8::/32 } oifname"), "{text}");
    }
}
