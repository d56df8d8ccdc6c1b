//! What holds, whatever happens: each rule a function with a sentence for its name.
//!
//! Enters: the node, the control plane, what clients were told. Leaves: nothing, or how the rule is
//! broken. Some hold after every action, some after every event, some only on a node that has come to
//! rest: no worker has stopped, and nothing that the kernel refused is still to be done.

use std::collections::BTreeSet;
use std::net::IpAddr;

use controlplane::compile::compile;
use controlplane::desired::{HostPortState, Steering, Translation};
use controlplane::model::{Edit, Model};
use controlplane::plane::ControlPlane;
use controlplane::ports;
use dataplane::tables::policy::Direction;
use dataplane::tables::{PortId, PortRole, Tables, Tunnels};
use dataplane::wire::Protocol;

use crate::events;
use crate::ledger::Ledger;
use crate::policies::{self, Committed, PORT};
use crate::tables::difference;
use crate::world::World;

type Held = Result<(), String>;

/// A kind of packet that the NIC gives the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Vxlan(u16),
    Ipip,
    Direct,
    Neighbors,
}

fn kinds(steering: &Steering) -> Vec<Kind> {
    let mut kinds: Vec<_> = steering.vxlan_ports.iter().map(|port| Kind::Vxlan(*port)).collect();
    kinds.extend(steering.ipip.then_some(Kind::Ipip));
    kinds.extend((!steering.prefixes.is_empty()).then_some(Kind::Direct));
    kinds.extend(steering.neighbors.then_some(Kind::Neighbors));
    kinds
}

pub(crate) fn kinds_in_words(steering: &Steering) -> String {
    format!("{:?} from {:?}", kinds(steering), steering.peers)
}

fn accepts(tunnels: &Tunnels, kind: Kind) -> bool {
    match kind {
        Kind::Vxlan(port) => tunnels.takes_vxlan_on(port),
        Kind::Ipip => tunnels.ipip,
        Kind::Direct => tunnels.direct,
        Kind::Neighbors => tunnels.direct && tunnels.proxy_neighbors,
    }
}

fn all_accept(world: &World, kinds: impl Iterator<Item = Kind>) -> Held {
    for kind in kinds {
        let workers = world.workers.all.iter().enumerate();
        let mut deaf =
            workers.filter(|(_, worker)| worker.forwards() && !accepts(worker.tunnels(), kind));
        if let Some((number, _)) = deaf.next() {
            return Err(format!(
                "the NIC gives worker {number} packets that its tables do not accept: {kind:?}"
            ));
        }
    }
    Ok(())
}

/// After every action.
pub(crate) fn no_worker_has_tables_that_name_a_port_that_it_lacks(world: &World) -> Held {
    for (number, worker) in world.workers.all.iter().enumerate() {
        let lacks = named(&worker.using).find(|id| !worker.ports.contains(id));
        if let Some(id) = lacks {
            return Err(format!("worker {number} has tables that name {id}, which it lacks"));
        }
    }
    Ok(())
}

/// At each change of what is taken from the NIC: accept first.
pub(crate) fn what_is_newly_taken_from_the_nic_is_accepted(
    world: &World,
    former: &Steering,
) -> Held {
    let former = kinds(former);
    let taken = world.kernel.steering.iter().flat_map(kinds);
    all_accept(world, taken.filter(|kind| !former.contains(kind)))
}

/// After every action: what an event leaves as it is goes on all the while.
pub(crate) fn what_stays_taken_from_the_nic_is_accepted(world: &World) -> Held {
    if !world.course.is_settled {
        return Ok(());
    }
    let (before, after) = &world.course.steering;
    let (before, after) = (kinds(before), kinds(after));
    let taken = world.kernel.steering.iter().flat_map(kinds);
    all_accept(world, taken.filter(|kind| before.contains(kind) && after.contains(kind)))
}

fn named(tables: &Tables) -> impl Iterator<Item = PortId> + '_ {
    let ports = tables.ports.iter().enumerate();
    ports.filter(|(_, port)| port.is_some()).map(|(id, _)| PortId(id as u16))
}

/// After every event, and after recovery.
pub(crate) fn what_was_answered_is_in_the_model(ledger: &Ledger, plane: &ControlPlane) -> Held {
    ledger.broken_by(plane.model()).map_or(Ok(()), Err)
}

