//! What is counted of commands when they end, and which of them are remembered.
//!
//! All of it is this core's own, taken from the arena at the start. A command costs a few additions; what is not done for each stands in
//! functions of its own. Whoever reads asks for one page after the other.

use controller::Operation;
use hal_mem::{Arena, OutOfMemory};
use message::configuration::SubsystemPlace;
use message::{CommandTrace, MeterPage, MeterPlace, NamespaceMeter, TraceLog, TracePage, TraceSettings};

use crate::target::Limits;

/// A namespace of a subsystem, in one number: NSIDs have 24 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner(u32);

impl Owner {
    const NOBODY: Self = Self(0);

    #[inline]
    pub(crate) const fn of(subsystem: SubsystemPlace, nsid: u32) -> Self {
        Self((subsystem.0 as u32) << 24 | nsid)
    }

    const fn subsystem(self) -> SubsystemPlace {
        SubsystemPlace((self.0 >> 24) as u8)
    }

    const fn nsid(self) -> u32 {
        self.0 & 0xff_ffff
    }
}

/// A meter, and whose it is.
#[derive(Debug)]
pub(crate) struct Meter {
    owner: Owner,
    of: NamespaceMeter,
}

impl Meter {
    const EMPTY: Self = Self { owner: Owner::NOBODY, of: NamespaceMeter::EMPTY };

    /// A command has ended that moved so much.
    #[inline]
    pub(crate) fn note(&mut self, operation: Operation, took_us: u64, bytes: u32) {
        let totals = &mut self.of.totals;
        match operation {
            Operation::Read => {
                totals.read_bytes = totals.read_bytes.wrapping_add(u64::from(bytes));
                self.of.reads.note(took_us);
            }
            Operation::Write => {
                totals.written_bytes = totals.written_bytes.wrapping_add(u64::from(bytes));
                self.of.writes.note(took_us);
            }
            _ => totals.others = totals.others.wrapping_add(1),
        }
    }

    pub(crate) fn note_error(&mut self, failed: bool) {
        self.of.totals.errors = self.of.totals.errors.wrapping_add(u64::from(failed));
    }
}

/// Meters of namespaces, and the logs of commands.
#[derive(Debug)]
pub(crate) struct Meters {
    places: &'static mut [Meter],
    settings: TraceSettings,
    /// Commands until the next sample.
    sample_in: u32,
    sampled: Ring,
    slow: Ring,
}

impl Meters {
    pub(crate) fn new(arena: &mut Arena, limits: &Limits) -> Result<Self, OutOfMemory> {
        let traces = usize::from(limits.traces);
        let settings = TraceSettings::default();
        Ok(Self {
            places: arena.slice(usize::from(limits.namespace_meters), |_| Meter::EMPTY)?,
            settings,
            sample_in: settings.sample_one_in,
            sampled: Ring { records: arena.slice(traces, |_| None)?, next: 0 },
            slow: Ring { records: arena.slice(traces, |_| None)?, next: 0 },
        })
    }

    /// The meter of a namespace where it is at the first look, as nearly always.
    #[inline]
    pub(crate) fn at_once(&mut self, owner: Owner) -> Option<&mut Meter> {
        let place = self.first_place(owner);
        self.places.get_mut(place).filter(|meter| meter.owner == owner)
    }

    /// The meter of a namespace, which is given one: a free one, or else that of a namespace that there is not any more, as `is_there` says.
    /// `None` where there is none of either.
    pub(crate) fn add(&mut self, owner: Owner, is_there: impl Fn(Owner) -> bool) -> Option<&mut Meter> {
        let place = self.search(owner, is_there)?;
        let meter = self.places.get_mut(place)?;
        if meter.owner != owner {
            *meter = Meter { owner, ..Meter::EMPTY };
        }
        Some(meter)
    }

    /// The place of a namespace, or the first that it could have: looked for from the one where it should be. A place that somebody has had
    /// never becomes free again, so that nobody is behind a free one.
    fn search(&self, owner: Owner, is_there: impl Fn(Owner) -> bool) -> Option<usize> {
        let first = self.first_place(owner);
        let all = || (first..self.places.len()).chain(0..first);
        let has = |place: usize| self.places.get(place).map_or(Owner::NOBODY, |meter| meter.owner);
        let ends = all().find(|&place| has(place) == owner || has(place) == Owner::NOBODY);
        ends.or_else(|| all().find(|&place| !is_there(has(place))))
    }

    /// NSIDs of drives are anywhere in their range.
    #[inline]
    fn first_place(&self, owner: Owner) -> usize {
        let spread = owner.0.wrapping_mul(0x9e37_79b1);
        ((u64::from(spread) * self.places.len() as u64) >> 32) as usize
    }

    /// Whether a command that took so long is to be remembered.
    #[inline]
    pub(crate) fn is_remarkable(&mut self, took_us: u64) -> bool {
        self.sample_in = self.sample_in.wrapping_sub(1);
        self.sample_in == 0 || took_us > u64::from(self.settings.slow_us)
    }

    /// It is not to be remembered after all: the next may be a sample.
    pub(crate) const fn pass(&mut self) {
        if self.sample_in == 0 {
            self.sample_in = 1;
        }
    }

    /// Remembers it, as a sample, as slow, or both.
    pub(crate) fn remember(&mut self, trace: CommandTrace) {
        if self.sample_in == 0 {
            // With 0, the next is due after more commands than there ever are, and is none.
            self.sample_in = self.settings.sample_one_in;
            if self.sample_in > 0 {
                self.sampled.push(trace);
            }
        }
        if trace.stages.ended_us > self.settings.slow_us {
            self.slow.push(trace);
        }
    }

