//! Which nodes are kept out, and how the agent is.
//!
//! Enters: refusals of `desired` and of the daemon, and the agent's state. Leaves: log lines, Events
//! to `cluster`, and the state file, which the readiness probe and people read. Each refusal is reported
//! when it begins, when its reason changes, and when it ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use api::RefusedPeer;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::node::node_of;

/// The file lists so many; the rest is counted.
const LISTED: usize = 100;
/// So many are logged at once; the rest is counted.
const LOGGED: usize = 20;
/// A state that was not written anew for so long is that of an agent that hangs.
const STALE: Duration = Duration::from_secs(30);

/// A node that is kept out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOut {
    /// Name of the node.
    pub node: String,
    /// Completes "node … is kept out: ".
    pub why: String,
}

/// Divides refusals into those that begin and those that end.
#[derive(Debug)]
pub struct Report {
    standing: BTreeMap<String, String>,
    events: mpsc::Sender<KeptOut>,
}

impl Report {
    /// Sends each refusal that begins to `events` too, as long as there is room.
    #[must_use]
    pub fn new(events: mpsc::Sender<KeptOut>) -> Self {
        Self { standing: BTreeMap::new(), events }
    }

    /// These are all: those of the Nodes themselves by name, and what the daemon did not take.
    pub fn settle(&mut self, nodes: &BTreeMap<String, String>, daemon: &[RefusedPeer]) {
        let mut all = nodes.clone();
        for RefusedPeer { name, reason } in daemon {
            all.entry(node_of(name).to_owned())
                .or_insert_with(|| format!("this node's vswitchd does not take it: {reason}"));
        }
        let new = all.iter().filter(|(node, why)| self.standing.get(*node) != Some(why));
        let mut count = 0_usize;
        for (node, why) in new {
            count += 1;
            if count <= LOGGED {
                tracing::warn!("node {node} is kept out: {why}");
            }
            // The log and the state file have it; Events are a convenience.
            let _ = self.events.try_send(KeptOut { node: node.clone(), why: why.clone() });
        }
        if count > LOGGED {
            tracing::warn!("and {} nodes more are kept out", count - LOGGED);
        }
        for node in self.standing.keys().filter(|node| !all.contains_key(*node)) {
            tracing::info!("node {node} is no longer kept out");
        }
        self.standing = all;
    }

    /// Nodes that are kept out, and why.
    #[must_use]
    pub fn standing(&self) -> &BTreeMap<String, String> {
        &self.standing
    }
}

/// The agent's state, as its file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Pods can be networked on this node.
    pub ready: bool,
    /// Why not, or nothing.
    pub why: String,
    /// The API server answers; what is known of the cluster is up to date.
    pub api_server: bool,
    /// Nodes of the cluster, this one included.
    pub nodes: usize,
    /// Nodes that are not complete yet.
    pub pending: usize,
    /// Peers that vswitchd has from here.
    pub peers: usize,
    /// Messages with peers to vswitchd, since the agent started.
    pub sync_messages: u64,
    /// Nodes that are kept out.
    pub refused_count: usize,
    /// The first hundred of them, and why.
    pub refused: BTreeMap<String, String>,
}

impl State {
    /// Fills in the nodes that are kept out.
    #[must_use]
    pub fn with_refused(mut self, standing: &BTreeMap<String, String>) -> Self {
        self.refused_count = standing.len();
        let listed = standing.iter().take(LISTED);
        self.refused = listed.map(|(node, why)| (node.clone(), why.clone())).collect();
        self
    }

    /// Writes the file, whole or not at all; also if nothing changed, as a sign of life.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::File { action: "write", path: path.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(failed)
    }

    /// What the probe makes of the file.
    ///
    /// # Errors
    /// If the agent is not ready, or there is no sign of its life.
    pub fn probe(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
        let text = fs::read(path).map_err(failed)?;
        let written = fs::metadata(path).and_then(|meta| meta.modified()).map_err(failed)?;
        let state: Self =
            serde_json::from_slice(&text).map_err(|error| Error::Probe(error.to_string()))?;
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        if age > STALE {
            return Err(Error::Probe(format!("no sign of life for {} s", age.as_secs())));
        }
        if state.ready { Ok(state) } else { Err(Error::Probe(state.why)) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use api::RefusedPeer;
    use tokio::sync::mpsc;

    use super::{KeptOut, LISTED, Report, STALE, State};

    fn refused(nodes: &[(&str, &str)]) -> BTreeMap<String, String> {
        nodes.iter().map(|(node, why)| ((*node).to_owned(), (*why).to_owned())).collect()
    }

    #[test]
    fn each_refusal_is_told_once_until_its_reason_changes() {
        let (sender, mut events) = mpsc::channel(8);
        let mut report = Report::new(sender);
        report.settle(&refused(&[("a", "x")]), &[]);
        report.settle(&refused(&[("a", "x")]), &[]);
        report.settle(&refused(&[("a", "y")]), &[]);
        let by_daemon = RefusedPeer { name: "b/v6".to_owned(), reason: "z".to_owned() };
        report.settle(&BTreeMap::new(), &[by_daemon]);
        drop(report);
        let mut told = Vec::new();
        while let Ok(KeptOut { node, why }) = events.try_recv() {
            told.push(format!("{node}: {why}"));
        }
        assert_eq!(told, ["a: x", "a: y", "b: this node's vswitchd does not take it: z"]);
    }

    #[test]
    fn the_probe_believes_a_ready_state_that_is_fresh() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.json");
        assert!(State::probe(&path).is_err(), "there is none");
        let state = State { ready: true, ..State::default() };
        state.write(&path).expect("written");
        assert_eq!(State::probe(&path).expect("ready"), state);
        let old = SystemTime::now() - STALE - Duration::from_secs(1);
        File::options().append(true).open(&path).and_then(|f| f.set_modified(old)).expect("aged");
        assert!(State::probe(&path).is_err(), "it hangs");
        State { why: "no daemon".to_owned(), ..State::default() }.write(&path).expect("written");
        let error = State::probe(&path).expect_err("not ready");
        assert_eq!(error.to_string(), "not ready: no daemon");
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_whole() {
        let many: BTreeMap<_, _> =
            (0..LISTED + 5).map(|n| (format!("n{n}"), "x".to_owned())).collect();
        let state = State::default().with_refused(&many);
        assert_eq!((state.refused.len(), state.refused_count), (LISTED, LISTED + 5));
    }
}
