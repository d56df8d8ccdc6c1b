//! Rates: what a port may send or receive, and how much of that is used up.
//!
//! Enters: the length of a frame, and the time. Leaves: whether it conforms to the rate, or when the
//! next one will. This is the generic cell rate algorithm (ITU-T I.371) as a virtual schedule: all of
//! its state is one number, the time at which everything that passed will have been earned. So
//! workers share a port's budget by one atomic, without a lock.
//!
//! A frame passes while the budget is not used up, however long the frame is, and what it takes too
//! much is earned before the next one passes. So no frame is ever too long to pass, the rate holds in
//! the long run, and a burst exceeds its size by one frame at most.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::tables::{MAX_PORTS, PortId};

/// Time of a turn, in nanoseconds since a moment that all workers of a node share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Nanos(pub u64);

/// A nanosecond is counted in so many parts: the shortest frame at 100 Gbit/s takes 4.8 ns, which
/// whole ones would round by a twentieth. 64 bits of them are nine years.
const PARTS_PER_NANO: u64 = 64;

/// Binary places of the parts that a byte takes: at 1 Pbit/s that is a two-thousandth of a part.
const FRACTION_BITS: u32 = 32;

/// What a burst may be without more ado: a hundred milliseconds of the rate, and two superframes.
const BURST_MILLIS: u64 = 100;
const BURST_BYTES: u64 = 128 << 10;

/// What a burst is at least: a sleeping worker wakes by whole milliseconds, and some of them late.
const MIN_BURST_MILLIS: u64 = 10;

/// What may wait for a port: as Linux' TBF has it in the reference plugin `bandwidth`.
const QUEUE_MILLIS: u64 = 25;

/// Full frames that may wait in any case: with fewer, TCP cannot find a loss by duplicate
/// acknowledgements (RFC 5681, section 3.2).
const QUEUE_FRAMES: u64 = 4;
const FULL_FRAME_BYTES: u64 = 1514;

/// A superframe is 10 ms of the rate at most.
const SUPERFRAME_MILLIS: u64 = 10;
const SUPERFRAME_BYTES: u64 = 64 << 10;

/// A limit of the bytes that pass in one direction: frames from their Ethernet header on, as tc
/// counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Parts that a byte takes, with `FRACTION_BITS` binary places.
    byte_parts: u64,
    /// How far the budget may run ahead.
    burst_parts: u64,
    queue_bytes: u32,
    takes_superframes: bool,
}

impl Limit {
    /// The lowest and the highest rate, bits a second: as Kubernetes has them.
    pub const RATES: core::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

    /// A rate, and the bits that may pass at once after a pause. A rate outside of [`Limit::RATES`]
    /// is the nearest in it. A burst is 100 ms of the rate or 128 KiB at most, whichever is larger,
    /// and 10 ms of the rate at least: kubelet gives one of 268 MB with every rate.
    #[must_use]
    pub fn new(bits_per_second: u64, burst_bits: Option<u64>) -> Self {
        let rate = bits_per_second.clamp(*Self::RATES.start(), *Self::RATES.end());
        let bytes_in = |millis: u64| rate / 8 * millis / 1000;
        let most = bytes_in(BURST_MILLIS).max(BURST_BYTES);
        let burst = burst_bits.map_or(most, |bits| (bits / 8).min(most));
        let mut limit = Self {
            byte_parts: byte_parts(rate),
            burst_parts: 0,
            queue_bytes: bytes_in(QUEUE_MILLIS)
                .max(QUEUE_FRAMES * FULL_FRAME_BYTES)
                .try_into()
                .unwrap_or(u32::MAX),
            takes_superframes: bytes_in(SUPERFRAME_MILLIS) >= SUPERFRAME_BYTES,
        };
        limit.burst_parts = limit.parts(burst.max(bytes_in(MIN_BURST_MILLIS)));
        limit
    }

    /// Whether superframes of 64 KiB may pass whole: they are 10 ms of the rate at most.
    #[must_use]
    pub fn takes_superframes(&self) -> bool {
        self.takes_superframes
    }

    /// Bytes that may wait for the port at once.
    pub(crate) fn queue_bytes(&self) -> u32 {
        self.queue_bytes
    }

    /// What bytes take of the budget, rounded up: a rate is never exceeded by rounding.
    fn parts(&self, bytes: u64) -> u64 {
        let whole = u128::from(bytes) * u128::from(self.byte_parts);
        u64::try_from(whole.div_ceil(1 << FRACTION_BITS)).unwrap_or(u64::MAX)
    }
}

/// 64 bits hold it from 1 kbit/s on, to 2.2 · 10^18.
fn byte_parts(bits_per_second: u64) -> u64 {
    let parts_a_second = u128::from(8 * 1_000_000_000 * PARTS_PER_NANO);
    let exact = (parts_a_second << FRACTION_BITS) / u128::from(bits_per_second.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// What is left of a limit, in one direction of one port. Any thread may use it, with a time that is
/// another's or goes backwards: the budget then is as it was at the later time.
#[derive(Debug, Default)]
pub struct Budget {
    /// When all that passed will have been earned, in parts.
    earned_at: AtomicU64,
}

impl Budget {
    /// Takes the bytes of a frame.
    ///
    /// # Errors
    /// When the next frame passes, if the budget is used up now; nothing is taken then.
    pub fn take(&self, limit: &Limit, bytes: u32, now: Nanos) -> Result<(), Nanos> {
        let now = now.0.saturating_mul(PARTS_PER_NANO);
        let cost = limit.parts(bytes.into());
        let mut earned_at = self.earned_at.load(Ordering::Relaxed);
        loop {
            if earned_at > now.saturating_add(limit.burst_parts) {
                return Err(opens_at(earned_at, limit));
            }
            let next = earned_at.max(now).saturating_add(cost);
            let swapped = self.earned_at.compare_exchange_weak(
                earned_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(()),
                Err(other) => earned_at = other,
            }
        }
    }

    /// Takes the bytes of a frame that has passed, also of a budget that is used up: others may have taken of it
    /// since it was looked at.
    pub fn charge(&self, limit: &Limit, bytes: u32, now: Nanos) {
        let now = now.0.saturating_mul(PARTS_PER_NANO);
        let cost = limit.parts(bytes.into());
        let next = |earned_at: u64| Some(earned_at.max(now).saturating_add(cost));
        let _ = self.earned_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// When the next frame passes; not later than `now` if one does now.
    #[must_use]
    pub fn opens_at(&self, limit: &Limit) -> Nanos {
        opens_at(self.earned_at.load(Ordering::Relaxed), limit)
    }

    /// Makes the whole burst available: the port is another's from now on.
    pub fn reset(&self) {
        self.earned_at.store(0, Ordering::Relaxed);
    }
}

fn opens_at(earned_at: u64, limit: &Limit) -> Nanos {
    Nanos(earned_at.saturating_sub(limit.burst_parts).div_ceil(PARTS_PER_NANO))
}

/// What is left of the limits in one direction, port by port. Workers that send to the same ports
/// share one.
#[derive(Debug)]
pub struct Budgets(Box<[Budget]>);

impl Default for Budgets {
    fn default() -> Self {
        Self((0..MAX_PORTS).map(|_| Budget::default()).collect())
    }
}

impl Budgets {
    /// The port's; none if no port can have that number.
    #[must_use]
    pub fn of(&self, port: PortId) -> Option<&Budget> {
        self.0.get(usize::from(port.0))
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
