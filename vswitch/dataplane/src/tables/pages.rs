//! Numbered values in pages that copies share.
//!
//! Enters: values, from the control thread. Leaves: references to them, by number. A copy shares all
//! pages with what it was made of, and whichever of the two is changed then has its own of that one
//! page: tables with a million routes are published for a pod's sake, which changes three of them.

use core::fmt;
use std::sync::Arc;

/// Values by number, `PAGE` of them in a page.
#[derive(Clone)]
pub struct Pages<T, const PAGE: usize> {
    pages: Vec<Arc<[T; PAGE]>>,
    len: usize,
}

impl<T, const PAGE: usize> Default for Pages<T, PAGE> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

impl<T, const PAGE: usize> fmt::Debug for Pages<T, PAGE> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages {{ {} values }}", self.len)
    }
}

impl<T, const PAGE: usize> Pages<T, PAGE> {
    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// None at all.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of this number. Behind the last one a page has default values: to ask for the length too
    /// would be a comparison for every packet.
    #[inline(always)]
    #[must_use]
    pub fn get(&self, number: usize) -> Option<&T> {
        self.pages.get(number / PAGE)?.get(number % PAGE)
    }

    /// Memory in use, bytes; pages that copies share are counted in each.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Arc<[T; PAGE]>>()
            + self.pages.len() * size_of::<[T; PAGE]>()
    }

    /// Bytes of the pages that it does not share with another: what telling them apart has cost.
    #[must_use]
    pub fn unshared_bytes(&self, other: &Self) -> usize {
        let is_shared =
            |at: usize, page| other.pages.get(at).is_some_and(|other| Arc::ptr_eq(page, other));
        let own = self.pages.iter().enumerate().filter(|(at, page)| !is_shared(*at, page)).count();
        own * size_of::<[T; PAGE]>()
    }
}

impl<T: Clone + Default, const PAGE: usize> Pages<T, PAGE> {
    /// Adds a value, whose number is the length until then.
    pub fn push(&mut self, value: T) {
        if self.len == self.pages.len() * PAGE {
            self.pages.push(Arc::new(core::array::from_fn(|_| T::default())));
        }
        self.len += 1;
        if let Some(place) = self.get_mut(self.len - 1) {
            *place = value;
        }
    }

    /// The value of this number, to be changed.
    pub fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        if number >= self.len {
            return None;
        }
        Arc::make_mut(self.pages.get_mut(number / PAGE)?).get_mut(number % PAGE)
    }
}

impl<T: Clone + Default, const PAGE: usize> FromIterator<T> for Pages<T, PAGE> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        let mut pages = Self::default();
        values.into_iter().for_each(|value| pages.push(value));
        pages
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Pages;

    fn numbers(count: usize) -> Pages<usize, 4> {
        (0..count).collect()
    }

    #[test]
    fn values_are_found_by_number_and_no_others_but_defaults() {
        let pages = numbers(9);
        assert!((0..9).all(|number| pages.get(number) == Some(&number)));
        assert_eq!((pages.get(8), pages.get(9), pages.get(12)), (Some(&8), Some(&0), None));
        assert!(numbers(0).is_empty());
        assert_eq!(numbers(0).get(0), None);
    }

    #[test]
    fn a_copy_does_not_see_what_changes_later_and_shares_the_rest() {
        let mut pages = numbers(9);
        let copy = pages.clone();
        assert_eq!(pages.unshared_bytes(&copy), 0);
        *pages.get_mut(5).unwrap() = 50;
        assert_eq!((copy.get(5), pages.get(5)), (Some(&5), Some(&50)));
        assert_eq!(pages.unshared_bytes(&copy), size_of::<[usize; 4]>());
        pages.push(9);
        assert_eq!((pages.len(), pages.get(9)), (10, Some(&9)));
        assert_eq!((copy.len(), copy.get(9)), (9, Some(&0)));
        assert_eq!(pages.unshared_bytes(&copy), size_of::<[[usize; 4]; 2]>());
    }
}
