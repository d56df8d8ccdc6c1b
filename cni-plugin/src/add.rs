//! ADD: allocate, make the TAP in the pod, configure it there, hand it to the daemon.
//!
//! Everything that is refused is refused before anything is made. From then on each step pushes its
//! reversal; the caller disarms them once the runtime has the result.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use api::{Delegated, IPV6_MIN_MTU, Reply, Request, Reserve, Reserved};
use ipnet::IpNet;
use serde_json::Value;

use crate::args::Wanted;
use crate::client;
use crate::config::Call;
use crate::deadline::Deadline;
use crate::detach;
use crate::error::Error;
use crate::ipam::{Allocation, Delegate};
use crate::netns::NetNs;
use crate::pod::{self, Plan};
use crate::result::{self, Plugged, Route};
use crate::undo::Undo;
use crate::version::Command;

/// Plugs the pod in. Answers with the result to print, and with what takes it all back.
///
/// # Errors
/// Any; nothing is left then.
pub(crate) fn add<'a>(call: &'a Call, deadline: &Deadline) -> Result<(Value, Undo<'a>), Error> {
    let (conf, attachment) = (&call.conf, &call.env.attachment);
    let wanted = Wanted::new(conf, &call.env.args)?;
    let previous = result::previous_of_add(conf)?;
    let delegate = Delegate::of(call)?;
    let path = call.env.netns.as_deref().expect("required in the environment of ADD");
    let netns = Rc::new(NetNs::open(path)?);
    if netns.run(|| pod::exists(&attachment.ifname))? {
        return Err(Error::Exists { ifname: attachment.ifname.clone(), netns: path.to_owned() });
    }

    let mut undo = Undo::default();
    let allocation = match delegate {
        None => None,
        Some(delegate) => Some(allocate(&delegate, &mut undo, deadline)?),
    };
    failpoint::hit("cni-add-allocated")?;
    let reserved = reserve(call, &wanted, allocation.as_ref(), &mut undo, deadline)?;
    failpoint::hit("cni-add-reserved")?;

    let mtu = conf.mtu.map_or(reserved.mtu, |bound| bound.min(reserved.mtu));
    let has_v6 = reserved.addresses.iter().any(|address| address.addr().is_ipv6());
    if has_v6 && mtu < IPV6_MIN_MTU {
        return Err(Error::Invalid(format!(
            "the pod's MTU is {mtu}; with an IPv6 address it must be {IPV6_MIN_MTU} at least"
        )));
    }
    let routes = routes(&reserved, allocation.as_ref());

    let plan = Plan {
        attachment,
        mac: reserved.mac,
        mtu,
        queue_packets: pod::queue_packets(reserved.bandwidth),
        has_queues: reserved.queues > 1,
        addresses: &reserved.addresses,
        gateways: &reserved.gateways,
        gateway_mac: reserved.gateway_mac,
        routes: &routes,
        group: pod::group(&conf.socket),
    };
    // Made there, not moved there: a move takes the kernel 20 ms, most of an ADD (its
    // `__dev_change_net_namespace` ends in an `rcu_barrier`). The daemon closes the descriptor, which
    // keeps the pod's namespace alive, when the pod ends. Until the daemon has it, the interface ends with
    // the descriptor: nothing is to be undone of one that could not be configured.
    let make = || {
        let made = tap::queues::create_with(&attachment.ifname, reserved.queues)
            .map_err(Error::kernel(format!("make {} in the pod", attachment.ifname)));
        let (queues, _) = made?;
        failpoint::hit("cni-add-tap")?;
        Ok((queues, pod::configure(&plan)?))
    };
    let (queues, mac) = netns.run(make)?;
    let inside = Rc::clone(&netns);
    undo.push("remove the interface", move || {
        inside.run(|| pod::remove(attachment)).map_err(|error| error.sentence())
    });

    client::attach(&conf.socket, attachment, mac, &queues, netns.process(), deadline)?;
    failpoint::hit("cni-add-attached")?;

    let plugged = Plugged {
        ifname: &attachment.ifname,
        netns: path,
        mac,
        mtu,
        addresses: &reserved.addresses,
        gateways: &reserved.gateways,
        routes: &routes,
        dns: wanted.dns.or_else(|| conf.dns.clone()).or(allocation.and_then(|a| a.dns)),
    };
    Ok((result::added(conf.version, previous, &plugged), undo))
}

fn allocate<'a>(
    delegate: &Delegate<'a>,
    undo: &mut Undo<'a>,
    deadline: &Deadline,
) -> Result<Allocation, Error> {
    let again = delegate.clone();
    // Before the attempt: one that fails half-way is to be followed by a DEL as well.
    undo.push("release the delegated addresses", move || {
        again.order(Command::Del, &Deadline::of_undo_step()).map_err(|error| error.sentence())
    });
    delegate.add(deadline)
}

