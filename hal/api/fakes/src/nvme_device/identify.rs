//! The fake's identify data (Base 5.17, NVM 4.1.5), by the offsets of the specification.

use super::model::Model;

fn text(into: &mut [u8], value: &str) {
    into.fill(b' ');
    let bytes = value.as_bytes();
    let length = bytes.len().min(into.len());
    into[..length].copy_from_slice(&bytes[..length]);
}

impl Model {
    /// The structure that a CNS value names; `None` where the controller does not know it.
    pub(super) fn identify(&self, nsid: u32, cns: u8, _controller: u32) -> Option<Vec<u8>> {
        let mut data = vec![0; 4096];
        match cns {
            0x00 => self.namespace(nsid, &mut data)?,
            0x01 => self.controller(&mut data),
            0x02 if self.config.version >= 0x0001_0100 => {
                let greater = self.config.namespaces.iter().filter(|namespace| namespace.nsid > nsid);
                for (place, namespace) in data.chunks_exact_mut(4).zip(greater) {
                    place.copy_from_slice(&namespace.nsid.to_le_bytes());
                }
            }
            0x03 if self.config.version >= 0x0001_0300 => self.descriptors(nsid, &mut data)?,
            0x06 if self.config.nvm_controller_data => {
                data[0] = self.config.verify_limit;
                data[1] = self.config.write_zeroes_limit;
                data[3] = self.config.dataset_ranges;
                data[4..8].copy_from_slice(&self.config.dataset_range_blocks.to_le_bytes());
                data[8..16].copy_from_slice(&self.config.dataset_blocks.to_le_bytes());
            }
            _ => return None,
        }
        Some(data)
    }

    fn controller(&self, data: &mut [u8]) {
        let config = &self.config;
        text(&mut data[4..24], &config.serial);
        text(&mut data[24..64], &config.model);
        text(&mut data[64..72], "1.0");
        data[77] = config.mdts;
        data[80..84].copy_from_slice(&config.version.to_le_bytes());
        data[88..92].copy_from_slice(&config.entry_latency_us.to_le_bytes());
        data[92..96].copy_from_slice(&config.async_events.to_le_bytes());
        data[258] = 3;
        data[259] = 3;
        data[512] = 0x66;
        data[513] = 0x44;
        let last = config.namespaces.iter().map(|namespace| namespace.nsid).max().unwrap_or(0);
        data[516..520].copy_from_slice(&last.to_le_bytes());
        data[520..522].copy_from_slice(&config.optional_commands.to_le_bytes());
        data[525] = u8::from(config.volatile_write_cache);
    }

    fn namespace(&self, nsid: u32, data: &mut [u8]) -> Option<()> {
        let last = self.config.namespaces.iter().map(|namespace| namespace.nsid).max().unwrap_or(0);
        if nsid == 0 || nsid > last {
            return None;
        }
        // Inactive ones read as zeros.
        let Some(namespace) = self.config.namespaces.iter().find(|namespace| namespace.nsid == nsid) else {
            return Some(());
        };
        for offset in [0, 8, 16] {
            data[offset..offset + 8].copy_from_slice(&namespace.blocks.to_le_bytes());
        }
        data[29] = namespace.protection;
        data[33] = namespace.deallocate_features;
        data[104..120].copy_from_slice(&namespace.nguid);
        data[120..128].copy_from_slice(&namespace.eui64);
        // The second of two formats is in use.
        data[25] = 1;
        data[26] = 1;
        data[130] = 7;
        data[132..134].copy_from_slice(&namespace.metadata_bytes.to_le_bytes());
        data[134] = namespace.block_shift;
        Some(())
    }

    fn descriptors(&self, nsid: u32, data: &mut [u8]) -> Option<()> {
        let namespace = self.config.namespaces.iter().find(|namespace| namespace.nsid == nsid)?;
        let mut at = 0;
        let mut add = |kind: u8, value: &[u8]| {
            if value.iter().any(|&byte| byte != 0) || kind == 4 {
                data[at] = kind;
                data[at + 1] = value.len() as u8;
                data[at + 4..at + 4 + value.len()].copy_from_slice(value);
                at += 4 + value.len();
            }
        };
        add(1, &namespace.eui64);
        add(2, &namespace.nguid);
        add(3, &namespace.uuid);
        add(4, &[namespace.command_set]);
        Some(())
    }
}
