//! Services: what the cluster tells of them.
//!
//! Enters: services that a source names, or withdraws; at each change of addresses, everything that may have
//! taken one. Leaves: edits of the model, what is refused and why, and the addresses that are served.

use std::collections::BTreeMap;

use api::{RefusedService, Reply, ServiceSync};

use super::ControlPlane;
use super::list::Frame;
use crate::change::{Action, Change, Note, OnFailure, Rollback};

/// Refusals of one request that are logged one by one; `show services` has all.
const LOGGED: usize = 10;

impl ControlPlane {
    /// Takes what the cluster tells of its services, as far as it can be. What is refused as a whole is
    /// remembered until it is withdrawn, or comes in another form.
    pub(super) fn sync_services(&mut self, sync: ServiceSync) -> Change {
        let named: Vec<_> = sync.services.iter().map(|service| service.name.clone()).collect();
        let (is_complete, gone) = (sync.complete, sync.gone.clone());
        let (edits, refused) = self.model.sync_services(sync);
        let mut all = if is_complete { BTreeMap::new() } else { self.refused_services.clone() };
        for name in named.iter().chain(&gone) {
            all.remove(name);
        }
        all.extend(refused);
        let mut notes = Vec::new();
        let fresh = all.iter().filter(|(name, why)| self.refused_services.get(*name) != Some(why));
        for (name, why) in fresh.take(LOGGED) {
            notes.push(Note::warning(format!("service {name} is refused: {why}")));
        }
        let undo = self.model.apply_all(&edits);
        self.note_unserved(&mut notes);
        self.refused_services = all;
        let answer = Reply::SyncedServices(self.refused_services());
        let rollback = Rollback { undo: undo.clone(), ..Rollback::default() };
        // What is known already costs neither a line of the journal nor new tables.
        if edits.is_empty() {
            let actions = vec![Action::Answer(answer)];
            return Change { actions, notes, failure: OnFailure::Reverse(rollback) };
        }
        notes.push(Note::info(format!("services: {} change(s)", edits.len())));
        let first = vec![Action::Journal { edits, undo }];
        let frame = Frame { first, answer: Some(answer), ..Frame::default() };
        self.request(frame, rollback, notes)
    }

    /// Every service that is refused, as a whole or at some of its addresses.
    #[must_use]
    pub fn refused_services(&self) -> Vec<RefusedService> {
        let whole = self
            .refused_services
            .iter()
            .map(|(name, reason)| RefusedService { name: name.clone(), reason: reason.clone() });
        whole.chain(self.model.served.refusals()).collect()
    }

    fn note_unserved(&mut self, notes: &mut Vec<Note>) {
        let refused = &self.model.served.refused;
        let fresh = refused.iter().filter(|(name, all)| self.unserved.get(*name) != Some(all));
        for (name, all) in fresh.take(LOGGED) {
            for at in all {
                let text = format!("service {name}: {} is not served: {}", at.address, at.reason);
                notes.push(Note::warning(text));
            }
        }
        self.unserved.clone_from(refused);
    }
}
