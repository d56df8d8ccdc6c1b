use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Entry, Layout, PolicyStamp, Session, V4, V6, decode, encode, is_meta_of, key_of};
use crate::session::state::{Class, State, Tick};
use crate::session::tuple::{Endpoint, Sorted, Tuple};
use crate::tables::PortId;
use crate::wire::Protocol;

fn endpoint(v6: bool) -> impl Strategy<Value = Endpoint> {
    // Few addresses and ports among many: equal ends occur.
    let number = prop_oneof![0u128..3, any::<u128>()];
    (number, prop_oneof![0u16..3, any::<u16>()]).prop_map(move |(number, port)| {
        let address = if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(number))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(number as u32))
        };
        Endpoint { address, port }
    })
}

fn state() -> impl Strategy<Value = State> {
    let class = prop::sample::select(&[
        Class::Embryonic,
        Class::Established,
        Class::Finished,
        Class::Reset,
    ]);
    (any::<u32>(), any::<u8>(), any::<u8>(), class).prop_map(|(seen, opener, responder, class)| {
        State { last_seen: Tick(seen), opener, responder, class }
    })
}

fn session(v6: bool) -> impl Strategy<Value = Session> {
    let ends = [endpoint(v6), endpoint(v6), endpoint(v6), endpoint(v6)];
    let numbers = any::<[u16; 4]>();
    let ports = [prop::option::of(0u16..1024), prop::option::of(0u16..1024)];
    (ends, any::<bool>(), state(), numbers, any::<[u32; 4]>(), ports).prop_map(
        |(ends, is_translated, state, [zone, protocol, rule_in, rule_out], words, ports)| {
            let [source, destination, new_source, new_destination] = ends;
            let between = |from, to| Tuple::new(zone, Protocol(protocol as u8), from, to).unwrap();
            let client_side = between(source, destination);
            let [generation, created, service, service_generation] = words;
            let [local_in, local_out] = ports.map(|port| port.map(PortId));
            let is_revoked = rule_in & 1 != 0;
            Session {
                client_side,
                server_side: if is_translated {
                    between(new_source, new_destination)
                } else {
                    client_side
                },
                state,
                policy: PolicyStamp { generation, rule_in: rule_in >> 1, rule_out, is_revoked },
                charged: PortId(rule_in ^ zone),
                created: Tick(created),
                service,
                service_generation,
                local_in,
                local_out,
                through_tunnel: rule_out & 1 != 0,
            }
        },
    )
}

fn round_trip<L: Layout>(session: &Session) {
    let (main, alias) = encode::<L>(session);
    let Some(Entry::Main(decoded)) = decode(&main) else { panic!("a main entry") };
    assert_eq!(decoded, *session);
    let server = Sorted::of(&session.server_side);
    assert_eq!(key_of(&main), server.key);
    assert!(is_meta_of(main.as_ref()[L::ADDRESS_WORDS], &server.key));
    assert_eq!(main.as_ref()[L::STATE], session.state.to_word());

    assert_eq!(alias.is_some(), session.is_translated());
    let Some(alias) = alias else { return };
    let client = Sorted::of(&session.client_side);
    let Some(Entry::Alias { opener_is_higher, main }) = decode(&alias) else { panic!("an alias") };
    assert_eq!((opener_is_higher, main), (client.source_is_higher, server.key));
    assert_eq!(key_of(&alias), client.key);
}

proptest! {
    #[test]
    fn an_entry_of_ipv4_is_its_session(session in session(false)) {
        round_trip::<V4>(&session);
    }

    #[test]
    fn an_entry_of_ipv6_is_its_session(session in session(true)) {
        round_trip::<V6>(&session);
    }

    #[test]
    fn any_words_can_be_read(four: V4, six: V6) {
        // Whatever a file holds; none of it may panic.
        let _ = (decode(&four), decode(&six), key_of(&four), key_of(&six));
    }
}
