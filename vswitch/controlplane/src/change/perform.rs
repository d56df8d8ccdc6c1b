//! Carries a list of actions out.
//!
//! Enters: a [`Change`], from `ControlPlane::on`. Leaves: calls of a [`Performer`], one an action, in
//! order; and the control plane as the list has left the node. Nothing else changes what is in force.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{ErrorReply, Reply};
use dataplane::tables::{PortId, Tables};

use super::{Action, Change, Note, OnFailure};
use crate::desired::{HostPortState, NftTable, Steering, Translation};
use crate::model::Edit;
use crate::next_hop::{NextHops, Reach};
use crate::plane::ControlPlane;

/// Done, or why not.
pub type Performed = Result<(), ErrorReply>;

/// What a node can be made to do. Each call is one action; a call that fails has done nothing, or
/// what the action's reversal takes back.
pub trait Performer {
    /// Adds edits to the journal, as one transaction. They outlive the process when it returns; an
    /// answer is held back until they outlive the machine.
    ///
    /// # Errors
    /// If they do not; the journal is as before then.
    fn journal(&mut self, edits: &[Edit]) -> Performed;

    /// Puts the nftables table in place of the one that is there, or removes ours. It may be on its way only when this
    /// returns: what fails then is told to [`ControlPlane::nft_table_is`].
    ///
    /// # Errors
    /// If the kernel refuses, or the table is somebody else's.
    fn set_nft_table(&mut self, table: Option<&NftTable>) -> Performed;

    /// Gives the host port what it is to have, compared with what the kernel has.
    ///
    /// # Errors
    /// If the kernel refuses a part of it; the others are done.
    fn set_host_port(&mut self, state: &HostPortState) -> Performed;

    /// Gives every worker the port that came with the request; each of `workers` receives from a queue of it.
    ///
    /// # Errors
    /// If no port came.
    fn take_port(&mut self, id: PortId, workers: &[usize]) -> Performed;

    /// The kernel's ways to these addresses, as far as it knows them now.
    fn look_up_next_hops(&mut self, ends: &BTreeMap<IpAddr, Reach>) -> NextHops;

    /// Publishes the tables that are in force with other tunnels and this epoch.
    ///
    /// # Errors
    /// If a worker does not take them in time.
    fn accept_tunnels(&mut self, fresh: Tables) -> Performed;

    /// Takes these packets from the NIC, and no others.
    ///
    /// # Errors
    /// If the kernel refuses; what was taken before is taken still.
    fn steer(&mut self, steering: &Steering) -> Performed;

    /// Publishes tables; every worker uses them when it returns.
    ///
    /// # Errors
    /// If a worker does not take them in time; the others use them.
    fn publish(&mut self, tables: Tables) -> Performed;

    /// Has every worker forget the MACs that it learned.
    fn forget_learned(&mut self);

    /// Takes ports from every worker. No published tables name them.
    fn remove_ports(&mut self, ids: &[PortId]);

    /// Deletes flows that the kernel tracks: datagrams to a port of the node that has begun to lead to a
    /// pod, and everything that was translated to a pod which a port has ceased to lead to.
    ///
    /// # Errors
    /// If the kernel refuses; such flows stay until they have been silent for a while.
    fn forget_flows(&mut self, begun: &[Translation], ended: &[Translation]) -> Performed;

    /// Has the pods' interfaces given another MTU.
    ///
    /// # Errors
    /// If nobody can be called.
    fn call_adjuster(&mut self, mtu: u32) -> Performed;

    /// Answers the client.
    fn answer(&mut self, reply: &Reply);
}

impl ControlPlane {
    /// Carries a change out. What fails of a request is reversed, and the control plane is as it was
    /// before; what fails of a fact is among the notes, and what comes after it is done all the same.
    ///
    /// # Errors
    /// Why a request was not carried out.
    pub fn carry_out(
        &mut self,
        change: Change,
        performer: &mut impl Performer,
    ) -> Result<Vec<Note>, ErrorReply> {
        let Change { actions, mut notes, failure } = change;
        let mut is_published = false;
        for (at, action) in actions.iter().enumerate() {
            let Err(refusal) = self.perform(action, performer) else {
                is_published |= *action == Action::Publish;
                continue;
            };
            match &failure {
                // Everything that the answer reports is so already.
                OnFailure::Reverse(_) if is_published || action.is_clearing_up() => {
                    notes.push(Note::error(format!("cannot {action}: {}", refusal.message)));
                }
                OnFailure::Reverse(_) if action.may_be_owed() => {
                    notes.push(Note::error(format!("cannot {action} yet: {}", refusal.message)));
                    self.owe(action);
                }
                OnFailure::Reverse(_) => {
                    let OnFailure::Reverse(rollback) = failure else { break };
                    self.go_back(rollback);
                    let done = if action.may_be_half_done() { at + 1 } else { at };
                    let failed = self.reverse(actions.get(..done).unwrap_or_default(), performer);
                    return Err(told_of(refusal, &failed));
                }
                OnFailure::GoOn => {
                    notes.push(Note::error(format!("cannot {action}: {}", refusal.message)));
                    self.owe(action);
                    // No table may name it.
                    if let Action::TakePort { id, .. } = action {
                        self.ports.was_not_taken(*id);
                    }
                    if action.is_relied_upon() {
                        self.broke_off();
                        break;
                    }
                }
            }
        }
        Ok(notes)
    }

