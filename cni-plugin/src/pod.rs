//! The interface inside the pod's namespace: configured for ADD, looked at for CHECK, removed for
//! DEL. Every function here runs in a thread that `NetNs::run` put into that namespace.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use api::{AttachmentId, Bandwidth, Mac};
use ipnet::IpNet;
use netlink::{FibRoute, Link, LinkChange, Neighbor, Netlink, RouteFilter, TapQueues};

use crate::alias::{self, is_ours};
use crate::error::Error;
use crate::result::Route;
use crate::routes::{self, DefaultRoutes};

/// `LOOPBACK_IFINDEX` of the kernel's include/net/flow.h: every network namespace has its loopback interface
/// under this index (`loopback_net_init` in drivers/net/loopback.c insists on it).
const LOOPBACK_IFINDEX: u32 = 1;

/// The queues of a process that was killed are closed some time after it has ended, as `tap::reattach` has it.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// What the pod's interface becomes.
pub(crate) struct Plan<'a> {
    pub(crate) attachment: &'a AttachmentId,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
    /// Packets of the pod that wait for the switch at most; `None` for as many as the kernel chooses.
    pub(crate) queue_packets: Option<u32>,
    /// The interface has several queues.
    pub(crate) has_queues: bool,
    pub(crate) addresses: &'a [IpNet],
    pub(crate) gateways: &'a [IpAddr],
    pub(crate) gateway_mac: Mac,
    pub(crate) routes: &'a [Route],
    /// Tells the daemon's interfaces from another's on this machine: [`group`].
    pub(crate) group: u32,
}

/// The pod's namespace as ADD finds it.
pub(crate) struct Before {
    /// There is an interface of the name that ADD is to make.
    pub(crate) is_taken: bool,
    /// Default routes by the pod's other interfaces.
    pub(crate) default_routes: DefaultRoutes,
}

/// What the kernel made of a [`Plan`].
pub(crate) struct Configured {
    /// MAC as the kernel shows it.
    pub(crate) mac: Mac,
    /// The plan's routes, with the metrics that they have.
    pub(crate) routes: Vec<Route>,
}

/// The pod's interface as it was found.
pub(crate) struct Found {
    pub(crate) link: Link,
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) neighbors: Vec<Neighbor>,
    pub(crate) routes: Vec<FibRoute>,
}

/// Looks at what the pod has before it gets an interface of this name.
///
/// # Errors
/// `Kernel`.
pub(crate) fn before(ifname: &str) -> Result<Before, Error> {
    let mut netlink = open()?;
    let link = netlink.link(ifname).map_err(Error::kernel(format!("look for {ifname}")))?;
    let default_routes = DefaultRoutes::read(&mut netlink)
        .map_err(Error::kernel("look for default routes in the pod"))?;
    Ok(Before { is_taken: link.is_some(), default_routes })
}

/// Configures the interface, which has its name already, and brings it up.
///
/// # Errors
/// `Kernel`, naming the step.
pub(crate) fn configure(plan: &Plan) -> Result<Configured, Error> {
    let ifname = &plan.attachment.ifname;
    let mut netlink = open()?;
    let link = required(&mut netlink, ifname)?;
    netlink.set_up(LOOPBACK_IFINDEX).map_err(Error::kernel("bring lo up in the pod"))?;
    let has_v6 = plan.addresses.iter().any(|address| address.addr().is_ipv6());
    // Before the link is up: no router advertisement is heeded, and the link-local address, which
    // the daemon's unique MAC makes unique, is not probed for and usable at once.
    ipv6_sysctl(ifname, "accept_ra", "0", false)?;
    ipv6_sysctl(ifname, "accept_dad", "0", false)?;
    if has_v6 {
        ipv6_sysctl(ifname, "disable_ipv6", "0", true)?;
    }
    // Before the link is up, too: later the kernel has to stop it for that.
    if let Some(packets) = plan.queue_packets {
        let failed = Error::kernel(format!("give {ifname} a queue of {packets} packets"));
        netlink.set_tx_queue(link.index, packets).map_err(failed)?;
    }
    // Likewise: 256 queues of the kernel's before those of the TAP would take some 48 MiB.
    if plan.has_queues {
        let failed = Error::kernel(format!("have {ifname} without a queue of the kernel's"));
        netlink.set_no_queue(link.index).map_err(failed)?;
    }
    let change = LinkChange {
        up: Some(true),
        mtu: Some(plan.mtu),
        mac: Some(plan.mac.0),
        alias: Some(&alias::of(plan.attachment)),
        group: (plan.group != 0).then_some(plan.group),
    };
    netlink.change_link(link.index, &change).map_err(Error::kernel(format!(
        "give {ifname} the MAC {} and the MTU {}, and bring it up",
        plan.mac, plan.mtu
    )))?;
    failpoint::hit("cni-add-link")?;
    for address in plan.addresses {
        netlink
            .add_address(link.index, (address.addr(), address.prefix_len()))
            .map_err(Error::kernel(format!("add address {address} to {ifname}")))?;
    }
    failpoint::hit("cni-add-address")?;
    for gateway in plan.gateways {
        netlink.replace_neighbor(link.index, *gateway, plan.gateway_mac.0).map_err(
            Error::kernel(format!("add gateway {gateway} to the neighbours of {ifname}")),
        )?;
        // A prefix of the interface's own that contains the gateway leads to it already.
        if !plan.addresses.iter().any(|address| address.contains(gateway)) {
            let to_gateway = Route::via(IpNet::from(*gateway), None);
            routes::add(&mut netlink, link.index, ifname, &to_gateway)?;
        }
    }
    failpoint::hit("cni-add-neighbor")?;
    let made = |route| routes::add(&mut netlink, link.index, ifname, route);
    let routes = plan.routes.iter().map(made).collect::<Result<_, _>>()?;
    failpoint::hit("cni-add-route")?;
    let mac = required(&mut netlink, ifname)?.mac.map(Mac).ok_or_else(|| {
        let no_mac: io::Error = io::ErrorKind::InvalidData.into();
        Error::kernel(format!("read the MAC of {ifname}"))(no_mac)
    })?;
    Ok(Configured { mac, routes })
}

