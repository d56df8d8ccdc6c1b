//! What the kernel announces.
//!
//! Enters: the monitor's events, time. Leaves: one event to the control plane for all that came
//! together. Events come in swarms: they are followed one by one and acted upon a little later, and
//! the larger the tables, the later.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use controlplane::config::UplinkChoice;
use controlplane::plane::{self, Event};
use dataplane::tables::LocalAddresses;
use dataplane::wire::MacAddr;
use netlink::{Link, Writer};

use super::{Daemon, fallback, settle};
use crate::error::chain;
use crate::kernel;
use crate::machine::largest_mtu;

/// A swarm is waited for this long before acting.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// And at most so long: whatever the kernel withdraws is to be withdrawn within a second, and of that
/// the kernel's own work and ours on a hundred thousand routes need most.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(150);
/// The underlay is looked at this often even if the kernel announces nothing.
const UNDERLAY_PERIOD: Duration = Duration::from_secs(1);

/// What is to be done because of the kernel, and when.
#[derive(Debug)]
pub(super) struct Agenda {
    /// When the first event came that was not acted upon.
    since: Option<Instant>,
    debounce: Duration,
    /// The uplink, if it was announced.
    link: Option<plane::UplinkLink>,
    looked_at: Instant,
    /// The host port may lack something, and the program that may have taken it.
    host_port: Option<Option<String>>,
    /// The nftables table may be another, and the program that may have changed it.
    nft_table: Option<Option<String>>,
    compared_at: Instant,
}

impl Agenda {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: None,
            debounce: DEBOUNCE,
            link: None,
            looked_at: now,
            host_port: None,
            nft_table: None,
            compared_at: now,
        }
    }
}

impl Daemon {
    /// The kernel announced something: its queue is drained, and acted upon a little later.
    pub fn on_kernel_event(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let underlay = &mut self.node.underlay;
        let (plane, host) = (&mut self.plane, self.node.host.as_ref());
        let host_port = &mut self.agenda.host_port;
        let (mut is_concerned, mut links) = (false, Vec::new());
        let outcome = monitor.drain(|event, port| {
            if host.is_some_and(|host| settle::concerns_host(&event, host)) {
                is_concerned = true;
                // The first to change something is named.
                let by = host_port.get_or_insert(None);
                *by = by.take().or_else(|| settle::writer(port));
            }
            is_concerned |= underlay.as_mut().is_some_and(|underlay| underlay.on_event(&event));
            is_concerned |=
                plane.follower().is_some_and(|follower| kernel::on_event(follower, &event));
            match event {
                netlink::KernelEvent::LinkChanged(link) => links.push((link, true)),
                netlink::KernelEvent::LinkGone(link) => links.push((link, false)),
                _ => {}
            }
        });
        if let Err(error) = outcome {
            tracing::error!("{}", chain(&error));
        }
        for (link, is_there) in links {
            self.on_link_event(link, is_there);
        }
        if is_concerned {
            self.agenda.since.get_or_insert_with(Instant::now);
        }
    }

    /// Our nftables table changed. By us, it has what it is to have.
    pub fn on_ruleset_event(&mut self) {
        let Some(ruleset) = &mut self.ruleset else { return };
        let writers = match ruleset.drain() {
            Ok(writers) => writers,
            Err(error) => return tracing::error!("{}", chain(&error)),
        };
        let rules = &self.node.rules;
        let is_ours = |writer: &Option<Writer>| {
            writer.as_ref().is_some_and(|writer| rules.is_own(writer.pid))
        };
        if let Some(writer) = writers.into_iter().find(|writer| !is_ours(writer)) {
            let by = writer.map(|writer| format!("process {} ({})", writer.pid, writer.name));
            self.agenda.nft_table.get_or_insert(by);
            self.agenda.since.get_or_insert_with(Instant::now);
        }
    }

