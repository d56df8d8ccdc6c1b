//! Short stories of which every action goes wrong in turn, in every way: once by itself, and once with a
//! second fault behind it, which meets what takes the first one back.
//!
//! Enters: a few happenings each, and a node on which they go well. Leaves: nothing, or the text of the
//! first story that breaks a rule.

use std::cell::RefCell;
use std::rc::Rc;

use api::{
    Attach, AttachmentId, Collect, Encapsulation, GroupChange, GroupId, Mac, NamedRuleSet,
    PeerSpec, PeerSync, PodName, PolicyPeers, PolicyRule, PolicySync, PolicyTier, PortMapping,
    Request, Reserve, RouteSpec, RouteTarget, RuleAction, RuleSet, RuleSetId, Source, Subject,
    SubjectRules, TransportProtocol,
};
use controlplane::next_hop::NextHop;
use dataplane::wire::MacAddr;

use crate::events::{Happening, Move, address, container, net, reserve};
use crate::faults::{Fault, Faults};
use crate::node::Node;
use crate::settings::Setting;
use crate::story::Story;
use crate::{SEEDS_VARIABLE, number};

/// The longest list, with what takes it back.
const CALLS: usize = 16;

/// A story: a node, and what happens to it.
struct Short {
    name: &'static str,
    setting: Setting,
    happenings: Vec<Happening>,
}

fn ask(request: Request) -> Happening {
    Happening::Ask(Box::new(request))
}

fn setting(kind: usize, variant: usize) -> Setting {
    Setting { kind, variant }
}

fn add(attachment: &AttachmentId) -> [Happening; 2] {
    [ask(Request::Reserve(reserve(attachment.clone()))), attach(attachment)]
}

fn add_mapped(attachment: &AttachmentId) -> [Happening; 2] {
    let mapping = PortMapping {
        protocol: TransportProtocol::Udp,
        host_ip: None,
        host_port: 53,
        container_port: 5353,
    };
    let reserve = Reserve { port_mappings: vec![mapping], ..reserve(attachment.clone()) };
    [ask(Request::Reserve(reserve)), attach(attachment)]
}

fn add_to(network: &str, attachment: &AttachmentId) -> [Happening; 2] {
    let network = Some(network.into());
    let reserve = Reserve { network, ..reserve(attachment.clone()) };
    [ask(Request::Reserve(reserve)), attach(attachment)]
}

fn collect(network: &str, valid: &[&AttachmentId]) -> Happening {
    let valid = valid.iter().copied().cloned().collect();
    ask(Request::Collect(Collect { network: network.into(), valid }))
}

/// With the MAC of its lease.
fn attach(attachment: &AttachmentId) -> Happening {
    ask(Request::Attach(Attach { attachment: attachment.clone(), mac: Mac([0; 6]), queues: 1 }))
}

fn delete(attachment: &AttachmentId) -> Happening {
    ask(Request::Detach(attachment.clone()))
}

fn prefixes(texts: &[&str]) -> Happening {
    ask(Request::SetPodPrefixes(texts.iter().map(|text| net(text)).collect()))
}

fn peer(number: u8, encapsulation: Option<Encapsulation>) -> PeerSpec {
    PeerSpec {
        name: format!("n{number}"),
        address: [198, 51, 100, 10 + number].into(),
        prefixes: vec![net(&format!("198.18.{number}.0/24"))],
        encapsulation,
        encapsulate: None,
        vtep_mac: None,
    }
}

fn sync(complete: bool, peers: Vec<PeerSpec>, gone: &[&str]) -> Happening {
    let gone = gone.iter().map(ToString::to_string).collect();
    let source = Source::Kubernetes;
    ask(Request::SyncPeers(PeerSync { source, complete, peers, gone }))
}

/// A change of policies by which a pod has these rule sets, each of which allows one group.
fn policies(pod: &AttachmentId, sets: &[&str], members: &[&str]) -> Happening {
    let group = GroupId("g".into());
    let id = |name: &&str| RuleSetId((*name).into());
    let peers = PolicyPeers::Of { groups: vec![group.clone()], blocks: Vec::new() };
    let rule = PolicyRule { index: 0, action: RuleAction::Allow, peers, ports: None };
    let named = |name: &&str| {
        let (policy, tier) = ((*name).into(), PolicyTier::NetworkPolicy);
        NamedRuleSet { id: id(name), set: RuleSet { policy, tier, rules: vec![rule.clone()] } }
    };
    let rules = SubjectRules { ingress: sets.iter().map(id).collect(), egress: Vec::new() };
    let join = members.iter().map(|text| address(text)).collect();
    ask(Request::SyncPolicies(PolicySync {
        commit: true,
        gone_groups: vec![group.clone()],
        groups: vec![GroupChange { group, leave: Vec::new(), join }],
        rule_sets: sets.iter().map(named).collect(),
        subjects: vec![Subject { pod: name(pod), rules }],
        ..PolicySync::default()
    }))
}

