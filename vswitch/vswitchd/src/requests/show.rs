//! Ports, tables and drops, as people and programs read them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{
    Bandwidth, DropCount, Drops, FdbEntry, Mac, Mode, NeighborEntry, PolicyDecisions, PolicyState,
    PortCounters, PortEntry, PortKind, PortQueue,
};
use controlplane::next_hop::NeighborState;
use dataplane::DropReason;
use dataplane::counters::{Accounting, Counters, PortCounts};
use dataplane::tables::policy::Direction;
use dataplane::tables::{FdbTarget, MAX_PORTS, PortId};
use ipnet::IpNet;

use crate::daemon::Daemon;
use controlplane::ports::{self, HOST, UPLINK};

/// What stands for the name of ports whose pod is gone.
pub(super) const GONE_PORTS: &str = "ports that are gone";

/// A worker answers within a turn; one that does not is left out.
const LEARNED_PATIENCE: Duration = Duration::from_millis(500);

impl Daemon {
    /// With what the kernel lost of each.
    pub(super) fn show_ports(&mut self) -> Vec<PortEntry> {
        let lost = self.lost_in_queues();
        let mut entries = self.ports();
        for entry in &mut entries {
            entry.counters.queue_full = lost.get(&PortId(entry.id)).copied();
        }
        entries
    }

    /// As the switch has them: the kernel is not asked.
    pub(super) fn ports(&self) -> Vec<PortEntry> {
        let mut entries = Vec::new();
        if let Some(host) = self.plane.host() {
            let own = self.plane.model().pods.own_addresses();
            entries.push(PortEntry {
                id: HOST.0,
                name: host.name.clone(),
                kind: PortKind::Host,
                up: true,
                mac: Some(Mac(host.port.mac.0)),
                addresses: own.collect(),
                mtu: host.port.mtu,
                offloads: ports::describe(host.port.offloads),
                attachment: None,
                network: None,
                pod: None,
                mode: None,
                port_mappings: Vec::new(),
                bandwidth: Bandwidth::default(),
                worker: Some(0),
                queues: Vec::new(),
                counters: self.counters(HOST),
            });
        }
        if let (Some(uplink), Some(state)) = (&self.node.uplink, self.plane.uplink()) {
            let (facts, port) = (&uplink.facts, &state.port);
            entries.push(PortEntry {
                id: UPLINK.0,
                name: facts.link.name.clone(),
                kind: PortKind::Uplink,
                up: facts.link.up && facts.link.carrier,
                mac: Some(Mac(port.mac.0)),
                addresses: port.addresses.iter().collect(),
                mtu: port.mtu,
                offloads: ports::describe(port.offloads),
                attachment: None,
                network: None,
                pod: None,
                mode: None,
                port_mappings: Vec::new(),
                bandwidth: Bandwidth::default(),
                worker: None,
                queues: Vec::new(),
                counters: self.counters(UPLINK),
            });
        }
        for (attachment, lease) in &self.plane.model().attachments {
            let Some(id) = self.plane.ports().number_of(attachment) else { continue };
            let live = self.plane.ports().live(attachment);
            entries.push(PortEntry {
                id: id.0,
                name: self.plane.port_name(attachment),
                kind: PortKind::Pod,
                up: self.plane.ports().is_up(attachment),
                mac: Some(lease.mac),
                addresses: lease.addresses.iter().map(IpNet::addr).collect(),
                mtu: lease.mtu,
                offloads: live.map_or_else(String::new, |live| ports::describe(live.offloads)),
                attachment: Some(attachment.clone()),
                network: lease.network.clone(),
                pod: lease.pod.clone(),
                mode: Some(lease.mode.clone()),
                port_mappings: lease.port_mappings.clone(),
                bandwidth: lease.bandwidth,
                worker: live.and_then(|live| live.workers.first().copied()),
                queues: live.map_or_else(Vec::new, |live| self.queues(id, &live.workers)),
                counters: self.counters(id),
            });
        }
        entries.sort_by_key(|entry| entry.id);
        entries
    }