    /// Edits that the journal has refused, and that the model has, are written before its next line.
    fn owe(&mut self, action: &Action) {
        if let Action::Journal { edits, .. } = action {
            self.unwritten.extend(edits.iter().cloned());
        }
    }

    /// Takes back what was done, last first; what cannot be.
    fn reverse(&mut self, done: &[Action], performer: &mut impl Performer) -> Vec<String> {
        // Tables that are published on the way name the MTU that the host port has at its end.
        let host_port = done.iter().find_map(|action| match action {
            Action::SetHostPort { from, .. } => Some(from.mtu),
            _ => None,
        });
        if let (Some(host), Some(mtu)) = (&mut self.host, host_port) {
            host.port.mtu = mtu;
        }
        let mut failed = Vec::new();
        let (mut is_published, mut do_all_follow) = (false, true);
        for reversal in done.iter().rev().filter_map(Action::reversal) {
            match &reversal {
                // Once: the tables are those of before already.
                Action::Publish if std::mem::replace(&mut is_published, true) => continue,
                // A worker that does not follow may still have tables that name them.
                Action::RemovePorts(ids) if !do_all_follow || self.ports.are_leaving(ids) => {
                    self.ports.leave(ids);
                    continue;
                }
                _ => {}
            }
            let Err(refusal) = self.perform(&reversal, performer) else { continue };
            failed.push(format!("cannot {reversal}: {}", refusal.message));
            match reversal {
                Action::Publish => do_all_follow = false,
                Action::Journal { edits, .. } => self.unwritten.extend(edits),
                _ => {}
            }
        }
        failed
    }

    /// Performs one action, and notes what it has brought about.
    fn perform(&mut self, action: &Action, performer: &mut impl Performer) -> Performed {
        match action {
            Action::Journal { edits, .. } => {
                let last = self.model.policies.seal(&self.unwritten, edits);
                if self.unwritten.is_empty() && last.is_none() {
                    performer.journal(edits)?;
                } else {
                    let all = self.unwritten.iter().chain(edits).chain(&last);
                    performer.journal(&all.cloned().collect::<Vec<_>>())?;
                    self.unwritten.clear();
                }
            }
            Action::SetNftTable { to, .. } => {
                performer.set_nft_table(to.as_ref())?;
                self.in_force.nft_table.clone_from(to);
            }
            Action::SetHostPort { to, .. } => {
                self.in_force.is_host_port_known = false;
                performer.set_host_port(to)?;
                self.host_port_is(to);
            }
            Action::TakePort { id, workers } => performer.take_port(*id, workers)?,
            Action::LookUpNextHops => {
                let ends = self.underlay_ends();
                self.next_hops = performer.look_up_next_hops(&ends);
            }
            Action::AcceptTunnels => {
                let tables = self.compile();
                performer.accept_tunnels(tables)?;
            }
            Action::Steer { to, .. } => {
                performer.steer(to)?;
                self.in_force.steering.clone_from(to);
            }
            Action::ForgetVteps => {
                let tables = self.compile_without_vteps();
                // A worker that does not follow is reported at the next publication, and sees these
                // tables before it forgets.
                let published = performer.publish(tables);
                performer.forget_learned();
                published?;
            }
            Action::Publish => {
                let tables = self.compile();
                performer.publish(tables)?;
                self.is_broken_off = false;
            }
            Action::RemovePorts(ids) => {
                performer.remove_ports(ids);
                self.ports.have_left(ids);
            }
            Action::ForgetFlows { begun, ended } => performer.forget_flows(begun, ended)?,
            // A call that failed is made again with the next list.
            Action::CallAdjuster { mtu } => {
                performer.call_adjuster(*mtu).inspect_err(|_| self.mtu_notes.clear())?;
            }
            Action::Answer(reply) => performer.answer(reply),
        }
        Ok(())
    }
}

/// The refusal, with what could not be taken back: it stays until the next comparison with the
/// kernel, or, in the journal, until its next line.
fn told_of(mut refusal: ErrorReply, failed: &[String]) -> ErrorReply {
    for failed in failed {
        refusal.message.push_str("; besides, ");
        refusal.message.push_str(failed);
    }
    refusal
}
