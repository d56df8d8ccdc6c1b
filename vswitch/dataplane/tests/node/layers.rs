//! The bytes of a layer. Etherparse makes the headers and their checksums; what it does not know
//! (VXLAN, the messages of neighbour discovery) is written out.
//!
//! Layers are put together from the inside out, so places are noted as bytes from the end.

use std::net::IpAddr;

use etherparse::{Ethernet2Header, TcpHeader, UdpHeader};

use super::messages::{arp, discovery, icmp, icmp_kind, ipv4, ipv6, is_v6, pseudo_sum};
use super::{Node, Words};

pub(super) type Bytes = Result<Vec<u8>, String>;

/// The addresses that a transport's checksum covers.
pub(super) type Ends = Option<(IpAddr, IpAddr)>;

pub(super) struct Assembler<'a> {
    node: &'a Node,
    quoted: &'a [u8],
    pub(super) wild: Vec<(usize, String)>,
    /// UDP headers over IPv6 with a source port that may be anything, and so a checksum that
    /// follows from it.
    /// What is true has an unfinished checksum, which follows from nothing.
    pub(super) following: Vec<(usize, bool)>,
    /// Of the innermost transport: where its unfinished checksum begins, and its offset.
    pub(super) partial: Option<(usize, u16)>,
    /// Where the innermost transport's payload begins.
    pub(super) payload: Option<usize>,
    /// Where the innermost IP header begins.
    pub(super) l3: Option<usize>,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(node: &'a Node, quoted: &'a [u8]) -> Self {
        Self {
            node,
            quoted,
            wild: Vec::new(),
            following: Vec::new(),
            partial: None,
            payload: None,
            l3: None,
        }
    }

    pub(super) fn assemble(&mut self, layers: &[&str]) -> Bytes {
        self.from(layers, None)
    }

    fn from(&mut self, layers: &[&str], ends: Ends) -> Bytes {
        let Some((layer, inside)) = layers.split_first() else { return Ok(Vec::new()) };
        let mut words = Words::new(layer);
        let bytes = match words.next("layer")? {
            "eth" => self.ethernet(&mut words, inside)?,
            "vlan" => {
                let id: u16 = words.parse("id")?;
                let mut bytes = id.to_be_bytes().to_vec();
                bytes.extend(ethertype(inside)?.to_be_bytes());
                bytes.extend(self.from(inside, None)?);
                bytes
            }
            "arp" => arp(self.node, &mut words, inside)?,
            "ip" => self.ip(&mut words, inside)?,
            "udp" => self.udp(&mut words, inside, ends)?,
            "tcp" => self.tcp(&mut words, inside, ends)?,
            "icmp" => {
                let (kind, code, rest) = icmp_kind(&mut words, is_v6(ends))?;
                let payload = self.from(inside, None)?;
                let bad = words.flag("badsum");
                let mut bytes = icmp(kind, code, rest, &payload, ends, bad)?;
                if words.flag("partial") {
                    self.partial.get_or_insert((bytes.len(), 2));
                    let v4 = !is_v6(ends);
                    let sum = if v4 { 0 } else { pseudo_sum(ends, 58, bytes.len())? };
                    bytes[2..4].copy_from_slice(&sum.to_be_bytes());
                }
                bytes
            }
            "sctp" => self.sctp(&mut words, inside)?,
            "nd" => discovery(self.node, &mut words, ends)?,
            "vxlan" => {
                let vni: u32 = words.parse("VNI")?;
                let flags = if words.flag("noflag") { 0 } else { 8 };
                let mut bytes = vec![flags, 0, 0, 0];
                bytes.extend((vni << 8).to_be_bytes());
                bytes.extend(self.from(inside, None)?);
                bytes
            }
            "quote" => {
                let len = words.all()?.first().copied().unwrap_or(self.quoted.len());
                self.quoted.get(..len).ok_or("the quote is longer than the packet")?.to_vec()
            }
            "hex" => words
                .all::<String>()?
                .iter()
                .map(|byte| u8::from_str_radix(byte, 16).map_err(|error| error.to_string()))
                .collect::<Result<_, _>>()?,
            count => {
                let count: usize = count.parse().map_err(|_| format!("unknown layer `{layer}`"))?;
                words.expect("bytes")?;
                let from: usize = words.value("from")?.unwrap_or(0);
                pattern(from, count)
            }
        };
        words.finish()?;
        Ok(bytes)
    }

    fn ethernet(&mut self, words: &mut Words<'_>, inside: &[&str]) -> Bytes {
        let source = self.node.mac(words.next("source MAC")?)?;
        words.expect(">")?;
        let destination = self.node.mac(words.next("destination MAC")?)?;
        let ether_type = match words.value::<String>("type")? {
            Some(hex) => u16::from_str_radix(&hex, 16).map_err(|error| error.to_string())?,
            None => ethertype(inside)?,
        };
        let header = Ethernet2Header {
            source: source.0,
            destination: destination.0,
            ether_type: ether_type.into(),
        };
        Ok([&header.to_bytes()[..], &self.from(inside, None)?].concat())
    }

    fn ip(&mut self, words: &mut Words<'_>, inside: &[&str]) -> Bytes {
        let source: IpAddr = words.parse("source address")?;
        words.expect(">")?;
        let destination: IpAddr = words.parse("destination address")?;
        let first_of = inside.first().and_then(|layer| layer.split(' ').next()).unwrap_or_default();
        let protocol = words.value("proto")?.unwrap_or(match first_of {
            "udp" => 17,
            "tcp" => 6,
            "sctp" => 132,
            "icmp" | "nd" if source.is_ipv6() => 58,
            "icmp" => 1,
            "ip" if inside[0].contains(':') => 41,
            "ip" => 4,
            _ => 253,
        });
        let mark = [("ect1", 1), ("ect0", 2), ("ce", 3)]
            .into_iter()
            .find_map(|(name, bits)| words.flag(name).then_some(bits))
            .unwrap_or(0);
        let tos = words.value::<u8>("tos")?.unwrap_or(0) | mark;
        let payload = self.from(inside, Some((source, destination)))?;
        let bytes = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ipv4(words, source, destination, tos, protocol, payload)?
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                ipv6(words, source, destination, tos, protocol, payload)?
            }
            _ => return Err("addresses of two versions".into()),
        };
        self.l3.get_or_insert(bytes.len());
        Ok(bytes)
    }

    fn udp(&mut self, words: &mut Words<'_>, inside: &[&str], ends: Ends) -> Bytes {
        let source = words.next("source port")?;
        words.expect(">")?;
        let destination_port = words.parse("destination port")?;
        let payload = self.from(inside, None)?;
        let is_wild = source == "*" || source.starts_with('$');
        let whole = whole(words, &payload)?;
        let length = words.value("len")?.unwrap_or((8 + whole.len()) as u16);
        let is_partial = words.flag("partial");
        if is_wild {
            self.wild.push((8 + payload.len(), source.to_owned()));
            if is_v6(ends) {
                self.following.push((8 + payload.len(), is_partial));
            }
        }
        let source_port = if is_wild { Ok(0) } else { source.parse() };
        let source_port = source_port.map_err(|_| format!("`{source}` is no port"))?;
        let mut header = UdpHeader { source_port, destination_port, length, checksum: 0 };
        if is_partial {
            self.partial.get_or_insert((8 + payload.len(), 6));
            header.checksum = pseudo_sum(ends, 17, 8 + payload.len())?;
        } else if !words.flag("nosum") && !is_wild {
            header.checksum = match ends.ok_or("udp outside of ip")? {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &whole)
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &whole)
                }
                _ => return Err("addresses of two versions".into()),
            }
            .map_err(|error| error.to_string())?;
        }
        header.checksum ^= u16::from(words.flag("badsum"));
        self.payload.get_or_insert(payload.len());
        Ok([&header.to_bytes()[..], &payload].concat())
    }

    fn tcp(&mut self, words: &mut Words<'_>, inside: &[&str], ends: Ends) -> Bytes {
        let source = words.parse("source port")?;
        words.expect(">")?;
        let destination = words.parse("destination port")?;
        let sequence = words.value("seq")?.unwrap_or(1);
        let window = words.value("window")?.unwrap_or(65_000);
        let mut header = TcpHeader::new(source, destination, sequence, window);
        header.acknowledgment_number = words.value("ack")?.unwrap_or(0);
        let flags = words.value::<String>("flags")?.unwrap_or("A".into());
        for flag in flags.chars() {
            *match flag {
                'F' => &mut header.fin,
                'S' => &mut header.syn,
                'R' => &mut header.rst,
                'P' => &mut header.psh,
                'A' => &mut header.ack,
                'U' => &mut header.urg,
                'E' => &mut header.ece,
                'W' => &mut header.cwr,
                other => return Err(format!("unknown TCP flag `{other}`")),
            } = true;
        }
        let options = words.value("options")?.unwrap_or(0);
        let mss = words.value::<u16>("mss")?.map(u16::to_be_bytes);
        let mss = mss.map_or(Vec::new(), |[high, low]| vec![2, 4, high, low]);
        header
            .set_options_raw(&[mss, vec![1; options]].concat())
            .map_err(|error| error.to_string())?;
        let payload = self.from(inside, None)?;
        let whole = whole(words, &payload)?;
        let len = header.header_len() + payload.len();
        header.checksum = if words.flag("partial") {
            self.partial.get_or_insert((len, 16));
            pseudo_sum(ends, 6, len)?
        } else {
            match ends.ok_or("tcp outside of ip")? {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &whole)
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &whole)
                }
                _ => return Err("addresses of two versions".into()),
            }
            .map_err(|error| error.to_string())?
        };
        header.checksum ^= u16::from(words.flag("badsum"));
        self.payload.get_or_insert(payload.len());
        Ok([&header.to_bytes()[..], &payload].concat())
    }

    fn sctp(&mut self, words: &mut Words<'_>, inside: &[&str]) -> Bytes {
        let source: u16 = words.parse("source port")?;
        words.expect(">")?;
        let destination: u16 = words.parse("destination port")?;
        let tag: u32 = words.value("tag")?.unwrap_or(0);
        let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        bytes.extend(tag.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.from(inside, None)?);
        let sum = SCTP_SUM.checksum(&bytes) ^ u32::from(words.flag("badsum"));
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        Ok(bytes)
    }
}

/// RFC 9260, section 3.1.
const SCTP_SUM: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// `whole 2000@100`: a pattern that begins as `100 bytes from 100` does.
fn whole(words: &mut Words<'_>, payload: &[u8]) -> Bytes {
    let Some(text) = words.value::<String>("whole")? else { return Ok(payload.to_vec()) };
    let (count, from) = text.split_once('@').unwrap_or((&text, "0"));
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}`: bytes[@from]"));
    Ok(pattern(number(from)?, number(count)?))
}

/// No period that is a multiple of a segment's size: bytes out of place show.
fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| (at % 251) as u8).collect()
}

fn ethertype(inside: &[&str]) -> Result<u16, String> {
    let Some(next) = inside.first() else { return Ok(0x0800) };
    match next.split(' ').next().unwrap_or_default() {
        "ip" if next.contains(':') => Ok(0x86dd),
        "ip" => Ok(0x0800),
        "arp" => Ok(0x0806),
        "vlan" => Ok(0x8100),
        _ => Err(format!("the Ethernet type of `{next}` is not known: `type 0800`")),
    }
}
