//! Values of which many are the same, each kept once.

use std::collections::BTreeSet;
use std::sync::Arc;

/// The least number of values at which those that nothing has any more are looked for.
const FEW: usize = 64;

/// The values.
#[derive(Debug)]
pub(super) struct Interner<T: ?Sized> {
    all: BTreeSet<Arc<T>>,
    /// The number at which those that nothing has any more are looked for.
    full: usize,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Self { all: BTreeSet::new(), full: FEW }
    }
}

impl<T: ?Sized + Ord> Interner<T> {
    /// Makes a value the one that equals it, if there is one.
    pub(super) fn share(&mut self, value: &mut Arc<T>) {
        if let Some(known) = self.all.get(&*value) {
            *value = Arc::clone(known);
            return;
        }
        if self.all.len() >= self.full {
            self.all.retain(|value| Arc::strong_count(value) > 1);
            self.full = FEW.max(2 * self.all.len());
        }
        self.all.insert(Arc::clone(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{FEW, Interner};

    #[test]
    fn equal_values_are_one_and_those_that_nothing_has_go() {
        let mut interner = Interner::<str>::default();
        let (mut one, mut other): (Arc<str>, Arc<str>) = ("a".into(), "a".into());
        interner.share(&mut one);
        interner.share(&mut other);
        assert!(Arc::ptr_eq(&one, &other));
        for number in 0..10 * FEW {
            interner.share(&mut number.to_string().as_str().into());
        }
        assert!(interner.all.len() <= FEW + 1, "{}", interner.all.len());
        let mut again: Arc<str> = "a".into();
        interner.share(&mut again);
        assert!(Arc::ptr_eq(&one, &again));
    }
}
