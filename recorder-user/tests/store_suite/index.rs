use std::{
    fs::{self, OpenOptions},
    path::Path,
};

use recorder_user::{
    model::{ExchangeId, SessionId},
    store::{ExchangeRow, Need, Query, Reader, SessionView, reindex},
};

use crate::support::*;

fn rows(directory: &Path) -> (bool, Vec<SessionView>, Vec<ExchangeRow>) {
    let catalog = Reader::open(directory).expect("a store").catalog().expect("rows");
    let (sessions, exchanges) =
        (catalog.sessions().expect("rows"), catalog.search(&Query::default()).expect("rows"));
    (catalog.is_indexed(), sessions, exchanges)
}

async fn fill(directory: &Path, exchanges: usize) -> Option<String> {
    let (store, recovered) = open(directory);
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

/// Whatever is done to the index, the next start has the same rows, and says that it rebuilt.
async fn check(what: &str, damage: impl Fn(&Path), rebuilds: bool) {
    let directory = tempfile::tempdir().expect("a directory");
    fill(directory.path(), 40).await;
    let (_, sessions, exchanges) = rows(directory.path());
    damage(&directory.path().join("index"));
    let (_, unindexed, _) = rows(directory.path());
    assert_eq!(unindexed, sessions, "{what}: reading does not need the index");
    let (store, recovered) = open(directory.path());
    assert_eq!(recovered.index_rebuilt.is_some(), rebuilds, "{what}: {recovered:?}");
    assert!(recovered.clean, "{what}: the segments are as they were");
    assert_eq!(recovered.open_sessions, sessions, "{what}");
    store.close().await.expect("a good disk");
    assert_eq!(rows(directory.path()), (true, sessions, exchanges), "{what}");
}

#[tokio::test]
async fn a_damaged_index_is_rebuilt() {
    let remove = |path: &Path| fs::remove_file(path).expect("it is there");
    check("deleted", |index| fs::remove_dir_all(index).expect("writable"), true).await;
    check("FORMAT missing", |index| remove(&index.join("FORMAT")), true).await;
    check("conf missing", |index| remove(&index.join("db/conf")), true).await;
    check("conf torn", |index| fs::write(index.join("db/conf"), b"x").expect("writable"), true)
        .await;
    check("log missing", |index| remove(&index.join("db/db")), true).await;
    check(
        "log cut",
        |index| {
            let log = OpenOptions::new().write(true).open(index.join("db/db")).expect("writable");
            log.set_len(100).expect("writable");
        },
        true,
    )
    .await;
    check(
        "another version",
        |index| {
            let text = fs::read_to_string(index.join("FORMAT")).expect("readable");
            let other = text.replace("\"version\":2", "\"version\":99");
            assert_ne!(text, other);
            fs::write(index.join("FORMAT"), other).expect("writable");
        },
        true,
    )
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
