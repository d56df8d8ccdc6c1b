//! Why a pod could not be added now, and which pods suffer, as far as the control plane alone knows.

use api::{ServiceProblem, ServiceProblemKind};

use super::ControlPlane;

impl ControlPlane {
    /// What would refuse the next pod, whichever it is, and what pods that are there lack.
    #[must_use]
    pub fn problems(&self) -> Vec<ServiceProblem> {
        let mut problems = Vec::new();
        let mut found = |kind, reason| problems.push(ServiceProblem { kind, reason });
        if self.model.pods.current().is_empty() {
            let reason = "this node has no pod prefixes yet; vswitch-agent gets them from the cluster, or node.pod_prefixes in the daemon's configuration names them";
            found(ServiceProblemKind::AddsFail, reason.to_owned());
        }
        if self.ports.next_free().is_none() {
            let reason = "every port number is in use: this node has no room for another pod";
            found(ServiceProblemKind::AddsFail, reason.to_owned());
        }
        if let Err(error) = self.model.ipam.allocate(&[], &[]) {
            found(ServiceProblemKind::NoAddress, error.to_string());
        }
        if let Some(lost) = self.lost_note() {
            found(ServiceProblemKind::PodsSuffer, lost);
        }
        problems
    }
}
