//! What the kernel is to have is compared with what it has.
//!
//! Enters: the control plane's desired state; the kernel, at every event that concerns it, at a reload,
//! and every half a minute. Leaves: a kernel that has it again, a count, a line in the log, and a
//! sentence in `status`. Two programs that both insist on something else do not fight for ever: the
//! control plane's `repairs` decides when to stop.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use controlplane::compile;
use controlplane::desired::HostPortRepair;
use controlplane::plane::{Event, HostState};
use controlplane::ports;
use controlplane::repairs::Part;
use dataplane::Millis;
use dataplane::wire::MacAddr;
use netio::uplink::UplinkKind;
use netlink::ROUTE_PROTOCOL;

use super::{Daemon, log, offloads};
use crate::descriptors::{self, PortFds};
use crate::error::chain;
use crate::firewall;
use crate::host::{self, HostInterface};
use crate::router_advertisements::Advertised;
use crate::sysctl;

/// Everything is compared this often, whatever the kernel announces.
pub(super) const PERIOD: Duration = Duration::from_secs(30);

/// Whether an event may have taken something from the host port.
pub(super) fn concerns_host(event: &netlink::KernelEvent, host: &HostInterface) -> bool {
    match event {
        netlink::KernelEvent::LinkChanged(link) | netlink::KernelEvent::LinkGone(link) => {
            link.index == host.ifindex
        }
        netlink::KernelEvent::NeighborChanged(neighbor)
        | netlink::KernelEvent::NeighborGone(neighbor) => neighbor.ifindex == host.ifindex,
        netlink::KernelEvent::RouteChanged(route, _) | netlink::KernelEvent::RouteGone(route) => {
            route.protocol == ROUTE_PROTOCOL
        }
        netlink::KernelEvent::AddressChanged { ifindex, .. } => *ifindex == host.ifindex,
        netlink::KernelEvent::NextHopsChanged => false,
        netlink::KernelEvent::Overrun => true,
    }
}

/// A program by the number of its netlink socket, which for most is its process's.
pub(super) fn writer(port: u32) -> Option<String> {
    (port != 0 && port != std::process::id()).then(|| {
        let name = fs::read_to_string(format!("/proc/{port}/comm")).unwrap_or_default();
        match name.trim() {
            "" => format!("process {port}, which has ended"),
            name => format!("process {port} ({name})"),
        }
    })
}

impl Daemon {
    /// Compares all parts.
    pub(super) fn settle_all(&mut self, now: Instant) {
        self.settle_host_port(None, now);
        self.feed_watchdog();
        self.settle_nft_table(None, now);
        // Such as hostPorts of a pod that is gone, which nft failed to delete.
        if self.plane.is_nft_table_due() {
            self.follow(Event::NftTableOverdue);
        }
        self.feed_watchdog();
        self.settle_maps(now);
        self.feed_watchdog();
        self.look_at_advertised();
        self.look_at_namespaces();
        self.ask_for_reattachments();
    }

    /// The host port has its interface, MTU, addresses, neighbours and routes.
    pub(super) fn settle_host_port(&mut self, by: Option<&str>, now: Instant) {
        let time = self.millis(now);
        if self.node.host.is_none() || !self.repairs.is_allowed(Part::HostPort, time) {
            return;
        }
        let made = match self.make_host_port_again() {
            Ok(is_made) => is_made,
            Err(why) => return self.is_broken(Part::HostPort, &why),
        };
        self.settle_sysctl(by, time);
        let Some(host) = &self.node.host else { return };
        let wanted = self.plane.host_port_state();
        match host.settle(&mut self.node.netlink, &wanted, &self.node.cluster) {
            Ok(repairs) if repairs.is_empty() && !made => self.repairs.is_fine(Part::HostPort),
            Ok(repairs) => {
                let what = if made { "it was removed".to_owned() } else { summary(&repairs) };
                log(&self.repairs.repaired(Part::HostPort, &what, by, time));
            }
            Err(error) => self.is_broken(Part::HostPort, &chain(&error)),
        }
    }

    /// Makes the interface anew if it was removed; true if so.
    fn make_host_port_again(&mut self) -> Result<bool, String> {
        let Some(host) = &self.node.host else { return Ok(false) };
        if host.exists(&mut self.node.netlink).map_err(|error| chain(&error))? {
            return Ok(false);
        }
        let name = host.name.clone();
        let fresh =
            HostInterface::make(&mut self.node.netlink, &name).map_err(|error| chain(&error))?;
        fresh.keep().map_err(|error| chain(&error))?;
        self.node.workers.remove_port(ports::HOST);
        self.node.workers.add_port(ports::HOST, &fresh.port, 0);
        self.node.store.forget(descriptors::HOST);
        let port = Arc::clone(&fresh.port);
        self.node.store.keep(descriptors::HOST, PortFds::of(port));
        let host = host_state(&fresh, self.plane.pod_mtu());
        self.node.host = Some(fresh);
        self.follow(Event::HostPortMade(host));
        Ok(true)
    }

    /// IPv6 is not switched off on the host port: the kernel drops addresses and routes with it, and
    /// takes none.
    fn settle_sysctl(&mut self, by: Option<&str>, now: Millis) {
        let Some(host) = &self.node.host else { return };
        let name = host::no_ipv6(&host.name);
        if sysctl::read(&name) != Some(1) || !self.plane.model().pods.has_family(false) {
            return self.repairs.is_fine(Part::Sysctl);
        }
        match sysctl::set(&name, 0) {
            Ok(()) => {
                let what = format!("{name} was 1");
                log(&self.repairs.repaired(Part::Sysctl, &what, by, now));
            }
            Err(error) => self.is_broken(
                Part::Sysctl,
                &format!(
                    "{name} is 1, so that the node reaches no pod by IPv6, and cannot be set ({error}); run `sysctl -w {name}=0`"
                ),
            ),
        }
    }

