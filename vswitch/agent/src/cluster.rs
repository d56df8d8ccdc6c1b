//! The API server: credentials, the watch of all Nodes, and what is written there.
//!
//! Enters: a kubeconfig or a pod's service account; publications and refusals from `agent`. Leaves:
//! Nodes, to `agent`. What is written is written by tasks of their own, so that a server that hangs
//! holds up nothing else; a failure is logged when it begins and when it ends, not at each attempt.

use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Client, Config};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Attempts;
use crate::error::{Error, Result, chain};
use crate::object::NodeObject;
use crate::publish::{Health, Own, Vtep};
use crate::report::KeptOut;

/// Between attempts to reach the server.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(20);
/// For one request; a server that takes longer is tried again.
const PATIENCE: Duration = Duration::from_secs(15);
/// A watch that has not failed after so long has begun.
const SETTLED: Duration = Duration::from_secs(1);
/// Between two patches of the own Node, should another controller contradict ours.
const PATCH_PAUSE: Duration = Duration::from_secs(2);
/// So many Events at once, and one more each pause: a cluster of conflicts is reported in the log.
const EVENT_BURST: u32 = 20;
const EVENT_PAUSE: Duration = Duration::from_secs(10);
/// Objects of one page of a list: at some ten kilobytes a Node, a few megabytes.
const PAGE: u32 = 500;

/// What is to be written to the own Node, and what is written there now.
#[derive(Debug, Clone, PartialEq)]
pub struct Publication {
    /// The own Node as the server has it.
    pub own: Own,
    /// This node's end of the tunnels, once the daemon has reported it.
    pub vtep: Option<Vtep>,
    /// Whether flannel's annotations are written too.
    pub flannel: bool,
    /// Whether pods can be networked.
    pub health: Health,
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

/// What the watch reports.
#[derive(Debug)]
pub enum Seen {
    /// A Node, or the begin or end of a list of all.
    Event(Box<watcher::Event<NodeObject>>),
    /// The watch has broken off or cannot begin, and why. It is begun anew once the server answers.
    Lost(String),
    /// It goes on.
    Back,
}

/// All Nodes and what becomes of them, for ever. A watch that was lost goes on where it was; one that
/// has expired begins with a new list.
pub fn nodes(client: &Client) -> impl Stream<Item = Seen> + use<> {
    let config = watcher::Config::default().page_size(PAGE);
    let watch = Watch {
        events: Box::pin(watcher(Api::all(client.clone()), config)),
        client: client.clone(),
        attempts: retries(),
        is_lost: false,
    };
    unfold(watch, |mut watch| async {
        let seen = watch.next().await?;
        Some((seen, watch))
    })
}

struct Watch<S> {
    events: Pin<Box<S>>,
    client: Client,
    attempts: Attempts,
    is_lost: bool,
}

impl<S: Stream<Item = watcher::Result<watcher::Event<NodeObject>>>> Watch<S> {
    async fn next(&mut self) -> Option<Seen> {
        let event = if self.is_lost {
            self.wait_for_server().await;
            // kube does not announce that a watch has begun; but it soon reports that one has not.
            match timeout(SETTLED, self.events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    self.is_lost = false;
                    return Some(Seen::Back);
                }
            }
        } else {
            self.events.next().await
        };
        Some(match event? {
            Ok(event) => {
                // The begin of a list comes before the server has answered.
                if !matches!(event, watcher::Event::Init) {
                    self.is_lost = false;
                    self.attempts.succeeded();
                }
                Seen::Event(Box::new(event))
            }
            Err(error) => {
                self.is_lost = true;
                Seen::Lost(chain(&error))
            }
        })
    }

    async fn wait_for_server(&mut self) {
        loop {
            sleep(self.attempts.delay()).await;
            match timeout(PATIENCE, self.client.apiserver_version()).await {
                // A server that refuses the answer answers, too.
                Ok(Err(kube::Error::Api(status))) if status.code < 500 => return,
                Ok(Ok(_)) => return,
                _ => {}
            }
        }
    }
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
    let Publication { own, vtep, flannel, health } = publication;
    own.patch(vtep.as_ref(), flannel, &health, &Timestamp::now().to_string())
}

/// Makes an Event of each refusal, as far as the budget goes; ends when the sender is gone.
pub async fn report(client: Client, own: String, mut refusals: mpsc::Receiver<KeptOut>) {
    // Events of what has no namespace are kept in this one.
    let events: Api<Event> = Api::namespaced(client, "default");
    let mut outage = Outage::new("Events cannot be created");
    let (mut budget, mut refilled) = (EVENT_BURST, Instant::now());
    while let Some(refusal) = refusals.recv().await {
        while refilled.elapsed() >= EVENT_PAUSE && budget < EVENT_BURST {
            budget += 1;
            refilled += EVENT_PAUSE;
        }
        if budget == EVENT_BURST {
            refilled = Instant::now();
        }
        let Some(left) = budget.checked_sub(1) else { continue };
        budget = left;
        let event = event(&own, &refusal);
        let params = PostParams::default();
        let written = timeout(PATIENCE, events.create(&params, &event)).await;
        match flatten(written) {
            // Another node's agent has written the same.
            Err(Failure::Server(kube::Error::Api(status))) if status.code == 409 => {}
            written => {
                outage.notice(written);
            }
        }
    }
}

/// All agents give the same name to the same refusal, so that it is there once.
fn event(own: &str, refusal: &KeptOut) -> Event {
    let KeptOut { node, why } = refusal;
    let now = Some(Time(Timestamp::now()));
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{node}.vswitch.{:016x}", fnv1a(why.as_bytes()))),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(node.clone()),
            // `kubectl describe node` looks for the name in this place, as the kubelet writes it.
            uid: Some(node.clone()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some("VswitchPeerRefused".to_owned()),
        message: Some(format!("packets to its pods are not forwarded as it says: {why}")),
        source: Some(EventSource {
            component: Some("vswitch-agent".to_owned()),
            host: Some(own.to_owned()),
        }),
        first_timestamp: now.clone(),
        last_timestamp: now,
        count: Some(1),
        ..Event::default()
    }
}

/// FNV-1a of 64 bits: the same in every build, as a name must be.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn retries() -> Attempts {
    Attempts::between(FIRST_RETRY, LONGEST_RETRY)
}

enum Failure {
    Server(kube::Error),
    Late,
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
