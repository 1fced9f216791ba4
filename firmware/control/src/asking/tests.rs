//! Control and its data cores: who is asked when, and what the operator is told of cores that refuse, hang or come late.

use hal_api::{FlashError, FlashShape};
use hal_fakes::FakeFlash;
use hal_mem::Arena;
use message::configuration::ChangeError;
use message::mailbox::MESSAGE_BYTES;
use message::{CallDesk, Reply, call_ways};

use super::*;

const CORES: usize = 3;
const ROOM: usize = 4096;
const SHAPE: FlashShape = FlashShape { blocks: 8, block_bytes: 4096, unit_bytes: 4, program_bytes: 64 };

struct Bench {
    asking: Asking<'static, FakeFlash>,
    desks: Vec<CallDesk>,
    now: Instant,
}

impl Bench {
    fn new(flash: Option<FakeFlash>) -> Self {
        let (calls, desks) = call_ways(&mut Arena::leak_for_host(1 << 20), CORES, |_| {}, || {}).unwrap();
        let memory = || vec![0; ROOM].leak();
        let store = ConfigurationStore::open(flash, memory());
        let asking = Asking::new(calls, Configuration::new(memory(), memory()), store);
        Self { asking, desks: desks.into_iter().collect(), now: Instant::ZERO }
    }

    /// The core that is asked now, which answers so. There is one.
    fn answer(&mut self, result: Result<CoreAnswer, Error>) -> usize {
        let taken = self.desks.iter_mut().map(CallDesk::take).collect::<Vec<_>>();
        let mut asked = taken.into_iter().enumerate().filter_map(|(core, request)| Some((core, request?)));
        let (core, request) = asked.next().expect("somebody is asked");
        assert!(asked.next().is_none(), "one core after the other");
        self.desks[core].reply(Reply { ticket: request.ticket, result });
        core
    }

    fn finish(&mut self) -> Option<Result<Answer, Error>> {
        self.asking.finish(self.now)
    }

    fn finish_storing(&mut self) -> Result<Answer, Error> {
        loop {
            self.now = self.now + Duration::from_millis(1);
            self.asking.poll(self.now);
            if let Some(result) = self.finish() {
                return result;
            }
        }
    }

    fn declared(&self) -> Vec<ConfigurationChange> {
        self.asking.configuration.changes().collect()
    }
}

fn automatic(automatic: bool) -> ConfigurationChange {
    ConfigurationChange::SetAutomatic { automatic }
}

#[test]
fn a_change_is_made_by_the_registrar_last_and_then_stored() {
    let mut bench = Bench::new(Some(FakeFlash::new(SHAPE).0));
    assert!(bench.asking.change(automatic(false), bench.now).is_none());
    for core in [2, 1, 0] {
        assert!(bench.finish().is_none() && bench.declared().is_empty());
        assert_eq!(bench.answer(Ok(CoreAnswer::Changed)), core);
    }
    assert!(bench.finish().is_none(), "it is being stored");
    assert!(!bench.asking.is_stored() && bench.asking.next_deadline(bench.now) < Instant::FAR_FUTURE);
    assert_eq!(bench.declared(), [automatic(false)]);
    assert_eq!(bench.finish_storing(), Ok(Answer::Changed(Kept::Stored)));
    assert!(bench.asking.is_stored());
    assert_eq!(bench.asking.store.load(), Some(bench.asking.configuration.bytes()));
    assert_eq!(bench.finish(), None);
}

#[test]
fn a_store_that_fails_is_told_of_and_the_change_holds() {
    let (flash, hands) = FakeFlash::new(SHAPE);
    let mut bench = Bench::new(Some(flash));
    hands.fail_at(0, FlashError::EraseFailed);
    assert!(bench.asking.change(automatic(false), bench.now).is_none());
    for _ in 0..CORES {
        bench.answer(Ok(CoreAnswer::Changed));
        assert!(bench.finish().is_none());
    }
    assert_eq!(bench.finish_storing(), Ok(Answer::Changed(Kept::StoreFailed)));
    assert_eq!((bench.asking.is_stored(), bench.declared()), (false, vec![automatic(false)]));
}

#[test]
fn without_a_store_a_change_lasts_until_the_reset() {
    let mut bench = Bench::new(None);
    assert!(!bench.asking.is_stored());
    assert!(bench.asking.change(automatic(false), bench.now).is_none());
    for _ in 0..CORES {
        assert!(bench.finish().is_none());
        bench.answer(Ok(CoreAnswer::Changed));
    }
    assert_eq!(bench.finish(), Some(Ok(Answer::Changed(Kept::UntilReset))));
}

#[test]
fn a_change_that_a_core_refuses_goes_no_further_and_is_not_declared() {
    let mut bench = Bench::new(None);
    assert!(bench.asking.change(automatic(false), bench.now).is_none());
    let refusal = Error::Change(ChangeError::TooManyHosts);
    bench.answer(Err(refusal));
    assert_eq!(bench.finish(), Some(Err(refusal)));
    assert!(bench.declared().is_empty() && bench.desks.iter_mut().all(|desk| desk.take().is_none()));
    // The next one begins anew.
    assert!(bench.asking.change(automatic(true), bench.now).is_none());
    assert_eq!(bench.answer(Ok(CoreAnswer::Changed)), 2);
}

