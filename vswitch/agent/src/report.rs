//! Which nodes are kept out, which Services are not served and which policies not enforced as they say,
//! which pods lost their interface, and how the agent is.
//!
//! Enters: refusals of `desired`, of `service`, of `policy` and of the daemon, the daemon's lost pods, and the agent's
//! state. Leaves: log lines, notices to `cluster`, and the state file, which the readiness probe and people read. Each
//! refusal is reported when it begins, when its reason changes, and when it ends; each loss when it begins.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use api::{AttachmentId, LostPod, RefusedPeer, RefusedRuleSet, RefusedService};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::event::pod_name;
use crate::node::node_of;
use crate::policy::resolve::policy_of;
use crate::service::translate::service_of;

/// The file lists so many; the rest is counted.
const LISTED: usize = 100;
/// So many are logged at once; the rest is counted.
const LOGGED: usize = 20;
/// So many refusals of one object are named: a Service may have thousands of addresses and ports.
const NAMED: usize = 5;
/// A state that was not written anew for so long is that of an agent that hangs.
const STALE: Duration = Duration::from_secs(30);

/// A node that is kept out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptOut {
    /// Name of the node.
    pub node: String,
    /// Completes "node … is kept out: ".
    pub why: String,
}

/// A Service that is not served as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// Namespace and name, with a slash between.
    pub service: String,
    /// UID, if it is known.
    pub uid: Option<String>,
    /// Completes "Service … is not served as it says: ".
    pub why: String,
}

/// A policy that is not enforced as it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unenforced {
    /// Kind, namespace and name, as `Policy::id` has them.
    pub policy: String,
    /// UID, if it is known.
    pub uid: Option<String>,
    /// Completes "… is not enforced as it says: ".
    pub why: String,
}

/// What the cluster is told by Events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A node is kept out.
    KeptOut(KeptOut),
    /// A Service is not served as it says.
    Unserved(Unserved),
    /// A policy is not enforced as it says.
    Unenforced(Unenforced),
    /// A pod of this node lost its interface.
    InterfaceLost(LostPod),
}

/// Divides refusals and losses into those that begin and those that end.
#[derive(Debug)]
pub struct Report {
    nodes: Standing,
    services: Standing,
    policies: Standing,
    lost: BTreeSet<AttachmentId>,
    notices: mpsc::Sender<Notice>,
}

/// Refusals of one kind of object that stand.
#[derive(Debug)]
struct Standing {
    all: BTreeMap<String, String>,
    object: &'static str,
    /// What is wrong with an object that is refused.
    state: &'static str,
    /// What holds of it afterwards.
    end: &'static str,
}

impl Standing {
    fn new(object: &'static str, state: &'static str, end: &'static str) -> Self {
        Self { all: BTreeMap::new(), object, state, end }
    }

    /// These are all now. Logs what begins and what ends, and gives what begins to `begin`.
    fn settle(&mut self, all: BTreeMap<String, String>, mut begin: impl FnMut(&str, &str)) {
        let Self { object, state, end, .. } = self;
        let new = all.iter().filter(|(name, why)| self.all.get(*name) != Some(why));
        let mut count = 0_usize;
        for (name, why) in new {
            count += 1;
            if count <= LOGGED {
                tracing::warn!("{object} {name} {state}: {why}");
            }
            begin(name, why);
        }
        if count > LOGGED {
            tracing::warn!("likewise {} more of kind {object}", count - LOGGED);
        }
        for name in self.all.keys().filter(|name| !all.contains_key(*name)) {
            tracing::info!("{object} {name} {end}");
        }
        self.all = all;
    }
}

impl Report {
    /// Sends what begins to `notices` too, as long as there is room.
    #[must_use]
    pub fn new(notices: mpsc::Sender<Notice>) -> Self {
        Self {
            nodes: Standing::new("node", "is kept out", "is no longer kept out"),
            services: Standing::new(
                "Service",
                "is not served as it says",
                "is served as it says, or gone",
            ),
            policies: Standing::new(
                "policy",
                "is not enforced as it says",
                "is enforced as it says, or gone",
            ),
            lost: BTreeSet::new(),
            notices,
        }
    }

    /// These are all pods that lost their interface. One for whose notice there is no room now is new at
    /// the next call too.
    pub fn lose(&mut self, pods: &[LostPod]) {
        let is_lost = |known: &AttachmentId| pods.iter().any(|pod| pod.attachment == *known);
        self.lost.retain(is_lost);
        for pod in pods {
            if self.lost.contains(&pod.attachment)
                || self.notices.try_send(Notice::InterfaceLost(pod.clone())).is_err()
            {
                continue;
            }
            tracing::warn!("{} lost its interface", pod_name(pod));
            self.lost.insert(pod.attachment.clone());
        }
    }

