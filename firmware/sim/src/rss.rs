//! How a device with several queues steers, as Virtio 1.2 section 5.1.6.5.7 says, bit by bit.
//!
//! Written for itself: what the card takes in is held against it, so it must not share anything with the card's own steering.

/// Remainders of the hash that the indirection table tells apart.
const TABLE_ENTRIES: u32 = 128;
const ETHERNET_HEADER: usize = 14;

/// A key, and how many queues or cores the table names in turn.
#[derive(Debug, Clone, Copy)]
pub struct Rss {
    key: [u8; 40],
    queues: u32,
}

impl Rss {
    /// Steering to so many queues.
    #[must_use]
    pub fn new(key: [u8; 40], queues: usize) -> Self {
        Self { key, queues: queues as u32 }
    }

    /// Where a TCP segment in a whole IPv4 packet goes; `None` for all other frames.
    #[must_use]
    pub fn queue_of(&self, frame: &[u8]) -> Option<usize> {
        if frame.get(12..14)? != [8, 0] {
            return None;
        }
        let packet = frame.get(ETHERNET_HEADER..)?;
        let (version, header) = (packet.first()? >> 4, usize::from(packet.first()? & 15) * 4);
        let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let fragment = (packet.get(6)? & 0x3f, *packet.get(7)?);
        if version != 4 || header < 20 || fragment != (0, 0) || *packet.get(9)? != 6 {
            return None;
        }
        let ports = packet.get(..total)?.get(header..header + 4)?;
        let mut input = packet.get(12..20)?.to_vec();
        input.extend_from_slice(ports);
        Some((self.hash(&input) % TABLE_ENTRIES % self.queues) as usize)
    }

    /// Toeplitz: for each bit that is set, the 32 bits of the key that begin at its place.
    fn hash(&self, input: &[u8]) -> u32 {
        let mut hash = 0;
        let mut window = u32::from_be_bytes([self.key[0], self.key[1], self.key[2], self.key[3]]);
        for (at, byte) in input.iter().enumerate() {
            for bit in 0..8 {
                if byte & 0x80 >> bit != 0 {
                    hash ^= window;
                }
                window = window << 1 | u32::from(self.key[at + 4] >> (7 - bit) & 1);
            }
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key and two of the examples that drivers' authors were given with the method (Microsoft, "Verifying the RSS hash calculation").
    #[test]
    fn the_published_examples() {
        let key = [
            0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
            0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
            0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
        ];
        let rss = Rss::new(key, 4);
        let tuple = |from: [u8; 4], to: [u8; 4], ports: [u16; 2]| {
            [&from[..], &to, &ports[0].to_be_bytes(), &ports[1].to_be_bytes()].concat()
        };
        let first = tuple([66, 9, 149, 187], [161, 142, 100, 80], [2794, 1766]);
        let second = tuple([199, 92, 111, 2], [65, 69, 140, 83], [14230, 4739]);
        assert_eq!((rss.hash(&first), rss.hash(&second)), (0x51cc_c178, 0xc626_b0ea));
    }
}
