//! defmt's global logger and the two who read from it.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use crate::MAX_CORES;
use crate::RING_BYTES;
use crate::ring::{FrameWriter, Ring};
use crate::wire::Multiplexer;

/// What the sink has to ask the architecture.
#[derive(Debug)]
pub struct Hooks {
    /// The index of the calling core in the core plan, from 0. Must give each running core its own.
    pub core_index: fn() -> usize,
    /// Microseconds since the start of the card.
    pub micros: fn() -> u64,
}

/// Makes logging work; what was logged before is dropped and counted. Call once, on the boot core.
pub fn install(hooks: &'static Hooks) {
    HOOKS.store(core::ptr::from_ref(hooks).cast_mut(), Ordering::Release);
}

/// The one reader of all rings; `None` the second time.
#[must_use]
pub fn take_reader() -> Option<Reader> {
    let first = !READER_TAKEN.swap(true, Ordering::Relaxed);
    first.then_some(Reader { multiplexer: Multiplexer::new(), reported: [0; MAX_CORES] })
}

/// Whether core `core` has logged something that the reader has not taken: then wake the one who reads.
#[must_use]
pub fn has_unread(core: usize) -> bool {
    RINGS.get(core).is_some_and(|ring| ring.byte_at(ring.taken()).is_some())
}

/// Hands out everything that is still in the rings, byte by byte. For the panic handler, after which the
/// card restarts: a [`Reader`] on another core stops, and a frame that it was in the middle of is sent again.
pub fn flush_for_panic(out: &mut dyn FnMut(u8)) {
    PANICKED.store(true, Ordering::Relaxed);
    // Ends a frame that the reader may have left unfinished on the line; the decoder ignores an empty one.
    out(0);
    let mut multiplexer = Multiplexer::new();
    let mut byte = [0];
    // Bounded: a core that still runs may log for ever.
    for _ in 0..2 * MAX_CORES * RING_BYTES {
        if multiplexer.fill(&RINGS, &mut byte) == 0 {
            break;
        }
        out(byte[0]);
    }
}

/// Hands out the last bytes that core `core` has logged, at most `most`, read or not: frames, each behind a 00h, of which
/// the first may be cut. For a crash record.
pub fn history(core: usize, most: usize, out: &mut dyn FnMut(u8)) {
    if let Some(ring) = RINGS.get(core) {
        ring.last(most as u32).for_each(out);
    }
}

/// Reads the frames of all cores, as they go over the serial line.
#[derive(Debug)]
pub struct Reader {
    multiplexer: Multiplexer,
    reported: [u32; MAX_CORES],
}

impl Reader {
    /// Fills `out` with bytes for the serial line and returns how many; zero means that nothing is left.
    /// What does not fit comes with the next call: give as many bytes as the UART has room for.
    pub fn fill(&mut self, out: &mut [u8]) -> usize {
        if PANICKED.load(Ordering::Relaxed) {
            return 0;
        }
        let filled = self.multiplexer.fill(&RINGS, out);
        if filled < out.len() {
            self.report_dropped();
        }
        filled
    }

    /// Everything was read, so there is room to say what was lost.
    fn report_dropped(&mut self) {
        for (core, (ring, reported)) in RINGS.iter().zip(&mut self.reported).enumerate() {
            let dropped = ring.dropped();
            let lost = dropped.wrapping_sub(*reported);
            *reported = dropped;
            if lost > 0 {
                defmt::warn!("core {}: {} log frames were lost", core, lost);
            }
        }
    }
}

struct Sink {
    writer: FrameWriter,
    encoder: defmt::Encoder,
    /// Between acquire and release. An exception in between may log once more: that frame is lost.
    busy: bool,
    nested: bool,
}

/// What only the core of the same index touches.
struct OwnedByCore(UnsafeCell<Sink>);

// SAFETY: each core reaches only the element of its own index (`with_sink`), and interrupt handlers do not log.
unsafe impl Sync for OwnedByCore {}

static RINGS: [Ring<RING_BYTES>; MAX_CORES] = [const { Ring::new() }; MAX_CORES];
static SINKS: [OwnedByCore; MAX_CORES] = [const {
    OwnedByCore(UnsafeCell::new(Sink {
        writer: FrameWriter::new(),
        encoder: defmt::Encoder::new(),
        busy: false,
        nested: false,
    }))
}; MAX_CORES];
static HOOKS: AtomicPtr<Hooks> = AtomicPtr::new(core::ptr::null_mut());
static READER_TAKEN: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicBool = AtomicBool::new(false);

fn hooks() -> Option<&'static Hooks> {
    // SAFETY: null, or what `install` took from a `&'static Hooks`.
    unsafe { HOOKS.load(Ordering::Acquire).as_ref() }
}

/// Runs `work` on the calling core's sink and ring; not at all before [`install`] or beyond [`MAX_CORES`].
fn with_sink(work: impl FnOnce(&mut Sink, &Ring<RING_BYTES>)) {
    let Some(hooks) = hooks() else { return };
    let core = (hooks.core_index)();
    if let (Some(sink), Some(ring)) = (SINKS.get(core), RINGS.get(core)) {
        // SAFETY: only this core reaches this element (`Hooks::core_index`), and `work` neither logs nor
        // calls back, so that there is no second reference.
        work(unsafe { &mut *sink.0.get() }, ring);
    }
}

defmt::timestamp!("{=u64:us}", hooks().map_or(0, |hooks| (hooks.micros)()));

#[defmt::global_logger]
struct Logger;

// SAFETY: the context is the core, and acquiring twice in it is answered by losing the inner frame: the
// state of the outer one stays whole.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        if let (None, Some(ring)) = (hooks(), RINGS.first()) {
            ring.count_dropped();
        }
        with_sink(|sink, ring| {
            if sink.busy {
                sink.nested = true;
                ring.count_dropped();
                return;
            }
            sink.busy = true;
            sink.writer.begin(ring);
            sink.encoder.start_frame(|bytes| sink.writer.push(ring, bytes));
        });
    }

    unsafe fn flush() {}

    unsafe fn release() {
        with_sink(|sink, ring| {
            if sink.nested {
                sink.nested = false;
                return;
            }
            sink.encoder.end_frame(|bytes| sink.writer.push(ring, bytes));
            sink.writer.end(ring);
            sink.busy = false;
        });
    }

    unsafe fn write(bytes: &[u8]) {
        with_sink(|sink, ring| {
            if !sink.nested {
                sink.encoder.write(bytes, |bytes| sink.writer.push(ring, bytes));
            }
        });
    }
}
