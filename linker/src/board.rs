//! `board.toml`: its shape, and what must be true of it.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::Deserialize;

use crate::plan::Plan;

/// The target of a board that is a process of the machine it is built on.
pub const HOST: &str = "host";

/// A board, as its file describes it and after it was checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The board's name: its folder and its binary crate.
    pub name: String,
    /// The compiler's target triple; [`HOST`] for a board that is a process of the machine it is built on.
    pub target: String,
    /// Where the image goes and how large it may be. A process has none of these three.
    pub image: Option<Image>,
    /// The console of crashes before the device tree is read.
    pub console: Option<Console>,
    /// Stacks of the cores.
    pub stacks: Option<Stacks>,
    /// Cores.
    pub cores: Cores,
    /// Core plans, at least one; of those with `others`, one for each number of cores.
    #[serde(rename = "plan")]
    pub plans: Vec<Plan>,
}

/// Where the image is linked and how large it may be; all in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// First address of DRAM.
    pub dram_base: u64,
    /// Distance of the image from it (the boot header's `text_offset`).
    pub text_offset: u64,
    /// Upper limit of text and data together.
    pub limit_bytes: u64,
}

/// The console that is used before the device tree is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// Address of a PL011 that the loader has set up; 0 for none.
    pub early_address: u64,
}

/// Cores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cores {
    /// How many cores the image can use.
    pub maximum: u64,
}

/// Stacks of the cores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stacks {
    /// Stack of each core, a multiple of 4096.
    pub core_bytes: u64,
    /// Stack of each core for exceptions, a multiple of 4096.
    pub exception_bytes: u64,
}

/// What is wrong with a board's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoardError {
    /// Not TOML of the right shape.
    Shape(String),
    /// A number that cannot be.
    Number(String),
    /// No plan, two plans of the same name, or none that works with one core.
    Plans(String),
    /// An entry names a role that does not exist.
    UnknownRole {
        /// The plan.
        plan: String,
        /// The role.
        role: String,
    },
    /// An entry without a core, or with one that the plan or the board does not have.
    NoSuchCore {
        /// The plan.
        plan: String,
        /// The role.
        role: String,
        /// What was written.
        core: Option<u64>,
    },
    /// A role that a card cannot do without is run by no core.
    RoleWithoutCore {
        /// The plan.
        plan: String,
        /// The role.
        role: &'static str,
    },
    /// A data role without a queue, or `control` with one.
    Queue {
        /// The plan.
        plan: String,
        /// The role.
        role: String,
    },
    /// A core that runs `net` does not run `drive` with the queue of the same number, or a number is left out.
    DataCore {
        /// The plan.
        plan: String,
        /// The number.
        queue: u16,
    },
    /// Two entries claim one queue.
    TwoOwners {
        /// The plan.
        plan: String,
        /// The role.
        role: String,
        /// The queue; `None` for `control`.
        queue: Option<u16>,
        /// Core of the first and of the second owner.
        cores: (u64, u64),
    },
}

impl fmt::Display for BoardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(text) | Self::Number(text) | Self::Plans(text) => f.write_str(text),
            Self::UnknownRole { plan, role } => {
                write!(f, "plan \"{plan}\": unknown role \"{role}\" (control, net, drive, host, offload)")
            }
            Self::NoSuchCore { plan, role, core: Some(core) } => {
                write!(
                    f,
                    "plan \"{plan}\": role \"{role}\" is given to core {core}, which the plan does not have"
                )
            }
            Self::NoSuchCore { plan, role, core: None } => {
                write!(f, "plan \"{plan}\": role \"{role}\" is given to no core")
            }
            Self::RoleWithoutCore { plan, role } => {
                write!(f, "plan \"{plan}\": no core runs role \"{role}\"")
            }
            Self::Queue { plan, role } => {
                write!(f, "plan \"{plan}\": role \"{role}\" needs a queue, and \"control\" has none")
            }
            Self::DataCore { plan, queue } => {
                write!(f, "plan \"{plan}\": no core runs both net queue {queue} and drive queue {queue}")
            }
            Self::TwoOwners { plan, role, queue, cores: (first, second) } => {
                let queue = queue.map_or(String::new(), |queue| format!(" queue {queue}"));
                write!(f, "plan \"{plan}\": {role}{queue} has two owners, core {first} and core {second}")
            }
        }
    }
}

