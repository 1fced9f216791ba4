//! Core plans in `board.toml`: their shape, what they stand for, and what must be true of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::BoardError;

/// Data cores of a plan: as many as share a port. `app` holds it against `net`.
pub const MAX_DATA_CORES: usize = 7;

/// Which core runs which role on which queue, on machines with at least `cores` cores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// What `plan=` in the boot arguments calls it.
    pub name: String,
    /// Fewest cores it works with.
    pub cores: u64,
    /// One entry for each queue, and one for `control`.
    pub entries: Vec<Entry>,
    /// Roles of all cores that no entry names: the first of them gets queue 0 of each role, the next queue 1, and so
    /// on.
    #[serde(default)]
    pub others: Vec<String>,
    /// Whether a card takes it without being asked for it by name.
    #[serde(default = "yes")]
    pub automatic: bool,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Index of the core.
    pub core: Option<u64>,
    /// Name of the role; see [`Role`].
    pub role: String,
    /// Number of the queue among those of its role; absent for `control`.
    pub queue: Option<u16>,
}

/// The code that polls one kind of queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Management: logs, health, mailbox.
    Control,
    /// Ethernet queues.
    Net,
    /// Queues of drives.
    Drive,
    /// Queues of the server behind the endpoint.
    Host,
    /// Queues of accelerators.
    Offload,
}

impl Role {
    /// The role called `name` in `board.toml`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "control" => Self::Control,
            "net" => Self::Net,
            "drive" => Self::Drive,
            "host" => Self::Host,
            "offload" => Self::Offload,
            _ => return None,
        })
    }
}

/// Roles that every plan must give to a core.
const NEEDED: [(Role, &str); 3] = [(Role::Control, "control"), (Role::Net, "net"), (Role::Drive, "drive")];

const fn yes() -> bool {
    true
}

impl Plan {
    /// The plan itself, or, where the cores that no entry names run `others`, one plan for each number of cores up
    /// to `cores_maximum`.
    pub(crate) fn for_each_number_of_cores(&self, cores_maximum: u64) -> Vec<Self> {
        if self.others.is_empty() {
            return vec![self.clone()];
        }
        let named: BTreeSet<u64> = self.entries.iter().filter_map(|entry| entry.core).collect();
        let with = |cores: u64| {
            let mut plan = Self { cores, others: Vec::new(), ..self.clone() };
            for (core, queue) in (0..cores).filter(|core| !named.contains(core)).zip(0..) {
                let entry =
                    |role: &String| Entry { core: Some(core), role: role.clone(), queue: Some(queue) };
                plan.entries.extend(self.others.iter().map(entry));
            }
            plan
        };
        (self.cores..=cores_maximum.max(self.cores)).map(with).collect()
    }

    /// Holds the plan against the rules; `others` has been written out.
    pub(crate) fn check(&self, cores_maximum: u64) -> Result<(), BoardError> {
        if self.cores == 0 || self.cores > cores_maximum {
            return Err(BoardError::Plans(format!(
                "plan \"{}\": cores is not between 1 and cores.maximum",
                self.name
            )));
        }
        let owners = self.owners()?;
        for (role, name) in NEEDED {
            if !owners.keys().any(|(owned, _)| *owned == role) {
                return Err(BoardError::RoleWithoutCore { plan: self.name.clone(), role: name });
            }
        }
        let count = |wanted| owners.keys().filter(|(role, _)| *role == wanted).count();
        if count(Role::Net) > MAX_DATA_CORES {
            return Err(BoardError::Plans(format!(
                "plan \"{}\": more than {MAX_DATA_CORES} data cores",
                self.name
            )));
        }
        for queue in (0..).take(count(Role::Net).max(count(Role::Drive))) {
            let owner = |role| owners.get(&(role, Some(queue)));
            if owner(Role::Net).is_none() || owner(Role::Net) != owner(Role::Drive) {
                return Err(BoardError::DataCore { plan: self.name.clone(), queue });
            }
        }
        Ok(())
    }

