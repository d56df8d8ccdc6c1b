//! From a configuration to a daemon that forwards.
//!
//! Everything that can be refused is refused before anything of the node is changed; what was
//! changed is undone, should a later step fail: by dropping it, or by `give_up`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::mem::discriminant;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use api::AttachmentId;
use controlplane::balance::Balance;
use controlplane::change::Performer;
use controlplane::config::Config;
use controlplane::desired::nft_table;
use controlplane::handoff::Handoff;
use controlplane::model::{Edit, Model, attachments};
use controlplane::plane::{ControlPlane, Event, UplinkState};
use controlplane::ports::PodDevice;
use controlplane::repairs::Repairs;
use controlplane::{compile, ports};
use dataplane::tables::{LocalAddresses, Offloads};
use dataplane::wire::MacAddr;
use frame::Pool;
use netio::port::PortFd;
use netio::uplink::UplinkKind;
use netlink::{Monitor, Netlink, RulesetMonitor};
use worker::Workers;
use worker::cores::leave_to_workers;
use worker::publish::Publisher;

use super::change_times::ChangeTimes;
use super::cores::CoreShares;
use super::drop_sampling::DropSampling;
use super::frames::FrameShortage;
use super::pending::PendingPods;
use super::queued::{AtStart, QueueWatch};
use super::recovery::Recovery;
use super::settle::host_state;
use super::syncs::Syncs;
use super::turns::Turns;
use super::worker_time::WorkerTime;
use super::{Daemon, kernel, log, offloads, workers};
use crate::descriptors::{self, DescriptorStore, Left, PortFds};
use crate::error::{Error, Result, chain};
use crate::host::{self, HostInterface};
use crate::journal::{self, Journal};
use crate::lock::Locks;
use crate::machine::{self, Facts};
use crate::namespaces::Namespaces;
use crate::node::{Arriving, Node};
use crate::notify::Notify;
use crate::router_advertisements::Advertised;
use crate::rules::{self, Rules};
use crate::sandbox::Sandbox;
use crate::sessions::{self, OpenSessions};
use crate::underlay::Underlay;
use crate::uplink::OpenUplink;

/// random(4): different after each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Frames that a trace may use at once: the packet, and copies for a flooded segment.
const TRACE_FRAMES: u32 = 64;

