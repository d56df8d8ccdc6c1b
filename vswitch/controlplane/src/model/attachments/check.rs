//! Compares what a runtime believes of a pod with what the model has.
//!
//! Enters: `Check`. Leaves: the pod's lease, or the first difference in words.

use api::{Bandwidth, Check, ErrorKind, ErrorReply, RateLimit};

use super::{join, name, unknown};
use crate::model::{Lease, Model, refuse};

impl Model {
    /// Compares what the runtime has with what the model has.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&self, check: &Check) -> Result<&Lease, ErrorReply> {
        let lease =
            self.attachments.get(&check.attachment).ok_or_else(|| unknown(&check.attachment))?;
        let name = name(&check.attachment);
        for address in &check.addresses {
            if !lease.addresses.iter().any(|net| net.addr() == *address) {
                let held = join(&lease.addresses);
                return Err(refuse(
                    ErrorKind::Conflict,
                    format!("{name} has {address} in its namespace but holds {held} here"),
                ));
            }
        }
        for net in &lease.addresses {
            if !check.addresses.contains(&net.addr()) {
                return Err(refuse(
                    ErrorKind::Conflict,
                    format!("{name} holds {} but does not have it in its namespace", net.addr()),
                ));
            }
        }
        if lease.mac != check.mac {
            return Err(refuse(
                ErrorKind::Conflict,
                format!(
                    "{name} has the MAC {} but was attached with {}, and what its pod sends is dropped; have vswitch-cni set the MAC (capability `mac`, or MAC in CNI_ARGS) instead of a plugin behind it, such as tuning; delete it and add it anew",
                    check.mac, lease.mac
                ),
            ));
        }
        for mapping in &check.port_mappings {
            if !lease.port_mappings.contains(mapping) {
                return Err(refuse(
                    ErrorKind::Conflict,
                    format!("{name} was added without the port mapping {mapping}"),
                ));
            }
        }
        if let Some(wanted) = check.bandwidth.filter(|wanted| *wanted != lease.bandwidth) {
            return Err(refuse(
                ErrorKind::Conflict,
                format!(
                    "{name} is to be limited to {} but is limited to {} here; delete it and add it anew",
                    limits(&wanted),
                    limits(&lease.bandwidth)
                ),
            ));
        }
        if let Some(wanted) = check.queues.filter(|wanted| *wanted != lease.queues) {
            return Err(refuse(
                ErrorKind::Conflict,
                format!(
                    "{name} is to have an interface with {wanted} queue(s) and was added with {}; delete it and add it anew",
                    lease.queues
                ),
            ));
        }
        Ok(lease)
    }
}

/// Limits in words.
fn limits(bandwidth: &Bandwidth) -> String {
    let of = |limit: Option<RateLimit>| match limit {
        None => "no rate".into(),
        Some(limit) => match limit.burst_bits {
            None => format!("{limit} bit/s"),
            Some(burst) => format!("{limit} bit/s with a burst of {burst} bits"),
        },
    };
    format!("{} in and {} out", of(bandwidth.ingress), of(bandwidth.egress))
}
