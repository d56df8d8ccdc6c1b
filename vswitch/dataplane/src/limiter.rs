//! The rate limit of answers and ICMP errors: a token bucket for each port.
//!
//! Enters: verdicts, from `process`. Leaves: the same, or the quiet form of it. Without a limit, a
//! pod that floods pings or expiring packets would have every one of them answered at our expense
//! (RFC 1812, section 4.3.2.8; RFC 4443, section 2.4(f)).

use crate::Millis;
use crate::tables::{MAX_PORTS, PortId};
use crate::verdict::{DropReason, Verdict};

/// Answers a second for one port: Linux's `icmp_msgs_per_sec`.
const RATE_PER_SECOND: u64 = 1000;
/// Answers in a row, after a pause: enough for a subnet's worth of ARP at once.
const BURST: u64 = 256;
/// A token is worth this much: one millisecond earns `RATE_PER_SECOND` parts.
const PARTS: u64 = 1000;

/// The buckets of one worker.
#[derive(Debug)]
pub(crate) struct Limiter {
    buckets: Vec<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    parts: u64,
    filled: Millis,
}

impl Limiter {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![Bucket { parts: BURST * PARTS, filled: Millis(0) }; MAX_PORTS] }
    }

    /// Makes a verdict that answers a drop, if the port that the packet came from is over its
    /// limit.
    #[inline]
    pub(crate) fn admit(&mut self, verdict: &mut Verdict, ingress: PortId, now: Millis) {
        let quiet = match *verdict {
            Verdict::Answer(_) => Verdict::Drop(DropReason::AnswerRateLimited),
            Verdict::Refuse { reason, .. } | Verdict::Reset { reason } => Verdict::Drop(reason),
            _ => return,
        };
        if !self.take(ingress, now) {
            *verdict = quiet;
        }
    }

    fn take(&mut self, port: PortId, now: Millis) -> bool {
        let Some(bucket) = self.buckets.get_mut(usize::from(port.0)) else { return false };
        let earned = now.since(bucket.filled).saturating_mul(RATE_PER_SECOND);
        bucket.parts = bucket.parts.saturating_add(earned).min(BURST * PARTS);
        bucket.filled = now;
        match bucket.parts.checked_sub(PARTS) {
            Some(left) => {
                bucket.parts = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, Limiter};
    use crate::Millis;
    use crate::tables::PortId;
    use crate::verdict::{Answer, DropReason, IcmpError, Verdict};

    const ECHO: Verdict = Verdict::Answer(Answer::Echo4);

    fn admitted(limiter: &mut Limiter, mut verdict: Verdict, port: PortId, now: u64) -> Verdict {
        limiter.admit(&mut verdict, port, Millis(now));
        verdict
    }

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_others_are_not_touched() {
        let mut limiter = Limiter::new();
        let (port, other) = (PortId(1), PortId(2));
        let passed = (0..10_000).filter(|_| admitted(&mut limiter, ECHO, port, 5) == ECHO).count();
        assert_eq!(passed as u64, BURST);
        assert_eq!(
            admitted(&mut limiter, ECHO, port, 5),
            Verdict::Drop(DropReason::AnswerRateLimited)
        );
        assert_eq!(admitted(&mut limiter, ECHO, other, 5), ECHO);
        assert_eq!(admitted(&mut limiter, ECHO, port, 6), ECHO);
    }

    #[test]
    fn a_refusal_keeps_its_reason_when_the_sender_is_told_no_more() {
        let mut limiter = Limiter::new();
        let refuse = Verdict::Refuse {
            reason: DropReason::TtlExceeded,
            error: IcmpError::TimeExceeded,
            back: None,
        };
        let told = (0..10_000).filter(|_| admitted(&mut limiter, refuse, PortId(1), 0) == refuse);
        assert_eq!(told.count() as u64, BURST);
        let quiet = admitted(&mut limiter, refuse, PortId(1), 0);
        assert_eq!(quiet, Verdict::Drop(DropReason::TtlExceeded));
    }
}
