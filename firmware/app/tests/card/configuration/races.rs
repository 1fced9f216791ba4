//! Changes while cores are stuck, while control has given up on an earlier one, and while hosts connect.

use super::*;

#[test]
fn a_core_that_is_stuck_holds_up_the_change_and_nobody_else() {
    let (mut card, namespace) = with_other(3);
    card.wire.next = 0;
    let mut host = Host::connect(&mut card, 2);
    let nsid = host.namespaces(&mut card)[0];
    card.stuck = Some(2);
    for core in [1, 0] {
        let ticket = card.begin_change(core, &detach(namespace)).unwrap();
        card.pass(Duration::from_secs(1));
        assert_eq!(card.change_done(core, ticket), core == 1, "the first core waits for core 2");
    }
    assert_eq!(card.begin_change(0, &attach(namespace, OTHER, 1)), Err(ChangeError::Busy));
    assert_eq!(write(&mut card, &mut host.io, nsid, 1), Status::SUCCESS);
    card.stuck = None;
    card.pass(Duration::from_secs(1));
    assert_eq!(card.change(&detach(namespace)), Ok(()));
    assert_eq!(card.change(&attach(namespace, OTHER, 1)), Ok(()));
}

#[test]
fn a_change_that_only_some_cores_have_made_shows_nobody_what_is_anothers() {
    let another = "nqn.2014-08.org.example:another";
    for has_namespace in [true, false] {
        let (mut card, namespace) = with_other(2);
        if !has_namespace {
            assert_eq!(card.change(&detach(namespace)), Ok(()));
        }
        // All have heard of the namespace.
        card.pass(Duration::from_millis(100));
        // Control gives up before it has told the first core.
        let ticket = card.begin_change(1, &delete(OTHER)).unwrap();
        card.run_until("the last core has made it", |card| card.change_done(1, ticket));
        if has_namespace {
            assert_eq!(card.change(&create(another)), Err(ChangeError::Busy), "something is left of it");
            assert_eq!(card.change(&delete(OTHER)), Ok(()));
            assert_eq!(card.change(&create(another)), Ok(()));
            continue;
        }
        // The same place on one core is another's on the other.
        for change in [create(another), allow(another, 1), attach(namespace, another, 1)] {
            assert_eq!(card.change(&change), Ok(()));
        }
        let third = "nqn.2014-08.org.example:third";
        assert_eq!([create(third), allow(third, 2)].map(|change| card.change(&change)), [Ok(()); 2]);
        for core in 0..2 {
            card.wire.next = core;
            assert!(Host::connect_to(&mut card, 2, third).namespaces(&mut card).is_empty(), "core {core}");
        }
    }
}

/// A small generator: what it gives depends on the seed alone.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

/// A host's attempt to have an admin queue: it may be answered, refused or cut off.
struct Attempt {
    queue: Queue,
    id: u8,
    asked: bool,
}

#[test]
fn connects_that_race_with_changes_end_as_the_last_change_has_it() {
    const HOSTS: u64 = 4;
    for seed in 0..40u64 {
        let cores = 1 + seed as usize % 3;
        let mut card = boot(cores);
        let namespace = of_drives(&card)[1];
        assert_eq!(card.change(&detach(namespace)), Ok(()));
        let before = card.all_counts();
        let mut dice = Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut attempts: Vec<Attempt> = Vec::new();
        for _ in 0..40 {
            for _ in 0..dice.roll(3) {
                card.wire.next = dice.roll(cores as u64) as usize;
                let id = 1 + dice.roll(HOSTS) as u8;
                attempts.push(Attempt { queue: Queue::open_to(&mut card, OTHER), id, asked: false });
            }
            for attempt in attempts.iter_mut().filter(|attempt| !attempt.asked) {
                attempt.asked = true;
                attempt.queue.start_connect(&mut card, attempt.id, 0, 0xffff);
            }
            (0..dice.roll(30)).for_each(|_| _ = card.turn());
            let host = 1 + dice.roll(HOSTS) as u8;
            let change = match dice.roll(6) {
                0 => create(OTHER),
                1 | 2 => allow(OTHER, host),
                3 => disallow(OTHER, host),
                4 => attach(namespace, OTHER, 1),
                _ => delete(OTHER),
            };
            // Any refusal is fine but that of a change that is not complete.
            assert_ne!(card.change(&change), Err(ChangeError::Busy), "seed {seed}");
            if change == delete(OTHER) {
                let all = (0..cores).map(|core| card.core(core).subsystems(SubsystemPlace(1)).len());
                assert_eq!(all.sum::<usize>(), 0, "seed {seed}");
                // Whoever was let in before is cut off; what is asked from now on is refused.
                card.run_until("nobody is in it", |card| {
                    attempts.retain_mut(|attempt| {
                        let ended = attempt.queue.ended(card);
                        let refused = ended.iter().any(|end| end.status != Status::SUCCESS);
                        if refused {
                            card.wire.reset(attempt.queue.socket);
                        }
                        !refused && !card.wire.has_ended(attempt.queue.socket)
                    });
                    attempts.is_empty()
                });
            }
        }
        assert!([Ok(()), Err(ChangeError::NoSuchSubsystem)].contains(&card.change(&delete(OTHER))));
        assert_eq!(card.change(&delete(OTHER)), Ok(()));
        for attempt in &attempts {
            card.wire.reset(attempt.queue.socket);
        }
        assert_eq!(all_idle(&mut card), before, "seed {seed}");
        assert!(card.cores_are_quiet());
    }
}
