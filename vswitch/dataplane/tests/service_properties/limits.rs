//! What there is no room for, and what cannot be looked up.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::Ordering;

use dataplane::DropReason;

use super::world::{ENDS, Sent, Transport, World};

const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 255, 1), 53);
const BACKEND: &str = "service 198.18.255.1 udp 53 to 198.18.2.7:5353";

fn ask(client: usize, port: u16) -> Sent {
    let from = SocketAddrV4::new(ENDS[client].address, port);
    Sent { transport: Transport::Udp, from, to: SERVICE, flags: "" }
}

#[test]
fn a_full_table_refuses_what_begins_and_keeps_what_was_answered() {
    let mut world = World::new();
    world.node.line(BACKEND).expect("a service");
    let (mut answered, mut reasons) = (Vec::new(), BTreeSet::new());
    // Five clients may each have a quarter of the slots; a translated session takes two.
    for port in 40_000..40_100 {
        for client in [0, 1, 2, 3, super::NODE_ITSELF] {
            let ask = ask(client, port);
            match world.send(0, &ask).0 {
                Ok((source, backend)) => {
                    let answer = Sent { from: backend, to: source, ..ask };
                    assert_eq!(world.send(1, &answer).0, Ok((SERVICE, ask.from)));
                    answered.push(ask);
                }
                Err(reason) => {
                    reasons.insert(reason);
                }
            }
        }
    }
    assert!(reasons.contains(&DropReason::SessionFull), "{reasons:?}");
    let slots = world.table().capacity() as usize;
    assert!(2 * answered.len() > slots / 2 && 2 * answered.len() <= slots, "{}", answered.len());
    for ask in answered {
        assert!(world.send(1, &ask).0.is_ok(), "{ask:?} was given up");
    }
}

/// A writer that the kernel has put to sleep holds its bucket: its sessions are not taken for absent.
#[test]
fn what_cannot_be_looked_up_is_neither_translated_nor_passed_as_it_is() {
    let mut world = World::new();
    world.node.line(BACKEND).expect("a service");
    let known = ask(0, 40_000);
    let (source, backend) = world.send(0, &known).0.expect("a backend");
    let answer = Sent { from: backend, to: source, ..known };
    let busy = Err(DropReason::SessionBusy);
    // A bucket begins with the word that is odd while it is written; the header has a page.
    let change_locks = |world: &World| {
        let buckets = world.table().buckets() as usize;
        let words: Vec<_> = world.words_v4().iter().skip(512).collect();
        assert_eq!(words.len(), buckets * 64);
        for bucket in words.chunks(64) {
            bucket[0].fetch_add(1, Ordering::SeqCst);
        }
    };
    change_locks(&world);
    for sent in [known, answer, ask(1, 40_000)] {
        assert_eq!(world.send(0, &sent).0, busy, "{sent:?}");
    }
    change_locks(&world);
    assert_eq!(world.send(0, &known).0, Ok((source, backend)));
    assert_eq!(world.send(0, &answer).0, Ok((SERVICE, known.from)));
    assert!(world.send(0, &ask(1, 40_000)).0.is_ok());
}
