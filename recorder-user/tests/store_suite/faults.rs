use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use recorder_user::{
    model::{Chunk, Direction, ExchangeId, Record, SessionId},
    store::{AppendError, Disk, DiskFile, Need, Recorder, Space, Store, StoreOptions, SystemDisk},
};

use crate::support::*;

/// A disk that fails when it is told to.
#[derive(Default)]
pub(crate) struct Faults {
    /// Bytes that still fit; negative for no bound.
    pub(crate) room: AtomicI64,
    pub(crate) sync: AtomicBool,
    pub(crate) create: AtomicBool,
    pub(crate) cut: AtomicBool,
    /// Whether space can be set aside; the file system of most tests has no such operation.
    pub(crate) allocates: AtomicBool,
    pub(crate) read_only: AtomicBool,
    /// Whoever holds it keeps flushes from ending.
    pub(crate) gate: Mutex<()>,
    /// Whoever holds it keeps writes from ending.
    pub(crate) write_gate: Mutex<()>,
    pub(crate) syncs: AtomicU64,
    /// What the disk says of its space, if it is to say anything.
    pub(crate) space: Mutex<Option<Space>>,
}

#[derive(Clone)]
pub(crate) struct FaultyDisk(pub(crate) Arc<Faults>);

struct FaultyFile(Arc<dyn DiskFile>, Arc<Faults>);

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EROFS: i32 = 30;

fn fail_if(flag: &AtomicBool) -> io::Result<()> {
    if flag.load(Ordering::SeqCst) { Err(io::Error::from_raw_os_error(EIO)) } else { Ok(()) }
}

impl Faults {
    fn writable(&self) -> io::Result<()> {
        if self.read_only.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(EROFS));
        }
        Ok(())
    }
}

impl Disk for FaultyDisk {
    fn make_directory(&self, path: &Path) -> io::Result<()> {
        SystemDisk.make_directory(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.writable()?;
        fail_if(&self.0.create)?;
        Ok(Arc::new(FaultyFile(SystemDisk.create(path)?, Arc::clone(&self.0))))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.writable()?;
        Ok(Arc::new(FaultyFile(SystemDisk.open(path)?, Arc::clone(&self.0))))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.writable()?;
        SystemDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.writable()?;
        SystemDisk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        SystemDisk.sync_directory(path)
    }

    fn space(&self, path: &Path) -> Option<Space> {
        self.0.space.lock().expect("plain data").or_else(|| SystemDisk.space(path))
    }
}

impl DiskFile for FaultyFile {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        drop(self.1.write_gate.lock().unwrap_or_else(PoisonError::into_inner));
        self.1.writable()?;
        let room = self.1.room.load(Ordering::SeqCst);
        let length = i64::try_from(bytes.len()).expect("small");
        if room < 0 || length <= room {
            self.1.room.fetch_sub(if room < 0 { 0 } else { length }, Ordering::SeqCst);
            return self.0.write_all_at(bytes, offset);
        }
        // As a full disk does: a part is written.
        self.1.room.store(0, Ordering::SeqCst);
        self.0.write_all_at(&bytes[..usize::try_from(room).expect("positive")], offset)?;
        Err(io::Error::from_raw_os_error(ENOSPC))
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(bytes, offset)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.1.writable()?;
        if !self.1.allocates.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.1.room.load(Ordering::SeqCst) >= 0 {
            return Err(io::Error::from_raw_os_error(ENOSPC));
        }
        self.0.allocate(bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.1.writable()?;
        fail_if(&self.1.cut)?;
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.syncs.fetch_add(1, Ordering::SeqCst);
        // A test that fails while it holds the gate must not hang.
        drop(self.1.gate.lock().unwrap_or_else(PoisonError::into_inner));
        fail_if(&self.1.sync)?;
        self.0.sync_data()
    }
}

pub(crate) fn faulty(directory: &Path) -> (Store, Arc<Faults>) {
    let faults = Arc::new(Faults { room: AtomicI64::new(-1), ..Faults::default() });
    let disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (store, _) =
        Store::open_on(disk, options(directory), clock()).expect("the disk is good so far");
    (store, faults)
}

pub(crate) async fn works_again(recorder: &Recorder) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while recorder.probe().await.is_err() {
        assert!(Instant::now() < deadline, "{:?}", recorder.health());
        tokio::task::yield_now().await;
    }
}

