use super::*;

#[test]
fn a_hold_of_each_kind_keeps_what_it_is_on_and_nothing_else() {
    for kind in 0..3 {
        let mut world = World::new();
        let (held, other) = (Agent::new("ann"), Agent::new("bob"));
        let on = match kind {
            0 => HoldOn::Session(held.session),
            1 => HoldOn::Task("task-ann".into()),
            _ => HoldOn::Principal("ann".into()),
        };
        let (of_held, of_other) =
            (held.visit(world.now(), Effect::Read), other.visit(world.now(), Effect::Read));
        let both = world.write([of_held.clone(), of_other.clone()].concat());
        let alone = world.write(other.exchange(world.now(), Effect::Read, b"a body"));
        let hold = world.hold(on);
        world.pass(10 * DAY);
        let rules = RetentionRules { reads: Some(DAY), bodies_of_reads: Some(DAY), ..age(5) };
        let report = world.prune(rules);
        assert!(report.segments.contains(&alone) && report.thinned.contains(&both), "{report:?}");
        let [back] = report.held[..] else { panic!("{:?}", report.held) };
        assert_eq!((back.hold, back.records, back.segments), (hold, of_held.len() as u64, 1));
        let left: Vec<_> = world.records().into_iter().map(|(_, record)| record).collect();
        assert!(of_held.iter().all(|record| left.contains(record)), "kind {kind}");
        assert!(!of_other.iter().any(|record| left.contains(record)), "kind {kind}");
        world.sound();

        let (_, retention) = world.store();
        let health = retention.health();
        assert_eq!((health.holds, health.held_sessions), (1, 1));
        retention.release_hold(hold, "uid 0".into()).expect("in force");
        assert!(retention.release_hold(hold, "uid 0".into()).is_err(), "only once");
        world.pass(10 * DAY);
        assert!(world.prune(rules).segments.contains(&both));
        world.sound();
        world.index_is_as_rebuilt();
    }
}

#[test]
fn a_hold_outlives_the_segment_that_tells_of_it() {
    let mut world = World::new();
    let held = Agent::new("ann");
    let records = held.visit(world.now(), Effect::Modified);
    let segment = world.write(records);
    let hold = world.hold(HoldOn::Session(held.session));
    let added = world.store().1.holds().expect("readable");
    for _ in 0..3 {
        world.pass(10 * DAY);
        world.prune(age(5));
        assert!(world.segments().contains(&segment));
        assert_eq!(world.store().1.holds().expect("readable"), added);
        let told = world.records().iter().any(
            |(_, record)| matches!(record, Record::HoldChanged(changed) if changed.hold == hold),
        );
        assert!(told);
    }
    world.sound();
}

#[test]
fn a_release_outlives_the_hold_that_it_ends() {
    let mut world = World::new();
    let held = Agent::new("ann");
    let keeper = Agent::new("bob");
    let records =
        [held.visit(world.now(), Effect::Modified), vec![keeper.begins(world.now())]].concat();
    world.write(records);
    let hold = world.hold(HoldOn::Session(held.session));
    let (store, retention) = world.store();
    let segment = store.recorder().health().segment;
    retention.release_hold(hold, "uid 0".into()).expect("in force");
    world.rotated(segment);
    for _ in 0..3 {
        world.pass(10 * DAY);
        world.prune(age(5));
        let holds = world.store().1.holds().expect("readable");
        assert!(holds.iter().all(|hold| hold.released.is_some()), "{holds:?}");
    }
}

#[test]
fn size_does_not_beat_a_hold() {
    let mut world = World::new();
    let held = Agent::new("ann");
    let records = held.visit(world.now(), Effect::Modified);
    let first = world.write(records.clone());
    world.hold(HoldOn::Task("task-ann".into()));
    let others = Agent::new("bob").visit(world.now(), Effect::Modified);
    let second = world.write(others);
    let rules = RetentionRules { size: Some(0), ..RetentionRules::default() };
    let report = world.prune(rules);
    assert!(!report.segments.contains(&first) && report.segments.contains(&second));
    let left: Vec<_> = world.records().into_iter().map(|(_, record)| record).collect();
    assert!(records.iter().all(|record| left.contains(record)));
    world.sound();
}
