//! Who tells of the other nodes, and of this one's prefixes: the cluster's agent.
//!
//! What can be taken is taken in one transaction, with one line of the journal; what cannot is
//! remembered, counted, shown, and judged again when something goes that may have been in its way.

use api::{ErrorKind, IPV6_MIN_MTU, PeerSync, RefusedPeer, Reply, Response, Source};
use ipnet::IpNet;

use super::refused;
use crate::daemon::Daemon;
use controlplane::model::Model;
use controlplane::model::sync::{Admit, Synced};
use controlplane::mtu;

/// Refusals of one request that are logged one by one; `show peers` has all.
const LOGGED: usize = 10;

impl Daemon {
    /// Takes what a source says of the other nodes, as far as it can be.
    pub(super) fn sync_peers(&mut self, sync: PeerSync) -> Response {
        let source = sync.source;
        let synced = self.with_admission(|model, admit| model.sync_peers(sync, admit))?;
        self.take_synced(source, synced)?;
        let refused = self.model.refused.iter().filter(|((of, _), _)| *of == source);
        Ok(Reply::Synced(
            refused
                .map(|((_, name), (_, reason))| RefusedPeer {
                    name: name.clone(),
                    reason: reason.clone(),
                })
                .collect(),
        ))
    }

    /// Judges what was refused again, after something was given up.
    pub(crate) fn retry_refused(&mut self) {
        let sources: Vec<_> = self.model.refused.keys().map(|(source, _)| *source).collect();
        for source in sources.into_iter().collect::<std::collections::BTreeSet<_>>() {
            let synced = self.with_admission(|model, admit| model.retry_refused(source, admit));
            if let Err(refusal) = self.take_synced(source, synced) {
                tracing::error!("{refusal}");
            }
        }
    }

    /// Peers that the pods' MTU does not allow are refused, unless it is wrong without them.
    fn with_admission<T>(&self, judge: impl FnOnce(&Model, Admit<'_>) -> T) -> T {
        let facts = self.uplink.as_ref().map(|uplink| &uplink.facts);
        let facts = facts.filter(|facts| {
            mtu::problem(&self.config, &self.model, &facts.link.name, facts.mtu).is_none()
        });
        judge(&self.model, &|peer| {
            let facts = facts?;
            mtu::alone(&self.config, &self.model, &facts.link.name, facts.mtu, peer)
        })
    }

    fn take_synced(&mut self, source: Source, synced: Synced) -> Result<(), api::ErrorReply> {
        let Synced { edits, refused } = synced;
        // What is known already costs neither a line of the journal nor new tables.
        if !edits.is_empty() {
            self.transact(&edits)?;
            tracing::info!(source = source.label(), changes = edits.len(), "peers changed");
        }
        let fresh: Vec<_> = refused
            .iter()
            .filter(|(key, said)| self.model.refused.get(key) != Some(said))
            .collect();
        for ((_, name), (_, reason)) in fresh.iter().take(LOGGED) {
            tracing::warn!(source = source.label(), "peer {name:?} is refused: {reason}");
        }
        if fresh.len() > LOGGED {
            let more = fresh.len() - LOGGED;
            tracing::warn!(source = source.label(), "{more} more are refused; see show peers");
        }
        *self.refusals.entry(source).or_default() += fresh.len() as u64;
        self.model.refused = refused;
        Ok(())
    }

    /// Takes the prefixes that the cluster assigned to this node.
    pub(super) fn set_pod_prefixes(&mut self, prefixes: &[IpNet]) -> Response {
        let edits = self.model.set_pod_prefixes(&self.config, prefixes)?;
        if edits.is_empty() {
            return Ok(Reply::Done);
        }
        let mtu = self.pod_mtu();
        if mtu < IPV6_MIN_MTU && prefixes.iter().any(|prefix| matches!(prefix, IpNet::V6(_))) {
            return refused(
                ErrorKind::Invalid,
                format!(
                    "pod prefixes: IPv6 needs packets of {IPV6_MIN_MTU} bytes, the pods' MTU is {mtu}; raise the uplink's"
                ),
            );
        }
        self.transact(&edits)?;
        tracing::info!(?prefixes, "pod prefixes set");
        self.retry_refused();
        Ok(Reply::Done)
    }
}
