//! The configuration file: any text is settings or problems, each with its line; settings that are accepted
//! make tables.

#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;

use controlplane::compile::{HostPort, Input, UplinkPort, compile};
use controlplane::config::{Config, Problem};
use controlplane::model::Model;
use controlplane::next_hop::NextHop;
use controlplane::path_mtu::PathMtus;
use controlplane::plane::needs_restart;
use dataplane::tables::{Epoch, LocalAddresses, Offloads, PortId};
use dataplane::wire::MacAddr;

const FILE: &str = "vswitch.toml";

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // Any other file is refused when it is read.
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Config::parse(FILE, text) {
        Ok(config) => accepted(&config),
        Err(problems) => refused(&problems, text),
    }
});

fn refused(problems: &[Problem], text: &str) {
    assert!(!problems.is_empty(), "a refusal has a reason");
    assert!(problems.is_sorted(), "problems are in the order of their lines");
    let lines = text.split('\n').count();
    for problem in problems {
        assert!((1..=lines).contains(&problem.line), "{problem}: there are {lines} lines");
        assert!(!problem.message.is_empty(), "a problem says what is wrong");
        let place = format!("{FILE}:{}: ", problem.line);
        assert!(problem.to_string().starts_with(&place), "{problem}: not {place}");
    }
}

fn accepted(config: &Config) {
    assert!(needs_restart(config, config).is_empty(), "it is what it was");
    let model = Model::new(config);
    let mac = |last| MacAddr([2, 0, 0, 0, 0, last]);
    let offloads = Offloads::default();
    let configured = config.uplink.as_ref();
    let uplink = configured.map(|uplink| UplinkPort {
        id: PortId(1),
        mac: mac(1),
        addresses: LocalAddresses {
            v4: uplink.address.or(Some([198, 51, 100, 11].into())),
            v6: uplink.address6,
        },
        mtu: 1500,
        offloads,
    });
    let host = HostPort { id: PortId(0), mac: mac(2), mtu: 1450, offloads };
    let next_hops: BTreeMap<IpAddr, NextHop> =
        model.all_peers().map(|peer| (peer.address, NextHop::resolved(mac(3)))).collect();
    drop(compile(&Input {
        config,
        model: &model,
        pods: &BTreeMap::new(),
        host: config.host.as_ref().map(|_| &host),
        uplink: uplink.as_ref(),
        next_hops: &next_hops,
        path_mtus: &PathMtus::default(),
        epoch: Epoch(1),
    }));
    assert!(
        model
            .snapshot()
            .iter()
            .all(|edit| { matches!(edit, controlplane::model::Edit::PodPrefixes { .. }) }),
        "what is configured is not journalled"
    );
}
