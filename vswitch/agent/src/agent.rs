//! The loop: takes what comes from the cluster and from the daemon, and acts on it when it is time.
//!
//! Enters: the watches, the daemon's end, time. Leaves: orders to `link`, publications to
//! `cluster`, the state to `report`. One task; each of its steps ends within the daemon's patience.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::runtime::watcher::Event;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::burst::Burst;
use crate::cluster::Publication;
use crate::degraded;
use crate::desired::{Desired, Nodes, Peers, desired};
use crate::error::chain;
use crate::install::InstallTarget;
use crate::link::{Link, same};
use crate::node::ClusterNode;
use crate::object::NodeObject;
use crate::publish::{Health, Own, Vtep};
use crate::report::{Notice, Report, State};
use crate::service::index::Services;
use crate::watch::Seen;
use crate::watching::Watching;
use policies::Policies;

mod policies;

/// A burst of changes is one change: until it is quiet for so long, yet not longer than that.
const QUIET: Duration = Duration::from_millis(100);
const LONGEST_BURST: Duration = Duration::from_secs(1);
/// Of what policies are about a change costs little more than itself, and pods wait for it.
const POLICY_QUIET: Duration = Duration::from_millis(50);
const LONGEST_POLICY_BURST: Duration = Duration::from_millis(250);
/// A daemon may restart; gone for longer, the scheduler should know.
const GRACE: Duration = Duration::from_secs(10);
/// What was refused is tried again: what stood in its way may be gone.
const RECONSIDER: Duration = Duration::from_secs(60);
/// So often the state is written anew, as a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How the agent is to work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The own Node.
    pub node_name: String,
    /// The daemon's.
    pub socket: PathBuf,
    /// Have the cluster's Services served.
    pub services: bool,
    /// Have the cluster's policies enforced.
    pub policies: bool,
    /// Write flannel's annotations too.
    pub flannel: bool,
    /// Where the state goes.
    pub state_file: Option<PathBuf>,
    /// Installed once pods can be networked.
    pub conflist: Option<InstallTarget>,
    /// Where the runtime looks for plugins.
    pub cni_bin_dir: PathBuf,
}

/// The agent.
pub struct Agent {
    settings: Settings,
    nodes: Nodes,
    own: Option<Own>,
    /// What a list has brought so far; it takes effect when it is whole.
    listing: Option<(Nodes, Option<Own>)>,
    is_listed: bool,
    services: Services,
    watching: Watching,
    watching_services: Watching,
    watching_slices: Watching,
    policies: Policies,
    link: Link,
    burst: Burst,
    desired: Desired,
    prefixes_refused: Option<String>,
    reconsider: Instant,
    reconsider_services: Instant,
    report: Report,
    publications: watch::Sender<Option<Publication>>,
    written: Instant,
    is_installed: bool,
}

impl Agent {
    /// Publications and notices leave by the channels.
    #[must_use]
    pub fn new(
        settings: Settings,
        publications: watch::Sender<Option<Publication>>,
        notices: mpsc::Sender<Notice>,
    ) -> Self {
        let now = Instant::now();
        Self {
            link: Link::new(settings.socket.clone(), settings.services, settings.policies),
            policies: Policies::new(&settings.node_name),
            services: if settings.services {
                Services::new(&settings.node_name)
            } else {
                Services::none()
            },
            settings,
            nodes: Nodes::new(),
            own: None,
            listing: None,
            is_listed: false,
            watching: Watching::new("the API server cannot be watched"),
            watching_services: Watching::new("Services cannot be watched"),
            watching_slices: Watching::new("EndpointSlices cannot be watched"),
            burst: Burst::new(QUIET, LONGEST_BURST),
            desired: Desired::default(),
            prefixes_refused: None,
            reconsider: now,
            reconsider_services: now,
            report: Report::new(notices),
            publications,
            written: now,
            is_installed: false,
        }
    }

    /// Works until it is dropped; what it sent to the daemon stays.
    pub async fn run(mut self, watches: impl Stream<Item = Seen>) {
        let mut watches = std::pin::pin!(watches);
        self.sign_of_life();
        loop {
            let wake = self.wake();
            tokio::select! {
                Some(seen) = watches.next() => self.take(seen),
                () = self.link.closed() => self.lose_daemon(),
                () = sleep_until(wake) => self.act().await,
            }
        }
    }

