//! Limits of a pod's traffic, as CNI's capability `bandwidth` has them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Limits in both directions, seen from the pod. What is counted are frames from their Ethernet header
/// on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Limit of what the pod receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<RateLimit>,
    /// Limit of what the pod sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<RateLimit>,
}

/// A rate, and what may pass at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Bits a second.
    pub bits_per_second: u64,
    /// Bits that may pass at once after a pause. It counts up to 100 ms of the rate or 128 KiB, whichever
    /// is larger, and that is what is meant if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst_bits: Option<u64>,
}

impl Bandwidth {
    /// Whether there is no limit.
    #[must_use]
    pub fn is_unlimited(&self) -> bool {
        *self == Self::default()
    }

    /// The first rate that cannot be, in a sentence.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        [("ingress", self.ingress), ("egress", self.egress)].into_iter().find_map(
            |(name, limit)| {
                let rate = limit?.bits_per_second;
                (!RateLimit::RATES.contains(&rate)).then(|| {
                    format!(
                        "the {name} rate is {rate} bit/s; expected 1k (1,000) to 1P (10^15) bit/s"
                    )
                })
            },
        )
    }
}

impl RateLimit {
    /// Rates that can be, bits a second: as Kubernetes has them.
    pub const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;
}

impl fmt::Display for RateLimit {
    /// As Kubernetes' annotations have it: `20M`, `1500k`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = self.bits_per_second;
        let units = [
            (1_000_000_000_000_000, "P"),
            (1_000_000_000_000, "T"),
            (1_000_000_000, "G"),
            (1_000_000, "M"),
            (1_000, "k"),
        ];
        match units.iter().find(|(unit, _)| rate >= *unit && rate.is_multiple_of(*unit)) {
            Some((unit, letter)) => write!(f, "{}{letter}", rate / unit),
            None => write!(f, "{rate}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bandwidth, RateLimit};

    fn rate(bits_per_second: u64) -> RateLimit {
        RateLimit { bits_per_second, burst_bits: None }
    }

    #[test]
    fn rates_are_shown_as_kubernetes_writes_them() {
        let table = [
            (1_000, "1k"),
            (1_500_000, "1500k"),
            (20_000_000, "20M"),
            (1_234, "1234"),
            (1_000_000_000_000_000, "1P"),
        ];
        for (bits, text) in table {
            assert_eq!(rate(bits).to_string(), text);
        }
    }

    #[test]
    fn a_rate_that_cannot_be_is_named() {
        let limits = |ingress, egress| Bandwidth {
            ingress: Some(rate(ingress)),
            egress: Some(rate(egress)),
        };
        assert_eq!(limits(1_000, 1_000_000_000_000_000).problem(), None);
        assert_eq!(
            limits(1_000, 999).problem().as_deref(),
            Some("the egress rate is 999 bit/s; expected 1k (1,000) to 1P (10^15) bit/s")
        );
        assert!(
            limits(1_000_000_000_000_001, 1_000)
                .problem()
                .is_some_and(|why| why.contains("ingress"))
        );
    }
}
