//! The handle of the data path: queues records for the writer and waits for what was asked.

use std::{
    io,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::{Semaphore, oneshot};

use super::{format::PAYLOAD_BYTES_MAX, index::IndexHealth, sync::SyncHealth};
use crate::model::{Record, SegmentId};

/// What an append waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Need {
    /// In memory: lost if the process dies now.
    Queued,
    /// `write(2)` returned: survives the process, not a power cut.
    Written,
    /// `fdatasync(2)` returned: survives a power cut. One call serves all who wait.
    Durable,
}

/// A record was not taken, or it is not certain that it is kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// A write or flush failed. Nothing is taken until a new segment file has proven writable.
    #[error("the store does not work: {step} failed")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the system says.
        #[source]
        source: Arc<io::Error>,
    },
    /// The record is over the format's bound.
    #[error("a record of {bytes} bytes is over the bound of {PAYLOAD_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// [`Recorder::try_append`] found the queue and its reserve full.
    #[error("the queue and its reserve are full")]
    Full,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// How the store fares; for `/readyz` and metrics.
#[derive(Clone, Debug)]
pub struct StoreHealth {
    /// Whether records are taken and acknowledged.
    pub writable: bool,
    /// The last error with its cause; kept after the store works again.
    pub error: Option<String>,
    /// How often the store failed: see [`Recorder::epoch`].
    pub epoch: u64,
    /// Bytes written to segments since the start.
    pub written_bytes: u64,
    /// Records written since the start.
    pub records: u64,
    /// Write calls since the start; records over writes is how well they batch.
    pub writes: u64,
    /// Bytes that wait for the writer, as the bound counts them.
    pub queue_bytes: usize,
    /// The queue's bound.
    pub queue_bytes_max: usize,
    /// The segment that is written now.
    pub segment: SegmentId,
    /// How long it is.
    pub segment_bytes: u64,
    /// The flushes.
    pub sync: SyncHealth,
    /// The index.
    pub index: IndexHealth,
    /// Free space for an ordinary user on the file system of the store; none if it cannot be told.
    pub free_disk_bytes: Option<u64>,
}

/// A cheap handle that appends records. Clones share one queue.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

impl Recorder {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Appends a record: waits for room in the queue, then for the need.
    ///
    /// # Errors
    /// When the record was not taken, or it is not certain that it is kept.
    // Cancel-safe: room is given back if the future is dropped while it waits for it; queueing does not
    // wait; and what is queued is written whether or not anyone waits for the answer.
    pub async fn append(&self, record: Record, need: Need) -> Result<(), AppendError> {
        let weight = weigh(&record)?;
        let room = self.room(weight).await?;
        let (waiter, answer) = waiter(need);
        self.shared.push(Entry { record, room, reserved: 0, waiter })?;
        wait(answer).await
    }

    /// Appends records that stay together, with one wake-up of the writer.
    ///
    /// # Errors
    /// As [`Recorder::append`]; then some of them may be kept.
    // Cancel-safe as `append` is.
    pub async fn append_all(&self, records: Vec<Record>, need: Need) -> Result<(), AppendError> {
        let weight = weigh_all(&records)?;
        if records.is_empty() {
            return Ok(());
        }
        let room = self.room(weight).await?;
        let (waiter, answer) = waiter(need);
        self.shared.push_all(records, Room { permits: room, reserved: 0 }, waiter)?;
        wait(answer).await
    }

    /// Queues a record without waiting, for `Drop`. It may exceed the queue's bound by [`RESERVE_BYTES`].
    ///
    /// # Errors
    /// When it was not taken.
    pub fn try_append(&self, record: Record) -> Result<(), AppendError> {
        let shared = &self.shared;
        let weight = weigh(&record)?;
        let Room { permits: room, reserved } = shared.room_or_reserve(weight)?;
        shared.push(Entry { record, room, reserved, waiter: None })
    }

