use std::{collections::BTreeMap, ops::Bound, sync::Mutex};

use crate::{
    model::{Chunk, Direction, Record, Timestamp},
    store::{
        Need, Query, Reader, Store, StoreOptions, queue::lock, rows::ROW_BYTES_MAX,
        scan::segments_directory,
    },
};

use super::{table::Put, *};

/// What a table must do, in memory: sled is held against it.
#[derive(Default)]
struct MemoryTable(Mutex<Cells>);

/// Table and key to value.
type Cells = BTreeMap<(u8, Vec<u8>), Vec<u8>>;

impl Table for MemoryTable {
    fn put_many(&self, puts: &[Put]) -> Result<(), TableError> {
        let mut rows = lock(&self.0);
        for Put { tree, key, value } in puts {
            let key = (*tree as u8, key.clone());
            match value {
                Some(value) => rows.insert(key, value.clone()),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, TableError> {
        Ok(lock(&self.0).get(&(tree as u8, key.to_vec())).cloned())
    }

    fn range(
        &self,
        tree: Tree,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), TableError> {
        let from = match after {
            Some(after) => Bound::Excluded((tree as u8, after.to_vec())),
            None => Bound::Included((tree as u8, Vec::new())),
        };
        let to = Bound::Excluded((tree as u8 + 1, Vec::new()));
        for ((_, key), value) in lock(&self.0).range((from, to)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn durable(&self) -> Result<(), TableError> {
        Ok(())
    }

    fn stats(&self) -> Result<u64, TableError> {
        Ok(0)
    }
}

/// The same changes and questions for every table, so that another can take sled's place.
fn conforms(table: &dyn Table) -> Vec<(Vec<u8>, Vec<u8>)> {
    let put = |tree, key: u32, value: Option<&[u8]>| Put {
        tree,
        key: key.to_be_bytes().to_vec(),
        value: value.map(<[u8]>::to_vec),
    };
    for i in 0..500_u32 {
        let value = i.to_le_bytes().repeat(50);
        let puts = [
            put(Tree::Exchanges, i * 7 % 500, Some(&value)),
            put(Tree::Active, i, Some(b"")),
            put(Tree::Active, i / 2, None),
        ];
        table.put_many(&puts).expect("it puts");
    }
    table.durable().expect("it flushes");
    let mut seen = Vec::new();
    let mut collect = |tree, after: Option<&[u8]>, max: usize| {
        let mut left = max;
        let visit = &mut |key: &[u8], value: &[u8]| {
            seen.push((key.to_vec(), value.to_vec()));
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        table.range(tree, after, visit).expect("it reads");
    };
    collect(Tree::Exchanges, None, 1000);
    collect(Tree::Exchanges, Some(&100_u32.to_be_bytes()), 3);
    collect(Tree::Active, None, 1000);
    collect(Tree::Sessions, None, 1);
    for key in [0, 499, 500_u32] {
        let value = table.get(Tree::Exchanges, &key.to_be_bytes()).expect("it reads");
        seen.push((key.to_be_bytes().to_vec(), value.unwrap_or_default()));
    }
    seen
}

#[test]
fn sled_does_what_a_table_must() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut table = SledTable::open(directory.path()).expect("a new database");
    let expected = conforms(&MemoryTable::default());
    assert!(expected.len() > 700);
    assert!(conforms(&table) == expected);
    table.reopen().expect("it closes and opens");
    assert!(table.stats().expect("it answers") > 0);
    let first = table.get(Tree::Exchanges, &0_u32.to_be_bytes()).expect("it reads");
    assert_eq!(first.expect("it is still there").len(), 200);
    let large = Put { tree: Tree::Meta, key: vec![1], value: Some(vec![0; ROW_BYTES_MAX + 1]) };
    let refused = table.put_many(&[large]);
    assert!(matches!(refused, Err(TableError::RowTooLarge { .. })), "{refused:?}");
}

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
    let index = Index::open(empty.path(), boot).expect("a new index").index;
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
        let catalog = Reader::on(directory).catalog().expect("rows");
        assert!(catalog.is_indexed());
        (catalog.sessions().expect("rows"), catalog.search(&Query::default()).expect("rows"))
    };
    let (sessions, exchanges) = rows(empty.path());
    assert_eq!((sessions.len(), exchanges.len(), sessions[0].exchanges), (1, 700, 700));
    assert_eq!((sessions, exchanges), rows(full.path()));
}
