//! What is allowed between pods, without labels: groups of addresses, rules over them, and the rules
//! of each pod.
//!
//! A source evaluates selectors; the daemon knows none. So a pod that comes or goes changes the members
//! of groups, and no rule.

use core::hash::Hasher;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Fnv, PodName};

/// Name of a group of pods: the text of its selectors in a canonical form, so that it is the same after a
/// restart of the source, and on other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub String);

/// Name of a rule set: the policy's kind and name, the direction, and the numbers that its named ports
/// have at these subjects.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuleSetId(pub String);

/// Tier of a policy. The order is that of evaluation; in a tier, the lower priority goes first, and of
/// policies with the same one the first by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "tier", rename_all = "kebab-case")]
pub enum PolicyTier {
    /// Before all others.
    Admin {
        /// The lower one goes first.
        priority: u32,
    },
    /// What one of them selects is denied what none of them allows.
    NetworkPolicy,
    /// For what no network policy selects.
    Baseline {
        /// The lower one goes first.
        priority: u32,
    },
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuleAction {
    /// It is allowed.
    Allow,
    /// It is denied.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Addresses of a prefix but those of others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerBlock {
    /// The prefix.
    pub cidr: IpNet,
    /// Prefixes within it that are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<IpNet>,
}

/// Ports that a rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyPorts {
    /// Number of the protocol.
    pub protocol: u8,
    /// The first and the last port; if absent, all of the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<(u16, u16)>,
}

/// Peers that a rule matches.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyPeers {
    /// Every address, in the cluster or not.
    Any,
    /// Members of any of the groups, and addresses of any of the blocks; no address if there are none.
    Of {
        /// The groups.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        groups: Vec<GroupId>,
        /// The blocks.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        blocks: Vec<PeerBlock>,
    },
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PolicyRule {
    /// Index of the rule in the policy's list. Several rules have the same one if a rule with named ports
    /// was resolved to several.
    pub index: u32,
    /// What it does.
    pub action: RuleAction,
    /// Peers that it matches.
    pub peers: PolicyPeers,
    /// Destination ports that it matches; if absent, every protocol, with ports or without. An empty list
    /// matches nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PolicyPorts>>,
}

/// The rules of a policy for one direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RuleSet {
    /// The policy as people know it: namespace and name, or the name alone.
    pub policy: String,
    /// When it is evaluated.
    #[serde(flatten)]
    pub tier: PolicyTier,
    /// The rules in their order.
    pub rules: Vec<PolicyRule>,
}

/// The rule sets of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct SubjectRules {
    /// For connections to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<RuleSetId>,
    /// For connections from it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<RuleSetId>,
}

/// A change of policies. It is sent in parts of at most `MAX_REQUEST_BYTES`, and nothing of it is in
/// force before the last: then all of it is, at once.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySync {
    /// Number of the part. The first, 0, discards what came of a change that was never committed.
    pub part: u32,
    /// Whether this is the last part.
    pub commit: bool,
    /// Groups that lose all of their members, before any joins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_groups: Vec<GroupId>,
    /// Members that come and go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupChange>,
    /// Rule sets to withdraw.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_rule_sets: Vec<RuleSetId>,
    /// Rule sets to add, or to replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rule_sets: Vec<NamedRuleSet>,
    /// Pods that are not there any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone_subjects: Vec<PodName>,
    /// The rules of pods of this node: of every one, also of those that no policy selects, as a pod whose
    /// rules are not known is denied everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<Subject>,
}

/// Members of a group that come and go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupChange {
    /// The group.
    pub group: GroupId,
    /// Addresses that leave it, before others join.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leave: Vec<IpAddr>,
    /// Addresses that join it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub join: Vec<IpAddr>,
}

/// A rule set and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedRuleSet {
    /// The name.
    pub id: RuleSetId,
    /// The rules.
    #[serde(flatten)]
    pub set: RuleSet,
}

/// A pod of this node, and its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The pod. Its UID tells it from another of the same name, where both sides know one.
    pub pod: PodName,
    /// Its rules; none if no policy selects it.
    #[serde(flatten)]
    pub rules: SubjectRules,
}

/// What the daemon has of policies, to be compared with what it should have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyDigest {
    /// [`members_hash`] of each group.
    pub groups: BTreeMap<GroupId, u64>,
    /// [`rule_set_hash`] of each rule set.
    pub rule_sets: BTreeMap<RuleSetId, u64>,
    /// The subjects.
    pub subjects: Vec<Subject>,
}

/// A rule set that was not taken: what it concerns is denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRuleSet {
    /// Its name.
    pub id: RuleSetId,
    /// The policy as people know it.
    pub policy: String,
    /// What is wrong with it, in words.
    pub reason: String,
}

