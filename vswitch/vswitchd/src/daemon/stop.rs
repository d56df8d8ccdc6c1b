//! Reload and end.

use std::time::Instant;

use dataplane::tables::FdbTarget;
use netlink::Netlink;

use crate::config_file;
use crate::error::chain;
use crate::kernel::KernelTable;
use crate::masquerade::Masquerade;
use controlplane::config::Config;
use controlplane::kernel::Tracked;
use controlplane::mtu;
use controlplane::ports;

use super::Daemon;

impl Daemon {
    /// Reads the configuration again and takes over what can be taken over while running. A file
    /// with problems changes nothing.
    pub fn reload(&mut self) {
        let fresh = match config_file::load(&self.config_path) {
            Ok(fresh) => fresh,
            Err(refusal) => {
                tracing::error!("the configuration is not reloaded:\n{refusal}");
                return;
            }
        };
        if fresh.node != self.config.node {
            tracing::error!(
                "the configuration is not reloaded: [node] has changed, which needs a restart"
            );
            return;
        }
        let facts = match crate::machine::examine(&fresh) {
            Ok(facts) => facts,
            Err(error) => {
                tracing::error!("the configuration is not reloaded: {}", chain(&error));
                return;
            }
        };
        // At a start there is nothing to lose by waiting.
        let mut awaited = facts.iter().flat_map(|facts| &facts.awaited);
        if let Some(awaited) = awaited.find(|note| !self.address_notes.contains(note)) {
            tracing::error!("the configuration is not reloaded: {awaited}");
            return;
        }
        for section in needs_restart(&self.config, &fresh) {
            tracing::warn!("{section} has changed; that needs a restart and is ignored until then");
        }
        // Peers, routes, encapsulation, defaults for new pods, VTEPs, masquerading: everything else
        // stays.
        let old = &self.config;
        let mut config = Config {
            uplink: old.uplink.clone(),
            host: old.host.clone(),
            workers: old.workers.clone(),
            control: old.control.clone(),
            ..fresh.clone()
        };
        config.overlay.vtep_mac = old.overlay.vtep_mac;
        config.bridge.name.clone_from(&old.bridge.name);
        config.bridge.vni = old.bridge.vni;
        config.bridge.fdb_max = old.bridge.fdb_max;
        config.bridge.ageing_seconds = old.bridge.ageing_seconds;
        if let (Some(host), Some(wanted)) = (&mut config.host, &fresh.host) {
            host.masquerade = wanted.masquerade;
            host.non_masquerade_prefixes.clone_from(&wanted.non_masquerade_prefixes);
        }
        let kernel_differs = config.kernel_routes != old.kernel_routes;
        let former = self.former.with(&old.overlay);
        former.stay_accepted(&mut config.overlay);
        if let Some(problem) = self.mtu_problem(&config) {
            tracing::error!("the configuration is not reloaded: {problem}");
            return;
        }
        for note in former.notes(&config.overlay) {
            tracing::info!("{note}");
        }
        self.former = former;
        if config.bridge.vteps != self.config.bridge.vteps {
            self.forget_vteps();
        }
        self.config = config;
        self.reload_masquerade();
        self.model.take_config(&self.config);
        if kernel_differs {
            self.reload_kernel_routes();
        }
        match self.publish() {
            Ok(()) => tracing::info!("the configuration is reloaded"),
            Err(refusal) => tracing::error!("the configuration is reloaded, but {refusal}"),
        }
    }

    /// Why a configuration does not suit the peers that were added at run time.
    fn mtu_problem(&self, config: &Config) -> Option<String> {
        let facts = &self.uplink.as_ref()?.facts;
        let mut model = self.model.clone();
        model.take_config(config);
        let (key, message) = mtu::problem(config, &model, &facts.link.name, facts.mtu)?;
        Some(config.origin.problem(key, message).to_string())
    }

    /// A VTEP's number is its place in the list: by another list, what was learned would point to
    /// another VTEP. Tables without any stand between, as nothing is learned from a VTEP by them.
    fn forget_vteps(&mut self) {
        let mut tables = self.compile();
        for bridge in &mut tables.bridges {
            bridge.vteps.clear();
            bridge.fdb.retain(|_, target| !matches!(target, FdbTarget::Vtep(_)));
        }
        // Who does not follow is reported, and sees both tables and the order when it does.
        self.publisher.publish(tables, &self.workers);
        self.workers.forget_learned(ports::UPLINK);
    }

    fn reload_kernel_routes(&mut self) {
        self.kernel = match &self.config.kernel_routes {
            None => None,
            Some(settings) => match Netlink::open() {
                Ok(netlink) => Some(KernelTable::new(netlink, settings)),
                Err(error) => {
                    tracing::error!("the kernel's routes are not read: {}", chain(&error));
                    None
                }
            },
        };
        if let Some(host) = &mut self.host {
            host.share(self.kernel.is_some());
        }
        self.model.kernel = Tracked::default();
        self.learn(Instant::now());
    }

    fn reload_masquerade(&mut self) {
        let Some(host) = self.config.host.as_ref().filter(|host| host.masquerade) else {
            self.masquerade = None;
            return;
        };
        let (node, pods) = (&self.config.node, &self.model.pods);
        // Also where nothing has changed: somebody may have flushed the ruleset.
        let set = match &mut self.masquerade {
            Some(masquerade) => masquerade.update(node, host, pods),
            None => Masquerade::install(node, host, pods)
                .map(|masquerade| self.masquerade = Some(masquerade)),
        };
        if let Err(error) = set {
            tracing::error!("{}", chain(&error));
        }
    }

    /// Ends: the NIC goes back to Linux, then the workers stop, and the host port goes with its
    /// routes. Attachments stay in the journal.
    pub fn stop(self) {
        drop(self.masquerade);
        drop(self.uplink);
        self.workers.stop();
        drop(self.host);
        tracing::info!("stopped");
    }
}

fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let mut sections = Vec::new();
    let mut compare = |name, same: bool| {
        if !same {
            sections.push(name);
        }
    };
    compare("[uplink]", old.uplink == new.uplink);
    compare(
        "[host]",
        old.host.as_ref().map(|host| &host.interface)
            == new.host.as_ref().map(|host| &host.interface),
    );
    compare("[workers]", old.workers == new.workers);
    compare("[control]", old.control == new.control);
    compare("overlay.vtep_mac", old.overlay.vtep_mac == new.overlay.vtep_mac);
    let bridge = |config: &Config| {
        let bridge = &config.bridge;
        (bridge.name.clone(), bridge.vni, bridge.fdb_max, bridge.ageing_seconds)
    };
    compare("[bridge]", bridge(old) == bridge(new));
    sections
}
