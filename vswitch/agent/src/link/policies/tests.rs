//! Policies, between the agent and daemons that take them, refuse them, or do not know them.

use std::sync::Mutex;

use api::{
    ErrorKind, ErrorReply, PolicyDigest, PolicySync, RefusedRuleSet, Reply, Request, Response,
    rule_set_hash,
};
use serde_json::json;

use super::super::tests::{Replies, start, status, test, unknown};
use super::Link;
use crate::policy::live::LiveTranslation;
use crate::policy::pod::{Pod, PodKey, PodObject};
use crate::policy::rule::Policy;
use crate::policy::selector::Labels;

/// A daemon of these tests: what it has, what it was asked, and how it is.
#[derive(Debug, Default)]
struct Daemon {
    /// It was made before there were policies.
    is_old: bool,
    /// It takes no change.
    is_stubborn: bool,
    has: PolicyDigest,
    refuses: bool,
    asked: Vec<&'static str>,
    parts: Vec<PolicySync>,
}

impl Replies for Daemon {
    fn reply(&mut self, request: Request) -> Response {
        match request {
            Request::Status => Ok(Reply::Status(Box::new(status()))),
            Request::ShowPeers => Ok(Reply::Peers(Vec::new())),
            Request::ShowServices => Ok(Reply::Services(Vec::new())),
            Request::PolicyDigest | Request::SyncPolicies(_) if self.is_old => {
                self.asked.push("unknown");
                Err(unknown())
            }
            Request::PolicyDigest => {
                self.asked.push("digest");
                Ok(Reply::PolicyDigest(self.has.clone()))
            }
            Request::SyncPolicies(_) if self.is_stubborn => {
                self.asked.push("stubborn");
                let message = "there is no room for it".to_owned();
                Err(ErrorReply { kind: ErrorKind::Invalid, message })
            }
            Request::SyncPolicies(part) => {
                self.asked.push(if part.commit { "commit" } else { "part" });
                for named in &part.rule_sets {
                    self.has.rule_sets.insert(named.id.clone(), rule_set_hash(&named.set));
                }
                self.has.rule_sets.retain(|id, _| !part.gone_rule_sets.contains(id));
                self.has.subjects.retain(|one| !part.gone_subjects.contains(&one.pod));
                self.has.subjects.retain(|one| part.subjects.iter().all(|new| new.pod != one.pod));
                self.has.subjects.extend(part.subjects.iter().cloned());
                self.parts.push(part);
                let refused = self.refuses.then(|| RefusedRuleSet {
                    id: api::RuleSetId("NetworkPolicy shop/web ingress".to_owned()),
                    policy: "shop/web".to_owned(),
                    reason: "it has too many rules".to_owned(),
                });
                Ok(Reply::SyncedPolicies(refused.into_iter().collect()))
            }
            other => panic!("{other:?}"),
        }
    }
}

fn pod(live: &mut LiveTranslation, name: &str) {
    let object: PodObject = serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": name, "uid": "1" },
        "spec": { "nodeName": "own" },
    }))
    .expect("a Pod");
    let (key, pod) = Pod::new(&object);
    live.put_pod(&key, pod);
    live.settle();
}

/// Of one pod that everything is denied to.
fn denied() -> LiveTranslation {
    let mut live = LiveTranslation::new("own");
    live.put_namespace("shop", Some(Labels::new()));
    let object = json!({ "metadata": { "namespace": "shop", "name": "web" }, "spec": {} });
    live.put_policy(Policy::network(&serde_json::from_value(object).expect("a NetworkPolicy")));
    pod(&mut live, "web");
    live
}

fn asked(daemon: &Mutex<Daemon>) -> Vec<&'static str> {
    std::mem::take(&mut daemon.lock().expect("whole").asked)
}

