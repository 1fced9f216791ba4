//! A drive that answers with bytes of its choice: registers, Identify data, lists, completions.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use drive::{Drive, DriveMemory};
use hal_api::{
    COMMAND_BYTES, COMPLETION_BYTES, CommandQueue, DeviceAddress, Instant, NvmeDevice, QueueFull,
    QueueLocation,
};

use crate::memory::{Input, Memory};

const PAGES: usize = 256;
const DEPTH: u16 = 31;
const TURNS: usize = 2_000;

/// What is left of the drive's answers.
struct Script {
    bytes: VecDeque<u8>,
    configuration: u32,
}

impl Script {
    fn byte(&mut self) -> u8 {
        self.bytes.pop_front().unwrap_or(0)
    }

    fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, at| number | u64::from(self.byte()) << (8 * at))
    }
}

struct Device {
    script: Rc<RefCell<Script>>,
    capabilities: u64,
    version: u32,
    taken: [bool; 2],
}

struct Queue {
    script: Rc<RefCell<Script>>,
    completions: VecDeque<[u8; COMPLETION_BYTES]>,
    head: u16,
    admin: bool,
}

impl NvmeDevice for Device {
    type Queue = Queue;

    fn capabilities(&self) -> u64 {
        self.capabilities
    }
    fn version(&self) -> u32 {
        self.version
    }
    fn status(&self) -> u32 {
        // As the configuration asks, and now and then something else.
        let mut script = self.script.borrow_mut();
        let ready = script.configuration & 1;
        let shut_down = if script.configuration >> 14 & 3 != 0 { 0b1000 } else { 0 };
        match script.bytes.front() {
            Some(0xfe) => {
                script.byte();
                script.number(1) as u32
            }
            Some(0xff) => {
                script.byte();
                u32::MAX
            }
            _ => ready | shut_down,
        }
    }
    fn ready_timeouts(&self) -> u32 {
        self.version
    }
    fn set_configuration(&mut self, cc: u32) {
        self.script.borrow_mut().configuration = cc;
    }
    fn configuration(&self) -> u32 {
        self.script.borrow().configuration
    }
    fn set_admin_queue(&mut self) {}
    fn set_bus_master(&mut self, _: bool) {}
    fn queue_pairs(&self) -> u16 {
        2
    }
    fn take_queue(&mut self, qid: u16) -> Option<Queue> {
        let taken = self.taken.get_mut(usize::from(qid))?;
        let queue =
            Queue { script: Rc::clone(&self.script), completions: VecDeque::new(), head: 0, admin: qid == 0 };
        (!std::mem::replace(taken, true)).then_some(queue)
    }
    fn return_queue(&mut self, qid: u16, _: Queue) {
        self.taken[usize::from(qid)] = false;
    }
    fn reset_queue(&mut self, queue: &mut Queue) {
        queue.completions.clear();
        queue.head = 0;
    }
    fn queue_location(&self, qid: u16) -> Option<QueueLocation> {
        let place = DeviceAddress(0x1_0000 * (u64::from(qid) + 1));
        let entries = u32::from(DEPTH) + 1;
        (qid < 2).then_some(QueueLocation { submission: place, completion: place, entries, vector: None })
    }
    fn address(&self) -> u16 {
        0
    }
}

impl CommandQueue for Queue {
    fn depth(&self) -> u16 {
        DEPTH
    }

    /// Answers at once: how, is in the first byte of the script; a data page gets what follows.
    fn submit(&mut self, command: &[u8; COMMAND_BYTES]) -> Result<(), QueueFull> {
        let mut script = self.script.borrow_mut();
        self.head = (self.head + 1) % (DEPTH + 1);
        let mut completion = [0; COMPLETION_BYTES];
        completion[8..10].copy_from_slice(&self.head.to_le_bytes());
        completion[12..14].copy_from_slice(&command[2..4]);
        let moves_data = self.admin && matches!(command[0], 0x02 | 0x06);
        let page = u64::from_le_bytes(command[24..32].try_into().expect("8 bytes"));
        let how = script.byte();
        if moves_data && how & 0x40 == 0 {
            let bytes = script.number(2) as usize % 4097;
            for offset in 0..bytes {
                let byte = script.byte();
                // SAFETY: the pages of this entry's pool, at their own addresses; nobody else reads them now.
                unsafe { ((page + offset as u64) as *mut u8).write_volatile(byte) };
            }
        }
        match how & 0x3f {
            1 => return Ok(()),
            2 => completion[14..16].copy_from_slice(&(script.number(2) as u16).to_le_bytes()),
            3 => {
                let at = usize::from(script.byte()) % COMPLETION_BYTES;
                completion[at] = script.byte();
            }
            4 => self.completions.push_back(completion),
            _ => {}
        }
        if command[0] == 0x09 && self.admin {
            completion[..4].copy_from_slice(&(script.number(4) as u32).to_le_bytes());
        }
        self.completions.push_back(completion);
        Ok(())
    }
    fn complete(&mut self) -> Option<[u8; COMPLETION_BYTES]> {
        self.completions.pop_front()
    }
    fn flush(&mut self) {}
    fn arm(&mut self) -> bool {
        !self.completions.is_empty()
    }
    fn disarm(&mut self) {}
}

/// Brings the drive up, and turns until it has said all; its pages come back at the end.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let setting = input.byte();
    // A drive that makes sense where the fuzzer does not say otherwise: 64 entries, NVM command set, half a second.
    let mut capabilities = 0x0000_0020_0100_003f;
    let mut version = 0x0001_0400;
    if setting & 1 != 0 {
        capabilities = u64::from_le_bytes(std::array::from_fn(|_| input.byte()));
    }
    if setting & 2 != 0 {
        version = u32::from_le_bytes(std::array::from_fn(|_| input.byte()));
    }
    let script = Script { bytes: input.0.iter().copied().collect(), configuration: 0 };
    let device = Device { script: Rc::new(RefCell::new(script)), capabilities, version, taken: [false; 2] };
    let mut memory = Memory::take();
    let mut pool = memory.pool(PAGES);
    let mut arena = memory.arena(1 << 18);
    let mut drive = Drive::new(device, 1, DriveMemory::take(&mut arena).expect("memory for a drive"));
    let mut now = Instant::from_millis(1000);
    for _ in 0..TURNS {
        let work = drive.poll(now, &mut pool);
        while drive.complete().is_some() {}
        while drive.take_event().is_some() {}
        drive.flush();
        // Time passes faster where nothing happens, so that every limit is met.
        now = now + if work > 0 { Duration::from_micros(100) } else { Duration::from_millis(500) };
    }
    assert_eq!(drive.outstanding(), 0, "no request was ever made");
}
