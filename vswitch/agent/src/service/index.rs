//! All Services of the cluster, as this node serves them, and what a change comes to.
//!
//! Enters: events of the watches of Services and EndpointSlices, and the node's zone. Leaves: the
//! services that the daemon should have, to `held`, and a sentence for each Service of which something is
//! left out, to `report`. A change of one slice has one Service translated anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::ServiceSpec;
use kube::runtime::watcher::Event;

use super::object::{ServiceObject, SliceObject};
use super::owners::Owners;
use super::problem::summary;
use super::slice::EndpointSlice;
use super::translate::translate;
use super::virtuals::{ClusterService, key_of};
use crate::listing::{ListStep, Listing};
use crate::object::NodeObject;

/// The daemon's services by name.
pub type Specs = BTreeMap<String, Arc<ServiceSpec>>;

/// All Services of the cluster.
#[derive(Debug, Default)]
pub struct Services {
    node_name: String,
    zone: Option<String>,
    services: BTreeMap<Arc<str>, ClusterService>,
    /// By the key of their Service, then by name.
    slices: BTreeMap<Arc<str>, BTreeMap<Box<str>, EndpointSlice>>,
    /// Key of a slice to that of its Service.
    service_of_slice: BTreeMap<Box<str>, Arc<str>>,
    owners: Owners,
    listed_nodes: Listing,
    listed_services: Listing,
    listed_slices: Listing,
    /// Services to be translated.
    changed: BTreeSet<Arc<str>>,
    specs: Specs,
    problems: BTreeMap<String, String>,
}

