//! The process on a node: how it starts, and what it does with each event, as `vswitchd/src/daemon`.
//!
//! Enters: events, from `node`. Leaves: what became of each, after its list was carried out on the
//! world; or the rule that was broken.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use api::{AttachmentId, ErrorReply, Reply};
use controlplane::change::Action;
use controlplane::compile::{HostPort, PodPort, UplinkPort};
use controlplane::config::Config;
use controlplane::desired::{HostPortState, NftTable, Steering};
use controlplane::kernel::Follower;
use controlplane::model::{Edit, Lease, Model, Refused};
use controlplane::own_address::{Candidates, Choice, check_own_addresses};
use controlplane::plane::{ControlPlane, Event, HostState, UplinkState};
use controlplane::ports::PodDevice;
use controlplane::{mtu, ports};
use dataplane::Millis;
use dataplane::tables::{LocalAddresses, Offloads, PortId};
use dataplane::wire::MacAddr;

use crate::events::{HOST_IFINDEX, UPLINK_IFINDEX};
use crate::faults::Faults;
use crate::invariants::durable;
use crate::kernel::Kernel;
use crate::ledger::Ledger;
use crate::node::{Kept, Node};
use crate::settings;
use crate::workers::Workers;
use crate::world::{Course, WORKERS, World};

/// What became of an event.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(Option<Reply>),
    Refused(ErrorReply),
    Died,
}

/// Calls that the first list of a start makes at most.
const CALLS_OF_STARTED: usize = 2;

impl Node {
    /// The process ends.
    pub(crate) fn die(&mut self) {
        self.plane = None;
        self.world.process_dies();
    }

    /// Starts the daemon again: everything that was answered is there.
    pub(crate) fn recover(&mut self, faults: &Faults) -> Kept {
        // A line of the journal that could not be taken back is there again after a start: the client
        // was told so.
        if self.journal_is_behind {
            self.ledger = Ledger::default();
        }
        if !settings::config(self.setting).node.pod_prefixes.is_empty() {
            self.ledger.forget_pod_prefixes();
        }
        self.start(faults)
    }

    /// What a dead process has left on disk is what it knew before its last event, or after it.
    fn check_crash(&mut self) -> Kept {
        if let Some(known) = self.dying.take() {
            let restored = Model::restored(&known.config, &self.world.disk.read()?);
            let restored = durable(&restored);
            if !self.journal_is_behind && restored != known.before && restored != known.after {
                let (before, after) = (&known.before, &known.after);
                return Err(format!(
                    "a crash has left {restored:?}, which is neither {before:?} nor {after:?}"
                ));
            }
        }
        Ok(())
    }

    /// Starts the daemon, as often as that takes.
    pub(crate) fn start(&mut self, faults: &Faults) -> Kept {
        let mut faults = faults.clone();
        for _ in 0..3 {
            self.check_crash()?;
            self.die();
            (self.is_behind, self.journal_is_behind) = (false, false);
            self.world.story.borrow_mut().detail(|| "the daemon starts".into());
            if self.try_start(&faults)? {
                if let Some(plane) = &self.plane {
                    self.ledger.begins(plane.model());
                }
                self.check().and_then(|()| self.on_time(&Faults::none()))?;
                return self.look_at_namespaces(&Faults::none());
            }
            faults = Faults::none();
        }
        Err("the daemon does not start".into())
    }

    /// True if it runs then.
    fn try_start(&mut self, faults: &Faults) -> Result<bool, String> {
        let config = settings::config(self.setting).clone();
        let addresses = match self.examine(&config) {
            Ok(choice) => choice.addresses,
            Err(why) => {
                self.world.story.borrow_mut().detail(|| format!("{why}; the operator mends it"));
                self.world.kernel.nic = Kernel::new().nic;
                self.examine(&config)?.addresses
            }
        };
        let world = &mut self.world;
        let mut model = Model::restored(&config, &world.disk.read()?);
        model.begin_boot(&format!("boot {}", world.boots));
        model.apply_all(model.recording_own_addresses(addresses).as_slice());
        world.disk.replace(&model.snapshot());
        model.set_own_addresses(addresses);
        world.is_alive = true;
        let nic = &world.kernel.nic.link;
        let uplink = config.uplink.as_ref().map(|_| UplinkState {
            name: nic.name.clone(),
            ifindex: UPLINK_IFINDEX,
            port: UplinkPort {
                id: ports::UPLINK,
                mac: nic.mac.unwrap_or_default(),
                addresses,
                mtu: nic.mtu,
                offloads: Offloads::default(),
            },
        });
        world.workers = Workers::spawned(WORKERS, uplink.is_some());
        if uplink.is_some() {
            world.kernel.steering = Some(Steering::of(&config, &model, addresses));
        }
        let host = config.host.as_ref().map(|host| HostState {
            name: host.interface.clone(),
            ifindex: HOST_IFINDEX,
            port: HostPort {
                id: ports::HOST,
                mac: MacAddr([2, 0x76, 0x73, 0, 0, 2]),
                mtu: 0,
                offloads: Offloads::default(),
            },
        });
        if let Some(host) = &config.host {
            world.kernel.make_host_port();
            world.workers.add(ports::HOST);
            if !host.masquerade {
                world.kernel.nft_table = None;
            }
        }
        self.plane = Some(ControlPlane::new(config, model, WORKERS, world.policy_generation()));
        let Outcome::Done(_) = self.react(Event::Started { uplink, host }, faults)? else {
            return Ok(false);
        };
        let now = Millis(self.now);
        let Some(plane) = &mut self.plane else { return Ok(false) };
        if let Some(follower) = plane.follower() {
            read_kernel_table(&self.world.kernel, follower, now);
        }
        let own = own_addresses(&self.world.kernel, plane);
        let leases = &plane.model().attachments;
        let is_known = |port: &AttachmentId| leases.get(port).is_some_and(|lease| lease.attached);
        self.world.store.retain(is_known);
        let left = self.world.store.iter();
        let left =
            left.map(|attachment| (attachment.clone(), device(leases.get(attachment)))).collect();
        let ready = self.react(Event::Ready { own, left }, &faults.after(CALLS_OF_STARTED))?;
        Ok(matches!(ready, Outcome::Done(_)))
    }

