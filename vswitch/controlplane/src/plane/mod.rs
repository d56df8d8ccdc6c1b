//! The control plane: what the node is, and what every event comes to.
//!
//! Enters: an [`Event`], at [`ControlPlane::on`]. Leaves: a [`Change`], a list of actions that
//! [`ControlPlane::carry_out`] performs. `vswitchd` has one, and shows what it holds.
//!
//! | file | decides |
//! |---|---|
//! | `event`    | which events there are |
//! | `requests` | what clients ask for: leases, ports, run-time entries |
//! | `cluster`  | what the cluster tells: peers, this node's prefixes |
//! | `services` | what the cluster tells of services |
//! | `policies` | what the cluster tells of policies, and what each pod has of them |
//! | `facts`    | what the kernel, routers of the underlay and time tell |
//! | `pods`     | what becomes of pods that end without a DEL, or lose their interface |
//! | `reload`   | another configuration |
//! | `problems` | why the next pod would be refused, and which pods suffer |
//! | `list`     | the order of a change's actions |

mod cluster;
mod event;
mod facts;
mod list;
mod pods;
mod policies;
mod problems;
mod reload;
mod requests;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use api::{Adjustment, AttachmentId, ErrorReply, RefusedAddress, Source};
use dataplane::tables::{Epoch, FdbTarget, PortId, Tables};
use dataplane::{Millis, PathMtu};

use crate::change::{Change, Note, Reloaded, Rollback};
use crate::compile::{Base, HostPort, Input, UplinkPort};
use crate::config::{Config, Former};
use crate::desired::translation::translations;
use crate::desired::{HostPortState, NftTable, Steering, Translations};
use crate::kernel::Follower;
use crate::model::{Edit, Model, pod_name};
use crate::mtu;
use crate::next_hop::{NextHops, Reach};
use crate::path_mtu::PathMtus;
use crate::ports::Ports;

use list::Frame;
use policies::PolicyPlane;

pub use event::{Event, UplinkLink};
pub use reload::needs_restart;

/// The NIC, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UplinkState {
    /// Its name.
    pub name: String,
    /// Its number in the kernel.
    pub ifindex: u32,
    /// As the tables have it.
    pub port: UplinkPort,
}

/// The node's own port, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostState {
    /// Its name.
    pub name: String,
    /// Its number in the kernel.
    pub ifindex: u32,
    /// As the tables have it.
    pub port: HostPort,
}

/// What lists of actions have brought about so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct InForce {
    pub(crate) nft_table: Option<NftTable>,
    pub(crate) host_port: HostPortState,
    /// Otherwise the kernel may have a part of something else.
    pub(crate) is_host_port_known: bool,
    pub(crate) steering: Steering,
}

/// Everything that decides what the node does.
#[derive(Debug)]
pub struct ControlPlane {
    pub(crate) config: Config,
    pub(crate) model: Model,
    pub(crate) ports: Ports,
    pub(crate) uplink: Option<UplinkState>,
    pub(crate) host: Option<HostState>,
    pub(crate) next_hops: NextHops,
    pub(crate) path_mtus: PathMtus,
    pub(crate) follower: Option<Follower>,
    /// Ports and identifiers that a reload replaced, still accepted from peers.
    pub(crate) former: Former,
    /// Number of workers; a port's is one of them.
    pub(crate) workers: usize,
    pub(crate) in_force: InForce,
    /// A fact's list broke off because of a worker, and goes on when that has caught up.
    pub(crate) is_broken_off: bool,
    /// Edits that the journal refused, and that the model has: they come before those of its next line.
    pub(crate) unwritten: Vec<Edit>,
    /// What of the compiled tables is not pods.
    base: Option<Base>,
    /// Of the tables that were compiled last.
    epoch: Epoch,
    /// Policies as they are compiled, and those that are staged.
    pub(crate) policies: PolicyPlane,
    /// How often a peer of each source was refused, since the start.
    pub(crate) refusals: BTreeMap<Source, u64>,
    /// What is wrong with MTUs as things are.
    pub(crate) mtu_notes: Vec<String>,
    /// What is wrong with the uplink's addresses as things are.
    pub(crate) address_notes: Vec<String>,
    /// Pods whose network namespace is gone, and since when.
    pub(crate) ended: BTreeMap<AttachmentId, Millis>,
    /// Pods that are there and have lost their interface.
    pub(crate) lost: BTreeSet<AttachmentId>,
    /// What is wrong with pods as things are.
    pub(crate) pod_notes: Vec<String>,
    /// Services that are refused as a whole, and why.
    pub(crate) refused_services: BTreeMap<String, String>,
    /// Addresses of services that are not served, as it was said last.
    pub(crate) unserved: BTreeMap<String, Vec<RefusedAddress>>,
}

