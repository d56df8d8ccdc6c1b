//! Ports that are played: how long a packet waits for others', and who gets how much.

use dataplane::tables::PortId;

use super::{LONE_TURNS, Left, SHARE, Schedule, Source, cost};

/// The shortest frame, and a superframe.
const SHORT: usize = 64;
const LONG: usize = 65_000;

/// Short packets of a share; the last one begins within it.
const SHORT_IN_SHARE: usize = (SHARE / cost(SHORT)) as usize + 1;

/// A worker's turns over ports that are played, by their number.
struct Played {
    schedule: Schedule,
    /// Packets that each port has, and the length of all of them.
    ports: Vec<(usize, usize)>,
    /// The port of each packet, in the order in which they were served.
    log: Vec<usize>,
}

impl Played {
    /// Ports of so many packets, all of which are known to be ready.
    fn new(ports: &[(usize, usize)]) -> Self {
        let mut schedule = Schedule::new(0);
        (0..ports.len()).for_each(|port| schedule.ready(PortId(port as u16)));
        Self { schedule, ports: ports.to_vec(), log: Vec::new() }
    }

    /// One turn, before each packet of which `before` may change the ports.
    fn turn(&mut self, mut before: impl FnMut(&mut Vec<(usize, usize)>, &[usize])) {
        let mut plan = self.schedule.begin();
        while let Some((Source::Port(PortId(port)), credit)) = self.schedule.next(&mut plan) {
            let port = usize::from(port);
            let mut took = 0;
            let left = loop {
                if took >= credit {
                    break Left::Some;
                }
                before(&mut self.ports, &self.log);
                let (packets, len) = &mut self.ports[port];
                if *packets == 0 {
                    break Left::Nothing;
                }
                *packets -= 1;
                took += cost(*len);
                self.log.push(port);
            };
            self.schedule.served(source(port), took, left);
        }
        // As epoll answers at the end of a turn.
        for (port, (packets, _)) in self.ports.iter().enumerate() {
            if *packets > 0 {
                self.schedule.ready(PortId(port as u16));
            }
        }
    }

    fn turns(&mut self, count: usize) {
        (0..count).for_each(|_| self.turn(|_, _| ()));
    }

    fn served(&self, port: usize) -> usize {
        self.log.iter().filter(|served| **served == port).count()
    }
}

fn source(port: usize) -> Source {
    Source::Port(PortId(port as u16))
}

/// A quiet port among some that flood with short packets, each of which has been served.
fn quiet_among(flooding: usize) -> Played {
    let mut ports = vec![(usize::MAX, SHORT); flooding];
    ports.push((0, SHORT));
    let mut played = Played::new(&ports);
    played.turns(2 * flooding);
    played
}

#[test]
fn a_packet_of_a_quiet_port_waits_for_one_share_however_many_ports_flood() {
    for flooding in [1, 2, 10, 100] {
        for offset in 0..2 * SHORT_IN_SHARE {
            let mut played = quiet_among(flooding);
            let arrival = played.log.len() + offset;
            while played.served(flooding) == 0 {
                played.turn(|ports, log| {
                    if log.len() == arrival {
                        ports[flooding].0 = 1;
                    }
                });
            }
            let served = played.log.iter().position(|port| *port == flooding).expect("served");
            let waited = served - arrival;
            assert!(waited <= SHORT_IN_SHARE, "{waited} packets of {flooding} ports, {offset}");
        }
    }
}

#[test]
fn so_does_each_of_a_port_that_answers_one_by_one() {
    let flooding = 10;
    let mut played = quiet_among(flooding);
    // The next one comes some packets after the last was served.
    let pause = 20;
    for _ in 0..1000 {
        let arrival = played.log.len() + pause;
        let answered = played.served(flooding);
        while played.served(flooding) == answered {
            played.turn(|ports, log| {
                if log.len() == arrival {
                    ports[flooding].0 = 1;
                }
            });
        }
        let served = played.log.iter().rposition(|port| *port == flooding).expect("served");
        assert!(served - arrival <= SHORT_IN_SHARE, "{}", served - arrival);
    }
}

#[test]
fn one_that_is_alone_for_long_gets_more_at_a_time_until_another_has_a_packet() {
    let mut played = quiet_among(1);
    let at_a_time = |played: &mut Played| {
        let before = played.log.len();
        played.turns(10);
        (played.log.len() - before) / 10
    };
    assert!(at_a_time(&mut played) <= SHORT_IN_SHARE);
    played.turns(LONE_TURNS as usize);
    assert!(at_a_time(&mut played) > 3 * SHORT_IN_SHARE);
    played.ports[1].0 = 1;
    // That becomes known at the end of a turn, and it is served in the next.
    played.turns(2);
    assert_eq!(played.served(1), 1);
    assert!(at_a_time(&mut played) <= SHORT_IN_SHARE);
}