/// Looks at the interface and at all that hangs on it; `None` if there is no such interface.
///
/// # Errors
/// `Kernel`.
pub(crate) fn look(ifname: &str) -> Result<Option<Found>, Error> {
    let mut netlink = open()?;
    let mut read = || -> netlink::Result<_> {
        let Some(link) = netlink.link(ifname)? else { return Ok(None) };
        let addresses = netlink.addresses(link.index)?;
        let mut routes = Vec::new();
        netlink.kernel_routes(RouteFilter::default(), |route| routes.push(route))?;
        Ok(Some(Found {
            addresses: addresses
                .into_iter()
                .filter_map(|(address, len)| IpNet::new(address, len).ok())
                .collect(),
            neighbors: netlink.neighbors(link.index)?,
            routes,
            link,
        }))
    };
    read().map_err(Error::kernel(format!("read the state of {ifname}")))
}

/// Removes the interface if it is there and is the TAP that was made for `attachment`. The namespace
/// may have been given to another container meanwhile, with an interface of the same name.
///
/// # Errors
/// `Kernel`.
pub(crate) fn remove(attachment: &AttachmentId) -> Result<(), Error> {
    let ifname = &attachment.ifname;
    let mut netlink = open()?;
    let link = netlink.link(ifname).map_err(Error::kernel(format!("look for {ifname}")))?;
    let Some(link) = link.filter(|link| is_ours(link, attachment)) else { return Ok(()) };
    // That it is gone is as good: the daemon's closing of the descriptor was faster.
    netlink.delete_link(link.index).map(drop).map_err(Error::kernel(format!("remove {ifname}")))
}

/// Packets of a pod that wait for the switch at most; `None` for as many as the kernel chooses. A pod that
/// may send at a rate alone has no use for a long queue: what it sends would wait in it for seconds.
pub(crate) fn queue_packets(bandwidth: Bandwidth) -> Option<u32> {
    bandwidth.egress.is_none().then_some(tap::QUEUE_PACKETS)
}

/// Gives the interface that queue, if it was made with another: by an earlier version.
///
/// # Errors
/// `Kernel`.
pub(crate) fn settle_queue(ifname: &str, packets: u32) -> Result<(), Error> {
    let failed = || Error::kernel(format!("give {ifname} a queue of {packets} packets"));
    let mut netlink = open()?;
    match netlink.link(ifname).map_err(failed())? {
        Some(link) if link.tx_queue_packets != packets => {
            netlink.set_tx_queue(link.index, packets).map_err(failed())
        }
        _ => Ok(()),
    }
}

