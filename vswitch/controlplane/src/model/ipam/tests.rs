use std::collections::BTreeSet;
use std::net::IpAddr;

use api::AddressRange;
use ipnet::IpNet;
use proptest::prelude::*;

use super::{Ipam, IpamError, MAX_RESTING};

fn prefix(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Allocates from a single prefix and takes what it got.
fn take_one(ipam: &mut Ipam) -> Result<IpAddr, IpamError> {
    let (address, _) = ipam.allocate(&[], &[])?[0];
    ipam.take(address);
    Ok(address)
}

#[test]
fn the_first_after_the_gateway_comes_first_in_both_families() {
    let ipam = Ipam::new(&[prefix("198.18.1.0/24"), prefix("fd00:18:1::/64")]);
    let both: Vec<_> =
        ipam.allocate(&[], &[]).expect("free").into_iter().map(|(address, _)| address).collect();
    assert_eq!(both, [address("198.18.1.2"), address("fd00:18:1::2")]);
}

#[test]
fn what_was_freed_rests_while_another_is_free() {
    let mut ipam = Ipam::new(&[prefix("198.18.1.0/29")]);
    let all: Vec<_> = (0..5).map(|_| take_one(&mut ipam).expect("free")).collect();
    assert_eq!(all.last(), Some(&address("198.18.1.6")));
    assert_eq!(take_one(&mut ipam), Err(IpamError::Exhausted(prefix("198.18.1.0/29"))));
    for freed in [3, 1, 4] {
        ipam.release(all[freed]);
    }
    for longest in [3, 1, 4] {
        assert_eq!(take_one(&mut ipam), Ok(all[longest]));
    }
}

#[test]
fn one_that_is_asked_for_by_its_address_does_not_rest() {
    let mut ipam = Ipam::new(&[prefix("198.18.1.0/29")]);
    let all: Vec<_> = (0..5).map(|_| take_one(&mut ipam).expect("free")).collect();
    ipam.release(all[0]);
    ipam.release(all[2]);
    assert_eq!(ipam.allocate(&[all[0]], &[]).expect("free")[0].0, all[0]);
    ipam.take(all[0]);
    ipam.release(all[0]);
    assert_eq!(take_one(&mut ipam), Ok(all[2]), "the other rests longer by now");
}

#[test]
fn no_more_rest_than_are_known_to() {
    let mut ipam = Ipam::new(&[prefix("fd00:18::/64")]);
    for _ in 0..=MAX_RESTING {
        let address = take_one(&mut ipam).expect("free");
        ipam.release(address);
    }
    assert_eq!(ipam.pools[0].resting.len(), MAX_RESTING);
}

#[test]
fn the_search_goes_on_behind_the_last_that_was_given() {
    let mut ipam = Ipam::new(&[prefix("198.18.1.0/24")]);
    let first = take_one(&mut ipam).expect("free");
    let second = take_one(&mut ipam).expect("free");
    ipam.release(first);
    ipam.release(second);
    assert_eq!(take_one(&mut ipam), Ok(address("198.18.1.4")));
}

#[test]
fn what_is_requested_must_be_a_pods_and_free() {
    let mut ipam = Ipam::new(&[prefix("198.18.1.0/24"), prefix("fd00:18:1::/64")]);
    let request = [address("198.18.1.9"), address("fd00:18:1::9")];
    let got = ipam.allocate(&request, &[]).expect("free");
    assert_eq!(got.iter().map(|(address, _)| *address).collect::<Vec<_>>(), request);
    ipam.take(request[0]);
    for (request, expected) in [
        ("198.18.1.9", "198.18.1.9 is in use by another pod"),
        ("198.18.1.1", "198.18.1.1 cannot be a pod's: it is this node's gateway"),
        ("198.18.1.0", "198.18.1.0 cannot be a pod's: it is the network's own address"),
        (
            "198.18.1.255",
            "198.18.1.255 cannot be a pod's: it is the broadcast address of the pod prefix",
        ),
        ("fd00:18:1::", "fd00:18:1:: cannot be a pod's: it is the network's own address"),
        ("203.0.113.1", "203.0.113.1 cannot be a pod's: it is in none of this node's pod prefixes"),
    ] {
        let refused = ipam.allocate(&[address(request)], &[]).expect_err("refused");
        assert_eq!(refused.to_string(), expected);
    }
    let twice = [address("198.18.1.10"), address("198.18.1.11")];
    assert!(matches!(ipam.allocate(&twice, &[]), Err(IpamError::Unusable { .. })));
}

fn range(first: &str, last: &str) -> AddressRange {
    AddressRange { first: address(first), last: address(last) }
}

#[test]
fn an_address_is_of_the_ranges_of_its_family() {
    let mut ipam = Ipam::new(&[prefix("198.18.1.0/24"), prefix("fd00:18:1::/64")]);
    let ranges = [range("198.18.1.0", "198.18.1.2"), range("198.18.1.20", "198.18.1.21")];
    let mut given = Vec::new();
    while let Ok(both) = ipam.allocate(&[], &ranges) {
        both.iter().for_each(|(address, _)| ipam.take(*address));
        given.push(both[0].0.to_string());
        assert_eq!(both[1].1, prefix("fd00:18:1::/64"), "of which no range was asked for");
    }
    assert_eq!(given, ["198.18.1.2", "198.18.1.20", "198.18.1.21"]);
    let refused = ipam.allocate(&[], &ranges).expect_err("all given out");
    assert_eq!(
        refused.to_string(),
        "no address of 198.18.1.0 to 198.18.1.2 and 198.18.1.20 to 198.18.1.21 is left; delete pods or give the network a larger range"
    );
    // What rests is given again where nothing else of the ranges is left, and others go on.
    ipam.release(address("198.18.1.20"));
    assert_eq!(ipam.allocate(&[], &ranges).expect("free")[0].0, address("198.18.1.20"));
    assert_eq!(ipam.allocate(&[], &[]).expect("free")[0].0, address("198.18.1.22"));
}

#[test]
fn a_range_is_to_be_of_this_nodes_prefixes_and_what_is_requested_of_the_ranges() {
    let ipam = Ipam::new(&[prefix("198.18.1.0/24"), prefix("fd00:18:1::/64")]);
    for (first, last) in [("198.18.2.0", "198.18.2.255"), ("198.18.0.0", "198.18.255.255")] {
        let refused = ipam.allocate(&[], &[range(first, last)]).expect_err("not this node's");
        assert_eq!(
            refused.to_string(),
            format!(
                "the range {first} to {last} lies in none of this node's pod prefixes, which are 198.18.1.0/24 and fd00:18:1::/64; ask for a part of these, or for none"
            )
        );
    }
    let mixed = range("198.18.1.2", "fd00:18:1::2");
    assert!(matches!(ipam.allocate(&[], &[mixed]), Err(IpamError::ForeignRange { .. })));
    let backwards = range("198.18.1.9", "198.18.1.8");
    assert!(matches!(ipam.allocate(&[], &[backwards]), Err(IpamError::RangeExhausted(_))));
    let ranges = [range("fd00:18:1::100", "fd00:18:1::1ff")];
    assert_eq!(ipam.allocate(&[], &ranges).expect("free")[1].0, address("fd00:18:1::100"));
    assert!(ipam.allocate(&[address("fd00:18:1::1ff")], &ranges).is_ok());
    assert!(ipam.allocate(&[address("198.18.1.9")], &ranges).is_ok(), "the other family");
    let refused = ipam.allocate(&[address("fd00:18:1::2")], &ranges).expect_err("outside");
    assert_eq!(
        refused.to_string(),
        "fd00:18:1::2 cannot be a pod's: it is not of the ranges asked for, fd00:18:1::100 to fd00:18:1::1ff"
    );
}

#[test]
fn the_whole_of_a_large_prefix_is_no_work() {
    let mut ipam = Ipam::new(&[prefix("fd00::/8")]);
    ipam.set_cursor(address("fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    assert_eq!(take_one(&mut ipam), Ok(address("fd00::2")));
    let ranges = [range("fd00::", "fdff::"), range("fd01::", "fdff:1::")];
    assert_eq!(ipam.allocate(&[], &ranges).expect("free")[0].0, address("fd00::3"));
}

proptest! {
    #[test]
    fn no_address_is_given_twice_and_none_is_lost(
        steps in proptest::collection::vec(any::<Option<prop::sample::Index>>(), 1..200)
    ) {
        let net = prefix("198.18.1.0/28");
        let mut ipam = Ipam::new(&[net]);
        let mut taken = BTreeSet::new();
        for step in steps {
            match step {
                None => match take_one(&mut ipam) {
                    Ok(address) => {
                        prop_assert!(net.contains(&address));
                        prop_assert!(taken.insert(address), "{address} is given twice");
                    }
                    Err(error) => {
                        prop_assert_eq!(error, IpamError::Exhausted(net));
                        prop_assert_eq!(taken.len(), 13);
                    }
                },
                Some(index) if !taken.is_empty() => {
                    let address = *index.get(&taken.iter().copied().collect::<Vec<_>>());
                    taken.remove(&address);
                    ipam.release(address);
                    if taken.len() < 12 {
                        let next = ipam.allocate(&[], &[]).expect("free")[0].0;
                        prop_assert_ne!(next, address, "freed a moment ago");
                    }
                }
                Some(_) => {}
            }
        }
    }
}
