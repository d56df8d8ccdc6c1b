//! CHECK: `prevResult` is compared with the pod's namespace, then the daemon is asked, then
//! the IPAM plugin. What other plugins added since is none of our business.

use api::{Check, Mac, Request};
use netlink::NudState;

use crate::alias;
use crate::args::{self, Wanted};
use crate::client;
use crate::config::Call;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::netns::NetNs;
use crate::pod::{self, Found};
use crate::result::Previous;
use crate::routes;
use crate::version::Command;

/// Verifies the attachment.
///
/// # Errors
/// `Altered` for the first thing that is missing or differs; the daemon's or the IPAM plugin's.
pub(crate) fn check(call: &Call, deadline: &Deadline) -> Result<(), Error> {
    let attachment = &call.env.attachment;
    let wanted = Wanted::new(&call.conf, &call.env.args)?;
    let previous = Previous::of(&call.conf, &attachment.ifname)?;
    let path = call.env.netns.as_deref().expect("required in the environment of CHECK");
    let found = NetNs::open(path)?.run(|| pod::look(&attachment.ifname))?;
    let Some(found) = found else {
        return Err(altered(&attachment.ifname, "is missing"));
    };
    if !alias::is_ours(&found.link, attachment) {
        return Err(altered(&attachment.ifname, "is not the one that ADD made"));
    }
    compare_link(&attachment.ifname, &previous, &found)?;
    let Some(mac) = found.link.mac.map(Mac) else {
        return Err(altered(&attachment.ifname, "has no MAC"));
    };
    let request = Request::Check(Check {
        attachment: attachment.clone(),
        addresses: previous.addresses.iter().map(|ip| ip.address.addr()).collect(),
        mac,
        port_mappings: args::port_mappings(&call.conf)?,
        bandwidth: Some(wanted.bandwidth),
        queues: Some(wanted.queues),
        attached_queues: Some(found.link.tap_queues.map_or(1, |queues| queues.attached)),
    });
    // Before neighbours and routes: a MAC that a plugin behind this one changed is why these are gone.
    client::order(&call.conf.socket, "confirm the attachment", &request, deadline)?;
    compare(&attachment.ifname, &previous, &found)?;
    match Delegate::of(call)? {
        Some(delegate) => delegate.order(Command::Check, deadline),
        None => Ok(()),
    }
}

fn compare_link(ifname: &str, previous: &Previous, found: &Found) -> Result<(), Error> {
    if !found.link.up {
        return Err(altered(ifname, "is down"));
    }
    let has = found.link.mac.map(Mac);
    if let Some(mac) = previous.mac.filter(|mac| has != Some(*mac)) {
        let is = has.map_or("none".into(), |mac| mac.to_string());
        return Err(altered(ifname, &format!("has the MAC {is} instead of {mac}")));
    }
    Ok(())
}

fn compare(ifname: &str, previous: &Previous, found: &Found) -> Result<(), Error> {
    for ip in &previous.addresses {
        if !found.addresses.contains(&ip.address) {
            return Err(altered(ifname, &format!("lacks the address {}", ip.address)));
        }
        let is_known = |gateway| {
            let mut all = found.neighbors.iter();
            all.any(|n| n.ip == gateway && n.state == NudState::Permanent)
        };
        if let Some(gateway) = ip.gateway.filter(|gateway| !is_known(*gateway)) {
            let what = format!("lacks the permanent neighbour entry of gateway {gateway}");
            return Err(altered(ifname, &what));
        }
    }
    let gateways: Vec<_> = previous.addresses.iter().filter_map(|ip| ip.gateway).collect();
    for route in &previous.routes {
        let stands = |is| routes::stands_for(is, route, found.link.index, &gateways);
        if !found.routes.iter().any(stands) {
            let by = route.gw.map(|gw| format!(" by {gw}")).unwrap_or_default();
            return Err(Error::Altered(format!("the route to {}{by} is missing", route.dst)));
        }
    }
    Ok(())
}

fn altered(ifname: &str, what: &str) -> Error {
    Error::Altered(format!("interface {ifname} {what}"))
}

