use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::store::encryption::{self, Erased};

fn encrypted() -> World {
    let mut world = World::new();
    let path = world.directory.path().join("operator.key");
    fs::write(&path, [3; 32]).expect("writable");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).expect("ours");
    world.encryption = Some(KeySource::KeyFile(path));
    world
}

fn keys(world: &World) -> PathBuf {
    signing::keys_directory(&world.path())
}

#[test]
fn encrypted_records_are_told_apart_by_whose_they_are() {
    let mut world = encrypted();
    let (held, other, erased) = (Agent::new("ann"), Agent::new("bob"), Agent::new("eve"));
    let of_held = held.visit(world.now(), Effect::Read);
    let both = [
        of_held.clone(),
        other.visit(world.now(), Effect::Read),
        erased.visit(world.now(), Effect::Read),
    ];
    let segment = world.write(both.concat());
    world.hold(HoldOn::Principal("ann".into()));
    let done = encryption::erase(&keys(&world), erased.session).expect("erased");
    assert_eq!(done, Erased::Now);
    world.pass(10 * DAY);
    let report = world.prune(age(5));
    assert_eq!((&report.thinned[..], report.session_count), (&[segment][..], 2));
    let left: Vec<_> = world.records().into_iter().map(|(_, record)| record).collect();
    assert!(of_held.iter().all(|record| left.contains(record)));
    assert_eq!(world.sound().erased_records, 0, "they are gone");
    world.index_is_as_rebuilt();
}

#[test]
fn without_the_keys_nothing_is_deleted() {
    let mut world = encrypted();
    let records = Agent::new("ann").visit(world.now(), Effect::Read);
    let segment = world.write(records);
    world.pass(10 * DAY);
    world.store();
    fs::remove_file(keys(&world).join("encryption.json")).expect("there");
    let report = world.prune(age(5));
    assert!(report.is_empty(), "{report:?}");
    assert!(report.untouched.iter().any(|untouched| untouched.segment == segment));
}

#[test]
fn a_held_session_is_not_erased() {
    let mut world = encrypted();
    let held = Agent::new("ann");
    let records = held.visit(world.now(), Effect::Read);
    world.write(records);
    let hold = world.hold(HoldOn::Task("task-ann".into()));
    world.close();
    let by = LocalUser { uid: 7, user: None, pid: None };
    let path = world.path();
    let erase =
        || world.runtime.block_on(crate::store::erase_session(&path, held.session, by.clone()));
    assert!(matches!(erase(), Err(crate::store::EraseError::Held(by)) if by == hold));
    let (store, retention) = crate::store::open_to_prune(&path).expect("it opens");
    retention.release_hold(hold, "uid 7".into()).expect("in force");
    drop(retention);
    world.runtime.block_on(store.close()).expect("a good disk");
    assert_eq!(erase().expect("erased"), Erased::Now);
}
