//! Writes the handmade seeds into `corpus/`: real frames and messages for the fuzzer to start from.
//! Run in `fuzz/` after a change of a target's input: `cargo run --example seeds`.

mod texts;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::{fs, io};

use api::{
    AttachmentId, Encapsulate, Encapsulation, ErrorKind, ErrorReply, Mac, PeerSpec, PeerSync,
    Reply, Request, Reserve, Source, TracePacket,
};
use dataplane::Millis;
use dataplane::tables::{Fdb, Gateway, PortId, Tunnels};
use dataplane::wire::{
    Arp, EtherType, MacAddr, Protocol, arp, ethernet, icmpv4, icmpv6, ipv4, ipv6, ndp, tcp,
};
use frame::{Checksum, Gso, GsoKind, Offload, Packet, Pool};
use vswitch_benches::traffic::{self, Macs};
use vswitch_fuzz::live::{self, pod_mac, pod_v4, pod_v6, remote_v4, remote_v6};
use vswitch_fuzz::script::Injected;

fn main() -> io::Result<()> {
    for (name, packets) in walks() {
        let mut file = Vec::new();
        packets.iter().for_each(|packet| packet.write(&mut file));
        tell(name, &packets);
        write("walk", name, &file)?;
    }
    for (name, file) in headers() {
        write("wire", name, &file)?;
    }
    for (name, file) in messages() {
        write("control", name, &file)?;
    }
    for (name, file) in calls() {
        write("cni_stdin", name, &file)?;
    }
    for (target, seeds) in [
        ("config", texts::configurations()),
        ("journal", texts::journals()),
        ("prev_result", texts::previous_results()),
        ("netlink_reply", texts::datagrams()),
    ] {
        for (name, file) in seeds {
            write(target, name, &file)?;
        }
    }
    Ok(())
}

/// What becomes of the packets, each by itself: a seed that is dropped at once shows here.
fn tell(name: &str, packets: &[Injected]) {
    let (pool, fdb) = (Pool::new(8), Fdb::new(8, 3000));
    let sessions = vswitch_fuzz::sessions();
    for packet in packets {
        let mut frame = pool.alloc().expect("eight are free");
        frame.extend_from_slice(&packet.frame()).expect("it fits");
        let ingress = PortId(packet.ingress.into());
        let packet = Packet { frame, offload: packet.offload };
        let told =
            dataplane::trace(live::tables(), &fdb, &sessions, &pool, ingress, packet, Millis(0));
        println!("{name}: {:?}, {} leave", told.verdict, told.leaves.len());
    }
}

fn write(target: &str, name: &str, file: &[u8]) -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join(name), file)
}

