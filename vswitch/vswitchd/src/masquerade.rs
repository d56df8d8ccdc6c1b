//! The nftables table `inet vswitch`.
//!
//! Enters: the node's prefixes, the host port, and the destinations that are to see pods' own
//! addresses. Leaves: one table of our own, by way of `nft`; nobody else's rules are changed. A
//! table that an earlier daemon left is replaced in the same transaction, one that somebody else
//! made is never touched.
//!
//! Pods that speak to another node's underlay address are of two kinds. Towards one that is reached
//! through a tunnel they are masqueraded like all others: the underlay may drop a pod's address, and
//! the answer comes back to this node. One that is reached without may itself speak to pods from its
//! underlay address, and its packets come to the pod past this node's kernel: the answers, of which
//! conntrack has seen no question, would be masqueraded (UDP) or be invalid to a firewall (TCP).
//! `compile::rib` therefore routes such addresses like the pods behind them, and they never come here:
//! an exception in these rules would cure the first, and not the second.
//!
//! kube-proxy and the plugin `portmap` have the kernel translate what a pod sends to a Service or to a
//! hostPort. If the endpoint is a pod, its answer would go from pod to pod past the kernel, untranslated,
//! and the first pod would take it for a stranger's. Such connections come from the node's gateway address
//! therefore: by the chain `services`, whose counter is none of those that `Observed` adds up.

use std::fmt::Write as _;

use ipnet::IpNet;

use crate::error::{Error, Result};
use crate::nft::{self, Owner, TABLE};
use controlplane::config::{Host, Node};
use controlplane::model::PodPrefixes;

/// The rules in force. Dropping it removes them.
#[derive(Debug)]
pub struct Masquerade {
    host_interface: String,
    /// Others' chains that drop what they do not accept, when the rules were set.
    droppers: Vec<String>,
}

/// What the kernel says of the rules.
#[derive(Debug, PartialEq, Eq)]
pub struct Observed {
    /// Connections to the world that were masqueraded since the rules were set; `None` if the rules are
    /// gone.
    pub connections: Option<u64>,
    /// What keeps pods' packets from the world.
    pub problems: Vec<String>,
}

impl Masquerade {
    /// Masquerades what this node's pods send to the world outside the cluster.
    ///
    /// # Errors
    /// If `nft` is missing, the kernel refuses, or the table is somebody else's.
    pub fn install(node: &Node, host: &Host, pods: &PodPrefixes) -> Result<Self> {
        let droppers = set(node, host, pods)?;
        Ok(Self { host_interface: host.interface.clone(), droppers })
    }

    /// Replaces the rules by those for other prefixes, in one transaction of the kernel's.
    ///
    /// # Errors
    /// As for `install`; the old rules are in force then.
    pub fn update(&mut self, node: &Node, host: &Host, pods: &PodPrefixes) -> Result<()> {
        self.droppers = set(node, host, pods)?;
        Ok(())
    }

    /// Asks the kernel.
    #[must_use]
    pub fn observe(&self) -> Observed {
        let ours = nft::run("list chain inet vswitch postrouting\n");
        let connections = ours.ok().map(|listed| nft::counted(&listed));
        let host = &self.host_interface;
        let problem = |chain| {
            format!(
                "the firewall drops what nothing in its chain `{chain}` accepts: pods reach the world only if that accepts what comes by {host}, and the answers; once it does, or does not drop any more, `systemctl reload vswitchd` has it looked at again"
            )
        };
        let mut problems: Vec<_> = self.droppers.iter().map(problem).collect();
        if connections.is_none() {
            problems.push(format!(
                "the nftables {TABLE} is gone: pods reach neither the world nor kube-proxy's Services; `systemctl reload vswitchd` sets it again"
            ));
        }
        Observed { connections, problems }
    }

    /// Removes the table that a killed daemon left, if this one masquerades nothing.
    pub fn remove_leftover(host_interface: &str) {
        // Without nft there is nothing that it could have left.
        if let Ok(Owner::Us) = nft::owner(host_interface) {
            tracing::warn!("removing the nftables {TABLE}, which a killed daemon left");
            drop(Self { host_interface: host_interface.to_owned(), droppers: Vec::new() });
        }
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        let removed = nft::owner(&self.host_interface).and_then(|owner| match owner {
            Owner::Us => nft::run(&format!("delete {TABLE}\n")).map(drop),
            Owner::Nobody | Owner::Other(_) => Ok(()),
        });
        if let Err(error) = removed {
            tracing::warn!("the nftables {TABLE} stays behind: {error}");
        }
    }
}

/// The chains that drop what they do not accept are looked for here, not whenever somebody asks: on
/// a node with many services it takes nft a tenth of a second.
fn set(node: &Node, host: &Host, pods: &PodPrefixes) -> Result<Vec<String>> {
    if let Owner::Other(why) = nft::owner(&host.interface)? {
        return Err(Error::Masquerade(format!(
            "the nftables {TABLE} {why}; rename or remove it, or set host.masquerade = false"
        )));
    }
    nft::run(&rules(node, host, pods))?;
    Ok(nft::forward_droppers(&nft::run("list chains\n")?))
}

/// The first two lines remove the table whether or not it was there. The chain `services` knows neither
/// prefixes nor protocols: what enters and leaves by the host port goes from pod to pod.
fn rules(node: &Node, host: &Host, pods: &PodPrefixes) -> String {
    let mut text = format!("{TABLE}\ndelete {TABLE}\n{TABLE} {{\n");
    text.push_str(&nft::owner_chain(&host.interface));
    let host_interface = &host.interface;
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "  chain services {{
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
fn kept(node: &Node, host: &Host, is_v4: bool) -> Vec<IpNet> {
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
    use super::rules;
    use controlplane::config::Config;
    use controlplane::model::Model;

    const NODE: &str = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\", \"fd00:18:1::/64\"]\ncluster_prefixes = [\"198.18.0.0/16\", \"198.19.0.0/16\", \"fd00:18::/32\"]\n";

    fn rules_of(host: &str) -> String {
        let config = Config::parse("f", &format!("{NODE}[host]\n{host}\n")).expect("valid");
        let host = config.host.as_ref().expect("a host port");
        rules(&config.node, host, &Model::new(&config).pods)
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
