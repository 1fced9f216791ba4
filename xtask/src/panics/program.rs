//! A linked program as functions and the branches between them.

use super::code::{Flow, decode};
use anyhow::{Context, Result, ensure};
use object::read::elf::ElfFile64;
use object::{Architecture, Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind};
use std::collections::{BTreeMap, BTreeSet};

/// A function of the symbol table.
#[derive(Debug)]
pub struct Function {
    /// Its path as Rust writes it, without the hash.
    pub name: String,
    start: u64,
    end: u64,
}

/// A direct branch from one function into another, or a trap.
#[derive(Clone, Copy, Debug)]
pub struct Branch {
    /// The address of the instruction.
    pub address: u64,
    /// The function that it stands in.
    pub from: usize,
    /// The function that it goes to; nothing for a trap.
    pub to: Option<usize>,
}

/// Functions, in the order of their addresses, and what leads from one to another.
#[derive(Debug, Default)]
pub struct Program {
    /// All functions.
    pub functions: Vec<Function>,
    /// All branches that leave their function, and all traps.
    pub branches: Vec<Branch>,
    /// Functions with calls through registers, once for each call.
    pub indirect: Vec<usize>,
    /// Branches inside a function: where to, and the addresses from which.
    inside: BTreeMap<u64, Vec<u64>>,
    /// Instructions after which the next one is not reached.
    ends: BTreeSet<u64>,
}

impl Program {
    /// Reads the functions and branches of an AArch64 ELF file.
    pub fn read(elf: &ElfFile64<'_>) -> Result<Self> {
        ensure!(elf.architecture() == Architecture::Aarch64, "only AArch64 code can be read");
        let mut program = Self { functions: functions(elf), ..Self::default() };
        let data = data_ranges(elf);
        for section in elf.sections() {
            let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
            if sh_flags & u64::from(object::elf::SHF_EXECINSTR) == 0 {
                continue;
            }
            let bytes = section.data().context("a section of code cannot be read")?;
            for (index, word) in bytes.chunks_exact(4).enumerate() {
                let address = section.address() + 4 * index as u64;
                if !data.iter().any(|range| range.contains(&address)) {
                    let word = u32::from_le_bytes(word.try_into().expect("chunks of 4 bytes"));
                    program.add(address, decode(address, word));
                }
            }
        }
        Ok(program)
    }

    fn add(&mut self, address: u64, flow: Flow) {
        let Some(from) = self.containing(address) else { return };
        match flow {
            Flow::Call(target) | Flow::Jump(target) | Flow::Conditional(target) => {
                match self.containing(target) {
                    Some(to) if to == from => self.inside.entry(target).or_default().push(address),
                    Some(to) => self.branches.push(Branch { address, from, to: Some(to) }),
                    None => {}
                }
            }
            Flow::Trap => self.branches.push(Branch { address, from, to: None }),
            Flow::Indirect => self.indirect.push(from),
            Flow::End | Flow::Other => {}
        }
        if matches!(flow, Flow::Jump(_) | Flow::Trap | Flow::End) {
            self.ends.insert(address);
        }
    }

    /// The straight run of code that ends at `address`: its first instruction, and the instructions from which control
    /// comes to that one.
    pub fn run_to(&self, address: u64) -> (u64, Vec<u64>) {
        let start = self.containing(address).map_or(address, |function| self.functions[function].start);
        let mut at = address;
        loop {
            let mut ways = self.inside.get(&at).cloned().unwrap_or_default();
            let falls_through = at > start && !self.ends.contains(&(at - 4));
            if !ways.is_empty() && falls_through {
                ways.push(at - 4);
            }
            if !ways.is_empty() || !falls_through {
                return (at, ways);
            }
            at -= 4;
        }
    }

    /// Tells that calls of these functions never return.
    pub fn set_diverging(&mut self, functions: &BTreeSet<usize>) {
        let diverging = |branch: &&Branch| branch.to.is_some_and(|to| functions.contains(&to));
        self.ends.extend(self.branches.iter().filter(diverging).map(|branch| branch.address));
    }

    /// The function that has this address.
    fn containing(&self, address: u64) -> Option<usize> {
        let after = self.functions.partition_point(|function| function.start <= address);
        let index = after.checked_sub(1)?;
        (address < self.functions[index].end).then_some(index)
    }

    /// All functions that direct branches reach from those given, with these.
    pub fn reachable(&self, roots: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
        let mut reached = BTreeSet::new();
        let mut waiting: Vec<usize> = roots.into_iter().collect();
        while let Some(function) = waiting.pop() {
            if reached.insert(function) {
                let edges = self.branches.iter().filter(|branch| branch.from == function);
                waiting.extend(edges.filter_map(|branch| branch.to));
            }
        }
        reached
    }
}

/// The symbol table's functions; one without a size ends where the next begins.
fn functions(elf: &ElfFile64<'_>) -> Vec<Function> {
    let mut functions: Vec<Function> = elf
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition())
        .filter_map(|symbol| {
            let (name, start) = (symbol.name().ok()?, symbol.address());
            let name = format!("{:#}", rustc_demangle::demangle(name));
            (!name.starts_with('$')).then_some(Function { name, start, end: start + symbol.size() })
        })
        .collect();
    functions.sort_by_key(|function| function.start);
    functions.dedup_by_key(|function| function.start);
    let starts: Vec<u64> = functions.iter().skip(1).map(|function| function.start).collect();
    for (function, next) in functions.iter_mut().zip(starts) {
        if function.end == function.start || function.end > next {
            function.end = next;
        }
    }
    functions
}

/// Where data stands among the code: from each mapping symbol `$d` to the next `$x` (ELF for the Arm 64-bit
/// Architecture, section 5.5.4).
fn data_ranges(elf: &ElfFile64<'_>) -> Vec<std::ops::Range<u64>> {
    let mapping = |symbol: &object::read::elf::ElfSymbol64<'_, '_>| {
        let name = symbol.name().ok()?;
        let of = |kind: &str| name == kind || name.starts_with(&format!("{kind}."));
        (of("$d") || of("$x")).then(|| (symbol.address(), symbol.section_index(), of("$d")))
    };
    let mut marks: Vec<_> = elf.symbols().filter_map(|symbol| mapping(&symbol)).collect();
    marks.sort_by_key(|(address, _, _)| *address);
    let ends = marks.iter().skip(1).map(|mark| mark.0).chain([u64::MAX]);
    let code: Vec<_> = elf
        .sections()
        .filter(|section| section.kind() == object::SectionKind::Text)
        .map(|section| section.index())
        .collect();
    marks
        .iter()
        .zip(ends)
        .filter(|((_, section, data), _)| *data && section.is_some_and(|section| code.contains(&section)))
        .map(|((start, _, _), end)| *start..end)
        .collect()
}
