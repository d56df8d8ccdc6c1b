//! From what the daemon has to what it should have, in messages.
//!
//! Enters: the peers that `desired` wants. Leaves: [`PeerSync`] messages for the socket, each within
//! the codec's bound; what the daemon answered comes back. Pure.
//!
//! What the daemon has is asked of it whenever the connection is new, and kept from then on: `desired`
//! needs it, too. So a restart, of the daemon or of the agent, and every new list of the cluster's
//! nodes end in the same comparison, and what did not change is in no message. A message need not be
//! `complete` then, and a cluster may be larger than one message.

use std::collections::BTreeSet;

use api::{MAX_REQUEST_BYTES, PeerEntry, PeerSpec, PeerSync, RefusedPeer, Source};

use serde::Serialize;

use crate::desired::Peers;

/// Room for the frame around the peers of a message.
const ENVELOPE_BYTES: usize = 1024;
/// State of a peer that the daemon remembers and has not taken.
const REFUSED: &str = "refused";

/// What the daemon has from us.
#[derive(Debug, Default)]
pub struct Held {
    peers: Peers,
    /// Refused: the daemon has it in an older form, or not at all.
    doubtful: BTreeSet<String>,
}

impl Held {
    /// What the daemon has, as it shows it.
    #[must_use]
    pub fn shown(entries: Vec<PeerEntry>) -> Self {
        let mut held = Self::default();
        for entry in entries {
            held.show(entry.spec, &entry.source, &entry.state);
        }
        held
    }

    fn show(&mut self, peer: PeerSpec, source: &str, state: &str) {
        if source != Source::Kubernetes.label() {
            // Not ours to change.
        } else if state == REFUSED {
            self.doubtful.insert(peer.name);
        } else {
            self.peers.insert(peer.name.clone(), peer);
        }
    }

    /// The peers, as far as they are known.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The messages that make `wanted` of it, those that withdraw before those that add. What was
    /// refused is sent again: the answer to it shows whether it still is.
    #[must_use]
    pub fn messages(&self, wanted: &Peers) -> Vec<PeerSync> {
        let known: BTreeSet<&String> = self.peers.keys().chain(&self.doubtful).collect();
        let gone = known.into_iter().filter(|name| !wanted.contains_key(*name));
        let is_had = |peer: &PeerSpec| {
            self.peers.get(&peer.name) == Some(peer) && !self.doubtful.contains(&peer.name)
        };
        let mut messages = Messages::new(|| PeerSync {
            source: Source::Kubernetes,
            complete: false,
            peers: Vec::new(),
            gone: Vec::new(),
        });
        for name in gone {
            messages.room_for(name.len()).gone.push(name.clone());
        }
        for peer in wanted.values().filter(|peer| !is_had(peer)) {
            messages.room_for(encoded_bytes(peer)).peers.push(peer.clone());
        }
        messages.all
    }

    /// Remembers what the daemon took of a message, after which it refuses these of all.
    pub fn answered(&mut self, message: PeerSync, refused: &[RefusedPeer]) {
        for name in message.gone {
            self.peers.remove(&name);
            self.doubtful.remove(&name);
        }
        for peer in message.peers {
            self.doubtful.remove(&peer.name);
            // Until the next connection it is not known in which form the daemon has a refused one.
            if !refused.iter().any(|refused| refused.name == peer.name) {
                self.peers.insert(peer.name.clone(), peer);
            }
        }
        self.doubtful.extend(refused.iter().map(|refused| refused.name.clone()));
    }
}

/// Messages as they are filled, each within the bound.
pub(crate) struct Messages<M> {
    pub(crate) all: Vec<M>,
    left_bytes: usize,
    empty: fn() -> M,
}

impl<M> Messages<M> {
    /// None yet; each begins as `empty`.
    pub(crate) fn new(empty: fn() -> M) -> Self {
        Self { all: Vec::new(), left_bytes: 0, empty }
    }

    /// The message into which so many bytes more go.
    pub(crate) fn room_for(&mut self, bytes: usize) -> &mut M {
        // Quotes and a comma.
        let bytes = bytes + 3;
        if self.all.is_empty() || bytes > self.left_bytes {
            self.left_bytes = MAX_REQUEST_BYTES - ENVELOPE_BYTES;
            self.all.push((self.empty)());
        }
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
}

/// Bytes of an entry of a message.
pub(crate) fn encoded_bytes(entry: &impl Serialize) -> usize {
    serde_json::to_vec(entry).map_or(0, |json| json.len())
}

#[cfg(test)]
mod tests;
