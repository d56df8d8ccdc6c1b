//! What may be claimed, and that all at once is judged as one by one.

use api::{Encapsulate, Encapsulation, PeerSpec, overlap};
use dataplane::tables::LocalAddresses;
use ipnet::IpNet;
use proptest::prelude::*;

use super::{Claims, Usual};

fn peer(name: &str, address: &str, prefixes: &[&str]) -> PeerSpec {
    PeerSpec {
        name: name.into(),
        address: address.parse().expect("an address"),
        prefixes: prefixes.iter().map(|text| text.parse().expect("a prefix")).collect(),
        encapsulation: None,
        encapsulate: None,
        vtep_mac: None,
    }
}

#[test]
fn whatever_no_peer_can_have_is_refused_by_name() {
    let cluster: Vec<IpNet> =
        ["198.18.0.0/15", "fd00:18::/32"].map(|text| text.parse().expect("a prefix")).into();
    let own = LocalAddresses { v4: "198.51.100.11".parse().ok(), v6: None };
    let mut claims = Claims::new(&cluster, own, None);
    claims.take_prefix("198.18.1.0/24".parse().expect("a prefix"), "this node");
    let taken = peer("b", "203.0.113.12", &["198.18.2.0/24"]);
    claims.take(&taken);
    let good = ["198.18.3.0/24"];
    for (peer, expected) in [
        (peer("", "203.0.113.13", &good), "a name has 1 to 253"),
        (peer("a\u{7}b", "203.0.113.13", &good), "a name has 1 to 253"),
        (peer("b", "203.0.113.13", &good), "another peer has the name"),
        (peer("c", "203.0.113.12", &good), "peer \"b\" has 203.0.113.12"),
        (peer("c", "198.51.100.11", &good), "198.51.100.11 is this node itself"),
        (peer("c", "0.0.0.0", &good), "0.0.0.0 cannot be"),
        (peer("c", "0.1.2.3", &good), "0.1.2.3 cannot be"),
        (peer("c", "224.0.0.5", &good), "224.0.0.5 cannot be"),
        (peer("c", "127.0.0.1", &good), "127.0.0.1 cannot be"),
        (peer("c", "169.254.1.1", &good), "169.254.1.1 cannot be"),
        (peer("c", "255.255.255.255", &good), "255.255.255.255 cannot be"),
        (peer("c", "198.19.0.1", &good), "198.19.0.1 lies in the cluster prefix"),
        (peer("c", "203.0.113.13", &[]), "at least one prefix"),
        (peer("c", "203.0.113.13", &["0.0.0.0/0"]), "0.0.0.0/0 is everything"),
        (peer("c", "203.0.113.13", &["::/0"]), "::/0 is everything"),
        (peer("c", "203.0.113.13", &["0.0.0.0/8"]), "0.0.0.0/8 is no prefix"),
        (peer("c", "203.0.113.13", &["198.0.0.0/8"]), "198.0.0.0/8 is not within"),
        (peer("c", "203.0.113.13", &["224.0.0.0/24"]), "224.0.0.0/24 is no prefix"),
        (peer("c", "203.0.113.13", &["169.254.0.0/16"]), "169.254.0.0/16 is no prefix"),
        (peer("c", "203.0.113.13", &["ff00::/8"]), "ff00::/8 is no prefix"),
        (peer("c", "203.0.113.13", &["fe80::/64"]), "fe80::/64 is no prefix"),
        (peer("c", "203.0.113.13", &["198.18.3.1/24"]), "did you mean 198.18.3.0/24?"),
        (peer("c", "203.0.113.13", &["198.18.0.0/23"]), "overlaps 198.18.1.0/24 of this node"),
        (peer("c", "203.0.113.13", &["198.18.1.7/32"]), "overlaps 198.18.1.0/24 of this node"),
        (peer("c", "203.0.113.13", &["198.18.2.128/25"]), "overlaps 198.18.2.0/24 of b"),
        (
            peer("c", "203.0.113.13", &["198.18.4.0/24", "198.18.4.0/25"]),
            "overlaps 198.18.4.0/24 of the same peer",
        ),
    ] {
        let problems = claims.judge(&peer);
        assert!(
            problems.iter().any(|(_, message)| message.contains(expected)),
            "{expected}: {problems:?}"
        );
    }
    let many: Vec<_> = (0..300).map(|number| format!("fd00:18:{number:x}::/64")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    assert_eq!(claims.judge(&peer("c", "203.0.113.13", &many)).len(), 1);
    assert_eq!(claims.judge(&peer("c", "203.0.113.13", &good)), []);
    claims.release(&taken);
    assert_eq!(claims.judge(&taken), []);
}

#[test]
fn ipip_over_ipv6_is_refused_only_if_it_may_be_spoken() {
    use Encapsulate::{Always, CrossSubnet, Never};
    use Encapsulation::{Ipip, Vxlan};
    let cluster = ["198.18.0.0/15".parse().expect("a prefix")];
    for (encapsulation, encapsulate, own, is_refused) in [
        (Ipip, Always, (None, None), true),
        (Ipip, CrossSubnet, (None, None), true),
        (Ipip, Never, (None, None), false),
        (Ipip, Never, (Some(Ipip), None), false),
        (Ipip, Never, (None, Some(CrossSubnet)), true),
        (Ipip, Always, (None, Some(Never)), false),
        (Ipip, Always, (Some(Vxlan), None), false),
        (Vxlan, Always, (None, None), false),
        (Vxlan, Always, (Some(Ipip), None), true),
        (Vxlan, Never, (Some(Ipip), None), false),
    ] {
        let usual = Usual { encapsulation, encapsulate };
        let claims = Claims::new(&cluster, LocalAddresses::default(), Some(usual));
        let judged = |address: &str| {
            let mut peer = peer("b", address, &["198.18.2.0/24"]);
            (peer.encapsulation, peer.encapsulate) = own;
            claims.judge(&peer).iter().any(|(_, message)| message.starts_with("IPIP runs"))
        };
        assert_eq!(judged("2001:db8::12"), is_refused, "{usual:?} {own:?}");
        assert!(!judged("203.0.113.12"), "{usual:?} {own:?}");
    }
}

proptest! {
    #[test]
    fn there_is_room_for_all_where_there_is_for_each_after_the_others(
        told in prop::collection::vec(
            (0u8..12, 0u8..12, prop::collection::vec((any::<u32>(), 26u8..=32), 1..4)),
            1..5,
        ),
    ) {
        let peers: Vec<_> = told
            .iter()
            .map(|(name, address, prefixes)| {
                let nets: Vec<_> = prefixes
                    .iter()
                    .map(|(bits, len)| {
                        let address = std::net::Ipv4Addr::from_bits(0xc612_0000 | bits & 0x0fff);
                        IpNet::new(address.into(), *len).expect("a length of IPv4").trunc().to_string()
                    })
                    .collect();
                let nets: Vec<_> = nets.iter().map(String::as_str).collect();
                peer(&format!("n{name}"), &format!("203.0.113.{}", address + 1), &nets)
            })
            .collect();
        let cluster = ["198.18.0.0/15".parse().expect("a prefix")];
        let claims = || {
            let mut claims = Claims::new(&cluster, LocalAddresses::default(), None);
            claims.take_prefix("198.18.1.0/24".parse().expect("a prefix"), "this node");
            claims
        };
        let (mut one_by_one, mut at_once) = (claims(), claims());
        let expected = peers.iter().all(|peer| {
            let is_free = one_by_one.judge(peer).is_empty();
            one_by_one.take(peer);
            is_free
        });
        let all: Vec<_> = peers.iter().collect();
        prop_assert_eq!(at_once.have_room_for(&all), expected);
        prop_assert_eq!(at_once.take_all(&all), expected);
        if expected {
            prop_assert_eq!(&at_once.prefixes, &one_by_one.prefixes);
            prop_assert_eq!(&at_once.addresses, &one_by_one.addresses);
            prop_assert_eq!(&at_once.names, &one_by_one.names);
        } else {
            prop_assert_eq!(&at_once.prefixes, &claims().prefixes);
        }
    }

    #[test]
    fn an_overlap_is_found_as_by_comparing_with_all(
        taken in prop::collection::vec((any::<u32>(), 8u8..=32), 0..24),
        asked in (any::<u32>(), 4u8..=32),
    ) {
        let net = |(bits, len): (u32, u8)| {
            // Few bits that differ, so that prefixes lie inside one another.
            let address = std::net::Ipv4Addr::from_bits(bits & 0x0303_0303);
            IpNet::new(address.into(), len).expect("a length of IPv4").trunc()
        };
        let mut claims = Claims::new(&[], LocalAddresses::default(), None);
        let mut all: Vec<IpNet> = Vec::new();
        for prefix in taken.into_iter().map(net) {
            claims.take_prefix(prefix, "x");
            if !all.iter().any(|other| overlap(other, &prefix)) {
                all.push(prefix);
            }
        }
        let asked = net(asked);
        let expected = all.iter().any(|other| overlap(other, &asked));
        prop_assert_eq!(claims.overlapping(&asked).is_some(), expected);
    }
}
