//! The notation of packets: layers from the outside in, separated by ` / `.
//!
//! ```text
//! eth pod-a > gateway                     names or spelled-out MACs; the type follows what is inside
//! vlan 5
//! arp who-has 198.18.1.1 tell 198.18.1.2 at pod-a
//! arp 198.18.1.1 is-at gateway tell 198.18.1.2 at pod-a
//! ip 198.18.1.2 > 198.18.2.7 [ttl 64] [ect0|ect1|ce] [tos 8] [id 7] [df] [frag 1480] [more]
//!    [options 8] [lsrr 198.18.1.3] [ssrr 198.18.1.3] [ext 2] [routing 0 [left 1]] [proto 17] [len 999]
//!    [badsum]                             IPv6 by its addresses
//! udp 1000 > 2000 [nosum] [badsum] [partial] [len 9]          `*` or `$name` for the source port;
//!    over IPv6 then with any flow label but zero, and the checksum that belongs to it
//! tcp 1000 > 80 [seq 1] [ack 0] [window 65000] [flags AP] [mss 1460] [options 12] [badsum] [partial]
//!    [whole 2000[@100]]                   udp, tcp: the checksum is that of a datagram of so many
//!                                         bytes, of which the rest is in later fragments
//! sctp 1000 > 2000 [tag 7] [badsum]
//! icmp echo 1 2 | reply 1 2 | time-exceeded | too-big 1400 | net-unreachable | host-unreachable
//!    | port-unreachable | type 5 code 1 [badsum] [partial]                        either version, by the IP layer
//! nd solicit fd00::1 [from pod-a] | advertise fd00::1 [at pod-a] [router] [solicited] [override]
//!    | router-advertisement | router-solicitation [from pod-a] | redirect
//! vxlan 10 [noflag]
//! 100 bytes [from 1448]                   a pattern; `from` is where in it the bytes begin
//! hex 45 00 ...
//! quote [548]                             the packet that was sent, from its innermost IP header
//! ```
//! Then, about the whole: `pad 6` (trailing bytes), `headroom 20`, `cut 30` (only so many bytes),
//! `gso tcp4|tcp6|udp 1448 [in-vxlan4|in-vxlan6]` (each piece gets outer headers of its own), `sum-at START OFFSET` (a checksum left to us at any place).

use dataplane::tables::PortId;
use etherparse::UdpHeader;
use frame::{Checksum, Frame, Gso, GsoKind, Offload, Packet, Pool, VxlanOver};

use super::layers::Assembler;
use super::{Node, Words};

/// A packet that was described, byte for byte but for what is `wild`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Described {
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
    /// Places of 16-bit fields that may hold anything, with the name of what they hold.
    pub(crate) wild: Vec<(usize, String)>,
    /// UDP headers whose checksum, and the flow label in front of it, follow a wild source port.
    following: Vec<(usize, bool)>,
    /// Where the innermost IP header begins.
    pub(crate) l3: usize,
    headroom: Option<usize>,
}

impl Described {
    /// `quoted` is what an ICMP error in the description is about.
    pub(crate) fn parse(node: &Node, text: &str, quoted: &[u8]) -> Result<Self, String> {
        let mut assembler = Assembler::new(node, quoted);
        let mut whole = Self::default();
        let (mut pad, mut cut, mut gso) = (0, usize::MAX, None);
        let mut layers = Vec::new();
        for layer in text.split(" / ").map(str::trim) {
            let mut words = Words::new(layer);
            match words.next("layer")? {
                "pad" => pad = words.parse("bytes")?,
                "cut" => cut = words.parse("bytes")?,
                "headroom" => whole.headroom = Some(words.parse("bytes")?),
                "sum-at" => {
                    let (start, offset) = (words.parse("start")?, words.parse("offset")?);
                    whole.offload.checksum = Checksum::Partial { start, offset };
                }
                "gso" => {
                    let kind = match words.next("kind")? {
                        "tcp4" => GsoKind::Tcp4 { ecn: false },
                        "tcp6" => GsoKind::Tcp6 { ecn: false },
                        "udp" => GsoKind::Udp,
                        other => return Err(format!("unknown gso `{other}`")),
                    };
                    let size = words.parse::<u16>("size")?;
                    let vxlan = match (words.flag("in-vxlan4"), words.flag("in-vxlan6")) {
                        (true, _) => Some(VxlanOver::Ipv4),
                        (_, true) => Some(VxlanOver::Ipv6),
                        _ => None,
                    };
                    gso = Some((kind, size, vxlan));
                }
                _ => {
                    layers.push(layer);
                    continue;
                }
            }
            words.finish()?;
        }
        let bytes = assembler.assemble(&layers)?;
        let at = |from_end: usize| bytes.len() - from_end;
        whole.wild = assembler.wild.iter().map(|(end, name)| (at(*end), name.clone())).collect();
        whole.following =
            assembler.following.iter().map(|(end, is_partial)| (at(*end), *is_partial)).collect();
        whole.l3 = assembler.l3.map_or(0, at);
        if let Some((start, offset)) = assembler.partial {
            whole.offload.checksum = Checksum::Partial { start: at(start) as u16, offset };
        }
        whole.offload.gso = gso.map(|(kind, size, vxlan)| Gso {
            kind,
            size,
            header_len: assembler.payload.map_or(0, at) as u16,
            vxlan,
        });
        whole.bytes = bytes;
        whole.bytes.extend(std::iter::repeat_n(0xee, pad));
        whole.bytes.truncate(cut);
        Ok(whole)
    }

