//! What the daemon does to its node: each action of a change's list is a call of [`Node`].
//!
//! Enters: actions, from the control plane's lists. Leaves: lines of the journal, the kernel's state,
//! tables and ports to the workers, an answer. Nothing is decided here.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::{ErrorKind, ErrorReply, Reply};
use controlplane::change::{Performed, Performer};
use controlplane::desired::{HostPortState, NftTable, Steering};
use controlplane::model::{Edit, refuse};
use controlplane::next_hop::{NextHops, Reach};
use dataplane::tables::{PortId, Tables};
use ipnet::IpNet;
use netio::port::PortFd;
use netlink::Netlink;
use worker::Workers;
use worker::publish::Publisher;

use crate::error::chain;
use crate::host::HostInterface;
use crate::journal::Journal;
use crate::nft_rules::NftRules;
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
    /// The NIC, if there is one.
    pub uplink: Option<OpenUplink>,
    /// The kernel's ways to the other nodes, if there is a NIC.
    pub underlay: Option<Underlay>,
    /// The node's own port, if there is one.
    pub host: Option<HostInterface>,
    /// The nftables table.
    pub nft: NftRules,
    /// The kernel, for the host port.
    pub netlink: Netlink,
    /// Everything that is a pod of the cluster: addresses of the host port that are ours.
    pub cluster: Vec<IpNet>,
    /// A file that, by being written, calls the program that may enter pods' namespaces.
    pub adjuster_file: PathBuf,
    /// The port that came with the request.
    pub arriving: Option<Arc<PortFd>>,
    /// The answer to the request.
    pub answer: Option<Reply>,
}

impl Performer for Node {
    fn journal(&mut self, edits: &[Edit]) -> Performed {
        self.journal.append(edits).map_err(|error| internal(&chain(&error)))
    }

    fn set_nft_table(&mut self, table: Option<&NftTable>) -> Performed {
        self.nft.set(table).map_err(|error| internal(&chain(&error)))
    }

    fn set_host_port(&mut self, state: &HostPortState) -> Performed {
        let Some(host) = &self.host else { return Ok(()) };
        host.settle(&mut self.netlink, state, &self.cluster).map(drop).map_err(|error| {
            internal(&format!("the node's kernel does not take it: {}", chain(&error)))
        })
    }

    fn take_port(&mut self, id: PortId, worker: usize) -> Performed {
        let io = self.arriving.take().ok_or_else(|| internal("no port came with the request"))?;
        self.workers.add_port(id, &io, worker);
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
        if self.publisher.publish(tables, &self.workers) {
            return Ok(());
        }
        Err(refuse(
            ErrorKind::NotReady,
            "a worker does not take new tables; its core may be taken by another process",
        ))
    }

    fn forget_learned(&mut self, id: PortId) {
        self.workers.forget_learned(id);
    }

    fn remove_ports(&mut self, ids: &[PortId]) {
        ids.iter().for_each(|id| self.workers.remove_port(*id));
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

fn internal(message: &str) -> ErrorReply {
    refuse(ErrorKind::Internal, message)
}