pub(crate) fn sessions(directory: &Path) -> Vec<SessionId> {
    let opened = records(directory).into_iter().filter_map(|record| match record {
        Record::SessionOpened(opened) => Some(opened.session),
        _ => None,
    });
    opened.collect()
}

/// Breaks the store in one way, mends it, and checks that exactly what was acknowledged is there.
async fn check(break_it: impl Fn(&Faults), mend_it: impl Fn(&Faults), need: Need) {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, faults) = faulty(directory.path());
    let recorder = store.recorder();
    let (before, failed, refused, after) =
        (SessionId::new(), SessionId::new(), SessionId::new(), SessionId::new());
    recorder.append(session_opened(before), Need::Durable).await.expect("a good disk");
    let epoch = recorder.epoch();

    break_it(&faults);
    let error = recorder.append(session_opened(failed), need).await.expect_err("it is broken");
    assert!(matches!(error, AppendError::Failed { .. }), "{error:?}");
    for need in [Need::Queued, Need::Written, Need::Durable] {
        let error = recorder.append(session_opened(refused), need).await.expect_err("still");
        assert!(matches!(error, AppendError::Failed { .. }), "{error:?}");
    }
    assert!(recorder.try_append(session_opened(refused)).is_err());
    assert!(recorder.probe().await.is_err(), "a probe does not make it work");
    let health = recorder.health();
    assert!(!health.writable && health.error.is_some(), "{health:?}");
    assert!(recorder.epoch() > epoch, "whoever relies on several records can tell");

    mend_it(&faults);
    works_again(&recorder).await;
    recorder.append(session_opened(after), Need::Durable).await.expect("it is mended");
    assert!(recorder.health().writable);
    all_room_is_free(&recorder).await;
    let report = verify(directory.path()).expect("readable");
    assert!(report.is_ok(), "{report:?}");
    store.close().await.expect("it is mended");

    let found = sessions(directory.path());
    assert!(found.contains(&before) && found.contains(&after), "{found:?}");
    assert!(!found.contains(&refused), "{found:?}");
    assert_eq!(segments(directory.path()).len(), 2, "it went on in a new segment");
    drop(open(directory.path()));
    let report = verify(directory.path()).expect("readable");
    assert!(report.is_ok(), "{report:?}");
}

#[tokio::test]
async fn a_full_disk_fails_everyone_until_there_is_room() {
    // No room at all, and room for a part of a record.
    for room in [0, 10, 100] {
        check(
            |faults| faults.room.store(room, Ordering::SeqCst),
            |faults| faults.room.store(-1, Ordering::SeqCst),
            Need::Written,
        )
        .await;
    }
}

#[tokio::test]
async fn space_is_set_aside_so_that_no_record_is_written_in_part() {
    let directory = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults {
        room: AtomicI64::new(-1),
        allocates: AtomicBool::new(true),
        ..Faults::default()
    });
    let disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let (store, _) = Store::open_on(disk, options(directory.path()), clock()).expect("a good disk");
    let recorder = store.recorder();
    recorder.append(session_opened(SessionId::new()), Need::Written).await.expect("a good disk");
    let file = segments(directory.path()).pop().expect("a segment");
    let taken = || std::fs::metadata(&file).expect("there").blocks() * 512;
    let length = || std::fs::metadata(&file).expect("there").len();
    assert!(taken() >= 1 << 20 && length() < 1 << 20, "{} of {}", length(), taken());

    // There is room for a part of it, and none to be set aside: nothing of it is written.
    faults.room.store(700 << 10, Ordering::SeqCst);
    let before = length();
    let exchange = ExchangeId::new();
    let large = Record::Chunk(Chunk {
        exchange,
        direction: Direction::Response,
        at_us: 0,
        offset: 0,
        data: noise(2 << 20).into(),
    });
    recorder.append(large, Need::Written).await.expect_err("a full disk");
    // Room for a header is not room for records: it would only fail again.
    recorder.probe().await.expect_err("nothing can be set aside");
    assert!(!recorder.health().writable);
    assert!(length() < before + 1024, "{} after {before}: a seal at most", length());
    faults.room.store(-1, Ordering::SeqCst);
    works_again(&recorder).await;
    store.close().await.expect("a good disk");
    // What is finished takes what it needs, in blocks.
    for file in segments(directory.path()) {
        let metadata = std::fs::metadata(&file).expect("there");
        assert!(metadata.blocks() * 512 < metadata.len() + (64 << 10), "{metadata:?}");
    }
    assert!(verify(directory.path()).expect("readable").is_ok());
}

