//! The core plan: which core runs which role on which queue. The data stands in the board's `board.toml`, and
//! `linker` has checked it when the image was built.

/// A core plan.
#[derive(Debug)]
pub struct Plan {
    /// What `plan=` calls it.
    pub name: &'static str,
    /// Fewest cores that it works with.
    pub cores: usize,
    /// One for each queue, and one for control.
    pub entries: &'static [PlanEntry],
}

/// One line of a plan.
#[derive(Debug)]
pub struct PlanEntry {
    /// Index of the core.
    pub core: usize,
    /// What it runs.
    pub role: Role,
    /// On which queue of the role's; 0 for control.
    pub queue: u16,
}

/// What a core runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Management.
    Control,
    /// An Ethernet queue.
    Net,
    /// Each drive's queue.
    Drive,
    /// A host's queues.
    Host,
    /// An accelerator's queue.
    Offload,
}

impl Plan {
    /// The core that runs `role` on `queue`.
    #[must_use]
    pub fn core_of(&self, role: Role, queue: u16) -> Option<usize> {
        self.entries.iter().find(|entry| entry.role == role && entry.queue == queue).map(|entry| entry.core)
    }
}

/// The plan called `name` where it is there and `cores` are enough for it; else the one that uses the most of
/// `cores`. `None` where no plan works with so few.
#[must_use]
pub fn choose(plans: &'static [Plan], name: Option<&str>, cores: usize) -> Option<&'static Plan> {
    let fitting = || plans.iter().filter(|plan| plan.cores <= cores);
    let named = name.and_then(|name| fitting().find(|plan| plan.name == name));
    named.or_else(|| fitting().max_by_key(|plan| plan.cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLANS: [Plan; 2] = [
        Plan { name: "single", cores: 1, entries: &[PlanEntry { core: 0, role: Role::Net, queue: 0 }] },
        Plan { name: "pair", cores: 2, entries: &[PlanEntry { core: 1, role: Role::Net, queue: 0 }] },
    ];

    #[test]
    fn a_plan_is_chosen_by_name_else_by_cores() {
        let name = |wanted, cores| choose(&PLANS, wanted, cores).map(|plan| plan.name);
        assert_eq!(name(None, 8), Some("pair"));
        assert_eq!(name(None, 1), Some("single"));
        assert_eq!(name(Some("single"), 8), Some("single"));
        assert_eq!(name(Some("pair"), 1), Some("single"));
        assert_eq!(name(Some("none"), 2), Some("pair"));
        assert_eq!(name(None, 0), None);
    }

    #[test]
    fn a_role_is_found_on_its_core() {
        assert_eq!(PLANS[1].core_of(Role::Net, 0), Some(1));
        assert_eq!(PLANS[1].core_of(Role::Net, 1), None);
    }
}
