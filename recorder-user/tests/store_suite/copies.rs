//! Two copies of a store, each without something of the other.

use std::fs;

use recorder_user::{
    model::{ExchangeId, SessionId},
    store::{Need, Reader, Store, StoreOptions, join_copies},
};

use crate::support::*;

#[tokio::test]
async fn two_copies_read_as_one_store() {
    let local = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { segment_bytes_max: 2 << 10, ..options(local.path()) };
    let (store, _) = Store::open(options.clone(), clock()).expect("it opens");
    let recorder = store.recorder();
    for _ in 0..8 {
        let session = SessionId::new();
        let mut records = vec![session_opened(session)];
        records.extend(exchange(session, ExchangeId::new(), "map"));
        recorder.append_all(records, Need::Durable).await.expect("a good disk");
    }
    let gateway = store.gateway_id();
    store.close().await.expect("a good disk");
    let whole = records(local.path());
    let all = segments(local.path());
    assert!(all.len() >= 3, "{}", all.len());

    // What is archived was finished; here the first is gone since.
    let archived = tempfile::tempdir().expect("a directory");
    fs::create_dir(archived.path().join("segments")).expect("writable");
    for file in &all[..all.len() - 1] {
        let to = archived.path().join("segments").join(file.file_name().expect("a name"));
        fs::copy(file, to).expect("writable");
    }
    fs::remove_file(&all[0]).expect("there");
    let into = tempfile::tempdir().expect("a directory");
    let joined = into.path().join("joined");
    join_copies(archived.path(), local.path(), &joined).expect("writable");
    let reader = Reader::open(&joined).expect("a store");
    assert_eq!(records(&joined), whole);
    assert_eq!(reader.gateway().expect("readable"), Some(gateway));
    let first = reader.segments().expect("readable")[0].segment;
    assert!(reader.has(first) && !Reader::open(local.path()).expect("a store").has(first));
    // A half-written record at its end is no damage as long as a gateway writes there.
    let (store, _) = Store::open(options, clock()).expect("it opens");
    assert!(reader.is_written());
    store.close().await.expect("a good disk");
}
