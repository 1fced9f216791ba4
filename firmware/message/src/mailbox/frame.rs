//! Messages on a stream of bytes: COBS, so that a zero ends each and nobody waits for ever behind a broken one.

use serde::{Serialize, de::DeserializeOwned};

use super::{Error, MESSAGE_BYTES, cobs};

/// Bytes of an encoded message at most: one more in each 254, one before them, and the zero.
pub const MAX_FRAME_BYTES: usize = MESSAGE_BYTES + MESSAGE_BYTES.div_ceil(254) + 2;

/// Writes a message into `to`, ready to be sent; `None` where it is longer than a message may be.
pub fn encode<'a>(message: &impl Serialize, to: &'a mut [u8; MAX_FRAME_BYTES]) -> Option<&'a [u8]> {
    let mut plain = [0; MESSAGE_BYTES];
    let plain = postcard::to_slice(message, &mut plain).ok()?;
    let length = cobs::encode(plain, to)?;
    to.get(..length)
}

/// What has come to its end in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<T> {
    /// A message.
    Message(T),
    /// Bytes that are none.
    Bad(Error),
}

/// Puts the bytes of a stream together until a message is whole.
#[derive(Debug)]
pub struct FrameReader {
    bytes: [u8; MAX_FRAME_BYTES],
    filled: usize,
    /// More came than fits: the rest of it is skipped.
    too_long: bool,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameReader {
    /// At the beginning of a message.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; MAX_FRAME_BYTES], filled: 0, too_long: false }
    }

    /// Takes bytes in up to the end of a message. Gives that message, if it is reached, and how many bytes were taken.
    pub fn take<T: DeserializeOwned>(&mut self, bytes: &[u8]) -> (usize, Option<Frame<T>>) {
        let end = bytes.iter().position(|byte| *byte == 0);
        let (part, taken) = match end {
            Some(end) => (bytes.get(..end).unwrap_or_default(), end + 1),
            None => (bytes, bytes.len()),
        };
        // The zero needs no room.
        match self.bytes.get_mut(self.filled..self.filled + part.len()) {
            Some(room) if !self.too_long => {
                room.copy_from_slice(part);
                self.filled += part.len();
            }
            _ => self.too_long = true,
        }
        let frame = if end.is_some() { self.finish() } else { None };
        (taken, frame)
    }

    fn finish<T: DeserializeOwned>(&mut self) -> Option<Frame<T>> {
        let filled = core::mem::take(&mut self.filled);
        if core::mem::take(&mut self.too_long) {
            return Some(Frame::Bad(Error::TooLong));
        }
        // Zeroes between messages do no harm: a client may begin with one, to end what another has left half said.
        let frame = self.bytes.get_mut(..filled).filter(|frame| !frame.is_empty())?;
        let whole = cobs::decode_in_place(frame);
        let message = whole.and_then(|length| postcard::take_from_bytes(frame.get(..length)?).ok());
        Some(match message {
            Some((message, [])) => Frame::Message(message),
            _ => Frame::Bad(Error::Malformed),
        })
    }
}

#[cfg(test)]
mod tests;
