//! The bytes of one PDU on its way into the send buffer, of the target and of the host alike: a header, then perhaps data,
//! then perhaps a digest, in as many pieces as there is room for.
//!
//! It knows neither what the PDU means nor whose the data is.

use zerocopy::{Immutable, IntoBytes};

use crate::pdu::{DIGEST_BYTES, MAX_QUOTED_BYTES, Terminate, put};

/// Room for the longest header: that of a TermReq with what it quotes.
const HEAD_BYTES: usize = size_of::<Terminate>() + MAX_QUOTED_BYTES;
const _: () = assert!(HEAD_BYTES <= u8::MAX as usize);

/// A PDU that is being sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    head: [u8; HEAD_BYTES],
    head_bytes: u8,
    head_sent: u8,
    data_left: u32,
    digest: bool,
    crc: u32,
    tail_sent: u8,
}

impl Outgoing {
    /// Nothing is being sent.
    pub(crate) const NONE: Self = Self {
        head: [0; HEAD_BYTES],
        head_bytes: 0,
        head_sent: 0,
        data_left: 0,
        digest: false,
        crc: 0,
        tail_sent: 0,
    };

    /// Begins a PDU; with `digest`, the header's digest follows it.
    pub(crate) fn start(&mut self, header: &(impl IntoBytes + Immutable), digest: bool) {
        self.stop();
        let bytes = header.as_bytes();
        self.append(bytes);
        if digest {
            self.append(&hal_simd::crc32c(0, bytes).to_le_bytes());
        }
    }

    /// Forgets what is under way.
    pub(crate) fn stop(&mut self) {
        (self.head_bytes, self.head_sent, self.tail_sent) = (0, 0, 0);
        (self.data_left, self.digest, self.crc) = (0, false, 0);
    }

    /// More of the header.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let room = self.head.get_mut(usize::from(self.head_bytes)..).unwrap_or_default();
        self.head_bytes += put(room, bytes) as u8;
    }

    /// Data follows the header from `data_at` on; with `digest`, its digest follows it.
    pub(crate) fn add_data(&mut self, data_at: usize, bytes: u32, digest: bool) {
        if let Some(pad) = self.head.get_mut(usize::from(self.head_bytes)..data_at) {
            pad.fill(0);
            self.head_bytes = data_at as u8;
        }
        (self.data_left, self.digest) = (bytes, digest);
    }

    /// Whether its last byte was given out.
    pub(crate) fn is_done(&self) -> bool {
        self.head_sent == self.head_bytes
            && self.data_left == 0
            && (!self.digest || usize::from(self.tail_sent) == DIGEST_BYTES)
    }

    /// Puts as much into `room` as fits, and returns how much that was. `load` fills a piece of `room` with the data that
    /// comes next.
    pub(crate) fn emit(&mut self, room: &mut [u8], load: impl FnOnce(&mut [u8])) -> usize {
        let mut at = 0;
        if let Some(head) = self.head.get(usize::from(self.head_sent)..usize::from(self.head_bytes)) {
            at = put(room, head);
            self.head_sent += at as u8;
        }
        if self.head_sent < self.head_bytes {
            return at;
        }
        if self.data_left > 0 {
            let rest = room.get_mut(at..).unwrap_or_default();
            let bytes = rest.len().min(self.data_left as usize);
            let rest = rest.get_mut(..bytes).unwrap_or_default();
            if !rest.is_empty() {
                load(rest);
            }
            if self.digest {
                self.crc = hal_simd::crc32c(self.crc, rest);
            }
            self.data_left -= bytes as u32;
            at += bytes;
        }
        if self.data_left == 0 && self.digest {
            let crc = self.crc.to_le_bytes();
            let tail = crc.get(usize::from(self.tail_sent)..).unwrap_or_default();
            let bytes = put(room.get_mut(at..).unwrap_or_default(), tail);
            self.tail_sent += bytes as u8;
            at += bytes;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pdu_is_the_same_in_pieces_of_any_size() {
        let data: Vec<u8> = (0..100).collect();
        let whole = |piece: usize| {
            let mut pdu = Outgoing::NONE;
            pdu.start(&[7u8; 24], true);
            pdu.add_data(32, data.len() as u32, true);
            let (mut bytes, mut loaded) = (Vec::new(), 0);
            while !pdu.is_done() {
                let mut room = vec![0xdd; piece];
                let count = pdu.emit(&mut room, |rest| {
                    rest.copy_from_slice(&data[loaded..loaded + rest.len()]);
                    loaded += rest.len();
                });
                bytes.extend(&room[..count]);
            }
            bytes
        };
        let expected = whole(1000);
        assert_eq!(expected.len(), 32 + 100 + 4);
        assert_eq!(expected[24..28], hal_simd::crc32c(0, &[7; 24]).to_le_bytes());
        assert_eq!((&expected[28..32], &expected[32..132]), (&[0; 4][..], &data[..]));
        assert_eq!(expected[132..], hal_simd::crc32c(0, &data).to_le_bytes());
        for piece in 1..50 {
            assert_eq!(whole(piece), expected, "in pieces of {piece}");
        }
    }
}
