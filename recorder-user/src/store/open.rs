//! Opens and closes a store: lock, recovery, index, the new segment, the threads.

use std::{
    io,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{
    Clock,
    disk::{self, Disk, SystemDisk},
    encryption::{EncryptionError, KeySource, Vault},
    floor::Floor,
    fold::Fold,
    head::HeadFile,
    index::{Feed, Index, IndexBackend},
    live_rows::LiveRows,
    lock::{Lock, LockError},
    memory::MemoryRows,
    queue::{Shared, chain},
    reader::Reader,
    recorder::{AppendError, Recorder},
    recovery::{self, RecoverError, TornTail},
    retention::{self, FinishError, MayGo, Retention},
    rows::SessionView,
    scan::segments_directory,
    schedule::Schedule,
    segment::{self, Maker, Segment},
    signing::{self, SigningKeyError},
    sync::Syncer,
    writer::Writer,
};
use crate::model::{BootId, GatewayId, IncompleteReason, Record, SessionChanged, SessionState};

/// Where and how to store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The store's directory; made if it does not exist.
    pub directory: PathBuf,
    /// Where the keys lie: outside the store, so that a copy of it holds none.
    pub keys: PathBuf,
    /// The operator's key, where what is stored is to be encrypted.
    pub encryption: Option<KeySource>,
    /// A longer segment is sealed and followed by a new one. Recovery reads one segment.
    pub segment_bytes_max: u64,
    /// An older segment that holds records is sealed and followed by a new one: only sealed ones are archived.
    pub segment_age_max: Duration,
    /// How long records may stay unsigned.
    pub checkpoint_interval: Duration,
    /// Beyond so many queued bytes, appends wait.
    pub queue_bytes_max: usize,
    /// How long what nobody waits for may stay out of stable storage, the flush itself not counted.
    pub sync_interval: Duration,
    /// Below so many free bytes on the file system nothing new may begin; none for a twentieth of the file
    /// system and at most 1 GiB.
    pub free_floor_bytes: Option<u64>,
    /// The database of the index. An index that is in another one is built anew.
    pub index: IndexBackend,
}

impl StoreOptions {
    /// The defaults: segments of 256 MiB or a day, signed every 10 s while there is something, a queue of 64 MiB,
    /// a flush every 100 ms while there is something, the index in sled.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        Self {
            keys: signing::keys_directory(&directory),
            directory,
            encryption: None,
            segment_bytes_max: 256 << 20,
            segment_age_max: Duration::from_secs(24 * 60 * 60),
            checkpoint_interval: Duration::from_secs(10),
            queue_bytes_max: 64 << 20,
            sync_interval: Duration::from_millis(100),
            free_floor_bytes: None,
            index: IndexBackend::Sled,
        }
    }
}

