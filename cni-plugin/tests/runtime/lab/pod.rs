//! A pod and its node, each a namespace, and a daemon that is played.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use api::{Request, Reserve};
use serde_json::Value;

use super::daemon::Daemon;
use super::{NetNs, Run, is_root};

/// Bytes of the virtio header before each frame of a TAP.
const VNET_HEADER_BYTES: usize = 12;

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

    /// Frames that the pod has sent by that interface, as the daemon finds them.
    pub(crate) fn sent(&self, ifname: &str) -> Vec<Vec<u8>> {
        let state = self.daemon.state();
        let port = state.attached.iter().find(|one| one.id.ifname == ifname).expect("attached");
        let mut frames = Vec::new();
        let mut space = [MaybeUninit::uninit(); 4096];
        // It is non-blocking.
        while let Ok((frame, _)) = rustix::io::read(port.tap.as_fd(), &mut space) {
            frames.push(frame.get(VNET_HEADER_BYTES..).expect("a virtio header").to_vec());
        }
        frames
    }

    /// ADD, CHECK and DEL succeed; answers with ADD's result.
    pub(crate) fn comes_and_goes(&self, run: &Run, what: &str) -> Value {
        let added = run.add();
        assert!(added.success, "{what}: {added:?}");
        let result = added.json();
        if run.knows("CHECK") {
            let checked = run.check(&result);
            assert!(checked.success, "{what}: {checked:?}");
        }
        let deleted = run.del();
        assert!(deleted.success, "{what}: {deleted:?}");
        self.assert_clean(what);
        result
    }

    /// The reservation that the daemon was asked for last.
    pub(crate) fn reservation(&self) -> Reserve {
        let state = self.daemon.state();
        let reserve = state.requests.iter().rev().find_map(|request| match request {
            Request::Reserve(reserve) => Some(reserve.clone()),
            _ => None,
        });
        reserve.expect("asked")
    }
}
