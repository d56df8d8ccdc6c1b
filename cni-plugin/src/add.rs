//! ADD: allocate, make the TAP in the pod, configure it there, hand it to the daemon.
//!
//! Everything that is refused is refused before anything is made. From then on each step pushes its
//! reversal; the caller disarms them once the runtime has the result.

use std::net::IpAddr;
use std::rc::Rc;

use api::{Delegated, IPV6_MIN_MTU, Reply, Request, Reserve, Reserved};
use ipnet::IpNet;
use serde_json::Value;

use crate::args::Wanted;
use crate::client;
use crate::config::{Call, NetConf};
use crate::deadline::Deadline;
use crate::detach;
use crate::error::Error;
use crate::ipam::{Allocation, Delegate};
use crate::netns::NetNs;
use crate::pod::{self, Plan};
use crate::result::{self, Plugged, PluggedIp};
use crate::routes;
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
    // Until the runtime has the result, or all is taken back: what is taken back by the attachment's name is then
    // this ADD's own.
    netns.lock(deadline)?;
    let before = netns.run(|| pod::before(&attachment.ifname))?;
    if before.is_taken {
        return Err(Error::Exists { ifname: attachment.ifname.clone(), netns: path.to_owned() });
    }

    let mut undo = Undo::within(Rc::clone(&netns));
    let allocation = match delegate {
        None => None,
        Some(delegate) => Some(allocate(&delegate, &mut undo, deadline)?),
    };
    failpoint::hit("cni-add-allocated")?;
    let reserved = reserve(call, &wanted, allocation.as_ref(), &mut undo, deadline)?;
    failpoint::hit("cni-add-reserved")?;

    let mtu = mtu(conf, reserved.mtu, &reserved.addresses)?;
    let given = allocation.as_ref().map_or(&[][..], |allocation| &allocation.routes);
    let routes = routes::chosen(&reserved.gateways, given, before.default_routes);
    let ips = ips(&reserved, allocation.as_ref());
    let gateways = gateways(&reserved, &ips);

    let plan = Plan {
        attachment,
        mac: reserved.mac,
        mtu,
        queue_packets: pod::queue_packets(reserved.bandwidth),
        has_queues: reserved.queues > 1,
        addresses: &reserved.addresses,
        gateways: &gateways,
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
    let (queues, pod::Configured { mac, routes }) = netns.run(make)?;
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
        ips: &ips,
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
        ranges: wanted.ip_ranges.ranges.clone(),
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
        Reply::Reserved(reserved) if !reserved.addresses.is_empty() => {
            wanted.ip_ranges.confirm(&reserved)?;
            Ok(reserved)
        }
        other => Err(client::unexpected(socket, &other)),
    }
}

/// The MTU of a pod's interface: the daemon's, or the configuration's bound to it. The addresses are the pod's,
/// or any of their prefixes.
///
/// # Errors
/// `Invalid` if it is too small for IPv6 where the pod has that.
pub(crate) fn mtu(conf: &NetConf, given: u32, addresses: &[IpNet]) -> Result<u32, Error> {
    let mtu = conf.mtu.map_or(given, |bound| bound.min(given));
    let has_v6 = addresses.iter().any(|address| address.addr().is_ipv6());
    if has_v6 && mtu < IPV6_MIN_MTU {
        return Err(Error::Invalid(format!(
            "the pod's MTU is {mtu}; with an IPv6 address it must be {IPV6_MIN_MTU} at least"
        )));
    }
    Ok(mtu)
}

/// The pod's addresses, each with the gateway that the IPAM plugin names for it, else with that of its family.
fn ips(reserved: &Reserved, allocation: Option<&Allocation>) -> Vec<PluggedIp> {
    let named = |address: IpAddr| {
        let given = allocation?.ips.iter().find(|ip| ip.address.addr() == address)?;
        given.gateway.filter(|gateway| gateway.is_ipv4() == address.is_ipv4())
    };
    let with_gateway = |address: &IpNet| PluggedIp {
        address: *address,
        gateway: named(address.addr())
            .or_else(|| result::of_family(&reserved.gateways, address.addr())),
    };
    reserved.addresses.iter().map(with_gateway).collect()
}

/// Those of the default routes, and those of further subnets.
fn gateways(reserved: &Reserved, ips: &[PluggedIp]) -> Vec<IpAddr> {
    let mut gateways = reserved.gateways.clone();
    for gateway in ips.iter().filter_map(|ip| ip.gateway) {
        if !gateways.contains(&gateway) {
            gateways.push(gateway);
        }
    }
    gateways
}

#[cfg(test)]
mod tests {
    use api::{Mac, Mode, Reserved};
    use serde_json::json;

    use super::{gateways, ips};
    use crate::ipam::Allocation;

    #[test]
    fn each_address_has_the_gateway_that_was_named_for_it_or_that_of_its_family() {
        let addresses = ["198.18.1.5/24", "198.18.77.5/24", "198.18.78.5/24", "fd00::5/64"];
        let reserved = Reserved {
            addresses: addresses.map(|a| a.parse().expect("a prefix")).to_vec(),
            gateways: ["198.18.1.1", "fd00::1"].map(|a| a.parse().expect("an address")).to_vec(),
            gateway_mac: Mac([2, 0, 0, 0, 0, 1]),
            mac: Mac([2, 0, 0, 0, 0, 2]),
            mtu: 1450,
            mode: Mode::Routed,
            port_mappings: Vec::new(),
            bandwidth: api::Bandwidth::default(),
            queues: 1,
        };
        let allocation: Allocation = serde_json::from_value(json!({"ips": [
            {"address": addresses[0], "gateway": "198.18.1.1"},
            {"address": addresses[1], "gateway": "198.18.77.1"},
            {"address": addresses[2], "gateway": "fd00::99"},
            {"address": addresses[3]},
        ]}))
        .expect("a result");
        let ips = ips(&reserved, Some(&allocation));
        let shown: Vec<_> = ips.iter().map(|ip| ip.gateway.expect("named").to_string()).collect();
        assert_eq!(shown, ["198.18.1.1", "198.18.77.1", "198.18.1.1", "fd00::1"]);
        let all: Vec<_> = gateways(&reserved, &ips).iter().map(ToString::to_string).collect();
        assert_eq!(all, ["198.18.1.1", "fd00::1", "198.18.77.1"]);
    }
}