impl Services {
    /// Of no Service yet, for the node of that name.
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        Self { node_name: node_name.to_owned(), ..Self::default() }
    }

    /// Of no Service for ever: what the daemon has is to be withdrawn.
    #[must_use]
    pub fn none() -> Self {
        let [listed_nodes, listed_services, listed_slices] = [(); 3].map(|()| Listing::whole());
        Self { listed_nodes, listed_services, listed_slices, ..Self::default() }
    }

    /// Whether all kinds were listed; before that a Service that is missing is not gone.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        let kinds = [&self.listed_nodes, &self.listed_services, &self.listed_slices];
        kinds.into_iter().all(Listing::is_whole)
    }

    /// How many Services are served.
    #[must_use]
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The UID of a Service.
    #[must_use]
    pub fn uid(&self, key: &str) -> Option<&str> {
        self.services.get(key)?.uid.as_deref()
    }

    /// The zone of the node; true if that changes something.
    pub fn set_zone(&mut self, zone: Option<&str>) -> bool {
        if self.zone.as_deref() == zone {
            return false;
        }
        self.zone = zone.map(str::to_owned);
        self.changed.extend(self.services.keys().cloned());
        !self.changed.is_empty()
    }

    /// Takes what became of a Node: its addresses are no Service's. True if something may have changed.
    pub fn take_node(&mut self, event: &Event<NodeObject>) -> bool {
        match self.listed_nodes.step(event, |object| object.name().to_owned()) {
            ListStep::Nothing => {}
            ListStep::Put(object) => {
                let addresses = object.addresses().collect();
                self.owners.put_node(object.name(), addresses, &mut self.changed);
            }
            ListStep::Remove(object) => {
                self.owners.put_node(object.name(), BTreeSet::new(), &mut self.changed);
            }
            ListStep::Whole(seen) => {
                let all = self.owners.nodes();
                let gone: Vec<_> = all.filter(|name| !seen.contains(&***name)).cloned().collect();
                for name in &gone {
                    self.owners.put_node(name, BTreeSet::new(), &mut self.changed);
                }
                return true;
            }
        }
        !self.changed.is_empty()
    }

    /// Takes what became of a Service; true if something may have changed.
    pub fn take_service(&mut self, event: &Event<ServiceObject>) -> bool {
        match self.listed_services.step(event, |object| key_of(&object.metadata)) {
            ListStep::Nothing => false,
            ListStep::Put(object) => self.put_service(object),
            ListStep::Remove(object) => {
                self.remove_service(&key_of(&object.metadata));
                !self.changed.is_empty()
            }
            ListStep::Whole(seen) => {
                let gone: Vec<_> =
                    self.services.keys().filter(|key| !seen.contains(&***key)).cloned().collect();
                gone.iter().for_each(|key| self.remove_service(key));
                tracing::info!("listed {} Service(s) with virtual addresses", self.services.len());
                true
            }
        }
    }

    /// Takes what became of an EndpointSlice; true if something may have changed.
    pub fn take_slice(&mut self, event: &Event<SliceObject>) -> bool {
        match self.listed_slices.step(event, |object| key_of(&object.metadata)) {
            ListStep::Nothing => false,
            ListStep::Put(object) => self.put_slice(object),
            ListStep::Remove(object) => {
                self.remove_slice(&key_of(&object.metadata));
                !self.changed.is_empty()
            }
            ListStep::Whole(seen) => {
                let gone: Vec<_> = self
                    .service_of_slice
                    .keys()
                    .filter(|key| !seen.contains(*key))
                    .cloned()
                    .collect();
                gone.iter().for_each(|key| self.remove_slice(key));
                tracing::info!("listed {} EndpointSlice(s) of them", self.service_of_slice.len());
                true
            }
        }
    }

    /// Translates what has changed; returns all that the daemon should have.
    pub fn settle(&mut self) -> &Specs {
        for key in std::mem::take(&mut self.changed) {
            let first = format!("{key}:");
            let old: Vec<String> = self
                .specs
                .range(first.clone()..)
                .take_while(|(name, _)| name.starts_with(&first))
                .map(|(name, _)| name.clone())
                .collect();
            let Some(service) = self.services.get(&key) else {
                old.iter().for_each(|name| drop(self.specs.remove(name)));
                self.problems.remove(&*key);
                continue;
            };
            let slices = self.slices.get(&key).into_iter().flat_map(BTreeMap::values);
            let translated = translate(service, slices, self.zone.as_deref(), &self.owners);
            let mut gone: BTreeSet<String> = old.into_iter().collect();
            for spec in translated.specs {
                gone.remove(&spec.name);
                // What is the same stays the same, so that to compare it costs nothing.
                if self.specs.get(&spec.name).is_none_or(|known| **known != spec) {
                    self.specs.insert(spec.name.clone(), Arc::new(spec));
                }
            }
            gone.iter().for_each(|name| drop(self.specs.remove(name)));
            match summary(&translated.problems) {
                Some(sentence) => self.problems.insert(key.to_string(), sentence),
                None => self.problems.remove(&*key),
            };
        }
        &self.specs
    }

    /// Services of which something is left out by `settle`, and what.
    #[must_use]
    pub fn problems(&self) -> &BTreeMap<String, String> {
        &self.problems
    }

    /// True if the Service differs from what it was before.
    fn put_service(&mut self, object: &ServiceObject) -> bool {
        let Some(new) = ClusterService::judge(object) else {
            self.remove_service(&key_of(&object.metadata));
            return !self.changed.is_empty();
        };
        let old = self.services.get_key_value(new.key.as_str());
        if old.is_some_and(|(_, old)| *old == new) {
            return false;
        }
        let key = old.map_or_else(|| Arc::from(new.key.as_str()), |(key, _)| Arc::clone(key));
        let old = self.services.get(&key);
        self.owners.put_service(&key, old, Some(&new), &mut self.changed);
        self.services.insert(Arc::clone(&key), new);
        self.changed.insert(key);
        true
    }

    fn remove_service(&mut self, key: &str) {
        if let Some((key, old)) = self.services.remove_entry(key) {
            self.owners.put_service(&key, Some(&old), None, &mut self.changed);
            self.changed.insert(key);
        }
    }

    /// True if the slice differs from what it was before.
    fn put_slice(&mut self, object: &SliceObject) -> bool {
        let slice_key = key_of(&object.metadata);
        let Some(new) = EndpointSlice::judge(object, &self.node_name) else {
            self.remove_slice(&slice_key);
            return !self.changed.is_empty();
        };
        if self
            .service_of_slice
            .get(slice_key.as_str())
            .is_some_and(|owner| **owner != *new.service)
        {
            self.remove_slice(&slice_key);
        }
        let known = self.services.get_key_value(new.service.as_str()).map(|(key, _)| key);
        let known = known.or_else(|| Some(self.slices.get_key_value(new.service.as_str())?.0));
        let owner = known.map_or_else(|| Arc::from(new.service.as_str()), Arc::clone);
        let siblings = self.slices.entry(Arc::clone(&owner)).or_default();
        if siblings.get(slice_key.as_str()) == Some(&new) {
            return false;
        }
        siblings.insert(slice_key.as_str().into(), new);
        self.service_of_slice.insert(slice_key.into(), Arc::clone(&owner));
        self.changed.insert(owner);
        true
    }

    fn remove_slice(&mut self, slice_key: &str) {
        let Some(owner) = self.service_of_slice.remove(slice_key) else { return };
        if let Some(siblings) = self.slices.get_mut(&owner) {
            siblings.remove(slice_key);
            if siblings.is_empty() {
                self.slices.remove(&owner);
            }
        }
        self.changed.insert(owner);
    }
}

#[cfg(test)]
mod tests;