impl ControlPlane {
    /// A node that forwards nothing yet, with the model that its journal made. Policies begin with this
    /// generation, a number that no former process had: sessions have its stamps.
    #[must_use]
    pub fn new(config: Config, model: Model, workers: usize, policy_generation: u32) -> Self {
        let mut path_mtus = PathMtus::default();
        for (address, mtu) in &model.path_mtus {
            path_mtus.note(PathMtu { address: *address, mtu: *mtu }, Millis(0));
        }
        let follower = config.kernel_routes.as_ref().map(Follower::new);
        Self {
            ports: Ports::numbered(model.attachments.iter().map(|(pod, lease)| (pod, lease.port))),
            config,
            model,
            uplink: None,
            host: None,
            next_hops: NextHops::default(),
            path_mtus,
            follower,
            former: Former::default(),
            workers,
            in_force: InForce::default(),
            is_broken_off: false,
            unwritten: Vec::new(),
            base: None,
            epoch: Epoch(0),
            policies: PolicyPlane::beginning_at(policy_generation),
            refusals: BTreeMap::new(),
            mtu_notes: Vec::new(),
            address_notes: Vec::new(),
            ended: BTreeMap::new(),
            lost: BTreeSet::new(),
            pod_notes: Vec::new(),
            refused_services: BTreeMap::new(),
            unserved: BTreeMap::new(),
        }
    }

