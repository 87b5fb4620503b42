//! The bounded queue between the handles and the writer, and what they know of each other.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Semaphore, oneshot};

use super::{
    floor::Floor,
    index::Feed,
    recorder::{AppendError, RESERVE_BYTES, StoreHealth},
    sync::Syncer,
};
use crate::model::{Record, SegmentId};

pub(super) type Answer = Result<(), AppendError>;

/// What queued records take: of the bound, or of the reserve.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) permits: u32,
    pub(super) reserved: usize,
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

/// Records that were not queued, and why.
pub(super) struct Refused {
    pub(super) records: Vec<Record>,
    pub(super) error: AppendError,
}

/// What the writer has to do next.
pub(super) enum Work {
    /// Entries were taken from the queue.
    Batch,
    /// A flush failed.
    SyncFailed(Arc<io::Error>),
    /// The time that was named has come, and there is nothing to write.
    Due,
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

/// What the writer does, and so what wakes it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It works, and looks at the queue before it sleeps.
    Work,
    /// It lets records gather, until something presses or the time is up.
    Gather,
    /// It sleeps until there is something.
    Sleep,
}

struct Queue {
    entries: Vec<Entry>,
    /// What the entries take, of the bound and of the reserve.
    weight: usize,
    /// Whether someone waits for an entry, or for the room that the entries take.
    pressing: bool,
    state: State,
    doing: Doing,
    probes: Vec<oneshot::Sender<Answer>>,
    sync_failed: Option<Arc<io::Error>>,
    stop: bool,
    closing: Option<oneshot::Sender<Answer>>,
}

/// The segment that is written.
#[derive(Clone, Copy)]
struct Written {
    segment: SegmentId,
    bytes: u64,
    begun: Instant,
}

/// What writer, flusher and handles share.
pub(super) struct Shared {
    pub(super) directory: PathBuf,
    pub(super) floor: Arc<Floor>,
    queue: Mutex<Queue>,
    wake: Condvar,
    pub(super) room: Semaphore,
    room_max: usize,
    /// How many wait for room.
    waiting: AtomicUsize,
    reserved: AtomicUsize,
    pub(super) epoch: AtomicU64,
    pub(super) written_bytes: AtomicU64,
    pub(super) records: AtomicU64,
    pub(super) writes: AtomicU64,
    segment: Mutex<Written>,
    error: Mutex<Option<String>>,
    pub(super) sync: Arc<Syncer>,
    pub(super) index: Arc<Feed>,
}

impl Shared {
    pub(super) fn new(
        directory: PathBuf,
        floor: Arc<Floor>,
        queue_bytes_max: usize,
        segment: SegmentId,
        sync: Arc<Syncer>,
        index: Arc<Feed>,
    ) -> Self {
        let room_max = queue_bytes_max.clamp(1, QUEUE_BYTES_LIMIT);
        Self {
            directory,
            floor,
            queue: Mutex::new(Queue {
                entries: Vec::new(),
                weight: 0,
                pressing: false,
                state: State::Works,
                doing: Doing::Work,
                probes: Vec::new(),
                sync_failed: None,
                stop: false,
                closing: None,
            }),
            wake: Condvar::new(),
            room: Semaphore::new(room_max),
            room_max,
            waiting: AtomicUsize::new(0),
            reserved: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            records: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            segment: Mutex::new(Written { segment, bytes: 0, begun: Instant::now() }),
            error: Mutex::new(None),
            sync,
            index,
        }
    }

    /// A record heavier than the whole bound takes all of it: it goes alone.
    pub(super) fn permits(&self, weight: usize) -> u32 {
        u32::try_from(weight.min(self.room_max)).expect("the bound fits, see QUEUE_BYTES_LIMIT")
    }

    pub(super) fn push(&self, entry: Entry) -> Answer {
        let mut queue = lock(&self.queue);
        if let Err(error) = queue.state.check() {
            drop(queue);
            self.free(entry.room, entry.reserved);
            return Err(error);
        }
        queue.weight += entry.room as usize + entry.reserved;
        queue.pressing |= entry.waiter.is_some();
        queue.entries.push(entry);
        self.queued(queue);
        Ok(())
    }