/// Bytes that do not compress.
fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

#[tokio::test]
async fn a_failed_flush_fails_everyone_until_a_new_segment_works() {
    check(
        |faults| faults.sync.store(true, Ordering::SeqCst),
        |faults| faults.sync.store(false, Ordering::SeqCst),
        Need::Durable,
    )
    .await;
}

#[tokio::test]
async fn a_disk_that_turns_read_only_fails_everyone_until_it_is_writable() {
    check(
        |faults| faults.read_only.store(true, Ordering::SeqCst),
        |faults| faults.read_only.store(false, Ordering::SeqCst),
        Need::Written,
    )
    .await;
}

#[tokio::test]
async fn a_segment_that_cannot_be_made_keeps_the_store_failed() {
    check(
        |faults| {
            faults.create.store(true, Ordering::SeqCst);
            faults.room.store(0, Ordering::SeqCst);
        },
        |faults| {
            faults.room.store(-1, Ordering::SeqCst);
            faults.create.store(false, Ordering::SeqCst);
        },
        Need::Written,
    )
    .await;
}

#[tokio::test]
async fn a_failed_background_flush_is_noticed_without_a_waiter() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, faults) = faulty(directory.path());
    let recorder = store.recorder();
    faults.sync.store(true, Ordering::SeqCst);
    recorder.append(session_opened(SessionId::new()), Need::Written).await.expect("written");
    let deadline = Instant::now() + Duration::from_secs(20);
    while recorder.health().writable {
        assert!(Instant::now() < deadline, "the interval flush fails and nobody says so");
        tokio::task::yield_now().await;
    }
    faults.sync.store(false, Ordering::SeqCst);
    works_again(&recorder).await;
    store.close().await.expect("it is mended");
    assert_eq!(sessions(directory.path()).len(), 1, "what was written stays");
    assert!(verify(directory.path()).expect("readable").is_ok());
}

/// The failed file can be neither cut nor sealed: the store goes on, and the next start mends it.
#[tokio::test]
async fn a_file_that_stays_bad_does_not_stop_a_good_disk() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, faults) = faulty(directory.path());
    let recorder = store.recorder();
    let (kept, after) = (SessionId::new(), SessionId::new());
    recorder.append(session_opened(kept), Need::Durable).await.expect("a good disk");
    faults.cut.store(true, Ordering::SeqCst);
    faults.room.store(700, Ordering::SeqCst);
    // More than fits, in one write of several records: some whole ones stay behind in the file.
    let records = (0..5).map(|_| session_opened(SessionId::new())).collect();
    assert!(recorder.append_all(records, Need::Written).await.is_err());
    faults.room.store(-1, Ordering::SeqCst);
    works_again(&recorder).await;
    recorder.append(session_opened(after), Need::Durable).await.expect("a good disk");
    store.close().await.expect("a good disk");

    let (store, recovered) = open(directory.path());
    assert_eq!(recovered.torn.len(), 1, "{recovered:?}");
    assert_eq!(recovered.torn_bytes, 700);
    drop(store);
    assert_eq!(sessions(directory.path()), [kept, after]);
    assert!(verify(directory.path()).expect("readable").is_ok());
}

