//! A node in the course of its life: what happens to it, and what its clients are told.
//!
//! Enters: happenings, each with what goes wrong. Leaves: nothing, or the rule that was broken. The
//! process on it is in `daemon`.

use std::cell::RefCell;
use std::rc::Rc;

use api::{Attach, ErrorReply, Reply, Request};
use controlplane::config::Config;
use controlplane::kernel::{Follower, KernelRoute, Placement, TableEvent};
use controlplane::plane::{ControlPlane, Event};
use dataplane::tables::Offloads;
use dataplane::wire::MacAddr;
use dataplane::{Millis, PathMtu};

use crate::broken::Broken;
use crate::daemon::{self, Dying, Outcome, device};
use crate::events::{Happening, Move, UPLINK_IFINDEX};
use crate::faults::Faults;
use crate::invariants;
use crate::ledger::Ledger;
use crate::settings::{self, Setting};
use crate::story::Story;
use crate::world::{WORKERS, World};

/// Milliseconds from the end of a pod's namespace until another may have its addresses.
const QUARANTINE: u64 = 30_000;

/// A rule that was broken, in words.
pub(crate) type Kept = Result<(), String>;

/// A node.
pub(crate) struct Node {
    pub(crate) world: World,
    /// The running process, if there is one.
    pub(crate) plane: Option<ControlPlane>,
    /// What the configuration file has.
    pub(crate) setting: Setting,
    pub(crate) ledger: Ledger,
    pub(crate) now: u64,
    number: usize,
    /// The kernel has refused something that is still to be done.
    pub(crate) is_behind: bool,
    /// The journal has refused a line that is still to be written.
    pub(crate) journal_is_behind: bool,
    /// Of the longest list that was carried out.
    pub(crate) most_calls: usize,
    /// Something was done since the rules of a node at rest were checked.
    pub(crate) is_unchecked: bool,
    /// What was known when the process died.
    pub(crate) dying: Option<Dying>,
}

impl Node {
    /// A node with a fresh disk, and its daemon started.
    pub(crate) fn new(
        setting: Setting,
        broken: Option<Broken>,
        story: Rc<RefCell<Story>>,
    ) -> Result<Self, String> {
        let mut node = Self {
            world: World::new(broken, story),
            plane: None,
            setting,
            ledger: Ledger::default(),
            now: 0,
            number: 0,
            is_behind: false,
            journal_is_behind: false,
            most_calls: 0,
            is_unchecked: false,
            dying: None,
        };
        node.start(&Faults::none())?;
        Ok(node)
    }

    /// Something happens, and what goes wrong with it.
    ///
    /// # Errors
    /// The rule that is broken then.
    pub(crate) fn happens(&mut self, happening: Happening, faults: &Faults) -> Kept {
        self.number += 1;
        let number = self.number;
        self.world.story.borrow_mut().event(number, || happening.to_string());
        match happening {
            Happening::Ask(request) => self.asked(*request, faults),
            Happening::Reload(setting) => self.reload(setting, faults),
            Happening::KernelMoves(moves) => {
                moves.into_iter().for_each(|one| self.kernel_moves(one));
                self.look(faults)
            }
            Happening::Look => self.look(faults),
            Happening::UplinkReopens(tso) => {
                let mac = self.world.kernel.nic.link.mac.unwrap_or_default();
                let offloads = Offloads { checksum: tso, tso, ..Offloads::default() };
                let event = Event::UplinkReopened { ifindex: UPLINK_IFINDEX, mac, offloads };
                self.follow(event, faults)?;
                let uplink = self.plane()?.uplink().map(|uplink| uplink.port.offloads);
                match uplink {
                    // A process that died has it as it opens it.
                    Some(now) if now != offloads && faults.are_none() => {
                        Err("the uplink has other offloads".into())
                    }
                    _ => Ok(()),
                }
            }
            Happening::PathMtu(address, mtu) => {
                let reported = vec![PathMtu { address, mtu }];
                self.follow(Event::PathMtus { reported, now: Millis(self.now) }, faults)
            }
            Happening::Time(millis) => {
                self.now += millis;
                let now = Millis(self.now);
                self.follow(Event::PathMtus { reported: Vec::new(), now }, faults)?;
                self.look_at_namespaces(&Faults::none())
            }
            Happening::PortGoes(attachment) => {
                let plane = self.plane()?;
                let gone = plane.ports().number_of(&attachment);
                let gone = gone.filter(|_| plane.ports().is_up(&attachment));
                self.follow(Event::PortsGone(gone.into_iter().collect()), faults)
            }
            Happening::PodEnds(attachment) => {
                self.world.ended.entry(attachment).or_insert(self.now);
                self.look_at_namespaces(faults)
            }
            Happening::WorkerGetsOn(worker) => {
                self.world.resume(worker);
                self.on_time(faults)
            }
            Happening::Compact => self.mend_journal(faults),
            Happening::Kill => {
                self.die();
                self.recover(faults)
            }
            Happening::Stop => {
                self.die();
                // systemd keeps descriptors over a restart alone.
                self.world.store.clear();
                self.world.kernel.process_has_cleared_up();
                self.recover(faults)
            }
            Happening::Reboot(percent) => {
                self.die();
                self.world.disk.power_fails(percent);
                self.world.machine_starts();
                self.ledger.forget_leases();
                self.recover(faults)?;
                let left = self.plane()?.model().attachments.keys().next();
                left.map_or(Ok(()), |left| Err(format!("{left:?} has outlived a reboot")))
            }
        }
    }

