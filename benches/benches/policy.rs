//! Policies: what a judgement costs by the number of the subject's rules, in a matrix and gone through, and
//! what changes cost the control thread.
//!
//! The cluster has 10,000 pods: 1,000 workloads of ten pods in 100 namespaces and five tiers. A rule names
//! one of these groups or a block, and a port, an interval or none. `compile` makes everything of 5,000
//! rules, `join` takes a pod into a known class and out again, `workload` one whose class is new.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use api::{
    AttachmentId, GroupId, PeerBlock, PolicyPeers, PolicyPorts, PolicyRule, PolicyTier, RuleAction,
    RuleSet, RuleSetId, SubjectRules,
};
use controlplane::compile::PodPort;
use controlplane::policy::{Compiler, MATRIX_BYTES};
use criterion::{Criterion, Throughput};
use dataplane::tables::policy::Direction;
use dataplane::tables::{Offloads, PortId};
use dataplane::wire::Protocol;
use vswitch_benches::{BATCH, Random};

const PODS: u32 = 10_000;
const WORKLOADS: u32 = 1_000;
/// Connections that are judged in turn: their addresses stay in L2, the tables need not.
const PROBES: usize = 16_384;
/// Memory of the largest table, bytes, at most.
const TABLE_BYTES: usize = 1 << 20;
const SUBJECT: PortId = PortId(1);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("policy");
    let random = &mut Random::new(7);
    let probes: Vec<_> = (0..PROBES)
        .map(|_| (address(random.below(PODS as usize) as u32), 1000 + random.below(1100) as u16))
        .collect();
    let ports = ports();
    group.throughput(Throughput::Elements(BATCH as u64));
    for (form, max_bytes) in [("matrix", MATRIX_BYTES), ("linear", 0)] {
        for count in [10, 100, 1000, 5000] {
            let mut compiler = cluster(count, max_bytes);
            let policies = compiler.compile(&ports);
            let statistics = compiler.statistics();
            assert_eq!(statistics.linear, usize::from(max_bytes == 0), "{statistics:?}");
            assert!(statistics.table_bytes <= TABLE_BYTES, "{statistics:?}");
            let mut batches = probes.chunks_exact(BATCH).cycle();
            group.bench_function(format!("{form}-{count}"), |bencher| {
                bencher.iter(|| {
                    for (peer, port) in batches.next().into_iter().flatten() {
                        let (peer, port) = (black_box(*peer), Some(black_box(*port)));
                        let tcp = Protocol::TCP;
                        black_box(policies.judge(SUBJECT, Direction::Ingress, peer, tcp, port));
                    }
                });
            });
        }
    }
    group.throughput(Throughput::Elements(1)).sample_size(10);
    group.bench_function("compile", |bencher| {
        bencher.iter(|| cluster(5000, MATRIX_BYTES).compile(&ports));
    });
    let mut compiler = cluster(5000, MATRIX_BYTES);
    compiler.compile(&ports);
    // Of the same /28 as the last pod of the first node, whose workload it joins.
    let newcomer = [Ipv4Addr::new(10, 0, 0, 101).into()];
    let mut change = |groups: &[GroupId]| {
        for group in groups {
            compiler.change_members(group, &newcomer, &[]);
        }
        black_box(compiler.compile(&ports));
        for group in groups {
            compiler.change_members(group, &[], &newcomer);
        }
        black_box(compiler.compile(&ports));
    };
    let known = groups_of(99);
    group.bench_function("join", |bencher| bencher.iter(|| change(&known)));
    let new = [workload(1), workload(2), workload(3)];
    group.bench_function("workload", |bencher| bencher.iter(|| change(&new)));
    group.finish();
    criterion.final_summary();
}

fn address(pod: u32) -> IpAddr {
    // 100 pods on each node, which has a /24.
    Ipv4Addr::from_bits(0x0a00_0000 + ((pod / 100) << 8) + pod % 100 + 1).into()
}

fn workload(number: u32) -> GroupId {
    GroupId(format!("workload-{}", number % WORKLOADS))
}

fn groups_of(pod: u32) -> [GroupId; 3] {
    let number = pod % WORKLOADS;
    let namespace = GroupId(format!("namespace-{}", number % 100));
    [workload(number), namespace, GroupId(format!("tier-{}", number / 100 % 5))]
}

/// The cluster, with a subject that has so many rules.
fn cluster(rules: usize, max_bytes: usize) -> Compiler {
    let mut compiler = Compiler::with_matrix_bytes(max_bytes);
    for pod in 0..PODS {
        for group in groups_of(pod) {
            compiler.change_members(&group, &[address(pod)], &[]);
        }
    }
    let random = &mut Random::new(11);
    let rules = (0..rules).map(|index| rule(index as u32, random)).collect();
    let set = RuleSet { policy: "shop/web".into(), tier: PolicyTier::NetworkPolicy, rules };
    let id = RuleSetId("shop/web".into());
    compiler.set_rules(id.clone(), set).expect("it can be compiled");
    let subject = SubjectRules { ingress: vec![id], egress: Vec::new() };
    compiler.set_subject(attachment(), subject);
    compiler
}

fn rule(index: u32, random: &mut Random) -> PolicyRule {
    let (mut groups, mut blocks) = (Vec::new(), Vec::new());
    match random.below(10) {
        0..7 => groups.push(workload(random.below(WORKLOADS as usize) as u32)),
        7 => groups.push(GroupId(format!("namespace-{}", random.below(100)))),
        8 => blocks.push(block(24, random)),
        _ => blocks.push(block(28, random)),
    }
    let port = 1000 + random.below(1000) as u16;
    let ports = match random.below(10) {
        0 => None,
        1..3 => Some((port, port + 20)),
        _ => Some((port, port)),
    };
    let ports = ports.map(|ports| vec![PolicyPorts { protocol: 6, ports: Some(ports) }]);
    PolicyRule {
        index,
        action: RuleAction::Allow,
        peers: PolicyPeers::Of { groups, blocks },
        ports,
    }
}

/// Of pods or of none.
fn block(len: u8, random: &mut Random) -> PeerBlock {
    let bits = 0x0a00_0000 + random.below(1 << 16) as u32;
    let cidr = ipnet::Ipv4Net::new(Ipv4Addr::from_bits(bits), len).expect("a length of IPv4");
    PeerBlock { cidr: cidr.trunc().into(), except: Vec::new() }
}

fn attachment() -> AttachmentId {
    AttachmentId { container_id: "web".into(), ifname: "eth0".into() }
}

fn ports() -> BTreeMap<AttachmentId, PodPort> {
    let port = PodPort { id: SUBJECT, offloads: Offloads::default() };
    BTreeMap::from([(attachment(), port)])
}
