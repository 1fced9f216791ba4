//! Consistent Overhead Byte Stuffing: bytes without a zero, so that a zero ends a message (Cheshire and Baker, 1999).
//!
//! Blocks of up to 254 bytes that are not zero, each behind a byte that says how far it is to the next zero. Written here
//! because what is on the card must not panic; the crate `cobs` is what the tests hold it against.

/// A block of the greatest length has no zero behind it.
const LONGEST: u8 = 0xff;

/// Writes `source` and the zero that ends it into `to`. Gives how many bytes that is; `None` where there is no room.
pub fn encode(source: &[u8], to: &mut [u8]) -> Option<usize> {
    let (mut code_at, mut next, mut code) = (0, 1, 1u8);
    for byte in source {
        // The last block was full: another begins here, although there was no zero.
        if code == LONGEST {
            *to.get_mut(code_at)? = code;
            (code_at, next, code) = (next, next + 1, 1);
        }
        if *byte == 0 {
            *to.get_mut(code_at)? = code;
            (code_at, next, code) = (next, next + 1, 1);
        } else {
            *to.get_mut(next)? = *byte;
            (next, code) = (next + 1, code + 1);
        }
    }
    *to.get_mut(code_at)? = code;
    *to.get_mut(next)? = 0;
    Some(next + 1)
}

/// Puts what `bytes` stand for, which have no zero, in their place. Gives how many bytes that is; `None` where they are no such
/// message.
pub fn decode_in_place(bytes: &mut [u8]) -> Option<usize> {
    let (mut from, mut to) = (0, 0);
    while let Some(&code) = bytes.get(from) {
        let block = from + 1..from + usize::from(code);
        if code == 0 || block.end > bytes.len() {
            return None;
        }
        from = block.end;
        for at in block {
            *bytes.get_mut(to)? = *bytes.get(at)?;
            to += 1;
        }
        if code != LONGEST && from < bytes.len() {
            *bytes.get_mut(to)? = 0;
            to += 1;
        }
    }
    Some(to)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![1 => Just(0u8), 6 => 1u8..=255];
        prop_oneof![
            prop::collection::vec(byte, 1..600),
            // Blocks of the greatest length, and one less and more.
            (252usize..257, any::<bool>()).prop_map(|(count, zero)| {
                let mut bytes = vec![7; count];
                bytes.extend(zero.then_some(0));
                bytes.extend([7; 3]);
                bytes
            })
        ]
    }

    /// Of which the reference makes nothing at all.
    #[test]
    fn no_bytes_are_a_block_without_any() {
        let mut to = [0xaa; 2];
        assert_eq!((encode(&[], &mut to), to), (Some(2), [1, 0]));
        assert_eq!((decode_in_place(&mut [1]), decode_in_place(&mut [])), (Some(0), Some(0)));
    }

    proptest! {
        #[test]
        fn it_says_what_the_reference_says(source in bytes()) {
            let (mut ours, mut theirs) = ([0xaa; 700], [0xaa; 700]);
            let count = encode(&source, &mut ours).unwrap();
            let reference = ::cobs::encode(&source, &mut theirs);
            prop_assert_eq!(&ours[..count - 1], &theirs[..reference]);
            prop_assert_eq!(ours[count - 1], 0);
            let length = decode_in_place(&mut ours[..count - 1]).unwrap();
            prop_assert_eq!(&ours[..length], &source[..]);
        }

        #[test]
        fn it_refuses_what_the_reference_refuses(bytes in prop::collection::vec(prop_oneof![1u8..6, 1u8..=255], 1..300)) {
            let (mut ours, mut theirs) = (bytes.clone(), bytes);
            let ours = decode_in_place(&mut ours).map(|length| ours[..length].to_vec());
            let theirs = ::cobs::decode_in_place(&mut theirs).ok().map(|length| theirs[..length].to_vec());
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn no_room_is_no_message(source in bytes(), room in 0usize..20) {
            let mut whole = [0; 700];
            let count = encode(&source, &mut whole).unwrap();
            let room = count.saturating_sub(room);
            let mut to = vec![0; room];
            prop_assert_eq!(encode(&source, &mut to), (room == count).then_some(count));
        }
    }
}
