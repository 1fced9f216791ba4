//! A model of a bank: parts that take commands word by word, are busy for some looks, and come up locked.

use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Array,
    Query,
    Status,
    /// The first word of a command was written there.
    Second(u32, usize),
}

#[derive(Debug)]
struct Part {
    bytes: Vec<u8>,
    block_bytes: usize,
    locked: Vec<bool>,
    query: [u8; 0x40],
    mode: Mode,
    status: u32,
    busy_looks: u32,
    /// Looks that an operation takes.
    looks: u32,
    /// Set by the next operation.
    error: u32,
    width: usize,
}

/// A bank that a test keeps its hands on.
#[derive(Debug, Clone)]
struct Model(Rc<RefCell<Part>>);

impl Model {
    /// Four blocks of 256 bytes in each part.
    fn new(width: usize) -> Self {
        let bytes = 1024 * width / 2;
        let mut query = [0; 0x40];
        query[0x10..0x15].copy_from_slice(b"QRY\x01\x00");
        query[0x27] = 10;
        query[0x2c..0x31].copy_from_slice(&[1, 3, 0, 1, 0]);
        let part = Part {
            bytes: (0..bytes).map(|at| at as u8).collect(),
            block_bytes: bytes / 4,
            locked: vec![true; 4],
            query,
            mode: Mode::Array,
            status: 0,
            busy_looks: 0,
            looks: 2,
            error: 0,
            width,
        };
        Self(Rc::new(RefCell::new(part)))
    }

    fn flash(&self) -> Result<CfiFlash<Self>, CfiError> {
        let width = self.0.borrow().width;
        CfiFlash::new(self.clone(), width)
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.borrow().bytes.clone()
    }
}

impl Part {
    fn lanes(&self, value: u32) -> u32 {
        if self.width == 4 { value << 16 | value } else { value }
    }

    fn finish(&mut self, error: u32) {
        self.status |= error | core::mem::take(&mut self.error);
        (self.mode, self.busy_looks) = (Mode::Status, self.looks);
    }

    fn confirm(&mut self, first: u32, at: usize, offset: usize, value: u32) {
        let block = offset / self.block_bytes;
        assert!(first == PROGRAM || value == self.lanes(CONFIRM), "{first:#x} is confirmed by {value:#x}");
        assert_eq!((at, self.busy_looks), (offset, 0));
        let locked = self.locked[block];
        match first {
            UNLOCK => self.locked[block] = false,
            ERASE if !locked && self.error == 0 => {
                let start = block * self.block_bytes;
                self.bytes[start..start + self.block_bytes].fill(0xff);
            }
            PROGRAM if !locked && self.error == 0 => {
                let word = self.bytes[offset..].iter_mut().zip(value.to_le_bytes()).take(self.width);
                word.for_each(|(byte, new)| *byte &= new);
            }
            _ => {}
        }
        self.finish(if locked && first != UNLOCK { LOCKED } else { 0 });
    }
}

impl FlashBus for Model {
    fn bytes(&self) -> usize {
        self.0.borrow().bytes.len()
    }

    fn read(&self, offset: usize, width: usize) -> u32 {
        let part = &mut *self.0.borrow_mut();
        assert!(width == part.width && offset.is_multiple_of(width));
        match part.mode {
            Mode::Array => {
                let word = part.bytes[offset..offset + width].iter().rev();
                word.fold(0, |word, byte| word << 8 | u32::from(*byte))
            }
            Mode::Query => part.lanes(part.query[offset / width].into()),
            Mode::Status if part.busy_looks > 0 => {
                part.busy_looks -= 1;
                // The other part of a pair is ready already.
                if width == 4 { READY } else { 0 }
            }
            // Errors are those of the upper part.
            Mode::Status if width == 4 => READY | (READY | part.status) << 16,
            Mode::Status => READY | part.status,
            Mode::Second(..) => panic!("a read between the words of a command"),
        }
    }

    fn write(&self, offset: usize, width: usize, value: u32) {
        let part = &mut *self.0.borrow_mut();
        assert!(width == part.width && offset.is_multiple_of(width));
        if let Mode::Second(first, at) = part.mode {
            return part.confirm(first, at, offset, value);
        }
        assert_eq!(value, part.lanes(value & 0xff), "a command is for all parts");
        assert_eq!(part.busy_looks, 0, "a command while the part is busy");
        part.mode = match value & 0xff {
            READ_ARRAY => Mode::Array,
            CLEAR_STATUS => {
                part.status = 0;
                Mode::Array
            }
            QUERY => {
                assert_eq!(offset, QUERY_AT * width);
                Mode::Query
            }
            first @ (PROGRAM | ERASE | UNLOCK) => Mode::Second(first, offset),
            other => panic!("command {other:#x}"),
        };
    }
}

fn finish(flash: &mut CfiFlash<Model>) -> (u32, Result<(), FlashError>) {
    let mut pending = 0;
    loop {
        match flash.poll() {
            Poll::Pending => pending += 1,
            Poll::Ready(result) => return (pending, result),
        }
    }
}

#[test]
fn a_bank_says_how_it_is_divided() {
    for width in [2, 4] {
        let parts = width as u32 / 2;
        let flash = Model::new(width).flash().unwrap();
        let shape = flash.shape();
        assert_eq!((shape.blocks, shape.block_bytes, shape.unit_bytes), (4, 256 * parts, width as u32));
    }
}

