//! Judges what a source names of the other nodes, peer by peer.
//!
//! Enters: `SyncPeers`. Leaves: edits for what changed and may be, and a reason for each peer that
//! may not. No peer loses what it has to another that claims it too: the one that was there stays, in
//! its old form if the new one cannot be, and a newcomer waits until it is free.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use api::{ErrorKind, ErrorReply, PeerSpec, PeerSync, Source};

use super::{Edit, Model, Refused, refuse};
use crate::config::Claims;

/// Old and new claims may depend on one another in long chains. After so many rounds a peer that is
/// still undecided stays as it was; the source's next message is judged by that.
const ROUNDS: usize = 8;

/// What else stands against a peer, that the model does not have.
pub type Admit<'a> = &'a dyn Fn(&PeerSpec) -> Option<String>;

/// The judgement of a sync.
#[derive(Debug, Default)]
pub struct Synced {
    /// What changes; nothing if all is known.
    pub edits: Vec<Edit>,
    /// What the model is to remember as refused, of all sources.
    pub refused: Refused,
}

impl Model {
    /// Judges what a source names.
    ///
    /// # Errors
    /// If the source may not send it.
    pub fn sync_peers(&self, sync: PeerSync, admit: Admit<'_>) -> Result<Synced, ErrorReply> {
        if sync.source != Source::Kubernetes {
            return Err(refuse(
                ErrorKind::Invalid,
                format!(
                    "the peers of source \"{}\" are not synced: kubernetes alone is",
                    sync.source.label()
                ),
            ));
        }
        Ok(self.judge_sync(sync, admit))
    }

    /// Judges anew what a source named last and could not have.
    #[must_use]
    pub fn retry_refused(&self, source: Source, admit: Admit<'_>) -> Synced {
        let nothing = PeerSync { source, complete: false, peers: Vec::new(), gone: Vec::new() };
        self.judge_sync(nothing, admit)
    }

    fn judge_sync(&self, sync: PeerSync, admit: Admit<'_>) -> Synced {
        let PeerSync { source, complete, peers, gone } = sync;
        let none = BTreeMap::new();
        let known = self.source_rib.peers.get(&source).unwrap_or(&none);
        // The last form of each, in the order in which they came; those that wait already come
        // before new ones.
        let gone: HashSet<&str> = gone.iter().map(String::as_str).collect();
        let mut wanted: BTreeMap<&str, &PeerSpec> = BTreeMap::new();
        let mut order: Vec<&str> = Vec::new();
        let waiting = self
            .refused
            .iter()
            .filter(|((of, name), _)| *of == source && !complete && !gone.contains(name.as_str()));
        let waited = |name: &str| self.refused.contains_key(&(source, name.to_owned()));
        for peer in waiting.map(|(_, (peer, _))| peer).chain(&peers) {
            if wanted.insert(&peer.name, peer).is_none() {
                order.push(&peer.name);
            }
        }
        order.sort_by_cached_key(|name| !waited(name));

        let mut edits = Vec::new();
        let mut stays: BTreeMap<&str, &PeerSpec> = BTreeMap::new();
        let mut changed: Vec<&PeerSpec> = Vec::new();
        for (name, peer) in known {
            match wanted.get(name.as_str()) {
                Some(new) if **new == **peer => {
                    stays.insert(name, peer);
                }
                Some(new) => changed.push(new),
                None if complete || gone.contains(name.as_str()) => {
                    edits.push(Edit::NoPeer { name: name.clone(), source });
                }
                None => {
                    stays.insert(name, peer);
                }
            }
        }
        let fresh =
            order.iter().filter(|name| !known.contains_key(**name)).map(|name| wanted[name]);
        let edit_of = |peer: &PeerSpec| Edit::Peer { peer: peer.clone(), source };
        let mut refused: Refused =
            self.refused.iter().filter(|((of, _), _)| *of != source).map(cloned).collect();
        let coming: Vec<&PeerSpec> = changed.iter().copied().chain(fresh.clone()).collect();
        if self.have_room(&stays, &coming, admit) {
            edits.extend(coming.into_iter().map(edit_of));
            return Synced { edits, refused };
        }
        let (taken, mut claims) = self.decide_changed(known, &stays, changed.clone(), admit);
        let is_taken: HashSet<&str> = taken.iter().map(|peer| peer.name.as_str()).collect();
        edits.extend(taken.into_iter().map(edit_of));

        // Those that stayed in their old form: what stood in their way may have moved meanwhile.
        for new in changed.iter().filter(|new| !is_taken.contains(new.name.as_str())) {
            let old = &known[&new.name];
            claims.release(old);
            match problem(&claims, new, admit) {
                None => {
                    claims.take(new);
                    edits.push(edit_of(new));
                }
                Some(problem) => {
                    claims.take(old);
                    let reason = format!("{problem}; it stays as it was");
                    refused.insert((source, new.name.clone()), ((*new).clone(), reason));
                }
            }
        }
        for new in fresh {
            match problem(&claims, new, admit) {
                None => {
                    claims.take(new);
                    edits.push(edit_of(new));
                }
                Some(problem) => {
                    refused.insert((source, new.name.clone()), (new.clone(), problem));
                }
            }
        }
        Synced { edits, refused }
    }

    /// Whether nothing stands against these beside those that stay, which is so nearly always: then none is to be
    /// judged beside each of the others.
    fn have_room(
        &self,
        stays: &BTreeMap<&str, &PeerSpec>,
        coming: &[&PeerSpec],
        admit: Admit<'_>,
    ) -> bool {
        let claims = self.claims_with_pods();
        let all: Vec<_> = stays.values().chain(coming).copied().collect();
        coming.iter().all(|peer| claims.judge_alone(peer).is_empty() && admit(peer).is_none())
            && claims.have_room_for(&all)
    }

    /// Of the known peers that are to change, those that can all at once; and what each peer has
    /// then. One that cannot keeps what it has, and others may not have it.
    fn decide_changed<'a>(
        &'a self,
        known: &'a BTreeMap<String, Arc<PeerSpec>>,
        stays: &BTreeMap<&'a str, &'a PeerSpec>,
        mut changing: Vec<&'a PeerSpec>,
        admit: Admit<'_>,
    ) -> (Vec<&'a PeerSpec>, Claims<'a>) {
        let mut reverted: Vec<&PeerSpec> = Vec::new();
        for round in 0.. {
            let mut claims = self.claims_with_pods();
            stays.values().chain(&reverted).for_each(|peer| claims.take(peer));
            if round == ROUNDS {
                changing.iter().for_each(|new| claims.take(&known[&new.name]));
                return (Vec::new(), claims);
            }
            let before = changing.len();
            changing.retain(|new| {
                let is_possible = problem(&claims, new, admit).is_none();
                if is_possible {
                    claims.take(new);
                } else {
                    reverted.push(&known[&new.name]);
                }
                is_possible
            });
            if changing.len() == before {
                return (changing, claims);
            }
        }
        unreachable!("a round decides or is the last")
    }
}

fn problem(claims: &Claims<'_>, peer: &PeerSpec, admit: Admit<'_>) -> Option<String> {
    match claims.judge(peer).into_iter().next() {
        Some((field, message)) => Some(format!("{field}: {message}")),
        None => admit(peer),
    }
}

fn cloned(
    (key, value): (&(Source, String), &(PeerSpec, String)),
) -> ((Source, String), (PeerSpec, String)) {
    (key.clone(), value.clone())
}