    /// Queues records without waiting where there is room; else gives them back, for
    /// [`Recorder::append_all`] to wait with or to say why not.
    ///
    /// # Errors
    /// The records, untouched.
    pub fn try_queue(&self, records: Vec<Record>) -> Result<(), Vec<Record>> {
        let shared = &self.shared;
        let Ok(weight) = weigh_all(&records) else { return Err(records) };
        let permits = shared.permits(weight);
        match shared.room.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(_) => return Err(records),
        }
        if records.is_empty() || shared.check().is_err() {
            shared.free(permits, 0);
            return if records.is_empty() { Ok(()) } else { Err(records) };
        }
        // The state may change between: then the records are lost as others that were queued, and
        // the epoch says so.
        shared.push_all(records, Room { permits, reserved: 0 }, None).or(Ok(()))
    }

    /// Queues records at once, into the reserve if need be, and tells when the need is met. Dropping the
    /// answer drops no record.
    pub fn enqueue(&self, records: Vec<Record>, need: Need) -> Ack {
        let result = weigh_all(&records).and_then(|weight| self.shared.room_or_reserve(weight));
        let queued = result.and_then(|room| {
            let (waiter, answer) = waiter(need);
            self.shared.push_all(records, room, waiter).map(|()| answer)
        });
        Ack(match queued {
            Ok(Some(answer)) => AckState::Waiting(answer),
            Ok(None) => AckState::Ready(Ok(())),
            Err(error) => AckState::Ready(Err(error)),
        })
    }

    /// Counts the failures of the store, and the records that it had to refuse after they were queued.
    ///
    /// A record that was only [`Need::Queued`] may be lost with a failure. Whoever relies on several
    /// records together compares this before the first and after the last.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch.load(Ordering::Acquire)
    }

    /// How the store fares.
    #[must_use]
    pub fn health(&self) -> StoreHealth {
        self.shared.health()
    }

    /// Whether the store works. After a failure the writer tries a new segment at once and says what
    /// came of it; otherwise it does so on its own at intervals.
    ///
    /// # Errors
    /// When the store does not work.
    // Cancel-safe: the attempt is made in any case.
    pub async fn probe(&self) -> Result<(), AppendError> {
        match self.shared.probe() {
            Ok(answer) => answer.await.unwrap_or(Err(AppendError::Closed)),
            Err(state) => state,
        }
    }

    async fn room(&self, weight: usize) -> Result<u32, AppendError> {
        let permits = self.shared.permits(weight);
        let permit = self.shared.room.acquire_many(permits).await;
        permit.map_err(|_| AppendError::Closed)?.forget();
        Ok(permits)
    }
}

type Answer = Result<(), AppendError>;

/// The answer to [`Recorder::enqueue`].
#[must_use = "whoever does not wait does not know whether the records are kept"]
pub struct Ack(AckState);

enum AckState {
    Ready(Answer),
    Waiting(oneshot::Receiver<Answer>),
}

impl Ack {
    /// Nothing was to be kept.
    pub const fn done() -> Self {
        Self(AckState::Ready(Ok(())))
    }
}

impl Future for Ack {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        match &mut self.0 {
            AckState::Ready(answer) => Poll::Ready(answer.clone()),
            AckState::Waiting(answer) => {
                Pin::new(answer).poll(cx).map(|said| said.unwrap_or(Err(AppendError::Closed)))
            }
        }
    }
}

/// What queued records take: of the bound, or of the reserve.
#[derive(Clone, Copy)]
struct Room {
    permits: u32,
    reserved: usize,
}

/// Someone who waits for a record.
pub(super) struct Waiter {
    pub(super) durable: bool,
    pub(super) answer: oneshot::Sender<Answer>,
}

impl Waiter {
    /// Whoever no longer waits does not need the answer.
    pub(super) fn settle(self, answer: Answer) {
        drop(self.answer.send(answer));
    }
}

/// A queued record with the room that it takes.
pub(super) struct Entry {
    pub(super) record: Record,
    pub(super) room: u32,
    pub(super) reserved: usize,
    pub(super) waiter: Option<Waiter>,
}

/// What the writer has to do next.
pub(super) enum Work {
    /// Entries were taken from the queue.
    Batch,
    /// A flush failed.
    SyncFailed(Arc<io::Error>),
    /// Nothing more will come.
    Stop(Option<oneshot::Sender<Answer>>),
}

#[derive(Clone)]
enum State {
    Works,
    Failed(AppendError),
    Closed,
}

impl State {
    fn check(&self) -> Answer {
        match self {
            Self::Works => Ok(()),
            Self::Failed(error) => Err(error.clone()),
            Self::Closed => Err(AppendError::Closed),
        }
    }
}

struct Queue {
    entries: Vec<Entry>,
    state: State,
    /// Whether the writer sleeps: only then does a push need to wake it.
    idle: bool,
    probes: Vec<oneshot::Sender<Answer>>,
    sync_failed: Option<Arc<io::Error>>,
    stop: bool,
    closing: Option<oneshot::Sender<Answer>>,
}

/// What writer, flusher and handles share.
pub(super) struct Shared {
    directory: PathBuf,
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Semaphore,
    room_max: usize,
    reserved: AtomicUsize,
    epoch: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) writes: AtomicU64,
    segment: Mutex<(SegmentId, u64)>,
    error: Mutex<Option<String>>,
    pub(super) sync: Arc<super::sync::Syncer>,
    pub(super) index: Arc<super::index::Feed>,
}

