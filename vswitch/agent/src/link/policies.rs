//! The policies that the daemon has, or is to have.
//!
//! Enters: the translation of the cluster's policies. Leaves: the parts of a change to the daemon, and the
//! rule sets that it refuses. What the daemon has is compared by numbers when the connection is new, and
//! whenever it does not take a change; else what has changed is sent.

use std::path::Path;
use std::time::Duration;

use api::{ClientError, ErrorKind, PolicyDigest, PolicySync, RefusedRuleSet};
use tokio::time::Instant;

use super::{Connected, Link};
use crate::backoff::Attempts;
use crate::cluster::Outage;
use crate::daemon::DaemonClient;
use crate::policy::held;
use crate::policy::live::LiveTranslation;

/// Between attempts to have the daemon take what it did not take.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// What of policies outlives a connection.
pub(super) struct PolicyLink {
    /// Whether policies are to be sent at all.
    is_wanted: bool,
    /// The daemon is there, and knows no policies.
    without: Outage,
    /// It knows them, and takes none.
    untaken: Outage,
    attempts: Attempts,
}

/// What the daemon of a connection has.
pub(super) enum HeldPolicies {
    /// Nothing, and it is to have nothing.
    None,
    /// What the numbers tell; it is to be compared.
    Digest(PolicyDigest),
    /// What was sent, so that changes of it are enough; and what of it is refused.
    Sent(Vec<RefusedRuleSet>),
    /// It did not take a change; it is compared again when it is time.
    Untaken(Instant),
}

impl PolicyLink {
    pub(super) fn new(is_wanted: bool) -> Self {
        Self {
            is_wanted,
            without: Outage::new("vswitchd enforces no policies"),
            untaken: Outage::new("vswitchd does not take the policies"),
            attempts: Attempts::between(FIRST_RETRY, LONGEST_RETRY),
        }
    }

    /// Asks the daemon of a new connection what it has. One that does not know the request closes the
    /// connection, which is then made again.
    pub(super) async fn ask(
        &mut self,
        daemon: &mut DaemonClient,
        socket: &Path,
    ) -> Result<HeldPolicies, ClientError> {
        if !self.is_wanted {
            return Ok(HeldPolicies::None);
        }
        match daemon.policy_digest().await {
            Ok(digest) => {
                self.without.over();
                Ok(HeldPolicies::Digest(digest))
            }
            Err(ClientError::Refused(reply)) if reply.kind == ErrorKind::Invalid => {
                self.without.begin("it is older than this agent; install the same version of both");
                *daemon = DaemonClient::connect(socket).await?;
                Ok(HeldPolicies::None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Link {
    /// Makes the daemon have these policies. Returns what it refuses now; none if it cannot be asked.
    pub(crate) async fn program_policies(
        &mut self,
        live: &mut LiveTranslation,
    ) -> Option<&[RefusedRuleSet]> {
        if let Err(error) = self.try_program_policies(live).await {
            self.lose(&error);
        }
        match &self.connected.as_ref()?.policies {
            HeldPolicies::Sent(refused) => Some(refused),
            _ => None,
        }
    }

    /// When the daemon is to be asked again to take what it did not take.
    pub(crate) fn policies_due(&self) -> Option<Instant> {
        match self.connected.as_ref()?.policies {
            HeldPolicies::Untaken(due) => Some(due),
            _ => None,
        }
    }

    async fn try_program_policies(
        &mut self,
        live: &mut LiveTranslation,
    ) -> Result<(), ClientError> {
        // What is not sent now is found by a comparison.
        let changes = live.take_changes();
        let Some(Connected { daemon, policies, .. }) = &mut self.connected else { return Ok(()) };
        let parts = match policies {
            HeldPolicies::None => return Ok(()),
            HeldPolicies::Digest(digest) => held::difference(live, std::mem::take(digest)),
            HeldPolicies::Sent(_) if changes.is_empty() => return Ok(()),
            HeldPolicies::Sent(_) => held::changed(live, changes),
            HeldPolicies::Untaken(due) if *due > Instant::now() => return Ok(()),
            HeldPolicies::Untaken(_) => held::difference(live, daemon.policy_digest().await?),
        };
        if parts.is_empty() {
            return Ok(());
        }
        let was_sent = matches!(policies, HeldPolicies::Sent(_));
        let mut answer = send(daemon, parts, &mut self.policy_messages).await?;
        if answer.is_err() && was_sent {
            // It may have something else than it was sent: at once from the beginning, the first time.
            let parts = held::difference(live, daemon.policy_digest().await?);
            answer = send(daemon, parts, &mut self.policy_messages).await?;
        }
        *policies = match answer {
            Ok(refused) => {
                self.policies.untaken.over();
                self.policies.attempts.succeeded();
                HeldPolicies::Sent(refused)
            }
            Err(why) => {
                self.policies.untaken.begin(&why);
                HeldPolicies::Untaken(Instant::now() + self.policies.attempts.delay())
            }
        };
        Ok(())
    }
}

/// Sends a change; what the daemon refuses after it, or why it did not take it.
async fn send(
    daemon: &mut DaemonClient,
    parts: Vec<PolicySync>,
    messages: &mut u64,
) -> Result<Result<Vec<RefusedRuleSet>, String>, ClientError> {
    let mut refused = Vec::new();
    for part in parts {
        let PolicySync { groups, rule_sets, subjects, gone_groups, .. } = &part;
        let (groups, gone) = (groups.len(), gone_groups.len());
        let (rule_sets, subjects) = (rule_sets.len(), subjects.len());
        // One without content asks what is refused.
        *messages += u64::from(!held::is_empty(&part));
        match daemon.sync_policies(part).await {
            Ok(answer) => refused = answer,
            Err(ClientError::Refused(reply)) => return Ok(Err(reply.message)),
            Err(error) => return Err(error),
        }
        // A busy cluster has several of these a second.
        tracing::debug!(
            "told vswitchd of {groups} group(s), {rule_sets} rule set(s) and {subjects} pod(s), withdrew {gone} group(s)"
        );
    }
    Ok(Ok(refused))
}

#[cfg(test)]
mod tests;
