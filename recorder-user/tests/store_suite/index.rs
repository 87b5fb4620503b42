use std::{
    fs::{self, OpenOptions},
    path::Path,
};

use recorder_user::{
    model::{
        Change, ExchangeId, ObjectChange, Record, SessionId, StreamKind, StreamRequest, Timestamp,
    },
    store::{
        ExchangeRow, IndexBackend, Need, Query, Reader, Recovered, SessionView, Store,
        StoreOptions, reindex,
    },
};

use crate::support::*;

fn rows(directory: &Path) -> (bool, Vec<SessionView>, Vec<ExchangeRow>) {
    let catalog = Reader::open(directory).expect("a store").catalog().expect("rows");
    let (sessions, exchanges) =
        (catalog.sessions().expect("rows"), catalog.search(&Query::default()).expect("rows"));
    (catalog.is_indexed(), sessions, exchanges)
}

fn open_in(directory: &Path, index: IndexBackend) -> (Store, Recovered) {
    let options = StoreOptions { index, ..options(directory) };
    Store::open(options, clock()).expect("the store opens")
}

async fn fill(directory: &Path, exchanges: usize) -> Option<String> {
    fill_in(directory, IndexBackend::default(), exchanges).await
}

async fn fill_in(directory: &Path, index: IndexBackend, exchanges: usize) -> Option<String> {
    let (store, recovered) = open_in(directory, index);
    let recorder = store.recorder();
    let session = SessionId::new();
    recorder.append(session_opened(session), Need::Written).await.expect("a good disk");
    for i in 0..exchanges {
        let records = exchange(session, ExchangeId::new(), &format!("map-{i}"));
        recorder.append_all(records, Need::Written).await.expect("a good disk");
    }
    store.close().await.expect("a good disk");
    recovered.index_rebuilt
}

#[tokio::test]
async fn the_index_and_the_segments_give_the_same_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(fill(directory.path(), 300).await, None);
    assert_eq!(fill(directory.path(), 10).await, None, "it goes on where it was");
    let (indexed, sessions, exchanges) = rows(directory.path());
    assert!(indexed);
    assert_eq!((sessions.len(), exchanges.len()), (2, 310));
    fs::rename(directory.path().join("index"), directory.path().join("away")).expect("writable");
    assert_eq!(rows(directory.path()), (false, sessions.clone(), exchanges.clone()));
    let report = reindex(directory.path()).expect("no gateway runs");
    assert_eq!((report.sessions, report.exchanges), (2, 310));
    assert_eq!(rows(directory.path()), (true, sessions, exchanges));
}

/// Whatever is done to the index, the next start has the same rows, and says whether it rebuilt.
async fn check(index: IndexBackend, what: &str, damage: impl Fn(&Path), rebuilds: bool) {
    let what = format!("{index}: {what}");
    let directory = tempfile::tempdir().expect("a directory");
    fill_in(directory.path(), index, 40).await;
    let (_, sessions, exchanges) = rows(directory.path());
    damage(&directory.path().join("index"));
    let (_, unindexed, _) = rows(directory.path());
    assert_eq!(unindexed, sessions, "{what}: reading does not need the index");
    let (store, recovered) = open_in(directory.path(), index);
    assert_eq!(recovered.index_rebuilt.is_some(), rebuilds, "{what}: {recovered:?}");
    assert!(recovered.clean, "{what}: the segments are as they were");
    assert_eq!(recovered.open_sessions, sessions, "{what}");
    store.close().await.expect("a good disk");
    assert_eq!(rows(directory.path()), (true, sessions, exchanges), "{what}");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("it is there");
}

fn cut(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).expect("writable");
    file.set_len(100).expect("writable");
}

#[tokio::test]
async fn a_damaged_index_is_rebuilt() {
    for (backend, file) in IndexBackend::ALL.into_iter().zip(["db/db", "rows.redb"]) {
        let delete = |index: &Path| fs::remove_dir_all(index).expect("writable");
        check(backend, "deleted", delete, true).await;
        check(backend, "FORMAT missing", |index| remove(&index.join("FORMAT")), true).await;
        check(backend, "file missing", |index| remove(&index.join(file)), true).await;
        check(backend, "file cut", |index| cut(&index.join(file)), true).await;
        let noise = |index: &Path| fs::write(index.join(file), [0x5a; 70_000]).expect("writable");
        check(backend, "file of noise", noise, true).await;
        let other_version = |index: &Path| {
            let text = fs::read_to_string(index.join("FORMAT")).expect("readable");
            let other = text.replace("\"version\":", "\"version\":9");
            assert_ne!(text, other);
            fs::write(index.join("FORMAT"), other).expect("writable");
        };
        check(backend, "another version", other_version, true).await;
    }
}