fn walks() -> Vec<(&'static str, Vec<Injected>)> {
    let bridged = Macs { source: pod_mac(4), destination: pod_mac(5) };
    let back = Macs { source: pod_mac(5), destination: pod_mac(4) };
    let broadcast = Macs { source: pod_mac(4), destination: MacAddr::BROADCAST };
    let stretched = Macs { source: MacAddr([2, 0x71, 0, 0, 0, 4]), destination: pod_mac(4) };
    let out = Macs { source: pod_mac(4), destination: stretched.source };
    vec![
        ("pod-to-pod-v4", vec![from(2, udp(gateway(2), pod_v4(2), pod_v4(3)))]),
        ("pod-to-pod-v6", vec![from(3, udp(gateway(3), pod_v6(3), pod_v6(2)))]),
        ("pod-to-vxlan", vec![from(2, udp(gateway(2), pod_v4(2), remote_v4(0)))]),
        ("pod-to-vxlan-v6", vec![from(2, udp(gateway(2), pod_v6(2), remote_v6(0)))]),
        ("pod-to-vxlan-over-v6", vec![from(2, udp(gateway(2), pod_v4(2), remote_v4(4)))]),
        ("vxlan-over-v6-to-pod", vec![from(1, vxlan_over_v6(remote_v4(4), pod_v4(2)))]),
        ("superframe-to-vxlan-over-v6", vec![superframe(pod_v4(2), remote_v4(4))]),
        ("pod-to-ipip", vec![from(2, udp(gateway(2), pod_v4(2), remote_v4(1)))]),
        ("pod-to-direct", vec![from(2, udp(gateway(2), pod_v4(2), remote_v4(2)))]),
        ("pod-to-world", vec![from(2, udp(gateway(2), pod_v4(2), Ipv4Addr::new(192, 0, 2, 1)))]),
        ("unresolved", vec![from(2, udp(gateway(2), pod_v4(2), remote_v4(3)))]),
        ("host-to-pod", vec![from(0, udp(gateway(0), Ipv4Addr::new(203, 0, 113, 9), pod_v4(2)))]),
        ("vxlan-to-pod", vec![from(1, vxlan(remote_v4(0), pod_v4(2)))]),
        ("vxlan-to-pod-v6", vec![from(1, vxlan(remote_v6(0), pod_v6(3)))]),
        ("ipip-to-pod", vec![from(1, ipip(remote_v4(1), pod_v4(3)))]),
        ("ipip-to-pod-v6", vec![from(1, ipip(remote_v6(1), pod_v6(3)))]),
        ("direct-to-pod", vec![from(1, udp(underlay(), remote_v4(2), pod_v4(2)))]),
        (
            "bridge-switches",
            vec![
                from(4, udp(broadcast, pod_v4(4), Ipv4Addr::BROADCAST)),
                from(5, udp(back, pod_v4(5), pod_v4(4))),
                from(4, udp(bridged, pod_v4(4), pod_v4(5))),
                from(4, udp(out, pod_v4(4), pod_v4(9))),
            ],
        ),
        ("stretched", vec![from(1, bridged_vxlan(udp(stretched, pod_v4(9), pod_v4(4))))]),
        ("arp", vec![from(2, arp_request(2)), from(4, arp_request(4))]),
        ("discovery", vec![from(2, solicitation(2)), from(4, solicitation(4))]),
        ("ping", vec![from(2, echo_v4()), from(3, echo_v6())]),
        ("expiring", vec![from(2, expiring()), from(1, ipip(remote_v4(1), pod_v4(3)))]),
        ("superframe-to-pod", vec![superframe(pod_v4(2), pod_v4(3))]),
        ("superframe-to-vxlan", vec![superframe(pod_v4(2), remote_v4(0))]),
        ("superframe-to-ipip-v6", vec![superframe(pod_v6(2), remote_v6(1))]),
        ("superdatagram", vec![superdatagram()]),
        ("too-big", vec![too_big()]),
    ]
}

fn from(ingress: u8, bytes: Vec<u8>) -> Injected {
    Injected { ingress, repair: true, bytes, ..Injected::default() }
}

fn gateway(pod: u8) -> Macs {
    Macs { source: pod_mac(pod), destination: Gateway::MAC }
}

fn underlay() -> Macs {
    Macs { source: live::ROUTER, destination: live::NIC }
}

fn udp(macs: Macs, source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    traffic::udp_frame(macs, source.into(), destination.into(), 40_000)
}

fn vxlan(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    let vteps = Macs {
        source: Tunnels::derived_vtep_mac(live::PEERS[0]),
        destination: Tunnels::derived_vtep_mac(live::UNDERLAY),
    };
    let inner = udp(vteps, source, destination);
    traffic::in_vxlan(underlay(), live::PEERS[0], live::UNDERLAY, &inner)
}

fn vxlan_over_v6(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    let vteps = Macs {
        source: Tunnels::derived_vtep_mac(live::PEERS[4]),
        destination: Tunnels::derived_vtep_mac(live::UNDERLAY6),
    };
    let inner = udp(vteps, source, destination);
    traffic::in_vxlan(underlay(), live::PEERS[4], live::UNDERLAY6, &inner)
}

/// The benchmarks' builder knows the routed overlay alone: the VNI is the domain's here.
fn bridged_vxlan(inner: Vec<u8>) -> Vec<u8> {
    let mut frame = traffic::in_vxlan(underlay(), live::PEERS[0], live::UNDERLAY, &inner);
    let [.., a, b, c] = live::BRIDGED_VNIS[0].value().to_be_bytes();
    frame[46..49].copy_from_slice(&[a, b, c]);
    frame
}

fn ipip(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Vec<u8> {
    let inner = traffic::udp_packet(source.into(), destination.into(), 40_000, 18);
    let IpAddr::V4(peer) = live::PEERS[1] else { panic!("IPIP runs over IPv4") };
    traffic::in_ipip(underlay(), peer, live::UNDERLAY, &inner)
}

fn arp_request(pod: u8) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER_LEN + arp::HEADER_LEN];
    let header = ethernet::Repr {
        destination: MacAddr::BROADCAST,
        source: pod_mac(pod),
        ethertype: EtherType::ARP,
    };
    header.emit(&mut frame).expect("room");
    let request = arp::Repr::request(pod_mac(pod), pod_v4(pod), pod_v4(1));
    request.emit(&mut frame[ethernet::HEADER_LEN..]).expect("room");
    assert!(Arp::parse(&frame[ethernet::HEADER_LEN..]).is_ok());
    frame
}