#[test]
fn a_packet_waits_for_two_superframes_at_most() {
    for arrival in 20..30 {
        let mut played = Played::new(&[(usize::MAX, LONG), (0, SHORT)]);
        while played.served(1) == 0 {
            played.turn(|ports, log| ports[1].0 += usize::from(log.len() == arrival));
        }
        let served = played.log.iter().position(|port| *port == 1).expect("served");
        assert!(served - arrival <= 2, "{}", served - arrival);
    }
}

#[test]
fn ports_that_always_have_packets_get_the_same_whatever_their_length() {
    let lens = [SHORT, 1500, 9000, LONG];
    let mut played = Played::new(&lens.map(|len| (usize::MAX, len)));
    played.turns(4000);
    let took: Vec<_> = lens
        .iter()
        .enumerate()
        .map(|(port, len)| played.served(port) as i64 * cost(*len))
        .collect();
    let (least, most) = (took.iter().min().expect("four"), took.iter().max().expect("four"));
    assert!(most - least <= 2 * SHARE, "{took:?}");
    assert!(*least >= 990 * SHARE, "{took:?}");
}

#[test]
fn a_port_that_is_emptied_again_and_again_gets_no_more_than_its_share() {
    // It has almost a share of packets whenever it is asked which ports are ready.
    let greedy = 3;
    let mut played = Played::new(&[(usize::MAX, SHORT); 4]);
    for _ in 0..4000 {
        played.ports[greedy].0 = SHORT_IN_SHARE - 1;
        played.turn(|_, _| ());
    }
    let others = played.served(0);
    assert!(played.served(greedy) <= others + SHORT_IN_SHARE, "{others}");
    assert!(played.served(greedy) * 10 >= others * 9, "nor much less");
}

#[test]
fn those_that_flood_are_served_while_others_become_ready_all_the_time() {
    let mut played = Played::new(&[(usize::MAX, SHORT); 1]);
    played.ports.resize(60, (0, SHORT));
    for turn in 0..6000 {
        played.ports[1 + turn % 59].0 += 1;
        played.turn(|_, _| ());
    }
    assert!(played.served(0) >= 6000 * (SHORT_IN_SHARE - 1));
    let quiet: usize = (1..60).map(|port| played.served(port)).sum();
    assert!(quiet >= 5990, "{quiet}");
}

#[test]
fn nothing_is_left_when_all_ports_are_empty() {
    let mut played = Played::new(&[(100, SHORT), (3, LONG), (1, SHORT)]);
    played.turns(20);
    assert_eq!([0, 1, 2].map(|port| played.served(port)), [100, 3, 1]);
    assert!(played.schedule.is_empty());
    // One that is ready once more is served in the next turn.
    played.ports[1].0 = 1;
    played.schedule.ready(PortId(1));
    played.turns(1);
    assert_eq!(played.served(1), 4);
}

/// One turn over a flooding port and a queue: which were served in it, each with all that it may take.
fn turn(schedule: &mut Schedule, mut left: impl FnMut(Source) -> Left) -> Vec<Source> {
    let mut plan = schedule.begin();
    let mut served = Vec::new();
    while let Some((next, credit)) = schedule.next(&mut plan) {
        schedule.served(next, credit, left(next));
        served.push(next);
    }
    served
}

const PORT: PortId = PortId(0);
const QUEUE: Source = Source::Queue(0);

#[test]
fn a_queue_takes_turns_with_a_port_that_floods() {
    let mut schedule = Schedule::new(1);
    schedule.ready(PORT);
    let mut served = Vec::new();
    for _ in 0..100 {
        served.extend(turn(&mut schedule, |_| Left::Some));
    }
    let of_queue = served.iter().filter(|source| **source == QUEUE).count();
    assert!((50..=52).contains(&of_queue) && (101..=103).contains(&served.len()), "{served:?}");
}

#[test]
fn what_is_handed_over_takes_turns_with_a_port_that_floods_and_with_a_queue() {
    let mut schedule = Schedule::new(1);
    schedule.take_over();
    schedule.ready(PORT);
    let mut served = Vec::new();
    for _ in 0..150 {
        served.extend(turn(&mut schedule, |_| Left::Some));
    }
    for source in [Source::Handoff, QUEUE, Source::Port(PORT)] {
        let count = served.iter().filter(|other| **other == source).count();
        assert!((50..=53).contains(&count), "{source:?}: {count} of {}", served.len());
    }
}