    fn take(&mut self, seen: Seen) {
        let is_new = match seen {
            Seen::Node(event) => match self.watching.note(event) {
                Some(event) => {
                    if self.settings.policies {
                        self.policies.take_node(&event);
                    }
                    if self.services.take_node(&event) {
                        self.changed();
                    }
                    return self.take_node(event);
                }
                // A list that broke off begins anew.
                None if !self.watching.is_up => return self.listing = None,
                None => false,
            },
            Seen::Service(event) => self
                .watching_services
                .note(event)
                .is_some_and(|event| self.services.take_service(&event)),
            Seen::Slice(event) => self
                .watching_slices
                .note(event)
                .is_some_and(|event| self.services.take_slice(&event)),
            seen => return self.policies.take(seen),
        };
        if is_new {
            self.changed();
        }
    }

    fn take_node(&mut self, event: Event<NodeObject>) {
        match event {
            Event::Init => self.listing = None,
            Event::InitApply(object) => {
                let (nodes, own) = self.listing.get_or_insert_with(Default::default);
                note(&self.settings.node_name, nodes, own, &object);
            }
            Event::InitDone => {
                (self.nodes, self.own) = self.listing.take().unwrap_or_default();
                tracing::info!("listed {} Node(s)", self.nodes.len());
                self.is_listed = true;
                self.changed();
            }
            Event::Apply(object) => {
                if note(&self.settings.node_name, &mut self.nodes, &mut self.own, &object) {
                    self.changed();
                }
            }
            Event::Delete(object) => {
                self.nodes.remove(object.name());
                if object.name() == self.settings.node_name {
                    self.own = None;
                }
                self.changed();
            }
        }
    }

    fn changed(&mut self) {
        self.burst.changed();
    }

    fn lose_daemon(&mut self) {
        self.link.lose_closed();
    }

    /// When there is something to do, should nothing come before.
    fn wake(&self) -> Instant {
        let dues = [
            self.burst.due(),
            self.policies.burst.due(),
            self.link.policies_due(),
            Some(self.link.due()),
            Some(self.next_sign()),
        ];
        dues.into_iter().flatten().min().unwrap_or_else(Instant::now)
    }

    fn next_sign(&self) -> Instant {
        self.written + SIGN_OF_LIFE
    }

    async fn act(&mut self) {
        let now = Instant::now();
        let seen = self.link.status().map(|status| (status.pod_prefixes.clone(), vni(status)));
        if self.link.due() <= now && self.link.poll().await {
            self.changed();
            self.policies.burst.changed();
        }
        // The daemon's own prefixes and VNI decide too.
        if self.link.status().map(|status| (status.pod_prefixes.clone(), vni(status))) != seen {
            self.changed();
        }
        if let Some(status) = self.link.status() {
            self.report.lose(&status.lost_pods);
        }
        let is_refused = !self.report.standing().is_empty() || self.prefixes_refused.is_some();
        if is_refused && self.reconsider <= now || self.is_unserved(now) {
            self.changed();
        }
        if self.burst.is_due() {
            self.settle().await;
        }
        let is_untaken = self.link.policies_due().is_some_and(|due| due <= Instant::now());
        if self.policies.burst.is_due() || is_untaken {
            self.settle_policies().await;
        }
        self.publish();
        if self.next_sign() <= Instant::now() {
            self.sign_of_life();
        }
    }

    /// Makes the daemon have what the Nodes ask for.
    async fn settle(&mut self) {
        self.burst.clear();
        self.reconsider = Instant::now() + RECONSIDER;
        // Before the list is whole, a Node that is missing is not gone.
        let (true, Some(held)) = (self.is_listed, self.link.held()) else { return };
        let vni = self.link.status().and_then(vni);
        let own_name = &self.settings.node_name;
        self.desired = desired(&self.nodes, own_name, vni, held);
        let is_own_refused = self.desired.refused.contains_key(own_name);
        let own = self.own.as_ref().filter(|_| !is_own_refused);
        let prefixes = own.and_then(|own| own.pod_prefixes.as_deref().ok());
        let refused = self.link.program(prefixes, &self.desired.peers).await;
        self.report.settle(&self.desired.refused, &refused.peers);
        if refused.prefixes.is_some() && refused.prefixes != self.prefixes_refused {
            let why = refused.prefixes.as_deref().unwrap_or_default();
            tracing::error!("vswitchd does not take this node's pod prefixes: {why}");
        }
        self.prefixes_refused = refused.prefixes;
        self.settle_services().await;
        self.sign_of_life();
    }

    /// After the peers: a service's backends are theirs.
    async fn settle_services(&mut self) {
        if !self.services.is_listed() {
            return;
        }
        if let Some(own) = &self.own {
            self.services.set_zone(own.zone.as_deref());
        }
        let now = Instant::now();
        let again = self.is_unserved(now);
        if again {
            self.reconsider_services = now + RECONSIDER;
        }
        let wanted = self.services.settle();
        let Some(refused) = self.link.program_services(wanted, again).await else { return };
        let uid = |service: &str| self.services.uid(service).map(str::to_owned);
        self.report.settle_services(self.services.problems(), refused, uid);
    }

