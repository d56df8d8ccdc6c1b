//! IP headers, ARP, ICMP and neighbour discovery: what `layers` puts in front of its payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv4Header, Icmpv4Type, Icmpv6Header,
    Icmpv6Type, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
};

use super::layers::{Bytes, Ends};
use super::{Node, Words};

pub(super) fn ipv4(
    words: &mut Words<'_>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    tos: u8,
    protocol: u8,
    payload: Vec<u8>,
) -> Bytes {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut header =
        Ipv4Header::new(0, 64, IpNumber(protocol), source.octets(), destination.octets())
            .map_err(|error| text(&error))?;
    let options: usize = words.value("options")?.unwrap_or(0);
    let mut options = vec![1; options];
    for (name, kind) in [("lsrr", 131), ("ssrr", 137)] {
        if let Some(next) = words.value::<Ipv4Addr>(name)? {
            options.extend([kind, 7, 4]);
            options.extend(next.octets());
            options.push(0);
        }
    }
    header.options = options.as_slice().try_into().map_err(|error| text(&error))?;
    header.dscp = IpDscp::try_new(tos >> 2).map_err(|error| text(&error))?;
    header.ecn = IpEcn::try_new(tos & 3).map_err(|error| text(&error))?;
    header.identification = words.value("id")?.unwrap_or(0);
    header.time_to_live = words.value("ttl")?.unwrap_or(64);
    header.dont_fragment = words.flag("df");
    header.more_fragments = words.flag("more");
    let offset = words.value::<u16>("frag")?.unwrap_or(0);
    header.fragment_offset = IpFragOffset::try_new(offset / 8).map_err(|error| text(&error))?;
    header.total_len = words.value("len")?.unwrap_or((header.header_len() + payload.len()) as u16);
    header.header_checksum = header.calc_header_checksum() ^ u16::from(words.flag("badsum"));
    Ok([&header.to_bytes()[..], &payload].concat())
}

pub(super) fn ipv6(
    words: &mut Words<'_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    traffic_class: u8,
    mut protocol: u8,
    payload: Vec<u8>,
) -> Bytes {
    let mut behind = payload;
    let (offset, more) = (words.value::<u16>("frag")?, words.flag("more"));
    if offset.is_some() || more {
        let word = offset.unwrap_or(0) | u16::from(more);
        let [high, low] = word.to_be_bytes();
        behind.splice(0..0, [protocol, 0, high, low, 0, 0, 0, 7]);
        protocol = 44;
    }
    if let Some(kind) = words.value::<u8>("routing")? {
        // One address, of zeros.
        let left = words.value::<u8>("left")?.unwrap_or(0);
        behind.splice(0..0, [[protocol, 2, kind, left, 0, 0, 0, 0], [0; 8], [0; 8]].concat());
        protocol = 43;
    }
    for _ in 0..words.value::<usize>("ext")?.unwrap_or(0) {
        // Destination options, all padding (PadN of four bytes).
        behind.splice(0..0, [protocol, 0, 1, 4, 0, 0, 0, 0]);
        protocol = 60;
    }
    let header = Ipv6Header {
        traffic_class,
        flow_label: Ipv6FlowLabel::ZERO,
        payload_length: words.value("len")?.unwrap_or(behind.len() as u16),
        next_header: IpNumber(protocol),
        hop_limit: words.value("ttl")?.unwrap_or(64),
        source: source.octets(),
        destination: destination.octets(),
    };
    Ok([&header.to_bytes()[..], &behind].concat())
}

pub(super) fn arp(node: &Node, words: &mut Words<'_>, inside: &[&str]) -> Bytes {
    if !inside.is_empty() {
        return Err("nothing is inside an arp".into());
    }
    let who_has = words.flag("who-has");
    let asked: Ipv4Addr = words.parse("address")?;
    let owner = match words.value::<String>("is-at")? {
        Some(name) => Some(node.mac(&name)?.0),
        None => None,
    };
    words.expect("tell")?;
    let asker: Ipv4Addr = words.parse("address")?;
    words.expect("at")?;
    let asker_mac = node.mac(words.next("MAC")?)?.0;
    let (asked, asker) = (asked.octets(), asker.octets());
    let (operation, sender_mac, sender, target_mac, target) = match (who_has, owner) {
        (true, None) => (ArpOperation::REQUEST, asker_mac, asker, [0; 6], asked),
        (false, Some(owner)) => (ArpOperation::REPLY, owner, asked, asker_mac, asker),
        _ => return Err("an arp either asks `who-has` or says `is-at`".into()),
    };
    let hardware = ArpHardwareId::ETHERNET;
    ArpPacket::new(hardware, EtherType::IPV4, operation, &sender_mac, &sender, &target_mac, &target)
        .map(|packet| packet.to_bytes().to_vec())
        .map_err(|error| error.to_string())
}