fn v6_packet(pod: u8, destination: std::net::Ipv6Addr, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; ipv6::HEADER_LEN];
    ipv6::Repr {
        traffic_class: 0,
        flow_label: 0,
        payload_len: message.len() as u16,
        next_header: Protocol::ICMPV6,
        hop_limit,
        source: pod_v6(pod),
        destination,
    }
    .emit(&mut packet)
    .expect("room");
    packet.extend_from_slice(message);
    packet
}

fn solicitation(pod: u8) -> Vec<u8> {
    let group = ndp::solicited_node(pod_v6(1));
    let asks = ndp::Repr::Solicitation { target: pod_v6(1), source_link: Some(pod_mac(pod)) };
    let mut message = vec![0; asks.message_len()];
    asks.emit(&mut message, pod_v6(pod), group).expect("room");
    let macs = Macs { source: pod_mac(pod), destination: MacAddr::for_multicast_v6(group) };
    traffic::ethernet_frame(macs, &v6_packet(pod, group, 255, &message))
}

fn echo() -> icmpv4::Echo {
    icmpv4::Echo { ident: 1, sequence: 1 }
}

fn echo_v4() -> Vec<u8> {
    let mut packet = vec![0; ipv4::HEADER_LEN + icmpv4::HEADER_LEN + 8];
    ipv4::Repr {
        tos: 0,
        total_len: packet.len() as u16,
        id: 1,
        dont_fragment: false,
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        protocol: Protocol::ICMP,
        source: pod_v4(2),
        destination: pod_v4(1),
    }
    .emit(&mut packet)
    .expect("room");
    icmpv4::Repr::echo_request(echo()).emit(&mut packet[ipv4::HEADER_LEN..]).expect("room");
    traffic::ethernet_frame(gateway(2), &packet)
}

fn echo_v6() -> Vec<u8> {
    let mut message = vec![0; icmpv6::HEADER_LEN + 8];
    icmpv6::Repr::echo_request(echo()).emit(&mut message, pod_v6(3), pod_v6(1)).expect("room");
    traffic::ethernet_frame(gateway(3), &v6_packet(3, pod_v6(1), 64, &message))
}

fn expiring() -> Vec<u8> {
    let mut frame = udp(gateway(2), pod_v4(2), remote_v4(0));
    frame[22] = 1;
    frame
}

/// Headers alone; the payload is zeros.
fn superframe(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Injected {
    let (mut bytes, offload) = traffic::superframe(gateway(2), source.into(), destination.into());
    let Checksum::Partial { start, .. } = offload.checksum else {
        unreachable!("a superframe's checksum is partial")
    };
    let headers = usize::from(start) + tcp::HEADER_LEN + 12;
    let zeros = (bytes.len() - headers) as u16;
    bytes.truncate(headers);
    // Pieces that fit the tables' MTU.
    let offload = Offload { gso: offload.gso.map(|gso| Gso { size: 1300, ..gso }), ..offload };
    Injected { zeros, offload, ..from(2, bytes) }
}

fn too_big() -> Injected {
    let mut bytes = udp(gateway(2), pod_v4(2), remote_v4(0));
    bytes[16..18].copy_from_slice(&1500u16.to_be_bytes());
    Injected { zeros: 1500, ..from(2, bytes) }
}

fn superdatagram() -> Injected {
    let mut bytes = udp(gateway(2), pod_v4(2), remote_v4(0));
    bytes.truncate(14 + 20 + 8);
    let gso = Gso { kind: GsoKind::Udp, size: 1400, header_len: 0, vxlan: None };
    let checksum = Checksum::Partial { start: 34, offset: 6 };
    let offload = Offload { checksum, gso: Some(gso) };
    // Lengths of the headers in front of 10,000 bytes.
    bytes[16..18].copy_from_slice(&10_028u16.to_be_bytes());
    bytes[38..40].copy_from_slice(&10_008u16.to_be_bytes());
    Injected { zeros: 10_000, offload, ..from(2, bytes) }
}

fn headers() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = udp(gateway(2), pod_v4(2), pod_v4(3));
    let v6 = udp(gateway(2), pod_v6(2), pod_v6(3));
    let tunnel = vxlan(remote_v4(0), pod_v4(2));
    let segment = superframe(pod_v4(2), pod_v4(3)).bytes;
    let seed = |number: u8, bytes: &[u8]| [&[number], bytes].concat();
    vec![
        ("ethernet", seed(0, &v4)),
        ("arp", seed(1, &arp_request(2)[14..])),
        ("ipv4", seed(2, &v4[14..])),
        ("ipv6", seed(3, &v6[14..])),
        ("icmpv4", seed(4, &echo_v4()[34..])),
        ("icmpv6", seed(5, &echo_v6()[54..])),
        ("udp", seed(6, &v4[34..])),
        ("tcp", seed(7, &segment[34..])),
        ("vxlan", seed(8, &tunnel[42..])),
        ("ndp", seed(9, &solicitation(2)[54..])),
        ("checksum", seed(10, &[&[34, 6, 5], &v4[..]].concat())),
    ]
}

fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let attachment = AttachmentId { container_id: "c1".into(), ifname: "eth0".into() };
    let reserve = Reserve {
        attachment: attachment.clone(),
        network: None,
        pod: None,
        container_name: None,
        netns: "/run/netns/pod".into(),
        mode: None,
        delegated: None,
        requested: vec![pod_v4(9).into()],
        ranges: Vec::new(),
        mac: None,
        port_mappings: Vec::new(),
        bandwidth: api::Bandwidth::default(),
        queues: 1,
    };
    let packet = TracePacket {
        port: "pod-a".into(),
        dst_mac: None,
        src_mac: None,
        src: None,
        dst: pod_v4(3).into(),
        protocol: "udp".into(),
        src_port: 1,
        dst_port: 2,
        len: 100,
        ttl: 64,
        df: true,
    };
    let sync = Request::SyncPeers(PeerSync {
        source: Source::Kubernetes,
        complete: false,
        peers: vec![PeerSpec {
            name: "node-b".into(),
            address: remote_v4(0).into(),
            prefixes: ["198.18.2.0/24", "fd00:18:2::/64"]
                .map(|text| text.parse().expect("a prefix"))
                .into(),
            encapsulation: Some(Encapsulation::Vxlan),
            encapsulate: Some(Encapsulate::CrossSubnet),
            vtep_mac: Some(Mac([2; 6])),
        }],
        gone: vec!["node-c".into()],
    });
    let prefixes = Request::SetPodPrefixes(vec!["198.18.1.0/24".parse().expect("a prefix")]);
    let request = |request: &Request| api::encode_request(request).expect("small");
    let response = |response| api::encode_response(&response).expect("small");
    let stream = [&[16], &request(&Request::Status)[..], &request(&Request::Detach(attachment))];
    let failed = ErrorReply { kind: ErrorKind::Exhausted, message: "no address is left".into() };
    vec![
        ("two-requests", stream.concat()),
        ("reserve", [&[127], &request(&Request::Reserve(reserve))[..]].concat()),
        ("sync", [&[127], &request(&sync)[..]].concat()),
        ("prefixes", [&[127], &request(&prefixes)[..]].concat()),
        ("trace", [&[127], &request(&Request::Trace(packet))[..]].concat()),
        ("done", [&[0xff], &response(Ok(Reply::Done))[..]].concat()),
        ("failed", [&[0x83], &response(Err(failed))[..]].concat()),
        ("hostile-length", vec![127, 0xff, 0xff, 0xff, 0xff]),
    ]
}

fn calls() -> Vec<(&'static str, Vec<u8>)> {
    let call = |command: u8, args: &str, stdin: &str| {
        [&[command], args.as_bytes(), &[0], stdin.as_bytes()].concat()
    };
    let pod = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;IP=198.18.0.9";
    vec![
        (
            "add",
            call(
                0,
                pod,
                r#"{"cniVersion":"1.1.0","name":"vswitch","type":"vswitch-cni","mode":"bridged",
                "mtu":1400,"runtimeConfig":{"ips":["198.18.0.9/24"],"mac":"02:00:00:00:00:09"}}"#,
            ),
        ),
        (
            "add-delegated",
            call(
                0,
                "",
                r#"{"cniVersion":"0.3.1","name":"mynet","type":"vswitch-cni",
                "ipam":{"type":"host-local","subnet":"198.18.0.0/24"}}"#,
            ),
        ),
        ("del", call(1, "", r#"{"cniVersion":"0.4.0","name":"vswitch","type":"vswitch-cni"}"#)),
        (
            "check",
            call(
                2,
                "",
                r#"{"cniVersion":"1.0.0","name":"vswitch","type":"vswitch-cni","prevResult":
                {"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:09",
                "sandbox":"/run/netns/pod"}],"ips":[{"address":"198.18.0.9/32","interface":0}]}}"#,
            ),
        ),
        (
            "gc",
            call(
                4,
                "",
                r#"{"cniVersion":"1.1.0","name":"vswitch","type":"vswitch-cni",
                "cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]}"#,
            ),
        ),
    ]
}
