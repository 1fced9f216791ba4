//! Controllers: what makes a connection a queue of one, and what ends that.

use crate::command_rules::{self as rules, Effect, Statuses};
use crate::model::{Connection, Controller, Model, Phase};
use crate::wire::u16_at;

impl Model {
    /// Base 6.3.
    pub(crate) fn connect(&mut self, id: usize, connection: &mut Connection, at: usize) {
        let command = &connection.outstanding[at];
        let (bytes, data) = (command.command.0, command.data.clone());
        let (queue_id, sq_size) = (u16_at(&bytes, 42), u16_at(&bytes, 44));
        let mut faults = Vec::new();
        if connection.entries > 0 {
            faults.push(rules::SEQUENCE_ERROR);
        }
        if bytes[1] & 3 != 0 {
            faults.push(rules::INVALID_FIELD);
        }
        if u16_at(&bytes, 40) != 0 {
            faults.push(rules::CONNECT_FORMAT);
        }
        let names = [name(&data[256..512]), name(&data[512..768])];
        let known = names[0].as_deref() == Some(self.card.nqn.as_bytes()) && names[1].is_some();
        if sq_size == 0 || sq_size >= self.card.max_entries || !known {
            faults.push(rules::CONNECT_PARAMETERS);
        }
        let cntlid = u16_at(&data, 16);
        let host = names[1].clone().unwrap_or_default();
        let index = if queue_id == 0 {
            if cntlid != 0xffff {
                faults.push(rules::CONNECT_PARAMETERS);
            }
            self.controllers.len()
        } else {
            match self.controllers.iter().position(|of| of.alive && of.cntlid == Some(cntlid)) {
                Some(index) => {
                    faults.extend(self.queue_faults(index, queue_id, &data[..16], &host));
                    index
                }
                None => {
                    faults.push(rules::CONNECT_PARAMETERS);
                    0
                }
            }
        };
        if !faults.is_empty() {
            let command = &mut connection.outstanding[at];
            command.verdict.effect = Effect::None;
            command.verdict.statuses = Statuses::OneOf(faults);
            return;
        }
        if queue_id == 0 {
            let (host_id, queues) = (data[..16].to_vec(), vec![(0, id)]);
            let granted = self.card.max_io_queues;
            self.controllers.push(Controller {
                cntlid: None,
                alive: true,
                host_id,
                host,
                cc: 0,
                ready: Some(false),
                granted,
                queues,
            });
        } else {
            self.controllers[index].queues.push((queue_id, id));
        }
        connection.phase = Phase::Live { controller: index, queue_id };
        (connection.entries, connection.consumed) = (sq_size + 1, 1);
        connection.flow_control = bytes[46] & 4 == 0;
        connection.outstanding[at].ordinal = Some(1);
    }

    /// An I/O queue belongs to the host of its controller, which is ready, and is not there yet.
    fn queue_faults(&mut self, index: usize, queue_id: u16, host_id: &[u8], host: &[u8]) -> Vec<u16> {
        let controller = &self.controllers[index];
        let mut faults = Vec::new();
        if queue_id > controller.granted {
            faults.push(rules::CONNECT_PARAMETERS);
        }
        if controller.host_id != host_id || controller.host != host {
            faults.extend([rules::CONNECT_PARAMETERS, rules::CONNECT_HOST]);
        }
        if controller.ready == Some(false) || controller.queues.iter().any(|&(queue, _)| queue == queue_id) {
            faults.extend([rules::SEQUENCE_ERROR, rules::CONNECT_PARAMETERS]);
        }
        self.unsure |= controller.ready.is_none();
        faults
    }

    /// Property Set of CC (Base 3.1.3.5, 3.5, 3.6): EN is bit 0, SHN bits 15:14.
    pub(crate) fn configure(&mut self, id: usize, phase: Phase, value: u32) {
        let Phase::Live { controller: index, .. } = phase else { return };
        let controller = &mut self.controllers[index];
        let old = std::mem::replace(&mut controller.cc, value);
        let (was, is) = (old & 1 == 1, value & 1 == 1);
        let (shut_before, shut) = (old >> 14 & 3 != 0, value >> 14 & 3 != 0);
        if is && !was {
            // 4 KiB pages, round robin, entries of 64 and 16 bytes, the NVM command set.
            let fits = value >> 7 & 0x7f == 0 && value >> 16 & 0xff == 0x46;
            controller.ready = Some(fits && matches!(value >> 4 & 7, 0 | 6));
        }
        if !is {
            controller.ready = Some(false);
        }
        if shut && is {
            controller.ready = None;
        }
        if (was && !is) || (shut && !shut_before) {
            self.close_queues(id, phase);
        }
    }
}

/// An NQN (Base 4.5): ended by NUL, 1 to 223 bytes of UTF-8. Control characters are refused for the sake of logs.
fn name(field: &[u8]) -> Option<Vec<u8>> {
    let end = field.iter().position(|&byte| byte == 0).filter(|end| (1..=223).contains(end))?;
    let text = std::str::from_utf8(&field[..end]).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.as_bytes().to_vec())
}
