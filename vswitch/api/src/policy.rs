//! What is allowed between pods, without labels: groups of addresses, rules over them, and the rules
//! of each pod.
//!
//! A source evaluates selectors; the daemon knows none. So a pod that comes or goes changes the members
//! of groups, and no rule.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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

#[cfg(test)]
mod tests {
    use super::{
        GroupId, PeerBlock, PolicyPeers, PolicyPorts, PolicyRule, PolicyTier, RuleAction, RuleSet,
    };

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
