//! Blocks: read, write, flush.

use nvme::Command;
use nvmeof::initiator::{NamespaceInfo, Transfer, commands};
use nvmeof_host::{Association, COMMAND_LIMIT, Error, Queue};

use super::{Read, Write, done, shown};
use crate::client::Failure;

/// Bytes of a command at most, where the controller takes more.
const MOST_BYTES: u32 = 1 << 20;
/// Commands one after the other: there is never a second one.
const SLOTS: u16 = 2;

/// A namespace, with a queue to its blocks.
struct Blocks {
    namespace: NamespaceInfo,
    queue: Queue,
    in_capsule_bytes: u32,
    /// Blocks of a command at most.
    most: usize,
}

impl Blocks {
    fn open(association: &Association, nsid: Option<u32>) -> Result<Self, Error> {
        let namespace = association.namespace(nsid)?;
        let most = association.info.max_transfer_bytes.min(MOST_BYTES) >> namespace.block_shift;
        Ok(Self {
            namespace,
            queue: association.io_queue(1, SLOTS)?,
            in_capsule_bytes: association.info.in_capsule_bytes,
            most: most.max(1) as usize,
        })
    }

    fn block_bytes(&self) -> usize {
        1 << self.namespace.block_shift
    }

    /// Runs commands over so many bytes from a block on, each as large as may be.
    fn each(
        &mut self,
        what: &str,
        start_block: u64,
        bytes: &mut [u8],
        of: impl Fn(&Self, u64, u32) -> (Command, Transfer),
    ) -> Result<(), Failure> {
        let (block_bytes, most) = (self.block_bytes(), self.most);
        let end = start_block.checked_add((bytes.len() / block_bytes) as u64);
        if end.is_none_or(|end| end > self.namespace.blocks) {
            let NamespaceInfo { nsid, blocks, .. } = self.namespace;
            return Err(Failure::Usage(format!("namespace {nsid} has {blocks} blocks, this goes beyond")));
        }
        for (number, part) in bytes.chunks_mut(most * block_bytes).enumerate() {
            let start_block = start_block + (number * most) as u64;
            let (command, transfer) = of(self, start_block, (part.len() / block_bytes) as u32);
            let what = format!("{what} from block {start_block} on");
            self.queue.execute(&what, &command, transfer, part, COMMAND_LIMIT)?;
        }
        Ok(())
    }
}

pub fn read(association: &Association, options: &Read, json: bool) -> Result<String, Failure> {
    let mut blocks = Blocks::open(association, options.of.nsid)?;
    let mut bytes = vec![0; options.blocks as usize * blocks.block_bytes()];
    blocks.each("a read", options.block, &mut bytes, |this, start_block, count| {
        let NamespaceInfo { nsid, block_shift, .. } = this.namespace;
        (commands::read(nsid, start_block, count), Transfer::Receive(count << block_shift))
    })?;
    shown(&bytes, options.out.as_ref(), json)
}

/// Whether blocks may be overwritten.
pub fn permitted(options: &Write) -> Result<(), Failure> {
    let why = "what is in these blocks is lost when they are written: say --overwrite";
    options.overwrite.then_some(()).ok_or_else(|| Failure::Usage(why.to_owned()))
}

pub fn write(association: &Association, options: &Write, json: bool) -> Result<String, Failure> {
    let path = &options.input;
    let failed = |error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let mut bytes = std::fs::read(path).map_err(failed)?;
    let mut blocks = Blocks::open(association, options.of.nsid)?;
    let count = bytes.len().div_ceil(blocks.block_bytes());
    bytes.resize(count * blocks.block_bytes(), 0);
    blocks.each("a write", options.block, &mut bytes, |this, start_block, count| {
        let NamespaceInfo { nsid, block_shift, .. } = this.namespace;
        let transfer = commands::send_transfer(count << block_shift, this.in_capsule_bytes);
        (commands::write(nsid, start_block, count), transfer)
    })?;
    let NamespaceInfo { nsid, .. } = blocks.namespace;
    let what = format!("{count} blocks of namespace {nsid} are written, from block {} on", options.block);
    Ok(done(&what, json))
}

pub fn flush(association: &Association, nsid: Option<u32>, json: bool) -> Result<String, Failure> {
    let Blocks { mut queue, namespace, .. } = Blocks::open(association, nsid)?;
    let command = commands::flush(namespace.nsid);
    queue.execute("a flush", &command, Transfer::None, &mut [], COMMAND_LIMIT)?;
    Ok(done(&format!("namespace {} is flushed", namespace.nsid), json))
}
