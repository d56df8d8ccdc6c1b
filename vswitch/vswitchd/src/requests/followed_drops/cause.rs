//! Why a packet was dropped, where more is known than its reason.
//!
//! Enters: a dropped packet, a moment later. Leaves: the policies that deny it by the present tables, asked as
//! `trace` asks them; what a port has of the sessions that it may have. Nothing is changed by it.

use dataplane::drop_ring::DropSnapshot;
use dataplane::session::{PortSessions, Quota};
use dataplane::tables::policy::{Direction, RuleNumber};
use dataplane::tables::{Fdb, PortId};
use dataplane::{DecidedBy, DropReason, Millis, PolicyEvent, TraceEvent};
use frame::Packet;

use super::flow::{Flow, FlowEnd};
use crate::daemon::Daemon;
use controlplane::ports::{HOST, UPLINK};

/// Policies that a cause names; a pod may have hundreds.
const NAMED: usize = 3;

/// Why a packet was dropped.
#[derive(Debug)]
pub(super) struct Cause {
    pub(super) text: String,
    /// The pod whose policies it is about, and which of them.
    pub(super) subject: Option<(PortId, Direction)>,
}

/// What denied a pod's connection.
struct Denial {
    subject: PortId,
    direction: Direction,
    by: DecidedBy,
}

impl Daemon {
    /// `destination` is the port of the pod that the packet is addressed to.
    pub(super) fn cause(
        &self,
        snapshot: &DropSnapshot,
        flow: &Flow,
        destination: Option<PortId>,
    ) -> Option<Cause> {
        match snapshot.reason {
            DropReason::PolicyDenied | DropReason::PolicyPending | DropReason::PolicyRevoked => {
                let denial = self.denial_of_walk(snapshot);
                let denial = denial.or_else(|| self.denial_of_ends(snapshot, flow, destination))?;
                let text = format!("{} {}", self.name_of(denial.subject), words(&denial.by)?);
                Some(Cause { text, subject: Some((denial.subject, denial.direction)) })
            }
            DropReason::SessionQuota => {
                let is_pod = snapshot.ingress != HOST && snapshot.ingress != UPLINK;
                let charged = destination.filter(|_| !is_pod).unwrap_or(snapshot.ingress);
                let table = &self.node.shared.sessions;
                let used = used_up(&table.of_port(charged), table.quota());
                let text = format!("{} has {used}", self.name_of(charged));
                Some(Cause { text, subject: None })
            }
            DropReason::SessionFull => {
                let table = &self.node.shared.sessions;
                let is_v6 = flow.source.is_some_and(|end| end.address.is_ipv6());
                let [v4, v6] = table.totals();
                let (family, all) = if is_v6 { ("IPv6", v6) } else { ("IPv4", v4) };
                let used = all.embryonic + all.established + all.closing;
                let text = format!("{used} {family} sessions, room for {}", table.capacity());
                Some(Cause { text, subject: None })
            }
            _ => None,
        }
    }

    /// Has the packet walk through the present tables. Of its payload zeros stand for what was not
    /// kept, which no door looks at but for a tunnel's checksum.
    fn denial_of_walk(&self, snapshot: &DropSnapshot) -> Option<Denial> {
        let beginning = snapshot.beginning();
        let rest = (snapshot.len as usize).checked_sub(beginning.len())?;
        let mut frame = self.trace_pool.alloc()?;
        frame.extend_from_slice(beginning).ok()?;
        frame.extend(rest).ok()?.fill(0);
        let trace = dataplane::trace(
            &self.node.publisher.tables(),
            &Fdb::new(0, 0),
            &self.node.shared.sessions,
            &self.trace_pool,
            snapshot.ingress,
            Packet::plain(frame),
            Millis(self.node.shared.origin.elapsed().as_millis() as u64),
        );
        trace.events.into_iter().find_map(|event| match event {
            TraceEvent::Policy(PolicyEvent::Judged { subject, direction, allowed: false, by }) => {
                Some(Denial { subject, direction, by })
            }
            _ => None,
        })
    }

