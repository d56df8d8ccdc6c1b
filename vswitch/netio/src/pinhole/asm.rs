//! eBPF instructions with labels, as many as our program needs.
//!
//! Enters: calls from `program`, one for each instruction. Leaves: the words that bpf(2) takes.
//! The encoding is RFC 9669, section 3.

/// One instruction of 64 bits, `struct bpf_insn` of linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register; r10 is the frame pointer, below which the stack lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reg(pub(super) u8);

/// How many bytes a load takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Width {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
}

/// A comparison of a jump.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    Equal = 0x10,
    Greater = 0x20,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// A place in the program that is jumped to, perhaps before it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// The program has more instructions than a jump can cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLong;

/// How a program finds out where the packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum PacketEnd {
    /// A register has the address of its end.
    #[default]
    Address,
    /// A register has its length: the program reads a copy, beyond whose end lie zeros.
    Length,
}

#[derive(Default)]
pub(super) struct Assembler {
    /// What the register for the packet's end has.
    pub(super) packet_end: PacketEnd,
    instructions: Vec<Instruction>,
    /// Per label: where it was put.
    labels: Vec<Option<usize>>,
    /// Jumps: instruction and the label it goes to.
    jumps: Vec<(usize, Label)>,
}

const SOURCE_REGISTER: u8 = 0x08;
const CLASS_JUMP: u8 = 0x05;
const CLASS_JUMP32: u8 = 0x06;
const CLASS_ALU32: u8 = 0x04;
const CLASS_ALU64: u8 = 0x07;

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label means the next instruction.
    pub(super) fn put(&mut self, label: Label) {
        let place = &mut self.labels[label.0];
        assert!(place.is_none(), "a label is put once");
        *place = Some(self.instructions.len());
    }

    /// Something jumps to the label.
    pub(super) fn is_wanted(&self, label: Label) -> bool {
        self.jumps.iter().any(|&(_, to)| to == label)
    }

    /// `to = *(width *)(from + offset)`: in the byte order of memory.
    pub(super) fn load(&mut self, width: Width, to: Reg, from: Reg, offset: i16) {
        self.push(0x61 | width as u8, to, from, offset, 0);
    }

    /// `*(u32 *)(to + offset) = from`.
    pub(super) fn store(&mut self, to: Reg, offset: i16, from: Reg) {
        self.push(0x63, to, from, offset, 0);
    }

    pub(super) fn copy(&mut self, to: Reg, from: Reg) {
        self.push(0xb0 | SOURCE_REGISTER | CLASS_ALU64, to, from, 0, 0);
    }

    pub(super) fn set(&mut self, to: Reg, value: i32) {
        self.push(0xb0 | CLASS_ALU64, to, Reg(0), 0, value);
    }

    pub(super) fn add(&mut self, to: Reg, value: i32) {
        self.push(CLASS_ALU64, to, Reg(0), 0, value);
    }

    /// `r0 = *(width *)` at a place of the packet, in the byte order of this machine. The context is in r6, and r1
    /// to r5 have nothing afterwards; beyond the packet's end the program ends with 0.
    pub(super) fn load_packet(&mut self, width: Width, offset: i16) {
        self.push(0x20 | width as u8, Reg(0), Reg(0), 0, offset.into());
    }

    /// As `load_packet`, so many bytes behind the place that a register has.
    pub(super) fn load_packet_behind(&mut self, width: Width, at: Reg, offset: i16) {
        self.push(0x40 | width as u8, Reg(0), at, 0, offset.into());
    }

    /// `to = (u32)to + (u32)from`.
    pub(super) fn add_register(&mut self, to: Reg, from: Reg) {
        self.push(SOURCE_REGISTER | CLASS_ALU32, to, from, 0, 0);
    }

    /// `to = (u32)to ^ (u32)from`.
    pub(super) fn xor_register(&mut self, to: Reg, from: Reg) {
        self.push(0xa0 | SOURCE_REGISTER | CLASS_ALU32, to, from, 0, 0);
    }

    /// `to = (u32)to * factor`.
    pub(super) fn multiply(&mut self, to: Reg, factor: u32) {
        self.push(0x20 | CLASS_ALU32, to, Reg(0), 0, factor.cast_signed());
    }

    /// `to = (u32)to << bits`.
    pub(super) fn shift_left(&mut self, to: Reg, bits: u8) {
        self.push(0x60 | CLASS_ALU32, to, Reg(0), 0, bits.into());
    }

    /// `to = (u32)to >> bits`.
    pub(super) fn shift_right(&mut self, to: Reg, bits: u8) {
        self.push(0x70 | CLASS_ALU32, to, Reg(0), 0, bits.into());
    }

    /// `to = (u32)to & mask`.
    pub(super) fn mask(&mut self, to: Reg, mask: u32) {
        self.push(0x50 | CLASS_ALU32, to, Reg(0), 0, mask.cast_signed());
    }

    /// Jumps if the low 32 bits compare so, unsigned.
    pub(super) fn jump(&mut self, register: Reg, when: When, value: u32, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(when as u8 | CLASS_JUMP32, register, Reg(0), 0, value.cast_signed());
    }

    /// Jumps if one pointer lies beyond the other.
    pub(super) fn jump_if_beyond(&mut self, pointer: Reg, end: Reg, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(When::Greater as u8 | SOURCE_REGISTER | CLASS_JUMP, pointer, end, 0, 0);
    }

    /// Jumps if a helper has returned no pointer. All 64 bits are compared, as the verifier wants.
    pub(super) fn jump_if_null(&mut self, pointer: Reg, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(When::Equal as u8 | CLASS_JUMP, pointer, Reg(0), 0, 0);
    }

    pub(super) fn go(&mut self, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(CLASS_JUMP, Reg(0), Reg(0), 0, 0);
    }

    /// `to = map`: two words, of which the kernel replaces the fd by an address.
    pub(super) fn load_map(&mut self, to: Reg, map_fd: i32) {
        const PSEUDO_MAP_FD: Reg = Reg(1);
        self.push(0x18, to, PSEUDO_MAP_FD, 0, map_fd);
        self.push(0, Reg(0), Reg(0), 0, 0);
    }

    pub(super) fn call(&mut self, function: i32) {
        self.push(0x80 | CLASS_JUMP, Reg(0), Reg(0), 0, function);
    }

    pub(super) fn exit(&mut self) {
        self.push(0x90 | CLASS_JUMP, Reg(0), Reg(0), 0, 0);
    }

    /// The finished program.
    ///
    /// # Errors
    /// `TooLong` if a jump crosses more than 32,767 instructions.
    pub(super) fn finish(mut self) -> Result<Vec<Instruction>, TooLong> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].expect("every label that is jumped to was put");
            // A program that fits the memory has far fewer instructions than an i64 counts.
            let distance = target as i64 - (at as i64 + 1);
            self.instructions[at].offset = i16::try_from(distance).map_err(|_| TooLong)?;
        }
        Ok(self.instructions)
    }

    fn push(&mut self, code: u8, to: Reg, from: Reg, offset: i16, immediate: i32) {
        let registers = to.0 | from.0 << 4;
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }
}

