//! What the daemon hears of the kernel, and learns from its routing table.
//!
//! Enters: the monitor's events, time. Leaves: the kernel's part of the model, next hops, and
//! tables to the workers where something is to forward another way. Events come in swarms: they are
//! followed one by one and acted upon a little later, and the larger the tables, the later.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Daemon;
use crate::error::chain;
use controlplane::kernel::{Changes, Learned, Scope};

/// A swarm is waited for this long before acting.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// And at most so long: whatever the kernel withdraws is to be withdrawn within a second, and of that
/// the kernel's own work and ours on a hundred thousand routes need most.
const LONGEST_DEBOUNCE: Duration = Duration::from_millis(150);
/// The underlay is looked at this often even if the kernel announces nothing.
const UNDERLAY_PERIOD: Duration = Duration::from_secs(1);
/// A table may have thousands of refused routes; the log has no more than so many at once.
const REFUSALS_LOGGED: usize = 20;

/// What is to be done because of the kernel, and when.
#[derive(Debug)]
pub(super) struct Agenda {
    /// When the first event came that was not acted upon.
    since: Option<Instant>,
    debounce: Duration,
    /// The uplink has another MAC or MTU, which tables hold too.
    link_changed: bool,
    looked_at: Instant,
}

impl Agenda {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: None, debounce: DEBOUNCE, link_changed: false, looked_at: now }
    }
}

impl Daemon {
    /// The kernel announced something: its queue is drained, and acted upon a little later.
    pub fn on_kernel_event(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let (underlay, kernel) = (&mut self.underlay, &mut self.kernel);
        let (mut is_concerned, mut links) = (false, Vec::new());
        let outcome = monitor.drain(|event| {
            is_concerned |= underlay.as_mut().is_some_and(|underlay| underlay.on_event(&event));
            is_concerned |= kernel.as_mut().is_some_and(|kernel| kernel.on_event(&event));
            if matches!(event, netlink::Event::LinkChanged(_) | netlink::Event::LinkGone(_)) {
                links.push(event);
            }
        });
        if let Err(error) = outcome {
            tracing::error!("{}", chain(&error));
        }
        for event in &links {
            self.agenda.link_changed |= self.on_link_event(event);
        }
        if is_concerned {
            self.agenda.since.get_or_insert_with(Instant::now);
        }
    }

    /// When [`Daemon::on_time`] wants to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.agenda.since.map(|since| since + self.agenda.debounce)
    }

    /// Acts upon events whose swarm is over, and looks round once a second.
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
            if let Some(underlay) = &mut self.underlay {
                underlay.go_round();
            }
        }
        let is_renumbered = self.follow_own_addresses();
        let has_learned = self.learn(now);
        let wanted = self.underlay_addresses();
        let is_moved = self.underlay.as_mut().is_some_and(|underlay| underlay.refresh(&wanted));
        let link_changed = std::mem::take(&mut self.agenda.link_changed);
        if (is_renumbered || has_learned || is_moved || link_changed)
            && let Err(refusal) = self.publish()
        {
            tracing::error!("{refusal}");
        }
        if is_renumbered {
            // Whoever could not be reached from the addresses that there were.
            self.retry_refused();
        }
        // A third of the time is for this, however fast the kernel's tables change; more only if it takes
        // long, for then it is all of a large table that changes.
        self.agenda.debounce = (begin.elapsed() * 2).clamp(DEBOUNCE, LONGEST_DEBOUNCE);
    }

    /// Takes over what the kernel's routing table says. True if something of it is different.
    pub(super) fn learn(&mut self, now: Instant) -> bool {
        let now = self.millis(now);
        let Some(kernel) = &mut self.kernel else { return false };
        if let Err(error) = kernel.settle(now) {
            tracing::error!("the kernel's routes are not read: {}", chain(&error));
            return false;
        }
        let scope = self.kernel_scope();
        let Some(kernel) = &mut self.kernel else { return false };
        let changes = kernel.apply_to(&mut self.model.kernel, scope);
        if changes.any {
            log(&changes, &self.model.kernel);
        }
        changes.any
    }

    fn kernel_scope(&self) -> Scope {
        let settings = self.config.kernel_routes.as_ref();
        let pods = &self.model.pods;
        let gateways = pods.gateways();
        let underlay = self.uplink.iter().flat_map(|uplink| uplink.facts.addresses.iter());
        let leases = self.model.attachments.values().flat_map(|lease| &lease.addresses);
        Scope {
            prefixes: settings.map(|settings| settings.prefixes.clone()).unwrap_or_default(),
            covering: settings.is_some_and(|settings| settings.covering),
            own: pods.all().copied().collect(),
            cluster: self.model.cluster_prefixes.clone(),
            pods: leases.map(IpNet::addr).collect(),
            node: gateways.chain(underlay).collect::<std::collections::BTreeSet<IpAddr>>(),
            uplink: self.uplink.as_ref().map(|uplink| uplink.facts.link.index),
            host: self.host.as_ref().map(|host| host.ifindex),
        }
    }
}

fn log(changes: &Changes, learned: &Learned) {
    tracing::debug!(
        taken = learned.routes.len(),
        ignored = learned.ignored.len(),
        refused = learned.refused.len(),
        "the kernel's routes"
    );
    for prefix in changes.refused.iter().take(REFUSALS_LOGGED) {
        let reason = learned.refused.get(prefix).map_or("", String::as_str);
        tracing::warn!("the kernel's route to {prefix} is refused: {reason}");
    }
}
