//! Packets of every path, each timed by the worker that it passes. From the NIC to the node's kernel goes what is
//! for the node in the overlay, which the paths of the sampler's own tests have.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use dataplane::tables::{Epoch, PortId, PortRole, Tunnels};
use frame::Pool;
use netio::port::PortFd;

use super::{PATIENCE, packet, pod_mac, receive, spec, state, tables};
use crate::{Confinement, Idle, LatencyPath, Workers};

const PODS: [u16; 2] = [1, 2];
const HOST: u16 = 3;
const NIC: u16 = 4;

#[test]
fn a_packet_of_each_path_is_in_its_histogram() {
    let mut first = tables(1, 4);
    for (port, role) in [(HOST, PortRole::Host), (NIC, PortRole::Uplink)] {
        if let Some(port) = &mut first.ports[usize::from(port)] {
            port.kind = role;
        }
    }
    first.tunnels = Arc::new(Tunnels { direct: true, ..Tunnels::default() });
    let published = Arc::new(ArcSwap::from_pointee(first));
    let workers =
        Workers::spawn(vec![spec(Idle::Micros(0))], &published, &state(), &Confinement::default())
            .expect("threads can be made");
    let far: Vec<_> = (1..=4)
        .map(|number| {
            let (ours, theirs) = PortFd::pair().expect("a socketpair");
            workers.add_port(PortId(number), &Arc::new(ours), 0);
            theirs
        })
        .collect();
    assert!(workers.wait_epoch(Epoch(1), PATIENCE));

    let (pool, latencies) = (Pool::new(4), workers.latencies());
    for (from, to, path) in [
        (PODS[0], PODS[1], LatencyPath::PodToPod),
        (PODS[0], HOST, LatencyPath::PodToHost),
        (HOST, PODS[0], LatencyPath::HostToPod),
        (PODS[0], NIC, LatencyPath::PodToNic),
        (NIC, PODS[1], LatencyPath::NicToPod),
        (HOST, NIC, LatencyPath::HostToNic),
    ] {
        let sender = &far[usize::from(from) - 1];
        let mut packet = packet(&pool, from, to);
        if from == NIC {
            packet.frame[..6].copy_from_slice(&pod_mac(NIC).0);
        }
        sender.send(&mut packet).expect("the port takes it");
        let received = receive(&pool, &far[usize::from(to) - 1]);
        assert!(received.is_some(), "{path:?}");
        // It is counted with the end of the turn.
        for _ in 0..PATIENCE.as_millis() {
            if latencies[0].path(path).packets() == 1 {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let counted = latencies[0].path(path);
        assert_eq!((counted.timed(), counted.packets()), (1, 1), "{path:?}");
        assert!(counted.sum_ns() > 0 && counted.sum_ns() < PATIENCE.as_nanos() as u64);
    }
    let ports = [1, 2, 3, 4].map(|port| latencies[0].port(PortId(port)).packets());
    assert_eq!(ports, [3, 0, 2, 1]);
    let busy = workers.states()[0].busy;
    assert!(!busy.is_zero() && busy < PATIENCE, "{busy:?}");
    workers.stop();
}