    /// Asks the policies of both ends: of a packet without a walk of its own, as one of a session that
    /// was revoked. It may go to the server, or come from it.
    fn denial_of_ends(
        &self,
        snapshot: &DropSnapshot,
        flow: &Flow,
        destination: Option<PortId>,
    ) -> Option<Denial> {
        let policies = &self.node.publisher.tables().policies;
        let ingress = snapshot.ingress;
        let (Some(from), Some(to), Some(protocol)) = (flow.source, flow.destination, flow.number)
        else {
            // Not IP: dropped on a segment for the isolation of its sender.
            let is_isolated = policies.concern_direction(ingress, Direction::Egress);
            let direction = Direction::Egress;
            let by = DecidedBy::of(policies, ingress, direction, RuleNumber::NONE);
            return is_isolated.then_some(Denial { subject: ingress, direction, by });
        };
        let is_revoked = snapshot.reason == DropReason::PolicyRevoked;
        let to_server = [
            (Some(ingress), Direction::Egress, to, to.port),
            (destination, Direction::Ingress, from, to.port),
        ];
        let from_server = [
            (destination, Direction::Egress, from, from.port),
            (Some(ingress), Direction::Ingress, to, from.port),
        ];
        let halves = to_server.into_iter().chain(from_server.into_iter().filter(|_| is_revoked));
        halves.into_iter().find_map(|(subject, direction, peer, port): Half| {
            let subject = subject?;
            let judgement = policies.judge(subject, direction, peer.address, protocol, port);
            let by = DecidedBy::of(policies, subject, direction, judgement.rule);
            (!judgement.allowed).then_some(Denial { subject, direction, by })
        })
    }
}

/// A pod's port, what is asked of its policies, the other end, and the server's port.
type Half = (Option<PortId>, Direction, FlowEnd, Option<u16>);

/// What is used up of a port's quota. The sessions are of both IP versions, the quota is one's.
fn used_up(used: &PortSessions, quota: Quota) -> String {
    let live = used.embryonic + used.established;
    if live >= quota.live {
        format!("{live} sessions of {}", quota.live)
    } else {
        format!("{} embryonic sessions of {}", used.embryonic, quota.embryonic)
    }
}

/// What decided, behind the name of the pod; `None` if nothing denies.
fn words(by: &DecidedBy) -> Option<String> {
    match by {
        DecidedBy::NoPolicy => None,
        DecidedBy::Rule { policy, index } => Some(format!("denied by {policy} rule {index}")),
        DecidedBy::Default { policies } => {
            let named = policies.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>();
            let more = policies.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Some(format!("isolated by {}{more}", named.join(", ")))
        }
        DecidedBy::Pending => Some("waits for its policies".to_owned()),
        DecidedBy::Closed => Some("has a policy that is refused or missing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use dataplane::DecidedBy;
    use dataplane::session::{PortSessions, Quota};

    use super::{used_up, words};

    #[test]
    fn what_denies_is_named() {
        let policies = |names: &[&str]| {
            words(&DecidedBy::Default { policies: names.iter().map(ToString::to_string).collect() })
        };
        assert_eq!(policies(&["shop/a"]).as_deref(), Some("isolated by shop/a"));
        let many = policies(&["a", "b", "c", "d", "e"]);
        assert_eq!(many.as_deref(), Some("isolated by a, b, c and 2 more"));
        let rule = DecidedBy::Rule { policy: "shop/a".to_owned(), index: 3 };
        assert_eq!(words(&rule).as_deref(), Some("denied by shop/a rule 3"));
        assert_eq!(words(&DecidedBy::NoPolicy), None);
        for by in [DecidedBy::Pending, DecidedBy::Closed] {
            assert!(words(&by).is_some(), "{by:?}");
        }
    }

    #[test]
    fn the_bound_is_named_that_was_met() {
        let quota = Quota { embryonic: 4, live: 16 };
        let flood = PortSessions { embryonic: 4, established: 3, ..PortSessions::default() };
        assert_eq!(used_up(&flood, quota), "4 embryonic sessions of 4");
        let many = PortSessions { embryonic: 1, established: 15, closing: 2, steered: 0 };
        assert_eq!(used_up(&many, quota), "16 sessions of 16");
    }
}