#[cfg(test)]
mod tests {
    use netlink::{FibHop, FibRoute, FibRouteKind, Link, Neighbor, NudState};
    use serde_json::json;

    use super::{compare, compare_link};
    use crate::config::NetConf;
    use crate::pod::Found;
    use crate::result::Previous;
    use crate::version::Command;

    fn previous() -> Previous {
        let conf = json!({"cniVersion": "1.0.0", "name": "n", "prevResult": {
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/p"}],
            "ips": [{"address": "198.18.1.5/32", "gateway": "198.18.1.1", "interface": 0}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "198.18.1.1"}],
        }});
        let conf = NetConf::parse(conf.to_string().as_bytes(), Command::Check).expect("valid");
        Previous::of(&conf, "eth0").expect("names eth0")
    }

    fn found() -> Found {
        let gateway = "198.18.1.1".parse().expect("an address");
        Found {
            link: Link { index: 2, up: true, mac: Some([2, 0, 0, 0, 0, 1]), ..Link::default() },
            // Another plugin added one.
            addresses: ["198.18.1.5/32", "198.19.0.1/16"].map(|a| a.parse().expect("ok")).to_vec(),
            neighbors: vec![Neighbor {
                ifindex: 2,
                ip: gateway,
                mac: Some([2; 6]),
                state: NudState::Permanent,
            }],
            routes: vec![FibRoute {
                destination: ([0; 4].into(), 0),
                table: 254,
                tos: 0,
                metric: 0,
                protocol: 4,
                kind: FibRouteKind::Unicast,
                next_hops: vec![FibHop {
                    oif: 2,
                    gateway: Some(gateway),
                    weight: 1,
                    onlink: true,
                    usable: true,
                }],
            }],
        }
    }

    fn compare_both(found: &Found) -> Result<(), crate::Error> {
        compare_link("eth0", &previous(), found)?;
        compare("eth0", &previous(), found)
    }

    #[test]
    fn what_add_left_passes_with_additions_of_others() {
        compare_both(&found()).expect("unaltered");
    }

    #[test]
    fn a_route_that_the_kernel_joined_to_anothers_stands() {
        let mut found = found();
        let others = FibHop {
            oif: 3,
            gateway: Some("198.19.0.1".parse().expect("an address")),
            ..found.routes[0].next_hops[0]
        };
        found.routes[0].next_hops.insert(0, others);
        compare_both(&found).expect("unaltered");
    }

    #[test]
    fn each_alteration_is_named() {
        type Alter = fn(&mut Found);
        let table: [(Alter, &str); 9] = [
            (|f| f.link.up = false, "interface eth0 is down"),
            (
                |f| f.link.mac = Some([2, 0, 0, 0, 0, 9]),
                "interface eth0 has the MAC 02:00:00:00:00:09 instead of 02:00:00:00:00:01",
            ),
            (
                |f| f.addresses = vec!["198.18.1.5/24".parse().expect("a prefix")],
                "interface eth0 lacks the address 198.18.1.5/32",
            ),
            (
                |f| f.neighbors.clear(),
                "interface eth0 lacks the permanent neighbour entry of gateway 198.18.1.1",
            ),
            (
                |f| f.neighbors[0].state = NudState::Stale,
                "interface eth0 lacks the permanent neighbour entry of gateway 198.18.1.1",
            ),
            (|f| f.routes.clear(), "the route to 0.0.0.0/0 by 198.18.1.1 is missing"),
            (
                |f| f.routes[0].next_hops[0].gateway = None,
                "the route to 0.0.0.0/0 by 198.18.1.1 is missing",
            ),
            (
                |f| f.routes[0].next_hops[0].oif = 3,
                "the route to 0.0.0.0/0 by 198.18.1.1 is missing",
            ),
            (
                |f| f.routes[0].kind = FibRouteKind::Blackhole,
                "the route to 0.0.0.0/0 by 198.18.1.1 is missing",
            ),
        ];
        for (alter, message) in table {
            let mut found = found();
            alter(&mut found);
            let error = compare_both(&found).expect_err("altered");
            assert_eq!((error.code(), error.to_string().as_str()), (105, message));
        }
    }
}
