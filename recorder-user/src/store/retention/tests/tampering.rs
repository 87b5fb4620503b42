use std::path::PathBuf;

use super::*;
use crate::store::{
    format::{Encoder, RECORD_HEAD_BYTES},
    scan::{Scan, segment_path},
    signing::SigningKey,
};

/// A store of which the first segment was deleted and the second thinned.
fn pruned() -> (World, SegmentId) {
    let mut world = World::new();
    let records = Agent::new("ann").visit(world.now(), Effect::Modified);
    world.write(records);
    let reader = Agent::new("bob");
    world.pass(6 * DAY);
    let records = reader.visit(world.now(), Effect::Read);
    let thin = world.write(records);
    world.pass(2 * DAY);
    let bodies_of_reads = Some(DAY);
    world.prune(RetentionRules { bodies_of_reads, ..age(7) });
    world.close();
    (world, thin)
}

fn store_of(copy: &tempfile::TempDir) -> PathBuf {
    copy.path().join("store")
}

/// Where the records of a segment begin, and whether each is deleted.
fn records(path: &Path) -> Vec<(usize, usize, Kind, bool)> {
    let (mut scan, _) = Scan::open(path).expect("a segment");
    let mut found = Vec::new();
    while let Some(raw) = scan.next().expect("good") {
        let at = |offset: u64| usize::try_from(offset).expect("small");
        found.push((at(raw.offset), at(raw.end), raw.kind, raw.is_pruned()));
    }
    found
}

/// Makes a stub of a record, as a deletion would.
fn make_stub(bytes: &mut [u8], (begin, end): (usize, usize)) {
    let record = &mut bytes[begin..end - 32];
    let digest = *blake3::hash(record).as_bytes();
    record[RECORD_HEAD_BYTES..].fill(0);
    record[RECORD_HEAD_BYTES..RECORD_HEAD_BYTES + 32].copy_from_slice(&digest);
    record[10] |= 16;
    let crc = crc32c::crc32c(&record[8..]);
    record[4..8].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_stub_without_a_tombstone_is_found() {
    let (world, thin) = pruned();
    world.sound();
    let others = world.segments().into_iter().chain([thin]);
    for segment in others {
        let path = segment_file(&world, segment);
        for (begin, end, kind, is_pruned) in records(&path) {
            let payload = end - begin - 32 - RECORD_HEAD_BYTES;
            if is_pruned || payload < 32 || kind.is_signed() {
                continue;
            }
            let copy = copy(&world);
            let file = segment_path(&store_of(&copy), segment);
            let mut bytes = fs::read(&file).expect("readable");
            make_stub(&mut bytes, (begin, end));
            fs::write(&file, bytes).expect("writable");
            let bad = check(&store_of(&copy)).first_bad.expect("found");
            assert_eq!(bad.file, file);
        }
    }
}

#[test]
fn a_segment_that_no_tombstone_speaks_of_is_missed() {
    let (world, _) = pruned();
    let all: Vec<_> = world.segments().into_iter().collect();
    // Without the last the store is merely an older one, as ever.
    for segment in &all[..all.len() - 1] {
        let copy = copy(&world);
        fs::remove_file(segment_path(&store_of(&copy), *segment)).expect("there");
        assert!(check(&store_of(&copy)).first_bad.is_some(), "{segment}");
    }
}

#[test]
fn a_tombstone_cannot_be_changed() {
    let (world, _) = pruned();
    let holder = world.segments().into_iter().find_map(|segment| {
        let found = records(&segment_file(&world, segment));
        let tombstone = found.into_iter().find(|(_, _, kind, _)| *kind == Kind::TOMBSTONE)?;
        Some((segment, tombstone))
    });
    let (segment, (begin, end, ..)) = holder.expect("a tombstone");
    for at in (begin..end).step_by(7) {
        let copy = copy(&world);
        let file = segment_path(&store_of(&copy), segment);
        let mut bytes = fs::read(&file).expect("readable");
        bytes[at] ^= 1;
        fs::write(&file, bytes).expect("writable");
        assert!(check(&store_of(&copy)).first_bad.is_some(), "byte {at}");
    }
}

/// The whole store after a tombstone of one's own, chained and sealed with a key of one's own.
fn forge(world: &World, sign: &Arc<SigningKey>) -> tempfile::TempDir {
    let copy = copy(world);
    let store = store_of(&copy);
    let segments: Vec<_> = world.segments().into_iter().collect();
    let (victim, last) = (segments[0], *segments.last().expect("segments"));
    let statement = {
        let mut survey = super::super::survey::Survey::default();
        survey.update(&store).expect("readable");
        let summary = &survey.segments[&victim];
        let run = crate::store::DeletedSegments {
            first: victim,
            last: victim,
            previous: summary.previous,
            hash: summary.hash,
            segments: 1,
            records: summary.records,
            bytes: summary.bytes,
            from: summary.from,
            to: summary.to,
            deleted: summary.to,
            by: Vec::new(),
            who: Vec::new(),
        };
        let time = world.now();
        crate::store::Tombstone { time, key: None, segments: vec![run], records: Vec::new() }
    };
    let path = segment_path(&store, last);
    let mut bytes = fs::read(&path).expect("readable");
    // In the place of the seal.
    let (seal, ..) = *records(&path).last().expect("a seal");
    let (mut scan, _) = Scan::open(&path).expect("a segment");
    while usize::try_from(scan.mark().offset).expect("small") < seal {
        scan.next().expect("good");
    }
    bytes.truncate(seal);
    let mut encoder = Encoder::resume(last, scan.mark(), Arc::clone(sign));
    let payload = serde_json::to_vec(&statement).expect("plain data").into();
    let record = Record::Unknown { kind: Kind::TOMBSTONE, payload };
    encoder.record(&record, &mut bytes).expect("short");
    fs::write(&path, bytes).expect("writable");
    fs::remove_file(segment_path(&store, victim)).expect("there");
    copy
}

#[test]
fn a_tombstone_by_an_unknown_key_counts_for_nothing() {
    let mut world = World::new();
    for name in ["ann", "bob"] {
        let records = Agent::new(name).visit(world.now(), Effect::Modified);
        world.write(records);
    }
    world.close();
    let own = signing::load_or_create(&signing::keys_directory(&world.path())).expect("a key");
    let copy = forge(&world, &own);
    assert_eq!(check(&store_of(&copy)).first_bad, None, "the store's own key may say so");

    let foreign = SigningKey::from_seed([9; 32]);
    let copy = forge(&world, &foreign);
    let bad = check(&store_of(&copy)).first_bad.expect("found");
    assert!(bad.why.contains("is missing"), "{bad:?}");
}
