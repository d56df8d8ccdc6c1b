//! The API server: credentials, and what is written there.
//!
//! Enters: a kubeconfig or a pod's service account; publications and notices from `agent`. What is
//! written is written by tasks of their own, so that a server that hangs holds up nothing else; a failure
//! is logged when it begins and when it ends, not at each attempt. What is read is read by `watch`.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Attempts;
use crate::error::{Error, Result, chain};
use crate::event::{self, is_of_pod};
use crate::object::{Condition, NodeObject};
use crate::publish::{Own, Vtep};
use crate::report::Notice;

/// Between attempts to reach the server.
const FIRST_RETRY: Duration = Duration::from_millis(500);
pub(crate) const LONGEST_RETRY: Duration = Duration::from_secs(20);
/// For one request; a server that takes longer is tried again.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);
/// Between two patches of the own Node, should another controller contradict ours.
const PATCH_PAUSE: Duration = Duration::from_secs(2);
/// So many Events of Nodes and Services at once, and one more each pause: a cluster of conflicts is
/// reported in the log.
const EVENT_BURST: u32 = 20;
const EVENT_PAUSE: Duration = Duration::from_secs(10);
/// Between Events of pods, of which a node has some hundreds at most: each is made.
const POD_EVENT_PAUSE: Duration = Duration::from_millis(100);
/// The Event is there, from another node's agent or from the one before this.
const CONFLICT: u16 = 409;
/// The namespace is gone, and the pod or Service with it.
const NOT_FOUND: u16 = 404;

/// What is to be written to the own Node, and what is written there now.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The own Node as the server has it.
    pub own: Own,
    /// This node's end of the tunnels, once the daemon has reported it.
    pub vtep: Option<Vtep>,
    /// Whether flannel's annotations are written too.
    pub flannel: bool,
    /// Whether pods can be networked, and whether they are well.
    pub conditions: Vec<Condition>,
}

/// A client by the kubeconfig, or by the service account of the pod that this runs in.
///
/// # Errors
/// If neither can be used. The server is not contacted.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client> {
    let credentials = |error: &dyn std::error::Error| Error::Credentials(chain(error));
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| credentials(&error))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(|error| credentials(&error))?
        }
        None => Config::incluster().map_err(|error| credentials(&error))?,
    };
    Client::try_from(config).map_err(Error::Client)
}

/// Keeps the own Node as the newest publication has it; ends when the sender is gone.
pub async fn publish(
    client: Client,
    name: String,
    mut newest: watch::Receiver<Option<Publication>>,
) {
    let nodes: Api<NodeObject> = Api::all(client);
    let (mut attempts, mut outage) = (retries(), Outage::new("the own Node cannot be updated"));
    while newest.changed().await.is_ok() {
        while let Some(patch) = newest_patch(&mut newest) {
            let params = PatchParams::default();
            let said = patch.to_string();
            let patch = Patch::Strategic(patch);
            let written = timeout(PATIENCE, nodes.patch_status(&name, &params, &patch)).await;
            if outage.notice(flatten(written)) {
                attempts.succeeded();
                tracing::info!("updated Node {name}: {said}");
                sleep(PATCH_PAUSE).await;
                break;
            }
            // A newer publication is taken up, yet no sooner than this.
            sleep(attempts.delay()).await;
        }
    }
}

fn newest_patch(said: &mut watch::Receiver<Option<Publication>>) -> Option<serde_json::Value> {
    let publication = said.borrow_and_update().clone()?;
    let Publication { own, vtep, flannel, conditions } = publication;
    own.patch(vtep.as_ref(), flannel, &conditions, &Timestamp::now().to_string())
}

/// Makes the Events of each notice, but those of pods as far as the budget goes; ends when the sender is gone.
pub async fn report(client: Client, own: String, mut notices: mpsc::Receiver<Notice>) {
    let mut outage = Outage::new("Events cannot be created");
    let mut budget = Budget::new();
    while let Some(notice) = notices.recv().await {
        for event in event::events(&own, &notice, Timestamp::now()) {
            if is_of_pod(&event) {
                create(&client, &event, &mut outage).await;
                sleep(POD_EVENT_PAUSE).await;
            } else if budget.spend() {
                create(&client, &event, &mut outage).await;
            }
        }
    }
}

/// Tries until the server has decided.
async fn create(client: &Client, event: &Event, outage: &mut Outage) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let (params, mut attempts) = (PostParams::default(), retries());
    loop {
        let written = timeout(PATIENCE, events.create(&params, event)).await;
        let is_decided = match flatten(written) {
            Err(Failure::Server(kube::Error::Api(status)))
                if matches!(status.code, CONFLICT | NOT_FOUND) =>
            {
                outage.over();
                true
            }
            written => {
                let is_refused = written.as_ref().is_err_and(Failure::is_refusal);
                outage.notice(written) || is_refused
            }
        };
        if is_decided {
            return;
        }
        sleep(attempts.delay()).await;
    }
}

/// How many Events of Nodes and Services may be made now.
struct Budget {
    left: u32,
    refilled: Instant,
}

impl Budget {
    fn new() -> Self {
        Self { left: EVENT_BURST, refilled: Instant::now() }
    }

    fn spend(&mut self) -> bool {
        while self.refilled.elapsed() >= EVENT_PAUSE && self.left < EVENT_BURST {
            self.left += 1;
            self.refilled += EVENT_PAUSE;
        }
        if self.left == EVENT_BURST {
            self.refilled = Instant::now();
        }
        let Some(left) = self.left.checked_sub(1) else { return false };
        self.left = left;
        true
    }
}

/// The pauses between attempts to reach the server.
pub(crate) fn retries() -> Attempts {
    Attempts::between(FIRST_RETRY, LONGEST_RETRY)
}

enum Failure {
    Server(kube::Error),
    Late,
}

impl Failure {
    /// The server does not take it, however often it is sent.
    fn is_refusal(&self) -> bool {
        const TOO_MANY_REQUESTS: u16 = 429;
        matches!(self, Self::Server(kube::Error::Api(status))
            if (400..500).contains(&status.code) && status.code != TOO_MANY_REQUESTS)
    }
}

fn flatten<T, E>(
    written: std::result::Result<kube::Result<T>, E>,
) -> std::result::Result<(), Failure> {
    match written {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::Server(error)),
        Err(_) => Err(Failure::Late),
    }
}

/// Logs a failure when it begins, and that it is over.
pub(crate) struct Outage {
    what: &'static str,
    lasts: bool,
}

impl Outage {
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, lasts: false }
    }

    fn notice(&mut self, result: std::result::Result<(), Failure>) -> bool {
        match result {
            Ok(()) => self.over(),
            Err(Failure::Server(error)) => self.begin(&chain(&error)),
            Err(Failure::Late) => self.begin("the API server does not answer"),
        }
        !self.lasts
    }

    pub(crate) fn begin(&mut self, why: &str) {
        if !std::mem::replace(&mut self.lasts, true) {
            tracing::warn!("{}, and is tried again: {why}", self.what);
        }
    }

    pub(crate) fn over(&mut self) {
        if std::mem::replace(&mut self.lasts, false) {
            tracing::info!("it is over that {}", self.what);
        }
    }
}
