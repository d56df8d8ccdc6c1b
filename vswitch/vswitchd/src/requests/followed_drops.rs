//! Dropped packets for `drops --follow`, each with its cause.
//!
//! Enters: a request, again and again, with the place where the last answer ended. Leaves: samples that
//! the workers have taken since, as people read them.
//!
//! | file | does |
//! |---|---|
//! | `flow`  | reads addresses and ports from the beginning of a frame |
//! | `cause` | finds the policies that denied a packet, and the limit that it met |

mod cause;
mod flow;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::{DropSample, ErrorKind, ErrorReply, ExplainedEnd, FollowDrops, FollowedDrops, Mac};
use controlplane::ports::{HOST, UPLINK};
use dataplane::drop_ring::DropSnapshot;
use dataplane::tables::policy::Direction;
use dataplane::tables::{MAX_PORTS, PortId};
use dataplane::{DROPS_SAMPLED_A_SECOND, DropReason};

use super::refused;
use crate::daemon::Daemon;
use flow::Flow;

impl Daemon {
    /// The first request of a client, which is at no place yet, only has samples taken.
    pub(super) fn followed_drops(
        &mut self,
        asked: &FollowDrops,
    ) -> Result<FollowedDrops, ErrorReply> {
        let pod = asked.pod.as_deref().map(|pod| self.port_by_name(pod)).transpose()?;
        let reason = asked.reason.as_deref().map(reason).transpose()?;
        let rings = self.follow_drops(Instant::now());
        let mut snapshots = Vec::new();
        let mut next = Vec::with_capacity(rings.len());
        for (number, ring) in rings.iter().enumerate() {
            let from = asked.since.get(number).copied().unwrap_or_else(|| ring.written());
            next.push(ring.since(from, |snapshot| snapshots.push(*snapshot)));
        }
        snapshots.retain(|snapshot| reason.is_none_or(|reason| snapshot.reason == reason));
        snapshots.sort_by_key(|snapshot| snapshot.at);
        let samples = snapshots.iter().filter_map(|snapshot| self.sample(snapshot, pod)).collect();
        let counted = self.dropped_so_far(reason);
        Ok(FollowedDrops { next, samples, most_a_second: DROPS_SAMPLED_A_SECOND, counted })
    }

    /// A sample; `None` if another pod was asked for.
    fn sample(&self, snapshot: &DropSnapshot, asked: Option<PortId>) -> Option<DropSample> {
        let DropSnapshot { reason, ingress, packets, len, .. } = *snapshot;
        let flow = Flow::of(snapshot.beginning(), reason, &self.vxlan_ports());
        let [source, destination] = [flow.source, flow.destination]
            .map(|end| end.and_then(|end| self.port_with(end.address)));
        let cause = self.cause(snapshot, &flow, destination);
        let subject = cause.as_ref().and_then(|cause| cause.subject);
        let ends = [Some(ingress), source, destination, subject.map(|(port, _)| port)];
        if asked.is_some_and(|asked| !ends.contains(&Some(asked))) {
            return None;
        }
        let is_pod = |port: PortId| port != HOST && port != UPLINK;
        let sent = Some(ingress).filter(|port| is_pod(*port));
        let direction = subject.map(|(_, direction)| direction).or_else(|| match asked {
            Some(asked) if destination == Some(asked) => Some(Direction::Ingress),
            _ => sent.map(|_| Direction::Egress).or(destination.map(|_| Direction::Ingress)),
        });
        let end = |end: flow::FlowEnd| ExplainedEnd {
            name: self.pod_with(end.address),
            address: end.address,
            port: end.port,
        };
        let mac = |at: usize| snapshot.beginning().get(at..)?.first_chunk().copied().map(Mac);
        Some(DropSample {
            time_ms: self.unix_ms(snapshot),
            reason: reason.label().to_owned(),
            explanation: reason.explanation().trim().to_owned(),
            cause: cause.map(|cause| cause.text),
            port: self.name_of(ingress),
            direction: direction.map(|direction| match direction {
                Direction::Ingress => "in".to_owned(),
                Direction::Egress => "out".to_owned(),
            }),
            source: flow.source.map(end),
            destination: flow.destination.map(end),
            source_mac: mac(6),
            destination_mac: mac(0),
            protocol: flow.protocol,
            detail: flow.detail,
            bytes: len,
            packets,
        })
    }

    /// UDP ports of tunnel packets.
    fn vxlan_ports(&self) -> Vec<u16> {
        let overlay = &self.plane.config().overlay;
        let accepted = overlay.accept_vxlan_ports.iter().copied();
        accepted.chain([overlay.vxlan_port]).collect()
    }

    /// The workers count time from their own moment.
    fn unix_ms(&self, snapshot: &DropSnapshot) -> u64 {
        let worker_ms = self.node.shared.origin.elapsed().as_millis() as u64;
        let age = Duration::from_millis(worker_ms.saturating_sub(snapshot.at.0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(age).as_millis() as u64
    }

    /// Packets that were dropped since the daemon started; those of one reason become fewer when a
    /// port's number is given to another.
    fn dropped_so_far(&self, reason: Option<DropReason>) -> u64 {
        let workers = self.node.workers.counters();
        let ports = || (0..MAX_PORTS as u16).map(PortId);
        match reason {
            None => workers.iter().map(|counters| counters.accounting().dropped).sum(),
            Some(reason) => workers
                .iter()
                .flat_map(|counters| ports().map(|port| counters.drops(port, reason)))
                .sum(),
        }
    }
}

fn reason(label: &str) -> Result<DropReason, ErrorReply> {
    match DropReason::ALL.iter().find(|reason| reason.label() == label) {
        Some(reason) => Ok(*reason),
        None => refused(
            ErrorKind::Unknown,
            format!(
                "\"{}\" is no reason; docs/drop-reasons.md lists them, and `vswitchctl show drops` \
                 those that have occurred",
                label.escape_debug()
            ),
        ),
    }
}
