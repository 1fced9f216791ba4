//! Arm PrimeCell UART (PL011, DDI 0183). The loader or QEMU has set up the line; only the FIFOs are used.

use hal_mem::MmioRegion;

/// Data register.
const DR: usize = 0x000;
/// Flag register.
const FR: usize = 0x018;
/// Line control register.
const LCR_H: usize = 0x02c;
/// Control register.
const CR: usize = 0x030;
/// Interrupt mask.
const IMSC: usize = 0x038;

/// FR: receive FIFO empty.
const RXFE: u32 = 1 << 4;
/// FR: transmit FIFO full.
const TXFF: u32 = 1 << 5;
/// LCR_H: 8 bits, FIFOs on.
const EIGHT_BITS_FIFO: u32 = 3 << 5 | 1 << 4;
/// CR: receive, transmit and UART on.
const ALL_ON: u32 = 1 << 9 | 1 << 8 | 1;

/// Tries before a byte is dropped: a line whose other side is gone must not hang a crash report.
const MOST_TRIES: u32 = 1_000_000;

/// A UART.
#[derive(Debug)]
pub struct Pl011 {
    registers: MmioRegion,
}

impl Pl011 {
    /// Size of the register block.
    pub const BYTES: usize = 0x1000;

    /// A UART with these registers, in whatever state it is.
    #[must_use]
    pub const fn new(registers: MmioRegion) -> Self {
        Self { registers }
    }

    /// Turns transmitter, receiver and FIFOs on and interrupts off; the line's speed stays as the loader set it.
    pub fn enable(&mut self) {
        self.registers.write32(IMSC, 0);
        let line = self.registers.read32(LCR_H);
        self.registers.write32(LCR_H, line | EIGHT_BITS_FIFO);
        let control = self.registers.read32(CR);
        self.registers.write32(CR, control | ALL_ON);
    }

    /// Puts as many bytes into the FIFO as it takes now, and returns how many.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        for (done, byte) in bytes.iter().enumerate() {
            if self.registers.read32(FR) & TXFF != 0 {
                return done;
            }
            self.registers.write32(DR, u32::from(*byte));
        }
        bytes.len()
    }

    /// Waits for room and writes a byte; drops it where there is no room for very long.
    pub fn write_byte_blocking(&mut self, byte: u8) {
        for _ in 0..MOST_TRIES {
            if self.write(&[byte]) == 1 {
                return;
            }
            core::hint::spin_loop();
        }
    }

    /// The next byte received, errors and all; `None` when there is none.
    pub fn read_byte(&mut self) -> Option<u8> {
        if self.registers.read32(FR) & RXFE != 0 {
            return None;
        }
        Some(self.registers.read32(DR) as u8)
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

    #[test]
    fn writes_while_there_is_room_and_reads_what_is_there() {
        let memory = DmaRegion::leak_for_host(Pl011::BYTES);
        let registers = over(&memory);
        let mut uart = Pl011::new(over(&memory));
        assert_eq!(uart.write(b"ab"), 2);
        assert_eq!(registers.read32(DR), u32::from(b'b'));
        assert_eq!(uart.read_byte(), Some(b'b'));
        registers.write32(FR, TXFF | RXFE);
        assert_eq!(uart.write(b"c"), 0);
        assert_eq!(uart.read_byte(), None);
        uart.write_byte_blocking(b'd');
        assert_eq!(registers.read32(DR), u32::from(b'b'));
    }

    #[test]
    fn enabling_turns_all_on_and_interrupts_off() {
        let memory = DmaRegion::leak_for_host(Pl011::BYTES);
        let registers = over(&memory);
        registers.write32(IMSC, 0x7ff);
        Pl011::new(over(&memory)).enable();
        assert_eq!(registers.read32(IMSC), 0);
        assert_eq!(registers.read32(CR), ALL_ON);
        assert_eq!(registers.read32(LCR_H), EIGHT_BITS_FIFO);
    }
}