/// Type, code and the four bytes behind the checksum.
pub(super) fn icmp_kind(words: &mut Words<'_>, v6: bool) -> Result<(u8, u8, [u8; 4]), String> {
    let by_version = |v4: (u8, u8), six: (u8, u8)| if v6 { six } else { v4 };
    let name = words.next("ICMP message")?;
    let mut rest = [0; 4];
    let (kind, code) = match name {
        "echo" | "reply" => {
            let (ident, sequence): (u16, u16) = (words.parse("id")?, words.parse("sequence")?);
            rest = (u32::from(ident) << 16 | u32::from(sequence)).to_be_bytes();
            if name == "echo" { by_version((8, 0), (128, 0)) } else { by_version((0, 0), (129, 0)) }
        }
        "time-exceeded" => by_version((11, 0), (3, 0)),
        "too-big" => {
            // Both have the MTU in the last two bytes; IPv6's field has four.
            rest = u32::from(words.parse::<u16>("MTU")?).to_be_bytes();
            by_version((3, 4), (2, 0))
        }
        "net-unreachable" => by_version((3, 0), (1, 0)),
        "port-unreachable" => by_version((3, 3), (1, 4)),
        "host-unreachable" => by_version((3, 1), (1, 3)),
        "type" => {
            let kind = words.parse("type")?;
            words.expect("code")?;
            (kind, words.parse("code")?)
        }
        other => return Err(format!("unknown ICMP message `{other}`")),
    };
    Ok((kind, code, rest))
}

pub(super) fn icmp(
    type_u8: u8,
    code_u8: u8,
    bytes5to8: [u8; 4],
    payload: &[u8],
    ends: Ends,
    bad: bool,
) -> Bytes {
    let mut bytes = match ends.ok_or("icmp outside of ip")? {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = Icmpv6Type::Unknown { type_u8, code_u8, bytes5to8 };
            let header = Icmpv6Header::with_checksum(kind, from.octets(), to.octets(), payload);
            header.map_err(|error| error.to_string())?.to_bytes().to_vec()
        }
        _ => {
            let kind = Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
            Icmpv4Header::with_checksum(kind, payload).to_bytes().to_vec()
        }
    };
    bytes[3] ^= u8::from(bad);
    bytes.extend(payload);
    Ok(bytes)
}

/// RFC 4861, section 4: each message is a header of ICMPv6 and options.
pub(super) fn discovery(node: &Node, words: &mut Words<'_>, ends: Ends) -> Bytes {
    let name = words.next("message of neighbour discovery")?;
    let mut rest = [0; 4];
    let mut body = Vec::new();
    let kind = match name {
        "router-solicitation" => {
            body.extend(link_addresses(node, words)?);
            133
        }
        "router-advertisement" => {
            body.extend([0; 8]);
            134
        }
        "redirect" => {
            body.extend([0; 32]);
            137
        }
        "solicit" | "advertise" => {
            body.extend(words.parse::<Ipv6Addr>("target")?.octets());
            body.extend(link_addresses(node, words)?);
            // Behind the names: `router` is also one of those.
            let flags = [("router", 0x80), ("solicited", 0x40), ("override", 0x20)];
            rest[0] =
                flags.into_iter().filter(|(flag, _)| words.flag(flag)).map(|(_, bit)| bit).sum();
            if name == "solicit" { 135 } else { 136 }
        }
        other => return Err(format!("unknown message `{other}`")),
    };
    let bad = words.flag("badsum");
    icmp(kind, 0, rest, &body, ends, bad)
}

/// Options: `from pod-a` is the source's link-layer address, `at pod-a` the target's.
fn link_addresses(node: &Node, words: &mut Words<'_>) -> Bytes {
    let mut options = Vec::new();
    for (who, option) in [("from", 1), ("at", 2)] {
        if let Some(name) = words.value::<String>(who)? {
            options.extend([option, 1]);
            options.extend(node.mac(&name)?.0);
        }
    }
    Ok(options)
}

pub(super) fn is_v6(ends: Ends) -> bool {
    ends.is_some_and(|(source, _)| source.is_ipv6())
}

/// What a sender with checksum offload stores: the pseudo header's sum, not complemented.
pub(super) fn pseudo_sum(ends: Ends, protocol: u16, len: usize) -> Result<u16, String> {
    let (source, destination) = ends.ok_or("a transport outside of ip")?;
    let mut bytes = Vec::new();
    for address in [source, destination] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend(protocol.to_be_bytes());
    bytes.extend((len as u32).to_be_bytes());
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    Ok(sum as u16)
}
