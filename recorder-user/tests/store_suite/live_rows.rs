//! Rows of a store while it is written.

use std::{fs, path::Path};

use recorder_user::{
    model::{
        AccessId, AccessScope, ExchangeId, Kind, LocalUser, Record, RecordingRead, SessionId,
        Through, Timestamp,
    },
    store::{ExchangeRow, LiveRows, LiveRowsError, Need, Query, Reader, Recorder, SessionView},
};

use crate::support::*;

/// A session with so many exchanges.
async fn fill(recorder: &Recorder, session: SessionId, exchanges: usize) {
    recorder.append(session_opened(session), Need::Written).await.expect("a good disk");
    for i in 0..exchanges {
        let records = exchange(session, ExchangeId::new(), &format!("map-{i}"));
        recorder.append_all(records, Need::Queued).await.expect("a good disk");
    }
}

async fn all_exchanges(rows: &LiveRows, query: &Query) -> (Vec<ExchangeRow>, usize) {
    let (mut found, mut query, mut pages) = (Vec::new(), query.clone(), 0);
    loop {
        let page = rows.exchanges(query.clone()).await.expect("rows");
        assert!(page.rows.len() <= 256, "a page is bounded");
        found.extend(page.rows);
        pages += 1;
        if page.next.is_none() {
            return (found, pages);
        }
        query.after = page.next;
    }
}

async fn all_sessions(rows: &LiveRows) -> Vec<SessionView> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = rows.sessions(after).await.expect("rows");
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_has_its_row_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let (recorder, rows) = (store.recorder(), store.rows());
    let session = SessionId::new();
    recorder.append(session_opened(session), Need::Written).await.expect("a good disk");
    let noise = recorder.clone();
    let busy = tokio::spawn(async move { fill(&noise, SessionId::new(), 4000).await });
    for i in 0..200 {
        let need = if i % 2 == 0 { Need::Written } else { Need::Durable };
        let id = ExchangeId::new();
        recorder.append_all(exchange(session, id, "map"), need).await.expect("a good disk");
        let row = rows.exchange(id).await.expect("rows").expect("it was acknowledged");
        assert_eq!(row.status, Some(200), "with its outcome");
        let view = rows.session(session).await.expect("rows").expect("it was acknowledged");
        assert_eq!(view.exchanges, i + 1);
    }
    busy.await.expect("no panic");
    store.close().await.expect("a good disk");
    assert!(matches!(rows.ready().await, Err(LiveRowsError::NoIndex)), "the store is closed");
}

#[tokio::test]
async fn pages_give_what_a_scan_of_the_segments_gives() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let recorder = store.recorder();
    for exchanges in [1500, 700, 0] {
        fill(&recorder, SessionId::new(), exchanges).await;
    }
    for _ in 0..300 {
        fill(&recorder, SessionId::new(), 0).await;
    }
    let rows = store.rows();
    let catalog = Reader::open(directory.path()).expect("a store").catalog().expect("rows");
    assert!(!catalog.is_indexed());
    let sessions = catalog.sessions().expect("rows");
    assert_eq!(sessions.len(), 303);
    assert_eq!(all_sessions(&rows).await, sessions);
    let named = |name: &str| Query { name: Some(name.into()), ..Query::default() };
    let of_one = Query { session: Some(sessions[1].session), ..Query::default() };
    for (query, count) in [
        (Query::default(), 2200),
        (named("map-3"), 2),
        (named("map-1400"), 1),
        (named("no such map"), 0),
        (of_one, 700),
        (Query { limit: 10, ..Query::default() }, 2200),
    ] {
        let (found, pages) = all_exchanges(&rows, &query).await;
        let scanned = catalog.search(&Query { limit: 0, ..query.clone() }).expect("rows");
        assert_eq!(found.len(), count, "{query:?}");
        assert_eq!(found, scanned, "{query:?}");
        assert!(count <= 256 || pages > 1, "no page looks at everything: {query:?}");
    }
    store.close().await.expect("a good disk");
}

#[tokio::test]
async fn parts_of_ids_are_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, _) = open(directory.path());
    let session = SessionId::new();
    fill(&store.recorder(), session, 20).await;
    let rows = store.rows();
    let (exchanges, _) = all_exchanges(&rows, &Query::default()).await;
    for row in &exchanges {
        let part = row.exchange.to_string()[20..].parse().expect("a part");
        let page = rows.matching_exchanges(part, None).await.expect("rows");
        assert_eq!((page.rows, page.next), (vec![row.exchange], None));
    }
    let part = session.to_string()[..8].parse().expect("a part");
    assert_eq!(rows.matching_sessions(part, None).await.expect("rows").rows, [session]);
    store.close().await.expect("a good disk");
}

#[tokio::test]
async fn without_an_index_there_are_no_rows_to_ask_for() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("index"), "in the way").expect("writable");
    let (store, _) = open(directory.path());
    fill(&store.recorder(), SessionId::new(), 1).await;
    assert!(matches!(store.rows().sessions(None).await, Err(LiveRowsError::NoIndex)));
    store.close().await.expect("a good disk");
    assert_eq!(records(directory.path()).len(), 1 + 3 + 1, "recorded all the same, and sealed");
}

#[tokio::test]
async fn readings_are_records_of_their_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let read = |seconds: i64| RecordingRead {
        access: AccessId::new(),
        time: Timestamp::from_micros(START + seconds * 1_000_000),
        by: LocalUser { uid: 7, user: Some("alice".into()), pid: Some(1) },
        through: Through::Socket,
        verb: "ls".into(),
        what: AccessScope::default(),
    };
    let (first, second) = (read(0), read(1));
    for read in [&first, &second] {
        let (store, _) = open(directory.path());
        let recorder = store.recorder();
        fill(&recorder, SessionId::new(), 3).await;
        let record = Record::RecordingRead(Box::new(read.clone()));
        recorder.append(record, Need::Written).await.expect("a good disk");
        store.close().await.expect("a good disk");
    }
    assert_eq!(readings(directory.path(), None), [first, second.clone()]);
    let catalog = Reader::open(directory.path()).expect("a store").catalog().expect("rows");
    assert!(catalog.is_indexed(), "they are covered, and have no rows");
    assert_eq!(catalog.search(&Query::default()).expect("rows").len(), 6);
    // All segments are too young for this instant; both are old enough for the other.
    let now = Timestamp::now();
    assert_eq!(readings(directory.path(), Some(Timestamp::from_micros(START))).len(), 2);
    assert_eq!(readings(directory.path(), Some(now)).len(), 2, "one segment more is looked at");
}

fn readings(store: &Path, since: Option<Timestamp>) -> Vec<RecordingRead> {
    let reader = Reader::open(store).expect("a store");
    let begin = since.and_then(|since| reader.position_before(since).expect("readable"));
    let found = reader.records_of_kind(Kind::RECORDING_READ, begin);
    let read = found.map(|stored| match stored.expect("a good record").record {
        Record::RecordingRead(read) => *read,
        other => panic!("of another kind: {other:?}"),
    });
    read.collect()
}
