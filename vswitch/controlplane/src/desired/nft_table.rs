//! The nftables table `inet vswitch`, as `nft` reads it.
//!
//! Enters: the configuration, the node's pod prefixes, the pods' port mappings, the other nodes. Leaves:
//! scripts that make the table, or change its elements, to `vswitchd`, which runs them.
//!
//! Pods that send to another node's underlay address are of two kinds. Towards one that is reached
//! through a tunnel they are masqueraded like all others: the underlay may drop a pod's address, and
//! the answer comes back to this node. One that is reached without may itself send to pods from its
//! underlay address, and its packets come to the pod past this node's kernel: the answers, of which
//! conntrack has seen no question, would be masqueraded (UDP) or be invalid to a firewall (TCP).
//! `compile::rib` therefore routes such addresses like the pods behind them, and they never come here:
//! an exception in these rules would cure the first, and not the second.
//!
//! The kernel translates what is sent to a Service, to a hostPort of a chained plugin, or to one of ours:
//! by kube-proxy's rules, the plugin's, or the maps here. If the endpoint is a pod, it answers some clients
//! past the kernel, untranslated, and the client would take that for a stranger's: pods of this node, which
//! it answers through the switch; pods and nodes that it answers by the NIC. Such connections come from the
//! address of the host port therefore, by the chain `services`, and so do those from a loopback address of
//! the node, which leads nowhere in a pod. Everybody else's keep their address.
//!
//! A pod that comes or goes with a hostPort, and a peer, change elements of maps and sets: `nft` adds and
//! deletes these alone, where the rest of the table is as it was.

mod elements;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use api::Encapsulate;
use ipnet::IpNet;

use super::translation::{Translations, translations};
use crate::compile::encapsulation::policy;
use crate::config::{Config, HostSettings, NodeSettings};
use crate::model::{Model, PodPrefixes};
pub use elements::Elements;

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
    /// Everything but the elements of maps and sets.
    frame: String,
    /// Ports of the node that lead to pods.
    translations: Translations,
    /// Addresses of nodes and routers that pods may answer past the kernel.
    direct: BTreeSet<IpAddr>,
}

impl NftTable {
    /// What translates and masquerades for this node; `None` if nothing is to be masqueraded.
    #[must_use]
    pub fn of(config: &Config, model: &Model) -> Option<Self> {
        let host = config.host.as_ref().filter(|host| host.masquerade)?;
        Some(Self {
            host_interface: host.interface.clone(),
            frame: frame(&config.node, host, &model.pods),
            translations: translations(model),
            direct: direct(config, model),
        })
    }

    /// The host port that the table belongs to.
    #[must_use]
    pub fn host_interface(&self) -> &str {
        &self.host_interface
    }

    /// Ports of the node that lead to pods.
    #[must_use]
    pub fn translations(&self) -> &Translations {
        &self.translations
    }

    /// What both have, by the rules of this one: while a change is under way.
    #[must_use]
    pub fn widened(&self, former: &Self) -> Self {
        let mut wide = self.clone();
        for (from, to) in &former.translations {
            wide.translations.entry(*from).or_insert(*to);
        }
        wide.direct.extend(&former.direct);
        wide
    }

    /// The input of `nft -f` that puts the table in place of the one that is there, in one
    /// transaction of the kernel's.
    #[must_use]
    pub fn script(&self) -> String {
        let elements = self.elements().commands(&Elements::default());
        // The first two lines remove the table whether or not it was there.
        format!("{TABLE}\ndelete {TABLE}\n{}{elements}", self.frame)
    }

    /// As `script`, where `former` is there; `None` if elements alone do not lead to this one.
    #[must_use]
    pub fn script_from(&self, former: &Self) -> Option<String> {
        (self.frame == former.frame).then(|| self.elements().commands(&former.elements()))
    }

    /// Elements of the maps and sets, as nft lists them.
    #[must_use]
    pub fn elements(&self) -> Elements {
        let mut elements = Elements::default();
        for (from, to) in &self.translations {
            elements.add_port(from, *to);
        }
        for address in &self.direct {
            elements.add_direct(*address);
        }
        elements
    }
}

