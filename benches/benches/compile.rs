//! What the control thread does for a large cluster: 10,000 peers with ten prefixes each.
//!
//! `all` makes tables of a model. `attach` makes them again for one more pod, `join` for a peer whose
//! next hop has another MAC. `resolve` is what one message of the cluster costs before that, and `judge`
//! what it costs to receive all of it again.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use api::{PeerSpec, PeerSync, Source};
use controlplane::compile::{Base, Input, UplinkPort, compile};
use controlplane::config::Config;
use controlplane::model::{Edit, Model};
use controlplane::next_hop::NextHop;
use controlplane::path_mtu::PathMtus;
use criterion::{BatchSize, Criterion};
use dataplane::tables::{Epoch, LocalAddresses, Offloads, PortId};
use dataplane::wire::MacAddr;
use ipnet::Ipv4Net;

const PEERS: u32 = 10_000;
const PREFIXES: u32 = 10;

const CONFIG: &str = r#"
[node]
name = "a"
pod_prefixes = ["10.255.0.0/24"]
cluster_prefixes = ["10.0.0.0/8"]
[uplink]
interface = "eth0"
"#;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let config = Config::parse("bench", CONFIG).expect("valid");
    let peers: Vec<PeerSpec> = (0..PEERS).map(peer).collect();
    let mut model = Model::new(&config);
    let tell = |peer: &PeerSpec| Edit::Peer { peer: peer.clone(), source: Source::Kubernetes };
    let edits: Vec<_> = peers.iter().map(tell).collect();
    model.apply_all(&edits);
    assert_eq!(model.peers.len(), PEERS as usize, "every peer is taken");

    let hops: BTreeMap<IpAddr, NextHop> = peers
        .iter()
        .map(|peer| (peer.address, NextHop::resolved(MacAddr([2, 0, 0, 0, 0, 1]))))
        .collect();
    let addresses = LocalAddresses { v4: Some(Ipv4Addr::new(198, 51, 100, 11)), v6: None };
    let uplink = UplinkPort {
        id: PortId(1),
        mac: MacAddr([2, 0, 0, 0, 0, 2]),
        addresses,
        mtu: 1500,
        offloads: Offloads::default(),
    };
    let (pods, path_mtus) = (BTreeMap::new(), PathMtus::default());
    let input = Input {
        config: &config,
        model: &model,
        pods: &pods,
        host: None,
        uplink: Some(&uplink),
        next_hops: &hops,
        path_mtus: &path_mtus,
        epoch: Epoch(1),
    };
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    group.bench_function("all", |bencher| bencher.iter(|| compile(black_box(&input))));
    let mut kept = Some(Base::of(&input));
    let mut renew = |input: &Input<'_>| {
        let base = Base::renew(kept.take(), black_box(input));
        let tables = base.tables(input);
        kept = Some(base);
        tables
    };
    group.bench_function("attach", |bencher| bencher.iter(|| renew(&input)));
    let mut moved = hops.clone();
    moved.insert(peers[0].address, NextHop::resolved(MacAddr([2, 0, 0, 0, 0, 3])));
    let inputs = [input, Input { next_hops: &moved, ..input }];
    let mut turn = inputs.iter().cycle();
    group.bench_function("join", |bencher| bencher.iter(|| renew(turn.next().unwrap_or(&input))));
    let last = [tell(&peers[0])];
    group.bench_function("resolve", |bencher| {
        bencher.iter_batched_ref(
            || model.clone(),
            |model| model.apply_all(&last),
            BatchSize::PerIteration,
        );
    });
    let sync = PeerSync { source: Source::Kubernetes, complete: true, peers, gone: Vec::new() };
    group.bench_function("judge", |bencher| {
        bencher.iter_batched(
            || sync.clone(),
            |sync| {
                let synced = model.sync_peers(sync, &|_| None).expect("kubernetes may");
                assert!(synced.edits.is_empty() && synced.refused.is_empty());
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    criterion.final_summary();
}

fn peer(number: u32) -> PeerSpec {
    let prefix = |index: u32| {
        let bits = 0x0a00_0000 + ((number * PREFIXES + index) << 6);
        Ipv4Net::new(Ipv4Addr::from_bits(bits), 26).expect("a length of IPv4").into()
    };
    PeerSpec {
        name: format!("node-{number}"),
        address: Ipv4Addr::from_bits(0xcb00_0001 + number).into(),
        prefixes: (0..PREFIXES).map(prefix).collect(),
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    }
}
