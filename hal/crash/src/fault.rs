//! Words of the boot arguments that ask for a bug on purpose: `selftest=KIND[@SECONDS][:CORE]`.

/// Which core is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one that serves, where the word says none.
    Data,
    /// The one with that index.
    Core(u8),
    /// Each core that has a loop.
    All,
}

/// How it is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// `panic`: a panic.
    Panic,
    /// `loop`: a panic at each start, whatever the one before has ended in.
    PanicEachBoot,
    /// `pointer`: a store to an address where nothing is.
    Pointer,
    /// `stack`: recursion without an end.
    Stack,
    /// `exception-stack`: the same in an exception handler.
    ExceptionStack,
    /// `hang`: a loop without an end, with interrupts masked as always.
    Hang,
    /// `mute`: the same with the watchdog's interrupt masked too.
    Mute,
}

/// A bug on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// How.
    pub kind: FaultKind,
    /// Seconds after the start.
    pub after_s: u32,
    /// Where.
    pub target: Target,
}

impl FaultKind {
    const NAMES: [(&'static str, Self); 7] = [
        ("panic", Self::Panic),
        ("loop", Self::PanicEachBoot),
        ("pointer", Self::Pointer),
        ("stack", Self::Stack),
        ("exception-stack", Self::ExceptionStack),
        ("hang", Self::Hang),
        ("mute", Self::Mute),
    ];
}

impl Fault {
    /// Reads a word; `None` where it asks for no bug. Without `@SECONDS` it happens as soon as the core's loop runs.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let rest = word.strip_prefix("selftest=")?;
        let (rest, target) = match rest.split_once(':') {
            None => (rest, Target::Data),
            Some((rest, "all")) => (rest, Target::All),
            Some((rest, core)) => (rest, Target::Core(core.parse().ok()?)),
        };
        let (name, after_s) = match rest.split_once('@') {
            None => (rest, 0),
            Some((name, seconds)) => (name, seconds.parse().ok()?),
        };
        let (_, kind) = FaultKind::NAMES.into_iter().find(|(known, _)| *known == name)?;
        Some(Self { kind, after_s, target })
    }

    /// Whether core `core` is to fail, where core `data` serves.
    #[must_use]
    pub fn concerns(&self, core: usize, data: usize) -> bool {
        match self.target {
            Target::Data => core == data,
            Target::Core(index) => core == usize::from(index),
            Target::All => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_say_how_when_and_where() {
        let fault = |word| Fault::parse(word).unwrap();
        let (kind, target) = (FaultKind::Panic, Target::Data);
        assert_eq!(fault("selftest=panic"), Fault { kind, after_s: 0, target });
        assert_eq!(fault("selftest=panic@7"), Fault { kind, after_s: 7, target });
        let all = Fault { kind: FaultKind::Hang, after_s: 3, target: Target::All };
        assert_eq!(fault("selftest=hang@3:all"), all);
        let first = fault("selftest=stack:0");
        assert_eq!((first.kind, first.target), (FaultKind::Stack, Target::Core(0)));
        assert!(all.concerns(0, 1) && first.concerns(0, 1) && !first.concerns(1, 1));
        assert!(fault("selftest=mute").concerns(1, 1));
        for word in ["selftest", "selftest=memory", "selftest=panic@x", "selftest=hang:x", "panic"] {
            assert_eq!(Fault::parse(word), None, "{word}");
        }
    }
}
