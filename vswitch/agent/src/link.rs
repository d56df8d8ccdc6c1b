//! The daemon as the agent has it: there or gone, and what it holds.
//!
//! Enters: the peers, prefixes, services and policies that there should be, from `agent`. Leaves: messages to
//! the daemon; its state, its refusals. A new connection asks first what the daemon has, so that neither side's
//! restart changes anything that need not change.

use std::path::PathBuf;
use std::time::Duration;

use api::{ClientError, ErrorKind, RefusedPeer, RefusedService, ServiceEntry, Status, chain};
use ipnet::IpNet;
use tokio::time::Instant;

use crate::backoff::Attempts;
use crate::cluster::Outage;
use crate::daemon::DaemonClient;
use crate::desired::Peers;
use crate::service::held::HeldServices;
use crate::service::index::Specs;
use crate::sync::Held;
use policies::{HeldPolicies, PolicyLink};

/// Between attempts to reach the daemon, which restarts within a second.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// So often its state is asked for: the underlay address may change, and it may hang.
const POLL: Duration = Duration::from_secs(5);

/// The connection to the daemon, or the wait for it.
pub(crate) struct Link {
    socket: PathBuf,
    connected: Option<Connected>,
    due: Instant,
    attempts: Attempts,
    outage: Outage,
    /// The daemon is there, and knows no services.
    without_services: Outage,
    /// Whether it is worth a word that it knows none.
    has_services: bool,
    policies: PolicyLink,
    /// Why it is not connected, and since when.
    lost: (String, Instant),
    pub(crate) messages: u64,
    pub(crate) service_messages: u64,
    pub(crate) policy_messages: u64,
}

struct Connected {
    daemon: DaemonClient,
    status: Status,
    held: Held,
    /// None of a daemon that knows no services.
    services: Option<HeldServices>,
    /// Services that it does not take, as it answered last.
    refused_services: Vec<RefusedService>,
    policies: HeldPolicies,
}

/// Peers and prefixes that the daemon did not take.
#[derive(Default)]
pub(crate) struct Refused {
    pub(crate) peers: Vec<RefusedPeer>,
    /// Why it did not take the pods' prefixes.
    pub(crate) prefixes: Option<String>,
}

impl Link {
    /// To the daemon at that socket; with `has_services` it should be one that knows services, and with
    /// `has_policies` one that knows policies.
    pub(crate) fn new(socket: PathBuf, has_services: bool, has_policies: bool) -> Self {
        let now = Instant::now();
        Self {
            socket,
            connected: None,
            due: now,
            attempts: Attempts::between(FIRST_RETRY, LONGEST_RETRY),
            outage: Outage::new("vswitchd cannot be spoken to"),
            without_services: Outage::new("vswitchd serves no Services"),
            has_services,
            policies: PolicyLink::new(has_policies),
            lost: ("it has not been asked yet".to_owned(), now),
            messages: 0,
            service_messages: 0,
            policy_messages: 0,
        }
    }

    /// When it has to be polled next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// The daemon's last status, while it is there.
    pub(crate) fn status(&self) -> Option<&Status> {
        self.connected.as_ref().map(|connected| &connected.status)
    }

    /// Why and since when it is not there; of no meaning while it is.
    pub(crate) fn lost(&self) -> (&str, Instant) {
        (&self.lost.0, self.lost.1)
    }

    /// The peers that the daemon has from us.
    pub(crate) fn held(&self) -> Option<&Peers> {
        self.connected.as_ref().map(|connected| connected.held.peers())
    }

    /// Returns once a daemon that was there is gone.
    pub(crate) async fn closed(&self) {
        match &self.connected {
            Some(connected) => connected.daemon.closed().await,
            None => std::future::pending().await,
        }
    }

    /// The daemon closed the connection; it will be looked for.
    pub(crate) fn lose_closed(&mut self) {
        let ended = std::io::ErrorKind::ConnectionAborted.into();
        self.lose(&ClientError::Broken { path: self.socket.clone(), source: ended });
    }

    /// The daemon is gone; it will be looked for.
    fn lose(&mut self, error: &ClientError) {
        let why = chain(error);
        self.outage.begin(&why);
        let since = if self.connected.take().is_some() { Instant::now() } else { self.lost.1 };
        self.lost = (why, since);
        self.due = Instant::now() + self.attempts.delay();
    }

    /// Asks for the daemon's state, of a new connection if there is none. True if it is new.
    pub(crate) async fn poll(&mut self) -> bool {
        let is_new = self.connected.is_none();
        match self.ask().await {
            Ok(()) => {
                self.outage.over();
                self.attempts.succeeded();
                self.due = Instant::now() + POLL;
                is_new
            }
            Err(error) => {
                self.lose(&error);
                false
            }
        }
    }

