//! The XDP program in the kernel: what it takes and what it leaves. Needs root.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use crate::common::{Namespace, ip, link, skip};
use crate::frames::{V4, about, arp, ethernet, ipv4, ipv6, ipv6_with, solicitation, udp};
use netio::Error;
use netio::pinhole::{
    AttachMode, AttachWish, PeerMap, Pinhole, PinholeAction, PinholeFilter, Program, XskMap,
};

const LOCAL: [u8; 4] = [198, 51, 100, 1];
const LOCAL6: &str = "2001:db8:1::1";
const OTHER: [u8; 4] = [198, 51, 100, 9];
const PEER: [u8; 4] = [198, 51, 100, 2];
const PEER6: &str = "2001:db8:2::12";

fn steering() -> PinholeFilter {
    PinholeFilter {
        local: vec![
            "203.0.113.1".parse().expect("address"),
            LOCAL.into(),
            LOCAL6.parse().expect("address"),
        ],
        vxlan_ports: vec![4789, 8472],
        ipip: true,
        peers: [PEER.into(), PEER6.parse().expect("address")].into(),
        prefixes: ["198.18.2.0/23", "198.18.9.7/32", "fd00:18::/40", "2001:db8::5/128"]
            .map(|prefix| {
                let (network, len) = prefix.split_once('/').expect("a slash");
                (network.parse().expect("address"), len.parse().expect("length"))
            })
            .to_vec(),
        neighbors: false,
    }
}

/// An AF_XDP socket with a receive ring and nothing else: enough to have a place in an XSKMAP, so
/// that the program's redirect is seen as such.
fn placeholder_socket() -> io::Result<OwnedFd> {
    const XDP_RX_RING: libc::c_int = 2;
    let entries = 64_u32;
    // SAFETY: three integers; the fd is new and checked.
    let socket = unsafe {
        match libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) {
            fd if fd < 0 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    // SAFETY: the kernel reads the four bytes of `entries`.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_XDP,
            XDP_RX_RING,
            (&raw const entries).cast(),
            size_of_val(&entries) as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(socket) }
}

/// A map with a socket at queue 0, unless the kernel or our privileges lack something.
fn map_with_socket(test: &str) -> Option<(XskMap, OwnedFd)> {
    let made = XskMap::new(4).map_err(|error| format!("{error}")).and_then(|map| {
        let socket = placeholder_socket().map_err(|error| format!("AF_XDP: {error}"))?;
        map.insert(0, socket.as_fd()).map_err(|error| format!("{error}"))?;
        Ok((map, socket))
    });
    made.map_err(|reason| skip(test, &reason)).ok()
}

/// All programs of the same steering: each does the same.
struct All {
    xdp: Program,
    others: [Program; 3],
}

impl All {
    fn load(steering: &PinholeFilter, map: &XskMap, peers: &PeerMap) -> netio::Result<Self> {
        let ifindex = 1;
        Ok(Self {
            xdp: Program::load(steering, map, peers)?,
            others: [
                Program::load_tc(steering, ifindex, peers)?,
                Program::load_drop(steering, peers)?,
                Program::load_socket_filter(steering, peers)?,
            ],
        })
    }

    fn run(&self, frame: &[u8]) -> netio::Result<PinholeAction> {
        let xdp = self.xdp.run(frame)?;
        // The kernel makes no packet of an IP header that is cut.
        let shortest = if frame[12..14] == [0x86, 0xdd] { 54 } else { 34 };
        for (at, program) in self.others.iter().enumerate() {
            if frame.len() >= shortest || at == 2 {
                assert_eq!(program.run(frame)?, xdp, "{at} of {frame:02x?}");
            }
        }
        Ok(xdp)
    }
}

/// Programs with a map that has the peers of the steering.
fn load(steering: &PinholeFilter, map: &XskMap) -> netio::Result<All> {
    All::load(steering, map, &PeerMap::new(&steering.peers).expect("a map of peers"))
}

const TO_US: V4 =
    V4 { source: PEER, destination: LOCAL, protocol: 17, fragment: 0, options_bytes: 0 };

