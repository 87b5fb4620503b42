use std::time::Instant;

use crate::{
    model::{Chunk, Direction, Record, Timestamp},
    store::{Catalog, Need, Query, Reader, Store, StoreOptions, scan::segments_directory},
};

use super::*;

mod conformance;
mod crash;
mod searching;

/// More records than the queue holds: the index reads them from the segments, and misses none.
#[tokio::test]
async fn an_index_that_falls_behind_catches_up() {
    let clock = crate::store::system_clock();
    let full = tempfile::tempdir().expect("a directory");
    let (store, _) = Store::open(
        StoreOptions { keys: full.path().join("keys"), ..StoreOptions::new(full.path().into()) },
        clock,
    )
    .expect("it opens");
    let recorder = store.recorder();
    let session = SessionId::new();
    let opened = crate::model::SessionOpened {
        session,
        time: Timestamp::EPOCH,
        key: crate::model::SessionKey {
            issuer: "i".into(),
            subject: "s".into(),
            cluster: "c".into(),
            task: None,
        },
        principal: crate::model::Principal::default(),
        kind: crate::model::SessionKind::Api,
    };
    let mut records = vec![Record::SessionOpened(opened)];
    for _ in 0..700 {
        records.push(Record::ExchangeOpened(Box::new(crate::model::ExchangeOpened {
            exchange: ExchangeId::new(),
            session: Some(session),
            ..Default::default()
        })));
    }
    recorder.append_all(records, Need::Written).await.expect("a good disk");
    store.close().await.expect("a good disk");

    // An index that knows nothing of those segments, fed with more than its queue holds.
    let empty = tempfile::tempdir().expect("a directory");
    fs::create_dir(segments_directory(empty.path())).expect("writable");
    let boot = BootId::from_bytes([1; 16]);
    let index = Index::open(empty.path(), boot, IndexBackend::Sled).expect("a new index").index;
    let mut end = None;
    for (segment, path) in scan::list_segments(full.path()).expect("readable") {
        fs::copy(&path, scan::segment_path(empty.path(), segment)).expect("writable");
        let (mut scan, _) = Scan::open(&path).expect("good");
        while let Some(raw) = scan.next().expect("good") {
            end = Some((Position { segment, offset: raw.offset }, raw.end, raw.hash));
        }
    }
    let (at, end, hash) = end.expect("there are records");
    let record = || {
        Record::Chunk(Chunk {
            exchange: ExchangeId::from_bytes([0; 16]),
            direction: Direction::Request,
            at_us: 0,
            offset: 0,
            data: bytes::Bytes::new(),
        })
    };
    let feed = Feed::default();
    let early = Position { segment: SegmentId::from_bytes([0; 16]), offset: 0 };
    for at in std::iter::repeat_n(early, 20_000).chain([at]) {
        feed.push(&mut vec![Item { at, end, hash, record: record() }]);
    }
    assert_eq!(feed.health().queued, 0, "it overflowed");
    feed.stop();
    feed.run(index);
    assert_eq!(feed.health().error, None);

    let rows = |directory| {
        let catalog = indexed(&Reader::on(directory));
        (catalog.sessions().expect("rows"), catalog.search(&Query::default()).expect("rows"))
    };
    let (sessions, exchanges) = rows(empty.path());
    assert_eq!((sessions.len(), exchanges.len(), sessions[0].exchanges), (1, 700, 700));
    assert_eq!((sessions, exchanges), rows(full.path()));
}

/// The rows, read from the index. Not always at once: a process that another test starts holds its locks for a
/// moment, from the fork to the exec.
pub(in crate::store) fn indexed(reader: &Reader) -> Catalog {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let catalog = reader.catalog().expect("rows");
        if catalog.is_indexed() {
            return catalog;
        }
        assert!(Instant::now() < deadline, "there is no index");
        std::thread::sleep(Duration::from_millis(10));
    }
}
