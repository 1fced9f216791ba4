//! The attached namespaces, sorted by subsystem and NSID.

use heapless::Vec;
use message::configuration::SubsystemPlace;

use crate::backend::BackendNamespace;
use crate::config::{MAX_COPY_BYTES, MAX_NAMESPACES};

/// What a drive says about sizes and alignments that suit it (NVM 5.8.2), as Identify Namespace has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OptimalSizes {
    /// Bit 4 of NSFEAT: the five fields below the boundary mean something.
    pub valid: bool,
    /// NOIOB, blocks; 0 none.
    pub boundary_blocks: u16,
    /// NPWG, zero-based.
    pub write_granularity: u16,
    /// NPWA, zero-based.
    pub write_alignment: u16,
    /// NPDG, zero-based.
    pub deallocate_granularity: u16,
    /// NPDA, zero-based.
    pub deallocate_alignment: u16,
    /// NOWS, zero-based.
    pub write_size: u16,
}

/// A namespace of a subsystem: a drive's namespace, block for block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace {
    /// What the cores of the card know it by, in whichever subsystem it is: see `identity` for where it comes from.
    pub key: u32,
    /// Where hosts find it.
    pub subsystem: SubsystemPlace,
    /// What [`Subsystem::stamp_of`](crate::Subsystem::stamp_of) says of it where it was attached first.
    pub stamp: u32,
    /// NSID towards hosts, 1 to FFFFFh: the key where nothing else is declared.
    pub nsid: u32,
    /// Number of the attachment: a command that was admitted under an earlier one is not carried out.
    pub attachment: u32,
    /// Where the blocks are.
    pub backend: BackendNamespace,
    /// Log2 of the block size in bytes, 9 to 16.
    pub block_shift: u8,
    /// NSZE: size in blocks, not 0.
    pub blocks: u64,
    /// NGUID; zeros where there is none.
    pub nguid: [u8; 16],
    /// EUI-64; zeros where there is none.
    pub eui64: [u8; 8],
    /// UUID; zeros where there is none.
    pub uuid: [u8; 16],
    /// The drive has a volatile write cache.
    pub volatile_write_cache: bool,
    /// Sizes that suit the drive.
    pub optimal: OptimalSizes,
    /// DLFEAT (NVM 4.1.5.1).
    pub deallocate_features: u8,
    /// The drive has Write Uncorrectable.
    pub write_uncorrectable: bool,
}

/// Where a namespace stands among all of the card.
const fn order(subsystem: SubsystemPlace, nsid: u32) -> u64 {
    (subsystem.0 as u64) << 32 | nsid as u64
}

impl Namespace {
    const fn order(&self) -> u64 {
        order(self.subsystem, self.nsid)
    }

    /// MCL, and MSSRL: blocks of one Copy command.
    pub(crate) const fn max_copy_blocks(&self) -> u32 {
        MAX_COPY_BYTES >> self.block_shift
    }

    fn has_same_blocks(&self, other: &Self) -> bool {
        let names = |of: &Self| (of.subsystem, of.nsid, of.uuid);
        self.block_shift == other.block_shift && self.blocks == other.blocks && names(self) == names(other)
    }
}

/// Why a namespace was not attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachError {
    /// There are [`MAX_NAMESPACES`] already.
    Full,
    /// Another namespace has this NSID or key: two drives' identities give the same one, or it is attached twice.
    NsidTaken,
    /// NSID, block size or size out of range.
    Invalid,
}

impl AttachError {
    /// A sentence for logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "no room for another namespace",
            Self::NsidTaken => "its NSID is taken",
            Self::Invalid => "its NSID, block size or size is out of range",
        }
    }
}

/// The attached namespaces in order of subsystem and NSID.
#[derive(Debug)]
pub(crate) struct Namespaces {
    sorted: Vec<Namespace, MAX_NAMESPACES>,
}

impl Namespaces {
    pub(crate) const fn new() -> Self {
        Self { sorted: Vec::new() }
    }

    pub(crate) fn as_slice(&self) -> &[Namespace] {
        &self.sorted
    }

    pub(crate) fn find(&self, subsystem: SubsystemPlace, nsid: u32) -> Option<&Namespace> {
        let index = self.sorted.binary_search_by_key(&order(subsystem, nsid), Namespace::order).ok()?;
        self.sorted.get(index)
    }

    pub(crate) fn by_key(&self, key: u32) -> Option<&Namespace> {
        self.sorted.iter().find(|namespace| namespace.key == key)
    }