impl Daemon {
    /// Starts everything but the control socket.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn start(
        config: Config,
        config_path: PathBuf,
        mut left: Left,
        notify: Notify,
    ) -> Result<Self> {
        let locks = Locks::take(&config.control)?;
        failpoint::hit("start-locked")?;
        let recorded = || journal::recorded_addresses(&config.control.state_dir);
        let facts = machine::examine(&config, recorded)?;
        let (mut choices, mut warnings) = (Vec::new(), Vec::new());
        let own = facts.as_ref().map(|facts| facts.addresses);
        let sandbox = Sandbox::new(config.sandbox.seccomp)?;
        choices.push(sandbox.choice());
        warnings.extend(sandbox.warning());
        let (journal, mut model, former) = restore(&config, own, &sandbox, &mut warnings)?;
        failpoint::hit("start-queue-emptied")?;
        if let Some(own) = own {
            model.set_own_addresses(own);
        }
        warnings.extend(facts.iter().flat_map(|facts| facts.warnings.clone()));
        let mut uplink_state = facts.as_ref().map(uplink_state);

        let mut underlay = None;
        let (uplink, queues) = match (&config.uplink, facts) {
            (Some(settings), Some(facts)) => {
                let netlink = Netlink::open().map_err(Error::Netlink)?;
                underlay = Some(Underlay::new(netlink, &facts.link));
                let steering =
                    controlplane::desired::Steering::of(&config, &model, facts.addresses);
                let workers = config.workers.cores.as_ref().map_or(1, Vec::len);
                let (uplink, queues) = OpenUplink::open(settings, workers, &steering, facts)?;
                if let Some(state) = &mut uplink_state {
                    state.port.offloads = uplink.offloads();
                }
                if uplink.control().kind() == UplinkKind::AfXdp {
                    warnings.extend(uplink.facts.warnings_of_af_xdp());
                }
                choices.extend(uplink_state.iter().flat_map(|state| uplink.choices(state)));
                (Some(uplink), queues)
            }
            _ => {
                let beside = config.host.as_ref().map_or("", |_| " and what its kernel routes");
                choices
                    .push(format!("no uplink is configured: pods reach pods of this node{beside}"));
                (None, Vec::new())
            }
        };
        failpoint::hit("start-uplink")?;
        let monitor = if uplink.is_some() || config.host.is_some() {
            Some(Monitor::open().map_err(Error::Netlink)?)
        } else {
            None
        };
        choices.extend(kernel_choice(&config));

        let publisher = Publisher::new();
        let opened = uplink.as_ref().map(|uplink| (uplink, queues));
        let specs = workers::specs(&config, opened, &mut choices, &mut warnings);
        // Before any thread is started, as each inherits it.
        let pinned: Vec<_> = specs.iter().filter_map(|spec| spec.core).collect();
        match leave_to_workers(&pinned) {
            left if left.is_empty() => choices
                .push("control: no core is left besides the workers', which it may hold up".into()),
            left => choices.push(format!("control: cores {left:?}")),
        }
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let run_dir = config.control.socket.parent().unwrap_or(Path::new("."));
        let OpenSessions { shared, choice, warning } =
            sessions::open(run_dir, &boot_id).map_err(Error::Workers)?;
        choices.push(choice);
        warnings.extend(warning);
        let workers = Workers::spawn(specs, publisher.shared(), &shared, &sandbox.of_workers())
            .map_err(Error::Workers)?;
        choices.extend(
            workers.states().into_iter().filter_map(|state| {
                Some(format!("worker {}: ports by {}", state.id, state.port_io?))
            }),
        );
        failpoint::hit("start-workers")?;
        let mut netlink = Netlink::open().map_err(Error::Netlink)?;
        let mut store = DescriptorStore::new(notify.clone());
        let host = open_host_port(&mut netlink, &config, left.host.take(), &mut store)?;
        if let Some(host) = &host {
            workers.add_port(ports::HOST, &host.port, 0);
        }
        failpoint::hit("start-host-port")?;
        match &config.host {
            Some(host) if host.masquerade => {
                choices.push("masquerading by the nftables table inet vswitch".into());
            }
            Some(host) => {
                choices.push("no nftables table, as host.masquerade is false: pods reach a Service's pods only if kube-proxy masquerades by itself (masqueradeAll)".into());
                rules::remove_leftover(&host.interface);
            }
            None => {}
        }
        for hidden in &model.hidden.peers {
            let (name, source) = (&hidden.peer.name, hidden.source.label());
            tracing::info!("peer {name:?} ({source}) is hidden: {}", hidden.reason);
        }

        let now = Instant::now();
        let failed = |source| Error::Control { action: "watch pods' namespaces", source };
        let mut adjuster_file = config.control.socket.clone().into_os_string();
        adjuster_file.push(".adjust");
        let masquerades = config.host.as_ref().is_some_and(|host| host.masquerade);
        let is_left = masquerades && host.as_ref().is_some_and(|host| host.is_former);
        let failed_rules = |source| Error::Control { action: "start a thread for nft", source };
        let node = Node {
            journal,
            publisher,
            uplink,
            underlay,
            host,
            rules: Rules::start(is_left, &sandbox).map_err(failed_rules)?,
            outdated: VecDeque::new(),
            netlink,
            cluster: config.node.cluster_prefixes.clone(),
            adjuster_file: adjuster_file.into(),
            arriving: VecDeque::new(),
            store,
            pods: BTreeMap::new(),
            namespaces: Namespaces::new().map_err(failed)?,
            answer: None,
            workers,
            shared,
        };
        // Keyed by random numbers of the kernel.
        let generation = RandomState::new().hash_one("policies") as u32;
        let mut daemon = Self {
            plane: ControlPlane::new(config, model, node.workers.count(), generation),
            node,
            config_path,
            monitor,
            ruleset: None,
            repairs: Repairs::default(),
            queue_note: None,
            queue_logged: None,
            forwards: BTreeSet::new(),
            advertised: Advertised::default(),
            sysctl_notes: Vec::new(),
            choices,
            warnings,
            journal_notes: Vec::new(),
            started: now,
            is_drained: false,
            trace_pool: Pool::new(TRACE_FRAMES),
            agenda: kernel::Agenda::new(now),
            turns: Turns::default(),
            frames: FrameShortage::default(),
            core_shares: CoreShares::default(),
            worker_time: WorkerTime::default(),
            balance: Balance::default(),
            handoff: Handoff::default(),
            change_times: ChangeTimes::default(),
            syncs: Syncs::default(),
            drop_sampling: DropSampling::default(),
            reloading: None,
            known_rule_notes: Vec::new(),
            pending: PendingPods::default(),
            queue_watch: QueueWatch::new(now),
            recovery: Recovery::default(),
            notify,
            fed: now,
            sandbox,
            _locks: locks,
        };
        daemon.begin_handoff();
        if let Err(error) = daemon.forward(uplink_state, left, former, now) {
            daemon.give_up();
            return Err(error);
        }
        // What `status` compares with at first.
        daemon.core_shares.look(&daemon.node.workers.states());
        for choice in &daemon.choices {
            tracing::info!("{choice}");
        }
        for warning in &daemon.warnings {
            tracing::warn!("{warning}");
        }
        Ok(daemon)
    }

    /// The kernel gets what it is to have, and the workers their first tables with the ports that they
    /// name.
    fn forward(
        &mut self,
        uplink: Option<UplinkState>,
        left: Left,
        Former { is_incomplete, was_there }: Former,
        now: Instant,
    ) -> Result<()> {
        let host = self.node.host.as_ref().map(|host| host_state(host, 0));
        let refused = |refusal: api::ErrorReply| Error::NotStarted(refusal.message);
        let change = self.plane.on(Event::Started { uplink, host }).map_err(refused)?;
        let notes = self.plane.carry_out(change, &mut self.node).map_err(refused)?;
        notes.iter().for_each(log);
        // Without its rules a node is not to begin; one that has a former daemon's has them already.
        self.node.rules.wait(rules::START_PATIENCE).map_err(Error::NotStarted)?;
        failpoint::hit("start-kernel")?;
        let mtu = self.plane.pod_mtu();
        let config = self.plane.config();
        let why = if config.overlay.pod_mtu.is_some() { "configured" } else { "computed" };
        let restored = self.plane.model().attachments.len();
        let (left, has_unknown) = self.take_left(left);
        let has_descriptors = !left.is_empty();
        failpoint::hit("start-left")?;
        let first = format!(
            "pods: MTU {mtu} ({why}), {restored} attachment(s) restored, {} with their port open",
            left.len()
        );
        self.choices.insert(0, first);
        if let Some(host) = &self.node.host {
            self.choices.push(format!("host port {}: MTU {mtu}", host.name));
        }
        self.read_kernel_table(now);
        let own = self.own_addresses();
        self.look_at_advertised();
        self.settle_forwarding(now);
        // A first table that a worker does not take in time is published again with the next.
        self.follow(Event::Ready { own, left });
        failpoint::hit("start-tables")?;
        // What a start that fails has made goes with it; from here on it stays.
        if let Some(host) = &self.node.host {
            host.keep()?;
        }
        // Pods may have ended while no daemon ran.
        self.look_at_namespaces();
        self.begin_with_nft_table(now);
        failpoint::hit("start-nft-table")?;
        let missing = self.plane.reattachments().len();
        if missing > 0 {
            tracing::info!(
                "{missing} pod(s) have no port yet: their interfaces are to be opened again by `vswitch-cni --adjust`"
            );
        }
        // A journal that was cut where a line ends does not show it; descriptors would.
        let is_possible = was_there && (missing > 0 || !has_descriptors);
        self.recovery.begin(is_incomplete || has_unknown, is_possible, now);
        self.ask_for_reattachments();
        Ok(())
    }

    /// The nftables table is this daemon's, and watched from here on.
    fn begin_with_nft_table(&mut self, now: Instant) {
        self.settle_nft_table(None, now);
        if self.plane.nft_table().is_some() {
            // Without it the table is compared every half a minute alone.
            self.ruleset = RulesetMonitor::open(nft_table::NAME)
                .inspect_err(|error| tracing::warn!("{}", chain(error)))
                .ok();
        }
        // What there is to see is logged when it was seen.
        self.node.rules.look(false);
        for problem in self.legacy_firewalls() {
            tracing::warn!("{problem}");
        }
    }

    /// Puts the ports that a former daemon left before the workers' door; whose they are, and whether there
    /// were others. What the journal knows nothing of is closed, and its interface left alone, so that it can
    /// be opened again: a journal that lost a line must not cost a pod its interface. While the journal cannot
    /// be read they stay with the service manager.
    fn take_left(&mut self, mut left: Left) -> (Vec<(AttachmentId, PodDevice)>, bool) {
        let mut taken = Vec::new();
        for (attachment, lease) in &self.plane.model().attachments {
            let Some(fds) = left.take(attachment).filter(|_| lease.attached) else { continue };
            // Better some of its packets than none.
            let queues = self.spread(attachment, &fds).unwrap_or_else(|error| {
                tracing::error!("{}: {}", attachments::name(attachment), chain(&error));
                (fds.more.len() + 1).min(self.node.workers.count())
            });
            let device = PodDevice { offloads: offloads(fds.port.offloads()), queues };
            taken.push((attachment.clone(), device));
            let name = descriptors::name_of(attachment);
            let netns = lease.netns.clone().into();
            self.node.arriving.push_back(Arriving { name, fds, netns, is_kept: true });
        }
        if self.node.journal.is_unread() {
            return (taken, false);
        }
        let unknown = left.into_names();
        for name in &unknown {
            tracing::warn!("descriptor {name} is closed: it is of no pod that the journal knows");
            self.node.store.forget(name);
        }
        (taken, !unknown.is_empty())
    }

    /// Has the interfaces of pods that have no port opened again, and those looked for that may be missing,
    /// by the program that may enter their namespaces.
    pub(super) fn ask_for_reattachments(&mut self) {
        if self.plane.reattachments().is_empty() && !self.recovery.is_wanted() {
            return;
        }
        if let Err(refusal) = self.node.call_adjuster(self.plane.pod_mtu()) {
            tracing::error!("{refusal}");
        }
    }
}

