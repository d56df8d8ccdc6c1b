//! From the services that the daemon has to those that it should have, in messages.
//!
//! Enters: the services that `index` wants. Leaves: [`ServiceSync`] messages for the socket, each within
//! the codec's bound; what the daemon answered comes back. As with peers (`sync`), what the daemon has is
//! asked of it whenever the connection is new, so that what did not change is in no message.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{RefusedService, ServiceEntry, ServiceSpec, ServiceSync};

use super::index::Specs;
use crate::sync::{Messages, encoded_bytes};

/// What the daemon has, or has refused.
#[derive(Debug, Default)]
pub struct HeldServices {
    services: Specs,
    /// Refused, as a whole or in part: the daemon has it in this form, in an older one, or not at all.
    doubtful: BTreeSet<String>,
}

impl HeldServices {
    /// What the daemon has, as it shows it.
    #[must_use]
    pub fn shown(entries: Vec<ServiceEntry>) -> Self {
        let mut held = Self::default();
        for ServiceEntry { spec, refused } in entries {
            if !refused.is_empty() {
                held.doubtful.insert(spec.name.clone());
            }
            held.services.insert(spec.name.clone(), Arc::new(spec));
        }
        held
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The messages that make `wanted` of it, those that withdraw before those that add. With `again`
    /// what was refused is sent again: the answer shows whether it still is.
    #[must_use]
    pub fn messages(&mut self, wanted: &Specs, again: bool) -> Vec<ServiceSync> {
        let never_told = |name: &&String| !self.services.contains_key(*name);
        let refused = self.doubtful.iter().filter(never_told);
        let mut gone: Vec<String> =
            refused.filter(|name| !wanted.contains_key(*name)).cloned().collect();
        let mut changed = Vec::new();
        // Both are in the order of their names: one walk, as this is done for each change of the cluster.
        let mut held = self.services.iter_mut().peekable();
        for (name, spec) in wanted {
            while let Some((old, _)) = held.next_if(|(old, _)| *old < name) {
                gone.push(old.clone());
            }
            let had = held.next_if(|(old, _)| *old == name).map(|(_, had)| had);
            let is_had = had.is_some_and(|had| share(had, spec));
            if !is_had || again && self.doubtful.contains(name) {
                changed.push(spec);
            }
        }
        gone.extend(held.map(|(old, _)| old.clone()));
        let mut messages = Messages::new(|| ServiceSync {
            complete: false,
            services: Vec::new(),
            gone: Vec::new(),
        });
        for name in gone {
            messages.room_for(name.len()).gone.push(name);
        }
        for spec in changed {
            messages.room_for(encoded_bytes(&**spec)).services.push(ServiceSpec::clone(spec));
        }
        messages.all
    }

    /// Remembers that the daemon took a message that was made of `wanted`, after which it refuses these
    /// of all.
    pub fn answered(&mut self, message: &ServiceSync, wanted: &Specs, refused: &[RefusedService]) {
        for name in &message.gone {
            self.services.remove(name);
        }
        for ServiceSpec { name, .. } in &message.services {
            if let Some(spec) = wanted.get(name) {
                self.services.insert(name.clone(), Arc::clone(spec));
            }
        }
        // Each answer names all of them.
        self.doubtful = refused.iter().map(|refused| refused.name.clone()).collect();
    }
}

/// Whether both are the same; they share it from then on, so that to compare them again costs nothing.
fn share(held: &mut Arc<ServiceSpec>, wanted: &Arc<ServiceSpec>) -> bool {
    if Arc::ptr_eq(held, wanted) {
        return true;
    }
    let is_same = held == wanted;
    if is_same {
        *held = Arc::clone(wanted);
    }
    is_same
}

#[cfg(test)]
mod tests;