#[test]
fn a_new_connection_compares_and_then_only_changes_are_sent() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let daemon = start(&path, Daemon::default());
        let mut live = denied();
        let mut link = Link::new(path.clone(), true, true);
        assert!(link.poll().await, "it is new");
        assert_eq!(link.program_policies(&mut live).await, Some(&[][..]));
        assert_eq!((asked(&daemon), link.policy_messages), (vec!["digest", "commit"], 1));
        assert_eq!(daemon.lock().expect("whole").has.subjects.len(), 1);
        link.program_policies(&mut live).await;
        assert_eq!(asked(&daemon), [""; 0], "nothing has changed");
        pod(&mut live, "db");
        link.program_policies(&mut live).await;
        assert_eq!(asked(&daemon), ["commit"]);
        let last = daemon.lock().expect("whole").parts.pop().expect("one");
        assert_eq!((last.subjects.len(), last.rule_sets.len()), (1, 0));
        // The next agent asks, and has nothing to change.
        let mut next = Link::new(path, true, true);
        next.poll().await;
        next.program_policies(&mut live).await;
        assert_eq!((asked(&daemon), next.policy_messages), (vec!["digest", "commit"], 0));
    });
}

#[test]
fn what_is_refused_is_told_by_the_last_part() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let daemon = start(&path, Daemon { refuses: true, ..Daemon::default() });
        let mut live = denied();
        let mut link = Link::new(path, true, true);
        link.poll().await;
        assert_eq!(link.program_policies(&mut live).await.map(<[_]>::len), Some(1));
        assert_eq!(link.program_policies(&mut live).await.map(<[_]>::len), Some(1));
        daemon.lock().expect("whole").refuses = false;
        live.remove_pod(&PodKey { namespace: "shop".into(), name: "web".into() });
        live.settle();
        assert_eq!(link.program_policies(&mut live).await.map(<[_]>::len), Some(0));
        assert!(daemon.lock().expect("whole").has.subjects.is_empty());
    });
}

#[test]
fn a_change_that_is_not_taken_is_compared_anew_and_then_waits() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let daemon = start(&path, Daemon::default());
        let mut live = denied();
        let mut link = Link::new(path, true, true);
        link.poll().await;
        link.program_policies(&mut live).await;
        asked(&daemon);
        daemon.lock().expect("whole").is_stubborn = true;
        pod(&mut live, "db");
        assert_eq!(link.program_policies(&mut live).await, None);
        assert_eq!(asked(&daemon), ["stubborn", "digest", "stubborn"]);
        assert!(link.status().is_some(), "the connection stays");
        daemon.lock().expect("whole").is_stubborn = false;
        pod(&mut live, "cache");
        link.program_policies(&mut live).await;
        assert_eq!(asked(&daemon), [""; 0], "it is not time yet");
        let due = link.policies_due().expect("it is tried again");
        tokio::time::sleep_until(due).await;
        assert_eq!(link.program_policies(&mut live).await, Some(&[][..]));
        assert_eq!(asked(&daemon), ["digest", "commit"]);
        assert_eq!(daemon.lock().expect("whole").has.subjects.len(), 3);
    });
}

#[test]
fn a_daemon_that_knows_no_policies_is_asked_once_and_left_alone() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let daemon = start(&path, Daemon { is_old: true, ..Daemon::default() });
        let mut live = denied();
        let mut link = Link::new(path, true, true);
        assert!(link.poll().await, "it is connected");
        assert_eq!(link.program_policies(&mut live).await, None);
        link.poll().await;
        assert_eq!(link.program_policies(&mut live).await, None);
        assert_eq!(asked(&daemon), ["unknown"]);
        assert_eq!(link.policies_due(), None);
    });
}

#[test]
fn where_policies_are_switched_off_nothing_is_asked_or_withdrawn() {
    test(async {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let daemon = start(&path, Daemon::default());
        let mut link = Link::new(path, true, false);
        link.poll().await;
        assert_eq!(link.program_policies(&mut denied()).await, None);
        assert_eq!(asked(&daemon), [""; 0]);
    });
}