#[tokio::test]
async fn a_rotation_that_fails_is_outlasted() {
    let directory = tempfile::tempdir().expect("a directory");
    let faults = Arc::new(Faults { room: AtomicI64::new(-1), ..Faults::default() });
    let disk = Arc::new(FaultyDisk(Arc::clone(&faults)));
    let options = StoreOptions { segment_bytes_max: 4 << 10, ..options(directory.path()) };
    let (store, _) = Store::open_on(disk, options, clock()).expect("a good disk");
    let recorder = store.recorder();
    faults.create.store(true, Ordering::SeqCst);
    let session = SessionId::new();
    let mut written = 0;
    let deadline = Instant::now() + Duration::from_secs(20);
    while recorder.append(session_opened(session), Need::Written).await.is_ok() {
        written += 1;
        assert!(Instant::now() < deadline, "it never rotated");
    }
    faults.create.store(false, Ordering::SeqCst);
    works_again(&recorder).await;
    store.close().await.expect("a good disk");
    assert_eq!(sessions(directory.path()).len(), written, "what was acknowledged, no more");
    assert!(verify(directory.path()).expect("readable").is_ok());
}

#[tokio::test]
async fn a_store_that_is_stopped_while_it_fails_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, faults) = faulty(directory.path());
    let recorder = store.recorder();
    recorder.append(session_opened(SessionId::new()), Need::Durable).await.expect("a good disk");
    faults.room.store(0, Ordering::SeqCst);
    faults.create.store(true, Ordering::SeqCst);
    assert!(recorder.append(chunk(ExchangeId::new(), 0, b"x"), Need::Written).await.is_err());
    assert!(store.close().await.is_err());
    let (_, recovered) = open(directory.path());
    assert!(!recovered.clean);
    assert_eq!(recovered.lost_sessions.len(), 1);
}

#[tokio::test]
async fn try_append_has_a_reserve_and_then_refuses() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = StoreOptions { queue_bytes_max: 1, ..options(directory.path()) };
    let (store, _) = Store::open(options, clock()).expect("a good disk");
    let recorder = store.recorder();
    let id = ExchangeId::new();
    let mut taken = 0;
    for _ in 0..1000 {
        match recorder.try_append(chunk(id, 0, &[0; 1 << 20])) {
            Ok(()) => taken += 1,
            Err(error) => assert!(matches!(error, AppendError::Full), "{error:?}"),
        }
    }
    assert!(taken >= 1, "the reserve takes some");
    recorder.append(chunk(id, 0, b"last"), Need::Written).await.expect("there is room again");
    assert_eq!(records(directory.path()).len(), taken + 1, "what was taken is written");
    store.close().await.expect("a good disk");
}

/// While one flush runs, writes are acknowledged, and all who then wait for a flush share the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_flush_delays_no_write_and_serves_all_who_wait() {
    let directory = tempfile::tempdir().expect("a directory");
    let (store, faults) = faulty(directory.path());
    let recorder = store.recorder();
    let before = faults.syncs.load(Ordering::SeqCst);
    let mut waiters = tokio::task::JoinSet::new();
    let durable = |i: u8| {
        let recorder = recorder.clone();
        async move {
            let record = chunk(ExchangeId::from_bytes([i; 16]), 0, b"x");
            recorder.append(record, Need::Durable).await
        }
    };
    {
        let gate = faults.gate.lock().expect("free");
        waiters.spawn(durable(0));
        let deadline = Instant::now() + Duration::from_secs(20);
        while faults.syncs.load(Ordering::SeqCst) == before {
            assert!(Instant::now() < deadline, "nobody flushes");
            std::thread::yield_now();
        }
        for i in 1..50 {
            waiters.spawn(durable(i));
        }
        // Written although the flush does not end.
        while recorder.health().records < 50 {
            assert!(Instant::now() < deadline, "a write waits for the flush");
            std::thread::yield_now();
        }
        assert!(waiters.try_join_next().is_none(), "nothing is durable yet");
        drop(gate);
    }
    while let Some(waiter) = waiters.join_next().await {
        waiter.expect("it waits").expect("a good disk");
    }
    let syncs = faults.syncs.load(Ordering::SeqCst) - before;
    assert!(syncs <= 3, "{syncs} flushes for 50 who waited");
    store.close().await.expect("a good disk");
}
