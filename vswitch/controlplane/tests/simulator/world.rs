//! The node that a control plane acts upon: a model of disk, kernel and workers, of which each action
//! can go wrong.
//!
//! Enters: actions, as calls of [`Performer`], and the faults of the event that they belong to. Leaves:
//! what disk, kernel and workers have then; what was answered; the first rule that was broken. Rules
//! that hold at every moment are checked here, after every action.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;

use api::{AttachmentId, ErrorKind, Reply};
use controlplane::change::{Performed, Performer};
use controlplane::desired::{HostPortState, NftTable, Steering, Translation};
use controlplane::model::{Edit, refuse};
use controlplane::next_hop::{NextHops, Reach};
use dataplane::tables::{PortId, Tables};

use crate::broken::Broken;
use crate::disk::Disk;
use crate::faults::{Fault, Faults};
use crate::invariants;
use crate::kernel::{Extent, Kernel};
use crate::story::Story;
use crate::workers::Workers;

/// Workers of the node.
pub(crate) const WORKERS: usize = 2;

/// What an event does to the node, as far as it is known: for the rules that hold meanwhile.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// What goes wrong.
    pub(crate) faults: Faults,
    /// What was to be taken from the NIC before the event, and what is to be taken after it.
    pub(crate) steering: (Steering, Steering),
    /// The kernel had then what it was to have.
    pub(crate) is_settled: bool,
    /// Actions that were refused, in order.
    pub(crate) refused: Vec<&'static str>,
    /// What the client was told.
    pub(crate) answer: Option<Reply>,
    /// The journal has taken a line.
    pub(crate) has_journalled: bool,
    /// Whose ports come with the event, in the order in which they are taken.
    pub(crate) arriving: VecDeque<AttachmentId>,
    pub(crate) calls: usize,
}

/// Disk, kernel and workers.
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) kernel: Kernel,
    pub(crate) workers: Workers,
    /// Pods' ports that the service manager keeps.
    pub(crate) store: BTreeSet<AttachmentId>,
    /// Whose the ports are that the process has.
    owners: BTreeMap<PortId, AttachmentId>,
    /// Pods whose namespace has ended, and since when.
    pub(crate) ended: BTreeMap<AttachmentId, u64>,
    /// How often the machine was started.
    pub(crate) boots: usize,
    /// How often the process was started.
    starts: u32,
    /// The process is there.
    pub(crate) is_alive: bool,
    pub(crate) course: Course,
    /// The MTU that the pods' interfaces were called to have.
    pub(crate) adjuster_mtu: Option<u32>,
    /// The first rule that was broken.
    pub(crate) broken_rule: Option<String>,
    /// How this node's performer is wrong, for a test of the rules.
    pub(crate) broken: Option<Broken>,
    pub(crate) story: Rc<RefCell<Story>>,
}

impl World {
    pub(crate) fn new(broken: Option<Broken>, story: Rc<RefCell<Story>>) -> Self {
        Self {
            disk: Disk::default(),
            kernel: Kernel::new(),
            workers: Workers::spawned(WORKERS, false),
            store: BTreeSet::new(),
            owners: BTreeMap::new(),
            ended: BTreeMap::new(),
            starts: 0,
            boots: 1,
            is_alive: false,
            course: Course::default(),
            adjuster_mtu: None,
            broken_rule: None,
            broken,
            story,
        }
    }

    /// The process ends: what it holds goes with it.
    pub(crate) fn process_dies(&mut self) {
        self.is_alive = false;
        self.kernel.process_is_gone();
        self.workers = Workers::spawned(WORKERS, false);
        self.owners.clear();
        self.adjuster_mtu = None;
    }

    /// A number that no former process had.
    pub(crate) fn policy_generation(&mut self) -> u32 {
        self.starts += 1;
        self.starts << 16
    }

    /// Everything ends but the disk.
    pub(crate) fn machine_starts(&mut self) {
        self.kernel.process_has_cleared_up();
        self.store.clear();
        self.ended.clear();
        self.boots += 1;
    }

    /// A worker that stopped gets on.
    pub(crate) fn resume(&mut self, worker: usize) {
        self.workers.resume(worker);
        self.check(invariants::no_worker_has_tables_that_name_a_port_that_it_lacks);
        self.workers.go_on();
        self.check(invariants::no_worker_has_tables_that_name_a_port_that_it_lacks);
    }

    fn is_broken(&self, broken: Broken) -> bool {
        self.broken == Some(broken)
    }

    fn check(&mut self, rule: impl Fn(&Self) -> Result<(), String>) {
        if self.broken_rule.is_none() {
            self.broken_rule = rule(self).err();
        }
    }

