//! What the store does when the disk runs out, is slow or read-only, and when files go away under it.

use std::{
    fs,
    future::Future as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use recorder_user::{
    model::{Decision, ExchangeId, Record, SessionId, Timestamp, Verdict},
    store::{AppendError, Need, OpenStoreError, Recorder, Space, Store, StoreOptions},
};

use crate::{
    faults::{Faults, FaultyDisk, faulty, sessions, works_again},
    support::*,
};

async fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < deadline, "{what} never came");
        tokio::task::yield_now().await;
    }
}

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn below_the_floor_nothing_begins_and_what_is_under_way_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, faults) = faulty(directory.path());
    let recorder = store.recorder();
    let (session, under_way) = (SessionId::new(), ExchangeId::new());
    let mut records = exchange(session, under_way, "under-way");
    let settled = records.pop().expect("three records");
    recorder.append_all(records, Need::Durable).await.expect("there is space");

    let tell = |free_bytes| {
        let space = Space { bytes: 1000 * MIB, free_bytes, free_files: Some(7) };
        *faults.space.lock().expect("plain data") = Some(space);
    };
    tell(50 * MIB - 1);
    until("low space", || recorder.health().low_space).await;
    let begin = || exchange_opened(session, ExchangeId::new(), "new");
    for need in [Need::Queued, Need::Written, Need::Durable] {
        let answers = [
            recorder.append(begin(), need).await,
            recorder.append_all(vec![begin()], need).await,
            recorder.enqueue(vec![begin()], need).await,
        ];
        for answer in answers {
            let Err(AppendError::LowSpace { free_bytes, floor_bytes }) = answer else {
                panic!("{answer:?}");
            };
            assert_eq!((free_bytes, floor_bytes), (50 * MIB - 1, 50 * MIB), "a twentieth");
        }
    }
    let health = recorder.health();
    assert!(health.writable && health.space.is_some_and(|space| space.free_files == Some(7)));
    recorder.append(settled, Need::Durable).await.expect("what is under way has its outcome");
    let denied = match begin() {
        Record::ExchangeOpened(mut opened) => {
            opened.verdict = Some(Verdict { decision: Decision::Deny, ..Verdict::default() });
            Record::ExchangeOpened(opened)
        }
        other => other,
    };
    recorder.append(denied, Need::Written).await.expect("a refusal is recorded");

    tell(50 * MIB);
    until("space", || !recorder.health().low_space).await;
    recorder.append(begin(), Need::Durable).await.expect("there is space again");
    store.close().await.expect("a good disk");
    assert_eq!(records_of_kind(directory.path()), 3, "two that passed and one that was denied");
}

fn records_of_kind(directory: &Path) -> usize {
    let opened = |record: &Record| matches!(record, Record::ExchangeOpened(_));
    records(directory).iter().filter(|record| opened(record)).count()
}

#[tokio::test]
async fn a_floor_that_was_asked_for_is_the_floor() {
    let directory = tempfile::tempdir().expect("a directory");
    for (floor, low) in [(0, false), (u64::MAX, true)] {
        let options = StoreOptions { free_floor_bytes: Some(floor), ..options(directory.path()) };
        let (store, _) = Store::open(options, clock()).expect("a good disk");
        let health = store.recorder().health();
        assert_eq!((health.floor_bytes, health.low_space), (floor, low), "from the start");
        store.close().await.expect("a good disk");
    }
}

/// A write that takes long: what comes meanwhile waits at the queue's bound, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_appends_wait_at_the_bound() {
    let directory = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults { room: AtomicI64::new(-1), ..Faults::default() });
    let disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let options = StoreOptions { queue_bytes_max: 64 << 10, ..options(directory.path()) };
    let (store, _) = Store::open_on(disk, options, clock()).expect("a good disk");
    let recorder = store.recorder();
    let id = ExchangeId::new();
    let mut waits = Box::pin(async {
        let mut kept: u64 = 0;
        for _ in 0..40 {
            recorder.append(chunk(id, kept, &[7; 4096]), Need::Queued).await?;
            kept += 4096;
        }
        Ok::<u64, AppendError>(kept)
    });
    let slow = faults.write_gate.lock().expect("free");
    let polled = waits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, Poll::Pending), "more than the bound is queued: {polled:?}");
    let health = recorder.health();
    assert!(health.writable && health.queue_bytes <= health.queue_bytes_max, "{health:?}");
    drop(slow);
    let kept = waits.await.expect("the disk is only slow");
    store.close().await.expect("the disk is only slow");
    let read = records(directory.path()).into_iter().map(|record| match record {
        Record::Chunk(chunk) => chunk.data.len() as u64,
        _ => 0,
    });
    assert_eq!(read.sum::<u64>(), kept);
}

