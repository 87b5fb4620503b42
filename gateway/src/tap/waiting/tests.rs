//! With a disk that stands still for as long as the test wants.

use std::{
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex},
};

use bytes::Bytes;
use recorder_user::{
    model::{Chunk, Direction, ExchangeId, Record},
    store::{Disk, DiskFile, Recorder, Space, Store, StoreOptions, SystemDisk},
};
use tokio::time::Instant;

use super::*;

/// While it is closed, all writes stand still.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set_closed(&self, closed: bool) {
        *self.0.0.lock().expect("nobody panics with it") = closed;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (closed, opened) = &*self.0;
        let closed = closed.lock().expect("nobody panics with it");
        drop(opened.wait_while(closed, |closed| *closed).expect("nobody panics with it"));
    }
}

struct StandingDisk(Gate);

struct StandingFile(Gate, Arc<dyn DiskFile>);

impl StandingDisk {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(StandingFile(self.0.clone(), file))
    }
}

impl Disk for StandingDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        SystemDisk.make_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        SystemDisk.create(path).map(|file| self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        SystemDisk.open(path).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_directory(path)
    }

    fn space(&self, path: &Path) -> Option<Space> {
        SystemDisk.space(path)
    }
}

impl DiskFile for StandingFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.pass();
        self.1.write_all_at(bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.read_exact_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.1.length()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.1.set_len(bytes)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.1.allocate(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.sync_data()
    }
}

const CHUNK_BYTES: usize = 16 << 10;

fn chunk(exchange: ExchangeId) -> Vec<Record> {
    // Nothing that compression could make small.
    let data = Bytes::from_iter((0..CHUNK_BYTES).map(|i| ((i * i) >> 3) as u8));
    let direction = Direction::Response;
    vec![Record::Chunk(Chunk { exchange, direction, at_us: 0, offset: 0, data })]
}

/// Queues until something has to wait.
fn fill(recorder: &Recorder) -> Append {
    let exchange = ExchangeId::new();
    std::iter::repeat_with(|| queue(recorder, chunk(exchange))).flatten().next().expect("endless")
}

// The clock is the test's: it goes on when everybody waits.
#[tokio::test(start_paused = true)]
async fn a_recorder_that_stays_behind_is_waited_for_as_long_as_patience_lasts() {
    let directory = tempfile::tempdir().expect("a directory");
    let gate = Gate::default();
    let options = StoreOptions {
        queue_bytes_max: 4 * CHUNK_BYTES,
        ..StoreOptions::new(directory.path().join("store"))
    };
    let disk = Arc::new(StandingDisk(gate.clone()));
    let (store, _) = Store::open_on(disk, options, Arc::new(recorder_user::model::Timestamp::now))
        .expect("a good disk");
    let recorder = store.recorder();

    gate.set_closed(true);
    let began = Instant::now();
    let waited = fill(&recorder).await;
    assert!(matches!(waited, Err(NotRecorded::Behind)), "{waited:?}");
    assert_eq!(began.elapsed().as_secs(), RECORDER_PATIENCE.as_secs());

    gate.set_closed(false);
    // It catches up in real time, which this clock does not see.
    tokio::time::resume();
    append(&recorder, chunk(ExchangeId::new()), Need::Written).await.expect("it works again");
    store.close().await.expect("a good disk");
}
