//! Where the linker script put things.

use core::ops::Range;

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __rodata_start: u8;
    static __rodata_end: u8;
    static __data_start: u8;
    static __bss_end: u8;
    static __stacks_start: u8;
    static __stacks_end: u8;
    static __crash_start: u8;
    static __crash_end: u8;
    static __build_id_start: u8;
    static __build_id_end: u8;
    static CORES_MAXIMUM: u8;
    static PAGE_BYTES: u8;
    static STACK_BYTES: u8;
    static EXCEPTION_STACK_BYTES: u8;
    static EARLY_CONSOLE: u8;
}

macro_rules! symbols {
    ($(#[$doc:meta] $name:ident = $start:ident .. $end:ident;)*) => {$(
        #[$doc]
        pub(crate) fn $name() -> Range<u64> {
            (&raw const $start) as u64..(&raw const $end) as u64
        }
    )*};
}

symbols! {
    /// The whole image, with bss and stacks.
    whole = __image_start..__image_end;
    /// Code.
    text = __text_start..__text_end;
    /// Constants.
    rodata = __rodata_start..__rodata_end;
    /// Initialised and zeroed data.
    data = __data_start..__bss_end;
    /// All cores' stacks and guard pages.
    stacks = __stacks_start..__stacks_end;
    /// What keeps its contents over a reset.
    crash = __crash_start..__crash_end;
    /// The note with the image's build id.
    build_id_note = __build_id_start..__build_id_end;
}

/// The image's build id: the note's bytes behind its head and its name "GNU".
pub(crate) fn build_id() -> &'static [u8] {
    const HEAD_BYTES: usize = 16;
    let note = build_id_note();
    // SAFETY: the linker has put the note there, among the constants.
    let note =
        unsafe { core::slice::from_raw_parts(note.start as *const u8, (note.end - note.start) as usize) };
    note.get(HEAD_BYTES..).unwrap_or_default()
}

/// How many cores have stacks.
pub(crate) fn cores_maximum() -> usize {
    (&raw const CORES_MAXIMUM) as usize
}

/// Address of the UART that works before the device tree is read; 0 for none.
pub(crate) fn early_console() -> usize {
    (&raw const EARLY_CONSOLE) as usize
}

/// The exception stack and the stack of core `index`.
pub(crate) fn stacks_of(index: usize) -> [Range<u64>; 2] {
    let page = (&raw const PAGE_BYTES) as u64;
    let (exception, stack) = ((&raw const EXCEPTION_STACK_BYTES) as u64, (&raw const STACK_BYTES) as u64);
    let start = stacks().start + index as u64 * (2 * page + exception + stack);
    let exceptions = start + page..start + page + exception;
    let own = exceptions.end + page..exceptions.end + page + stack;
    [exceptions, own]
}

/// Whether `bytes` bytes at `address` lie within a stack of some core.
pub(crate) fn in_stacks(address: u64, bytes: u64) -> bool {
    let Some(end) = address.checked_add(bytes) else { return false };
    (0..cores_maximum())
        .any(|core| stacks_of(core).iter().any(|stack| stack.start <= address && end <= stack.end))
}

/// Whether `address` lies in the code.
pub(crate) fn in_text(address: u64) -> bool {
    text().contains(&address)
}

/// A core's stacks, by what runs on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StackKind {
    /// Handlers.
    Exception,
    /// All else.
    Main,
}

impl StackKind {
    /// Its name in a report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Exception => "exception stack",
            Self::Main => "stack",
        }
    }
}

/// The core below whose stack `address` lies in a guard page, and which of its stacks that is.
pub(crate) fn stack_guard_of(address: u64) -> Option<(usize, StackKind)> {
    let page = (&raw const PAGE_BYTES) as u64;
    (0..cores_maximum()).find_map(|core| {
        let kinds = [StackKind::Exception, StackKind::Main];
        let mut stacks = stacks_of(core).into_iter().zip(kinds);
        let guarded = |stack: &Range<u64>| (stack.start - page..stack.start).contains(&address);
        stacks.find_map(|(stack, kind)| guarded(&stack).then_some((core, kind)))
    })
}