    /// What an event comes to. A request that is refused changes nothing.
    ///
    /// # Errors
    /// Why a request is refused.
    pub fn on(&mut self, event: Event) -> Result<Change, ErrorReply> {
        match event {
            Event::Started { uplink, host } => Ok(self.started(uplink, host)),
            Event::Ready { own, left } => Ok(self.ready(own, &left)),
            Event::HostPortMade(host) => Ok(self.host_port_made(host)),
            Event::Request(request) => self.on_request(request),
            Event::Attach { request, device } => self.attach(&request, device),
            Event::PortsGone(ids) => Ok(self.ports_gone(&ids)),
            Event::NamespacesGone { gone, now } => Ok(self.namespaces_gone(&gone, now)),
            Event::PathMtus { reported, now } => Ok(self.path_mtus_reported(reported, now)),
            Event::KernelChanged { link, own, next_hops } => {
                Ok(self.kernel_changed(link, own, next_hops))
            }
            Event::UplinkReopened { ifindex, mac, offloads } => {
                Ok(self.uplink_reopened(ifindex, mac, offloads))
            }
            Event::Reload { config, follower } => self.reload(*config, follower),
            Event::NftTableOverdue => Ok(self.fact(Frame::default(), Vec::new())),
            Event::WorkersCaughtUp => Ok(self.workers_caught_up()),
            Event::JournalMended => Ok(self.journal_mended()),
        }
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The desired state.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Numbers and states of ports.
    #[must_use]
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Another worker receives from this port from now on.
    pub fn is_received_by(&mut self, port: PortId, worker: usize) {
        self.ports.is_received_by(port, worker);
    }

    /// The nftables table that was ordered last could not be set: this one is in force. The next list orders the other
    /// again.
    pub fn nft_table_is(&mut self, table: Option<NftTable>) {
        self.in_force.nft_table = table;
    }

    /// The NIC, if there is one.
    #[must_use]
    pub fn uplink(&self) -> Option<&UplinkState> {
        self.uplink.as_ref()
    }

    /// The node's own port, if there is one.
    #[must_use]
    pub fn host(&self) -> Option<&HostState> {
        self.host.as_ref()
    }

    /// The kernel's ways to the other nodes, as they were looked up last.
    #[must_use]
    pub fn next_hops(&self) -> &NextHops {
        &self.next_hops
    }

    /// What follows the kernel's routing table, if it is a source of routes.
    pub fn follower(&mut self) -> Option<&mut Follower> {
        self.follower.as_mut()
    }

    /// Whether the kernel's routing table is a source of routes.
    #[must_use]
    pub fn follows_kernel(&self) -> bool {
        self.follower.is_some()
    }

    /// Whether there are edits that the journal has refused, and that are still to be written.
    #[must_use]
    pub fn owes_lines(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// How often peers of a source were refused, since the start.
    #[must_use]
    pub fn refusals(&self, source: Source) -> u64 {
        self.refusals.get(&source).copied().unwrap_or(0)
    }

    /// What is wrong with MTUs, addresses and pods as things are, for an operator.
    pub fn attention(&self) -> impl Iterator<Item = &String> {
        self.mtu_notes.iter().chain(&self.address_notes).chain(&self.pod_notes)
    }

    /// MTU that pods' interfaces are to have, bytes.
    #[must_use]
    pub fn pod_mtu(&self) -> u32 {
        mtu::pod_mtu(&self.config, &self.model, self.uplink.as_ref().map(|uplink| uplink.port.mtu))
    }

    /// Live pods whose interface has another MTU than it is to have.
    #[must_use]
    pub fn adjustments(&self) -> Vec<Adjustment> {
        let mtu = self.pod_mtu();
        let leases = self.model.attachments.iter();
        leases
            .filter(|(attachment, lease)| lease.mtu != mtu && self.ports.is_up(attachment))
            .map(|(attachment, lease)| Adjustment {
                attachment: attachment.clone(),
                netns: lease.netns.clone(),
                mtu,
            })
            .collect()
    }

    /// The underlay addresses that tables name, and how each is reached.
    #[must_use]
    pub fn underlay_ends(&self) -> BTreeMap<IpAddr, Reach> {
        let kernel = &self.model.kernel;
        let mut ends: BTreeMap<_, _> =
            kernel.direct.keys().map(|gateway| (*gateway, Reach::OnLink)).collect();
        // A peer is where the kernel routes to, whichever source names it.
        let peers = self.model.peers.values().map(|(peer, _)| peer.address);
        let peers = peers.chain(kernel.peers.keys().copied());
        let vteps = self.config.bridge.vteps.iter().copied();
        ends.extend(peers.chain(vteps).map(|address| (address, Reach::Routed)));
        ends
    }

    /// What the kernel is to have of the host port.
    #[must_use]
    pub fn host_port_state(&self) -> HostPortState {
        if self.host.is_none() {
            return HostPortState::default();
        }
        HostPortState::of(
            &self.model.cluster_prefixes,
            &self.model.pods,
            self.pod_mtu(),
            self.follower.is_some(),
            &self.translations(),
        )
    }

    /// Ports of the node that are to lead to pods.
    #[must_use]
    pub fn translations(&self) -> Translations {
        let host = self.config.host.as_ref().filter(|host| host.masquerade);
        host.map(|_| translations(&self.model)).unwrap_or_default()
    }

    /// What is to be taken from the NIC.
    #[must_use]
    pub fn steering(&self) -> Steering {
        match &self.uplink {
            None => Steering::default(),
            Some(uplink) => Steering::of(&self.config, &self.model, uplink.port.addresses),
        }
    }

    /// What is taken from the NIC now: what workers accept.
    #[must_use]
    pub fn steering_in_force(&self) -> &Steering {
        &self.in_force.steering
    }

    /// The nftables table that is to be, if there is to be one.
    #[must_use]
    pub fn nft_table(&self) -> Option<NftTable> {
        self.host.as_ref()?;
        NftTable::of(&self.config, &self.model)
    }

    /// Calls with everything that tables are made of.
    pub fn with_input<T>(&self, call: impl FnOnce(&Input<'_>) -> T) -> T {
        let pods = self.ports.compiled();
        call(&Input {
            config: &self.config,
            model: &self.model,
            pods: &pods,
            host: self.host.as_ref().map(|host| &host.port),
            uplink: self.uplink.as_ref().map(|uplink| &uplink.port),
            path_mtus: &self.path_mtus,
            next_hops: &self.next_hops,
            epoch: Epoch(self.epoch.0 + 1),
        })
    }

    /// The tables of the present state. Of what is known already, as much as can be is used again.
    pub(crate) fn compile(&mut self) -> Tables {
        let former = self.base.take();
        let (base, mut tables) = self.with_input(|input| {
            let base = Base::renew(former, input);
            let tables = base.tables(input);
            (base, tables)
        });
        self.base = Some(base);
        self.epoch = tables.epoch;
        tables.policies = self.compile_policies(&self.ports.compiled());
        tables
    }

    /// As `compile`, without VTEPs and what leads to them.
    pub(crate) fn compile_without_vteps(&mut self) -> Tables {
        let mut tables = self.compile();
        for bridge in &mut tables.bridges {
            bridge.vteps.clear();
            bridge.fdb.retain(|_, target| !matches!(target, FdbTarget::Vtep(_)));
        }
        tables
    }

    /// The host port has what a list gave it.
    pub(crate) fn host_port_is(&mut self, state: &HostPortState) {
        if let Some(host) = &mut self.host {
            host.port.mtu = state.mtu;
        }
        self.in_force.host_port.clone_from(state);
        self.in_force.is_host_port_known = true;
    }

    /// A list broke off: what it was to say of MTUs is said by the one that goes on.
    pub(crate) fn broke_off(&mut self) {
        self.is_broken_off = true;
        self.mtu_notes.clear();
    }

    /// Goes back to what was before a request that failed.
    pub(crate) fn go_back(&mut self, rollback: Rollback) {
        let Rollback { undo, ports, refused, reloaded, mtu_notes, next_hops } = rollback;
        self.model.apply_all(&undo);
        self.follow_policies();
        if let Some(ports) = ports {
            self.ports = ports;
        }
        if let Some(refused) = refused {
            self.model.refused = refused;
        }
        if let Some(mtu_notes) = mtu_notes {
            self.mtu_notes = mtu_notes;
        }
        if let Some(next_hops) = next_hops {
            self.next_hops = next_hops;
        }
        if let Some(reloaded) = reloaded {
            let Reloaded { config, model, former, follower } = *reloaded;
            (self.config, self.model, self.former) = (config, model, former);
            if let Some(follower) = follower {
                self.follower = follower;
            }
        }
        self.follow_file_policies();
        self.note_pods();
    }

    /// The port of an attachment, as messages name it.
    #[must_use]
    pub fn port_name(&self, attachment: &AttachmentId) -> String {
        let lease = self.model.attachments.get(attachment);
        let name = pod_name(attachment, lease);
        // A pod's further interfaces have names of their own.
        if attachment.ifname == "eth0" { name } else { format!("{name}:{}", attachment.ifname) }
    }
}

/// Sentences that were not among the former ones, as warnings for the log.
fn fresh_warnings(former: &[String], notes: &[String]) -> Vec<Note> {
    notes.iter().filter(|note| !former.contains(note)).map(Note::warning).collect()
}
