use super::*;
use crate::store::DeletionCause;

#[test]
fn old_segments_go_and_a_tombstone_says_so() {
    let mut world = World::new();
    let mut old = Vec::new();
    for name in ["ann", "bob"] {
        let records = Agent::new(name).visit(world.now(), Effect::Modified);
        old.push(world.write(records));
    }
    world.pass(10 * DAY);
    let young = Agent::new("eve").visit(world.now(), Effect::Modified);
    let kept = world.write(young.clone());
    world.sound();
    let report = world.prune(age(5));
    assert_eq!(report.segments, old);
    assert_eq!((report.segment_records, report.session_count), (12, 2));
    let there = world.segments();
    assert!(there.contains(&kept) && !old.iter().any(|segment| there.contains(segment)));

    let verified = world.sound();
    let [run] = &verified.deleted_segments[..] else { panic!("{:?}", verified.deleted_segments) };
    assert_eq!((run.first, run.last, run.segments, run.records), (old[0], old[1], 2, 12));
    assert_eq!((run.previous, &run.by[..]), (None, &[DeletionCause::Request][..]));
    assert_eq!(run.who, ["uid 7"]);
    assert_eq!((run.from, run.to), (Timestamp::from_micros(START), Timestamp::from_micros(START)));
    for record in young {
        assert!(world.records().iter().any(|(_, kept)| *kept == record));
    }
    assert!(world.prune(age(5)).is_empty(), "what is gone does not go again");
    world.index_is_as_rebuilt();
}

#[test]
fn a_dry_run_says_the_same_and_touches_nothing() {
    let mut world = World::new();
    let records = Agent::new("ann").visit(world.now(), Effect::Modified);
    world.write(records);
    world.pass(10 * DAY);
    let records = Agent::new("bob").visit(world.now(), Effect::Modified);
    world.write(records);
    let before = world.records();
    let preview =
        super::super::preview(&world.path(), age(5), world.now(), None).expect("readable");
    assert_eq!(before, world.records());
    let done = world.prune(age(5));
    assert!(preview.dry_run && !done.dry_run);
    assert_eq!(PruneReport { dry_run: false, ..preview }, done);
}

#[test]
fn the_oldest_go_until_the_store_is_small_enough() {
    let mut world = World::new();
    let mut segments = Vec::new();
    for _ in 0..6 {
        let records = Agent::new("ann").visit(world.now(), Effect::Modified);
        segments.push(world.write(records));
    }
    let rules = RetentionRules { size: Some(0), ..RetentionRules::default() };
    let total = super::super::preview(&world.path(), rules, world.now(), None).expect("readable");
    let one = fs::metadata(segment_file(&world, segments[0])).expect("a file");
    let one = std::os::unix::fs::MetadataExt::blocks(&one) * 512;
    let rules = RetentionRules { size: Some(total.store_bytes - one - 1), ..rules };
    assert_eq!(world.prune(rules).segments, segments[..2]);
    world.sound();
    world.index_is_as_rebuilt();
}

#[test]
fn bodies_of_reads_go_and_the_rest_stays_where_it_is() {
    let mut world = World::new();
    let agent = Agent::new("ann");
    let body = b"0123456789".repeat(400);
    let (read, change) = (
        agent.exchange(world.now(), Effect::Read, &body),
        agent.exchange(world.now(), Effect::Modified, &body),
    );
    let records = [vec![agent.begins(world.now())], read.clone(), change].concat();
    let segment = world.write(records);
    world.pass(2 * DAY);
    let records = agent.exchange(world.now(), Effect::Read, &body);
    world.write(records);
    let before = world.records();
    let bodies_of_reads = Some(DAY);
    let rules = RetentionRules { bodies_of_reads, ..RetentionRules::default() };
    let report = world.prune(rules);
    assert_eq!((report.records, &report.thinned[..]), (1, &[segment][..]));

    let gone = &read[1];
    let after = world.records();
    let left: Vec<_> = before.iter().filter(|(_, record)| record != gone).collect();
    assert_eq!(left.len() + 1, before.len());
    assert!(left.iter().all(|stored| after.contains(stored)), "no record moved");
    assert!(!after.iter().any(|(_, record)| record == gone));
    let verified = world.sound();
    assert_eq!((verified.pruned_records, verified.partial_bodies), (1, 1));
    assert_eq!(verified.deleted_records[0].segment, segment);
    assert!(world.prune(rules).is_empty());
    world.index_is_as_rebuilt();
}

#[test]
fn what_others_build_on_stays() {
    let mut world = World::new();
    let (reader, changer) = (Agent::new("ann"), Agent::new("ann"));
    let mut records = vec![reader.begins(world.now()), changer.begins(world.now())];
    // The same answer again and again is told by the first.
    let body = b"{\"kind\":\"PodList\",\"items\":[]}".repeat(300);
    for effect in [Effect::Read, Effect::Modified] {
        let head = |method: &str| RequestHead {
            method: method.into(),
            target: "/api/v1/pods".into(),
            version: "HTTP/2".into(),
            headers: Vec::new(),
        };
        for mut record in reader.exchange(world.now(), effect, &body) {
            if let Record::ExchangeOpened(opened) = &mut record {
                opened.head = Some(head("GET"));
                opened.request =
                    Some(RequestInfo { path: "/api/v1/pods".into(), ..RequestInfo::default() });
            }
            records.push(record);
        }
    }
    world.write(records);
    world.pass(2 * DAY);
    let rules = RetentionRules { bodies_of_reads: Some(DAY), ..RetentionRules::default() };
    let before = world.records();
    world.prune(rules);
    let after = world.records();
    assert!(before.iter().all(|stored| after.contains(stored)));
    assert_eq!(world.sound().partial_bodies, 0);
}

