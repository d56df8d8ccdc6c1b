//! Headers: reading the layers of a frame, beside etherparse reading the same, and the checksum.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use criterion::{Criterion, Throughput};
use dataplane::wire::{Ethernet, Ipv4, Ipv6, MacAddr, Udp, Vxlan, checksum::Sum};
use etherparse::{
    Ethernet2Slice, Ipv4HeaderSlice, Ipv6HeaderSlice, LaxSlicedPacket, SlicedPacket, UdpHeaderSlice,
};
use vswitch_benches::traffic::{self, Macs, SMALL_PAYLOAD};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    parse(&mut criterion);
    checksum(&mut criterion);
    criterion.final_summary();
}

fn parse(criterion: &mut Criterion) {
    let macs = Macs {
        source: MacAddr([0x02, 0, 0, 0, 0, 1]),
        destination: MacAddr([0x02, 0, 0, 0, 0, 2]),
    };
    let v4: [IpAddr; 2] =
        [Ipv4Addr::new(198, 18, 0, 2).into(), Ipv4Addr::new(198, 18, 0, 3).into()];
    let v6: [IpAddr; 2] = [
        Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 2).into(),
        Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 3).into(),
    ];
    let udp4 = traffic::udp_frame(macs, v4[0], v4[1], 1);
    let udp6 = traffic::ethernet_frame(macs, &traffic::udp_packet(v6[0], v6[1], 1, SMALL_PAYLOAD));
    let (here, there) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(198, 51, 100, 1));
    let vxlan = traffic::in_vxlan(macs, there, here, &udp4);

    one(criterion, "udp4", &udp4, read_udp4);
    one(criterion, "udp4-etherparse-slices", &udp4, etherparse_udp4);
    one(criterion, "udp4-etherparse-sliced-packet", &udp4, |bytes| {
        SlicedPacket::from_ethernet(bytes).is_ok().then_some(0)
    });
    one(criterion, "udp6", &udp6, read_udp6);
    one(criterion, "udp6-etherparse-slices", &udp6, etherparse_udp6);
    one(criterion, "vxlan", &vxlan, read_vxlan);
    one(criterion, "vxlan-etherparse-slices", &vxlan, |bytes| {
        etherparse_udp4(bytes)?;
        etherparse_udp4(bytes.get(50..)?)
    });
    one(criterion, "vxlan-etherparse-lax", &vxlan, |bytes| {
        LaxSlicedPacket::from_ethernet(bytes).ok()?;
        LaxSlicedPacket::from_ethernet(bytes.get(50..)?).is_ok().then_some(0)
    });
}

fn one(c: &mut Criterion, name: &str, frame: &[u8], read: impl Fn(&[u8]) -> Option<u16>) {
    assert!(read(frame).is_some(), "{name} reads its frame");
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: frame.len() as u64 });
    group.bench_function(name, |bencher| bencher.iter(|| read(black_box(frame))));
}

/// As the walk reads it: the header checksum is verified too, which etherparse leaves out.
fn read_udp4(bytes: &[u8]) -> Option<u16> {
    let ip = Ipv4::parse(Ethernet::parse(bytes).ok()?.payload()).ok()?;
    ip.checksum_ok().then_some(())?;
    Some(Udp::parse(ip.payload()).ok()?.destination())
}

fn read_udp6(bytes: &[u8]) -> Option<u16> {
    let ip = Ipv6::parse(Ethernet::parse(bytes).ok()?.payload()).ok()?;
    ip.upper().ok()?;
    Some(Udp::parse(ip.payload()).ok()?.destination())
}

fn read_vxlan(bytes: &[u8]) -> Option<u16> {
    let ip = Ipv4::parse(Ethernet::parse(bytes).ok()?.payload()).ok()?;
    ip.checksum_ok().then_some(())?;
    read_udp4(Vxlan::parse(Udp::parse(ip.payload()).ok()?.payload()).ok()?.payload())
}

fn etherparse_udp4(bytes: &[u8]) -> Option<u16> {
    let ethernet = Ethernet2Slice::from_slice_without_fcs(bytes).ok()?;
    let payload = ethernet.payload_slice();
    let ip = Ipv4HeaderSlice::from_slice(payload).ok()?;
    let udp = UdpHeaderSlice::from_slice(payload.get(ip.slice().len()..)?).ok()?;
    Some(udp.destination_port())
}

fn etherparse_udp6(bytes: &[u8]) -> Option<u16> {
    let ethernet = Ethernet2Slice::from_slice_without_fcs(bytes).ok()?;
    let payload = ethernet.payload_slice();
    let ip = Ipv6HeaderSlice::from_slice(payload).ok()?;
    let udp = UdpHeaderSlice::from_slice(payload.get(ip.slice().len()..)?).ok()?;
    Some(udp.destination_port())
}

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("checksum");
    for len in [20, 1460, 65_535] {
        let bytes = vec![0x5a; len];
        group.throughput(Throughput::BytesDecimal(len as u64));
        group.bench_function(len.to_string(), |bencher| {
            bencher.iter(|| Sum::new().bytes(black_box(&bytes)).finish());
        });
    }
}