#[test]
fn the_program_takes_what_is_ours_and_nothing_else() {
    let Some((map, _socket)) = map_with_socket("the_program_takes_what_is_ours_and_nothing_else")
    else {
        return;
    };
    let to_v4 = |destination| ipv4(&V4 { destination, ..TO_US }, &udp(4789));
    let protocol = |protocol| ipv4(&V4 { protocol, ..TO_US }, &[0; 40]);
    let from_other = |protocol| ipv4(&V4 { protocol, source: OTHER, ..TO_US }, &[0; 40]);
    let fragment = |fragment| ipv4(&V4 { fragment, ..TO_US }, &udp(4789));
    let options = |options_bytes| ipv4(&V4 { options_bytes, ..TO_US }, &udp(4789));
    let patched = |at: usize, byte: u8| {
        let mut frame = to_v4(LOCAL);
        frame[at] = byte;
        frame
    };
    let cut = |mut frame: Vec<u8>, len: usize| {
        frame.truncate(len);
        frame
    };
    let ours = [
        ("VXLAN to us", to_v4(LOCAL)),
        ("VXLAN to our other address", to_v4([203, 0, 113, 1])),
        ("VXLAN to the other port", ipv4(&TO_US, &udp(8472))),
        ("VXLAN with DF", fragment(0x4000)),
        ("a pod's IPv4 with options", {
            ipv4(&V4 { destination: [198, 18, 2, 1], options_bytes: 4, ..TO_US }, &[0; 8])
        }),
        ("IPIP with options", ipv4(&V4 { protocol: 4, options_bytes: 4, ..TO_US }, &[0; 40])),
        ("VXLAN that ends with its UDP header", cut(to_v4(LOCAL), 42)),
        ("VXLAN from nobody we know", ipv4(&V4 { source: OTHER, ..TO_US }, &udp(4789))),
        ("IPIP", protocol(4)),
        ("IPv6 in IPv4", protocol(41)),
        ("a pod's IPv4, first of the prefix", to_v4([198, 18, 2, 0])),
        ("a pod's IPv4, last of the prefix", to_v4([198, 18, 3, 255])),
        ("a pod's IPv4, of a /32", to_v4([198, 18, 9, 7])),
        ("a pod's IPv4, a later fragment", {
            ipv4(&V4 { destination: [198, 18, 2, 1], fragment: 185, ..TO_US }, &[0; 8])
        }),
        ("a pod's IPv4, a header and no more", cut(to_v4([198, 18, 2, 1]), 34)),
        ("VXLAN to us over IPv6", ipv6_with(LOCAL6, 17, &udp(4789))),
        ("VXLAN over IPv6 that ends with its UDP header", ipv6_with(LOCAL6, 17, &udp(4789)[..8])),
        ("a pod's IPv6, first of the prefix", ipv6("fd00:18::")),
        ("a pod's IPv6, last of the prefix", ipv6("fd00:18:ff:ffff:ffff:ffff:ffff:ffff")),
        ("a pod's IPv6, of a /128", ipv6("2001:db8::5")),
        ("a pod's IPv6, a header and no more", cut(ipv6("fd00:18::1"), 54)),
    ];
    let the_kernels = [
        ("ssh to us", ipv4(&V4 { protocol: 6, ..TO_US }, &[0; 20])),
        ("ping to us", protocol(1)),
        ("UDP to another port", ipv4(&TO_US, &udp(4790))),
        ("the port with its bytes swapped", ipv4(&TO_US, &udp(4789_u16.swap_bytes()))),
        ("VXLAN to somebody else", to_v4(OTHER)),
        ("IPIP from nobody we know", from_other(4)),
        ("IPv6 in IPv4 from nobody we know", from_other(41)),
        ("IPIP to somebody else", ipv4(&V4 { protocol: 4, destination: OTHER, ..TO_US }, &[0; 40])),
        ("a first fragment of VXLAN", fragment(0x2000)),
        ("a later fragment of VXLAN", fragment(185)),
        ("a last fragment with DF", fragment(0x4001)),
        ("one below the prefix", to_v4([198, 18, 1, 255])),
        ("one above the prefix", to_v4([198, 18, 4, 0])),
        ("beside the /32", to_v4([198, 18, 9, 6])),
        ("one below the IPv6 prefix", ipv6("fd00:17:ffff:ffff:ffff:ffff:ffff:ffff")),
        ("one above the IPv6 prefix", ipv6("fd00:18:100::")),
        ("beside the /128", ipv6("2001:db8::4")),
        ("neighbour discovery", ipv6("ff02::1:ff00:1")),
        ("ARP", ethernet(0x0806, &[0; 46])),
        ("another UDP port at our IPv6 address", ipv6_with(LOCAL6, 17, &udp(4790))),
        ("TCP to our IPv6 address", ipv6_with(LOCAL6, 6, &[0; 20])),
        ("a neighbour solicitation for our IPv6 address", solicitation(LOCAL6)),
        ("VXLAN to another IPv6 address", ipv6_with("2001:db8:1::2", 17, &udp(4789))),
        ("VXLAN over IPv6 behind an extension header", {
            ipv6_with(LOCAL6, 60, &[&[17, 0, 1, 4, 0, 0, 0, 0][..], &udp(4789)].concat())
        }),
        ("a fragment of VXLAN over IPv6", {
            ipv6_with(LOCAL6, 44, &[&[17, 0, 0, 1, 0, 0, 0, 7][..], &udp(4789)].concat())
        }),
        ("a UDP header over IPv6 that is cut", ipv6_with(LOCAL6, 17, &udp(4789)[..7])),
        ("a solicitation for a pod", solicitation("fd00:18::1")),
        ("an ARP request for a pod", arp(1, [198, 18, 2, 1])),
        ("a VLAN tag", ethernet(0x8100, &to_v4(LOCAL)[10..])),
        ("802.3 with a length", ethernet(60, &to_v4(LOCAL)[14..])),
        ("an Ethernet header and no more", ethernet(0x0800, &[])),
        ("an IPv4 header that is cut", cut(to_v4(LOCAL), 33)),
        ("an IPv6 header that is cut", cut(ipv6("fd00:18::1"), 53)),
        ("a UDP header that is cut", cut(to_v4(LOCAL), 41)),
        ("VXLAN behind four bytes of options", options(4)),
        ("VXLAN behind the longest options", options(40)),
        ("an IPv4 header of four words", patched(14, 0x44)),
        ("an IPv4 header of version 6", patched(14, 0x65)),
        ("an IPv4 header of version 3", patched(14, 0x35)),
    ];
    let program = load(&steering(), &map).expect("the verifier takes it");
    for (what, frame) in ours {
        assert_eq!(program.run(&frame).expect("it runs"), PinholeAction::Take, "{what}");
    }
    for (what, frame) in the_kernels {
        assert_eq!(program.run(&frame).expect("it runs"), PinholeAction::Pass, "{what}");
    }
}