    pub(crate) const fn settings(&self) -> TraceSettings {
        self.settings
    }

    pub(crate) const fn set(&mut self, settings: TraceSettings) {
        self.settings = settings;
        self.sample_in = settings.sample_one_in;
    }

    /// The piece of a meter at a place, or the first behind it.
    pub(crate) fn page(&self, from: MeterPlace) -> Option<MeterPage> {
        let places = self.places.iter().enumerate().skip(usize::from(from.meter));
        let used = places.filter(|(_, meter)| meter.owner != Owner::NOBODY);
        let mut pages = used.filter_map(|(number, meter)| {
            let place = number as u8;
            let range = if place == from.meter { from.range } else { 0 };
            let owner = meter.owner;
            meter.of.page((owner.subsystem(), owner.nsid()), MeterPlace { meter: place, range })
        });
        pages.next()
    }

    /// Traces of a log from a number on.
    pub(crate) fn traces(&self, log: TraceLog, from: u64) -> TracePage {
        match log {
            TraceLog::Sampled => self.sampled.page(from),
            TraceLog::Slow => self.slow.page(from),
        }
    }
}

/// The last traces of a log.
#[derive(Debug)]
struct Ring {
    records: &'static mut [Option<CommandTrace>],
    /// Number of the next trace.
    next: u64,
}

impl Ring {
    fn push(&mut self, mut trace: CommandTrace) {
        trace.sequence = self.next;
        if let Some(place) = self.place(self.next)
            && let Some(record) = self.records.get_mut(place)
        {
            *record = Some(trace);
        }
        self.next += 1;
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        sequence.checked_rem(self.records.len() as u64).map(|place| place as usize)
    }

    fn page(&self, from: u64) -> TracePage {
        let first = from.max(self.next.saturating_sub(self.records.len() as u64)).min(self.next);
        let mut page = TracePage { missed: first.saturating_sub(from), next: first, ..TracePage::default() };
        while page.next < self.next
            && let Some(Some(trace)) = self.place(page.next).and_then(|place| self.records.get(place))
            && page.traces.push(*trace).is_ok()
        {
            page.next += 1;
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::card::UNLIMITED;

    fn meters(namespace_meters: u16, traces: u16) -> Meters {
        let limits = Limits { namespace_meters, traces, ..UNLIMITED };
        Meters::new(&mut Arena::leak_for_host(1 << 20), &limits).unwrap()
    }

    #[test]
    fn meters_of_namespaces_that_are_gone_are_given_to_others() {
        let mut meters = meters(4, 1);
        let owner = |nsid| Owner::of(SubsystemPlace(nsid as u8 % 3), nsid);
        let others =
            |meters: &mut Meters, nsid| meters.add(owner(nsid), |_| true).map(|meter| meter.of.totals.others);
        for nsid in [7, 8, 9, 10] {
            assert!(meters.at_once(owner(nsid)).is_none());
            meters.add(owner(nsid), |_| true).unwrap().of.totals.others = u64::from(nsid);
        }
        assert_eq!(others(&mut meters, 11), None);
        assert_eq!(meters.add(owner(12), |of| of != owner(8)).unwrap().of.totals.others, 0);
        assert_eq!(others(&mut meters, 8), None);
        assert_eq!([7, 9, 10, 12].map(|nsid| others(&mut meters, nsid)), [7, 9, 10, 0].map(Some));
        // Each is told of once, by its name.
        let (mut place, mut told) = (MeterPlace::default(), Vec::new());
        while let Some(page) = meters.page(place) {
            assert_eq!(owner(page.nsid), Owner::of(page.subsystem, page.nsid));
            told.extend(page.totals.map(|totals| totals.totals.others));
            place = page.next;
        }
        told.sort_unstable();
        assert_eq!(told, [0, 7, 9, 10]);
    }

    #[test]
    fn whoever_reads_late_learns_how_many_traces_are_forgotten() {
        let mut meters = meters(1, 10);
        meters.set(TraceSettings { sample_one_in: 1, slow_us: 1000 });
        let trace = crate::tests::meters::trace_of(5);
        for _ in 0..14 {
            assert!(meters.is_remarkable(5));
            meters.remember(trace);
        }
        let page = meters.traces(TraceLog::Sampled, 0);
        let first = page.traces.first().unwrap();
        assert_eq!((page.missed, first.sequence, page.traces.len(), page.next), (4, 4, 8, 12));
        let page = meters.traces(TraceLog::Sampled, page.next);
        assert_eq!((page.missed, page.traces.len(), page.next), (0, 2, 14));
        for from in [14, u64::MAX] {
            let page = meters.traces(TraceLog::Sampled, from);
            assert_eq!((page.missed, page.traces.len(), page.next), (0, 0, 14));
        }
        assert_eq!(meters.traces(TraceLog::Slow, 0).next, 0);
    }

    #[test]
    fn one_of_so_many_is_a_sample_and_none_where_that_is_off() {
        let mut meters = meters(1, 64);
        let trace = crate::tests::meters::trace_of(5);
        meters.set(TraceSettings { sample_one_in: 3, slow_us: 1000 });
        let remembered = |meters: &mut Meters| {
            (0..9)
                .filter(|_| {
                    let due = meters.is_remarkable(5);
                    if due {
                        meters.remember(trace);
                    }
                    due
                })
                .count()
        };
        assert_eq!(remembered(&mut meters), 3);
        meters.set(TraceSettings { sample_one_in: 0, slow_us: 1000 });
        assert_eq!(remembered(&mut meters), 0);
        assert!(meters.is_remarkable(1001));
        meters.remember(crate::tests::meters::trace_of(1001));
        assert_eq!((meters.sampled.next, meters.slow.next), (3, 1));
    }
}
