//! The watches of the API server: Nodes; Services and EndpointSlices; and what policies are about.
//!
//! Enters: a client from `cluster`. Leaves: objects and what becomes of them, to `agent`, for ever. A
//! watch that was lost goes on where it was; one that has expired begins with a new list.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::{BoxStream, select_all, unfold};
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::GetParams;
use kube::core::Request;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout};

use crate::backoff::Attempts;
use crate::cluster::{LONGEST_RETRY, PATIENCE, retries};
use crate::error::chain;
use crate::object::NodeObject;
use crate::policy::object::{ClusterPolicyKind, ClusterPolicyObject, NamespaceObject};
use crate::policy::pod::PodObject;
use crate::service::object::{HEADLESS, PROXY_NAME, ServiceObject, SliceObject, SliceVersion};

/// A watch that has not failed after so long has begun.
const SETTLED: Duration = Duration::from_secs(1);
/// Objects of one page of a list: at some ten kilobytes a Node or a slice of 100 endpoints, a few
/// megabytes.
const PAGE: u32 = 500;
/// Pods that can be spoken to. One that finishes is gone.
const LIVING: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// Between two looks whether a kind of object has come that was not there.
const ABSENT: Duration = Duration::from_secs(30);
/// So often a server that is not ready is not believed that a kind of object is not there.
const DOUBTS: u32 = 5;
/// The server does not know the kind of object, or not in this version.
const NOT_FOUND: u16 = 404;

/// What the watches report.
#[derive(Debug)]
pub enum Seen {
    /// Of Nodes.
    Node(WatchEvent<NodeObject>),
    /// Of Services.
    Service(WatchEvent<ServiceObject>),
    /// Of EndpointSlices.
    Slice(WatchEvent<SliceObject>),
    /// Of Pods.
    Pod(WatchEvent<PodObject>),
    /// Of Namespaces.
    Namespace(WatchEvent<NamespaceObject>),
    /// Of NetworkPolicies.
    NetworkPolicy(WatchEvent<NetworkPolicy>),
    /// Of cluster policies of one kind.
    ClusterPolicy(ClusterPolicyKind, WatchEvent<ClusterPolicyObject>),
    /// The server knows no cluster policies of this kind. It is asked again now and then.
    NoClusterPolicy(ClusterPolicyKind),
}

/// What one watch reports.
#[derive(Debug)]
pub enum WatchEvent<K> {
    /// An object, or the begin or end of a list of all.
    Event(Box<watcher::Event<K>>),
    /// The watch has broken off or cannot begin, and why. It is begun anew once the server answers.
    Lost(String),
    /// It goes on.
    Back,
}

/// Nodes, and with `services` Services and EndpointSlices too, and with `policies` what policies are about.
#[must_use]
pub fn watches(client: &Client, services: bool, policies: bool) -> BoxStream<'static, Seen> {
    let mut all = vec![watch(client, all_of(), Seen::Node)];
    if services {
        all.extend([watch(client, ours(), Seen::Service), slices(client)]);
    }
    if policies {
        all.extend([
            watch(client, all_of().fields(LIVING), Seen::Pod),
            watch(client, all_of(), Seen::Namespace),
            watch(client, all_of(), Seen::NetworkPolicy),
        ]);
        all.extend(ClusterPolicyKind::ALL.map(|kind| cluster_policies(client, kind)));
    }
    select_all(all).boxed()
}

fn watch<K>(
    client: &Client,
    config: watcher::Config,
    seen: fn(WatchEvent<K>) -> Seen,
) -> BoxStream<'static, Seen>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let events = watcher(Api::<K>::all(client.clone()), config);
    unfold(Watch::of(client, events), move |mut watch| async move {
        let event = watch.next().await?;
        Some((seen(event), watch))
    })
    .boxed()
}

fn slices(client: &Client) -> BoxStream<'static, Seen> {
    unfold(SliceWatch::of(client), |mut slices| async {
        let seen = slices.next().await?;
        Some((Seen::Slice(seen), slices))
    })
    .boxed()
}

fn cluster_policies(client: &Client, kind: ClusterPolicyKind) -> BoxStream<'static, Seen> {
    unfold(ClusterPolicyWatch::of(client, kind), |mut policies| async {
        let seen = policies.next().await?;
        Some((seen, policies))
    })
    .boxed()
}

fn all_of() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// As kube-proxy selects: what other programs serve, and what has no virtual address, is not sent at all.
fn ours() -> watcher::Config {
    all_of().labels(&format!("!{PROXY_NAME},!{HEADLESS}"))
}

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<K>>> + Send>>;

struct Watch<K> {
    events: Events<K>,
    client: Client,
    attempts: Attempts,
    is_lost: bool,
    /// When it went on, if nothing has come since.
    back: Option<Instant>,
    /// Whether the server did not know the kind of object when it was last asked.
    is_unknown: bool,
}

impl<K> Watch<K> {
    fn of(
        client: &Client,
        events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    ) -> Self {
        Self {
            events: Box::pin(events),
            client: client.clone(),
            attempts: retries(),
            is_lost: false,
            back: None,
            is_unknown: false,
        }
    }