    /// Something happens and goes well; how many actions it took.
    ///
    /// # Errors
    /// The rule that is broken then.
    pub(crate) fn calls_of(&mut self, happening: Happening) -> Result<usize, String> {
        self.most_calls = 0;
        self.happens(happening, &Faults::none())?;
        Ok(self.most_calls)
    }

    /// Everything that was late comes in time: the node comes to rest, and is as it is to be; and so it
    /// is after a restart.
    ///
    /// # Errors
    /// The rule that is broken then.
    pub(crate) fn comes_to_rest(&mut self) -> Kept {
        self.world.story.borrow_mut().event(self.number + 1, || "the node comes to rest".into());
        (0..WORKERS).for_each(|worker| self.world.resume(worker));
        self.on_time(&Faults::none())?;
        if self.world.disk.is_lost {
            self.mend_journal(&Faults::none())?;
        }
        let ends = self.plane()?.underlay_ends();
        let (next_hops, _) = self.world.kernel.look_up(&ends);
        let all = Event::KernelChanged { link: None, own: None, next_hops: Some(next_hops) };
        self.follow(all, &Faults::none())?;
        // A port may have been handed over for a pod that had ended.
        self.look_at_namespaces(&Faults::none())?;
        if self.is_behind || self.journal_is_behind {
            return Err("a list that goes well leaves something to be done".into());
        }
        let ports = self.plane()?.ports().compiled().into_keys().collect::<Vec<_>>();
        // One that could not be taken at the last start may be taken at the next.
        let missing = self.plane()?.reattachments();
        let settings = |config: &Config| (config.kubernetes.clone(), config.policies.clone());
        let before = settings(self.plane()?.config());
        let policies = self.plane()?.policy_state().pods;
        self.happens(Happening::Kill, &Faults::none())?;
        let plane = self.plane()?;
        // What was reloaded may be taken over now.
        let is_same_setting = settings(plane.config()) == before;
        if is_same_setting && plane.policy_state().pods != policies {
            let left = self.plane()?.policy_state().pods;
            return Err(format!("a restart has made of the policies {policies:?} {left:?}"));
        }
        let mut left: Vec<_> = self.plane()?.ports().compiled().into_keys().collect();
        left.retain(|pod| ports.contains(pod) || !missing.iter().any(|one| one.attachment == *pod));
        if ports == left {
            return Ok(());
        }
        Err(format!("a restart has made of the ports of {ports:?} those of {left:?}"))
    }

    pub(crate) fn plane(&self) -> Result<&ControlPlane, String> {
        self.plane.as_ref().ok_or_else(|| "no daemon runs".into())
    }

    fn asked(&mut self, mut request: Request, faults: &Faults) -> Kept {
        let leases = &self.plane()?.model().attachments;
        if let Request::Attach(Attach { attachment, mac, .. }) = &mut request
            && mac.0 == [0; 6]
            && let Some(lease) = leases.get(attachment)
        {
            *mac = lease.mac;
        }
        if let Request::Reserve(reserve) = &request {
            // Its runtime has made it a namespace.
            self.world.ended.remove(&reserve.attachment);
        }
        let leases = &self.plane()?.model().attachments;
        let event = match &request {
            Request::Attach(attach) => {
                let lease = leases.get(&attach.attachment);
                Event::Attach { request: attach.clone(), device: device(lease) }
            }
            other => Event::Request(other.clone()),
        };
        match self.react(event, faults)? {
            Outcome::Done(Some(reply)) => self.told(&request, &reply, faults),
            Outcome::Done(None) => return Err("a client is not answered".into()),
            Outcome::Refused(_) => {
                self.ledger.refused(&request);
                // What was taken back is on disk, too.
                if self.world.course.has_journalled {
                    self.sync(faults);
                }
            }
            Outcome::Died => {
                match self.world.course.answer.take() {
                    Some(reply) => self.told(&request, &reply, &Faults::none()),
                    None => self.ledger.unanswered(&request),
                }
                return self.recover(&Faults::none());
            }
        }
        self.check()?;
        self.on_time(&Faults::none())
    }