    /// The core of each queue, and of control.
    fn owners(&self) -> Result<BTreeMap<(Role, Option<u16>), u64>, BoardError> {
        let mut owners = BTreeMap::new();
        for entry in &self.entries {
            let (plan, role_name) = (self.name.clone(), entry.role.clone());
            let Some(role) = Role::from_name(&entry.role) else {
                return Err(BoardError::UnknownRole { plan, role: role_name });
            };
            let Some(core) = entry.core.filter(|core| *core < self.cores) else {
                return Err(BoardError::NoSuchCore { plan, role: role_name, core: entry.core });
            };
            if (role == Role::Control) != entry.queue.is_none() {
                return Err(BoardError::Queue { plan, role: role_name });
            }
            if let Some(first) = owners.insert((role, entry.queue), core) {
                let (queue, cores) = (entry.queue, (first, core));
                return Err(BoardError::TwoOwners { plan, role: role_name, queue, cores });
            }
        }
        Ok(owners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Board;

    const GOOD: &str = include_str!("../../boards/qemu-aarch64/board.toml");

    fn replaced(from: &str, to: &str) -> Result<Board, BoardError> {
        assert!(GOOD.contains(from), "the test's text is not in the file: {from}");
        Board::parse(&GOOD.replace(from, to))
    }

    /// The plan of this name for this number of cores, as (core, role, queue).
    fn entries(board: &Board, name: &str, cores: u64) -> Vec<(u64, String, Option<u16>)> {
        let plan = board.plans.iter().find(|plan| plan.name == name && plan.cores == cores).unwrap();
        plan.entries.iter().map(|entry| (entry.core.unwrap(), entry.role.clone(), entry.queue)).collect()
    }

    #[test]
    fn all_other_cores_become_data_cores_whatever_their_number() {
        let board = Board::parse(GOOD).unwrap();
        for cores in 2..=8 {
            let mut expected = vec![(0, "control".to_owned(), None)];
            for core in 1..cores {
                let queue = Some(core as u16 - 1);
                expected.extend([(core, "net".into(), queue), (core, "drive".into(), queue)]);
            }
            assert_eq!(entries(&board, "many", cores), expected);
        }
        assert!(board.plans.iter().all(|plan| plan.others.is_empty()));
    }

    #[test]
    fn the_core_for_offload_is_no_data_core() {
        let board = Board::parse(GOOD).unwrap();
        let four = entries(&board, "offload", 4);
        assert!(four.contains(&(1, "offload".into(), Some(0))), "{four:?}");
        let net: Vec<_> =
            four.iter().filter(|entry| entry.1 == "net").map(|entry| (entry.0, entry.2)).collect();
        assert_eq!(net, [(2, Some(0)), (3, Some(1))]);
    }

    #[test]
    fn two_owners_are_refused_and_both_named() {
        let line = "{ core = 1, role = \"net\", queue = 0 },";
        let error =
            replaced(line, &format!("{line}\n{{ core = 0, role = \"net\", queue = 0 }},")).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, BoardError::TwoOwners { cores: (1, 0), queue: Some(0), .. }), "{text}");
        assert!(text.contains("core 1") && text.contains("core 0") && text.contains("net queue 0"), "{text}");
    }

    #[test]
    fn a_queue_that_is_named_and_comes_with_the_others_too_has_two_owners() {
        let line = "{ core = 1, role = \"offload\", queue = 0 },";
        let error = replaced(line, "{ core = 1, role = \"net\", queue = 0 },").unwrap_err();
        assert!(
            matches!(error, BoardError::TwoOwners { cores: (1, 2), queue: Some(0), .. }),
            "the plan with the core for offload: {error}"
        );
        let text = error.to_string();
        assert!(text.contains("core 1") && text.contains("core 2") && text.contains("net queue 0"), "{text}");
    }

    #[test]
    fn net_and_drive_of_one_number_belong_to_one_core_and_numbers_leave_nothing_out() {
        let line = "{ core = 1, role = \"drive\", queue = 0 },";
        let with = |new: &str| replaced(line, new).unwrap_err();
        assert!(matches!(
            with("{ core = 0, role = \"drive\", queue = 0 },"),
            BoardError::DataCore { queue: 0, .. }
        ));
        let gap =
            with("{ core = 1, role = \"drive\", queue = 0 },\n{ core = 1, role = \"net\", queue = 2 },");
        assert!(gap.to_string().contains("net queue 1 and drive queue 1"), "{gap}");
        assert!(matches!(with("{ core = 1, role = \"drive\", queue = 1 },"), BoardError::DataCore { .. }));
    }

    #[test]
    fn unknown_roles_missing_cores_and_missing_roles_are_refused() {
        let entry = "{ core = 1, role = \"drive\", queue = 0 },";
        let with = |new: &str| replaced(entry, new).unwrap_err();
        assert!(matches!(with("{ core = 1, role = \"disk\", queue = 0 },"), BoardError::UnknownRole { .. }));
        assert!(matches!(
            with("{ role = \"drive\", queue = 0 },"),
            BoardError::NoSuchCore { core: None, .. }
        ));
        let beyond = with("{ core = 2, role = \"drive\", queue = 0 },");
        assert!(matches!(beyond, BoardError::NoSuchCore { core: Some(2), .. }));
        assert!(matches!(with(""), BoardError::RoleWithoutCore { role: "drive", .. }));
        assert!(matches!(with("{ core = 1, role = \"drive\" },"), BoardError::Queue { .. }));
    }
}
