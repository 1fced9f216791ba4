//! What a namespace is called, from what its drive is: the same drive has the same names in whichever slot and
//! whatever else is there. `docs/design/nsid.md` says why.

pub use message::configuration::LAST_NSID;

/// FNV-1a, 128 bits.
const FNV_OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const FNV_PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// The names of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// 1 to [`LAST_NSID`].
    pub nsid: u32,
    /// The drive's own; zeros where it has none.
    pub nguid: [u8; 16],
    /// The drive's own; zeros where it has none.
    pub eui64: [u8; 8],
    /// Derived; version 8 (RFC 9562, 5.8).
    pub uuid: [u8; 16],
}

/// The names of namespace `drive_nsid` of the drive with this serial number and model (both as Identify
/// Controller has them). NSID and UUID depend on these three alone; `nguid` and `eui64` pass through.
#[must_use]
pub fn namespace_identity(
    drive_serial: &[u8; 20],
    drive_model: &[u8; 40],
    drive_nsid: u32,
    nguid: [u8; 16],
    eui64: [u8; 8],
) -> Identity {
    let hash = [&drive_serial[..], &drive_model[..], &drive_nsid.to_le_bytes()[..]]
        .into_iter()
        .flatten()
        .fold(FNV_OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(FNV_PRIME));
    let (high, low) = (mixed((hash >> 64) as u64), mixed(hash as u64 ^ (hash >> 64) as u64));
    let nsid = (low % u64::from(LAST_NSID)) as u32 + 1;
    Identity { nsid, nguid, eui64, uuid: uuid_of(high, low) }
}

/// Spreads every bit over all 64: the last bytes that FNV-1a takes in reach its upper bits only.
const fn mixed(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ value >> 33
}

/// Version 8 (our own contents), variant 10b.
fn uuid_of(high: u64, low: u64) -> [u8; 16] {
    const VERSION_8: u64 = 8 << 12;
    const VARIANT: u64 = 0b10 << 62;
    let high = high & !0xf000 | VERSION_8;
    let low = low & !(0b11 << 62) | VARIANT;
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::padded;
    use std::collections::HashSet;

    fn of(serial: &str, nsid: u32) -> Identity {
        namespace_identity(&padded(serial), &padded("QEMU NVMe Ctrl"), nsid, [0; 16], [0; 8])
    }

    /// These values are a promise: hosts find their file systems by them. They were computed apart.
    #[test]
    fn names_never_change() {
        let identity = of("drive0", 1);
        assert_eq!(identity.nsid, 1023611);
        assert_eq!(u128::from_be_bytes(identity.uuid), 0x779f_3bc2_33a1_82ef_b7ca_ec97_22be_615f);
    }

    #[test]
    fn drives_and_namespaces_differ() {
        let mut nsids = HashSet::new();
        let mut uuids = HashSet::new();
        for drive in 0..100 {
            for nsid in 1..=4 {
                let identity = of(&std::format!("S{drive}"), nsid);
                assert!((1..=LAST_NSID).contains(&identity.nsid));
                assert_eq!((identity.uuid[6] >> 4, identity.uuid[8] >> 6), (8, 2));
                nsids.insert(identity.nsid);
                uuids.insert(identity.uuid);
            }
        }
        assert_eq!(uuids.len(), 400);
        assert!(nsids.len() >= 399, "{}", nsids.len());
    }

    #[test]
    fn the_drives_own_names_pass_through_and_change_nothing_else() {
        let own = namespace_identity(&padded("drive0"), &padded("QEMU NVMe Ctrl"), 1, [7; 16], [8; 8]);
        assert_eq!((own.nguid, own.eui64), ([7; 16], [8; 8]));
        assert_eq!((own.nsid, own.uuid), (of("drive0", 1).nsid, of("drive0", 1).uuid));
    }
}
