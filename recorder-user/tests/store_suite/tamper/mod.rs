//! Stores that somebody tampered with: each is found, with file and offset, by both verifiers.

mod attacker;
mod forged;
mod random;
mod stores;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use recorder_user::{
    model::{ExchangeId, SessionId},
    store::{Check, Head, Need, Store, StoreOptions, VerifyReport, head_file, signing},
};

use crate::{support::*, verdict::verdict};

/// Writes to a store that is signed after every batch, and closes it.
async fn write(directory: &Path, segment_bytes_max: u64, exchanges: usize) {
    let options = StoreOptions {
        segment_bytes_max,
        checkpoint_interval: Duration::ZERO,
        ..options(directory)
    };
    let (store, _) = Store::open(options, clock()).expect("it opens");
    let recorder = store.recorder();
    for _ in 0..exchanges {
        let session = SessionId::new();
        let mut records = vec![session_opened(session)];
        records.extend(exchange(session, ExchangeId::new(), "map"));
        records.extend(exchange(session, ExchangeId::new(), "map"));
        recorder.append_all(records, Need::Durable).await.expect("a good disk");
    }
    store.close().await.expect("a good disk");
}

/// A store of several segments, each with several signatures, and its keys.
async fn signed_store(exchanges: usize) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    write(directory.path(), SEGMENT_BYTES, exchanges).await;
    assert_eq!(found(directory.path()), None);
    directory
}

/// A few batches.
const SEGMENT_BYTES: u64 = 6 << 10;

/// A copy with its keys, to tamper with.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a directory");
    copy_all(from, to.path());
    to
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let name = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            fs::create_dir_all(&name).expect("writable");
            copy_all(&path, &name);
        } else {
            fs::copy(&path, &name).expect("writable");
        }
    }
}

/// What is found with the keys of the store, and with its head.
fn found(directory: &Path) -> Option<(PathBuf, u64)> {
    let without = verdict(directory);
    without.or_else(|| with_head(directory).first_bad.map(|bad| (bad.file, bad.offset)))
}

fn with_head(directory: &Path) -> VerifyReport {
    let keys = keys(directory);
    let file = head_file(&keys);
    let head = Head::read(&file).ok().map(|head| (head, file));
    let trust = signing::trusted(&keys).expect("good keys");
    Check { trust, head, ..Check::default() }.run(directory).expect("readable")
}
