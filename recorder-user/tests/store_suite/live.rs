use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use recorder_user::{
    model::{
        ExchangeId, IncompleteReason, Record, SessionChanged, SessionId, SessionState, Timestamp,
    },
    store::{
        AppendError, Check, Need, OpenStoreError, PAYLOAD_BYTES_MAX, Query, Reader, Scope,
        StateWord, Store, StoreOptions,
    },
};

use crate::support::*;

#[tokio::test]
async fn what_is_appended_is_read_back_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, recovered) = open(directory.path());
    assert!(recovered.clean && recovered.index_rebuilt.is_none(), "{recovered:?}");
    let recorder = store.recorder();
    let session = SessionId::new();
    let mut written = vec![gateway_started(store.gateway_id()), session_opened(session)];
    for i in 0..20 {
        written.extend(exchange(session, ExchangeId::new(), &format!("map-{i}")));
    }
    let needs = [Need::Queued, Need::Written, Need::Durable];
    for (record, need) in written.iter().zip(needs.into_iter().cycle()) {
        recorder.append(record.clone(), need).await.expect("a good disk");
    }
    recorder.append_all(Vec::new(), Need::Durable).await.expect("nothing is nothing");
    recorder.append(written[0].clone(), Need::Written).await.expect("a good disk");
    written.push(written[0].clone());
    assert_eq!(records(directory.path()), written, "while it is live");
    let report = verify(directory.path()).expect("readable");
    assert!(report.is_ok() && report.live, "{report:?}");
    let id = store.gateway_id();
    store.close().await.expect("a good disk");

    let mut read = records(directory.path());
    assert!(matches!(read.pop(), Some(Record::Unknown { .. })), "the seal");
    assert_eq!(read, written);
    let check = Check { scope: Scope::Session(session), ..Check::default() };
    let report = check.run(directory.path()).expect("readable");
    assert!(report.found);
    assert!(report.is_ok() && !report.live && report.segments[0].sealed, "{report:?}");
    assert_eq!(report.bodies, 40);
    let (store, recovered) = open(directory.path());
    assert!(recovered.clean);
    assert_eq!(store.gateway_id(), id, "the gateway's id is kept");
    assert_eq!(recovered.open_sessions.len(), 1);
    assert_eq!(recovered.open_sessions[0].key().subject, "sub-7");
}

#[tokio::test]
async fn an_unclean_end_loses_the_gateway_but_not_the_record() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ended, open_one) = (SessionId::new(), SessionId::new());
    let (done, undone) = (ExchangeId::new(), ExchangeId::new());
    {
        let (store, _) = open(directory.path());
        let recorder = store.recorder();
        let mut records = vec![session_opened(ended), session_opened(open_one)];
        records.push(Record::SessionChanged(SessionChanged {
            session: ended,
            time: Timestamp::from_micros(START),
            state: SessionState::Ended,
            ended: Some(Timestamp::from_micros(START)),
            by: None,
            why: None,
            account: None,
        }));
        records.extend(exchange(open_one, done, "done"));
        records.push(exchange_opened(open_one, undone, "undone"));
        records.push(chunk(undone, 0, b"half"));
        recorder.append_all(records, Need::Durable).await.expect("a good disk");
    }
    let (store, recovered) = open(directory.path());
    assert!(!recovered.clean && recovered.open_sessions.is_empty(), "{recovered:?}");
    assert_eq!(recovered.lost_sessions.len(), 1);
    {
        let reader = Reader::open(directory.path()).expect("a store");
        let catalog = reader.catalog().expect("rows");
        assert!(!catalog.is_indexed(), "a gateway has it");
        let view = catalog.session(open_one).expect("rows").expect("it is there");
        assert_eq!(view.state, StateWord::Incomplete);
        assert_eq!(view.reason, Some(IncompleteReason::GatewayLost));
        // The settled exchange is the last thing that was seen, the chunk of the other came earlier.
        assert_eq!(view.ended, Some(Timestamp::from_micros(START + 2_000)));
        assert_eq!(view.effects.deleted, 1);
        assert_eq!(view.account.state.as_str(), "unwitnessed");
        let view = catalog.session(ended).expect("rows").expect("it is there");
        assert_eq!(view.state, StateWord::Ended);
        let row = catalog.exchange(undone).expect("rows").expect("it is there");
        assert_eq!((row.effect.as_str(), row.status), ("unknown", None));
        let found = reader.exchange_at(&row).expect("readable").expect("it is there");
        assert_eq!((found.chunks.len(), found.settled.is_none()), (1, true));
        let found = reader.exchange(done).expect("readable").expect("it is there");
        assert!(found.settled.is_some() && !found.truncated);
        assert!(reader.exchange(ExchangeId::new()).expect("readable").is_none());
    }
    store.close().await.expect("a good disk");
    let reader = Reader::open(directory.path()).expect("a store");
    let catalog = reader.catalog().expect("rows");
    assert!(catalog.is_indexed(), "closed in order, the index covers everything");
    let view = catalog.session(open_one).expect("rows").expect("it is there");
    assert_eq!(view.reason, Some(IncompleteReason::GatewayLost));
    assert!(verify(directory.path()).expect("readable").is_ok());
}

