//! A drive's name in logs: its PCI address as people write it.

use hal_api::bus_device_function;

/// `BB:DD.F` in hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub struct Name([u8; 7]);

impl Name {
    /// Of the drive at an address, packed as `NvmeDevice::address` is.
    pub(crate) fn of(address: u16) -> Self {
        let (bus, device, function) = bus_device_function(address);
        let digit = |value: u8| match value & 0xf {
            low @ 0..=9 => b'0' + low,
            high => b'a' - 10 + high,
        };
        Self([digit(bus >> 4), digit(bus), b':', digit(device >> 4), digit(device), b'.', digit(function)])
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Digits only.
        core::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_people_write_it() {
        assert_eq!(Name::of(0x0018).as_str(), "00:03.0");
        assert_eq!(Name::of(0xabfd).as_str(), "ab:1f.5");
    }
}
