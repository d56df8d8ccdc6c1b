//! What is true of any packets to and from services: a naive model says what becomes of them, whichever
//! worker they come by.
//!
//! | file | holds |
//! |---|---|
//! | `world`  | a node with two workers over one session table |
//! | `model`  | services as lists |
//! | `bytes`  | what a translated packet is, byte for byte |
//! | `limits` | a full session table, and one that somebody writes for long |

mod bytes;
mod limits;
mod model;
mod world;

use std::net::SocketAddrV4;

use dataplane::tables::BackendState;
use proptest::prelude::*;
use proptest::sample::Index;

use model::{BACKEND_PORT, Model, Served, VIRTUAL};
use world::{ENDS, NODE_ITSELF, REMOTE, Sent, Transport, WORLD, World};

/// Ends that send to services.
const CLIENTS: [usize; 5] = [0, 1, 2, 3, NODE_ITSELF];
/// Ends that can be behind them.
const BACKENDS: [usize; 6] = [0, 1, 2, 3, REMOTE, WORLD];

#[derive(Debug, Clone)]
enum Step {
    Send {
        service: usize,
        client: usize,
        port: u16,
        flags: &'static str,
    },
    /// One more packet of a session, or an answer.
    Follow {
        nth: Index,
        answers: bool,
        flags: &'static str,
    },
    Change {
        service: usize,
        served: Option<Served>,
    },
}

fn served() -> impl Strategy<Value = Option<Served>> {
    use BackendState::{NotServing, Serving, Usable};
    let state = prop::sample::select(&[Usable, Usable, Serving, NotServing][..]);
    let backends = prop::collection::btree_map(prop::sample::select(&BACKENDS[..]), state, 0..4);
    prop::option::weighted(0.7, backends.prop_map(|backends| backends.into_iter().collect()))
}

fn step() -> impl Strategy<Value = Step> {
    let services = || 0..VIRTUAL.len();
    let flags = || prop::sample::select(&["S", "S", "SA", "A", "A", "A", "R"][..]);
    let ports = prop::sample::select(&[40_000u16, 40_001][..]);
    let send = (services(), prop::sample::select(&CLIENTS[..]), ports, flags())
        .prop_map(|(service, client, port, flags)| Step::Send { service, client, port, flags });
    let follow = (any::<Index>(), any::<bool>(), flags())
        .prop_map(|(nth, answers, flags)| Step::Follow { nth, answers, flags });
    let change =
        (services(), served()).prop_map(|(service, served)| Step::Change { service, served });
    prop_oneof![3 => send, 5 => follow, 2 => change]
}

fn change(worlds: &mut [World; 2], model: &mut Model, service: usize, served: Option<Served>) {
    let (address, transport, port) = VIRTUAL[service];
    let transport = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Sctp => "sctp",
    };
    let line = match &served {
        None if !model.is_served(service) => return,
        None => format!("no-service {address} {transport} {port}"),
        Some(served) => {
            let mark = |state| match state {
                BackendState::Usable => "",
                BackendState::Serving => "!",
                BackendState::NotServing => "!!",
            };
            let one = |(end, state): &(usize, BackendState)| {
                format!(" {}:{BACKEND_PORT}{}", ENDS[*end].address, mark(*state))
            };
            let backends: String = served.iter().map(one).collect();
            format!("service {address} {transport} {port} to{backends}")
        }
    };
    for world in worlds {
        world.node.line(&line).expect("a service");
    }
    model.serve(service, served);
}

/// Each port carries as many translated sessions as the model knows.
fn is_counted(world: &World, model: &Model) -> Result<(), TestCaseError> {
    let port_of = |at: &SocketAddrV4| ENDS.iter().find(|end| end.address == *at.ip());
    for name in ["host", "uplink", "pod-a", "pod-b", "pod-m", "pod-n"] {
        let carried = model.sessions.iter().filter(|known| {
            let client = port_of(&known.client).expect("an end").port;
            let backend = port_of(&known.backend).expect("an end").port;
            client == name || backend == name && name.starts_with("pod-")
        });
        let counted = world.table().steered_of(world.node.port(name).expect("a port"));
        prop_assert_eq!(counted as usize, carried.count(), "{}", name);
    }
    prop_assert_eq!(world.table().has_steered(), !model.sessions.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// By either worker the same, and the same if no packet skips the look-up in the session table.
    #[test]
    fn packets_pass_as_a_naive_model_of_services_says(
        steps in prop::collection::vec((0..2usize, step()), 1..60)
    ) {
        let (mut worlds, mut model) = ([World::new(), World::without_skips()], Model::default());
        let others = worlds[1].sessions();
        for service in 0..VIRTUAL.len() {
            let served = vec![(0, BackendState::Usable), (REMOTE, BackendState::Usable)];
            change(&mut worlds, &mut model, service, Some(served));
        }
        for (worker, step) in steps {
            let sent = match step {
                Step::Change { service, served } => {
                    change(&mut worlds, &mut model, service, served);
                    continue;
                }
                Step::Send { service, client, port, flags } => {
                    let (address, transport, to) = VIRTUAL[service];
                    let from = SocketAddrV4::new(ENDS[client].address, port);
                    Sent { transport, from, to: SocketAddrV4::new(address, to), flags }
                }
                Step::Follow { .. } if model.sessions.is_empty() => continue,
                Step::Follow { nth, answers, flags } => {
                    let known = *nth.get(&model.sessions);
                    let (from, to) = match answers {
                        true => (known.backend, known.source),
                        false => (known.client, known.service),
                    };
                    Sent { transport: known.transport, from, to, flags }
                }
            };
            let [(left, bytes), (left_too, bytes_too)] =
                [0, 1].map(|world| worlds[world].send(worker, &sent));
            prop_assert_eq!(left, left_too, "a packet that skips the look-up is none of a session");
            prop_assert_eq!(bytes, bytes_too);
            let checked = model.check(&sent, left);
            prop_assert!(checked.is_ok(), "{:?}: {}", sent, checked.expect_err("not ok"));
            prop_assert_eq!(worlds[0].sessions(), model.sessions.len(), "{:?}", sent);
            prop_assert_eq!(worlds[1].sessions(), model.sessions.len() + others);
            is_counted(&worlds[0], &model)?;
        }
    }
}
