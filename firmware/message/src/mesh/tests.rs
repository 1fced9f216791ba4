//! The mesh in any interleaving of its cores' turns.

use proptest::prelude::*;

use super::*;

/// Number `number` of what a core has said to another; 0 says the same however often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    from: u8,
    number: u32,
}

impl Merge for Said {
    fn absorbs(&self, later: &Self) -> bool {
        self.number == 0 && later.number == 0
    }
}

fn meshes(cores: usize) -> std::vec::Vec<Mesh<Said>> {
    let mut arena = Arena::leak_for_host(1 << 20);
    Mesh::split(&mut arena, cores).unwrap().into_iter().collect()
}

#[test]
fn a_core_alone_has_nobody_to_talk_to() {
    let mut alone = meshes(1).remove(0);
    assert!(alone.others().is_empty() && !alone.has_work());
    let message = Said { from: 0, number: 1 };
    assert_eq!((alone.send(0, message), alone.send(1, message)), (Err(message), Err(message)));
    assert_eq!((alone.receive(), alone.flush()), (None, 0));
}

#[test]
fn what_finds_the_ring_full_waits_in_order_and_is_bounded() {
    let mut cores = meshes(2);
    let limit = (MESH_RING_ENTRIES + BACKLOG_ENTRIES) as u32;
    for number in 1..=limit {
        assert_eq!(cores[0].takes_news(1), number <= (MESH_RING_ENTRIES + NEWS_LIMIT) as u32);
        assert_eq!(cores[0].send(1, Said { from: 0, number }), Ok(()));
    }
    let rest = Said { from: 0, number: limit + 1 };
    assert_eq!(cores[0].send(1, rest), Err(rest));
    assert_eq!(cores[0].take_news_for(), CoreSet::all_but(0, 2));
    assert!(cores[0].take_news_for().is_empty() && cores[0].has_work() && cores[1].has_work());
    let mut expected = 1;
    while expected <= limit {
        while let Some((from, said)) = cores[1].receive() {
            assert_eq!((from, said.number), (0, expected));
            expected += 1;
        }
        cores[0].flush();
    }
    assert!(!cores[0].has_work() && !cores[1].has_work());
    let counters = cores[0].counters();
    assert_eq!((counters.sent, counters.deepest_backlog), (u64::from(limit), BACKLOG_ENTRIES));
}

#[test]
fn everybody_is_listened_to_in_turn() {
    let mut cores = meshes(4);
    for from in 1..4u8 {
        for number in 1..=5 {
            cores[usize::from(from)].send(0, Said { from, number }).unwrap();
        }
    }
    let order: std::vec::Vec<_> = (0..6).map(|_| cores[0].receive().unwrap().0).collect();
    assert_eq!(order, [1, 2, 3, 1, 2, 3]);
}

#[derive(Debug, Clone)]
enum Step {
    Send { from: usize, to: usize, mergeable: bool },
    Receive { core: usize, most: usize },
    Flush { core: usize },
}

fn step(cores: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..cores, 0..cores, prop::bool::weighted(0.2))
            .prop_map(|(from, to, mergeable)| Step::Send { from, to, mergeable }),
        1 => (0..cores, 0..60usize).prop_map(|(core, most)| Step::Receive { core, most }),
        1 => (0..cores).prop_map(|core| Step::Flush { core }),
    ]
}

/// A core's expectations of what another has said.
#[derive(Clone, Copy, Default)]
struct Heard {
    last: u32,
    mergeable: u32,
}

fn hear(core: &mut Mesh<Said>, heard: &mut [Heard], most: usize) {
    for _ in 0..most {
        let Some((from, said)) = core.receive() else { return };
        assert_eq!(said.from, from, "it comes by the ring of its sender");
        let heard = &mut heard[usize::from(from)];
        if said.number == 0 {
            heard.mergeable += 1;
        } else {
            assert_eq!(said.number, heard.last + 1, "once each, and in order");
            heard.last = said.number;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_arrives_once_and_in_order(
        (count, steps) in (2usize..6).prop_flat_map(|n| (Just(n), prop::collection::vec(step(n), 0..1000)))
    ) {
        let mut cores = meshes(count);
        let mut said = vec![Heard::default(); count * count];
        let mut heard = vec![vec![Heard::default(); count]; count];
        for step in steps {
            match step {
                Step::Send { from, to, mergeable } if from != to => {
                    let place = &mut said[from * count + to];
                    let number = if mergeable { 0 } else { place.last + 1 };
                    if cores[from].send(to as u8, Said { from: from as u8, number }).is_ok() {
                        place.last = place.last.max(number);
                        place.mergeable += u32::from(mergeable);
                    }
                }
                Step::Send { .. } => {}
                Step::Receive { core, most } => hear(&mut cores[core], &mut heard[core], most),
                Step::Flush { core } => {
                    cores[core].flush();
                }
            }
        }
        while cores.iter_mut().any(Mesh::has_work) {
            for (core, heard) in cores.iter_mut().zip(&mut heard) {
                core.flush();
                hear(core, heard, usize::MAX);
            }
        }
        for from in 0..count {
            for to in 0..count {
                let (said, heard) = (said[from * count + to], heard[to][from]);
                prop_assert_eq!(said.last, heard.last);
                prop_assert!(heard.mergeable <= said.mergeable);
                prop_assert_eq!(heard.mergeable > 0, said.mergeable > 0);
            }
        }
    }
}