impl Shared {
    pub(super) fn new(
        directory: PathBuf,
        queue_bytes_max: usize,
        segment: SegmentId,
        sync: Arc<super::sync::Syncer>,
        index: Arc<super::index::Feed>,
    ) -> Self {
        let room_max = queue_bytes_max.clamp(1, QUEUE_BYTES_LIMIT);
        Self {
            directory,
            queue: Mutex::new(Queue {
                entries: Vec::new(),
                state: State::Works,
                idle: false,
                probes: Vec::new(),
                sync_failed: None,
                stop: false,
                closing: None,
            }),
            wake: Condvar::new(),
            room: Semaphore::new(room_max),
            room_max,
            reserved: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            segment: Mutex::new((segment, 0)),
            error: Mutex::new(None),
            sync,
            index,
        }
    }

    /// A record heavier than the whole bound takes all of it: it goes alone.
    fn permits(&self, weight: usize) -> u32 {
        u32::try_from(weight.min(self.room_max)).expect("the bound fits, see QUEUE_BYTES_LIMIT")
    }

    fn push(&self, entry: Entry) -> Answer {
        let mut queue = lock(&self.queue);
        if let Err(error) = queue.state.check() {
            drop(queue);
            self.free(entry.room, entry.reserved);
            return Err(error);
        }
        queue.entries.push(entry);
        self.wake(queue);
        Ok(())
    }

    fn check(&self) -> Answer {
        lock(&self.queue).state.check()
    }

