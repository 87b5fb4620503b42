//! Both verifiers on stores of which something was deleted.

use std::{fs, path::Path, sync::Arc, time::Duration};

use recorder_user::{
    model::{
        ExchangeId, HoldOn, Kind, Record, SegmentId, SessionChanged, SessionId, SessionState,
        Timestamp,
    },
    store::{Need, PruneOrder, Reader, RetentionRules, Store, StoreOptions, signing},
};

use crate::{support::*, verdict::verdict};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A closed store: its first segment was deleted, the next lost what no hold is on, and the rest is there. Keys
/// were exchanged before the tombstone.
async fn pruned(directory: &Path) -> SegmentId {
    let options = StoreOptions { segment_bytes_max: 1, ..options(directory) };
    let keys = options.keys.clone();
    let (store, _) = Store::open(options.clone(), clock()).expect("it opens");
    let recorder = store.recorder();
    let held = SessionId::new();
    let mut thinned = None;
    for sessions in [vec![SessionId::new()], vec![SessionId::new(), held]] {
        let segment = recorder.health().segment;
        let mut records = Vec::new();
        for session in sessions {
            records.push(session_opened(session));
            records.extend(exchange(session, ExchangeId::new(), "map"));
            records.push(ended(session));
        }
        // In one write, which ends the segment.
        recorder.append_all(records, Need::Written).await.expect("a good disk");
        while recorder.health().segment == segment {
            tokio::task::yield_now().await;
        }
        thinned = Some(segment);
    }
    signing::rotate(&keys).expect("a new key");
    store.close().await.expect("a good disk");
    let now = Timestamp::from_micros(START + 10 * 24 * 60 * 60 * 1_000_000);
    let (store, _) = Store::open(options, Arc::new(move || now)).expect("it opens");
    let retention = Arc::new(store.retention(None));
    let rules = RetentionRules { age: Some(5 * DAY), ..RetentionRules::default() };
    let working = Arc::clone(&retention);
    let report = tokio::task::spawn_blocking(move || {
        working.add_hold(HoldOn::Session(held), "a case".into(), "uid 0".into()).expect("recorded");
        working.prune(&PruneOrder { rules, who: None, dry_run: false }).expect("it prunes")
    });
    let report = report.await.expect("no panic");
    let thinned = thinned.expect("two segments");
    assert!(!report.segments.is_empty() && report.thinned == [thinned], "{report:?}");
    drop(retention);
    store.close().await.expect("a good disk");
    thinned
}

fn ended(session: SessionId) -> Record {
    let time = Timestamp::from_micros(START);
    let (state, ended) = (SessionState::Ended, Some(time));
    Record::SessionChanged(SessionChanged {
        session,
        time,
        state,
        ended,
        by: None,
        why: None,
        account: None,
    })
}

#[tokio::test]
async fn both_verifiers_believe_tombstones_and_nothing_less() {
    let source = tempfile::tempdir().expect("a directory");
    let thinned = pruned(source.path()).await;
    assert_eq!(verdict(source.path()), None);
    let report = verify(source.path()).expect("readable");
    assert!(report.pruned_records == 5 && report.deleted_segments.len() == 2, "{report:?}");

    let files = segments(source.path());
    for (i, file) in files.iter().enumerate() {
        let good = fs::read(file).expect("readable");
        // Every 13th byte: those of stubs and tombstones are among them.
        for at in (i % 13..good.len()).step_by(13) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(file, &bad).expect("writable");
            assert!(verdict(source.path()).is_some(), "byte {at} of segment {i}");
        }
        if i + 1 < files.len() {
            fs::remove_file(file).expect("there");
            assert!(verdict(source.path()).is_some(), "segment {i} is missing");
        }
        fs::write(file, &good).expect("writable");
    }
    assert_eq!(verdict(source.path()), None);

    // One more stub, as whoever can write the file can make it.
    let positions: Vec<_> = Reader::open(source.path())
        .expect("a store")
        .records()
        .map(|stored| stored.expect("good"))
        .filter(|stored| stored.position.segment == thinned)
        .filter(|stored| {
            !matches!(stored.record, Record::Unknown { kind: Kind::SEAL | Kind::KEY, .. })
        })
        .map(|stored| usize::try_from(stored.position.offset).expect("small"))
        .collect();
    let file = files.iter().find(|file| file.ends_with(format!("{thinned}.seg"))).expect("there");
    let good = fs::read(file).expect("readable");
    assert!(!positions.is_empty());
    for begin in positions {
        let mut bytes = good.clone();
        let length = u32::from_le_bytes(bytes[begin..begin + 4].try_into().expect("four"));
        let end = begin + 12 + usize::try_from(length).expect("small");
        let digest = *blake3::hash(&bytes[begin..end]).as_bytes();
        bytes[begin + 12..end].fill(0);
        bytes[begin + 12..begin + 44].copy_from_slice(&digest);
        bytes[begin + 10] |= 16;
        let crc = crc32c::crc32c(&bytes[begin + 8..end]);
        bytes[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
        fs::write(file, bytes).expect("writable");
        assert!(verdict(source.path()).is_some(), "the record at {begin} was hidden");
    }
    fs::write(file, good).expect("writable");

    // Without any key both believe what they cannot check.
    fs::remove_dir_all(source.path().join("keys")).expect("there");
    assert_eq!(verdict(source.path()), None);
}
