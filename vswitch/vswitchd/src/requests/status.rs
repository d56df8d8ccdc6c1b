//! The daemon as a whole.

use std::time::Instant;

use api::{
    Encapsulation, KernelRoutes, Mac, MasqueradeStatus, RefusedRoute, Status, UplinkStatus,
    WorkerCoreShare, WorkerPortIo, WorkerStatus,
};

use crate::daemon::Daemon;
use crate::host::strict_uplink_warning;
use crate::rules::Observed;
use controlplane::compile::vtep_mac;

/// A table may have thousands that are refused; a person reads a few.
const REFUSALS_SHOWN: usize = 20;

impl Daemon {
    pub(super) fn status(&mut self) -> Status {
        let problems = self.problems(Instant::now());
        self.look_at_advertised();
        self.settle_forwarding(Instant::now());
        let observed = self.node.rules.seen().cloned();
        let mut warnings = self.attention();
        warnings.extend(self.repairs.attention(self.millis(Instant::now())));
        warnings.extend(self.node.journal.growth().cloned());
        warnings.extend(self.queue_note.clone());
        warnings.extend(self.node.rules.note(Instant::now()));
        warnings.extend(self.sysctl_notes.clone());
        warnings.extend(self.strict_uplink());
        warnings.extend(self.legacy_firewalls());
        warnings.extend(self.too_long_frames());
        warnings.extend(self.recovery.note(Instant::now()));
        warnings.extend(self.policy_notes(Instant::now()));
        let workers = self.worker_status(&mut warnings);
        warnings.extend(observed.iter().flat_map(|observed| observed.problems.clone()));
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            node: self.plane.config().node.name.clone(),
            uptime_seconds: self.started.elapsed().as_secs(),
            epoch: self.node.publisher.epoch().0,
            pod_prefixes: self.plane.model().pods.all().copied().collect(),
            cluster_prefixes: self.plane.config().node.cluster_prefixes.clone(),
            pod_mtu: self.plane.pod_mtu(),
            pods: self.plane.ports().count_up(),
            peers: self.plane.model().peers.len(),
            sources: self.source_status(),
            uplink: self.uplink_status(),
            workers,
            host_interface: self.plane.host().map(|host| host.name.clone()),
            masquerade: observed.map(|observed| self.masquerade_status(&observed)),
            kernel_routes: self.kernel_status(),
            repairs: self.repairs.status(),
            publish_latency_us: self.node.publisher.latency_us(),
            choices: self.choices.clone(),
            warnings,
            problems,
            lost_pods: self.plane.lost_pods().collect(),
        }
    }

    /// Where peers send to this node's own address without encapsulation.
    fn strict_uplink(&self) -> Option<String> {
        let uplink = self.plane.uplink()?;
        // There may be thousands of peers: asked first what is seldom so.
        let warning = strict_uplink_warning(&uplink.name)?;
        let is_direct = self.plane.with_input(|input| {
            let mut peers = input.model.peers.values();
            peers.any(|(peer, _)| {
                peer.address.is_ipv4()
                    && input.choose_encapsulation(peer).in_force == Encapsulation::Direct
            })
        });
        is_direct.then_some(warning)
    }

    fn masquerade_status(&self, observed: &Observed) -> MasqueradeStatus {
        let host = self.plane.config().host.as_ref();
        MasqueradeStatus {
            connections: observed.connections,
            exceptions: host.map_or_else(Vec::new, |host| host.non_masquerade_prefixes.clone()),
        }
    }

    fn kernel_status(&self) -> Option<KernelRoutes> {
        if !self.plane.follows_kernel() {
            return None;
        }
        let learned = &self.plane.model().kernel;
        let refusals = learned.refused.iter().take(REFUSALS_SHOWN);
        let refusals = refusals
            .map(|(prefix, reason)| RefusedRoute { prefix: *prefix, reason: reason.clone() })
            .collect();
        Some(KernelRoutes {
            taken: learned.routes.len(),
            ignored: learned.ignored.len(),
            refused: learned.refused.len(),
            refusals,
        })
    }

    fn uplink_status(&self) -> Option<UplinkStatus> {
        let (uplink, state) = (self.node.uplink.as_ref()?, self.plane.uplink()?);
        let own = state.port.addresses;
        let address = own.iter().next();
        let address6 = own.v6.filter(|_| own.v4.is_some());
        let mac = |own| Mac(vtep_mac(self.plane.config(), own).0);
        Some(UplinkStatus {
            interface: state.name.clone(),
            kind: uplink.control().kind().to_string(),
            kind_reason: uplink.why().map(ToOwned::to_owned),
            xdp_mode: uplink.control().xdp_mode().map(ToString::to_string),
            copy_mode: uplink.control().copy_mode().map(ToString::to_string),
            queues: uplink.facts.queues as usize,
            address,
            address6,
            mtu: state.port.mtu,
            encapsulation: self.plane.config().overlay.encapsulation,
            encapsulate: self.plane.config().overlay.encapsulate,
            vni: self.plane.config().overlay.vni,
            vxlan_port: self.plane.config().overlay.vxlan_port,
            vtep_mac: address.map(mac),
            vtep_mac6: address6.map(|v6| mac(v6.into())),
        })
    }

    /// Of workers that are kept off their core, a warning is added.
    fn worker_status(&mut self, warnings: &mut Vec<String>) -> Vec<WorkerStatus> {
        let mut loads = self.plane.ports().loads(self.node.workers.count());
        // The host port is the first worker's.
        if let (Some(load), Some(_)) = (loads.first_mut(), self.plane.host()) {
            *load += 1;
        }
        let states = self.node.workers.look();
        let shares = self.core_shares.look(&states);
        states
            .into_iter()
            .zip(shares)
            .zip(loads)
            .map(|((state, share), ports)| WorkerStatus {
                id: state.id,
                core: state.core,
                core_share: share.map(|share| {
                    warnings.extend(share.warning(&state));
                    WorkerCoreShare {
                        seconds: share.over.as_secs(),
                        waited_percent: share.waited_percent,
                        others_percent: share.others_percent,
                    }
                }),
                queues: state.queues,
                sends_by: state.sends_by.map(|kind| kind.to_string()),
                port_io: state.port_io.map(|choice| WorkerPortIo {
                    by: choice.by().to_owned(),
                    reason: choice.reason,
                }),
                ports,
                epoch: state.epoch.0,
                frames_free: state.frames_free,
                frames_total: state.frames_total,
                longest_turn_us: state.longest_turn_us,
                hands_over_to: state.hands_over_to,
                handed_over: state.handed_over,
            })
            .collect()
    }
}
