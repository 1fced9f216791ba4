//! Memory of the commands of one queue, and what is expected to be in the blocks of its area.

use nvmeof::initiator::Payload;

/// A buffer for each command, by its token.
pub struct Buffers {
    bytes: Vec<u8>,
    each: usize,
}

impl Buffers {
    /// Filled with bytes that do not compress.
    pub fn new(count: usize, each: usize, random: &mut Random) -> Self {
        let mut bytes = vec![0; count * each];
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&random.next_number().to_le_bytes()[..word.len()]);
        }
        Self { bytes, each }
    }

    /// The command's.
    pub fn of(&mut self, token: u64) -> &mut [u8] {
        let start = token as usize * self.each;
        &mut self.bytes[start..start + self.each]
    }
}

impl Payload for Buffers {
    fn store(&mut self, token: u64, offset: u32, bytes: &[u8]) {
        self.of(token)[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn load(&mut self, token: u64, offset: u32, room: &mut [u8]) {
        let bytes = &self.of(token)[offset as usize..][..room.len()];
        room.copy_from_slice(bytes);
    }
}

/// SplitMix64, from a seed.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        // 64 bits against a small `end`: the bias does not matter here.
        self.next_number() % end
    }
}

/// What a place of the area holds when it was written `generation` times: no two places or generations agree
/// in any eight bytes.
pub fn fill(bytes: &mut [u8], seed: u64, place: u64, generation: u32) {
    let mut random = Random(key(seed, place, generation));
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&random.next_number().to_le_bytes()[..word.len()]);
    }
}

/// The first byte that is not as [`fill`] left it.
pub fn mismatch(bytes: &[u8], seed: u64, place: u64, generation: u32) -> Option<usize> {
    let mut random = Random(key(seed, place, generation));
    bytes.chunks(8).enumerate().find_map(|(word, chunk)| {
        let expected = random.next_number().to_le_bytes();
        let wrong = chunk.iter().zip(expected).position(|(byte, expected)| *byte != expected)?;
        Some(word * 8 + wrong)
    })
}

fn key(seed: u64, place: u64, generation: u32) -> u64 {
    let mut random = Random(seed ^ place.rotate_left(32));
    random.next_number() ^ Random(u64::from(generation)).next_number()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_tell_place_generation_and_seed_apart() {
        let mut bytes = [0; 4099];
        fill(&mut bytes, 1, 7, 3);
        assert_eq!(mismatch(&bytes, 1, 7, 3), None);
        for (seed, place, generation) in [(2, 7, 3), (1, 8, 3), (1, 7, 4)] {
            assert!(mismatch(&bytes, seed, place, generation).is_some_and(|at| at < 8));
        }
        bytes[4098] ^= 1;
        assert_eq!(mismatch(&bytes, 1, 7, 3), Some(4098));
    }
}
