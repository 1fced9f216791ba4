//! A backtrace by address, along the chain of frame records (AAPCS64 6.4.6).

use hal_crash::Registers;

use crate::image;

pub(crate) use hal_crash::MOST_FRAMES;

/// Where the core was, then the return addresses from the innermost call outwards. The chain is followed as long as it
/// lies in a stack, goes upwards and leads into code; the caller limits its length.
pub(crate) fn backtrace(registers: &Registers) -> impl Iterator<Item = u64> {
    let mut frame = Some(registers.general[29]);
    let outer = core::iter::from_fn(move || {
        let at = frame.take().filter(|at| at.is_multiple_of(16) && image::in_stacks(*at, 16))?;
        // SAFETY: 16 aligned bytes of a mapped stack (just checked).
        let [next, return_address] = unsafe { (at as *const [u64; 2]).read_volatile() };
        frame = Some(next).filter(|next| *next > at);
        image::in_text(return_address).then_some(return_address)
    });
    core::iter::once(registers.return_address).chain(outer)
}
