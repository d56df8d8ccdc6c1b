//! How fast the segments of a flow follow one another, and how long its train may stay for the next.
//!
//! Enters: each segment, and the time at which its turn began; that a train has left before it was complete.
//! Leaves: until when a train stays that its batch has not ended.
//!
//! A flow streams once a segment has come soon after a train that it would have continued, if that had stayed.
//! It streams no more once a train has stayed in vain. So what is alone leaves at once, and a sender that
//! pauses costs its last train one wait.

use super::segment::Segment;
use crate::rate::Nanos;

/// For how long a train stays after its latest segment: about as long as writing it takes, with what the pod's
/// kernel does of it. So to wait in vain costs no more than what a wait spares.
const GAP: Nanos = Nanos(5_000);

/// For how long a train stays in all, which is how late its first segment may be.
const LONGEST: Nanos = Nanos(12_500);

/// The pace of one flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// The sequence number of the segment that continues the flow.
    continues_at: u32,
    /// When the latest segment came.
    latest: Nanos,
    /// When the latest train was begun.
    begun: Nanos,
    /// That train has left, and another segment would have continued it.
    is_cut_off: bool,
    streams: bool,
}

impl Pace {
    /// Of a flow of which one segment is known, the first of a train.
    pub(super) fn new(segment: &Segment, now: Nanos) -> Self {
        let continues_at = segment.end();
        Self { continues_at, latest: now, begun: now, is_cut_off: false, streams: false }
    }

    /// Notes a segment.
    pub(super) fn note(&mut self, segment: &Segment, now: Nanos) {
        if segment.sequence != self.continues_at {
            self.streams = false;
        } else if self.is_cut_off {
            self.streams = now <= after(self.latest, GAP);
        }
        self.is_cut_off = false;
        (self.continues_at, self.latest) = (segment.end(), now);
    }

    /// A train is begun.
    pub(super) fn begin(&mut self, now: Nanos) {
        self.begun = now;
    }

    /// The train has left with a batch, or stayed for long enough.
    pub(super) fn cut_off(&mut self, now: Nanos) {
        self.is_cut_off = true;
        self.streams &= now < after(self.latest, GAP);
    }

    /// Until when a train stays; `None` if it leaves at once. `more` tells that packets are known to wait.
    pub(super) fn stays_until(&self, more: bool) -> Option<Nanos> {
        let longest = after(self.begun, LONGEST);
        match (more, self.streams) {
            (true, _) => Some(longest),
            (false, true) => Some(after(self.latest, GAP).min(longest)),
            (false, false) => None,
        }
    }

    pub(super) fn latest(&self) -> Nanos {
        self.latest
    }
}

fn after(moment: Nanos, wait: Nanos) -> Nanos {
    Nanos(moment.0.saturating_add(wait.0))
}
