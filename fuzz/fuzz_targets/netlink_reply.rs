//! What the kernel sends by netlink: any datagram is read, as notifications and as the answer to any request,
//! without end or panic, and comes to no more than it has bytes for.
//!
//! The first byte chooses what it is read as. A length of zero in the head of a message stands for the right one,
//! so that a mutated message is read on.

#![no_main]

use netlink::{FlowFilter, datagram};

const HEADER_BYTES: usize = 16;
/// Of the requests that are answered.
const SEQUENCE: u32 = 1;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else { return };
    let bytes = repaired(bytes);
    // No message is shorter than its header, and no attribute than its length and type.
    let (messages, attributes) = (bytes.len() / HEADER_BYTES, bytes.len() / 4);
    match choice % 5 {
        0 => {
            let events = datagram::announced(&bytes);
            assert!(events.len() <= messages);
            for (event, _) in &events {
                assert_eq!(event, &event.clone());
            }
        }
        1 => {
            if let Ok(listed) = datagram::listed(&bytes, SEQUENCE) {
                let all = [listed.links.len(), listed.addresses.len(), listed.neighbors.len()];
                assert!(all.iter().sum::<usize>() + listed.routes.len() <= messages);
            }
        }
        2 => {
            let routes = datagram::listed_routes(&bytes, SEQUENCE).unwrap_or_default();
            assert!(routes.len() <= messages);
            for route in &routes {
                let (network, len) = route.destination;
                assert!(len <= if network.is_ipv4() { 32 } else { 128 });
                assert!(route.next_hops.len() <= attributes);
                assert!(route.is_same_as(route));
                assert!(route.next_hops.iter().all(|hop| (1..=256).contains(&hop.weight)));
            }
        }
        3 => {
            let filter = FlowFilter { is_v4: choice & 0x80 == 0, protocol: 17, port: None };
            let flows = datagram::listed_flows(&bytes, SEQUENCE, filter).unwrap_or_default();
            assert!(flows.len() <= messages);
            assert!(flows.iter().all(|flow| flow.destination.is_ipv4() == filter.is_v4));
        }
        _ => {
            let writers = datagram::ruleset_writers(&bytes, "vswitch");
            assert!(writers.len() <= messages / 2, "a table changes before a transaction ends");
        }
    }
});

/// The datagram, with each length of zero as long as what is left.
fn repaired(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while let Some(length) = bytes.get(at..at + 4).and_then(|length| length.first_chunk()) {
        let left = bytes.len() - at;
        let len = match u32::from_ne_bytes(*length) as usize {
            0 => {
                bytes[at..at + 4].copy_from_slice(&(left as u32).to_ne_bytes());
                left
            }
            len => len,
        };
        if !(HEADER_BYTES..=left).contains(&len) {
            break;
        }
        at += len.next_multiple_of(4);
    }
    bytes
}