fn name(pod: &AttachmentId) -> PodName {
    PodName { namespace: "lab".into(), name: pod.container_id.clone(), uid: None }
}

fn add_named(attachment: &AttachmentId) -> [Happening; 2] {
    let pod = Some(name(attachment));
    [ask(Request::Reserve(Reserve { pod, ..reserve(attachment.clone()) })), attach(attachment)]
}

fn stories() -> Vec<Short> {
    let (one, other) = (container(1), container(2));
    let direct = Some(Encapsulation::Direct);
    let short = |name, setting, happenings| Short { name, setting, happenings };
    vec![
        short(
            "a pod comes, goes, and comes again",
            setting(0, 0),
            [add(&one).to_vec(), vec![delete(&one)], add(&one).to_vec()].concat(),
        ),
        short(
            "policies are told before their pod comes, change while it is there, and are forgotten",
            setting(6, 0),
            [
                vec![policies(&one, &["x"], &["198.18.1.2"])],
                add_named(&one).to_vec(),
                add_named(&other).to_vec(),
                vec![policies(&one, &["x", "y"], &["198.18.1.3"]), ask(Request::ForgetPolicies)],
            ]
            .concat(),
        ),
        short(
            "a port of the node leads to a pod, and to another when that is gone",
            setting(0, 0),
            [add_mapped(&one).to_vec(), vec![delete(&one)], add_mapped(&other).to_vec()].concat(),
        ),
        short(
            "a pod's interface goes, and its runtime tries anew",
            setting(0, 0),
            [add(&one).to_vec(), vec![Happening::PortGoes(one.clone())], add(&one).to_vec()]
                .concat(),
        ),
        short(
            "a network's runtime knows one of its two pods, and nothing of another network's",
            setting(0, 0),
            [
                add_to("one", &one).to_vec(),
                add_to("one", &other).to_vec(),
                add_to("two", &container(3)).to_vec(),
                add(&container(4)).to_vec(),
                vec![collect("one", &[&one, &container(4)]), collect("two", &[&container(3)])],
                vec![collect("one", &[])],
            ]
            .concat(),
        ),
        short(
            "the cluster changes the node's prefixes, and the last pod of the old ones goes",
            setting(1, 0),
            [
                vec![prefixes(&["198.18.1.0/29"])],
                add(&one).to_vec(),
                vec![
                    prefixes(&["198.18.7.0/29", "fd00:18:7::/125"]),
                    sync(true, vec![peer(1, None)], &[]),
                    delete(&one),
                ],
                add(&other).to_vec(),
            ]
            .concat(),
        ),
        short(
            "nodes come, change and go",
            setting(0, 0),
            vec![
                sync(true, vec![peer(2, None), peer(3, direct)], &[]),
                ask(Request::AddRoute(RouteSpec {
                    prefix: net("198.18.77.0/24"),
                    target: RouteTarget::Peer { name: "n2".into() },
                })),
                sync(false, vec![peer(2, Some(Encapsulation::Ipip))], &["n3"]),
                ask(Request::AddPeer(peer(4, direct))),
                ask(Request::DeletePeer("n4".into())),
                sync(true, Vec::new(), &[]),
            ],
        ),
        short(
            "the encapsulation is changed, and changed back",
            setting(0, 12),
            [
                add(&one).to_vec(),
                vec![
                    Happening::Reload(setting(0, 36)),
                    Happening::Reload(setting(0, 72)),
                    Happening::Reload(setting(0, 12)),
                ],
            ]
            .concat(),
        ),
        short(
            "masquerading ends, and the VTEPs of a stretched segment are others",
            setting(3, 1),
            [
                add(&one).to_vec(),
                vec![
                    Happening::Reload(setting(3, 14)),
                    Happening::KernelMoves(vec![Move::Way(
                        address("203.0.113.42"),
                        Some(NextHop::resolved(MacAddr([2, 0, 0, 0, 1, 1]))),
                    )]),
                    Happening::Reload(setting(3, 1)),
                ],
            ]
            .concat(),
        ),
        short(
            "the kernel moves the node, and its NIC takes less",
            setting(2, 0),
            [
                add(&one).to_vec(),
                vec![
                    sync(true, vec![peer(2, None)], &[]),
                    Happening::KernelMoves(vec![Move::Mtu(1400)]),
                    Happening::KernelMoves(vec![Move::Addresses(vec![address("198.51.100.12")])]),
                    Happening::KernelMoves(vec![
                        Move::Addresses(vec![address("198.51.100.21")]),
                        Move::Mtu(1500),
                    ]),
                ],
            ]
            .concat(),
        ),
        short(
            "masquerading ends where the kernel's routes are followed",
            setting(2, 0),
            vec![Happening::Reload(setting(2, 4))],
        ),
        short(
            "a pod goes while the journal takes no line, and the machine stops once it has it",
            setting(0, 0),
            [
                add(&one).to_vec(),
                add(&other).to_vec(),
                vec![delete(&one), Happening::Compact, Happening::Reboot(0), attach(&other)],
            ]
            .concat(),
        ),
        short(
            "the daemon ends, in order and not",
            setting(0, 4),
            [add(&one).to_vec(), vec![Happening::Kill, Happening::Stop, attach(&one)]].concat(),
        ),
    ]
}

