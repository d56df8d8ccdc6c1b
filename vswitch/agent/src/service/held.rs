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
        let known: BTreeSet<&String> = self.services.keys().chain(&self.doubtful).collect();
        let gone = known.into_iter().filter(|name| !wanted.contains_key(*name));
        let mut messages = Messages::new(|| ServiceSync {
            complete: false,
            services: Vec::new(),
            gone: Vec::new(),
        });
        for name in gone {
            messages.room_for(name.len()).gone.push(name.clone());
        }
        for (name, spec) in wanted {
            if !self.has(name, spec) || again && self.doubtful.contains(name) {
                messages.room_for(encoded_bytes(&**spec)).services.push(ServiceSpec::clone(spec));
            }
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

    /// Whether the daemon has been told of it as it is. Both sides share it from then on.
    fn has(&mut self, name: &str, spec: &Arc<ServiceSpec>) -> bool {
        let Some(held) = self.services.get_mut(name) else { return false };
        if Arc::ptr_eq(held, spec) {
            return true;
        }
        let is_same = held == spec;
        if is_same {
            *held = Arc::clone(spec);
        }
        is_same
    }
}

#[cfg(test)]
mod tests;
