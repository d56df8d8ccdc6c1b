//! Elements of the table's maps and sets, as `nft` writes them.
//!
//! Enters: ports of the node that lead to pods, and addresses that pods answer past the kernel. Leaves:
//! commands that add all of them, or those that lead from one set of elements to another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::TABLE;
use crate::desired::translation::NodePort;

/// Declarations of the maps and sets, which are empty until elements are added.
pub(super) const DECLARATIONS: &str = "  map host_ports4 {
    type inet_proto . inet_service : ipv4_addr . inet_service
  }
  map host_ports4_at {
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
  }
  map host_ports6 {
    type inet_proto . inet_service : ipv6_addr . inet_service
  }
  map host_ports6_at {
    type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
  }
  set direct4 {
    type ipv4_addr
  }
  set direct6 {
    type ipv6_addr
  }
";

/// Elements by the name of their map or set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements(pub BTreeMap<String, BTreeSet<String>>);

impl Elements {
    pub(super) fn add_port(&mut self, from: &NodePort, to: SocketAddr) {
        let NodePort { is_v4, address, protocol, port } = from;
        let name = match (is_v4, address.is_some()) {
            (true, false) => "host_ports4",
            (true, true) => "host_ports4_at",
            (false, false) => "host_ports6",
            (false, true) => "host_ports6_at",
        };
        let address = address.map(|address| format!("{address} . ")).unwrap_or_default();
        let (protocol, pod, pod_port) = (protocol.label(), to.ip(), to.port());
        self.add(name, format!("{address}{protocol} . {port} : {pod} . {pod_port}"));
    }

    pub(super) fn add_direct(&mut self, address: IpAddr) {
        self.add(if address.is_ipv4() { "direct4" } else { "direct6" }, address.to_string());
    }

    /// Adds an element, in nft's words.
    pub fn add(&mut self, name: &str, element: String) {
        self.0.entry(name.to_owned()).or_default().insert(element);
    }

    /// Commands that lead from `former` to these, in one transaction: a key is free before it gets
    /// another value.
    pub(super) fn commands(&self, former: &Self) -> String {
        let none = BTreeSet::new();
        let of = |elements: &Self, name: &String| elements.0.get(name).unwrap_or(&none).clone();
        let names: BTreeSet<_> = self.0.keys().chain(former.0.keys()).collect();
        let mut text = String::new();
        for name in names {
            let (new, old) = (of(self, name), of(former, name));
            let gone = old.difference(&new).map(|element| key(element));
            command(&mut text, "delete", name, gone);
            command(&mut text, "add", name, new.difference(&old).map(String::as_str));
        }
        text
    }
}

/// What comes before the value, of a map's element.
fn key(element: &str) -> &str {
    element.split_once(" : ").map_or(element, |(key, _)| key)
}

fn command<'a>(text: &mut String, verb: &str, name: &str, elements: impl Iterator<Item = &'a str>) {
    let elements: Vec<_> = elements.collect();
    if !elements.is_empty() {
        let table = TABLE.trim_start_matches("table ");
        // Writing to a string does not fail.
        let _ = writeln!(text, "{verb} element {table} {name} {{ {} }}", elements.join(", "));
    }
}