/// Nodes and routers that may be reached without a tunnel: which of those for which the underlay decides
/// are so now makes no difference, as being masqueraded does no harm. A link-local address is nobody's
/// outside its link.
fn direct(config: &Config, model: &Model) -> BTreeSet<IpAddr> {
    if config.uplink.is_none() {
        return BTreeSet::new();
    }
    let peers = model.all_peers().filter(|peer| policy(config, peer) != Encapsulate::Always);
    let gateways = model.kernel.direct.keys().copied().filter(|gateway| match gateway {
        IpAddr::V4(v4) => !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    });
    peers.map(|peer| peer.address).chain(gateways).collect()
}

/// Nothing jumps to the chain `owner`: it names the table's owner. What the rules of others have translated
/// by then is left alone: kube-proxy's come first. What enters and leaves by the host port goes from pod to
/// pod, whatever its prefix. The kernel sends nothing from ::1 by another interface than lo.
fn frame(node: &NodeSettings, host: &HostSettings, pods: &PodPrefixes) -> String {
    let host_interface = &host.interface;
    let mut text = format!(
        "{TABLE} {{
{}  chain owner {{
    return {OWNER_MARK}{host_interface}\"
  }}
  chain host_ports {{
    dnat ip to ip daddr . meta l4proto . th dport map @host_ports4_at
    dnat ip to meta l4proto . th dport map @host_ports4
    dnat ip6 to ip6 daddr . meta l4proto . th dport map @host_ports6_at
    dnat ip6 to meta l4proto . th dport map @host_ports6
  }}
  chain prerouting {{
    type nat hook prerouting priority -90; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump host_ports
  }}
  chain output {{
    type nat hook output priority -90; policy accept;
    ip6 daddr ::1 return
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump host_ports
  }}
  chain services {{
    type nat hook postrouting priority 100; policy accept;
    iifname \"{host_interface}\" oifname \"{host_interface}\" ct status dnat counter masquerade
",
        elements::DECLARATIONS
    );
    for source in answered_past_the_kernel(node) {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "    {source} oifname \"{host_interface}\" ct status dnat counter masquerade"
        );
    }
    text.push_str(
        "  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
",
    );
    for prefix in pods.all() {
        let is_v4 = matches!(prefix, IpNet::V4(_));
        let family = if is_v4 { "ip" } else { "ip6" };
        let kept = set_of(&kept(node, host, is_v4));
        // A family without a cluster prefix has no pods.
        let kept = kept.map(|kept| format!(" {family} daddr != {kept}")).unwrap_or_default();
        let _ = writeln!(
            text,
            "    {family} saddr {prefix}{kept} oifname != \"{host_interface}\" counter masquerade"
        );
    }
    text.push_str("  }\n}\n");
    text
}

/// Matches of the sources whose translated connections come from the host port's address.
fn answered_past_the_kernel(node: &NodeSettings) -> Vec<String> {
    let mut sources = Vec::new();
    for (is_v4, family) in [(true, "ip"), (false, "ip6")] {
        let own = node.cluster_prefixes.iter().filter(|net| matches!(net, IpNet::V4(_)) == is_v4);
        let cluster = set_of(&apart(own.copied()));
        sources.extend(cluster.map(|cluster| format!("{family} saddr {cluster}")));
    }
    let more = ["ip saddr @direct4", "ip6 saddr @direct6", "ip saddr 127.0.0.0/8"];
    sources.extend(more.map(str::to_owned));
    sources
}

/// A set in nft's words, which is not empty.
fn set_of(nets: &[IpNet]) -> Option<String> {
    let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
    (!nets.is_empty()).then(|| format!("{{ {} }}", nets.join(", ")))
}

/// The destinations that see pods' own addresses.
fn kept(node: &NodeSettings, host: &HostSettings, is_v4: bool) -> Vec<IpNet> {
    let all = node.cluster_prefixes.iter().chain(&host.non_masquerade_prefixes);
    apart(all.filter(|prefix| matches!(prefix, IpNet::V4(_)) == is_v4).copied())
}

/// The widest of these: a set of nft's has no overlapping intervals.
fn apart(nets: impl Iterator<Item = IpNet>) -> Vec<IpNet> {
    let mut apart: Vec<IpNet> = Vec::new();
    for net in nets {
        if !apart.iter().any(|wider| wider.contains(&net)) {
            apart.retain(|narrower| !net.contains(narrower));
            apart.push(net);
        }
    }
    apart
}

#[cfg(test)]
mod tests;
