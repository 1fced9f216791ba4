//! From one declared state to another.

use super::*;

fn name(text: &str) -> Nqn {
    format!("nqn.2014-08.org.example:{text}").as_str().try_into().unwrap()
}

fn create(nqn: &str, serial: &str) -> Change {
    let (serial, model) = (serial.try_into().unwrap(), "m".try_into().unwrap());
    Change::CreateSubsystem(SubsystemSetting { nqn: name(nqn), serial, model, any_host: false })
}

fn allow(nqn: &str, host: &str) -> Change {
    Change::AllowHost { subsystem: name(nqn), host: name(host) }
}

fn attach(namespace: u8, nqn: &str, nsid: u32) -> Change {
    let (nsid, uuid, nguid) = (Some(nsid), None, None);
    let (namespace, subsystem) = ([namespace; 16], name(nqn));
    Change::AttachNamespace(NamespaceSetting { namespace, subsystem, nsid, uuid, nguid })
}

fn detach(namespace: u8) -> Change {
    Change::DetachNamespace { namespace: [namespace; 16] }
}

fn release(namespace: u8) -> Change {
    Change::ReleaseNamespace { namespace: [namespace; 16] }
}

/// The changes between two states, which lead there.
#[track_caller]
fn between(from: &[Change], to: &[Change]) -> Vec<Change> {
    let (now, wanted) = (Declared::of(from.to_vec()), Declared::of(to.to_vec()));
    let changes = now.changes_to(&wanted);
    let mut there = now;
    changes.iter().cloned().for_each(|change| there.make(change));
    assert!(there.changes_to(&wanted).is_empty(), "{there:?}");
    changes
}

#[test]
fn what_is_so_already_takes_no_change() {
    let all = [create("a", "1"), allow("a", "h"), attach(1, "a", 1), detach(2)];
    assert_eq!(between(&all, &all), []);
    // What the file says nothing of stays.
    let port = Change::SetListener { port: 1, enabled: false };
    assert_eq!(between(&[port, Change::SetAutomatic { automatic: false }], &[]), []);
}

#[test]
fn a_new_subsystem_comes_before_what_is_in_it() {
    let all = [create("a", "1"), allow("a", "h"), attach(1, "a", 1)];
    let changes = between(&[], &all);
    assert_eq!(changes, [create("a", "1"), allow("a", "h"), detach(1), attach(1, "a", 1)]);
}

#[test]
fn what_is_not_declared_goes() {
    let all = [
        create("a", "1"),
        create("b", "2"),
        allow("b", "h"),
        attach(1, "a", 1),
        attach(2, "b", 1),
        detach(3),
    ];
    let changes = between(&all, &[create("b", "2")]);
    let delete = Change::DeleteSubsystem { subsystem: name("a") };
    let disallow = Change::DisallowHost { subsystem: name("b"), host: name("h") };
    assert_eq!(changes, [delete, release(1), detach(2), release(2), release(3), disallow]);
}

#[test]
fn a_namespace_moves_by_way_of_nowhere() {
    let subsystems = [create("a", "1"), create("b", "2")];
    let to = |of: Change| [&subsystems[..], &[of]].concat();
    assert_eq!(between(&to(attach(1, "a", 1)), &to(attach(1, "b", 1))), [detach(1), attach(1, "b", 1)]);
    assert_eq!(between(&to(attach(1, "a", 1)), &to(attach(1, "a", 2))), [detach(1), attach(1, "a", 2)]);
    assert_eq!(between(&to(attach(1, "a", 1)), &to(detach(1))), [detach(1)]);
    assert_eq!(between(&to(detach(1)), &to(attach(1, "a", 1))), [attach(1, "a", 1)]);
}

#[test]
fn a_subsystem_with_another_serial_number_is_another_one() {
    let from = [create("a", "1"), allow("a", "h"), attach(1, "a", 1)];
    let to = [create("a", "2"), allow("a", "h"), attach(1, "a", 1)];
    let delete = Change::DeleteSubsystem { subsystem: name("a") };
    assert_eq!(between(&from, &to), [delete, create("a", "2"), allow("a", "h"), attach(1, "a", 1)]);
}

#[test]
fn hosts_are_allowed_before_others_are_cut_off() {
    let any = |any_host| Change::SetAnyHost { subsystem: name("default"), any_host };
    let changes = between(&[any(true)], &[any(false), allow("default", "h")]);
    assert_eq!(changes, [allow("default", "h"), any(false)]);
}
