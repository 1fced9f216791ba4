//! Some seeds in the ordinary tests, and that a seed decides everything.

use sim::trace::{Detail, Trace};

fn run(seed: u64) -> Trace {
    println!("seed {seed}");
    let trace = Trace::new(Detail::Silent, None);
    sim::run_seed(seed, &trace);
    trace
}

#[test]
fn a_seed_replays_bit_for_bit() {
    for seed in [3, 5] {
        let (first, second) = (run(seed), run(seed));
        assert_eq!(first.counts(), second.counts(), "seed {seed}");
        assert_eq!((first.hash(), first.events()), (second.hash(), second.events()), "seed {seed}");
    }
    assert_ne!(run(3).hash(), run(5).hash());
}

#[test]
fn hosts_that_come_and_go_over_the_worst_network_leave_nothing_behind() {
    let trace = Trace::new(Detail::Silent, None);
    sim::run_cycles(1, 40, &trace);
}