#[cfg(test)]
mod tests {
    use super::{Assembler, Instruction, Reg, TooLong, When, Width};

    #[test]
    fn instructions_are_those_of_the_rfc() {
        let mut asm = Assembler::default();
        let end = asm.label();
        asm.load(Width::Half, Reg(3), Reg(7), 12);
        asm.jump(Reg(3), When::NotEqual, 0xffff_fffe, end);
        asm.mask(Reg(3), 0xf);
        asm.store(Reg(10), -4, Reg(3));
        asm.jump_if_null(Reg(0), end);
        asm.put(end);
        asm.exit();
        let word =
            |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
        let expected = [
            // r3 = *(u16 *)(r7 + 12); if w3 != -2 goto +3; w3 &= 15; *(u32 *)(r10 - 4) = r3;
            // if r0 == 0 goto +0; exit
            word(0x69, 0x73, 12, 0),
            word(0x56, 0x03, 3, -2),
            word(0x54, 0x03, 0, 15),
            word(0x63, 0x3a, -4, 0),
            word(0x15, 0x00, 0, 0),
            word(0x95, 0x00, 0, 0),
        ];
        assert_eq!(asm.finish().expect("short"), expected);
    }

    #[test]
    fn instructions_that_compute_are_those_of_the_rfc() {
        let mut asm = Assembler::default();
        asm.load_packet(Width::Half, 12);
        asm.load_packet_behind(Width::Word, Reg(9), 14);
        asm.add_register(Reg(7), Reg(0));
        asm.xor_register(Reg(0), Reg(7));
        asm.multiply(Reg(7), 0x9e37_79b1);
        asm.shift_left(Reg(0), 2);
        asm.shift_right(Reg(0), 16);
        let word =
            |code, registers, immediate| Instruction { code, registers, offset: 0, immediate };
        let expected = [
            // r0 = ntohs(packet[12]); r0 = ntohl(packet[r9 + 14]); w7 += w0; w0 ^= w7;
            // w7 *= 0x9e3779b1; w0 <<= 2; w0 >>= 16
            word(0x28, 0x00, 12),
            word(0x40, 0x90, 14),
            word(0x0c, 0x07, 0),
            word(0xac, 0x70, 0),
            word(0x24, 0x07, 0x9e37_79b1_u32.cast_signed()),
            word(0x64, 0x00, 2),
            word(0x74, 0x00, 16),
        ];
        assert_eq!(asm.finish().expect("short"), expected);
    }

    #[test]
    fn a_jump_that_does_not_fit_is_an_error() {
        let mut asm = Assembler::default();
        let end = asm.label();
        asm.go(end);
        for _ in 0..=i16::MAX as usize {
            asm.exit();
        }
        asm.put(end);
        asm.exit();
        assert_eq!(asm.finish(), Err(TooLong));
    }
}
