//! Another configuration, while the node forwards.
//!
//! Enters: a configuration that is valid, also on this machine. Leaves: the change that takes over what
//! can be taken over while running, all of it or nothing.

use api::{ErrorKind, ErrorReply};

use super::ControlPlane;
use super::list::Frame;
use crate::change::{Change, Note, Reloaded, Rollback};
use crate::config::Config;
use crate::kernel::{Follower, Tracked};
use crate::model::refuse;
use crate::mtu;

impl ControlPlane {
    pub(super) fn reload(
        &mut self,
        fresh: Config,
        follower: Option<Follower>,
    ) -> Result<Change, ErrorReply> {
        if fresh.node != self.config.node {
            return Err(refuse(ErrorKind::Conflict, "[node] has changed, which needs a restart"));
        }
        let mut notes: Vec<Note> = needs_restart(&self.config, &fresh)
            .into_iter()
            .map(|section| {
                Note::warning(format!(
                    "{section} has changed; that needs a restart and is ignored until then"
                ))
            })
            .collect();
        let mut config = merged(&self.config, fresh);
        let former = self.former.with(&self.config.overlay);
        former.stay_accepted(&mut config.overlay);
        if let Some(problem) = self.mtu_problem(&config) {
            return Err(refuse(ErrorKind::Conflict, problem));
        }
        notes.extend(former.notes(&config.overlay).into_iter().map(Note::info));

        let forgets_vteps = config.bridge.vteps != self.config.bridge.vteps;
        let other_kernel_routes = config.kernel_routes != self.config.kernel_routes;
        let model = self.model.clone();
        self.model.take_config(&config);
        let mut reloaded = Reloaded {
            config: std::mem::replace(&mut self.config, config),
            model,
            former: std::mem::replace(&mut self.former, former),
            follower: None,
        };
        if other_kernel_routes {
            reloaded.follower = Some(std::mem::replace(&mut self.follower, follower));
            self.model.kernel = Tracked::default();
            self.learn(&mut notes);
        }
        self.note_pods();
        let rollback = Rollback { reloaded: Some(Box::new(reloaded)), ..Rollback::default() };
        let frame = Frame { forgets_vteps, ..Frame::default() };
        Ok(self.request(frame, rollback, notes))
    }

    /// Why a configuration does not suit the peers that were added at run time.
    fn mtu_problem(&self, config: &Config) -> Option<String> {
        let uplink = self.uplink.as_ref()?;
        let mut model = self.model.clone();
        model.take_config(config);
        let (key, message) = mtu::problem(config, &model, &uplink.name, uplink.port.mtu)?;
        Some(config.origin.problem(key, message).to_string())
    }
}

/// The fresh configuration, with the former's values where those need a restart. Peers, routes,
/// encapsulation, defaults for new pods, VTEPs, masquerading: all that is taken over.
fn merged(old: &Config, fresh: Config) -> Config {
    let wanted = fresh.host.clone();
    let mut config = Config {
        uplink: old.uplink.clone(),
        host: old.host.clone(),
        workers: old.workers.clone(),
        control: old.control.clone(),
        metrics: old.metrics.clone(),
        sandbox: old.sandbox,
        ..fresh
    };
    config.overlay.vtep_mac = old.overlay.vtep_mac;
    config.bridge.name.clone_from(&old.bridge.name);
    config.bridge.vni = old.bridge.vni;
    config.bridge.fdb_max = old.bridge.fdb_max;
    config.bridge.ageing_seconds = old.bridge.ageing_seconds;
    if let (Some(host), Some(wanted)) = (&mut config.host, wanted) {
        host.masquerade = wanted.masquerade;
        host.non_masquerade_prefixes = wanted.non_masquerade_prefixes;
    }
    config
}

/// The sections that have changed and need a restart.
#[must_use]
pub fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
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
    compare("[metrics]", old.metrics == new.metrics);
    compare("[sandbox]", old.sandbox == new.sandbox);
    compare("overlay.vtep_mac", old.overlay.vtep_mac == new.overlay.vtep_mac);
    let bridge = |config: &Config| {
        let bridge = &config.bridge;
        (bridge.name.clone(), bridge.vni, bridge.fdb_max, bridge.ageing_seconds)
    };
    compare("[bridge]", bridge(old) == bridge(new));
    sections
}
