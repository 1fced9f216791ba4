//! A NOR flash in memory, and the hands that cut its power and damage what it holds.
//!
//! Stricter than hardware: what is programmed twice without an erase between, read or begun while an operation is under
//! way, beyond the flash, or not at a unit's border panics.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use hal_api::{FlashError, FlashShape, NorFlash};

/// How much of an operation there is when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Nothing.
    Before,
    /// Any of its bits, decided by this seed.
    Within(u64),
    /// All, but nobody was told.
    After,
}

/// What is under way.
#[derive(Debug, Clone)]
struct Operation {
    range: Range<usize>,
    /// What stands in the range afterwards.
    target: Vec<u8>,
    erases: bool,
    is_weak: bool,
    polls_left: u32,
    result: Result<(), FlashError>,
}

#[derive(Debug)]
struct State {
    shape: FlashShape,
    bytes: Vec<u8>,
    /// Units that were programmed, or only half erased, since their block was erased.
    used: Vec<bool>,
    under_way: Option<Operation>,
    operations: u64,
    erases: Vec<u32>,
    /// Polls that an operation takes.
    polls: u32,
    cut: Option<(u64, Cut)>,
    failure: Option<(u64, FlashError)>,
    weak: Option<u64>,
    hangs: bool,
    off: bool,
}

/// The flash as a driver has it.
#[derive(Debug)]
pub struct FakeFlash {
    state: Arc<Mutex<State>>,
}

/// The hands at the flash.
#[derive(Debug, Clone)]
pub struct FlashControl {
    state: Arc<Mutex<State>>,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeFlash {
    /// An erased flash whose operations take two polls each.
    #[must_use]
    pub fn new(shape: FlashShape) -> (Self, FlashControl) {
        let bytes = shape.bytes() as usize;
        let state = Arc::new(Mutex::new(State {
            shape,
            bytes: vec![0xff; bytes],
            used: vec![false; bytes / shape.unit_bytes as usize],
            under_way: None,
            operations: 0,
            erases: vec![0; shape.blocks as usize],
            polls: 2,
            cut: None,
            failure: None,
            weak: None,
            hangs: false,
            off: false,
        }));
        (Self { state: Arc::clone(&state) }, FlashControl { state })
    }
}

impl FlashControl {
    /// The same flash after its power came back.
    #[must_use]
    pub fn power_on(&self) -> FakeFlash {
        let mut state = lock(&self.state);
        (state.off, state.hangs, state.cut, state.under_way) = (false, false, None, None);
        FakeFlash { state: Arc::clone(&self.state) }
    }

    /// Cuts the power in the operation of this number, counted from now on from 0.
    pub fn cut_at(&self, operation: u64, cut: Cut) {
        let mut state = lock(&self.state);
        state.cut = Some((state.operations + operation, cut));
    }

    /// The operation of this number, counted from now on from 0, ends with an error and does nothing.
    pub fn fail_at(&self, operation: u64, error: FlashError) {
        let mut state = lock(&self.state);
        state.failure = Some((state.operations + operation, error));
    }

    /// The operation of this number, counted from now on from 0, ends well and leaves a bit wrong.
    pub fn weaken(&self, operation: u64) {
        let mut state = lock(&self.state);
        state.weak = Some(state.operations + operation);
    }

    /// No operation ends any more.
    pub fn hang(&self) {
        lock(&self.state).hangs = true;
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        lock(&self.state).off
    }

    /// Operations that were begun.
    #[must_use]
    pub fn operations(&self) -> u64 {
        lock(&self.state).operations
    }

    /// How often each block was erased.
    #[must_use]
    pub fn erases(&self) -> Vec<u32> {
        lock(&self.state).erases.clone()
    }

    /// What stands in the flash.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        lock(&self.state).bytes.clone()
    }

    /// Has the flash hold these bytes, from `offset` on.
    pub fn set_contents(&self, offset: usize, bytes: &[u8]) {
        let state = &mut *lock(&self.state);
        let range = offset..offset + bytes.len();
        state.bytes[range.clone()].copy_from_slice(bytes);
        state.mark(&range, true);
    }

    /// A bit flips.
    pub fn rot(&self, offset: usize, bit: u8) {
        lock(&self.state).bytes[offset] ^= 1 << bit;
    }
}

impl State {
    fn mark(&mut self, range: &Range<usize>, used: bool) {
        let unit = self.shape.unit_bytes as usize;
        self.used[range.start / unit..range.end.div_ceil(unit)].fill(used);
    }

    fn begin(&mut self, range: Range<usize>, target: Vec<u8>, erases: bool) -> Result<(), FlashError> {
        assert!(self.under_way.is_none(), "an operation is begun while another is under way");
        let number = self.operations;
        self.operations += 1;
        if let Some((_, cut)) = self.cut.filter(|(at, _)| *at == number) {
            self.off = true;
            self.tear(&range, &target, cut);
        }
        let failure = self.failure.take_if(|(at, _)| *at == number).map(|(_, error)| error);
        let result = failure.map_or(Ok(()), Err);
        self.under_way = Some(Operation {
            range,
            target,
            erases,
            is_weak: self.weak == Some(number),
            polls_left: self.polls,
            result,
        });
        Ok(())
    }

