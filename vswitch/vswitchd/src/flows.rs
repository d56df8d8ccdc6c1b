//! Flows that the kernel tracks, forgotten where hostPorts come and go.
//!
//! Enters: ports of the node that have begun to lead to pods, or have ceased to. Leaves: a kernel that
//! translates the next packet of such a flow by the rules of now. A client that sends datagrams from one
//! port all the time would otherwise never reach a new pod: the kernel translates as it did the first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use api::TransportProtocol;
use controlplane::desired::{NodePort, Translation};
use netlink::{Conntrack, FlowFilter, Netlink, TrackedFlow};

/// Has the kernel forget datagrams' flows to what has begun, unless they lead there, and flows of every
/// protocol that were translated to what has ended; how many there were. A TCP connection needs no
/// help to begin, and one to a pod that is gone is reset by the node from then on.
///
/// # Errors
/// If the kernel does not answer, or refuses.
pub fn forget(
    netlink: &mut Netlink,
    begun: &[Translation],
    ended: &[Translation],
) -> netlink::Result<usize> {
    let begun = begun.iter().filter(|one| one.from.protocol == TransportProtocol::Udp);
    let begun: Vec<_> = begun.collect();
    // What is forwarded to the same port elsewhere is none of the node's.
    let local: BTreeSet<_> = match begun.as_slice() {
        [] => BTreeSet::new(),
        _ => netlink.local_addresses()?.into_iter().collect(),
    };
    let mut filters: BTreeMap<(bool, TransportProtocol), Vec<&Translation>> = BTreeMap::new();
    for one in begun.iter().copied().chain(ended) {
        filters.entry((one.from.is_v4, one.from.protocol)).or_default().push(one);
    }
    let begun: BTreeMap<NodePort, SocketAddr> =
        begun.iter().map(|one| (one.from, one.to)).collect();
    let ended: BTreeSet<_> = ended.iter().copied().collect();
    let mut count = 0;
    for ((is_v4, protocol), all) in filters {
        let ports: BTreeSet<u16> = all.iter().map(|one| one.from.port).collect();
        // The kernel looks for one port; of several, it lists what has the protocol.
        let port = ports.first().copied().filter(|_| ports.len() == 1);
        let filter = FlowFilter { is_v4, protocol: protocol.number(), port };
        count += Conntrack::open()?
            .delete(filter, |flow| is_unwanted(flow, protocol, &begun, &ended, &local))?;
    }
    Ok(count)
}

fn is_unwanted(
    flow: &TrackedFlow,
    protocol: TransportProtocol,
    begun: &BTreeMap<NodePort, SocketAddr>,
    ended: &BTreeSet<Translation>,
    local: &BTreeSet<IpAddr>,
) -> bool {
    let TrackedFlow { destination, answerer } = *flow;
    let is_v4 = destination.is_ipv4();
    let is_local = destination.ip().is_loopback() || local.contains(&destination.ip());
    [Some(destination.ip()), None].into_iter().any(|address| {
        let from = NodePort { is_v4, address, protocol, port: destination.port() };
        let is_another = begun.get(&from).is_some_and(|to| *to != answerer);
        (is_local && is_another) || ended.contains(&Translation { from, to: answerer })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use api::TransportProtocol::Udp;
    use controlplane::desired::{NodePort, Translation};
    use netlink::TrackedFlow;

    use super::is_unwanted;

    fn flow(destination: &str, answerer: &str) -> TrackedFlow {
        TrackedFlow {
            destination: destination.parse().expect("an address"),
            answerer: answerer.parse().expect("an address"),
        }
    }

    fn port(address: Option<&str>) -> NodePort {
        let address = address.map(|address| address.parse().expect("an address"));
        NodePort { is_v4: true, address, protocol: Udp, port: 53 }
    }

    #[test]
    fn flows_to_a_port_that_began_are_unwanted_unless_they_lead_to_its_pod() {
        let local = ["198.51.100.11", "198.18.1.1"].map(|a| a.parse().expect("an address")).into();
        let pod = "198.18.1.3:53".parse().expect("an address");
        let table = [
            // Not translated, or to a former pod.
            (None, "198.51.100.11:53", "198.51.100.11:53", true),
            (None, "198.51.100.11:53", "198.18.1.2:53", true),
            (None, "127.0.0.1:53", "127.0.0.1:53", true),
            // Its own.
            (None, "198.51.100.11:53", "198.18.1.3:53", false),
            // To another port, or to somebody else by way of the node.
            (None, "198.51.100.11:54", "198.51.100.11:54", false),
            (None, "192.0.2.9:53", "192.0.2.9:53", false),
            (Some("198.51.100.11"), "198.51.100.11:53", "198.51.100.11:53", true),
            (Some("198.51.100.11"), "198.18.1.1:53", "198.18.1.1:53", false),
        ];
        for (address, destination, answerer, unwanted) in table {
            let begun = BTreeMap::from([(port(address), pod)]);
            let flow = flow(destination, answerer);
            assert_eq!(
                is_unwanted(&flow, Udp, &begun, &BTreeSet::new(), &local),
                unwanted,
                "{flow:?} with {address:?}"
            );
        }
    }

    #[test]
    fn flows_to_a_port_that_ended_are_unwanted_if_they_lead_to_its_pod() {
        let to = "198.18.1.2:53".parse().expect("an address");
        let ended = BTreeSet::from([Translation { from: port(None), to }]);
        let table = [
            // The node may have had that address.
            ("198.51.100.77:53", "198.18.1.2:53", true),
            ("198.51.100.11:53", "198.18.1.3:53", false),
            ("198.51.100.11:53", "198.51.100.11:53", false),
        ];
        for (destination, answerer, unwanted) in table {
            let flow = flow(destination, answerer);
            let local = BTreeSet::new();
            assert_eq!(is_unwanted(&flow, Udp, &BTreeMap::new(), &ended, &local), unwanted);
        }
    }
}
