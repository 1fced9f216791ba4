//! Which branches of a program can end in a panic, whose they are, and which the core loop can reach.

use super::origin::Place;
use super::program::{Branch, Program};
use anyhow::Result;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Functions of `core` that panic and do nothing else, by the start of their path.
const PANICS: [&str; 9] = [
    "core::panicking::",
    "core::option::unwrap_failed",
    "core::option::expect_failed",
    "core::result::unwrap_failed",
    "core::slice::index::slice_",
    "core::str::slice_error_fail",
    "core::cell::panic_",
    "alloc::raw_vec::handle_error",
    "alloc::alloc::handle_alloc_error",
];

/// The same by the last part of the path: checks of arguments that `core` keeps beside the function they belong to.
const PANIC_NAMES: [&str; 3] = ["len_mismatch_fail", "panic_on_ord_violation", "do_panic"];

/// Functions that start what a core does after boot: its loop, and what the loop calls through `dyn Role`.
const LOOP: [&str; 2] = ["dataplane::core_loop::CoreLoop<", " as dataplane::core_loop::Role>::"];

/// What the panic itself runs: it may hold anything.
const REPORT: [&str; 2] = ["hal_arch_aarch64::exception::", "rust_begin_unwind"];

/// A panic that is reached in more ways is its function's.
const MOST_WAYS: usize = 200;

/// A branch that ends in a panic if it is taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Site {
    /// Who wrote it.
    pub place: Place,
    /// What panics: the function of `core`, or `abort`.
    pub kind: String,
    /// Direct calls lead here from the core loop.
    pub in_loop: bool,
}

/// All sites of a program, and how much of it was seen.
#[derive(Debug, Default)]
pub struct Sites {
    /// In the order of their places.
    pub sites: Vec<Site>,
    /// Calls through registers in what the core loop reaches: what they reach is not known.
    pub indirect_in_loop: usize,
}

/// Where code comes from.
pub trait Origin {
    /// Who wrote the code at an address; nothing where it is a library's own.
    fn of(&self, address: u64) -> Result<Option<Place>>;
    /// The place that a panic is called with, where the straight run of code loads one; nothing inside for a library's.
    fn told(&self, run: RangeInclusive<u64>) -> Option<Option<Place>>;
}

/// Finds all sites.
pub fn find(program: &mut Program, origin: &impl Origin) -> Result<Sites> {
    let functions = program.functions.iter().enumerate();
    let panics = functions.filter(|(_, function)| is_panic(&function.name)).map(|(index, _)| index).collect();
    program.set_diverging(&panics);
    let program = &*program;
    let all = 0..program.functions.len();
    let named = |names: &[&str], index: usize| {
        let name = &program.functions[index].name;
        names.iter().any(|part| name.contains(part))
    };
    let reports: BTreeSet<usize> = all.clone().filter(|index| named(&REPORT, *index)).collect();
    let reached = program.reachable(all.filter(|index| named(&LOOP, *index)));
    let mut found = Sites {
        indirect_in_loop: program.indirect.iter().filter(|function| reached.contains(function)).count(),
        ..Sites::default()
    };
    // A function that is wholly a library's own and panics makes each call of it a site of the caller.
    let mut ends_in_panic = panics.clone();
    loop {
        let mut more = BTreeSet::new();
        found.sites.clear();
        for branch in &program.branches {
            let own = panics.contains(&branch.from) || reports.contains(&branch.from);
            let harmless = branch.to.is_some_and(|to| !ends_in_panic.contains(&to));
            if own || harmless {
                continue;
            }
            let places = places(program, branch.address, origin)?;
            if places.is_empty() && !ends_in_panic.contains(&branch.from) {
                more.insert(branch.from);
            }
            let (kind, in_loop) = (kind(program, branch), reached.contains(&branch.from));
            let site = |place| Site { place, kind: kind.clone(), in_loop };
            found.sites.extend(places.into_iter().map(site));
        }
        if more.is_empty() {
            break;
        }
        ends_in_panic.extend(more);
    }
    found.sites.sort();
    // One place of the source counts once, however often the compiler has copied it into a function.
    found.sites.dedup();
    Ok(found)
}

/// Who wrote the panic at an address. Where the compiler has joined the panics of several places, the one instruction
/// that is left has no line of its own: then each way that leads there counts, by the location that is loaded on it.
fn places(program: &Program, address: u64, origin: &impl Origin) -> Result<BTreeSet<Place>> {
    let own = origin.of(address)?;
    if own.as_ref().is_none_or(|place| place.line != 0) {
        return Ok(own.into_iter().collect());
    }
    let mut places = BTreeSet::new();
    let mut seen = BTreeSet::from([address]);
    let mut waiting = vec![address];
    while let Some(address) = waiting.pop() {
        let (start, ways) = program.run_to(address);
        let told = origin.told(start..=address);
        // A library's own panic is the caller's, whose line the way here still has.
        let by_way = matches!(told, Some(None));
        for way in ways {
            let place = origin.of(way)?.filter(|place| by_way && place.line != 0);
            if let Some(place) = place {
                places.insert(place);
            } else if (told.is_none() || by_way) && seen.len() < MOST_WAYS && seen.insert(way) {
                waiting.push(way);
            }
        }
        places.extend(told.flatten());
    }
    if places.is_empty() {
        places.extend(own);
    }
    Ok(places)
}

fn is_panic(name: &str) -> bool {
    let last = name.rsplit("::").next().unwrap_or(name);
    PANICS.iter().any(|start| name.starts_with(start)) || PANIC_NAMES.contains(&last)
}

fn kind(program: &Program, branch: &Branch) -> String {
    match branch.to {
        Some(to) => program.functions[to].name.clone(),
        None => "abort".to_owned(),
    }
}
