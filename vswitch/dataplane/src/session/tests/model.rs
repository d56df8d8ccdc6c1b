//! The table against a list that is searched from end to end.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::session::tuple::Sorted;
use crate::session::{Class, Refusal, SweepCursor};

/// What happens. Numbers are few, so that sessions meet.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A packet from a client: to a server, or by one of two services to it; perhaps with its source
    /// port shifted.
    Client {
        client: u16,
        server: u16,
        service: Option<u16>,
        shift: bool,
        flags: TcpFlags,
    },
    /// A packet from a server to a client, which sees the shifted port or not.
    Server {
        client: u16,
        server: u16,
        shift: bool,
        flags: TcpFlags,
    },
    Close {
        client: u16,
        server: u16,
    },
    Pass {
        seconds: u32,
    },
    Sweep {
        buckets: u32,
    },
    ForgetPort {
        client: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(&[SYN, SYN, SYN_ACK, ACK, ACK, FIN_ACK, RST]);
    let (client, server) = (0u16..24, 0u16..12);
    prop_oneof![
        8 => (client.clone(), server.clone(), prop::option::of(0u16..2), any::<bool>(), flags.clone())
            .prop_map(|(client, server, service, shift, flags)| {
                Step::Client { client, server, service, shift, flags }
            }),
        6 => (client.clone(), server.clone(), any::<bool>(), flags).prop_map(
            |(client, server, shift, flags)| Step::Server { client, server, shift, flags }
        ),
        1 => (client.clone(), server).prop_map(|(client, server)| Step::Close { client, server }),
        1 => prop_oneof![0u32..4, 20u32..140].prop_map(|seconds| Step::Pass { seconds }),
        1 => (1u32..20).prop_map(|buckets| Step::Sweep { buckets }),
        1 => client.prop_map(|client| Step::ForgetPort { client }),
    ]
}

struct World {
    table: SessionTable,
    /// Every session that is held, expired ones included.
    held: Vec<Session>,
    now: Tick,
    cursor: SweepCursor,
    v6: bool,
}

impl World {
    fn end(&self, host: u16, port: u16) -> Endpoint {
        if self.v6 { v6(host, port) } else { v4(host, port) }
    }

    /// Six clients a port.
    fn client(&self, client: u16) -> (Endpoint, PortId) {
        (self.end(1 + client / 6, 40_000 + client % 6), PortId(1 + client / 6))
    }

    fn protocol(server: u16) -> Protocol {
        [Protocol::TCP, Protocol::TCP, Protocol::UDP, Protocol::SCTP][usize::from(server % 4)]
    }

    fn tuple(&self, server: u16, from: Endpoint, to: Endpoint) -> Tuple {
        Tuple::new(0, Self::protocol(server), from, to).unwrap()
    }

    fn server_side(&self, client: u16, server: u16, shift: bool) -> Tuple {
        let (mut from, _) = self.client(client);
        from.port += if shift { 1_000 } else { 0 };
        self.tuple(server, from, self.end(500 + server, 80))
    }

    fn find(&self, tuple: Tuple) -> Option<(usize, Direction)> {
        self.held.iter().enumerate().find_map(|(at, session)| {
            let direction = if session.client_side == tuple {
                Direction::FromOpener
            } else if session.server_side.reversed() == tuple {
                Direction::FromResponder
            } else {
                return None;
            };
            (!session.is_expired(self.now)).then_some((at, direction))
        })
    }

    fn packet(&mut self, tuple: Tuple, flags: TcpFlags) -> Option<Found> {
        let found = self.table.hit(tuple, self.now);
        let expected = self.find(tuple);
        assert_eq!(
            found.map(|found| (found.session, found.direction)),
            expected.map(|(at, direction)| (self.held[at], direction))
        );
        let (found, (at, direction)) = (found?, expected?);
        if !found.is_reopened_by(flags) {
            let session = &mut self.held[at];
            session.state = session.state.after(session.protocol(), direction, flags, self.now);
            if let Some(touch) = found.touch(flags, self.now) {
                let touch = SessionEffect::Touch(touch);
                assert_eq!(self.table.commit(&touch, self.now), Outcome::Done);
            }
        }
        Some(found)
    }

    fn create(&mut self, session: Session) {
        let events = |table: &SessionTable| table.events()[usize::from(self.v6)];
        let before = events(&self.table);
        let outcome = self.table.create(session, self.now);
        let after = events(&self.table);

        // What was in the way of either tuple is gone, or stayed and was the outcome.
        let key = |tuple: &Tuple| Sorted::of(tuple).key;
        let opens = session.state.opener & SYN.0 != 0 && session.state.opener & ACK.0 == 0;
        let opens = opens && session.protocol() == Protocol::TCP;
        for side in [&session.client_side, &session.server_side] {
            let in_the_way = self.held.iter().position(|held| {
                key(&held.client_side) == key(side) || key(&held.server_side) == key(side)
            });
            let Some(at) = in_the_way else { continue };
            let held = self.held[at];
            if held.is_expired(self.now) || opens && held.state.class.is_closing() {
                self.held.remove(at);
            } else {
                match outcome {
                    Outcome::Existing(found) => assert_eq!(found.session, held),
                    outcome => assert_eq!(outcome, Outcome::Refused(Refusal::Taken)),
                }
                return;
            }
        }
        let of_port = |classes: &[Class]| {
            let of_port = self.held.iter().filter(|held| held.charged == session.charged);
            of_port.filter(|held| classes.contains(&held.state.class)).count() as u32
        };
        let quota = self.table.quota();
        let class = session.state.class;
        let is_over = !class.is_closing()
            && of_port(&[Class::Embryonic, Class::Established]) >= quota.live
            || class == Class::Embryonic && of_port(&[Class::Embryonic]) >= quota.embryonic;
        match outcome {
            Outcome::Refused(Refusal::Quota) => assert!(is_over),
            // Where the hash puts entries is not the model's to know.
            Outcome::Refused(Refusal::Full) => assert!(!is_over),
            Outcome::Created => {
                assert!(!is_over);
                self.held.push(session);
            }
            outcome => panic!("{outcome:?}"),
        }
        // What had to make room could be spared.
        let made_room = after.evicted > before.evicted || after.expired > before.expired;
        if made_room {
            let there: HashSet<_> = self.all().collect();
            let is_at_quota = |port: PortId| {
                let embryonic =
                    |held: &&Session| held.charged == port && held.state.class == Class::Embryonic;
                self.held.iter().filter(embryonic).count() as u32 >= quota.embryonic
            };
            for victim in self.held.iter().filter(|held| !there.contains(held)) {
                assert!(
                    victim.is_expired(self.now)
                        || victim.state.class.is_closing()
                        || victim.state.class == Class::Embryonic
                            && (victim.charged == session.charged || is_at_quota(victim.charged))
                );
            }
            self.held.retain(|held| there.contains(held));
        }
    }