/// An ICMP error to us, quoting what `quoted` is from its IP header on.
fn error4(kind: u8, code: u8, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, code, 0, 0, 0, 0, 5, 120][..], &quoted[14..]].concat();
    ipv4(&V4 { protocol: 1, ..TO_US }, &message)
}

fn error6(kind: u8, quoted: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, 0, 0, 5, 120][..], &quoted[14..]].concat();
    ipv6_with(LOCAL6, 58, &message)
}

#[test]
fn of_the_errors_it_takes_those_about_the_size_of_tunnel_packets() {
    let test = "of_the_errors_it_takes_those_about_the_size_of_tunnel_packets";
    let Some((map, _socket)) = map_with_socket(test) else { return };
    let sent_to = |destination, protocol| ipv4(&V4 { protocol, destination, ..TO_US }, &udp(4789));
    let sent = |protocol| sent_to(PEER, protocol);
    let sent6 = |port| ipv6_with(PEER6, 17, &udp(port));
    let options =
        ipv4(&V4 { destination: PEER, options_bytes: 4, ..TO_US }, &[0, 9, 0x12, 0xb5, 0, 0, 0, 0]);
    let cut = |mut frame: Vec<u8>, by: usize| {
        frame.truncate(frame.len() - by);
        frame
    };
    let moved = |mut frame: Vec<u8>| {
        frame[30..34].copy_from_slice(&OTHER);
        frame
    };
    let fragment = |mut frame: Vec<u8>| {
        frame[20] |= 0x20;
        frame
    };
    let ours = [
        ("about VXLAN", error4(3, 4, &sent(17))),
        ("with no more than eight bytes behind the header", cut(error4(3, 4, &sent(17)), 8)),
        ("about IPIP", error4(3, 4, &sent(4))),
        ("about IPv6 in IPv4", error4(3, 4, &sent(41))),
        ("about VXLAN over IPv6", error6(2, &sent6(8472))),
    ];
    let the_kernels = [
        ("port unreachable", error4(3, 3, &sent(17))),
        ("time exceeded", error4(11, 0, &sent(17))),
        ("an echo request of the same bytes", error4(8, 0, &sent(17))),
        ("about TCP", error4(3, 4, &sent(6))),
        ("about another port", error4(3, 4, &ipv4(&V4 { destination: PEER, ..TO_US }, &udp(53)))),
        ("about VXLAN to nobody we know", error4(3, 4, &sent_to(OTHER, 17))),
        ("about IPIP to nobody we know", error4(3, 4, &sent_to(OTHER, 4))),
        ("about IPv6 in IPv4 to nobody we know", error4(3, 4, &sent_to(OTHER, 41))),
        ("about VXLAN over IPv6 to nobody we know", {
            error6(2, &ipv6_with("2001:db8:2::13", 17, &udp(4789)))
        }),
        ("about a packet with options", error4(3, 4, &options)),
        ("with less than eight bytes behind the header", cut(error4(3, 4, &sent(17)), 9)),
        ("with options itself", {
            let message = error4(3, 4, &sent(17))[34..].to_vec();
            ipv4(&V4 { protocol: 1, options_bytes: 4, ..TO_US }, &message)
        }),
        ("to somebody else", moved(error4(3, 4, &sent(17)))),
        ("in fragments", fragment(error4(3, 4, &sent(17)))),
        ("time exceeded over IPv6", error6(3, &sent6(4789))),
        ("about another port over IPv6", error6(2, &sent6(53))),
        ("about TCP over IPv6", error6(2, &ipv6_with(PEER6, 6, &udp(4789)))),
        ("cut, over IPv6", cut(error6(2, &sent6(4789)), 9)),
    ];
    let program = load(&steering(), &map).expect("the verifier takes it");
    for (what, frame) in &ours {
        assert_eq!(program.run(frame).expect("it runs"), PinholeAction::Take, "{what}");
    }
    for (what, frame) in &the_kernels {
        assert_eq!(program.run(frame).expect("it runs"), PinholeAction::Pass, "{what}");
    }
    let verdicts = |steering: &PinholeFilter| {
        let program = load(steering, &map).expect("the verifier takes it");
        [&ours[0].1, &ours[2].1, &ours[4].1]
            .map(|frame| program.run(frame).expect("it runs") == PinholeAction::Take)
    };
    let all = steering();
    let without_vxlan = PinholeFilter { vxlan_ports: vec![], ..all.clone() };
    assert_eq!(verdicts(&without_vxlan), [false, true, false]);
    assert_eq!(verdicts(&PinholeFilter { ipip: false, ..without_vxlan }), [false, false, false]);
    assert_eq!(verdicts(&PinholeFilter { ipip: false, ..all.clone() }), [true, false, true]);
    assert_eq!(verdicts(&PinholeFilter { local: vec![], ..all }), [false, false, false]);
}

