//! Pods that end without a word of their runtime, and pods that lost their interface.
//!
//! Enters: which pods' network namespaces are gone, as far as it can be seen; ports that lost their
//! device; what the program that enters namespaces has not found. Leaves: ports that are closed at once,
//! leases that are free after a while, and sentences for an operator. Runtimes lose DELs, so nothing here
//! waits for one.

use std::collections::BTreeSet;

use api::{AttachmentId, ErrorKind, ErrorReply, LostPod, Reattachment, Reply};
use dataplane::Millis;
use dataplane::tables::PortId;

use super::ControlPlane;
use super::facts::nothing;
use super::list::Frame;
use crate::change::{Action, Change, Note, OnFailure, Rollback};
use crate::model::{Edit, attachments, refuse};
use crate::ports;

/// From the end of a pod's namespace until its addresses are free for another: what still knows the pod by
/// them, such as a load balancer, has noticed by then.
const QUARANTINE: Millis = Millis(30_000);

/// Pods that a sentence names.
const NAMED: usize = 5;

/// What frees a pod's addresses and its port.
pub(super) struct Freed {
    pub(super) edits: Vec<Edit>,
    /// The edits that take them back.
    pub(super) undo: Vec<Edit>,
    /// Workers may have its port.
    pub(super) was_live: bool,
}

impl ControlPlane {
    /// The network namespaces of these pods are gone; those of all others are there, or cannot be seen.
    pub(super) fn namespaces_gone(&mut self, gone: &BTreeSet<AttachmentId>, now: Millis) -> Change {
        let known = &self.model.attachments;
        self.ended.retain(|pod, _| gone.contains(pod) && known.contains_key(pod));
        let mut notes = Vec::new();
        let mut is_changed = false;
        for pod in gone.iter().filter(|pod| known.contains_key(*pod)) {
            if self.ended.contains_key(pod) {
                continue;
            }
            self.ended.insert(pod.clone(), now);
            self.lost.remove(pod);
            if let Some(id) = self.ports.number_of(pod) {
                is_changed |= self.ports.mark_down(id).is_some();
            }
            notes.push(Note::warning(format!(
                "{} has ended without a DEL: its network namespace is gone; what it holds is free in {} s",
                attachments::name(pod),
                QUARANTINE.0 / 1000
            )));
        }
        let due = self.ended.iter().filter(|(_, since)| is_over(**since, now));
        let due: Vec<_> = due.map(|(pod, _)| pod.clone()).collect();
        let (mut edits, mut undo) = (Vec::new(), Vec::new());
        for pod in due {
            let Some(freed) = self.free(&pod) else { continue };
            // What was done last is taken back first.
            undo.splice(0..0, freed.undo);
            edits.extend(freed.edits);
            is_changed |= freed.was_live;
            notes.push(Note::info(format!(
                "{} is detached, as it has ended",
                attachments::name(&pod)
            )));
        }
        let is_freed = !edits.is_empty();
        if is_freed {
            self.retry_refused(&mut edits, &mut undo, &mut notes);
        }
        self.note_pods();
        let journal = is_freed.then_some(Action::Journal { edits, undo });
        if is_changed || is_freed {
            let first = journal.into_iter().collect();
            return self.fact(Frame { first, ..Frame::default() }, notes);
        }
        nothing(notes)
    }

    /// Frees what a pod holds, in the model; `None` if it holds nothing. Each by what the others have
    /// left: the last of a prefix gives that up.
    pub(super) fn free(&mut self, pod: &AttachmentId) -> Option<Freed> {
        self.ended.remove(pod);
        let edits = self.model.detach(pod);
        if edits.is_empty() {
            return None;
        }
        let undo = self.model.apply_all(&edits);
        Some(Freed { edits, undo, was_live: self.ports.forget(pod) })
    }

    /// Whether it is time to look whose namespaces are gone: something may be free since now.
    #[must_use]
    pub fn is_a_quarantine_over(&self, now: Millis) -> bool {
        self.ended.values().any(|since| is_over(*since, now))
    }

