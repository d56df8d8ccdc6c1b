//! `explain`: what decides about a connection, a line for each stage.

use api::{Explained, ExplainedEnd, ExplainedService, Isolation, Judge};

use super::table::line;

pub(super) fn explain(told: &Explained) -> String {
    let mut text = String::new();
    let mut stage = |name: &str, said: &str| line(&mut text, &format!("{name:<9}{said}"));
    let (from, to) = (end(&told.source), end(&told.destination));
    stage("opens", &format!("{from} > {to} {}", told.protocol));
    if let Some(service) = &told.service {
        stage("service", &balanced(service));
    }
    stage("egress", &judge(&told.egress));
    stage("route", &route(told));
    stage("ingress", &told.ingress.as_ref().map_or_else(|| "no backend".to_owned(), judge));
    stage("session", &sessions(told));
    stage("result", &result(told));
    text
}

/// `198.18.1.2:80 (shop/web-0)`.
fn end(end: &ExplainedEnd) -> String {
    let address = match (end.address, end.port) {
        (address, None) => address.to_string(),
        (address, Some(port)) => std::net::SocketAddr::new(address, port).to_string(),
    };
    match &end.name {
        Some(name) => format!("{address} ({name})"),
        None => address,
    }
}

fn balanced(service: &ExplainedService) -> String {
    let ExplainedService { name, usable, backends, chosen } = service;
    let chosen = match chosen {
        Some(chosen) => format!("; chosen {}", end(chosen)),
        None => "; none chosen".to_owned(),
    };
    format!("{name}, {usable} usable of {backends}{chosen}")
}

fn judge(judge: &Judge) -> String {
    let (pod, isolation, policies, allowed, rule) = match judge {
        Judge::OtherNode { node } => return format!("on {node}: ask there"),
        Judge::Node => return "this node itself, which no policy selects; allowed".to_owned(),
        Judge::OwnNode { pod } => {
            return format!("{pod} is reached by its own node whatever its policies say; allowed");
        }
        Judge::Nobody => return "no pod that this node knows of: not judged here".to_owned(),
        Judge::ThisNode { pod, isolation, policies, allowed, rule } => {
            (pod, isolation, policies, allowed, rule)
        }
    };
    let verb = if *allowed { "allowed" } else { "denied" };
    match isolation {
        Isolation::Open => format!("no policy selects {pod}; {verb}"),
        Isolation::Pending => format!("the policies of {pod} are not known yet; {verb}"),
        Isolation::Closed => {
            format!("a policy of {pod} is refused or missing (show policies); {verb}")
        }
        Isolation::Policies => {
            let why = match rule {
                Some(rule) => format!("{verb} by {} rule {}", rule.policy, rule.index),
                None if *allowed => format!("{verb}, as no rule denies it"),
                None => format!("{verb}, as no rule allows it"),
            };
            format!("{pod} selected by {}; {why}", policies.join(", "))
        }
    }
}

fn route(told: &Explained) -> String {
    let Some(route) = &told.route else { return "not looked up".to_owned() };
    let mut said = route.to.clone();
    match route.encapsulation.as_deref() {
        Some("none") => said += ", no encapsulation",
        Some(encapsulation) => said += &format!(", {encapsulation}"),
        None => {}
    }
    if let Some(mtu) = route.mtu {
        said += &format!(", mtu {mtu}");
    }
    said
}

/// How many there are in each state.
fn sessions(told: &Explained) -> String {
    if told.session_count == 0 {
        return "none".to_owned();
    }
    let of = |state: &str| told.sessions.iter().filter(|one| one.state == state).count();
    let states = ["embryonic", "established", "finished", "reset"];
    let counts = states.map(|state| (state, of(state))).into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<_> = counts.map(|(state, count)| format!("{count} {state}")).collect();
    let more = told.session_count.saturating_sub(told.sessions.len());
    let more = if more > 0 { format!(", {more} more") } else { String::new() };
    counts.join(", ") + &more
}