    /// These are all: those of the Nodes themselves by name, and what the daemon did not take.
    pub fn settle(&mut self, nodes: &BTreeMap<String, String>, daemon: &[RefusedPeer]) {
        let mut all = nodes.clone();
        for RefusedPeer { name, reason } in daemon {
            all.entry(node_of(name).to_owned())
                .or_insert_with(|| format!("this node's vswitchd does not take it: {reason}"));
        }
        self.nodes.settle(all, |node, why| {
            // The log and the state file have it; Events are a convenience.
            let kept_out = KeptOut { node: node.to_owned(), why: why.to_owned() };
            let _ = self.notices.try_send(Notice::KeptOut(kept_out));
        });
    }

    /// These are all: those of the Services themselves by namespace and name, and what the daemon did not
    /// take. `uid` finds the UID of a Service.
    pub fn settle_services(
        &mut self,
        services: &BTreeMap<String, String>,
        daemon: &[RefusedService],
        uid: impl Fn(&str) -> Option<String>,
    ) {
        let mut all = services.clone();
        let mut by_service: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for RefusedService { name, reason } in daemon {
            // The ports of a Service have the same addresses: each reason once.
            by_service.entry(service_of(name)).or_default().insert(reason);
        }
        add_refusals(&mut all, by_service);
        self.services.settle(all, |service, why| {
            let (service, why) = (service.to_owned(), why.to_owned());
            let unserved = Unserved { uid: uid(&service), service, why };
            let _ = self.notices.try_send(Notice::Unserved(unserved));
        });
    }

    /// These are all: those of the policies themselves by `Policy::id`, and rule sets that the daemon did
    /// not take. `uid` finds the UID of a policy.
    pub fn settle_policies(
        &mut self,
        policies: BTreeMap<String, String>,
        daemon: &[RefusedRuleSet],
        uid: impl Fn(&str) -> Option<String>,
    ) {
        let mut all = policies;
        let mut by_policy: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for RefusedRuleSet { id, reason, .. } in daemon {
            by_policy.entry(policy_of(id)).or_default().insert(reason);
        }
        add_refusals(&mut all, by_policy);
        self.policies.settle(all, |policy, why| {
            let (policy, why) = (policy.to_owned(), why.to_owned());
            let unenforced = Unenforced { uid: uid(&policy), policy, why };
            let _ = self.notices.try_send(Notice::Unenforced(unenforced));
        });
    }

    /// Nodes that are kept out, and why.
    #[must_use]
    pub fn standing(&self) -> &BTreeMap<String, String> {
        &self.nodes.all
    }

    /// Services that are not served as they say, and why.
    #[must_use]
    pub fn unserved(&self) -> &BTreeMap<String, String> {
        &self.services.all
    }

    /// Policies that are not enforced as they say, and why.
    #[must_use]
    pub fn unenforced(&self) -> &BTreeMap<String, String> {
        &self.policies.all
    }
}

/// Adds what the daemon refuses of objects to what is wrong with them already, in one sentence each.
fn add_refusals(all: &mut BTreeMap<String, String>, refusals: BTreeMap<&str, BTreeSet<&str>>) {
    for (object, reasons) in refusals {
        let named: Vec<&str> = reasons.iter().take(NAMED).copied().collect();
        let more = match reasons.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let why = format!("this node's vswitchd does not take it: {}{more}", named.join("; "));
        let known = all.entry(object.to_owned()).or_default();
        *known = if known.is_empty() { why } else { format!("{known}; {why}") };
    }
}

/// The agent's state, as its file has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Pods can be networked on this node.
    pub ready: bool,
    /// Why not, or nothing.
    pub why: String,
    /// The API server answers; what is known of the cluster is up to date.
    pub api_server: bool,
    /// Nodes of the cluster, this one included.
    pub nodes: usize,
    /// Nodes that are not complete yet.
    pub pending: usize,
    /// Peers that vswitchd has from here.
    pub peers: usize,
    /// Messages with peers to vswitchd, since the agent started.
    pub sync_messages: u64,
    /// Nodes that are kept out.
    pub refused_count: usize,
    /// The first hundred of them, and why.
    pub refused: BTreeMap<String, String>,
    /// Services of the cluster that have virtual addresses; null until they are listed, or where they are
    /// not watched.
    pub services: Option<usize>,
    /// Messages with services to vswitchd, since the agent started.
    pub service_messages: u64,
    /// Services that are not served as they say.
    pub unserved_count: usize,
    /// The first hundred of them, and why.
    pub unserved: BTreeMap<String, String>,
    /// Policies of the cluster; null until all that they are about is listed, or where they are not watched.
    pub policies: Option<usize>,
    /// Messages to vswitchd that change policies, since the agent started.
    pub policy_messages: u64,
    /// Policies that are not enforced as they say.
    pub unenforced_count: usize,
    /// The first hundred of them, and why.
    pub unenforced: BTreeMap<String, String>,
}