/// One telling, with these faults in one of its happenings.
fn tell(
    short: &Short,
    at: usize,
    faults: &Faults,
    story: &Rc<RefCell<Story>>,
) -> Result<(), String> {
    let mut node = Node::new(short.setting, None, Rc::clone(story))?;
    for (number, happening) in short.happenings.iter().enumerate() {
        let faults = if number == at { faults.clone() } else { Faults::none() };
        node.happens(happening.clone(), &faults)?;
    }
    node.comes_to_rest()
}

/// Tells a story in silence, and aloud if a rule is broken.
fn try_telling(short: &Short, at: usize, faults: &[(usize, Fault)]) {
    let faults = Faults::at(faults);
    let silent = Rc::new(RefCell::new(Story::new(false)));
    let Err(rule) = tell(short, at, &faults, &silent) else { return };
    let aloud = Rc::new(RefCell::new(Story::new(true)));
    let _ = tell(short, at, &faults, &aloud);
    panic!("{}\n{}\n{rule}", short.name, aloud.borrow().text());
}

/// How many calls a happening makes, at most.
fn calls(short: &Short, at: usize) -> usize {
    let silent = Rc::new(RefCell::new(Story::new(false)));
    let mut node = Node::new(short.setting, None, silent).expect("it starts");
    let mut most = 0;
    for happening in short.happenings.iter().take(at + 1) {
        most = node.calls_of(happening.clone()).unwrap_or(CALLS);
    }
    most.min(CALLS)
}

/// All of them where seeds are asked for; a debug build, which is slow, has some of them, evenly.
fn tells_all() -> bool {
    number(SEEDS_VARIABLE).is_some()
}

#[test]
fn every_action_of_a_short_story_goes_wrong_in_every_way() {
    let step = if tells_all() { 1 } else { 7 };
    let mut tellings = 0..;
    for short in stories() {
        for at in 0..short.happenings.len() {
            for call in 0..calls(&short, at) {
                for fault in Fault::ALL {
                    if tellings.next().is_some_and(|telling| telling % step == 0) {
                        try_telling(&short, at, &[(call, fault)]);
                    }
                }
            }
        }
    }
}

#[test]
fn no_sync_of_a_short_story_is_relied_upon_before_it_is_done() {
    for short in stories() {
        for at in 0..short.happenings.len() {
            let silent = Rc::new(RefCell::new(Story::new(false)));
            if let Err(rule) = tell(&short, at, &Faults::sync(), &silent) {
                panic!("{}, sync {at} fails: {rule}", short.name);
            }
        }
    }
}

#[test]
fn whatever_takes_back_goes_wrong_too() {
    // Each kind that is not the process's end, which nothing follows.
    const FIRST: [Fault; 3] = [Fault::Refused, Fault::HalfRefused, Fault::WorkerStopsInTurn(1)];
    let step = if tells_all() { 1 } else { 61 };
    let mut tellings = 0..;
    for short in stories() {
        for at in 0..short.happenings.len() {
            let calls = calls(&short, at);
            for call in 0..calls {
                for second in call + 1..(2 * calls).min(CALLS) {
                    for first in FIRST {
                        for fault in [Fault::Refused, Fault::HalfRefused, Fault::DiesIn] {
                            if tellings.next().is_some_and(|telling| telling % step == 0) {
                                try_telling(&short, at, &[(call, first), (second, fault)]);
                            }
                        }
                    }
                }
            }
        }
    }
}