    /// What the machine has to say to a configuration.
    fn examine(&self, config: &Config) -> Result<Choice, String> {
        let Some(uplink) = &config.uplink else { return Ok(Choice::default()) };
        let nic = &self.world.kernel.nic;
        let choice = Candidates::of(config, uplink, &nic.addresses, &nic.addresses)
            .choose(config, || self.recorded_addresses(config))
            .map_err(|problem| problem.to_string())?;
        let fresh = Model::new(config);
        if let Some((_, message)) = mtu::problem(config, &fresh, &nic.link.name, nic.link.mtu) {
            return Err(message);
        }
        match check_own_addresses(config, choice.addresses).first() {
            Some(problem) => Err(problem.to_string()),
            None => Ok(choice),
        }
    }

    fn recorded_addresses(&self, config: &Config) -> LocalAddresses {
        let edits = self.world.disk.read();
        edits.map_or_else(
            |_| Default::default(),
            |edits| Model::restored(config, &edits).recorded_own,
        )
    }

    /// Likewise while the daemon runs: it waits for nothing that it has not waited for before.
    pub(crate) fn examine_for_reload(&self, config: &Config) -> Kept {
        let choice = self.examine(config)?;
        let known: Vec<_> = self.plane()?.attention().collect();
        let awaited = choice.notes.iter().find(|note| !known.contains(note));
        awaited.map_or(Ok(()), |note| Err(note.clone()))
    }

    /// Has the control plane make a list of an event, and carries it out.
    pub(crate) fn react(&mut self, event: Event, faults: &Faults) -> Result<Outcome, String> {
        let is_settled = self.is_at_rest();
        let Some(mut plane) = self.plane.take() else { return Err("no daemon runs".into()) };
        let arriving: VecDeque<_> = match &event {
            Event::Attach { request, .. } => [request.attachment.clone()].into(),
            Event::Ready { left, .. } => left.iter().map(|(left, _)| left.clone()).collect(),
            _ => VecDeque::new(),
        };
        // What the kernel has left undone is no reason to refuse a client: a fact's list does it.
        let is_clients = matches!(event, Event::Attach { .. } | Event::Request(_));
        let is_start = matches!(event, Event::Started { .. });
        let config = matches!(event, Event::Reload { .. }).then(|| plane.config().clone());
        let before = Before::of(&plane, &self.world, config);
        let made = plane.on(event);
        self.world.course = Course {
            faults: faults.clone(),
            steering: (before.steering.clone(), plane.steering()),
            is_settled,
            arriving,
            ..Course::default()
        };
        let mut change = match made {
            Ok(change) => change,
            Err(refusal) => {
                self.world.story.borrow_mut().detail(|| format!("refused: {}", refusal.message));
                before.stays(&plane, &self.world, true)?;
                self.plane = Some(plane);
                return Ok(Outcome::Refused(refusal));
            }
        };
        if let Some(broken) = self.world.broken {
            broken.spoil(&mut change.actions);
        }
        let is_whole = change.actions.contains(&Action::Publish);
        let after = durable(plane.model());
        let outcome = plane.carry_out(change, &mut self.world);
        let calls = self.world.course.calls;
        (self.is_unchecked, self.most_calls) =
            (self.is_unchecked || calls > 0, self.most_calls.max(calls));
        if let Some(rule) = self.world.broken_rule.take() {
            return Err(rule);
        }
        if !self.world.is_alive {
            self.world.story.borrow_mut().detail(|| "the process is dead".into());
            let config = plane.config().clone();
            self.dying = Some(Dying { config, before: before.durable, after });
            // A pod is gone whether or not that could be written: what is owed dies with the process.
            self.journal_is_behind |= plane.owes_lines();
            return Ok(Outcome::Died);
        }
        let refused = std::mem::take(&mut self.world.course.refused);
        // The first refusal that a request met was answered by going back; the others are of what is
        // still to be done.
        let open = refused.get(usize::from(outcome.is_err())..).unwrap_or_default();
        if outcome.is_ok() && open.is_empty() && is_whole && !is_clients {
            self.is_behind = false;
        }
        // What a worker did not take in time is done when it has caught up.
        self.is_behind |= open.iter().any(|name| *name != "publish");
        // A line has those before it that were refused.
        self.journal_is_behind &= !self.world.course.has_journalled;
        self.journal_is_behind |= open.contains(&"journal");
        let outcome = match outcome {
            Ok(_) => Outcome::Done(self.world.course.answer.take()),
            Err(refusal) => {
                self.world.story.borrow_mut().detail(|| format!("refused: {}", refusal.message));
                if self.world.course.answer.is_some() {
                    return Err("a client is answered and refused".into());
                }
                if !is_start {
                    let is_whole = is_settled && open.is_empty() && self.is_at_rest();
                    before.stays(&plane, &self.world, is_whole)?;
                }
                Outcome::Refused(refusal)
            }
        };
        self.plane = Some(plane);
        Ok(outcome)
    }
}