    fn room_or_reserve(&self, weight: usize) -> Result<Room, AppendError> {
        let permits = self.permits(weight);
        if let Ok(permit) = self.room.try_acquire_many(permits) {
            permit.forget();
            return Ok(Room { permits, reserved: 0 });
        }
        let taken = self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(weight).filter(|used| *used <= RESERVE_BYTES)
        });
        taken.map_err(|_| AppendError::Full)?;
        Ok(Room { permits: 0, reserved: weight })
    }

    fn push_all(&self, records: Vec<Record>, room: Room, waiter: Option<Waiter>) -> Answer {
        let mut queue = lock(&self.queue);
        if let Err(error) = queue.state.check() {
            drop(queue);
            self.free(room.permits, room.reserved);
            return Err(error);
        }
        let entries = records.into_iter();
        queue.entries.extend(entries.map(|record| Entry {
            record,
            room: 0,
            reserved: 0,
            waiter: None,
        }));
        if let Some(last) = queue.entries.last_mut() {
            last.room = room.permits;
            last.reserved = room.reserved;
            last.waiter = waiter;
        }
        self.wake(queue);
        Ok(())
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let idle = std::mem::take(&mut queue.idle);
        drop(queue);
        if idle {
            self.wake.notify_one();
        }
    }

    /// Gives room back.
    pub(super) fn free(&self, room: u32, reserved: usize) {
        if room > 0 {
            self.room.add_permits(room as usize);
        }
        if reserved > 0 {
            self.reserved.fetch_sub(reserved, Ordering::Relaxed);
        }
    }

    /// Waits for work; swaps the queue with the empty `batch`, so that neither is ever allocated anew.
    pub(super) fn take(&self, batch: &mut Vec<Entry>) -> Work {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(error) = queue.sync_failed.take() {
                return Work::SyncFailed(error);
            }
            if !queue.entries.is_empty() {
                std::mem::swap(&mut queue.entries, batch);
                return Work::Batch;
            }
            for probe in queue.probes.drain(..) {
                drop(probe.send(Ok(())));
            }
            if queue.stop {
                queue.state = State::Closed;
                return Work::Stop(queue.closing.take());
            }
            queue.idle = true;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle = false;
        }
    }

    /// From now on everything is refused; what is queued is handed back to be refused too.
    pub(super) fn fail(&self, error: &AppendError, batch: &mut Vec<Entry>) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        *lock(&self.error) = Some(chain(error));
        let mut queue = lock(&self.queue);
        queue.state = State::Failed(error.clone());
        batch.append(&mut queue.entries);
    }

    /// Waits before the next attempt to write again; true when there will be none.
    pub(super) fn pause(&self, how_long: std::time::Duration) -> bool {
        let mut queue = lock(&self.queue);
        if queue.probes.is_empty() && !queue.stop {
            queue.idle = true;
            queue =
                self.wake.wait_timeout(queue, how_long).unwrap_or_else(PoisonError::into_inner).0;
            queue.idle = false;
        }
        // What the flusher said of the old file is settled by the failure that is being handled.
        queue.sync_failed = None;
        queue.stop
    }

    /// Says what came of an attempt.
    pub(super) fn attempted(&self, result: &Answer) {
        let mut queue = lock(&self.queue);
        if let Err(error) = result {
            *lock(&self.error) = Some(chain(error));
            queue.state = State::Failed(error.clone());
        } else {
            queue.state = State::Works;
            queue.sync_failed = None;
        }
        for probe in queue.probes.drain(..) {
            drop(probe.send(result.clone()));
        }
    }

    fn probe(&self) -> Result<oneshot::Receiver<Answer>, Answer> {
        let mut queue = lock(&self.queue);
        if !matches!(queue.state, State::Failed(_)) {
            return Err(queue.state.check());
        }
        let (probe, answer) = oneshot::channel();
        queue.probes.push(probe);
        self.wake(queue);
        Ok(answer)
    }

    /// Called by the flusher before it tells its waiters: from then on nothing is taken.
    pub(super) fn sync_failed(&self, error: Arc<io::Error>) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        let mut queue = lock(&self.queue);
        if matches!(queue.state, State::Works) {
            let source = Arc::clone(&error);
            queue.state = State::Failed(AppendError::Failed { step: "fdatasync", source });
        }
        queue.sync_failed = Some(error);
        self.wake(queue);
    }

    /// Lets the writer finish what is queued and end; `closing` hears of it, and asks for a seal.
    pub(super) fn stop(&self, closing: Option<oneshot::Sender<Answer>>) {
        let mut queue = lock(&self.queue);
        queue.stop = true;
        queue.closing = closing.or(queue.closing.take());
        self.wake(queue);
    }

    /// The writer ended: nothing is taken, nobody waits for room.
    pub(super) fn close(&self) -> (Vec<Entry>, Option<oneshot::Sender<Answer>>) {
        self.room.close();
        let mut queue = lock(&self.queue);
        queue.state = State::Closed;
        queue.probes.clear();
        (std::mem::take(&mut queue.entries), queue.closing.take())
    }

    /// A queued record could not be kept although the store works.
    pub(super) fn refused(&self, error: &AppendError) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        *lock(&self.error) = Some(chain(error));
    }

    pub(super) fn at(&self, segment: SegmentId, bytes: u64) {
        *lock(&self.segment) = (segment, bytes);
    }

    fn health(&self) -> StoreHealth {
        // One lock at a time: temporaries in the literal below would live until its end.
        let (segment, segment_bytes) = *lock(&self.segment);
        let writable = matches!(lock(&self.queue).state, State::Works);
        let error = lock(&self.error).clone();
        StoreHealth {
            writable,
            error,
            epoch: self.epoch.load(Ordering::Acquire),
            written_bytes: self.written_bytes.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            writes: self.writes.load(Ordering::Relaxed),
            queue_bytes: self.room_max.saturating_sub(self.room.available_permits())
                + self.reserved.load(Ordering::Relaxed),
            queue_bytes_max: self.room_max,
            segment,
            segment_bytes,
            sync: self.sync.health(),
            index: self.index.health(),
            free_disk_bytes: super::free_disk::free_disk_bytes(&self.directory),
        }
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A panic elsewhere leaves plain data behind these locks, which stays usable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn waiter(need: Need) -> (Option<Waiter>, Option<oneshot::Receiver<Answer>>) {
    if need == Need::Queued {
        return (None, None);
    }
    let (answer, receiver) = oneshot::channel();
    (Some(Waiter { durable: need == Need::Durable, answer }), Some(receiver))
}

async fn wait(answer: Option<oneshot::Receiver<Answer>>) -> Answer {
    match answer {
        // The writer ended without an answer: it is not certain that the record is kept.
        Some(answer) => answer.await.unwrap_or(Err(AppendError::Closed)),
        None => Ok(()),
    }
}

fn weigh_all(records: &[Record]) -> Result<usize, AppendError> {
    records.iter().try_fold(0_usize, |sum, record| Ok(sum.saturating_add(weigh(record)?)))
}

/// What a record takes in the queue: close to its memory, cheap to find.
fn weigh(record: &Record) -> Result<usize, AppendError> {
    let headers = |headers: &[(String, String)]| -> usize {
        headers.iter().map(|(name, value)| name.len() + value.len() + 48).sum()
    };
    let bytes = match record {
        Record::Chunk(chunk) => chunk.data.len() + 64,
        Record::Unknown { payload, .. } => payload.len(),
        Record::ExchangeOpened(opened) => {
            let head = opened.head.as_ref();
            1024 + head.map_or(0, |head| head.target.len() * 2 + headers(&head.headers))
        }
        Record::ResponseStarted(started) => headers(&started.head.headers),
        Record::ExchangeSettled(settled) => 1024 + settled.objects.len() * 256,
        _ => 512,
    };
    // Only chunks can come near: this refuses them before they are queued.
    if bytes > PAYLOAD_BYTES_MAX {
        return Err(AppendError::TooLarge { bytes });
    }
    Ok(bytes + 256)
}

/// How far [`Recorder::try_append`] may exceed the queue's bound; beyond it a record is refused.
pub const RESERVE_BYTES: usize = 4 << 20;

/// A larger bound than this is cut to it: the semaphore counts permits of one call in 32 bits.
const QUEUE_BYTES_LIMIT: usize = 1 << 30;
