//! What is not the same is never taken for archived, and does not keep the rest waiting.

use archive::{Class, check_copies};
use object_store::{ObjectStoreExt as _, path::Path};
use recorder_user::{
    model::{ExchangeId, SessionId},
    store::archive::is_archived,
};

use crate::{
    faulty::{Bench, Fault},
    records::{at, finished, opened, session, store},
};

async fn three_segments(bench: &Bench) {
    let id = SessionId::new();
    let more = |n| vec![opened(id, ExchangeId::new(), at(n))];
    store(bench.directory.path(), vec![vec![session(id, at(0))], more(1), more(2)]).await;
}

fn name(bench: &Bench, index: usize) -> Path {
    let segment = &finished(bench.directory.path())[index];
    bench.bucket().url().segment(segment.gateway.expect("a header"), segment.segment)
}

#[tokio::test]
async fn another_object_of_a_segments_name_is_never_overwritten() {
    let bench = Bench::new();
    three_segments(&bench).await;
    let taken = name(&bench, 1);
    bench.objects.inner.put(&taken, "somebody else's".into()).await.expect("memory");
    let mut archiver = bench.archiver();
    let health = archiver.health();
    let pass = archiver.pass().await.expect("others can be archived");
    assert_eq!((pass.archived, pass.held), (2, 1));
    let view = health.view();
    assert!(view.alarm && view.pending_segments == 1, "{view:?}");
    assert_eq!(view.failures.get(&Class::Conflict), Some(&1));
    assert_eq!(bench.objects.bytes(taken.as_ref()).await, "somebody else's");
    let segments = finished(bench.directory.path());
    assert!(!is_archived(bench.directory.path(), segments[1].segment));
    assert!(is_archived(bench.directory.path(), segments[2].segment));
}

#[tokio::test]
async fn a_copy_that_reads_back_differently_is_no_copy() {
    let bench = Bench::new();
    three_segments(&bench).await;
    bench.objects.set(Fault::Flips);
    let mut archiver = bench.archiver();
    let pass = archiver.pass().await.expect("segment by segment");
    assert_eq!((pass.archived, pass.held), (0, 3));
    let view = archiver.health().view();
    assert!(view.alarm, "{view:?}");
    assert_eq!(view.failures.get(&Class::Mismatch), Some(&3));
    for segment in finished(bench.directory.path()) {
        assert!(!is_archived(bench.directory.path(), segment.segment));
    }
}

#[tokio::test]
async fn a_damaged_segment_is_not_archived_and_the_others_are() {
    let bench = Bench::new();
    three_segments(&bench).await;
    let path = finished(bench.directory.path())[1].path.clone();
    let mut bytes = std::fs::read(&path).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("a segment");
    let mut archiver = bench.archiver();
    let pass = archiver.pass().await.expect("others can be archived");
    assert_eq!((pass.archived, pass.held), (2, 1));
    assert_eq!(archiver.health().view().failures.get(&Class::Damaged), Some(&1));
    assert!(!bench.objects.names().await.contains(&name(&bench, 1).to_string()));
}

#[tokio::test]
async fn a_store_has_one_archiver_at_a_time() {
    let bench = Bench::new();
    three_segments(&bench).await;
    let state = recorder_user::store::archive::ArchiveState::of(bench.directory.path());
    let lock = state.lock().expect("a file").expect("nobody has it");
    let mut archiver = bench.archiver();
    let failure = archiver.pass().await.expect_err("another has the store");
    assert_eq!(failure.class, Class::Busy);
    assert!(!archiver.health().view().alarm && bench.objects.requests() == 0);
    drop(lock);
    assert_eq!(archiver.pass().await.expect("it works").archived, 3);
}

#[tokio::test]
async fn a_copy_that_changed_later_does_not_verify() {
    let bench = Bench::new();
    three_segments(&bench).await;
    bench.archiver().pass().await.expect("it works");
    let bucket = bench.bucket();
    let checked = check_copies(&bucket, bench.directory.path()).await.expect("readable");
    assert!(checked.len() == 3 && checked.iter().all(|copy| copy.wrong.is_none()), "{checked:?}");

    let (changed, gone) = (name(&bench, 0), name(&bench, 2));
    let mut bytes = bench.objects.bytes(changed.as_ref()).await.to_vec();
    bytes[20] ^= 1;
    bench.objects.inner.put(&changed, bytes.into()).await.expect("memory");
    bench.objects.inner.delete(&gone).await.expect("memory");
    // Also where the local segment is gone: its checksum was noted.
    std::fs::remove_file(&finished(bench.directory.path())[0].path).expect("a segment");
    let checked = check_copies(&bucket, bench.directory.path()).await.expect("readable");
    let wrong: Vec<_> = checked.iter().map(|copy| copy.wrong.is_some()).collect();
    assert_eq!(wrong, [true, false, true], "{checked:?}");
}

#[tokio::test]
async fn an_archive_reads_as_the_stores_of_its_gateways() {
    let (bench, other) = (Bench::new(), Bench::new());
    three_segments(&bench).await;
    three_segments(&other).await;
    bench.archiver().pass().await.expect("it works");
    let options = archive::ArchiverOptions {
        store: other.directory.path().into(),
        interval: std::time::Duration::from_secs(1),
        alarm_after: std::time::Duration::from_secs(1),
    };
    let time = std::sync::Arc::clone(&other.time) as std::sync::Arc<dyn archive::Time>;
    let mut second = archive::Archiver::new(options, bench.bucket(), time).expect("a store");
    second.pass().await.expect("it works");

    let cache = tempfile::tempdir().expect("a directory");
    let fetched = bench.bucket().fetch(cache.path()).await.expect("readable");
    assert_eq!((fetched.stores.len(), fetched.segments), (2, 6));
    for store in &fetched.stores {
        let report =
            recorder_user::store::verify(store, recorder_user::store::signing::Trust::default())
                .expect("a store");
        assert!(report.is_ok() && report.segments.len() == 3, "{report:?}");
    }
    let again = bench.bucket().fetch(cache.path()).await.expect("readable");
    assert_eq!((again.stores, again.segments), (fetched.stores, 0));
}