#[test]
fn what_is_switched_off_passes() {
    let Some((map, _socket)) = map_with_socket("what_is_switched_off_passes") else { return };
    let vxlan = ipv4(&TO_US, &udp(4789));
    let ipip = ipv4(&V4 { protocol: 4, ..TO_US }, &[0; 40]);
    let pod = ipv4(&V4 { destination: [198, 18, 2, 1], ..TO_US }, &udp(53));
    let verdicts = |steering: &PinholeFilter| {
        let program = load(steering, &map).expect("the verifier takes it");
        [&vxlan, &ipip, &pod]
            .map(|frame| program.run(frame).expect("it runs") == PinholeAction::Take)
    };
    let all = steering();
    assert_eq!(verdicts(&all), [true, true, true]);
    assert_eq!(
        verdicts(&PinholeFilter { vxlan_ports: vec![], ..all.clone() }),
        [false, true, true]
    );
    assert_eq!(verdicts(&PinholeFilter { ipip: false, ..all.clone() }), [true, false, true]);
    assert_eq!(verdicts(&PinholeFilter { prefixes: vec![], ..all.clone() }), [true, true, false]);
    assert_eq!(verdicts(&PinholeFilter { local: vec![], ..all }), [false, false, true]);
    assert_eq!(verdicts(&PinholeFilter::default()), [false, false, false]);
}