fn reserve<'a>(
    call: &'a Call,
    wanted: &Wanted,
    allocation: Option<&Allocation>,
    undo: &mut Undo<'a>,
    deadline: &Deadline,
) -> Result<Reserved, Error> {
    let (socket, attachment) = (&call.conf.socket, &call.env.attachment);
    let delegated = allocation.map(|allocation| {
        let addresses = allocation.ips.iter().map(|ip| ip.address).collect();
        let gateways = allocation.ips.iter().filter_map(|ip| ip.gateway).collect();
        Box::new(Delegated { addresses, gateways })
    });
    let request = Request::Reserve(Reserve {
        attachment: attachment.clone(),
        network: Some(call.conf.name.clone()),
        pod: wanted.pod.clone(),
        container_name: wanted.container_name.clone(),
        netns: call.env.netns.as_deref().unwrap_or("".as_ref()).to_string_lossy().into_owned(),
        mode: call.conf.mode.clone(),
        // A delegated plugin has seen the wishes itself.
        requested: if delegated.is_some() { Vec::new() } else { wanted.addresses.clone() },
        delegated,
        ranges: Vec::new(),
        mac: wanted.mac,
        port_mappings: wanted.port_mappings.clone(),
        bandwidth: wanted.bandwidth,
        queues: wanted.queues,
    });
    let outcome = client::call(socket, "reserve addresses for the pod", &request, deadline);
    // A refused reservation holds nothing; and if the refusal reports that the attachment exists, it
    // is another's, and not ours to take back.
    if !matches!(outcome, Err(Error::Daemon { .. } | Error::Unreachable(_))) {
        undo.push("release the reservation", move || {
            detach::detach(&call.conf, attachment, &Deadline::of_undo_step())
                .map_err(|error| error.sentence())
        });
    }
    match outcome? {
        Reply::Reserved(reserved) if reserved.port_mappings != wanted.port_mappings => {
            Err(Error::Invalid(
                "the vswitchd that runs is an older one, which serves no hostPorts; restart it as the version of this plugin".into(),
            ))
        }
        Reply::Reserved(reserved) if reserved.bandwidth != wanted.bandwidth => {
            Err(Error::Invalid(format!(
                "the vswitchd at {} is an older one that limits no traffic; install the version of \
                 this plugin, or take `bandwidth` out of the configuration",
                socket.display()
            )))
        }
        Reply::Reserved(reserved) if !reserved.addresses.is_empty() => Ok(reserved),
        other => Err(client::unexpected(socket, &other)),
    }
}

/// The IPAM plugin's routes; without any, a default route by each gateway.
fn routes(reserved: &Reserved, allocation: Option<&Allocation>) -> Vec<Route> {
    let given = allocation.map_or(&[][..], |allocation| &allocation.routes);
    if given.is_empty() {
        let default = |gateway: &IpAddr| {
            let any: IpAddr = match gateway {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            };
            let dst = IpNet::new(any, 0).expect("0 is a length in either family");
            Route::via(dst, Some(*gateway))
        };
        return reserved.gateways.iter().map(default).collect();
    }
    let by_gateway = |route: &Route| Route {
        gw: route.gw.or_else(|| result::of_family(&reserved.gateways, route.dst.addr())),
        ..route.clone()
    };
    given.iter().map(by_gateway).collect()
}

#[cfg(test)]
mod tests {
    use api::{Mac, Mode, Reserved};
    use serde_json::json;

    use super::routes;
    use crate::ipam::Allocation;

    fn shown(allocation: serde_json::Value) -> Vec<String> {
        let reserved = Reserved {
            addresses: vec!["198.18.1.5/32".parse().expect("a prefix")],
            gateways: ["198.18.1.1", "fd00::1"].map(|a| a.parse().expect("an address")).to_vec(),
            gateway_mac: Mac([2, 0, 0, 0, 0, 1]),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            mtu: 1450,
            mode: Mode::Routed,
            port_mappings: Vec::new(),
            bandwidth: api::Bandwidth::default(),
            queues: 1,
        };
        let allocation: Allocation = serde_json::from_value(allocation).expect("a result");
        routes(&reserved, Some(&allocation))
            .iter()
            .map(|route| format!("{} {:?}", route.dst, route.gw.map(|gw| gw.to_string())))
            .collect()
    }

    #[test]
    fn without_routes_of_the_delegate_the_gateways_are_the_default() {
        assert_eq!(shown(json!({})), ["0.0.0.0/0 Some(\"198.18.1.1\")", "::/0 Some(\"fd00::1\")"]);
    }

    #[test]
    fn routes_of_the_delegate_are_used_instead_by_the_gateway_that_they_name_or_ours() {
        let given = json!({"routes": [
            {"dst": "198.19.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "198.18.1.254"},
        ]});
        assert_eq!(
            shown(given),
            ["198.19.0.0/16 Some(\"198.18.1.1\")", "0.0.0.0/0 Some(\"198.18.1.254\")"]
        );
    }
}