#[tokio::test]
async fn two_gateways_cannot_share_a_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let second = Store::open(options(directory.path()), clock());
    let Err(OpenStoreError::Lock(error)) = second else { panic!("a second one must be refused") };
    assert!(error.to_string().contains("store.directory"), "the message says what to do: {error}");
    assert!(recorder_user::store::reindex(directory.path()).is_err(), "nor reindexed meanwhile");
    store.close().await.expect("a good disk");
    drop(open(directory.path()));
}

#[tokio::test]
async fn only_the_owner_can_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path().join("store");
    let (store, _) = open(&directory);
    store.recorder().append(session_opened(SessionId::new()), Need::Durable).await.expect("good");
    store.close().await.expect("a good disk");
    check_modes(&directory);
}

fn check_modes(path: &Path) {
    let metadata = std::fs::metadata(path).expect("it is there");
    let mode = metadata.permissions().mode() & 0o777;
    if metadata.is_dir() {
        // sled makes `blobs` itself; the directories above it keep everyone out.
        assert!(mode == 0o700 || path.ends_with("blobs"), "{}: {mode:o}", path.display());
        for entry in std::fs::read_dir(path).expect("readable") {
            check_modes(&entry.expect("readable").path());
        }
    } else {
        let private_key = path.extension().is_some_and(|extension| extension == "key");
        assert_eq!(mode, if private_key { 0o400 } else { 0o600 }, "{}", path.display());
    }
}

#[tokio::test]
async fn segments_rotate_and_link() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { segment_bytes_max: 8 << 10, ..options(directory.path()) };
    let (store, _) = Store::open(options, clock()).expect("it opens");
    let recorder = store.recorder();
    let session = SessionId::new();
    recorder.append(session_opened(session), Need::Written).await.expect("a good disk");
    let mut ids = Vec::new();
    for i in 0..50 {
        ids.push(ExchangeId::new());
        let records = exchange(session, ids[i], &format!("map-{i}"));
        recorder.append_all(records, Need::Durable).await.expect("a good disk");
    }
    let reader = Reader::open(directory.path()).expect("a store");
    let segments = reader.segments().expect("good headers");
    assert!(segments.len() > 3, "{}", segments.len());
    for pair in segments.windows(2) {
        let previous = pair[1].header.previous.expect("not the first");
        assert_eq!(previous.segment, pair[0].segment);
    }
    let report = verify(directory.path()).expect("readable");
    assert!(report.is_ok(), "{report:?}");
    store.close().await.expect("a good disk");
    let catalog = reader.catalog().expect("rows");
    let query = Query { limit: 7, after: Some(ids[9]), ..Query::default() };
    let found = catalog.search(&query).expect("rows");
    let found: Vec<_> = found.iter().map(|row| row.exchange).collect();
    assert_eq!(found, ids[10..17], "a page after a cursor");
    assert_eq!(catalog.search(&Query::default()).expect("rows").len(), 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_follows_a_writer() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { segment_bytes_max: 64 << 10, ..options(directory.path()) };
    let (store, _) = Store::open(options, clock()).expect("it opens");
    let recorder = store.recorder();
    let session = SessionId::new();
    let exchanges = 400;
    let mut writer = tokio::task::JoinSet::new();
    writer.spawn(async move {
        for i in 0..exchanges {
            let records = exchange(session, ExchangeId::new(), &format!("map-{i}"));
            recorder.append_all(records, Need::Written).await.expect("a good disk");
        }
    });
    let path = directory.path().to_owned();
    let reader = tokio::task::spawn_blocking(move || {
        let mut records = Reader::open(&path).expect("a store").records();
        let (mut opened, mut settled) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(60);
        while settled < exchanges && Instant::now() < deadline {
            match records.next() {
                Some(stored) => match stored.expect("never damage").record {
                    Record::ExchangeOpened(_) => opened += 1,
                    Record::ExchangeSettled(_) => settled += 1,
                    _ => {}
                },
                None => std::thread::yield_now(),
            }
        }
        assert!(verify(&path).expect("readable").is_ok());
        (opened, settled)
    });
    writer.join_next().await.expect("there is one").expect("it writes");
    assert_eq!(reader.await.expect("it reads"), (exchanges, exchanges));
    store.close().await.expect("a good disk");
}