    /// What routers have advertised to the node is known again.
    pub(crate) fn look_at_advertised(&mut self) {
        if self.plane.model().pods.has_family(false) {
            self.advertised = Advertised::read(&mut self.node.netlink);
        }
    }

    /// The kernel forwards, if it did at the start; what cannot be put right is told for as long as it
    /// is so.
    pub(crate) fn settle_forwarding(&mut self, now: Instant) {
        let now = self.millis(now);
        let Some(host) = self.plane.host().map(|host| host.name.clone()) else { return };
        let pods = &self.plane.model().pods;
        let mut notes: Vec<String> = host::strict_host_warning(pods, &host).into_iter().collect();
        for name in host::forwarding(pods) {
            let is_v6 = name == host::FORWARDING_IPV6;
            if sysctl::read(name) != Some(0) {
                self.forwards.insert(name);
                if is_v6 {
                    notes.extend(self.advertised.notes());
                }
                continue;
            }
            let is_allowed = self.repairs.is_allowed(Part::Forwarding, now);
            let set = || {
                // Before, as the kernel drops then what it does not take any more.
                if is_v6 {
                    self.advertised.keep()?;
                }
                sysctl::set(name, 1)
            };
            if is_allowed && self.forwards.contains(name) && set().is_ok() {
                let what = format!("{name} was 0");
                log(&self.repairs.repaired(Part::Forwarding, &what, None, now));
            } else {
                let before = if is_v6 { self.advertised.cures() } else { Vec::new() };
                notes.push(host::not_forwarding(name, &before));
            }
        }
        for note in notes.iter().filter(|note| !self.sysctl_notes.contains(note)) {
            tracing::warn!("{note}");
        }
        self.sysctl_notes = notes;
    }

    /// Firewalls of iptables-legacy that drop what pods send to the world, each as a sentence.
    pub(crate) fn legacy_firewalls(&self) -> Vec<String> {
        let host = self.plane.host();
        host.map_or_else(Vec::new, |host| {
            firewall::legacy_droppers(&self.plane.model().pods, &host.name)
        })
    }

    /// The NIC has our programs, unless it is gone itself, and the TAP beside it is there.
    pub(super) fn settle_uplink(&mut self, now: Instant) {
        let now = self.millis(now);
        let Some(uplink) = &mut self.node.uplink else { return };
        let part = uplink.part();
        if uplink.is_gone || !self.repairs.is_allowed(part, now) {
            return;
        }
        match uplink.settle() {
            Ok(None) => self.repairs.is_fine(part),
            Ok(Some(what)) => {
                let note = self.repairs.repaired(part, what, None, now);
                let is_fight = !self.repairs.is_allowed(part, now);
                let why = || format!("another program changes {} again and again", part.label());
                if !is_fight || !self.fall_back(&why()) {
                    log(&note);
                }
            }
            Err(error) => {
                let why = chain(&error);
                if !self.fall_back(&why) {
                    self.is_broken(part, &why);
                }
            }
        }
    }

    /// The program's map has every peer.
    fn settle_maps(&mut self, now: Instant) {
        let now = self.millis(now);
        let Some(uplink) = &mut self.node.uplink else { return };
        let part = uplink.part();
        if !self.repairs.is_allowed(part, now) {
            return;
        }
        match uplink.settle_maps() {
            Ok(false) => {}
            Ok(true) => {
                let what = "its map lacked peers";
                log(&self.repairs.repaired(part, what, None, now));
            }
            Err(error) => self.is_broken(part, &chain(&error)),
        }
    }

    /// A queue of the NIC that came at run time has no socket: what it receives for pods is lost to
    /// them.
    pub(super) fn look_at_queues(&mut self) {
        let Some(uplink) = &self.node.uplink else { return };
        if uplink.control().kind() != UplinkKind::AfXdp {
            return;
        }
        let facts = &uplink.facts;
        let Ok(Some(queues)) = netio::ethtool::rx_queues(&facts.link.name) else { return };
        let (name, opened) = (facts.link.name.clone(), facts.queues);
        self.queue_note = (queues > opened).then(|| {
            format!(
                "{name} receives on {queues} queues now, of which {opened} had a socket at the start: what the others receive for pods stays with the kernel; run `ethtool -L {name} combined {opened}`, or restart the daemon"
            )
        });
        if self.queue_note.is_some()
            && self.fall_back(&format!(
                "{name} receives on {queues} queues, of which {opened} had a socket"
            ))
        {
            return;
        }
        if let Some(note) = self.queue_note.clone()
            && self.queue_logged.as_ref() != Some(&note)
        {
            tracing::error!("{note}");
            self.queue_logged = Some(note);
        }
    }

    pub(super) fn is_broken(&mut self, part: Part, why: &str) {
        if let Some(note) = self.repairs.failed(part, why) {
            log(&note);
        }
    }
}

/// The host port, for the control plane.
pub(super) fn host_state(host: &HostInterface, mtu: u32) -> HostState {
    HostState {
        name: host.name.clone(),
        ifindex: host.ifindex,
        port: compile::HostPort {
            id: ports::HOST,
            mac: MacAddr(host::MAC),
            mtu,
            offloads: offloads(host.port.offloads()),
        },
    }
}

/// The first of what was wrong, and how much more.
fn summary(repairs: &[HostPortRepair]) -> String {
    let first = repairs.first().map(ToString::to_string).unwrap_or_default();
    match repairs.len() {
        0 | 1 => first,
        all => format!("{first}, and {} more", all - 1),
    }
}
