//! A pod and its node, each a namespace, and a daemon that is played.

use super::daemon::Daemon;
use super::{NetNs, Run, is_root};

pub(crate) struct Lab {
    pub(crate) daemon: Daemon,
    pub(crate) node: NetNs,
    pub(crate) pod: NetNs,
}

impl Lab {
    pub(crate) fn new(test: &str) -> Option<Self> {
        is_root(test).then(|| Self { daemon: Daemon::new(), node: NetNs::new(), pod: NetNs::new() })
    }

    pub(crate) fn run(&self, version: &str) -> Run {
        Run::new(version, &self.daemon.socket()).on(&self.node).container("c1", &self.pod.path())
    }

    /// No link in either namespace, and nothing held by the daemon.
    pub(crate) fn assert_clean(&self, after: &str) {
        assert_eq!(self.pod.links(), [""; 0], "pod, {after}");
        assert_eq!(self.node.links(), [""; 0], "node, {after}");
        assert!(self.daemon.is_empty(), "daemon, {after}");
    }
}