    /// Those of a subsystem.
    pub(crate) fn of(&self, subsystem: SubsystemPlace) -> &[Namespace] {
        let first = self.sorted.partition_point(|namespace| namespace.subsystem < subsystem);
        let behind = self.sorted.partition_point(|namespace| namespace.subsystem <= subsystem);
        self.sorted.get(first..behind).unwrap_or_default()
    }

    /// Namespaces of a subsystem with NSIDs above `nsid`.
    pub(crate) fn after(&self, subsystem: SubsystemPlace, nsid: u32) -> impl Iterator<Item = &Namespace> {
        self.of(subsystem).iter().filter(move |namespace| namespace.nsid > nsid)
    }

    pub(crate) fn rebind(&mut self, namespace: &Namespace) -> bool {
        let found = self.sorted.iter_mut().find(|other| other.key == namespace.key);
        let Some(found) = found.filter(|other| other.has_same_blocks(namespace)) else { return false };
        (found.backend, found.volatile_write_cache) = (namespace.backend, namespace.volatile_write_cache);
        (found.optimal, found.deallocate_features) = (namespace.optimal, namespace.deallocate_features);
        (found.write_uncorrectable, found.attachment) = (namespace.write_uncorrectable, namespace.attachment);
        true
    }

    pub(crate) fn insert(&mut self, namespace: Namespace) -> Result<(), AttachError> {
        let nsid_fits = (1..=crate::identity::LAST_NSID).contains(&namespace.nsid);
        if !nsid_fits || !(9..=16).contains(&namespace.block_shift) || namespace.blocks == 0 {
            return Err(AttachError::Invalid);
        }
        if self.by_key(namespace.key).is_some() {
            return Err(AttachError::NsidTaken);
        }
        match self.sorted.binary_search_by_key(&namespace.order(), Namespace::order) {
            Ok(_) => Err(AttachError::NsidTaken),
            Err(place) => self.sorted.insert(place, namespace).map_err(|_| AttachError::Full),
        }
    }

    pub(crate) fn remove(&mut self, key: u32) -> Option<Namespace> {
        let place = self.sorted.iter().position(|namespace| namespace.key == key)?;
        Some(self.sorted.remove(place))
    }

    pub(crate) fn any_write_uncorrectable(&self, subsystem: SubsystemPlace) -> bool {
        self.of(subsystem).iter().any(|namespace| namespace.write_uncorrectable)
    }

    pub(crate) fn any_volatile_cache(&self, subsystem: SubsystemPlace) -> bool {
        self.of(subsystem).iter().any(|namespace| namespace.volatile_write_cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::namespace;

    #[test]
    fn they_stay_sorted_and_unique() {
        let mut all = Namespaces::new();
        for nsid in [9, 3, 7] {
            assert_eq!(all.insert(namespace(nsid)), Ok(()));
        }
        assert_eq!(all.insert(namespace(7)), Err(AttachError::NsidTaken));
        assert_eq!(
            all.after(SubsystemPlace::DEFAULT, 3).map(|n| n.nsid).collect::<std::vec::Vec<_>>(),
            [7, 9]
        );
        let other = SubsystemPlace(2);
        let elsewhere = Namespace { subsystem: other, key: 70, ..namespace(7) };
        assert_eq!(all.insert(elsewhere), Ok(()), "each subsystem has NSIDs of its own");
        assert_eq!(
            all.insert(Namespace { nsid: 8, ..elsewhere }),
            Err(AttachError::NsidTaken),
            "attached twice"
        );
        assert!(all.remove(7).is_some() && all.remove(7).is_none());
        assert!(all.find(SubsystemPlace::DEFAULT, 7).is_none() && all.find(other, 7) == Some(&elsewhere));
        assert_eq!((all.of(SubsystemPlace::DEFAULT).len(), all.of(other).len()), (2, 1));
        assert_eq!(all.of(SubsystemPlace(1)).len(), 0);
        assert_eq!(all.after(SubsystemPlace::DEFAULT, 3).map(|n| n.nsid).collect::<std::vec::Vec<_>>(), [9]);
    }

    #[test]
    fn limits_hold() {
        let mut all = Namespaces::new();
        assert_eq!(all.insert(namespace(0)), Err(AttachError::Invalid));
        assert_eq!(all.insert(namespace(0x0100_0000)), Err(AttachError::Invalid));
        assert_eq!(all.insert(Namespace { block_shift: 8, ..namespace(1) }), Err(AttachError::Invalid));
        for nsid in 1..=MAX_NAMESPACES as u32 {
            assert_eq!(all.insert(namespace(nsid)), Ok(()));
        }
        assert_eq!(all.insert(namespace(1000)), Err(AttachError::Full));
    }
}
