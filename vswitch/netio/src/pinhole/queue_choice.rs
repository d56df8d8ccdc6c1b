//! Which of its queues a TAP gives a packet of the pod to, as instructions: a program of the type of socket filters.
//!
//! Left alone the kernel gives a flow to the queue by which its last answer was written, so that a flow would
//! change its queue, and its order, with every move of a pod at the other end. By this program all packets of a
//! flow have one queue, for as long as as many are attached: it returns a hash of the addresses, and of protocol
//! and ports where each packet shows them, the same in both directions; the kernel takes it modulo the number of
//! queues.
//!
//! A fragment has no ports but in the first of a datagram, and IPv6 may have headers before them: such packets go
//! by their addresses alone, so that a worker has all fragments of a datagram. What is no IP goes to the first
//! queue. `port` alone calls this.

use std::os::fd::{AsFd, OwnedFd};

use super::asm::{Assembler, Instruction, Reg, When, Width};
use super::bpf::{self, ProgramType};
use super::packet::{
    CONTEXT, ETHERNET_BYTES, IPV6_BYTES, PROTOCOL_UDP, RESULT, SAVED_CONTEXT, VALUE,
};
use crate::Result;

/// What the hash is made of so far.
const HASH: Reg = Reg(7);
const PROTOCOL: Reg = Reg(8);
/// Bytes of the IP header.
const HEADER_BYTES: Reg = Reg(9);

const PROTOCOL_TCP: u32 = 6;
const PROTOCOL_SCTP: u32 = 132;

/// "More fragments" and the offset of IPv4's fragment field.
const IS_FRAGMENT: u32 = 0x3fff;

/// 2^32 divided by the golden ratio: its multiples spread well over the high bits (Knuth, The Art of Computer
/// Programming, volume 3, section 6.4).
const FACTOR: u32 = 0x9e37_79b1;

/// The program, once the kernel has accepted it.
#[derive(Debug)]
pub(crate) struct QueueChoice {
    program: OwnedFd,
}

impl QueueChoice {
    pub(crate) fn load() -> Result<Self> {
        Ok(Self { program: bpf::load(&assemble(), ProgramType::SocketFilter)? })
    }
}

impl AsFd for QueueChoice {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.program.as_fd()
    }
}

fn assemble() -> Vec<Instruction> {
    let mut asm = Assembler::default();
    let [ipv4, ipv6, ports, has_ports, done] = std::array::from_fn(|_| asm.label());
    asm.copy(SAVED_CONTEXT, CONTEXT);
    asm.load_packet(Width::Half, 12);
    asm.jump(RESULT, When::Equal, 0x0800, ipv4);
    asm.jump(RESULT, When::Equal, 0x86dd, ipv6);
    asm.set(RESULT, 0);
    asm.exit();

    asm.put(ipv4);
    add_words(&mut asm, ETHERNET_BYTES + 12, 2);
    asm.load_packet(Width::Half, ETHERNET_BYTES + 6);
    asm.mask(RESULT, IS_FRAGMENT);
    asm.jump(RESULT, When::NotEqual, 0, done);
    asm.load_packet(Width::Byte, ETHERNET_BYTES + 9);
    asm.copy(PROTOCOL, RESULT);
    asm.load_packet(Width::Byte, ETHERNET_BYTES);
    asm.mask(RESULT, 0xf);
    asm.shift_left(RESULT, 2);
    asm.copy(HEADER_BYTES, RESULT);
    asm.go(ports);

    asm.put(ipv6);
    add_words(&mut asm, ETHERNET_BYTES + 8, 8);
    asm.load_packet(Width::Byte, ETHERNET_BYTES + 6);
    asm.copy(PROTOCOL, RESULT);
    asm.set(HEADER_BYTES, IPV6_BYTES.into());

    asm.put(ports);
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP, PROTOCOL_SCTP] {
        asm.jump(PROTOCOL, When::Equal, protocol, has_ports);
    }
    asm.go(done);
    asm.put(has_ports);
    // So that a port more and an address less make another hash.
    asm.multiply(HASH, FACTOR);
    asm.add_register(HASH, PROTOCOL);
    asm.load_packet_behind(Width::Word, HEADER_BYTES, ETHERNET_BYTES);
    asm.copy(VALUE, RESULT);
    asm.shift_right(VALUE, 16);
    asm.mask(RESULT, 0xffff);
    asm.add_register(HASH, RESULT);
    asm.add_register(HASH, VALUE);

    asm.put(done);
    asm.multiply(HASH, FACTOR);
    asm.copy(RESULT, HASH);
    asm.shift_right(RESULT, 16);
    asm.xor_register(RESULT, HASH);
    asm.exit();
    asm.finish().expect("its jumps are short")
}

