//! From a configuration to a daemon that forwards.
//!
//! Everything that can be refused is refused before anything of the node is changed; what was
//! changed is undone by dropping it, should a later step fail.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use frame::Pool;
use netlink::{Monitor, Netlink};

use super::{Daemon, workers};
use crate::error::{Error, Result};
use crate::host::{HostInterface, sysctl_warnings};
use crate::journal::Journal;
use crate::kernel::KernelTable;
use crate::lock::Locks;
use crate::machine;
use crate::masquerade::Masquerade;
use crate::underlay::Underlay;
use crate::uplink::Uplink;
use controlplane::config::{Config, Former};
use controlplane::model::{Model, PodPrefixes};
use controlplane::mtu::pod_mtu;
use controlplane::path_mtu::PathMtus;
use controlplane::ports::{self, Ports};
use worker::Workers;
use worker::cores::leave_to_workers;
use worker::publish::Publisher;

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

        let uplink_mtu = facts.as_ref().map(|facts| facts.mtu);
        let mtu = pod_mtu(&config, &model, uplink_mtu);
        let why = if config.overlay.pod_mtu.is_some() { "configured" } else { "computed" };
        choices.push(format!(
            "pods: MTU {mtu} ({why}), {} attachment(s) restored",
            model.attachments.len()
        ));

        let mut underlay = None;
        let (uplink, queues) = match (&config.uplink, facts) {
            (Some(settings), Some(facts)) => {
                let netlink = Netlink::open().map_err(Error::Netlink)?;
                underlay = Some(Underlay::new(netlink, &facts.link));
                let (uplink, queues) = Uplink::open(settings, &config, &model, facts)?;
                choices.extend(uplink.choices());
                (Some(uplink), queues)
            }
            _ => {
                let beside = config.host.as_ref().map_or("", |_| " and what its kernel routes");
                choices
                    .push(format!("no uplink is configured: pods reach pods of this node{beside}"));
                (None, Vec::new())
            }
        };
        let monitor = match &uplink {
            Some(_) => Some(Monitor::open().map_err(Error::Netlink)?),
            None => None,
        };

        let kernel = match &config.kernel_routes {
            Some(settings) => {
                let protocols: Vec<_> = settings.protocols.iter().map(u8::to_string).collect();
                choices.push(format!(
                    "routes: the kernel's table {} is a source{}{}",
                    settings.table,
                    if protocols.is_empty() {
                        String::new()
                    } else {
                        format!(", protocols {} of it", protocols.join(", "))
                    },
                    if settings.covering { ", with what covers its prefixes" } else { "" }
                ));
                let netlink = Netlink::open().map_err(Error::Netlink)?;
                Some(KernelTable::new(netlink, settings))
            }
            None => None,
        };

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
        let host = host(&config, &model.pods, mtu, &mut choices, &mut warnings)?;
        if let Some(host) = &host {
            workers.add_port(ports::HOST, &host.port, 0);
        }
        let masquerade = match &config.host {
            Some(host) if host.masquerade => {
                choices.push("masquerading by the nftables table inet vswitch".into());
                let masquerade = Masquerade::install(&config.node, host, &model.pods)?;
                for problem in masquerade.observe().problems {
                    tracing::warn!("{problem}");
                }
                Some(masquerade)
            }
            Some(host) => {
                choices.push("no nftables table, as host.masquerade is false: pods reach a Service's pods only if kube-proxy masquerades by itself (masqueradeAll)".into());
                Masquerade::remove_leftover(&host.interface);
                None
            }
            None => None,
        };

        for hidden in &model.hidden.peers {
            let (name, source) = (&hidden.peer.name, hidden.source.label());
            tracing::info!("peer {name:?} ({source}) is hidden: {}", hidden.reason);
        }
        let now = Instant::now();
        let mut daemon = Self {
            ports: numbered(&model),
            config,
            config_path,
            model,
            journal,
            publisher,
            base: None,
            workers,
            uplink,
            underlay,
            path_mtus: PathMtus::default(),
            kernel,
            monitor,
            host,
            masquerade,
            choices,
            warnings,
            mtu_notes: Vec::new(),
            address_notes: Vec::new(),
            former: Former::default(),
            started: now,
            trace_pool: Pool::new(TRACE_FRAMES),
            agenda: super::kernel::Agenda::new(now),
            turns: Vec::new(),
            refusals: BTreeMap::new(),
            _locks: locks,
        };
        // Says what is still to come, and takes what came meanwhile.
        daemon.follow_own_addresses();
        daemon.learn(now);
        // A first table that a worker does not take in time is published again with the next.
        if let Err(refusal) = daemon.publish() {
            daemon.warnings.push(refusal.message);
        }
        for choice in &daemon.choices {
            tracing::info!("{choice}");
        }
        for warning in &daemon.warnings {
            tracing::warn!("{warning}");
        }
        Ok(daemon)
    }
}

/// The model as it was when the last daemon ended.
fn restore(config: &Config, warnings: &mut Vec<String>) -> Result<(Journal, Model)> {
    let (mut journal, replay) = Journal::open(&config.control.state_dir)?;
    warnings.extend(replay.warnings);
    let mut model = Model::new(config);
    model.apply_all(&replay.edits);
    // What was configured last time may have been replaced by what the cluster told then.
    model.take_config(config);
    warnings.extend(model.shared_addresses());
    journal.compact(&model.snapshot())?;
    Ok((journal, model))
}

/// A number for each attachment that the journal knew; one beyond the limit is shown without.
fn numbered(model: &Model) -> Ports {
    let mut ports = Ports::default();
    for attachment in model.attachments.keys() {
        if ports.number(attachment).is_none() {
            tracing::error!(container = attachment.container_id, "no port number is left");
        }
    }
    ports
}

fn host(
    config: &Config,
    pods: &PodPrefixes,
    mtu: u32,
    choices: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<Option<HostInterface>> {
    let Some(settings) = &config.host else { return Ok(None) };
    let mut netlink = Netlink::open().map_err(Error::Netlink)?;
    let host = HostInterface::create(&mut netlink, settings, config, pods, mtu)?;
    choices.push(format!("host port {}: MTU {mtu}", host.name));
    warnings.extend(sysctl_warnings(pods, &host.name));
    Ok(Some(host))
}
