//! The core plan: which core runs which role on which queue. The data stands in the board's `board.toml`, and
//! `linker` has checked it when the image was built.

/// A core plan.
#[derive(Debug)]
pub struct Plan {
    /// What `plan=` calls it.
    pub name: &'static str,
    /// Fewest cores that it works with.
    pub cores: usize,
    /// Whether it is taken without being asked for by name.
    pub automatic: bool,
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

    /// The cores that run `role`.
    pub fn cores_of(&self, role: Role) -> impl Iterator<Item = usize> + '_ {
        self.entries.iter().filter(move |entry| entry.role == role).map(|entry| entry.core)
    }

    /// What a core runs, each role once.
    pub fn roles_of(&self, core: usize) -> impl Iterator<Item = Role> + '_ {
        let all = [Role::Control, Role::Net, Role::Drive, Role::Host, Role::Offload];
        let runs =
            move |role: &Role| self.entries.iter().any(|entry| entry.core == core && entry.role == *role);
        all.into_iter().filter(runs)
    }

    /// The data cores in the order of their queues: the first has queue 0 of the Ethernet ports and of the drives.
    pub fn data_cores(&self) -> impl Iterator<Item = usize> + '_ {
        (0..).map_while(|queue| self.core_of(Role::Net, queue))
    }
}

/// The plan called `name` that uses the most of `cores`; where there is none, the one that does so among those that
/// need not be asked for. `None` where no plan works with so few.
#[must_use]
pub fn choose(plans: &'static [Plan], name: Option<&str>, cores: usize) -> Option<&'static Plan> {
    let largest = |fits: &dyn Fn(&Plan) -> bool| {
        plans.iter().filter(|plan| plan.cores <= cores && fits(plan)).max_by_key(|plan| plan.cores)
    };
    let named = name.and_then(|name| largest(&|plan| plan.name == name));
    named.or_else(|| largest(&|plan| plan.automatic))
}

#[cfg(test)]
mod tests {
    use super::*;

    // All data cores of a plan share each port, and each is one of the card's.
    const _: () = assert!(linker::MAX_DATA_CORES == net::MAX_CORES_OF_PORT);
    const _: () = assert!(linker::MAX_DATA_CORES <= message::MAX_DATA_CORES);

    const fn net(core: usize, queue: u16) -> PlanEntry {
        PlanEntry { core, role: Role::Net, queue }
    }

    static PLANS: [Plan; 4] = [
        Plan { name: "single", cores: 1, automatic: true, entries: &[net(0, 0)] },
        Plan { name: "pair", cores: 2, automatic: true, entries: &[net(1, 0)] },
        Plan { name: "many", cores: 3, automatic: false, entries: &[net(1, 0), net(2, 1)] },
        Plan { name: "many", cores: 4, automatic: false, entries: &[net(3, 2), net(1, 0), net(2, 1)] },
    ];

    #[test]
    fn a_plan_is_chosen_by_name_else_by_cores() {
        let chosen = |wanted, cores| choose(&PLANS, wanted, cores).map(|plan| (plan.name, plan.cores));
        assert_eq!(chosen(None, 8), Some(("pair", 2)));
        assert_eq!(chosen(None, 1), Some(("single", 1)));
        assert_eq!(chosen(Some("single"), 8), Some(("single", 1)));
        assert_eq!(chosen(Some("pair"), 1), Some(("single", 1)));
        assert_eq!(chosen(Some("none"), 2), Some(("pair", 2)));
        assert_eq!(chosen(Some("many"), 8), Some(("many", 4)));
        assert_eq!(chosen(Some("many"), 3), Some(("many", 3)));
        assert_eq!(chosen(Some("many"), 2), Some(("pair", 2)));
        assert_eq!(chosen(None, 0), None);
    }

    #[test]
    fn data_cores_come_in_the_order_of_their_queues() {
        let cores = |plan: usize| PLANS[plan].data_cores().collect::<Vec<_>>();
        assert_eq!((cores(0), cores(1), cores(3)), (vec![0], vec![1], vec![1, 2, 3]));
    }

    #[test]
    fn a_role_is_found_on_its_core() {
        assert_eq!(PLANS[1].core_of(Role::Net, 0), Some(1));
        assert_eq!(PLANS[1].core_of(Role::Net, 1), None);
        assert!(PLANS[3].cores_of(Role::Net).eq([3, 1, 2]));
        assert_eq!(PLANS[3].cores_of(Role::Offload).count(), 0);
    }
}