    /// Does an action, or what a fault leaves of it.
    fn act(
        &mut self,
        name: &'static str,
        what: impl FnOnce() -> String,
        act: impl FnOnce(&mut Self, Extent) -> Performed,
    ) -> Performed {
        // What a dead process wants has no effect.
        if !self.is_alive {
            return Ok(());
        }
        let cannot_fail = matches!(name, "look up" | "forget" | "remove ports" | "answer");
        let is_refusal = |fault: &Fault| matches!(fault, Fault::Refused | Fault::HalfRefused);
        let fault = self.course.faults.of(self.course.calls);
        let fault = fault.filter(|fault| !(cannot_fail && is_refusal(fault)));
        self.course.calls += 1;
        self.story.borrow_mut().detail(|| match fault {
            None => what(),
            Some(fault) => format!("{}: {}", what(), fault.to_string().to_uppercase()),
        });
        let performed = match fault {
            None => act(self, Extent::Whole),
            // Tables are there for the workers before one of them can be late.
            Some(Fault::Refused | Fault::HalfRefused) if name == "publish" => {
                let _ = act(self, Extent::Whole);
                Err(refuse(ErrorKind::NotReady, "a worker takes them a little too late"))
            }
            // What is done as a whole or not at all has no half.
            Some(Fault::HalfRefused) if name == "host port" => {
                let _ = act(self, Extent::Half);
                Err(refuse(ErrorKind::Internal, "half of it is refused"))
            }
            Some(Fault::Refused | Fault::HalfRefused) => {
                Err(refuse(ErrorKind::Internal, "it is refused"))
            }
            Some(Fault::WorkerStops(worker)) => {
                self.workers.stop(worker);
                act(self, Extent::Whole)
            }
            Some(Fault::WorkerStopsInTurn(worker)) => {
                let stops = self.workers.stop_in_turn(worker);
                let performed = act(self, Extent::Whole);
                if stops {
                    self.workers.take_tables(worker);
                }
                performed
            }
            Some(Fault::DiesBefore) => {
                self.is_alive = false;
                Ok(())
            }
            Some(Fault::DiesIn) => {
                let _ = act(self, Extent::Half);
                self.is_alive = false;
                Ok(())
            }
            Some(Fault::DiesAfter) => {
                let _ = act(self, Extent::Whole);
                self.is_alive = false;
                Ok(())
            }
        };
        if let Err(refusal) = &performed {
            self.course.refused.push(name);
            self.story.borrow_mut().detail(|| format!("  fails: {}", refusal.message));
        }
        if self.is_alive {
            self.check(invariants::no_worker_has_tables_that_name_a_port_that_it_lacks);
            self.check(invariants::what_stays_taken_from_the_nic_is_accepted);
        }
        performed
    }

    /// As `act`, for what cannot be refused.
    fn do_so(
        &mut self,
        name: &'static str,
        what: impl FnOnce() -> String,
        act: impl FnOnce(&mut Self),
    ) {
        let _ = self.act(name, what, |world, _| {
            act(world);
            Ok(())
        });
    }
}

impl Performer for World {
    fn journal(&mut self, edits: &[Edit]) -> Performed {
        let what = || format!("journal {}", Edits(edits));
        if self.is_broken(Broken::JournalsNothing) {
            return self.act("journal", what, |_, _| Ok(()));
        }
        self.act("journal", what, |world, extent| {
            if world.disk.is_lost {
                return Err(refuse(ErrorKind::NotReady, "the journal has to be written anew"));
            }
            match extent {
                Extent::Half => world.disk.append_half(edits),
                Extent::Whole => world.disk.append(edits),
            }
            world.course.has_journalled = true;
            Ok(())
        })
    }

    fn set_nft_table(&mut self, table: Option<&NftTable>) -> Performed {
        let what = || match table {
            Some(_) => "set the nftables table".into(),
            None => "remove the nftables table".into(),
        };
        let is_broken = self.is_broken(Broken::SetsNoNftTable);
        self.act("nftables table", what, |world, _| {
            if !is_broken {
                world.kernel.nft_table = table.cloned();
            }
            Ok(())
        })
    }

    fn set_host_port(&mut self, state: &HostPortState) -> Performed {
        let what = || {
            let addresses: Vec<_> = state.addresses.iter().map(ToString::to_string).collect();
            format!("set the host port: MTU {}, {}", state.mtu, addresses.join(" "))
        };
        self.act("host port", what, |world, extent| {
            let settled = world.kernel.settle(state, extent);
            settled.map_err(|why| refuse(ErrorKind::Internal, why))
        })
    }