#[test]
fn peers_come_and_go_while_the_program_stays() {
    let Some((map, _socket)) = map_with_socket("peers_come_and_go_while_the_program_stays") else {
        return;
    };
    let none = BTreeSet::new();
    let mut peers = PeerMap::new(&none).expect("a map of peers");
    let program = All::load(&steering(), &map, &peers).expect("the verifier takes it");
    let verdicts = || {
        let ipip = ipv4(&V4 { protocol: 4, ..TO_US }, &[0; 40]);
        let error6 = error6(2, &ipv6_with(PEER6, 17, &udp(4789)));
        [ipip, error6].map(|frame| program.run(&frame).expect("it runs") == PinholeAction::Take)
    };
    assert_eq!(verdicts(), [false, false]);
    let both = steering().peers;
    peers.add(&both).expect("added");
    peers.add(&both).expect("there already");
    assert_eq!(verdicts(), [true, true]);
    peers.retain(&[OTHER.into(), PEER6.parse().expect("address")].into()).expect("removed");
    assert_eq!(verdicts(), [false, true]);
    peers.retain(&none).expect("removed");
    assert_eq!(verdicts(), [false, false]);
}

/// So many addresses, with the peer's as the last.
fn many(count: u32) -> BTreeSet<IpAddr> {
    let others = (1..count).map(|number| IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
    others.chain([PEER.into()]).collect()
}

#[test]
fn a_map_of_peers_has_room_for_more_but_not_for_all() {
    let test = "a_map_of_peers_has_room_for_more_but_not_for_all";
    let Some((map, _socket)) = map_with_socket(test) else { return };
    let ipip = ipv4(&V4 { protocol: 4, ..TO_US }, &[0; 40]);
    let mut peers = PeerMap::new(&many(10_000)).expect("a map of peers");
    let program = All::load(&steering(), &map, &peers).expect("the verifier takes it");
    assert_eq!(program.run(&ipip).expect("it runs"), PinholeAction::Take);
    assert!(peers.has_room_for(&many(20_000)));
    peers.add(&many(20_000)).expect("there is room");
    assert!(!peers.has_room_for(&many(40_000)));
    assert!(peers.add(&many(40_000)).is_err(), "the kernel holds no more than it was asked to");
    peers.retain(&[PEER.into()].into()).expect("removed");
    assert!(peers.has_room_for(&many(20_000)));
    assert_eq!(program.run(&ipip).expect("it runs"), PinholeAction::Take);
}

#[test]
fn who_asks_for_a_pod_is_heard_if_wanted() {
    let Some((map, _socket)) = map_with_socket("who_asks_for_a_pod_is_heard_if_wanted") else {
        return;
    };
    let steering = PinholeFilter { neighbors: true, ..steering() };
    let program = load(&steering, &map).expect("the verifier takes it");
    for (what, frame, expected) in [
        ("ARP for a pod", arp(1, [198, 18, 2, 1]), PinholeAction::Take),
        ("an ARP reply", arp(2, [198, 18, 2, 1]), PinholeAction::Pass),
        ("ARP for us", arp(1, LOCAL), PinholeAction::Pass),
        ("ARP that is cut", arp(1, [198, 18, 2, 1])[..41].to_vec(), PinholeAction::Pass),
        ("a solicitation for a pod", solicitation("fd00:18::1"), PinholeAction::Take),
        ("a solicitation for us", solicitation(LOCAL6), PinholeAction::Pass),
        ("a solicitation for a stranger", solicitation("2001:db8::6"), PinholeAction::Pass),
        (
            "an advertisement",
            ipv6_with("ff02::1", 58, &about(136, "fd00:18::1")),
            PinholeAction::Pass,
        ),
        (
            "an echo request",
            ipv6_with("ff02::1", 58, &about(128, "fd00:18::1")),
            PinholeAction::Pass,
        ),
        (
            "a solicitation that is cut",
            {
                let mut frame = solicitation("fd00:18::1");
                frame.pop();
                frame
            },
            PinholeAction::Pass,
        ),
        ("VXLAN", ipv6_with(LOCAL6, 17, &udp(4789)), PinholeAction::Take),
    ] {
        assert_eq!(program.run(&frame).expect("it runs"), expected, "{what}");
    }
}

#[test]
fn the_nodes_own_address_stays_the_kernels_in_a_pod_prefix_too() {
    let test = "the_nodes_own_address_stays_the_kernels_in_a_pod_prefix_too";
    let Some((map, _socket)) = map_with_socket(test) else { return };
    let mut steering = steering();
    steering.prefixes.push(("198.51.100.0".parse().expect("address"), 24));
    let program = load(&steering, &map).expect("the verifier takes it");
    let ssh = |destination| ipv4(&V4 { destination, protocol: 6, ..TO_US }, &[0; 20]);
    assert_eq!(program.run(&ssh(LOCAL)).expect("it runs"), PinholeAction::Pass);
    assert_eq!(program.run(&ssh(OTHER)).expect("it runs"), PinholeAction::Take);
}

#[test]
fn a_queue_without_socket_passes() {
    let Some((_, _socket)) = map_with_socket("a_queue_without_socket_passes") else { return };
    let empty = XskMap::new(4).expect("a second map");
    let All { xdp: program, .. } = load(&steering(), &empty).expect("the verifier takes it");
    assert_eq!(program.run(&ipv4(&TO_US, &udp(4789))).expect("it runs"), PinholeAction::Pass);
}

#[test]
fn the_verifier_takes_the_longest_program() {
    let Some((map, _socket)) = map_with_socket("the_verifier_takes_the_longest_program") else {
        return;
    };
    let mut steering = steering();
    let longest = ("fd00::1".parse().expect("address"), 127);
    let taken = steering.local.len() + steering.vxlan_ports.len();
    steering.prefixes.resize(2048 - taken, longest);
    let half = steering.prefixes[..1000].to_vec();
    let asked = PinholeFilter { neighbors: true, prefixes: half, ..steering.clone() };
    assert!(load(&asked, &map).is_ok());
    let program = load(&steering, &map).expect("the verifier takes it");
    assert_eq!(program.run(&ipv6("2001:db8::6")).expect("it runs"), PinholeAction::Pass);
    assert_eq!(program.run(&ipv6("fd00::")).expect("it runs"), PinholeAction::Take);
}

#[test]
fn it_is_attached_once_and_gone_with_its_owner() {
    let test = "it_is_attached_once_and_gone_with_its_owner";
    let Some(namespace) = Namespace::new(test) else { return };
    if map_with_socket(test).is_none() {
        return;
    }
    namespace.run(|| {
        ip("link add v0 type veth peer name v1");
        let v0 = link("v0").index;
        let attach = |wish| Pinhole::attach(v0, 1, &steering(), wish);
        let mut pinhole = attach(AttachWish::NativeThenGeneric).expect("veth has native XDP");
        assert_eq!(*pinhole.mode(), AttachMode::Native);
        assert!(link("v0").xdp);
        pinhole.update(&PinholeFilter::default()).expect("replaced");
        // More than the map takes that was made for two.
        pinhole.update(&PinholeFilter { peers: many(3000), ..steering() }).expect("another map");
        pinhole.update(&PinholeFilter { peers: many(1), ..steering() }).expect("fewer");
        let impossible =
            PinholeFilter { prefixes: vec![("::".parse().expect("address"), 0)], ..steering() };
        assert!(matches!(pinhole.update(&impossible), Err(Error::PinholeFilter { .. })));
        for wish in [AttachWish::NativeThenGeneric, AttachWish::Generic] {
            assert!(matches!(attach(wish), Err(Error::XdpBusy { .. })), "{wish:?}");
        }
        drop(pinhole);
        assert!(!link("v0").xdp);

        let generic = attach(AttachWish::Generic).expect("free again");
        assert!(matches!(generic.mode(), AttachMode::Generic { .. }));
        assert!(matches!(attach(AttachWish::NativeThenGeneric), Err(Error::XdpBusy { .. })));
    });
}

#[test]
fn where_the_driver_has_no_xdp_it_is_generic_with_the_reason() {
    let test = "where_the_driver_has_no_xdp_it_is_generic_with_the_reason";
    let Some(namespace) = Namespace::new(test) else { return };
    if map_with_socket(test).is_none() {
        return;
    }
    namespace.run(|| {
        let pinhole =
            Pinhole::attach(link("lo").index, 1, &steering(), AttachWish::NativeThenGeneric)
                .expect("generic works anywhere");
        let shown = pinhole.mode().to_string();
        assert!(shown.starts_with("generic (the driver refuses native mode: "), "{shown}");
        let absent = Pinhole::attach(9999, 1, &steering(), AttachWish::NativeThenGeneric);
        assert!(matches!(absent, Err(Error::XdpAttach { .. })), "{absent:?}");
    });
}