/// The sum of words of the packet is what the hash begins with: of either direction the same.
fn add_words(asm: &mut Assembler, offset: i16, count: i16) {
    asm.set(HASH, 0);
    for word in 0..count {
        asm.load_packet(Width::Word, offset + 4 * word);
        asm.add_register(HASH, RESULT);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::{self, Write};
    use std::os::fd::AsFd;

    use super::QueueChoice;
    use crate::pinhole::bpf;

    /// Makes hashes, or `None` where no program may be loaded.
    fn hasher() -> Option<impl Fn(&[u8]) -> u32> {
        let choice = match QueueChoice::load() {
            Ok(choice) => choice,
            Err(error) => {
                let said = "SKIPPED: no program can be loaded";
                let _ = writeln!(io::stderr(), "{said} ({error}); run it as root");
                return None;
            }
        };
        Some(move |frame: &[u8]| {
            // The kernel takes an Ethernet header away before it runs a program of this type on bytes; a TAP
            // does not.
            let behind_another = [&[0; 14], frame].concat();
            bpf::test_run(choice.as_fd(), &behind_another).expect("the kernel runs it")
        })
    }

    fn ethernet(ethertype: u16) -> Vec<u8> {
        [&[2; 12][..], &ethertype.to_be_bytes()].concat()
    }

    /// `field` is IPv4's fragment field; `options` are words of them.
    fn ipv4(protocol: u8, ends: [u8; 2], field: u16, options: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = ethernet(0x0800);
        frame.extend([0x45 + options, 0, 0, 0, 0, 0]);
        frame.extend(field.to_be_bytes());
        frame.extend([64, protocol, 0, 0]);
        for end in ends {
            frame.extend([198, 18, 0, end]);
        }
        frame.extend(vec![1; 4 * usize::from(options)]);
        frame.extend(payload);
        frame
    }

    fn ipv6(next: u8, ends: [u8; 2], payload: &[u8]) -> Vec<u8> {
        let mut frame = ethernet(0x86dd);
        frame.extend([0x60, 0, 0, 0, 0, 0, next, 64]);
        for end in ends {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
        }
        frame.extend(payload);
        frame
    }

    fn ports(from: u16, to: u16) -> Vec<u8> {
        [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0xa5; 16]].concat()
    }

    #[test]
    fn a_flow_has_one_hash_in_both_directions_and_flows_have_many() {
        let Some(hash) = hasher() else { return };
        for protocol in [6, 17, 132] {
            let there = ipv4(protocol, [1, 2], 0x4000, 0, &ports(40_000, 53));
            let back = ipv4(protocol, [2, 1], 0, 0, &ports(53, 40_000));
            let with_options = ipv4(protocol, [1, 2], 0, 3, &ports(40_000, 53));
            assert_eq!(hash(&there), hash(&back), "{protocol}");
            assert_eq!(hash(&there), hash(&with_options), "{protocol}");
            let there = ipv6(protocol, [1, 2], &ports(40_000, 53));
            let back = ipv6(protocol, [2, 1], &ports(53, 40_000));
            assert_eq!(hash(&there), hash(&back), "{protocol} by IPv6");
        }
        let by_port = (0..64).map(|port| hash(&ipv4(6, [1, 2], 0, 0, &ports(40_000 + port, 80))));
        assert_eq!(by_port.collect::<BTreeSet<_>>().len(), 64);
        let by_protocol = [6, 17, 132].map(|p| hash(&ipv4(p, [1, 2], 0, 0, &ports(7, 7))));
        assert_eq!(BTreeSet::from(by_protocol).len(), 3);
    }

    #[test]
    fn every_number_of_queues_gets_flows_alike() {
        let Some(hash) = hasher() else { return };
        for queues in 2..=8_u32 {
            let mut flows = vec![0; queues as usize];
            for flow in 0..512_u16 {
                // Consecutive ports to one server, and the peers of one port.
                let end = (flow % 16) as u8;
                let frame = ipv4(6, [1, 2 + end], 0, 0, &ports(32_768 + flow, 443));
                flows[(hash(&frame) % queues) as usize] += 1;
            }
            let expected = 512 / queues;
            assert!(flows.iter().all(|count| *count > expected / 2), "{queues}: {flows:?}");
            assert!(flows.iter().all(|count| *count < expected * 2), "{queues}: {flows:?}");
        }
    }

    #[test]
    fn fragments_and_what_has_no_ports_go_by_their_addresses() {
        let Some(hash) = hasher() else { return };
        // More fragments; the last one; one without ports at all.
        let fragments = [
            ipv4(17, [1, 2], 0x2000, 0, &ports(1, 2)),
            ipv4(17, [1, 2], 0x00b9, 0, &ports(9, 9)),
            ipv4(1, [1, 2], 0, 0, &[8, 0, 0, 0]),
        ];
        let hashes: BTreeSet<_> = fragments.iter().map(|frame| hash(frame)).collect();
        assert_eq!(hashes.len(), 1);
        assert_eq!(hash(&ipv6(44, [1, 2], &ports(1, 2))), hash(&ipv6(58, [1, 2], &ports(3, 4))));
        let peers = (2..34).map(|end| hash(&ipv4(1, [1, end], 0, 0, &[8, 0, 0, 0])) % 2);
        assert_eq!(peers.collect::<BTreeSet<_>>().len(), 2);
    }

    #[test]
    fn what_is_no_ip_or_is_cut_short_has_the_first_queue() {
        let Some(hash) = hasher() else { return };
        let arp = [ethernet(0x0806), vec![7; 28]].concat();
        assert_eq!(hash(&arp), 0);
        assert_eq!(hash(&ipv4(6, [1, 2], 0, 0, &[])), 0);
        assert_eq!(hash(&ethernet(0x0800)), 0);
    }
}