    fn take_port(&mut self, id: PortId, workers: &[usize]) -> Performed {
        let what = || format!("give {id} to the workers, to receive: {workers:?}");
        // Also where it is refused: the next one is another's.
        let arriving = self.course.arriving.pop_front();
        self.act("take port", what, |world, _| {
            let Some(attachment) = arriving else {
                return Err(refuse(ErrorKind::Internal, "no port came with the request"));
            };
            let readers: BTreeSet<_> = workers.iter().filter(|at| **at < WORKERS).collect();
            assert_eq!(readers.len(), workers.len(), "each queue has a worker of its own");
            world.workers.add(id);
            world.store.insert(attachment.clone());
            world.owners.insert(id, attachment);
            Ok(())
        })
    }

    fn look_up_next_hops(&mut self, ends: &BTreeMap<IpAddr, Reach>) -> NextHops {
        let mut found = NextHops::default();
        self.do_so(
            "look up",
            || "look up next hops".into(),
            |world| (found, _) = world.kernel.look_up(ends),
        );
        found
    }

    fn accept_tunnels(&mut self, fresh: Tables) -> Performed {
        let mut tables = Tables::clone(&self.workers.current);
        (tables.epoch, tables.tunnels) = (fresh.epoch, fresh.tunnels);
        self.publish_as("accept new tunnels", tables)
    }

    fn steer(&mut self, steering: &Steering) -> Performed {
        let what = || format!("steer the NIC: {}", invariants::kinds_in_words(steering));
        self.act("steer", what, |world, _| {
            let former = world.kernel.steering.replace(steering.clone()).unwrap_or_default();
            world.check(|world| {
                invariants::what_is_newly_taken_from_the_nic_is_accepted(world, &former)
            });
            Ok(())
        })
    }

    fn publish(&mut self, tables: Tables) -> Performed {
        self.publish_as("publish", tables)
    }

    fn forget_learned(&mut self) {
        self.do_so("forget", || "forget what was learned".to_owned(), |_| ());
    }

    fn remove_ports(&mut self, ids: &[PortId]) {
        let what = || {
            let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
            format!("remove {} from the workers", ids.join(", "))
        };
        if self.is_broken(Broken::RemovesNoPorts) {
            return self.do_so("remove ports", what, |_| ());
        }
        self.do_so("remove ports", what, |world| {
            for id in ids {
                world.workers.remove(*id);
                if let Some(attachment) = world.owners.remove(id) {
                    world.store.remove(&attachment);
                }
            }
        });
    }

    fn forget_flows(&mut self, begun: &[Translation], ended: &[Translation]) -> Performed {
        let what = || {
            let words = |list: &[Translation]| {
                list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            };
            format!("forget flows: begun {}; ended {}", words(begun), words(ended))
        };
        self.act("forget flows", what, |world, _| {
            world.check(|world| invariants::flows_are_forgotten_by_the_table(world, begun, ended));
            Ok(())
        })
    }

    fn call_adjuster(&mut self, mtu: u32) -> Performed {
        let what = || format!("call the adjuster for MTU {mtu}");
        self.act("adjuster", what, |world, _| {
            world.adjuster_mtu = Some(mtu);
            Ok(())
        })
    }

    fn answer(&mut self, reply: &Reply) {
        self.do_so(
            "answer",
            || format!("answer {reply:?}"),
            |world| world.course.answer = Some(reply.clone()),
        );
    }
}

impl World {
    fn publish_as(&mut self, what: &'static str, mut tables: Tables) -> Performed {
        let epoch = tables.epoch;
        if self.is_broken(Broken::PublishesFormerPolicies) {
            tables.policies = self.workers.current.policies.clone();
        }
        self.act(
            "publish",
            || format!("{what}, epoch {}", epoch.0),
            |world, _| {
                if epoch <= world.workers.current.epoch {
                    let last = world.workers.current.epoch;
                    world.broken_rule.get_or_insert(format!(
                        "each publication is one more: {epoch:?} after {last:?}"
                    ));
                }
                if world.workers.publish(tables) {
                    return Ok(());
                }
                Err(refuse(ErrorKind::NotReady, "a worker does not take new tables"))
            },
        )
    }
}

/// Edits in few words.
struct Edits<'a>(&'a [Edit]);

impl std::fmt::Display for Edits<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, edit) in self.0.iter().enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            let line = serde_json::to_string(edit).map_err(|_| std::fmt::Error)?;
            write!(f, "{separator}{line}")?;
        }
        Ok(())
    }
}