impl std::error::Error for BoardError {}

impl Board {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// A sentence that begins with the file's name.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Parses and checks the contents of a `board.toml`.
    ///
    /// # Errors
    /// The first thing found wrong.
    pub fn parse(text: &str) -> Result<Self, BoardError> {
        let mut board: Self = toml::from_str(text).map_err(|error| BoardError::Shape(error.to_string()))?;
        board.check_numbers()?;
        board.check_plan_names()?;
        board.plans =
            board.plans.iter().flat_map(|plan| plan.for_each_number_of_cores(board.cores.maximum)).collect();
        board.plans.iter().try_for_each(|plan| plan.check(board.cores.maximum))?;
        Ok(board)
    }

    fn check_numbers(&self) -> Result<(), BoardError> {
        let number =
            |fine: bool, text: &str| if fine { Ok(()) } else { Err(BoardError::Number(text.into())) };
        let pages = |bytes: u64| bytes > 0 && bytes.is_multiple_of(crate::PAGE_BYTES);
        number((1..=8).contains(&self.cores.maximum), "cores.maximum is not between 1 and 8")?;
        let (Some(image), Some(_), Some(stacks)) = (&self.image, &self.console, &self.stacks) else {
            let none = self.image.is_none() && self.console.is_none() && self.stacks.is_none();
            return number(
                self.is_process() && none,
                "image, console and stacks belong to every board but one whose target is \"host\"",
            );
        };
        number(!self.is_process(), "a board whose target is \"host\" has no image, console or stacks")?;
        number(pages(stacks.core_bytes), "stacks.core_bytes is not a multiple of 4096")?;
        number(pages(stacks.exception_bytes), "stacks.exception_bytes is not a multiple of 4096")?;
        number(
            image.dram_base.is_multiple_of(0x20_0000) && image.text_offset.is_multiple_of(0x1000),
            "image.dram_base is not a multiple of 2 MiB or image.text_offset not of 4096",
        )
    }

    /// Whether the board is a process of the machine it is built on, not an image for a machine of its own.
    #[must_use]
    pub fn is_process(&self) -> bool {
        self.target == HOST
    }

    fn check_plan_names(&self) -> Result<(), BoardError> {
        let mut names = BTreeSet::new();
        for plan in &self.plans {
            if !names.insert(plan.name.as_str()) {
                return Err(BoardError::Plans(format!("two plans are called \"{}\"", plan.name)));
            }
        }
        if !self.plans.iter().any(|plan| plan.cores == 1 && plan.automatic) {
            return Err(BoardError::Plans("no plan works with one core".into()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../boards/qemu-aarch64/board.toml");

    fn replaced(from: &str, to: &str) -> Result<Board, BoardError> {
        assert!(GOOD.contains(from), "the test's text is not in the file: {from}");
        Board::parse(&GOOD.replace(from, to))
    }

    #[test]
    fn the_boards_own_file_is_accepted() {
        let board = Board::parse(GOOD).unwrap();
        assert_eq!(board.name, "qemu-aarch64");
        assert!(board.plans.len() >= 2);
    }

    #[test]
    fn a_process_has_plans_and_no_image() {
        const PROCESS: &str = include_str!("../../boards/hosted/board.toml");
        let board = Board::parse(PROCESS).unwrap();
        assert!(board.is_process() && board.image.is_none());
        let other = PROCESS.replace("\"host\"", "\"aarch64-unknown-none\"");
        assert!(matches!(Board::parse(&other), Err(BoardError::Number(_))));
        assert!(matches!(replaced("aarch64-unknown-none", "host"), Err(BoardError::Number(_))));
    }

    #[test]
    fn impossible_numbers_and_unknown_keys_are_refused() {
        assert!(matches!(replaced("maximum = 8", "maximum = 9"), Err(BoardError::Number(_))));
        assert!(matches!(replaced("524_288", "524_289"), Err(BoardError::Number(_))));
        assert!(matches!(replaced("maximum = 8", "maximum = 8\nminimum = 1"), Err(BoardError::Shape(_))));
        assert!(matches!(replaced("cores = 1", "cores = 3"), Err(BoardError::Plans(_))));
    }
}