    /// The client is told when the disk has what was written; a release also if it has not.
    fn told(&mut self, request: &Request, reply: &Reply, faults: &Faults) {
        self.sync(faults);
        if self.world.disk.is_lost && !matches!(request, Request::Detach(_)) {
            self.ledger.unanswered(request);
        } else {
            self.ledger.answered(request, reply);
        }
    }

    fn sync(&mut self, faults: &Faults) {
        let disk = &mut self.world.disk;
        if faults.fails_to_sync {
            disk.fails_to_sync();
            self.journal_is_behind = true;
        } else if self.world.broken != Some(Broken::AnswersBeforeSync) && !disk.is_lost {
            disk.sync();
        }
    }

    /// The journal is written anew, from the model, and has what it refused.
    fn mend_journal(&mut self, faults: &Faults) -> Kept {
        let snapshot = self.plane()?.model().snapshot();
        self.world.disk.replace(&snapshot);
        self.journal_is_behind = false;
        self.follow(Event::JournalMended, faults)
    }

    fn reload(&mut self, setting: Setting, faults: &Faults) -> Kept {
        // The file is written whatever becomes of it.
        self.setting = setting;
        let fresh = settings::config(setting);
        if self.examine_for_reload(fresh).is_err() {
            return self.check();
        }
        let now = self.now;
        let former = &self.plane()?.config().kernel_routes;
        let follower = fresh.kernel_routes.as_ref().filter(|_| fresh.kernel_routes != *former);
        let mut follower = follower.map(Follower::new);
        if let Some(follower) = &mut follower {
            daemon::read_kernel_table(&self.world.kernel, follower, Millis(now));
        }
        let reload = Event::Reload { config: Box::new(fresh.clone()), follower };
        match self.react(reload, faults)? {
            Outcome::Died => self.recover(&Faults::none()),
            _ => self.check().and_then(|()| self.on_time(&Faults::none())),
        }
    }

    fn kernel_moves(&mut self, one: Move) {
        let kernel = &mut self.world.kernel;
        let mut follower = self.plane.as_mut().and_then(ControlPlane::follower);
        match one {
            Move::Mtu(mtu) => {
                (kernel.nic.link.mtu, kernel.nic.is_announced) = (mtu, true);
            }
            Move::Mac(last) => {
                kernel.nic.link.mac = Some(MacAddr([2, 0, 0, 0, 0, last]));
                kernel.nic.is_announced = true;
            }
            Move::Addresses(addresses) => {
                kernel.nic.addresses = addresses;
                if let Some(follower) = &mut follower {
                    follower.on_event(TableEvent::Any);
                }
            }
            Move::Way(address, way) => {
                kernel.ways.remove(&address);
                kernel.ways.extend(way.map(|way| (address, way)));
            }
            Move::Route(route) => {
                let key = |route: &KernelRoute| (route.destination, route.metric);
                let at = kernel.routes.iter().position(|other| key(other) == key(&route));
                match at {
                    Some(at) => kernel.routes[at] = route.clone(),
                    None => kernel.routes.push(route.clone()),
                }
                if let Some(follower) = &mut follower {
                    let placement =
                        if at.is_some() { Placement::Replaces } else { Placement::First };
                    follower.on_event(TableEvent::Changed(&route, placement));
                }
            }
            Move::NoRoute(number) => {
                if number < kernel.routes.len() {
                    let route = kernel.routes.remove(number);
                    if let Some(follower) = &mut follower {
                        follower.on_event(TableEvent::Gone(&route));
                    }
                }
            }
        }
    }

