//! From a configuration to a daemon that forwards.
//!
//! Everything that can be refused is refused before anything of the node is changed; what was
//! changed is undone by dropping it, should a later step fail.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Instant;

use controlplane::config::Config;
use controlplane::desired::nft_table;
use controlplane::model::Model;
use controlplane::plane::{ControlPlane, Event, UplinkState};
use controlplane::repairs::Repairs;
use controlplane::{compile, ports};
use dataplane::wire::MacAddr;
use frame::Pool;
use netlink::{Monitor, Netlink, RulesetMonitor};
use worker::Workers;
use worker::cores::leave_to_workers;
use worker::publish::Publisher;

use super::settle::host_state;
use super::{Daemon, kernel, log, workers};
use crate::error::{Error, Result, chain};
use crate::host::HostInterface;
use crate::journal::Journal;
use crate::lock::Locks;
use crate::machine::{self, Facts};
use crate::nft_rules::{self, NftRules};
use crate::node::Node;
use crate::underlay::Underlay;
use crate::uplink::OpenUplink;

/// Frames that a trace may use at once: the packet, and copies for a flooded segment.
const TRACE_FRAMES: u32 = 64;

impl Daemon {
    /// Starts everything but the control socket.
    ///
    /// # Errors
    /// What is in the way, and what to do about it.
    pub fn start(config: Config, config_path: PathBuf) -> Result<Self> {
        let locks = Locks::take(&config.control)?;
        let facts = machine::examine(&config)?;
        let (mut choices, mut warnings) = (Vec::new(), Vec::new());
        let (journal, mut model) = restore(&config, &mut warnings)?;
        if let Some(facts) = &facts {
            model.set_own_addresses(facts.addresses);
        }
        warnings.extend(facts.iter().flat_map(|facts| facts.warnings.clone()));
        let uplink_state = facts.as_ref().map(uplink_state);

        let mut underlay = None;
        let (uplink, queues) = match (&config.uplink, facts) {
            (Some(settings), Some(facts)) => {
                let netlink = Netlink::open().map_err(Error::Netlink)?;
                underlay = Some(Underlay::new(netlink, &facts.link));
                let steering =
                    controlplane::desired::Steering::of(&config, &model, facts.addresses);
                let (uplink, queues) = OpenUplink::open(settings, &steering, facts)?;
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
        let workers = Workers::spawn(specs, publisher.shared()).map_err(Error::Workers)?;
        let mut netlink = Netlink::open().map_err(Error::Netlink)?;
        let host = match &config.host {
            Some(settings) => Some(HostInterface::create(&mut netlink, settings, &config)?),
            None => None,
        };
        if let Some(host) = &host {
            workers.add_port(ports::HOST, &host.port, 0);
        }
        match &config.host {
            Some(host) if host.masquerade => {
                choices.push("masquerading by the nftables table inet vswitch".into());
            }
            Some(host) => {
                choices.push("no nftables table, as host.masquerade is false: pods reach a Service's pods only if kube-proxy masquerades by itself (masqueradeAll)".into());
                nft_rules::remove_leftover(&host.interface);
            }
            None => {}
        }
        for hidden in &model.hidden.peers {
            let (name, source) = (&hidden.peer.name, hidden.source.label());
            tracing::info!("peer {name:?} ({source}) is hidden: {}", hidden.reason);
        }

        let now = Instant::now();
        let mut adjuster_file = config.control.socket.clone().into_os_string();
        adjuster_file.push(".adjust");
        let node = Node {
            journal,
            publisher,
            uplink,
            underlay,
            host,
            nft: NftRules::default(),
            netlink,
            cluster: config.node.cluster_prefixes.clone(),
            adjuster_file: adjuster_file.into(),
            arriving: None,
            answer: None,
            workers,
        };
        let mut daemon = Self {
            plane: ControlPlane::new(config, model, node.workers.count()),
            node,
            config_path,
            monitor,
            ruleset: None,
            repairs: Repairs::default(),
            queue_note: None,
            queue_logged: None,
            forwards: BTreeSet::new(),
            sysctl_notes: Vec::new(),
            choices,
            warnings,
            started: now,
            trace_pool: Pool::new(TRACE_FRAMES),
            agenda: kernel::Agenda::new(now),
            turns: Vec::new(),
            _locks: locks,
        };
        daemon.forward(uplink_state, now)?;
        for choice in &daemon.choices {
            tracing::info!("{choice}");
        }
        for warning in &daemon.warnings {
            tracing::warn!("{warning}");
        }
        Ok(daemon)
    }

    /// The kernel gets what it is to have, and the workers their first tables.
    fn forward(&mut self, uplink: Option<UplinkState>, now: Instant) -> Result<()> {
        let host = self.node.host.as_ref().map(|host| host_state(host, 0));
        let refused = |refusal: api::ErrorReply| Error::NotStarted(refusal.message);
        let change = self.plane.on(Event::Started { uplink, host }).map_err(refused)?;
        let notes = self.plane.carry_out(change, &mut self.node).map_err(refused)?;
        notes.iter().for_each(log);
        if self.plane.nft_table().is_some() {
            // Without it the table is compared every half a minute alone.
            self.ruleset = RulesetMonitor::open(nft_table::NAME)
                .inspect_err(|error| tracing::warn!("{}", chain(error)))
                .ok();
        }
        for problem in self.node.nft.observe().iter().flat_map(|observed| &observed.problems) {
            tracing::warn!("{problem}");
        }
        let mtu = self.plane.pod_mtu();
        let config = self.plane.config();
        let why = if config.overlay.pod_mtu.is_some() { "configured" } else { "computed" };
        let restored = self.plane.model().attachments.len();
        let first = format!("pods: MTU {mtu} ({why}), {restored} attachment(s) restored");
        self.choices.insert(0, first);
        if let Some(host) = &self.node.host {
            self.choices.push(format!("host port {}: MTU {mtu}", host.name));
        }
        self.read_kernel_table(now);
        let own = self.own_addresses();
        self.settle_forwarding(now);
        // A first table that a worker does not take in time is published again with the next.
        self.follow(Event::Ready { own });
        Ok(())
    }
}

/// The model as it was when the last daemon ended.
fn restore(config: &Config, warnings: &mut Vec<String>) -> Result<(Journal, Model)> {
    let (mut journal, replay) = Journal::open(&config.control.state_dir)?;
    warnings.extend(replay.warnings);
    let model = Model::restored(config, &replay.edits);
    warnings.extend(model.shared_addresses());
    journal.compact(&model.snapshot())?;
    Ok((journal, model))
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
