//! Where the instructions of a measurement go, by the functions that they were written in.

use crate::crash::symbols::Symbols;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Functions that are printed.
const SHOWN: usize = 40;
/// Every instruction of AArch64.
const INSTRUCTION_BYTES: u64 = 4;

/// Address and instructions of a block, and how often each core has entered it.
type Entries = BTreeMap<(u64, u64), Vec<u64>>;

/// Counts of the plugin's `blocks=`, added up over several runs.
pub struct Profile {
    file: PathBuf,
    begun: Entries,
    /// Instructions by core and address.
    spent: BTreeMap<(usize, u64), u64>,
    commands: u64,
}

impl Profile {
    /// One that the plugin writes to this file.
    pub fn new(file: PathBuf) -> Self {
        Self { file, begun: Entries::new(), spent: BTreeMap::new(), commands: 0 }
    }

    /// Where the plugin is to write.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// From here on it counts.
    pub fn begin(&mut self) -> Result<()> {
        self.begun = read(&self.file)?;
        Ok(())
    }

    /// Takes in what was run since [`Profile::begin`], for so many commands.
    pub fn end(&mut self, commands: u64) -> Result<()> {
        self.commands += commands;
        for ((address, instructions), cores) in read(&self.file)? {
            let before = self.begun.get(&(address, instructions));
            for (core, entered) in cores.iter().enumerate() {
                let before = before.and_then(|cores| cores.get(core)).unwrap_or(&0);
                let times = entered.saturating_sub(*before);
                for instruction in (0..instructions).filter(|_| times > 0) {
                    let place = (core, address + instruction * INSTRUCTION_BYTES);
                    *self.spent.entry(place).or_default() += times;
                }
            }
        }
        Ok(())
    }

    /// Prints the functions that took most, per command, and writes all stacks.
    pub fn report(&self, elf: &Path, folded: &Path) -> Result<()> {
        let (_, symbols) = Symbols::open(elf)?;
        let mut stacks: BTreeMap<String, u64> = BTreeMap::new();
        let mut inclusive: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (&(core, address), &count) in &self.spent {
            let mut functions: Vec<String> =
                symbols.at(address).into_iter().map(|frame| short(&frame.function)).collect();
            if let Some(innermost) = functions.first() {
                inclusive.entry(innermost.clone()).or_default().0 += count;
            }
            functions.reverse();
            *stacks.entry(format!("core {core};{}", functions.join(";"))).or_default() += count;
            functions.sort();
            functions.dedup();
            for function in functions {
                inclusive.entry(function).or_default().1 += count;
            }
        }
        let mut text = String::new();
        for (stack, count) in stacks {
            let _ = writeln!(text, "{stack} {count}");
        }
        std::fs::write(folded, text).with_context(|| format!("{} cannot be written", folded.display()))?;
        let mut functions: Vec<_> = inclusive.into_iter().collect();
        functions.sort_by_key(|(_, (_, whole))| std::cmp::Reverse(*whole));
        let commands = self.commands.max(1);
        println!(
            "instructions per command at depth 32, by function: its own, and with what is inlined in it"
        );
        for (function, (own, whole)) in functions.iter().take(SHOWN) {
            println!("  {:7} {:7}  {function}", own / commands, whole / commands);
        }
        Ok(())
    }
}

/// Without its generic arguments and the hash at its end.
fn short(function: &str) -> String {
    let (mut name, mut depth) = (String::new(), 0_u32);
    let function =
        function.rsplit_once("::h").filter(|(_, hash)| hash.len() == 16).map_or(function, |(name, _)| name);
    for (at, letter) in function.char_indices() {
        // A type in front of its method stays: `<net::Stack<F>>::poll`.
        let opens = letter == '<' && at > 0 && !name.is_empty() && name != "<";
        match letter {
            '<' if opens || depth > 0 => depth += 1,
            '>' if depth > 0 => depth -= 1,
            _ if depth == 0 => name.push(letter),
            _ => {}
        }
    }
    name
}

fn read(file: &Path) -> Result<Entries> {
    let text = crate::paths::read(file).context("the plugin writes no blocks")?;
    let line = |line: &str| {
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let instructions = words.next()?.parse().ok()?;
        let cores = words.map(|count| count.parse().ok()).collect::<Option<Vec<u64>>>()?;
        Some(((address, instructions), cores))
    };
    text.lines().map(line).collect::<Option<Entries>>().context("the plugin's blocks cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_counts_each_of_its_instructions_as_often_as_it_was_entered() {
        let folder = crate::paths::TemporaryFolder::for_sockets().unwrap();
        let mut profile = Profile::new(folder.join("blocks"));
        std::fs::write(profile.file(), "1000 2 5 0\n").unwrap();
        profile.begin().unwrap();
        std::fs::write(profile.file(), "1000 2 7 1\n1008 1 0 3\n").unwrap();
        profile.end(10).unwrap();
        let spent =
            [((0, 0x1000), 2), ((0, 0x1004), 2), ((1, 0x1000), 1), ((1, 0x1004), 1), ((1, 0x1008), 3)];
        assert_eq!(profile.spent, BTreeMap::from(spent));
    }

    #[test]
    fn generic_arguments_are_left_out_of_names() {
        assert_eq!(short("net::stack::Stack<F>::poll"), "net::stack::Stack::poll");
        assert_eq!(short("core::slice::get<u8, usize>::h0123456789abcdef"), "core::slice::get");
        assert_eq!(short("<net::Stack<F>>::poll"), "<net::Stack>::poll");
    }
}
