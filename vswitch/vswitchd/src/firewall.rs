//! Firewalls of the node that drop what pods send to the world.
//!
//! Enters: what the kernel has of iptables-legacy; chains of nftables, from `nft_rules`. Leaves: a sentence for
//! each that drops what no rule of its own accepts, for `status` and the log. No firewall is changed.

use controlplane::model::PodPrefixes;
use netio::xtables;

/// That a chain drops, and when pods reach the world all the same.
#[must_use]
pub fn drops(chain: &str, host_interface: &str) -> String {
    format!(
        "the firewall drops what nothing in its chain `{chain}` accepts: pods reach the world only if that accepts what comes by {host_interface}, and the answers"
    )
}

/// The firewalls of iptables-legacy, of the families that pods have. nft does not list them.
#[must_use]
pub fn legacy_droppers(pods: &PodPrefixes, host_interface: &str) -> Vec<String> {
    let programs = [(true, "iptables-legacy"), (false, "ip6tables-legacy")].into_iter();
    let droppers = programs.filter(|(is_v4, program)| {
        pods.has_family(*is_v4)
            && xtables::forward_drops(*is_v4).unwrap_or_else(|error| {
                tracing::debug!("the rules of {program} are not known: {error}");
                false
            })
    });
    droppers.map(|(_, program)| drops(&format!("FORWARD of {program}"), host_interface)).collect()
}