/// The node's own port, if there is to be one; an interface that a former configuration wanted goes.
fn open_host_port(
    netlink: &mut Netlink,
    config: &Config,
    left: Option<PortFd>,
    store: &mut DescriptorStore,
) -> Result<Option<HostInterface>> {
    let wanted = config.host.as_ref().map(|host| host.interface.as_str());
    let left = left.filter(|left| left.name().as_deref() == wanted);
    host::remove_others(netlink, wanted).map_err(Error::Netlink)?;
    let Some(settings) = &config.host else {
        store.forget(descriptors::HOST);
        return Ok(None);
    };
    let is_left = left.is_some();
    let host = HostInterface::open(netlink, settings, config, left)?;
    if !is_left {
        store.forget(descriptors::HOST);
        let port = Arc::clone(&host.port);
        store.keep(descriptors::HOST, PortFds::of(port));
    }
    Ok(Some(host))
}

/// The journal of the daemon before, as far as pods may be missing from it.
struct Former {
    is_incomplete: bool,
    was_there: bool,
}

/// The model as it was when the last daemon ended, and of a node with these underlay addresses.
fn restore(
    config: &Config,
    own: Option<LocalAddresses>,
    sandbox: &Sandbox,
    warnings: &mut Vec<String>,
) -> Result<(Journal, Model, Former)> {
    let (mut journal, replay) = Journal::open(&config.control.state_dir, sandbox)?;
    warnings.extend(replay.warnings);
    let mut model = Model::restored(config, &replay.edits);
    if model.forget_doubtful_policies(&replay.edits, replay.lost_behind) {
        warnings.push(
            "policies may be missing from the journal, which was damaged: pods of the cluster are denied everything until vswitch-agent has told their policies again"
                .to_owned(),
        );
    }
    let mut former = Former { is_incomplete: replay.is_incomplete, was_there: replay.was_there };
    // A kernel that does not tell has no life that could be told from another.
    if let Ok(boot) = fs::read_to_string(BOOT_ID) {
        // No pod is left of another life, known or not.
        former.is_incomplete &= model.boot.as_deref().is_none_or(|id| id == boot.trim());
        match model.begin_boot(boot.trim()) {
            0 => {}
            stale => {
                tracing::info!("the machine was started anew: {stale} lease(s) of before are free")
            }
        }
    }
    let recording = own.and_then(|own| model.recording_own_addresses(own));
    model.apply_all(recording.as_slice());
    let queued = AtStart::apply(&config.control.state_dir, &mut model, warnings);
    warnings.extend(model.shared_addresses());
    failpoint::hit("start-journal")?;
    let snapshot = model.snapshot();
    let is_enough = queued.is_empty() && has_what_a_start_decides(&replay.edits, &snapshot);
    journal.begin(snapshot, is_enough);
    warnings.extend(journal.take_warnings());
    if journal.trouble().is_none() {
        queued.empty_queue();
    }
    Ok((journal, model, former))
}

