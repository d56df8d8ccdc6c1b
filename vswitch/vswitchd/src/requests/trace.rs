//! Walks a described packet through the live tables.
//!
//! The decision code is production's. Learned MACs are copied out of the workers first; nothing of
//! the walk touches them, the counters or a port.

use std::net::IpAddr;
use std::time::Duration;

use api::{ErrorKind, ErrorReply, PeerSpec, TracePacket, TraceResult};
use dataplane::tables::{Fdb, Gateway, PortId};
use dataplane::wire::MacAddr;
use dataplane::{DropReason, Millis, Trace, Verdict};
use frame::{Offload, Packet};

use super::packet::{build, describe};
use super::{arrival, refused, words};
use crate::daemon::Daemon;
use controlplane::model::refuse;
use controlplane::ports::{HOST, UPLINK};

const LEARNED_PATIENCE: Duration = Duration::from_millis(500);

impl Daemon {
    pub(super) fn trace(&self, request: &TracePacket) -> Result<TraceResult, ErrorReply> {
        let (bytes, trace) = self.walk(self.port_by_name(&request.port)?, request)?;
        let vxlan_port = self.plane.config().overlay.vxlan_port;
        let name = |port| self.name_of(port);
        Ok(TraceResult {
            packet: describe(&bytes, vxlan_port),
            doors: trace.events.iter().map(|event| words::door(event, &name)).collect(),
            verdict: words::verdict(&trace.verdict, &name),
            dropped: dropped(&trace.verdict).map(|reason| reason.label().to_owned()),
            leaves: trace
                .leaves
                .iter()
                .map(|(port, bytes)| {
                    format!("{}: {}", self.name_of(*port), describe(bytes, vxlan_port))
                })
                .collect(),
        })
    }

    /// The frame that is described, and its walk from this port.
    pub(super) fn walk(
        &self,
        ingress: PortId,
        request: &TracePacket,
    ) -> Result<(Vec<u8>, Trace), ErrorReply> {
        let tables = self.node.publisher.tables();
        let Some(port) = tables.port(ingress) else {
            return refused(ErrorKind::NotReady, format!("port {} is down", request.port));
        };
        let own = |address: &IpAddr| address.is_ipv4() == request.dst.is_ipv4();
        let gateway = match request.dst {
            IpAddr::V4(_) => tables.gateway.v4.map(IpAddr::V4),
            IpAddr::V6(_) => tables.gateway.v6.map(IpAddr::V6),
        };
        let first = port.addresses.iter().copied().find(own);
        if ingress == UPLINK && request.src.is_none() {
            return refused(
                ErrorKind::Invalid,
                format!(
                    "what arrives by {} comes from another node: give its source (--src)",
                    request.port
                ),
            );
        }
        let source = request.src.or(first).or(gateway).ok_or_else(|| {
            refuse(
                ErrorKind::Invalid,
                format!(
                    "port {} has no address of the family of {}; give one",
                    request.port, request.dst
                ),
            )
        })?;
        let mac = |given: Option<api::Mac>, or| given.map_or(or, |mac| MacAddr(mac.0));
        let invalid = |message| refuse(ErrorKind::Invalid, message);
        // A pod of another node comes as its node sends it; any other sender as it is.
        let uplink = self.plane.uplink().map(|uplink| &uplink.port);
        let arrives = uplink.filter(|uplink| uplink.id == ingress).and_then(|uplink| {
            let peer = self.peer_of(source)?;
            Some((
                uplink,
                peer,
                self.plane.with_input(|input| input.choose_encapsulation(peer)).in_force,
            ))
        });
        let (from, to) = match arrives {
            Some((uplink, peer, by)) => arrival::macs(self.plane.config(), uplink, peer, by),
            None => (port.mac, Gateway::MAC),
        };
        let bytes = build(request, mac(request.src_mac, from), mac(request.dst_mac, to), source)
            .map_err(invalid)?;
        let bytes = match arrives {
            Some((uplink, peer, by)) => {
                arrival::encapsulate(self.plane.config(), uplink, peer, by, bytes)
                    .map_err(invalid)?
            }
            None => bytes,
        };

        let Some(mut frame) = self.trace_pool.alloc() else {
            return refused(ErrorKind::Exhausted, "no frame is free for the trace");
        };
        frame
            .extend_from_slice(&bytes)
            .map_err(|_| refuse(ErrorKind::Invalid, "the packet is too long for a frame"))?;
        let packet = Packet { frame, offload: Offload::default() };
        let (fdb, now) = self.learned_fdb();
        let trace = dataplane::trace(
            &tables,
            &fdb,
            &self.node.shared.sessions,
            &self.trace_pool,
            ingress,
            packet,
            now,
        );

        Ok((bytes, trace))
    }

    /// The node of the pod with this address.
    pub(super) fn peer_of(&self, address: IpAddr) -> Option<&PeerSpec> {
        let has = |peer: &&PeerSpec| peer.prefixes.iter().any(|prefix| prefix.contains(&address));
        self.plane.model().peers.values().map(|(peer, _)| peer.as_ref()).find(has)
    }

    /// What all workers have learned, in one table; and the workers' time.
    fn learned_fdb(&self) -> (Fdb, Millis) {
        let learned = self.node.workers.learned(LEARNED_PATIENCE);
        let entries: Vec<_> = learned.into_iter().flat_map(|(_, entries)| entries).collect();
        let ageing_ms = self.plane.config().bridge.ageing_seconds * 1000;
        let now = Millis(self.node.shared.origin.elapsed().as_millis() as u64);
        let mut fdb = Fdb::new(entries.len() as u32, ageing_ms);
        for (entry, age_ms) in entries {
            let seen = Millis(now.since(Millis(age_ms)));
            fdb.learn(entry.bridge, entry.mac, entry.vtep, seen);
        }
        (fdb, now)
    }

    /// A port by its name, its number, its container's id or the beginning of that.
    pub(super) fn port_by_name(&self, name: &str) -> Result<PortId, ErrorReply> {
        if self.plane.host().is_some_and(|host| host.name == name) {
            return Ok(HOST);
        }
        if self.plane.uplink().is_some_and(|uplink| uplink.name == name) {
            return Ok(UPLINK);
        }
        let attachments = || self.plane.model().attachments.keys();
        let mut found: Vec<_> =
            attachments().filter(|attachment| self.plane.port_name(attachment) == name).collect();
        if found.is_empty() && !name.is_empty() {
            found = attachments()
                .filter(|attachment| attachment.container_id.starts_with(name))
                .collect();
        }
        match found.as_slice() {
            [one] => {
                self.plane.ports().number_of(one).ok_or_else(|| {
                    refuse(ErrorKind::Exhausted, format!("{name} has no port number"))
                })
            }
            [] => match name.parse().map(PortId) {
                Ok(id) if self.node.publisher.tables().port(id).is_some() => Ok(id),
                _ => refused(
                    ErrorKind::Unknown,
                    format!("there is no port \"{name}\"; `vswitchctl show ports` lists them"),
                ),
            },
            several => refused(
                ErrorKind::Invalid,
                format!("\"{name}\" is the beginning of {} ports' names", several.len()),
            ),
        }
    }
}

/// Why a packet with this verdict is dropped, if it is.
pub(super) fn dropped(verdict: &Verdict) -> Option<DropReason> {
    match *verdict {
        Verdict::Drop(reason) | Verdict::Refuse { reason, .. } | Verdict::Reset { reason } => {
            Some(reason)
        }
        _ => None,
    }
}
