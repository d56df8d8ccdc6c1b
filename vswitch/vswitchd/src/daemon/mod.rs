//! The daemon's state, and the order in which a change is made.
//!
//! Enters: a configuration, requests, events of the kernel, time. Leaves: tables to the workers,
//! lines to the journal, answers. One thread owns all of it; `control` calls it.
//!
//! A change is judged by the model, applied to it, journalled (on disk before anybody is told),
//! compiled, published, and answered once every worker has it. What fails after the first step is
//! taken back.

mod kernel;
mod mtu;
mod own_address;
mod start;
mod stop;
mod workers;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::{ErrorKind, ErrorReply, Source};
use dataplane::Millis;
use dataplane::tables::{Offloads, Tables};
use frame::Pool;
use netio::pinhole::Steering;
use netio::port::TapOffloads;
use netlink::{Event, Monitor, Netlink};

use crate::error::chain;
use crate::host::{HostInterface, sysctl_warnings};
use crate::journal::Journal;
use crate::kernel::KernelTable;
use crate::lock::Locks;
use crate::masquerade::Masquerade;
use crate::underlay::{Reach, Underlay};
use crate::uplink::Uplink;
use controlplane::compile::{Base, HostPort, Input, UplinkPort};
use controlplane::config::{Config, Former};
use controlplane::model::{Edit, Model, refuse};
use controlplane::path_mtu::PathMtus;
use controlplane::ports::{self, Ports};
use worker::Workers;
use worker::publish::Publisher;

/// A worker turns at least once a second; the watchdog is not fed for one that does not.
const WORKER_PATIENCE: Duration = Duration::from_secs(4);

/// A running daemon.
pub struct Daemon {
    pub(crate) config: Config,
    config_path: PathBuf,
    pub(crate) model: Model,
    journal: Journal,
    pub(crate) ports: Ports,
    pub(crate) publisher: Publisher,
    /// What of the published tables is not pods.
    base: Option<Base>,
    pub(crate) workers: Workers,
    pub(crate) uplink: Option<Uplink>,
    pub(crate) underlay: Option<Underlay>,
    pub(crate) path_mtus: PathMtus,
    /// The kernel's routing table, if it is a source.
    pub(crate) kernel: Option<KernelTable>,
    monitor: Option<Monitor>,
    pub(crate) host: Option<HostInterface>,
    pub(crate) masquerade: Option<Masquerade>,
    pub(crate) choices: Vec<String>,
    pub(crate) warnings: Vec<String>,
    /// What is wrong with MTUs as things are.
    pub(crate) mtu_notes: Vec<String>,
    /// What is wrong with the uplink's addresses as things are.
    pub(crate) address_notes: Vec<String>,
    /// Ports and identifiers that a reload replaced, still taken from peers.
    former: Former,
    pub(crate) started: Instant,
    /// Frames for `trace`.
    pub(crate) trace_pool: Pool,
    agenda: kernel::Agenda,
    /// Turns of each worker, and when they were last seen to grow.
    turns: Vec<(u64, Instant)>,
    /// How often a peer of each source was refused, since the start.
    pub(crate) refusals: BTreeMap<Source, u64>,
    _locks: Locks,
}

impl Daemon {
    /// The control plane's time: milliseconds since the start.
    pub(crate) fn millis(&self, now: Instant) -> Millis {
        Millis(now.saturating_duration_since(self.started).as_millis() as u64)
    }

    /// Where clients connect.
    #[must_use]
    pub fn socket(&self) -> &std::path::Path {
        &self.config.control.socket
    }

    /// The kernel's announcements, to be watched for readiness.
    #[must_use]
    pub fn monitor(&self) -> Option<&Monitor> {
        self.monitor.as_ref()
    }

    /// Makes a change: all of it, or nothing and a refusal.
    pub(crate) fn transact(&mut self, edits: &[Edit]) -> Result<(), ErrorReply> {
        let undo = self.edit(edits)?;
        if let Err(refusal) = self.publish() {
            self.model.apply_all(&undo);
            if let Err(error) = self.journal.append(&undo) {
                tracing::error!("a change that failed stays in the journal: {}", chain(&error));
            }
            // The workers that can shall not forward by what was refused.
            let _ = self.publish();
            return Err(refusal);
        }
        self.compact();
        Ok(())
    }

    /// As `transact`, for a change that forwards nothing anew: it is on disk, and that is all.
    pub(crate) fn record(&mut self, edits: &[Edit]) -> Result<(), ErrorReply> {
        self.edit(edits)?;
        self.compact();
        Ok(())
    }

    /// Edits the model and the journal, or neither; the edits that take it back.
    fn edit(&mut self, edits: &[Edit]) -> Result<Vec<Edit>, ErrorReply> {
        let undo = self.model.apply_all(edits);
        if let Err(error) = self.journal.append(edits) {
            self.model.apply_all(&undo);
            let message = chain(&error);
            tracing::error!("{message}");
            return Err(refuse(ErrorKind::Internal, message));
        }
        Ok(undo)
    }

