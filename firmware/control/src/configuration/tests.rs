//! The list of changes: no longer than it has to be, and it leads where the changes have led.

use message::configuration::{NamespaceSetting, Nqn, PortAccess, SubsystemSetting};
use proptest::prelude::*;

use super::*;

const ROOM: usize = 4096;

fn configuration(bytes: usize) -> Configuration<'static> {
    Configuration::new(vec![0; bytes].leak(), vec![0; bytes].leak())
}

fn name(number: u8) -> Nqn {
    format!("nqn.2014-08.org.example:{number}").as_str().try_into().unwrap()
}

fn create(number: u8) -> Change {
    let (serial, model) = ("1".try_into().unwrap(), "m".try_into().unwrap());
    Change::CreateSubsystem(SubsystemSetting { nqn: name(number), serial, model, any_host: false })
}

fn attach(namespace: u8, subsystem: u8) -> Change {
    let (nsid, uuid, nguid) = (Some(1), None, None);
    Change::AttachNamespace(NamespaceSetting {
        namespace: [namespace; 16],
        subsystem: name(subsystem),
        nsid,
        uuid,
        nguid,
    })
}

fn list(changes: &[Change]) -> Vec<Change> {
    let mut configuration = configuration(ROOM);
    for change in changes {
        configuration.draft(change).unwrap();
        configuration.adopt();
    }
    configuration.changes().collect()
}

#[test]
fn what_is_taken_back_leaves_nothing() {
    let allow = Change::AllowHost { subsystem: name(1), host: name(9) };
    let disallow = Change::DisallowHost { subsystem: name(1), host: name(9) };
    assert_eq!(list(&[create(1), allow.clone(), disallow]), [create(1)]);
    let any = |any_host| Change::SetAnyHost { subsystem: name(1), any_host };
    let all = [create(1), allow, any(true), any(false), create(2)];
    assert_eq!(list(&all)[2..], [any(false), create(2)]);
    let delete = Change::DeleteSubsystem { subsystem: name(1) };
    assert_eq!(list(&[&all[..], &[delete]].concat()), [create(2)]);
}

#[test]
fn namespaces_of_a_deleted_subsystem_stay_detached() {
    let delete = Change::DeleteSubsystem { subsystem: name(1) };
    let detached = Change::DetachNamespace { namespace: [7; 16] };
    let release = Change::ReleaseNamespace { namespace: [7; 16] };
    let changes = [create(1), attach(7, 1), attach(8, 2), delete];
    assert_eq!(list(&changes), [detached, attach(8, 2)]);
    assert_eq!(list(&[&changes[..], &[release]].concat()), [attach(8, 2)]);
    assert_eq!(
        list(&[attach(7, 1), Change::DetachNamespace { namespace: [7; 16] }, attach(7, 2)]),
        [attach(7, 2)]
    );
}

#[test]
fn what_is_said_twice_stays_where_it_was() {
    let allow = Change::AllowHost { subsystem: name(1), host: name(9) };
    let changes = [create(1), allow.clone(), attach(7, 1)];
    assert_eq!(list(&[&changes[..], &changes[..]].concat()), changes);
    // It was changed since: what builds on it stays behind it.
    let any = Change::SetAnyHost { subsystem: name(1), any_host: true };
    let Change::CreateSubsystem(setting) = create(1) else { unreachable!() };
    let again = Change::CreateSubsystem(SubsystemSetting { any_host: true, ..setting });
    assert_eq!(list(&[create(1), any.clone(), again]), [create(1), any]);
}

#[test]
fn a_change_without_room_leaves_the_list_as_it_is() {
    let mut configuration = configuration(100);
    configuration.draft(&create(1)).unwrap();
    configuration.adopt();
    while configuration.draft(&attach(configuration.bytes().len() as u8, 1)).is_ok() {
        configuration.adopt();
    }
    let before = configuration.bytes().to_vec();
    assert!(configuration.changes().count() > 1);
    assert_eq!(configuration.draft(&create(2)), Err(Full));
    assert_eq!(configuration.bytes(), before);
    // What takes something back has room.
    configuration.draft(&Change::DeleteSubsystem { subsystem: name(1) }).unwrap();
    configuration.adopt();
    assert!(configuration.bytes().len() < before.len());
}

/// What is stored is read by firmware to come: the numbers of the changes stay.
#[test]
fn stored_changes_keep_their_form() {
    let mut configuration = configuration(ROOM);
    let namespace = [0xaa; 16];
    let changes = [
        Change::DetachNamespace { namespace },
        Change::SetAutomatic { automatic: false },
        Change::SetPortAccess { port: 2, access: PortAccess::Inaccessible },
        Change::SetListener { port: 300, enabled: true },
    ];
    for change in &changes {
        configuration.draft(change).unwrap();
        configuration.adopt();
    }
    let expected = [&[6][..], &namespace, &[8, 0, 9, 2, 2, 10, 0xac, 2, 1]].concat();
    assert_eq!(configuration.bytes(), expected);
    configuration.draft(&attach(7, 1)).unwrap();
    configuration.adopt();
    assert_eq!(configuration.bytes()[expected.len()], 5);
}