impl State {
    /// Fills in the nodes that are kept out, and the Services and policies that are not as they say.
    #[must_use]
    pub fn with_refused(mut self, report: &Report) -> Self {
        let listed = |all: &BTreeMap<String, String>| {
            all.iter().take(LISTED).map(|(name, why)| (name.clone(), why.clone())).collect()
        };
        self.refused_count = report.standing().len();
        self.refused = listed(report.standing());
        self.unserved_count = report.unserved().len();
        self.unserved = listed(report.unserved());
        self.unenforced_count = report.unenforced().len();
        self.unenforced = listed(report.unenforced());
        self
    }

    /// Writes the file, whole or not at all; also if nothing changed, as a sign of life.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |source| Error::File { action: "write", path: path.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        let new = path.with_extension("new");
        fs::write(&new, text).and_then(|()| fs::rename(&new, path)).map_err(failed)
    }

    /// What the probe makes of the file.
    ///
    /// # Errors
    /// If the agent is not ready, or there is no sign of its life.
    pub fn probe(path: &Path) -> Result<Self> {
        let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
        let text = fs::read(path).map_err(failed)?;
        let written = fs::metadata(path).and_then(|meta| meta.modified()).map_err(failed)?;
        let state: Self =
            serde_json::from_slice(&text).map_err(|error| Error::Probe(error.to_string()))?;
        let age = SystemTime::now().duration_since(written).unwrap_or_default();
        if age > STALE {
            return Err(Error::Probe(format!("no sign of life for {} s", age.as_secs())));
        }
        if state.ready { Ok(state) } else { Err(Error::Probe(state.why)) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use api::{AttachmentId, LostPod, RefusedPeer, RefusedRuleSet, RefusedService, RuleSetId};
    use tokio::sync::mpsc;

    use super::{KeptOut, LISTED, Notice, Report, STALE, State, Unenforced, Unserved};

    fn refused(nodes: &[(&str, &str)]) -> BTreeMap<String, String> {
        nodes.iter().map(|(node, why)| ((*node).to_owned(), (*why).to_owned())).collect()
    }

    #[test]
    fn each_refusal_is_told_once_until_its_reason_changes() {
        let (sender, mut events) = mpsc::channel(8);
        let mut report = Report::new(sender);
        report.settle(&refused(&[("a", "x")]), &[]);
        report.settle(&refused(&[("a", "x")]), &[]);
        report.settle(&refused(&[("a", "y")]), &[]);
        let by_daemon = RefusedPeer { name: "b/v6".to_owned(), reason: "z".to_owned() };
        report.settle(&BTreeMap::new(), &[by_daemon]);
        drop(report);
        let mut told = Vec::new();
        while let Ok(Notice::KeptOut(KeptOut { node, why })) = events.try_recv() {
            told.push(format!("{node}: {why}"));
        }
        assert_eq!(told, ["a: x", "a: y", "b: this node's vswitchd does not take it: z"]);
    }

    #[test]
    fn each_loss_is_told_once_and_none_for_want_of_room_is_forgotten() {
        let pod = |id: &str| LostPod {
            attachment: AttachmentId { container_id: id.to_owned(), ifname: "eth0".to_owned() },
            pod: None,
        };
        let (sender, mut notices) = mpsc::channel(1);
        let mut report = Report::new(sender);
        let mut told = |report: &mut Report, pods: &[LostPod]| {
            report.lose(pods);
            match notices.try_recv() {
                Ok(Notice::InterfaceLost(lost)) => Some(lost.attachment.container_id),
                _ => None,
            }
        };
        let both = [pod("a"), pod("b")];
        assert_eq!(told(&mut report, &both).as_deref(), Some("a"));
        assert_eq!(told(&mut report, &both).as_deref(), Some("b"), "there was no room for it");
        assert_eq!(told(&mut report, &both), None);
        assert_eq!(told(&mut report, &[]), None);
        assert_eq!(told(&mut report, &[pod("a")]).as_deref(), Some("a"), "it was taken back");
    }

    #[test]
    fn the_probe_believes_a_ready_state_that_is_fresh() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state.json");
        assert!(State::probe(&path).is_err(), "there is none");
        let state = State { ready: true, ..State::default() };
        state.write(&path).expect("written");
        assert_eq!(State::probe(&path).expect("ready"), state);
        let old = SystemTime::now() - STALE - Duration::from_secs(1);
        File::options().append(true).open(&path).and_then(|f| f.set_modified(old)).expect("aged");
        assert!(State::probe(&path).is_err(), "it hangs");
        State { why: "no daemon".to_owned(), ..State::default() }.write(&path).expect("written");
        let error = State::probe(&path).expect_err("not ready");
        assert_eq!(error.to_string(), "not ready: no daemon");
    }

    #[test]
    fn what_is_wrong_with_a_service_is_told_once_and_in_one_sentence() {
        let (sender, mut notices) = mpsc::channel(8);
        let mut report = Report::new(sender);
        let by_daemon = |name: &str, reason: &str| RefusedService {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let own = refused(&[("shop/db", "port 0 is no port")]);
        let daemon = [
            by_daemon("shop/db:sql", "198.18.2.7 is not served: it is a pod's"),
            by_daemon("shop/db:metrics external", "198.18.2.7 is not served: it is a pod's"),
            by_daemon("shop/web:http", "its port is 0"),
        ];
        let uid = |service: &str| (service == "shop/db").then(|| "1234".to_owned());
        report.settle_services(&own, &daemon, uid);
        report.settle_services(&own, &daemon, uid);
        assert_eq!(report.unserved().len(), 2);
        report.settle_services(&own, &[], uid);
        report.settle_services(&BTreeMap::new(), &[], uid);
        assert!(report.unserved().is_empty());
        drop(report);
        let mut told = Vec::new();
        while let Ok(Notice::Unserved(Unserved { service, uid, why })) = notices.try_recv() {
            told.push(format!("{service} {}: {why}", uid.unwrap_or_default()));
        }
        assert_eq!(
            told,
            [
                "shop/db 1234: port 0 is no port; this node's vswitchd does not take it: 198.18.2.7 is not served: it is a pod's",
                "shop/web : this node's vswitchd does not take it: its port is 0",
                "shop/db 1234: port 0 is no port",
            ]
        );
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_told_once_and_in_one_sentence() {
        let (sender, mut notices) = mpsc::channel(8);
        let mut report = Report::new(sender);
        let by_daemon = |id: &str, reason: &str| RefusedRuleSet {
            id: RuleSetId(id.to_owned()),
            policy: "shop/db".to_owned(),
            reason: reason.to_owned(),
        };
        let own = refused(&[("NetworkPolicy shop/db", "rule 0: 0 to 0 are no ports")]);
        let daemon = [
            by_daemon("NetworkPolicy shop/db ingress http/6=80", "it has too many rules"),
            by_daemon("NetworkPolicy shop/db ingress http/6=81", "it has too many rules"),
            by_daemon("AdminNetworkPolicy ingress egress", "it has too many rules"),
        ];
        let uid = |policy: &str| policy.starts_with("Network").then(|| "1234".to_owned());
        report.settle_policies(own.clone(), &daemon, uid);
        report.settle_policies(own, &daemon, uid);
        assert_eq!(report.unenforced().len(), 2);
        report.settle_policies(BTreeMap::new(), &[], uid);
        assert!(report.unenforced().is_empty());
        drop(report);
        let mut told = Vec::new();
        while let Ok(Notice::Unenforced(Unenforced { policy, uid, why })) = notices.try_recv() {
            told.push(format!("{policy} {}: {why}", uid.unwrap_or_default()));
        }
        assert_eq!(
            told,
            [
                "AdminNetworkPolicy ingress : this node's vswitchd does not take it: it has too many rules",
                "NetworkPolicy shop/db 1234: rule 0: 0 to 0 are no ports; this node's vswitchd does not take it: it has too many rules",
            ]
        );
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_whole() {
        let many: BTreeMap<_, _> =
            (0..LISTED + 5).map(|n| (format!("n{n}"), "x".to_owned())).collect();
        let (sender, _notices) = mpsc::channel(1);
        let mut report = Report::new(sender);
        report.settle(&many, &[]);
        report.settle_services(&many, &[], |_| None);
        let state = State::default().with_refused(&report);
        assert_eq!((state.refused.len(), state.refused_count), (LISTED, LISTED + 5));
        assert_eq!((state.unserved.len(), state.unserved_count), (LISTED, LISTED + 5));
    }
}