#[tokio::test]
async fn too_large_a_record_is_refused_and_the_store_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let recorder = store.recorder();
    let large = chunk(ExchangeId::new(), 0, &vec![0; PAYLOAD_BYTES_MAX]);
    let refused = recorder.append(large, Need::Written).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("it goes on");
    let health = recorder.health();
    assert!(health.writable && health.sync.count > 0, "{health:?}");
    store.close().await.expect("a good disk");
    let closed = recorder.append(session_opened(SessionId::new()), Need::Written).await;
    assert!(matches!(closed, Err(AppendError::Closed)), "{closed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_queued_by_many_are_all_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    // A queue that holds a few records only: everyone has to wait for room.
    let options = StoreOptions { queue_bytes_max: 16 << 10, ..options(directory.path()) };
    let (store, _) = Store::open(options, clock()).expect("it opens");
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_u8 {
        let recorder = store.recorder();
        tasks.spawn(async move {
            let id = ExchangeId::from_bytes([task; 16]);
            for i in 0..100 {
                let need = if i % 10 == 9 { Need::Durable } else { Need::Queued };
                let record = chunk(id, i * 1000, &[task; 1000]);
                recorder.append(record, need).await.expect("a good disk");
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("it appends");
    }
    let mut next = [0; 16];
    for record in records(directory.path()) {
        let Record::Chunk(chunk) = record else { panic!("only chunks were written") };
        let task = usize::from(chunk.exchange.as_bytes()[0]);
        assert_eq!(chunk.offset, next[task], "in the order of each task");
        next[task] += 1000;
    }
    assert_eq!(next, [100_000; 16]);
    all_room_is_free(&store.recorder()).await;
    store.close().await.expect("a good disk");
}

#[tokio::test]
async fn what_nobody_waits_for_becomes_durable_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let recorder = store.recorder();
    let before = recorder.health().sync.count;
    recorder.append(session_opened(SessionId::new()), Need::Queued).await.expect("a good disk");
    let deadline = Instant::now() + Duration::from_secs(20);
    while recorder.health().sync.count == before {
        assert!(Instant::now() < deadline, "nobody flushes");
        tokio::task::yield_now().await;
    }
    store.close().await.expect("a good disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_is_dropped_leaves_nothing_half_done() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { queue_bytes_max: 4 << 10, ..options(directory.path()) };
    let (store, _) = Store::open(options, clock()).expect("it opens");
    let mut appends = tokio::task::JoinSet::new();
    for i in 0..200_u64 {
        let recorder = store.recorder();
        let append = appends.spawn(async move {
            let record = chunk(ExchangeId::from_bytes([1; 16]), i, &[0; 3000]);
            drop(recorder.append(record, Need::Durable).await);
        });
        if i % 3 != 0 {
            tokio::task::yield_now().await;
        }
        append.abort();
    }
    let recorder = store.recorder();
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("room is left");
    all_room_is_free(&recorder).await;
    store.close().await.expect("a good disk");
    assert!(verify(directory.path()).expect("readable").first_bad.is_none());
}

#[tokio::test]
async fn records_are_queued_together_without_waiting() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let recorder = store.recorder();
    let id = ExchangeId::new();
    let pair = || vec![chunk(id, 0, b"one"), chunk(id, 3, b"two")];
    recorder.enqueue(Vec::new(), Need::Durable).await.expect("nothing is nothing");
    recorder.try_queue(Vec::new()).expect("nothing is nothing");
    let waiting = recorder.enqueue(pair(), Need::Durable);
    // Nothing must take the place of the waiter before it.
    recorder.enqueue(Vec::new(), Need::Written).await.expect("nothing is nothing");
    waiting.await.expect("a good disk");
    recorder.try_queue(pair()).expect("there is room");
    recorder.append(chunk(id, 6, b"end"), Need::Written).await.expect("a good disk");
    assert_eq!(records(directory.path()).len(), 5);
    store.close().await.expect("a good disk");
    assert_eq!(recorder.try_queue(pair()), Err(pair()), "given back");
    assert!(recorder.enqueue(pair(), Need::Queued).await.is_err());
}
