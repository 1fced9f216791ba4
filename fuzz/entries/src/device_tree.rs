//! The device tree: what the loader left in memory.

use hal_devices::device_tree::{Machine, length_bytes};

/// Reads the bytes as a flattened tree.
pub fn run(data: &[u8]) {
    if let Some(header) = data.first_chunk() {
        let _ = length_bytes(header);
    }
    let Ok(machine) = Machine::parse(data) else { return };
    assert!(machine.memory.iter().chain(&machine.reserved).all(|range| range.start < range.end));
    if let Some(pcie) = &machine.pcie {
        assert!(pcie.first_bus <= pcie.last_bus);
        let buses = u64::from(pcie.last_bus - pcie.first_bus) + 1;
        assert!(buses << 20 <= pcie.ecam.end - pcie.ecam.start, "buses outside of the configuration space");
        let _ = pcie.msi_device_id(0xffff);
    }
}
