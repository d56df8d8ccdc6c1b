//! What judges each half of a connection, and how.
//!
//! Enters: what the walk of its first packet told. Leaves: the policies of a pod of this node and what they say
//! of the connection, also of the half that the walk did not come to as the other was denied.

use std::net::IpAddr;

use api::{DecidingRule, Isolation, Judge};
use controlplane::ports::HOST;
use dataplane::tables::policy::{Direction, DirectionPolicy};
use dataplane::tables::{PortId, Tables};
use dataplane::wire::Protocol;
use dataplane::{PolicyEvent, Trace, TraceEvent};

use crate::daemon::Daemon;

/// A half of a connection, as the pod there sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Half {
    pub(super) direction: Direction,
    /// Address of the other end.
    pub(super) peer: IpAddr,
    /// The server's port, if the protocol has any.
    pub(super) port: Option<u16>,
}

impl Daemon {
    /// What judges that the source opens the connection.
    pub(super) fn judge_of_source(
        &self,
        trace: &Trace,
        ingress: PortId,
        source: IpAddr,
        half: Half,
        protocol: Protocol,
    ) -> Judge {
        if self.port_with(source) == Some(ingress) {
            return self.judge_of_pod(ingress, half, protocol);
        }
        let tables = self.node.publisher.tables();
        if is_exempt(trace) || ingress == HOST && tables.is_of_node(source) {
            return Judge::Node;
        }
        self.judge_elsewhere(source)
    }

    /// What judges that the target is reached.
    pub(super) fn judge_of_target(
        &self,
        trace: &Trace,
        target: IpAddr,
        half: Half,
        protocol: Protocol,
    ) -> Judge {
        match self.port_with(target) {
            Some(port) if is_exempt(trace) => Judge::OwnNode { pod: self.name_of(port) },
            Some(port) => self.judge_of_pod(port, half, protocol),
            None if self.node.publisher.tables().is_of_node(target) => Judge::Node,
            None => self.judge_elsewhere(target),
        }
    }

    fn judge_elsewhere(&self, address: IpAddr) -> Judge {
        let node = self.peer_of(address).map(|peer| peer.name.clone());
        node.map_or(Judge::Nobody, |node| Judge::OtherNode { node })
    }

    fn judge_of_pod(&self, port: PortId, half: Half, protocol: Protocol) -> Judge {
        judged(&self.node.publisher.tables(), port, self.name_of(port), half, protocol)
    }
}

/// The connection is this node's own.
fn is_exempt(trace: &Trace) -> bool {
    let is_exempt =
        |event: &TraceEvent| matches!(event, TraceEvent::Policy(PolicyEvent::Exempt { .. }));
    trace.events.iter().any(is_exempt)
}

/// What the policies of the pod behind a port say.
fn judged(tables: &Tables, port: PortId, pod: String, half: Half, protocol: Protocol) -> Judge {
    let Half { direction, peer, port: peer_port } = half;
    let judgement = tables.policies.judge(port, direction, peer, protocol, peer_port);
    let (isolation, policies, rule) = match tables.policies.of(port, direction) {
        DirectionPolicy::Open => (Isolation::Open, Vec::new(), None),
        DirectionPolicy::Pending => (Isolation::Pending, Vec::new(), None),
        DirectionPolicy::Closed => (Isolation::Closed, Vec::new(), None),
        DirectionPolicy::Rules(table) => {
            let rule = table
                .rule(judgement.rule)
                .map(|rule| DecidingRule { policy: rule.policy.to_owned(), index: rule.index });
            (Isolation::Policies, table.policies().map(str::to_owned).collect(), rule)
        }
    };
    Judge::ThisNode { pod, isolation, policies, allowed: judgement.allowed, rule }
}
