//! What the daemon does to its node: each action of a change's list is a call of [`Node`].
//!
//! Enters: actions, from the control plane's lists. Leaves: lines of the journal, the kernel's state,
//! tables and ports to the workers, an answer. Nothing is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::{ErrorKind, ErrorReply, Reply};
use controlplane::change::{Performed, Performer};
use controlplane::desired::{HostPortState, NftTable, Steering, Translation};
use controlplane::model::{Edit, refuse};
use controlplane::next_hop::{NextHops, Reach};
use dataplane::session::PortSessions;
use dataplane::tables::{PortId, Tables};
use ipnet::IpNet;
use netlink::Netlink;
use worker::publish::Publisher;
use worker::{SharedState, Workers};

use crate::descriptors::{DescriptorStore, PortFds};
use crate::error::chain;
use crate::flows;
use crate::host::{self, HostInterface};
use crate::journal::Journal;
use crate::namespaces::{Namespaces, Since};
use crate::requests::fault;
use crate::rules::{InKernel, Rules};
use crate::sysctl;
use crate::underlay::Underlay;
use crate::uplink::OpenUplink;

/// The node, as the daemon holds it.
pub struct Node {
    /// The model's changes on disk.
    pub journal: Journal,
    /// The tables that are in force.
    pub publisher: Publisher,
    /// The pinned threads.
    pub workers: Workers,
    /// What they share: the session table.
    pub shared: SharedState,
    /// The NIC, if there is one.
    pub uplink: Option<OpenUplink>,
    /// The kernel's ways to the other nodes, if there is a NIC.
    pub underlay: Option<Underlay>,
    /// The node's own port, if there is one.
    pub host: Option<HostInterface>,
    /// The nftables table.
    pub rules: Rules,
    /// Flows that are to be forgotten once the table of this number is in force.
    pub outdated: VecDeque<OutdatedFlows>,
    /// The kernel, for the host port.
    pub netlink: Netlink,
    /// Everything that is a pod of the cluster: addresses of the host port that are ours.
    pub cluster: Vec<IpNet>,
    /// A file that, by being written, calls the program that may enter pods' namespaces.
    pub adjuster_file: PathBuf,
    /// Ports that came with the event, in the order in which they are taken.
    pub arriving: VecDeque<Arriving>,
    /// What keeps descriptors while no daemon runs.
    pub store: DescriptorStore,
    /// The pods' ports.
    pub pods: BTreeMap<PortId, PodPort>,
    /// Pods' namespaces, watched for their end.
    pub namespaces: Namespaces,
    /// The answer to the request.
    pub answer: Option<Reply>,
}

/// A pod's port as the node has it.
#[derive(Debug)]
pub struct PodPort {
    /// The name under which the service manager keeps it.
    pub name: String,
    /// Its descriptors.
    pub fds: PortFds,
    /// Its pod has ended, as far as we see: the interface goes with the namespace, or stays with it if
    /// we are wrong.
    pub has_ended: bool,
}

/// Flows that the kernel tracks by a table that is to be replaced: forgotten before, they would be tracked by it again.
#[derive(Debug)]
pub struct OutdatedFlows {
    table: u64,
    begun: Vec<Translation>,
    ended: Vec<Translation>,
}

/// A pod's port on its way in.
#[derive(Debug)]
pub struct Arriving {
    /// The name under which the service manager is to keep it.
    pub name: String,
    /// Its descriptors.
    pub fds: PortFds,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// The service manager has it already.
    pub is_kept: bool,
}

impl Performer for Node {
    fn journal(&mut self, edits: &[Edit]) -> Performed {
        self.journal.append(edits).map_err(|error| refuse(ErrorKind::NotReady, chain(&error)))
    }

    fn set_nft_table(&mut self, table: Option<&NftTable>) -> Performed {
        self.rules.set(table);
        Ok(())
    }

    fn set_host_port(&mut self, state: &HostPortState) -> Performed {
        let Some(host) = &self.host else { return Ok(()) };
        let has_ipv6 = state.addresses.iter().any(IpAddr::is_ipv6);
        let off = || host::without_ipv6(&host.name).filter(|_| has_ipv6);
        if off().is_some() {
            // A port of ours needs it. Where settings are read-only the kernel refuses what follows.
            let _ = sysctl::set(&host::no_ipv6(&host.name), 0);
        }
        host.settle(&mut self.netlink, state, &self.cluster).map(drop).map_err(|error| {
            let why = off().unwrap_or_else(|| chain(&error));
            internal(&format!("the node's kernel does not take it: {why}"))
        })
    }