#[test]
fn what_is_no_flash_or_another_is_not_driven() {
    for (at, value, why) in [
        (0x10, b'q', CfiError::NoAnswer),
        (0x12, 0, CfiError::NoAnswer),
        (0x13, 2, CfiError::OtherCommands),
        (0x2c, 2, CfiError::OtherShape),
        (0x2d, 7, CfiError::OtherShape),
        (0x2f, 0, CfiError::OtherShape),
        (0x27, 200, CfiError::OtherShape),
        (0x27, 11, CfiError::OtherShape),
    ] {
        let model = Model::new(4);
        model.0.borrow_mut().query[at] = value;
        assert_eq!(model.flash().unwrap_err(), why, "{at:#x}");
        assert_eq!(model.0.borrow().mode, Mode::Array);
    }
    assert_eq!(CfiFlash::new(Model::new(4), 8).unwrap_err(), CfiError::OtherShape);
    assert_eq!(CfiFlash::new(Model::new(4), 0).unwrap_err(), CfiError::OtherShape);
}

#[test]
fn reads_begin_and_end_anywhere() {
    for width in [2, 4] {
        let model = Model::new(width);
        let mut flash = model.flash().unwrap();
        for (start, bytes) in [(0, 1024), (1, 6), (3, 1), (5, 0), (1022, 2), (6, 8)] {
            let mut read = vec![0; bytes];
            flash.read(start as u32, &mut read).unwrap();
            assert_eq!(read, model.bytes()[start..start + bytes]);
        }
        let end = model.bytes().len() as u32;
        assert_eq!(flash.read(end - 1, &mut [0; 2]), Err(FlashError::OutOfRange));
        assert_eq!(flash.read(u32::MAX, &mut [0; 2]), Err(FlashError::OutOfRange));
    }
}

#[test]
fn a_block_is_unlocked_and_erased_and_words_are_programmed_while_all_parts_are_waited_for() {
    for width in [2, 4] {
        let model = Model::new(width);
        let mut flash = model.flash().unwrap();
        let block = flash.shape().block_bytes as usize;
        flash.begin_erase(2).unwrap();
        assert_eq!(flash.read(0, &mut [0]), Err(FlashError::Busy));
        assert_eq!(flash.begin_erase(1), Err(FlashError::Busy));
        assert!(matches!(finish(&mut flash), (4.., Ok(()))));
        let mut expected = Model::new(width).bytes();
        expected[2 * block..3 * block].fill(0xff);
        assert_eq!(model.bytes(), expected);
        let bytes: Vec<u8> = (100..112).collect();
        flash.begin_program(2 * block as u32 + 8, &bytes).unwrap();
        assert_eq!(flash.begin_program(2 * block as u32, &[0; 4]), Err(FlashError::Busy));
        assert!(matches!(finish(&mut flash), (6.., Ok(()))));
        expected[2 * block + 8..2 * block + 20].copy_from_slice(&bytes);
        assert_eq!(model.bytes(), expected);
        assert_eq!(model.0.borrow().mode, Mode::Array);
    }
}

#[test]
fn quick_parts_program_all_words_in_one_poll() {
    let model = Model::new(4);
    let mut flash = model.flash().unwrap();
    flash.begin_erase(0).unwrap();
    finish(&mut flash).1.unwrap();
    model.0.borrow_mut().looks = 0;
    flash.begin_program(0, &[9; PROGRAM_BYTES]).unwrap();
    assert_eq!(finish(&mut flash), (0, Ok(())));
    assert_eq!(model.bytes()[..PROGRAM_BYTES], [9; PROGRAM_BYTES]);
}

#[test]
fn what_fails_is_told_and_forgotten() {
    let model = Model::new(4);
    let mut flash = model.flash().unwrap();
    flash.begin_program(512, &[0; 8]).unwrap();
    assert_eq!(finish(&mut flash).1, Err(FlashError::Protected));
    flash.begin_erase(1).unwrap();
    finish(&mut flash).1.unwrap();
    for (error, told) in [
        (ERASE_ERROR, FlashError::EraseFailed),
        (PROGRAM_ERROR, FlashError::ProgramFailed),
        (VOLTAGE_ERROR | PROGRAM_ERROR, FlashError::Protected),
    ] {
        model.0.borrow_mut().error = error;
        flash.begin_program(512, &[0; 8]).unwrap();
        assert_eq!(finish(&mut flash).1, Err(told));
        assert_eq!(model.0.borrow().status, 0);
    }
    flash.begin_program(512, &[3; 8]).unwrap();
    assert_eq!(finish(&mut flash).1, Ok(()));
    assert_eq!(model.bytes()[512..520], [3; 8]);
}

#[test]
fn what_cannot_be_programmed_or_erased_is_not_begun() {
    let model = Model::new(4);
    let mut flash = model.flash().unwrap();
    assert_eq!(flash.begin_erase(4), Err(FlashError::OutOfRange));
    for (offset, bytes) in [(2, 4), (0, 3), (0, 0), (0, PROGRAM_BYTES + 4), (2048, 4), (u32::MAX - 3, 4)] {
        assert_eq!(flash.begin_program(offset, &vec![0; bytes]), Err(FlashError::OutOfRange), "{offset}");
    }
    assert_eq!((finish(&mut flash), model.bytes()), ((0, Ok(())), Model::new(4).bytes()));
}