    /// The queues of a port that has several: what a worker has received from the port came by its queue.
    fn queues(&self, id: PortId, workers: &[usize]) -> Vec<PortQueue> {
        let counters = self.node.workers.counters();
        let queue = |worker: &usize| {
            let rx_packets = counters.get(*worker).map_or(0, |of| of.port(id).rx_packets);
            PortQueue { worker: *worker, rx_packets }
        };
        if workers.len() > 1 { workers.iter().map(queue).collect() } else { Vec::new() }
    }

    fn counters(&self, id: PortId) -> PortCounters {
        let mut sum = PortCounters::default();
        for counters in self.node.workers.counters() {
            add(&mut sum, counters.port(id));
            sum.dropped +=
                DropReason::ALL.iter().map(|reason| counters.drops(id, *reason)).sum::<u64>();
        }
        sum
    }

    /// Counters of all ports that are gone, but for what was dropped.
    pub(super) fn gone_counters(&self) -> PortCounters {
        let mut sum = PortCounters::default();
        let unnamed: Vec<_> = port_ids().filter(|id| self.known_name(*id).is_none()).collect();
        for counters in self.node.workers.counters() {
            add(&mut sum, counters.gone());
            unnamed.iter().for_each(|id| add(&mut sum, counters.port(*id)));
        }
        sum
    }

    /// Packets from ports that are gone that were dropped, by reason.
    pub(super) fn gone_drops(&self) -> Vec<(DropReason, u64)> {
        let workers = self.node.workers.counters();
        let unnamed: Vec<_> = port_ids().filter(|id| self.known_name(*id).is_none()).collect();
        let dropped = |reason: DropReason| -> u64 {
            let of_worker = |of: &Arc<Counters>| {
                let unnamed = unnamed.iter().map(|id| of.drops(*id, reason));
                of.gone_drops(reason) + unnamed.sum::<u64>()
            };
            workers.iter().map(of_worker).sum()
        };
        let drops = DropReason::ALL.iter().map(|reason| (*reason, dropped(*reason)));
        drops.filter(|(_, packets)| *packets > 0).collect()
    }

    /// The name of a port by its number; that of a port that was detached is its number.
    pub(super) fn name_of(&self, id: PortId) -> String {
        self.known_name(id).unwrap_or_else(|| id.to_string())
    }

    /// The name of a port by its number, unless it was detached.
    fn known_name(&self, id: PortId) -> Option<String> {
        match id {
            HOST => self.plane.host().map(|host| host.name.clone()),
            UPLINK => self.plane.uplink().map(|uplink| uplink.name.clone()),
            _ => self
                .plane
                .ports()
                .attachment_of(id)
                .map(|attachment| self.plane.port_name(attachment)),
        }
    }

    pub(super) fn show_fdb(&self) -> Vec<FdbEntry> {
        let bridge = &self.plane.config().bridge.name;
        let tables = self.node.publisher.tables();
        let place = |target| match target {
            FdbTarget::Port(port) => (Some(self.name_of(port)), None),
            FdbTarget::Vtep(id) => {
                let vtep = tables.bridges.first().and_then(|bridge| bridge.vtep(id));
                (None, vtep.map(|vtep| vtep.address))
            }
        };
        let mut entries = Vec::new();
        for (mac, target) in tables.bridges.iter().flat_map(|bridge| &bridge.fdb) {
            let (port, vtep) = place(*target);
            let is_runtime = self.plane.model().fdb.contains_key(&(bridge.clone(), Mac(mac.0)));
            entries.push(FdbEntry {
                bridge: bridge.clone(),
                mac: Mac(mac.0),
                port,
                vtep,
                source: if is_runtime { "runtime" } else { "static" }.into(),
                age_seconds: None,
                worker: None,
            });
        }
        for (worker, learned) in self.node.workers.learned(LEARNED_PATIENCE) {
            for (entry, age_ms) in learned {
                let (port, vtep) = place(FdbTarget::Vtep(entry.vtep));
                entries.push(FdbEntry {
                    bridge: bridge.clone(),
                    mac: Mac(entry.mac.0),
                    port,
                    vtep,
                    source: "learned".into(),
                    age_seconds: Some(age_ms / 1000),
                    worker: Some(worker),
                });
            }
        }
        entries.sort_by_key(|entry| (entry.mac, entry.worker));
        entries
    }

