//! Packets as a file of bytes.
//!
//! Enters: bytes from the fuzzer. Leaves: at most 16 packets to inject. A file is packets end to
//! end, each a head of 12 bytes and its frame, so that cutting, copying and joining files gives
//! files that mean something. Numbers are little endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0      | ingress port, modulo [`PORTS`](crate::live::PORTS) |
//! | 1      | bits 0..2: GSO kind; bit 2: partial checksum; bit 3: repair; bit 4: the egress refuses |
//! | 2..4   | GSO size |
//! | 4..6   | start of the partial checksum |
//! | 6      | its offset |
//! | 7      | time that passes first, in units of 100 ms |
//! | 8..10  | bytes of the frame |
//! | 10..12 | zeros that follow them, for superframes; of others modulo 2,048 |

use dataplane::wire::{checksum::Sum, ethernet, udp, vxlan};
use frame::{CAPACITY_BYTES, Checksum, Gso, GsoKind, Offload};

/// Packets that are read from one file.
pub const MAX_PACKETS: usize = 16;

const HEAD_LEN: usize = 12;

/// One packet to inject.
#[derive(Debug, Clone, Default)]
pub struct Injected {
    /// The port that it comes by.
    pub ingress: u8,
    /// What its sender left undone.
    pub offload: Offload,
    /// Lengths and checksums of IPv4 headers are made true, so that a mutated packet gets past
    /// `parse` more often than once in 65,536 times.
    pub repair: bool,
    /// The ports take nothing while this packet is carried out.
    pub refuse: bool,
    /// Time since the packet before.
    pub pause: u8,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Zeros behind `bytes`: fewer than 2,048 if it is no superframe.
    pub zeros: u16,
}

impl Injected {
    /// The frame as it is injected.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = self.bytes.clone();
        frame.resize((frame.len() + usize::from(self.zeros)).min(CAPACITY_BYTES), 0);
        if self.repair {
            repair_ethernet(&mut frame);
        }
        frame
    }

    /// Appends the packet to a file.
    pub fn write(&self, file: &mut Vec<u8>) {
        let (kind, size) = match self.offload.gso {
            None => (0, 0),
            Some(Gso { kind: GsoKind::Tcp4 { .. }, size, .. }) => (1, size),
            Some(Gso { kind: GsoKind::Tcp6 { .. }, size, .. }) => (2, size),
            Some(Gso { kind: GsoKind::Udp, size, .. }) => (3, size),
        };
        let (partial, start, offset) = match self.offload.checksum {
            Checksum::Partial { start, offset } => (true, start, offset as u8),
            _ => (false, 0, 0),
        };
        let flags =
            kind | u8::from(partial) << 2 | u8::from(self.repair) << 3 | u8::from(self.refuse) << 4;
        file.extend_from_slice(&[self.ingress, flags]);
        file.extend_from_slice(&size.to_le_bytes());
        file.extend_from_slice(&start.to_le_bytes());
        file.extend_from_slice(&[offset, self.pause]);
        file.extend_from_slice(&(self.bytes.len() as u16).to_le_bytes());
        file.extend_from_slice(&self.zeros.to_le_bytes());
        file.extend_from_slice(&self.bytes);
    }
}

/// The packets of a file; the last one's frame may be cut short.
#[must_use]
pub fn read(mut file: &[u8]) -> Vec<Injected> {
    let mut packets = Vec::new();
    while packets.len() < MAX_PACKETS
        && let Some((head, rest)) = file.split_first_chunk::<HEAD_LEN>()
    {
        let word = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let (bytes, rest) = rest.split_at(usize::from(word(8)).min(rest.len()));
        file = rest;
        let ecn = head[1] & 0x80 != 0;
        let kind = match head[1] & 0b11 {
            0 => None,
            1 => Some(GsoKind::Tcp4 { ecn }),
            2 => Some(GsoKind::Tcp6 { ecn }),
            _ => Some(GsoKind::Udp),
        };
        let checksum = match head[1] & 0b100 {
            0 => Checksum::Unchecked,
            _ => Checksum::Partial { start: word(4), offset: head[6].into() },
        };
        packets.push(Injected {
            ingress: head[0],
            offload: Offload {
                checksum,
                gso: kind.map(|kind| Gso { kind, size: word(2), header_len: 0, vxlan: None }),
            },
            repair: head[1] & 0b1000 != 0,
            refuse: head[1] & 0b1_0000 != 0,
            pause: head[7],
            bytes: bytes.to_vec(),
            zeros: if kind.is_some() { word(10) } else { word(10) % 2048 },
        });
    }
    packets
}

fn repair_ethernet(frame: &mut [u8]) {
    let Some((header, packet)) = frame.split_at_mut_checked(ethernet::HEADER_LEN) else { return };
    match &header[12..] {
        [0x08, 0x00] => repair_v4(packet),
        [0x86, 0xdd] => repair_v6(packet),
        _ => {}
    }
}

fn repair_v4(packet: &mut [u8]) {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return;
    }
    let header_len = usize::from(packet[0] & 0x0f) * 4;
    if header_len < 20 || header_len > packet.len() {
        return;
    }
    let total_len = u16::from_be_bytes([packet[2], packet[3]]);
    if usize::from(total_len) > packet.len() || usize::from(total_len) < header_len {
        let whole = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        packet[2..4].copy_from_slice(&whole.to_be_bytes());
    }
    let protocol = packet[9];
    repair_inner(protocol, &mut packet[header_len..]);
    packet[10..12].fill(0);
    let checksum = Sum::new().bytes(&packet[..header_len]).finish();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn repair_v6(packet: &mut [u8]) {
    if packet.len() < 40 || packet[0] >> 4 != 6 {
        return;
    }
    let payload_len = u16::from_be_bytes([packet[4], packet[5]]);
    if usize::from(payload_len) > packet.len() - 40 {
        let whole = u16::try_from(packet.len() - 40).unwrap_or(u16::MAX);
        packet[4..6].copy_from_slice(&whole.to_be_bytes());
    }
}

fn repair_inner(protocol: u8, payload: &mut [u8]) {
    match protocol {
        4 => repair_v4(payload),
        41 => repair_v6(payload),
        17 if payload.len() >= udp::HEADER_LEN => {
            let len = u16::from_be_bytes([payload[4], payload[5]]);
            if usize::from(len) > payload.len() || usize::from(len) < udp::HEADER_LEN {
                let whole = u16::try_from(payload.len()).unwrap_or(u16::MAX);
                payload[4..6].copy_from_slice(&whole.to_be_bytes());
            }
            let port = u16::from_be_bytes([payload[2], payload[3]]);
            if port == vxlan::PORT
                && let Some(inner) = payload.get_mut(udp::HEADER_LEN + vxlan::HEADER_LEN..)
            {
                repair_ethernet(inner);
            }
        }
        _ => {}
    }
}
