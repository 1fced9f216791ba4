//! The raw console: plain text to the UART, from any core, at any time. For what stands in no log.

use core::fmt::{self, Write};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use hal_devices::Pl011;
use hal_mem::MmioRegion;

static BASE: AtomicUsize = AtomicUsize::new(0);

/// Says where the UART is; 0 for nowhere.
pub(crate) fn set_base(base: usize) {
    BASE.store(base, Ordering::Relaxed);
}

/// Another handle to the raw console. Text of several cores may mix.
#[must_use]
pub fn raw_console() -> RawConsole {
    let base = NonNull::new(BASE.load(Ordering::Relaxed) as *mut u8);
    // SAFETY: the base is a PL011's, mapped as device memory; its data and flag registers may be used by
    // several at once, which at worst mixes their text.
    RawConsole(base.map(|base| Pl011::new(unsafe { MmioRegion::new(base, Pl011::BYTES) })))
}

/// Writes text to the UART and waits for room; drops it where there is no UART.
#[derive(Debug)]
pub struct RawConsole(Option<Pl011>);

impl RawConsole {
    /// Writes a byte as it is.
    pub fn write_byte(&mut self, byte: u8) {
        if let Some(uart) = &mut self.0 {
            uart.write_byte_blocking(byte);
        }
    }
}

impl Write for RawConsole {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(uart) = &mut self.0 {
            for byte in text.bytes() {
                if byte == b'\n' {
                    uart.write_byte_blocking(b'\r');
                }
                uart.write_byte_blocking(byte);
            }
        }
        Ok(())
    }
}

/// Writes a line to the raw console.
#[macro_export]
macro_rules! raw_println {
    ($($argument:tt)*) => {{
        let _ = core::fmt::Write::write_fmt(&mut $crate::raw_console(), format_args!("{}\n", format_args!($($argument)*)));
    }};
}