    /// A packet of the pool with these bytes.
    pub(crate) fn packet(&self, pool: &Pool) -> Packet {
        let mut frame = pool.alloc().expect("the pool has a frame for what is received");
        self.fill(&mut frame);
        Packet { frame, offload: self.offload }
    }

    fn fill(&self, frame: &mut Frame) {
        if let Some(headroom) = self.headroom {
            let surplus = frame.headroom().saturating_sub(headroom);
            frame.push(surplus).expect("the surplus is headroom");
            frame.truncate(0);
        }
        frame.extend_from_slice(&self.bytes).expect("a chunk holds a superframe");
    }

    /// Whether this is what was described; if not, where it first differs.
    pub(crate) fn compare(&self, bytes: &[u8], offload: &Offload) -> Result<(), String> {
        let wild = |at: usize| self.wild.iter().any(|(wild, _)| (*wild..wild + 2).contains(&at));
        let mut expected = self.bytes.clone();
        for (at, is_partial) in &self.following {
            follow(&mut expected, bytes, *at, *is_partial)?;
        }
        let differs = (0..expected.len().max(bytes.len()))
            .find(|&at| !wild(at) && expected.get(at) != bytes.get(at));
        if let Some(at) = differs {
            return Err(format!("differs from byte {at} on"));
        }
        if self.offload != *offload {
            return Err(format!("expected {:?}, found {offload:?}", self.offload));
        }
        Ok(())
    }
}

/// Takes source port and flow label from what was found, and sums anew if the sum is to be finished.
fn follow(expected: &mut [u8], found: &[u8], udp: usize, is_partial: bool) -> Result<(), String> {
    let ip = udp - 40;
    if found.len() != expected.len() {
        return Err(format!("expected {} bytes, found {}", expected.len(), found.len()));
    }
    expected[udp..udp + 2].copy_from_slice(&found[udp..udp + 2]);
    if found[ip + 1] & 0x0f == 0 && found[ip + 2..ip + 4] == [0, 0] {
        return Err("the flow label is zero".into());
    }
    expected[ip + 1] |= found[ip + 1] & 0x0f;
    expected[ip + 2..ip + 4].copy_from_slice(&found[ip + 2..ip + 4]);
    if is_partial {
        return Ok(());
    }
    let (header, payload) =
        UdpHeader::from_slice(&expected[udp..]).map_err(|error| error.to_string())?;
    let address = |at: usize| expected[at..at + 16].try_into().expect("sixteen bytes");
    let sum = header
        .calc_checksum_ipv6_raw(address(ip + 8), address(ip + 24), payload)
        .map_err(|error| error.to_string())?;
    expected[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

/// A packet at a port: `pod-a eth ...`.
pub(crate) fn at_port<'t>(node: &Node, text: &'t str) -> Result<(PortId, &'t str), String> {
    let (port, packet) = text.trim().split_once(' ').ok_or(format!("`{text}`: no packet"))?;
    Ok((node.port(port)?, packet.trim()))
}
