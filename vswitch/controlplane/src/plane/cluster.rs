//! What the cluster tells: the other nodes, and this one's prefixes.
//!
//! What can be taken is taken in one change, with one line of the journal; what cannot is remembered,
//! counted, shown, and judged again when something goes that may have been in its way.

use std::collections::BTreeSet;

use api::{ErrorKind, ErrorReply, IPV6_MIN_MTU, PeerSync, RefusedPeer, Reply, Source};
use ipnet::IpNet;

use super::ControlPlane;
use super::list::Frame;
use crate::change::{Action, Change, Note, OnFailure, Rollback};
use crate::model::sync::{Admit, Synced};
use crate::model::{Edit, Model, Refused, refuse};
use crate::mtu;

/// Refusals of one request that are logged one by one; `show peers` has all.
const LOGGED: usize = 10;

impl ControlPlane {
    /// Takes what a source tells of the other nodes, as far as it can be.
    pub(super) fn sync_peers(&mut self, sync: PeerSync) -> Result<Change, ErrorReply> {
        let source = sync.source;
        let synced = self.with_admission(|model, admit| model.sync_peers(sync, admit))?;
        let mut notes = Vec::new();
        let (edits, undo, refused) = self.take_synced(source, synced, &mut notes);
        let answer = Reply::Synced(self.refused_of(source));
        let rollback = Rollback { undo: undo.clone(), refused, ..Rollback::default() };
        // What is known already costs neither a line of the journal nor new tables.
        if edits.is_empty() {
            let actions = vec![Action::Answer(answer)];
            return Ok(Change { actions, notes, failure: OnFailure::Reverse(rollback) });
        }
        let first = vec![Action::Journal { edits, undo }];
        let frame = Frame { first, answer: Some(answer), ..Frame::default() };
        Ok(self.request(frame, rollback, notes))
    }

    fn refused_of(&self, source: Source) -> Vec<RefusedPeer> {
        let refused = self.model.refused.iter().filter(|((of, _), _)| *of == source);
        let plain = refused.map(|((_, name), (_, reason))| RefusedPeer {
            name: name.clone(),
            reason: reason.clone(),
        });
        plain.collect()
    }

    /// Takes the prefixes that the cluster assigned to this node.
    pub(super) fn set_pod_prefixes(&mut self, prefixes: &[IpNet]) -> Result<Change, ErrorReply> {
        let mut edits = self.model.set_pod_prefixes(&self.config, prefixes)?;
        if edits.is_empty() {
            let actions = vec![Action::Answer(Reply::Done)];
            let failure = OnFailure::Reverse(Rollback::default());
            return Ok(Change { actions, notes: Vec::new(), failure });
        }
        let mtu = self.pod_mtu();
        if mtu < IPV6_MIN_MTU && prefixes.iter().any(|prefix| matches!(prefix, IpNet::V6(_))) {
            return Err(refuse(
                ErrorKind::Invalid,
                format!(
                    "pod prefixes: IPv6 needs packets of {IPV6_MIN_MTU} bytes, the pods' MTU is {mtu}; raise the uplink's"
                ),
            ));
        }
        let mut undo = self.model.apply_all(&edits);
        let mut notes = vec![Note::info(format!("pod prefixes set: {prefixes:?}"))];
        let refused = self.retry_refused(&mut edits, &mut undo, &mut notes);
        let rollback = Rollback { undo: undo.clone(), refused, ..Rollback::default() };
        let first = vec![Action::Journal { edits, undo }];
        let frame = Frame { first, answer: Some(Reply::Done), ..Frame::default() };
        Ok(self.request(frame, rollback, notes))
    }

    /// Judges what was refused again, after something was given up: what may be now joins the edits
    /// of the change that is under way. The refused peers of before, if that changed them.
    pub(super) fn retry_refused(
        &mut self,
        edits: &mut Vec<Edit>,
        undo: &mut Vec<Edit>,
        notes: &mut Vec<Note>,
    ) -> Option<Refused> {
        let sources: BTreeSet<Source> =
            self.model.refused.keys().map(|(source, _)| *source).collect();
        let mut before = None;
        for source in sources {
            let synced = self.with_admission(|model, admit| model.retry_refused(source, admit));
            let (more, more_undo, refused) = self.take_synced(source, synced, notes);
            edits.extend(more);
            // What was done last is taken back first.
            undo.splice(0..0, more_undo);
            before = before.or(refused);
        }
        before
    }

    /// Peers that the pods' MTU does not allow are refused, unless it is wrong without them.
    fn with_admission<T>(&self, judge: impl FnOnce(&Model, Admit<'_>) -> T) -> T {
        let uplink = self.uplink.as_ref().filter(|uplink| {
            mtu::problem(&self.config, &self.model, &uplink.name, uplink.port.mtu).is_none()
        });
        judge(&self.model, &|peer| {
            let uplink = uplink?;
            mtu::peer_mtu_problem(&self.config, &self.model, &uplink.name, uplink.port.mtu, peer)
        })
    }

    /// Edits the model by a judgement; the edits, those that take them back, and the refused peers of
    /// before.
    fn take_synced(
        &mut self,
        source: Source,
        synced: Synced,
        notes: &mut Vec<Note>,
    ) -> (Vec<Edit>, Vec<Edit>, Option<Refused>) {
        let Synced { edits, refused } = synced;
        let undo = self.model.apply_all(&edits);
        if !edits.is_empty() {
            let (label, count) = (source.label(), edits.len());
            notes.push(Note::info(format!("{label}: {count} peer(s) changed")));
        }
        let fresh: Vec<_> = refused
            .iter()
            .filter(|(key, told)| self.model.refused.get(key) != Some(told))
            .collect();
        for ((_, name), (_, reason)) in fresh.iter().take(LOGGED) {
            notes.push(Note::warning(format!(
                "{}: peer {name:?} is refused: {reason}",
                source.label()
            )));
        }
        if fresh.len() > LOGGED {
            let more = fresh.len() - LOGGED;
            notes.push(Note::warning(format!(
                "{}: {more} more peers are refused; see show peers",
                source.label()
            )));
        }
        *self.refusals.entry(source).or_default() += fresh.len() as u64;
        let before = std::mem::replace(&mut self.model.refused, refused);
        (edits, undo, Some(before))
    }
}