#[tokio::test]
async fn a_disk_that_is_read_only_from_the_start_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, faults) = faulty(directory.path());
    let recorder = store.recorder();
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("a good disk");
    drop(store);
    let before = segments(directory.path()).iter().map(fs::read).collect::<Result<Vec<_>, _>>();
    faults.read_only.store(true, Ordering::SeqCst);
    let disk = Arc::new(FaultyDisk(faults));
    let opened = Store::open_on(disk, options(directory.path()), clock());
    assert!(matches!(opened, Err(OpenStoreError::Recover(_))), "{:?}", opened.err());
    let after = segments(directory.path()).iter().map(fs::read).collect::<Result<Vec<_>, _>>();
    assert_eq!(before.expect("readable"), after.expect("readable"));
}

/// The wall clock is set back by a day for each record, and between starts.
#[tokio::test]
async fn a_clock_that_goes_back_breaks_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut appended = Vec::new();
    for start in 0..3 {
        let now = AtomicI64::new(START - start * 1_000_000_000);
        let clock = Arc::new(move || {
            Timestamp::from_micros(now.fetch_sub(86_400_000_000, Ordering::SeqCst))
        });
        let options = StoreOptions { segment_bytes_max: 2000, ..options(directory.path()) };
        let (store, recovered) = Store::open(options, clock).expect("a good disk");
        assert!(recovered.clean);
        let recorder = store.recorder();
        for _ in 0..10 {
            let session = SessionId::new();
            appended.push(session);
            recorder.append(session_opened(session), Need::Durable).await.expect("a good disk");
        }
        store.close().await.expect("a good disk");
    }
    assert_eq!(sessions(directory.path()), appended, "in the order in which they were appended");
    assert!(segments(directory.path()).len() > 5);
    let report = verify(directory.path()).expect("readable");
    assert!(report.is_ok(), "{report:?}");
}

/// Waits for the store to notice; what is durable was in a file that somebody can find.
async fn fails(recorder: &Recorder) {
    let mut acknowledged = 0;
    while recorder.append(session_opened(SessionId::new()), Need::Durable).await.is_ok() {
        acknowledged += 1;
    }
    assert_eq!(acknowledged, 0, "acknowledged in a file that is gone");
}

#[tokio::test]
async fn a_store_whose_directory_is_deleted_fails_and_makes_no_other() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store");
    let (store, _) = open(&path);
    let gateway = store.gateway_id();
    let recorder = store.recorder();
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("a good disk");
    fs::remove_dir_all(&path).expect("writable");
    fails(&recorder).await;
    assert!(recorder.probe().await.is_err(), "a new segment has nowhere to be");
    assert!(!recorder.health().writable);
    assert!(!path.join("segments").exists(), "a lock on it would lock nobody out");
    assert!(store.close().await.is_err());

    let (store, recovered) = open(&path);
    assert_eq!(recovered.segments, 0, "the next start makes a new one");
    assert_ne!(store.gateway_id(), gateway);
    store.close().await.expect("a good disk");
}

#[tokio::test]
async fn a_segment_that_is_deleted_while_it_is_written_is_noticed_and_missed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let recorder = store.recorder();
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("a good disk");
    for segment in segments(directory.path()) {
        fs::remove_file(segment).expect("writable");
    }
    fails(&recorder).await;
    works_again(&recorder).await;
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("a new one");
    store.close().await.expect("a good disk");
    assert_eq!(sessions(directory.path()).len(), 1);
    let report = verify(directory.path()).expect("readable");
    assert!(!report.is_ok(), "the first segment is missing, and the second one says so");
}

#[tokio::test]
async fn a_store_without_its_segments_keeps_its_gateway() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let gateway = store.gateway_id();
    store.close().await.expect("a good disk");
    fs::remove_dir_all(directory.path().join("segments")).expect("writable");
    let (store, recovered) = open(directory.path());
    assert_eq!((store.gateway_id(), recovered.segments), (gateway, 0));
    store.close().await.expect("a good disk");
    assert!(verify(directory.path()).expect("readable").is_ok());
}

#[tokio::test]
async fn an_index_that_is_deleted_under_a_gateway_is_made_anew_by_the_next() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let recorder = store.recorder();
    let session = SessionId::new();
    recorder.append(session_opened(session), Need::Durable).await.expect("a good disk");
    fs::remove_dir_all(directory.path().join("index")).expect("writable");
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("a good disk");
    store.close().await.expect("the segments are what counts");
    let (store, recovered) = open(directory.path());
    assert!(recovered.clean && recovered.index_rebuilt.is_some(), "{recovered:?}");
    assert_eq!(recovered.open_sessions.len(), 2);
    store.close().await.expect("a good disk");
}
