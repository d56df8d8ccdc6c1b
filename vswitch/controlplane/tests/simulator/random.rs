//! Numbers that a seed determines, on every machine and for ever.
//!
//! Enters: a seed. Leaves: numbers, to `events` and `faults`. The generator is SplitMix64 (Steele, Lea,
//! Flood: "Fast splittable pseudorandom number generators", 2014).

/// A source of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random {
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True so many times of a hundred.
    pub(crate) fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    /// One of several, of which there is one at least.
    pub(crate) fn of<T: Clone>(&mut self, several: &[T]) -> T {
        several[self.below(several.len())].clone()
    }

    /// One of several or none, as a coin says.
    pub(crate) fn perhaps<T: Clone>(&mut self, several: &[T]) -> Option<T> {
        self.percent(50).then(|| self.of(several))
    }
}

#[test]
fn a_seed_gives_the_same_numbers_everywhere() {
    // The first outputs of SplitMix64 for the seed 1234567, as its authors' code gives them.
    let mut random = Random::new(1_234_567);
    let numbers = [random.next(), random.next(), random.next()];
    assert_eq!(
        numbers,
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
    );
}
