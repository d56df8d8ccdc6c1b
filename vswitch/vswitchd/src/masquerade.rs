//! The nftables table `inet vswitch`.
//!
//! Enters: the node's prefixes and the host port's name. Leaves: one table of our own with one
//! chain, by way of `nft -f -`; nobody else's rules are read or written. A table that an earlier
//! daemon left is replaced in the same transaction.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use ipnet::IpNet;

use crate::config::Node;
use crate::error::{Error, Result};
use crate::model::PodPrefixes;

/// The rules in force. Dropping it removes them.
#[derive(Debug)]
pub struct Masquerade(());

impl Masquerade {
    /// Masquerades what this node's pods send to the world outside the cluster.
    ///
    /// # Errors
    /// If `nft` is missing, or the kernel refuses.
    pub fn install(node: &Node, pods: &PodPrefixes, host_interface: &str) -> Result<Self> {
        nft(&rules(node, pods, host_interface))?;
        Ok(Self(()))
    }

    /// Replaces the rules by those for other prefixes, in one transaction of the kernel's.
    ///
    /// # Errors
    /// If the kernel refuses; the old rules are in force then.
    pub fn update(&self, node: &Node, pods: &PodPrefixes, host_interface: &str) -> Result<()> {
        nft(&rules(node, pods, host_interface)).map(drop)
    }

    /// Removes the table that a killed daemon left, if this one masquerades nothing. It is known by
    /// the host interface that it names: that is ours alone now, so nobody who lives made the table.
    pub fn remove_leftover(host_interface: &str) {
        // Without nft, or without a table, there is nothing that it could have left.
        let Ok(listed) = nft("list table inet vswitch\n") else { return };
        if listed.contains(&format!("oifname != \"{host_interface}\"")) {
            tracing::warn!("removing the nftables table inet vswitch, which a killed daemon left");
            drop(Self(()));
        }
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        if let Err(error) = nft("table inet vswitch\ndelete table inet vswitch\n") {
            tracing::warn!("nft table inet vswitch stays behind: {error}");
        }
    }
}

/// The first two lines remove the table whether or not it was there.
fn rules(node: &Node, pods: &PodPrefixes, host_interface: &str) -> String {
    let mut text = String::from("table inet vswitch\ndelete table inet vswitch\n");
    text.push_str("table inet vswitch {\n  chain postrouting {\n");
    text.push_str("    type nat hook postrouting priority 100; policy accept;\n");
    for prefix in pods.all() {
        let is_v4 = matches!(prefix, IpNet::V4(_));
        let family = if is_v4 { "ip" } else { "ip6" };
        let cluster: Vec<_> = node
            .cluster_prefixes
            .iter()
            .filter(|cluster| matches!(cluster, IpNet::V4(_)) == is_v4)
            .map(ToString::to_string)
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "    {family} saddr {prefix} {family} daddr != {{ {} }} oifname != \"{host_interface}\" masquerade",
            cluster.join(", ")
        );
    }
    text.push_str("  }\n}\n");
    text
}

/// What nft printed.
fn nft(input: &str) -> Result<String> {
    let failed = |why: String| Error::Masquerade(why);
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed(
                "the program `nft` is missing; install nftables, or set host.masquerade = false"
                    .into(),
            ),
            _ => failed(format!("cannot run nft: {error}")),
        })?;
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    // An nft that ends early says why on its stderr.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child
        .wait_with_output()
        .map_err(|error| failed(format!("cannot wait for nft: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("nft says: {}", said.trim().replace('\n', "; "))))
}

#[cfg(test)]
mod tests {
    use super::rules;
    use crate::config::Config;
    use crate::model::Model;

    #[test]
    fn each_family_is_masqueraded_to_outside_of_its_own_cluster_prefixes() {
        let text = "[node]\nname = \"a\"\npod_prefixes = [\"198.18.1.0/24\", \"fd00:18:1::/64\"]\ncluster_prefixes = [\"198.18.0.0/16\", \"198.19.0.0/16\", \"fd00:18::/32\"]\n";
        let config = Config::parse("f", text).expect("valid");
        let pods = Model::new(&config).pods;
        assert_eq!(
            rules(&config.node, &pods, "vsw0"),
            "table inet vswitch
delete table inet vswitch
table inet vswitch {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 198.18.1.0/24 ip daddr != { 198.18.0.0/16, 198.19.0.0/16 } oifname != \"vsw0\" masquerade
    ip6 saddr fd00:18:1::/64 ip6 daddr != { fd00:18::/32 } oifname != \"vsw0\" masquerade
  }
}
"
        );
    }
}