/// Whether edits have the machine's life and the node's prefixes and addresses as they are now. Otherwise a lease
/// that was written behind them would be taken for one of another life, or of no prefix.
fn has_what_a_start_decides(edits: &[Edit], snapshot: &[Edit]) -> bool {
    let is_decided = |edit: &&Edit| {
        matches!(edit, Edit::Boot { .. } | Edit::PodPrefixes { .. } | Edit::OwnAddresses { .. })
    };
    snapshot.iter().filter(is_decided).all(|wanted| {
        let is_same_kind = |edit: &&Edit| discriminant(*edit) == discriminant(wanted);
        edits.iter().rfind(is_same_kind) == Some(wanted)
    })
}

fn uplink_state(facts: &Facts) -> UplinkState {
    UplinkState {
        name: facts.link.name.clone(),
        ifindex: facts.link.index,
        port: compile::UplinkPort {
            id: ports::UPLINK,
            mac: MacAddr(facts.mac),
            addresses: facts.addresses,
            mtu: facts.mtu,
            // Of what is opened, once it is.
            offloads: Offloads::default(),
        },
    }
}

fn kernel_choice(config: &Config) -> Option<String> {
    let settings = config.kernel_routes.as_ref()?;
    let protocols: Vec<_> = settings.protocols.iter().map(u8::to_string).collect();
    let protocols = if protocols.is_empty() {
        String::new()
    } else {
        format!(", protocols {} of it", protocols.join(", "))
    };
    let covering = if settings.covering { ", with what covers its prefixes" } else { "" };
    Some(format!("routes: the kernel's table {} is a source{protocols}{covering}", settings.table))
}