    /// Leaves what an operation has done when its power went.
    fn tear(&mut self, range: &Range<usize>, target: &[u8], cut: Cut) {
        match cut {
            Cut::Before => {}
            Cut::After => self.bytes[range.clone()].copy_from_slice(target),
            Cut::Within(seed) => {
                let mut random = Random(seed);
                // From nearly none of the bits to nearly all.
                let share = random.next() % 17;
                for (byte, target) in self.bytes[range.clone()].iter_mut().zip(target) {
                    let mut bit = |done, bit| done | u8::from(random.next() % 16 < share) << bit;
                    let done = (0..8).fold(0, &mut bit);
                    *byte = *byte & !done | target & done;
                }
            }
        }
        // Whatever came of it cannot be built upon.
        self.mark(range, true);
    }
}

impl NorFlash for FakeFlash {
    fn shape(&self) -> FlashShape {
        lock(&self.state).shape
    }

    fn read(&mut self, offset: u32, into: &mut [u8]) -> Result<(), FlashError> {
        let state = lock(&self.state);
        assert!(state.under_way.is_none(), "the flash is read while an operation is under way");
        let bytes = state.bytes.get(offset as usize..offset as usize + into.len());
        into.copy_from_slice(bytes.expect("a read beyond the flash"));
        Ok(())
    }

    fn begin_erase(&mut self, block: u32) -> Result<(), FlashError> {
        let state = &mut *lock(&self.state);
        assert!(block < state.shape.blocks, "a block beyond the flash is erased");
        let block_bytes = state.shape.block_bytes as usize;
        let start = block as usize * block_bytes;
        state.erases[block as usize] += 1;
        state.begin(start..start + block_bytes, vec![0xff; block_bytes], true)
    }

    fn begin_program(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        let state = &mut *lock(&self.state);
        let (shape, offset) = (state.shape, offset as usize);
        let range = offset..offset + bytes.len();
        assert!(!bytes.is_empty() && bytes.len() <= shape.program_bytes as usize, "{} bytes", bytes.len());
        let at_units = |at: usize| at.is_multiple_of(shape.unit_bytes as usize);
        assert!(at_units(range.start) && at_units(range.end), "{range:?} is not at units' borders");
        let block = |at: usize| at / shape.block_bytes as usize;
        assert_eq!(block(range.start), block(range.end - 1), "{range:?} crosses blocks");
        assert!(block(range.start) < shape.blocks as usize, "{range:?} is beyond the flash");
        let unit = shape.unit_bytes as usize;
        assert!(
            !state.used[range.start / unit..range.end / unit].contains(&true),
            "{range:?} is programmed without an erase"
        );
        state.begin(range, bytes.to_vec(), false)
    }

    fn poll(&mut self) -> Poll<Result<(), FlashError>> {
        let state = &mut *lock(&self.state);
        if state.off || state.hangs {
            return Poll::Pending;
        }
        let Some(operation) = &mut state.under_way else { return Poll::Ready(Ok(())) };
        if operation.polls_left > 0 {
            operation.polls_left -= 1;
            return Poll::Pending;
        }
        let Operation { range, mut target, erases, is_weak, result, .. } =
            state.under_way.take().expect("it is there");
        // What has failed has left something that only an erase mends.
        state.mark(&range, !erases || result.is_err());
        if result.is_ok() {
            target[0] ^= u8::from(is_weak);
            state.bytes[range].copy_from_slice(&target);
        }
        Poll::Ready(result)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: FlashShape = FlashShape { blocks: 2, block_bytes: 64, unit_bytes: 4, program_bytes: 16 };

    fn finish(flash: &mut FakeFlash) -> Result<(), FlashError> {
        loop {
            if let Poll::Ready(result) = flash.poll() {
                return result;
            }
        }
    }

    #[test]
    fn an_erased_unit_takes_bytes_once() {
        let (mut flash, control) = FakeFlash::new(SHAPE);
        flash.begin_program(64, &[1, 2, 3, 4]).unwrap();
        finish(&mut flash).unwrap();
        let mut read = [0; 5];
        flash.read(64, &mut read).unwrap();
        assert_eq!(read, [1, 2, 3, 4, 0xff]);
        let twice = std::panic::AssertUnwindSafe(|| flash.begin_program(64, &[0; 4]));
        std::panic::catch_unwind(twice).expect_err("it is programmed twice");
        let mut flash = control.power_on();
        flash.begin_erase(1).unwrap();
        finish(&mut flash).unwrap();
        assert_eq!((control.contents(), control.erases()), (vec![0xff; 128], vec![0, 1]));
    }

    /// What stands there after zeros were programmed and the power went.
    fn left_by(cut: Cut) -> Vec<u8> {
        let (mut flash, control) = FakeFlash::new(SHAPE);
        control.cut_at(0, cut);
        flash.begin_program(0, &[0; 16]).unwrap();
        assert!(flash.poll().is_pending() && control.is_off());
        control.contents()[..16].to_vec()
    }

    #[test]
    fn a_cut_leaves_none_some_or_all_of_an_operation() {
        assert_eq!((left_by(Cut::Before), left_by(Cut::After)), (vec![0xff; 16], vec![0; 16]));
        let parts = (0..12).map(|seed| left_by(Cut::Within(seed)));
        let torn = parts.filter(|left| left.iter().any(|byte| ![0, 0xff].contains(byte)));
        assert!(torn.count() > 6);
    }

    #[test]
    fn what_fails_does_nothing() {
        let (mut flash, control) = FakeFlash::new(SHAPE);
        control.fail_at(0, FlashError::EraseFailed);
        flash.begin_erase(0).unwrap();
        assert_eq!(finish(&mut flash), Err(FlashError::EraseFailed));
        flash.begin_erase(0).unwrap();
        assert_eq!(finish(&mut flash), Ok(()));
    }
}