    pub(super) fn room_or_reserve(&self, weight: usize) -> Result<Room, AppendError> {
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

    /// Queues records, of which there is one at least, as one.
    pub(super) fn push_all(
        &self,
        records: Vec<Record>,
        room: Room,
        waiter: Option<Waiter>,
    ) -> Result<(), Refused> {
        let mut queue = lock(&self.queue);
        if let Err(error) = queue.state.check() {
            drop(queue);
            self.free(room.permits, room.reserved);
            return Err(Refused { records, error });
        }
        let waits = waiter.is_some();
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
        queue.weight += room.permits as usize + room.reserved;
        queue.pressing |= waits;
        self.queued(queue);
        Ok(())
    }

    /// Wakes the writer if it sleeps; if it only lets records gather, when these must not wait.
    fn queued(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.pressing |= queue.weight >= GATHER_BYTES_MAX.min(self.room_max)
            || self.waiting.load(Ordering::Relaxed) > 0;
        if queue.doing == Doing::Sleep || queue.pressing {
            self.wake(queue);
        }
    }

    /// Waits for room; meanwhile nothing is left to gather.
    pub(super) async fn acquire(&self, permits: u32) -> Result<(), AppendError> {
        let permit = if let Ok(permit) = self.room.try_acquire_many(permits) {
            permit
        } else {
            let _waiting = Waiting::for_room(self);
            self.room.acquire_many(permits).await.map_err(|_| AppendError::Closed)?
        };
        permit.forget();
        Ok(())
    }

    fn wake(&self, mut queue: MutexGuard<'_, Queue>) {
        let doing = std::mem::replace(&mut queue.doing, Doing::Work);
        drop(queue);
        if doing != Doing::Work {
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
    /// Records that nobody waits for gather for a moment: one wake-up and one write serve them all.
    pub(super) fn take(&self, batch: &mut Vec<Entry>, due: Option<Instant>) -> Work {
        let mut queue = lock(&self.queue);
        let mut gathered = None;
        loop {
            if let Some(error) = queue.sync_failed.take() {
                return Work::SyncFailed(error);
            }
            if !queue.entries.is_empty() {
                let until = *gathered.get_or_insert_with(|| Instant::now() + GATHER);
                let left = until.saturating_duration_since(Instant::now());
                if !(queue.pressing || queue.stop || left.is_zero()) {
                    queue.doing = Doing::Gather;
                    let woken = self.wake.wait_timeout(queue, left);
                    queue = woken.unwrap_or_else(PoisonError::into_inner).0;
                    queue.doing = Doing::Work;
                    continue;
                }
                (queue.weight, queue.pressing) = (0, false);
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
            let left = due.map(|due| due.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Work::Due;
            }
            queue.doing = Doing::Sleep;
            queue = match left {
                None => self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let woken = self.wake.wait_timeout(queue, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queue.doing = Doing::Work;
        }
    }

    /// From now on everything is refused; what is queued is handed back to be refused too.
    pub(super) fn fail(&self, error: &AppendError, batch: &mut Vec<Entry>) {
        *lock(&self.error) = Some(chain(error));
        let mut queue = lock(&self.queue);
        // Under the lock: who sees the new count must not queue what is handed back here.
        self.epoch.fetch_add(1, Ordering::AcqRel);
        queue.state = State::Failed(error.clone());
        (queue.weight, queue.pressing) = (0, false);
        batch.append(&mut queue.entries);
    }

    /// Waits before the next attempt to write again; true when there will be none.
    pub(super) fn pause(&self, how_long: Duration) -> bool {
        let mut queue = lock(&self.queue);
        if queue.probes.is_empty() && !queue.stop {
            queue.doing = Doing::Sleep;
            queue =
                self.wake.wait_timeout(queue, how_long).unwrap_or_else(PoisonError::into_inner).0;
            queue.doing = Doing::Work;
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

    pub(super) fn probe(&self) -> Result<oneshot::Receiver<Answer>, Answer> {
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
        let mut written = lock(&self.segment);
        if written.segment != segment {
            *written = Written { segment, bytes, begun: Instant::now() };
        }
        written.bytes = bytes;
    }

    pub(super) fn health(&self) -> StoreHealth {
        // One lock at a time: temporaries in the literal below would live until its end.
        let Written { segment, bytes: segment_bytes, begun } = *lock(&self.segment);
        let (space, floor_bytes) = self.floor.seen();
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
            segment_begun: begun,
            space,
            floor_bytes,
            low_space: self.floor.is_low(),
        }
    }
}

/// One who waits for room, until dropped.
struct Waiting<'a>(&'a Shared);

impl<'a> Waiting<'a> {
    fn for_room(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        // Under the lock: whoever queues from here on sees that someone waits.
        let mut queue = lock(&shared.queue);
        queue.pressing = true;
        shared.wake(queue);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
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

/// A larger bound than this is cut to it: the semaphore counts permits of one call in 32 bits.
const QUEUE_BYTES_LIMIT: usize = 1 << 30;
/// How long records that nobody waits for may gather before they are written: a part of the 200 ms within
/// which they are durable.
const GATHER: Duration = Duration::from_millis(20);
/// So many bytes are not left to gather: a fast stream is written as it comes.
const GATHER_BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests;
