//! Answers that wait: for the disk, for the nftables table, for a pod's policies, or for a look at that table.
//!
//! Enters: the answer to a change, with the last line of the journal then and the table that was ordered with it; a
//! question that is answered by what `nft` shows. Leaves: the answer, once nothing is to be waited for, or a refusal.

use std::time::{Duration, Instant};

use api::{AttachmentId, Check, ErrorKind, Reply, Request, Response};
use controlplane::model::refuse;

use crate::daemon::Daemon;
use crate::journal::OnDisk;
use crate::rules::InKernel;

/// A source tells a pod's policies before its ADD, or soon after it saw the pod. A pod that has none by
/// then is added all the same, and denied everything.
const POLICY_PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer waits for the nftables table, which takes some 10 to 50 ms: less than the 3.6 s that the plugin
/// has for an ADD, so that the runtime is told what held it up.
const TABLE_PATIENCE: Duration = Duration::from_secs(3);
/// What a DEL waits: it leaves the daemon 2 s.
const RELEASE_PATIENCE: Duration = Duration::from_millis(1500);
/// How long a question waits for a look at the table. After that it is answered by the last one.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);

/// What a request comes to.
pub enum Handled {
    /// An answer at once.
    Now(Response),
    /// An answer when there is nothing to be waited for.
    Later(Held),
}

/// An answer that waits.
pub enum Held {
    /// To a change.
    Change(HeldChange),
    /// To `status`.
    Status(AwaitedLook),
    /// To CHECK of a pod with hostPorts.
    Check(Check, AwaitedLook),
}

/// The answer to a change. A refusal may wait, too: of a change that was taken back both lines must be
/// on disk, or a crash of the machine could keep the first alone.
pub struct HeldChange {
    pub(super) response: Response,
    /// The last line of the journal when it was made.
    pub(super) line: u64,
    /// It frees what a pod held.
    pub(super) is_release: bool,
    /// The nftables table that it waits for.
    pub(super) table: Option<AwaitedTable>,
    /// The pod whose policies it waits for.
    pub(super) policies: Option<AwaitedPolicies>,
}

/// A table that an answer waits for.
pub(super) struct AwaitedTable {
    number: u64,
    until: Instant,
    /// The answer promises what is in the table: a pod's hostPorts.
    is_promised: bool,
    /// The change takes from the table what nothing uses any more.
    only_takes: bool,
}

impl AwaitedTable {
    pub(super) fn new(number: u64, is_promised: bool, only_takes: bool) -> Self {
        let patience = if only_takes { RELEASE_PATIENCE } else { TABLE_PATIENCE };
        Self { number, until: Instant::now() + patience, is_promised, only_takes }
    }
}

/// Policies that an answer waits for.
pub(super) struct AwaitedPolicies {
    attachment: AttachmentId,
    until: Instant,
}

impl AwaitedPolicies {
    /// Those of a pod that was attached just now.
    pub(super) fn of(attachment: AttachmentId) -> Self {
        Self { attachment, until: Instant::now() + POLICY_PATIENCE }
    }
}

/// A look at the table that an answer waits for.
pub struct AwaitedLook {
    number: u64,
    until: Instant,
}

impl AwaitedLook {
    fn is_over(&self, daemon: &Daemon, now: Instant) -> bool {
        now >= self.until || daemon.node.rules.has_looked(self.number)
    }
}

impl Daemon {
    /// A question whose answer depends on what `nft` shows, which is looked at first.
    pub(super) fn waits_for_look(&mut self, request: &Request) -> Option<Held> {
        let compares = match request {
            Request::Status => false,
            Request::Check(check) => self.has_port_mappings(&check.attachment),
            _ => return None,
        };
        let rules = &mut self.node.rules;
        let concerns = rules.is_wanted() && (compares || matches!(request, Request::Status));
        let look = concerns.then(|| AwaitedLook {
            number: rules.look(compares),
            until: Instant::now() + LOOK_PATIENCE,
        })?;
        match request {
            Request::Check(check) => Some(Held::Check(check.clone(), look)),
            _ => Some(Held::Status(look)),
        }
    }

