//! 32 entries of few different values, in one cache line.
//!
//! The line has 16 words. The first four say of each place, in four bits, which of the other twelve is
//! its entry. So a look-up is one miss at most, as in an array of twice the size, and counts no bits:
//! the processors that this is compiled for need not have an instruction for that.

use super::entry::Entry;

/// Entries of a line.
pub(super) const LINE: usize = 32;

/// Words that hold the places' numbers, eight each.
const PICKS: usize = 4;
const WORDS: usize = 16;

/// The entries, packed.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Line {
    words: [u32; WORDS],
}

impl Line {
    /// Of entries that are all the same.
    pub(super) fn filled(entry: Entry) -> Self {
        let first = PICKS as u32 * 0x1111_1111;
        let mut words = [0; WORDS];
        for (at, word) in words.iter_mut().enumerate() {
            *word = if at < PICKS { first } else { entry.bits() };
        }
        Self { words }
    }

    /// Puts an entry in a place. False, and nothing is changed, if the line has twelve others beside it.
    #[must_use]
    pub(super) fn set(&mut self, at: usize, entry: Entry) -> bool {
        let known = self.words.iter().skip(PICKS).position(|word| *word == entry.bits());
        let pick = match known {
            Some(known) => PICKS + known,
            None => {
                let used = self.used_beside(at);
                let Some(free) = (PICKS..WORDS).find(|pick| used & 1 << pick == 0) else {
                    return false;
                };
                if let Some(word) = self.words.get_mut(free) {
                    *word = entry.bits();
                }
                free
            }
        };
        if let Some(picks) = self.words.get_mut(at / 8 % PICKS) {
            let shift = at % 8 * 4;
            *picks = *picks & !(0xf << shift) | (pick as u32) << shift;
        }
        true
    }

    /// The words that places other than this one have, a bit for each.
    fn used_beside(&self, place: usize) -> u32 {
        let others = (0..LINE).filter(|at| *at != place);
        others.fold(0, |used, at| used | 1 << self.pick(at))
    }

    #[inline]
    fn pick(&self, at: usize) -> u32 {
        let picks = self.words.get(at / 8 % PICKS).copied().unwrap_or_default();
        picks >> (at % 8 * 4) & 0xf
    }

    /// The entry of this place, which is below [`LINE`].
    #[inline]
    pub(super) fn get(&self, at: usize) -> Entry {
        self.words
            .get(self.pick(at) as usize)
            .map_or(Entry::default(), |word| Entry::from_bits(*word))
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, LINE, Line};

    fn entry(number: usize) -> Entry {
        Entry::from_bits(0x1234_0000 + number as u32)
    }

    #[test]
    fn a_filled_line_has_the_same_entry_everywhere() {
        let line = Line::filled(entry(0));
        assert!((0..LINE).all(|at| line.get(at) == entry(0)));
        assert_eq!(size_of::<Line>(), 64);
    }

    #[test]
    fn twelve_different_entries_fit_and_a_thirteenth_does_not() {
        let mut line = Line::filled(entry(0));
        for at in 0..LINE {
            assert!(line.set(at, entry(at % 12)), "{at}");
        }
        let full = line;
        assert!(!line.set(5, entry(12)));
        for at in 0..LINE {
            assert_eq!((line.get(at), full.get(at)), (entry(at % 12), entry(at % 12)), "{at}");
        }
    }

    #[test]
    fn an_entry_that_no_place_has_any_more_makes_room() {
        let mut line = Line::filled(entry(0));
        for at in 0..11 {
            assert!(line.set(at, entry(at + 1)));
        }
        // The only place that has it gives its word up.
        for next in 100..200 {
            assert!(line.set(3, entry(next)));
            assert_eq!((line.get(3), line.get(4), line.get(31)), (entry(next), entry(5), entry(0)));
        }
    }
}
