//! The power key: a child of a `gpio-keys` node with the key code for power, at a pin of a PL061 (Linux bindings
//! `input/gpio-keys.yaml` and `gpio/pl061-gpio.yaml`).

use core::ops::Range;

use dtoolkit::fdt::FdtNode;
use dtoolkit::{Node, Property};
use heapless::Vec;

use super::Cells;

/// What a node with keys for children is compatible with.
pub(super) const KEYS: &str = "gpio-keys";
/// `KEY_POWER` of the binding's key codes.
const POWER_CODE: u32 = 116;
/// Flag of a GPIO: pressed is low.
const ACTIVE_LOW: u32 = 1;
/// Pins of a PL061.
const PINS: u32 = 8;
/// Most controllers that are remembered until the key is known.
const MAX_CONTROLLERS: usize = 4;

/// A key by which an operator asks the card to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerKeyNode {
    /// Registers of the PL061.
    pub registers: Range<u64>,
    /// The pin, 0 to 7.
    pub pin: u8,
    /// Pressed is low.
    pub active_low: bool,
}

/// What has been seen of keys and controllers, which stand in the tree in any order.
#[derive(Debug, Clone, Default)]
pub(super) struct Gpio {
    controllers: Vec<(u32, Range<u64>), MAX_CONTROLLERS>,
    key: Option<Key>,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    controller: u32,
    pin: u32,
    flags: u32,
}

impl Gpio {
    /// A PL061.
    pub fn add_controller(&mut self, node: &FdtNode<'_>, registers: Option<Range<u64>>) {
        if let (Some(phandle), Some(registers)) = (number(node, "phandle"), registers) {
            let _ = self.controllers.push((phandle, registers));
        }
    }

    /// Takes a node that is a power key; false where it is none.
    pub fn add_key(&mut self, node: &FdtNode<'_>) -> bool {
        if number(node, "linux,code") != Some(POWER_CODE) {
            return false;
        }
        let gpios = node.property("gpios");
        let mut cells = Cells(gpios.as_ref().map_or(&[], |property| property.value()));
        if let (Some(controller), Some(pin @ 0..PINS), Some(flags)) =
            (cells.take_u32(), cells.take_u32(), cells.take_u32())
        {
            self.key = Some(Key { controller, pin, flags });
        }
        true
    }

    /// The power key, if it is at a controller that is known.
    pub fn power_key(&self) -> Option<PowerKeyNode> {
        let Key { controller, pin, flags } = self.key?;
        let (_, registers) = self.controllers.iter().find(|(phandle, _)| *phandle == controller)?;
        Some(PowerKeyNode {
            registers: registers.clone(),
            pin: pin as u8,
            active_low: flags & ACTIVE_LOW != 0,
        })
    }
}

fn number(node: &FdtNode<'_>, name: &str) -> Option<u32> {
    node.property(name).and_then(|property| Cells(property.value()).take_u32())
}