/// After every event, and after recovery.
pub(crate) fn no_two_attachments_hold_an_address(plane: &ControlPlane) -> Held {
    let mut held = BTreeSet::new();
    for (attachment, lease) in &plane.model().attachments {
        for net in &lease.addresses {
            if !held.insert(net.addr()) {
                return Err(format!("{attachment:?} and another hold {}", net.addr()));
            }
        }
    }
    Ok(())
}

/// After every event, and after recovery: the next start chooses the same.
pub(crate) fn the_nodes_addresses_are_recorded(plane: &ControlPlane) -> Held {
    let own = plane.uplink().map(|uplink| uplink.port.addresses).unwrap_or_default();
    let recorded = plane.model().recorded_own;
    let is_recorded = own.iter().all(|address| recorded.has(address));
    if is_recorded {
        Ok(())
    } else {
        Err(format!("{own:?} is this node, and {recorded:?} is recorded"))
    }
}

/// After every event, unless the journal has refused a line and waits for the next.
pub(crate) fn the_journal_makes_the_model(world: &World, plane: &ControlPlane) -> Held {
    let restored = Model::restored(plane.config(), &world.disk.read()?);
    let (restored, model) = (durable(&restored), durable(plane.model()));
    if restored == model {
        return Ok(());
    }
    Err(format!("the journal makes {restored:?} and the model is {model:?}"))
}

/// What a model keeps over a restart. Where the allocator goes on is of no consequence.
pub(crate) fn durable(model: &Model) -> Vec<Edit> {
    let mut edits = model.snapshot();
    edits.retain(|edit| !matches!(edit, Edit::Cursor { .. }));
    edits
}

/// On a node at rest.
pub(crate) fn tables_are_those_of_a_compilation_from_nothing(
    world: &World,
    plane: &ControlPlane,
) -> Held {
    let fresh = plane.with_input(compile);
    let probes = probes(plane);
    match difference(&world.workers.current, &fresh, &probes) {
        None => Ok(()),
        Some(difference) => {
            Err(format!("the published tables are not those of the node: {difference}"))
        }
    }
}

/// Addresses of pods here and elsewhere, gateways, the underlay, and of nobody.
fn probes(plane: &ControlPlane) -> Vec<IpAddr> {
    let v4 = (0..10u8).chain([50, 77, 78]).flat_map(|net| {
        let hosts: &[u8] =
            if net == 1 || net == 7 { &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100] } else { &[2, 9, 200] };
        hosts.iter().map(move |host| IpAddr::from([198, 18, net, *host]))
    });
    let v6 = (1..8u16).flat_map(|net| {
        (1..4u16).map(move |host| IpAddr::from([0xfd00, 0x18, net, 0, 0, 0, 0, host]))
    });
    let underlay = events::UNDERLAY.iter().map(|text| events::address(text));
    let leased = plane.model().attachments.values().flat_map(|lease| &lease.addresses);
    v4.chain(v6)
        .chain(underlay)
        .chain([[192, 0, 2, 1].into(), [203, 0, 113, 1].into()])
        .chain(leased.map(|net| net.addr()))
        .collect()
}

/// On a node at rest.
pub(crate) fn workers_have_the_ports_that_tables_name(world: &World, plane: &ControlPlane) -> Held {
    let tables = &world.workers.current;
    let expected: BTreeSet<_> =
        named(tables).chain(plane.ports().leaving().iter().copied()).collect();
    for (number, worker) in world.workers.all.iter().enumerate() {
        if worker.ports != expected {
            let has = &worker.ports;
            return Err(format!("worker {number} has {has:?}, tables and leaving {expected:?}"));
        }
    }
    if let Some(id) = plane.ports().leaving().first() {
        return Err(format!("every worker is past {id}, and it is not closed"));
    }
    Ok(())
}

/// On a node at rest.
pub(crate) fn every_port_is_a_pods_that_is_there(world: &World, plane: &ControlPlane) -> Held {
    for id in named(&world.workers.current) {
        let is_pod = world.workers.current.port(id).is_some_and(|port| port.kind == PortRole::Pod);
        let attachment = plane.ports().attachment_of(id);
        let is_there = attachment.is_some_and(|attachment| {
            plane.model().attachments.get(attachment).is_some_and(|lease| lease.attached)
                && plane.ports().is_up(attachment)
        });
        if is_pod && !is_there {
            return Err(format!("{id} is of a pod that is gone: {attachment:?}"));
        }
        if !is_pod && id != ports::HOST && id != ports::UPLINK {
            return Err(format!("{id} is nobody's"));
        }
    }
    Ok(())
}