    fn take_port(&mut self, id: PortId, workers: &[usize]) -> Performed {
        let arriving = self.arriving.pop_front();
        let Arriving { name, fds, netns, is_kept } =
            arriving.ok_or_else(|| internal("no port came with the request"))?;
        // From now on the interface is the pod's, whatever becomes of this process. If it is gone
        // already, the workers tell.
        if let Err(error) = fds.port.set_persistent(true) {
            tracing::warn!("{name}: {}", chain(&error));
        }
        failpoint::pass("add-port-persistent");
        self.workers.add_queues(id, &fds.queues(), workers);
        failpoint::pass("add-port-given");
        if !is_kept {
            self.store.keep(&name, fds.clone());
        }
        failpoint::pass("add-port-kept");
        let since = if is_kept { Since::Before } else { Since::Now };
        self.namespaces.watch(id, &netns, &fds, since);
        self.pods.insert(id, PodPort { name, fds, has_ended: false });
        Ok(())
    }

    fn look_up_next_hops(&mut self, ends: &BTreeMap<IpAddr, Reach>) -> NextHops {
        let Some(underlay) = &mut self.underlay else { return NextHops::default() };
        underlay.refresh(ends);
        Arc::clone(underlay.next_hops())
    }

    fn accept_tunnels(&mut self, fresh: Tables) -> Performed {
        let mut tables = Tables::clone(&self.publisher.tables());
        (tables.epoch, tables.tunnels) = (fresh.epoch, fresh.tunnels);
        self.publish(tables)
    }

    fn steer(&mut self, steering: &Steering) -> Performed {
        let Some(uplink) = &mut self.uplink else { return Ok(()) };
        uplink.steer(steering).map_err(|error| {
            internal(&format!("the NIC cannot be told what to take: {}", chain(&error)))
        })
    }

    fn publish(&mut self, tables: Tables) -> Performed {
        failpoint::hit("change-publish").map_err(fault)?;
        if self.publisher.publish(tables, &self.workers) {
            failpoint::pass("change-published");
            return Ok(());
        }
        Err(refuse(
            ErrorKind::NotReady,
            "a worker does not take new tables; its core may be taken by another process",
        ))
    }

    fn forget_learned(&mut self) {
        self.workers.forget_learned();
    }

    fn remove_ports(&mut self, ids: &[PortId]) {
        for id in ids {
            self.workers.remove_port(*id);
            // Its number may be another pod's next.
            if self.shared.sessions.of_port(*id) != PortSessions::default() {
                self.shared.sessions.forget_port(*id);
            }
            failpoint::pass("del-port-removed");
            if let Some(pod) = self.pods.remove(id) {
                // The interface ends with its last descriptor, also where nobody can enter its
                // namespace to remove it; if it is gone, that is as good.
                if !pod.has_ended {
                    let _ = pod.fds.port.set_persistent(false);
                }
                failpoint::pass("del-port-ended");
                self.namespaces.forget(*id);
                self.store.forget_port(&pod.name, &pod.fds);
                failpoint::pass("del-port-forgotten");
            }
        }
    }

    fn forget_flows(&mut self, begun: &[Translation], ended: &[Translation]) -> Performed {
        let table = self.rules.ordered();
        if self.rules.is_in_kernel(table) == InKernel::NotYet {
            let (begun, ended) = (begun.to_vec(), ended.to_vec());
            self.outdated.push_back(OutdatedFlows { table, begun, ended });
            return Ok(());
        }
        self.forget_flows_now(begun, ended)
    }

    fn call_adjuster(&mut self, mtu: u32) -> Performed {
        let path = &self.adjuster_file;
        fs::write(path, format!("{mtu}\n"))
            .map_err(|error| internal(&format!("cannot write {}: {error}", path.display())))
    }

    fn answer(&mut self, reply: &Reply) {
        self.answer = Some(reply.clone());
    }
}

impl Node {
    /// Forgets what waited for a table that is in force now. Where one failed that was ordered last, its flows are
    /// as they should be, and the next change tells anew what is to be forgotten.
    ///
    /// # Errors
    /// As for `forget_flows`.
    pub fn forget_outdated_flows(&mut self) -> Performed {
        let mut outcome = Ok(());
        while let Some(first) = self.outdated.front() {
            let state = self.rules.is_in_kernel(first.table);
            if state == InKernel::NotYet {
                break;
            }
            let Some(flows) = self.outdated.pop_front() else { break };
            if state == InKernel::Yes {
                outcome = outcome.and(self.forget_flows_now(&flows.begun, &flows.ended));
            }
        }
        outcome
    }

    /// As `forget_flows`, whatever table is on its way.
    ///
    /// # Errors
    /// As for `forget_flows`.
    pub fn forget_flows_now(&mut self, begun: &[Translation], ended: &[Translation]) -> Performed {
        let forgotten = flows::forget(&mut self.netlink, begun, ended);
        let count = forgotten.map_err(|error| {
            internal(&format!("flows of hostPorts that changed stay tracked: {}", chain(&error)))
        })?;
        if count > 0 {
            tracing::debug!("{count} flow(s) of hostPorts that changed are tracked anew");
        }
        Ok(())
    }
}

fn internal(message: &str) -> ErrorReply {
    refuse(ErrorKind::Internal, message)
}