/// Number of a group's members in their order: the same in every version of these programs.
#[must_use]
pub fn members_hash<'a>(members: impl IntoIterator<Item = &'a IpAddr>) -> u64 {
    let mut hash = Fnv::default();
    for member in members {
        match member {
            IpAddr::V4(v4) => hash.write(&v4.octets()),
            IpAddr::V6(v6) => hash.write(&v6.octets()),
        }
        hash.write(&[u8::from(member.is_ipv6())]);
    }
    hash.finish()
}

/// Number of a rule set's content: the same in every version of these programs that knows the same
/// fields.
#[must_use]
pub fn rule_set_hash(set: &RuleSet) -> u64 {
    let mut hash = Fnv::default();
    // A rule set is plain data, which always has a JSON.
    hash.write(&serde_json::to_vec(set).unwrap_or_default());
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::{
        GroupChange, GroupId, NamedRuleSet, PeerBlock, PolicyPeers, PolicyPorts, PolicyRule,
        PolicySync, PolicyTier, RuleAction, RuleSet, RuleSetId, Subject, SubjectRules,
        members_hash, rule_set_hash,
    };
    use crate::PodName;

    #[test]
    fn a_change_is_the_same_after_its_json() {
        let pod = PodName { namespace: "shop".into(), name: "web-0".into(), uid: Some("u".into()) };
        let set = RuleSet {
            policy: "shop/web".into(),
            tier: PolicyTier::NetworkPolicy,
            rules: Vec::new(),
        };
        let id = RuleSetId("NetworkPolicy shop/web ingress".into());
        let sync = PolicySync {
            part: 1,
            commit: true,
            groups: vec![GroupChange {
                group: GroupId("shop: app=web".into()),
                leave: vec!["198.18.0.1".parse().expect("an address")],
                join: vec!["fd00::1".parse().expect("an address")],
            }],
            rule_sets: vec![NamedRuleSet { id: id.clone(), set }],
            gone_subjects: vec![pod.clone()],
            subjects: vec![Subject {
                pod,
                rules: SubjectRules { ingress: vec![id], egress: Vec::new() },
            }],
            ..PolicySync::default()
        };
        let json = serde_json::to_string(&sync).expect("JSON");
        assert_eq!(serde_json::from_str::<PolicySync>(&json).expect("a change"), sync);
    }

    #[test]
    fn hashes_tell_contents_apart() {
        let address = |text: &str| text.parse().expect("an address");
        let members = [address("198.18.0.1"), address("198.18.0.2")];
        assert_eq!(members_hash([]), 0xcbf2_9ce4_8422_2325);
        assert_ne!(members_hash(&members), members_hash(&members[..1]));
        let set = |policy: &str| RuleSet {
            policy: policy.into(),
            tier: PolicyTier::NetworkPolicy,
            rules: Vec::new(),
        };
        assert_eq!(rule_set_hash(&set("a/b")), rule_set_hash(&set("a/b")));
        assert_ne!(rule_set_hash(&set("a/b")), rule_set_hash(&set("a/c")));
    }

    #[test]
    fn tiers_sort_as_they_are_evaluated() {
        let admin = |priority| PolicyTier::Admin { priority };
        let baseline = |priority| PolicyTier::Baseline { priority };
        let mut tiers =
            [baseline(0), PolicyTier::NetworkPolicy, admin(1000), baseline(7), admin(0)];
        tiers.sort();
        let expected = [admin(0), admin(1000), PolicyTier::NetworkPolicy, baseline(0), baseline(7)];
        assert_eq!(tiers, expected);
    }

    #[test]
    fn a_rule_set_is_the_same_after_its_json() {
        let peers = PolicyPeers::Of {
            groups: vec![GroupId("shop: app=web".into())],
            blocks: vec![PeerBlock {
                cidr: "198.18.0.0/16".parse().expect("a prefix"),
                except: vec!["198.18.7.0/24".parse().expect("a prefix")],
            }],
        };
        let ports = Some(vec![
            PolicyPorts { protocol: 6, ports: Some((80, 81)) },
            PolicyPorts { protocol: 17, ports: None },
        ]);
        let rule = PolicyRule { index: 1, action: RuleAction::Pass, peers, ports };
        let open = PolicyRule { peers: PolicyPeers::Any, ports: None, ..rule.clone() };
        let set = RuleSet {
            policy: "shop/web-to-db".into(),
            tier: PolicyTier::Admin { priority: 10 },
            rules: vec![rule, open],
        };
        let json = serde_json::to_string(&set).expect("JSON");
        assert!(json.contains(r#""tier":"admin","priority":10"#), "{json}");
        assert_eq!(serde_json::from_str::<RuleSet>(&json).expect("a rule set"), set);
    }
}
