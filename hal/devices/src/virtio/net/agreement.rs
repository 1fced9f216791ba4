//! What is agreed with a network device, for all its queues (Virtio 1.2, sections 5.1.3 and 5.1.4).

use hal_api::PortInfo;

use super::control::HASH_TYPES;
use super::{
    DEFAULT_MTU, FRAME_OVERHEAD_BYTES, KEY_BYTES, LARGEST_MTU, LEAST_MTU, NetOptions, TABLE_ENTRIES,
    configuration, feature,
};
use crate::virtio::{Transport, VirtioError, negotiate, read_consistently};

/// The features, and what follows from them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreement {
    pub(super) info: PortInfo,
    pub(super) features: u64,
    /// Largest frame that the device may give, in bytes.
    pub(super) received_frame_bytes: usize,
    /// Queue pairs that are used.
    pub(super) pairs: u16,
    /// Queue pairs that the device has; its control queue comes after them.
    pub(super) device_pairs: u16,
}

impl Agreement {
    /// Negotiates the features and reads the configuration.
    pub(super) fn reach<T: Transport>(transport: &mut T, options: &NetOptions) -> Result<Self, VirtioError> {
        let mut mtu = DEFAULT_MTU;
        let mut received_mtu = DEFAULT_MTU;
        let mut device_pairs = 1;
        let limit = options.mtu_limit.clamp(LEAST_MTU, LARGEST_MTU);
        let several = if options.wanted_pairs() > 1 { feature::SEVERAL } else { 0 };
        let features = negotiate(transport, feature::WANTED | several, |transport, mut features| {
            features = settle_pairs(transport, features, options)?;
            if transport.configuration().len() < configuration_bytes(features) {
                return Err(VirtioError::BadConfiguration);
            }
            if features & feature::CTRL_VQ != 0 {
                device_pairs = max_pairs(transport)?;
            }
            if features & feature::MTU != 0 {
                let offered = read_consistently(transport, |fields| fields.read16(configuration::MTU))?;
                if offered < LEAST_MTU {
                    return Err(VirtioError::BadConfiguration);
                }
                mtu = offered;
                received_mtu = offered.min(LARGEST_MTU);
                // Who accepts the MTU has to take packets of that size (section 5.1.4.2); without mergeable
                // buffers ours are as small as our own limit.
                if features & feature::MRG_RXBUF == 0 && limit < offered {
                    features &= !feature::MTU;
                }
            }
            Ok(features)
        })?;
        if features & feature::MAC == 0 {
            return Err(VirtioError::NoStationAddress);
        }
        let mac = read_consistently(transport, |fields| {
            core::array::from_fn(|index| fields.read8(configuration::MAC + index))
        })?;
        let info = PortInfo {
            mac,
            mtu: mtu.min(limit),
            // What the device does not vouch for is verified in software, so without the feature it is left to
            // the stack, and with it there is nothing left for the stack.
            receive_checksums_verified: features & feature::GUEST_CSUM != 0,
            transmit_checksum_offload: features & feature::CSUM != 0,
        };
        let received_frame_bytes = FRAME_OVERHEAD_BYTES + usize::from(received_mtu);
        let pairs = device_pairs.min(options.wanted_pairs());
        Ok(Self { info, features, received_frame_bytes, pairs, device_pairs })
    }

    pub(super) const fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Largest frame that a single buffer has to hold, in bytes; also the largest that is sent.
    pub(super) const fn frame_bytes(&self) -> usize {
        FRAME_OVERHEAD_BYTES + self.info.mtu as usize
    }
}

/// Takes back what several queue pairs need where the device cannot give it whole: one pair is always there.
fn settle_pairs<T: Transport>(
    transport: &T,
    mut features: u64,
    options: &NetOptions,
) -> Result<u64, VirtioError> {
    let fields = transport.configuration().len();
    let usable = features & feature::CTRL_VQ != 0
        && features & (feature::MQ | feature::RSS) != 0
        && fields >= configuration::MAX_PAIRS + 2
        && max_pairs(transport)? > 1;
    if !usable {
        return Ok(features & !feature::SEVERAL);
    }
    if features & feature::RSS != 0 {
        let fits = options.steering.is_some()
            && fields >= configuration::HASH_TYPES + 4
            && read_consistently(transport, |fields| {
                usize::from(fields.read8(configuration::MAX_KEY_BYTES)) >= KEY_BYTES
                    && usize::from(fields.read16(configuration::MAX_TABLE_ENTRIES)) >= TABLE_ENTRIES
                    && fields.read32(configuration::HASH_TYPES) & HASH_TYPES == HASH_TYPES
            })?;
        if !fits {
            features &= !feature::RSS;
        }
    }
    // Without either of the two there is no way to switch further pairs on.
    Ok(if features & (feature::MQ | feature::RSS) == 0 { features & !feature::SEVERAL } else { features })
}

/// Queue pairs that the device has (`max_virtqueue_pairs`, at most 0x8000).
fn max_pairs<T: Transport>(transport: &T) -> Result<u16, VirtioError> {
    let pairs = read_consistently(transport, |fields| fields.read16(configuration::MAX_PAIRS))?;
    if (1..=0x7fff).contains(&pairs) { Ok(pairs) } else { Err(VirtioError::BadConfiguration) }
}

/// How much of the configuration is read with these features.
const fn configuration_bytes(features: u64) -> usize {
    if features & feature::MTU != 0 {
        configuration::MTU + 2
    } else if features & feature::STATUS != 0 {
        configuration::STATUS + 2
    } else {
        configuration::MAC + 6
    }
}