fn result(told: &Explained) -> String {
    let Explained { node, allowed, dropped, explanation, .. } = told;
    if !allowed {
        let reason = dropped.as_deref().unwrap_or("no reason");
        let because = explanation.as_deref().map_or_else(String::new, |text| format!(": {text}"));
        return format!("DENIED on {node} ({reason}){because}");
    }
    let others = [Some(&told.egress), told.ingress.as_ref()].into_iter().flatten();
    let others = others.filter_map(|judge| match judge {
        Judge::OtherNode { node } => Some(node.as_str()),
        _ => None,
    });
    match others.collect::<Vec<_>>().as_slice() {
        [] => "ALLOWED".to_owned(),
        others => format!("ALLOWED on {node}; {} may deny it", others.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use api::{
        DecidingRule, Explained, ExplainedEnd, ExplainedRoute, ExplainedService, Isolation, Judge,
        SessionEnd, SessionEntry,
    };

    use super::explain;

    fn end(name: Option<&str>, address: &str, port: Option<u16>) -> ExplainedEnd {
        let address = address.parse().expect("an address");
        ExplainedEnd { name: name.map(str::to_owned), address, port }
    }

    fn web(isolation: Isolation, allowed: bool, rule: Option<u32>) -> Judge {
        let rule = rule.map(|index| DecidingRule { policy: "shop/web-to-db".to_owned(), index });
        let policies = ["shop/default-deny", "shop/web-to-db"].map(str::to_owned).into();
        Judge::ThisNode { pod: "shop/web".to_owned(), isolation, policies, allowed, rule }
    }

    fn told() -> Explained {
        let session = |port| SessionEntry {
            protocol: "TCP".to_owned(),
            client: SessionEnd { address: [198, 18, 1, 2].into(), port },
            client_name: None,
            server: SessionEnd { address: [198, 18, 96, 7].into(), port: 5432 },
            server_name: None,
            backend: None,
            backend_name: None,
            client_at_backend: None,
            state: "established".to_owned(),
            is_revoked: false,
            idle_seconds: 1,
        };
        Explained {
            node: "node-a".to_owned(),
            source: end(Some("shop/web"), "198.18.1.2", None),
            destination: end(None, "198.18.96.7", Some(5432)),
            protocol: "tcp".to_owned(),
            service: Some(ExplainedService {
                name: "shop/db:sql".to_owned(),
                usable: 3,
                backends: 4,
                chosen: Some(end(None, "198.18.2.9", Some(5433))),
            }),
            egress: web(Isolation::Policies, true, Some(0)),
            route: Some(ExplainedRoute {
                to: "node-b".to_owned(),
                encapsulation: Some("vxlan".to_owned()),
                mtu: Some(1450),
            }),
            ingress: Some(Judge::OtherNode { node: "node-b".to_owned() }),
            sessions: vec![session(40_000), session(40_001)],
            session_count: 5,
            allowed: true,
            dropped: None,
            explanation: None,
        }
    }

    #[test]
    fn each_stage_has_a_line() {
        assert_eq!(
            explain(&told()),
            "opens    198.18.1.2 (shop/web) > 198.18.96.7:5432 tcp\n\
             service  shop/db:sql, 3 usable of 4; chosen 198.18.2.9:5433\n\
             egress   shop/web selected by shop/default-deny, shop/web-to-db; allowed by shop/web-to-db rule 0\n\
             route    node-b, vxlan, mtu 1450\n\
             ingress  on node-b: ask there\n\
             session  2 established, 3 more\n\
             result   ALLOWED on node-a; node-b may deny it\n"
        );
    }

    #[test]
    fn a_denial_says_who_denies() {
        let denied = Explained {
            service: None,
            destination: end(Some("shop/db"), "fd00:18:1::3", Some(80)),
            egress: web(Isolation::Policies, false, None),
            route: None,
            ingress: Some(web(Isolation::Open, true, None)),
            sessions: Vec::new(),
            session_count: 0,
            allowed: false,
            dropped: Some("policy-denied".to_owned()),
            explanation: Some("No rule allows it.".to_owned()),
            ..told()
        };
        assert_eq!(
            explain(&denied),
            "opens    198.18.1.2 (shop/web) > [fd00:18:1::3]:80 (shop/db) tcp\n\
             egress   shop/web selected by shop/default-deny, shop/web-to-db; denied, as no rule allows it\n\
             route    not looked up\n\
             ingress  no policy selects shop/web; allowed\n\
             session  none\n\
             result   DENIED on node-a (policy-denied): No rule allows it.\n"
        );
    }

    #[test]
    fn every_judge_has_words() {
        for (judge, expected) in [
            (Judge::Node, "this node itself, which no policy selects; allowed"),
            (
                Judge::OwnNode { pod: "shop/web".to_owned() },
                "shop/web is reached by its own node whatever its policies say; allowed",
            ),
            (Judge::Nobody, "no pod that this node knows of: not judged here"),
            (
                web(Isolation::Pending, false, None),
                "the policies of shop/web are not known yet; denied",
            ),
            (
                web(Isolation::Closed, false, None),
                "a policy of shop/web is refused or missing (show policies); denied",
            ),
        ] {
            assert_eq!(super::judge(&judge), expected);
        }
        let policies = super::judge(&web(Isolation::Policies, true, None));
        assert!(policies.ends_with("; allowed, as no rule denies it"), "{policies}");
    }
}
