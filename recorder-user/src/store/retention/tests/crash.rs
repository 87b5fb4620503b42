use super::{super::Step, *};
use crate::store::queue::lock;

/// A segment that goes whole and one that is thinned; what the rules leave of them.
fn prepared() -> (World, SegmentId, SegmentId) {
    let mut world = World::new();
    let (gone, held) = (Agent::new("ann"), Agent::new("bob"));
    let records = gone.visit(world.now(), Effect::Modified);
    let whole = world.write(records);
    let both = [
        held.visit(world.now(), Effect::Modified),
        Agent::new("eve").visit(world.now(), Effect::Modified),
    ];
    let thin = world.write(both.concat());
    world.hold(HoldOn::Session(held.session));
    world.pass(10 * DAY);
    (world, whole, thin)
}

fn leftovers(world: &World) -> usize {
    let entries = fs::read_dir(world.path().join("segments")).expect("readable");
    let thinner = entries
        .filter(|entry| {
            entry.as_ref().expect("an entry").path().extension().is_some_and(|e| e == "thin")
        })
        .count();
    thinner + usize::from(world.path().join("deleting").exists())
}

#[test]
fn a_crash_between_any_two_steps_leaves_all_or_nothing() {
    use Step::{Clear, Delete, Journal, Replace, Thinner, Tombstone};
    for (step, done) in [
        (Thinner, false),
        (Journal, false),
        (Tombstone, false),
        (Replace, true),
        (Delete, true),
        (Clear, true),
    ] {
        let (mut world, whole, thin) = prepared();
        let before = world.records();
        let size = fs::metadata(segment_file(&world, thin)).expect("a file").len();
        *lock(&world.store().1.stop_before) = Some(step);
        assert!(world.try_prune(age(5)).is_err());
        world.sound();
        // The process ends here: nothing is closed in order.
        drop(world.open.take());
        world.sound();
        world.store();
        assert_eq!(leftovers(&world), 0, "{step:?}");
        let report = world.sound();
        assert_eq!(segment_file(&world, whole).exists(), !done, "{step:?}");
        assert_eq!(report.pruned_records > 0, done, "{step:?}");
        assert_eq!(report.deleted_segments.is_empty(), !done, "{step:?}");
        assert_eq!(fs::metadata(segment_file(&world, thin)).expect("a file").len(), size);
        if !done {
            let after = world.records();
            assert!(before.iter().all(|stored| after.contains(stored)), "{step:?}");
        }
        world.prune(age(5));
        assert!(!segment_file(&world, whole).exists(), "{step:?}");
        world.sound();
        world.index_is_as_rebuilt();
    }
}

#[test]
fn a_deletion_that_failed_is_finished_by_the_next() {
    let (mut world, whole, _) = prepared();
    *lock(&world.store().1.stop_before) = Some(Step::Delete);
    assert!(world.try_prune(age(5)).is_err());
    *lock(&world.store().1.stop_before) = None;
    let nothing = RetentionRules::default();
    assert!(world.prune(nothing).is_empty());
    assert!(!segment_file(&world, whole).exists());
    assert_eq!(leftovers(&world), 0);
    world.sound();
    world.index_is_as_rebuilt();
}
