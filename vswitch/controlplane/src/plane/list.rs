//! The order of a change's actions: make before break.
//!
//! Enters: a control plane whose model has changed, and what is in force. Leaves: the actions that
//! lead from one to the other; the reason for each place is in `change`.

use api::Reply;

use super::{ControlPlane, fresh_warnings};
use crate::change::{Action, Change, Note, OnFailure, Rollback};
use crate::desired::NftTable;
use crate::desired::translation::{self, Translations};
use crate::mtu;
use crate::next_hop::NextHops;

/// What stands in a list before and behind that which follows from the model.
#[derive(Debug, Default)]
pub(super) struct Frame {
    /// Journal, and the ports that are handed over.
    pub(super) first: Vec<Action>,
    /// VTEPs have other numbers now.
    pub(super) forgets_vteps: bool,
    /// The answer, if there is a client.
    pub(super) answer: Option<Reply>,
}

impl ControlPlane {
    /// What a request comes to; it goes back if an action fails.
    pub(super) fn request(&mut self, frame: Frame, rollback: Rollback, notes: Vec<Note>) -> Change {
        let rollback = Rollback {
            mtu_notes: Some(self.mtu_notes.clone()),
            next_hops: Some(NextHops::clone(&self.next_hops)),
            ..rollback
        };
        let (actions, more) = self.list(frame);
        let notes = notes.into_iter().chain(more).collect();
        Change { actions, notes, failure: OnFailure::Reverse(rollback) }
    }

    /// What a fact comes to; it stays one whatever fails.
    pub(super) fn fact(&mut self, mut frame: Frame, notes: Vec<Note>) -> Change {
        if frame.first.is_empty() && !self.unwritten.is_empty() {
            frame.first.push(Action::Journal { edits: Vec::new(), undo: Vec::new() });
        }
        let (actions, more) = self.list(frame);
        let notes = notes.into_iter().chain(more).collect();
        Change { actions, notes, failure: OnFailure::GoOn }
    }

    /// The whole list.
    fn list(&mut self, frame: Frame) -> (Vec<Action>, Vec<Note>) {
        let Frame { first, forgets_vteps, answer } = frame;
        // A journal's line comes first; ports are taken after the kernel knows where pods are.
        let (ports, mut actions): (Vec<_>, Vec<_>) =
            first.into_iter().partition(|action| matches!(action, Action::TakePort { .. }));

        let nft_table = self.nft_table();
        let former_nft_table = self.in_force.nft_table.clone();
        let wide_nft_table = match (&nft_table, &former_nft_table) {
            (Some(table), Some(former)) => Some(table.widened(former)),
            _ => nft_table.clone(),
        };
        let forgotten = forgotten_flows(former_nft_table.as_ref(), nft_table.as_ref());
        if wide_nft_table != former_nft_table {
            let (to, from) = (wide_nft_table.clone(), former_nft_table);
            actions.push(Action::SetNftTable { to, from });
        }
        let host_port = self.host_port_state();
        let wide_host_port = self.in_force.host_port.widened(&host_port);
        // What the kernel has left undone is no reason to refuse a client.
        let is_overdue =
            answer.is_none() && self.host.is_some() && !self.in_force.is_host_port_known;
        if wide_host_port != self.in_force.host_port || is_overdue {
            let from = self.in_force.host_port.clone();
            actions.push(Action::SetHostPort { to: wide_host_port.clone(), from });
        }
        actions.extend(ports);
        let steering = self.steering();
        let wide_steering = self.in_force.steering.union(&steering);
        if self.uplink.is_some() {
            actions.push(Action::LookUpNextHops);
            if !wide_steering.is_same_kind(&self.in_force.steering) {
                actions.push(Action::AcceptTunnels);
            }
        }
        if wide_steering != self.in_force.steering {
            let from = self.in_force.steering.clone();
            actions.push(Action::Steer { to: wide_steering.clone(), from });
        }
        if forgets_vteps {
            actions.push(Action::ForgetVteps);
        }
        actions.push(Action::Publish);
        if !self.ports.leaving().is_empty() {
            actions.push(Action::RemovePorts(self.ports.leaving().to_vec()));
        }
        if steering != wide_steering {
            actions.push(Action::Steer { to: steering, from: wide_steering });
        }
        if host_port != wide_host_port {
            actions.push(Action::SetHostPort { to: host_port, from: wide_host_port });
        }
        if nft_table != wide_nft_table {
            actions.push(Action::SetNftTable { to: nft_table, from: wide_nft_table });
        }
        actions.extend(forgotten);
        let (notes, call) = self.note_mtu();
        actions.extend(call);
        actions.extend(answer.map(Action::Answer));
        (actions, notes)
    }

    /// Whether a list would change the nftables table.
    #[must_use]
    pub fn is_nft_table_due(&self) -> bool {
        self.nft_table() != self.in_force.nft_table
    }

    /// What is wrong with MTUs now, and the call of those who can mend it.
    fn note_mtu(&mut self) -> (Vec<Note>, Option<Action>) {
        let mut found = Vec::new();
        if let Some(uplink) = &self.uplink {
            let problem = mtu::problem(&self.config, &self.model, &uplink.name, uplink.port.mtu);
            found.extend(problem.map(|(_, message)| message));
        }
        let (mtu, waiting) = (self.pod_mtu(), self.adjustments().len());
        if waiting > 0 {
            found.push(format!(
                "{waiting} pod(s) have another MTU than {mtu}; `vswitch-cni --adjust` gives it to them"
            ));
        }
        let notes = fresh_warnings(&self.mtu_notes, &found);
        let call = (waiting > 0 && !notes.is_empty()).then_some(Action::CallAdjuster { mtu });
        self.mtu_notes = found;
        (notes, call)
    }
}

/// The action that has flows translated anew that the kernel tracks by another table than this.
fn forgotten_flows(former: Option<&NftTable>, table: Option<&NftTable>) -> Option<Action> {
    let none = Translations::new();
    let former = former.map_or(&none, NftTable::translations);
    let present = table.map_or(&none, NftTable::translations);
    let begun = translation::difference(present, former);
    let ended = translation::difference(former, present);
    let is_any = !begun.is_empty() || !ended.is_empty();
    is_any.then_some(Action::ForgetFlows { begun, ended })
}
