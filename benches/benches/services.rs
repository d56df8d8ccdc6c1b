//! What the control thread does for 10,000 services of two backends each.
//!
//! `tell` judges and takes a whole list of them, `compile` makes tables of it, both as at a node's start.
//! `change` takes another backend of one service, and makes the tables again. `again` receives the whole
//! list anew, with nothing that is new in it.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use api::{BackendSpec, BackendUse, ServiceProtocol, ServiceSpec, ServiceSync, WithoutBackend};
use controlplane::compile::{Base, Input, compile};
use controlplane::config::Config;
use controlplane::model::{Edit, Model};
use controlplane::path_mtu::PathMtus;
use criterion::{BatchSize, Criterion};
use dataplane::tables::Epoch;

const SERVICES: u32 = 10_000;
const FIRST_VIRTUAL: u32 = 0xc613_0000;

const CONFIG: &str = r#"
[node]
name = "a"
pod_prefixes = ["198.18.1.0/24"]
cluster_prefixes = ["198.18.0.0/15"]
[uplink]
interface = "eth0"
"#;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let config = Config::parse("bench", CONFIG).expect("valid");
    let services: Vec<_> = (0..SERVICES).map(|number| service(number, 8080)).collect();
    let sync = ServiceSync { complete: true, services, gone: Vec::new() };
    let empty = Model::new(&config);
    let mut model = empty.clone();
    let (edits, refused) = model.sync_services(sync.clone());
    assert!(refused.is_empty(), "every service is taken");
    model.apply_all(&edits);
    assert_eq!(model.served.ports.len(), SERVICES as usize, "every service is served");

    let (pods, hops, path_mtus) = (BTreeMap::new(), BTreeMap::new(), PathMtus::default());
    let nothing_else = Input {
        config: &config,
        model: &empty,
        pods: &pods,
        host: None,
        uplink: None,
        next_hops: &hops,
        path_mtus: &path_mtus,
        epoch: Epoch(1),
    };
    let mut group = criterion.benchmark_group("services");
    group.sample_size(10);
    group.bench_function("tell", |bencher| {
        bencher.iter_batched(
            || (empty.clone(), sync.clone()),
            |(mut model, sync)| {
                let (edits, _) = model.sync_services(sync);
                model.apply_all(&edits);
                model
            },
            BatchSize::PerIteration,
        );
    });
    let input = Input { model: &model, ..nothing_else };
    group.bench_function("compile", |bencher| bencher.iter(|| compile(black_box(&input))));
    let mut kept = Some(Base::of(&input));
    let mut changed = model.clone();
    let mut ports = [8081, 8080].into_iter().cycle();
    group.bench_function("change", |bencher| {
        bencher.iter(|| {
            let port = ports.next().unwrap_or(8080);
            changed.apply_all(&[Edit::Service { service: service(SERVICES / 2, port) }]);
            let input = Input { model: &changed, ..nothing_else };
            let base = Base::renew(kept.take(), black_box(&input));
            let tables = base.tables(&input);
            kept = Some(base);
            tables
        });
    });
    group.bench_function("again", |bencher| {
        bencher.iter_batched(
            || sync.clone(),
            |sync| {
                let (edits, refused) = model.sync_services(sync);
                assert!(edits.is_empty() && refused.is_empty());
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
    criterion.final_summary();
}

/// One whose two backends listen on that port.
fn service(number: u32, port: u16) -> ServiceSpec {
    let backend = |host| {
        let address = IpAddr::from(Ipv4Addr::new(198, 18, 1, host));
        BackendSpec { address, port, flows: BackendUse::All }
    };
    let host = 2 + (number % 100) as u8;
    ServiceSpec {
        name: format!("shop/web-{number}:http"),
        protocol: ServiceProtocol::Tcp,
        port: 80,
        addresses: vec![Ipv4Addr::from_bits(FIRST_VIRTUAL + number).into()],
        sources: Vec::new(),
        backends: vec![backend(host), backend(host + 100)],
        without_backend: WithoutBackend::Refuse,
        affinity_seconds: None,
    }
}
