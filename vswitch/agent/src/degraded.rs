//! The Node's condition `PodNetworkDegraded`: whether vswitchd reports something that pods suffer from, or
//! that keeps pods from being added.
//!
//! Enters: the daemon's status. Leaves: a condition, to `publish`. Pure. `NetworkUnavailable` is another
//! matter: by that the scheduler keeps every pod away, which a single pod without interface is no reason for.

use api::{ServiceProblemKind, Status};

use crate::object::Condition;

/// Type of the condition.
pub const POD_NETWORK_DEGRADED: &str = "PodNetworkDegraded";
/// Characters of a message; a sentence names five pods at most.
const MESSAGE_CHARS: usize = 1024;

/// The condition of a node with this status; without one nothing is known of its pods.
#[must_use]
pub fn condition(status: Option<&Status>) -> Condition {
    let Some(status) = status else {
        return of("Unknown", "VswitchdIsDown", "vswitchd does not report on this node's pods");
    };
    let mut problems: Vec<_> = status.problems.iter().collect();
    problems.sort_by_key(|problem| rank(problem.kind));
    let Some(worst) = problems.first() else {
        return of("False", "PodNetworkIsWell", "vswitchd reports no problem");
    };
    let reason = match worst.kind {
        ServiceProblemKind::PodsSuffer if !status.lost_pods.is_empty() => "PodInterfaceLost",
        ServiceProblemKind::PodsSuffer => "PodsSuffer",
        ServiceProblemKind::AddsFail => "AddsFail",
        ServiceProblemKind::NoAddress => "NoAddress",
    };
    let reasons: Vec<_> = problems.iter().map(|problem| problem.reason.as_str()).collect();
    of("True", reason, &cut(&reasons.join("; ")))
}

fn rank(kind: ServiceProblemKind) -> u8 {
    match kind {
        ServiceProblemKind::PodsSuffer => 0,
        ServiceProblemKind::AddsFail => 1,
        ServiceProblemKind::NoAddress => 2,
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

fn of(status: &str, reason: &str, message: &str) -> Condition {
    Condition {
        kind: POD_NETWORK_DEGRADED.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use api::{AttachmentId, LostPod, ServiceProblem, ServiceProblemKind, Status};
    use serde_json::json;

    use super::{MESSAGE_CHARS, condition};

    fn status(problems: &[(ServiceProblemKind, &str)]) -> Status {
        let status = json!({
            "version": "0", "node": "own", "uptime_seconds": 1, "epoch": 1, "pod_prefixes": [],
            "cluster_prefixes": [], "pod_mtu": 1450, "pods": 0, "peers": 0, "uplink": null,
            "workers": [], "host_interface": null, "masquerade": null,
            "publish_latency_us": null, "choices": [], "warnings": [],
        });
        let mut status: Status = serde_json::from_value(status).expect("a status");
        status.problems = problems
            .iter()
            .map(|(kind, reason)| ServiceProblem { kind: *kind, reason: (*reason).to_owned() })
            .collect();
        status
    }

    fn said(status: Option<&Status>) -> (String, String, String) {
        let condition = condition(status);
        (
            condition.status,
            condition.reason.unwrap_or_default(),
            condition.message.unwrap_or_default(),
        )
    }

    #[test]
    fn what_pods_suffer_from_comes_first_and_nothing_is_left_out() {
        let problems = [
            (ServiceProblemKind::NoAddress, "no address is left"),
            (ServiceProblemKind::PodsSuffer, "the uplink is down"),
        ];
        let (status, reason, message) = said(Some(&status(&problems)));
        assert_eq!((status.as_str(), reason.as_str()), ("True", "PodsSuffer"));
        assert_eq!(message, "the uplink is down; no address is left");
    }

    #[test]
    fn a_lost_interface_is_the_reason_and_it_is_taken_back() {
        let lost =
            "1 pod(s) lost their interface: delete these pods, so that they are made anew: a/b";
        let mut status = status(&[(ServiceProblemKind::PodsSuffer, lost)]);
        let attachment = AttachmentId { container_id: "c1".into(), ifname: "eth0".into() };
        status.lost_pods = vec![LostPod { attachment, pod: None }];
        let expected = ("True".into(), "PodInterfaceLost".into(), lost.into());
        assert_eq!(said(Some(&status)), expected);
        (status.problems, status.lost_pods) = (vec![], vec![]);
        let (is, reason, _) = said(Some(&status));
        assert_eq!((is.as_str(), reason.as_str()), ("False", "PodNetworkIsWell"));
        let (is, reason, _) = said(None);
        assert_eq!((is.as_str(), reason.as_str()), ("Unknown", "VswitchdIsDown"));
    }

    #[test]
    fn a_message_is_bounded() {
        let long = "ä".repeat(MESSAGE_CHARS + 1);
        let (_, _, message) = said(Some(&status(&[(ServiceProblemKind::AddsFail, &long)])));
        assert_eq!(message.chars().count(), MESSAGE_CHARS + 1);
        assert!(message.ends_with('…'));
    }
}