/// The store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The directory could not be made or read.
    #[error("prepare the store directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another gateway uses it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The key that signs the record could not be read or made.
    #[error("the signing key")]
    Key(#[from] SigningKeyError),
    /// The keys of an encrypted store could not be had.
    #[error("the keys of the encrypted store")]
    Encryption(#[from] EncryptionError),
    /// The segments could not be put in order.
    #[error("recover the store")]
    Recover(#[from] RecoverError),
    /// A deletion that was interrupted could not be finished.
    #[error("finish a deletion")]
    Finish(#[from] FinishError),
    /// No new segment could be made.
    #[error("begin a segment")]
    Segment(#[from] AppendError),
    /// A thread could not be started.
    #[error("start a thread of the store")]
    Thread(#[source] io::Error),
}

/// The store could not be closed in order: the next start recovers it.
#[derive(Debug, thiserror::Error)]
pub enum CloseStoreError {
    /// The last segment could not be sealed.
    #[error("seal the last segment")]
    Seal(#[from] AppendError),
    /// A thread of the store panicked.
    #[error("a thread of the store panicked")]
    Panicked,
}

/// What a start found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The sessions that go on, with names in full; after an unclean end none.
    pub open_sessions: Vec<SessionView>,
    /// The sessions that were open when the gateway was lost, as they were: now `incomplete: gateway_lost`.
    pub lost_sessions: Vec<SessionView>,
    /// Whether the gateway before stopped in order, or there was none.
    pub clean: bool,
    /// How many segments there were.
    pub segments: usize,
    /// What was cut off and is kept aside.
    pub torn: Vec<TornTail>,
    /// The sum of it.
    pub torn_bytes: u64,
    /// Why the index was built anew, if it was.
    pub index_rebuilt: Option<String>,
}

/// A gateway's store: owns the threads that write, flush and index. One per directory.
pub struct Store {
    shared: Arc<Shared>,
    gateway: GatewayId,
    keys: PathBuf,
    clock: Clock,
    disk: Arc<dyn Disk>,
    writers: Vec<JoinHandle<()>>,
    indexer: Option<JoinHandle<()>>,
    _lock: Lock,
}

impl Store {
    /// Opens a store on the real disk. Reads up to one segment, and more if the index must be rebuilt.
    ///
    /// # Errors
    /// When the directory is in use, cannot be put in order, or no new segment can be written.
    pub fn open(options: StoreOptions, clock: Clock) -> Result<(Self, Recovered), OpenStoreError> {
        Self::open_on(Arc::new(SystemDisk), options, clock)
    }

    /// Opens a store whose segments are written through `disk`, which may be made to fail.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        options: StoreOptions,
        clock: Clock,
    ) -> Result<(Self, Recovered), OpenStoreError> {
        let directory = options.directory.clone();
        let io = |source| OpenStoreError::Directory { path: directory.clone(), source };
        let segments = segments_directory(&directory);
        disk.make_directory(&segments).map_err(io)?;
        let lock = Lock::take(&directory.join(LOCK_FILE), LOCK_PATIENCE)?;
        let first_start = recovery::is_first_start(&directory);
        if first_start {
            disk::sync_path(&*disk, &segments).map_err(io)?;
        }
        segment::remove_leftovers(&*disk, &directory).map_err(io)?;
        let key = signing::load_or_create(&options.keys)?;
        HeadFile::of(&options.keys).compare(&*disk, &directory);
        let vault = options.encryption.as_ref();
        let vault = vault.map(|key| Vault::open_or_create(&options.keys, key)).transpose()?;
        let found = recovery::recover(&*disk, &directory, &clock, &key)?;
        if found.segments == 0 && !first_start {
            tracing::warn!(directory = %directory.display(), "the store was used before and has no segments");
        }
        // After recovery: what a tombstone says counts only where the tombstone is durable.
        retention::finish(&*disk, &directory, &signing::trusted(&options.keys)?)?;
        let gateway = recovery::gateway_id(&*disk, &directory, found.gateway)?;
        let boot = boot_id();
        let feed = Arc::new(Feed::default());
        let (index, sessions, index_rebuilt) = open_index(&options, boot, &feed);
        let mut maker = Maker {
            store: directory.clone(),
            keys: options.keys.clone(),
            disk,
            clock,
            gateway,
            boot,
            key,
            vault,
            last: found.last.map(|last| last.segment),
            leftovers: Vec::new(),
        };
        let mut segment = maker.segment(found.last)?;
        let (open_sessions, lost_sessions) =
            if found.clean { (sessions, Vec::new()) } else { (Vec::new(), sessions) };
        if !lost_sessions.is_empty() {
            let now = (maker.clock)();
            let lost = |view: &SessionView| {
                Record::SessionChanged(SessionChanged {
                    session: view.session,
                    time: now,
                    state: SessionState::Incomplete(IncompleteReason::GatewayLost),
                    ended: Some(view.last_activity),
                    by: None,
                    why: None,
                    // The gateway's own word went with it: this is what its records add up to.
                    account: Some(view.totals.account()),
                })
            };
            let mut items = segment.write_now(lost_sessions.iter().map(lost).collect())?;
            feed.push(&mut items);
        }
        let recovered = Recovered {
            open_sessions: in_full(&directory, open_sessions),
            lost_sessions,
            clean: found.clean,
            segments: found.segments,
            torn_bytes: found.torn.iter().map(|tail| tail.bytes).sum(),
            torn: found.torn,
            index_rebuilt,
        };
        let store = Self::start(&options, maker, segment, feed, index, lock)?;
        Ok((store, recovered))
    }

    fn start(
        options: &StoreOptions,
        maker: Maker,
        segment: Segment,
        feed: Arc<Feed>,
        index: Option<Index>,
        lock: Lock,
    ) -> Result<Self, OpenStoreError> {
        let gateway = maker.gateway;
        let (keys, clock) = (options.keys.clone(), Arc::clone(&maker.clock));
        let disk = Arc::clone(&maker.disk);
        let sync = Arc::new(Syncer::new(options.sync_interval, HeadFile::of(&options.keys)));
        let floor = Arc::new(Floor::new(
            Arc::clone(&maker.disk),
            options.directory.clone(),
            options.free_floor_bytes,
        ));
        let shared = Arc::new(Shared::new(
            options.directory.clone(),
            Arc::clone(&floor),
            options.queue_bytes_max,
            segment.id,
            Arc::clone(&sync),
            Arc::clone(&feed),
        ));
        let schedule = Schedule::new(options.checkpoint_interval, options.segment_age_max);
        let bytes_max = options.segment_bytes_max;
        let writer = Writer::new(Arc::clone(&shared), maker, segment, bytes_max, schedule);
        let weak = Arc::downgrade(&shared);
        // Dropped on an early return, which stops what was started.
        let mut store = Self {
            shared,
            gateway,
            keys,
            clock,
            disk,
            writers: Vec::new(),
            indexer: None,
            _lock: lock,
        };
        if let Some(index) = index {
            store.indexer = Some(spawn("decklog-index", move || feed.run(index))?);
        }
        store.writers.push(spawn("decklog-sync", move || sync.run(&weak, &floor))?);
        store.writers.push(spawn("decklog-write", move || writer.run())?);
        Ok(store)
    }

    /// A handle for the data path.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        Recorder::new(Arc::clone(&self.shared))
    }

    /// What deletes, and keeps legal holds. Where there is an archive, `may_go` says which segments are in it. There
    /// must be one of these at a time, and it must not be used after the store is closed.
    #[must_use]
    pub fn retention(&self, may_go: Option<MayGo>) -> Retention {
        Retention::new(retention::Parts {
            store: self.shared.directory.clone(),
            keys: self.keys.clone(),
            disk: Arc::clone(&self.disk),
            shared: Arc::clone(&self.shared),
            clock: Arc::clone(&self.clock),
            may_go,
        })
    }

    /// A handle to ask for the rows of what is written.
    #[must_use]
    pub fn rows(&self) -> LiveRows {
        LiveRows::new(Arc::clone(&self.shared.index), Reader::on(&self.shared.directory))
    }

    /// The gateway that this store belongs to: made once, kept in the directory.
    #[must_use]
    pub const fn gateway_id(&self) -> GatewayId {
        self.gateway
    }

    /// Writes what is queued, seals the segment, makes everything durable and closes the index. Sessions
    /// that are open go on after the next start.
    ///
    /// # Errors
    /// When the segment could not be sealed; then the next start finds an unclean end.
    // Cancel-safe: once begun the threads go on to the end; dropping the future waits for them.
    pub async fn close(mut self) -> Result<(), CloseStoreError> {
        let (closing, closed) = oneshot::channel();
        self.shared.stop(Some(closing));
        let sealed = closed.await.unwrap_or(Err(AppendError::Closed));
        let joined = tokio::task::spawn_blocking(move || self.join()).await;
        sealed?;
        if joined.unwrap_or(false) { Ok(()) } else { Err(CloseStoreError::Panicked) }
    }

    /// Waits for the threads; false if one panicked.
    fn join(&mut self) -> bool {
        let mut orderly = true;
        // If the writer never ran nobody else stops the flusher.
        if self.writers.len() < 2 {
            self.shared.sync.stop();
        }
        for thread in self.writers.drain(..) {
            orderly &= thread.join().is_ok();
        }
        // The index last: the writer feeds it until it ends.
        self.shared.index.stop();
        self.indexer.take().is_none_or(|thread| thread.join().is_ok()) && orderly
    }
}

impl Drop for Store {
    /// Without [`Store::close`] the last segment stays unsealed: an unclean end.
    fn drop(&mut self) {
        self.shared.stop(None);
        self.join();
    }
}

fn spawn(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenStoreError> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(OpenStoreError::Thread)
}

/// The index and the sessions that are open. Without an index they are found in the segments.
fn open_index(
    options: &StoreOptions,
    boot: BootId,
    feed: &Feed,
) -> (Option<Index>, Vec<SessionView>, Option<String>) {
    let store = &options.directory;
    let opened = Index::open(store, boot, options.index).and_then(|opened| {
        let sessions = opened.index.active_sessions()?;
        Ok((Some(opened.index), sessions, opened.rebuilt))
    });
    opened.unwrap_or_else(|error| {
        tracing::error!(error = %chain(&error), "there is no index; recording goes on without it");
        feed.give_up(&error);
        let mut rows = MemoryRows::default();
        let mut fold = Fold::default();
        for stored in Reader::on(store).records().flatten() {
            fold.apply(&mut rows, stored.position, &stored.record);
        }
        (None, rows.active_sessions(), None)
    })
}

/// A row may have cut long names; a session is resumed by its exact key.
fn in_full(store: &std::path::Path, mut sessions: Vec<SessionView>) -> Vec<SessionView> {
    let reader = Reader::on(store);
    for view in &mut sessions {
        if let Some(Ok(stored)) = reader.records_from(view.first).next()
            && let Record::SessionOpened(opened) = stored.record
            && opened.session == view.session
        {
            view.cluster = opened.key.cluster;
            view.task = opened.key.task;
            view.principal.issuer = opened.key.issuer;
            view.principal.subject = opened.key.subject;
            view.principal.username = opened.principal.username;
            view.principal.groups = opened.principal.groups;
            view.principal.groups_omitted = 0;
        }
    }
    sessions
}

/// This boot of the machine; zeros where the kernel does not say.
pub(super) fn boot_id() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().replace('-', "").parse().unwrap_or(BootId::from_bytes([0; 16]))
}

pub(super) const LOCK_FILE: &str = "lock";
/// A gateway that was just stopped, or a CLI that looks whether one runs, lets go sooner than this.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
