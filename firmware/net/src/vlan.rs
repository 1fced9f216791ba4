//! The VLAN tag that all frames of a port carry (IEEE 802.1Q). smoltcp knows none: it is taken off before a frame
//! reaches it, which copies the frame, and put in behind it, which moves 12 bytes.

use hal_mem::CopyCount;

use crate::frame::be16;

/// Bytes of a tag.
pub(crate) const TAG_BYTES: usize = 4;
/// Both station addresses; the tag comes behind them.
const ADDRESSES_BYTES: usize = 12;
const ETHERTYPE: u16 = 0x8100;
const IDENTIFIER_MASK: u16 = 0x0fff;

/// Whether a port can be in this VLAN: 0 and 4095 are none.
pub(crate) fn is_usable(vlan: u16) -> bool {
    (1..=4094).contains(&vlan)
}

/// The frame without its tag, in `place`; `None` where it is none of this VLAN.
pub(crate) fn without_tag<'a>(
    frame: &[u8],
    vlan: u16,
    place: &'a mut [u8],
    copied: &CopyCount,
) -> Option<&'a [u8]> {
    if be16(frame, ADDRESSES_BYTES)? != ETHERTYPE
        || be16(frame, ADDRESSES_BYTES + 2)? & IDENTIFIER_MASK != vlan
    {
        return None;
    }
    let (addresses, rest) = (frame.get(..ADDRESSES_BYTES)?, frame.get(ADDRESSES_BYTES + TAG_BYTES..)?);
    let place = place.get_mut(..frame.len().checked_sub(TAG_BYTES)?)?;
    let (head, tail) = place.split_at_mut_checked(ADDRESSES_BYTES)?;
    copied.copy(addresses, head);
    copied.copy(rest, tail);
    Some(place)
}

/// Puts the tag into a frame that was written [`TAG_BYTES`] behind its start.
pub(crate) fn put_tag(frame: &mut [u8], vlan: u16) {
    let Some(head) = frame.first_chunk_mut::<{ ADDRESSES_BYTES + TAG_BYTES }>() else { return };
    let [_, _, _, _, addresses @ ..] = *head;
    let ([a, b], [c, d]) = (ETHERTYPE.to_be_bytes(), vlan.to_be_bytes());
    for (place, byte) in head.iter_mut().zip(addresses.into_iter().chain([a, b, c, d])) {
        *place = byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_goes_in_and_comes_off() {
        let frame: Vec<u8> = (0..60).collect();
        let mut tagged = vec![0; 64];
        tagged[TAG_BYTES..].copy_from_slice(&frame);
        put_tag(&mut tagged, 0x123);
        assert_eq!(tagged[..18], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0x81, 0, 1, 0x23, 12, 13]);
        // The priority is somebody else's business.
        tagged[14] |= 0xe0;
        let (mut place, copied) = ([0; 60], CopyCount::new());
        assert_eq!(without_tag(&tagged, 0x123, &mut place, &copied), Some(&frame[..]));
        assert_eq!(without_tag(&tagged, 0x124, &mut place, &copied), None);
        assert_eq!(without_tag(&frame, 0x123, &mut place, &copied), None);
        assert_eq!(without_tag(&tagged, 0x123, &mut place[..59], &copied), None, "too long");
        assert_eq!(copied.bytes(), 60);
        for end in 0..16 {
            assert_eq!(without_tag(&tagged[..end], 0x123, &mut place, &copied), None);
            put_tag(&mut tagged.clone()[..end], 7);
        }
    }
}
