//! Which pod scopes may contain a pod, without a look at all of them.
//!
//! Enters: scopes, each with a key. Leaves: the keys of those that a pod's namespace and labels do not rule
//! out, to `live`, which looks at these more closely. A scope stands under its namespace, if it names one,
//! and under a label that it requires, if there is one.

use std::collections::{BTreeMap, BTreeSet};

use super::group::{Namespaces, PodScope};
use super::selector::{Labels, Selector};

/// Keys by what their scopes require.
#[derive(Debug)]
pub(super) struct ScopeIndex<K> {
    /// Of scopes that name a namespace.
    named: BTreeMap<Box<str>, ByLabel<K>>,
    /// Of those that select namespaces.
    selected: ByLabel<K>,
}

#[derive(Debug)]
struct ByLabel<K> {
    /// By key and value of a label that is required.
    required: BTreeMap<Box<str>, BTreeMap<Box<str>, BTreeSet<K>>>,
    /// Those that require none.
    others: BTreeSet<K>,
}

impl<K> Default for ScopeIndex<K> {
    fn default() -> Self {
        Self { named: BTreeMap::new(), selected: ByLabel::default() }
    }
}

impl<K> Default for ByLabel<K> {
    fn default() -> Self {
        Self { required: BTreeMap::new(), others: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> ScopeIndex<K> {
    /// Adds a key.
    pub(super) fn insert(&mut self, scope: &PodScope, key: &K) {
        let place = match &scope.namespaces {
            Namespaces::Named(name) => self.named.entry(name.as_str().into()).or_default(),
            Namespaces::Selected(_) => &mut self.selected,
        };
        place.insert(&scope.pods, key);
    }

    /// Removes a key that was added with this scope.
    pub(super) fn remove(&mut self, scope: &PodScope, key: &K) {
        match &scope.namespaces {
            Namespaces::Named(name) => {
                let Some(place) = self.named.get_mut(name.as_str()) else { return };
                place.remove(&scope.pods, key);
                if place.is_empty() {
                    self.named.remove(name.as_str());
                }
            }
            Namespaces::Selected(_) => self.selected.remove(&scope.pods, key),
        }
    }

    /// Keys of the scopes that may contain a pod, each once.
    pub(super) fn may_contain<'i>(
        &'i self,
        namespace: &str,
        labels: &'i Labels,
    ) -> impl Iterator<Item = &'i K> {
        let named = self.named.get(namespace).into_iter();
        named.chain([&self.selected]).flat_map(|place| place.may_match(labels))
    }
}

impl<K: Ord + Clone> ByLabel<K> {
    fn insert(&mut self, selector: &Selector, key: &K) {
        let Some((label, values)) = selector.anchor() else {
            self.others.insert(key.clone());
            return;
        };
        let by_value = self.required.entry(label.into()).or_default();
        for value in values {
            by_value.entry(value.as_str().into()).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, selector: &Selector, key: &K) {
        let Some((label, values)) = selector.anchor() else {
            self.others.remove(key);
            return;
        };
        let Some(by_value) = self.required.get_mut(label) else { return };
        for value in values {
            let Some(keys) = by_value.get_mut(value.as_str()) else { continue };
            keys.remove(key);
            if keys.is_empty() {
                by_value.remove(value.as_str());
            }
        }
        if by_value.is_empty() {
            self.required.remove(label);
        }
    }

    fn is_empty(&self) -> bool {
        self.required.is_empty() && self.others.is_empty()
    }

    fn may_match<'i>(&'i self, labels: &'i Labels) -> impl Iterator<Item = &'i K> {
        let required = labels
            .iter()
            .filter_map(|(label, value)| self.required.get(label.as_str())?.get(value.as_str()));
        required.flatten().chain(&self.others)
    }
}