/// Before flows are forgotten the kernel translates as it is to: else it would track them again by the
/// former table. Unless it has refused something of the list, which is logged.
pub(crate) fn flows_are_forgotten_by_the_table(
    world: &World,
    begun: &[Translation],
    ended: &[Translation],
) -> Held {
    if !world.course.refused.is_empty() {
        return Ok(());
    }
    let table = world.kernel.nft_table.as_ref();
    let leads = |one: &&Translation| {
        table.and_then(|table| table.translations().get(&one.from)) == Some(&one.to)
    };
    if let Some(missing) = begun.iter().find(|one| !leads(one)) {
        return Err(format!("flows are forgotten before {missing} is there"));
    }
    match ended.iter().find(leads) {
        Some(stays) => Err(format!("flows are forgotten while {stays} is there")),
        None => Ok(()),
    }
}

/// On a node at rest.
pub(crate) fn the_kernel_has_what_it_is_to_have(world: &World, plane: &ControlPlane) -> Held {
    let kernel = &world.kernel;
    let steering = kernel.steering.clone().unwrap_or_default();
    if steering != plane.steering() {
        let wanted = plane.steering();
        return Err(format!("the NIC gives {steering:?} and is to give {wanted:?}"));
    }
    if kernel.nft_table != plane.nft_table() {
        let (has, wanted) = (&kernel.nft_table, plane.nft_table());
        return Err(format!("the nftables table is {has:?} and is to be {wanted:?}"));
    }
    let Some(mut actual) = kernel.host_port() else {
        return if plane.host().is_some() { Err("the host port is gone".into()) } else { Ok(()) };
    };
    let wanted = plane.host_port_state();
    // A neighbour too many harms nobody.
    if actual.neighbors.is_superset(&wanted.neighbors) {
        actual.neighbors.clone_from(&wanted.neighbors);
    }
    // The first of IPv4 is the one to masquerade by; beyond that the order means nothing.
    let first = |state: &HostPortState| state.addresses.iter().copied().find(IpAddr::is_ipv4);
    if first(&actual) == first(&wanted) && is_same_set(&actual.addresses, &wanted.addresses) {
        actual.addresses.clone_from(&wanted.addresses);
    }
    if actual != wanted {
        return Err(format!("the host port has {actual:?} and is to have {wanted:?}"));
    }
    Ok(())
}

fn is_same_set(one: &[IpAddr], other: &[IpAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|address| other.contains(address))
}

/// On a node at rest.
pub(crate) fn pods_have_the_policies_that_were_committed(
    world: &World,
    plane: &ControlPlane,
) -> Held {
    let model = plane.model();
    let committed = Committed::of(&model.policies);
    let refused = plane.refused_rule_sets();
    if !refused.iter().map(|one| &one.id).eq(committed.refused()) {
        return Err(format!("{refused:?} are refused, of {committed:?}"));
    }
    let are_kept = plane.config().kubernetes.policies || model.policies.are_told();
    let tables = &world.workers.current;
    for (attachment, port) in plane.ports().compiled() {
        let pod = model.attachments.get(&attachment).and_then(|lease| lease.pod.as_ref());
        for (peer, number) in
            policies::MEMBERS.iter().flat_map(|peer| [(peer, PORT), (peer, PORT + 1)])
        {
            let peer = events::address(peer);
            for direction in [Direction::Ingress, Direction::Egress] {
                let judged =
                    tables.policies.judge(port.id, direction, peer, Protocol::TCP, Some(number));
                let file = policies::file_allows(plane, &attachment, direction, peer, number);
                let expected = match pod.filter(|_| are_kept) {
                    Some(pod) => committed.allows(pod, direction, peer, number, file),
                    None => file.unwrap_or(true),
                };
                if judged.allowed != expected {
                    return Err(format!(
                        "{pod:?}, {direction:?}, {peer} port {number}: {} by {committed:?}, and the tables say {}",
                        expected, judged.allowed
                    ));
                }
            }
        }
    }
    Ok(())
}

/// On a node at rest.
pub(crate) fn somebody_was_called_for_pods_of_another_mtu(
    world: &World,
    plane: &ControlPlane,
) -> Held {
    let waiting = plane.adjustments();
    if waiting.is_empty() || world.adjuster_mtu == Some(plane.pod_mtu()) {
        return Ok(());
    }
    let (called, mtu) = (world.adjuster_mtu, plane.pod_mtu());
    Err(format!("{} pod(s) are to have MTU {mtu}, the last call was for {called:?}", waiting.len()))
}