    fn on_link_event(&mut self, link: Link, is_there: bool) {
        let chooses = self.chooses_uplink();
        let Some(uplink) = &mut self.node.uplink else { return };
        if uplink.control().tap_name() == Some(link.name.as_str()) {
            return self.settle_uplink(Instant::now());
        }
        if link.index != uplink.facts.link.index {
            if chooses && is_there && uplink.is_gone && link.name == uplink.facts.link.name {
                self.reopen_uplink(&link);
            }
            return;
        }
        let settings = self.plane.config().uplink.as_ref();
        let largest = largest_mtu(settings.map_or(UplinkChoice::AfXdp, |uplink| uplink.kind));
        if !is_there {
            uplink.is_gone = true;
            let name = link.name;
            let gone = format!("uplink {name} is gone; restart the daemon when it is back");
            self.warn(if chooses { fallback::gone(&name) } else { gone });
            return;
        }
        if link.carrier != uplink.facts.link.carrier {
            tracing::warn!(carrier = link.carrier, "uplink {}", link.name);
        }
        if link.name != uplink.facts.link.name
            && let Some(underlay) = &mut self.node.underlay
        {
            underlay.rename(&link.name);
        }
        self.agenda.link = Some(plane::UplinkLink {
            name: link.name.clone(),
            mac: link.mac.map(MacAddr),
            mtu: link.mtu.min(largest),
        });
        uplink.facts.link = link;
    }

    /// When [`Daemon::on_time`] wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.agenda.since.map(|since| since + self.agenda.debounce)
    }

    /// Acts upon swarms of events that are over, and looks round once a second.
    pub(super) fn follow_kernel(&mut self, now: Instant) {
        let swarm_is_over = self.deadline().is_some_and(|deadline| now >= deadline);
        let is_time = now >= self.agenda.looked_at + UNDERLAY_PERIOD;
        if !swarm_is_over && !is_time {
            return;
        }
        let begin = Instant::now();
        if swarm_is_over {
            self.agenda.since = None;
        }
        if is_time {
            self.agenda.looked_at = now;
            if let Some(underlay) = &mut self.node.underlay {
                underlay.go_round();
            }
            self.look_at_queues();
            self.settle_uplink(now);
            self.settle_forwarding(now);
        }
        if let Some(by) = self.agenda.host_port.take() {
            self.settle_host_port(by.as_deref(), now);
        }
        if let Some(by) = self.agenda.nft_table.take() {
            self.settle_nft_table(by, now);
        }
        if now >= self.agenda.compared_at + settle::PERIOD {
            self.agenda.compared_at = now;
            self.settle_all(now);
        }
        self.feed_watchdog();
        self.read_kernel_table(now);
        self.feed_watchdog();
        let own = self.own_addresses();
        let ends = self.plane.underlay_ends();
        let next_hops =
            self.node.underlay.as_mut().and_then(|underlay| {
                underlay.refresh(&ends).then(|| Arc::clone(underlay.next_hops()))
            });
        self.feed_watchdog();
        let link = self.agenda.link.take();
        let before = self.uplink_choices();
        self.follow(Event::KernelChanged { link, own, next_hops });
        self.renew_choices(&before);
        // A third of the time is for this, however fast the kernel's tables change; more only if it takes
        // long, for then it is all of a large table that changes.
        self.agenda.debounce = (begin.elapsed() * 2).clamp(DEBOUNCE, LONGEST_DEBOUNCE);
    }

    pub(super) fn uplink_choices(&self) -> Vec<String> {
        let (Some(uplink), Some(state)) = (&self.node.uplink, self.plane.uplink()) else {
            return Vec::new();
        };
        uplink.choices(state)
    }

    /// Brings what was chosen of the uplink up to date.
    fn renew_choices(&mut self, before: &[String]) {
        for (before, after) in before.iter().zip(self.uplink_choices()) {
            if *before == after {
                continue;
            }
            self.choices.iter_mut().filter(|choice| *choice == before).for_each(|choice| {
                tracing::warn!("{after}");
                choice.clone_from(&after);
            });
        }
    }

    /// Reads the kernel's routing table, where it is a source and its events alone do not suffice.
    pub(super) fn read_kernel_table(&mut self, now: Instant) {
        let now = self.millis(now);
        let Some(follower) = self.plane.follower() else { return };
        if let Err(error) = kernel::settle(follower, &mut self.node.netlink, now) {
            tracing::error!("the kernel's routes are not read: {}", chain(&error));
        }
    }

    /// The addresses by which other nodes know this one.
    pub(super) fn recorded_addresses(&self) -> LocalAddresses {
        self.plane.model().recorded_own
    }

    /// The uplink's addresses, all and those that last; nothing if they are ours as they were.
    pub(super) fn own_addresses(&mut self) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
        let underlay = self.node.underlay.as_mut()?;
        let asked = underlay.own_addresses().and_then(|has| {
            let is_settled = self.plane.are_own_addresses_settled(&has);
            let lasting = if is_settled { Vec::new() } else { underlay.lasting_addresses()? };
            Ok((has, lasting))
        });
        asked.inspect_err(|error| tracing::error!("{}", chain(error))).ok()
    }
}