    fn compact(&mut self) {
        if self.journal.wants_compaction()
            && let Err(error) = self.journal.compact(&self.model.snapshot())
        {
            tracing::warn!("the journal cannot be compacted: {}", chain(&error));
        }
    }

    /// Compiles and publishes, and waits for every worker.
    pub(crate) fn publish(&mut self) -> Result<(), ErrorReply> {
        self.settle_pod_prefixes()?;
        let wanted = self.underlay_addresses();
        if let Some(underlay) = &mut self.underlay {
            underlay.refresh(&wanted);
        }
        self.follow_host_mtu();
        let steering = self.uplink.as_ref().map(|uplink| uplink.wanted(&self.config, &self.model));
        if let Some(steering) = &steering {
            self.hear_more(steering)?;
        }
        let tables = self.compile();
        self.hand_out(tables)?;
        self.release_ports();
        if let (Some(uplink), Some(steering)) = (&mut self.uplink, steering)
            && let Err(error) = uplink.narrow(steering)
        {
            // What is taken in vain is dropped and counted.
            tracing::error!("the NIC goes on giving us more than we take: {}", chain(&error));
        }
        self.note_mtu();
        Ok(())
    }

    /// Before anything is sent another way: takes what may be sent that way in return. The workers
    /// first, then the NIC, so that it never gives them what they do not know. A new peer alone is no
    /// other way: until the workers know it, in a moment, they drop what it sends.
    fn hear_more(&mut self, wanted: &Steering) -> Result<(), ErrorReply> {
        if self.uplink.as_ref().is_some_and(|uplink| uplink.lacks(wanted)) {
            let fresh = self.compile();
            let mut tables = Tables::clone(&self.publisher.tables());
            (tables.epoch, tables.tunnels) = (fresh.epoch, fresh.tunnels);
            self.hand_out(tables)?;
        }
        match self.uplink.as_mut().map(|uplink| uplink.widen(wanted)) {
            Some(Err(error)) => {
                let message = format!("the NIC cannot be told what to take: {}", chain(&error));
                Err(refuse(ErrorKind::Internal, message))
            }
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Of what is known already, as much as can be is used again.
    fn compile(&mut self) -> Tables {
        let former = self.base.take();
        let (base, tables) = self.with_input(|input| {
            let base = Base::renew(former, input);
            let tables = base.tables(input);
            (base, tables)
        });
        self.base = Some(base);
        tables
    }

    fn hand_out(&mut self, tables: Tables) -> Result<(), ErrorReply> {
        if self.publisher.publish(tables, &self.workers) {
            return Ok(());
        }
        Err(refuse(
            ErrorKind::NotReady,
            "a worker does not take new tables; its core may be taken by another process",
        ))
    }

    /// The kernel routes, and masquerades, for the pod prefixes that the model has.
    fn settle_pod_prefixes(&mut self) -> Result<(), ErrorReply> {
        let Some(host) = &mut self.host else { return Ok(()) };
        let pods = &self.model.pods;
        if host.is_assigned(pods) {
            return Ok(());
        }
        let failed = |error: &dyn std::error::Error| {
            let message =
                format!("the node's kernel cannot be given the pod prefixes: {}", chain(error));
            refuse(ErrorKind::Internal, message)
        };
        if let (Some(masquerade), Some(settings)) = (&mut self.masquerade, &self.config.host) {
            let rules = masquerade.update(&self.config.node, settings, pods);
            rules.map_err(|error| failed(&error))?;
        }
        Netlink::open()
            .and_then(|mut netlink| host.assign(&mut netlink, &self.model.cluster_prefixes, pods))
            .map_err(|error| failed(&error))?;
        for warning in sysctl_warnings(pods, &host.name) {
            if !self.warnings.contains(&warning) {
                tracing::warn!("{warning}");
                self.warnings.push(warning);
            }
        }
        Ok(())
    }

    /// Calls with everything that tables are made of.
    pub(crate) fn with_input<T>(&self, call: impl FnOnce(&Input<'_>) -> T) -> T {
        let (pods, uplink, host) = (self.ports.compiled(), self.uplink_port(), self.host_port());
        let none = BTreeMap::new();
        call(&Input {
            config: &self.config,
            model: &self.model,
            pods: &pods,
            host: host.as_ref(),
            uplink: uplink.as_ref(),
            path_mtus: &self.path_mtus,
            next_hops: self.underlay.as_ref().map_or(&none, Underlay::next_hops),
            epoch: self.publisher.next_epoch(),
        })
    }

    pub(crate) fn uplink_port(&self) -> Option<UplinkPort> {
        self.uplink.as_ref().map(|uplink| UplinkPort {
            id: ports::UPLINK,
            mac: dataplane::wire::MacAddr(uplink.facts.mac),
            addresses: uplink.facts.addresses,
            mtu: uplink.facts.mtu,
        })
    }

    pub(crate) fn host_port(&self) -> Option<HostPort> {
        self.host.as_ref().map(|host| HostPort {
            id: ports::HOST,
            mac: dataplane::wire::MacAddr(host.mac),
            mtu: host.mtu,
            offloads: offloads(host.port.offloads()),
        })
    }

    fn underlay_addresses(&self) -> BTreeMap<IpAddr, Reach> {
        let kernel = &self.model.kernel;
        let mut wanted: BTreeMap<_, _> =
            kernel.direct.keys().map(|gateway| (*gateway, Reach::OnLink)).collect();
        // A peer is where the kernel routes to, whoever else names it.
        let peers = self.model.peers.values().map(|(peer, _)| peer.address);
        let peers = peers.chain(kernel.peers.keys().copied());
        let vteps = self.config.bridge.vteps.iter().copied();
        wanted.extend(peers.chain(vteps).map(|address| (address, Reach::Routed)));
        wanted
    }

    /// Closes what no table names any more, once every worker is past those that did.
    fn release_ports(&mut self) {
        for id in self.ports.left() {
            self.workers.remove_port(id);
        }
    }

    /// True if the tables hold something of it that is different.
    fn on_link_event(&mut self, event: &Event) -> bool {
        let Some(uplink) = &mut self.uplink else { return false };
        let facts = &mut uplink.facts;
        let (mac, mtu) = (facts.mac, facts.mtu);
        match event {
            Event::LinkChanged(link) if link.index == facts.link.index => {
                if link.carrier != facts.link.carrier {
                    tracing::warn!(carrier = link.carrier, "uplink {}", link.name);
                }
                if link.mtu != facts.link.mtu {
                    tracing::warn!(
                        "uplink {}: its MTU is {} and was {}; that of the pods follows",
                        link.name,
                        link.mtu,
                        facts.link.mtu
                    );
                    facts.mtu = link.mtu.min(netio::xsk::MAX_FRAME_BYTES as u32 - 14);
                }
                if link.name != facts.link.name {
                    tracing::warn!("uplink {}: its name is {}", facts.link.name, link.name);
                    if let Some(underlay) = &mut self.underlay {
                        underlay.rename(&link.name);
                    }
                }
                facts.mac = link.mac.unwrap_or(facts.mac);
                facts.link = link.clone();
                return (facts.mac, facts.mtu) != (mac, mtu);
            }
            Event::LinkGone(link) if link.index == facts.link.index => {
                let warning =
                    format!("uplink {} is gone; restart the daemon when it is back", link.name);
                tracing::error!("{warning}");
                self.warnings.push(warning);
            }
            _ => {}
        }
        false
    }

    /// Does what is due: after kernel events, and once a second.
    pub fn on_time(&mut self, now: Instant) {
        self.follow_kernel(now);
        self.follow_path_mtus(now);
        self.notice_gone_ports();
        if self.publisher.settle(&self.workers) {
            self.release_ports();
        }
    }

    /// Has every peer be sent no more than routers of the underlay said that they let through.
    fn follow_path_mtus(&mut self, now: Instant) {
        let now = self.millis(now);
        let mut changed = self.path_mtus.expire(now);
        for heard in self.workers.heard_path_mtus() {
            if self.path_mtus.note(heard, now) {
                tracing::info!(
                    "no more than {} bytes of a tunnel packet pass to {}, a router of the underlay says",
                    heard.mtu,
                    heard.address
                );
                changed = true;
            }
        }
        if changed && let Err(refusal) = self.publish() {
            tracing::error!("{refusal}");
        }
    }

    /// A pod's namespace ended before its DEL came: its address stays leased, its port goes.
    pub(crate) fn notice_gone_ports(&mut self) {
        let mut gone = Vec::new();
        for id in self.workers.gone_ports() {
            if id == ports::HOST {
                let warning =
                    "the host port's interface was removed; restart the daemon".to_owned();
                tracing::error!("{warning}");
                self.warnings.push(warning);
            } else if let Some(attachment) = self.ports.mark_down(id) {
                tracing::warn!(
                    container = attachment.container_id,
                    ifname = attachment.ifname,
                    "{id}: the pod's interface is gone; its addresses stay leased until its DEL"
                );
                gone.push(id);
            }
        }
        if gone.is_empty() {
            return;
        }
        if let Err(refusal) = self.publish() {
            tracing::error!("{refusal}");
        }
        for id in gone {
            self.workers.remove_port(id);
        }
    }

    /// Whether every worker's loop has turned lately.
    pub fn workers_are_alive(&mut self, now: Instant) -> bool {
        let states = self.workers.states();
        self.turns.resize(states.len(), (u64::MAX, now));
        for (seen, state) in self.turns.iter_mut().zip(states) {
            if seen.0 != state.turns {
                *seen = (state.turns, now);
            }
        }
        self.turns.iter().all(|(_, since)| now.duration_since(*since) < WORKER_PATIENCE)
    }
}

/// What a port's kernel takes undone.
pub(crate) fn offloads(tap: TapOffloads) -> Offloads {
    Offloads { checksum: tap.checksum, tso: tap.tso, uso: tap.uso }
}