#[test]
fn a_change_that_does_not_end_is_told_of_and_seen_through() {
    let mut bench = Bench::new(None);
    assert!(bench.asking.change(automatic(false), bench.now).is_none());
    bench.answer(Ok(CoreAnswer::Changed));
    assert!(bench.finish().is_none());
    let late = bench.desks[1].take().unwrap();
    bench.now = bench.asking.next_deadline(bench.now);
    assert_eq!(bench.finish(), Some(Err(Error::ChangeUnderWay { core: 1 })));
    // Nobody waits: another change is refused, a question is answered, the same change is waited for.
    let busy = Error::Change(ChangeError::Busy);
    assert_eq!(bench.asking.change(automatic(true), bench.now), Some(Err(busy)));
    assert!(bench.asking.ask(2, CoreCall::Ports, bench.now).is_none());
    let ports = CoreAnswer::Ports(heapless::Vec::new());
    assert_eq!(bench.answer(Ok(ports.clone())), 2);
    assert_eq!(bench.finish(), Some(Ok(Answer::Core(ports))));
    assert!(bench.asking.change(automatic(false), bench.now).is_none());
    assert_eq!(bench.finish(), None);
    bench.desks[1].reply(Reply { ticket: late.ticket, result: Ok(CoreAnswer::Changed) });
    assert_eq!(bench.finish(), None);
    assert_eq!(bench.answer(Ok(CoreAnswer::Changed)), 0);
    assert_eq!(bench.finish(), Some(Ok(Answer::Changed(Kept::UntilReset))));
    assert_eq!(bench.declared(), [automatic(false)]);
}

#[test]
fn a_change_is_made_on_all_cores_when_nobody_waits_any_more() {
    let mut bench = Bench::new(None);
    // The first to make it takes no requests: what it was asked before lies there.
    while bench.asking.ask(2, CoreCall::Ports, bench.now).is_none() {
        bench.now = bench.now + CORE_PATIENCE;
        assert!(bench.finish().is_some());
    }
    assert!(bench.asking.change(automatic(false), bench.now).is_none());
    assert_eq!(bench.asking.next_deadline(bench.now), bench.now + RETRY_INTERVAL);
    bench.now = bench.now + CHANGE_PATIENCE;
    assert_eq!(bench.finish(), Some(Err(Error::ChangeUnderWay { core: 2 })));
    while let Some(request) = bench.desks[2].take() {
        bench.desks[2].reply(Reply { ticket: request.ticket, result: Ok(CoreAnswer::Changed) });
        bench.asking.poll(bench.now);
    }
    for core in [1, 0] {
        bench.asking.poll(bench.now);
        assert_eq!(bench.answer(Ok(CoreAnswer::Changed)), core);
    }
    bench.asking.poll(bench.now);
    assert_eq!(bench.declared(), [automatic(false)]);
    assert!(!bench.asking.arm(), "what nobody waits for does not keep the core awake");
    // How the last one has ended is not taken for the end of the next.
    assert!(bench.asking.change(automatic(true), bench.now).is_none());
    assert_eq!(bench.finish(), None);
}

#[test]
fn a_core_that_says_nothing_is_named_and_what_it_says_too_late_is_nobodys() {
    let mut bench = Bench::new(None);
    assert_eq!(
        bench.asking.ask(9, CoreCall::Ports, bench.now),
        Some(Err(Error::NoSuchCore { core: 9, cores: 3 }))
    );
    assert!(bench.asking.ask(1, CoreCall::Ports, bench.now).is_none());
    let late = bench.desks[1].take().unwrap();
    assert_eq!((bench.finish(), bench.asking.next_deadline(bench.now)), (None, bench.now + CORE_PATIENCE));
    bench.now = bench.now + CORE_PATIENCE;
    assert_eq!(bench.finish(), Some(Err(Error::CoreSilent { core: 1 })));
    assert!(bench.asking.ask(1, CoreCall::Ports, bench.now).is_none());
    let answer = |ticket, answer| Reply { ticket, result: Ok(answer) };
    bench.desks[1].reply(answer(late.ticket, CoreAnswer::Drives(heapless::Vec::new())));
    assert!(bench.finish().is_none());
    let ports = CoreAnswer::Ports(heapless::Vec::new());
    assert_eq!(bench.answer(Ok(ports.clone())), 1);
    assert_eq!(bench.finish(), Some(Ok(Answer::Core(ports))));
}

#[test]
fn nobody_changes_one_core_alone() {
    let mut bench = Bench::new(None);
    let refused = bench.asking.ask(1, CoreCall::Change(automatic(true)), bench.now);
    assert_eq!(refused, Some(Err(Error::Malformed)));
}

#[test]
fn a_configuration_without_room_takes_no_more_and_asks_nobody() {
    let mut bench = Bench::new(None);
    let subsystem: message::configuration::Nqn = "x".repeat(223).as_str().try_into().unwrap();
    let mut host = 0;
    let refused = loop {
        let host_nqn = format!("{host:0223}").as_str().try_into().unwrap();
        host += 1;
        let allow = ConfigurationChange::AllowHost { subsystem: subsystem.clone(), host: host_nqn };
        if let Some(refused) = bench.asking.change(allow, bench.now) {
            break refused;
        }
        for _ in 0..CORES {
            bench.answer(Ok(CoreAnswer::Changed));
            let _ = bench.finish();
        }
    };
    assert_eq!((refused, host), (Err(Error::ConfigurationFull), ROOM / MESSAGE_BYTES * 2 + 2));
    assert!(bench.desks.iter_mut().all(|desk| desk.take().is_none()));
    // Two fit into an answer; the page behind the last is empty.
    let Answer::Configuration(page) = bench.asking.configuration(0) else { panic!() };
    assert_eq!(page.len(), 2);
    assert_eq!(bench.asking.configuration(host as u16), Answer::Configuration(heapless::Vec::new()));
}