    /// Whose namespaces are gone is acted upon.
    pub(crate) fn look_at_namespaces(&mut self, faults: &Faults) -> Kept {
        let gone = self.world.ended.keys().cloned().collect();
        let event = Event::NamespacesGone { gone, now: Millis(self.now) };
        let outcome = self.react(event, faults)?;
        if matches!(outcome, Outcome::Died) {
            // Of each that was due anything may have become.
            self.world.ended.keys().for_each(|pod| self.ledger.forget_lease(pod));
            return self.recover(&Faults::none());
        }
        let leases = &self.plane()?.model().attachments;
        let freed: Vec<_> =
            self.world.ended.iter().filter(|(pod, _)| !leases.contains_key(*pod)).collect();
        for (pod, since) in freed {
            if self.ledger.is_promised(pod) && self.now < since + QUARANTINE {
                return Err(format!("what {pod:?} held is free before it may be"));
            }
            self.ledger.is_freed(pod);
        }
        self.check().and_then(|()| self.on_time(&Faults::none()))
    }

    /// What the kernel has is acted upon.
    fn look(&mut self, faults: &Faults) -> Kept {
        let (kernel, now) = (&mut self.world.kernel, Millis(self.now));
        let Some(plane) = &mut self.plane else { return Err("no daemon runs".into()) };
        if let Some(follower) = plane.follower() {
            daemon::read_kernel_table(kernel, follower, now);
        }
        let own = daemon::own_addresses(kernel, plane);
        let next_hops = match plane.uplink() {
            None => None,
            Some(_) => {
                let (next_hops, is_different) = kernel.look_up(&plane.underlay_ends());
                is_different.then_some(next_hops)
            }
        };
        let is_announced = std::mem::take(&mut kernel.nic.is_announced);
        let link = is_announced.then(|| kernel.nic.link.clone());
        self.follow(Event::KernelChanged { link, own, next_hops }, faults)
    }

    /// Once a second: a worker may have caught up.
    pub(crate) fn on_time(&mut self, faults: &Faults) -> Kept {
        if !self.world.workers.all_follow() {
            return Ok(());
        }
        self.world.story.borrow_mut().detail(|| "every worker follows".into());
        match self.react(Event::WorkersCaughtUp, faults)? {
            Outcome::Died => self.recover(&Faults::none()),
            Outcome::Refused(refusal) => Err(fact_refused(&refusal)),
            // A list that broke off once more goes on a second later.
            Outcome::Done(_) if !faults.are_none() => {
                self.check().and_then(|()| self.on_time(&Faults::none()))
            }
            Outcome::Done(_) => self.check().and_then(|()| self.check_rest()),
        }
    }

    /// A fact: the control plane takes it in any case.
    fn follow(&mut self, event: Event, faults: &Faults) -> Kept {
        match self.react(event, faults)? {
            Outcome::Died => self.recover(&Faults::none()),
            Outcome::Refused(refusal) => Err(fact_refused(&refusal)),
            Outcome::Done(_) => self.check().and_then(|()| self.on_time(&Faults::none())),
        }
    }

    /// The rules that hold after every event.
    pub(crate) fn check(&self) -> Kept {
        let (world, plane) = (&self.world, self.plane()?);
        invariants::what_was_answered_is_in_the_model(&self.ledger, plane)?;
        invariants::no_two_attachments_hold_an_address(plane)?;
        invariants::the_nodes_addresses_are_recorded(plane)?;
        if self.journal_is_behind {
            return Ok(());
        }
        invariants::the_journal_makes_the_model(world, plane)
    }

    /// No worker has stopped, and nothing that was refused is still to be done.
    pub(crate) fn is_at_rest(&self) -> bool {
        let workers = &self.world.workers;
        !self.is_behind && workers.all_follow() && workers.are_idle()
    }

    /// The rules that hold on a node at rest.
    fn check_rest(&mut self) -> Kept {
        // Compiling from nothing is most of a run's time.
        if !self.is_at_rest() || !std::mem::take(&mut self.is_unchecked) {
            return Ok(());
        }
        let (world, plane) = (&self.world, self.plane()?);
        invariants::tables_are_those_of_a_compilation_from_nothing(world, plane)?;
        invariants::workers_have_the_ports_that_tables_name(world, plane)?;
        invariants::every_port_is_a_pods_that_is_there(world, plane)?;
        invariants::the_kernel_has_what_it_is_to_have(world, plane)?;
        invariants::pods_have_the_policies_that_were_committed(world, plane)?;
        invariants::somebody_was_called_for_pods_of_another_mtu(world, plane)
    }
}

fn fact_refused(refusal: &ErrorReply) -> String {
    format!("a fact is refused: {refusal}")
}