    /// Whether an attachment has hostPorts, or would have them with a port.
    pub(super) fn has_port_mappings(&self, attachment: &AttachmentId) -> bool {
        let lease = self.plane.model().attachments.get(attachment);
        lease.is_some_and(|lease| !lease.port_mappings.is_empty())
    }
}

impl Held {
    /// When it waits no longer for one of the things that it waits for, if it does.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let ends = match self {
            Self::Change(change) => [
                change.table.as_ref().map(|awaited| awaited.until),
                change.policies.as_ref().map(|awaited| awaited.until),
            ],
            Self::Status(look) | Self::Check(_, look) => [Some(look.until), None],
        };
        // One that is over waits for the disk, which rings.
        ends.into_iter().flatten().filter(|until| *until > now).min()
    }

    /// The answer, once nothing is to be waited for.
    pub(crate) fn due(&self, daemon: &mut Daemon, now: Instant) -> Option<Response> {
        match self {
            Self::Change(change) => change.due(daemon, now),
            Self::Status(look) => {
                look.is_over(daemon, now).then(|| Ok(Reply::Status(Box::new(daemon.status()))))
            }
            Self::Check(check, look) => {
                look.is_over(daemon, now).then(|| daemon.check(check).map(|()| Reply::Done))
            }
        }
    }
}

impl HeldChange {
    fn due(&self, daemon: &Daemon, now: Instant) -> Option<Response> {
        let answer = self.by_disk(daemon.is_on_disk(self.line))?;
        if answer.is_err() {
            return Some(answer);
        }
        let answer = self.by_table(daemon, answer, now)?;
        let is_awaited = |awaited: &AwaitedPolicies| {
            now < awaited.until && daemon.plane.is_pending(&awaited.attachment)
        };
        let waits = answer.is_ok() && self.policies.as_ref().is_some_and(is_awaited);
        (!waits).then_some(answer)
    }

    /// The answer, once it is known whether the line is on disk.
    ///
    /// A change whose line may not be there is refused and not taken back: what came after it may build
    /// on it. A pod that was added so is removed by the DEL that follows every ADD that failed; until
    /// then it has its lease, in the model and in the journal that is written anew from the model. A
    /// release stands: its pod is gone, and the new journal will not have its lease either.
    fn by_disk(&self, on_disk: OnDisk) -> Option<Response> {
        match on_disk {
            OnDisk::NotYet => None,
            OnDisk::Failed(why) if self.response.is_ok() && !self.is_release => {
                Some(Err(refuse(ErrorKind::NotReady, why)))
            }
            OnDisk::Yes | OnDisk::Failed(_) => Some(self.response.clone()),
        }
    }

    /// The answer, once it is known whether the table is in force, or that is waited for no longer.
    ///
    /// As with the disk, a change stands whose table failed: it is ordered again, and `status` names it. A pod
    /// that was promised hostPorts is refused then, and its DEL follows.
    fn by_table(&self, daemon: &Daemon, answer: Response, now: Instant) -> Option<Response> {
        let Some(AwaitedTable { number, until, is_promised, only_takes }) = &self.table else {
            return Some(answer);
        };
        match daemon.node.rules.is_in_kernel(*number) {
            InKernel::Yes => Some(answer),
            InKernel::NotYet if now < *until => None,
            InKernel::NotYet if *is_promised => Some(Err(refuse(
                ErrorKind::NotReady,
                format!(
                    "nft has not set the hostPorts within {} s; see vswitchctl status, and try again later",
                    TABLE_PATIENCE.as_secs()
                ),
            ))),
            InKernel::Failed(why) if !only_takes => {
                let stands = if *is_promised {
                    ""
                } else {
                    "; the rest of the change stands, and this is tried again every half a minute"
                };
                Some(Err(refuse(ErrorKind::Internal, format!("{why}{stands}"))))
            }
            InKernel::NotYet | InKernel::Failed(_) => Some(answer),
        }
    }
}