/// Opens the interface again if it is there and is the TAP that was made for `attachment`; `None` if
/// not. So many queues are opened, if it was made for several. The descriptors keep the namespace alive: the
/// daemon, which gets them, closes them when the pod ends.
///
/// # Errors
/// `Kernel`; another process has the interface open, most likely.
pub(crate) fn reattach(
    attachment: &AttachmentId,
    queues: u8,
) -> Result<Option<Vec<OwnedFd>>, Error> {
    let ifname = &attachment.ifname;
    let find = |netlink: &mut Netlink| -> Result<Option<Link>, Error> {
        let link = netlink.link(ifname).map_err(Error::kernel(format!("look for {ifname}")))?;
        Ok(link.filter(|link| is_ours(link, attachment)))
    };
    let mut netlink = open()?;
    let Some(link) = find(&mut netlink)? else { return Ok(None) };
    let tap = match link.tap_queues {
        None => {
            let tap = tap::reattach(ifname);
            vec![tap.map_err(Error::kernel(format!("open {ifname} again")))?.0]
        }
        Some(_) => {
            // The kernel would give this process queues beside another's, and packets to both.
            let deadline = Instant::now() + BUSY_PATIENCE;
            let is_free = |link: &Link| link.tap_queues == Some(TapQueues::default());
            while find(&mut netlink)?.is_some_and(|link| !is_free(&link)) {
                if Instant::now() >= deadline {
                    let busy = io::Error::from_raw_os_error(libc::EBUSY);
                    return Err(Error::kernel(format!("open {ifname} again"))(busy));
                }
                thread::sleep(BUSY_PAUSE);
            }
            more_queues(attachment, queues.max(1))?
        }
    };
    // Had it gone in between, the kernel would have made another, which goes with this descriptor.
    let is_same = find(&mut netlink)?.is_some_and(|found| found.index == link.index);
    Ok(is_same.then_some(tap))
}

/// Opens so many further queues of an interface that was made for several.
///
/// # Errors
/// `Kernel`.
pub(crate) fn more_queues(attachment: &AttachmentId, count: u8) -> Result<Vec<OwnedFd>, Error> {
    let ifname = &attachment.ifname;
    let open = |_| tap::queues::add(ifname);
    let opened: tap::Result<_> = (0..count).map(open).collect();
    opened.map_err(Error::kernel(format!("open a queue of {ifname}")))
}

/// Interfaces of the daemon with this group, by what their aliases say.
///
/// # Errors
/// `Kernel`.
pub(crate) fn marked(group: u32) -> Result<Vec<(AttachmentId, Found)>, Error> {
    let links = open()?.links().map_err(Error::kernel("list the interfaces of the pod"))?;
    let mut found = Vec::new();
    for link in links.iter().filter(|link| link.group == group) {
        let Some(attachment) = alias::attachment_of(link) else { continue };
        found.extend(look(&link.name)?.map(|found| (attachment, found)));
    }
    Ok(found)
}

/// The group of interfaces whose daemon has this socket: none for the daemon that a node has, so that its
/// interfaces look as any, and a number for further ones, which a machine for tests has.
pub(crate) fn group(socket: &Path) -> u32 {
    if socket == Path::new(api::DEFAULT_SOCKET) {
        return 0;
    }
    // FNV-1a of 32 bits: the same in every build.
    let bytes = socket.as_os_str().as_bytes();
    let hash = bytes
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.max(1)
}

/// Gives the interface another MTU if it is there and is the TAP that was made for `attachment`; false
/// if not. Routes have the interface's, as the plugin sets none of their own.
///
/// # Errors
/// `Kernel`.
pub(crate) fn set_mtu(attachment: &AttachmentId, mtu: u32) -> Result<bool, Error> {
    let ifname = &attachment.ifname;
    let mut netlink = open()?;
    let link = netlink.link(ifname).map_err(Error::kernel(format!("look for {ifname}")))?;
    let Some(link) = link.filter(|link| is_ours(link, attachment)) else { return Ok(false) };
    netlink
        .set_mtu(link.index, mtu)
        .map_err(Error::kernel(format!("give {ifname} the MTU {mtu}")))?;
    Ok(true)
}

fn open() -> Result<Netlink, Error> {
    Netlink::open().map_err(Error::kernel("open a netlink socket"))
}

fn required(netlink: &mut Netlink, ifname: &str) -> Result<Link, Error> {
    let doing = || format!("find {ifname} in the pod");
    let link = netlink.link(ifname).map_err(Error::kernel(doing()))?;
    link.ok_or_else(|| Error::kernel(doing())(io::Error::from_raw_os_error(libc::ENODEV)))
}

/// Sets an IPv6 setting of the interface. /proc/sys/net shows the namespace of the thread that looks
/// at it. A kernel without IPv6 has no such file, which matters only if the setting is `needed`.
fn ipv6_sysctl(ifname: &str, key: &str, value: &str, needed: bool) -> Result<(), Error> {
    let path = format!("/proc/sys/net/ipv6/conf/{ifname}/{key}");
    match fs::read_to_string(&path) {
        // Where /proc/sys is read-only, a value that is right already is no obstacle.
        Ok(is) if is.trim() == value => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => Ok(()),
        _ => fs::write(&path, value).map_err(Error::kernel(format!("write {value} to {path}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::group;

    #[test]
    fn the_daemon_of_a_node_has_no_group_and_others_have_their_own() {
        assert_eq!(group(Path::new(api::DEFAULT_SOCKET)), 0);
        let (a, b) = (group(Path::new("/tmp/a.sock")), group(Path::new("/tmp/b.sock")));
        assert!(a != b && a != 0 && b != 0);
    }
}