#[tokio::test]
async fn what_sled_would_take_wrongly_is_not_left_to_it() {
    let check = async |what, damage: fn(&Path), rebuilds| {
        check(IndexBackend::Sled, what, damage, rebuilds).await;
    };
    check("conf missing", |index| remove(&index.join("db/conf")), true).await;
    check("conf torn", |index| fs::write(index.join("db/conf"), b"x").expect("writable"), true)
        .await;
    check("blobs", |index| fs::write(index.join("db/blobs/1"), b"x").expect("writable"), true)
        .await;
    // What a crash while opening leaves is removed, and the index is good.
    check(
        "snapshot half made",
        |index| fs::write(index.join("db/snap.ffffffffffffffff.generating"), b"x").expect("ok"),
        false,
    )
    .await;
}

/// The index moves to the database that is configured; `reindex`, which knows no configuration, leaves it there.
#[tokio::test]
async fn an_index_in_another_database_is_built_anew() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut filled = 0;
    for (index, was) in [("sled", None), ("redb", Some("sled")), ("sled", Some("redb"))] {
        let backend: IndexBackend = index.parse().expect("a database");
        let rebuilt = fill_in(directory.path(), backend, 20).await;
        filled += 20;
        let expected = was.map(|was| format!("kept in {was}, not in {index}"));
        match (&rebuilt, &expected) {
            (Some(rebuilt), Some(expected)) => assert!(rebuilt.contains(expected), "{rebuilt}"),
            _ => assert_eq!(rebuilt, expected),
        }
        assert_eq!(fill_in(directory.path(), backend, 0).await, None, "{index} stays");
        let before = rows(directory.path());
        assert_eq!((before.0, before.2.len()), (true, filled), "{index}");
        reindex(directory.path()).expect("no gateway runs");
        assert_eq!(rows(directory.path()), before, "{index}");
        assert_eq!(fill_in(directory.path(), backend, 0).await, None, "{index} was kept");
    }
}

fn exec(session: SessionId, id: ExchangeId, command: &[&str]) -> Record {
    let Record::ExchangeOpened(mut opened) = exchange_opened(session, id, "web") else {
        unreachable!("it is an intent")
    };
    opened.stream = Some(StreamRequest {
        kind: StreamKind::Exec,
        container: None,
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        stdin: false,
        stdout: true,
        stderr: true,
        tty: false,
        ports: Vec::new(),
    });
    Record::ExchangeOpened(opened)
}

fn deleted(session: SessionId, id: ExchangeId, count: usize) -> Record {
    let Record::ExchangeSettled(mut settled) = exchange_settled(session, id, "web", b"{}") else {
        unreachable!("it is an outcome")
    };
    let object = |number| ObjectChange {
        kind: "Pod".into(),
        namespace: "shop".into(),
        name: format!("pod-{number}"),
        uid: format!("uid-{number}"),
        change: Change::Deleted,
    };
    settled.objects = (0..count).map(object).collect();
    settled.object_count = count as u64;
    Record::ExchangeSettled(settled)
}