#[test]
fn exchanges_that_read_go_whole() {
    let mut world = World::new();
    let agent = Agent::new("ann");
    let body = b"some body that is long enough to be deleted".to_vec();
    let read = agent.exchange(world.now(), Effect::Read, &body);
    let change = agent.exchange(world.now(), Effect::Modified, &body);
    let records = [vec![agent.begins(world.now())], read, change.clone()].concat();
    world.write(records);
    world.pass(2 * DAY);
    let rules = RetentionRules { reads: Some(DAY), ..RetentionRules::default() };
    assert_eq!(world.prune(rules).records, 3);
    let exchanges: BTreeSet<_> =
        world.records().iter().filter_map(|(_, record)| record.exchange()).collect();
    assert_eq!(exchanges, BTreeSet::from([change[0].exchange().expect("an exchange")]));
    world.sound();
    world.index_is_as_rebuilt();
}

#[test]
fn what_goes_on_keeps_its_beginning() {
    let mut world = World::new();
    let agent = Agent::new("ann");
    let (over, long) = (ExchangeId::new(), ExchangeId::new());
    let body = b"a body of more than thirty-two bytes, in two parts".to_vec();
    let (first, second) = body.split_at(40);
    let begun = vec![
        agent.begins(world.now()),
        agent.asks(over, world.now()),
        agent.is_answered(over, world.now(), Effect::Read, b""),
        agent.asks(long, world.now()),
        chunk(long, 0, first),
    ];
    let old = world.write(begun.clone());
    world.pass(10 * DAY);
    let records =
        vec![chunk(long, 40, second), agent.is_answered(long, world.now(), Effect::Read, &body)];
    world.write(records);
    let report = world.prune(age(5));
    assert_eq!((&report.segments[..], &report.thinned[..]), (&[][..], &[old][..]));
    let left: Vec<_> = world.records().into_iter().map(|(_, record)| record).collect();
    for (record, stays) in begun.iter().zip([true, false, false, true, false]) {
        assert_eq!(left.contains(record), stays, "{record:?}");
    }
    assert_eq!(world.sound().partial_bodies, 1);

    // Later the rest is old too, and the session over: then all of it goes, also what was thinned.
    let records = vec![agent.ends(world.now())];
    let last = world.write(records);
    world.pass(10 * DAY);
    let report = world.prune(age(5));
    assert!(report.segments.contains(&old) && report.segments.contains(&last), "{report:?}");
    let verified = world.sound();
    assert_eq!((verified.deleted_segments.len(), verified.pruned_records), (1, 0));
    world.index_is_as_rebuilt();
}

#[test]
fn tombstones_outlive_their_segments() {
    let mut world = World::new();
    let mut deleted = 0;
    for round in 0..4 {
        let records = Agent::new("ann").visit(world.now(), Effect::Modified);
        world.write(records);
        world.pass(10 * DAY);
        deleted += world.prune(age(5)).segments.len() as u64;
        let verified = world.sound();
        let [run] = &verified.deleted_segments[..] else { panic!("round {round}: {verified:?}") };
        assert_eq!(run.segments, deleted, "one run grows");
    }
    assert!(deleted >= 6, "tombstones went too: {deleted}");
    world.index_is_as_rebuilt();
}

#[test]
fn only_what_is_in_the_archive_goes() {
    let mut world = World::new();
    let records = Agent::new("ann").visit(world.now(), Effect::Modified);
    let first = world.write(records);
    let records = Agent::new("bob").visit(world.now(), Effect::Modified);
    let second = world.write(records);
    world.pass(10 * DAY);
    let (store, _) = world.store();
    let retention = store.retention(Some(Arc::new(move |segment| segment == second)));
    let order = PruneOrder { rules: age(5), who: None, dry_run: false };
    let report = retention.prune(&order).expect("it prunes");
    assert_eq!(report.segments, [second]);
    assert!(report.untouched.iter().any(|untouched| untouched.segment == first));
    assert_eq!(world.sound().deleted_segments[0].first, second);
}

#[test]
fn what_is_damaged_is_not_deleted() {
    let mut world = World::new();
    let records = Agent::new("ann").visit(world.now(), Effect::Modified);
    let segment = world.write(records);
    world.pass(10 * DAY);
    let file = segment_file(&world, segment);
    let mut bytes = fs::read(&file).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("writable");
    let report = world.prune(age(5));
    assert!(!report.segments.contains(&segment));
    assert!(report.untouched.iter().any(|untouched| untouched.segment == segment), "{report:?}");
    assert!(file.exists());
}