    async fn ask(&mut self) -> Result<(), ClientError> {
        if let Some(connected) = &mut self.connected {
            connected.status = connected.daemon.status().await?;
            return Ok(());
        }
        let mut daemon = DaemonClient::connect(&self.socket).await?;
        let services = match daemon.services().await {
            Ok(entries) => {
                self.without_services.over();
                Some(entries)
            }
            // It does not know the request, after which it closes the connection.
            Err(ClientError::Refused(reply)) if reply.kind == ErrorKind::Invalid => {
                if self.has_services {
                    self.without_services
                        .begin("it is older than this agent; install the same version of both");
                }
                daemon = DaemonClient::connect(&self.socket).await?;
                None
            }
            Err(error) => return Err(error),
        };
        let policies = self.policies.ask(&mut daemon, &self.socket).await?;
        let refused_services = services.iter().flatten().flat_map(refusals).collect();
        let services = services.map(HeldServices::shown);
        let status = daemon.status().await?;
        let held = Held::shown(daemon.peers().await?);
        let (node, peers) = (&status.node, held.peers().len());
        let count = services.as_ref().map_or(0, HeldServices::len);
        tracing::info!(
            "connected to vswitchd of {node}, which has {peers} peer(s) and {count} service(s) from Kubernetes"
        );
        self.connected =
            Some(Connected { daemon, status, held, services, refused_services, policies });
        Ok(())
    }

    /// Makes the daemon have these peers, and these prefixes where they are known.
    pub(crate) async fn program(&mut self, prefixes: Option<&[IpNet]>, peers: &Peers) -> Refused {
        let mut refused = Refused::default();
        if let Err(error) = self.try_program(prefixes, peers, &mut refused).await {
            self.lose(&error);
        }
        refused
    }

    async fn try_program(
        &mut self,
        prefixes: Option<&[IpNet]>,
        peers: &Peers,
        refused: &mut Refused,
    ) -> Result<(), ClientError> {
        let Some(connected) = &mut self.connected else { return Ok(()) };
        if let Some(prefixes) = prefixes.filter(|own| !same(own, &connected.status.pod_prefixes)) {
            match connected.daemon.set_pod_prefixes(prefixes.to_vec()).await {
                Ok(()) => tracing::info!("vswitchd has the pod prefixes {prefixes:?}"),
                Err(ClientError::Refused(reply)) => refused.prefixes = Some(reply.message),
                Err(error) => return Err(error),
            }
            connected.status = connected.daemon.status().await?;
        }
        for message in connected.held.messages(peers) {
            self.messages += 1;
            let (told, gone) = (message.peers.len(), message.gone.len());
            match connected.daemon.sync_peers(message.clone()).await {
                Ok(answer) => {
                    tracing::info!(
                        "told vswitchd of {told} peer(s), withdrew {gone}, {} refused",
                        answer.len()
                    );
                    connected.held.answered(message, &answer);
                    // Each answer names all that are refused by then.
                    refused.peers = answer;
                }
                // All of the message: what it carried is as good as refused one by one.
                Err(ClientError::Refused(reply)) => {
                    let all = message.peers.iter().map(|peer| RefusedPeer {
                        name: peer.name.clone(),
                        reason: reply.message.clone(),
                    });
                    refused.peers.extend(all);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Makes the daemon have these services; with `again` what it refused is sent once more. Returns what
    /// it refuses now; none if it cannot be asked.
    pub(crate) async fn program_services(
        &mut self,
        wanted: &Specs,
        again: bool,
    ) -> Option<&[RefusedService]> {
        if let Err(error) = self.try_program_services(wanted, again).await {
            self.lose(&error);
        }
        self.connected.as_ref().map(|connected| connected.refused_services.as_slice())
    }

    async fn try_program_services(
        &mut self,
        wanted: &Specs,
        again: bool,
    ) -> Result<(), ClientError> {
        let Some(Connected { daemon, services: Some(held), refused_services, .. }) =
            &mut self.connected
        else {
            return Ok(());
        };
        for message in held.messages(wanted, again) {
            self.service_messages += 1;
            let (told, gone) = (message.services.len(), message.gone.len());
            match daemon.sync_services(message.clone()).await {
                Ok(answer) => {
                    let refused = answer.len();
                    // A busy cluster has several of these a second.
                    tracing::debug!(
                        "told vswitchd of {told} service(s), withdrew {gone}, {refused} refused"
                    );
                    held.answered(&message, wanted, &answer);
                    *refused_services = answer;
                }
                // All of the message: what it carried is as good as refused one by one.
                Err(ClientError::Refused(reply)) => {
                    let all = message.services.into_iter().map(|service| RefusedService {
                        name: service.name,
                        reason: reply.message.clone(),
                    });
                    *refused_services = all.collect();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// What is refused of a service, as an answer to a sync has it.
fn refusals(entry: &ServiceEntry) -> impl Iterator<Item = RefusedService> + use<'_> {
    entry.refused.iter().map(|at| RefusedService {
        name: entry.spec.name.clone(),
        reason: format!("{} is not served: {}", at.address, at.reason),
    })
}

/// Whether both have the same prefixes, in whatever order.
pub(crate) fn same(a: &[IpNet], b: &[IpNet]) -> bool {
    a.len() == b.len() && a.iter().all(|prefix| b.contains(prefix))
}

mod policies;

#[cfg(test)]
mod tests;
