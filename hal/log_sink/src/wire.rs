//! From the rings to the serial line: frames of all cores in turn, never one inside another.

use crate::ring::Ring;
use crate::{CORE_BASE, START_OF_FRAME};

/// Where the reader is. A frame is given back to its writer only when its last byte was handed out, so that
/// the panic path, which starts at what was given back, finds whole frames.
#[derive(Debug)]
pub(crate) struct Multiplexer {
    core: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Core,
    Frame(u32),
}

impl Multiplexer {
    pub(crate) const fn new() -> Self {
        Self { core: 0, place: Place::Between }
    }

    /// Fills `out` with bytes for the serial line; returns how many. Zero means that all rings are empty.
    pub(crate) fn fill<const N: usize>(&mut self, rings: &[Ring<N>], out: &mut [u8]) -> usize {
        let mut filled = 0;
        for place in out {
            let Some(byte) = self.next(rings) else { break };
            *place = byte;
            filled += 1;
        }
        filled
    }

    fn next<const N: usize>(&mut self, rings: &[Ring<N>]) -> Option<u8> {
        match self.place {
            Place::Between => {
                self.core = self.next_core(rings)?;
                self.place = Place::Core;
                Some(START_OF_FRAME)
            }
            Place::Core => {
                self.place = Place::Frame(rings.get(self.core)?.taken());
                Some(CORE_BASE.wrapping_add(self.core as u8))
            }
            Place::Frame(position) => {
                let ring = rings.get(self.core)?;
                let next = position.wrapping_add(1);
                match ring.byte_at(position) {
                    Some(0) | None => {
                        ring.take_until(next);
                        self.place = Place::Between;
                        Some(0)
                    }
                    Some(byte) => {
                        self.place = Place::Frame(next);
                        Some(byte)
                    }
                }
            }
        }
    }

    /// The next core after this one whose ring has a frame; skips the bare 00h that the encoder starts with.
    fn next_core<const N: usize>(&self, rings: &[Ring<N>]) -> Option<usize> {
        (1..=rings.len()).map(|step| (self.core + step) % rings.len()).find(|core| {
            rings.get(*core).is_some_and(|ring| {
                let mut position = ring.taken();
                while ring.byte_at(position) == Some(0) {
                    position = position.wrapping_add(1);
                    ring.take_until(position);
                }
                ring.byte_at(position).is_some()
            })
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::ring::FrameWriter;

    fn write(ring: &Ring<64>, frame: &[u8]) {
        let mut writer = FrameWriter::new();
        writer.begin(ring);
        writer.push(ring, frame);
        writer.end(ring);
    }

    #[test]
    fn frames_of_cores_take_turns_and_are_never_mixed_however_small_the_buffer() {
        let rings = [const { Ring::<64>::new() }; 3];
        write(&rings[0], &[0, 10, 11, 0]);
        write(&rings[0], &[12, 0]);
        write(&rings[2], &[20, 1, 0]);
        let mut multiplexer = Multiplexer::new();
        let mut line = Vec::new();
        for _ in 0..30 {
            let mut byte = [0];
            if multiplexer.fill(&rings, &mut byte) == 1 {
                line.push(byte[0]);
            }
        }
        assert_eq!(line, b"\x01B\x14\x01\0\x01@\x0a\x0b\0\x01@\x0c\0");
    }

    #[test]
    fn a_second_reader_after_a_cut_finds_whole_frames() {
        let rings = [const { Ring::<64>::new() }; 1];
        write(&rings[0], &[10, 11, 12, 0]);
        write(&rings[0], &[13, 0]);
        let mut buffer = [0; 4];
        assert_eq!(Multiplexer::new().fill(&rings, &mut buffer), 4);
        let mut rest = [0; 64];
        let filled = Multiplexer::new().fill(&rings, &mut rest);
        assert_eq!(&rest[..filled], b"\x01@\x0a\x0b\x0c\0\x01@\x0d\0");
    }
}