#[test]
fn what_is_handed_over_keeps_its_place_when_queues_change() {
    let mut schedule = Schedule::new(2);
    assert!(!turn(&mut schedule, |_| Left::Nothing).contains(&Source::Handoff), "nobody does");
    schedule.take_over();
    assert!(turn(&mut schedule, |_| Left::Some).contains(&Source::Handoff));
    schedule.set_queues(0);
    assert_eq!(turn(&mut schedule, |_| Left::Nothing), [Source::Handoff]);
    turn(&mut schedule, |_| Left::Nothing);
    assert!(schedule.is_empty());
}

#[test]
fn a_queue_is_looked_at_before_a_worker_sleeps() {
    let mut schedule = Schedule::new(1);
    assert_eq!(turn(&mut schedule, |_| Left::Nothing), [QUEUE]);
    assert!(schedule.is_empty());
    schedule.ready(PORT);
    let left = |source| if source == QUEUE { Left::Nothing } else { Left::Some };
    assert!(turn(&mut schedule, left).contains(&QUEUE));
    // The queue has had its share of a round in which the port waits, and the port is emptied.
    assert_eq!(turn(&mut schedule, |_| Left::Nothing), [Source::Port(PORT)]);
    assert!(!schedule.is_empty(), "the queue was not looked at");
    assert_eq!(turn(&mut schedule, |_| Left::Nothing), [QUEUE]);
    assert!(schedule.is_empty());
}

#[test]
fn a_port_that_is_forgotten_is_served_no_more_until_it_is_ready_again() {
    // Both in the round, and then fresh.
    for turns in [0, 5] {
        let mut played = Played::new(&[(1000, SHORT), (1000, SHORT)]);
        played.turns(turns);
        played.schedule.forget(PortId(0));
        let served = [played.served(0), played.served(1)];
        let packets = std::mem::take(&mut played.ports[0]);
        played.turns(20);
        assert_eq!(played.served(0), served[0]);
        assert!(played.served(1) > served[1]);
        played.ports[0] = packets;
        played.turns(20);
        assert!(played.served(0) > served[0]);
        while played.ports.iter().any(|(packets, _)| *packets > 0) {
            played.turns(1);
        }
        played.turns(1);
        assert!(played.schedule.is_empty());
    }
}

/// As by packets that are read together and are longer than was expected.
#[test]
fn a_port_that_was_emptied_far_beyond_its_share_is_served_again() {
    for others_wait in [false, true] {
        let mut played = Played::new(&[(0, SHORT), (if others_wait { 100 } else { 0 }, SHORT)]);
        played.turn(|_, _| ());
        let schedule = &mut played.schedule;
        schedule.ready(PortId(0));
        let mut plan = schedule.begin();
        while let Some((source, credit)) = schedule.next(&mut plan) {
            let (took, left) = match source {
                Source::Port(PortId(0)) => (5 * SHARE, Left::Nothing),
                _ if others_wait => (credit, Left::Some),
                _ => (0, Left::Nothing),
            };
            schedule.served(source, took, left);
        }
        // One more makes the others wait, if they did not.
        played.ports = vec![(1, SHORT), (100, SHORT)];
        played.schedule.ready(PortId(1));
        played.turn(|ports, _| ports[0].0 = 0);
        played.ports[0].0 = 1;
        played.schedule.ready(PortId(0));
        played.turns(40);
        assert_eq!(played.served(0), 1, "others wait: {others_wait}");
        let at = played.log.iter().position(|port| *port == 0).expect("it is served");
        let shares = at / SHORT_IN_SHARE;
        assert!(if others_wait { shares >= 4 } else { shares <= 3 }, "{:?}", played.log);
    }
}

#[test]
fn other_queues_begin_with_nothing_and_ports_keep_their_places() {
    let mut schedule = Schedule::new(2);
    schedule.ready(PortId(3));
    let mut plan = schedule.begin();
    while let Some((source, _)) = schedule.next(&mut plan) {
        // Each has used up its share and has more.
        schedule.served(source, SHARE, Left::Some);
    }
    assert!(!schedule.is_empty());
    schedule.set_queues(1);
    let mut served = Vec::new();
    for _ in 0..3 {
        let mut plan = schedule.begin();
        while let Some((source, _)) = schedule.next(&mut plan) {
            served.push(source);
            schedule.served(source, 0, Left::Nothing);
        }
    }
    assert!(served.contains(&Source::Port(PortId(3))), "{served:?}");
    assert!(served.contains(&Source::Queue(0)), "{served:?}");
    assert!(!served.contains(&Source::Queue(1)), "{served:?}");
    assert!(schedule.is_empty());
}
