//! The policies of pods as a table: a line for each policy of a pod and direction, in their order.

use api::{DirectionPolicies, PolicyEntry, PolicyState, PolicyTier};

use super::table::{Table, line};

/// What `show policies` answers, as text for people.
pub(super) fn policies(state: &PolicyState) -> String {
    let mut table = Table::new(&["POD", "DIRECTION", "ISOLATION", "TIER", "RULES", "POLICY"]);
    for pod in &state.pods {
        for (direction, policies) in [("ingress", &pod.ingress), ("egress", &pod.egress)] {
            rows(&mut table, &pod.name, direction, policies);
        }
    }
    let summary = &state.summary;
    let mut text = if state.pods.is_empty() { String::new() } else { table.print() + "\n" };
    line(
        &mut text,
        &format!(
            "{} rule set(s), {} group(s) with {} member(s), {} pod(s) told; {} table(s), {} of them linear, {} KiB",
            summary.rule_sets,
            summary.groups,
            summary.members,
            summary.subjects,
            summary.tables,
            summary.linear_tables,
            summary.bytes.div_ceil(1024)
        ),
    );
    let (ingress, egress) = (&summary.ingress, &summary.egress);
    line(
        &mut text,
        &format!(
            "decided since the start: ingress {} allowed, {} denied; egress {} allowed, {} denied",
            ingress.allowed, ingress.denied, egress.allowed, egress.denied
        ),
    );
    if !summary.enforced {
        line(
            &mut text,
            "no source has told policies, the configuration has none, and kubernetes.policies is false: nothing is isolated",
        );
    }
    for refused in &summary.refused {
        line(&mut text, &format!("refused: {} ({})", refused.reason, refused.id.0));
    }
    text
}

fn rows(table: &mut Table, pod: &str, direction: &str, policies: &DirectionPolicies) {
    let mut row = |tier: String, rules: String, policy: String| {
        let isolation = policies.isolation.label().to_owned();
        table.row([pod.to_owned(), direction.to_owned(), isolation, tier, rules, policy]);
    };
    for PolicyEntry { policy, tier, rules } in &policies.policies {
        row(tier_text(*tier), rules.to_string(), policy.clone());
    }
    if policies.policies.is_empty() {
        let why = policies.reason.clone().unwrap_or_else(|| "-".to_owned());
        row("-".to_owned(), "-".to_owned(), why);
    }
}

fn tier_text(tier: PolicyTier) -> String {
    match tier {
        PolicyTier::Admin { priority } => format!("admin {priority}"),
        PolicyTier::NetworkPolicy => "network".to_owned(),
        PolicyTier::Baseline { priority } => format!("baseline {priority}"),
    }
}

#[cfg(test)]
mod tests {
    use api::{
        AttachmentId, DirectionPolicies, Isolation, PodPolicies, PolicyDecisions, PolicyEntry,
        PolicyState, PolicySummary, PolicyTier, RefusedRuleSet, RuleSetId,
    };

    use super::policies;

    #[test]
    fn every_policy_of_a_pod_has_a_line_in_its_order() {
        let direction = |isolation, reason: Option<&str>, policies| DirectionPolicies {
            isolation,
            reason: reason.map(str::to_owned),
            policies,
        };
        let entry = |policy: &str, tier, rules| PolicyEntry { policy: policy.into(), tier, rules };
        let pod = |name: &str, ingress, egress| PodPolicies {
            name: name.into(),
            attachment: AttachmentId { container_id: name.into(), ifname: "eth0".into() },
            pod: None,
            ingress,
            egress,
        };
        let both = vec![
            entry("guard", PolicyTier::Admin { priority: 7 }, 2),
            entry("shop/web", PolicyTier::NetworkPolicy, 1),
        ];
        let pending = || direction(Isolation::Pending, Some("not known yet"), Vec::new());
        let web = pod(
            "shop/web",
            direction(Isolation::Policies, None, both),
            direction(Isolation::Open, None, Vec::new()),
        );
        let refused = RefusedRuleSet {
            id: RuleSetId("x".into()),
            policy: "shop/x".into(),
            reason: "policy shop/x has 100000 rules".into(),
        };
        let summary = PolicySummary {
            enforced: true,
            rule_sets: 3,
            bytes: 1025,
            refused: vec![refused],
            ingress: PolicyDecisions { allowed: 7, denied: 2 },
            ..PolicySummary::default()
        };
        let state = PolicyState { pods: vec![web, pod("shop/db", pending(), pending())], summary };
        assert_eq!(
            policies(&state),
            "POD       DIRECTION  ISOLATION  TIER     RULES  POLICY\n\
             shop/web  ingress    policies   admin 7  2      guard\n\
             shop/web  ingress    policies   network  1      shop/web\n\
             shop/web  egress     open       -        -      -\n\
             shop/db   ingress    pending    -        -      not known yet\n\
             shop/db   egress     pending    -        -      not known yet\n\
             \n\
             3 rule set(s), 0 group(s) with 0 member(s), 0 pod(s) told; 0 table(s), 0 of them linear, 2 KiB\n\
             decided since the start: ingress 7 allowed, 2 denied; egress 0 allowed, 0 denied\n\
             refused: policy shop/x has 100000 rules (x)\n"
        );
        let none = policies(&PolicyState::default());
        assert!(none.contains("nothing is isolated") && !none.contains("POD"), "{none}");
    }
}