/// What was known when the process died.
pub(crate) struct Dying {
    config: Config,
    before: Vec<Edit>,
    after: Vec<Edit>,
}

/// What a refused request must leave as it was.
struct Before {
    durable: Vec<Edit>,
    refused: Refused,
    pods: BTreeMap<AttachmentId, PodPort>,
    config: Option<Config>,
    steering: Steering,
    taken: Option<Steering>,
    nft_table: Option<NftTable>,
    host_port: Option<HostPortState>,
    ports: Vec<BTreeSet<PortId>>,
}

impl Before {
    fn of(plane: &ControlPlane, world: &World, config: Option<Config>) -> Self {
        Self {
            durable: durable(plane.model()),
            refused: plane.model().refused.clone(),
            pods: plane.ports().compiled(),
            config,
            steering: plane.steering(),
            taken: world.kernel.steering.clone(),
            nft_table: world.kernel.nft_table.clone(),
            host_port: world.kernel.host_port(),
            ports: world.workers.all.iter().map(|worker| worker.ports.clone()).collect(),
        }
    }

    /// Nothing that was refused is half there: not in the model, and in the kernel neither if it could
    /// be taken back.
    fn stays(self, plane: &ControlPlane, world: &World, is_taken_back: bool) -> Kept {
        let mut now = Self::of(plane, world, self.config.is_some().then(|| plane.config().clone()));
        if let (Some(before), Some(now)) = (&self.host_port, &mut now.host_port) {
            // A neighbour too many harms nobody.
            now.neighbors.clone_from(&before.neighbors);
        }
        let is_same = [
            ("leases, peers and entries", self.durable == now.durable),
            ("refused peers", self.refused == now.refused),
            ("live ports", self.pods == now.pods),
            ("the configuration", self.config == now.config),
            ("what is to be taken from the NIC", self.steering == now.steering),
            ("what is taken from the NIC", !is_taken_back || self.taken == now.taken),
            ("the nftables table", !is_taken_back || self.nft_table == now.nft_table),
            ("the host port", !is_taken_back || self.host_port == now.host_port),
            ("the workers' ports", !is_taken_back || self.ports == now.ports),
        ];
        match is_same.iter().find(|(_, is_same)| !is_same) {
            None => Ok(()),
            Some((what, _)) => Err(format!("what was refused is half there: {what} changed")),
        }
    }
}

/// Reads the kernel's routing table anew if that is needed.
pub(crate) fn read_kernel_table(kernel: &Kernel, follower: &mut Follower, now: Millis) {
    if follower.wants_reading(now) {
        let mut mirror = follower.empty();
        kernel.routes.iter().for_each(|route| mirror.read(route.clone()));
        follower.take(mirror, now);
    }
}

/// The NIC's addresses, all and those that last.
pub(crate) fn own_addresses(
    kernel: &Kernel,
    plane: &ControlPlane,
) -> Option<(Vec<IpAddr>, Vec<IpAddr>)> {
    plane.uplink()?;
    let has = kernel.nic.addresses.clone();
    let is_settled = plane.are_own_addresses_settled(&has);
    let lasting = if is_settled { Vec::new() } else { has.clone() };
    Some((has, lasting))
}

/// A pod's device with the queues that its plugin was told to make.
pub(crate) fn device(lease: Option<&Lease>) -> PodDevice {
    let queues = lease.map_or(1, |lease| usize::from(lease.queues).min(WORKERS));
    PodDevice { offloads: Offloads::default(), queues }
}
