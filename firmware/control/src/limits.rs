//! Every limit of the crate, by name.

use core::time::Duration;

/// Slots that are watched: one for each drive that a card may have.
pub const MAX_SLOTS: usize = 16;
/// Between two looks at the slots while nothing is under way.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The same while a slot is between two states.
pub const BUSY_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a drive must stand still in its slot before the slot is powered: contacts bounce.
pub const SETTLE_TIME: Duration = Duration::from_millis(200);
/// How long the link may take to come up after power-on.
pub const LINK_LIMIT: Duration = Duration::from_secs(2);
/// From the link to the first configuration request (PCI Express Base 5.0, 6.6.1).
pub const LINK_SETTLE_TIME: Duration = Duration::from_millis(100);
/// How long a function may answer that it is not ready, from then on (6.6.1 says 1 s after the reset).
pub const READY_LIMIT: Duration = Duration::from_secs(1);
/// For so long a second press of the attention button takes the first one back (6.7.1.5).
pub const CANCEL_TIME: Duration = Duration::from_secs(5);
/// After power-off, before anything else is done with the slot (6.7.1.8).
pub const POWER_OFF_TIME: Duration = Duration::from_secs(1);
/// Longest configuration that is stored.
pub const MAX_CONFIGURATION_BYTES: usize = 48 << 10;
/// How long the flash may take for one operation; a block of a worn part takes some seconds.
pub const FLASH_LIMIT: Duration = Duration::from_secs(20);
/// Between two looks at a flash that is busy.
pub const FLASH_LOOK_INTERVAL: Duration = Duration::from_millis(1);