    async fn next(&mut self) -> Option<WatchEvent<K>> {
        let event = if self.is_lost {
            self.wait_for_server().await;
            // kube does not announce that a watch has begun; but it soon reports that one has not.
            match timeout(SETTLED, self.events.next()).await {
                Ok(event) => event,
                Err(_) => {
                    self.is_lost = false;
                    self.back = Some(Instant::now());
                    return Some(WatchEvent::Back);
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
                    self.is_unknown = false;
                    self.back = None;
                    self.attempts.succeeded();
                }
                WatchEvent::Event(Box::new(event))
            }
            Err(error) => {
                // Where nothing ever happens, that it lasted is all that shows that it worked.
                if self.back.take().is_some_and(|back| back.elapsed() >= LONGEST_RETRY) {
                    self.attempts.succeeded();
                }
                self.is_lost = true;
                self.is_unknown = is_not_found(&error);
                WatchEvent::Lost(chain(&error))
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

fn is_not_found(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == NOT_FOUND,
        _ => false,
    }
}

/// The watch of EndpointSlices, in the version that the server knows: an upgrade may change it.
struct SliceWatch {
    version: SliceVersion,
    watch: Watch<SliceObject>,
    /// The other version is unknown too, as far as it was tried.
    is_second: bool,
}

impl SliceWatch {
    fn of(client: &Client) -> Self {
        let version = SliceVersion::default();
        let watch = Watch::of(client, slice_events(client, version));
        Self { version, watch, is_second: false }
    }

    async fn next(&mut self) -> Option<WatchEvent<SliceObject>> {
        loop {
            let seen = self.watch.next().await?;
            if !self.watch.is_unknown {
                let is_begin = matches!(&seen, WatchEvent::Event(event) if matches!(**event, watcher::Event::Init));
                self.is_second &= is_begin;
                return Some(seen);
            }
            if matches!(seen, WatchEvent::Event(_) | WatchEvent::Back) {
                return Some(seen);
            }
            self.version = self.version.other();
            self.watch.events = Box::pin(slice_events(&self.watch.client, self.version));
            // At once the first time; then with the usual pauses, in turns.
            if std::mem::replace(&mut self.is_second, true) {
                return Some(seen);
            }
            self.watch.is_lost = false;
        }
    }
}

fn slice_events(
    client: &Client,
    version: SliceVersion,
) -> impl Stream<Item = watcher::Result<watcher::Event<SliceObject>>> + Send + use<> {
    watcher(Api::<SliceObject>::all_with(client.clone(), &version), ours())
}

/// The watch of a kind of cluster policy, which may come and go with its custom resource.
struct ClusterPolicyWatch {
    kind: ClusterPolicyKind,
    watch: Watch<ClusterPolicyObject>,
    /// The server does not know the kind.
    is_absent: bool,
    /// It is asked again only after a pause.
    is_paused: bool,
    /// So often a server that was not ready did not know it.
    doubts: u32,
}

impl ClusterPolicyWatch {
    fn of(client: &Client, kind: ClusterPolicyKind) -> Self {
        let watch = Watch::of(client, cluster_policy_events(client, kind));
        Self { kind, watch, is_absent: false, is_paused: false, doubts: 0 }
    }

    async fn next(&mut self) -> Option<Seen> {
        loop {
            if std::mem::take(&mut self.is_paused) {
                sleep(Attempts::between(ABSENT, ABSENT).delay()).await;
            }
            let event = self.watch.next().await?;
            match &event {
                WatchEvent::Lost(_) if self.watch.is_unknown => {
                    let events = cluster_policy_events(&self.watch.client, self.kind);
                    self.watch.events = Box::pin(events);
                    // A server that starts may not know yet what it will know.
                    if !self.is_absent
                        && self.doubts < DOUBTS
                        && !is_ready(&self.watch.client).await
                    {
                        self.doubts += 1;
                        return Some(Seen::ClusterPolicy(self.kind, event));
                    }
                    (self.watch.is_lost, self.is_paused) = (false, true);
                    if !std::mem::replace(&mut self.is_absent, true) {
                        return Some(Seen::NoClusterPolicy(self.kind));
                    }
                }
                // A list begins also of what is not there.
                WatchEvent::Event(begin) if matches!(**begin, watcher::Event::Init) => {
                    if !self.is_absent {
                        return Some(Seen::ClusterPolicy(self.kind, event));
                    }
                }
                WatchEvent::Lost(_) | WatchEvent::Event(_) | WatchEvent::Back => {
                    (self.is_absent, self.doubts) = (false, 0);
                    return Some(Seen::ClusterPolicy(self.kind, event));
                }
            }
        }
    }
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = Request::new("").get("readyz", &GetParams::default()) else { return true };
    match timeout(PATIENCE, client.request_text(request)).await {
        // A server that does not let us ask may be ready.
        Ok(Err(kube::Error::Api(status))) => status.code < 500,
        Ok(answer) => answer.is_ok(),
        Err(_) => false,
    }
}

fn cluster_policy_events(
    client: &Client,
    kind: ClusterPolicyKind,
) -> impl Stream<Item = watcher::Result<watcher::Event<ClusterPolicyObject>>> + Send + use<> {
    watcher(Api::<ClusterPolicyObject>::all_with(client.clone(), &kind), all_of())
}