/// A search finds the same in each index and in the segments, what rows have no room for too.
#[tokio::test]
async fn searches_find_what_rows_leave_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let recorder = store.recorder();
    let session = SessionId::new();
    let ids: Vec<ExchangeId> = (0..6).map(|_| ExchangeId::new()).collect();
    let script = format!("set -e; {}rm -rf /data/precious", "echo step; ".repeat(2_000));
    let mut records = vec![session_opened(session)];
    records.extend(exchange(session, ids[0], "map"));
    records.extend([exec(session, ids[1], &["sh", "-c", "rm -rf /tmp/x"])]);
    records.extend([exec(session, ids[2], &["sh", "-c", &script])]);
    records.extend([exec(session, ids[3], &["sh", "-c", &script.replace("precious", "old")])]);
    records.extend([exchange_opened(session, ids[4], "web"), deleted(session, ids[4], 200)]);
    records.extend([exchange_opened(session, ids[5], "web"), deleted(session, ids[5], 150)]);
    recorder.append_all(records, Need::Written).await.expect("a good disk");
    store.close().await.expect("a good disk");

    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (Query { command: text("rm -rf"), ..Query::default() }, vec![1, 2, 3]),
        (Query { command: text("rm -rf /data/precious"), ..Query::default() }, vec![2]),
        (Query { command: text("step; echo"), ..Query::default() }, vec![2, 3]),
        (Query { command: text("mkfs"), ..Query::default() }, vec![]),
        (Query { uid: text("uid-1"), ..Query::default() }, vec![4, 5]),
        (Query { uid: text("uid-199"), ..Query::default() }, vec![4]),
        (Query { uid: text("uid-200"), ..Query::default() }, vec![]),
        (Query { name: text("pod-149"), ..Query::default() }, vec![4, 5]),
        (Query { name: text("web"), limit: 2, ..Query::default() }, vec![1, 2]),
        (Query { name: text("web"), after: Some(ids[3]), ..Query::default() }, vec![4, 5]),
        (Query { uid: text("uid-1"), verb: text("get"), ..Query::default() }, vec![]),
        (Query { until: Some(Timestamp::from_micros(START)), ..Query::default() }, vec![]),
    ];
    let check = |indexed: bool, why: &str| {
        let catalog = Reader::open(directory.path()).expect("a store").catalog().expect("rows");
        assert_eq!(catalog.is_indexed(), indexed, "{why}");
        for (query, expected) in &expected {
            let found = catalog.search(query).expect("rows");
            let found: Vec<ExchangeId> = found.iter().map(|row| row.exchange).collect();
            let expected: Vec<ExchangeId> = expected.iter().map(|i| ids[*i]).collect();
            assert_eq!(found, expected, "{why}: {query:?}");
        }
    };
    for backend in IndexBackend::ALL {
        let (store, _) = open_in(directory.path(), backend);
        store.close().await.expect("a good disk");
        check(true, backend.as_str());
    }
    fs::remove_dir_all(directory.path().join("index")).expect("writable");
    check(false, "segments alone");
}

#[tokio::test]
async fn rows_of_another_history_are_not_believed() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 5).await;
    let other = tempfile::tempdir().expect("a directory");
    fill(other.path(), 7).await;
    fs::remove_dir_all(directory.path().join("index")).expect("writable");
    fs::rename(other.path().join("index"), directory.path().join("index")).expect("writable");
    assert_eq!(rows(directory.path()).2.len(), 5);
    let (store, recovered) = open(directory.path());
    assert!(recovered.index_rebuilt.expect("rebuilt").contains("segments do not have"));
    assert_eq!(recovered.open_sessions.len(), 1);
    drop(store);
}

/// The same segment with as many bytes, but other ones: only the hash tells.
#[tokio::test]
async fn rows_of_other_records_in_the_same_place_are_not_believed() {
    let (directory, other) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    // Without exchanges nothing is compressed, so that lengths do not depend on ids.
    fill(directory.path(), 0).await;
    fill(other.path(), 0).await;
    let (here, there) = (segments(directory.path()).remove(0), segments(other.path()).remove(0));
    let length = |path: &Path| fs::metadata(path).expect("it is there").len();
    assert_eq!(length(&here), length(&there));
    fs::copy(&there, &here).expect("writable");
    let expected = rows(other.path()).1[0].session;
    let (store, recovered) = open(directory.path());
    assert!(recovered.index_rebuilt.expect("rebuilt").contains("segments do not have"));
    assert_eq!(recovered.open_sessions[0].session, expected);
    drop(store);
}

#[tokio::test]
async fn without_an_index_the_store_still_records() {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 3).await;
    fs::remove_dir_all(directory.path().join("index")).expect("writable");
    // A file where the directory should be cannot be removed as one.
    fs::write(directory.path().join("index"), b"in the way").expect("writable");
    let (store, recovered) = open(directory.path());
    assert_eq!(recovered.open_sessions.len(), 1, "found in the segments");
    let recorder = store.recorder();
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("it records");
    let health = recorder.health();
    assert!(health.writable && health.index.error.is_some(), "{health:?}");
    store.close().await.expect("a good disk");
    assert_eq!(rows(directory.path()).1.len(), 2);
}