    /// Whether Services are not served as they say, and are to be tried again.
    fn is_unserved(&self, now: Instant) -> bool {
        !self.report.unserved().is_empty() && self.reconsider_services <= now
    }

    fn publish(&mut self) {
        let Some(own) = &self.own else { return };
        let Some(health) = self.health(own) else { return };
        let status = self.link.status();
        let vtep = status.and_then(|status| status.uplink.as_ref()).and_then(Vtep::of);
        let publication = Publication {
            own: own.clone(),
            vtep,
            flannel: self.settings.flannel,
            conditions: vec![health.condition(), degraded::condition(status)],
        };
        self.publications.send_if_modified(|said| {
            let is_new = said.as_ref() != Some(&publication);
            if is_new {
                *said = Some(publication);
            }
            is_new
        });
        if health.is_up() && !self.is_installed {
            self.install();
        }
    }

    /// None as long as that is not for us to report: it has only just begun, or may be over soon.
    fn health(&self, own: &Own) -> Option<Health> {
        let down = |reason, message: String| Some(Health::Down { reason, message });
        let prefixes = match &own.pod_prefixes {
            Ok(prefixes) => prefixes,
            Err(problem) if problem.is_pending() => {
                return down("NoPodCIDR", "the cluster has assigned no podCIDR yet".to_owned());
            }
            Err(problem) => return down("PodCIDRInvalid", problem.to_string()),
        };
        if let Some(why) = self.desired.refused.get(&self.settings.node_name) {
            return down("PodCIDRConflict", why.clone());
        }
        let Some(status) = self.link.status() else {
            let (why, since) = self.link.lost();
            return if since.elapsed() < GRACE {
                None
            } else {
                down("VswitchdIsDown", why.to_owned())
            };
        };
        if let Some(why) = &self.prefixes_refused {
            return down("PodPrefixesRefused", why.clone());
        }
        if !same(prefixes, &status.pod_prefixes) {
            return None;
        }
        Some(Health::of(status.uplink.as_ref()))
    }

    fn install(&mut self) {
        if let Some(conflist) = &self.settings.conflist
            && let Err(error) = conflist.install_configuration(&self.settings.cni_bin_dir)
        {
            return tracing::error!("the runtime cannot be told: {}", chain(&error));
        }
        self.is_installed = true;
    }

    fn sign_of_life(&mut self) {
        self.written = Instant::now();
        let Some(path) = &self.settings.state_file else { return };
        if let Err(error) = self.state().write(path) {
            tracing::warn!("{}", chain(&error));
        }
    }

    fn state(&self) -> State {
        let why = match &self.own {
            None if !self.is_listed => "the Nodes are not listed yet".to_owned(),
            None => format!("there is no Node {}", self.settings.node_name),
            Some(own) => match self.health(own) {
                Some(Health::Up) => String::new(),
                Some(Health::Down { message, .. }) => message,
                None => "vswitchd has not taken the pod prefixes yet".to_owned(),
            },
        };
        let state = State {
            ready: why.is_empty(),
            why,
            api_server: self.watching.is_up,
            nodes: self.nodes.len(),
            pending: self.desired.pending,
            peers: self.link.held().map_or(0, Peers::len),
            sync_messages: self.link.messages,
            services: (self.settings.services && self.services.is_listed())
                .then(|| self.services.len()),
            service_messages: self.link.service_messages,
            policies: (self.settings.policies && self.policies.is_listed())
                .then(|| self.policies.len()),
            policy_messages: self.link.policy_messages,
            ..State::default()
        };
        state.with_refused(&self.report)
    }
}

/// Keeps a Node; true if it differs from what it was before.
fn note(own_name: &str, nodes: &mut Nodes, own: &mut Option<Own>, object: &NodeObject) -> bool {
    let node = ClusterNode::judge(object);
    let mut is_new = false;
    if node.name == own_name {
        let new = Some(Own::of(object));
        is_new = *own != new;
        *own = new;
    }
    // Every node's status comes every few minutes, and hardly ever brings anything new.
    if nodes.get(&node.name) != Some(&node) {
        nodes.insert(node.name.clone(), node);
        is_new = true;
    }
    is_new
}

fn vni(status: &api::Status) -> Option<u32> {
    status.uplink.as_ref().map(|uplink| uplink.vni)
}
