//! What to take from the NIC, for people to fill in.
//!
//! Made by the daemon; `program` has it as instructions, `peers` as a map.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// Addresses, ports and prefixes in all, at most: each costs two to nine instructions on the way of
/// every packet, and a jump reaches 32,767.
pub(super) const MAX_ENTRIES: usize = 2048;

/// What to take from the NIC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PinholeFilter {
    /// The node's addresses in the underlay, to which tunnel packets come.
    pub local: Vec<IpAddr>,
    /// The UDP ports of VXLAN: several while the nodes change from one to another.
    pub vxlan_ports: Vec<u16>,
    /// Take IPIP from the peers: protocol 4, and 41 for IPv6 in IPv4.
    pub ipip: bool,
    /// The underlay addresses of the other tunnel ends.
    pub peers: BTreeSet<IpAddr>,
    /// The node's pod prefixes, for packets that come without a tunnel.
    pub prefixes: Vec<(IpAddr, u8)>,
    /// Take what asks the link for the MAC of an address in `prefixes`.
    pub neighbors: bool,
}

impl PinholeFilter {
    /// Whether one program does for both: peers are no part of it.
    #[must_use]
    pub fn is_same_program(&self, other: &Self) -> bool {
        let Self { local, vxlan_ports, ipip, peers: _, prefixes, neighbors } = self;
        (local, vxlan_ports, prefixes) == (&other.local, &other.vxlan_ports, &other.prefixes)
            && (*ipip, *neighbors) == (other.ipip, other.neighbors)
    }

    /// Why no program can be made of it.
    pub(super) fn check(&self) -> Result<(), String> {
        let times = if self.neighbors { 2 } else { 1 };
        let entries = self.local.len() + times * self.prefixes.len() + self.vxlan_ports.len();
        if entries > MAX_ENTRIES {
            return Err(format!(
                "{entries} addresses, ports and prefixes are more than {MAX_ENTRIES}; summarize the prefixes"
            ));
        }
        for &(network, len) in &self.prefixes {
            let longest = if network.is_ipv4() { 32 } else { 128 };
            if len == 0 || len > longest {
                return Err(format!(
                    "prefix {network}/{len}: the length must be 1 to {longest}, as /0 would take all \
                 of the node's traffic"
                ));
            }
        }
        Ok(())
    }
}