    pub(super) fn show_neighbors(&self) -> Vec<NeighborEntry> {
        let mut entries = Vec::new();
        for (attachment, lease) in &self.plane.model().attachments {
            let on = match &lease.mode {
                Mode::Routed => format!("pod {}", self.plane.port_name(attachment)),
                Mode::Bridged { .. } => format!("bridge {}", self.plane.config().bridge.name),
            };
            let state = if self.plane.ports().is_up(attachment) { "permanent" } else { "down" };
            for net in &lease.addresses {
                entries.push(NeighborEntry {
                    address: net.addr(),
                    mac: Some(lease.mac),
                    on: on.clone(),
                    source: "attachment".into(),
                    state: state.into(),
                });
            }
        }
        for ((bridge, address), mac) in &self.plane.model().neighbors {
            entries.push(NeighborEntry {
                address: *address,
                mac: Some(*mac),
                on: format!("bridge {bridge}"),
                source: "runtime".into(),
                state: "permanent".into(),
            });
        }
        // Several peers behind one router share its entry.
        let mut hops = BTreeMap::new();
        for hop in self.plane.next_hops().values() {
            if let Some(via) = hop.via {
                hops.insert(via, hop);
            }
        }
        let interface = self.plane.uplink().map_or("", |uplink| &uplink.name);
        for (via, hop) in hops {
            entries.push(NeighborEntry {
                address: via,
                mac: hop.mac.map(|mac| Mac(mac.0)),
                on: format!("underlay {interface}"),
                source: "kernel".into(),
                state: hop.neighbor.map_or("none", NeighborState::label).into(),
            });
        }
        entries
    }

    /// The policies of each pod, with what they decided.
    pub(super) fn show_policies(&self) -> PolicyState {
        let mut state = self.plane.policy_state();
        state.summary.ingress = self.decided(Direction::Ingress);
        state.summary.egress = self.decided(Direction::Egress);
        state
    }

    /// What policies decided in this direction, by all workers.
    pub(super) fn decided(&self, direction: Direction) -> PolicyDecisions {
        let workers = self.node.workers.counters();
        let sum = |allowed| workers.iter().map(|of| of.judged(direction, allowed)).sum();
        PolicyDecisions { allowed: sum(true), denied: sum(false) }
    }

    /// The accounting of all workers.
    pub(super) fn accounting(&self) -> Accounting {
        let mut sum = Accounting::default();
        for counters in self.node.workers.counters() {
            let Accounting { received, made, sent, dropped } = counters.accounting();
            sum.received += received;
            sum.made += made;
            sum.sent += sent;
            sum.dropped += dropped;
        }
        sum
    }

    /// The sums are over all time, and so is what is told of the reasons: ports that are gone have one line for
    /// each.
    pub(super) fn show_drops(&mut self) -> Drops {
        let nic_queues = self.nic_queues();
        let kernel = self.kernel_drops(&nic_queues);
        let workers = self.node.workers.counters();
        let Accounting { received, made, sent, dropped } = self.accounting();
        let mut drops =
            Drops { received, made, sent, dropped, reasons: Vec::new(), kernel, nic_queues };
        let mut count = |port: &str, reason: DropReason, packets| {
            drops.reasons.push(DropCount {
                port: port.to_owned(),
                reason: reason.label().into(),
                explanation: reason.explanation().trim().into(),
                packets,
            });
        };
        for id in port_ids() {
            let Some(name) = self.known_name(id) else { continue };
            for reason in DropReason::ALL {
                let packets: u64 = workers.iter().map(|of| of.drops(id, *reason)).sum();
                if packets > 0 {
                    count(&name, *reason, packets);
                }
            }
        }
        for (reason, packets) in self.gone_drops() {
            count(GONE_PORTS, reason, packets);
        }
        drops
    }
}

fn port_ids() -> impl Iterator<Item = PortId> {
    (0..MAX_PORTS as u16).map(PortId)
}

fn add(sum: &mut PortCounters, counts: PortCounts) {
    sum.rx_packets += counts.rx_packets;
    sum.rx_bytes += counts.rx_bytes;
    sum.tx_packets += counts.tx_packets;
    sum.tx_bytes += counts.tx_bytes;
    sum.rx_delayed += counts.rx_delayed;
    sum.tx_delayed += counts.tx_delayed;
}