    /// Devices of these ports are gone, though their pods' namespaces are there: the pods lost them.
    pub(super) fn ports_gone(&mut self, ids: &[PortId]) -> Change {
        let mut notes = Vec::new();
        for id in ids.iter().filter(|id| **id != ports::HOST) {
            let Some(pod) = self.ports.mark_down(*id) else { continue };
            notes.push(Note::warning(format!(
                "{id}: the interface of {} is gone; its addresses stay leased until its DEL",
                attachments::name(&pod)
            )));
            self.lost.insert(pod);
        }
        self.note_pods();
        if notes.is_empty() { nothing(notes) } else { self.fact(Frame::default(), notes) }
    }

    /// The program that opens interfaces again has not found this one.
    pub(super) fn interface_not_found(&mut self, pod: &AttachmentId) -> Result<Change, ErrorReply> {
        let name = attachments::name(pod);
        if !self.model.attachments.contains_key(pod) {
            return Err(refuse(ErrorKind::Unknown, format!("nothing is reserved for {name}")));
        }
        let mut notes = Vec::new();
        if !self.ports.is_up(pod) && self.lost.insert(pod.clone()) {
            notes.push(Note::error(format!(
                "{name} has lost its interface, which is not in its network namespace: delete the pod, so that it is made anew"
            )));
        }
        self.note_pods();
        let actions = vec![Action::Answer(Reply::Done)];
        Ok(Change { actions, notes, failure: OnFailure::Reverse(Rollback::default()) })
    }

    /// Pods that were attached and have no port: their interface is to be opened again, in its
    /// namespace.
    #[must_use]
    pub fn reattachments(&self) -> Vec<Reattachment> {
        let leases = self.model.attachments.iter();
        leases
            .filter(|(pod, lease)| lease.attached && self.is_missing(pod))
            .map(|(pod, lease)| Reattachment {
                attachment: pod.clone(),
                netns: lease.netns.clone(),
                mac: lease.mac,
                bandwidth: lease.bandwidth,
                queues: self.readable(lease.queues),
            })
            .collect()
    }

    /// How many of so many queues workers can read: what is sent to a queue that nobody reads is lost.
    pub(super) fn readable(&self, queues: u8) -> u8 {
        u8::try_from(self.workers).unwrap_or(u8::MAX).min(queues).max(1)
    }

    fn is_missing(&self, pod: &AttachmentId) -> bool {
        !self.ports.is_up(pod) && !self.lost.contains(pod) && !self.ended.contains_key(pod)
    }

    /// Pods that have lost their interface.
    pub fn lost_pods(&self) -> impl Iterator<Item = LostPod> {
        self.lost.iter().map(|attachment| LostPod {
            attachment: attachment.clone(),
            pod: self.model.attachments.get(attachment).and_then(|lease| lease.pod.clone()),
        })
    }

    /// The sentence about them, if there are any.
    pub(super) fn lost_note(&self) -> Option<String> {
        let lost: Vec<_> = self.lost.iter().map(|pod| self.port_name(pod)).collect();
        note(&lost, "lost their interface: delete these pods, so that they are made anew")
    }

    /// What an operator should know of pods as they are.
    pub(super) fn note_pods(&mut self) {
        let leases = &self.model.attachments;
        self.lost.retain(|pod| leases.contains_key(pod) && !self.ports.is_up(pod));
        let ended: Vec<_> = self.ended.keys().map(|pod| self.port_name(pod)).collect();
        let missing = self.reattachments();
        let missing: Vec<_> = missing.iter().map(|pod| self.port_name(&pod.attachment)).collect();
        let missing = note(
            &missing,
            "have no port until `vswitch-cni --adjust` has opened their interface again",
        );
        let ended = note(&ended, "ended without a DEL; what they hold is free soon");
        let unserved = self.model.unserved_port_mappings(&self.config);
        let notes = [self.lost_note(), missing, ended, unserved];
        self.pod_notes = notes.into_iter().flatten().collect();
    }
}

/// A sentence about these pods, if there are any.
fn note(pods: &[String], what: &str) -> Option<String> {
    (!pods.is_empty()).then(|| format!("{} pod(s) {what}: {}", pods.len(), some(pods)))
}

fn is_over(since: Millis, now: Millis) -> bool {
    now.since(since) >= QUARANTINE.0
}

/// The first of them by name.
fn some(pods: &[String]) -> String {
    let named = pods.get(..NAMED).unwrap_or(pods).join(", ");
    if pods.len() > NAMED { format!("{named} and {} more", pods.len() - NAMED) } else { named }
}
