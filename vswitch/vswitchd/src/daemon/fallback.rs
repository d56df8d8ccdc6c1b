//! Another kind of uplink, when the one that the daemon chose stops working.
//!
//! Enters: why it stopped. Leaves: the next kind that is to be had, opened beside the former; workers that
//! use it, tables that know what it takes, and the former given back. Pods, their ports and their connections
//! stay. A kind that the configuration names is never changed. `settle` and `kernel` call it.

use controlplane::config::UplinkChoice;
use controlplane::plane::Event;
use dataplane::wire::MacAddr;
use netio::uplink::{UplinkKind, UplinkQueue};
use netlink::{Link, Netlink};

use super::Daemon;
use super::workers::{share_words, shares};
use crate::error::chain;
use crate::machine;
use crate::underlay::Underlay;
use crate::uplink::OpenUplink;

impl Daemon {
    /// Whether the daemon chooses the kind of its uplink.
    pub(crate) fn chooses_uplink(&self) -> bool {
        let settings = self.plane.config().uplink.as_ref();
        settings.is_some_and(|settings| settings.kind == UplinkChoice::Auto)
    }

    /// Opens the next kind of uplink, as this one has stopped working: true if that is so now. What keeps it from
    /// being so is a warning, once.
    pub(super) fn fall_back(&mut self, why: &str) -> bool {
        let (Some(uplink), Some(settings)) = (&self.node.uplink, &self.plane.config().uplink)
        else {
            return false;
        };
        let workers = self.node.workers.count();
        match uplink.next_kind(settings, workers, self.plane.steering_in_force(), why) {
            None => false,
            Some(Ok((fresh, queues))) => self.change_uplink(fresh, queues),
            Some(Err(error)) => {
                tracing::debug!("no other kind of uplink is to be had: {}", chain(&error));
                false
            }
        }
    }

    /// The NIC is back, as another device of the same name.
    pub(super) fn reopen_uplink(&mut self, link: &Link) {
        let name = &link.name;
        match self.open_again(link) {
            Ok((fresh, queues)) => {
                if self.change_uplink(fresh, queues) {
                    self.warnings.retain(|warning| *warning != gone(name));
                }
            }
            Err(why) => tracing::error!("uplink {name} is back, but cannot be opened: {why}"),
        }
    }

    fn open_again(&mut self, link: &Link) -> Result<(OpenUplink, Vec<UplinkQueue>), String> {
        let config = self.plane.config();
        let settings = config.uplink.as_ref().ok_or("there is none")?;
        let facts = machine::examine(config, || self.recorded_addresses())
            .map_err(|error| chain(&error))?;
        let facts =
            facts.filter(|facts| facts.link.index == link.index).ok_or("it is gone again")?;
        let workers = self.node.workers.count();
        let opened = OpenUplink::open(settings, workers, self.plane.steering_in_force(), facts);
        let opened = opened.map_err(|error| chain(&error))?;
        let netlink = Netlink::open().map_err(|error| chain(&error))?;
        self.node.underlay = Some(Underlay::new(netlink, &opened.0.facts.link));
        Ok(opened)
    }

    /// Has workers and tables use another uplink than before; true if they do.
    fn change_uplink(&mut self, fresh: OpenUplink, queues: Vec<UplinkQueue>) -> bool {
        let (workers, mut warnings) = (self.node.workers.count(), Vec::new());
        let shares = shares(&fresh, queues, workers, &mut warnings);
        if shares.len() < workers {
            warnings.iter().for_each(|warning| tracing::error!("{warning}"));
            return false;
        }
        let before = (self.uplink_choices(), self.share_choices());
        let event = Event::UplinkReopened {
            ifindex: fresh.facts.link.index,
            mac: MacAddr(fresh.facts.mac),
            offloads: fresh.offloads(),
        };
        self.node.workers.change_uplink(shares);
        self.begin_handoff();
        // The former is given back once workers have the new one: until then both take what is ours.
        if let Some(former) = self.node.uplink.replace(fresh) {
            self.repairs.is_no_more(former.part());
            if former.control().kind() == UplinkKind::AfXdp {
                let its = former.facts.warnings_of_af_xdp();
                self.warnings.retain(|warning| !its.contains(warning));
            }
        }
        if let Some(uplink) = &self.node.uplink
            && uplink.control().kind() == UplinkKind::AfXdp
        {
            let its = uplink.facts.warnings_of_af_xdp();
            its.into_iter().for_each(|warning| self.warn(warning));
        }
        self.queue_note = None;
        self.follow(event);
        let after = (self.uplink_choices(), self.share_choices());
        for choice in after.0.iter().filter(|choice| !before.0.contains(choice)) {
            tracing::warn!("{choice}");
        }
        self.replace_choices(&before.0, after.0);
        for (worker, (before, after)) in before.1.iter().zip(&after.1).enumerate() {
            let begin = format!("worker {worker}: ");
            let own = self.choices.iter_mut().filter(|choice| choice.starts_with(&begin));
            own.for_each(|choice| *choice = choice.replacen(before, after, 1));
        }
        true
    }

    /// What each worker has of the NIC, in words.
    fn share_choices(&self) -> Vec<String> {
        let states = self.node.workers.states();
        states.iter().map(|state| share_words(&state.queues, state.sends_by)).collect()
    }

    /// Puts other sentences in the place of some of the choices.
    fn replace_choices(&mut self, before: &[String], after: Vec<String>) {
        let at = self.choices.iter().position(|choice| before.contains(choice));
        self.choices.retain(|choice| !before.contains(choice));
        let at = at.unwrap_or(self.choices.len());
        self.choices.splice(at..at, after);
    }
}

/// What needs attention while a NIC is gone that is opened again by itself.
pub(super) fn gone(name: &str) -> String {
    format!("uplink {name} is gone; it is opened again when it is back")
}
