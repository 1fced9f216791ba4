//! Arm PrimeCell GPIO (PL061, DDI 0190), as far as a power key needs it: one pin that is an input.

use hal_mem::MmioRegion;

use crate::device_tree::PowerKeyNode;

/// Direction: 1 is an output.
const DIR: usize = 0x400;
/// Interrupt sense: 1 is a level.
const IS: usize = 0x404;
/// Interrupt on both edges.
const IBE: usize = 0x408;
/// Interrupt event: 1 is the rising edge.
const IEV: usize = 0x40c;
/// Interrupt mask: 1 lets it out.
const IE: usize = 0x410;
/// Raw interrupt status: edges that came, let out or not.
const RIS: usize = 0x414;
/// Interrupt clear.
const IC: usize = 0x41c;

/// A key at a pin. It raises no interrupt: an edge stays in the raw status until it is asked for.
#[derive(Debug)]
pub struct PowerKey {
    registers: MmioRegion,
    pin: u32,
}

impl PowerKey {
    /// Size of the register block.
    pub const BYTES: usize = 0x1000;

    /// The key that `node` tells of, from now on: what was pressed before does not count.
    #[must_use]
    pub fn new(registers: MmioRegion, node: &PowerKeyNode) -> Self {
        let pin = 1 << (node.pin % 8);
        let set = |register, on: bool| {
            let value = registers.read32(register);
            registers.write32(register, if on { value | pin } else { value & !pin });
        };
        set(IE, false);
        set(DIR, false);
        set(IS, false);
        set(IBE, false);
        set(IEV, !node.active_low);
        registers.write32(IC, pin);
        Self { registers, pin }
    }

    /// Whether the key was pressed since this was asked last, however short.
    pub fn take_press(&mut self) -> bool {
        let pressed = self.registers.read32(RIS) & self.pin != 0;
        if pressed {
            self.registers.write32(IC, self.pin);
        }
        pressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hal_mem::DmaRegion;

    fn over(memory: &DmaRegion) -> MmioRegion {
        // SAFETY: the test's own memory, which is never freed; volatile accesses only.
        unsafe { MmioRegion::new(memory.as_ptr(), memory.len()) }
    }

    fn node(active_low: bool) -> PowerKeyNode {
        PowerKeyNode { registers: 0..PowerKey::BYTES as u64, pin: 3, active_low }
    }

    #[test]
    fn the_pin_becomes_an_input_whose_edge_is_kept_and_others_stay_as_they_are() {
        for active_low in [false, true] {
            let memory = DmaRegion::leak_for_host(PowerKey::BYTES);
            let registers = over(&memory);
            for register in [DIR, IS, IBE, IEV, IE] {
                registers.write32(register, 0xff);
            }
            let _key = PowerKey::new(over(&memory), &node(active_low));
            for register in [DIR, IS, IBE, IE] {
                assert_eq!(registers.read32(register), 0xf7);
            }
            assert_eq!(registers.read32(IEV), if active_low { 0xf7 } else { 0xff });
            assert_eq!(registers.read32(IC), 1 << 3, "what came before is forgotten");
        }
    }

    #[test]
    fn an_edge_of_its_own_pin_is_a_press_and_is_cleared() {
        let memory = DmaRegion::leak_for_host(PowerKey::BYTES);
        let registers = over(&memory);
        let mut key = PowerKey::new(over(&memory), &node(false));
        registers.write32(IC, 0);
        registers.write32(RIS, 0xf7);
        assert!(!key.take_press());
        assert_eq!(registers.read32(IC), 0);
        registers.write32(RIS, 1 << 3);
        assert!(key.take_press());
        assert_eq!(registers.read32(IC), 1 << 3);
    }
}
