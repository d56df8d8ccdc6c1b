//! How far the list of a kind of object has come, and what each event of its watch asks for.
//!
//! Enters: events of a watch. Leaves: what is to be done, to `service` and `policy`. A list that is begun
//! anew takes nothing away before it is whole: only what is missing then is gone.

use std::collections::BTreeSet;

use kube::runtime::watcher::Event;

/// The list of a kind of object.
#[derive(Debug, Default)]
pub struct Listing {
    /// Once it was whole: what is missing is gone.
    is_whole: bool,
    /// Keys of the list that is under way.
    seen: BTreeSet<Box<str>>,
}

/// What an event asks for.
#[derive(Debug)]
pub enum ListStep<'e, K> {
    /// The object is there, in this form.
    Put(&'e K),
    /// The object is gone.
    Remove(&'e K),
    /// The list is whole: objects with these keys are all.
    Whole(BTreeSet<Box<str>>),
    /// A list begins.
    Nothing,
}

impl Listing {
    /// One that is whole from the beginning.
    #[must_use]
    pub fn whole() -> Self {
        Self { is_whole: true, ..Self::default() }
    }

    /// Whether it was whole once.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Takes an event; `key` is that of an object, unique among its kind.
    pub fn step<'e, K>(
        &mut self,
        event: &'e Event<K>,
        key: impl FnOnce(&K) -> String,
    ) -> ListStep<'e, K> {
        match event {
            Event::Init => {
                self.seen.clear();
                ListStep::Nothing
            }
            Event::InitApply(object) => {
                self.seen.insert(key(object).into());
                ListStep::Put(object)
            }
            Event::InitDone => ListStep::Whole(self.end()),
            Event::Apply(object) => ListStep::Put(object),
            Event::Delete(object) => ListStep::Remove(object),
        }
    }

    /// The kind of object is not there: a list of none is whole.
    pub fn end_empty(&mut self) {
        self.seen.clear();
        self.end();
    }

    fn end(&mut self) -> BTreeSet<Box<str>> {
        self.is_whole = true;
        std::mem::take(&mut self.seen)
    }
}
