//! What a board's build gets out of `board.toml`: numbers for the linker script, constants for the code.

use std::fmt::Write;

use crate::{Board, Console, Image, Plan, Role, Stacks};

/// Size of a page, of a guard page too.
pub const PAGE_BYTES: u64 = 4096;

/// Size of the region that keeps its contents over a reset.
const CRASH_BYTES: u64 = hal_crash::REGION_BYTES as u64;

/// The linker script of numbers that `image.ld` is written in terms of; `None` for a board without an image.
#[must_use]
pub fn numbers(board: &Board) -> Option<String> {
    let (Some(Image { dram_base, text_offset, .. }), Some(Console { early_address }), Some(stacks)) =
        (&board.image, &board.console, &board.stacks)
    else {
        return None;
    };
    let Stacks { core_bytes, exception_bytes } = stacks;
    let mut text = String::from("/* Generated from board.toml. */\n");
    for (name, value) in [
        ("IMAGE_BASE", dram_base + text_offset),
        ("TEXT_OFFSET", *text_offset),
        ("PAGE_BYTES", PAGE_BYTES),
        ("CORES_MAXIMUM", board.cores.maximum),
        ("STACK_BYTES", *core_bytes),
        ("EXCEPTION_STACK_BYTES", *exception_bytes),
        ("CRASH_BYTES", CRASH_BYTES),
        ("EARLY_CONSOLE", *early_address),
    ] {
        let _ = writeln!(text, "{name} = {value:#x};");
    }
    Some(text)
}

/// The Rust file that the board includes in a module of its own, with `Plan`, `PlanEntry` and `Role` in scope: its
/// name and its plans. Cores and stacks are the linker script's business and reach the code as symbols.
#[must_use]
pub fn constants(board: &Board) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "/// The board's name.\npub const NAME: &str = {:?};", board.name);
    let _ = writeln!(
        text,
        "/// Cores that the board has at most.\npub const MAX_CORES: usize = {};",
        board.cores.maximum
    );
    let _ = writeln!(text, "/// Core plans in the order of `board.toml`.");
    let _ = writeln!(text, "pub const PLANS: &[Plan] = &[");
    for plan in &board.plans {
        let Plan { name, cores, automatic, .. } = plan;
        let _ =
            writeln!(text, "    Plan {{ name: {name:?}, cores: {cores}, automatic: {automatic}, entries: &[");
        for entry in &plan.entries {
            let role = Role::from_name(&entry.role).unwrap_or(Role::Control);
            let (core, queue) = (entry.core.unwrap_or(0), entry.queue.unwrap_or(0));
            let _ =
                writeln!(text, "        PlanEntry {{ core: {core}, role: Role::{role:?}, queue: {queue} }},");
        }
        let _ = writeln!(text, "    ] }},");
    }
    text.push_str("];\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_constants_come_from_the_file() {
        let board = Board::parse(include_str!("../../boards/qemu-aarch64/board.toml")).unwrap();
        let script = numbers(&board).expect("an image");
        assert!(script.contains("IMAGE_BASE = 0x40200000;"), "{script}");
        let code = constants(&board);
        assert!(code.contains("PlanEntry { core: 1, role: Role::Net, queue: 0 }"), "{code}");
        assert!(code.contains("pub const MAX_CORES: usize = 8;"), "{code}");
        assert_eq!(code.matches("pub const ").count(), 3, "nothing that a board does not use: {code}");
        assert!(script.contains("CORES_MAXIMUM = 0x8;"), "{script}");
    }
}