fn change() -> impl Strategy<Value = Change> {
    let small = || 0u8..3;
    prop_oneof![
        small().prop_map(create),
        small().prop_map(|number| Change::DeleteSubsystem { subsystem: name(number) }),
        (small(), any::<bool>())
            .prop_map(|(number, any_host)| Change::SetAnyHost { subsystem: name(number), any_host }),
        (small(), small()).prop_map(|(of, host)| Change::AllowHost { subsystem: name(of), host: name(host) }),
        (small(), small())
            .prop_map(|(of, host)| Change::DisallowHost { subsystem: name(of), host: name(host) }),
        (small(), small()).prop_map(|(namespace, of)| attach(namespace, of)),
        small().prop_map(|namespace| Change::DetachNamespace { namespace: [namespace; 16] }),
        small().prop_map(|namespace| Change::ReleaseNamespace { namespace: [namespace; 16] }),
        any::<bool>().prop_map(|automatic| Change::SetAutomatic { automatic }),
        (1u16..3).prop_map(|port| Change::SetListener { port, enabled: port == 1 }),
    ]
}

/// What a card has once changes are made, as plainly as it can be said.
#[derive(Debug, Default, PartialEq)]
struct Model {
    /// Of each subsystem, whether any host may connect, and those allowed by name.
    subsystems: std::collections::BTreeMap<Nqn, (bool, std::collections::BTreeSet<Nqn>)>,
    namespaces: std::collections::BTreeMap<[u8; 16], Option<Nqn>>,
    automatic: Option<bool>,
    listeners: std::collections::BTreeMap<u16, bool>,
}

impl Model {
    /// False where a card refuses the change.
    fn make(&mut self, change: &Change) -> bool {
        match change {
            Change::CreateSubsystem(of) => {
                let of = (of.nqn.clone(), (of.any_host, Default::default()));
                match self.subsystems.get(&of.0) {
                    Some((any_host, _)) => return *any_host == of.1.0,
                    None => _ = self.subsystems.insert(of.0, of.1),
                }
            }
            Change::DeleteSubsystem { subsystem } => {
                self.subsystems.remove(subsystem);
                self.namespaces
                    .values_mut()
                    .filter(|of| of.as_ref() == Some(subsystem))
                    .for_each(|of| *of = None);
            }
            Change::SetAnyHost { subsystem, any_host } => match self.subsystems.get_mut(subsystem) {
                Some(of) => of.0 = *any_host,
                None => return false,
            },
            Change::AllowHost { subsystem, host } => match self.subsystems.get_mut(subsystem) {
                Some(of) => _ = of.1.insert(host.clone()),
                None => return false,
            },
            Change::DisallowHost { subsystem, host } => match self.subsystems.get_mut(subsystem) {
                Some(of) => _ = of.1.remove(host),
                None => return false,
            },
            Change::AttachNamespace(of) => {
                if !self.subsystems.contains_key(&of.subsystem) {
                    return false;
                }
                self.namespaces.insert(of.namespace, Some(of.subsystem.clone()));
            }
            Change::DetachNamespace { namespace } => _ = self.namespaces.insert(*namespace, None),
            Change::ReleaseNamespace { namespace } => _ = self.namespaces.remove(namespace),
            Change::SetAutomatic { automatic } => self.automatic = Some(*automatic),
            Change::SetListener { port, enabled } => _ = self.listeners.insert(*port, *enabled),
            Change::SetPortAccess { .. } => {}
        }
        true
    }
}

proptest! {
    #[test]
    fn the_list_leads_where_the_changes_have_led(changes in prop::collection::vec(change(), 0..60)) {
        let (mut configuration, mut card) = (configuration(ROOM), Model::default());
        for change in &changes {
            if card.make(change) {
                configuration.draft(change).unwrap();
                configuration.adopt();
            }
        }
        let mut started_anew = Model::default();
        for change in configuration.changes() {
            prop_assert!(started_anew.make(&change), "{change:?}");
        }
        prop_assert_eq!(&started_anew, &card);
        // One for each subsystem, its rule and its hosts, each namespace, and two settings of ports and one of the card.
        prop_assert!(configuration.changes().count() <= 3 * (1 + 1 + 3) + 3 + 3);
    }

    #[test]
    fn anything_stored_is_read_without_harm(stored in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut configuration = configuration(200);
        if configuration.load(&stored) {
            let mut again = self::configuration(200);
            prop_assert!(again.load(configuration.bytes()));
            prop_assert_eq!(again.bytes(), configuration.bytes());
        }
        configuration.changes().for_each(drop);
    }
}
