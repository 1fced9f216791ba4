//! AArch64 machine code as far as control flow needs it: which instruction goes where.
//!
//! Arm ARM, C4.1.94 "Branches, exception generating and system instructions". Everything else is `Other`.

/// What an instruction does to the flow of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A call of a fixed address, `BL`.
    Call(u64),
    /// A jump to a fixed address, `B`.
    Jump(u64),
    /// A jump under a condition: `B.cond`, `CBZ`, `CBNZ`, `TBZ`, `TBNZ`.
    Conditional(u64),
    /// A call through a register, `BLR`.
    Indirect,
    /// `BRK`: what the compiler puts where it wants an abort.
    Trap,
    /// What follows is not reached from here: `RET`, or `BR` (a jump table).
    End,
    /// No branch.
    Other,
}

/// Decodes the instruction `word` at `address`.
pub fn decode(address: u64, word: u32) -> Flow {
    let to = |offset: i64| address.wrapping_add_signed(offset);
    match word & 0xfc00_0000 {
        0x1400_0000 => return Flow::Jump(to(signed(word, 0, 26))),
        0x9400_0000 => return Flow::Call(to(signed(word, 0, 26))),
        _ => {}
    }
    let condition = word & 0xff00_0000 == 0x5400_0000;
    let compare = word & 0x7e00_0000 == 0x3400_0000;
    if condition || compare {
        return Flow::Conditional(to(signed(word, 5, 19)));
    }
    if word & 0x7e00_0000 == 0x3600_0000 {
        return Flow::Conditional(to(signed(word, 5, 14)));
    }
    match word & 0xffff_fc1f {
        0xd63f_0000 => return Flow::Indirect,
        0xd61f_0000 | 0xd65f_0000 => return Flow::End,
        _ => {}
    }
    if word & 0xffe0_001f == 0xd420_0000 {
        return Flow::Trap;
    }
    Flow::Other
}

/// The signed offset in bytes that stands in `bits` bits from `low`, in units of an instruction.
fn signed(word: u32, low: u32, bits: u32) -> i64 {
    let top = 32 - low - bits;
    let field = ((word << top) as i32) >> (top + low);
    i64::from(field) * 4
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words as an assembler writes them, each at 0x1000.
    #[test]
    fn every_kind_of_branch_is_decoded_with_its_sign() {
        let at = |word| decode(0x1000, word);
        assert_eq!(at(0x9400_0002), Flow::Call(0x1008), "bl .+8");
        assert_eq!(at(0x97ff_ffff), Flow::Call(0x0ffc), "bl .-4");
        assert_eq!(at(0x1400_0001), Flow::Jump(0x1004), "b .+4");
        assert_eq!(at(0x17ff_fffe), Flow::Jump(0x0ff8), "b .-8");
        assert_eq!(at(0x5400_0041), Flow::Conditional(0x1008), "b.ne .+8");
        assert_eq!(at(0x54ff_ffe0), Flow::Conditional(0x0ffc), "b.eq .-4");
        assert_eq!(at(0xb400_0040), Flow::Conditional(0x1008), "cbz x0, .+8");
        assert_eq!(at(0x35ff_ffe1), Flow::Conditional(0x0ffc), "cbnz w1, .-4");
        assert_eq!(at(0x3608_0040), Flow::Conditional(0x1008), "tbz w0, #1, .+8");
        assert_eq!(at(0xb70f_ffe0), Flow::Conditional(0x0ffc), "tbnz x0, #33, .-4");
    }

    #[test]
    fn calls_through_registers_traps_and_the_rest_are_told_apart() {
        let at = |word| decode(0x1000, word);
        assert_eq!(at(0xd63f_0100), Flow::Indirect, "blr x8");
        assert_eq!(at(0xd420_0020), Flow::Trap, "brk #1");
        assert_eq!(at(0xd65f_03c0), Flow::End, "ret");
        assert_eq!(at(0xd61f_0100), Flow::End, "br x8");
        assert_eq!(at(0xd503_207f), Flow::Other, "wfi");
        assert_eq!(at(0x9100_4000), Flow::Other, "add x0, x0, #16");
    }
}