    /// What the table holds, expired sessions included.
    fn all(&self) -> impl Iterator<Item = Session> {
        self.table.page(0..self.table.buckets(), Tick(0))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Client { client, server, service, shift, flags } => {
                let (from, charged) = self.client(client);
                let server_side = self.server_side(client, server, shift);
                let client_side = match service {
                    Some(service) => self.tuple(server, from, self.end(900 + service, server)),
                    None => self.server_side(client, server, false),
                };
                let found = self.packet(client_side, flags);
                if found.is_none_or(|found| found.is_reopened_by(flags)) {
                    let server_side = if service.is_some() { server_side } else { client_side };
                    let state = State::opened(client_side.protocol(), flags, self.now);
                    let session = opened(client_side, server_side, charged, self.now);
                    let (local_out, through_tunnel) = (Some(PortId(50)), client == 0);
                    self.create(Session { state, local_out, through_tunnel, ..session });
                }
            }
            Step::Server { client, server, shift, flags } => {
                self.packet(self.server_side(client, server, shift).reversed(), flags);
            }
            Step::Close { client, server } => {
                let tuple = self.server_side(client, server, false);
                let outcome = self.table.commit(&SessionEffect::Close(tuple), self.now);
                let before = self.held.len();
                self.held
                    .retain(|held| Sorted::of(&held.server_side).key != Sorted::of(&tuple).key);
                assert_eq!(outcome == Outcome::Done, self.held.len() < before);
            }
            Step::Pass { seconds } => self.now.0 += seconds,
            Step::Sweep { buckets } => {
                let removed = self.table.sweep(&mut self.cursor, buckets, self.now);
                let there: HashSet<_> = self.all().collect();
                let before = self.held.len();
                self.held.retain(|held| there.contains(held) || !held.is_expired(self.now));
                assert_eq!(before - self.held.len(), removed as usize);
                if buckets >= self.table.buckets() {
                    assert!(self.held.iter().all(|held| !held.is_expired(self.now)));
                }
            }
            Step::ForgetPort { client } => {
                let (_, port) = self.client(client);
                let before = self.held.len();
                self.held.retain(|held| held.charged != port);
                assert_eq!(self.table.forget_port(port) as usize, before - self.held.len());
            }
        }
    }

    /// The same sessions, and counts that are exact.
    fn check(&self) {
        let there: HashSet<_> = self.all().collect();
        assert_eq!(there, self.held.iter().copied().collect());
        assert_eq!(there.len(), self.held.len());
        for port in (0..6).chain([50]).map(PortId) {
            let count = |class: &[Class]| {
                let is_one =
                    |held: &&Session| held.charged == port && class.contains(&held.state.class);
                self.held.iter().filter(is_one).count() as u32
            };
            let counted = self.table.of_port(port);
            assert_eq!(counted.embryonic, count(&[Class::Embryonic]));
            assert_eq!(counted.established, count(&[Class::Established]));
            assert_eq!(counted.closing, count(&[Class::Finished, Class::Reset]));
            let steered = self.held.iter().filter(|held| {
                let carriers = [held.local_in, held.local_out, Some(held.charged)];
                held.is_steered() && carriers.contains(&Some(port))
            });
            assert_eq!(counted.steered as usize, steered.count());
            assert_eq!(counted.steered, self.table.steered_of(port));
        }
        let has_steered = self.held.iter().any(Session::is_steered);
        assert_eq!(self.table.has_steered(), has_steered);
    }
}

fn agree(buckets: u32, v6: bool, steps: &[Step]) {
    let mut world = World {
        table: table(buckets),
        held: Vec::new(),
        // Later than every timeout, so that a page at zero has all.
        now: Tick(10_000),
        cursor: SweepCursor::new(0, 1),
        v6,
    };
    for step in steps {
        world.step(*step);
        world.check();
    }
}

proptest! {
    #[test]
    fn a_roomy_table_does_what_a_list_does(
        v6: bool, steps in proptest::collection::vec(step(), 1..150)
    ) {
        agree(64, v6, &steps);
    }

    #[test]
    fn a_crowded_table_does_so_within_its_quotas_and_its_room(
        v6: bool, steps in proptest::collection::vec(step(), 1..300)
    ) {
        agree(6, v6, &steps);
    }
}
